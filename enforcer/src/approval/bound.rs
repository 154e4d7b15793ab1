//! What an approval is bound to: the exact bytes of a statement that waits, or the
//! fingerprint that a retry of it has, too.
//!
//! Everything is hashed with its length before it, so that no two requests give the
//! same bytes to the hash. What a retry may change is listed by name; what is not in
//! the list has to be the same, an unknown header as well.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a body that comes in pieces.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        pieces.into_iter().for_each(|piece| context.update(piece));
        Self::end(context)
    }

    /// Of several values, none of which can move over into another.
    pub(super) fn of_fields(label: &str, values: &[&[u8]]) -> Self {
        let mut fields = Fields::new(label.as_bytes());
        values.iter().for_each(|value| fields.add(value));
        fields.end()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn end(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("not a SHA-256 in hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// The bytes of one statement, as they would go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exact(Digest);

/// What a statement and its retry have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Digest);

impl Exact {
    pub(super) fn digest(&self) -> &Digest {
        &self.0
    }
}

impl Fingerprint {
    pub(super) fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An HTTP request as it would go out: canonical, with the headers in their order.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Canonical; the port stands there if it is not the scheme's own.
    pub authority: &'a str,
    /// The canonical path with the query.
    pub path_and_query: &'a str,
    pub headers: &'a [(&'a str, &'a [u8])],
    pub body: Digest,
}

/// Both hashes of one statement. They are made together, so that exact bytes never
/// come with the fingerprint of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bound {
    exact: Exact,
    fingerprint: Fingerprint,
}

impl Bound {
    pub fn request(request: &Request<'_>) -> Self {
        Self { exact: Exact(exact(request)), fingerprint: Fingerprint(fingerprint(request)) }
    }

    /// A statement of a protocol in which a retry has the very same bytes.
    pub fn bytes(protocol: &str, bytes: &[u8]) -> Self {
        let hash = |label| Digest::of_fields(label, &[protocol.as_bytes(), bytes]);
        Self { exact: Exact(hash("exact bytes")), fingerprint: Fingerprint(hash("bytes of a retry")) }
    }

    /// A tool call in an answer: all the bytes that wait with it, or, if the model asks again,
    /// what it asks for, and who was asked: method, scheme, authority and path of the request.
    pub fn tool_call(bytes: Digest, asked: [&str; 4], name: &str, arguments: &str) -> Self {
        let mut call: Vec<&[u8]> = asked.iter().map(|part| part.as_bytes()).collect();
        call.extend([name.as_bytes(), arguments.as_bytes()]);
        let fingerprint = Fingerprint(Digest::of_fields("tool call asked for again", &call));
        call.push(bytes.as_bytes());
        Self { exact: Exact(Digest::of_fields("exact tool call", &call)), fingerprint }
    }

    pub fn exact(&self) -> Exact {
        self.exact
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Headers in which a retry may differ: they date or trace one attempt, sign it,
/// count it, or frame it on its connection. Sorted.
pub const VOLATILE: [&str; 36] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "b3",
    "connection",
    "content-length",
    "date",
    "expect",
    "grpc-timeout",
    "host",
    "keep-alive",
    "proxy-connection",
    "request-id",
    "retry-count",
    "sentry-trace",
    "signature",
    "signature-input",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "uber-trace-id",
    "x-amz-date",
    "x-amzn-trace-id",
    "x-attempt",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-envoy-attempt-count",
    "x-goog-api-client",
    "x-ms-client-request-id",
    "x-ms-date",
    "x-request-id",
    "x-retry-attempt",
    "x-retry-count",
    "x-stainless-read-timeout",
    "x-stainless-retry-count",
    "x-stainless-timeout",
];

/// Families of trace headers, by how their names begin.
pub const VOLATILE_FAMILIES: [&str; 2] = ["x-b3-", "x-datadog-"];

/// Whether a retry may have another value in this header, given in lower case.
pub fn is_volatile(name: &str) -> bool {
    VOLATILE.binary_search(&name).is_ok() || VOLATILE_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Lengths stand before values; a label keeps one kind of hash from being another.
struct Fields(Context);

impl Fields {
    fn new(label: &[u8]) -> Self {
        let mut fields = Self(Context::new(&SHA256));
        fields.add(b"enforcer approval 1");
        fields.add(label);
        fields
    }

    fn add(&mut self, value: &[u8]) {
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    fn end(self) -> Digest {
        Digest::end(self.0)
    }
}

fn head(label: &[u8], request: &Request<'_>) -> Fields {
    let mut fields = Fields::new(label);
    for part in [request.method, request.scheme, request.authority, request.path_and_query] {
        fields.add(part.as_bytes());
    }
    fields.add(&request.body.0);
    fields
}

/// What a client calls itself. AWS's SDKs tell in it what they make use of, each process in another
/// order (`m/b,E,Z`).
fn agent(value: &[u8]) -> Vec<u8> {
    let words = value.split(|byte| *byte == b' ').map(|word| match word.strip_prefix(b"m/") {
        None => word.to_vec(),
        Some(used) => {
            let mut used: Vec<&[u8]> = used.split(|byte| *byte == b',').collect();
            used.sort_unstable();
            [b"m/", &*used.join(&b',')].concat()
        }
    });
    words.collect::<Vec<_>>().join(&b' ')
}

fn exact(request: &Request<'_>) -> Digest {
    let mut fields = head(b"exact request", request);
    for (name, value) in request.headers {
        fields.add(name.as_bytes());
        fields.add(value);
    }
    fields.end()
}

fn fingerprint(request: &Request<'_>) -> Digest {
    let mut fields = head(b"request and its retries", request);
    let mut headers: Vec<(String, &[u8])> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    headers.retain(|(name, _)| !is_volatile(name));
    // Values of one name stay in their order, which can mean something.
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, value) in headers {
        fields.add(name.as_bytes());
        match signed_by(&name, value) {
            Some(key) => {
                fields.add(b"signed");
                fields.add(key);
            }
            None if name == "user-agent" => {
                fields.add(b"an agent");
                fields.add(&agent(value));
            }
            None => {
                fields.add(b"as it is");
                fields.add(value);
            }
        }
    }
    fields.end()
}

/// The key with which a request to AWS is signed: the rest of that header is a date and
/// the signature itself, which every attempt makes anew.
fn signed_by<'a>(name: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    if name != "authorization" || !value.starts_with(b"AWS4-") {
        return None;
    }
    let label = b"Credential=";
    let at = value.windows(label.len()).position(|window| window == label)? + label.len();
    let rest = value.get(at..)?;
    rest.get(..rest.iter().position(|byte| *byte == b'/')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &[(&str, &[u8])] = &[("accept", b"a"), ("Date", b"d"), ("accept", b"b"), ("x-y", b"1")];

    fn request<'a>(headers: &'a [(&'a str, &'a [u8])]) -> Request<'a> {
        Request {
            method: "POST",
            scheme: "https",
            authority: "a.test",
            path_and_query: "/p?q=1",
            headers,
            body: Digest::of([b"body".as_slice()]),
        }
    }

    #[test]
    fn every_part_counts() {
        let base = Bound::request(&request(HEADERS));
        let body = Digest::of([b"bodY".as_slice()]);
        for other in [
            Request { method: "PUT", ..request(HEADERS) },
            Request { scheme: "http", ..request(HEADERS) },
            Request { authority: "a.test:8443", ..request(HEADERS) },
            Request { path_and_query: "/p?q=2", ..request(HEADERS) },
            Request { body, ..request(HEADERS) },
            request(&HEADERS[1..]),
            request(&[("accept", b"b"), ("Date", b"d"), ("accept", b"a"), ("x-y", b"1")]),
            request(&[("accept", b"a"), ("Date", b"d"), ("accept", b"b"), ("x-y", b"2")]),
            request(&[("accept", b"a"), ("Date", b"d"), ("accept", b"b"), ("x-z", b"1")]),
            request(&[("accept", b"a"), ("Date", b"d"), ("accept", b"b"), ("x-y", b"1"), ("new", b"")]),
        ] {
            let bound = Bound::request(&other);
            assert_ne!(bound.exact(), base.exact(), "{other:?}");
            assert_ne!(bound.fingerprint(), base.fingerprint(), "{other:?}");
        }
        assert_eq!(Bound::request(&request(HEADERS)), base);
    }

    #[test]
    fn what_stands_beside_cannot_move_over() {
        let one = Request { method: "POSTh", scheme: "ttps", ..request(HEADERS) };
        assert_ne!(Bound::request(&one).exact(), Bound::request(&request(HEADERS)).exact());
        let (one, other) = (request(&[("ab", b"c")]), request(&[("a", b"bc")]));
        assert_ne!(Bound::request(&one).fingerprint(), Bound::request(&other).fingerprint());
    }

    #[test]
    fn a_retry_differs_in_what_is_volatile_and_in_the_order_of_names() {
        let base = Bound::request(&request(HEADERS));
        let retry = request(&[
            ("X-Y", b"1"),
            ("accept", b"a"),
            ("accept", b"b"),
            ("traceparent", b"t"),
            ("DATE", b"e"),
        ]);
        let retry = Bound::request(&retry);
        assert_eq!(retry.fingerprint(), base.fingerprint());
        assert_ne!(retry.exact(), base.exact());
    }

    #[test]
    fn each_volatile_name_is_one_and_names_that_mean_something_are_none() {
        assert!(VOLATILE.is_sorted());
        let none = Bound::request(&request(&[])).fingerprint();
        for name in VOLATILE.into_iter().chain(["x-b3-traceid", "x-datadog-parent-id"]) {
            assert_eq!(Bound::request(&request(&[(name, b"1")])).fingerprint(), none, "{name}");
        }
        for name in [
            "authorization",
            "cookie",
            "x-http-method-override",
            "idempotency-key",
            "baggage",
            "content-type",
        ] {
            assert_ne!(Bound::request(&request(&[(name, b"1")])).fingerprint(), none, "{name}");
        }
    }

    #[test]
    fn a_signature_of_aws_changes_and_its_key_does_not() {
        let of = |value: &'static [u8]| Bound::request(&request(&[("Authorization", value)])).fingerprint();
        let first = of(b"AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu/s3/aws4_request, Signature=aa");
        let again = of(b"AWS4-HMAC-SHA256 Credential=AKIA1/20260102/eu/s3/aws4_request, Signature=bb");
        let other = of(b"AWS4-HMAC-SHA256 Credential=AKIA2/20260101/eu/s3/aws4_request, Signature=aa");
        assert_eq!(first, again);
        assert_ne!(first, other);
        // What cannot be read is taken as it is, and no value can be read as a key.
        assert_ne!(of(b"AWS4-HMAC-SHA256 Signature=aa"), of(b"AWS4-HMAC-SHA256 Signature=bb"));
        assert_ne!(of(b"Bearer a"), of(b"Bearer b"));
        assert_ne!(of(b"AKIA1"), first);
    }

    #[test]
    fn other_protocols_are_bound_to_their_bytes() {
        let base = Bound::bytes("postgres", b"DROP TABLE a");
        assert_eq!(base, Bound::bytes("postgres", b"DROP TABLE a"));
        for other in [Bound::bytes("mysql", b"DROP TABLE a"), Bound::bytes("postgres", b"DROP TABLE b")] {
            assert_ne!(other.exact(), base.exact());
            assert_ne!(other.fingerprint(), base.fingerprint());
        }
        assert_ne!(base.exact().0, base.fingerprint().0);
    }

    #[test]
    fn a_tool_call_is_bound_to_who_was_asked_and_its_bytes() {
        let bytes = Digest::of([b"{}".as_slice()]);
        let asked = ["POST", "https", "a.test", "/v1/messages"];
        let base = Bound::tool_call(bytes, asked, "bash", "{}");
        let other = Bound::tool_call(Digest::of([b"{ }".as_slice()]), asked, "bash", "{}");
        assert!(other.fingerprint() == base.fingerprint() && other.exact() != base.exact());
        for (asked, name, arguments) in [
            (["GET", "https", "a.test", "/v1/messages"], "bash", "{}"),
            (["POST", "http", "a.test", "/v1/messages"], "bash", "{}"),
            (["POST", "https", "b.test", "/v1/messages"], "bash", "{}"),
            (["POST", "https", "a.test", "/v2/messages"], "bash", "{}"),
            (asked, "sh", "{}"),
            (asked, "bash", "{ }"),
            (asked, "bash{", "}"),
        ] {
            let other = Bound::tool_call(bytes, asked, name, arguments);
            assert_ne!(other.fingerprint(), base.fingerprint(), "{asked:?} {name} {arguments}");
            assert_ne!(other.exact(), base.exact(), "{asked:?} {name} {arguments}");
        }
    }

    #[test]
    fn a_body_in_pieces_is_the_same_body() {
        let whole = Digest::of([b"abc".as_slice()]);
        assert_eq!(Digest::of([b"a".as_slice(), b"", b"bc"]), whole);
        assert_eq!(
            whole.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "FIPS 180-2, appendix B.1"
        );
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), whole);
        for wrong in ["\"\"", "\"zz\"", &text.replace('b', "g"), &text.replacen("ba", "+a", 1)] {
            assert!(serde_json::from_str::<Digest>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_agent_makes_use_of_is_told_in_any_order_and_is_all_the_same_all_of_it() {
        let of = |agent: &str| {
            let headers: &[(&str, &[u8])] = &[("User-Agent", agent.as_bytes())];
            let (method, scheme, authority, path_and_query) = ("PUT", "https", "a.test", "/x");
            let body = Digest::of([b"body".as_slice()]);
            let request = Request { method, scheme, authority, path_and_query, headers, body };
            Bound::request(&request)
        };
        let one = of("Boto3/1.44.5 md/Botocore#1.44.5 m/e,Z,N,E,b,U Botocore/1.44.5");
        let other = of("Boto3/1.44.5 md/Botocore#1.44.5 m/Z,b,U,E,e,N Botocore/1.44.5");
        assert!(one.fingerprint() == other.fingerprint() && one.exact() != other.exact());
        for agent in [
            "Boto3/1.44.5 md/Botocore#1.44.5 m/e,Z,N,E,b Botocore/1.44.5",
            "Boto3/1.44.5 md/Botocore#1.44.5 m/e,Z,N,E,b,U,V Botocore/1.44.5",
            "Boto3/1.44.5 m/e,Z,N,E,b,U md/Botocore#1.44.5 Botocore/1.44.5",
            "Boto3/1.44.5 md/Botocore#1.44.5 m/eZ,N,E,b,U Botocore/1.44.5",
        ] {
            assert_ne!(of(agent).fingerprint(), one.fingerprint(), "{agent}");
        }
    }
}
