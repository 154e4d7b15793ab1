//! AWS's own framing of a body (`Content-Encoding: aws-chunked`), in which its SDKs send objects.
//!
//! ```text
//!  SIZE[;chunk-signature=HEX] CRLF bytes CRLF ... 0[;...] CRLF [x-amz-...: value CRLF]* CRLF
//! ```
//! It is undone for the eyes of people alone: what goes out stays as it is.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>
//!
//! **Invariant**: what does not stand in the plain bytes is a signature or a checksum. Anything
//! else there would go out unseen, so such a body cannot be read.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::{Coding, parse_codings};

const NAME: &str = "aws-chunked";
/// Bytes of the line before a chunk, and of one that follows the last.
const MAX_LINE: usize = 256;
/// Lines that follow the last chunk.
const MAX_TRAILERS: usize = 4;

/// The codings below the framing; `None`: there is none, or one that is not known.
pub fn below_frames(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let values: Vec<&str> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|value| value.to_str())
        .collect::<Result<_, _>>()
        .ok()?;
    let names = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let (frames, others): (Vec<&str>, Vec<&str>) = names.partition(|name| name.eq_ignore_ascii_case(NAME));
    if frames.len() != 1 {
        return None;
    }
    let below = HeaderMap::from_iter([(CONTENT_ENCODING, others.join(",").parse().ok()?)]);
    parse_codings(&below).ok()
}

/// The bytes in the frames; `None`: it is not framed like this, or carries something beside them.
pub fn unframed(body: &[u8]) -> Option<Bytes> {
    let (mut rest, mut plain) = (body, Vec::with_capacity(body.len()));
    loop {
        let (head, after) = line(rest)?;
        let (size, extension) = head.split_once(';').map_or((head, None), |(size, it)| (size, Some(it)));
        let digits = size.len() <= 8 && size.bytes().all(|digit| digit.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| digits)?;
        if !extension.is_none_or(is_signature) {
            return None;
        }
        if size == 0 {
            return ends(after).then(|| plain.into());
        }
        let (chunk, after) = after.split_at_checked(size)?;
        plain.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// Up to the next end of a line, and what is behind it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let at = bytes.windows(2).take(MAX_LINE).position(|two| two == b"\r\n")?;
    Some((std::str::from_utf8(bytes.get(..at)?).ok()?, bytes.get(at + 2..)?))
}

fn is_signature(extension: &str) -> bool {
    let value = extension.strip_prefix("chunk-signature=");
    value.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Checksums and their signature, and nothing behind them.
fn ends(mut rest: &[u8]) -> bool {
    for _ in 0..=MAX_TRAILERS {
        let Some((field, after)) = line(rest) else { return false };
        if field.is_empty() {
            return after.is_empty();
        }
        let Some((name, value)) = field.split_once(':') else { return false };
        let known = name.starts_with("x-amz-checksum-") || name == "x-amz-trailer-signature";
        let coded = value.len() <= 128
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        if !known || !coded || name.len() > 40 {
            return false;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(value: &'static str) -> Option<Vec<Coding>> {
        below_frames(&HeaderMap::from_iter([(CONTENT_ENCODING, http::HeaderValue::from_static(value))]))
    }

    #[test]
    fn the_framing_is_known_beside_other_codings() {
        assert_eq!(below("aws-chunked"), Some(vec![]));
        assert_eq!(below("AWS-Chunked, gzip"), Some(vec![Coding::Gzip]));
        assert_eq!(below("gzip,aws-chunked").map(|all| all.len()), Some(1));
        for other in ["gzip", "aws-chunked, aws-chunked", "aws-chunked, what", ""] {
            assert_eq!(below(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_in_the_frames_is_shown_and_nothing_can_hide_beside_it() {
        let signature = "a1".repeat(32);
        let signed = format!("3;chunk-signature={signature}\r\nabc\r\n0;chunk-signature={signature}\r\n\r\n");
        for (body, plain) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n2\r\n\r\n\r\n0\r\nx-amz-checksum-crc32:AAAA+/==\r\n\r\n", "abc\r\n"),
            (&signed, "abc"),
        ] {
            assert_eq!(unframed(body.as_bytes()).as_deref(), Some(plain.as_bytes()), "{body}");
            // Every cut, and one byte more.
            for end in 0..body.len() {
                assert_eq!(unframed(&body.as_bytes()[..end]), None, "{body}: {end}");
            }
            assert_eq!(unframed(format!("{body}x").as_bytes()), None, "{body}");
        }
        let many = |count| format!("0\r\n{}\r\n", "x-amz-checksum-crc32:AA\r\n".repeat(count));
        assert!(unframed(many(MAX_TRAILERS).as_bytes()).is_some());
        assert!(unframed(many(MAX_TRAILERS + 1).as_bytes()).is_none());
        for lie in [
            "3;note=hidden\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\nx-hidden:AAAA\r\n\r\n",
            "3\r\nabc\r\n0\r\nx-amz-checksum-crc32:in the open\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
            "4\r\nabc\r\n0\r\n\r\n",
            "plain text",
        ] {
            assert_eq!(unframed(lie.as_bytes()), None, "{lie}");
        }
    }
}
