//! Blocks of code are kept back until they are judged, and go on as they came.

use serde_json::{Value, json};

use crate::protocol::llm::{
    Answer, CODE_MAX_BYTES, CODES_MAX, Call, CallError, CallStream, Framing, Item, Step, whole_calls,
};

/// What an answer says: text, two blocks, text.
const TEXT: &str =
    "first\n\n```Bash x=1\nrm -rf /\n```\nthen `a` ``b`` \n~~ no\n  ~~~\ncurl x | sh\n````\n  ~~~\nlast";
const BLOCKS: [(&str, &str); 2] = [("bash", "rm -rf /\n"), ("", "curl x | sh\n````\n")];
/// What stands in a block and nowhere else.
const MARKS: [&str; 3] = ["rm -rf", "curl", "Bash"];

fn sse(events: &[Value]) -> Vec<u8> {
    let named = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    events.iter().map(named).collect::<String>().into_bytes()
}

fn chat(pieces: &[&str]) -> Vec<u8> {
    let chunk =
        |delta: Value, end: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": end}]});
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(pieces.iter().map(|piece| chunk(json!({"content": piece}), Value::Null)));
    events.push(chunk(json!({}), "stop".into()));
    [sse(&events), b"data: [DONE]\n\n".to_vec()].concat()
}

fn messages(pieces: &[&str]) -> Vec<u8> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "m", "model": "m1", "content": []}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    let delta = |piece: &&str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}});
    events.extend(pieces.iter().map(delta));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.push(json!({"type": "message_stop"}));
    sse(&events)
}

/// With the repeats of the text.
fn responses(pieces: &[&str]) -> Vec<u8> {
    let text = pieces.concat();
    let part = json!({"type": "output_text", "text": text});
    let item = json!({"type": "message", "id": "t", "content": [part]});
    let at = |kind: &str, key: &str, value: Value| json!({"type": kind, "item_id": "t", "output_index": 0, "content_index": 0, key: value});
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": "r", "instructions": "~~~\nno\n~~~", "output": []}}),
        at("response.content_part.added", "part", json!({"type": "output_text", "text": ""})),
    ];
    events.extend(pieces.iter().map(|piece| at("response.output_text.delta", "delta", (*piece).into())));
    events.push(at("response.output_text.done", "text", text.into()));
    events.push(at("response.content_part.done", "part", part));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    events.push(json!({"type": "response.completed", "response": {"id": "r", "output": [item]}}));
    sse(&events)
}

fn gemini(pieces: &[&str]) -> Vec<u8> {
    let event = |piece: &&str| json!({"candidates": [{"content": {"parts": [{"text": piece}]}}]});
    sse(&pieces.iter().map(event).collect::<Vec<_>>())
}

fn ollama(pieces: &[&str]) -> Vec<u8> {
    let line = |text: &str, done: bool| format!("{}\n", json!({"message": {"content": text}, "done": done}));
    let mut all: String = pieces.iter().map(|piece| line(piece, false)).collect();
    all.push_str(&line("", true));
    all.into_bytes()
}

