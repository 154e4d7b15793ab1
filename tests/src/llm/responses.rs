//! Responses as OpenAI streams them: as events, and as messages of a WebSocket.

use serde_json::{Value, json};

use super::Event;
use super::script::{Script, Turn, names, pieces};

/// Which answer the request gets.
pub(super) fn turn(script: &Script, request: &Value) -> Turn {
    let kinds = names(&request["input"], "", "type");
    let answered =
        kinds.iter().any(|kind| ["function_call_output", "custom_tool_call_output"].contains(kind));
    let turn = script.turn(&tools(request), answered);
    match request["generate"].as_bool() {
        // A client that only opens the connection wants nothing said.
        Some(false) => Turn::default(),
        _ => turn,
    }
}

/// The names of tools, of those too that come as an item and in a name space.
fn tools(request: &Value) -> Vec<&str> {
    let mut found = names(&request["tools"], "", "name");
    for item in request["input"].as_array().into_iter().flatten() {
        for tool in item["tools"].as_array().into_iter().flatten() {
            found.extend(names(&tool["tools"], "", "name"));
        }
    }
    found
}

/// The answer as its last event and the API without streaming have it.
pub(super) fn whole(turn: &Turn, request: &Value) -> Value {
    response(request, "completed", &items(turn, "completed"))
}

fn response(request: &Value, status: &str, output: &[Value]) -> Value {
    let usage = json!({
        "input_tokens": 11, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": 7,
        "output_tokens_details": { "reasoning_tokens": 2 }, "total_tokens": 18,
    });
    json!({
        "id": "resp_fake1", "object": "response", "created_at": 1_790_000_000, "status": status,
        "background": false, "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "model": request["model"], "output": output,
        "parallel_tool_calls": true, "previous_response_id": null, "metadata": {}, "store": false,
        "reasoning": { "effort": null, "summary": null }, "temperature": 1.0, "top_p": 1.0,
        "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
        "truncation": "disabled", "usage": if status == "completed" { usage } else { Value::Null },
    })
}

/// The items that the model says, with all that is in them.
fn items(turn: &Turn, status: &str) -> Vec<Value> {
    let mut items = Vec::new();
    if !turn.reasoning.is_empty() {
        items.push(json!({
            "id": "rs_fake1", "type": "reasoning",
            "summary": [{ "type": "summary_text", "text": turn.reasoning }],
        }));
    }
    if !turn.text.is_empty() {
        items.push(json!({
            "id": "msg_fake1", "type": "message", "role": "assistant", "status": status,
            "content": [text_part(&turn.text)],
        }));
    }
    items.extend(turn.tool.as_ref().map(|tool| match &tool.arguments {
        Value::String(input) => json!({
            "id": "ctc_fake1", "type": "custom_tool_call", "status": status, "call_id": "call_fake1",
            "name": tool.name, "input": input,
        }),
        arguments => json!({
            "id": "fc_fake1", "type": "function_call", "status": status, "call_id": "call_fake1",
            "name": tool.name, "arguments": arguments.to_string(),
        }),
    }));
    items
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// Numbers events as they are made.
#[derive(Default)]
struct Sequence(Vec<Event>);

impl Sequence {
    fn add(&mut self, kind: &'static str, mut data: Value) {
        data["type"] = kind.into();
        data["sequence_number"] = self.0.len().into();
        self.0.push(Event::named(kind, &data));
    }
}

pub(super) fn events(turn: &Turn, request: &Value) -> Vec<Event> {
    let mut all = Sequence::default();
    let begun = response(request, "in_progress", &[]);
    all.add("response.created", json!({ "response": begun }));
    all.add("response.in_progress", json!({ "response": begun }));
    let items = items(turn, "completed");
    for (index, item) in items.iter().enumerate() {
        let mut empty = item.clone();
        match item["type"].as_str() {
            Some("reasoning") => empty["summary"] = json!([]),
            Some("message") => empty["content"] = json!([]),
            Some("custom_tool_call") => empty["input"] = "".into(),
            _ => empty["arguments"] = "".into(),
        }
        if empty.get("status").is_some() {
            empty["status"] = "in_progress".into();
        }
        all.add("response.output_item.added", json!({ "output_index": index, "item": empty }));
        match item["type"].as_str() {
            Some("reasoning") => reasoning(&mut all, index, &turn.reasoning),
            Some("message") => message(&mut all, index, &turn.text),
            Some("custom_tool_call") => input(&mut all, index, item),
            _ => arguments(&mut all, index, item),
        }
        all.add("response.output_item.done", json!({ "output_index": index, "item": item }));
    }
    all.add("response.completed", json!({ "response": response(request, "completed", &items) }));
    all.0
}

fn reasoning(all: &mut Sequence, index: usize, text: &str) {
    let at = |key: &str, value: Value| json!({ "item_id": "rs_fake1", "output_index": index, "summary_index": 0, key: value });
    let part = |text: &str| json!({ "type": "summary_text", "text": text });
    all.add("response.reasoning_summary_part.added", at("part", part("")));
    for piece in pieces(text) {
        all.add("response.reasoning_summary_text.delta", at("delta", piece.into()));
    }
    all.add("response.reasoning_summary_text.done", at("text", text.into()));
    all.add("response.reasoning_summary_part.done", at("part", part(text)));
}

fn message(all: &mut Sequence, index: usize, text: &str) {
    let at = |key: &str, value: Value| json!({ "item_id": "msg_fake1", "output_index": index, "content_index": 0, key: value });
    let logged = |mut data: Value| {
        data["logprobs"] = json!([]);
        data
    };
    all.add("response.content_part.added", at("part", text_part("")));
    for piece in pieces(text) {
        all.add("response.output_text.delta", logged(at("delta", piece.into())));
    }
    all.add("response.output_text.done", logged(at("text", text.into())));
    all.add("response.content_part.done", at("part", text_part(text)));
}

fn arguments(all: &mut Sequence, index: usize, item: &Value) {
    let at = |key: &str, value: Value| json!({ "item_id": item["id"], "output_index": index, key: value });
    let text = item["arguments"].as_str().unwrap_or_default();
    for piece in pieces(text) {
        all.add("response.function_call_arguments.delta", at("delta", piece.into()));
    }
    let mut done = at("arguments", text.into());
    done["name"] = item["name"].clone();
    all.add("response.function_call_arguments.done", done);
}

fn input(all: &mut Sequence, index: usize, item: &Value) {
    let at = |key: &str, value: Value| json!({ "item_id": item["id"], "output_index": index, key: value });
    let text = item["input"].as_str().unwrap_or_default();
    for piece in pieces(text) {
        all.add("response.custom_tool_call_input.delta", at("delta", piece.into()));
    }
    all.add("response.custom_tool_call_input.done", at("input", text.into()));
}
