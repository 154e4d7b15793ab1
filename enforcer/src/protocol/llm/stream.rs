//! An answer of a model on its way: framed bytes in, framed and masked bytes out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::channel::ToolCall;
use super::events::{Events, Own, Part, Passed, parts, written};
use super::framing::{Answer, Framing};
use super::json::{Doc, Kind};
use super::list::List;
use super::{EVENT_MAX_BYTES, LlmError, eventstream, farewell, sse};
use crate::mask::{Findings, Masked, Masker, StreamMasker};

/// Masks the events of one answer.
pub struct LlmStream {
    framing: Framing,
    /// Whether something says that this is an answer of a model.
    known: bool,
    masker: Masker,
    events: Events,
    /// What is no JSON: bytes as they come.
    raw: StreamMasker,
    raw_used: bool,
    /// From here on there are no events.
    raw_only: bool,
    sse: sse::Splitter,
    list: List,
    buffer: BytesMut,
    /// An event that may be the last one, and what stands behind it.
    waiting: Option<(Bytes, Passed, Bytes)>,
    failed: Option<LlmError>,
}

impl LlmStream {
    /// `exact` knows of `masker` the known values. `strict` streams end where signed text
    /// would be changed; a copy for the recording need not.
    pub fn new(answer: Answer, masker: &Masker, exact: Masker, strict: bool) -> Self {
        Self {
            framing: answer.framing,
            known: answer.dialect.is_some(),
            masker: masker.clone(),
            events: Events::new(masker, exact, strict, answer.dialect),
            raw: masker.stream(),
            raw_used: false,
            raw_only: false,
            sse: sse::Splitter::default(),
            list: List::default(),
            buffer: BytesMut::new(),
            waiting: None,
            failed: None,
        }
    }

    /// Takes what came, and gives what may go out of it. After an error the stream has to end.
    pub fn push(&mut self, bytes: Bytes) -> Result<Masked, LlmError> {
        self.checked(|this, out| {
            if this.raw_only {
                return this.raw(bytes, out);
            }
            match this.framing {
                Framing::Sse => this.push_sse(&bytes, out),
                Framing::Lines => this.push_lines(&bytes, out),
                Framing::List => this.push_list(&bytes, out),
                Framing::Frames => this.push_frames(&bytes, out),
                Framing::Messages => this.message_parts(bytes).map(|parts| out.extend(parts)),
            }
        })
    }

    /// Nothing follows.
    pub fn finish(&mut self) -> Result<Masked, LlmError> {
        self.checked(|this, out| {
            let rest = match this.framing {
                Framing::Sse => this.sse.take(),
                _ => this.buffer.split().freeze(),
            };
            let open = !rest.is_empty();
            match this.framing {
                _ if !open => {}
                Framing::Sse => this.sse_event(rest, out)?,
                Framing::Lines => this.line(rest, out)?,
                Framing::List | Framing::Messages => this.raw(rest, out)?,
                Framing::Frames => return Err(LlmError::Frame),
            }
            this.end_raw(out)?;
            this.release(true, out)?;
            let own = this.events.end()?;
            if open && !own.is_empty() {
                let end = if this.framing == Framing::Sse { "\n\n" } else { "\n" };
                out.push(this.events.seal(vec![Part::Text(end.into())])?);
            }
            this.own(own, out)
        })
    }

