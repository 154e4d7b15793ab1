//! One event after another: its pieces through their channels, all else as wholes.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::channel::{Channels, Ended, ToolCall};
use super::json::{Doc, JsonError, Kind, Node, escape, unescape};
use super::shape::{self, Dialect, Reading};
use super::template::Template;
use super::{LlmError, binary};
use crate::mask::{Findings, Masked, Masker, Place};

/// A part of what goes out.
#[derive(Debug)]
pub enum Part {
    /// Looked at for everything.
    Text(Bytes),
    /// Masked already, or coded by its maker and looked at for known values only. What stands in
    /// place of a value can look like one, so a second look would change it again.
    Done(Masked),
}

impl Part {
    /// Texts after each other are one, in which a match can lie.
    pub fn merge(parts: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::with_capacity(parts.len());
        for part in parts {
            match (merged.last_mut(), part) {
                (Some(Self::Text(before)), Self::Text(text)) => {
                    *before = [&before[..], &text].concat().into()
                }
                (_, part) => merged.push(part),
            }
        }
        merged
    }
}

/// An event of our own, that goes out before the one at hand.
#[derive(Debug)]
pub struct Own {
    pub payload: Vec<Part>,
    pub frame: Vec<u8>,
}

/// What becomes of an event.
#[derive(Debug, Default)]
pub struct Passed {
    pub own: Vec<Own>,
    /// What stands in place of parts of it, in order; nothing if it stays as it came.
    pub edits: Vec<Edit>,
    /// Set if it should wait until something follows: its pieces, and where they stand.
    pub wait: Option<Vec<(String, usize)>>,
}

#[derive(Debug)]
pub struct Edit {
    pub range: Range<usize>,
    pub with: Part,
}

/// The events of one answer.
pub struct Events {
    masker: Masker,
    /// Known values only.
    exact: Masker,
    /// Whether signed text that would be changed ends the stream.
    strict: bool,
    channels: Channels,
    pub dialect: Option<Dialect>,
}

impl Events {
    pub fn new(masker: &Masker, exact: Masker, strict: bool, dialect: Option<Dialect>) -> Self {
        let channels = Channels::new(masker.clone());
        Self { masker: masker.clone(), exact, strict, channels, dialect }
    }

    /// Takes the payload of an event; `None` if it is no JSON. `frame` is what an event of
    /// our own would need of the framing of this one.
    pub fn event(&mut self, payload: &[u8], frame: &[u8]) -> Result<Option<Passed>, LlmError> {
        let doc = match Doc::parse(payload) {
            Ok(doc) => doc,
            Err(JsonError::Invalid) => return Ok(None),
            Err(error @ JsonError::TooMuch) => return Err(error.into()),
        };
        let reading = shape::read(&doc);
        self.dialect = reading.dialect.or(self.dialect);
        for (key, node) in &reading.names {
            self.channels.name(key.clone(), &unescape(doc.raw(*node)));
        }
        let mut said = self.pieces(&doc, &reading)?;
        let own = self.ends(&reading, &mut said)?;
        self.templates(&doc, &said, frame);
        let waits = reading.may_end && self.channels.held() > 0;
        let open = || said.iter().map(|piece| (piece.key.clone(), doc.range(piece.node).start)).collect();
        let wait = waits.then(open);
        let mut edits = Vec::new();
        for piece in said {
            if waits || piece.out != piece.text.as_ref() {
                edits.push(Edit::string(&doc, piece.node, &piece.out));
            }
        }
        for (node, cut) in &reading.cuts {
            let with = Part::Text(Bytes::from_static(cut.as_bytes()));
            edits.push(Edit { range: doc.outer(*node), with });
        }
        self.wholes(&doc, &reading, &mut edits)?;
        for call in &reading.calls {
            let text = |raw: &[u8]| self.masker.text(&String::from_utf8_lossy(raw)).0;
            let arguments = call.arguments.map_or(&b"{}"[..], |node| &payload[doc.outer(node)]);
            let call = ToolCall {
                channel: call.channel.clone(),
                name: text(&unescape(doc.raw(call.name))),
                arguments: text(arguments),
                complete: true,
            };
            self.channels.call(call);
        }
        edits.sort_by_key(|edit| edit.range.start);
        Ok(Some(Passed { own, edits, wait }))
    }

