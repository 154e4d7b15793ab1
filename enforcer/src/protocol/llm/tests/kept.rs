//! Streams in which two clients find different calls: none of them goes on.

use serde_json::{Value, json};

use crate::protocol::llm::{Answer, Call, CallError, CallStream, Dialect, Framing, Item, Step, whole_calls};

/// What was judged, what went on, and how it ended.
fn pass(framing: Framing, dialect: Option<Dialect>, bytes: &[u8]) -> (Vec<Call>, Vec<u8>, Option<CallError>) {
    let mut stream = CallStream::new(Answer { framing, dialect }).unwrap();
    let (mut judged, mut out) = (Vec::new(), Vec::new());
    stream.push(bytes);
    for last in [false, true] {
        if last {
            stream.finish();
        }
        loop {
            match stream.step() {
                Ok(None) => break,
                Ok(Some(Step::Pass(bytes))) => out.extend_from_slice(&bytes),
                Ok(Some(Step::Judge(calls))) => {
                    judged.extend(calls);
                    stream.release();
                }
                Err(error) => return (judged, out, Some(error)),
            }
        }
    }
    (judged, out, None)
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn chat(call: Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
}

fn piece(text: &str) -> String {
    chat(json!({"index": 0, "function": {"arguments": text}}))
}

fn first(text: &str) -> String {
    chat(json!({"index": 0, "id": "c", "function": {"name": "exec", "arguments": text}}))
}

const END: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n";
const CALL: &str = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"exec","arguments":"rm -rf /srv"}}]}}]}"#;

fn block(index: &str, text: &str) -> String {
    let delta = json!({"type": "input_json_delta", "partial_json": text});
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{delta}}}\n\n"
    )
}

fn block_start() -> String {
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"name\":\"exec\",\"input\":{}}}\n\n".to_owned()
}

const BLOCK_STOP: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";

fn item_done(item: Value) -> String {
    event(&json!({"type": "response.output_item.done", "output_index": 0, "item": item}))
}

