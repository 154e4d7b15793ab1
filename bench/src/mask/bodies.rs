//! What one body can cost at worst: bodies of 1 MiB that somebody made to be expensive.

use std::io::Write as _;

use anyhow::{Context, Result};
use bytes::Bytes;
use enforcer::mask::{ExactValue, Masker, Selection};
use enforcer::protocol::http::coding::{Coding, Decoder, Limits};
use enforcer::secret::Secret;
use enforcer_tests::chance::Chance;
use serde::Serialize;

use super::{ALLOCATED, clock, texts};

const MIB: usize = 1024 * 1024;
/// What a body may take beside its own bytes.
pub const MEMORY: usize = 8 * MIB;
/// And how long, in ms.
pub const TIME: f64 = 200.0;
/// Bytes of a chunk.
const CHUNK: usize = 16 * 1024;
/// What a stream may keep while it waits for more.
pub const STREAM: usize = 64 * 1024;

/// What a body took.
#[derive(Serialize)]
pub struct Cost {
    pub name: &'static str,
    /// The most bytes that were allocated at once, the body's not counted.
    pub memory: usize,
    /// The most that a stream kept between two chunks.
    pub kept: usize,
    pub milliseconds: f64,
    /// What came out, or why nothing more did.
    pub outcome: String,
}

/// A body and how it is coded.
struct Body {
    name: &'static str,
    codings: Vec<Coding>,
    bytes: Bytes,
    /// Bytes that come at a time.
    chunk: usize,
}

/// Each of them once, with all detectors and some exact values.
pub fn measure() -> Result<Vec<Cost>> {
    let exact = ["correct-horse-battery-staple", "AKIAIOSFODNN7EXAMPLE"]
        .map(|it| ExactValue::new(it, &Secret::new(it.as_bytes().to_vec())));
    let exact = exact.into_iter().collect::<Result<Vec<_>, _>>()?;
    let masker = Masker::new(&Selection::All, &exact)?;
    // The first one pays for what is made but once.
    masker.mask(b"nothing");
    all()?.into_iter().map(|body| cost(&masker, &body)).collect()
}

fn cost(masker: &Masker, body: &Body) -> Result<Cost> {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let mut kept = 0;
    let mut outcome = Ok(0);
    let ns = clock::taken(|| outcome = through(masker, body, &mut kept, before));
    let memory = ALLOCATED.peak_usage().saturating_sub(before);
    let outcome = match outcome {
        Ok(bytes) => format!("{bytes} bytes"),
        Err(error) => format!("{error:#}"),
    };
    Ok(Cost { name: body.name, memory, kept, milliseconds: ns as f64 / 1e6, outcome })
}

/// The way of a body through the gate: decoded piece by piece, and masked.
fn through(masker: &Masker, body: &Body, kept: &mut usize, before: usize) -> Result<usize> {
    let mut out = 0;
    let mut stream = masker.stream();
    if body.codings.is_empty() {
        for at in (0..body.bytes.len()).step_by(body.chunk) {
            let chunk = body.bytes.slice(at..body.bytes.len().min(at + body.chunk));
            out += stream.push(chunk)?.len();
            *kept = (*kept).max(ALLOCATED.current_usage().saturating_sub(before));
        }
        return Ok(out + stream.finish()?.len());
    }
    let mut decoder = Decoder::within(&body.codings, Limits::default())?;
    decoder.push(body.bytes.clone());
    decoder.finish();
    while let Some(piece) = decoder.next()? {
        out += stream.push(piece)?.len();
    }
    Ok(out + stream.finish()?.len())
}

fn all() -> Result<Vec<Body>> {
    let mut chance = Chance::seeded(9);
    let mut any = |alphabet: &[u8]| chance.bytes_of(alphabet, MIB);
    let letters = any(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    let digits = any(b"0123456789");
    let hex = any(b"0123456789abcdef");
    let binary: Vec<u8> = (0..MIB).map(|_| chance.next().to_le_bytes()[0]).collect();
    let mut bodies = vec![
        plain("LLM JSON", texts::llm(MIB)),
        plain("logs", texts::logs(MIB)),
        plain("random bytes", binary),
        plain("random base64", letters.clone()),
        Body { chunk: 16, ..plain("random base64 in chunks of 16 bytes", letters) },
        Body { chunk: 1, ..plain("random digits byte by byte", digits.clone()) },
        plain("random digits", digits),
        plain("random hex", hex),
        plain("base64 of base64 of base64 of base64", nested(4)),
        plain("base64 of base64, depth 8", nested(8)),
        plain("zeros", vec![0; MIB]),
    ];
    for (name, unit) in [
        ("%25252541 ...", "%25252541"),
        ("%2525...25 in one", "%25"),
        ("\\\\\\\\ ...", "\\"),
        ("\\u005c ...", "\\u005c"),
        ("\\\\u0041 ...", "\\\\u0041"),
        ("\\\\\\\\n ...", "\\\\\\\\n"),
        ("%5C%5C%5C%5Cu0041 ...", "%5C%5C%5C%5Cu0041"),
        ("=3D\\\\\" ...", "=3D\\\\\""),
        ("&#x26;#x26; ...", "&#x26;#x26;"),
        ("eyJeyJ ...", "eyJ"),
        ("eyJa.eyJb. ...", "eyJa.eyJb."),
        ("AKIAAKIA ...", "AKIA"),
        ("ghp_ghp_ ...", "ghp_"),
        ("sk-sk- ...", "sk-"),
        ("a@a@ ...", "a@"),
        ("a.a.a@ ...", "a.a.a@"),
        ("-----BEGIN ...", "-----BEGIN "),
        ("-----BEGIN PRIVATE KEY----- ...", "-----BEGIN PRIVATE KEY-----\n"),
        ("4111 1111 ...", "4111 1111 1111 1112 "),
        ("411111111111 ...", "411111111111"),
        ("api_key = ...", "api_key = "),
        ("password: password: ...", "password:"),
        ("postgres://a:postgres://a: ...", "postgres://a:"),
        ("H4sIAAAA ...", "H4sIAAAAAAAAA"),
        ("zero-width ...", "\u{200b}a"),
        ("a, NUL, a, NUL ...", "a\0"),
        ("=\\n= \\n ...", "=\n"),
    ] {
        bodies.push(plain(name, unit.as_bytes().repeat(MIB / unit.len() + 1)));
    }
    bodies.push(plain("gzip in base64, a bomb", in_base64(&gzip(&vec![b'A'; 500 * MIB], 1)?)));
    bodies.push(Body {
        name: "gzip bomb",
        codings: vec![Coding::Gzip],
        bytes: gzip(&vec![0; 900 * MIB], 1)?.into(),
        chunk: CHUNK,
    });
    bodies.push(Body {
        name: "gzip of gzip, a bomb",
        codings: vec![Coding::Gzip, Coding::Gzip],
        bytes: gzip(&gzip(&vec![0; 900 * MIB], 1)?, 1)?.into(),
        chunk: CHUNK,
    });
    Ok(bodies)
}

fn plain(name: &'static str, mut bytes: Vec<u8>) -> Body {
    bytes.truncate(MIB);
    Body { name, codings: Vec::new(), bytes: bytes.into(), chunk: CHUNK }
}

fn in_base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

/// 1 MiB of base64 of base64 ..., so deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut text = b"what stands at the bottom, and nothing else. ".repeat(MIB / 45);
    for _ in 0..depth {
        text.truncate(MIB * 3 / 4);
        text = in_base64(&text);
    }
    text
}

fn gzip(bytes: &[u8], level: u32) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes)?;
    encoder.finish().context("gzip")
}
