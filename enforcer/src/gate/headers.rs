//! Which header fields cross the proxy, and how they are changed on the way.

use http::StatusCode;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use hyper::ext::ReasonPhrase;

use crate::mask::{BodyParts, Findings, MaskError, Masker, Place};
use crate::protocol::grpc;

/// Fields of one connection only (RFC 9110, section 7.6.1), and of proxies.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
];

/// Takes away what belongs to one connection only. `te: trailers` stays: gRPC
/// asks for trailers with it, and they are forwarded.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            // A client must not have the framing or the target taken away.
            if name != header::HOST && name != header::CONTENT_LENGTH && name != header::TE {
                headers.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    let trailers = headers.get_all(header::TE).iter().any(|te| {
        te.to_str().is_ok_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")))
    });
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// What some servers take in place of the path that policy has judged.
pub fn strip_rewrites(headers: &mut HeaderMap) {
    headers.remove("x-original-url");
    headers.remove("x-rewrite-url");
}

/// A part of a masked whole cannot be told from a part of the whole, and what is coded
/// by itself cannot be masked.
pub fn ask_for_the_whole(headers: &mut HeaderMap) {
    headers.remove(grpc::ACCEPT);
    for name in ["range", "if-range", "x-ms-range"] {
        headers.remove(name);
    }
}

/// Why the body of an answer cannot be masked, although its codings are known.
pub fn unmaskable(status: StatusCode, headers: &HeaderMap) -> Option<&'static str> {
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let parts = |kind: &HeaderValue| {
        kind.as_bytes().get(..20).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/byteranges"))
    };
    if !headers.get_all(header::TRANSFER_ENCODING).iter().all(chunked) {
        Some("its transfer coding is not chunked")
    } else if status == StatusCode::PARTIAL_CONTENT
        && (headers.contains_key(header::CONTENT_RANGE)
            || headers.get(header::CONTENT_TYPE).is_some_and(parts))
    {
        Some("it is a part of a whole")
    } else {
        None
    }
}

/// A body that is changed has no known length, no digest, and only a weak tag.
pub fn forget_the_bytes(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_LENGTH,
        header::ACCEPT_RANGES,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ] {
        headers.remove(name);
    }
    if let Entry::Occupied(mut tag) = headers.entry(header::ETAG)
        && !tag.get().as_bytes().starts_with(b"W/")
    {
        let weak = [b"W/", tag.get().as_bytes()].concat();
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) => drop(tag.insert(weak)),
            Err(_) => drop(tag.remove()),
        }
    }
}

/// What a response must not tell the client: other ways to the same host.
pub fn strip_detours(headers: &mut HeaderMap) {
    headers.remove(header::ALT_SVC);
    // Only this program says what it decided.
    headers.remove(super::deny::DECISION_HEADER);
}

/// Masks every value; gives what was found, or why the message must not go on. A value that can
/// no longer stand in a header is taken away, and so is a field whose name is a secret.
pub fn mask(headers: &mut HeaderMap, masker: &Masker) -> Result<Findings, MaskError> {
    let mut all = Findings::default();
    let mut broken = Vec::new();
    for (name, value) in headers.iter_mut() {
        let (place, found) = masker.text(name.as_str());
        let secret = place.as_str() != name.as_str();
        all.merge(&found.at(&Place::Header(place.clone())));
        if secret {
            broken.push(name.clone());
            continue;
        }
        let (masked, findings) = masker.header(name.as_str(), value.as_bytes())?;
        if findings.is_empty() {
            continue;
        }
        all.merge(&findings.at(&Place::Header(place)));
        match HeaderValue::from_bytes(masked.as_bytes()) {
            Ok(masked) => *value = masked,
            Err(_) => broken.push(name.clone()),
        }
    }
    for name in broken {
        headers.remove(name);
    }
    Ok(all)
}

/// The parts of a body that policy names, if this one can have any.
pub fn body_parts(headers: &HeaderMap, masker: Option<&Masker>) -> Option<BodyParts> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    masker?.body_parts(kind)
}

/// Whether a body is a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..form.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(form))
}

/// Takes a reason phrase away that holds a secret: HTTP/1.1 would carry it as it came.
pub fn mask_reason(extensions: &mut http::Extensions, masker: &Masker) -> Result<Findings, MaskError> {
    let Some(reason) = extensions.get::<ReasonPhrase>() else { return Ok(Findings::default()) };
    let found = masker.whole(reason.as_bytes(), Place::Other)?.1;
    if !found.is_empty() {
        extensions.remove::<ReasonPhrase>();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let mut headers = map(&[
            ("connection", "close, X-Own, host"),
            ("x-own", "1"),
            ("host", "a"),
            ("te", "gzip, trailers"),
            ("keep-alive", "1"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("te", "trailers"), ("accept", "*/*")]));
    }

    #[test]
    fn a_changed_body_keeps_no_digest() {
        let mut headers = map(&[("etag", "\"x\""), ("content-length", "3"), ("digest", "md5=x")]);
        forget_the_bytes(&mut headers);
        assert_eq!(headers, map(&[("etag", "W/\"x\"")]));
    }
}
