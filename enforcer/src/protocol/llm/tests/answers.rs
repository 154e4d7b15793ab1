//! Answers of each API.

use serde_json::{Value, json};

use super::kit::{MASKED, SECRET, exact, joined, masker, pass, plain_stream, stream, values};
use crate::mask::{Layer, Masker, Strategy, SurrogateKey};
use crate::protocol::llm::shape::Dialect;
use crate::protocol::llm::{
    Answer, CALL_MAX_BYTES, CHANNELS_MAX, EVENT_MAX_BYTES, Framing, LlmError, LlmStream, eventstream,
};
use crate::secret::SecretBytes;

/// The events of an answer, and where its client finds its text.
struct Script {
    framing: Framing,
    dialect: Option<Dialect>,
    /// Before the text, an event for each piece of it, and after.
    before: Vec<Value>,
    piece: fn(&str) -> Value,
    after: fn(&str) -> Vec<Value>,
    pointer: &'static str,
}

impl Script {
    fn bytes(&self, pieces: &[&str]) -> Vec<u8> {
        let mut events = self.before.clone();
        events.extend(pieces.iter().map(|piece| (self.piece)(piece)));
        events.extend((self.after)(&pieces.concat()));
        self.frame(&events)
    }

    fn frame(&self, events: &[Value]) -> Vec<u8> {
        match self.framing {
            Framing::Sse => {
                let event = |value: &Value| match value["type"].as_str() {
                    Some(name) => format!("event: {name}\ndata: {value}\n\n"),
                    None => format!("data: {value}\n\n"),
                };
                let mut text: String = events.iter().map(event).collect();
                if self.dialect == Some(Dialect::Chat) {
                    text.push_str("data: [DONE]\n\n");
                }
                text.into_bytes()
            }
            Framing::Lines => {
                events.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes()
            }
            Framing::List => {
                let values: Vec<_> = events.iter().map(Value::to_string).collect();
                format!("[{}\n]\n", values.join(",\r\n")).into_bytes()
            }
            Framing::Frames => {
                use base64::Engine;
                let headers = eventstream::headers(&[(":event-type", "chunk")]);
                let frame = |value: &Value| {
                    let inner = base64::engine::general_purpose::STANDARD.encode(value.to_string());
                    let wrapped = value["type"].is_string();
                    let payload = if wrapped { json!({ "bytes": inner, "p": "abc" }) } else { value.clone() };
                    eventstream::write(&headers, payload.to_string().as_bytes()).unwrap()
                };
                events.iter().flat_map(frame).collect()
            }
            Framing::Messages => unreachable!(),
        }
    }
}

fn chat() -> Script {
    Script {
        framing: Framing::Sse,
        dialect: Some(Dialect::Chat),
        before: vec![
            json!({ "id": "c", "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }] }),
        ],
        piece: |text| json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }),
        after: |_| {
            vec![
                json!({ "id": "c", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }),
                json!({ "id": "c", "choices": [], "usage": { "n": 1 } }),
            ]
        },
        pointer: "/choices/0/delta/content",
    }
}

fn tool() -> Script {
    Script {
        before: vec![
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "id": "t1", "type": "function", "function": { "name": "run", "arguments": "" } }] } }] }),
        ],
        piece: |text| json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "function": { "arguments": text } }] } }] }),
        after: |_| vec![json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }] })],
        pointer: "/choices/0/delta/tool_calls/0/function/arguments",
        ..chat()
    }
}

fn anthropic() -> Script {
    Script {
        framing: Framing::Sse,
        dialect: Some(Dialect::Anthropic),
        before: vec![
            json!({ "type": "message_start", "message": { "id": "m", "content": [] } }),
            json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "ping" }),
        ],
        piece: |text| json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "text_delta", "text": text } }),
        after: |_| {
            vec![
                json!({ "type": "content_block_stop", "index": 1 }),
                json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" } }),
                json!({ "type": "message_stop" }),
            ]
        },
        pointer: "/delta/text",
    }
}

