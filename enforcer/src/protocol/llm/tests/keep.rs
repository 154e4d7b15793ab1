//! Tool calls are kept back until they are judged, and go on as they came.

use serde_json::{Value, json};

use crate::protocol::llm::{
    Answer, CALL_MAX_BYTES, CALLS_MAX, Call, CallError, CallStream, Dialect, Framing, Item, KEPT_MAX_BYTES,
    Step, whole_calls,
};

/// What stands in a call and nowhere else.
const MARKS: [&str; 4] = ["rm -rf", "mybash", "call_1", "other_tool"];

fn sse(events: &[Value]) -> Vec<u8> {
    let named = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    events.iter().map(named).collect::<String>().into_bytes()
}

fn arguments() -> String {
    json!({ "command": "rm -rf /" }).to_string()
}

/// A few letters an event.
fn pieces(text: &str) -> Vec<&str> {
    (0..text.len()).step_by(5).map(|at| &text[at..text.len().min(at + 5)]).collect()
}

fn chat() -> Vec<u8> {
    let chunk = |delta: Value, end: Value| json!({"id": "c", "model": "m1", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]});
    let call = |call: Value| chunk(json!({ "tool_calls": [call] }), Value::Null);
    let mut events = vec![chunk(json!({"role": "assistant", "content": "first"}), Value::Null)];
    for index in 0..2 {
        let name = ["mybash", "other_tool"][index];
        events.push(call(json!({"index": index, "id": "call_1", "type": "function"})));
        events.push(call(json!({"index": index, "function": {"name": name, "arguments": ""}})));
        for piece in pieces(&arguments()) {
            events.push(call(json!({"index": index, "function": {"arguments": piece}})));
        }
    }
    events.push(chunk(json!({}), "tool_calls".into()));
    events.push(json!({"id": "c", "choices": [], "usage": {"total_tokens": 1}}));
    let mut all = sse(&events);
    all.extend(b": a comment\n\ndata: [DONE]\n\n");
    all
}

fn messages() -> Vec<u8> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "m", "model": "m1", "content": []}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "first"}}),
        json!({"type": "content_block_stop", "index": 0}),
    ];
    for (index, name) in [(1, "mybash"), (2, "other_tool")] {
        let block = json!({"type": "tool_use", "id": "call_1", "name": name, "input": {}});
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.push(json!({"type": "ping"}));
        for piece in pieces(&arguments()) {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}));
    events.push(json!({"type": "message_stop"}));
    sse(&events)
}

fn responses() -> Vec<u8> {
    let item = |index: usize, full: bool| {
        let arguments = if full { arguments() } else { String::new() };
        let name = ["mybash", "other_tool"][index];
        json!({"type": "function_call", "id": format!("fc_{index}"), "call_id": "call_1", "name": name, "arguments": arguments})
    };
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": "r", "model": "m1", "output": []}}),
        json!({"type": "response.output_text.delta", "item_id": "t", "output_index": 9, "content_index": 0, "delta": "first"}),
    ];
    for index in 0..2 {
        let at = |kind: &str, key: &str, value: Value| json!({"type": kind, "item_id": format!("fc_{index}"), "output_index": index, key: value});
        events.push(at("response.output_item.added", "item", item(index, false)));
        for piece in pieces(&arguments()) {
            events.push(at("response.function_call_arguments.delta", "delta", piece.into()));
        }
        events.push(at("response.function_call_arguments.done", "arguments", arguments().into()));
        events.push(at("response.output_item.done", "item", item(index, true)));
    }
    let output = [item(0, true), item(1, true)];
    events.push(json!({"type": "response.completed", "response": {"id": "r", "output": output}}));
    sse(&events)
}