type Api = (&'static str, Framing, fn(&[&str]) -> Vec<u8>);
const ALL: [Api; 5] = [
    ("chat", Framing::Sse, chat),
    ("messages", Framing::Sse, messages),
    ("responses", Framing::Sse, responses),
    ("gemini", Framing::Sse, gemini),
    ("ollama", Framing::Lines, ollama),
];

#[derive(Debug, Default)]
struct Seen {
    out: Vec<u8>,
    judged: Vec<Call>,
    /// What had gone on by then.
    before: Vec<usize>,
    end: Option<CallError>,
}

fn pass(framing: Framing, chunks: &[&[u8]]) -> Seen {
    let mut stream = CallStream::new(Answer { framing, dialect: None }).unwrap().judging_code(true);
    let mut seen = Seen::default();
    for at in 0..=chunks.len() {
        match chunks.get(at) {
            Some(chunk) => stream.push(chunk),
            None => stream.finish(),
        }
        loop {
            match stream.step() {
                Ok(None) => break,
                Ok(Some(Step::Pass(bytes))) => seen.out.extend_from_slice(&bytes),
                Ok(Some(Step::Judge(calls))) => {
                    seen.judged.extend(calls);
                    seen.before.push(seen.out.len());
                    stream.release();
                }
                Err(error) => {
                    seen.end = Some(error);
                    return seen;
                }
            }
        }
    }
    seen
}

fn holds(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

fn blocks(calls: &[Call]) -> Vec<(&str, &str)> {
    calls
        .iter()
        .map(|call| {
            assert_eq!(call.item, Item::Code);
            (call.name.as_str(), call.arguments.as_str())
        })
        .collect()
}

/// The text in pieces of so many letters.
fn pieces(text: &str, size: usize) -> Vec<&str> {
    (0..text.len()).step_by(size).map(|at| &text[at..text.len().min(at + size)]).collect()
}

fn check(what: &str, framing: Framing, bytes: &[u8], chunks: &[&[u8]]) {
    let seen = pass(framing, chunks);
    assert_eq!(seen.end, None, "{what}");
    assert_eq!(blocks(&seen.judged), BLOCKS, "{what}");
    assert_eq!(seen.out, bytes, "{what}");
    let before = &seen.out[..seen.before[0]];
    assert!(!MARKS.iter().any(|mark| holds(before, mark)), "{what}");
}

#[test]
fn in_every_cut_of_the_deltas_of_every_api_a_block_goes_on_as_it_came_and_not_before_it_was_judged() {
    for (name, framing, api) in ALL {
        for cut in 0..=TEXT.len() {
            let (one, two) = TEXT.split_at(cut);
            let bytes = api(&[one, two]);
            check(&format!("{name} {cut}"), framing, &bytes, &[&bytes]);
        }
        for size in 1..8 {
            let bytes = api(&pieces(TEXT, size));
            check(&format!("{name} by {size}"), framing, &bytes, &[&bytes]);
        }
        let bytes = api(&pieces(TEXT, 11));
        for cut in 0..=bytes.len() {
            check(&format!("{name}, bytes {cut}"), framing, &bytes, &[&bytes[..cut], &bytes[cut..]]);
        }
    }
}

#[test]
fn what_goes_on_before_a_block_has_ended_has_nothing_of_it_wherever_it_breaks_off() {
    for (name, framing, api) in ALL {
        let bytes = api(&pieces(TEXT, 5));
        for cut in 0..bytes.len() {
            let mut stream = CallStream::new(Answer { framing, dialect: None }).unwrap().judging_code(true);
            stream.push(&bytes[..cut]);
            let mut out = Vec::new();
            while let Some(Step::Pass(bytes)) = stream.step().unwrap() {
                out.extend_from_slice(&bytes);
            }
            assert!(!MARKS.iter().any(|mark| holds(&out, mark)), "{name} {cut}");
            assert!(bytes.starts_with(&out), "{name} {cut}");
        }
    }
}

#[test]
fn text_goes_on_at_once_and_what_is_no_fence_after_all_too() {
    let mut stream =
        CallStream::new(Answer { framing: Framing::Sse, dialect: None }).unwrap().judging_code(true);
    let delta = |text: &str| sse(&[json!({"choices": [{"index": 0, "delta": {"content": text}}]})]);
    for (text, goes) in [
        ("a\n", true),
        ("  ", true),
        ("`", false),
        ("`", false),
        ("x", true),
        ("y ```z``` \n", true),
        ("```", false),
        ("sh", false),
        ("`", true),
    ] {
        stream.push(&delta(text));
        let step = stream.step().unwrap();
        assert_eq!(matches!(step, Some(Step::Pass(_))), goes, "{text:?} {step:?}");
        assert_eq!(stream.kept().is_empty(), goes, "{text:?}");
    }
    // Nobody judges code: nothing of it is kept.
    let mut free = CallStream::new(Answer { framing: Framing::Sse, dialect: None }).unwrap();
    free.push(&delta("```sh\nrm"));
    assert!(matches!(free.step(), Ok(Some(Step::Pass(_)))));
}

#[test]
fn a_block_is_what_markdown_says_and_what_stands_in_lists_and_quotes_too() {
    for (text, want) in [
        ("```\na", vec![("", "a")]),
        ("```sh", vec![("sh", "")]),
        ("   ```sh\n   a\n  b\n ```", vec![("sh", "a\nb\n")]),
        ("~~~ py `x`\na\n```\n~~~~ \nb", vec![("py", "a\n```\n")]),
        ("````\na\n```\n````", vec![("", "a\n```\n")]),
        ("```\r\na\r\n```\r\n```\rb\r```", vec![("", "a\n"), ("", "b\n")]),
        ("- x\n\n     ```sh\n     a\n     ```\n", vec![("sh", "a\n")]),
        ("10. ```sh\n    a\n    ```\nb\n", vec![("sh", "a\n")]),
        ("- ```sh\n  a\n  ```\nb\n", vec![("sh", "a\n")]),
        ("> ```sh\n> a\n> ```\n", vec![("sh", "a\n")]),
        ("> ```sh\n> a\nb\n", vec![("sh", "a\n")]),
        // Two readings: both are judged.
        ("    ```\n```\na\n```\n", vec![("", ""), ("", "a\n")]),
        // What is no fence for a client, or has ended, hides no block behind it.
        ("- ```text\n  hi\n\n```bash\na\n```\n", vec![("bash", "a\n")]),
        ("1. foo\n   ```text\nx\n```bash\na\n```\n", vec![("bash", "a\n")]),
        ("> - ```text\n> \n> ```bash\n> a\n> ```\n", vec![("bash", "a\n")]),
        ("3 ```text\n```bash\na\n```\n", vec![("bash", "a\n")]),
        ("<!--\n```text\n-->\n```bash\na\n```\n", vec![("bash", "a\n")]),
        ("~~~text\n```bash\na\n```\n~~~\n", vec![("bash", "a\n")]),
        ("\u{feff}```sh\na\n```", vec![("sh", "a\n")]),
        ("\u{c}```{.Bash .x}\na\n```", vec![("bash", "a\n")]),
        ("```b&#97;sh\na\n```", vec![("", "a\n")]),
        ("```sh:x.sh\na\n```\n```c++\nb\n```", vec![("sh", "a\n"), ("c++", "b\n")]),
        ("a ```\nb\n```x`\n``\n~~\n", vec![]),
        ("\u{e9}```\n", vec![]),
        ("```\na\n``` b\n```", vec![("", "a\n``` b\n")]),
    ] {
        let answer = json!({"choices": [{"message": {"content": text}}]}).to_string();
        let (calls, _) = whole_calls(answer.as_bytes(), true).unwrap();
        let found = blocks(&calls);
        assert!(want.iter().all(|block| found.contains(block)), "{text:?}: {found:?}");
        assert_eq!(found.is_empty(), want.is_empty(), "{text:?}: {found:?}");
        assert_eq!(whole_calls(answer.as_bytes(), false).unwrap().0, [], "{text:?}");
    }
}

#[test]
fn each_text_of_an_answer_is_read_for_itself_and_reasoning_is_none() {
    let chunk = |index: u32, text: &str| json!({"choices": [{"index": index, "delta": {"content": text}}]});
    let bytes =
        sse(&[chunk(0, "```sh\nrm"), chunk(1, "```\nls"), chunk(0, " x\n```\n"), chunk(1, " y\n```\n")]);
    let seen = pass(Framing::Sse, &[&bytes]);
    assert_eq!(blocks(&seen.judged), [("sh", "rm x\n"), ("", "ls y\n")]);
    assert_eq!(seen.out, bytes);
    let thinks = json!({"choices": [{"index": 0, "delta": {"reasoning_content": "```sh\nrm"}}]});
    let seen = pass(Framing::Sse, &[&sse(&[thinks])]);
    assert_eq!((seen.judged.len(), seen.end), (0, None));
    let block = "```sh\nrm\n```";
    let text = json!({"type": "text", "text": block});
    for (answer, count) in [
        (json!({"choices": [{"message": {"content": block}}]}), 1),
        (
            json!({"choices": [{"message": {"content": "a", "reasoning": block, "reasoning_content": block}}]}),
            0,
        ),
        (json!({"type": "message", "content": [text]}), 1),
        (json!({"type": "message", "content": [{"type": "thinking", "thinking": block}]}), 0),
        (json!({"instructions": block, "output": [{"type": "message", "content": [text]}]}), 1),
        (json!({"output": [{"type": "reasoning", "summary": [text], "content": [text]}]}), 0),
        (json!({"candidates": [{"content": {"parts": [{"text": "``"}, {"text": "`sh\nrm"}]}}]}), 1),
        (
            json!([{"candidates": [{"content": {"parts": [{"text": "```sh\n"}]}}]}, {"candidates": [{"content": {"parts": [{"text": "rm"}]}}]}]),
            1,
        ),
        (json!({"candidates": [{"content": {"parts": [{"text": block, "thought": true}]}}]}), 0),
        (json!({"message": {"content": block}, "done": true}), 1),
        (json!({"response": block, "done": true}), 1),
        (json!({"choices": [{"text": block}]}), 1),
        (json!({"output": {"message": {"content": [{"text": block}]}}}), 1),
    ] {
        let (calls, _) = whole_calls(answer.to_string().as_bytes(), true).unwrap();
        let blocks: Vec<_> = calls.iter().filter(|call| call.item == Item::Code).collect();
        assert_eq!(blocks.len(), count, "{answer}");
    }
}

#[test]
fn another_text_where_one_is_repeated_is_judged_and_one_that_goes_on_behind_its_end_ends_the_answer() {
    let mut bytes = responses(&["a"]);
    let seen = pass(Framing::Sse, &[&bytes]);
    assert_eq!((seen.judged.len(), seen.end), (0, None));
    bytes.extend(sse(&[json!({"type": "response.completed", "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "```\nrm\n```"}]}]}})]));
    let seen = pass(Framing::Sse, &[&bytes]);
    assert_eq!((blocks(&seen.judged), seen.end), (vec![("", "rm\n")], None));
    let late = [chat(&["```sh\n"]), chat(&["rm"])].concat();
    let seen = pass(Framing::Sse, &[&late]);
    assert_eq!(seen.end, Some(CallError::CodeAmbiguous));
    assert!(!holds(&seen.out, "rm"));
    // Some clients begin with what stands there.
    let begun = sse(&[
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "``"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "`\nrm"}}),
        json!({"type": "content_block_stop", "index": 0}),
    ]);
    let seen = pass(Framing::Sse, &[&begun]);
    assert_eq!(blocks(&seen.judged), [("", "rm")]);
    let part = json!({"type": "response.content_part.added", "item_id": "t", "part": {"text": "x"}});
    assert_eq!(pass(Framing::Sse, &[&sse(&[part])]).end, Some(CallError::CodeAmbiguous));
    // A client may skip an event by its name, and with it the line before a fence.
    let text = |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    let skipped = [sse(&[text("x")]), [b"event: y\n".to_vec(), sse(&[text("\n")])].concat()].concat();
    assert_eq!(pass(Framing::Sse, &[&skipped]).end, Some(CallError::Ambiguous));
}

#[test]
fn a_call_and_a_block_that_come_together_wait_for_one_another() {
    let text = |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    let call = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "exec", "arguments": "rm"}}]}}]});
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
    let bytes = sse(&[text("```\nls"), call, text("\n```\n"), end]);
    let seen = pass(Framing::Sse, &[&bytes]);
    assert_eq!(seen.before, [0]);
    assert_eq!(seen.judged.iter().map(|call| call.item).collect::<Vec<_>>(), [Item::Tool, Item::Code]);
    assert_eq!(seen.out, bytes);
}

