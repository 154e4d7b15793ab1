//! HTTP/1 requests that others collected: what has to be refused is refused, and
//! what is accepted comes out in one form.
//!
//! With `ENFORCER_VECTORS` set, the collections in that folder are read; without
//! it, the project's own smaller one is all there is.

use std::path::PathBuf;

use enforcer::protocol::http::strict::{Limits, REFUSED_METHOD, Validator};
use serde::Deserialize;

/// Payloads that others want refused and that this reader takes, with the reason.
const TAKEN: &[(&str, &str)] = &[
    // ANNOUNCE belongs to RTSP; here any token is a method (RFC 9110, 9.1), and policy decides on it.
    ("request/invalid.md #31", "a method is any token"),
];

/// A payload of the probes: what servers answer to it.
#[derive(Deserialize)]
struct Probe {
    id: String,
    payload: String,
    expected: String,
}

/// A case of the parser's own documentation.
#[derive(Deserialize)]
struct Case {
    file: String,
    meta: serde_json::Value,
    http: String,
    error: Option<String>,
}

/// Feeds the payload in pieces of `size` bytes: the reason of a refusal, and what
/// went on of the requests before it.
fn feed(payload: &[u8], size: usize) -> (Option<&'static str>, Vec<u8>) {
    let mut validator = Validator::new(Limits::default(), "nonce".to_owned());
    let mut out = Vec::new();
    for piece in payload.chunks(size) {
        validator.push(piece);
        let ready = validator.ready().split();
        out.extend_from_slice(&ready);
    }
    let stand_in = format!("{REFUSED_METHOD} /nonce HTTP/1.1\r\n");
    if validator.is_refused() {
        let at = out.windows(stand_in.len()).position(|part| part == stand_in.as_bytes());
        out.truncate(at.expect("a request in place of the refused one"));
    }
    (validator.reason(), out)
}

/// Whatever went on has to be canonical: one Host, at most one framing, no lone
/// LF or CR, no folded line, no method of our own.
fn assert_canonical(name: &str, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut fields);
        let end = match request.parse(rest) {
            Ok(httparse::Status::Complete(end)) => end,
            other => panic!("{name}: {other:?} in {:?}", String::from_utf8_lossy(rest)),
        };
        let head = &rest[..end];
        for (at, byte) in head.iter().enumerate() {
            let bare = (*byte == b'\n' && head[at - 1] != b'\r') || (*byte == b'\r' && head[at + 1] != b'\n');
            assert!(!bare, "{name}: a lone CR or LF");
        }
        let count = |wanted: &str| {
            request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(wanted)).count()
        };
        let all_of = |wanted: &str| request.headers.iter().find(|field| field.name == wanted);
        assert_eq!(count("host"), 1, "{name}");
        assert!(count("content-length") + count("transfer-encoding") <= 1, "{name}");
        assert_ne!(request.method, Some(REFUSED_METHOD), "{name}");
        let length = all_of("content-length").map(|field| {
            let text = std::str::from_utf8(field.value).expect("digits");
            assert!(text == "0" || !text.starts_with('0'), "{name}: {text}");
            text.parse::<usize>().expect("a length")
        });
        let upgrade = count("upgrade") > 0;
        let chunked = count("transfer-encoding") > 0;
        rest = &rest[end..];
        if chunked {
            rest = skip_chunks(name, rest);
        } else if let Some(length) = length {
            rest = &rest[length.min(rest.len())..];
        }
        if upgrade {
            assert!(rest.is_empty(), "{name}: bytes behind an upgrade that is not answered");
        }
    }
}

/// Past the last chunk and the trailers, as far as they are there.
fn skip_chunks<'a>(name: &str, mut rest: &'a [u8]) -> &'a [u8] {
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return &[] };
        let line = std::str::from_utf8(&rest[..end]).expect("hexadecimal digits");
        let size = usize::from_str_radix(line, 16).unwrap_or_else(|_| panic!("{name}: {line:?}"));
        rest = &rest[end + 2..];
        if size == 0 {
            let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return &[] };
            if end == 0 {
                return &rest[2..];
            }
            let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else { return &[] };
            return &rest[end + 4..];
        }
        rest = rest.get(size + 2..).unwrap_or_default();
    }
}

/// What `payload` leads to; the same in one piece, byte by byte, and in sevens.
fn outcome(name: &str, payload: &[u8]) -> Option<&'static str> {
    let mut whole = None;
    for size in [payload.len().max(1), 1, 7] {
        let got = feed(payload, size);
        assert_canonical(name, &got.1);
        assert_eq!(*whole.get_or_insert_with(|| got.clone()), got, "{name}: pieces of {size}");
    }
    whole.and_then(|(reason, _)| reason)
}

fn vectors(name: &str) -> Option<PathBuf> {
    std::env::var_os("ENFORCER_VECTORS").map(|dir| {
        let path = PathBuf::from(dir).join(name);
        assert!(path.exists(), "ENFORCER_VECTORS is set, and {} is not there", path.display());
        path
    })
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).expect("a readable file");
    serde_json::from_str(&text).expect("a list of cases")
}

/// Refused in this suite: `taken` are those that ought to have been.
fn report(kind: &str, taken: &[String]) {
    let unexplained: Vec<_> = taken.iter().filter(|id| !TAKEN.iter().any(|(known, _)| known == id)).collect();
    assert!(unexplained.is_empty(), "{kind}: taken although it has to be refused: {unexplained:#?}");
}

