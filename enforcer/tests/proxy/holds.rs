//! What a rule holds: it goes out as it was, once, when people have agreed, and never else.

use std::time::Duration;

use enforcer::approval::{
    Account, ApprovalId, Decided, Desk, Listed, People, PersonId, Scope, Spoken, Standing,
};
use enforcer::policy::Group;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::kit::client::{Client, Sent, empty, text};
use crate::kit::{Kit, Options, SECRET, until};

const POLICY: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: known, when: {host: masked.test}, mask: {request: [exact]}}
  - id: two
    when: {host: [allowed.test, masked.test], method: POST, path: [/echo, /v1/messages]}
    hold: {message: two people, needs: [{people: 2, groups: [ops]}], excludes_self: false}
  - id: deletes
    when: {host: allowed.test, method: DELETE, path: /echo}
    hold: {needs: [{people: 1, groups: [ops]}], excludes_self: false}
  - id: later
    when: {host: allowed.test, path: /echo/held}
    hold: {needs: [{people: 1, groups: [ops]}], excludes_self: false, hold_seconds: 0}
  - id: short
    when: {host: allowed.test, path: /short}
    hold: {needs: [{people: 1, groups: [ops]}], excludes_self: false, hold_seconds: 1, retry_seconds: null}
  - id: nobody
    when: {host: allowed.test, path: /nobody}
    hold: {needs: [{people: 1, groups: [nobody]}], excludes_self: false}
  - id: author
    when: {host: allowed.test, path: /author}
    hold: {needs: [{people: 1, groups: [ops]}]}
  - {id: rest, when: {host: [allowed.test, masked.test]}, allow: true}
"#;

struct World {
    kit: Kit,
    desk: Desk,
    _journal: tempfile::TempDir,
}

fn login(name: &str) -> Account {
    Account::subject("https://idp.test", name)
}

fn people() -> People {
    let mut people = People::default();
    for name in ["ann", "bob"] {
        people.map(login(name), PersonId::new(name)).unwrap();
        people.set_groups(login(name), [Group::new("ops")]);
    }
    people
}

impl World {
    async fn new() -> Self {
        let journal = tempfile::tempdir().unwrap();
        let desk = Desk::open(journal.path(), people(), "boot").unwrap();
        let (policy, approvals) = (Some(POLICY), Some(desk.clone()));
        let kit = Kit::start(Options { policy, approvals, ..Options::default() }).await;
        Self { kit, desk, _journal: journal }
    }

    fn post(&self, host: &str, path: &str, body: impl Into<bytes::Bytes>) -> Request<Sent> {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let mut request = self.kit.request(host, path).body(body).unwrap();
        *request.method_mut() = http::Method::POST;
        request
    }

    /// The only question that is open.
    async fn open(&self) -> Listed {
        until("somebody is asked", async || self.desk.list(false).await.unwrap().len() == 1).await;
        self.desk.list(false).await.unwrap().remove(0)
    }

    async fn says(&self, who: &str, asked: &Listed, scope: Option<Scope>) -> Decided {
        let (approval, seen) = (asked.approval.id, asked.approval.seen);
        let groups = vec![Group::new("ops")];
        let spoken = Spoken { approval, seen, by: login(who), groups, scope, reason: None };
        self.desk.decide(spoken).await.unwrap()
    }

    async fn yes(&self, who: &str, asked: &Listed) -> Decided {
        self.says(who, asked, Some(Scope::Once)).await
    }

    async fn standing(&self, id: ApprovalId) -> Standing {
        self.desk.get(id).await.unwrap().unwrap().approval.standing
    }

    fn arrived(&self) -> usize {
        self.kit.scene.requests.lock().unwrap().len()
    }
}

fn sent(mut client: Client, request: Request<Sent>) -> tokio::task::JoinHandle<Response<Incoming>> {
    tokio::spawn(async move { client.send(request).await.unwrap() })
}