fn responses() -> Script {
    Script {
        framing: Framing::Sse,
        dialect: Some(Dialect::Responses),
        before: vec![json!({ "type": "response.created", "response": { "id": "r" }, "sequence_number": 0 })],
        piece: |text| json!({ "type": "response.output_text.delta", "item_id": "msg", "output_index": 0, "content_index": 0, "delta": text, "sequence_number": 1 }),
        after: |text| {
            vec![
                json!({ "type": "response.output_text.done", "item_id": "msg", "output_index": 0, "content_index": 0, "text": text }),
                json!({ "type": "response.content_part.done", "item_id": "msg", "part": { "type": "output_text", "text": text } }),
                json!({ "type": "response.output_item.done", "output_index": 0, "item": { "id": "msg", "content": [{ "text": text }] } }),
                json!({ "type": "response.completed", "response": { "output": [{ "content": [{ "text": text }] }] } }),
            ]
        },
        pointer: "/delta",
    }
}

fn gemini(framing: Framing) -> Script {
    Script {
        framing,
        dialect: Some(Dialect::Gemini),
        before: vec![],
        piece: |text| json!({ "candidates": [{ "content": { "parts": [{ "text": text }], "role": "model" }, "index": 0 }], "responseId": "r" }),
        after: |_| {
            vec![
                json!({ "candidates": [{ "content": { "parts": [{ "text": "" }], "role": "model" }, "finishReason": "STOP", "index": 0 }], "usageMetadata": { "n": 1 } }),
            ]
        },
        pointer: "/candidates/0/content/parts/0/text",
    }
}

fn ollama() -> Script {
    Script {
        framing: Framing::Lines,
        dialect: Some(Dialect::Ollama),
        before: vec![],
        piece: |text| json!({ "model": "m", "message": { "role": "assistant", "content": text }, "done": false }),
        after: |_| {
            vec![json!({ "model": "m", "message": { "role": "assistant", "content": "" }, "done": true })]
        },
        pointer: "/message/content",
    }
}

fn bedrock() -> Script {
    Script { framing: Framing::Frames, dialect: Some(Dialect::Converse), ..anthropic() }
}

fn converse() -> Script {
    Script {
        framing: Framing::Frames,
        dialect: Some(Dialect::Converse),
        before: vec![json!({ "role": "assistant" })],
        piece: |text| json!({ "contentBlockIndex": 0, "delta": { "text": text }, "p": "abcdef" }),
        after: |_| {
            vec![
                json!({ "contentBlockIndex": 0 }),
                json!({ "stopReason": "end_turn" }),
                json!({ "usage": { "n": 1 } }),
            ]
        },
        pointer: "/delta/text",
    }
}

fn unknown() -> Script {
    Script {
        framing: Framing::Sse,
        dialect: None,
        before: vec![json!({ "type": "text-start", "id": "1" })],
        piece: |text| json!({ "type": "text-delta", "id": "1", "delta": text }),
        after: |_| vec![json!({ "type": "text-end", "id": "1" })],
        pointer: "/delta",
    }
}

fn scripts() -> Vec<Script> {
    vec![
        chat(),
        tool(),
        anthropic(),
        responses(),
        gemini(Framing::Sse),
        gemini(Framing::List),
        ollama(),
        bedrock(),
        converse(),
        unknown(),
    ]
}

const TEXTS: &[&str] = &[
    "the key is obviously-fake-deploy-key-0123456789, keep it",
    "obviously-fake-deploy-key-0123456789",
    "über ghp_0123456789abcdefghijklmnopqrstuvwxyz\n\"😀\" obviously-fake",
    "{\"command\":\"echo obviously-fake-deploy-key-0123456789\"}",
    "nothing here, but the beginning of obviously-fake-deploy",
];

fn letters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, letter)| &text[at..at + letter.len_utf8()]).collect()
}

