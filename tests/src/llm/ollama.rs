//! Chat as Ollama streams it: a line for each piece.

use serde_json::{Value, json};

use super::script::{Script, Turn, names, pieces};

/// Which answer the request gets.
pub(super) fn turn(script: &Script, request: &Value) -> Turn {
    let answered = names(&request["messages"], "", "role").contains(&"tool");
    script.turn(&names(&request["tools"], "function", "name"), answered)
}

pub(super) fn lines(turn: &Turn, request: &Value) -> Vec<Value> {
    let line = |mut message: Value| {
        message["role"] = "assistant".into();
        json!({
            "model": request["model"], "created_at": "2026-01-01T00:00:00.000000Z", "message": message,
            "done": false,
        })
    };
    let mut lines: Vec<Value> =
        pieces(&turn.reasoning).map(|piece| line(json!({ "content": "", "thinking": piece }))).collect();
    lines.extend(pieces(&turn.text).map(|piece| line(json!({ "content": piece }))));
    if let Some(tool) = &turn.tool {
        let called = json!({ "function": { "name": tool.name, "arguments": tool.arguments } });
        lines.push(line(json!({ "content": "", "tool_calls": [called] })));
    }
    let mut last = line(json!({ "content": "" }));
    let counts = json!({
        "done": true, "done_reason": "stop", "total_duration": 9, "load_duration": 1,
        "prompt_eval_count": 11, "prompt_eval_duration": 3, "eval_count": 7, "eval_duration": 5,
    });
    if let (Some(last), Value::Object(counts)) = (last.as_object_mut(), counts) {
        last.extend(counts);
    }
    lines.push(last);
    lines
}
