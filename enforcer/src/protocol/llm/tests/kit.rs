//! Streams, and clients that put them together.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;

use crate::mask::{ExactValue, Masker, Selection};
use crate::protocol::llm::shape::Dialect;
use crate::protocol::llm::{Answer, Framing, LlmError, LlmStream};
use crate::secret::SecretBytes;

pub const SECRET: &str = "obviously-fake-deploy-key-0123456789";
pub const MASKED: &str = "[MASKED:DEPLOY_KEY]";

fn build(selection: &Selection) -> Masker {
    let value = ExactValue::new("DEPLOY_KEY", &SecretBytes::from(SECRET)).unwrap();
    Masker::new(selection, &[value]).unwrap()
}

pub fn masker() -> Masker {
    static MASKER: LazyLock<Masker> = LazyLock::new(|| build(&Selection::All));
    MASKER.clone()
}

pub fn exact() -> Masker {
    static MASKER: LazyLock<Masker> = LazyLock::new(|| build(&Selection::parse(["exact"]).unwrap()));
    MASKER.clone()
}

pub fn stream(framing: Framing, dialect: Option<Dialect>) -> LlmStream {
    LlmStream::new(Answer { framing, dialect }, &masker(), exact(), true)
}

/// One that knows no patterns, some of which any word can begin.
pub fn plain_stream(framing: Framing, dialect: Option<Dialect>) -> LlmStream {
    LlmStream::new(Answer { framing, dialect }, &exact(), exact(), true)
}

/// What comes out for these chunks, and each part of it.
pub fn pass(mut stream: LlmStream, chunks: &[&[u8]]) -> Result<(Vec<u8>, LlmStream), LlmError> {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(stream.push(Bytes::copy_from_slice(chunk))?.as_bytes());
    }
    out.extend_from_slice(stream.finish()?.as_bytes());
    Ok((out, stream))
}

/// The values of the events of a stream.
pub fn values(framing: Framing, bytes: &[u8]) -> Vec<Value> {
    if framing == Framing::Frames {
        return frames(bytes);
    }
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    match framing {
        Framing::Sse => {
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            data.filter(|data| *data != "[DONE]").map(json).collect()
        }
        Framing::Lines | Framing::Messages | Framing::Frames => text.lines().map(json).collect(),
        Framing::List => serde_json::from_str(&text).unwrap(),
    }
}

fn frames(bytes: &[u8]) -> Vec<Value> {
    use base64::Engine;
    let mut buffer = bytes::BytesMut::from(bytes);
    let mut values = Vec::new();
    while let Some(frame) = crate::protocol::llm::eventstream::next(&mut buffer).unwrap() {
        let value: Value = serde_json::from_slice(&frame.payload).unwrap();
        values.push(match value["bytes"].as_str() {
            Some(coded) => {
                let inner = base64::engine::general_purpose::STANDARD.decode(coded).unwrap();
                serde_json::from_slice(&inner).unwrap()
            }
            None => value,
        });
    }
    assert!(buffer.is_empty());
    values
}

/// What a client puts together of the strings at a place of every event.
pub fn joined(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()).collect()
}
