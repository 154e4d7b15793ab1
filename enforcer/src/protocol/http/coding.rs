//! Content codings (RFC 9110, section 8.4), decoded and encoded in a stream, without I/O.
//!
//! ```text
//! body -> Decoder::push .. next -> StreamMasker::push -> Encoder::push -> body
//!                            ^                                |
//!                            +---- until next() is None <-----+
//! ```
//!
//! A decoder gives at most [`PIECE_BYTES`] at a time, so that a small input that expands a
//! million times never stands in memory: whoever drives it can wait between two pieces.
//! What does not decode to its end is an error; nothing of it passes unread. [`decode`] and
//! [`encode`] are the same over streams of chunks.

pub mod aws;
mod decode;
mod encode;
mod streams;
#[cfg(test)]
mod tests;

use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};

pub use decode::Decoder;
pub use encode::Encoder;
pub use streams::{Decode, Encode, Limits, decode, encode};

/// How many codings may be stacked on one body, a number.
pub const STACKED_MAX: usize = 4;
/// The most decoded bytes of one body, summed up for each coding, if nothing else is set: 1 GiB.
pub const DECODED_MAX_BYTES: u64 = 1 << 30;
/// So many decoded bytes are never too many for what came, if nothing else is set: 8 MiB.
pub const DECODED_FREE_BYTES: u64 = 8 << 20;
/// And beyond these, so many for each byte that came. Text comes to 5 to 20, and what is made
/// to exhaust whoever decodes it to 1,000 (gzip) or 100,000 (two codings).
pub const DECODED_RATIO: u64 = 24;
/// The largest zstd window, as a power of two: 8 MiB (RFC 9659).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// How many bytes a decoder gives at a time.
pub const PIECE_BYTES: usize = 32 * 1024;

/// One content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `gzip` and `x-gzip` (RFC 1952), of any number of members.
    Gzip,
    /// `deflate`: zlib (RFC 1950), or raw deflate (RFC 1951) as some servers send it.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878), of any number of frames.
    Zstd,
}

impl Coding {
    /// The name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// A coding that is not known, so that the body could not be masked.
    #[error("the content coding `{name}` is not known; gzip, deflate, br and zstd are")]
    Unknown {
        /// Its name, shortened and without anything but letters, digits and `-`.
        name: String,
    },
    /// More codings on one body than the limit.
    #[error("more than {limit} content codings are stacked on one body")]
    TooMany {
        /// The limit, a number of codings.
        limit: usize,
    },
    /// The bytes are not what the coding says.
    #[error("the body is not valid {coding}")]
    Malformed {
        /// Which coding.
        coding: &'static str,
    },
    /// The body ends before the coding does.
    #[error("the body ends in the middle of its {coding} coding")]
    Truncated {
        /// Which coding.
        coding: &'static str,
    },
    /// Something follows the end of the coding.
    #[error("bytes follow the end of the body's {coding} coding")]
    Trailing {
        /// Which coding.
        coding: &'static str,
    },
    /// The body decodes to more than the limit.
    #[error("the body decodes to more than {limit} bytes (`decoded_bytes` in [limits])")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The body decodes to too much for what came.
    #[error(
        "the body decodes to more than {free} bytes and {ratio} times what came of it: if it is meant to, the operator can raise `decoded_ratio` or `decoded_free_bytes` in [limits]"
    )]
    TooDense {
        /// Bytes that are never too many.
        free: u64,
        /// Decoded bytes for each that came.
        ratio: u64,
    },
    /// An encoder failed; the body cannot be sent on.
    #[error("the body could not be encoded as {coding}")]
    Encode {
        /// Which coding.
        coding: &'static str,
    },
}

/// The codings of a body in the order in which they were applied; `identity` is none.
pub fn parse_codings(headers: &HeaderMap) -> Result<Vec<Coding>, CodingError> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| unknown("not-ascii"))?;
        for name in text.split(',').map(|n| n.trim_matches([' ', '\t'])) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            codings.push(Coding::from_name(name).ok_or_else(|| unknown(name))?);
            if codings.len() > STACKED_MAX {
                return Err(CodingError::TooMany { limit: STACKED_MAX });
            }
        }
    }
    Ok(codings)
}

/// Leaves in `Accept-Encoding` only what can be decoded here; without the field the
/// target may send anything (RFC 9110, section 12.5.3), so it is then set to `identity`.
pub fn restrict_accept_encoding(headers: &mut HeaderMap) {
    let kept: Vec<String> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|element| {
            let name = element.split(';').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case("identity") || Coding::from_name(name).is_some()
        })
        .map(str::to_owned)
        .collect();
    let value = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    let value = HeaderValue::from_str(&value);
    headers.insert(ACCEPT_ENCODING, value.unwrap_or(HeaderValue::from_static("identity")));
}

fn unknown(name: &str) -> CodingError {
    let plain = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    CodingError::Unknown { name: plain.take(32).collect() }
}
