//! The texts that are open, each with its masker, and the tool calls among them.

use bytes::Bytes;

use super::LlmError;
use super::events::written;
use super::shape::Carries;
use super::template::Template;
use crate::mask::{Findings, MaskError, MaskedText, Masker, StreamMasker};

/// Texts of one answer that may be open at once; a chat has at most 128 choices.
pub const CHANNELS_MAX: usize = 256;
/// Bytes of the arguments of one tool call that are put together; a longer one is not
/// complete.
pub const CALL_MAX_BYTES: usize = 256 * 1024;
/// Tool calls that are kept until somebody takes them.
const CALLS_MAX: usize = 256;

/// A tool call that a model has asked for, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Where in the answer: `choices[0].delta.tool_calls[1]`.
    pub channel: String,
    pub name: MaskedText,
    /// JSON, put together.
    pub arguments: MaskedText,
    /// False: it is longer than is kept, or the answer broke off.
    pub complete: bool,
}

/// One text that comes in pieces.
pub struct Channel {
    pub key: String,
    carries: Carries,
    stream: StreamMasker,
    /// The beginning of a character whose end has not come.
    carry: Vec<u8>,
    /// Set while something is held back.
    pub template: Option<Template>,
    arguments: Vec<u8>,
    cut: bool,
    /// What came and what went out, of text that may be signed.
    sums: Option<Box<(blake3::Hasher, blake3::Hasher)>>,
}

impl Channel {
    /// What may go out of the channel now.
    pub fn push(&mut self, text: &[u8]) -> Result<Vec<u8>, MaskError> {
        if let Some(sums) = &mut self.sums {
            sums.0.update(text);
        }
        let masked = self.stream.push(Bytes::copy_from_slice(text))?;
        Ok(self.out(masked.as_bytes(), false))
    }

    fn finish(&mut self) -> Result<Vec<u8>, MaskError> {
        let masked = self.stream.finish()?;
        Ok(self.out(masked.as_bytes(), true))
    }

    /// Each event is UTF-8 by itself, so characters go out whole.
    fn out(&mut self, masked: &[u8], last: bool) -> Vec<u8> {
        if let Some(sums) = &mut self.sums {
            sums.1.update(masked);
        }
        let mut out = std::mem::take(&mut self.carry);
        out.extend_from_slice(masked);
        if !last {
            self.carry = out.split_off(out.len() - unfinished(&out));
        }
        if self.carries == Carries::Arguments && !self.cut {
            self.cut = self.arguments.len() + out.len() > CALL_MAX_BYTES;
            if !self.cut {
                self.arguments.extend_from_slice(&out);
            }
        }
        out
    }

    pub fn held(&self) -> usize {
        self.stream.held() + self.carry.len()
    }
}

/// Bytes at the end that are the beginning of a character.
fn unfinished(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let byte = text[text.len() - back];
        match byte {
            0x80..0xc0 => {}
            0xc0..0xe0 if back < 2 => return back,
            0xe0..0xf0 if back < 3 => return back,
            0xf0.. if back < 4 => return back,
            _ => return 0,
        }
    }
    0
}

/// A channel that has ended.
pub struct Ended {
    pub key: String,
    pub rest: Vec<u8>,
    pub template: Option<Template>,
    /// Text that a signature may follow was changed.
    pub thinking_changed: bool,
}

/// All that are open.
pub struct Channels {
    masker: Masker,
    open: Vec<Channel>,
    names: Vec<(String, MaskedText)>,
    findings: Findings,
    calls: Vec<ToolCall>,
}

impl Channels {
    pub fn new(masker: Masker) -> Self {
        Self { masker, open: Vec::new(), names: Vec::new(), findings: Findings::default(), calls: Vec::new() }
    }

    /// The channel of this key, new if there is none.
    pub fn get(&mut self, key: &str, carries: Carries) -> Result<usize, LlmError> {
        if let Some(known) = self.open.iter().position(|channel| channel.key == key) {
            return Ok(known);
        }
        if self.open.len() >= CHANNELS_MAX {
            return Err(LlmError::TooMuch);
        }
        self.open.push(Channel {
            key: key.to_owned(),
            carries,
            stream: self.masker.stream_of_text(key),
            carry: Vec::new(),
            template: None,
            arguments: Vec::new(),
            cut: false,
            sums: (carries == Carries::Thinking).then(Box::default),
        });
        Ok(self.open.len() - 1)
    }

    pub fn at(&mut self, index: usize) -> &mut Channel {
        &mut self.open[index]
    }

    pub fn find(&mut self, key: &str) -> Option<&mut Channel> {
        self.open.iter_mut().find(|channel| channel.key == key)
    }

    /// Remembers how a tool is called whose arguments will come.
    pub fn name(&mut self, key: String, name: &[u8]) {
        if self.names.len() >= CHANNELS_MAX {
            self.names.remove(0);
        }
        let name = self.masker.text(&String::from_utf8_lossy(name)).0;
        self.names.push((key, name));
    }

    /// Ends the channels that this holds for.
    pub fn end(&mut self, ends: impl Fn(&str) -> bool) -> Result<Vec<Ended>, LlmError> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.open.len() {
            if !ends(&self.open[at].key) {
                at += 1;
                continue;
            }
            let mut channel = self.open.remove(at);
            let rest = channel.finish()?;
            let found = channel.stream.findings();
            let changed = |sums: &(blake3::Hasher, blake3::Hasher)| sums.0.finalize() != sums.1.finalize();
            let thinking_changed = channel.sums.as_deref().is_some_and(changed);
            self.findings.merge(found);
            if channel.carries == Carries::Arguments {
                self.called(&channel);
            }
            let Channel { key, template, .. } = channel;
            ended.push(Ended { key, rest, template, thinking_changed });
        }
        self.names.retain(|(key, _)| !ends(key));
        Ok(ended)
    }

    fn called(&mut self, channel: &Channel) {
        let of = |(key, _): &&(String, MaskedText)| channel.key.starts_with(key.as_str());
        let (at, name) = match self.names.iter().filter(of).max_by_key(|(key, _)| key.len()) {
            Some((key, name)) => (key.trim_end_matches('.').to_owned(), name.clone()),
            None => (channel.key.clone(), MaskedText::default()),
        };
        let arguments = MaskedText::from(&written(channel.arguments.clone()));
        self.call(ToolCall { channel: at, name, arguments, complete: !channel.cut });
    }

    pub fn call(&mut self, call: ToolCall) {
        if self.calls.len() < CALLS_MAX {
            self.calls.push(call);
        }
    }

    pub fn take_calls(&mut self) -> Vec<ToolCall> {
        std::mem::take(&mut self.calls)
    }

    pub fn found(&mut self, findings: &Findings) {
        self.findings.merge(findings);
    }

    pub fn take_findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }

    /// What was found so far, open channels included.
    pub fn findings(&self) -> Findings {
        let mut all = self.findings.clone();
        self.open.iter().for_each(|channel| all.merge(channel.stream.findings()));
        all
    }

    pub fn held(&self) -> usize {
        self.open.iter().map(Channel::held).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_unfinished_until_its_last_byte() {
        for text in ["é", "€", "😀", "a", ""] {
            let bytes = text.as_bytes();
            assert_eq!(unfinished(bytes), 0, "{text}");
            for cut in 1..bytes.len() {
                assert_eq!(unfinished(&[b"ab", &bytes[..cut]].concat()), cut, "{text} {cut}");
            }
        }
        assert_eq!(unfinished(&[0x80, 0x80, 0x80, 0x80]), 0);
    }
}
