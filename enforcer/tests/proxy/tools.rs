//! What a model asks its client to run: kept back until policy, or people, have said yes.

mod changes;
mod code;
mod elsewhere;

use std::sync::Arc;

use enforcer::approval::{Account, Decided, Desk, Listed, People, PersonId, Scope, Spoken, Standing};
use enforcer::policy::{Group, PolicyStore};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::kit::client::{Sent, empty, text};
use crate::kit::{Kit, Options, until};

const POLICY: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: rest, when: {host: [allowed.test, masked.test]}, allow: true}
  - {id: no, when: {host: allowed.test, cel: '"disclose" in llm.tool.effects'}, deny: secrets stay here}
  - id: ask
    when: {host: allowed.test, cel: '"delete" in llm.tool.effects && llm.tool.name == "mybash"'}
    hold: {message: somebody looks at it, needs: [{people: 2, groups: [ops]}], excludes_self: false}
  - {id: watched, mode: audit, when: {host: allowed.test, cel: '"publish" in llm.tool.effects'}, deny: no}
"#;

struct World {
    kit: Kit,
    desk: Desk,
    policies: Arc<PolicyStore>,
    rules: tempfile::TempDir,
    _journal: tempfile::TempDir,
}

fn login(name: &str) -> Account {
    Account::subject("https://idp.test", name)
}

impl World {
    async fn new() -> Self {
        Self::with(POLICY).await
    }

    async fn with(policy: &str) -> Self {
        let journal = tempfile::tempdir().unwrap();
        let mut people = People::default();
        for name in ["ann", "bob"] {
            people.map(login(name), PersonId::new(name)).unwrap();
            people.set_groups(login(name), [Group::new("ops")]);
        }
        let desk = Desk::open(journal.path(), people, "boot").unwrap();
        let rules = tempfile::tempdir().unwrap();
        std::fs::write(rules.path().join("t.yaml"), policy).unwrap();
        let (policies, read) = PolicyStore::open(rules.path(), None);
        read.unwrap();
        let policies = Arc::new(policies);
        let approvals = Some(desk.clone());
        let options = Options { policies: Some(Arc::clone(&policies)), approvals, ..Options::default() };
        Self { kit: Kit::start(options).await, desk, policies, rules, _journal: journal }
    }

    fn load(&self, policy: &str) {
        std::fs::write(self.rules.path().join("t.yaml"), policy).unwrap();
        self.policies.reload().unwrap();
    }

    /// A request that is answered by what it sends, as something of this type.
    fn says_again(&self, path: &str, kind: &str, body: impl Into<bytes::Bytes>) -> Request<Sent> {
        let body = http_body_util::Full::new(body.into()).map_err(|never| match never {});
        let request = self.kit.request("allowed.test", &format!("{path}?as={kind}")).method("POST");
        request.body(body.boxed_unsync()).unwrap()
    }

    fn asks(&self, host: &str, path: &str, command: &str) -> Request<Sent> {
        let path = format!("{path}?calls={}", command.replace(' ', "+"));
        let request = self.kit.request(host, &path).method("POST");
        request.header("content-type", "application/json").body(empty()).unwrap()
    }

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
}