    /// Nothing follows: what the channels still hold.
    pub fn end(&mut self) -> Result<Vec<Own>, LlmError> {
        let ended = self.channels.end(|_| true)?;
        Ok(ended.into_iter().filter_map(own).collect())
    }

    /// Nothing follows an event that has waited: what the channels still hold stands in it, or
    /// before it.
    pub fn end_in(&mut self, passed: &mut Passed) -> Result<Vec<Own>, LlmError> {
        let pieces = passed.wait.take().unwrap_or_default();
        let mut events = Vec::new();
        for ended in self.channels.end(|_| true)? {
            let at = pieces.iter().rev().find(|(key, _)| *key == ended.key).map(|(_, at)| *at);
            let edit = passed.edits.iter_mut().find(|edit| Some(edit.range.start) == at);
            match edit {
                Some(Edit { with: Part::Done(text), .. }) => {
                    let mut rest = Vec::new();
                    escape(&ended.rest, &mut rest);
                    *text = text.written(|before| [before, &rest].concat());
                }
                _ => events.extend(own(ended)),
            }
        }
        Ok(events)
    }

    fn pieces<'a>(&mut self, doc: &Doc<'a>, reading: &Reading) -> Result<Vec<Said<'a>>, LlmError> {
        let mut said = Vec::with_capacity(reading.pieces.len());
        for piece in &reading.pieces {
            let text = unescape(doc.raw(piece.node));
            let channel = self.channels.get(&piece.key, piece.carries)?;
            let out = self.channels.at(channel).push(&text)?;
            said.push(Said { node: piece.node, key: piece.key.clone(), text, out });
        }
        Ok(said)
    }

    /// Ends the channels that end here. What they held stands in their last piece, or in
    /// an event before this one.
    fn ends(&mut self, reading: &Reading, said: &mut [Said<'_>]) -> Result<Vec<Own>, LlmError> {
        if reading.ends.is_empty() && !reading.ends_others {
            return Ok(Vec::new());
        }
        let ended = self.channels.end(|key| {
            let here = || said.iter().any(|piece| piece.key == key);
            reading.ends.iter().any(|end| key.starts_with(end.as_str()))
                || reading.ends_others && key.starts_with(shape::OTHER) && !here()
        })?;
        if self.strict && reading.signed && ended.iter().any(|ended| ended.thinking_changed) {
            return Err(LlmError::SignedThinking);
        }
        let mut events = Vec::new();
        for ended in ended {
            match said.iter_mut().rev().find(|piece| piece.key == ended.key) {
                Some(piece) => piece.out.extend_from_slice(&ended.rest),
                None => events.extend(own(ended)),
            }
        }
        Ok(events)
    }

    /// Keeps the form of this event for each channel that holds something back now.
    fn templates(&mut self, doc: &Doc<'_>, said: &[Said<'_>], frame: &[u8]) {
        if self.channels.held() == 0 {
            return;
        }
        let nodes: Vec<Node> = said.iter().map(|piece| piece.node).collect();
        for piece in said {
            let Some(channel) = self.channels.find(&piece.key) else { continue };
            if channel.held() > 0 {
                channel.template = Some(Template::of(doc, piece.node, &nodes, frame.to_vec()));
            }
        }
    }

    /// Strings that are no pieces. What is not escaped is also seen with the event as a
    /// whole, where it stands beside its name.
    fn wholes(&mut self, doc: &Doc<'_>, reading: &Reading, edits: &mut Vec<Edit>) -> Result<(), LlmError> {
        let mut node = Doc::ROOT;
        while node < doc.len() {
            if reading.cuts.iter().any(|(cut, _)| *cut == node) {
                node = doc.after(node);
                continue;
            }
            let raw = doc.raw(node);
            if doc.kind(node) == Kind::String && !reading.pieces.iter().any(|piece| piece.node == node) {
                if raw.len() >= binary::BINARY_MIN_BYTES && is_opaque(doc, node) {
                    self.opaque(doc, node, edits)?;
                } else if raw.contains(&b'\\') {
                    let text = Bytes::from(unescape(raw).into_owned());
                    let (masked, findings) = whole(&self.masker, text.clone())?;
                    self.channels.found(&findings);
                    if masked.as_bytes() != text {
                        edits.push(Edit::string(doc, node, masked.as_bytes()));
                    }
                }
            }
            node += 1;
        }
        Ok(())
    }

    fn opaque(&mut self, doc: &Doc<'_>, node: Node, edits: &mut Vec<Edit>) -> Result<(), LlmError> {
        let raw = Bytes::copy_from_slice(doc.raw(node));
        let (with, findings) = whole(&self.exact, raw.clone())?;
        self.channels.found(&findings);
        let signed = || doc.key(node).is_some_and(|key| shape::is_opaque(&key));
        if self.strict && with.as_bytes() != raw && signed() {
            return Err(LlmError::SignedThinking);
        }
        edits.push(Edit { range: doc.range(node), with: Part::Done(with) });
        Ok(())
    }

    /// The last look at what goes out, names and numbers included.
    pub fn seal(&mut self, parts: Vec<Part>) -> Result<Masked, LlmError> {
        let mut sealed = Vec::with_capacity(parts.len());
        for part in parts {
            let masked = match part {
                Part::Text(bytes) => {
                    let (masked, findings) = whole(&self.masker, bytes)?;
                    self.channels.found(&findings);
                    masked
                }
                Part::Done(masked) => masked,
            };
            sealed.push(masked);
        }
        Ok(Masked::join(sealed))
    }

    pub fn held(&self) -> usize {
        self.channels.held()
    }

    pub fn findings(&self) -> Findings {
        self.channels.findings()
    }

    pub fn take_findings(&mut self) -> Findings {
        self.channels.take_findings()
    }

    pub fn found(&mut self, findings: &Findings) {
        self.channels.found(findings);
    }

    pub fn take_calls(&mut self) -> Vec<ToolCall> {
        self.channels.take_calls()
    }
}

