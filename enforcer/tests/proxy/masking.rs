//! A secret does not pass where masking is asked for, and is never recorded.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::client::{empty, text};
use crate::kit::{Kit, Options, SECRET};

#[tokio::test]
async fn a_secret_split_anywhere_reaches_neither_client_nor_recording() {
    let kit = Kit::start(Options::default()).await;
    let placeholder = "before [MASKED:DEPLOY_KEY] after";
    for h2 in [false, true] {
        let mut client = kit.client("masked.test", h2).await;
        for coding in ["plain", "gzip"] {
            for at in 0..=format!("before {SECRET} after").len() {
                let path = format!("/secret?{coding}={at}");
                let request = kit.request("masked.test", &path).body(empty()).unwrap();
                let response = client.send(request).await.unwrap();
                assert_eq!(response.headers()["x-key"], "[MASKED:DEPLOY_KEY]");
                assert_eq!(response.headers()["etag"], "W/\"tag\"");
                assert!(!response.headers().contains_key("alt-svc"));
                let mut body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
                if coding == "gzip" {
                    let mut text = Vec::new();
                    let mut decoder = flate2::read::MultiGzDecoder::new(&body[..]);
                    std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
                    body = text;
                }
                assert_eq!(String::from_utf8(body).unwrap(), placeholder, "{coding} at {at}");
            }
        }
    }
    // Not masked on the wire, and still not in the recording.
    let mut client = kit.h1("allowed.test").await;
    for coding in ["plain", "gzip"] {
        let request = kit.request("allowed.test", &format!("/secret?{coding}=20"));
        let request = request.header("authorization", "Bearer any-token-at-all").body(empty());
        let response = client.send(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-key"], SECRET);
        response.into_body().collect().await.unwrap();
    }
    let request = kit.request("allowed.test", "/echo").method("POST").header("x-key", SECRET);
    let body = Full::new(Bytes::from(SECRET)).map_err(|never| match never {}).boxed_unsync();
    let response = client.send(request.body(body).unwrap()).await.unwrap();
    assert_eq!(text(response).await, SECRET);
    let recorded = kit.recorded_text("MASKED:DEPLOY_KEY").await;
    assert!(!recorded.contains(SECRET));
    assert!(!recorded.contains("any-token-at-all"));
    use base64::Engine;
    let coded = base64::engine::general_purpose::STANDARD.encode(SECRET);
    assert!(!recorded.contains(&coded));
}

#[tokio::test]
async fn a_secret_in_a_request_does_not_reach_the_upstream() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("masked.test", h2).await;
        let request = kit.request("masked.test", "/headers").header("x-key", SECRET);
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let seen = text(response).await;
        assert!(seen.contains("[MASKED:DEPLOY_KEY]") && !seen.contains(SECRET), "{seen}");
        let request = kit.request("masked.test", "/echo").method("POST");
        let body = Full::new(Bytes::from(format!("a {SECRET} b")));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let response = client.send(request.body(body).unwrap()).await.unwrap();
        assert_eq!(text(response).await, "a [MASKED:DEPLOY_KEY] b");
        let request = kit.request("masked.test", &format!("/x/{SECRET}")).body(empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(text(response).await.contains("secret-in-path"));
    }
}

const PARTS: &str = r#"
version: 1
name: parts
rules:
  - id: parts
    when: {host: masked.test}
    mask:
      request:
        - exact
        - {select: {header: x-own}, strategy: keep-last-4}
        - {select: {header: x-api-key}, strategy: observe}
        - {select: {cookie: sid}, strategy: surrogate}
        - {select: {query: pin}}
        - {select: {form: pin}}
        - {select: {json: '$.user.pin'}}
        - {entity: CARD_NUMBER, strategy: deny}
        - {entity: IBAN, strategy: hold}
        - {entity: EMAIL, strategy: observe}
      response: [{entity: CARD_NUMBER, strategy: deny}]
    addresses: [loopback]
    allow: true