async fn denied(response: Response<Incoming>) -> serde_json::Value {
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn it_goes_out_as_it_was_when_two_people_agree_and_not_before() {
    let world = World::new().await;
    for (h2, secret) in [(false, false), (true, true)] {
        let before = world.arrived();
        let host = if secret { "masked.test" } else { "allowed.test" };
        let body = if secret { format!("one {SECRET} two") } else { "x".repeat(100_000) };
        let answer = sent(world.kit.client(host, h2).await, world.post(host, "/echo", body.clone()));
        let asked = world.open().await;
        let view = serde_json::to_string(&asked.approval.view).unwrap();
        assert!(
            view.contains("POST https://") && view.contains("two people") && !view.contains(SECRET),
            "{view}"
        );
        assert_eq!(world.yes("ann", &asked).await, Decided::Counted { have: 1, need: 2 });
        assert_eq!(world.yes("ann", &asked).await, Decided::Repeated { have: 1, need: 2 });
        assert!(!answer.is_finished() && world.arrived() == before);
        assert!(matches!(world.yes("bob", &asked).await, Decided::Approved { .. }));
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(text(answer).await, body.replace(SECRET, "[MASKED:DEPLOY_KEY]"));
        assert_eq!(world.arrived(), before + 1);
    }
    let recorded = world.kit.recorded_text("hold-released").await;
    assert!(!recorded.contains(SECRET));
    for (kind, count) in [("held", 2), ("decided", 2), ("hold-released", 2)] {
        assert_eq!(world.kit.events(kind).len(), count, "{kind}");
    }
    assert_eq!(world.kit.events("decided")[0]["by"].as_array().unwrap().len(), 2);
    assert_eq!(world.kit.events("held")[0]["exact"], world.kit.events("hold-released")[0]["exact"]);
    assert!(world.kit.events("verdict").iter().any(|event| event["verdict"] == "hold"));
}

#[tokio::test]
async fn the_same_request_passes_once_after_it_was_approved_and_no_other_one() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let later = |body: &'static str| world.post("allowed.test", "/echo/held", body);
    let told = denied(client.send(later("one")).await.unwrap()).await;
    assert_eq!((&told["reason"], &told["approval"]), (&"approval-pending".into(), &"apr-0".into()));
    let ask = told["ask"].as_str().unwrap();
    assert!(ask.contains("enforcer approvals show apr-0") && ask.contains("900 seconds"), "{ask}");
    let asked = world.open().await;
    // It was not approved yet, and it is one question.
    denied(client.send(later("one")).await.unwrap()).await;
    assert!(matches!(world.yes("ann", &world.open().await).await, Decided::Approved { .. }));
    let other = denied(client.send(later("onE")).await.unwrap()).await;
    assert_eq!(other["approval"], "apr-1");
    let answer = client.send(later("one")).await.unwrap();
    assert_eq!(text(answer).await, "one");
    denied(client.send(later("one")).await.unwrap()).await;
    assert_eq!(world.arrived(), 1);
    assert!(matches!(world.standing(asked.approval.id).await, Standing::Approved(_)));
}

/// A server may go by the one method or by the other.
#[tokio::test]
async fn who_agrees_by_one_rule_does_not_agree_by_another() {
    let world = World::new().await;
    let mut request = world.post("allowed.test", "/echo", "one");
    request.headers_mut().insert("x-http-method-override", "DELETE".parse().unwrap());
    let told = denied(world.kit.h1("allowed.test").await.send(request).await.unwrap()).await;
    assert_eq!(told["reason"], "held-by-two-rules");
    assert!(world.desk.list(true).await.unwrap().is_empty() && world.arrived() == 0);
}

/// Whoever waits takes room; where there is none nobody waits for it.
#[tokio::test]
async fn without_room_a_request_is_denied_at_once_and_with_room_it_is_asked() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let request = || world.kit.request("allowed.test", "/echo/held").body(empty()).unwrap();
    let all = world.kit.subject.held.room_now(usize::MAX).unwrap();
    let told = denied(client.send(request()).await.unwrap()).await;
    assert_eq!(told["reason"], "too-many-approvals");
    assert!(world.desk.list(true).await.unwrap().is_empty());
    drop(all);
    let told = denied(client.send(request()).await.unwrap()).await;
    assert_eq!(told["reason"], "approval-pending");
}

#[tokio::test]
async fn who_is_told_no_or_waits_too_long_sends_nothing() {
    let world = World::new().await;
    for h2 in [false, true] {
        let request = world.post("allowed.test", "/echo", "no");
        let answer = sent(world.kit.client("allowed.test", h2).await, request);
        assert_eq!(world.says("bob", &world.open().await, None).await, Decided::Rejected);
        let told = denied(answer.await.unwrap()).await;
        assert_eq!(told["reason"], "approval-rejected");
        let request = world.kit.request("allowed.test", "/short").body(empty()).unwrap();
        let mut client = world.kit.client("allowed.test", h2).await;
        let told = denied(client.send(request).await.unwrap()).await;
        assert_eq!(told["reason"], "approval-expired");
    }
    assert_eq!(world.arrived(), 0);
    world.kit.recorded_text("\"outcome\":\"rejected\"").await;
    world.kit.recorded_text("\"outcome\":\"expired\"").await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let world = World::new().await;
    for h2 in [false, true] {
        let client = world.kit.client("allowed.test", h2).await;
        let answer = tokio::spawn({
            let (mut client, request) = (client, world.post("allowed.test", "/echo", "gone"));
            async move { drop(client.send(request).await) }
        });
        let asked = world.open().await;
        assert!(matches!(world.yes("ann", &asked).await, Decided::Counted { .. }));
        answer.abort();
        until("it is noticed", async || !world.standing(asked.approval.id).await.is_pending()).await;
        assert!(matches!(world.standing(asked.approval.id).await, Standing::Cancelled(_)), "{h2}");
        assert!(matches!(world.yes("bob", &asked).await, Decided::Ignored(_)));
    }
    world.kit.recorded_text("\"outcome\":\"cancelled\"").await;
    assert_eq!(world.arrived(), 0);
}

