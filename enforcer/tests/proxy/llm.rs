//! What a model says passes masked, though its secret comes a letter an event.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::kit::client::{Sent, empty, text};
use crate::kit::{Kit, Options, SECRET};

const MASKED: &str = "The key is [MASKED:DEPLOY_KEY], and no other.";

fn body(text: impl Into<Bytes>) -> Sent {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The values of the events of a stream.
fn values(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn joined(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()).collect()
}

/// The events that were recorded of answers, of this kind.
fn recorded(kit: &Kit, kind: &str) -> Vec<Value> {
    let mut events = kit.events(kind);
    events.retain(|event| event["direction"] == "response");
    events
}

/// What was recorded of the text at a place of each event of an answer.
fn recorded_text(kit: &Kit, pointer: &str) -> String {
    let bodies = recorded(kit, "body");
    let body: String = bodies.iter().filter_map(|event| event["text"].as_str()).collect();
    joined(&values(&body), pointer)
}

#[tokio::test]
async fn a_secret_a_letter_an_event_reaches_neither_client_nor_recording() {
    for coding in ["", "gzip"] {
        let kit = Kit::start(Options::default()).await;
        let mut client = kit.client("masked.test", coding.is_empty()).await;
        let request = kit.request("masked.test", &format!("/v1/chat/completions?{coding}")).method("POST");
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let mut stream = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        if coding == "gzip" {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&stream[..]), &mut text)
                .unwrap();
            stream = text;
        }
        let stream = String::from_utf8(stream).unwrap();
        assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
        let values = values(&stream);
        assert_eq!(joined(&values, "/choices/0/delta/content"), MASKED);
        let arguments = joined(&values, "/choices/0/delta/tool_calls/0/function/arguments");
        assert_eq!(arguments, r#"{"cmd":"sudo echo [MASKED:DEPLOY_KEY]"}"#);
        assert_eq!(values.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
        kit.recorded_text("\"event\":\"body-end\",\"statement\":1,\"direction\":\"response\"").await;
        let log = kit.recorded_text("tool-call").await;
        assert!(log.contains(r#""name":"sh""#), "{log}");
        assert!(log.contains(r#""risks":[{"effect":"privilege","#), "{log}");
        assert_eq!(recorded_text(&kit, "/choices/0/delta/content"), MASKED);
    }
}

#[tokio::test]
async fn where_nothing_is_masked_the_recording_holds_no_secret_in_pieces() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/v1/chat/completions").method("POST");
    let response = client.send(request.body(empty()).unwrap()).await.unwrap();
    let stream = text(response).await;
    let said = joined(&values(&stream), "/choices/0/delta/content");
    assert!(said.contains(SECRET), "policy lets it pass: {said}");
    kit.recorded_text("\"event\":\"body-end\",\"statement\":1,\"direction\":\"response\"").await;
    assert_eq!(recorded_text(&kit, "/choices/0/delta/content"), MASKED);
}

#[tokio::test]
async fn thinking_that_is_signed_ends_with_the_error_of_its_own_api() {
    for coding in ["", "gzip"] {
        let kit = Kit::start(Options::default()).await;
        let mut client = kit.client("masked.test", coding.is_empty()).await;
        let request = kit.request("masked.test", &format!("/v1/messages?{coding}")).method("POST");
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let mut stream = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        if coding == "gzip" {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&stream[..]), &mut text)
                .unwrap();
            stream = text;
        }
        let values = values(&String::from_utf8(stream).unwrap());
        assert_eq!(joined(&values, "/delta/thinking"), MASKED);
        let last = values.last().unwrap();
        assert_eq!((&last["type"], values.len() > 2), (&Value::from("error"), true));
        assert!(last["error"]["message"].as_str().unwrap().contains("signed-thinking"), "{last}");
        assert!(!values.iter().any(|value| value["delta"]["type"] == "signature_delta"));
        kit.recorded_text("signed-thinking").await;
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_breaks_off_where_signed_thinking_would_be_changed() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2("masked.test").await;
    let mut ask = async |path: &str| {
        let request = kit.request("masked.test", path).method("POST").body(empty()).unwrap();
        client.send(request).await?.into_body().collect().await
    };
    let unsigned = ask("/v1/messages?whole").await.unwrap().to_bytes();
    let value: Value = serde_json::from_slice(&unsigned).unwrap();
    assert_eq!(value["content"][0]["thinking"], MASKED);
    assert!(ask("/v1/messages?whole-signed").await.is_err());
    kit.recorded_text("signed-thinking").await;
}

#[tokio::test]
async fn a_request_with_signed_thinking_is_refused_and_an_image_stays() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("masked.test").await;
    let ask = |json: String| {
        let request = kit.request("masked.test", "/v1/messages?echo").method("POST");
        request.header("content-type", "application/json").body(body(json)).unwrap()
    };
    let image = format!("iVBORw0KGgo{}", "0123456789abcdef".repeat(30));
    let json = format!(r#"{{"messages":[{{"text":"a {SECRET} b","data":"{image}"}}]}}"#);
    let back = text(client.send(ask(json.clone())).await.unwrap()).await;
    assert_eq!(back, json.replace(SECRET, "[MASKED:DEPLOY_KEY]"));
    let signature = "Eq".repeat(80);
    let json = format!(r#"{{"type":"thinking","thinking":"so {SECRET}","signature":"{signature}"}}"#);
    let response = client.send(ask(json.clone())).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(text(response).await.contains("signed-thinking"));
}

#[tokio::test]
async fn messages_of_a_websocket_are_masked_across_each_other() {
    let kit = Kit::start(Options::default()).await;
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let head = format!(
        "GET /v1/responses HTTP/1.1\r\nhost: masked.test:{}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        kit.upstream.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let asked = format!(r#"{{"type":"response.create","input":"a {SECRET} b"}}"#);
    socket.send(asked.clone().into()).await.unwrap();
    let mut values: Vec<Value> = Vec::new();
    while values.last().is_none_or(|last| last["type"] != "response.create") {
        let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(!message.contains(SECRET), "{message}");
        values.push(serde_json::from_str(message.as_str()).unwrap());
    }
    let echoed = values.pop().unwrap();
    assert_eq!(echoed["input"], "a [MASKED:DEPLOY_KEY] b");
    assert_eq!(joined(&values, "/delta"), MASKED);
    let last = values.last().unwrap();
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], MASKED);
    socket.close(None).await.unwrap();
    kit.recorded_text("response.completed").await;
    let messages = recorded(&kit, "message");
    let messages: Vec<Value> =
        messages.iter().map(|event| serde_json::from_str(event["text"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(joined(&messages, "/delta"), MASKED);
}
