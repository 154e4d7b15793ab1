//! Names of members that clients read in different ways: some of them take another case for the same
//! name (Go's `encoding/json`), and of a name that stands twice some take the first, some the last.

use std::borrow::Cow;

use super::json::{Doc, Kind};

/// Members inside of which calls stand.
const WAY: &[&str] = &[
    "choices",
    "delta",
    "message",
    "tool_calls",
    "function",
    "custom",
    "function_call",
    "functionCall",
    "functionCalls",
    "toolCall",
    "toolUse",
    "item",
    "response",
    "output",
    "content",
    "content_block",
    "candidates",
    "parts",
    "start",
    "required_action",
    "submit_tool_outputs",
    "step_details",
];
/// Members that say something of a call, or of where it stands.
const SAYS: &[&str] = &[
    "type",
    "index",
    "output_index",
    "item_id",
    "name",
    "arguments",
    "input",
    "args",
    "parameters",
    "partial_json",
    "finish_reason",
    "contentBlockIndex",
    "partialArgs",
    "willContinue",
    "action",
    "actions",
    "code",
    "operation",
    "queries",
    "stopReason",
];
/// Those that nobody has who has nothing to do with models.
const TELLING: &[&str] = &[
    "choices",
    "tool_calls",
    "function_call",
    "functionCall",
    "functionCalls",
    "toolUse",
    "content_block",
    "candidates",
    "partial_json",
    "finish_reason",
    "output_index",
    "partialArgs",
];

/// Whether clients read it in different ways; `model` if it is known to be of a model.
pub fn are_ambiguous(doc: &Doc<'_>, model: bool) -> bool {
    stand_twice(doc) || differ_in_case(doc, model)
}

fn stand_twice(doc: &Doc<'_>) -> bool {
    (0..doc.len()).filter(|&node| doc.is_object(node)).any(|node| {
        let mut keys: Vec<Cow<'_, [u8]>> = doc.children(node).filter_map(|child| doc.key(child)).collect();
        keys.sort_unstable();
        keys.windows(2).any(|two| two[0] == two[1])
    })
}

fn differ_in_case(doc: &Doc<'_>, model: bool) -> bool {
    let mut on_way = vec![false; doc.len()];
    on_way[Doc::ROOT] = true;
    for node in 1..doc.len() {
        let Some(parent) = doc.parent(node).filter(|&parent| on_way[parent]) else { continue };
        let Some(key) = doc.key(node) else {
            // An element of a list.
            on_way[node] = doc.kind(parent) == Kind::Array;
            continue;
        };
        let is = |names: &[&str]| names.iter().any(|name| name.as_bytes() == key.as_ref());
        let is_like = |names: &[&str]| names.iter().any(|name| folds_to(&key, name));
        if is(WAY) {
            on_way[node] = true;
        } else if is(SAYS) {
        } else if is_like(TELLING) || model && (is_like(WAY) || is_like(SAYS)) {
            return true;
        } else if folds_to(&key, "type") && doc.kind(node) == Kind::String {
            let says = |part: &str| memchr::memmem::find(doc.raw(node), part.as_bytes()).is_some();
            if ["tool_use", "_call", "content_block", "response."].into_iter().any(says) {
                return true;
            }
        }
    }
    false
}

/// Whether a name is this one for those who do not mind the case: also with the long s, and the
/// sign of kelvin, whose other case is in ASCII.
pub fn folds_to(key: &[u8], name: &str) -> bool {
    if key.len() < name.len() || key.len() > 3 * name.len() {
        return false;
    }
    let mut rest = key;
    for want in name.bytes().map(|byte| byte.to_ascii_lowercase()) {
        let (letter, after) = match rest {
            [0xc5, 0xbf, after @ ..] => (b's', after),
            [0xe2, 0x84, 0xaa, after @ ..] => (b'k', after),
            [letter, after @ ..] => (letter.to_ascii_lowercase(), after),
            [] => return false,
        };
        if letter != want {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_another_case_is_refused_where_a_client_would_look() {
        for (text, model, other) in [
            (r#"{"choices":[{"delta":{"Tool_calls":[]}}]}"#, true, true),
            (r#"{"choices":[{"delta":{"tool_call\u017f":[]}}]}"#, true, true),
            (r#"{"Choices":[]}"#, true, true),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"","Arguments":""}}]}}]}"#,
                true,
                false,
            ),
            (r#"{"Type":"response.completed","output":[]}"#, true, true),
            (r#"{"Type":"container","Action":"start","Name":"a"}"#, true, false),
            // What a tool is given is its own.
            (
                r#"{"content":[{"type":"tool_use","name":"n","input":{"Name":"a","Content":"b","NAME":1}}]}"#,
                false,
                false,
            ),
            (r#"{"response":{"tools":[{"Name":1}],"output":[]},"usage":{"Index":1}}"#, false, false),
            (r#"{"choices":[{"index":0,"delta":{"content":"Tool_calls"}}]}"#, false, false),
            (r#"{"input":{"a":1,"a":2}}"#, true, true),
        ] {
            let doc = Doc::parse(text.as_bytes()).unwrap();
            assert_eq!(are_ambiguous(&doc, true), model, "{text}");
            assert_eq!(are_ambiguous(&doc, false), other, "{text}");
        }
    }
}
