//! Server-sent events, and lines, that every client reads in one way only. Many clients read lines in
//! their own way: with white space cut off, with other ends of lines, or with no regard to names.
//! Where what is read decides, anything that two of them could take for different things is refused.

use bytes::{Bytes, BytesMut};

use super::keep::CallError;

/// How far behind an end of a line the next one is looked at.
const NEAR_BYTES: usize = 64;

/// Finds where events end: at an empty line, with LF or CR LF. A CR alone is found by [`read`].
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Where the line begins that is looked at.
    line: usize,
    /// Up to where it was looked at.
    seen: usize,
}

impl Splitter {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// All that is there, whether an event has ended or not.
    pub fn take(&mut self) -> Bytes {
        (self.line, self.seen) = (0, 0);
        self.buffer.split().freeze()
    }

    /// The next event, with the empty line at its end.
    pub fn next_event(&mut self) -> Option<Bytes> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.buffer[self.seen..]) else {
                self.seen = self.buffer.len();
                return None;
            };
            let end = self.seen + found;
            let empty = matches!(&self.buffer[self.line..end], b"" | b"\r");
            (self.line, self.seen) = (end + 1, end + 1);
            if empty {
                (self.line, self.seen) = (0, 0);
                return Some(self.buffer.split_to(end + 1).freeze());
            }
        }
    }

    /// The next line, with its end.
    pub fn next_line(&mut self) -> Option<Bytes> {
        let Some(found) = memchr::memchr(b'\n', &self.buffer[self.seen..]) else {
            self.seen = self.buffer.len();
            return None;
        };
        let end = self.seen + found + 1;
        self.seen = 0;
        Some(self.buffer.split_to(end).freeze())
    }
}

/// What an event says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its data, without the space around.
    pub data: Vec<u8>,
    /// How many lines its data stood on.
    pub lines: usize,
    /// What it is called.
    pub name: Option<Vec<u8>>,
    /// It begins with a mark of the byte order, which some clients take for a part of the first name.
    pub marked: bool,
}

/// Reads an event of a stream; `first` if nothing stands before it.
pub fn read(event: &[u8], first: bool) -> Result<Event, CallError> {
    let mut read = Event::default();
    let mut rest = event;
    if let Some(after) = rest.strip_prefix(b"\xef\xbb\xbf") {
        if !first {
            return Err(CallError::Ambiguous);
        }
        (read.marked, rest) = (true, after);
    }
    let mut data = Vec::new();
    for line in rest.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\r') {
            return Err(CallError::Ambiguous);
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => data.push(value),
            // Whatever ends lines, in whatever coding, is none of these.
            _ if line.iter().any(|byte| !matches!(byte, b'\t' | 0x20..0x7f)) => {
                return Err(CallError::Ambiguous);
            }
            b"event" if read.name.is_some() => return Err(CallError::Ambiguous),
            b"event" => read.name = Some(value.to_vec()),
            // A comment, and the empty line.
            b"" | b"id" | b"retry" => {}
            _ => return Err(CallError::Unreadable),
        }
    }
    read.lines = data.len();
    let data = data.join(&b'\n');
    read.data = trim(&data).to_vec();
    hides_lines(&read.data)?;
    Ok(read)
}

/// What a line says without the space around and its end.
pub fn line(line: &[u8]) -> Result<&[u8], CallError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.contains(&b'\r') {
        return Err(CallError::Ambiguous);
    }
    hides_lines(line)?;
    Ok(trim(line))
}

/// Whether a text that is no JSON could still be read by a client as some, or as an event with some.
pub fn may_hold_json(text: &[u8]) -> bool {
    let begins = matches!(text.first(), Some(b'{' | b'[' | b'"')) || text.starts_with(b"data:");
    begins || separators(text).next().is_some()
}

fn trim(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
    let begin = text.iter().position(|byte| !space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !space(byte)).map_or(begin, |at| at + 1);
    &text[begin..end]
}

/// What follows each of the characters that end lines for some clients (Python's `splitlines`).
fn separators(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..text.len()).filter_map(|at| match text[at..] {
        [0x0b | 0x0c | 0x1c..=0x1e, ref rest @ ..] => Some(rest),
        [0xc2, 0x85, ref rest @ ..] | [0xe2, 0x80, 0xa8 | 0xa9, ref rest @ ..] => Some(rest),
        _ => None,
    })
}

/// People write such characters; nobody writes an event behind one.
fn hides_lines(text: &[u8]) -> Result<(), CallError> {
    let hides = |rest: &[u8]| {
        let rest = rest[..rest.len().min(NEAR_BYTES)].trim_ascii_start();
        rest.starts_with(b"data:") || rest.starts_with(b"{")
    };
    if separators(text).any(hides) { Err(CallError::Ambiguous) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let (mut events, mut at) = (Vec::new(), 0);
        for &cut in cuts.iter().chain([&stream.len()]) {
            splitter.push(&stream[at..cut]);
            at = cut;
            events.extend(std::iter::from_fn(|| splitter.next_event()).map(|event| event.to_vec()));
        }
        events.push(splitter.take().to_vec());
        events
    }

    #[test]
    fn events_end_at_an_empty_line_however_they_are_cut() {
        let stream = b"event: x\r\ndata: one\n\n: comment\r\n\r\ndata:two\n\ndata: 3";
        for cut in 0..=stream.len() {
            for other in cut..=stream.len() {
                let events = split(stream, &[cut, other]);
                assert_eq!(events.concat(), stream);
                let data: Vec<_> = events.iter().map(|event| read(event, false).unwrap().data).collect();
                assert_eq!(data, [&b"one"[..], b"", b"two", b"3"], "{cut} {other}");
            }
        }
    }

    #[test]
    fn an_event_is_read_if_there_is_one_way_to_read_it() {
        let event = read(b"\xef\xbb\xbfid: 7\nevent:ping\ndata: a\xc2\x85\ndata:b\nretry: 3\n: ok\n\n", true);
        let (data, name) = ("a\u{85}\nb".as_bytes().to_vec(), Some(b"ping".to_vec()));
        assert_eq!(event, Ok(Event { data, lines: 2, name, marked: true }));
        for (text, want) in [
            (&b"\xef\xbb\xbfdata: {}\n\n"[..], CallError::Ambiguous),
            (b"{\"a\":1}\n\n", CallError::Unreadable),
            (b" data: {}\n\n", CallError::Unreadable),
            (b"Data: {}\n\n", CallError::Unreadable),
            (b"data:\r {}\n\n", CallError::Ambiguous),
            (b"data: {}\r\r\n\n", CallError::Ambiguous),
            (b": x\rdata: {}\n\n", CallError::Ambiguous),
            (b"event: a\nevent: b\ndata: {}\n\n", CallError::Ambiguous),
            (b": x\x0bdata: {}\n\n", CallError::Ambiguous),
            (b"id: \xe2\x80\xa8data: {}\n\n", CallError::Ambiguous),
            (b": x\x85data: {}\n\n", CallError::Ambiguous),
            (b"data: \"\xe2\x80\xa9 data: {}\"\n\n", CallError::Ambiguous),
        ] {
            assert_eq!(read(text, false), Err(want), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(line(b"{}\r\n"), Ok(&b"{}"[..]));
        assert_eq!(line(b"x\r{}\n"), Err(CallError::Ambiguous));
        assert_eq!(line(b"\"\xc2\x85{}\"\n"), Err(CallError::Ambiguous));
    }
}