#[tokio::test]
async fn where_nobody_can_agree_it_is_denied_at_once() {
    let world = World::new().await;
    let mut client = world.kit.h2("allowed.test").await;
    for (path, reason) in [("/nobody", "nobody-can-approve"), ("/author", "actor-unknown")] {
        let request = world.kit.request("allowed.test", path).body(empty()).unwrap();
        let told = denied(client.send(request).await.unwrap()).await;
        assert_eq!(told["reason"], reason);
        assert!(told["rule"].as_str().unwrap().starts_with("t/"));
    }
    let kit = Kit::start(Options { policy: Some(POLICY), ..Options::default() }).await;
    let request = kit.request("allowed.test", "/short").body(empty()).unwrap();
    let told = denied(kit.h1("allowed.test").await.send(request).await.unwrap()).await;
    assert_eq!(told["reason"], "approvals-not-configured");
    assert!(told["detail"].as_str().unwrap().contains("[approvals]"));
}

#[tokio::test]
async fn a_body_that_is_too_long_to_hold_is_denied() {
    let world = World::new().await;
    const CAP: usize = 16 * 1024 * 1024;
    let mut client = world.kit.h1("allowed.test").await;
    let over = client.send(world.post("allowed.test", "/echo", vec![b'x'; CAP + 1])).await.unwrap();
    assert_eq!(over.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer =
        sent(world.kit.h1("allowed.test").await, world.post("allowed.test", "/echo", vec![b'x'; CAP]));
    let asked = world.open().await;
    for who in ["ann", "bob"] {
        world.yes(who, &asked).await;
    }
    let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), CAP);
}

#[tokio::test]
async fn a_grant_for_a_session_ends_with_it_and_the_desk_notices_time() {
    let world = World::new().await;
    let policy = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - id: session
    when: {host: allowed.test}
    hold: {needs: [{people: 1, groups: [ops]}], excludes_self: false, open_seconds: 2, offers: {session: true}}
"#;
    let (policy, approvals) = (Some(policy), Some(world.desk.clone()));
    let kit = Kit::start(Options { policy, approvals, ..Options::default() }).await;
    let get = || kit.request("allowed.test", "/").body(empty()).unwrap();
    let mut client = kit.h1("allowed.test").await;
    let (answer, ()) = tokio::join!(client.send(get()), async {
        let asked = world.open().await;
        let said = world.says("ann", &asked, Some(Scope::Session)).await;
        assert!(matches!(said, Decided::Approved { once: false, .. }), "{said:?}");
    });
    assert_eq!(text(answer.unwrap()).await, "hello");
    assert_eq!(text(client.send(get()).await.unwrap()).await, "hello");
    let id = world.desk.list(true).await.unwrap().remove(0).approval.id;
    assert!(world.desk.get(id).await.unwrap().unwrap().granted);
    drop(client);
    until("the grant ends", async || !world.desk.get(id).await.unwrap().unwrap().granted).await;
    // Nobody answers, and nothing but time wakes the desk.
    let begun = std::time::Instant::now();
    let told = denied(kit.h2("allowed.test").await.send(get()).await.unwrap()).await;
    assert_eq!(told["reason"], "approval-expired");
    assert!(begun.elapsed() >= Duration::from_secs(2) && begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_model_s_client_is_told_in_its_own_words() {
    let world = World::new().await;
    let mut request = world.post("allowed.test", "/v1/messages", r#"{"messages": []}"#);
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let answer = sent(world.kit.h1("allowed.test").await, request);
    world.says("ann", &world.open().await, None).await;
    let told = denied(answer.await.unwrap()).await;
    assert_eq!((&told["type"], &told["error"]["type"]), (&"error".into(), &"permission_error".into()));
    assert!(told["error"]["message"].as_str().unwrap().contains("said no"), "{told}");
    assert_eq!(told["enforcer"]["reason"], "approval-rejected");
}
