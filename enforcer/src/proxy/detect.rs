//! What a client speaks, told from its first bytes and with a deadline.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::tls::hello::{Hello, Peek, is_tls};

use super::error::ProxyError;
use super::limits::Limits;

/// How an HTTP/2 connection without TLS begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No method that anybody uses is longer.
const METHOD_BYTES: usize = 32;

/// What was found. A client that says nothing in time is a value, too.
#[derive(Debug)]
pub enum Detected {
    Tls(Box<Hello>),
    Http1,
    Http2,
    Unknown,
    Silent,
    Closed,
    BadHello(String),
}

/// Reads into `seen` until it is clear what the client speaks.
pub async fn detect<S: AsyncRead + Unpin>(
    stream: &mut S,
    seen: &mut BytesMut,
    limits: &Limits,
) -> Result<Detected, ProxyError> {
    let mut peek = Peek::default();
    let mut peeked = 0;
    let deadline = tokio::time::Instant::now() + limits.detect_timeout();
    loop {
        let found = match seen.first() {
            Some(first) if is_tls(*first) => {
                let found = hello(&mut peek, &seen[peeked..]);
                peeked = seen.len();
                found
            }
            _ => look(seen),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if seen.len() >= limits.detect_bytes {
            return Ok(Detected::Unknown);
        }
        match tokio::time::timeout_at(deadline, stream.read_buf(seen)).await {
            Err(_) if seen.is_empty() => return Ok(Detected::Silent),
            Err(_) => return Ok(Detected::Unknown),
            Ok(Ok(0)) if seen.is_empty() => return Ok(Detected::Closed),
            Ok(Ok(0)) => return Ok(Detected::Unknown),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(ProxyError::ClientRead(error)),
        }
    }
}

/// `None` if more bytes are needed.
fn hello(peek: &mut Peek, bytes: &[u8]) -> Option<Detected> {
    match peek.push(bytes) {
        Ok(Some(hello)) => Some(Detected::Tls(Box::new(hello))),
        Ok(None) => None,
        Err(error) => Some(Detected::BadHello(error.to_string())),
    }
}

/// The same for what is not TLS.
fn look(seen: &[u8]) -> Option<Detected> {
    let first = *seen.first()?;
    if seen.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    if PREFACE.starts_with(seen) {
        // `PRI` could still be a method; the space after it is not enough.
        return None;
    }
    let method = seen.iter().position(|byte| *byte == b' ');
    match method {
        Some(0) => Some(Detected::Unknown),
        Some(end) if seen[..end].iter().all(|byte| is_token(*byte)) => Some(Detected::Http1),
        None if seen.len() < METHOD_BYTES && seen.iter().all(|byte| is_token(*byte)) => None,
        // Empty lines before a request are for the validator to judge.
        _ if first == b'\r' || first == b'\n' => Some(Detected::Http1),
        _ => Some(Detected::Unknown),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_preface_waits_for_more() {
        for end in 1..PREFACE.len() {
            assert!(look(&PREFACE[..end]).is_none(), "{end}");
        }
        assert!(matches!(look(PREFACE), Some(Detected::Http2)));
    }

    #[test]
    fn methods_and_noise() {
        assert!(look(b"").is_none());
        assert!(look(b"GE").is_none());
        assert!(matches!(look(b"GET /"), Some(Detected::Http1)));
        assert!(matches!(look(b"PROPFIND "), Some(Detected::Http1)));
        assert!(matches!(look(b"SSH-2.0-OpenSSH_9.6\r\n"), Some(Detected::Unknown)));
        assert!(matches!(look(b"\x00\x00\x00\x08\x04\xd2\x16\x2f"), Some(Detected::Unknown)));
        assert!(matches!(look(&[b'A'; METHOD_BYTES]), Some(Detected::Unknown)));
        assert!(look(&[b'A'; METHOD_BYTES - 1]).is_none());
    }

    #[tokio::test(start_paused = false)]
    async fn silence_is_a_value() {
        let (mut near, _far) = tokio::io::duplex(64);
        let limits = Limits { detect_timeout_ms: 10, ..Limits::default() };
        let found = detect(&mut near, &mut BytesMut::new(), &limits).await.unwrap();
        assert!(matches!(found, Detected::Silent));
    }
}
