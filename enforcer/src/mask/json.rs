//! Follows JSON byte by byte, so that a value can be named by its path wherever a stream is cut.
//!
//! ```text
//!   Value --{--> Key? --"--> InKey --"--> Colon --:--> Value
//!     |  `--[--> Value       (, back to Key or Value; } and ] to After)
//!     +--"--> InString --"--> After
//!     `--1tfn--> InScalar --any other--> After
//! ```
//!
//! Behind a whole value another one may begin, as in NDJSON. It is no validator: it
//! refuses what it cannot follow, and that is all that its users need.

use std::fmt;

/// Arrays and objects inside one another that are followed.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of a key, as written, that are remembered; a longer one is equal to no name.
const KEY_MAX_BYTES: usize = 1024;
/// Bytes of one name in a path of a policy: escaped as `\u0061` it still fits in the above.
pub const JSON_NAME_MAX_BYTES: usize = 128;
/// Steps of a path in a policy.
pub const JSON_STEPS_MAX: usize = 32;

/// The bytes are no JSON that can be followed, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no JSON, or it is nested more than {JSON_DEPTH_MAX} deep")]
pub struct NotJson;

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Structure, white space, or a part of a key.
    Between,
    /// The opening quote of a string that is a value.
    StringBegins,
    /// The first byte of a number, or of `true`, `false` or `null`.
    ScalarBegins,
    /// A part of a value.
    Inside,
    /// The closing quote of a string that is a value.
    StringEnds,
    /// Structure or white space, the first behind a number or a word.
    ScalarEnds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    FirstKey,
    Key,
    InKey {
        escaped: bool,
    },
    Colon,
    InString {
        escaped: bool,
    },
    InScalar,
    After,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Array(u64),
    /// The key as written, without quotes; `None` if it is too long.
    Object(Option<Vec<u8>>),
}

/// Where in JSON a stream stands.
#[derive(Clone, Debug, Default)]
pub struct Walker {
    state: State,
    stack: Vec<Frame>,
    /// Bytes of a byte order mark that were seen.
    mark: usize,
    begun: bool,
}

impl Walker {
    /// Memory that is kept, in bytes.
    pub(super) fn kept(&self) -> usize {
        let keys = self.stack.iter().map(|frame| match frame {
            Frame::Object(Some(key)) => key.capacity(),
            Frame::Object(None) | Frame::Array(_) => 0,
        });
        keys.sum::<usize>() + self.stack.capacity() * size_of::<Frame>()
    }

