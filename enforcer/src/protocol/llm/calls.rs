//! What an answer says of tool calls, read from its structure alone: whichever API it claims to
//! be of, a call that its client could find is found.
//!
//! A *slot* is where the client puts the pieces of one call together: it ends with a slash, and
//! begins with what it is a part of. What two clients would put in different places is refused.

use super::channel::CALL_MAX_BYTES;
use super::json::{Doc, Kind, Node, unescape};
use super::keep::{CALLS_MAX, CallError};

/// One thing that an event, or a whole answer, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark {
    /// A call begins or goes on. `stated` are its arguments so far as they stand at its beginning.
    Piece { slot: String, name: Vec<u8>, stated: Vec<u8>, arguments: Vec<u8>, rest: Option<Vec<u8>> },
    /// All of a call, of which pieces may have come.
    Whole { slot: Option<String>, name: Vec<u8>, arguments: Vec<u8> },
    /// All of the arguments of a call whose pieces have come.
    Stated { slot: String, arguments: Vec<u8> },
    /// Once more a call that came before.
    Repeat { name: Vec<u8>, arguments: Vec<u8> },
    /// Calls end whose slots begin like this.
    Ends(String),
    /// It cannot be judged.
    Refused(CallError),
}

/// Events after which nothing comes of a response.
const LAST: &[&str] = &[
    "response.completed",
    "response.failed",
    "response.incomplete",
    "response.cancelled",
    "response.done",
    "response.error",
];
/// Where the arguments of a call stand in a chat, and where it is a part of a message.
const PLACES: &[&str] = &["arguments", "input", "args", "parameters"];
/// And where it is an item of a response.
const ITEM_PLACES: &[&str] = &["arguments", "input", "action", "actions", "code", "operation", "queries"];
/// What stands in a call and says nothing of what it will do.
const BARE: &[&str] = &[
    "name",
    "id",
    "type",
    "index",
    "call_id",
    "status",
    "namespace",
    "caller",
    "created_by",
    "container_id",
    "server_label",
    "approval_request_id",
    "thoughtSignature",
    "thought_signature",
    "toolUseId",
    "pending_safety_checks",
    "result",
    "results",
    "output",
    "outputs",
    "error",
    "size",
    "quality",
    "background",
    "output_format",
    "revised_prompt",
];

/// All that is said of tool calls: pieces first, then what ends.
pub fn read(doc: &Doc<'_>) -> Vec<Mark> {
    let kind = text(doc, Doc::ROOT, "type");
    let mut reader = Reader { doc, kind: &kind, marks: Vec::new() };
    match reader.read() {
        Ok(()) => reader.marks,
        Err(error) => vec![Mark::Refused(error)],
    }
}

/// The model that an answer says it is of.
pub fn model(doc: &Doc<'_>) -> Option<String> {
    let places = [&["model"][..], &["message", "model"], &["response", "model"], &["modelVersion"]];
    let found = places.iter().find_map(|path| {
        let node = doc.path(Doc::ROOT, path).filter(|&node| doc.kind(node) == Kind::String)?;
        Some(unescape(doc.raw(node)))
    });
    found.map(|name| String::from_utf8_lossy(&name).into_owned())
}

/// What a call is called, and its arguments, if a member for such is there.
struct Called {
    name: Vec<u8>,
    arguments: Option<Vec<u8>>,
    /// All that it says, if none of it is known to be its arguments.
    rest: Vec<u8>,
}

impl Called {
    fn whole(self) -> (Vec<u8>, Vec<u8>) {
        (self.name, self.arguments.unwrap_or(self.rest))
    }

    /// As it begins, before all of its arguments are there.
    fn begins(self, slot: String) -> Mark {
        let rest = self.arguments.is_none().then_some(self.rest);
        let stated = said(self.arguments.unwrap_or_default());
        Mark::Piece { slot, name: self.name, stated, arguments: Vec::new(), rest }
    }

    fn piece(self, slot: String) -> Mark {
        let rest = self.arguments.is_none().then_some(self.rest);
        let arguments = self.arguments.unwrap_or_default();
        Mark::Piece { slot, name: self.name, stated: Vec::new(), arguments, rest }
    }
}

