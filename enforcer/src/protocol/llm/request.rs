//! A request to a model, or its answer in one piece: JSON that streams by, in which files in
//! base64 stay as they are, and text that is signed is not changed.

use bytes::{Bytes, BytesMut};

use super::{LlmError, binary, shape};
use crate::mask::{Findings, Masked, Masker, StreamMasker};

/// The longest name of a member that is looked at.
const NAME_BYTES: usize = 32;

/// Masks the body of one request, or of an answer that is no stream.
pub struct LlmRequest {
    masker: Masker,
    exact: Masker,
    text: StreamMasker,
    file: Option<StreamMasker>,
    /// What came and what went out, of text that may be signed.
    sums: Option<Box<(blake3::Hasher, blake3::Hasher)>>,
    findings: Findings,
    /// How many bytes came before those that are read now.
    before: u64,
    /// Bytes in which a string still has to show what it is.
    look: BytesMut,
    at: At,
    /// The last string outside of a value, and how long it was.
    word: ([u8; NAME_BYTES], usize),
    /// The member whose value comes.
    name: ([u8; NAME_BYTES], usize),
    object: Object,
    failed: Option<LlmError>,
}

/// Where in the JSON the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Outside,
    /// In a string: what kind, and whether the byte before was a backslash.
    String(Kind, bool),
    /// At the beginning of a string.
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    File,
    /// A signature, or what only its maker can read.
    Opaque,
}

/// What the object at hand has shown of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Object {
    signed: bool,
    redacted: bool,
    thinking_changed: bool,
}

impl LlmRequest {
    /// `exact` knows of `masker` the known values.
    pub fn new(masker: &Masker, exact: Masker) -> Self {
        Self {
            masker: masker.clone(),
            exact,
            text: masker.stream(),
            file: None,
            sums: None,
            findings: Findings::default(),
            before: 0,
            look: BytesMut::new(),
            at: At::Outside,
            word: ([0; NAME_BYTES], 0),
            name: ([0; NAME_BYTES], 0),
            object: Object::default(),
            failed: None,
        }
    }

    /// Takes what came, and gives what may go out of it. After an error the request has to end.
    pub fn push(&mut self, bytes: Bytes) -> Result<Masked, LlmError> {
        self.checked(|this, out| this.walk(bytes, out))
    }