    /// Takes one byte.
    pub fn step(&mut self, byte: u8) -> Result<Event, NotJson> {
        const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        if !self.begun && MARK.get(self.mark) == Some(&byte) {
            self.mark += 1;
            return Ok(Event::Between);
        }
        self.begun = true;
        match self.state {
            State::InString { escaped } => return Ok(self.in_string(byte, escaped)),
            State::InKey { escaped } => self.in_key(byte, escaped),
            State::InScalar if scalar(byte) => return Ok(Event::Inside),
            State::InScalar => {
                self.state = State::After;
                self.step(byte)?;
                return Ok(Event::ScalarEnds);
            }
            _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
            // RFC 7464 puts this before each text of a sequence.
            State::Value | State::After if byte == 0x1e && self.stack.is_empty() => {}
            State::Value => return self.value(byte),
            State::After if self.stack.is_empty() => return self.value(byte),
            State::After => self.after(byte)?,
            State::FirstKey if byte == b'}' => self.close(),
            State::FirstKey | State::Key if byte == b'"' => {
                if let Some(Frame::Object(key)) = self.stack.last_mut() {
                    *key = Some(Vec::new());
                }
                self.state = State::InKey { escaped: false };
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::FirstKey | State::Key | State::Colon => return Err(NotJson),
        }
        Ok(Event::Between)
    }

    fn in_string(&mut self, byte: u8, escaped: bool) -> Event {
        if byte == b'"' && !escaped {
            self.state = State::After;
            return Event::StringEnds;
        }
        self.state = State::InString { escaped: byte == b'\\' && !escaped };
        Event::Inside
    }

    fn in_key(&mut self, byte: u8, escaped: bool) {
        if byte == b'"' && !escaped {
            self.state = State::Colon;
            return;
        }
        self.state = State::InKey { escaped: byte == b'\\' && !escaped };
        if let Some(Frame::Object(slot)) = self.stack.last_mut() {
            match slot {
                Some(key) if key.len() < KEY_MAX_BYTES => key.push(byte),
                _ => *slot = None,
            }
        }
    }

    fn value(&mut self, byte: u8) -> Result<Event, NotJson> {
        match byte {
            b'{' | b'[' if self.stack.len() >= JSON_DEPTH_MAX => return Err(NotJson),
            b'{' => {
                self.stack.push(Frame::Object(None));
                self.state = State::FirstKey;
            }
            b'[' => {
                self.stack.push(Frame::Array(0));
                self.state = State::Value;
            }
            b'"' => {
                self.state = State::InString { escaped: false };
                return Ok(Event::StringBegins);
            }
            // An array without elements.
            b']' if self.stack.last() == Some(&Frame::Array(0)) => self.close(),
            byte if scalar(byte) => {
                self.state = State::InScalar;
                return Ok(Event::ScalarBegins);
            }
            _ => return Err(NotJson),
        }
        Ok(Event::Between)
    }

    fn after(&mut self, byte: u8) -> Result<(), NotJson> {
        match (self.stack.last_mut(), byte) {
            (Some(Frame::Array(index)), b',') => {
                *index += 1;
                self.state = State::Value;
            }
            (Some(Frame::Object(_)), b',') => self.state = State::Key,
            (Some(Frame::Array(_)), b']') | (Some(Frame::Object(_)), b'}') => self.close(),
            _ => return Err(NotJson),
        }
        Ok(())
    }

    fn close(&mut self) {
        self.stack.pop();
        self.state = State::After;
    }

    /// Whether the bytes so far can be the whole: nothing is open.
    pub fn is_whole(&self) -> bool {
        self.stack.is_empty() && matches!(self.state, State::Value | State::InScalar | State::After)
    }

    /// The path of what the last byte belongs to: `$.messages[0].content`.
    pub fn path(&self) -> String {
        let mut path = "$".to_owned();
        for frame in &self.stack {
            match frame {
                Frame::Array(index) => path.push_str(&format!("[{index}]")),
                Frame::Object(None) => path.push_str(".?"),
                Frame::Object(Some(key)) => push_key(&mut path, key),
            }
        }
        path
    }

    /// The same in steps. A key that is not yet whole is none.
    pub(super) fn steps(&self) -> Vec<Step> {
        let step = |frame: &Frame| match frame {
            Frame::Array(index) => Step::Index(*index),
            Frame::Object(key) => Step::Key(key.as_deref().map(Into::into)),
        };
        let mut steps: Vec<Step> = self.stack.iter().map(step).collect();
        if let (State::InKey { .. }, Some(last)) = (self.state, steps.last_mut()) {
            *last = Step::Key(None);
        }
        steps
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Index(u64),
    /// The key as written; none if it is not known.
    Key(Option<Box<[u8]>>),
}

/// Writes a key, as it is written in JSON, as one more step of a path.
pub(super) fn push_key(path: &mut String, key: &[u8]) {
    match name(key) {
        Some(name) if is_plain(&name) => {
            path.push('.');
            path.push_str(&name);
        }
        _ => {
            path.push_str("[\"");
            path.push_str(&String::from_utf8_lossy(key));
            path.push_str("\"]");
        }
    }
}

fn scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// What a key means; `None` if that is no text.
fn name(key: &[u8]) -> Option<String> {
    let quoted = [b"\"", key, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

fn is_plain(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.bytes().all(fine)
}

/// A path as a policy names it: `$.messages[*].content`, `$..password`, `$["odd name"]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonPath {
    steps: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Wanted {
    Name(String),
    Index(u64),
    /// `[*]` and `.*`: any one step.
    Any,
    /// `..`: any number of steps, none too.
    Deep,
}

impl JsonPath {
    /// Reads a path; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("`{text}` is no path: {why}; write it like $.messages[*].content or $..password")
        };
        let mut rest = text.strip_prefix('$').ok_or_else(|| wrong("it begins with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Wanted::Deep);
                // What follows is a name, or the bracket of one.
                rest = after;
                if rest.is_empty() {
                    return Err(wrong("nothing follows `..`"));
                }
                if rest.starts_with('[') {
                    continue;
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = after;
            }
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside).map_err(|why| wrong(&why))?,
                None => {
                    let end = rest.find(['.', '[']).unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    let step = if name == "*" { Wanted::Any } else { Wanted::Name(name.to_owned()) };
                    (step, after)
                }
            };
            if let Wanted::Name(name) = &step
                && (name.is_empty() || name.len() > JSON_NAME_MAX_BYTES)
            {
                return Err(wrong(&format!("a name has between 1 and {JSON_NAME_MAX_BYTES} bytes")));
            }
            steps.push(step);
            rest = after;
        }
        if steps.len() > JSON_STEPS_MAX {
            return Err(wrong(&format!("it has more than {JSON_STEPS_MAX} steps")));
        }
        if steps.is_empty() {
            return Err(wrong("it names the whole text"));
        }
        Ok(Self { steps })
    }

    /// The last name in it.
    pub fn last_name(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            Wanted::Name(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether the path names what the walker stands in, or an array or object around it.
    pub fn covers(&self, walker: &Walker) -> bool {
        let names: Vec<_> = walker
            .stack
            .iter()
            .map(|frame| match frame {
                Frame::Array(index) => Ok(*index),
                Frame::Object(key) => Err(key.as_deref().and_then(name)),
            })
            .collect();
        begins(&self.steps, &names)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        let mut deep = false;
        for step in &self.steps {
            match step {
                Wanted::Deep => f.write_str("..")?,
                Wanted::Any => f.write_str("[*]")?,
                Wanted::Index(index) => write!(f, "[{index}]")?,
                Wanted::Name(name) if !is_plain(name) => write!(f, "[\"{name}\"]")?,
                Wanted::Name(name) if deep => f.write_str(name)?,
                Wanted::Name(name) => write!(f, ".{name}")?,
            }
            deep = *step == Wanted::Deep;
        }
        Ok(())
    }
}

fn bracket(inside: &str) -> Result<(Wanted, &str), String> {
    let open = || "a `[` is not closed".to_owned();
    for quote in ['"', '\''] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, after) = quoted.split_once(&format!("{quote}]")).ok_or_else(open)?;
            return Ok((Wanted::Name(name.to_owned()), after));
        }
    }
    let (index, after) = inside.split_once(']').ok_or_else(open)?;
    if index == "*" {
        return Ok((Wanted::Any, after));
    }
    let index = index.parse().map_err(|_| format!("`[{index}]` is neither a number, a `*` nor quoted"))?;
    Ok((Wanted::Index(index), after))
}

