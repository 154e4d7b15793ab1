//! Tokens: counted when an answer has ended, as it says or by what was seen of it.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::World;
use crate::kit::client::{Sent, text};
use crate::kit::origin::gzip;
use crate::kit::until;

const POLICY: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: tried, when: {host: allowed.test, path: /v1/tried}, mode: audit, allow: true, limits: {tokens: 10, window: 1h}}
  - {id: models, when: {host: [allowed.test, masked.test]}, mask: {response: [exact]}, allow: true, limits: {tokens: 100, window: 1h}}
"#;

const USAGE: &str = r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":30,"completion_tokens":20,"total_tokens":50}}"#;
const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":40,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":30}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

impl World {
    /// The upstream says again what it is asked, as an answer of this type.
    fn ask(&self, path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Sent> {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let mut request = self.kit.request("allowed.test", &format!("{path}?as={kind}")).body(body).unwrap();
        *request.method_mut() = http::Method::POST;
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        request
    }

    async fn taken(&self, tokens: u64) {
        let used = || self.used("t/models").used;
        until(&format!("{tokens} tokens, and not {}", used()), async || used() == tokens).await;
    }
}

async fn status(answer: Response<Incoming>) -> StatusCode {
    let status = answer.status();
    drop(answer.into_body().collect().await);
    status
}

#[tokio::test]
async fn what_an_answer_says_that_it_took_stops_the_next_request() {
    for h2 in [false, true] {
        let world = World::new(POLICY).await;
        let whole = || world.ask("/v1/chat/completions", "application/json", USAGE);
        assert_eq!(status(world.send(whole(), h2).await).await, StatusCode::OK);
        world.taken(50).await;
        let events = world.ask("/v1/messages", "text/event-stream", STREAM);
        assert_eq!(text(world.send(events, h2).await).await, STREAM);
        world.taken(120).await;
        let denied = world.send(whole(), h2).await;
        assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
        let told: serde_json::Value = serde_json::from_str(&text(denied).await).unwrap();
        let message = told["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("the limit of 100 tokens in 1h for each job is reached (120 used)"),
            "{told}"
        );
        assert_eq!(world.arrived(), 2);
        world.now.store(3_661_000, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(status(world.send(whole(), h2).await).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn what_is_coded_is_counted_as_what_it_decodes_to() {
    let world = World::new(POLICY).await;
    let request = world.ask("/v1/chat/completions", "application/json&gzip", gzip(USAGE.as_bytes()));
    assert_eq!(status(world.send(request, false).await).await, StatusCode::OK);
    world.taken(50).await;
    let asked = world.send(
        world.kit.request("allowed.test", "/headers").body(crate::kit::client::empty()).unwrap(),
        false,
    );
    assert!(text(asked.await).await.contains("accept-encoding: \"identity\""));
    let mut coded = world.ask("/v1/x", "application/json", "?");
    coded.headers_mut().insert("content-encoding", "lzma".parse().unwrap());
    assert_eq!(world.send(coded, false).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn an_answer_that_says_nothing_takes_a_token_for_each_byte_that_was_said() {
    let world = World::new(POLICY).await;
    let said = r#"{"choices":[{"message":{"content":"0123456789"}}]}"#;
    assert_eq!(
        status(world.send(world.ask("/v1/x", "application/json", said), false).await).await,
        StatusCode::OK
    );
    until("it is counted", async || world.used("t/models").used > 0).await;
    let used = world.used("t/models").used;
    let asked = u64::try_from(said.len()).unwrap();
    assert!((asked + 10..asked + 30).contains(&used), "{used}");
    // To look at something takes none.
    let get = world.kit.request("allowed.test", "/").body(crate::kit::client::empty()).unwrap();
    let before = world.used("t/models").used;
    assert_eq!(status(world.send(get, true).await).await, StatusCode::OK);
    assert_eq!(world.used("t/models").used, before);
}

#[tokio::test]
async fn who_leaves_before_the_end_is_counted_by_what_came() {
    for h2 in [true, false] {
        let world = World::new(POLICY).await;
        let body = Full::new(Bytes::from(vec![b'x'; 500])).map_err(|never| match never {}).boxed_unsync();
        let mut request = world.kit.request("allowed.test", "/sse").body(body).unwrap();
        *request.method_mut() = http::Method::POST;
        if h2 {
            let mut client = world.kit.h2("allowed.test").await;
            let mut answer = client.send(request).await.unwrap();
            assert!(answer.frame().await.unwrap().unwrap().is_data());
            assert_eq!(world.used("t/models").used, 0);
        } else {
            let mut stream = world.kit.tls("allowed.test", &[b"http/1.1"]).await.unwrap();
            let port = world.kit.upstream.port();
            let head =
                format!("POST /sse HTTP/1.1\r\nhost: allowed.test:{port}\r\ncontent-length: 500\r\n\r\n");
            stream.write_all(&[head.as_bytes(), &[b'x'; 500]].concat()).await.unwrap();
            let mut came = Vec::new();
            while !came.ends_with(b"data: one\n\n\r\n") {
                came.push(stream.read_u8().await.unwrap());
            }
        }
        if !h2 {
            // Over HTTP/1.1 it is seen when there is more to be written.
            world.kit.scene.signal.notify_one();
        }
        until(&format!("it is counted, {h2}"), async || world.used("t/models").used >= 500).await;
        assert_eq!(world.get("/", h2).await.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}

#[tokio::test]
async fn what_was_asked_is_counted_if_nobody_answers() {
    let world = World::scripted(POLICY, b"no answer\r\n\r\n").await;
    let asked = vec![b'x'; 80];
    let failed = world.send(world.ask("/v1/x", "application/json", asked), false).await;
    assert_eq!(failed.status(), StatusCode::BAD_GATEWAY);
    world.taken(80).await;
}

#[tokio::test]
async fn what_cannot_be_counted_is_denied_and_audit_mode_lets_go() {
    let world = World::new(POLICY).await;
    let mut call = world.ask("/v1/x", "application/json", "?");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let denied = world.send(call, true).await;
    assert_eq!(denied.headers()["grpc-status"], "7");
    let answer = crate::evasions::raw(&world.kit, crate::kit::websocket::UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 426") && answer.contains("tokens-by-websocket"), "{answer}");
    assert_eq!(world.arrived(), 0);
    for _ in 0..2 {
        let request = world.ask("/v1/tried", "application/json", USAGE);
        assert_eq!(status(world.send(request, false).await).await, StatusCode::OK);
    }
    world.kit.recorded_text("deny; reason=limit-exceeded; rule=t/tried").await;
}
