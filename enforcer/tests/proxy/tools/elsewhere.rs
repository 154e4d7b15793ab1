//! Calls in answers that do not stand where a model is asked, and what is no model's.

use bytes::Bytes;
use http_body::Frame;

use super::*;
use crate::kit::origin::{fed, gzip};

const CAP: usize = 16 * 1024 * 1024;

#[tokio::test]
async fn a_call_is_found_in_json_at_any_path_whatever_the_job_says_of_its_request() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let call = chat(&["cat ~/.aws/credentials"]);
    for (path, kind) in [
        ("/v1/responses/resp_1", "application/json"),
        ("/v1/threads/t/runs/r", "application/json"),
        ("/moved", "application/json;charset=utf-8"),
        ("/moved", "application/vnd.x+json"),
        ("/v1/chat/completions", "application/json"),
    ] {
        let answer = client.send(world.says_again(path, kind, call.clone())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path} {kind}");
        let told = text(answer).await;
        assert!(told.contains("secrets stay here") && !told.contains("credentials"), "{told}");
    }
    // Where a model is asked, every type has to be one that is read.
    for kind in ["", "text/plain"] {
        let answer = client.send(world.says_again("/v1/messages", kind, call.clone())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{kind}");
        assert!(text(answer).await.contains("tool-call-unreadable"));
    }
    // What cannot be read and looks like it.
    let odd = call.replacen('{', "{\"a\":NaN,", 1);
    let answer = client.send(world.says_again("/moved", "application/json", odd)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    // Coded unasked.
    let request = world.says_again("/moved", "application/json&gzip", gzip(call.as_bytes()));
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    let request = world.says_again("/v1/responses/x", "application/json&gzip", gzip(call.as_bytes()));
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_provider_of_a_call_is_known_by_how_its_answer_is_built() {
    let rules = POLICY.replace(
        "\"disclose\" in llm.tool.effects",
        "llm.provider == \"anthropic\" && llm.tool.name == \"mybash\"",
    );
    let world = World::with(&rules).await;
    let mut client = world.kit.h1("allowed.test").await;
    let tool = r#"{"type":"tool_use","id":"t","name":"mybash","input":{"command":"ls"}}"#;
    let message = format!(r#"{{"type":"message","model":"m","content":[{tool}]}}"#);
    let answer = client.send(world.says_again("/moved", "application/json", message)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let other = world.says_again("/moved", "application/json", chat(&["ls"]));
    assert_eq!(client.send(other).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn json_of_anything_else_goes_on_byte_for_byte() {
    let world = World::new().await;
    let twice = br#"{ "a" : 1, "a": 2,"b": [ 1.0e2 ]}"#.to_vec();
    let many = format!("[{}]", vec!["{}"; 100_000].join(",")).into_bytes();
    let long = [b"\"".as_slice(), &vec![b'x'; CAP], b"\""].concat();
    for h2 in [false, true] {
        let mut client = world.kit.client("allowed.test", h2).await;
        for body in [b"".to_vec(), b"{}\n".to_vec(), twice.clone(), many.clone(), long.clone(), b"{".to_vec()]
        {
            let request = world.says_again("/items", "application/json", body.clone());
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{}", body.len());
            let told = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(told == body, "{} of {}", told.len(), body.len());
        }
        let zipped = gzip(&twice);
        let request = world.says_again("/items", "application/json&gzip", zipped.clone());
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), zipped);
        // A page where a model would be asked.
        let page = world.kit.request("allowed.test", "/chat/messages?as=text/html").body(empty()).unwrap();
        assert_eq!(client.send(page).await.unwrap().status(), StatusCode::OK);
    }
    // The same is not let through where a model's answer is kept, or where it looks like one.
    let mut client = world.kit.h1("allowed.test").await;
    let looks = [b"{\"tool_calls\":\"".as_slice(), &vec![b'x'; CAP], b"\"}"].concat();
    for (path, body) in [("/v1/responses/x", long), ("/items", looks), ("/v1/responses/x", many)] {
        let answer = client.send(world.says_again(path, "application/json", body)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert!(world.kit.events("tool-verdict").is_empty());
}

/// As a server says what changes, under a type that says one value.
#[tokio::test]
async fn json_that_is_watched_comes_line_by_line_and_is_judged_so() {
    let world = World::new().await;
    let (to, body) = fed();
    let request = world.kit.request("allowed.test", "/watch?as=application/json").method("POST");
    let request = request.body(body.boxed_unsync()).unwrap();
    let mut client = world.kit.h1("allowed.test").await;
    let line = |text: &str| Ok(Frame::data(Bytes::from(format!("{text}\n"))));
    to.send(line(r#"{"type":"ADDED"}"#)).await.unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    assert_eq!(arrives(&mut body, "\n").await, "{\"type\":\"ADDED\"}\n");
    to.send(line(r#"{"type":"DELETED"}"#)).await.unwrap();
    assert_eq!(arrives(&mut body, "\n").await, "{\"type\":\"DELETED\"}\n");
    to.send(line(&chat(&["cat ~/.aws/credentials"]))).await.unwrap();
    drop(to);
    let told = rest(body).await;
    assert!(told.contains("secrets stay here") && !told.contains("tool_calls"), "{told}");
}

#[tokio::test]
async fn an_answer_takes_the_room_that_it_needs_and_does_not_wait_for_ever() {
    let world = World::new().await;
    let sends = async || {
        let (to, body) = fed();
        let request = world.kit.request("allowed.test", "/v1/chat/completions?as=application/json");
        let request = request.method("POST").body(body.boxed_unsync()).unwrap();
        tokio::spawn(async move {
            to.send(Ok(Frame::data(Bytes::from(chat(&["ls"]))))).await.unwrap();
        });
        world.kit.h1("allowed.test").await.send(request).await.unwrap()
    };
    let held = &world.kit.subject.held;
    // Its length is not known, and it is short.
    let most = held.room_now(120 * 1024 * 1024).unwrap();
    assert_eq!(sends().await.status(), StatusCode::OK);
    let all = held.room_now(8 * 1024 * 1024).unwrap();
    let answer = sends().await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(text(answer).await.contains("tool-call-over-limit"));
    drop((most, all));
    assert_eq!(sends().await.status(), StatusCode::OK);
    assert!(held.room_now(128 * 1024 * 1024).is_some());
}

#[tokio::test]
async fn gemini_is_asked_in_a_way_that_is_read() {
    let world = World::new().await;
    let service = "google.ai.generativelanguage.v1beta.GenerativeService";
    let mut client = world.kit.h1("allowed.test").await;
    let upgrade = world.kit.request("allowed.test", &format!("/ws/{service}.BidiGenerateContent"));
    let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
    let upgrade = upgrade.header("sec-websocket-version", "13");
    let upgrade = upgrade.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let response = client.send(upgrade.body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    let mut client = world.kit.h2("allowed.test").await;
    let path = format!("/{service}/StreamGenerateContent");
    let request = world.kit.request("allowed.test", &path).method("POST");
    let request = request.header("content-type", "application/grpc").body(empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "7");
    world.kit.recorded_text("tool-calls-by-grpc").await;
}