/// Whether the steps name the beginning of a path. Reached sets instead of recursion: many `..`
/// cost no more than steps times depth.
fn begins(steps: &[Wanted], path: &[Result<u64, Option<String>>]) -> bool {
    let mut reached = vec![false; steps.len() + 1];
    reached[0] = true;
    let skip = |reached: &mut Vec<bool>| {
        for (at, step) in steps.iter().enumerate() {
            if reached[at] && *step == Wanted::Deep {
                reached[at + 1] = true;
            }
        }
    };
    skip(&mut reached);
    for part in path {
        let mut next = vec![false; steps.len() + 1];
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match (step, part) {
                (Wanted::Deep, _) => next[at] = true,
                (Wanted::Any, _) => next[at + 1] = true,
                (Wanted::Index(wanted), Ok(index)) if wanted == index => next[at + 1] = true,
                (Wanted::Name(wanted), Err(Some(name))) if wanted == name => next[at + 1] = true,
                _ => {}
            }
        }
        reached = next;
        skip(&mut reached);
        if reached[steps.len()] {
            return true;
        }
    }
    false
}

/// The paths of bytes of one text, for offsets in ascending order; `None` where it is no JSON.
pub fn paths_of(text: &[u8], offsets: &[usize]) -> Vec<Option<String>> {
    let mut walker = Walker::default();
    let mut paths = Vec::with_capacity(offsets.len());
    let mut wanted = offsets.iter().peekable();
    for (at, &byte) in text.iter().enumerate() {
        if walker.step(byte).is_err() {
            break;
        }
        while wanted.next_if(|offset| **offset <= at).is_some() {
            paths.push(Some(walker.path()));
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    paths.resize(offsets.len(), None);
    paths
}

/// Whether a text is one or more whole JSON values of which at least one is an array or object.
pub fn is_json(text: &[u8]) -> bool {
    let mut walker = Walker::default();
    text.iter().any(|b| matches!(b, b'{' | b'['))
        && text.iter().all(|&byte| walker.step(byte).is_ok())
        && walker.is_whole()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, mark: &str) -> Option<String> {
        paths_of(text.as_bytes(), &[text.find(mark).unwrap()]).remove(0)
    }

    #[test]
    fn a_byte_has_a_path() {
        let text = r#" {"a": [1, {"b c": "x\"y", "d": MARK}], "e": "END"} {"f": true}"#;
        assert_eq!(at(text, "x\\").as_deref(), Some("$.a[1][\"b c\"]"));
        assert_eq!(at(text, "END").as_deref(), Some("$.e"));
        assert_eq!(at(text, "MARK").as_deref(), Some("$.a[1].d"));
        assert_eq!(at(text, "true").as_deref(), Some("$.f"), "one text after another");
        assert_eq!(at("{\"a\": 'b'} c", "c"), None);
        assert!(is_json(b"\xef\xbb\xbf{\"a\":[[],{},\"\"]}") && !is_json(b"{") && !is_json(b"plain"));
        for wrong in ["{1:2}", "[1 2]", "{\"a\" 1}", "}", "[}", "{,}"] {
            assert!(!is_json(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(nested(JSON_DEPTH_MAX).as_bytes()));
        assert!(!is_json(nested(JSON_DEPTH_MAX + 1).as_bytes()));
    }

    fn covered(path: &str, text: &str) -> String {
        let path = JsonPath::parse(path).unwrap();
        let mut walker = Walker::default();
        let mut covered = String::new();
        for byte in text.bytes() {
            let event = walker.step(byte).unwrap();
            if matches!(event, Event::Inside | Event::ScalarBegins) && path.covers(&walker) {
                covered.push(char::from(byte));
            }
        }
        covered
    }

    #[test]
    fn paths_name_values_and_all_that_is_in_them() {
        let text = r#"{"a": [{"b": "1", "c": 2}, {"b": "3"}], "pass\u0077ord": "4", "d": {"password": [5]}}"#;
        for (path, wanted) in [
            ("$.a[*].b", "13"),
            ("$.a[1].b", "3"),
            ("$.a", "123"),
            ("$.password", "4"),
            ("$..password", "45"),
            ("$[\"d\"]", "5"),
            ("$..[0]", "125"),
            ("$.*.c", ""),
            ("$.*.*.c", "2"),
        ] {
            assert_eq!(covered(path, text), wanted, "{path}");
        }
    }

    #[test]
    fn a_wrong_path_says_why() {
        for (path, why) in [
            ("a.b", "begins with `$`"),
            ("$", "the whole"),
            ("$.a[", "not closed"),
            ("$.a[x]", "quoted"),
            ("$..", "nothing follows"),
        ] {
            let error = JsonPath::parse(path).unwrap_err();
            assert!(error.contains(why) && error.contains("$..password"), "{path}: {error}");
        }
        let long = |length| format!("$.{}", "x".repeat(length));
        assert!(JsonPath::parse(&long(JSON_NAME_MAX_BYTES)).is_ok());
        assert!(JsonPath::parse(&long(JSON_NAME_MAX_BYTES + 1)).is_err());
        assert!(JsonPath::parse(&format!("${}", ".x".repeat(JSON_STEPS_MAX))).is_ok());
        assert!(JsonPath::parse(&format!("${}", ".x".repeat(JSON_STEPS_MAX + 1))).is_err());
    }
}
