//! Bodies and their trailers, both ways.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full};

use crate::kit::client::{empty, text};
use crate::kit::{self, Kit, Options};

#[tokio::test]
async fn the_first_event_arrives_before_the_second_is_sent() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/sse").body(empty()).unwrap();
            let mut body = client.send(request).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(&first[..], b"data: one\n\n");
            kit.scene.signal.notify_one();
            let rest = body.collect().await.unwrap().to_bytes();
            assert_eq!(&rest[..], b"data: two\n\n");
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_up_and_comes_back() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let (to, body) = kit::origin::fed();
            let request = kit.request(host, "/echo").method("POST").body(body.boxed_unsync());
            let sending = tokio::spawn(async move {
                for _ in 0..10 {
                    to.send(Ok(Frame::data(Bytes::from(vec![b'x'; 10_000])))).await.unwrap();
                }
            });
            let response = client.send(request.unwrap()).await.unwrap();
            let back = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(back.len(), 100_000);
            sending.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_body_of_a_known_length_is_recorded_whole() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for (method, path) in [("POST", "/echo"), ("GET", "/echo"), ("POST", "/echo/held")] {
            let mut client = kit.h1(host).await;
            let body = Full::new(Bytes::from("whole")).map_err(|never| match never {}).boxed_unsync();
            let request = kit.request(host, path).method(method).body(body).unwrap();
            assert_eq!(text(client.send(request).await.unwrap()).await, "whole", "{method} {host}{path}");
        }
    }
    drop(kit.recorded_text("\"outcome\"").await);
    let recorded = String::from_utf8_lossy(&kit.recorded()).into_owned();
    assert!(!recorded.contains("\"complete\":false"), "{recorded}");
    // Six requests, six answers.
    assert_eq!(recorded.matches("\"length\":5,").count(), 12, "{recorded}");
    assert_eq!(recorded.matches("\"text\":\"whole\"").count(), 12, "{recorded}");
}

#[tokio::test]
async fn trailers_come_back() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/trailers").header("te", "trailers").body(empty());
            let response = client.send(request.unwrap()).await.unwrap();
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0", "{host} h2={h2}");
            assert_eq!(collected.to_bytes(), "message");
        }
    }
}

#[tokio::test]
async fn trailers_go_up() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        let mut client = kit.h2(host).await;
        let (to, body) = kit::origin::fed();
        let request = kit.request(host, "/echo").method("POST").body(body.boxed_unsync()).unwrap();
        tokio::spawn(async move {
            to.send(Ok(Frame::data(Bytes::from("data")))).await.unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-end", http::HeaderValue::from_static("yes"));
            to.send(Ok(Frame::trailers(trailers))).await.unwrap();
        });
        let response = client.send(request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-end"], "yes");
        assert_eq!(collected.to_bytes(), "data");
    }
}

#[tokio::test]
async fn a_reset_upstream_is_never_a_clean_end() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/reset").body(empty()).unwrap();
            let mut body = client.send(request).await.unwrap().into_body();
            assert!(body.frame().await.unwrap().is_ok());
            kit.scene.signal.notify_one();
            assert!(body.collect().await.is_err(), "{host} h2={h2}");
        }
    }
    kit.recorded_text("\"complete\":false").await;
}

#[tokio::test]
async fn an_inspected_body_is_held_up_to_the_limit_and_refused_past_it() {
    let kit = Kit::start(Options::default()).await;
    let limit = usize::try_from(enforcer::policy::INSPECT_CAP_BYTES).unwrap();
    let mut client = kit.h2("allowed.test").await;
    for (length, status) in [(limit, 200), (limit + 1, 413)] {
        let before = kit.scene.requests.lock().unwrap().len();
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let request = kit.request("allowed.test", "/echo/held").method("POST").body(body).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        drop(response.into_body().collect().await);
        let arrived = kit.scene.requests.lock().unwrap().len() - before;
        assert_eq!(arrived, usize::from(status == 200));
    }
    kit.recorded_text("body-over-inspect-limit").await;
}
