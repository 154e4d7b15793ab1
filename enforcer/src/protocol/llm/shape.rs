//! What an event of a model's answer says, read from its own shape: gateways serve one
//! provider's API under another one's path.
//!
//! A *channel* is a text that comes in pieces: the client puts the pieces together that have
//! one key, so a secret can lie across them. All else in an event is a whole of its own.

use std::borrow::Cow;

use super::json::{Doc, Kind, Node};

/// Whose events these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions, and all that speak alike.
    Chat,
    /// OpenAI's Responses and Realtime.
    Responses,
    Anthropic,
    Gemini,
    /// Bedrock's `ConverseStream`.
    Converse,
    Ollama,
}

impl Dialect {
    /// As policy names them.
    pub const PROVIDERS: [&'static str; 5] = ["openai", "anthropic", "gemini", "bedrock", "ollama"];

    /// Whose API it is, as policy names it. Others speak it, too.
    pub fn provider(self) -> &'static str {
        match self {
            Dialect::Chat | Dialect::Responses => "openai",
            Dialect::Anthropic => "anthropic",
            Dialect::Gemini => "gemini",
            Dialect::Converse => "bedrock",
            Dialect::Ollama => "ollama",
        }
    }
}

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Text,
    /// The arguments of a tool call, as JSON.
    Arguments,
    /// What a signature may follow that is over this text.
    Thinking,
}

/// A piece of a channel.
#[derive(Debug)]
pub struct Piece {
    pub node: Node,
    /// Which channel; also where it stands in the answer that the client puts together.
    pub key: String,
    pub carries: Carries,
}

