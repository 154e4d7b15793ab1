//! What is found is told with its rule and its place, and never shown.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::client::{empty, text};
use crate::kit::websocket::echoing;
use crate::kit::{Kit, Options, SECRET, until};
use crate::requests::ask;

const EXACT: &str = "exact:DEPLOY_KEY";

/// All findings that were recorded of one direction, once there are so many.
async fn found(kit: &Kit, direction: &str, many: usize) -> Vec<Value> {
    let all = || {
        let mut events = kit.events("findings");
        events.retain(|event| event["direction"] == direction);
        events.iter().flat_map(|event| event["findings"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    until("the findings are recorded", async || all().len() >= many).await;
    assert!(memchr::memmem::find(&kit.recorded(), SECRET.as_bytes()).is_none());
    all()
}

fn one(place: Value, at: Value) -> Value {
    let mut one = json!({"entity": "DEPLOY_KEY", "rule": EXACT, "count": 1, "place": place});
    if !at.is_null() {
        one["at"] = at;
    }
    one
}

#[tokio::test]
async fn a_request_tells_where_in_it_something_was_found() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("masked.test").await;
    let form = "application/x-www-form-urlencoded";
    let long = format!("{}{SECRET}", "x ".repeat(1000));
    let keyed = json!({"a": [1, {"k": SECRET}], SECRET: {"mail": SECRET}}).to_string();
    for (kind, body) in
        [("application/json", keyed), (form, format!("a=1&pin={SECRET}")), ("text/plain", long)]
    {
        let request = kit.request("masked.test", &format!("/echo?a=1&key={SECRET}")).method("POST");
        let request = request.header("content-type", kind).header("x-key", SECRET);
        let request = request.header("cookie", format!("a=1; sid={SECRET}"));
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let response = client.send(request.body(body).unwrap()).await.unwrap();
        assert!(!text(response).await.contains(SECRET));
    }
    let all = found(&kit, "request", 3 * 3 + 5).await;
    for wanted in [
        one(json!("query"), json!({"field": "key"})),
        one(json!({"header": "x-key"}), Value::Null),
        one(json!({"header": "cookie"}), json!({"field": "sid"})),
        one(json!("body"), json!({"json": "$.a[1].k"})),
        one(json!("body"), json!({"json": "$[\"[MASKED:DEPLOY_KEY]\"].mail"})),
        one(json!("body"), json!({"json": "$.?"})),
        one(json!("body"), json!({"field": "pin"})),
        one(json!("body"), json!("first-mib")),
    ] {
        assert!(all.contains(&wanted), "{wanted} in {all:#?}");
    }
    let counts = serde_json::to_value(kit.found.counts()).unwrap();
    assert_eq!(counts[0]["entity"], "DEPLOY_KEY");
    assert_eq!(counts[0]["requests"], all.len(), "{counts}");
}

#[tokio::test]
async fn answers_and_messages_tell_it_too() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("masked.test").await;
    let request = kit.request("masked.test", "/v1/chat/completions").method("POST");
    text(client.send(request.body(empty()).unwrap()).await.unwrap()).await;
    let all = found(&kit, "response", 2).await;
    let wanted = one(json!("body"), json!({"json": "$.choices[0].delta.content"}));
    assert!(all.contains(&wanted), "{all:#?}");
    let mut socket = echoing(&kit).await;
    socket.send(json!({"say": ["a", SECRET]}).to_string().into()).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let all = found(&kit, "request", 1).await;
    assert_eq!(all, [one(json!("web-socket"), json!({"json": "$.say[1]"}))]);
}

#[tokio::test]
async fn what_the_recording_does_not_keep_is_told_all_the_same() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("masked.test").await;
    let body = format!("{}{SECRET}", "x ".repeat(1 << 20));
    let request = kit.request("masked.test", "/echo").method("POST");
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    text(client.send(request.body(body).unwrap()).await.unwrap()).await;
    assert_eq!(found(&kit, "request", 1).await, [one(json!("body"), json!("beyond"))]);
}

/// `secret_key=1234` in hexadecimal digits.
const ENCODED: &str = "7365637265745f6b65793d31323334";
const NAMES: &str = r#"
version: 1
name: names
rules:
  - id: threats
    when: {host: "**.open.test"}
    mask: {request: [threats]}
  - id: told
    when: {host: "**.told.test"}
    mask: {request: [{entity: ENCODED_HOSTNAME, strategy: observe}]}
  - id: rest
    when: {host: "**.test"}
    addresses: [loopback]
    allow: true
"#;

fn named(kit: &Kit) -> usize {
    let finding =
        json!({"entity": "ENCODED_HOSTNAME", "rule": "encoded-hostname", "count": 1, "place": "host"});
    let events = kit.events("findings");
    events.iter().filter(|event| event["findings"] == json!([finding])).count()
}

#[tokio::test]
async fn a_name_in_which_data_is_sent_goes_where_policy_says() {
    let kit = Kit::start(Options { policy: Some(NAMES), ..Options::default() }).await;
    let name = format!("{ENCODED}.x.open.test");
    let mut client = kit.h2(&name).await;
    let response = client.send(kit.request(&name, "/").body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(text(response).await.contains("data-in-name"));
    until("the finding is recorded", async || named(&kit) == 1).await;
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0, "it was asked for");

    let kit = Kit::start(Options { policy: Some(NAMES), plain: true, ..Options::default() }).await;
    for (name, status, all) in [
        (format!("{ENCODED}.x.open.test"), "403", 1),
        // Only told, and where it is not selected not even that.
        (format!("{ENCODED}.x.told.test"), "200", 2),
        (format!("{ENCODED}.x.other.test"), "200", 2),
        ("an-ordinary-name.x.open.test".to_owned(), "200", 2),
    ] {
        let port = kit.upstream.port();
        let head = format!("GET /headers HTTP/1.1\r\nhost: {name}:{port}\r\nconnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer}");
        until("the finding is recorded", async || named(&kit) == all).await;
    }

    let kit = Kit::start(Options { policy: Some(NAMES), dns: true, ..Options::default() }).await;
    let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
    let coded = "c2VjcmV0LWtleS0xMjM0NQ";
    for (name, code, all) in [
        (format!("{ENCODED}.x.open.test."), ResponseCode::NXDomain, 1),
        (format!("{coded}.x.open.test."), ResponseCode::NXDomain, 2),
        (format!("{ENCODED}.x.told.test."), ResponseCode::NoError, 3),
        ("an-ordinary-name.x.open.test.".to_owned(), ResponseCode::NoError, 3),
    ] {
        let answer = ask(&mut stream, &name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
        until("the finding is recorded", async || named(&kit) == all).await;
    }
}
