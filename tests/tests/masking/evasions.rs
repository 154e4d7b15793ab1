//! Ways past the masking, in whatever pieces they come: content codings by their names, then
//! the texts of models' streams or the bytes, as the gate does it.
//!
//! The vectors are read from the folder in `ENFORCER_VECTORS`; the forms of `forms` are made
//! here and need none.

use base64::Engine as _;
use bytes::Bytes;
use enforcer::mask::{ExactValue, Masker, Place, Selection};
use enforcer::protocol::http::coding::{CodingError, Decoder, parse_codings};
use enforcer::protocol::llm::{Answer, LlmStream};
use enforcer::secret::Secret;
use enforcer_tests::chance::Chance;
use enforcer_tests::forms::{self, Class, Given};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Longer bodies are cut at some places only.
const EVERYWHERE: usize = 4 * 1024;
const SOMEWHERE: usize = 8;
/// A decoded body.
const DECODED: u64 = 1 << 24;

/// What becomes of a body.
struct Came {
    out: Vec<u8>,
    stopped: bool,
    found: bool,
}

fn masker(secret: &[u8]) -> Masker {
    let value = ExactValue::new("known", &Secret::new(secret.to_vec())).unwrap();
    Masker::new(&Selection::parse(["exact"]).unwrap(), &[value]).unwrap()
}

/// An answer with these fields, in these chunks.
fn through(masker: &Masker, headers: &HeaderMap, chunks: &[&[u8]]) -> Came {
    let mut came = Came { out: Vec::new(), stopped: false, found: false };
    let pieces = match decoded(headers, chunks) {
        Ok(pieces) => pieces,
        Err((_, before)) => {
            came.stopped = true;
            before
        }
    };
    let mut done = |masked: Result<(Bytes, bool), ()>| match masked {
        Ok((bytes, found)) => {
            came.out.extend_from_slice(&bytes);
            came.found |= found;
            true
        }
        Err(()) => {
            came.stopped = true;
            false
        }
    };
    // Lines of JSON are what Ollama streams.
    let lines = headers.get("content-type").is_some_and(|kind| kind == "application/x-ndjson");
    let path = if lines { "/api/generate" } else { "/v1/chat/completions" };
    if let Some(answer) = Answer::of(path, headers) {
        let mut stream = LlmStream::new(answer, masker, masker.clone(), true);
        for piece in pieces {
            let masked = stream.push(piece).map_err(drop);
            let masked = masked.map(|it| (it.into_bytes(), !stream.findings().is_empty()));
            if !done(masked) {
                return came;
            }
        }
        let masked = stream.finish().map_err(drop);
        done(masked.map(|it| (it.into_bytes(), !stream.findings().is_empty())));
        return came;
    }
    let mut stream = masker.stream();
    for piece in pieces {
        let masked = stream.push(piece).map_err(drop);
        let masked = masked.map(|it| (it.into_bytes(), !stream.findings().is_empty()));
        if !done(masked) {
            return came;
        }
    }
    let masked = stream.finish().map_err(drop);
    done(masked.map(|it| (it.into_bytes(), !stream.findings().is_empty())));
    came
}

/// The pieces, or those before an error.
fn decoded(headers: &HeaderMap, chunks: &[&[u8]]) -> Result<Vec<Bytes>, (CodingError, Vec<Bytes>)> {
    let mut pieces = Vec::new();
    let codings = parse_codings(headers).map_err(|error| (error, Vec::new()))?;
    let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk));
    if codings.is_empty() {
        return Ok(chunks.collect());
    }
    let mut decoder = Decoder::new(&codings, DECODED).map_err(|error| (error, Vec::new()))?;
    let all = |decoder: &mut Decoder, pieces: &mut Vec<Bytes>| loop {
        match decoder.next() {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return Ok(()),
            Err(error) => return Err(error),
        }
    };
    for chunk in chunks {
        decoder.push(chunk);
        if let Err(error) = all(&mut decoder, &mut pieces) {
            return Err((error, pieces));
        }
    }
    decoder.finish();
    match all(&mut decoder, &mut pieces) {
        Ok(()) => Ok(pieces),
        Err(error) => Err((error, pieces)),
    }
}

/// Whether the secret can be read out of what came, by whatever its client undoes.
fn readable(out: &[u8], secret: &[u8]) -> bool {
    let texts = texts(out);
    forms::all().iter().any(|form| form.shows(out, secret) || form.shows(&texts, secret))
}

/// The texts of events, one after the other.
fn texts(out: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for line in out.split(|byte| *byte == b'\n') {
        let line = line.strip_prefix(b"data: ").unwrap_or(line);
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) {
            leaves(&value, &mut all);
        }
    }
    all
}