fn gemini() -> Vec<u8> {
    let event = |parts: Value| json!({"candidates": [{"content": {"parts": parts}}], "modelVersion": "m1"});
    let call =
        |name: &str| json!({"functionCall": {"id": "call_1", "name": name, "args": {"command": "rm -rf /"}}});
    sse(&[
        event(json!([{"text": "first"}])),
        event(json!([{"text": "then"}, call("mybash")])),
        event(json!([call("other_tool")])),
        event(json!([{"text": ""}])),
    ])
}

fn ollama() -> Vec<u8> {
    let line = |message: Value, done: bool| {
        format!("{}\n", json!({"model": "m1", "message": message, "done": done}))
    };
    let call = |name: &str| json!({"function": {"name": name, "arguments": {"command": "rm -rf /"}}, "id": "call_1"});
    let calls = json!({"content": "", "tool_calls": [call("mybash"), call("other_tool")]});
    [line(json!({"content": "first"}), false), line(calls, false), line(json!({"content": ""}), true)]
        .concat()
        .into_bytes()
}

fn stream(framing: Framing) -> CallStream {
    CallStream::new(Answer { framing, dialect: None }).unwrap()
}

/// All that went on, and what was judged, with what had gone on by then.
#[derive(Debug, Default)]
struct Seen {
    out: Vec<u8>,
    judged: Vec<(Vec<Call>, usize)>,
}

fn pass(framing: Framing, chunks: &[&[u8]]) -> (Seen, Result<(), CallError>) {
    let (mut stream, mut seen) = (stream(framing), Seen::default());
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
                    seen.judged.push((calls, seen.out.len()));
                    stream.release();
                }
                Err(error) => return (seen, Err(error)),
            }
        }
    }
    (seen, Ok(()))
}