/// Takes down what comes of a body until nothing comes for a moment, or it ends.
async fn arrives(body: &mut Incoming, what: &str) -> String {
    let mut all = String::new();
    while !all.contains(what) {
        let frame = body.frame().await.expect("more of the body").unwrap();
        all.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    all
}

async fn rest(body: Incoming) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A chat in one piece that calls a tool for each of these.
fn chat(commands: &[&str]) -> String {
    let call = |command: &&str| {
        let arguments = serde_json::json!({ "command": command }).to_string();
        serde_json::json!({ "function": { "name": "mybash", "arguments": arguments } })
    };
    let calls: Vec<Value> = commands.iter().map(call).collect();
    serde_json::json!({ "model": "gpt-x", "choices": [{ "message": { "tool_calls": calls } }] }).to_string()
}

/// Of a call, anywhere.
fn none_of_it(text: &str) {
    for part in ["mybash", "toolu_1", "tool_use", "partial_json", "rm -rf"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_call_that_a_rule_denies_ends_the_answer_in_the_apis_own_way_without_a_byte_of_it() {
    let world = World::new().await;
    for h2 in [false, true] {
        let mut client = world.kit.client("allowed.test", h2).await;
        let request = world.asks("allowed.test", "/v1/messages", "cat ~/.aws/credentials");
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("content-length"));
        let told = text(response).await;
        none_of_it(&told);
        assert!(told.contains("said before"), "{told}");
        let last: Value = serde_json::from_str(told.rsplit("data: ").next().unwrap().trim()).unwrap();
        let why = last["error"]["message"].as_str().unwrap();
        assert_eq!((&last["type"], why.contains("secrets stay here")), (&"error".into(), true), "{told}");
        assert!(why.contains("rule t/no") && why.contains("kept back"), "{why}");
        // In one piece it has the status of a denial.
        let request = world.asks("allowed.test", "/v1/chat/completions", "cat ~/.aws/credentials");
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let told: Value = serde_json::from_str(&text(response).await).unwrap();
        assert!(told["error"]["message"].as_str().unwrap().contains("secrets stay here"), "{told}");
        assert_eq!(told["enforcer"]["rule"], "t/no");
    }
    world.kit.recorded_text("tool-verdict").await;
    let verdict = &world.kit.events("tool-verdict")[0];
    assert_eq!((&verdict["verdict"], &verdict["rule"]), (&"deny".into(), &"t/no".into()));
    assert_eq!((&verdict["name"], &verdict["reason"]), (&"mybash".into(), &"policy-deny".into()));
    assert!(verdict["arguments"].as_str().unwrap().contains("credentials"));
    assert_eq!(verdict["risks"][0]["effect"], "disclose");
}

#[tokio::test]
async fn what_no_rule_is_about_and_what_is_only_watched_passes_as_it_came() {
    let world = World::new().await;
    for (host, command) in
        [("allowed.test", "ls"), ("allowed.test", "npm publish"), ("masked.test", "rm -rf /")]
    {
        let mut client = world.kit.h1(host).await;
        let told = text(client.send(world.asks(host, "/v1/messages", command)).await.unwrap()).await;
        assert!(told.contains("mybash") && told.ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{told}");
        let whole = client.send(world.asks(host, "/v1/chat/completions", command)).await.unwrap();
        assert_eq!(whole.status(), StatusCode::OK);
        assert!(text(whole).await.contains(command));
    }
    world.kit.recorded_text("\"audit\":\"deny; reason=policy-deny; rule=t/watched\"").await;
    // Nobody looks at answers of a host that no rule names.
    let verdicts = world.kit.events("tool-verdict");
    assert_eq!(verdicts.len(), 4, "{verdicts:?}");
}

#[tokio::test]
async fn a_call_that_is_held_comes_whole_after_the_last_of_them_agreed_and_not_a_byte_before() {
    let world = World::new().await;
    for h2 in [false, true] {
        let mut other = world.kit.h1("masked.test").await;
        let free = other.send(world.asks("masked.test", "/v1/messages", "rm -rf /")).await.unwrap();
        let free = text(free).await;
        let mut client = world.kit.client("allowed.test", h2).await;
        let response = client.send(world.asks("allowed.test", "/v1/messages", "rm -rf /")).await.unwrap();
        let mut body = response.into_body();
        let mut told = arrives(&mut body, "content_block_stop").await;
        let asked = world.open().await;
        let view = serde_json::to_string(&asked.approval.view).unwrap();
        for part in ["mybash", "rm -rf /", "claude-x", "delete: ", "somebody looks at it", "/v1/messages"] {
            assert!(view.contains(part), "{part}: {view}");
        }
        assert_eq!(world.says("ann", &asked, Some(Scope::Once)).await, Decided::Counted { have: 1, need: 2 });
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), body.frame()).await;
        assert!(early.is_err(), "{early:?}");
        none_of_it(&told);
        assert!(matches!(world.says("bob", &asked, Some(Scope::Once)).await, Decided::Approved { .. }));
        told.push_str(&rest(body).await);
        assert_eq!(told, free);
    }
    world.kit.recorded_text("hold-released").await;
    for (kind, count) in [("held", 2), ("decided", 2), ("hold-released", 2)] {
        assert_eq!(world.kit.events(kind).len(), count, "{kind}");
    }
    assert_eq!(world.kit.events("held")[0]["exact"], world.kit.events("hold-released")[0]["exact"]);
}

#[tokio::test]
async fn on_no_the_answer_ends_and_says_so_and_a_client_that_leaves_gets_nothing() {
    let world = World::new().await;
    for h2 in [false, true] {
        let mut client = world.kit.client("allowed.test", h2).await;
        let response = client.send(world.asks("allowed.test", "/v1/messages", "rm -rf /")).await.unwrap();
        let mut body = response.into_body();
        let mut told = arrives(&mut body, "content_block_stop").await;
        assert_eq!(world.says("bob", &world.open().await, None).await, Decided::Rejected);
        told.push_str(&rest(body).await);
        none_of_it(&told);
        assert!(told.contains("said no") && told.contains("permission_error"), "{told}");
        let mut client = world.kit.client("allowed.test", h2).await;
        let response = client.send(world.asks("allowed.test", "/v1/messages", "rm -rf /srv")).await.unwrap();
        let mut body = response.into_body();
        arrives(&mut body, "content_block_stop").await;
        let asked = world.open().await;
        drop((body, client));
        let id = asked.approval.id;
        until("it is known that the client has left", async || {
            matches!(world.desk.get(id).await.unwrap().unwrap().approval.standing, Standing::Cancelled(_))
        })
        .await;
    }
    assert!(world.kit.events("hold-released").is_empty());
}

/// Where nothing can be told while it waits, the head waits too.
#[tokio::test]
async fn an_answer_in_one_piece_waits_whole() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let request = world.asks("allowed.test", "/v1/chat/completions", "rm -rf /");
    let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
    let asked = world.open().await;
    world.says("ann", &asked, Some(Scope::Once)).await;
    assert!(!answer.is_finished());
    world.says("bob", &asked, Some(Scope::Once)).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(text(answer).await.contains("rm -rf /"));
}

#[tokio::test]
async fn what_is_not_read_for_calls_is_denied_where_a_rule_is_about_them() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let upgrade = world.kit.request("allowed.test", "/v1/responses");
    let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
    let upgrade = upgrade.header("sec-websocket-version", "13");
    let upgrade = upgrade.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let response = client.send(upgrade.body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    // An answer that says that it is no model's, to a request to one.
    let mut client = world.kit.h1("allowed.test").await;
    let request = world.kit.request("allowed.test", "/v1/messages?echo").method("POST");
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{}")).map_err(|never| match never {});
    let request = request.header("content-type", "application/json").body(body.boxed_unsync()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(text(response).await.contains("tool-call-unreadable"));
}
