//! Rules that ask what is in a body: it is read whole for them, and nothing of what they deny has
//! gone out.

mod findings;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::kit::client::{Sent, empty, text};
use crate::kit::origin::gzip;
use crate::kit::{Kit, Options, SECRET, until};

const MODELS: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: large, when: {host: masked.test, cel: 'has(llm.model) && llm.model == "large"'}, deny: too dear}
  - {id: tried, mode: audit, when: {host: masked.test, cel: 'llm.model == "tried"'}, deny: not yet}
  - {id: any, when: {host: masked.test}, allow: true, mask: {request: [exact]}}
  - {id: small, when: {host: allowed.test, cel: 'llm.model.startsWith("small")'}, allow: true, limits: {requests: 5, window: 1h}}
"#;

struct World {
    kit: Kit,
}

impl World {
    async fn new(policy: &'static str) -> Self {
        Self { kit: Kit::start(Options { policy: Some(policy), ..Options::default() }).await }
    }

    fn post(&self, host: &str, path: &str, body: impl Into<Bytes>) -> Request<Sent> {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let mut request = self.kit.request(host, path).body(body).unwrap();
        *request.method_mut() = Method::POST;
        request
    }

    async fn send(&self, request: Request<Sent>, h2: bool) -> Response<Incoming> {
        let host = request
            .uri()
            .host()
            .map(str::to_owned)
            .unwrap_or_else(|| request.headers()[http::header::HOST].to_str().unwrap().to_owned());
        self.kit.client(&host, h2).await.send(request).await.unwrap()
    }

    fn arrived(&self) -> usize {
        self.kit.scene.requests.lock().unwrap().len()
    }

    /// The last verdict, once there are so many.
    async fn verdict(&self, count: usize) -> serde_json::Value {
        until("it is recorded", async || self.kit.events("verdict").len() >= count).await;
        self.kit.events("verdict").pop().unwrap()
    }
}

#[tokio::test]
async fn a_model_that_is_not_allowed_is_asked_nothing() {
    let world = World::new(MODELS).await;
    let mut sent = 0;
    for h2 in [false, true] {
        for (path, body, status) in [
            ("/echo", r#"{"model":"small-1","messages":[]}"#, 200),
            ("/echo", r#"{"model":"large"}"#, 403),
            ("/echo", r#"{"model":"small","model":"small"}"#, 403),
            ("/echo", r#"{"model":"small","Model":"large"}"#, 403),
            ("/echo", "model=small", 403),
            ("/echo", "", 403),
            ("/echo?model=small", "", 200),
            ("/echo?model=large", r#"{"model":"small"}"#, 403),
        ] {
            let before = world.arrived();
            let response = world.send(world.post("allowed.test", path, body), h2).await;
            assert_eq!(response.status().as_u16(), status, "{h2} {path} {body}");
            let answer = text(response).await;
            assert_eq!(world.arrived() - before, usize::from(status == 200), "{h2} {path} {body}");
            assert!(status != 200 || answer == body, "{answer}");
            sent += 1;
            let verdict = world.verdict(sent).await;
            let by = if status == 200 { serde_json::json!("t/small") } else { serde_json::Value::Null };
            assert_eq!(verdict["rule"], by, "{body}");
        }
    }
    // What was let through was counted, once each: two of either version.
    let response = world.send(world.post("allowed.test", "/echo", r#"{"model":"small"}"#), true).await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = world.send(world.post("allowed.test", "/echo", r#"{"model":"small"}"#), true).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.kit.events("statement").len(), sent + 2);
}

#[tokio::test]
async fn what_is_not_denied_goes_out_as_it_was_masked_and_once() {
    let world = World::new(MODELS).await;
    for h2 in [false, true] {
        let body = format!(r#"{{"model":"tried","key":"{SECRET}"}}"#);
        let response = world.send(world.post("masked.test", "/echo", body.clone()), h2).await;
        assert_eq!(text(response).await, body.replace(SECRET, "[MASKED:DEPLOY_KEY]"));
        let response = world.send(world.post("masked.test", "/echo", r#"{"model":"large"}"#), h2).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(text(response).await.contains("too dear"));
        let response = world.send(world.kit.request("masked.test", "/echo").body(empty()).unwrap(), h2).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(world.arrived(), 4);
    let recorded = world.kit.recorded_text("deny; reason=policy-deny; rule=t/tried").await;
    assert!(!recorded.contains(SECRET));
}

#[tokio::test]
async fn a_body_in_pieces_and_in_a_coding_is_read_to_its_end() {
    let world = World::new(MODELS).await;
    for h2 in [false, true] {
        for (model, status) in [("large", StatusCode::FORBIDDEN), ("small", StatusCode::OK)] {
            let before = world.arrived();
            let (to, body) = crate::kit::origin::fed();
            let mut request = world.kit.request("masked.test", "/echo").body(body.boxed_unsync()).unwrap();
            *request.method_mut() = Method::POST;
            let kit = &world.kit;
            let mut client = kit.client("masked.test", h2).await;
            let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
            let first = format!(r#"{{"messages":["{}"],"#, "x".repeat(100_000));
            to.send(Ok(Frame::data(Bytes::from(first.clone())))).await.unwrap();
            until("it is on its way", async || to.capacity() == to.max_capacity()).await;
            assert_eq!(world.arrived(), before, "nothing has gone out");
            let last = format!(r#""model":"{model}"}}"#);
            to.send(Ok(Frame::data(Bytes::from(last.clone())))).await.unwrap();
            drop(to);
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), status);
            let said = text(answer).await;
            assert!(status != StatusCode::OK || said == first + &last);
        }
        let coded = |body: &str| {
            let mut request = world.post("masked.test", "/echo", gzip(body.as_bytes()));
            request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            request
        };
        let response = world.send(coded(r#"{"model":"large"}"#), h2).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let response = world.send(coded(r#"{"model":"small"}"#), h2).await;
        assert_eq!(response.status(), StatusCode::OK);
        // What cannot be decoded is no reason to let it through.
        let mut request = world.post("masked.test", "/echo", r#"{"model":"small"}"#);
        request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        assert_eq!(world.send(request, h2).await.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit_and_refused_past_it() {
    let world = World::new(MODELS).await;
    let limit = usize::try_from(enforcer::policy::INSPECT_CAP_BYTES).unwrap();
    for h2 in [false, true] {
        for (length, status) in [(limit, 200), (limit + 1, 413)] {
            let before = world.arrived();
            let (head, tail) = (r#"{"x":""#, r#"","model":"small"}"#);
            let body = format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()));
            let response = world.send(world.post("masked.test", "/echo", body), h2).await;
            assert_eq!(response.status().as_u16(), status);
            drop(response.into_body().collect().await);
            assert_eq!(world.arrived() - before, usize::from(status == 200));
        }
    }
    world.kit.recorded_text("body-over-inspect-limit").await;
    assert_eq!(world.kit.events("statement").len(), 4);
}