#[test]
fn a_letter_a_piece_is_masked_as_the_whole_text_would_be() {
    for script in scripts() {
        for text in TEXTS {
            let whole = masker().text(text).0;
            let bytes = script.bytes(&letters(text));
            let (out, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
            let values = values(script.framing, &out);
            assert_eq!(joined(&values, script.pointer), whole.as_str(), "{:?} {text}", script.dialect);
            assert!(memchr::memmem::find(&out, SECRET.as_bytes()).is_none());
        }
    }
}

#[test]
fn every_cut_of_the_bytes_gives_the_same() {
    for script in scripts() {
        let bytes = script.bytes(&["a obviously-fake", "-deploy-key-", "0123456789 é", "b"]);
        let (whole, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
        let text = joined(&values(script.framing, &whole), script.pointer);
        assert_eq!(text, format!("a {MASKED} éb"), "{:?}", script.dialect);
        for cut in 0..=bytes.len() {
            let halves = [&bytes[..cut], &bytes[cut..]];
            let (out, _) = pass(stream(script.framing, script.dialect), &halves).unwrap();
            assert!(out == whole, "{:?} cut at {cut}", script.dialect);
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(pass(stream(script.framing, script.dialect), &single).unwrap().0 == whole);
    }
}

#[test]
fn a_stream_without_a_secret_goes_out_byte_for_byte_and_at_once() {
    for script in scripts() {
        let bytes = script.bytes(&["plain.", " text \u{1f600}", "\n\"and\" more\\.", ""]);
        let (out, _) = pass(plain_stream(script.framing, script.dialect), &[&bytes]).unwrap();
        assert!(out == bytes, "{:?}: {}", script.dialect, String::from_utf8_lossy(&out));
        // Each event as soon as it is there.
        let mut stream = plain_stream(script.framing, script.dialect);
        let mut events = script.before.clone();
        events.extend(["one.", " two.", ", three."].map(|text| (script.piece)(text)));
        if script.framing == Framing::List {
            continue;
        }
        for event in events {
            let mut bytes = script.frame(&[event]);
            if bytes.ends_with(b"data: [DONE]\n\n") {
                bytes.truncate(bytes.len() - 14);
            }
            assert_eq!(stream.push(bytes.clone().into()).unwrap().as_bytes(), bytes);
            assert_eq!(stream.held(), 0);
        }
    }
}

#[test]
fn events_keep_their_order_and_their_ids() {
    let script = responses();
    let bytes = script.bytes(&letters(TEXTS[0]));
    let before = values(script.framing, &bytes);
    let (out, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
    let after = values(script.framing, &out);
    let heads = |values: &[Value]| -> Vec<Value> {
        values
            .iter()
            .map(|value| json!([value["type"], value["item_id"], value["sequence_number"]]))
            .collect()
    };
    let [mut before, mut after_heads] = [heads(&before), heads(&after)];
    assert!(after_heads.len() <= before.len() + 1, "one more, for what the text ends with");
    before.dedup();
    after_heads.dedup();
    assert_eq!(before, after_heads);
    for value in &after {
        assert!(!value.to_string().contains(SECRET));
    }
    let last = after.last().unwrap();
    let text = last.pointer("/response/output/0/content/0/text").unwrap();
    assert_eq!(text.as_str(), Some(masker().text(TEXTS[0]).0.as_str()));
}

#[test]
fn what_is_held_at_the_end_stands_in_an_event_of_its_own_before_it() {
    for (script, kind) in [(anthropic(), "content_block_stop"), (responses(), "response.output_text.done")] {
        let bytes = script.bytes(&["key ", SECRET]);
        let (out, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let stop = text.find(kind).unwrap();
        assert!(text[..stop].contains(MASKED), "{text}");
    }
    let script = chat();
    let bytes = script.bytes(&["ends in obviously-fake-deploy"]);
    let (out, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
    let values = values(script.framing, &out);
    assert_eq!(joined(&values, script.pointer), "ends in obviously-fake-deploy");
    assert_eq!(values.len(), 5);
    assert_eq!(values[2]["choices"][0]["delta"], json!({ "content": "obviously-fake-deploy" }));
    assert_eq!(values[3]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn the_last_event_of_gemini_takes_what_is_held() {
    for framing in [Framing::Sse, Framing::List] {
        let script = gemini(framing);
        let bytes = script.bytes(&["ends in obviously-fake", "-deploy"]);
        for cut in 0..=bytes.len() {
            let halves = [&bytes[..cut], &bytes[cut..]];
            let (out, _) = pass(stream(script.framing, script.dialect), &halves).unwrap();
            let values = values(script.framing, &out);
            assert_eq!(joined(&values, script.pointer), "ends in obviously-fake-deploy");
            assert_eq!(values.len(), 3);
            assert!(values[2]["usageMetadata"].is_object(), "{values:?}");
        }
    }
    // A reason in every event ends nothing.
    let (begin, end) = SECRET.split_at(20);
    let event = |text: &str| json!({ "candidates": [{ "content": { "parts": [{ "text": text }] }, "finishReason": "STOP" }] });
    for framing in [Framing::Sse, Framing::List] {
        let script = gemini(framing);
        let bytes = script.frame(&[event(begin), event(end), event("!")]);
        let (out, _) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
        assert_eq!(joined(&values(script.framing, &out), script.pointer), format!("{MASKED}!"));
    }
}

#[test]
fn what_stands_in_place_of_a_token_is_not_masked_again() {
    let key = SurrogateKey::new(&SecretBytes::from("0123456789abcdef0123456789abcdef")).unwrap();
    let mut layer = Layer::default();
    layer.name("GITHUB_TOKEN", Strategy::FormatPreserving).unwrap();
    let masker = Masker::keyed(&layer.into(), &[], Some(key)).unwrap();
    let token = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";
    let text = format!("a \"{token}\".");
    let whole = masker.text(&text).0;
    assert!(whole.as_str().contains("ghp_") && !whole.as_str().contains(token), "{whole}");
    for script in scripts() {
        let answer = Answer { framing: script.framing, dialect: script.dialect };
        for pieces in [letters(&text), vec![text.as_str()], vec![&text[..20], &text[20..]]] {
            let stream = LlmStream::new(answer, &masker, exact(), true);
            let (out, _) = pass(stream, &[&script.bytes(&pieces)]).unwrap();
            let values = values(script.framing, &out);
            assert_eq!(joined(&values, script.pointer), whole.as_str(), "{:?}", script.dialect);
        }
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let event = |length: usize| {
        let text = format!("data: {{\"candidates\":[],\"x\":\"{}\"}}\n\n", "x".repeat(length - 32));
        assert_eq!(text.len(), length);
        text
    };
    let known = || plain_stream(Framing::Sse, Some(Dialect::Gemini));
    assert!(pass(known(), &[event(EVENT_MAX_BYTES).as_bytes()]).is_ok());
    let over = event(EVENT_MAX_BYTES + 1);
    assert!(matches!(pass(known(), &[over.as_bytes()]), Err(LlmError::TooLong)));
    assert!(matches!(pass(known(), &[&over.as_bytes()[..EVENT_MAX_BYTES + 1]]), Err(LlmError::TooLong)));
    // Of anything else it is masked as bytes are.
    let page = format!("data: {}{SECRET}\n\n", "x".repeat(EVENT_MAX_BYTES));
    let halves = page.as_bytes().split_at(EVENT_MAX_BYTES + 20);
    let (out, _) = pass(plain_stream(Framing::Sse, None), &[halves.0, halves.1]).unwrap();
    assert!(out.ends_with(format!("{MASKED}\n\n").as_bytes()));

    let choices = |count: usize| {
        let choice = |index| json!({ "index": index, "delta": { "content": "obviously" } });
        let choices: Vec<_> = (0..count).map(choice).collect();
        chat().frame(&[json!({ "choices": choices })])
    };
    let chat_stream = || plain_stream(Framing::Sse, Some(Dialect::Chat));
    assert!(pass(chat_stream(), &[&choices(CHANNELS_MAX)]).is_ok());
    assert!(matches!(pass(chat_stream(), &[&choices(CHANNELS_MAX + 1)]), Err(LlmError::TooMuch)));

    for (length, complete) in [(CALL_MAX_BYTES, true), (CALL_MAX_BYTES + 1, false)] {
        let bytes = tool().bytes(&["x".repeat(length).as_str()]);
        let (_, mut stream) = pass(chat_stream(), &[&bytes]).unwrap();
        assert_eq!(stream.take_calls()[0].complete, complete);
    }
}

#[test]
fn channels_do_not_disturb_each_other() {
    let choice =
        |index: u32, text: &str| json!({ "choices": [{ "index": index, "delta": { "content": text } }] });
    let halves = SECRET.split_at(17);
    let script = chat();
    let bytes = script.frame(&[
        choice(0, halves.0),
        choice(1, halves.0),
        choice(0, halves.1),
        choice(1, " no"),
        json!({ "choices": [{ "index": 0, "delta": { "reasoning_content": halves.0 } }] }),
        json!({ "choices": [{ "index": 0, "delta": { "reasoning_content": halves.1 } }] }),
    ]);
    let (out, stream) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
    let values = values(script.framing, &out);
    let of = |index: u64| -> String {
        let mine = values.iter().filter(|value| value["choices"][0]["index"] == index);
        joined(&mine.cloned().collect::<Vec<_>>(), script.pointer)
    };
    assert_eq!((of(0), of(1)), (MASKED.to_owned(), format!("{} no", halves.0)));
    assert_eq!(joined(&values, "/choices/0/delta/reasoning_content"), MASKED);
    assert_eq!(stream.findings().total(), 2);
}

#[test]
fn tool_calls_are_put_together() {
    let script = tool();
    let bytes = script.bytes(&letters(TEXTS[3]));
    let (_, mut stream) = pass(stream(script.framing, script.dialect), &[&bytes]).unwrap();
    let calls = stream.take_calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].name.as_str(), calls[0].complete), ("run", true));
    assert_eq!(calls[0].arguments.as_str(), r#"{"command":"echo [MASKED:DEPLOY_KEY]"}"#);
    assert_eq!(calls[0].channel, "choices[0].delta.tool_calls[0].function");
}

#[test]
fn thinking_that_is_signed_ends_the_stream_when_it_was_changed() {
    let script = anthropic();
    let thinking = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "thinking_delta", "thinking": text } });
    let signature = json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "signature_delta", "signature": "Eq".repeat(99) } });
    let stop = json!({ "type": "content_block_stop", "index": 0 });
    let clean = script.frame(&[thinking("so."), thinking("what?"), signature.clone(), stop.clone()]);
    let (out, _) = pass(plain_stream(script.framing, script.dialect), &[&clean]).unwrap();
    assert!(out == clean);
    let halves = SECRET.split_at(9);
    let unsigned = script.frame(&[thinking(halves.0), thinking(halves.1), stop.clone()]);
    let (out, _) = pass(stream(script.framing, script.dialect), &[&unsigned]).unwrap();
    assert_eq!(joined(&values(script.framing, &out), "/delta/thinking"), MASKED);
    let signed = script.frame(&[thinking(halves.0), thinking(halves.1), signature, stop]);
    let mut stream = stream(script.framing, script.dialect);
    let error = stream.push(signed.into()).unwrap_err();
    assert!(matches!(error, LlmError::SignedThinking));
    let farewell = String::from_utf8(stream.farewell(&error).to_vec()).unwrap();
    assert!(
        farewell.starts_with("event: error\ndata: {") && farewell.contains("signed-thinking"),
        "{farewell}"
    );
    assert!(stream.push("data: {}\n\n".into()).is_err());
}

#[test]
fn what_is_no_json_is_masked_as_bytes_are() {
    let text = format!(": {SECRET}\n\ndata: plain {SECRET}\n\nid: {SECRET}\ndata: {{\"{SECRET}\":1}}\n\n");
    for cut in 0..=text.len() {
        let halves = [&text.as_bytes()[..cut], &text.as_bytes()[cut..]];
        let (out, _) = pass(stream(Framing::Sse, None), &halves).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), text.replace(SECRET, MASKED), "{cut}");
    }
}

#[test]
fn data_on_many_lines_stays_on_many_lines() {
    let event = "id: 1\r\ndata: {\"type\":\"text-delta\",\r\nevent: x\r\ndata:  \"delta\":\"K\"}\r\n\r\n";
    let clean = event.replace('K', "hello.");
    let (out, _) = pass(plain_stream(Framing::Sse, None), &[clean.as_bytes()]).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), clean);
    let (out, _) =
        pass(plain_stream(Framing::Sse, None), &[event.replace('K', &format!("a {SECRET} b.")).as_bytes()])
            .unwrap();
    let wanted = format!(
        "id: 1\r\nevent: x\r\ndata: {{\"type\":\"text-delta\",\r\ndata:  \"delta\":\"a {MASKED} b.\"}}\r\n\r\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
}