/// Custom expectations of the probes that allow a success, or whose subject is
/// the response; the others want a 4xx, a 5xx or a closed connection.
const PROBES_FREE: &[&str] = &[
    "RFC9112-3.2-FRAGMENT-IN-TARGET",
    "COMP-LEADING-CRLF",
    "COMP-ABSOLUTE-FORM",
    "COMP-POST-CL-BODY",
    "COMP-POST-CL-UNDERSEND",
    "COMP-CHUNKED-BODY",
    "COMP-CHUNKED-MULTI",
    "COMP-UPGRADE-POST",
    "COMP-UPGRADE-MISSING-CONN",
    "COMP-UPGRADE-UNKNOWN",
    "COMP-UPGRADE-INVALID-VER",
    "COMP-GET-WITH-CL-BODY",
    "COMP-HTTP10-DEFAULT-CLOSE",
    "COMP-CHUNKED-HEX-UPPERCASE",
    "COMP-RANGE-POST",
    "COMP-UPGRADE-HTTP10",
    "COMP-HEAD-NO-BODY",
    "COMP-405-ALLOW",
    "COMP-DATE-HEADER",
    "COMP-DATE-FORMAT",
    "COMP-NO-1XX-HTTP10",
    "COMP-CONTENT-TYPE",
    "COMP-POST-UNSUPPORTED-CT",
    "COOK-ECHO",
    "COOK-EMPTY",
    "COOK-MULTI-HEADER",
    "COOK-PARSED-MULTI",
    "COOK-PARSED-SPECIAL",
    // The client that stops in the middle, or sends less than it announced.
    "MAL-INCOMPLETE-REQUEST",
    "MAL-POST-CL-HUGE-NO-BODY",
    // A field that is not Transfer-Encoding, and a length with a leading zero.
    "NORM-UNDERSCORE-TE",
    "SMUG-CL-DOUBLE-ZERO",
    "SMUG-EXPECT-100-CL",
    "SMUG-HEAD-CL-BODY",
    // The path's escapes are judged where the path is made canonical.
    "MAL-URL-PERCENT-CRLF",
];

#[test]
fn probes_that_servers_must_refuse_are_refused() {
    let Some(path) = vectors("http1-probes.json") else { return own() };
    let probes: Vec<Probe> = read(&path);
    assert!(probes.len() > 90, "{} probes", probes.len());
    let (mut taken, mut refused_fine) = (Vec::new(), Vec::new());
    for probe in &probes {
        let reason = outcome(&probe.id, probe.payload.as_bytes());
        let fine = probe.expected.starts_with("Range2xx") || PROBES_FREE.contains(&probe.id.as_str());
        match reason {
            None if !fine => taken.push(probe.id.clone()),
            Some(reason) if probe.expected.starts_with("Range2xx") => {
                refused_fine.push(format!("{}: {reason}", probe.id));
            }
            _ => {}
        }
    }
    report("probes", &taken);
    assert!(refused_fine.is_empty(), "refused although it is fine: {refused_fine:#?}");
}

#[test]
fn requests_that_a_strict_parser_refuses_are_refused() {
    let Some(path) = vectors("llhttp-cases.json") else { return own() };
    let cases: Vec<Case> = read(&path);
    assert!(cases.len() > 160, "{} cases", cases.len());
    let (mut taken, mut requests) = (Vec::new(), 0);
    for (at, case) in cases.iter().enumerate() {
        let kind = case.meta["type"].as_str().unwrap_or_default();
        if !kind.starts_with("request") {
            continue;
        }
        requests += 1;
        let name = format!("{} #{at}", case.file);
        let bytes = unescape(&case.http);
        // Some stop inside of the head, where nothing has gone on yet: the verdict
        // comes with its end.
        let reason = outcome(&name, &bytes).or_else(|| outcome(&name, &[&bytes[..], b"\r\n\r\n"].concat()));
        let pauses = case.error.as_deref().is_some_and(|error| error.starts_with("Pause on"));
        if case.error.is_some() && !pauses && reason.is_none() {
            taken.push(name);
        }
    }
    assert!(requests > 100, "{requests} requests");
    report("parser's cases", &taken);
}

/// The cases are written as in a Markdown block: a line ends in CRLF, `\` at the
/// end of a line joins it to the next, and escapes stand for single bytes.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let joined = text.replace("\\\n", "");
    // The block's own last line end is not part of the request.
    let joined = joined.strip_suffix('\n').unwrap_or(&joined);
    let mut rest = joined.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\n' => out.extend_from_slice(b"\r\n"),
            b'\\' => match rest.next() {
                Some(b'r') => out.push(b'\r'),
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'f') => out.push(0x0c),
                Some(b'x') => out.push(number(&mut rest, 2, 16)),
                Some(digit @ b'0'..=b'7') => {
                    let mut octal = u32::from(digit - b'0');
                    while let Some(next @ b'0'..=b'7') = rest.peek().copied() {
                        octal = octal * 8 + u32::from(next - b'0');
                        rest.next();
                    }
                    out.push(u8::try_from(octal & 0xff).expect("one byte"));
                }
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            },
            other => out.push(other),
        }
    }
    out
}

fn number(rest: &mut impl Iterator<Item = u8>, digits: usize, radix: u32) -> u8 {
    let text: String = rest.take(digits).map(char::from).collect();
    u8::from_str_radix(&text, radix).expect("an escape")
}

fn own() {
    own_vectors();
}

/// The project's own: `expect` is "pass" or the reason.
#[derive(Deserialize)]
struct Own {
    payload: String,
    expect: String,
}

#[test]
fn own_vectors() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/http1.json");
    let own: Vec<Own> = read(&path);
    assert!(own.len() > 40);
    for case in own {
        let reason = outcome(&case.payload, case.payload.as_bytes()).unwrap_or("pass");
        assert_eq!(reason, case.expect, "{:?}", case.payload);
    }
}