fn all() -> [(&'static str, Framing, Vec<u8>); 5] {
    [
        ("chat", Framing::Sse, chat()),
        ("messages", Framing::Sse, messages()),
        ("responses", Framing::Sse, responses()),
        ("gemini", Framing::Sse, gemini()),
        ("ollama", Framing::Lines, ollama()),
    ]
}

fn holds(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

#[test]
fn in_every_cut_of_every_api_a_call_goes_on_as_it_came_and_not_before_it_was_judged() {
    for (name, framing, bytes) in all() {
        for cut in 0..=bytes.len() {
            let (seen, ended) = pass(framing, &[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(ended, Ok(()), "{name} {cut}");
            assert_eq!(seen.out, bytes, "{name} {cut}");
            let calls: Vec<&Call> = seen.judged.iter().flat_map(|(calls, _)| calls).collect();
            assert_eq!(calls.len(), 2, "{name} {cut}");
            for (call, tool) in calls.iter().zip(["mybash", "other_tool"]) {
                assert_eq!((call.name.as_str(), &call.arguments), (tool, &arguments()), "{name} {cut}");
            }
            let before = &seen.out[..seen.judged[0].1];
            assert!(holds(before, "first"), "{name} {cut}");
            assert!(!MARKS.iter().any(|mark| holds(before, mark)), "{name} {cut}");
        }
    }
}

#[test]
fn what_goes_on_before_a_call_is_whole_has_nothing_of_it_wherever_it_breaks_off() {
    for (name, framing, bytes) in all() {
        for cut in 0..bytes.len() {
            let mut stream = stream(framing);
            stream.push(&bytes[..cut]);
            let mut out = Vec::new();
            while let Some(step) = stream.step().unwrap() {
                match step {
                    Step::Pass(bytes) => out.extend_from_slice(&bytes),
                    Step::Judge(_) => break,
                }
            }
            assert!(!MARKS.iter().any(|mark| holds(&out, mark)), "{name} {cut}");
            assert!(bytes.starts_with(&out), "{name} {cut}");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_in_a_call_ends_without_it() {
    for (name, framing, bytes) in [("chat", Framing::Sse, chat()), ("messages", Framing::Sse, messages())] {
        let at = memchr::memmem::find(&bytes, b"mybash").unwrap() + 200;
        let (seen, ended) = pass(framing, &[&bytes[..at]]);
        assert_eq!(ended, Err(CallError::BrokenOff), "{name}");
        assert!(!MARKS.iter().any(|mark| holds(&seen.out, mark)), "{name}");
    }
}

fn chat_pieces(pieces: &[Value]) -> Vec<u8> {
    let chunk = |call: &Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]});
    let mut events: Vec<Value> = pieces.iter().map(chunk).collect();
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
    sse(&events)
}

#[test]
fn who_says_a_call_in_two_ways_is_not_believed() {
    let first = json!({"index": 0, "function": {"name": "a", "arguments": "ls"}});
    let late = [
        chat_pieces(std::slice::from_ref(&first)),
        chat_pieces(&[json!({"index": 0, "function": {"arguments": "; rm"}})]),
    ];
    let two_names = [first.clone(), json!({"index": 0, "function": {"name": "b", "arguments": ""}})];
    let twice = br#"data: {"choices":[],"choices":[{"delta":{"tool_calls":[{"function":{"name":"x"}}]}}]}

"#;
    let other = |kind: &str, key: &str, value: Value| json!({"type": kind, "output_index": 0, key: value});
    let item = |arguments: &str| json!({"type": "function_call", "name": "a", "arguments": arguments});
    let other_done = sse(&[
        other("response.output_item.added", "item", item("")),
        other("response.function_call_arguments.delta", "delta", "ls".into()),
        other("response.output_item.done", "item", item("rm")),
    ]);
    let stated = json!({"type": "tool_use", "name": "a", "input": {"command": "ls"}});
    let two_inputs = sse(&[
        json!({"type": "content_block_start", "index": 0, "content_block": stated}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"partial_json": "{\"command\":\"rm\"}"}}),
        json!({"type": "content_block_stop", "index": 0}),
    ]);
    for bytes in [late.concat(), chat_pieces(&two_names), twice.to_vec(), other_done, two_inputs] {
        let (seen, ended) = pass(Framing::Sse, &[&bytes]);
        assert_eq!(ended, Err(CallError::Ambiguous), "{}", String::from_utf8_lossy(&bytes));
        assert!(!holds(&seen.out, "rm"));
    }
}

/// At the end a response says all of its calls once more: those that were judged, and no other.
#[test]
fn another_call_among_those_that_are_repeated_is_judged() {
    let item = |name: &str| json!({"type": "function_call", "name": name, "arguments": "{}"});
    let done = json!({"type": "response.output_item.done", "output_index": 0, "item": item("a")});
    for (again, judged) in [(vec!["a"], 1), (vec!["a", "a"], 2), (vec!["a", "b"], 2), (vec![], 1)] {
        let output: Vec<Value> = again.iter().map(|name| item(name)).collect();
        let bytes =
            sse(&[done.clone(), json!({"type": "response.completed", "response": {"output": output}})]);
        let (seen, ended) = pass(Framing::Sse, &[&bytes]);
        assert_eq!(ended, Ok(()));
        assert_eq!(seen.judged.iter().map(|(calls, _)| calls.len()).sum::<usize>(), judged, "{again:?}");
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let long = |length: usize| {
        let half = "x".repeat(length / 2);
        let rest = "x".repeat(length - half.len() - 1);
        let piece =
            |name: &str, text: &str| json!({"index": 0, "function": {"name": name, "arguments": text}});
        pass(Framing::Sse, &[&chat_pieces(&[piece("n", &half), piece("", &rest)])]).1
    };
    assert_eq!(long(CALL_MAX_BYTES), Ok(()));
    assert_eq!(long(CALL_MAX_BYTES + 1), Err(CallError::TooLong));
    let many = |count: usize| {
        let calls: Vec<Value> = (0..count)
            .map(|index| json!({"index": index, "function": {"name": "n", "arguments": ""}}))
            .collect();
        pass(Framing::Sse, &[&chat_pieces(&calls)]).1
    };
    assert_eq!(many(CALLS_MAX), Ok(()));
    assert_eq!(many(CALLS_MAX + 1), Err(CallError::TooMany));
    let kept = |length: usize| {
        let begin = chat_pieces(&[json!({"index": 0, "function": {"name": "n", "arguments": ""}})]);
        let end = memchr::memmem::find(&begin, b"\n\n").unwrap() + 2;
        let (first, last) = begin.split_at(end);
        let comment = [b":".to_vec(), vec![b'x'; 1024 * 1024 - 3], b"\n\n".to_vec()].concat();
        let mut all = first.to_vec();
        let room = length - begin.len();
        (0..room / comment.len()).for_each(|_| all.extend_from_slice(&comment));
        let rest = room % comment.len();
        all.extend([b":".to_vec(), vec![b'x'; rest - 3], b"\n\n".to_vec()].concat());
        all.extend_from_slice(last);
        assert_eq!(all.len(), length);
        pass(Framing::Sse, &[&all]).1
    };
    assert_eq!(kept(KEPT_MAX_BYTES), Ok(()));
    assert_eq!(kept(KEPT_MAX_BYTES + 1), Err(CallError::TooLong));
}

#[test]
fn what_cannot_be_read_is_not_let_on_where_a_model_speaks() {
    let known = |text: &[u8]| {
        let mut stream =
            CallStream::new(Answer { framing: Framing::Sse, dialect: Some(Dialect::Chat) }).unwrap();
        stream.push(text);
        stream.step()
    };
    assert_eq!(known(b"data: {\"a\":NaN}\n\n"), Err(CallError::Unreadable));
    assert!(matches!(known(b"data: {\"a\":1}\n\n"), Ok(Some(Step::Pass(_)))));
    let other = b"data: no model at all\n\n: x\n\ndata: 1";
    let (seen, ended) = pass(Framing::Sse, &[other]);
    assert_eq!((seen.out.as_slice(), ended), (&other[..], Ok(())));
    let partial = json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "a", "willContinue": true}}]}}]});
    assert_eq!(pass(Framing::Sse, &[&sse(&[partial])]).1, Err(CallError::Unreadable));
}

