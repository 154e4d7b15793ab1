//! Where the parts of a multipart body begin and end (RFC 2046, 5.1), for all who may read it.
//!
//! Readers differ: in which of two boundaries they go by, in whether a line may end without a
//! carriage return, in what may follow a boundary. Some clients end no line with one (Google's for
//! Python among them): who does not read that finds no part at all. **Invariant**: a body is taken for parts only
//! where all of them cut it at the same bytes. What one may cut elsewhere is an error, since an
//! archive could begin where nobody looked.

use http::{HeaderMap, header};
use memchr::memmem;

use crate::protocol::archive::ArchiveError;

/// Bytes of a part's head, and of what stands before the first part.
pub(super) const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a boundary. RFC 2046 allows 70; clients send more.
const BOUNDARY_MAX_BYTES: usize = 256;
/// Bytes behind a boundary in its line: of white space, or the two dashes of the last one.
const PADDING_MAX_BYTES: usize = 16;

/// What the fields of a message say of the parts in its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parts {
    /// There are none.
    None,
    /// They have this boundary.
    By(Boundary),
    /// There are some, and who reads them may take one of several boundaries, or none.
    Unclear,
}

/// What stands in a line of its own before each part, and behind the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boundary {
    /// The end of the line before, dashes and the boundary.
    line: Vec<u8>,
}

/// How the lines around parts end, in all of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// As RFC 2046 has it.
    Crlf,
    /// Without a carriage return.
    Lf,
}

impl Lines {
    /// By the first line of a body; none if it is not there yet.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', bytes)?;
        Some(if bytes[..end].ends_with(b"\r") { Self::Crlf } else { Self::Lf })
    }

    fn end(self) -> &'static [u8] {
        match self {
            Self::Crlf => b"\r\n",
            Self::Lf => b"\n",
        }
    }
}

/// A boundary in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the content before it ends.
    pub content: usize,
    /// Where it ends itself.
    pub end: usize,
}

impl Parts {
    /// By the one boundary that is written plainly in the one `Content-Type`.
    pub fn of(headers: &HeaderMap) -> Self {
        let kinds = || headers.get_all(header::CONTENT_TYPE).iter().map(http::HeaderValue::as_bytes);
        let Some(first) = kinds().next() else { return Self::None };
        // Anywhere in them: some readers go by the last of several types in one field.
        if !kinds().any(|kind| find_ignoring_case(kind, b"multipart/").is_some()) {
            return Self::None;
        }
        if kinds().count() > 1 || !begins_ignoring_case(first.trim_ascii_start(), b"multipart/") {
            return Self::Unclear;
        }
        plain_boundary(first)
            .map_or(Self::Unclear, |boundary| Self::By(Boundary { line: [b"\n--", boundary].concat() }))
    }
}

impl Boundary {
    /// The next one from there on; none if it is not there yet, or if it is not known yet what
    /// follows it. `last` if no more bytes come.
    pub fn find(
        &self,
        bytes: &[u8],
        from: usize,
        lines: Lines,
        last: bool,
    ) -> Result<Option<Found>, ArchiveError> {
        let Some(at) = memmem::find(&bytes[from..], &self.line).map(|at| from + at) else { return Ok(None) };
        let end = at + self.line.len();
        let content = match (lines, bytes[..at].ends_with(b"\r")) {
            (Lines::Crlf, true) => at - 1,
            (Lines::Lf, false) => at,
            _ => return Err(ArchiveError::Ambiguous),
        };
        Ok(ends_line(&bytes[end..], lines, last)?.then_some(Found { content, end }))
    }

    /// Whether what begins a content is this boundary, which some readers take for an empty part;
    /// none if that is not known yet.
    pub fn begins(&self, content: &[u8], last: bool) -> Option<bool> {
        let dashed = &self.line[1..];
        let common = content.len().min(dashed.len());
        match content[..common] == dashed[..common] {
            false => Some(false),
            true if common == dashed.len() => Some(true),
            true => last.then_some(false),
        }
    }