/// What it is, the stream, what its path tells, and what ends it.
type Case = (&'static str, String, Option<Dialect>, CallError);

/// Nothing of the text is let on, and nothing of it is judged.
fn check(cases: Vec<Case>) {
    for (what, text, dialect, want) in cases {
        let (judged, out, error) = pass(Framing::Sse, dialect, text.as_bytes());
        assert_eq!(error, Some(want), "{what}: {text}");
        assert!(memchr::memmem::find(&out, b"rm").is_none(), "{what}: {text}");
        assert!(judged.iter().all(|call| !call.arguments.contains("rm")), "{what}: {judged:?}");
    }
}

#[test]
fn lines_that_two_clients_read_in_two_ways_end_the_answer() {
    use CallError::{Ambiguous, BrokenOff, Unreadable};
    let call_end = |call: &str| format!("{call}{END}");
    let ping = |text: &str| block("0", text).replacen("event: content_block_delta", "event: ping", 1);
    check(vec![
        ("all of it is JSON", CALL.to_owned(), Some(Dialect::Chat), Unreadable),
        ("all of it is JSON, in a line", format!("{CALL}\n\n"), None, Unreadable),
        ("a field behind a space", format!(" data: {CALL}\n\n"), None, Unreadable),
        ("CR alone in an event", format!("data:\r {CALL}\n\n"), None, Ambiguous),
        ("CR alone in a comment", format!(": x\rdata: {CALL}\n\n"), None, Ambiguous),
        ("CR alone at its end", format!("data: {CALL}\r\r"), None, Ambiguous),
        ("another end of a line", format!(": x\u{2028}data: {CALL}\u{2028}\u{2028}\n\n"), None, Ambiguous),
        ("one in a name", format!("event: \u{85}data: {CALL}\u{85}\u{85}\n\n"), None, Ambiguous),
        ("one in the data", format!("data: \"\u{2028}data: {CALL}\u{2028}\u{2028}\"\n\n"), None, Ambiguous),
        ("a text that some skip", [block_start(), ping("rm #"), BLOCK_STOP.into()].concat(), None, Ambiguous),
        (
            "an event without its name",
            [block_start(), block("0", "rm").replacen("event: content_block_delta\n", "", 1)].concat(),
            None,
            Ambiguous,
        ),
        ("another name", format!("{}event: x\n{}{END}", first("rm"), piece(" #")), None, Ambiguous),
        ("two names", format!("event: a\nevent: b\n{}{END}", first("rm")), None, Ambiguous),
        ("a mark in the middle", format!("{}\u{feff}{}{END}", first("rm"), piece(" #")), None, Ambiguous),
        ("a mark before a call", format!("\u{feff}{}{END}", first("rm")), None, Ambiguous),
        (
            "on two lines",
            call_end(&format!("data: {}\n\n", CALL.replacen("[{", "[\ndata: {", 1))),
            None,
            Ambiguous,
        ),
        ("without its end", format!("{}{}", first("rm"), piece(" #").trim_end()), None, BrokenOff),
    ]);
    for (text, want) in [
        (format!("{}\n", CALL.replacen(',', ",\n", 1)), Unreadable),
        (format!("x\r{CALL}\n"), Ambiguous),
        (format!("data: {CALL}\n"), Unreadable),
        (format!("\"\u{2028}{CALL}\u{2028}\"\n"), Ambiguous),
        (format!("x\u{2028}x{CALL}\n"), Unreadable),
    ] {
        let (judged, out, error) = pass(Framing::Lines, None, text.as_bytes());
        assert_eq!((judged, out, error), (vec![], vec![], Some(want)), "{text}");
    }
}

#[test]
fn calls_that_two_clients_read_in_two_ways_end_the_answer() {
    use CallError::{Ambiguous, Unreadable};
    let call_end = |call: &str| format!("{call}{END}");
    let folded = |name: &str| call_end(&format!("data: {}\n\n", CALL.replace("tool_calls", name)));
    let choice = |index: &str| piece(" rm").replacen("\"index\":0", &format!("\"index\":{index}"), 1);
    check(vec![
        ("arguments and input", item_done(json!({"type": "custom_tool_call", "name": "exec", "arguments": "{}", "input": "rm -rf /srv"})), None, Ambiguous),
        ("arguments and action", item_done(json!({"type": "local_shell_call", "arguments": "{}", "action": {"command": ["rm"]}})), None, Ambiguous),
        ("function and custom", call_end(&chat(json!({"index": 0, "function": {"name": "a", "arguments": ""}, "custom": {"name": "exec", "input": "rm"}}))), None, Ambiguous),
        ("a call around a call", call_end(&chat(json!({"index": 0, "arguments": "rm", "function": {"name": "a", "arguments": "{}"}}))), None, Ambiguous),
        ("a call and a piece", item_done(json!({"type": "function_call", "name": "exec", "arguments": "rm", "partial_json": ""})), None, Ambiguous),
        ("without a name", call_end(&piece("rm")), None, Ambiguous),
        ("another choice", format!("{}{}{END}", first("rm"), choice("1")), None, Ambiguous),
        ("the number of a block", [block_start(), block("-0", "rm")].concat(), None, Ambiguous),
        ("a block that was there", [
            event(&json!({"type": "message_start", "message": {"content": [{"type": "tool_use", "name": "exec", "input": {}}]}})).replacen("data", "event: message_start\ndata", 1),
            block("0", "rm"),
            BLOCK_STOP.into(),
        ].concat(), None, Ambiguous),
        ("another case", folded("Tool_calls"), None, Ambiguous),
        ("the long s", folded("tool_call\u{17f}"), None, Ambiguous),
        ("the long s, escaped", folded("tool_call\\u017f"), None, Ambiguous),
        ("the same in another case", call_end(&chat(json!({"index": 0, "function": {"name": "exec", "arguments": "ls", "Arguments": "rm"}}))), Some(Dialect::Chat), Ambiguous),
        ("no JSON that begins as some", format!("data: {}\n\n", CALL.replacen('{', "{\"a\":NaN,", 1)), None, Unreadable),
        ("calls in no list", event(&json!({"delta": {"message": {"tool_calls": {"function": {"name": "exec", "arguments": "rm"}}}}})), None, Unreadable),
        ("another API's events", [
            event(&json!({"choices": []})),
            event(&json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "exec", "input": {"c": "rm"}}})),
        ].concat(), None, Ambiguous),
        ("half a pair", call_end(&format!("data: {}\n\n", CALL.replacen("rm", "\\ud800rm", 1))), None, Unreadable),
    ]);
}