#[test]
fn calls_of_an_answer_in_one_piece_are_found_in_each_api() {
    let function = json!({"name": "mybash", "arguments": arguments()});
    let input = json!({"command": "rm -rf /"});
    for answer in [
        json!({"model": "m1", "choices": [{"message": {"tool_calls": [{"id": "c", "function": function}]}}]}),
        json!({"model": "m1", "choices": [{"message": {"function_call": function}}]}),
        json!({"model": "m1", "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "name": "mybash", "input": input}]}),
        json!({"model": "m1", "output": [{"type": "function_call", "name": "mybash", "arguments": arguments()}]}),
        json!({"modelVersion": "m1", "candidates": [{"content": {"parts": [{"functionCall": {"name": "mybash", "args": input}}]}}]}),
        json!([{"candidates": [{"content": {"parts": [{"functionCall": {"name": "mybash", "args": input}}]}}]}]),
        json!({"output": {"message": {"content": [{"toolUse": {"name": "mybash", "input": input}}]}}}),
        json!({"model": "m1", "message": {"tool_calls": [{"function": {"name": "mybash", "arguments": input}}]}, "done": true}),
    ] {
        let (calls, model) = whole_calls(answer.to_string().as_bytes(), false).unwrap();
        assert_eq!(
            calls,
            [Call { item: Item::Tool, name: "mybash".to_owned(), arguments: arguments() }],
            "{answer}"
        );
        assert!(model.is_none_or(|model| model == "m1"));
    }
    assert_eq!(whole_calls(b"no JSON", false).unwrap_err(), CallError::Unreadable);
    assert_eq!(whole_calls(br#"{"choices":[{"message":{"content":"a"}}]}"#, false).unwrap(), (vec![], None));
}