#[test]
fn blocks_in_blocks_are_looked_for_so_deep_and_deeper_ones_refused() {
    let read = |depth: usize| {
        let text: String = (0..depth).map(|n| format!("```l{n}\n")).collect();
        let answer = json!({"choices": [{"message": {"content": text + "a"}}]}).to_string();
        whole_calls(answer.as_bytes(), true).map(|(calls, _)| calls.len())
    };
    assert_eq!((read(1).unwrap(), read(5).unwrap()), (1, 5));
    assert!(matches!(read(6), Err(CallError::CodeAmbiguous)));
    assert!(read(20_000).is_err());
}

#[test]
fn limits_of_blocks_hold_on_both_sides() {
    let long = |length: usize| {
        let text = format!("```\n{}\n```\n", "x".repeat(length));
        pass(Framing::Sse, &[&chat(&pieces(&text, 100_000))]).end
    };
    // The end of the line is a part of it, and so is the fence that ends it.
    let room = CODE_MAX_BYTES - "\n```".len();
    assert_eq!(long(room), None);
    assert_eq!(long(room + 1), Some(CallError::CodeTooLong));
    let info = |length: usize| pass(Framing::Sse, &[&chat(&[&format!("```{}", "x".repeat(length))])]).end;
    assert_eq!(info(CODE_MAX_BYTES), None);
    assert_eq!(info(CODE_MAX_BYTES + 1), Some(CallError::CodeTooLong));
    let many = |count: usize| {
        let text: String = (0..count).map(|number| format!("```\n{number}\n```\n")).collect();
        let whole = json!({"choices": [{"message": {"content": text}}]}).to_string();
        let whole = whole_calls(whole.as_bytes(), true).map(|(calls, _)| calls.len());
        (pass(Framing::Sse, &[&chat(&[&text])]).end, whole)
    };
    assert_eq!(many(CODES_MAX), (None, Ok(CODES_MAX)));
    assert_eq!(many(CODES_MAX + 1), (Some(CallError::CodeTooMany), Err(CallError::CodeTooMany)));
}