fn leaves(value: &serde_json::Value, all: &mut Vec<u8>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| leaves(value, all)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text)
                        if ["content", "text", "partial_json", "arguments", "response", "thinking"]
                            .contains(&name.as_str()) =>
                    {
                        all.extend_from_slice(text.as_bytes());
                    }
                    _ => leaves(value, all),
                }
            }
        }
        _ => {}
    }
}

/// The places at which a body is cut in two.
fn cuts(length: usize, chance: &mut Chance) -> Vec<usize> {
    if length <= EVERYWHERE {
        return (0..=length).collect();
    }
    (0..SOMEWHERE).map(|_| chance.below(length)).chain([0, 1, length - 1, length]).collect()
}

/// Why a body that holds the secret did not become what it should, cut anywhere.
fn judged(masker: &Masker, headers: &HeaderMap, body: &[u8], secret: &[u8], class: Class) -> Option<String> {
    let mut chance = Chance::seeded(body.len() as u64);
    // Nearly always the same comes out, and is looked at once.
    let mut known = std::collections::HashMap::new();
    let mut readable = |out: &[u8]| match known.get(out) {
        Some(known) => *known,
        None => {
            let found = readable(out, secret);
            known.insert(out.to_vec(), found);
            found
        }
    };
    for at in cuts(body.len(), &mut chance) {
        let came = through(masker, headers, &[&body[..at], &body[at..]]);
        let noted = class == Class::BlockOrFlag && (came.stopped || came.found);
        if !noted && readable(&came.out) {
            return Some(format!("cut at {at}: {}", String::from_utf8_lossy(&came.out)));
        }
    }
    let single: Vec<&[u8]> = body.chunks(body.len().div_ceil(EVERYWHERE).max(1)).collect();
    let came = through(masker, headers, &single);
    let noted = class == Class::BlockOrFlag && (came.stopped || came.found);
    (!noted && readable(&came.out)).then(|| "byte by byte".to_owned())
}

#[test]
fn every_form_is_masked_wherever_it_is_cut() {
    let secret = b"AKIAQ7XK3PLM5RTZ2VWN/+x";
    let masker = masker(secret);
    let mut chance = Chance::seeded(1);
    let mut wrong = Vec::new();
    for form in forms::all() {
        let given = Given { secret, around: [b"key: ", b" end\n"] };
        let body = form.body(&given, &mut chance).unwrap();
        if let Some(why) = judged(&masker, &HeaderMap::new(), &body, secret, form.class) {
            wrong.push(format!("{}: {why}", form.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What this suite leaves to those who see more of a message than its body: archives and
/// codings without a label are told by the gate.
fn is_for_the_gate(vector: &serde_json::Value) -> bool {
    let id = vector["id"].as_str().unwrap();
    vector["layer"] == "archive" || id.ends_with("/gzip-unlabelled")
}

fn fields(vector: &serde_json::Value) -> HeaderMap {
    let fields = vector["headers"].as_object().unwrap();
    let field = |(name, value): (&String, &serde_json::Value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
    };
    fields.iter().map(field).collect()
}

#[test]
fn the_vectors_are_masked_wherever_they_are_cut() {
    let Some(folder) = std::env::var_os("ENFORCER_VECTORS") else {
        println!("ENFORCER_VECTORS is not set: the forms of the other test are all there is");
        return;
    };
    let text = std::fs::read_to_string(std::path::Path::new(&folder).join("evasions.json")).unwrap();
    let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let (mut tried, mut wrong) = (0, Vec::new());
    for vector in vectors.iter().filter(|it| !is_for_the_gate(it)) {
        let id = vector["id"].as_str().unwrap();
        let class = match vector["expect"].as_str().unwrap() {
            "must" => Class::Must,
            "must-decoded" => Class::MustDecoded,
            "block-or-flag" => Class::BlockOrFlag,
            _ => continue,
        };
        let group = id.split('/').next().unwrap();
        let plain = vectors.iter().find(|it| it["id"] == format!("{group}/hdr-x-debug")).unwrap();
        let secret = plain["headers"]["x-debug"].as_str().unwrap().strip_prefix("v=").unwrap();
        let masker = masker(secret.as_bytes());
        tried += 1;
        if vector["layer"] == "header" {
            for (name, value) in vector["headers"].as_object().unwrap() {
                for part in [name, value.as_str().unwrap()] {
                    let masked = masker.mask_at(part.to_owned().into(), Place::Other).0;
                    if readable(masked.as_bytes(), secret.as_bytes()) {
                        wrong.push(format!("{id}: {}", masked.to_text()));
                    }
                }
            }
            continue;
        }
        let body = base64::engine::general_purpose::STANDARD.decode(vector["body_b64"].as_str().unwrap());
        if let Some(why) = judged(&masker, &fields(vector), &body.unwrap(), secret.as_bytes(), class) {
            wrong.push(format!("{id} ({class:?}): {}", why.chars().take(300).collect::<String>()));
        }
    }
    assert!(tried > 0);
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}
