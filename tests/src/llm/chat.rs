//! Chat completions as OpenAI streams them.

use serde_json::{Value, json};

use super::Event;
use super::script::{Script, Turn, names, pieces};

const ID: &str = "chatcmpl-fake1";

/// Which answer the request gets.
pub(super) fn turn(script: &Script, request: &Value) -> Turn {
    let answered = names(&request["messages"], "", "role").contains(&"tool");
    script.turn(&names(&request["tools"], "function", "name"), answered)
}

fn usage() -> Value {
    json!({ "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 })
}

fn finish(turn: &Turn) -> &'static str {
    if turn.tool.is_some() { "tool_calls" } else { "stop" }
}

pub(super) fn events(turn: &Turn, request: &Value) -> Vec<Event> {
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": ID, "object": "chat.completion.chunk", "created": 1_790_000_000, "model": request["model"],
            "service_tier": "default", "system_fingerprint": "fp_fake", "choices": choices,
        });
        if request["stream_options"]["include_usage"] == true {
            chunk["usage"] = usage;
        }
        Event::data(&chunk)
    };
    let delta = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        chunk(json!([choice]), Value::Null)
    };
    let part = |value: Value| delta(value, Value::Null);
    let mut events = vec![part(json!({ "role": "assistant", "content": "", "refusal": null }))];
    events.extend(pieces(&turn.reasoning).map(|piece| part(json!({ "reasoning_content": piece }))));
    events.extend(pieces(&turn.text).map(|piece| part(json!({ "content": piece }))));
    if let Some(tool) = &turn.tool {
        let called = json!({ "name": tool.name, "arguments": "" });
        let first = json!({ "index": 0, "id": "call_fake1", "type": "function", "function": called });
        events.push(part(json!({ "tool_calls": [first] })));
        events.extend(pieces(&tool.arguments.to_string()).map(|piece| {
            part(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] }))
        }));
    }
    events.push(delta(json!({}), finish(turn).into()));
    if request["stream_options"]["include_usage"] == true {
        events.push(chunk(json!([]), usage()));
    }
    events.push(Event::raw("[DONE]"));
    events
}

pub(super) fn whole(turn: &Turn, request: &Value) -> Value {
    let mut message = json!({ "role": "assistant", "content": turn.text, "refusal": null });
    if let Some(tool) = &turn.tool {
        let called = json!({ "name": tool.name, "arguments": tool.arguments.to_string() });
        message["tool_calls"] = json!([{ "id": "call_fake1", "type": "function", "function": called }]);
    }
    json!({
        "id": ID, "object": "chat.completion", "created": 1_790_000_000, "model": request["model"],
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish(turn) }],
        "usage": usage(),
    })
}