    /// Takes a message of a WebSocket, and gives what goes out in its place.
    pub fn message(&mut self, bytes: Bytes) -> Result<Vec<Masked>, LlmError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.message_parts(bytes).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// No message follows: those that go out before the end.
    pub fn last_messages(&mut self) -> Result<Vec<Masked>, LlmError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut out = Vec::new();
        let own = self.events.end()?;
        self.own(own, &mut out)?;
        Ok(out)
    }

    /// How many bytes are held back now, and those of events that are not whole.
    pub fn held(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |(event, ..)| event.len());
        self.events.held() + self.raw.held() + self.sse.len() + self.buffer.len() + waiting
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        let mut all = self.events.findings();
        all.merge(self.raw.findings());
        all
    }

    /// What was found since this was asked for, in channels that have ended.
    pub fn take_findings(&mut self) -> Findings {
        self.events.take_findings()
    }

    /// The tool calls that ended since this was asked for.
    pub fn take_calls(&mut self) -> Vec<ToolCall> {
        self.events.take_calls()
    }

    /// What tells the client in its own API why the stream ends here.
    pub fn farewell(&self, error: &LlmError) -> Bytes {
        farewell::of(self.framing, self.events.dialect, error)
    }

    fn checked(
        &mut self,
        step: impl FnOnce(&mut Self, &mut Vec<Masked>) -> Result<(), LlmError>,
    ) -> Result<Masked, LlmError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut out = Vec::new();
        match step(self, &mut out) {
            Ok(()) => Ok(Masked::join(out)),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Bytes that are no event of a model are masked as they come.
    fn raw(&mut self, bytes: Bytes, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.release(false, out)?;
        self.raw_used = true;
        out.push(self.raw.push(bytes)?);
        Ok(())
    }

    /// Lets an event go that has waited, since something follows, or nothing.
    fn release(&mut self, end: bool, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        let Some((event, mut passed, behind)) = self.waiting.take() else { return Ok(()) };
        if end {
            let own = self.events.end_in(&mut passed)?;
            self.own(own, out)?;
        }
        out.push(self.events.seal(parts(&event, passed.edits))?);
        out.push(self.events.seal(vec![Part::Text(behind)])?);
        Ok(())
    }

    fn end_raw(&mut self, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        if std::mem::take(&mut self.raw_used) {
            out.push(self.raw.finish()?);
            self.events.found(self.raw.findings());
            self.raw = self.masker.stream();
        }
        Ok(())
    }

    /// Writes events of our own.
    fn own(&mut self, own: Vec<Own>, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        for Own { payload, frame } in own {
            let (before, after) = match self.framing {
                Framing::Sse => ([&frame, &b"data: "[..]].concat(), "\n\n"),
                Framing::Lines => (Vec::new(), "\n"),
                Framing::List => (Vec::new(), ",\n"),
                Framing::Messages => (Vec::new(), ""),
                Framing::Frames => {
                    let wrapped = frame.first() == Some(&WRAPPED);
                    let headers = Bytes::copy_from_slice(frame.get(1..).unwrap_or_default());
                    let payload = self.events.seal(payload)?.into_bytes();
                    let payload = if wrapped { wrap(&payload) } else { payload };
                    out.push(self.frame(&headers, &payload)?);
                    continue;
                }
            };
            out.push(self.around(before.into(), payload, after.into())?);
        }
        Ok(())
    }

    fn around(&mut self, before: Bytes, payload: Vec<Part>, after: Bytes) -> Result<Masked, LlmError> {
        let mut parts = vec![Part::Text(before)];
        parts.extend(payload);
        parts.push(Part::Text(after));
        self.events.seal(Part::merge(parts))
    }

    fn push_sse(&mut self, bytes: &[u8], out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.sse.push(bytes);
        while let Some(event) = self.sse.next() {
            if event.len() > EVENT_MAX_BYTES && self.known {
                return Err(LlmError::TooLong);
            }
            self.sse_event(event, out)?;
        }
        if self.sse.len() > EVENT_MAX_BYTES {
            if self.known {
                return Err(LlmError::TooLong);
            }
            self.raw_only = true;
            let rest = self.sse.take();
            return self.raw(rest, out);
        }
        Ok(())
    }

    fn sse_event(&mut self, event: Bytes, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        let fields = sse::fields(&event);
        let payload = match fields.data.as_slice() {
            [] => return self.raw(event, out),
            [one] => event.slice(one.clone()),
            many => many.iter().map(|at| &event[at.clone()]).collect::<Vec<_>>().join(&b'\n').into(),
        };
        if payload.trim_ascii() == b"[DONE]" {
            self.end_raw(out)?;
            self.release(true, out)?;
            let own = self.events.end()?;
            self.own(own, out)?;
            return self.raw(event, out);
        }
        let frame = fields.event.clone().map_or(&b""[..], |line| &event[line]);
        self.release(false, out)?;
        let Some(Passed { own, mut edits, wait }) = self.events.event(&payload, frame)? else {
            return self.raw(event, out);
        };
        self.known |= self.events.dialect.is_some();
        self.end_raw(out)?;
        self.own(own, out)?;
        let parts = match fields.data.as_slice() {
            [one] => {
                for edit in &mut edits {
                    edit.range = edit.range.start + one.start..edit.range.end + one.start;
                }
                let wait =
                    wait.map(|pieces| pieces.into_iter().map(|(key, at)| (key, at + one.start)).collect());
                return self.passed(&event, Passed { edits, wait, own: Vec::new() }, out);
            }
            _ if edits.is_empty() => vec![Part::Text(event)],
            _ => sse::rejoin(&event, &fields, parts(&payload, edits)),
        };
        out.push(self.events.seal(parts)?);
        Ok(())
    }

    fn push_lines(&mut self, bytes: &[u8], out: &mut Vec<Masked>) -> Result<(), LlmError> {
        let mut at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        while let Some(found) = memchr::memchr(b'\n', &self.buffer[at..]) {
            let line = self.buffer.split_to(at + found + 1).freeze();
            at = 0;
            self.line(line, out)?;
        }
        if self.buffer.len() > EVENT_MAX_BYTES { Err(LlmError::TooLong) } else { Ok(()) }
    }

    fn line(&mut self, line: Bytes, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.release(false, out)?;
        match self.events.event(&line, &[])? {
            None => self.raw(line, out),
            Some(passed) => self.passed(&line, passed, out),
        }
    }

    fn passed(&mut self, event: &Bytes, mut passed: Passed, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.end_raw(out)?;
        let own = std::mem::take(&mut passed.own);
        self.own(own, out)?;
        if passed.wait.is_some() {
            self.waiting = Some((event.clone(), passed, Bytes::new()));
            return Ok(());
        }
        out.push(self.events.seal(parts(event, passed.edits))?);
        Ok(())
    }

    fn push_list(&mut self, bytes: &[u8], out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.buffer.extend_from_slice(bytes);
        while let Some((length, element)) = self.list.next(&self.buffer) {
            let bytes = self.buffer.split_to(length).freeze();
            if !element {
                if let Some((.., behind)) = &mut self.waiting
                    && bytes.trim_ascii().is_empty()
                {
                    *behind = [&behind[..], &bytes].concat().into();
                    continue;
                }
                if bytes.as_ref() == b"]" {
                    self.release(true, out)?;
                    self.end_list(out)?;
                }
                self.raw(bytes, out)?;
                continue;
            }
            self.release(false, out)?;
            match self.events.event(&bytes, &[])? {
                None => self.raw(bytes, out)?,
                Some(passed) => self.passed(&bytes, passed, out)?,
            }
        }
        if self.buffer.len() > EVENT_MAX_BYTES { Err(LlmError::TooLong) } else { Ok(()) }
    }

    /// The last element stands before the bracket, and nothing between.
    fn end_list(&mut self, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        for Own { payload, .. } in self.events.end()? {
            out.push(self.around(",\n".into(), payload, Bytes::new())?);
        }
        Ok(())
    }

    fn push_frames(&mut self, bytes: &[u8], out: &mut Vec<Masked>) -> Result<(), LlmError> {
        self.buffer.extend_from_slice(bytes);
        while let Some(frame) = eventstream::next(&mut self.buffer)? {
            self.one_frame(frame, out)?;
        }
        Ok(())
    }

    fn one_frame(&mut self, frame: eventstream::Frame, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        let inner = unwrap(&frame.payload);
        let mut template = vec![if inner.is_some() { WRAPPED } else { 0 }];
        template.extend_from_slice(&frame.headers);
        let payload = inner.as_ref().map_or(&frame.payload, |(inner, _)| inner);
        let passed = self.events.event(payload, &template)?.unwrap_or_default();
        self.own(passed.own, out)?;
        let masked = self.events.seal(parts(payload, passed.edits))?;
        let outer = match &inner {
            None => masked,
            Some((_, at)) => {
                let coded = masked.written(|masked| STANDARD.encode(masked));
                let text = |range| Part::Text(frame.payload.slice(range));
                let end = frame.payload.len();
                self.events.seal(vec![text(0..at.start), Part::Done(coded), text(at.end..end)])?
            }
        };
        if outer.as_bytes() == frame.payload {
            self.beside(&frame.headers)?;
            out.push(written(frame.raw));
        } else {
            out.push(self.frame(&frame.headers, outer.as_bytes())?);
        }
        Ok(())
    }

    /// A frame whose payload was masked.
    fn frame(&mut self, headers: &Bytes, payload: &[u8]) -> Result<Masked, LlmError> {
        self.beside(headers)?;
        Ok(written(eventstream::write(headers, payload)?))
    }

    /// What a frame is called by is looked at, and not changed.
    fn beside(&mut self, headers: &Bytes) -> Result<(), LlmError> {
        let masked = self.events.seal(vec![Part::Text(headers.clone())])?;
        if masked.as_bytes() == headers { Ok(()) } else { Err(LlmError::Beside) }
    }

    fn message_parts(&mut self, bytes: Bytes) -> Result<Vec<Masked>, LlmError> {
        let mut out = Vec::new();
        match self.events.event(&bytes, &[])? {
            None => out.push(self.events.seal(vec![Part::Text(bytes)])?),
            Some(passed) => {
                self.passed(&bytes, passed, &mut out)?;
                self.release(false, &mut out)?;
            }
        }
        Ok(out)
    }
}

/// Marks the form of a frame whose payload is another one in base64.
const WRAPPED: u8 = 1;

/// The payload in base64 inside of a payload, and where it stands.
fn unwrap(payload: &Bytes) -> Option<(Bytes, std::ops::Range<usize>)> {
    let doc = Doc::parse(payload).ok()?;
    let node = doc.get(Doc::ROOT, "bytes").filter(|&node| doc.kind(node) == Kind::String)?;
    let inner = STANDARD.decode(doc.raw(node)).ok()?;
    Some((inner.into(), doc.range(node)))
}

fn wrap(payload: &[u8]) -> Bytes {
    format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(payload)).into()
}
