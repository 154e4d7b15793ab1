//! Limits of rules: so much passes, and the next of it does not, whoever asks and however.

mod bytes;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use enforcer::policy::{Policy, PolicyStore, Used};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::kit::client::{Sent, empty, text};
use crate::kit::{Kit, Options};

const POLICY: &str = r#"
version: 1
name: t
owner: web team
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: many, when: {host: allowed.test, path: /many}, allow: true, limits: {requests: 20, window: 1h}}
  - {id: tried, when: {host: allowed.test, path: /tried}, mode: audit, allow: true, limits: {requests: 1, window: 1h}}
  - {id: repo, when: {host: allowed.test, path: /repo}, allow: true, limits: {requests: 1, window: 1h, per: repository}}
  - {id: deletes, when: {host: allowed.test, method: DELETE}, allow: true, limits: {requests: 1, window: 1h}}
  - {id: models, when: {host: allowed.test, path: "/v1/**"}, allow: true, limits: {requests: 1, window: 1m}}
  - {id: rest, when: {host: allowed.test}, allow: true, limits: {requests: 3, window: 1m}}
"#;

struct World {
    kit: Kit,
    policies: Arc<PolicyStore>,
    /// Milliseconds of the clock by which windows go.
    now: Arc<AtomicU64>,
}

impl World {
    async fn new(policy: &'static str) -> Self {
        Self::over(policy, None).await
    }

    /// Before an upstream that answers everything so.
    async fn scripted(policy: &'static str, script: &'static [u8]) -> Self {
        Self::over(policy, Some(script)).await
    }

    async fn over(policy: &'static str, script: Option<&'static [u8]>) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let hand = Arc::clone(&now);
        let clock = Arc::new(move || Duration::from_millis(hand.load(Ordering::Relaxed)));
        let policy = Policy::from_text("t.yaml", policy).unwrap();
        let policies = Arc::new(PolicyStore::fixed(policy).timed(clock));
        let options = Options { policies: Some(Arc::clone(&policies)), script, ..Options::default() };
        Self { kit: Kit::start(options).await, policies, now }
    }

    async fn send(&self, request: Request<Sent>, h2: bool) -> Response<Incoming> {
        self.kit.client("allowed.test", h2).await.send(request).await.unwrap()
    }

    async fn get(&self, path: &str, h2: bool) -> Response<Incoming> {
        self.send(self.kit.request("allowed.test", path).body(empty()).unwrap(), h2).await
    }

    fn used(&self, rule: &str) -> Used {
        self.policies.hits().limits.into_iter().find(|used| used.rule == rule).unwrap()
    }

    fn arrived(&self) -> usize {
        self.kit.scene.requests.lock().unwrap().len()
    }
}

#[tokio::test]
async fn the_next_request_is_told_when_to_come_again_and_passes_then() {
    let world = World::new(POLICY).await;
    for h2 in [false, true, false] {
        assert_eq!(world.get("/", h2).await.status(), StatusCode::OK);
    }
    for h2 in [false, true] {
        let response = world.get("/", h2).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "61");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let told: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!((&told["reason"], &told["rule"]), (&"limit-exceeded".into(), &"t/rest".into()));
        assert_eq!((&told["owner"], &told["status"]), (&"web team".into(), &429.into()));
        assert_eq!(told["limit"], "3 requests in 1m for each job");
        assert_eq!(told["retry_after_seconds"], 61);
        assert!(told["detail"].as_str().unwrap().contains("(3 used)"), "{told}");
    }
    assert_eq!(world.arrived(), 3);
    world.kit.recorded_text("limit-exceeded").await;
    world.now.store(60_999, Ordering::Relaxed);
    assert_eq!(world.get("/", false).await.headers()["retry-after"], "1");
    world.now.store(61_000, Ordering::Relaxed);
    assert_eq!(world.get("/", true).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_the_same_time_exactly_so_many_go_out() {
    let world = Arc::new(World::new(POLICY).await);
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.get("/many", number % 2 == 0).await.status() })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        // The upstream knows no such path.
        passed += usize::from(task.await.unwrap() != StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!((passed, world.arrived()), (20, 20));
}

#[tokio::test]
async fn a_method_that_a_server_may_take_is_counted_as_well() {
    let world = World::new(POLICY).await;
    for want in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let request = world.kit.request("allowed.test", "/").method("GET");
        let request = request.header("x-http-method-override", "DELETE").body(empty()).unwrap();
        assert_eq!(world.send(request, false).await.status(), want);
    }
}

#[tokio::test]
async fn audit_mode_tells_and_lets_go_and_who_is_not_known_is_not_counted_by_repository() {
    let world = World::new(POLICY).await;
    for _ in 0..3 {
        assert_ne!(world.get("/tried", false).await.status(), StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(world.arrived(), 3);
    world.kit.recorded_text("deny; reason=limit-exceeded; rule=t/tried").await;
    let denied = world.get("/repo", false).await;
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    assert!(text(denied).await.contains("\"reason\":\"missing-fact\""));
}

#[tokio::test]
async fn clients_of_models_and_of_grpc_are_told_in_their_own_words() {
    let world = World::new(POLICY).await;
    let ask = |kind: &str| {
        let body = Full::new("{}".into()).map_err(|never| match never {}).boxed_unsync();
        let request = world.kit.request("allowed.test", "/v1/messages").method("POST");
        request.header("content-type", kind).header("anthropic-version", "2023-06-01").body(body).unwrap()
    };
    assert_ne!(world.send(ask("application/json"), false).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let response = world.send(ask("application/json"), false).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("retry-after"));
    let told: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((&told["type"], &told["error"]["type"]), (&"error".into(), &"rate_limit_error".into()));
    assert!(told["error"]["message"].as_str().unwrap().contains("1 requests in 1m"), "{told}");
    let response = world.send(ask("application/grpc"), true).await;
    assert_eq!(response.headers()["grpc-status"], "8");
}