struct Reader<'a, 'd> {
    doc: &'a Doc<'d>,
    /// What the event says that it is.
    kind: &'a str,
    marks: Vec<Mark>,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Result<(), CallError> {
        for node in 0..self.doc.len() {
            self.node(node)?;
            // All of them once, and once more at the end.
            if self.marks.len() > 2 * CALLS_MAX {
                return Err(CallError::TooMany);
            }
        }
        self.event()?;
        self.ends()
    }

    fn node(&mut self, node: Node) -> Result<(), CallError> {
        let doc = self.doc;
        if !doc.is_object(node) {
            return Ok(());
        }
        let key = doc.key(node).unwrap_or_default();
        let parent = doc.parent(node).and_then(|parent| doc.key(parent)).unwrap_or_default();
        match (key.as_ref(), parent.as_ref()) {
            (b"", b"tool_calls") => self.chat(node, true),
            // One that is not in a list.
            (b"tool_calls", _) => Err(CallError::Unreadable),
            (b"function_call", _) => self.chat(node, false),
            (b"functionCall", _) | (b"", b"functionCalls") => self.gemini(node),
            (b"toolUse", _) => self.converse(node),
            _ => self.typed(node, &key),
        }
    }

    /// OpenAI's chat, and Ollama's.
    fn chat(&mut self, node: Node, listed: bool) -> Result<(), CallError> {
        let doc = self.doc;
        let mut inside = ["function", "custom"].iter().filter_map(|key| doc.said(node, key));
        let called = match (inside.next(), inside.next()) {
            (Some(_), Some(_)) => return Err(CallError::Ambiguous),
            (Some(inside), None) => {
                let mut called = self.called(inside, PLACES)?;
                let beside = self.called(node, PLACES)?;
                let named = beside.name.is_empty() || beside.name == called.name;
                if !named || beside.arguments.is_some_and(|beside| !beside.is_empty()) {
                    return Err(CallError::Ambiguous);
                }
                if called.name.is_empty() {
                    called.name = beside.name;
                }
                called
            }
            _ => {
                let mut called = self.called(node, PLACES)?;
                let kind = bytes(doc, node, "type");
                // A tool of the model's own.
                if called.name.is_empty() && !matches!(kind.as_slice(), b"function" | b"custom") {
                    called.name = kind;
                }
                called
            }
        };
        if ancestor(doc, node, b"delta").is_none() {
            let (name, arguments) = called.whole();
            self.marks.push(Mark::Whole { slot: None, name, arguments });
            return Ok(());
        }
        let slot = if listed { format!("t{}/", number_in_list(doc, node)?) } else { "f/".to_owned() };
        self.marks.push(called.piece(format!("{}{slot}", choice(doc, node)?)));
        Ok(())
    }

    fn gemini(&mut self, node: Node) -> Result<(), CallError> {
        let doc = self.doc;
        // Its arguments may come a path at a time.
        if doc.get(node, "partialArgs").is_some() || doc.get(node, "willContinue").is_some() {
            return Err(CallError::Unreadable);
        }
        let (name, mut arguments) = self.called(node, PLACES)?.whole();
        if arguments.is_empty() {
            arguments = b"{}".to_vec();
        }
        self.marks.push(Mark::Whole { slot: None, name, arguments });
        Ok(())
    }

    fn converse(&mut self, node: Node) -> Result<(), CallError> {
        let called = self.called(node, PLACES)?;
        self.marks.push(match number(self.doc, Doc::ROOT, "contentBlockIndex")? {
            None => {
                let (name, arguments) = called.whole();
                Mark::Whole { slot: None, name, arguments }
            }
            Some(index) => called.piece(format!("b{index}/")),
        });
        Ok(())
    }

    /// What says by its type that it is a call, or a piece of one.
    fn typed(&mut self, node: Node, key: &[u8]) -> Result<(), CallError> {
        let doc = self.doc;
        let kind = text(doc, node, "type");
        let piece = doc.get(node, "partial_json");
        let mark = if node != Doc::ROOT && (kind.ends_with("tool_use") || kind.ends_with("_call")) {
            // It is a call and a piece of one.
            if piece.is_some() {
                return Err(CallError::Ambiguous);
            }
            if kind.ends_with("_call") { self.item(node, kind)? } else { self.tool_use(node, key)? }
        } else if let Some(piece) = piece {
            let (name, stated) = (Vec::new(), Vec::new());
            Mark::Piece { slot: self.block()?, name, stated, arguments: value(doc, piece), rest: None }
        } else {
            return Ok(());
        };
        self.marks.push(mark);
        Ok(())
    }

