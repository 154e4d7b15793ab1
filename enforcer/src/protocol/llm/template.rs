//! The form of an event of our own: the last one of the same channel, with nothing in it
//! but what says where its text belongs.

use bytes::Bytes;

use super::events::Part;
use super::json::{Doc, Kind, Node};
use super::shape;
use crate::mask::Masked;

/// Members that an event of ours must not repeat.
const ENDS: &[&str] = &["finishReason", "finishMessage", "finish_reason"];

/// An event around a text.
#[derive(Debug)]
pub struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
    /// What its framing needs, of the event that it was made of.
    pub frame: Vec<u8>,
}

impl Template {
    /// Of the event in which a piece stands, beside others.
    pub fn of(doc: &Doc<'_>, node: Node, pieces: &[Node], frame: Vec<u8>) -> Self {
        let mut path = vec![node];
        let mut at = node;
        while let Some(parent) = doc.parent(at) {
            path.push(parent);
            at = parent;
        }
        path.reverse();
        let mut writer = Writer { doc, path: &path, pieces, out: Vec::new(), split: 0 };
        writer.on_path(0, false);
        let after = writer.out.split_off(writer.split);
        Self { before: writer.out, after, frame }
    }

    /// The event with this between the quotes.
    pub fn around(&self, escaped: Masked) -> Vec<Part> {
        let text = |text: &[u8]| Part::Text(Bytes::copy_from_slice(text));
        vec![text(&self.before), Part::Done(escaped), text(&self.after)]
    }
}

struct Writer<'a, 'd> {
    doc: &'a Doc<'d>,
    /// From the root to the piece.
    path: &'a [Node],
    pieces: &'a [Node],
    out: Vec<u8>,
    /// Where the text goes.
    split: usize,
}

impl Writer<'_, '_> {
    fn on_path(&mut self, depth: usize, in_delta: bool) {
        let node = self.path[depth];
        let Some(&next) = self.path.get(depth + 1) else {
            self.out.push(b'"');
            self.split = self.out.len();
            self.out.push(b'"');
            return;
        };
        let object = self.doc.is_object(node);
        self.out.push(if object { b'{' } else { b'[' });
        let mut first = true;
        for child in self.doc.children(node) {
            let on_path = child == next;
            let name = self.doc.key(child).unwrap_or_default();
            let name = String::from_utf8_lossy(&name);
            if !on_path && (!object || !self.keeps(child, &name, in_delta)) {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            if object {
                self.out.push(b'"');
                super::json::escape(name.as_bytes(), &mut self.out);
                self.out.extend(b"\":");
            }
            if on_path {
                self.on_path(depth + 1, in_delta || name == "delta");
            } else {
                self.beside(child);
            }
        }
        self.out.push(if object { b'}' } else { b']' });
    }

    /// Clients add up what stands in a delta, names and ids too.
    fn keeps(&self, node: Node, name: &str, in_delta: bool) -> bool {
        if in_delta {
            return matches!(name, "index" | "type");
        }
        let ends = ENDS.contains(&name) && self.doc.raw(node) != b"null";
        !ends && !self.doc.is_object(node) && !shape::is_opaque(name.as_bytes())
    }

    fn beside(&mut self, node: Node) {
        match self.doc.kind(node) {
            Kind::Array => self.out.extend(b"[]"),
            Kind::String if self.pieces.contains(&node) => self.out.extend(b"\"\""),
            Kind::String => {
                self.out.push(b'"');
                self.out.extend_from_slice(self.doc.raw(node));
                self.out.push(b'"');
            }
            Kind::Object | Kind::Scalar => self.out.extend_from_slice(self.doc.raw(node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, path: &[&str]) -> String {
        let doc = Doc::parse(text.as_bytes()).unwrap();
        let node = path.iter().fold(Doc::ROOT, |node, key| match key.parse::<usize>() {
            Ok(position) => doc.children(node).nth(position).unwrap(),
            Err(_) => doc.get(node, key).unwrap(),
        });
        let pieces: Vec<_> = shape::read(&doc).pieces.iter().map(|piece| piece.node).collect();
        let parts = Template::of(&doc, node, &pieces, Vec::new()).around(Masked::empty().written(|_| "X"));
        let bytes = parts.iter().flat_map(|part| match part {
            Part::Text(text) => text.to_vec(),
            Part::Done(masked) => masked.as_bytes().to_vec(),
        });
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn only_what_says_where_a_text_belongs_is_kept() {
        let chat = r#"{"id":"c","created":1,"choices":[{"index":3,"delta":{"role":"assistant","content":"a",
            "tool_calls":[{"index":1,"id":"t","type":"function","function":{"name":"f","arguments":"b"}}]},
            "finish_reason":null,"logprobs":null}],"usage":{"total":1}}"#;
        assert_eq!(
            of(chat, &["choices", "0", "delta", "content"]),
            r#"{"id":"c","created":1,"choices":[{"index":3,"delta":{"content":"X"},"finish_reason":null,"logprobs":null}]}"#
        );
        assert_eq!(
            of(chat, &["choices", "0", "delta", "tool_calls", "0", "function", "arguments"]),
            r#"{"id":"c","created":1,"choices":[{"index":3,"delta":{"tool_calls":[{"index":1,"type":"function","function":{"arguments":"X"}}]},"finish_reason":null,"logprobs":null}]}"#
        );
        let claude = r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"a"}}"#;
        assert_eq!(of(claude, &["delta", "text"]), claude.replace("\"a\"", "\"X\""));
        let gemini = r#"{"candidates":[{"content":{"parts":[{"text":"a","thought":true,"thoughtSignature":"s"},
            {"text":"b"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"n":1},"responseId":"r"}"#;
        assert_eq!(
            of(gemini, &["candidates", "0", "content", "parts", "0", "text"]),
            r#"{"candidates":[{"content":{"parts":[{"text":"X","thought":true}],"role":"model"},"index":0}],"responseId":"r"}"#
        );
        let ollama =
            r#"{"model":"m","message":{"role":"assistant","content":"a","thinking":"b"},"done":false}"#;
        assert_eq!(
            of(ollama, &["message", "thinking"]),
            r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"X"},"done":false}"#
        );
    }
}
