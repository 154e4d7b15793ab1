//! What is found is told with its rule and its place, and never shown.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::kit::client::{empty, text};
use crate::kit::websocket::echoing;
use crate::kit::{Kit, Options, SECRET, until};

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