/// A tool call that stands in one event.
#[derive(Debug)]
pub struct WholeCall {
    pub channel: String,
    pub name: Node,
    pub arguments: Option<Node>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    pub dialect: Option<Dialect>,
    pub pieces: Vec<Piece>,
    /// Channels that end with this event: all whose keys begin like this.
    pub ends: Vec<String>,
    /// Whether channels of no known dialect end that have no piece here.
    pub ends_others: bool,
    /// Whether this may be the last event, which only the end of the stream tells.
    pub may_end: bool,
    /// Whether what ends here is signed.
    pub signed: bool,
    /// Repeats of the text, letter by letter, and what stands in their place.
    pub cuts: Vec<(Node, &'static str)>,
    /// The names of tools, by how their channels' keys begin.
    pub names: Vec<(String, Node)>,
    pub calls: Vec<WholeCall>,
}

/// Begins the keys of channels of no known dialect.
pub const OTHER: &str = "~";

/// Members of a delta that are no text, or that come whole.
const WHOLE: &[&str] = &[
    "type",
    "role",
    "id",
    "name",
    "index",
    "object",
    "model",
    "status",
    "format",
    "annotations",
    "citation",
    "citations",
    "images",
    "obfuscation",
    "stop_reason",
    "stop_sequence",
    "call_id",
    "item_id",
];
/// Members that only their maker can read: a pattern in one is chance.
const OPAQUE: &[&str] = &[
    "signature",
    "encrypted_content",
    "thoughtSignature",
    "thought_signature",
    "redactedContent",
    "encrypted_index",
    "partial_image_b64",
    "b64_json",
];

/// Whether a member of this name is opaque, if it is coded as such are.
pub fn is_opaque(key: &[u8]) -> bool {
    OPAQUE.iter().any(|name| name.as_bytes() == key)
}

/// Reads one event.
pub fn read(doc: &Doc<'_>) -> Reading {
    let mut reading = Reading::default();
    if !doc.is_object(Doc::ROOT) {
        return reading;
    }
    let root = doc.get(Doc::ROOT, "response").filter(|&inner| doc.get(inner, "candidates").is_some());
    let root = root.unwrap_or(Doc::ROOT);
    let kind = doc.text(Doc::ROOT, "type").unwrap_or_default();
    let kind = String::from_utf8_lossy(&kind);
    if let Some(choices) = list(doc, root, "choices") {
        chat(doc, choices, &mut reading);
    } else if let Some(candidates) = list(doc, root, "candidates") {
        gemini(doc, candidates, &mut reading);
    } else if is_anthropic(&kind) {
        anthropic(doc, &kind, &mut reading);
    } else if is_responses(doc, &kind) {
        responses(doc, &kind, &mut reading);
    } else if doc.get(root, "contentBlockIndex").is_some() || doc.get(root, "stopReason").is_some() {
        converse(doc, &mut reading);
    } else if is_ollama(doc) {
        ollama(doc, &mut reading);
    } else {
        other(doc, &kind, &mut reading);
    }
    cuts(doc, &mut reading);
    reading
}

/// Its events say whether they are the last, or have no more than the text.
fn is_ollama(doc: &Doc<'_>) -> bool {
    let is = |key, kind| doc.get(Doc::ROOT, key).is_some_and(|node| doc.kind(node) == kind);
    is("done", Kind::Scalar) || is("response", Kind::String)
}

fn list(doc: &Doc<'_>, node: Node, key: &str) -> Option<Node> {
    doc.get(node, key).filter(|&node| doc.kind(node) == Kind::Array)
}

/// What an element says is its number, or which one it is.
fn index(doc: &Doc<'_>, node: Node, position: usize) -> String {
    let said = doc.get(node, "index").filter(|&index| doc.kind(index) == Kind::Scalar);
    said.map_or_else(|| position.to_string(), |index| plain(doc.raw(index)))
}

fn plain(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

/// A member that says why something ended; some servers say "" until it does.
fn ended(doc: &Doc<'_>, node: Node, key: &str) -> bool {
    doc.said(node, key).is_some_and(|reason| !doc.raw(reason).is_empty())
}

fn chat(doc: &Doc<'_>, choices: Node, reading: &mut Reading) {
    reading.dialect = Some(Dialect::Chat);
    for (position, choice) in doc.children(choices).enumerate() {
        let key = format!("choices[{}].", index(doc, choice, position));
        if let Some(delta) = doc.get(choice, "delta") {
            texts(doc, delta, &format!("{key}delta"), reading);
        }
        if let Some(text) = doc.get(choice, "text").filter(|&text| doc.kind(text) == Kind::String) {
            reading.pieces.push(Piece { node: text, key: format!("{key}text"), carries: Carries::Text });
        }
        if ended(doc, choice, "finish_reason") {
            reading.ends.push(key);
        }
    }
}

/// Every text below a delta is a channel, so that none of an unknown extension is missed.
fn texts(doc: &Doc<'_>, node: Node, key: &str, reading: &mut Reading) {
    match doc.kind(node) {
        Kind::String => {
            let arguments = key.ends_with(".arguments") || key.ends_with("partial_json");
            let carries = if arguments { Carries::Arguments } else { Carries::Text };
            reading.pieces.push(Piece { node, key: key.to_owned(), carries });
        }
        Kind::Object => {
            for child in doc.children(node) {
                let name = doc.key(child).unwrap_or_default();
                let name = String::from_utf8_lossy(&name);
                if name == "name" && doc.kind(child) == Kind::String {
                    reading.names.push((format!("{key}."), child));
                }
                if whole(doc, node, &name) {
                    continue;
                }
                texts(doc, child, &format!("{key}.{name}"), reading);
            }
        }
        Kind::Array => {
            for (position, child) in doc.children(node).enumerate() {
                texts(doc, child, &format!("{key}[{}]", index(doc, child, position)), reading);
            }
        }
        Kind::Scalar => {}
    }
}

/// Whether a member of an object below a delta is no channel.
fn whole(doc: &Doc<'_>, object: Node, name: &str) -> bool {
    // The data of a sound, or of reasoning that is not shown, stands beside what it is.
    let coded = name == "data" && (doc.get(object, "id").is_some() || doc.get(object, "type").is_some());
    coded || WHOLE.contains(&name) || is_opaque(name.as_bytes())
}

fn is_anthropic(kind: &str) -> bool {
    matches!(
        kind,
        "message_start"
            | "content_block_start"
            | "content_block_delta"
            | "content_block_stop"
            | "message_delta"
            | "message_stop"
            | "ping"
            | "error"
    )
}

fn anthropic(doc: &Doc<'_>, kind: &str, reading: &mut Reading) {
    // `error` and `ping` are of others, too.
    let shared = matches!(kind, "error" | "ping");
    reading.dialect = (!shared).then_some(Dialect::Anthropic);
    let block = doc.get(Doc::ROOT, "index").map_or_else(String::new, |index| plain(doc.raw(index)));
    let key = format!("content[{block}].");
    match kind {
        "content_block_start" => {
            if let Some(name) = doc.path(Doc::ROOT, &["content_block", "name"]) {
                reading.names.push((key, name));
            }
        }
        "content_block_delta" => {
            let Some(delta) = doc.get(Doc::ROOT, "delta") else { return };
            let before = reading.pieces.len();
            texts(doc, delta, key.trim_end_matches('.'), reading);
            for piece in &mut reading.pieces[before..] {
                if piece.key.ends_with(".thinking") {
                    piece.carries = Carries::Thinking;
                }
            }
            let signature = doc.get(delta, "signature").filter(|&node| !doc.raw(node).is_empty());
            if signature.is_some() {
                reading.signed = true;
                reading.ends.push(key);
            }
        }
        "content_block_stop" => reading.ends.push(key),
        "message_delta" | "message_stop" | "error" => reading.ends.push(String::new()),
        _ => {}
    }
}

fn is_responses(doc: &Doc<'_>, kind: &str) -> bool {
    let piece = || doc.get(Doc::ROOT, "item_id").is_some() && kind.ends_with(".delta");
    kind.starts_with("response.") || piece()
}

fn responses(doc: &Doc<'_>, kind: &str, reading: &mut Reading) {
    reading.dialect = Some(Dialect::Responses);
    let number = |key: &str| doc.get(Doc::ROOT, key).map(|node| plain(doc.raw(node)));
    let inner = doc.get(Doc::ROOT, "item").and_then(|item| doc.get(item, "id"));
    let id = number("item_id").or_else(|| inner.map(|id| plain(doc.raw(id))));
    let keys: Vec<String> =
        [id, number("output_index")].into_iter().flatten().map(|item| format!("output[{item}].")).collect();
    if let Some(base) = kind.strip_suffix(".delta") {
        let base = base.strip_prefix("response.").unwrap_or(base);
        let sound = base.contains("audio") && !base.contains("transcript");
        let (Some(delta), false) = (doc.get(Doc::ROOT, "delta"), sound) else { return };
        let part = number("content_index").or_else(|| number("summary_index"));
        let part = part.map_or_else(String::new, |part| format!("[{part}]"));
        let item = keys.first().map_or("", String::as_str);
        let before = reading.pieces.len();
        texts(doc, delta, &format!("{item}{base}{part}"), reading);
        if base.ends_with("arguments") || base.ends_with("_call_input") {
            reading.pieces[before..].iter_mut().for_each(|piece| piece.carries = Carries::Arguments);
        }
    } else if matches!(
        kind,
        "response.completed"
            | "response.failed"
            | "response.incomplete"
            | "response.cancelled"
            | "response.done"
            | "response.error"
    ) {
        reading.ends.push(String::new());
    } else if kind.ends_with(".done") {
        reading.ends = keys;
    } else if kind.ends_with(".added")
        && let Some(name) = doc.path(Doc::ROOT, &["item", "name"])
    {
        reading.names.extend(keys.into_iter().take(1).map(|key| (key, name)));
    }
}

fn gemini(doc: &Doc<'_>, candidates: Node, reading: &mut Reading) {
    reading.dialect = Some(Dialect::Gemini);
    for (position, candidate) in doc.children(candidates).enumerate() {
        let key = format!("candidates[{}].", index(doc, candidate, position));
        // No end yet: some models say a reason in every event.
        reading.may_end |= ended(doc, candidate, "finishReason");
        let Some(parts) = doc.path(candidate, &["content", "parts"]) else { continue };
        for part in doc.children(parts) {
            let thought = doc.get(part, "thought").is_some_and(|node| doc.raw(node) == b"true");
            let name = if thought { "thought" } else { "text" };
            if let Some(node) = doc.get(part, "text").filter(|&node| doc.kind(node) == Kind::String) {
                let key = format!("{key}{name}");
                reading.pieces.push(Piece { node, key, carries: Carries::Text });
            }
            if let Some(call) = doc.get(part, "functionCall") {
                gemini_call(doc, call, &key, reading);
            }
        }
    }
}

fn gemini_call(doc: &Doc<'_>, call: Node, key: &str, reading: &mut Reading) {
    if let Some(name) = doc.get(call, "name") {
        let channel = format!("{key}functionCall");
        reading.calls.push(WholeCall { channel, name, arguments: doc.get(call, "args") });
    }
    let Some(pieces) = list(doc, call, "partialArgs") else { return };
    for piece in doc.children(pieces) {
        let path = doc.text(piece, "jsonPath").unwrap_or_default();
        let key = format!("{key}functionCall.{}", String::from_utf8_lossy(&path));
        let going_on = doc.get(piece, "willContinue").is_some_and(|node| doc.raw(node) == b"true");
        if let Some(node) = doc.get(piece, "stringValue") {
            reading.pieces.push(Piece { node, key: key.clone(), carries: Carries::Text });
        }
        if !going_on {
            reading.ends.push(key);
        }
    }
}

fn converse(doc: &Doc<'_>, reading: &mut Reading) {
    reading.dialect = Some(Dialect::Converse);
    let Some(block) = doc.get(Doc::ROOT, "contentBlockIndex") else {
        reading.ends.push(String::new());
        return;
    };
    let key = format!("content[{}].", plain(doc.raw(block)));
    if let Some(name) = doc.path(Doc::ROOT, &["start", "toolUse", "name"]) {
        reading.names.push((key, name));
    } else if let Some(delta) = doc.get(Doc::ROOT, "delta") {
        let before = reading.pieces.len();
        texts(doc, delta, key.trim_end_matches('.'), reading);
        for piece in &mut reading.pieces[before..] {
            if piece.key.ends_with(".toolUse.input") {
                piece.carries = Carries::Arguments;
            } else if piece.key.contains(".reasoningContent.") {
                piece.carries = Carries::Thinking;
            }
        }
        if doc.path(delta, &["reasoningContent", "signature"]).is_some() {
            reading.signed = true;
            reading.ends.push(key);
        }
    } else if doc.get(Doc::ROOT, "start").is_none() {
        reading.ends.push(key);
    }
}

fn ollama(doc: &Doc<'_>, reading: &mut Reading) {
    reading.dialect = Some(Dialect::Ollama);
    for path in [&["message", "content"][..], &["message", "thinking"], &["response"], &["thinking"]] {
        if let Some(node) = doc.path(Doc::ROOT, path).filter(|&node| doc.kind(node) == Kind::String) {
            reading.pieces.push(Piece { node, key: path.join("."), carries: Carries::Text });
        }
    }
    reading.pieces.sort_by_key(|piece| piece.node);
    let message = doc.get(Doc::ROOT, "message");
    if let Some(calls) = message.and_then(|message| list(doc, message, "tool_calls")) {
        for (position, call) in doc.children(calls).enumerate() {
            let Some(function) = doc.get(call, "function") else { continue };
            let Some(name) = doc.get(function, "name") else { continue };
            let channel = format!("message.tool_calls[{position}]");
            reading.calls.push(WholeCall { channel, name, arguments: doc.get(function, "arguments") });
        }
    }
    if doc.get(Doc::ROOT, "done").is_some_and(|done| doc.raw(done) == b"true") {
        reading.ends.push(String::new());
    }
}

/// Texts of other APIs that come in pieces, and what says that they ended.
const PIECEWISE: &[(&[&str], &str)] = &[
    (&["completion"], "stop_reason"),
    (&["generation"], "stop_reason"),
    (&["outputText"], "completionReason"),
    (&["token", "text"], "generated_text"),
];

fn other(doc: &Doc<'_>, kind: &str, reading: &mut Reading) {
    // An answer in JSON-RPC is whole, and nothing may follow it.
    if doc.get(Doc::ROOT, "jsonrpc").is_some() {
        return;
    }
    reading.ends_others = true;
    if let Some(delta) = doc.get(Doc::ROOT, "delta") {
        texts(doc, delta, &format!("{OTHER}{kind}.delta"), reading);
        return;
    }
    for (path, end) in PIECEWISE {
        let Some(node) = doc.path(Doc::ROOT, path).filter(|&node| doc.kind(node) == Kind::String) else {
            continue;
        };
        if doc.get(Doc::ROOT, end).is_some() {
            let key = format!("{OTHER}{}", path.join("."));
            if ended(doc, Doc::ROOT, end) {
                reading.ends.push(key.clone());
            }
            reading.pieces.push(Piece { node, key, carries: Carries::Text });
        }
    }
}

/// Log probabilities spell the text out once more, and in numbers.
fn cuts(doc: &Doc<'_>, reading: &mut Reading) {
    let mut node = Doc::ROOT;
    while node < doc.len() {
        let name = doc.key(node).unwrap_or(Cow::Borrowed(b""));
        let cut = match name.as_ref() {
            b"logprobs" if doc.kind(node) == Kind::Array => (doc.raw(node) != b"[]").then_some("[]"),
            b"logprobs" if doc.get(node, "content").is_some() || doc.get(node, "tokens").is_some() => {
                Some("null")
            }
            b"logprobsResult" if doc.is_object(node) => Some("{}"),
            _ => None,
        };
        match cut {
            Some(cut) => {
                reading.cuts.push((node, cut));
                node = doc.after(node);
            }
            None => node += 1,
        }
    }
}
