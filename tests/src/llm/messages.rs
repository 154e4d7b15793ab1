//! Messages as Anthropic streams them.

use serde_json::{Value, json};

use super::Event;
use super::script::{Script, Turn, names, pieces};

/// Says nothing, but has the length of a real one.
pub const SIGNATURE: &str = "RmFrZVNpZ25hdHVyZU9mVGhlRmFrZQ==";

/// Which answer the request gets.
pub(super) fn turn(script: &Script, request: &Value) -> Turn {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let answered =
        messages.iter().any(|message| names(&message["content"], "", "type").contains(&"tool_result"));
    let mut turn = script.turn(&names(&request["tools"], "", "name"), answered);
    let thinks = request["thinking"]["type"].as_str().is_some_and(|kind| kind != "disabled");
    if !thinks {
        turn.thinking.clear();
    }
    turn
}

/// The blocks of the answer, whole.
fn blocks(turn: &Turn) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !turn.thinking.is_empty() {
        blocks.push(json!({ "type": "thinking", "thinking": turn.thinking, "signature": SIGNATURE }));
    }
    if !turn.text.is_empty() {
        blocks.push(json!({ "type": "text", "text": turn.text }));
    }
    if let Some(tool) = &turn.tool {
        blocks.push(json!({
            "type": "tool_use", "id": "toolu_fake1", "name": tool.name, "input": tool.arguments,
        }));
    }
    blocks
}

fn message(request: &Value, content: &[Value], stop: Value, output: u32) -> Value {
    let usage = json!({
        "input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": output, "service_tier": "standard",
    });
    json!({
        "id": "msg_fake1", "type": "message", "role": "assistant", "model": request["model"],
        "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage,
    })
}

fn stop(turn: &Turn) -> &'static str {
    if turn.tool.is_some() { "tool_use" } else { "end_turn" }
}

pub(super) fn whole(turn: &Turn, request: &Value) -> Value {
    message(request, &blocks(turn), stop(turn).into(), 7)
}

pub(super) fn events(turn: &Turn, request: &Value) -> Vec<Event> {
    let event = |kind: &'static str, mut data: Value| {
        data["type"] = kind.into();
        Event::named(kind, &data)
    };
    let mut events =
        vec![event("message_start", json!({ "message": message(request, &[], Value::Null, 1) }))];
    for (index, block) in blocks(turn).into_iter().enumerate() {
        let (empty, deltas) = block_parts(&block);
        events.push(event("content_block_start", json!({ "index": index, "content_block": empty })));
        if index == 0 {
            events.push(event("ping", json!({})));
        }
        events.extend(
            deltas
                .into_iter()
                .map(|delta| event("content_block_delta", json!({ "index": index, "delta": delta }))),
        );
        events.push(event("content_block_stop", json!({ "index": index })));
    }
    let ended = json!({ "stop_reason": stop(turn), "stop_sequence": null });
    events.push(event("message_delta", json!({ "delta": ended, "usage": { "output_tokens": 7 } })));
    events.push(event("message_stop", json!({})));
    events
}

/// A block as it begins, and what is added to it.
fn block_parts(block: &Value) -> (Value, Vec<Value>) {
    let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
    let deltas = |kind: &str, key: &str, text: &str| -> Vec<Value> {
        pieces(text).map(|piece| json!({ "type": kind, key: piece })).collect()
    };
    match block["type"].as_str() {
        Some("thinking") => {
            let mut all = deltas("thinking_delta", "thinking", &text("thinking"));
            all.push(json!({ "type": "signature_delta", "signature": block["signature"] }));
            (json!({ "type": "thinking", "thinking": "", "signature": "" }), all)
        }
        Some("text") => (json!({ "type": "text", "text": "" }), deltas("text_delta", "text", &text("text"))),
        _ => {
            let mut empty = block.clone();
            empty["input"] = json!({});
            let mut all = vec![json!({ "type": "input_json_delta", "partial_json": "" })];
            all.extend(deltas("input_json_delta", "partial_json", &block["input"].to_string()));
            (empty, all)
        }
    }
}