#[test]
fn a_number_that_two_clients_read_in_two_ways_ends_the_answer() {
    use CallError::Ambiguous;
    let call_end = |call: &str| format!("{call}{END}");
    let index = |one: &str, two: &str| {
        let at = |index: &str, call: &str| {
            let member = if index.is_empty() { String::new() } else { format!("\"index\":{index},") };
            format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{{member}\"function\":{call}}}]}}}}]}}\n\n"
            )
        };
        let one = at(one, r#"{"name":"exec","arguments":"rm -rf"}"#);
        call_end(&[one, at(two, r#"{"arguments":" /srv"}"#)].concat())
    };
    check(vec![
        ("-0", index("0", "-0"), None, Ambiguous),
        ("0.0", index("0", "0.0"), None, Ambiguous),
        ("1.0", index("1", "1.0"), None, Ambiguous),
        ("1e0", index("1", "1e0"), None, Ambiguous),
        ("00", index("0", "00"), None, Ambiguous),
        ("a string", index("0", "\"0\""), None, Ambiguous),
        ("no number", index("0", ""), None, Ambiguous),
        ("no number, then one", index("", "0"), None, Ambiguous),
        ("no number twice", index("", ""), None, Ambiguous),
        ("null", index("0", "null"), None, Ambiguous),
    ]);
}

#[test]
fn a_call_whose_arguments_are_not_known_is_judged_by_all_that_it_says() {
    let said = |answer: Value| {
        let (calls, _) = whole_calls(answer.to_string().as_bytes(), false).unwrap();
        assert_eq!(calls.len(), 1, "{answer}");
        (calls[0].name.clone(), calls[0].arguments.clone())
    };
    let chat = |call: Value| said(json!({"choices": [{"message": {"tool_calls": [call]}}]}));
    let exec = |arguments: &str| ("exec".to_owned(), arguments.to_owned());
    let custom = json!({"type": "custom", "function": null, "custom": {"name": "exec", "input": "rm"}});
    assert_eq!(chat(custom), exec("rm"));
    assert_eq!(
        said(json!({"tool_calls": [{"name": "exec", "parameters": {"c": "rm"}}]})),
        exec(r#"{"c":"rm"}"#)
    );
    let part = json!({"function_call": {"name": "exec", "args": {"c": "rm"}}});
    assert_eq!(said(json!({"candidates": [{"content": {"parts": [part]}}]})), exec(r#"{"c":"rm"}"#));
    assert!(chat(json!({"function": {"name": "exec", "how": "rm"}})).1.contains("rm"));
    let actions = said(json!({"output": [{"type": "computer_call", "actions": [{"type": "click"}]}]}));
    assert_eq!(actions, ("computer_call".to_owned(), r#"[{"type":"click"}]"#.to_owned()));
    // Nothing is said of what it is to do.
    assert_eq!(chat(json!({"id": "c", "type": "function", "function": {"name": "exec"}})), exec(""));
    let part = json!({"functionCall": {"id": "c", "name": "exec"}});
    assert_eq!(said(json!({"candidates": [{"content": {"parts": [part]}}]})), exec("{}"));
    let custom = json!({"type": "custom_tool_call", "name": "exec", "arguments": "", "input": "rm"});
    assert_eq!(said(json!({ "output": [custom] })), exec("rm"));
    let long = json!({"name": "exec", "how": "x".repeat(300 * 1024)});
    let long = json!({"choices": [{"message": {"tool_calls": [long]}}]}).to_string();
    assert_eq!(whole_calls(long.as_bytes(), false).unwrap_err(), CallError::TooLong);
    for two in [
        json!({"tool_calls": [{"function": {"name": "a", "arguments": "{}"}, "custom": {"name": "b", "input": "rm"}}]}),
        json!({"output": [{"type": "shell_call", "arguments": "{}", "action": {"commands": ["rm"]}}]}),
        json!({"content": [{"type": "tool_use", "name": "a", "input": {}, "arguments": "rm"}]}),
        json!({"content": [{"type": "tool_use", "name": "a", "input": {}, "Input": {"c": "rm"}}]}),
    ] {
        assert_eq!(
            whole_calls(two.to_string().as_bytes(), false).unwrap_err(),
            CallError::Ambiguous,
            "{two}"
        );
    }
    // In pieces, too.
    let piece = |call: Value| event(&json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}));
    let begin = piece(json!({"index": 0, "id": "c", "type": "function", "function": {"name": "exec"}}));
    let more = piece(json!({"index": 0, "function": {"how": "rm"}}));
    let (judged, _, error) = pass(Framing::Sse, None, [&begin, &more, END].concat().as_bytes());
    assert_eq!((judged.len(), error), (1, None));
    assert!(judged[0].arguments.contains("rm"));
}

#[test]
fn what_servers_of_models_send_goes_on_as_it_came() {
    let crlf = |text: String| text.replace('\n', "\r\n");
    let call = format!("{}{}", first("rm"), piece(" -rf"));
    let text = |text: &str| event(&json!({"choices": [{"index": 0, "delta": {"content": text}}]}));
    let alone = event(
        &json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"id": "c", "function": {"name": "exec", "arguments": "rm -rf"}}]}}]}),
    );
    let blocks = [block_start(), block("0", "rm"), block("0", " -rf"), BLOCK_STOP.into()].concat();
    let unnamed: String =
        blocks.lines().filter(|line| !line.starts_with("event")).map(|line| format!("{line}\n")).collect();
    let response = [
        event(
            &json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call", "id": "f", "name": "exec", "arguments": ""}}),
        ),
        event(
            &json!({"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": "rm -rf"}),
        ),
        item_done(json!({"type": "function_call", "id": "f", "name": "exec", "arguments": "rm -rf"})),
        event(
            &json!({"type": "response.completed", "response": {"output": [{"type": "function_call", "name": "exec", "arguments": "rm -rf"}]}}),
        ),
    ];
    for (what, text) in [
        ("CR LF", crlf(format!("{call}{END}"))),
        ("no space", format!("{call}{END}").replace("data: ", "data:")),
        (
            "comments",
            format!(": OPENROUTER PROCESSING\n\n{}: OPENROUTER PROCESSING\n\n:\n\n{call}{END}", text("a")),
        ),
        ("ids", format!("id: 1\nretry: 5\n{call}{END}")),
        ("a mark, and text", format!("\u{feff}{}{call}{END}", text("a"))),
        ("no empty line after the last one", format!("{call}{END}").trim_end().to_owned()),
        ("text without an end", format!("{call}{END}{}", text("a").trim_end())),
        ("ends of lines in a text", format!("{}{call}{END}", text("a\u{2028}b\u{85}c"))),
        ("a call without a number", format!("{alone}{END}")),
        ("two calls of one list of no pieces", format!("event: message\n{alone}event: message\n{END}")),
        ("blocks", blocks),
        ("blocks without names", unnamed),
        ("a response", response.concat()),
        ("a response without ends", [&response[0], &response[1], &response[3]].map(String::as_str).concat()),
        (
            "errors",
            format!("{call}{END}event: error\ndata: {{\"type\":\"overloaded\",\"message\":\"a\"}}\n\n"),
        ),
    ] {
        let (judged, out, error) = pass(Framing::Sse, None, text.as_bytes());
        assert_eq!(error, None, "{what}");
        assert_eq!(String::from_utf8_lossy(&out), text, "{what}");
        assert_eq!(
            judged,
            [Call { item: Item::Tool, name: "exec".to_owned(), arguments: "rm -rf".to_owned() }],
            "{what}"
        );
    }
    // And of others, of whom nothing is known.
    let docker =
        "{\"status\":\"start\",\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"a\"}}\n";
    let rpc = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n";
    for (framing, text) in [(Framing::Lines, docker), (Framing::Sse, rpc), (Framing::Lines, "plain text\n")] {
        assert_eq!(pass(framing, None, text.as_bytes()), (vec![], text.as_bytes().to_vec(), None));
    }
}

