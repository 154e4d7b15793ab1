//! Generated content as Gemini streams it: as events, and as one array that grows.

use serde_json::{Value, json};

use super::script::{Script, Turn, names, pieces};

/// Which answer the request gets.
pub(super) fn turn(script: &Script, request: &Value) -> Turn {
    let members = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let answered = members(&request["contents"])
        .iter()
        .any(|content| members(&content["parts"]).iter().any(|part| part.get("functionResponse").is_some()));
    let tools: Vec<Value> =
        members(&request["tools"]).iter().flat_map(|tool| members(&tool["functionDeclarations"])).collect();
    script.turn(&names(&Value::Array(tools), "", "name"), answered)
}

fn answer(model: &str, parts: &[Value], last: bool) -> Value {
    let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
    if last {
        candidate["finishReason"] = "STOP".into();
    }
    json!({
        "candidates": [candidate], "modelVersion": model, "responseId": "fake1",
        "usageMetadata": {
            "promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": 11 }],
        },
    })
}

fn call(turn: &Turn) -> Option<Value> {
    turn.tool.as_ref().map(|tool| json!({ "functionCall": { "name": tool.name, "args": tool.arguments } }))
}

/// One object for each piece; a call comes whole, as the API sends it.
pub(super) fn chunks(turn: &Turn, request: &Value, model: &str) -> Vec<Value> {
    // Both spellings are taken, as by every API of that vendor's.
    let thinking = &request["generationConfig"]["thinkingConfig"];
    let shown = thinking["includeThoughts"] == true || thinking["include_thoughts"] == true;
    let thoughts = pieces(&turn.reasoning).filter(|_| shown);
    let mut all: Vec<Value> =
        thoughts.map(|piece| answer(model, &[json!({ "text": piece, "thought": true })], false)).collect();
    all.extend(pieces(&turn.text).map(|piece| answer(model, &[json!({ "text": piece })], false)));
    all.extend(call(turn).map(|call| answer(model, &[call], false)));
    all.push(answer(model, &[json!({ "text": "" })], true));
    all
}

pub(super) fn whole(turn: &Turn, model: &str) -> Value {
    let mut parts = vec![json!({ "text": turn.text })];
    parts.extend(call(turn));
    answer(model, &parts, true)
}
