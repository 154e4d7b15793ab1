//! Keeps the tool calls of an answer back until somebody has judged them.
//!
//! ```text
//!  events --+--> before a call, and between calls: go on at once
//!           +--> from the first byte of a call: kept, with all that follows
//!                   the last call that is open ends --> judged --+--> released, as they came
//!                                                                +--> none of it
//! ```
//! **Invariant**: not a byte of an event in which something of a call stands goes on before
//! that call is whole and was judged. What cannot be read, or is too much, ends the answer.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};

use super::calls::{self, Mark};
use super::channel::CALL_MAX_BYTES;
use super::code::{CODES_MAX, Codes, Said};
use super::fences::CODE_MAX_BYTES;
use super::framing::{Answer, Framing};
use super::json::{Doc, JsonError, Kind};
use super::shape::{self, Dialect};
use super::{EVENT_MAX_BYTES, keys, strict};

/// Bytes of events that are kept at once: the longest arguments come in pieces, each in an event.
pub const KEPT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Tool calls of one answer.
pub const CALLS_MAX: usize = 128;

/// What of an answer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A tool call.
    Tool,
    /// A block of code in a text.
    Code,
}

impl Item {
    pub fn one(self) -> &'static str {
        match self {
            Self::Tool => "a tool call",
            Self::Code => "a block of code",
        }
    }

    pub fn several(self) -> &'static str {
        match self {
            Self::Tool => "tool calls",
            Self::Code => "blocks of code",
        }
    }
}

/// A tool call with all that its client will have of it, or a block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub item: Item,
    /// Of a block, its language.
    pub name: String,
    /// Mostly JSON; of a block, its text.
    pub arguments: String,
}

/// Why an answer cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// See [`CALL_MAX_BYTES`], [`KEPT_MAX_BYTES`] and [`EVENT_MAX_BYTES`].
    #[error("a tool call, or an event, is longer than is kept back")]
    TooLong,
    /// See [`CALLS_MAX`].
    #[error("there are more than {CALLS_MAX} tool calls in an answer")]
    TooMany,
    #[error("a tool call can be read in two ways")]
    Ambiguous,
    #[error("the answer cannot be read, so that no tool call in it can be judged")]
    Unreadable,
    #[error("the answer broke off in a tool call, or in an event")]
    BrokenOff,
    #[error("a block of code is longer than {CODE_MAX_BYTES} bytes")]
    CodeTooLong,
    /// See [`CODES_MAX`] and [`super::CHANNELS_MAX`].
    #[error("there are more than {CODES_MAX} blocks of code, or too many texts, in an answer")]
    CodeTooMany,
    #[error("a text can be put together in two ways, so that no code in it can be judged")]
    CodeAmbiguous,
}

impl CallError {
    /// Whether it was found in a block of code.
    pub fn is_of_code(&self) -> bool {
        matches!(self, Self::CodeTooLong | Self::CodeTooMany | Self::CodeAmbiguous)
    }

    /// A word for machines; the job may see it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong | Self::TooMany => "tool-call-over-limit",
            Self::Ambiguous => "tool-call-ambiguous",
            Self::Unreadable => "tool-call-unreadable",
            Self::BrokenOff => "tool-call-incomplete",
            Self::CodeTooLong | Self::CodeTooMany => "code-block-over-limit",
            Self::CodeAmbiguous => "code-block-ambiguous",
        }
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Pass(Bytes),
    /// All that is kept waits for these; then [`CallStream::release`].
    Judge(Vec<Call>),
}

/// A call whose pieces come.
#[derive(Debug, Default)]
struct Open {
    slot: String,
    name: Vec<u8>,
    arguments: Vec<u8>,
    /// What was said of all of its arguments.
    stated: Vec<u8>,
    /// Whether anything was said that is known to be its arguments.
    told: bool,
    /// What was said beside that.
    rest: Vec<u8>,
}