"#;

fn posted(kit: &Kit, kind: &str, body: &'static str) -> http::Request<crate::kit::client::Sent> {
    let request = kit.request("masked.test", "/echo").method("POST").header("content-type", kind);
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    request.body(body.map_err(|never| match never {}).boxed_unsync()).unwrap()
}

#[tokio::test]
async fn parts_are_masked_by_their_names_and_in_their_own_ways() {
    let kit = Kit::start(Options { policy: Some(PARTS), ..Options::default() }).await;
    for h2 in [false, true] {
        let mut client = kit.client("masked.test", h2).await;
        let request = kit.request("masked.test", "/headers?a=1&pin=4711");
        let request = request.header("x-own", "anything-at-all-6789").header("x-api-key", SECRET);
        let request = request.header("cookie", format!("sid=fortytwo; b={SECRET}"));
        let seen = text(client.send(request.body(empty()).unwrap()).await.unwrap()).await;
        assert!(
            seen.contains("[MASKED:X_OWN:...6789]") && seen.contains(&format!("x-api-key: \"{SECRET}")),
            "{seen}"
        );
        assert!(seen.contains("sid=[SID:") && seen.contains("; b=[MASKED:DEPLOY_KEY]"), "{seen}");
        assert!(!seen.contains("fortytwo") && !seen.contains("anything-at-all"), "{seen}");
        let json = "application/json";
        let form = "application/x-www-form-urlencoded";
        for (kind, body, wanted) in [
            (json, r#"{"user": {"pin": 4711}, "pin": 1}"#, r#"{"user": {"pin": "[MASKED:PIN]"}, "pin": 1}"#),
            (form, "a=1&pin=4711", "a=1&pin=%5BMASKED:PIN%5D"),
            (json, r#"{"mail": "me@example.org"}"#, r#"{"mail": "me@example.org"}"#),
        ] {
            assert_eq!(text(client.send(posted(&kit, kind, body)).await.unwrap()).await, wanted);
        }
    }
    let recorded = kit.recorded_text("MASKED:PIN").await;
    for secret in ["4711", "fortytwo", "anything-at-all", SECRET] {
        assert!(!recorded.contains(secret), "{secret} is recorded");
    }
}

#[tokio::test]
async fn what_a_strategy_denies_or_holds_does_not_go_out() {
    let kit = Kit::start(Options { policy: Some(PARTS), ..Options::default() }).await;
    for (body, reason) in [
        ("card 4111 1111 1111 1111 of mine", "secret-in-body"),
        ("pay to GB82 WEST 1234 5698 7654 32 now", "held"),
    ] {
        for h2 in [false, true] {
            let mut client = kit.client("masked.test", h2).await;
            let response = client.send(posted(&kit, "text/plain", body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{body}");
            assert!(text(response).await.contains(reason), "{body}");
            let mut client = kit.client("masked.test", h2).await;
            let request = kit.request("masked.test", "/headers").header("x-note", body);
            let response = client.send(request.body(empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{body} in a header");
            assert!(text(response).await.contains(reason), "{body} in a header");
        }
    }
    let recorded = kit.recorded_text("secret-in-body").await;
    assert!(!recorded.contains("4111 1111") && !recorded.contains("GB82 WEST"));
}

#[tokio::test]
async fn websocket_messages_are_relayed_and_masked() {
    let kit = Kit::start(Options::default()).await;
    let stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let port = kit.upstream.port();
    let mut stream = stream;
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: masked.test:{port}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && !answer.contains("deflate"), "{answer}");
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
    socket.send(format!("a {SECRET} b").into()).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back.into_text().unwrap().as_str(), "a [MASKED:DEPLOY_KEY] b");
    socket.close(None).await.unwrap();
    let recorded = kit.recorded_text("\"event\":\"message\"").await;
    assert!(!recorded.contains(SECRET));
}
