//! Blocks of code in the texts of an answer.
//!
//! Each text that a client puts together is read for itself: a choice, a block, an item. Where
//! an API says a text once more, what is the same is not judged once more. Reasoning is no text,
//! and neither are the arguments of tool calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aws_lc_rs::digest::{Context, SHA256};

use super::channel::CHANNELS_MAX;
use super::fences::{Block, Fences};
use super::json::{Doc, Kind, Node, unescape};
use super::keep::{Call, CallError, Item};
use super::shape::{Carries, Piece, Reading};

/// Blocks of code of one answer.
pub const CODES_MAX: usize = 128;

/// Where texts stand that come whole.
const TEXTS: &[&[u8]] = &[
    b"text",
    b"content",
    b"output_text",
    b"refusal",
    b"response",
    b"completion",
    b"generation",
    b"generated_text",
    b"outputText",
];
/// What stands in one of these is not said by the model, or is no text.
const BESIDE: &[&[u8]] = &[
    b"instructions",
    b"tools",
    b"input",
    b"prompt",
    b"metadata",
    b"logprobs",
    b"tool_calls",
    b"function_call",
    b"functionCall",
    b"functionResponse",
    b"toolUse",
    b"toolResult",
    b"arguments",
    b"summary",
    b"annotations",
    b"citations",
    b"groundingMetadata",
    b"error",
];
/// Events with which a text begins. What they say of it is empty.
const BEGINS: &[&str] = &["response.output_item.added", "response.content_part.added", "message_start"];

/// What an event said.
#[derive(Debug, Default, Clone, Copy)]
pub struct Said {
    /// Text of the model.
    pub text: bool,
    /// Something of a block, or of what may be one.
    pub code: bool,
}

/// The texts of one answer.
#[derive(Debug, Default)]
pub struct Codes {
    open: BTreeMap<String, [Fences; 2]>,
    /// Texts that have ended: nothing may come for them.
    over: BTreeSet<String>,
    told: HashSet<[u8; 32]>,
    /// Those that wait to be judged.
    pub whole: Vec<Call>,
}

impl Codes {
    /// Whether anything is to be kept for what may still come.
    pub fn keeps(&self) -> bool {
        self.open.values().flatten().any(Fences::keeps)
    }

    pub fn take(&mut self, doc: &Doc<'_>, reading: &Reading) -> Result<Said, CallError> {
        let (mut said, before) = (Said::default(), self.told.len());
        let kind = doc.text(Doc::ROOT, "type").unwrap_or_default();
        let pieces = reading.pieces.iter().filter(|piece| is_text(piece));
        let mut texts: Vec<(Node, String)> = pieces.map(|piece| (piece.node, piece.key.clone())).collect();
        if kind.as_ref() == b"content_block_start"
            && let Some(node) = doc.path(Doc::ROOT, &["content_block", "text"])
        {
            let index = doc.get(Doc::ROOT, "index").map(|index| doc.raw(index)).unwrap_or_default();
            texts.push((node, format!("content[{}].text", String::from_utf8_lossy(index))));
        }
        for (node, key) in &texts {
            let text = unescape(doc.raw(*node));
            if doc.kind(*node) == Kind::String && !text.is_empty() {
                said.text = true;
                said.code |= self.piece(key, &text)?;
            }
        }
        for ends in &reading.ends {
            self.end(ends)?;
        }
        let begins = BEGINS.iter().any(|begins| begins.as_bytes() == kind.as_ref());
        let pieces: HashSet<Node> = reading.pieces.iter().map(|piece| piece.node).collect();
        let pieces: HashSet<Node> =
            pieces.into_iter().chain(texts.into_iter().map(|(node, _)| node)).collect();
        for node in wholes(doc).into_iter().filter(|node| !pieces.contains(node)) {
            if begins {
                return Err(CallError::CodeAmbiguous);
            }
            said.text = true;
            self.whole(&unescape(doc.raw(node)))?;
        }
        said.code |= self.told.len() > before;
        Ok(said)
    }