impl Open {
    fn named(&mut self, name: Vec<u8>) -> Result<(), CallError> {
        // Some clients put names together, others take the last one.
        if !name.is_empty() && !self.name.is_empty() && name != self.name {
            return Err(CallError::Ambiguous);
        }
        if !name.is_empty() {
            self.name = name;
        }
        Ok(())
    }

    fn states(&mut self, arguments: Vec<u8>) -> Result<(), CallError> {
        if !self.stated.is_empty() && !arguments.is_empty() && self.stated != arguments {
            return Err(CallError::Ambiguous);
        }
        if !arguments.is_empty() {
            self.stated = arguments;
        }
        Ok(())
    }

    fn takes(&mut self, arguments: &[u8], rest: Option<Vec<u8>>) -> Result<(), CallError> {
        self.told |= rest.is_none();
        self.arguments.extend_from_slice(arguments);
        self.rest.extend(rest.unwrap_or_default());
        if self.arguments.len().max(self.rest.len()) > CALL_MAX_BYTES {
            return Err(CallError::TooLong);
        }
        Ok(())
    }

    fn whole(self) -> Result<Call, CallError> {
        let arguments = match (self.arguments.is_empty(), self.stated.is_empty()) {
            (true, true) if !self.told => self.rest,
            (true, _) => self.stated,
            (false, false) if self.arguments != self.stated => return Err(CallError::Ambiguous),
            (false, _) => self.arguments,
        };
        call(self.name, arguments)
    }
}

fn call(name: Vec<u8>, arguments: Vec<u8>) -> Result<Call, CallError> {
    if name.len() + arguments.len() > CALL_MAX_BYTES {
        return Err(CallError::TooLong);
    }
    // What has no name is a part of another call for some client.
    if name.is_empty() {
        return Err(CallError::Ambiguous);
    }
    let text = |bytes| String::from_utf8(bytes).map_err(|_| CallError::Unreadable);
    Ok(Call { item: Item::Tool, name: text(name)?, arguments: text(arguments)? })
}