    fn tool_use(&self, node: Node, key: &[u8]) -> Result<Mark, CallError> {
        let called = self.called(node, PLACES)?;
        if (self.kind, key) == ("content_block_start", b"content_block") {
            return Ok(called.begins(self.block()?));
        }
        let (name, arguments) = called.whole();
        Ok(Mark::Whole { slot: None, name, arguments })
    }

    fn item(&self, node: Node, kind: String) -> Result<Mark, CallError> {
        let begins = self.kind == "response.output_item.added";
        // Where a call begins the others are not said in full.
        let places = if begins { &ITEM_PLACES[..2] } else { ITEM_PLACES };
        let mut called = self.called(node, places)?;
        if called.name.is_empty() {
            called.name = kind.into_bytes();
        }
        if begins {
            return Ok(called.begins(self.output()?.ok_or(CallError::Ambiguous)?));
        }
        let (name, arguments) = called.whole();
        Ok(match self.kind {
            "response.output_item.done" => Mark::Whole { slot: self.output()?, name, arguments },
            last if LAST.contains(&last) => Mark::Repeat { name, arguments },
            _ => Mark::Whole { slot: None, name, arguments },
        })
    }

    /// Reads a call's own members.
    fn called(&self, node: Node, places: &[&str]) -> Result<Called, CallError> {
        let doc = self.doc;
        let arguments = one_of(doc, node, places)?.map(|node| value(doc, node));
        let bare = doc.children(node).all(|child| {
            doc.key(child).is_some_and(|key| BARE.iter().any(|bare| bare.as_bytes() == key.as_ref()))
        });
        let rest = if bare || arguments.is_some() { Vec::new() } else { value(doc, node) };
        Ok(Called { name: bytes(doc, node, "name"), arguments, rest })
    }

    /// Arguments that stand in an event of their own.
    fn event(&mut self) -> Result<(), CallError> {
        let doc = self.doc;
        if !self.kind.contains("_call") {
            return Ok(());
        }
        if self.kind.ends_with(".delta") {
            let slot = self.output()?.ok_or(CallError::Ambiguous)?;
            let arguments = doc.get(Doc::ROOT, "delta").map(|node| value(doc, node)).unwrap_or_default();
            let (name, stated) = (Vec::new(), Vec::new());
            self.marks.push(Mark::Piece { slot, name, stated, arguments, rest: None });
        } else if self.kind.ends_with(".done")
            && let Some(node) = one_of(doc, Doc::ROOT, &["arguments", "input", "code"])?
        {
            let slot = self.output()?.ok_or(CallError::Ambiguous)?;
            self.marks.push(Mark::Stated { slot, arguments: value(doc, node) });
        }
        Ok(())
    }

    fn ends(&mut self) -> Result<(), CallError> {
        let doc = self.doc;
        let mut ends = Vec::new();
        for node in 0..doc.len() {
            let in_choices =
                || doc.parent(node).and_then(|list| doc.key(list)).as_deref() == Some(b"choices");
            let ended = doc.said(node, "finish_reason").is_some_and(|reason| !doc.raw(reason).is_empty());
            if ended && in_choices() {
                ends.push(format!("c{}/", number_in_list(doc, node)?));
            }
            if ends.len() > CALLS_MAX {
                return Err(CallError::TooMany);
            }
        }
        let is_true = |key| doc.get(Doc::ROOT, key).is_some_and(|node| doc.raw(node) == b"true");
        match self.kind {
            "content_block_stop" => ends.push(self.block()?),
            "response.output_item.done" => ends.extend(self.output()?),
            "message_delta" | "message_stop" => ends.push(String::new()),
            last if LAST.contains(&last) => ends.push(String::new()),
            _ if is_true("done") || doc.get(Doc::ROOT, "stopReason").is_some() => ends.push(String::new()),
            _ => {}
        }
        if let Some(block) = number(doc, Doc::ROOT, "contentBlockIndex")?
            && doc.get(Doc::ROOT, "delta").is_none()
            && doc.get(Doc::ROOT, "start").is_none()
        {
            ends.push(format!("b{block}/"));
        }
        self.marks.extend(ends.into_iter().map(Mark::Ends));
        Ok(())
    }

