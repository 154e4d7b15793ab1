//! Answers of models with the secret in them, a letter a piece.

use serde_json::{Value, json};

use super::SECRET;

/// The name and the data of each event.
pub type Events = Vec<(Option<String>, String)>;

/// What the model says, before it is masked.
fn text() -> String {
    format!("The key is {SECRET}, and no other.")
}

fn letters(text: &str) -> Vec<String> {
    text.chars().map(String::from).collect()
}

fn named(events: Vec<Value>) -> Events {
    let name = |event: &Value| event["type"].as_str().map(str::to_owned);
    events.into_iter().map(|event| (name(&event), event.to_string())).collect()
}

/// A chat, with its text and then a tool call.
pub fn chat() -> Events {
    let chunk = |delta: Value, end: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": end });
        (None, json!({ "id": "c1", "object": "chat.completion.chunk", "choices": [choice] }).to_string())
    };
    let mut events = vec![chunk(json!({ "role": "assistant", "content": "" }), None)];
    events.extend(letters(&text()).iter().map(|letter| chunk(json!({ "content": letter }), None)));
    let call = |inner: Value| chunk(json!({ "tool_calls": [inner] }), None);
    events.push(call(json!({ "index": 0, "id": "t1", "function": { "name": "sh", "arguments": "" } })));
    let arguments = json!({ "cmd": format!("sudo echo {SECRET}") }).to_string();
    let argument = |letter: &String| call(json!({ "index": 0, "function": { "arguments": letter } }));
    events.extend(letters(&arguments).iter().map(argument));
    events.push(chunk(json!({}), Some("tool_calls")));
    events.push((None, "[DONE]".to_owned()));
    events
}

/// A message that says something, and calls a tool.
pub fn calls(command: &str) -> Events {
    let delta =
        |index: u32, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let tool = json!({ "type": "tool_use", "id": "toolu_1", "name": "mybash", "input": {} });
    let mut events = vec![
        json!({ "type": "message_start", "message": { "id": "m1", "model": "claude-x", "content": [] } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        delta(0, json!({ "type": "text_delta", "text": "said before" })),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "content_block_start", "index": 1, "content_block": tool }),
    ];
    let arguments = json!({ "command": command }).to_string();
    let piece = |letter| delta(1, json!({ "type": "input_json_delta", "partial_json": letter }));
    events.extend(letters(&arguments).into_iter().map(piece));
    events.push(json!({ "type": "content_block_stop", "index": 1 }));
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" } }));
    events.push(json!({ "type": "message_stop" }));
    named(events)
}

/// A chat in one piece that calls a tool.
pub fn whole_calls(command: &str) -> String {
    let function = json!({ "name": "mybash", "arguments": json!({ "command": command }).to_string() });
    let message = json!({ "role": "assistant", "tool_calls": [{ "id": "call_1", "function": function }] });
    json!({ "id": "c1", "model": "gpt-x", "choices": [{ "index": 0, "message": message }] }).to_string()
}

/// A message whose signed thinking holds the secret.
pub fn messages() -> Events {
    let delta = |delta: Value| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
    let mut events = vec![
        json!({ "type": "message_start", "message": { "id": "m1", "content": [] } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "thinking", "thinking": "" } }),
    ];
    let thinking = |letter| delta(json!({ "type": "thinking_delta", "thinking": letter }));
    events.extend(letters(&text()).into_iter().map(thinking));
    events.push(delta(json!({ "type": "signature_delta", "signature": "Eq".repeat(80) })));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "message_stop" }));
    named(events)
}

/// The same in one piece, whether it is signed or not.
pub fn message(signed: bool) -> String {
    let signature = if signed { "Eq".repeat(80) } else { String::new() };
    let thinking = json!({ "type": "thinking", "thinking": text(), "signature": signature });
    json!({ "type": "message", "content": [thinking, { "type": "text", "text": "that is it" }] }).to_string()
}

/// A response with the repeats of its text.
pub fn responses() -> Events {
    let text = text();
    let item = json!({ "id": "msg_1", "content": [{ "type": "output_text", "text": text }] });
    let mut events = vec![json!({ "type": "response.created", "response": { "id": "r1" } })];
    events.extend(letters(&text).iter().map(|letter| {
        json!({
            "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": letter,
        })
    }));
    events.extend([
        json!({ "type": "response.output_text.done", "item_id": "msg_1", "content_index": 0, "text": text }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.completed", "response": { "id": "r1", "output": [item] } }),
    ]);
    named(events)
}
