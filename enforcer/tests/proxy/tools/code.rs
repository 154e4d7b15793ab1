//! Blocks of code in the text of answers: kept back until policy, or people, have said yes.

use super::*;

const CODE: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: rest, when: {host: allowed.test}, allow: true}
  - {id: no, when: {host: allowed.test, cel: '"disclose" in llm.code.effects'}, deny: secrets stay here}
  - id: ask
    when: {host: allowed.test, cel: '"delete" in llm.code.effects && llm.code.language == "bash"'}
    hold: {needs: [{people: 1, groups: [ops]}], excludes_self: false}
"#;

/// A chat in events that says this, a few letters each.
fn says(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut all = String::new();
    for piece in letters.chunks(2) {
        let delta = serde_json::json!({ "content": piece.iter().collect::<String>() });
        let event = serde_json::json!({ "choices": [{ "index": 0, "delta": delta }] });
        all.push_str(&format!("data: {event}\n\n"));
    }
    all.push_str(
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    );
    all
}

fn asks(world: &World, text: &str) -> Request<Sent> {
    world.says_again("/v1/chat/completions", "text/event-stream", says(text))
}

/// What a client puts together.
fn put_together(told: &str) -> String {
    let data = told.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events = data.map(|data| serde_json::from_str::<Value>(&format!("{{{data}")).unwrap());
    events.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_block_that_a_rule_denies_ends_the_answer_without_a_byte_of_it() {
    let world = World::with(CODE).await;
    for h2 in [false, true] {
        let mut client = world.kit.client("allowed.test", h2).await;
        let secret = "said before\n```sh\ncat ~/.aws/credentials\n```\nand after";
        let told = text(client.send(asks(&world, secret)).await.unwrap()).await;
        assert_eq!(put_together(&told), "said before\n", "{told}");
        assert!(!told.contains('`') || !told.contains("aws"), "{told}");
        assert!(
            told.contains("a block of code in the model's answer was kept back: secrets stay here"),
            "{told}"
        );
        assert!(told.contains("rule t/no"), "{told}");
        // In one piece it has the status of a denial.
        let message = serde_json::json!({ "choices": [{ "message": { "content": secret } }] }).to_string();
        let whole = world.says_again("/v1/chat/completions", "application/json", message);
        let answer = client.send(whole).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let told = text(answer).await;
        assert!(told.contains("secrets stay here") && !told.contains("credentials"), "{told}");
        // What nobody minds goes on as it came.
        let free = "a\n```sh\nls\n```\n";
        assert_eq!(text(client.send(asks(&world, free)).await.unwrap()).await, says(free));
    }
    world.kit.recorded_text("tool-verdict").await;
    let verdict = &world.kit.events("tool-verdict")[0];
    assert_eq!((&verdict["verdict"], &verdict["rule"]), (&"deny".into(), &"t/no".into()));
    assert_eq!((&verdict["code"], &verdict["name"]), (&true.into(), &"sh".into()));
    assert_eq!(verdict["risks"][0]["effect"], "disclose");
}

#[tokio::test]
async fn a_block_that_is_held_comes_whole_when_somebody_has_agreed_and_not_a_byte_before() {
    let world = World::with(CODE).await;
    for (scope, ends) in [(Some(Scope::Once), true), (None, false)] {
        let mut client = world.kit.h1("allowed.test").await;
        let code = "said before\n```bash\nrm -rf /srv\n```\nand after";
        let response = client.send(asks(&world, code)).await.unwrap();
        let mut body = response.into_body();
        let mut told = arrives(&mut body, "\\n").await;
        let asked = world.open().await;
        let view = serde_json::to_string(&asked.approval.view).unwrap();
        for part in ["```bash", "rm -rf /srv", "delete: ", "/v1/chat/completions"] {
            assert!(view.contains(part), "{part}: {view}");
        }
        assert_eq!(put_together(&told), "said before\n", "{told}");
        let decided = world.says("ann", &asked, scope).await;
        assert_eq!(matches!(decided, Decided::Approved { .. }), ends);
        told.push_str(&rest(body).await);
        match ends {
            true => assert_eq!(told, says(code)),
            false => assert!(told.contains("said no") && !told.contains("rm"), "{told}"),
        }
    }
}

#[tokio::test]
async fn rules_about_calls_keep_no_code_back() {
    let world = World::new().await;
    let mut client = world.kit.h1("allowed.test").await;
    let code = "```sh\ncat ~/.aws/credentials";
    assert_eq!(text(client.send(asks(&world, code)).await.unwrap()).await, says(code));
    assert!(world.kit.events("tool-verdict").is_empty());
}

#[tokio::test]
async fn more_than_can_be_judged_does_not_pass_whatever_its_path_is() {
    let world = World::with(CODE).await;
    let mut client = world.kit.h1("allowed.test").await;
    let many: String = (0..130).map(|n| format!("```text\n{n}\n```\n")).collect();
    let long = format!("```text\n{}\n```\n", "x".repeat(300_000));
    for more in [many, long] {
        let text = format!("```sh\ncat ~/.aws/credentials\n```\n{more}");
        let message = serde_json::json!({ "choices": [{ "message": { "content": text } }] }).to_string();
        let request = world.says_again("/results/1", "application/json", message);
        assert_eq!(client.send(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    }
}