fn digest(call: &Call) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&(call.name.len() as u64).to_le_bytes());
    context.update(call.name.as_bytes());
    context.update(call.arguments.as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The calls of one answer, put together.
#[derive(Debug, Default)]
struct Calls {
    open: Vec<Open>,
    /// Slots that have ended: nothing may come for them.
    over: Vec<String>,
    whole: Vec<Call>,
    /// All that ever were whole.
    told: Vec<[u8; 32]>,
    model: Option<String>,
}

impl Calls {
    /// Whether anything of a call stands in it that is not known; `model` if it is sure to be of one.
    fn take(&mut self, doc: &Doc<'_>, model: bool) -> Result<bool, CallError> {
        if keys::are_ambiguous(doc, model) {
            return Err(CallError::Ambiguous);
        }
        if self.model.is_none() {
            self.model = calls::model(doc);
        }
        let mut touched = false;
        let mut repeats = Vec::new();
        for mark in calls::read(doc) {
            touched |= !matches!(mark, Mark::Ends(_) | Mark::Repeat { .. });
            match mark {
                Mark::Refused(error) => return Err(error),
                Mark::Piece { slot, name, stated, arguments, rest } => {
                    let open = self.at(slot)?;
                    open.named(name)?;
                    open.states(stated)?;
                    open.takes(&arguments, rest)?;
                }
                Mark::Stated { slot, arguments } => self.at(slot)?.states(arguments)?,
                Mark::Whole { slot: Some(slot), name, arguments } => {
                    let open = self.at(slot)?;
                    open.named(name)?;
                    open.states(arguments)?;
                }
                Mark::Whole { slot: None, name, arguments } => self.add(call(name, arguments)?)?,
                Mark::Repeat { name, arguments } => repeats.push(call(name, arguments)?),
                Mark::Ends(slots) => self.end(&slots)?,
            }
        }
        // Each call is told once more at the most.
        let mut known = if repeats.is_empty() { Vec::new() } else { self.told.clone() };
        for again in repeats {
            let of_it = digest(&again);
            match known.iter().position(|known| *known == of_it) {
                Some(at) => drop(known.swap_remove(at)),
                None => {
                    touched = true;
                    self.add(again)?;
                }
            }
        }
        Ok(touched)
    }

    fn at(&mut self, slot: String) -> Result<&mut Open, CallError> {
        if self.over.contains(&slot) {
            return Err(CallError::Ambiguous);
        }
        let known = self.open.iter().position(|open| open.slot == slot);
        let at = match known {
            // One without a number may be another call each time.
            Some(_) if slot.ends_with("t?/") => return Err(CallError::Ambiguous),
            Some(at) => at,
            None if self.is_mixed_up(&slot) => return Err(CallError::Ambiguous),
            None if self.open.len() + self.over.len() >= CALLS_MAX => return Err(CallError::TooMany),
            None => {
                self.open.push(Open { slot, ..Open::default() });
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[at])
    }

    /// Whether a client could take a new slot for one that is there: some read the first choice
    /// alone, whatever its number, and what has no number is the first call for some.
    fn is_mixed_up(&self, slot: &str) -> bool {
        let choice = |slot: &str| slot.split('/').next().unwrap_or_default().to_owned();
        let number = |slot: &str| slot.split('/').nth(1).is_some_and(|call| call == "t?");
        let listed = |slot: &str| slot.split('/').nth(1).is_some_and(|call| call.starts_with('t'));
        let slots =
            self.open.iter().map(|open| open.slot.as_str()).chain(self.over.iter().map(String::as_str));
        slot.starts_with('c')
            && slots.filter(|other| other.starts_with('c')).any(|other| {
                choice(other) != choice(slot)
                    || listed(other) && listed(slot) && (number(other) || number(slot))
            })
    }

    fn end(&mut self, slots: &str) -> Result<(), CallError> {
        let (ended, open) =
            std::mem::take(&mut self.open).into_iter().partition(|open: &Open| open.slot.starts_with(slots));
        self.open = open;
        for ended in ended {
            self.over.push(ended.slot.clone());
            let whole = ended.whole()?;
            self.add(whole)?;
        }
        Ok(())
    }

    fn add(&mut self, call: Call) -> Result<(), CallError> {
        if self.told.len() >= CALLS_MAX {
            return Err(CallError::TooMany);
        }
        self.told.push(digest(&call));
        self.whole.push(call);
        Ok(())
    }
}

/// The calls of an answer in one piece, with `code` its blocks of code too, and the model that it
/// says it is of.
pub fn whole_calls(answer: &[u8], code: bool) -> Result<(Vec<Call>, Option<String>), CallError> {
    let doc = Doc::parse(answer).map_err(|_| CallError::Unreadable)?;
    let mut calls = Calls::default();
    calls.take(&doc, true)?;
    calls.end("")?;
    if code {
        calls.whole.extend(whole_blocks(&doc)?);
    }
    Ok((calls.whole, calls.model))
}

/// A list is of events: what stands in them is one answer.
fn whole_blocks(doc: &Doc<'_>) -> Result<Vec<Call>, CallError> {
    let mut codes = Codes::default();
    if doc.kind(Doc::ROOT) == Kind::Array {
        for event in doc.children(Doc::ROOT).filter(|&event| doc.is_object(event)) {
            let event = Doc::parse(doc.raw(event)).map_err(|_| CallError::Unreadable)?;
            codes.take(&event, &shape::read(&event))?;
        }
    } else {
        codes.take(doc, &shape::read(doc))?;
    }
    codes.end("")?;
    Ok(codes.whole)
}

/// What an event of a call is called: all of one answer alike.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    None,
    /// As its data says.
    Kind,
    Name(Vec<u8>),
}

/// An answer in events on its way.
#[derive(Debug)]
pub struct CallStream {
    framing: Framing,
    dialect: Option<Dialect>,
    /// The path says so.
    by_path: bool,
    splitter: strict::Splitter,
    calls: Calls,
    /// Of the blocks of code, if somebody judges them.
    codes: Option<Codes>,
    /// An event has come.
    begun: bool,
    /// What the first event of a call was called.
    label: Option<Label>,
    /// What may go on.
    out: BytesMut,
    kept: BytesMut,
    ended: bool,
}

impl CallStream {
    /// Of server-sent events or of lines; `None` of what stands in another way.
    pub fn new(answer: Answer) -> Option<Self> {
        matches!(answer.framing, Framing::Sse | Framing::Lines).then(|| Self {
            framing: answer.framing,
            dialect: answer.dialect,
            by_path: answer.dialect.is_some(),
            splitter: strict::Splitter::default(),
            calls: Calls::default(),
            codes: None,
            begun: false,
            label: None,
            out: BytesMut::new(),
            kept: BytesMut::new(),
            ended: false,
        })
    }

    /// With `code` blocks of code are kept back, too.
    #[must_use]
    pub fn judging_code(self, code: bool) -> Self {
        Self { codes: code.then(Codes::default), ..self }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.splitter.push(bytes);
    }

    /// Nothing follows.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// What is to be done with what came; `None` if more has to come.
    pub fn step(&mut self) -> Result<Option<Step>, CallError> {
        loop {
            if let Some(calls) = self.ready() {
                // What stands before them goes first.
                return Ok(Some(if self.out.is_empty() { Step::Judge(calls) } else { self.pass() }));
            }
            match self.next()? {
                Some((event, cut)) => self.event(&event, cut)?,
                None if !self.out.is_empty() => return Ok(Some(self.pass())),
                None if self.ended && !self.calls.open.is_empty() => return Err(CallError::BrokenOff),
                // A block that is open at the end ends there.
                None if self.ended && self.codes.as_ref().is_some_and(Codes::keeps) => self.end_code("")?,
                None if self.ended && !self.kept.is_empty() => return Err(CallError::BrokenOff),
                None => return Ok(None),
            }
            self.let_go();
        }
    }

    /// What is to be judged now, if nothing is missing of it.
    fn ready(&self) -> Option<Vec<Call>> {
        let blocks = self.codes.as_ref().map(|codes| &codes.whole[..]).unwrap_or_default();
        let open = !self.calls.open.is_empty() || self.codes.as_ref().is_some_and(Codes::keeps);
        let all = || self.calls.whole.iter().chain(blocks).cloned().collect();
        let none = self.calls.whole.is_empty() && blocks.is_empty();
        (!open && !none).then(all)
    }

    /// What looked like the beginning of a block, and is none, goes on.
    fn let_go(&mut self) {
        let Some(codes) = &self.codes else { return };
        if self.calls.open.is_empty() && !codes.keeps() && self.ready().is_none() {
            self.out.extend_from_slice(&self.kept.split());
        }
    }

    fn end_code(&mut self, texts: &str) -> Result<(), CallError> {
        self.codes.as_mut().map_or(Ok(()), |codes| codes.end(texts))
    }

    /// What was kept goes on.
    pub fn release(&mut self) {
        self.calls.whole.clear();
        self.codes.iter_mut().for_each(|codes| codes.whole.clear());
        self.out.extend_from_slice(&self.kept.split());
    }

    /// The bytes that are kept.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// As the answer says it.
    pub fn model(&self) -> Option<&str> {
        self.calls.model.as_deref()
    }

    /// Whose API it is.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// Whether a comment may stand in it.
    pub fn takes_comments(&self) -> bool {
        self.framing == Framing::Sse
    }

    fn pass(&mut self) -> Step {
        Step::Pass(self.out.split().freeze())
    }

    /// The next event, and whether its end is missing.
    fn next(&mut self) -> Result<Option<(Bytes, bool)>, CallError> {
        let event = match self.framing {
            Framing::Sse => self.splitter.next_event(),
            _ => self.splitter.next_line(),
        };
        let left = self.splitter.len();
        if event.as_ref().map_or(left, Bytes::len) > EVENT_MAX_BYTES {
            return Err(CallError::TooLong);
        }
        if event.is_some() || !self.ended || left == 0 {
            return Ok(event.map(|event| (event, false)));
        }
        Ok(Some((self.splitter.take(), true)))
    }

    fn event(&mut self, event: &Bytes, cut: bool) -> Result<(), CallError> {
        let read = match self.framing {
            Framing::Sse => strict::read(event, !self.begun)?,
            _ => strict::Event { data: strict::line(event)?.to_vec(), lines: 1, ..Default::default() },
        };
        self.begun = true;
        let (touched, said) = self.payload(&read)?;
        if touched && cut && self.framing == Framing::Sse {
            // Some clients do not read it.
            return Err(CallError::BrokenOff);
        }
        // Of a text, too: what a client skips of it may be the line before a fence.
        if (touched || said) && (read.marked || read.lines > 1) {
            return Err(if touched { CallError::Ambiguous } else { CallError::CodeAmbiguous });
        }
        if touched || !self.kept.is_empty() {
            if self.kept.len() + event.len() > KEPT_MAX_BYTES {
                return Err(CallError::TooLong);
            }
            self.kept.extend_from_slice(event);
        } else {
            self.out.extend_from_slice(event);
        }
        Ok(())
    }

    /// Whether anything of it is to be judged, and whether it says any text that may be.
    fn payload(&mut self, event: &strict::Event) -> Result<(bool, bool), CallError> {
        let payload = event.data.as_slice();
        if payload.is_empty() {
            return Ok((false, false));
        }
        if payload == b"[DONE]" {
            self.calls.end("")?;
            self.end_code("")?;
            return Ok((false, false));
        }
        let doc = match Doc::parse(payload) {
            Ok(doc) => doc,
            Err(JsonError::Invalid) if self.ended && self.dialect.is_some() => {
                return Err(CallError::BrokenOff);
            }
            // Of something else than a model.
            Err(JsonError::Invalid) if self.dialect.is_none() && !strict::may_hold_json(payload) => {
                return Ok((false, false));
            }
            Err(_) => return Err(CallError::Unreadable),
        };
        let reading = shape::read(&doc);
        self.is_of(reading.dialect)?;
        let touched = self.calls.take(&doc, self.dialect.is_some())?;
        let codes = self.codes.as_mut();
        let said = codes.map_or(Ok(Said::default()), |codes| codes.take(&doc, &reading))?;
        let kind = doc.text(Doc::ROOT, "type");
        self.is_called(event.name.as_deref(), kind.as_deref(), touched || said.text)?;
        Ok((touched || said.code, said.text))
    }

    /// What its path says counts; else what it says first.
    fn is_of(&mut self, dialect: Option<Dialect>) -> Result<(), CallError> {
        match (self.dialect, dialect) {
            (Some(known), Some(other)) if known != other && !self.by_path => Err(CallError::Ambiguous),
            _ => {
                self.dialect = self.dialect.or(dialect);
                Ok(())
            }
        }
    }

    /// Some clients skip events by their names, and some those that have none.
    fn is_called(
        &mut self,
        name: Option<&[u8]>,
        kind: Option<&[u8]>,
        touched: bool,
    ) -> Result<(), CallError> {
        let name = name.filter(|name| !name.is_empty());
        let differs = name.zip(kind).is_some_and(|(name, kind)| name != kind);
        // Gateways say `error` of all errors.
        if differs && (touched || self.dialect.is_some() && name != Some(b"error")) {
            return Err(CallError::Ambiguous);
        }
        if !touched {
            return Ok(());
        }
        let label = match (name, kind) {
            (None, _) => Label::None,
            (Some(_), Some(_)) => Label::Kind,
            (Some(name), None) => Label::Name(name.to_vec()),
        };
        if self.label.get_or_insert_with(|| label.clone()) != &label {
            return Err(CallError::Ambiguous);
        }
        Ok(())
    }
}
