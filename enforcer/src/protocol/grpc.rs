//! What gRPC over HTTP/2 needs here (gRPC's PROTOCOL-HTTP2.md): a refusal that its
//! libraries show, and what stands in the way of masking.
//!
//! Each message stands behind its length, so one that is masked would no longer be
//! read; and it may be coded by itself, so its secrets could not be seen.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The codings of messages that a peer takes; without it, none.
pub const ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The coding of the messages of this body.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The longest text of a refusal, in bytes before encoding; longer text is cut.
const MAX_TEXT: usize = 900;

/// A status of gRPC (its statuscodes.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unavailable = 14,
}

/// How messages stand in a body: each behind its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A call of gRPC itself: its peer reads trailers.
    Call,
    /// gRPC-Web.
    Web,
}

impl Framing {
    /// `None` if the body is no gRPC.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        const NAME: &[u8] = b"application/grpc";
        let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let (start, rest) = kind.split_at_checked(NAME.len())?;
        let kind = if rest.starts_with(b"-") { Self::Web } else { Self::Call };
        start.eq_ignore_ascii_case(NAME).then_some(kind)
    }
}

/// Whether messages are coded by themselves.
pub fn is_coded(headers: &HeaderMap) -> bool {
    Framing::of(headers).is_some() && headers.get_all(ENCODING).iter().any(|coding| coding != "identity")
}

/// The fields that end a call with this status and text; in trailers, or in the head
/// of an answer without a body.
pub fn ended(status: Status, text: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from(status as u16));
    if let Ok(text) = HeaderValue::from_str(&encoded(&text[..text.floor_char_boundary(MAX_TEXT)])) {
        fields.insert("grpc-message", text);
    }
    fields
}

/// Percent-encoded as `grpc-message` is: all but visible ASCII and spaces, and `%`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().copied().map(field).collect()
    }

    #[test]
    fn calls_are_told_from_what_looks_like_them() {
        let of = |kind| headers(&[("content-type", kind)]);
        for (kind, framing) in [
            ("application/grpc", Some(Framing::Call)),
            ("Application/GRPC+proto", Some(Framing::Call)),
            ("application/grpc; charset=x", Some(Framing::Call)),
            ("application/grpc-web+proto", Some(Framing::Web)),
            ("application/json", None),
            ("application/grp", None),
        ] {
            assert_eq!(Framing::of(&of(kind)), framing, "{kind}");
        }
        assert_eq!(Framing::of(&HeaderMap::new()), None);
    }

    #[test]
    fn coded_messages_are_seen() {
        let grpc = ("content-type", "application/grpc");
        assert!(!is_coded(&headers(&[grpc])));
        assert!(!is_coded(&headers(&[grpc, ("grpc-encoding", "identity")])));
        assert!(is_coded(&headers(&[grpc, ("grpc-encoding", "gzip")])));
        assert!(is_coded(&headers(&[grpc, ("grpc-encoding", "identity"), ("grpc-encoding", "gzip")])));
        assert!(!is_coded(&headers(&[("grpc-encoding", "gzip")])));
    }

    #[test]
    fn a_text_is_encoded_and_cut() {
        let fields = ended(Status::PermissionDenied, "100 % no\nö");
        assert_eq!(fields["grpc-status"], "7");
        assert_eq!(fields["grpc-message"], "100 %25 no%0A%C3%B6");
        let long = ended(Status::Unavailable, &"ä".repeat(MAX_TEXT));
        assert_eq!(long["grpc-message"].len(), MAX_TEXT * 3);
    }
}
