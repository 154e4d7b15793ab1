//! A model asks its client to delete everything: the SDKs of two providers, and the bytes on the
//! wire to a client that shows them.

use enforcer_tests::wait::until;
use serde_json::{Value, json};

use super::clients::variables;
use super::world::World;

const POLICY: &str = r#"
version: 1
name: held
rules:
  - {id: net, when: {host: upstream.test}, addresses: [loopback]}
  - id: deletes
    when: {host: upstream.test, cel: '"delete" in llm.tool.effects'}
    hold: {message: an agent deletes, needs: [{people: 2, groups: [ops]}]}
  - {id: rest, when: {host: upstream.test}, allow: true}
"#;
/// The path of each API, and what is asked for there.
const APIS: [(&str, &str); 2] = [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")];

fn stream(events: &[Value]) -> String {
    let named = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    events.iter().map(named).collect()
}

fn chat() -> String {
    let chunk = |delta: Value, end: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": end });
        json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice] })
    };
    let call = |call: Value| chunk(json!({ "tool_calls": [call] }), None);
    let function = json!({ "name": "mybash", "arguments": "" });
    let mut events = vec![
        chunk(json!({ "role": "assistant", "content": "said before" }), None),
        call(json!({ "index": 0, "id": "call_1", "type": "function", "function": function })),
    ];
    for piece in ["{\"comm", "and\": \"rm", " -rf /\"}"] {
        events.push(call(json!({ "index": 0, "function": { "arguments": piece } })));
    }
    events.push(chunk(json!({}), Some("tool_calls")));
    stream(&events) + "data: [DONE]\n\n"
}

fn messages() -> String {
    let delta =
        |index: u32, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let begin = |index: u32, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let usage = json!({ "input_tokens": 1, "output_tokens": 1 });
    let message = json!({
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": usage,
    });
    let mut events = vec![
        json!({ "type": "message_start", "message": message }),
        begin(0, json!({ "type": "text", "text": "" })),
        delta(0, json!({ "type": "text_delta", "text": "said before" })),
        json!({ "type": "content_block_stop", "index": 0 }),
        begin(1, json!({ "type": "tool_use", "id": "toolu_1", "name": "mybash", "input": {} })),
    ];
    for piece in ["{\"comm", "and\": \"rm", " -rf /\"}"] {
        events.push(delta(1, json!({ "type": "input_json_delta", "partial_json": piece })));
    }
    let end = json!({ "stop_reason": "tool_use", "stop_sequence": null });
    events.extend([
        json!({ "type": "content_block_stop", "index": 1 }),
        json!({ "type": "message_delta", "delta": end, "usage": usage }),
        json!({ "type": "message_stop" }),
    ]);
    stream(&events)
}

fn none_of_it(text: &str) {
    for part in ["mybash", "call_1", "toolu_1", "tool_use", "tool_calls", "partial_json", "rm -"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_agent_has_a_tool_call_when_two_people_agreed_and_nothing_of_it_before_and_hears_of_a_no() {
    let world = World::with(POLICY, &[], "");
    for (api, path) in APIS {
        let answer = if api == "openai" { chat() } else { messages() };
        world.sink.says(&format!("/{api}{path}"), "text/event-stream", answer.clone());
        let (url, dir) = (world.url(), world.service.dir.path().to_path_buf());
        let sdk = format!("$PYTHON $CLIENTS/python/tools.py {api} {url}/{api}");
        let raw = format!("curl -sN -H 'content-type: application/json' --data '{{}}' {url}/{api}{path}");
        for (name, client, agreed) in
            [("sdk", &sdk, true), ("raw", &raw, true), ("sdk-no", &sdk, false), ("raw-no", &raw, false)]
        {
            eprintln!("{api} {name}");
            let file = dir.join(format!("{api}-{name}"));
            let heard = || std::fs::read_to_string(&file).unwrap_or_default();
            let script = format!("{}; {client} > {}", variables(), file.display());
            std::thread::scope(|threads| {
                let job = world.runs(threads, &script);
                let asked = world.open();
                until("the text before it has come", || heard().contains("said before"));
                none_of_it(&heard());
                if agreed {
                    assert!(world.yes("ann", &asked).contains("1 of 2"));
                    none_of_it(&heard());
                    assert!(!job.is_finished());
                    assert!(world.yes("bob", &asked).contains("is approved"));
                } else {
                    let no = world.says(&world.token_of("bob", &["ops"]), "deny", &asked);
                    assert!(no.contains("is rejected"), "{no}");
                }
                let said = job.join().unwrap();
                assert!(!said.contains("Traceback"), "{said}");
            });
            let heard = heard();
            match (name, agreed) {
                ("raw", _) => assert_eq!(heard, answer),
                (_, true) => assert!(heard.contains("call mybash") && heard.contains("rm -rf /"), "{heard}"),
                (_, false) => {
                    none_of_it(&heard);
                    assert!(heard.contains("said no") && heard.contains("as announced"), "{heard}");
                }
            }
        }
    }
    let shown = world.listed(true);
    assert!(shown.iter().all(|one| one.to_string().contains("held/deletes")), "{shown:?}");
}
