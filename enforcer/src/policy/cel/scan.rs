//! What has to hold of an expression's text before anything recursive sees it, and where
//! its outermost `&&` stand.

use super::{CelError, MAX_CEL_BYTES, MAX_CEL_DEPTH};

/// What stands between the outermost `&&`. The whole, if `||` or `?` bind it otherwise.
pub fn scan(text: &str) -> Result<Vec<&str>, CelError> {
    if text.trim().is_empty() {
        return Err(CelError::new(0, "the expression is empty"));
    }
    if text.len() > MAX_CEL_BYTES {
        let message = format!("the expression is longer than {MAX_CEL_BYTES} bytes");
        return Err(
            CelError::new(MAX_CEL_BYTES, message).help("write two rules, or a condition beside `cel`")
        );
    }
    let mut scanner = Scanner { text, at: 0 };
    let mut depth = 0_usize;
    let mut questions = 0_usize;
    let mut pieces = Vec::new();
    let mut begun = 0;
    let mut whole = false;
    while let Some((at, byte)) = scanner.next() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => questions += 1,
            _ => {}
        }
        if depth > MAX_CEL_DEPTH || questions > MAX_CEL_DEPTH {
            return Err(too_deep(at));
        }
        let rest = &text.as_bytes()[at..];
        if depth == 0 && rest.starts_with(b"&&") {
            pieces.push(text[begun..at].trim());
            scanner.at = at + 2;
            begun = scanner.at;
        }
        whole |= depth == 0 && (byte == b'?' || rest.starts_with(b"||"));
    }
    pieces.push(text[begun..].trim());
    Ok(if whole { vec![text.trim()] } else { pieces })
}

pub fn too_deep(at: usize) -> CelError {
    CelError::new(at, format!("the expression is nested more than {MAX_CEL_DEPTH} deep"))
        .help("write two rules, or a condition beside `cel`")
}

/// Goes over what is no string and no comment.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<(usize, u8)> {
        let bytes = self.text.as_bytes();
        loop {
            let at = self.at;
            let byte = *bytes.get(at)?;
            match byte {
                b'"' | b'\'' => {
                    let word = bytes[..at].iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
                    let raw = word <= 2 && bytes[at - word..at].iter().any(|b| matches!(b, b'r' | b'R'));
                    self.at = at + string(&bytes[at..], byte, raw);
                }
                b'/' if bytes[at..].starts_with(b"//") => {
                    let line = bytes[at..].iter().position(|byte| *byte == b'\n');
                    self.at = line.map_or(bytes.len(), |line| at + line);
                }
                _ => {
                    self.at = at + 1;
                    return Some((at, byte));
                }
            }
        }
    }
}

/// How long the string is that begins here.
fn string(bytes: &[u8], quote: u8, raw: bool) -> usize {
    let triple = [quote; 3];
    let end: &[u8] = if bytes.starts_with(&triple) { &triple } else { &triple[..1] };
    let mut at = end.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(end) {
            return at + end.len();
        }
        at += if bytes[at] == b'\\' && !raw { 2 } else { 1 };
    }
    bytes.len()
}