#[test]
fn the_path_says_whose_api_it_is() {
    let text = format!("{}{END}", first("ls"));
    let dialect = |path: Option<Dialect>, text: &str| {
        let mut stream = CallStream::new(Answer { framing: Framing::Sse, dialect: path }).unwrap();
        stream.push(text.as_bytes());
        assert!(matches!(stream.step(), Ok(Some(Step::Judge(_)))));
        stream.dialect()
    };
    assert_eq!(dialect(None, &text), Some(Dialect::Chat));
    let stop = BLOCK_STOP.replace("\"index\":0}", "\"index\":0,\"choices\":[]}");
    let text = [block_start(), stop].concat();
    assert_eq!(dialect(Some(Dialect::Anthropic), &text), Some(Dialect::Anthropic));
    assert_eq!(pass(Framing::Sse, None, text.as_bytes()).2, Some(CallError::Ambiguous));
}

/// What takes no more than a moment, however many there are.
#[test]
fn many_calls_are_refused_before_they_are_looked_at() {
    let begun = std::time::Instant::now();
    let many = |element: &str| vec![element; 60_000].join(",");
    let calls = format!("{{\"choices\":[{{\"delta\":{{\"tool_calls\":[{}]}}}}]}}", many("{}"));
    let ends = format!("{{\"choices\":[{}]}}", many("{\"finish_reason\":1}"));
    for text in [calls, ends] {
        let text = format!("data: {text}\n\n");
        assert!(pass(Framing::Sse, None, text.as_bytes()).2.is_some());
    }
    let spaces = format!("[{}{}1]", " ".repeat(1 << 21), "1,".repeat(1 << 20));
    assert!(whole_calls(spaces.as_bytes(), false).is_ok());
    let ends = format!("data: \"{}\"\n\n", "\u{c}".repeat(1 << 21));
    assert_eq!(pass(Framing::Sse, None, ends.as_bytes()).2, Some(CallError::Unreadable));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}
