//! What comes out at the clients' side of the proxy, byte for byte: nothing of it is a secret,
//! neither as it stands nor put together over the pieces, and the rest is as it was said.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use enforcer_tests::llm::{SIGNATURE, Script};
use enforcer_tests::origin::token;
use enforcer_tests::search::Needle;
use serde_json::{Value, json};

use super::MASKED;
use super::world::{REGISTERED, TYPED, World, arrives, prompt, script, typed_token};

/// Sends what comes by its standard input, and shows what comes back at once.
const CURL: &str = "curl -sSN --data-binary @- -H 'Content-Type: application/json'";

/// A question by its URL and body, and where the answer has its text and its arguments.
struct Case {
    url: &'static str,
    body: Value,
}

fn cases() -> Vec<Case> {
    let case = |url, body| Case { url, body };
    let messages = json!([{ "role": "user", "content": prompt() }]);
    let function = json!({ "type": "function", "function": { "name": "lookup" } });
    let chat =
        |stream: bool| json!({ "model": "m", "stream": stream, "messages": messages, "tools": [function] });
    let responses = |stream: bool| {
        let tool = json!({ "type": "function", "name": "lookup", "parameters": {} });
        json!({ "model": "m", "stream": stream, "input": messages, "tools": [tool] })
    };
    let anthropic = |stream: bool| {
        let tool = json!({ "name": "lookup", "input_schema": { "type": "object" } });
        let thinking = json!({ "type": "enabled", "budget_tokens": 1024 });
        json!({
            "model": "m", "max_tokens": 4096, "stream": stream, "messages": messages, "tools": [tool],
            "thinking": thinking,
        })
    };
    let gemini = json!({
        "contents": [{ "role": "user", "parts": [{ "text": prompt() }] }],
        "tools": [{ "functionDeclarations": [{ "name": "lookup" }] }],
    });
    vec![
        case("https://api.openai.com/v1/chat/completions", chat(true)),
        case("https://api.openai.com/v1/chat/completions", chat(false)),
        case("https://api.openai.com/v1/responses", responses(true)),
        case("https://api.openai.com/v1/responses", responses(false)),
        case("https://api.anthropic.com/v1/messages", anthropic(true)),
        case("https://api.anthropic.com/v1/messages", anthropic(false)),
        case(
            "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse",
            gemini.clone(),
        ),
        case(
            "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent",
            gemini.clone(),
        ),
        case("https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", gemini),
        case("https://ollama.com/api/chat", chat(true)),
    ]
}

