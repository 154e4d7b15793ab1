//! JSON as it stands: where its values are, so that some of them can be exchanged and
//! every other byte goes out as it came.

use std::borrow::Cow;

/// Containers in each other; deeper is refused.
pub const DEPTH_MAX: usize = 128;
/// Values of one event that are noted; more are refused. Numbers in lists do not count.
pub const VALUES_MAX: usize = 64 * 1024;

/// Why a text was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// It is no JSON.
    Invalid,
    /// One of the limits.
    TooMuch,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    /// Its range is what stands between the quotes.
    String,
    /// A number, `true`, `false` or `null`.
    Scalar,
}

/// The place of a value among the others of its text.
pub type Node = usize;

#[derive(Debug, Clone, Copy)]
struct Value {
    kind: Kind,
    start: u32,
    end: u32,
    key: Option<(u32, u32)>,
    parent: u32,
    /// Behind everything inside.
    next: u32,
}

/// A text and its values, in the order in which they stand.
#[derive(Debug)]
pub struct Doc<'a> {
    text: &'a [u8],
    values: Vec<Value>,
}

impl<'a> Doc<'a> {
    /// Reads one value with white space around it.
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        if u32::try_from(text.len()).is_err() {
            return Err(JsonError::TooMuch);
        }
        let mut reader =
            Reader { text, at: 0, values: Vec::with_capacity(32), open: Vec::with_capacity(8), first: false };
        reader.read()?;
        Ok(Self { text, values: reader.values })
    }

    pub const ROOT: Node = 0;

    pub fn kind(&self, node: Node) -> Kind {
        self.values[node].kind
    }

    pub fn is_object(&self, node: Node) -> bool {
        self.kind(node) == Kind::Object
    }

    /// Where it stands, brackets included and quotes not.
    pub fn range(&self, node: Node) -> std::ops::Range<usize> {
        let value = &self.values[node];
        value.start as usize..value.end as usize
    }

    /// Where it stands, quotes included.
    pub fn outer(&self, node: Node) -> std::ops::Range<usize> {
        let range = self.range(node);
        if self.kind(node) == Kind::String { range.start - 1..range.end + 1 } else { range }
    }

    pub fn raw(&self, node: Node) -> &'a [u8] {
        &self.text[self.range(node)]
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn parent(&self, node: Node) -> Option<Node> {
        (node != Self::ROOT).then(|| self.values[node].parent as usize)
    }

    /// What is behind a value and everything inside of it.
    pub fn after(&self, node: Node) -> Node {
        self.values[node].next as usize
    }

    /// The values directly inside; of a list those that are noted.
    pub fn children(&self, node: Node) -> impl Iterator<Item = Node> + '_ {
        let end = self.after(node);
        let mut at = node + 1;
        std::iter::from_fn(move || {
            let child = (at < end).then_some(at)?;
            at = self.after(child);
            Some(child)
        })
    }

    /// The name of a member.
    pub fn key(&self, node: Node) -> Option<Cow<'a, [u8]>> {
        let (start, end) = self.values[node].key?;
        Some(unescape(&self.text[start as usize..end as usize]))
    }

    /// The member of an object.
    pub fn get(&self, node: Node, key: &str) -> Option<Node> {
        if !self.is_object(node) {
            return None;
        }
        self.children(node).find(|&child| self.key(child).as_deref() == Some(key.as_bytes()))
    }

    /// The member of a member, and so on.
    pub fn path(&self, node: Node, keys: &[&str]) -> Option<Node> {
        keys.iter().try_fold(node, |node, key| self.get(node, key))
    }

    /// What a member says as a string, escapes undone.
    pub fn text(&self, node: Node, key: &str) -> Option<Cow<'a, [u8]>> {
        let node = self.get(node, key)?;
        (self.kind(node) == Kind::String).then(|| unescape(self.raw(node)))
    }

    /// A member that is there and not `null`.
    pub fn said(&self, node: Node, key: &str) -> Option<Node> {
        self.get(node, key).filter(|&node| self.raw(node) != b"null" || self.kind(node) == Kind::String)
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    values: Vec<Value>,
    open: Vec<Node>,
    /// A bracket was opened, and nothing was read since.
    first: bool,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), JsonError> {
        self.space();
        self.value(None)?;
        while let Some(&inside) = self.open.last() {
            self.space();
            let object = self.values[inside].kind == Kind::Object;
            let close = if object { b'}' } else { b']' };
            let first = std::mem::take(&mut self.first);
            if self.peek() == Some(close) {
                self.at += 1;
                self.values[inside].end = self.here();
                self.values[inside].next = self.count();
                self.open.pop();
                continue;
            }
            if !first {
                self.expect(b',')?;
                self.space();
            }
            let key = if object { Some(self.member()?) } else { None };
            self.value(key)?;
        }
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonError::Invalid) }
    }

    fn member(&mut self) -> Result<(u32, u32), JsonError> {
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    fn value(&mut self, key: Option<(u32, u32)>) -> Result<(), JsonError> {
        match self.peek().ok_or(JsonError::Invalid)? {
            bracket @ (b'{' | b'[') => {
                let kind = if bracket == b'{' { Kind::Object } else { Kind::Array };
                let start = self.here();
                self.at += 1;
                if self.open.len() >= DEPTH_MAX {
                    return Err(JsonError::TooMuch);
                }
                let node = self.note(kind, start, start, key)?;
                self.open.push(node);
                self.first = true;
            }
            b'"' => {
                let (start, end) = self.string()?;
                self.note(Kind::String, start, end, key)?;
            }
            _ => {
                let start = self.here();
                self.scalar()?;
                if key.is_some() || self.open.is_empty() {
                    self.note(Kind::Scalar, start, self.here(), key)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: Kind, start: u32, end: u32, key: Option<(u32, u32)>) -> Result<Node, JsonError> {
        if self.values.len() >= VALUES_MAX {
            return Err(JsonError::TooMuch);
        }
        let parent = self.open.last().map_or(0, |&open| u32::try_from(open).unwrap_or(u32::MAX));
        let next = self.count() + 1;
        self.values.push(Value { kind, start, end, key, parent, next });
        Ok(self.values.len() - 1)
    }

    /// Reads a string and gives what is between its quotes.
    fn string(&mut self) -> Result<(u32, u32), JsonError> {
        self.expect(b'"')?;
        let start = self.here();
        loop {
            let rest = &self.text[self.at..];
            let found = memchr::memchr2(b'"', b'\\', rest).ok_or(JsonError::Invalid)?;
            if rest[..found].iter().any(|&byte| byte < 0x20) {
                return Err(JsonError::Invalid);
            }
            self.at += found;
            if self.text[self.at] == b'"' {
                let end = self.here();
                self.at += 1;
                return Ok((start, end));
            }
            self.escape()?;
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at + 1..];
        let length = match rest.first().ok_or(JsonError::Invalid)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' if hex4(&rest[1..]).is_some() => 5,
            _ => return Err(JsonError::Invalid),
        };
        self.at += 1 + length;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let length = self.text[self.at..].iter().take_while(inside).count();
        let word = &self.text[self.at..self.at + length];
        let number = word.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-')
            && word
                .iter()
                .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
        if !number && !matches!(word, b"true" | b"false" | b"null") {
            return Err(JsonError::Invalid);
        }
        self.at += length;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(JsonError::Invalid);
        }
        self.at += 1;
        Ok(())
    }

    /// The length of the text was checked.
    fn here(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.values.len()).unwrap_or(u32::MAX)
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

/// What a string says. Half a pair of surrogates, which UTF-8 cannot say, becomes the three
/// bytes that would say it: `escape` writes such as they came.
pub fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', raw) else { return Cow::Borrowed(raw) };
    let mut out = Vec::with_capacity(raw.len());
    out.extend_from_slice(&raw[..first]);
    let mut at = first;
    while at < raw.len() {
        if raw[at] != b'\\' {
            let next = memchr::memchr(b'\\', &raw[at..]).map_or(raw.len(), |found| at + found);
            out.extend_from_slice(&raw[at..next]);
            at = next;
            continue;
        }
        let letter = raw.get(at + 1).copied().unwrap_or(b'\\');
        at += 2;
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = raw.get(at..).and_then(hex4).unwrap_or(0xfffd);
                at += 4;
                if (0xd800..0xdc00).contains(&code)
                    && raw.get(at..at + 2) == Some(b"\\u")
                    && let Some(low @ 0xdc00..0xe000) = raw.get(at + 2..).and_then(hex4)
                {
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    at += 6;
                }
                push_code(&mut out, code);
            }
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// UTF-8, also of what is no character.
fn push_code(out: &mut Vec<u8>, code: u32) {
    if let Some(letter) = char::from_u32(code) {
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let low = |bits: u32| u8::try_from(bits & 0xff).unwrap_or(0);
        out.extend([0xe0 | low(code >> 12), 0x80 | low(code >> 6 & 0x3f), 0x80 | low(code & 0x3f)]);
    }
}

/// Writes bytes as what stands between the quotes of a string.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 => out.extend(format!("\\u{byte:04x}").into_bytes()),
            0xed if text.get(at + 1).is_some_and(|next| *next >= 0xa0) && text.len() > at + 2 => {
                let [a, b] = [text[at + 1], text[at + 2]].map(|byte| u32::from(byte & 0x3f));
                out.extend(format!("\\u{:04x}", 0xd000 | a << 6 | b).into_bytes());
                at += 2;
            }
            _ => out.push(byte),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_stand() {
        let text = br#" {"a":[1,{"b":"x\"y"},"z"],"n":-1.5e3,"\u0063":null} "#;
        let doc = Doc::parse(text).unwrap();
        assert_eq!(doc.path(Doc::ROOT, &["n"]).map(|n| doc.raw(n)), Some(&b"-1.5e3"[..]));
        let list = doc.get(Doc::ROOT, "a").unwrap();
        let inside: Vec<_> = doc.children(list).collect();
        assert_eq!(doc.text(inside[0], "b").as_deref(), Some(&b"x\"y"[..]));
        assert_eq!((doc.raw(inside[1]), doc.parent(inside[1])), (&b"z"[..], Some(list)));
        assert_eq!(&text[doc.outer(inside[1])], b"\"z\"");
        assert!(doc.get(Doc::ROOT, "c").is_some() && doc.said(Doc::ROOT, "c").is_none());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "\"a",
            "\"\\x\"",
            "tru",
            "1 2",
            "[1 2]",
            "\"\n\"",
            "{\"a\":1,}",
            "[,1]",
            "\"\\u12\"",
            "{a:1}",
            "]",
        ] {
            assert_eq!(Doc::parse(text.as_bytes()).unwrap_err(), JsonError::Invalid, "{text}");
        }
        for text in ["{}", "[]", "[[],{}]", "1", "\"\"", "[1,2]", "{\"a\":{}}", "true"] {
            assert!(Doc::parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let deep = |n: usize| ["[".repeat(n), "]".repeat(n)].concat();
        assert!(Doc::parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(Doc::parse(deep(DEPTH_MAX + 1).as_bytes()).unwrap_err(), JsonError::TooMuch);
        let wide = |n: usize| format!("[{}]", vec!["\"\""; n - 1].join(","));
        assert!(Doc::parse(wide(VALUES_MAX).as_bytes()).is_ok());
        assert_eq!(Doc::parse(wide(VALUES_MAX + 1).as_bytes()).unwrap_err(), JsonError::TooMuch);
        assert!(Doc::parse(format!("[{}1]", "1,".repeat(VALUES_MAX)).as_bytes()).is_ok());
    }

    #[test]
    fn escapes_come_back_as_the_same_text() {
        for raw in [r#"a\n\"\\\t\r\u0001"#, "é😀", r"half \ud83d of a pair", r"\udead", "plain"] {
            let text = unescape(raw.as_bytes());
            let mut out = Vec::new();
            escape(&text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), raw);
        }
        assert_eq!(unescape(br"\u00e9\ud83d\ude00\/\b\f").as_ref(), "é😀/\u{8}\u{c}".as_bytes());
    }
}
