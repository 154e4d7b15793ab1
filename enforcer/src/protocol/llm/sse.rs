//! Server-sent events (HTML Living Standard, section 9.2): each with the bytes it came in.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::events::Part;

/// Finds where events end, in any cut.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Where the line begins that is looked at.
    line: usize,
    /// Up to where it was looked at.
    seen: usize,
    /// The byte before the line is a CR, whose LF may follow.
    after_cr: bool,
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
    pub fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.after_cr && self.line < self.buffer.len() {
                self.after_cr = false;
                if self.buffer[self.line] == b'\n' {
                    self.line += 1;
                    self.seen = self.seen.max(self.line);
                }
            }
            let Some(found) = memchr::memchr2(b'\r', b'\n', &self.buffer[self.seen..]) else {
                self.seen = self.buffer.len();
                return None;
            };
            let end = self.seen + found;
            let empty = end == self.line;
            let mut next = end + 1;
            self.after_cr = self.buffer[end] == b'\r';
            if self.after_cr && self.buffer.get(next) == Some(&b'\n') {
                self.after_cr = false;
                next += 1;
            }
            self.line = next;
            self.seen = next;
            if empty {
                // Nobody waits for the LF of a CR that ends an event.
                (self.line, self.seen) = (0, 0);
                return Some(self.buffer.split_to(next).freeze());
            }
        }
    }
}

/// Where the fields of an event stand.
#[derive(Debug, Default)]
pub struct Fields {
    /// The values of `data`.
    pub data: Vec<Range<usize>>,
    /// The whole line of `event`.
    pub event: Option<Range<usize>>,
    /// What ended the first line of `data`.
    pub newline: Range<usize>,
}

/// Reads an event.
pub fn fields(event: &[u8]) -> Fields {
    let mut fields = Fields::default();
    let mut at = 0;
    if event.starts_with(b"\xef\xbb\xbf") {
        at = 3;
    }
    while at < event.len() {
        let end = memchr::memchr2(b'\r', b'\n', &event[at..]).map_or(event.len(), |found| at + found);
        let next = if event[end..].starts_with(b"\r\n") { end + 2 } else { (end + 1).min(event.len()) };
        let line = &event[at..end];
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let mut value = (at + colon + 1).min(end);
        if event.get(value) == Some(&b' ') && value < end {
            value += 1;
        }
        match &line[..colon] {
            b"data" => {
                if fields.data.is_empty() {
                    fields.newline = end..next;
                }
                fields.data.push(value..end);
            }
            b"event" => fields.event = Some(at..next),
            _ => {}
        }
        at = next;
    }
    fields
}

/// An event whose data stood on many lines, with other data: what else it says comes first.
pub fn rejoin(event: &[u8], fields: &Fields, data: Vec<Part>) -> Vec<Part> {
    let (Some(first), Some(last)) = (fields.data.first(), fields.data.last()) else { return Vec::new() };
    let newline = &event[fields.newline.clone()];
    let is_newline = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let line = event[..first.start].iter().rposition(is_newline).map_or(0, |at| at + 1);
    let mut before = event[..line].to_vec();
    for (one, next) in fields.data.iter().zip(&fields.data[1..]) {
        let between = &event[one.end..next.start];
        let begin = if between.starts_with(b"\r\n") { 2 } else { 1 };
        let end = between.iter().rposition(is_newline).map_or(begin, |at| at + 1);
        before.extend_from_slice(between.get(begin..end).unwrap_or_default());
    }
    before.extend_from_slice(&event[line..first.start]);
    let mut parts = vec![Part::Text(before.into())];
    for part in data {
        parts.push(match part {
            Part::Text(text) => {
                let again = [newline, b"data: "].concat();
                let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
                Part::Text(lines.join(&again[..]).into())
            }
            done @ Part::Done(_) => done,
        });
    }
    parts.push(Part::Text(Bytes::copy_from_slice(&event[last.end..])));
    Part::merge(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        let mut at = 0;
        for &cut in cuts.iter().chain([&stream.len()]) {
            splitter.push(&stream[at..cut]);
            at = cut;
            while let Some(event) = splitter.next() {
                events.push(event.to_vec());
            }
        }
        let rest = splitter.take();
        if !rest.is_empty() {
            events.push(rest.to_vec());
        }
        events
    }

    /// The data of each event, as a client reads it.
    fn data(events: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        let of = |event: &Vec<u8>| fields(event).data.into_iter().map(|at| event[at].to_vec()).collect();
        events.iter().map(of).filter(|data: &Vec<_>| !data.is_empty()).collect()
    }

    #[test]
    fn events_end_at_an_empty_line_whatever_ends_lines_and_however_they_are_cut() {
        for newline in ["\n", "\r\n", "\r"] {
            let stream = "\u{feff}event: x\ndata: one\ndata:two\n\n: comment\n\nid: 7\ndata\n\ndata: 3"
                .replace('\n', newline)
                .into_bytes();
            for cut in 0..=stream.len() {
                for other in cut..=stream.len() {
                    let events = split(&stream, &[cut, other]);
                    assert_eq!(events.concat(), stream);
                    let text = |text: &str| text.as_bytes().to_vec();
                    let wanted = [vec![text("one"), text("two")], vec![text("")], vec![text("3")]];
                    assert_eq!(data(&events), wanted, "{newline:?} {cut} {other}");
                }
            }
        }
    }

    #[test]
    fn the_line_that_names_an_event_is_kept_for_others() {
        let event = b"data: {}\r\nevent: ping\r\n\r\n";
        let fields = fields(event);
        assert_eq!(&event[fields.event.unwrap()], b"event: ping\r\n");
        assert_eq!(&event[fields.newline], b"\r\n");
    }
}
