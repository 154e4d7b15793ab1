//! Collections of HTTP/1 requests, and what each wants to become of them.

use std::time::Duration;

use serde::Deserialize;

use super::drive::QUIET;
use crate::kit::{PATIENCE, vectors};

/// Stands in a payload for the host of the connection.
const HOST: &str = "{host}";

/// How long an answer or an end is waited for before the client ends its half.
const UNANSWERED: Duration = Duration::from_millis(1500);

/// What is to become of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// All of its requests arrive, as they were sent.
    Forwarded,
    /// It is refused, after so many requests that arrive.
    Refused { after: usize },
    /// The collection leaves it open.
    Open,
}

/// One payload.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    payload: Vec<u8>,
    pub expected: Expected,
    /// The connection has to be closed with the refusal.
    pub closes: bool,
    /// The reason of the refusal, where it is known.
    reason: Option<String>,
    /// The reason without TLS, if it is another one.
    plain_reason: Option<String>,
}

impl Case {
    fn new(name: String, payload: &[u8], expected: Expected) -> Self {
        Self { name, payload: payload.to_vec(), expected, closes: false, reason: None, plain_reason: None }
    }

    pub fn reason(&self, tls: bool) -> Option<&str> {
        let plain = self.plain_reason.as_ref().filter(|_| !tls);
        plain.or(self.reason.as_ref()).map(String::as_str)
    }

    /// How long the end of the connection is waited for after these answers: who is refused is
    /// told so or cut off, if need be after the end of what is sent.
    pub fn patience(&self, expected: Expected, statuses: &[u16]) -> Duration {
        match expected {
            Expected::Refused { .. } if self.closes => PATIENCE,
            Expected::Refused { after } if statuses.len() <= after => UNANSWERED,
            _ => QUIET,
        }
    }

    /// The bytes to be sent to this host.
    pub fn bytes(&self, authority: &str, tls: bool) -> Vec<u8> {
        let scheme = if tls { "https://" } else { "http://" };
        let scheme = replaced(&self.payload, b"http://", scheme.as_bytes());
        replaced(&scheme, HOST.as_bytes(), authority.as_bytes())
    }
}

fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn shared<T: serde::de::DeserializeOwned>(name: &str) -> Option<Vec<T>> {
    Some(read(&vectors(name)?.join(name)))
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Vec<T> {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// The project's own: `expect` is `pass` or the reason.
#[derive(Deserialize)]
struct Own {
    payload: String,
    expect: String,
    /// The reason without TLS, where less is needed to know it for HTTP.
    plain: Option<String>,
    /// Requests that arrive before the one that is refused.
    #[serde(default)]
    after: usize,
}

pub fn own() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/http1.json");
    let own: Vec<Own> = read(path.as_ref());
    assert!(own.len() > 50);
    let case = |own: Own| {
        let name = format!("own {:?}", own.payload);
        let payload = own.payload.replace("a.test", HOST);
        let expected =
            if own.expect == "pass" { Expected::Forwarded } else { Expected::Refused { after: own.after } };
        let reason = (own.expect != "pass").then_some(own.expect);
        Case { reason, plain_reason: own.plain, ..Case::new(name, payload.as_bytes(), expected) }
    };
    own.into_iter().map(case).collect()
}

/// A payload that was sent to many servers: what a good one answers.
#[derive(Deserialize)]
struct Probe {
    id: String,
    desc: String,
    suite: String,
    payload: String,
    expected: String,
    close: bool,
}

impl Probe {
    /// `Range2xx` and `Exact(400)` say it; `custom` means that more than one
    /// answer is good, and then the description says which is the better one.
    /// An attack of which it says nothing is to be refused.
    fn expected(&self) -> Expected {
        let says = |words: &[&str]| words.iter().any(|word| self.desc.contains(word));
        let refused = Expected::Refused { after: 0 };
        match self.expected.as_str() {
            exact if exact.starts_with("Range2xx") => Expected::Forwarded,
            exact if exact.starts_with("Exact(4") => refused,
            "custom" if says(&["must be accepted", "should be accepted", "should accept"]) => {
                Expected::Forwarded
            }
            "custom" if says(&["be rejected", "SHOULD reject", "dangerous", "should be disabled"]) => refused,
            "custom" if ["Compliance", "Cookie"].contains(&self.suite.as_str()) => Expected::Open,
            "custom" => refused,
            other => panic!("{}: what is {other}?", self.id),
        }
    }
}

pub fn probes() -> Option<Vec<Case>> {
    let probes: Vec<Probe> = shared("http1-probes.json")?;
    assert!(probes.len() > 90, "{} probes", probes.len());
    let case = |probe: Probe| {
        let payload = probe.payload.replace("localhost:8080", HOST).replace("localhost", HOST);
        Case { closes: probe.close, ..Case::new(probe.id.clone(), payload.as_bytes(), probe.expected()) }
    };
    Some(probes.into_iter().map(case).collect())
}

/// A case of a parser's own documentation.
#[derive(Deserialize)]
struct Parsed {
    file: String,
    meta: Meta,
    http: String,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Meta {
    r#type: Option<String>,
}

/// The requests among the parser's cases, each with a `Host` that leads to the
/// upstream; those that have none once more without.
pub fn parsed() -> Option<Vec<Case>> {
    let all: Vec<Parsed> = shared("llhttp-cases.json")?;
    let mut cases = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let kind = one.meta.r#type.as_deref().unwrap_or_default();
        if !kind.starts_with("request") {
            continue;
        }
        let expected = match &one.error {
            // The parser hands over to another one.
            Some(error) if error.starts_with("Pause on") => Expected::Open,
            Some(_) => Expected::Refused { after: 0 },
            // What it takes only when it is told to be lenient.
            None if kind.starts_with("request-lenient") => Expected::Open,
            None => Expected::Forwarded,
        };
        let mut bytes = unescaped(&one.http);
        let name = format!("{} #{at}", one.file);
        // The parser stops in the middle of a head, where nothing has gone on yet:
        // here the verdict comes with its end.
        if expected != Expected::Forwarded && !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        let (addressed, had_host) = addressed(&bytes);
        cases.push(Case::new(name.clone(), &addressed, expected));
        if !had_host {
            let refused = Expected::Refused { after: 0 };
            cases.push(Case::new(format!("{name} without a Host"), &bytes, refused));
        }
    }
    assert!(cases.len() > 150, "{} requests", cases.len());
    Some(cases)
}

/// The same bytes with our host in each head that has a request line, and whether
/// the first one had one of its own.
fn addressed(bytes: &[u8]) -> (Vec<u8>, bool) {
    let request =
        regex::bytes::Regex::new(r"^[A-Z-]+ (http://[^/?: ]+(:[0-9]+)?)?[^ ]* [A-Z]+/[0-9.]+$").unwrap();
    let host = regex::bytes::Regex::new(r"^(?i)host: *[a-z0-9.:-]+$").unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let bare = |line: &[u8]| line.strip_suffix(b"\r\n").unwrap_or(line).to_vec();
    let (mut out, mut had_host, mut in_head, mut heads) = (Vec::new(), true, false, 0);
    for (at, line) in lines.iter().enumerate() {
        let text = bare(line);
        if let Some(found) = request.captures(&text).filter(|_| !in_head) {
            in_head = true;
            heads += 1;
            match found.get(1) {
                Some(own) => out.extend(replaced(line, own.as_bytes(), format!("http://{HOST}").as_bytes())),
                None => out.extend_from_slice(line),
            }
            let rest = || lines[at + 1..].iter().map(|line| bare(line)).take_while(|line| !line.is_empty());
            let folded = rest().next().is_some_and(|line| line.starts_with(b" "));
            if !rest().any(|line| host.is_match(&line)) && !folded {
                had_host &= heads > 1;
                if !line.ends_with(b"\n") {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(format!("Host: {HOST}\r\n").as_bytes());
            }
        } else if in_head && host.is_match(&text) {
            out.extend_from_slice(format!("Host: {HOST}\r\n").as_bytes());
        } else {
            in_head &= !text.is_empty();
            out.extend_from_slice(line);
        }
    }
    (out, had_host)
}

/// The cases are written as in a Markdown block: a line ends in CRLF, `\` at the
/// end of a line joins it to the next, and escapes stand for single bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let joined = text.replace("\\\n", "");
    // The block's own last line end is not part of the request.
    let joined = joined.strip_suffix('\n').unwrap_or(&joined);
    let mut out = Vec::new();
    let mut rest = joined.bytes().peekable();
    let number = |rest: &mut dyn Iterator<Item = u8>, radix| {
        let digits: String = rest.map(char::from).collect();
        u8::from_str_radix(&digits, radix).unwrap()
    };
    while let Some(byte) = rest.next() {
        match byte {
            b'\n' => out.extend_from_slice(b"\r\n"),
            b'\\' => match rest.next().unwrap() {
                b'r' => out.push(b'\r'),
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'f' => out.push(0x0c),
                b'x' => out.push(number(&mut rest.by_ref().take(2), 16)),
                first @ b'0'..=b'7' => {
                    let more = std::iter::from_fn(|| rest.next_if(|next| (b'0'..=b'7').contains(next)));
                    out.push(number(&mut std::iter::once(first).chain(more).take(3), 8));
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    out
}
