//! One request head, one chunk's size, the trailers.

use bytes::BytesMut;

use super::super::canonical;
use super::{Follows, MAX_CHUNK_DIGITS, REFUSED_METHOD, Reason};

/// The longest method, in bytes.
const MAX_METHOD: usize = 32;
/// The most digits of a body's length: under 2^63.
const MAX_LENGTH_DIGITS: usize = 18;

/// Fields that a request may not declare to be for the next hop alone: a proxy
/// that believed it would drop what the target relies on.
const NEVER_HOP_BY_HOP: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "expect",
    "range",
    "trailer",
    "x-forwarded-for",
    "x-api-key",
    "date",
];
/// Fields of the connection to us that mean nothing to anybody behind us.
const DROPPED: &[&str] = &["proxy-connection", "http2-settings"];
/// Fields that trailers may not carry (RFC 9110, 6.5.1): framing, routing,
/// modifiers, authentication, content handling.
const NEVER_TRAILERS: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "cache-control",
    "expect",
    "max-forwards",
    "pragma",
    "range",
    "te",
    "upgrade",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "authorization",
    "cookie",
    "set-cookie",
    "proxy-authorization",
    "content-encoding",
    "content-type",
    "content-range",
];

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff)
}

/// One field of a head: its name in lower case, and its value.
struct Field<'a> {
    name: String,
    value: &'a [u8],
}

fn field(line: &[u8]) -> Result<Field<'_>, Reason> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err("http-folded-line");
    }
    let colon = memchr::memchr(b':', line).ok_or("http-no-colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("http-bad-field-name");
    }
    if !line[colon + 1..].iter().copied().all(is_value) {
        return Err("http-bad-field-value");
    }
    Ok(Field { name: String::from_utf8_lossy(name).to_ascii_lowercase(), value })
}

/// The lines of a head; every one ends in CRLF, and a CR stands nowhere else.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, Reason> {
    let body = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
    let mut lines = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").ok_or("http-bare-lf")?;
        if memchr::memchr(b'\r', line).is_some() {
            return Err("http-bare-cr");
        }
        lines.push(line);
    }
    Ok(lines)
}

fn write(out: &mut BytesMut, field: &Field<'_>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

/// Validates a request head and writes it in canonical form.
pub(super) fn request(bytes: &[u8], limit: usize, out: &mut BytesMut) -> Result<Follows, Reason> {
    let lines = lines(bytes)?;
    let [first, rest @ ..] = lines.as_slice() else { return Err("http-no-request-line") };
    if rest.len() > limit {
        return Err("http-too-many-fields");
    }
    let line = RequestLine::read(first)?;
    let mut head =
        Head { line, host: None, length: None, chunked: false, websocket: false, nominated: false };
    let mut fields = Vec::with_capacity(rest.len());
    for line in rest {
        let field = field(line)?;
        head.see(&field)?;
        fields.push(field);
    }
    let follows = head.follows()?;
    out.extend_from_slice(first);
    out.extend_from_slice(b"\r\n");
    for field in &fields {
        match field.name.as_str() {
            // An upgrade that is not taken up is as if it had not been asked for
            // (RFC 9110, 7.8): the target must not take up another one.
            "upgrade" if follows != Follows::Upgrade => {}
            "content-length" => {
                let length = head.length.unwrap_or_default();
                out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
            }
            name if DROPPED.contains(&name) => {}
            _ => write(out, field),
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(follows)
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// HTTP/1.0
    old: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<Self, Reason> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("http-bad-request-line");
        };
        if method.is_empty() || method.len() > MAX_METHOD || !method.iter().copied().all(is_token) {
            return Err("http-bad-method");
        }
        if method == REFUSED_METHOD.as_bytes() {
            return Err("http-bad-method");
        }
        if method == b"CONNECT" {
            return Err("http-connect");
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err("http-bad-version"),
        };
        let fine = |byte: &u8| byte.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(byte);
        let form = target.starts_with(b"/")
            || (target == b"*" && method == b"OPTIONS")
            || authority_of(target).is_some();
        if !form || !target.iter().all(fine) {
            return Err("http-bad-target");
        }
        Ok(Self { method, target, old })
    }
}

/// The authority of a target in absolute form.
fn authority_of(target: &[u8]) -> Option<&str> {
    let target = std::str::from_utf8(target).ok()?;
    let rest = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(&rest[..end])
}

struct Head<'a> {
    line: RequestLine<'a>,
    host: Option<String>,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
    /// `Connection` names `upgrade`.
    nominated: bool,
}