    fn block(&self) -> Result<String, CallError> {
        let index = number(self.doc, Doc::ROOT, "index")?.ok_or(CallError::Ambiguous)?;
        Ok(format!("b{index}/"))
    }

    /// Of a response, or of a session by WebSocket, where the item is told.
    fn output(&self) -> Result<Option<String>, CallError> {
        let doc = self.doc;
        if let Some(index) = number(doc, Doc::ROOT, "output_index")? {
            return Ok(Some(format!("o{index}/")));
        }
        let item = || doc.get(Doc::ROOT, "item").and_then(|item| doc.said(item, "id"));
        let id = doc.said(Doc::ROOT, "item_id").or_else(item).map(|id| value(doc, id));
        Ok(id.map(|id| format!("i{}:{}/", id.len(), id.escape_ascii())))
    }
}

/// The one of these members that says something: two, and clients take another one each.
fn one_of(doc: &Doc<'_>, node: Node, names: &[&str]) -> Result<Option<Node>, CallError> {
    let mut found: Option<Node> = None;
    for name in names {
        let Some(said) = doc.said(node, name) else { continue };
        match found {
            Some(first) if doc.raw(first).is_empty() => found = Some(said),
            Some(_) if doc.raw(said).is_empty() => {}
            Some(_) => return Err(CallError::Ambiguous),
            None => found = Some(said),
        }
    }
    Ok(found)
}

/// A number of a list, written in the one way in which all read it.
fn number(doc: &Doc<'_>, node: Node, key: &str) -> Result<Option<String>, CallError> {
    let Some(node) = doc.said(node, key) else { return Ok(None) };
    let raw = doc.raw(node);
    let plain = doc.kind(node) == Kind::Scalar
        && matches!(raw.len(), 1..=9)
        && raw.iter().all(u8::is_ascii_digit)
        && (raw.len() == 1 || raw[0] != b'0');
    if plain { Ok(Some(String::from_utf8_lossy(raw).into_owned())) } else { Err(CallError::Ambiguous) }
}

/// Which element of its list something says it is: one that says nothing stands alone.
fn number_in_list(doc: &Doc<'_>, node: Node) -> Result<String, CallError> {
    if let Some(index) = number(doc, node, "index")? {
        return Ok(index);
    }
    let list = doc.parent(node).unwrap_or(Doc::ROOT);
    let alone = doc.children(list).nth(1).is_none();
    if alone { Ok("?".to_owned()) } else { Err(CallError::Ambiguous) }
}

fn text(doc: &Doc<'_>, node: Node, key: &str) -> String {
    String::from_utf8_lossy(&doc.text(node, key).unwrap_or_default()).into_owned()
}

fn bytes(doc: &Doc<'_>, node: Node, key: &str) -> Vec<u8> {
    doc.text(node, key).unwrap_or_default().into_owned()
}

/// What a string says, and anything else as it is written; nothing of `null`. No more of it than
/// is seen to be too long.
fn value(doc: &Doc<'_>, node: Node) -> Vec<u8> {
    let mut value = match doc.kind(node) {
        Kind::String => unescape(doc.raw(node)),
        Kind::Scalar if doc.raw(node) == b"null" => return Vec::new(),
        _ => doc.raw(node).into(),
    };
    if let std::borrow::Cow::Borrowed(all) = &mut value {
        *all = &all[..all.len().min(CALL_MAX_BYTES + 1)];
    }
    let mut value = value.into_owned();
    value.truncate(CALL_MAX_BYTES + 1);
    value
}

/// Nothing is said by what stands there until something is known.
fn said(arguments: Vec<u8>) -> Vec<u8> {
    let nothing = arguments.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'{' | b'}'));
    if nothing { Vec::new() } else { arguments }
}

/// The nearest one around a value that has this name.
fn ancestor(doc: &Doc<'_>, mut node: Node, name: &[u8]) -> Option<Node> {
    loop {
        node = doc.parent(node)?;
        if doc.key(node).as_deref() == Some(name) {
            return Some(node);
        }
    }
}

/// The choice that something is a part of.
fn choice(doc: &Doc<'_>, node: Node) -> Result<String, CallError> {
    let mut at = node;
    while let Some(parent) = doc.parent(at) {
        if doc.key(parent).as_deref() == Some(b"choices") {
            return Ok(format!("c{}/", number_in_list(doc, at)?));
        }
        at = parent;
    }
    Ok("c/".to_owned())
}
