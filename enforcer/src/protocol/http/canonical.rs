//! The one form of a path and of an authority: what policy matches is what is
//! sent (RFC 3986, section 6.2; RFC 9110, section 4.2).
//!
//! What two servers could read in two ways has no canonical form and is refused:
//! an encoded slash, a step above the root, an address in an odd notation.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest path, in bytes.
pub const MAX_PATH: usize = 16 * 1024;
/// The longest host name, in bytes (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;
/// The longest label, in bytes.
const MAX_LABEL: usize = 63;

/// Why there is no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    #[error("it is longer than {MAX_PATH} bytes")]
    TooLong,
    #[error("it does not begin with a slash")]
    NoSlash,
    #[error("it holds a byte that a path cannot hold unencoded")]
    RawByte,
    #[error("a percent sign is not followed by two hexadecimal digits")]
    BadPercent,
    #[error("it holds an encoded slash, backslash or control character")]
    EncodedDelimiter,
    #[error("its encoded bytes are not UTF-8")]
    NotUtf8,
    #[error("it steps above the root")]
    AboveRoot,
    #[error("it holds user information")]
    UserInfo,
    #[error("the port is not a number between 1 and 65535")]
    BadPort,
    #[error("the host is neither a name in A-labels nor an address in its usual form")]
    BadHost,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Lower case, without trailing dot; an address in its usual form, an IPv6
    /// one without brackets.
    pub host: String,
    pub port: u16,
}

/// The canonical path of a request target's path, without query.
pub fn path(raw: &str) -> Result<String, NotCanonical> {
    if raw == "*" {
        return Ok(raw.to_owned());
    }
    if raw.len() > MAX_PATH {
        return Err(NotCanonical::TooLong);
    }
    if !raw.starts_with('/') {
        return Err(NotCanonical::NoSlash);
    }
    let decoded = unreserved(raw.as_bytes())?;
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/').skip(1).peekable();
    while let Some(segment) = parts.next() {
        let last = parts.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." && segments.pop().is_none() {
                    return Err(NotCanonical::AboveRoot);
                }
                // `/a/.` and `/a/b/..` end in a slash.
                if last {
                    segments.push("");
                }
            }
            "" if !last => {}
            // Some servers cut a segment at `;` and then see a step up.
            odd if [".;", "..;", ".%3B", "..%3B"].iter().any(|step| odd.starts_with(step)) => {
                return Err(NotCanonical::AboveRoot);
            }
            other => segments.push(other),
        }
    }
    Ok(format!("/{}", segments.join("/")))
}

/// Decodes what needs no encoding, once, and writes other escapes in capitals.
fn unreserved(raw: &[u8]) -> Result<String, NotCanonical> {
    let mut out = String::with_capacity(raw.len());
    // The bytes that escapes stand for, to see whether they are text.
    let mut meant = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            if !first.is_ascii_graphic()
                || matches!(first, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'#' | b'?')
            {
                return Err(NotCanonical::RawByte);
            }
            out.push(char::from(*first));
            meant.push(*first);
            continue;
        }
        let [high, low, after @ ..] = tail else { return Err(NotCanonical::BadPercent) };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(NotCanonical::BadPercent);
        };
        rest = after;
        let byte = high << 4 | low;
        match byte {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(NotCanonical::EncodedDelimiter),
            byte if is_unreserved(byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        meant.push(byte);
    }
    if std::str::from_utf8(&meant).is_err() {
        return Err(NotCanonical::NotUtf8);
    }
    Ok(out)
}

/// The query with nothing escaped that needs no escape (RFC 3986, 6.2.2.2): the same
/// query, in which a value stands as it is looked for. With a percent sign that is no
/// escape it stays as it is: behind it an escape could become another one.
pub fn query(raw: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(raw.len());
    let bytes = raw.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high << 4 | low).ok(),
            (b'%', ..) => return raw.to_owned(),
            _ => None,
        };
        match escaped.filter(|meant| is_unreserved(*meant)) {
            Some(meant) => {
                out.push(meant);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    // Only ASCII was put in place of ASCII.
    String::from_utf8(out).unwrap_or_else(|_| raw.to_owned())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The canonical host and port of `host[:port]`.
pub fn authority(raw: &str, default_port: u16) -> Result<Authority, NotCanonical> {
    if raw.contains('@') {
        return Err(NotCanonical::UserInfo);
    }
    let (host, port) = match raw.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(NotCanonical::BadHost)?;
            let address: Ipv6Addr = address.parse().map_err(|_| NotCanonical::BadHost)?;
            if address.to_ipv4_mapped().is_some() {
                return Err(NotCanonical::BadHost);
            }
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or(NotCanonical::BadHost)?),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = raw.split_once(':').map_or((raw, None), |(host, port)| (host, Some(port)));
            (name(host)?, port)
        }
    };
    let port = match port {
        None => default_port,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(NotCanonical::BadPort)?
        }
        Some(_) => return Err(NotCanonical::BadPort),
    };
    Ok(Authority { host, port })
}