    /// How many bytes at the end can be the beginning of it, with the end of the line before.
    pub fn begun(&self, bytes: &[u8]) -> usize {
        let tail = &bytes[bytes.len().saturating_sub(self.most())..];
        let common = |one: &[u8], two: &[u8]| one.iter().zip(two).all(|(one, two)| one == two);
        memchr::memchr2_iter(b'\r', b'\n', tail)
            .map(|at| &tail[at..])
            .find(|rest| common(rest.strip_prefix(b"\r").unwrap_or(rest), &self.line))
            .map_or(0, <[u8]>::len)
    }

    /// Bytes that it takes with all that may stand before and behind it.
    pub fn most(&self) -> usize {
        self.line.len() + PADDING_MAX_BYTES + 4
    }
}

/// Whether the line of a boundary ends plainly behind it; false if that is not known yet.
fn ends_line(rest: &[u8], lines: Lines, last: bool) -> Result<bool, ArchiveError> {
    if rest.starts_with(b"--") {
        return Ok(true);
    }
    let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let (behind, end) = (&rest[padding..], lines.end());
    match behind {
        _ if padding > PADDING_MAX_BYTES => Err(ArchiveError::Ambiguous),
        _ if behind.starts_with(end) => Ok(true),
        // A body that ends with its boundary has no further part.
        [] => Ok(last),
        _ if !last && (end.starts_with(behind) || (padding == 0 && behind == b"-")) => Ok(false),
        _ => Err(ArchiveError::Ambiguous),
    }
}

/// Where the head of a part ends that these bytes begin with; none if that is not there yet.
pub(super) fn head(bytes: &[u8], lines: Lines, last: bool) -> Result<Option<usize>, ArchiveError> {
    let blank = [lines.end(), lines.end()].concat();
    let end = memmem::find(bytes, &blank).map(|at| at + blank.len());
    let head = &bytes[..end.unwrap_or(bytes.len())];
    // A line that ends otherwise may be the last one of a head to some, and to others what is no
    // field begins the content.
    let other = memchr::memchr2_iter(b'\r', b'\n', head).any(|at| match lines {
        Lines::Crlf => head[at] == b'\n' && !head[..at].ends_with(b"\r"),
        Lines::Lf => head[at] == b'\r',
    });
    let control = |byte: &u8| byte.is_ascii_control() && !b"\t\r\n".contains(byte);
    let over = head.strip_prefix(b"--").is_some_and(|rest| rest.trim_ascii().is_empty());
    let unclear = other || head.iter().any(control) || find_ignoring_case(head, b"multipart/").is_some();
    if unclear && !over {
        return Err(ArchiveError::Ambiguous);
    }
    match end {
        Some(end) => Ok(Some(end)),
        None if last => Ok((!bytes.is_empty()).then_some(bytes.len())),
        None if bytes.len() > HEAD_MAX_BYTES => {
            Err(ArchiveError::Limit("16 KiB before a part of a multipart body"))
        }
        None => Ok(None),
    }
}

/// The boundary, if no reader takes another one.
fn plain_boundary(kind: &[u8]) -> Option<&[u8]> {
    let mut named = (0..kind.len()).filter_map(|at| Some((at, named_boundary(&kind[at..])?)));
    // Another one, if only in the words of a third.
    let (Some((at, value)), None) = (named.next(), named.next()) else { return None };
    let before = kind[..at].trim_ascii_end();
    let quotes = before.iter().filter(|byte| **byte == b'"').count();
    if before.last() != Some(&b';') || quotes % 2 == 1 || before.contains(&b'\\') {
        return None;
    }
    let value = value?;
    let (boundary, rest) = match value.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr::memchr(b'"', quoted)?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => {
            let (boundary, rest) = value.split_at(memchr::memchr(b';', value).unwrap_or(value.len()));
            (boundary.trim_ascii_end(), rest)
        }
    };
    let ends = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    // Those of RFC 2046 that mean nothing else in a field.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"'+_-./:=?".contains(byte);
    let known = !boundary.is_empty() && boundary.len() <= BOUNDARY_MAX_BYTES;
    (known && ends && boundary.iter().all(plain)).then_some(boundary)
}