/// The objects of an answer: of events, of lines, of an array, or the whole.
fn objects(body: &str) -> Vec<Value> {
    if let Ok(value) = serde_json::from_str(body) {
        return match value {
            Value::Array(all) => all,
            one => vec![one],
        };
    }
    let lines = body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("event: ") && *line != "[DONE]");
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// All strings that stand at the same place of objects of the same kind, one after the other.
fn assembled(objects: &[Value]) -> BTreeMap<String, String> {
    fn walk(place: String, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::String(text) => into.entry(place).or_default().push_str(text),
            Value::Array(all) => all.iter().for_each(|it| walk(format!("{place}[]"), it, into)),
            Value::Object(all) => all.iter().for_each(|(key, it)| walk(format!("{place}.{key}"), it, into)),
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    for object in objects {
        walk(object["type"].as_str().unwrap_or_default().to_owned(), object, &mut all);
    }
    all
}

/// Ends of the places where text that was said in pieces or as a whole stands.
const TEXTS: [&str; 6] = [".content", ".text", ".delta", ".delta.text", ".delta.content", ".output_text"];

#[test]
fn no_byte_of_an_answer_is_a_secrets_in_any_version_of_http() {
    let world = World::start(MASKED);
    let script = script();
    for (number, case) in cases().into_iter().enumerate() {
        let curl = |version: &str| format!("printf '%s' \"$BODY\" | {CURL} {version} '{}'", case.url);
        let mut commands = vec![curl("--http1.1"), curl("--http2")];
        if case.url.ends_with("/responses") {
            commands.push("$PYTHON $CLIENTS/python/responses_websocket.py".to_owned());
        }
        for command in commands {
            let outcome = world.run(&format!("raw{number}"), &command, &[("BODY", &case.body.to_string())]);
            let what = format!("{command} {}: {outcome}", case.url);
            // A WebSocket is a request, and then a message.
            let calls = outcome.calls.iter().filter(|call| !call.body.is_empty()).count();
            assert_eq!((outcome.code, calls), (Some(0), 1), "{what}");
            world.holds_no_secret(&outcome);
            let assembled = assembled(&objects(&outcome.out));
            for secret in [token(), REGISTERED.to_owned()] {
                let needle = Needle::new(&secret);
                for (place, text) in &assembled {
                    assert_eq!(needle.found_in(text.as_bytes()), None, "{place} of {what}");
                }
            }
            let text = arrives(&script.text);
            let found = |(place, found): (&String, &String)| {
                TEXTS.iter().any(|end| place.ends_with(end)) && found.contains(&text)
            };
            assert!(assembled.iter().any(found), "no place has the whole text: {assembled:#?}\n{what}");
        }
    }
}

/// An image arrives as it is (the SDKs show it), but not with a value in it that is known.
#[test]
fn an_image_with_a_known_value_in_it_does_not_leave() {
    let world = World::start(MASKED);
    for (before, (name, alphabet)) in
        [("standard", BASE64_STANDARD), ("URL-safe", BASE64_URL_SAFE)].into_iter().cycle().take(6).enumerate()
    {
        let noise: Vec<u8> =
            (0..6_000 + before).map(|at| u8::try_from(((at * at) >> 3) & 0xff).unwrap_or_default()).collect();
        let image = [b"\x89PNG\r\n\x1a\n", &noise[..], TYPED.as_bytes(), &noise].concat();
        let source = json!({ "type": "base64", "media_type": "image/png", "data": alphabet.encode(image) });
        let content =
            json!([{ "type": "image", "source": source }, { "type": "text", "text": "What is it?" }]);
        let messages = json!([{ "role": "user", "content": content }]);
        let body = json!({ "model": "m", "max_tokens": 4096, "messages": messages }).to_string();
        let file = world.folder.path().join("body.json");
        std::fs::write(&file, body).unwrap();
        let command = format!("{CURL} https://api.anthropic.com/v1/messages < {}", file.display());
        let outcome = world.run(&format!("image{before}"), &command, &[]);
        println!("{name} at {before}: {} of {} bytes", outcome.out.len(), outcome.calls.len());
        world.holds_no_secret(&outcome);
    }
}

/// What is signed is not changed: an answer that has a secret in it ends there.
#[test]
fn a_secret_in_thinking_that_is_signed_ends_the_answer() {
    let thinking = format!("they want {} or {REGISTERED}", token());
    let world = World::start_with(MASKED, Script { thinking, ..script() });
    let streamed = |case: &Case| case.url.contains("anthropic") && case.body["stream"] == true;
    for (number, case) in cases().into_iter().filter(streamed).enumerate() {
        let command = format!("printf '%s' \"$BODY\" | {CURL} '{}'", case.url);
        let outcome = world.run(&format!("signed{number}"), &command, &[("BODY", &case.body.to_string())]);
        world.holds_no_secret(&outcome);
        assert!(!outcome.out.contains("end_turn") && !outcome.out.contains("tool_use"), "{outcome}");
    }
}

/// Nor is a block that comes back: changed it would be refused by who signed it.
#[test]
fn a_secret_in_signed_thinking_that_comes_back_does_not_leave() {
    let world = World::start(MASKED);
    for (job, thought, reaches) in [("clean", "what the user wants", 1), ("secret", &*typed_token(), 0)] {
        let block = json!({ "type": "thinking", "thinking": thought, "signature": SIGNATURE });
        let messages = json!([
            { "role": "user", "content": "Hello." },
            { "role": "assistant", "content": [block, { "type": "text", "text": "Hello!" }] },
            { "role": "user", "content": prompt() },
        ]);
        let body = json!({ "model": "m", "max_tokens": 4096, "stream": true, "messages": messages });
        let command = format!("printf '%s' \"$BODY\" | {CURL} https://api.anthropic.com/v1/messages");
        let outcome = world.run(job, &command, &[("BODY", &body.to_string())]);
        assert_eq!(outcome.calls.len(), reaches, "{outcome}");
        world.holds_no_secret(&outcome);
        for call in &outcome.calls {
            assert_eq!(call.json()["messages"][1], body["messages"][1], "{outcome}");
        }
    }
}