/// A name or an IPv4 address. A name whose last label is a number is one of the
/// notations that resolvers read as an address (`127.1`, `0x7f.1`, `2130706433`).
pub fn name(raw: &str) -> Result<String, NotCanonical> {
    if let Ok(address) = raw.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    let name = raw.strip_suffix('.').unwrap_or(raw);
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let numeric = name.rsplit('.').next().is_none_or(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    if name.len() > MAX_HOST || numeric || !name.split('.').all(label) {
        return Err(NotCanonical::BadHost);
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (raw, want) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/%61%7e", "/a~"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/%252f", "/%252f"),
            ("/a;x=1/b", "/a;x=1/b"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(want), "{raw}");
            // What is canonical stays as it is.
            assert_eq!(path(want).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (raw, want) in [
            ("", NotCanonical::NoSlash),
            ("a", NotCanonical::NoSlash),
            ("/a%2fb", NotCanonical::EncodedDelimiter),
            ("/a%5Cb", NotCanonical::EncodedDelimiter),
            ("/a%00", NotCanonical::EncodedDelimiter),
            ("/a%0d%0a", NotCanonical::EncodedDelimiter),
            ("/a\\b", NotCanonical::RawByte),
            ("/a b", NotCanonical::RawByte),
            ("/\u{e9}", NotCanonical::RawByte),
            ("/a%", NotCanonical::BadPercent),
            ("/a%g0", NotCanonical::BadPercent),
            ("/%c0%af", NotCanonical::NotUtf8),
            ("/..", NotCanonical::AboveRoot),
            ("/a/../../b", NotCanonical::AboveRoot),
            ("/a/..;/b", NotCanonical::AboveRoot),
            ("/a/%2e.;x=1/b", NotCanonical::AboveRoot),
        ] {
            assert_eq!(path(raw), Err(want), "{raw}");
        }
        assert!(path(&format!("/{}", "a".repeat(MAX_PATH - 1))).is_ok());
        assert_eq!(path(&format!("/{}", "a".repeat(MAX_PATH))), Err(NotCanonical::TooLong));
    }

    #[test]
    fn queries_are_unescaped_where_they_need_no_escape() {
        for (raw, want) in [
            ("", ""),
            ("a=%61%2D%7e", "a=a-~"),
            ("a=%2526%26%3d", "a=%2526%26%3d"),
            ("%", "%"),
            ("%4", "%4"),
            ("%%41", "%%41"),
            ("%41%g1%c3%a9", "%41%g1%c3%a9"),
            ("%c3%a9\u{e9}%41", "%c3%a9\u{e9}A"),
        ] {
            assert_eq!(query(raw), want, "{raw}");
        }
    }

    #[test]
    fn authorities_have_one_form() {
        for (raw, host, port) in [
            ("Example.COM", "example.com", 443),
            ("example.com.", "example.com", 443),
            ("example.com:8443", "example.com", 8443),
            ("192.0.2.1", "192.0.2.1", 443),
            ("[2001:DB8::0:1]:80", "2001:db8::1", 80),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", 443),
        ] {
            assert_eq!(authority(raw, 443), Ok(Authority { host: host.to_owned(), port }), "{raw}");
        }
    }

    #[test]
    fn odd_authorities_are_refused() {
        for raw in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "user@a.test",
            "a.test:",
            "a.test:0",
            "a.test:65536",
            "a.test:+1",
            "a.test:80:80",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "0177.0.0.1",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[::ffff:127.0.0.1]",
            "b\u{fc}cher.example",
            "a\0.test",
            "a%2etest",
            "*.test",
            "a.test\\b",
        ] {
            assert!(authority(raw, 443).is_err(), "{raw}");
        }
        assert!(authority(&format!("{}.test", "a".repeat(63)), 1).is_ok());
        assert!(authority(&format!("{}.test", "a".repeat(64)), 1).is_err());
    }
}