    /// Texts end whose keys begin like this.
    pub fn end(&mut self, keys: &str) -> Result<(), CallError> {
        let ended: Vec<String> = self.open.keys().filter(|key| key.starts_with(keys)).cloned().collect();
        for key in ended {
            let Some(mut readings) = self.open.remove(&key) else { continue };
            for reading in &mut readings {
                reading.finish()?;
                self.add(reading.take())?;
            }
            self.over.insert(key);
        }
        Ok(())
    }

    /// Whether anything of it is to be kept.
    fn piece(&mut self, key: &str, text: &[u8]) -> Result<bool, CallError> {
        if self.over.contains(key) {
            return Err(CallError::CodeAmbiguous);
        }
        if !self.open.contains_key(key) && self.open.len() + self.over.len() >= CHANNELS_MAX {
            return Err(CallError::CodeTooMany);
        }
        let readings =
            self.open.entry(key.to_owned()).or_insert_with(|| [Fences::new(false), Fences::new(true)]);
        let mut keeps = readings.iter().any(Fences::keeps);
        let mut blocks = Vec::new();
        for reading in readings {
            reading.push(text)?;
            keeps |= reading.keeps();
            blocks.extend(reading.take());
        }
        keeps |= !blocks.is_empty();
        self.add(blocks)?;
        Ok(keeps)
    }

    fn whole(&mut self, text: &[u8]) -> Result<(), CallError> {
        if memchr::memchr2(b'`', b'~', text).is_none() {
            return Ok(());
        }
        for loose in [false, true] {
            let mut reading = Fences::new(loose);
            reading.push(text)?;
            reading.finish()?;
            self.add(reading.take())?;
        }
        Ok(())
    }

    /// What was told already its client has, or has not: as it was judged.
    fn add(&mut self, blocks: Vec<Block>) -> Result<(), CallError> {
        for block in blocks {
            if !self.told.insert(digest(&block)) {
                continue;
            }
            if self.told.len() > CODES_MAX {
                return Err(CallError::CodeTooMany);
            }
            let text = |bytes| String::from_utf8(bytes).map_err(|_| CallError::Unreadable);
            let (name, arguments) = (text(block.language)?, text(block.text)?);
            self.whole.push(Call { item: Item::Code, name, arguments });
        }
        Ok(())
    }
}

fn digest(block: &Block) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&(block.language.len() as u64).to_le_bytes());
    context.update(&block.language);
    // Two readings may have another end each.
    context.update(block.text.trim_ascii_end());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Whether a piece is text that a client shows as the answer.
fn is_text(piece: &Piece) -> bool {
    let hidden = ["reasoning", "thinking", "thought", "tool_calls", "function_call", "toolUse", "_call"];
    piece.carries == Carries::Text && !hidden.iter().any(|name| piece.key.contains(name))
}

/// Texts of the model, whole ones and pieces.
fn wholes(doc: &Doc<'_>) -> Vec<Node> {
    let mut found = Vec::new();
    // Of each value, whether what stands in it is no text, and whether it stands where texts do.
    let mut known: Vec<(bool, bool)> = Vec::with_capacity(doc.len());
    for node in 0..doc.len() {
        let around = doc.parent(node).and_then(|parent| known.get(parent).copied()).unwrap_or_default();
        let (beside, text) = match doc.key(node) {
            // In a list it is what the list is.
            None => around,
            Some(key) => {
                let is = |names: &[&[u8]]| names.contains(&key.as_ref());
                (around.0 || is(BESIDE) || hides(&key), is(TEXTS))
            }
        };
        let beside = beside || doc.is_object(node) && is_beside(doc, node);
        known.push((beside, text));
        if !beside && text && doc.kind(node) == Kind::String && !doc.raw(node).is_empty() {
            found.push(node);
        }
    }
    found
}

/// Whether an object says that it is no text.
fn is_beside(doc: &Doc<'_>, node: Node) -> bool {
    let kind = doc.text(node, "type").unwrap_or_default();
    let thought = doc.get(node, "thought").is_some_and(|node| doc.raw(node) == b"true");
    let ends = [&b"_call"[..], b"tool_use", b"tool_result"].iter().any(|end| kind.ends_with(end));
    thought || ends || hides(&kind)
}

fn hides(name: &[u8]) -> bool {
    [&b"reasoning"[..], b"thinking"].iter().any(|hidden| memchr::memmem::find(name, hidden).is_some())
}
