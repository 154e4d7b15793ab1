//! Policy that changes while an answer is on its way, or is held.

use super::*;

/// No rule is about tool calls.
const BEFORE: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: rest, when: {host: allowed.test}, allow: true}
"#;

#[tokio::test]
async fn what_was_allowed_beside_a_call_that_is_held_does_not_outlive_the_policy_that_allowed_it() {
    let world = World::new().await;
    let stricter = POLICY.replace("  - id: ask", "  - {id: none, when: {host: allowed.test, cel: 'llm.tool.arguments.contains(\"ls\")'}, deny: no}\n  - id: ask");
    for (change, status) in [(Some(&stricter), StatusCode::FORBIDDEN), (None, StatusCode::OK)] {
        world.load(POLICY);
        let mut client = world.kit.h1("allowed.test").await;
        let request = world.says_again("/v1/chat/completions", "application/json", chat(&["ls", "rm -rf /"]));
        let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
        let asked = world.open().await;
        if let Some(change) = change {
            world.load(change);
        }
        world.says("ann", &asked, Some(Scope::Once)).await;
        world.says("bob", &asked, Some(Scope::Once)).await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        let told = text(answer).await;
        assert_eq!(told.contains("policy-changed"), change.is_some(), "{told}");
        assert_eq!(told.contains("rm -rf /"), change.is_none(), "{told}");
    }
}

#[tokio::test]
async fn a_rule_that_comes_while_the_request_is_on_its_way_judges_the_answer() {
    let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"mybash\",\"arguments\":\"{\\\"command\\\":\\\"cat ~/.aws/credentials\\\"}\"}}]}}]}\n\ndata: [DONE]\n\n";
    for (kind, body) in [
        ("application/json&wait", chat(&["cat ~/.aws/credentials"])),
        ("text/event-stream&wait", stream.to_owned()),
    ] {
        let world = World::with(BEFORE).await;
        let mut client = world.kit.h1("allowed.test").await;
        let request = world.says_again("/v1/chat/completions", kind, body);
        let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
        world.kit.recorded_text("\"rule\":\"t/rest\"").await;
        world.load(POLICY);
        world.kit.scene.signal.notify_one();
        let told = text(answer.await.unwrap()).await;
        none_of_it(&told);
        assert!(told.contains("secrets stay here"), "{told}");
    }
}
