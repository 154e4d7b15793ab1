//! Streams of models.

use bytes::Bytes;
use enforcer::mask::MaskError;
use enforcer::protocol::llm::{Answer, LlmError, LlmStream};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::masker::{everything, is_by_chance, masked};
use super::{chosen, cut, same};
use crate::chance::Chance;

/// An API: its path, the type of its answers, what an event is made of, and where in it the text
/// stands.
struct Api {
    path: &'static str,
    kind: &'static str,
    event: fn(&str) -> Value,
    text: &'static str,
    /// What stands before and behind the events with text.
    ends: fn() -> [Vec<Value>; 2],
}

const SSE: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";
const FRAMES: &str = "application/vnd.amazon.eventstream";
const APIS: [Api; 4] = [
    Api {
        path: "/v1/chat/completions",
        kind: SSE,
        event: |text| json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}),
        text: "/choices/0/delta/content",
        ends: || {
            [
                Vec::new(),
                vec![json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})],
            ]
        },
    },
    Api {
        path: "/v1/messages",
        kind: SSE,
        event: |text| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        text: "/delta/text",
        ends: || {
            let block = json!({"type": "text", "text": ""});
            [
                vec![json!({"type": "content_block_start", "index": 0, "content_block": block})],
                vec![json!({"type": "content_block_stop", "index": 0}), json!({"type": "message_stop"})],
            ]
        },
    },
    Api {
        path: "/api/chat",
        kind: LINES,
        event: |text| json!({"model": "m", "message": {"role": "assistant", "content": text}, "done": false}),
        text: "/message/content",
        ends: || {
            [
                Vec::new(),
                vec![json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true})],
            ]
        },
    },
    Api {
        path: "/model/m/converse-stream",
        kind: FRAMES,
        event: |text| json!({"contentBlockIndex": 0, "delta": {"text": text}}),
        text: "/delta/text",
        ends: || [Vec::new(), vec![json!({"contentBlockIndex": 0})]],
    },
];

impl Api {
    fn stream(&self) -> LlmStream {
        let kind = HeaderValue::from_static(self.kind);
        let answer = Answer::of(self.path, &HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])).unwrap();
        LlmStream::new(answer, everything(), everything().clone(), true)
    }

    fn written(&self, text: &str, chance: &mut Chance) -> Vec<u8> {
        let mut events: Vec<Value> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let most = 1 << chance.below(6);
            let count = chance.between(1, most);
            let at = rest.char_indices().nth(count).map_or(rest.len(), |(at, _)| at);
            events.push((self.event)(&rest[..at]));
            rest = &rest[at..];
        }
        let [first, last] = (self.ends)();
        let all: Vec<Value> = first.into_iter().chain(events).chain(last).collect();
        let count = all.len();
        let each = |(at, event): (usize, &Value)| match self.kind {
            SSE => format!("data: {event}\n\n").into_bytes(),
            LINES => format!("{event}\n").into_bytes(),
            _ if at + 1 == count => frame("contentBlockStop", &event.to_string()),
            _ => frame("contentBlockDelta", &event.to_string()),
        };
        all.iter().enumerate().flat_map(each).collect()
    }

    /// The text that a client puts together.
    fn read(&self, out: &[u8]) -> String {
        let payloads: Vec<&[u8]> = match self.kind {
            FRAMES => payloads(out),
            _ => out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect(),
        };
        let value = |payload: &[u8]| -> Value {
            serde_json::from_slice(payload.strip_prefix(b"data: ").unwrap_or(payload)).unwrap()
        };
        let text = |payload| value(payload).pointer(self.text).and_then(Value::as_str).map(str::to_owned);
        payloads.into_iter().filter_map(text).collect()
    }
}

/// A frame of AWS's event stream.
fn frame(kind: &str, payload: &str) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let mut out = [number(16 + headers.len() + payload.len()), number(headers.len())].concat();
    out.extend(sum(&out));
    out.extend([&headers[..], payload.as_bytes()].concat());
    out.extend(sum(&out));
    out
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

/// The payloads of frames, whose sums have to be right.
fn payloads(mut bytes: &[u8]) -> Vec<&[u8]> {
    let number = |bytes: &[u8]| usize::try_from(u32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (frame, behind) = bytes.split_at(number(bytes));
        let (all, crc) = frame.split_at(frame.len() - 4);
        assert_eq!((sum(&frame[..8]), sum(all)), (frame[8..12].try_into().unwrap(), crc.try_into().unwrap()));
        found.push(&all[12 + number(&frame[4..])..]);
        bytes = behind;
    }
    found
}

fn passed(mut stream: LlmStream, chunks: Vec<Bytes>) -> Result<Vec<u8>, LlmError> {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(stream.push(chunk)?.as_bytes());
    }
    out.extend_from_slice(stream.finish()?.as_bytes());
    Ok(out)
}

/// Of a text in any events, cut anywhere, a client reads what masking the text gives.
pub fn the_text_of_a_model_is_the_same_for_any_cut(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let text = String::from_utf8_lossy(text);
    let api = &APIS[chance.below(APIS.len())];
    let body = api.written(&text, &mut chance);
    let out = passed(api.stream(), cut(&body, &mut chance));
    let plain = masked(everything(), vec![Bytes::copy_from_slice(text.as_bytes())]);
    match (out, plain) {
        (Err(LlmError::Mask(error)), _) | (_, Err(error)) if is_by_chance(&error) => {}
        (Ok(out), Ok(plain)) => same(api.read(&out).as_bytes(), &plain),
        (Err(LlmError::Mask(stream)), Err(plain)) => assert_eq!(stream.to_string(), plain.to_string()),
        (out, plain) => panic!("{}: {out:?}, and its text {plain:?}: {text:?}", api.path),
    }
}

/// Bytes that are no stream, or one that was changed, come out in the same way however they are cut.
pub fn any_bytes_as_a_stream_are_the_same_for_any_cut(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let api = &APIS[chance.below(APIS.len())];
    let mut body = text.to_vec();
    if chance.one_in(2) {
        body = api.written(&String::from_utf8_lossy(text), &mut chance);
        for _ in 0..chance.below(4) {
            let at = chance.below(body.len());
            body[at] = chance.pick(b"\"{}[]:,\\\n \0x");
        }
    }
    let whole = passed(api.stream(), vec![Bytes::copy_from_slice(&body)]);
    let pieces = passed(api.stream(), cut(&body, &mut chance));
    let limit = |error: &LlmError| matches!(error, LlmError::Mask(error) if is_by_chance(error));
    match (&pieces, &whole) {
        (Err(error), _) | (_, Err(error)) if limit(error) => {}
        (Ok(pieces), Ok(whole)) => same(pieces, whole),
        (Err(pieces), Err(whole)) => {
            assert!(!matches!(pieces, LlmError::Mask(MaskError::TooLate { .. })), "{pieces}");
            assert_eq!(pieces.reason(), whole.reason());
        }
        _ => panic!("{}: cut {pieces:?}, whole {whole:?} of {}", api.path, body.escape_ascii()),
    }
}