impl Head<'_> {
    fn see(&mut self, field: &Field<'_>) -> Result<(), Reason> {
        match field.name.as_str() {
            "host" => {
                let host = std::str::from_utf8(field.value).map_err(|_| "http-bad-host")?;
                canonical::authority(host, 1).map_err(|_| "http-bad-host")?;
                if self.host.replace(host.to_ascii_lowercase()).is_some() {
                    return Err("http-two-hosts");
                }
            }
            "content-length" => {
                if self.length.is_some() {
                    return Err("http-two-lengths");
                }
                self.length = Some(length(field.value)?);
            }
            "transfer-encoding" => {
                if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("http-bad-transfer-encoding");
                }
                self.chunked = true;
            }
            "expect" if !field.value.eq_ignore_ascii_case(b"100-continue") => return Err("http-bad-expect"),
            "connection" => self.nominated |= connection(field.value)?,
            "upgrade" if self.websocket => return Err("http-two-upgrades"),
            "upgrade" => self.websocket = field.value.eq_ignore_ascii_case(b"websocket"),
            _ => {}
        }
        Ok(())
    }

    fn follows(&self) -> Result<Follows, Reason> {
        let Some(host) = &self.host else { return Err("http-no-host") };
        if authority_of(self.line.target).is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err("http-host-differs");
        }
        if self.chunked && (self.length.is_some() || self.line.old) {
            return Err("http-two-framings");
        }
        let framed = self.chunked || self.length.is_some_and(|length| length > 0);
        if self.line.method == b"TRACE" {
            return Err("http-trace");
        }
        if self.websocket && self.nominated && self.line.method == b"GET" && !self.line.old {
            return if framed { Err("http-upgrade-with-body") } else { Ok(Follows::Upgrade) };
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Follows::Chunks,
            (false, Some(length)) => Follows::Length(length),
            (false, None) => Follows::Nothing,
        })
    }
}

fn length(value: &[u8]) -> Result<u64, Reason> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return Err("http-bad-length");
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Whether an upgrade is nominated.
fn connection(value: &[u8]) -> Result<bool, Reason> {
    let mut upgrade = false;
    for name in value.split(|byte| *byte == b',') {
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        if !name.bytes().all(is_token) {
            return Err("http-bad-connection");
        }
        if NEVER_HOP_BY_HOP.contains(&name.as_str()) || name == "transfer-encoding" {
            return Err("http-connection-nominates");
        }
        upgrade |= name == "upgrade";
    }
    Ok(upgrade)
}

/// The size in a chunk's first line; its extension is dropped if well-formed.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Reason> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let extension = &line[digits..];
    if digits == 0 || digits > MAX_CHUNK_DIGITS {
        return Err("http-bad-chunk-size");
    }
    let named = extension.get(1).is_some_and(|byte| is_token(*byte));
    let fine =
        extension.is_empty() || (extension[0] == b';' && named && extension.iter().copied().all(is_value));
    if !fine {
        return Err("http-bad-chunk-extension");
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| "http-bad-chunk-size")?;
    u64::from_str_radix(text, 16).map_err(|_| "http-bad-chunk-size")
}

/// Validates the trailers of a chunked body and writes them.
pub(super) fn trailers(bytes: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), Reason> {
    let lines = lines(bytes)?;
    if lines.len() > limit {
        return Err("http-too-many-fields");
    }
    for line in lines {
        let field = field(line)?;
        if NEVER_TRAILERS.contains(&field.name.as_str()) {
            return Err("http-forbidden-trailer");
        }
        write(out, &field);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