/// A piece, with what may go out of its channel.
struct Said<'a> {
    node: Node,
    key: String,
    text: Cow<'a, [u8]>,
    out: Vec<u8>,
}

impl Edit {
    fn string(doc: &Doc<'_>, node: Node, text: &[u8]) -> Self {
        let mut with = Vec::with_capacity(text.len());
        escape(text, &mut with);
        Self { range: doc.range(node), with: Part::Done(written(with)) }
    }
}

fn own(ended: Ended) -> Option<Own> {
    let template = ended.template.filter(|_| !ended.rest.is_empty())?;
    let mut text = Vec::with_capacity(ended.rest.len());
    escape(&ended.rest, &mut text);
    Some(Own { payload: template.around(written(text)), frame: template.frame })
}

/// What was masked, as it is written in an event.
pub fn written(masked: impl Into<Bytes>) -> Masked {
    Masked::empty().written(|_| masked)
}

/// A value of which nothing came before, and nothing follows.
fn whole(masker: &Masker, value: Bytes) -> Result<(Masked, Findings), LlmError> {
    let mut stream = masker.stream_at(Place::Body);
    let masked = Masked::join(vec![stream.push(value)?, stream.finish()?]);
    Ok((masked, stream.findings().clone()))
}

/// Whether only its maker can read a string: by what it is, or by how it begins.
fn is_opaque(doc: &Doc<'_>, node: Node) -> bool {
    let raw = doc.raw(node);
    binary::is_binary(raw)
        || binary::is_coded(raw)
            && doc.key(node).is_some_and(|key| shape::is_opaque(&key) || *key == *b"data")
}

/// An event with what was changed in it.
pub fn parts(event: &Bytes, edits: Vec<Edit>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut at = 0;
    if edits.is_empty() {
        return vec![Part::Text(event.clone())];
    }
    for edit in edits {
        text.extend_from_slice(&event[at..edit.range.start]);
        at = edit.range.end;
        match edit.with {
            Part::Text(with) => text.extend_from_slice(&with),
            done @ Part::Done(_) => {
                parts.push(Part::Text(std::mem::take(&mut text).into()));
                parts.push(done);
            }
        }
    }
    text.extend_from_slice(&event[at..]);
    parts.push(Part::Text(text.into()));
    parts
}