    /// Nothing follows.
    pub fn finish(&mut self) -> Result<Masked, LlmError> {
        self.checked(|this, out| {
            let look = this.look.split().freeze();
            out.push(this.text.push(look)?);
            this.end_file(out)?;
            out.push(this.text.finish()?);
            Ok(())
        })
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        let mut all = self.findings.clone();
        all.merge(self.text.findings());
        all
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

    fn walk(&mut self, bytes: Bytes, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        // What has to be looked at was held back and comes once more.
        let bytes = if self.look.is_empty() {
            bytes
        } else {
            self.look.extend_from_slice(&bytes);
            self.look.split().freeze()
        };
        let (mut sent, mut at) = (0, 0);
        while at < bytes.len() {
            match self.at {
                At::Outside => at = self.outside(&bytes, at),
                At::Look => {
                    let Some((kind, skip)) = self.look_at(&bytes[at..]) else {
                        self.flow(bytes.slice(sent..at), out)?;
                        self.look.extend_from_slice(&bytes[at..]);
                        return Ok(());
                    };
                    at += skip;
                    if kind != Kind::Text {
                        self.flow(bytes.slice(sent..at), out)?;
                        sent = at;
                        self.begin(kind, out)?;
                    }
                    self.at = At::String(kind, false);
                }
                At::String(kind, escaped) => {
                    let end = self.string(kind, escaped, &bytes, at);
                    let over = self.at != At::String(kind, false) && self.at != At::String(kind, true);
                    if over && kind != Kind::Text {
                        self.flow(bytes.slice(sent..end), out)?;
                        sent = end;
                        self.end(kind, out)?;
                    }
                    // The quote itself is text.
                    at = if self.at == At::Outside { end + 1 } else { end };
                }
            }
        }
        self.flow(bytes.slice(sent..), out)
    }

    /// Up to the beginning of the next string.
    fn outside(&mut self, bytes: &[u8], from: usize) -> usize {
        for (at, byte) in bytes.iter().enumerate().skip(from) {
            match byte {
                b':' => self.name = std::mem::replace(&mut self.word, ([0; NAME_BYTES], 0)),
                b',' | b'[' => self.name.1 = 0,
                b'{' => {
                    self.name.1 = 0;
                    self.object = Object::default();
                }
                b'"' => {
                    self.word.1 = 0;
                    self.at = At::Look;
                    return at + 1;
                }
                _ => {}
            }
        }
        bytes.len()
    }

    /// What kind a string is, and how much of it is text before that; `None` until enough
    /// of it is there.
    fn look_at(&mut self, rest: &[u8]) -> Option<(Kind, usize)> {
        let name = &self.name.0[..self.name.1];
        if name == b"thinking" {
            return Some((Kind::Thinking, 0));
        }
        let opaque = shape::is_opaque(name) || name == b"data" && self.object.redacted;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let look = &rest[..end.unwrap_or(rest.len()).min(binary::LOOK_BYTES)];
        let begin = if opaque {
            look.iter().all(|&byte| binary::is_digit(byte)).then_some(0)
        } else {
            binary::begins(look)
        };
        if end.is_some() || look.len() >= binary::LOOK_BYTES {
            self.object.signed |= name == b"signature" && !look.is_empty();
            let kind = if opaque { Kind::Opaque } else { Kind::File };
            let long = begin.filter(|_| look.len() >= binary::BINARY_MIN_BYTES);
            return Some(long.map_or((Kind::Text, 0), |skip| (kind, skip)));
        }
        // Most strings show at once that they are none.
        let may_be = opaque || begin.is_some() || look.len() < 12 || look.starts_with(b"data:");
        (!may_be).then_some((Kind::Text, 0))
    }

    /// Up to the end of a string, or of what is there.
    fn string(&mut self, kind: Kind, mut escaped: bool, bytes: &[u8], from: usize) -> usize {
        let coded = matches!(kind, Kind::File | Kind::Opaque);
        let mut at = from;
        while at < bytes.len() {
            if escaped {
                self.spell(&bytes[at..=at]);
                escaped = false;
                at += 1;
                continue;
            }
            let found = if coded {
                bytes[at..].iter().position(|&byte| !binary::is_digit(byte))
            } else {
                memchr::memchr2(b'"', b'\\', &bytes[at..])
            };
            let end = found.map_or(bytes.len(), |found| at + found);
            self.spell(&bytes[at..end]);
            at = end;
            match bytes.get(at) {
                Some(b'"') => {
                    self.closed();
                    return at;
                }
                Some(_) if coded => {
                    self.at = At::String(Kind::Text, false);
                    return at;
                }
                Some(_) => {
                    self.spell(b"\\");
                    escaped = true;
                    at += 1;
                }
                None => {}
            }
        }
        self.at = At::String(kind, escaped);
        at
    }

    fn spell(&mut self, letters: &[u8]) {
        let (word, length) = &mut self.word;
        let room = NAME_BYTES - (*length).min(NAME_BYTES);
        let take = letters.len().min(room);
        word[*length..*length + take].copy_from_slice(&letters[..take]);
        // A longer one is no name that is known.
        *length = if letters.len() > room { NAME_BYTES } else { *length + take };
    }

    fn closed(&mut self) {
        self.at = At::Outside;
        let (name, word) = (&self.name.0[..self.name.1], &self.word.0[..self.word.1]);
        self.object.redacted |= name == b"type" && word == b"redacted_thinking";
    }

    fn begin(&mut self, kind: Kind, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        out.push(self.text.finish()?);
        self.findings.merge(self.text.findings());
        self.text = self.masker.stream_from(self.before);
        if matches!(kind, Kind::File | Kind::Opaque) {
            self.file = Some(self.exact.stream_from(self.before));
        }
        self.sums = (kind != Kind::File).then(Box::default);
        self.signed()
    }

    fn end(&mut self, kind: Kind, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        if kind == Kind::Thinking {
            let masked = self.text.finish()?;
            self.sum(&masked);
            out.push(masked);
            self.findings.merge(self.text.findings());
            self.text = self.masker.stream_from(self.before);
        }
        self.end_file(out)?;
        let changed = self.sums.take().is_some_and(|sums| sums.0.finalize() != sums.1.finalize());
        if changed && kind == Kind::Opaque {
            return Err(LlmError::SignedThinking);
        }
        self.object.thinking_changed |= changed;
        self.signed()
    }

    fn end_file(&mut self, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let masked = file.finish()?;
        self.sum(&masked);
        out.push(masked);
        self.findings.merge(file.findings());
        Ok(())
    }

    fn sum(&mut self, masked: &Masked) {
        if let Some(sums) = &mut self.sums {
            sums.1.update(masked.as_bytes());
        }
    }

    fn signed(&self) -> Result<(), LlmError> {
        let changed = self.object.signed && self.object.thinking_changed;
        if changed { Err(LlmError::SignedThinking) } else { Ok(()) }
    }

    fn flow(&mut self, bytes: Bytes, out: &mut Vec<Masked>) -> Result<(), LlmError> {
        if !bytes.is_empty() {
            if let Some(sums) = &mut self.sums {
                sums.0.update(&bytes);
            }
            self.before += bytes.len() as u64;
            let masked = self.file.as_mut().unwrap_or(&mut self.text).push(bytes)?;
            self.sum(&masked);
            out.push(masked);
        }
        Ok(())
    }
}
