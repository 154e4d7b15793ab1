//! Bytes that go each way: what is over is cut, and what is known to be over is not begun.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::World;
use crate::kit::client::{Sent, empty, text};
use crate::kit::origin::fed;
use crate::kit::until;
use crate::kit::websocket::echoing;

const POLICY: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: tried, when: {host: allowed.test, path: /echo/held}, mode: audit, allow: true, limits: {bytes_up: 1000, window: 1h}}
  - {id: up, when: {host: allowed.test, path: /echo}, allow: true, limits: {bytes_up: 100000, window: 1m}}
  - {id: down, when: {host: allowed.test}, allow: true, limits: {bytes_down: 100000, window: 1m}}
  - id: socket
    when: {host: masked.test}
    allow: true
    limits: [{bytes_up: 1000, window: 1h}, {bytes_down: 5000, window: 1h}]
"#;

fn whole(bytes: usize) -> Sent {
    Full::new(Bytes::from(vec![b'x'; bytes])).map_err(|never| match never {}).boxed_unsync()
}

/// A body that does not say how long it is.
fn pieces(count: usize) -> Sent {
    let (to, body) = fed();
    tokio::spawn(async move {
        for _ in 0..count {
            if to.send(Ok(http_body::Frame::data(Bytes::from(vec![b'x'; 1_000])))).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    body.boxed_unsync()
}

impl World {
    fn post(&self, path: &str, body: Sent) -> http::Request<Sent> {
        let mut request = self.kit.request("allowed.test", path).body(body).unwrap();
        *request.method_mut() = http::Method::POST;
        request
    }
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_not_begun() {
    let world = World::new(POLICY).await;
    for h2 in [false, true] {
        let arrived = world.arrived();
        let denied = world.send(world.post("/echo", whole(100_001)), h2).await;
        // It would not fit at any time.
        assert_eq!(denied.status(), StatusCode::FORBIDDEN);
        assert!(text(denied).await.contains("more than the limit of 100000 bytes up"));
        assert_eq!((world.arrived(), world.used("t/up").used), (arrived, 0));
    }
    let passed = world.send(world.post("/echo", whole(60_000)), false).await;
    assert_eq!(text(passed).await.len(), 60_000);
    let used = world.used("t/up").used;
    assert!((60_000..61_000).contains(&used), "{used}");
    let denied = world.send(world.post("/echo", whole(60_000)), true).await;
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.used("t/up").used, used);
    // What fits still passes.
    assert_eq!(text(world.send(world.post("/echo", whole(10_000)), true).await).await.len(), 10_000);
}

#[tokio::test]
async fn a_body_that_turns_out_too_long_is_cut_and_not_a_byte_more_goes_out() {
    for h2 in [false, true] {
        let world = World::new(POLICY).await;
        let mut answer = world.send(world.post("/echo", pieces(300)), h2).await;
        let mut back = 0;
        let broken = loop {
            match answer.frame().await {
                None => break false,
                Some(Err(_)) => break true,
                Some(Ok(frame)) => back += frame.data_ref().map_or(0, Bytes::len),
            }
        };
        assert!(back <= 100_000, "{back}");
        assert!(broken || answer.status() == StatusCode::TOO_MANY_REQUESTS, "the answer looks whole");
        let used = world.used("t/up").used;
        assert!((99_000..=100_000).contains(&used), "{used}");
        denied_by(&world, "t/up").await;
    }
}

#[tokio::test]
async fn an_answer_is_cut_where_there_is_no_more_room() {
    for h2 in [false, true] {
        let world = World::new(POLICY).await;
        let request = world.kit.request("allowed.test", "/endless").body(empty()).unwrap();
        let mut came = 0;
        let end = match world.kit.client("allowed.test", h2).await.send(request).await {
            // Over HTTP/2 a reset may overtake the head.
            Err(_) if h2 => "a break",
            Err(error) => panic!("{error}"),
            Ok(mut answer) => loop {
                match answer.frame().await {
                    None => break "an end",
                    Some(Err(_)) => break "a break",
                    Some(Ok(frame)) => came += frame.data_ref().map_or(0, Bytes::len),
                }
            },
        };
        assert_eq!(end, "a break", "{came}");
        assert!(came <= 100_000 && world.used("t/down").used <= 100_000, "{came}");
        until("the rule is recorded", async || {
            world
                .kit
                .events("verdict")
                .iter()
                .any(|it| it["reason"] == "limit-exceeded" && it["rule"] == "t/down")
        })
        .await;
        // 16 KiB more did not fit, but a little does.
        let small = world.get("/", h2).await;
        assert_eq!((small.status(), text(small).await.as_str()), (StatusCode::OK, "hello"));
        world.now.store(61_000, Ordering::Relaxed);
        assert_eq!(world.used("t/down").used, 0);
    }
}

#[tokio::test]
async fn an_answer_that_says_it_is_too_long_is_not_begun() {
    let world = World::new(POLICY).await;
    // 64 KiB, coded.
    let first = world.get("/bomb", false).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert!(first.into_body().collect().await.unwrap().to_bytes().len() > 60_000);
    let second = world.get("/bomb", true).await;
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(text(second).await.contains("bytes down"));
}

#[tokio::test]
async fn audit_mode_counts_and_cuts_nothing() {
    let world = World::new(POLICY).await;
    let passed = world.send(world.post("/echo/held", pieces(20)), true).await;
    assert_eq!(text(passed).await.len(), 20_000);
    assert!(world.used("t/tried").used >= 20_000);
    world.kit.recorded_text("deny; reason=limit-exceeded; rule=t/tried").await;
}

#[tokio::test]
async fn messages_of_a_websocket_are_counted() {
    let world = World::new(POLICY).await;
    let mut socket = echoing(&world.kit).await;
    let message = || Message::Binary(vec![b'x'; 300].into());
    let mut back = 0;
    let close = loop {
        socket.send(message()).await.unwrap();
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) if back < 3_000 => back += bytes.len(),
            Some(Ok(Message::Close(Some(close)))) => break close,
            other => panic!("{other:?} after {back}"),
        }
    };
    // The head took some of it.
    assert!((300..=900).contains(&back), "{back}");
    says_why(&close, "bytes up");
    denied_by(&world, "t/socket").await;
    assert!(world.used("t/socket").used <= 1_000);
}

fn says_why(close: &CloseFrame, unit: &str) {
    assert_eq!(u16::from(close.code), 1008);
    assert!(close.reason.contains(unit), "{}", close.reason);
}

async fn denied_by(world: &World, rule: &str) {
    until("the denial is recorded", async || {
        let verdicts = world.kit.events("verdict");
        let denials = verdicts.iter().filter(|it| it["verdict"] == "deny" && it["rule"] == rule);
        denials.filter(|it| it["reason"] == "limit-exceeded").count() == 1
    })
    .await;
}

#[tokio::test]
async fn messages_without_a_byte_are_counted_as_well() {
    let world = World::new(POLICY).await;
    let mut socket = echoing(&world.kit).await;
    let mut empty = 0;
    let close = loop {
        socket.send(Message::Binary(Bytes::new())).await.unwrap();
        match socket.next().await {
            Some(Ok(Message::Binary(_))) if empty < 500 => empty += 1,
            Some(Ok(Message::Close(Some(close)))) => break close,
            other => panic!("{other:?} after {empty}"),
        }
    };
    says_why(&close, "bytes up");
    denied_by(&world, "t/socket").await;
}