/// What stands behind a name that is taken for `boundary`: it is `None` if that is written as not
/// all readers expect it (white space before the sign, RFC 2231).
fn named_boundary(bytes: &[u8]) -> Option<Option<&[u8]>> {
    const NAME: &[u8] = b"boundary";
    let rest = bytes.get(NAME.len()..).filter(|_| begins_ignoring_case(bytes, NAME))?;
    let loose = rest.iter().take_while(|byte| b" \t*".contains(byte) || byte.is_ascii_digit()).count();
    let value = rest[loose..].strip_prefix(b"=")?;
    Some((loose == 0).then_some(value))
}

fn begins_ignoring_case(bytes: &[u8], word: &[u8]) -> bool {
    bytes.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

fn find_ignoring_case(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kinds: &[&str]) -> Parts {
        let mut fields = HeaderMap::new();
        for kind in kinds {
            fields.append(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        Parts::of(&fields)
    }

    #[test]
    fn a_boundary_that_some_readers_take_for_another_one_is_none() {
        let by = |boundary: &str| Parts::By(Boundary { line: [b"\n--", boundary.as_bytes()].concat() });
        for (kind, boundary) in [
            ("multipart/form-data; boundary=B", "B"),
            ("Multipart/Form-Data;BOUNDARY=\"B-1\" ; charset=x", "B-1"),
            ("multipart/mixed; boundary====1==", "===1=="),
            ("multipart/related; type=\"text/xml\"; boundary=\"a:b\"; start=\"<x>\"", "a:b"),
            ("multipart/form-data; x=boundary; boundary=B", "B"),
            ("multipart/form-data; boundary=----WebKitFormBoundaryAbC", "----WebKitFormBoundaryAbC"),
        ] {
            assert_eq!(of(&[kind]), by(boundary), "{kind}");
        }
        for kind in ["text/plain; boundary=B", "", "application/x-multipart"] {
            assert_eq!(of(&[kind]), Parts::None, "{kind}");
        }
        assert_eq!(of(&[]), Parts::None);
        for kinds in [
            &["multipart/form-data"][..],
            &["multipart/form-data; boundary="],
            &["multipart/form-data; boundary=\"\""],
            &["multipart/form-data; boundary=\"B"],
            &["multipart/form-data; boundary=B\""],
            &["multipart/form-data; boundary=\"B\"C"],
            &["multipart/form-data; boundary=\"B\\C\""],
            &["multipart/form-data; boundary=B C"],
            &["multipart/form-data; boundary=B,C"],
            &["multipart/form-data; boundary = B"],
            &["multipart/form-data; boundary*=us-ascii''B"],
            &["multipart/form-data; boundary*0=B; boundary*1=C"],
            &["multipart/form-data; boundary=B; boundary=C"],
            &["multipart/form-data; boundary=B; Boundary=B"],
            &["multipart/form-data; x=\"; boundary=B; y=\""],
            &["multipart/form-data; boundary=B=boundary=C"],
            &["multipart/form-data; xboundary=B"],
            &["multipart/form-data boundary=B"],
            &["text/plain, multipart/form-data; boundary=B"],
            &["multipart/form-data; boundary=B", "multipart/form-data; boundary=B"],
            &["text/plain", "multipart/form-data; boundary=B"],
            &["multipart/form-data; boundary=B", "text/plain"],
        ] {
            assert_eq!(of(kinds), Parts::Unclear, "{kinds:?}");
        }
        let long = |bytes: usize| of(&[&format!("multipart/mixed; boundary={}", "b".repeat(bytes))]);
        assert_eq!(long(BOUNDARY_MAX_BYTES), by(&"b".repeat(BOUNDARY_MAX_BYTES)));
        assert_eq!(long(BOUNDARY_MAX_BYTES + 1), Parts::Unclear);
    }
}
