//! The vendors' SDKs: two turns each, with a tool.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use serde_json::{Value, json};

use enforcer_tests::llm::SIGNATURE;

use super::MASKED;
use super::world::{KEY, Outcome, World, arrives, prompt, script};

struct Sdk {
    name: &'static str,
    command: &'static str,
    /// How the turns end, as the SDK says it.
    ends: [(&'static str, u32); 2],
    /// What it shows of the reasoning.
    reasons: bool,
}

const fn sdk(
    name: &'static str,
    command: &'static str,
    ends: [(&'static str, u32); 2],
    reasons: bool,
) -> Sdk {
    Sdk { name, command, ends, reasons }
}

const SDKS: &[Sdk] = &[
    sdk(
        "Python openai, chat",
        "$PYTHON $CLIENTS/python/sdk.py openai_chat",
        [("tool_calls", 18), ("stop", 18)],
        true,
    ),
    sdk(
        "Python openai, responses",
        "$PYTHON $CLIENTS/python/sdk.py openai_responses",
        [("completed", 18), ("completed", 18)],
        true,
    ),
    sdk(
        "Python anthropic",
        "$PYTHON $CLIENTS/python/sdk.py anthropic_messages",
        [("tool_use", 7), ("end_turn", 7)],
        false,
    ),
    sdk("Python google-genai", "$PYTHON $CLIENTS/python/sdk.py gemini", [("STOP", 18), ("STOP", 18)], true),
    sdk("Node openai, chat", "$NODEJS $NODE/sdk.mjs openaiChat", [("tool_calls", 18), ("stop", 18)], true),
    sdk(
        "Node openai, responses",
        "$NODEJS $NODE/sdk.mjs openaiResponses",
        [("completed", 18), ("completed", 18)],
        true,
    ),
    sdk("Node anthropic", "$NODEJS $NODE/sdk.mjs anthropic", [("tool_use", 7), ("end_turn", 7)], false),
    sdk("Node genai", "$NODEJS $NODE/sdk.mjs gemini", [("STOP", 18), ("STOP", 18)], true),
];

#[test]
fn official_sdks_get_the_whole_stream_but_its_secrets() {
    let world = World::start(MASKED);
    let image = image();
    let picture = world.folder.path().join("image.png");
    std::fs::write(&picture, &image).unwrap();
    for (number, sdk) in SDKS.iter().enumerate() {
        let more = [("PROMPT", prompt()), ("IMAGE", picture.display().to_string())];
        let more = [0, 1].map(|at| (more[at].0, more[at].1.as_str()));
        let outcome = world.run(&format!("sdk{number}"), sdk.command, &more);
        assert_eq!(outcome.code, Some(0), "{}: {outcome}", sdk.name);
        println!("{}", sdk.name);
        world.holds_no_secret(&outcome);
        // One request for each turn: nothing was tried again.
        assert_eq!((outcome.asked().len(), outcome.calls.len()), (2, 2), "{}: {outcome}", sdk.name);
        turns(sdk, &outcome.json());
        requests(sdk, &outcome, &image);
    }
}

/// What begins as a PNG, and goes on as noise (a linear congruence, as good as another).
fn image() -> Vec<u8> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 56) as u8)
    };
    let noise = std::iter::repeat_n((), 20_000).scan(1, |state, ()| next(state));
    b"\x89PNG\r\n\x1a\n".iter().copied().chain(noise).collect()
}

fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the SDK gave piece by piece, and what it put together.
fn turns(sdk: &Sdk, turns: &Value) {
    let script = script();
    let arguments = json!({ "note": arrives(&script.note), "count": 3 });
    let reasoning = if sdk.reasons { arrives(&script.reasoning) } else { String::new() };
    assert_eq!(turns.as_array().map(Vec::len), Some(2), "{}: {turns:#}", sdk.name);
    for (at, text) in [&script.text, &script.last].into_iter().enumerate() {
        let (turn, text) = (&turns[at], arrives(text));
        let what = format!("{}, turn {at}: {turn:#}", sdk.name);
        assert_eq!(turn["text"], text, "{what}");
        assert_eq!(turn["whole"]["text"], text, "{what}");
        assert_eq!(turn["reasoning"], reasoning, "{what}");
        assert_eq!(turn["end"], json!([sdk.ends[at].0, sdk.ends[at].1]), "{what}");
        let calls = turn["whole"]["arguments"].as_array().unwrap();
        assert_eq!(calls.len(), 1 - at, "{what}");
        assert!(calls.iter().all(|call| parsed(call) == arguments), "{what}");
        // Some give calls of tools whole.
        if turn["arguments"] != "" {
            assert_eq!(parsed(&turn["arguments"]), arguments, "{what}");
        }
        for item in turn["done"].as_array().into_iter().flatten() {
            match item["type"].as_str() {
                Some("reasoning") => assert_eq!(item["summary"][0]["text"], reasoning, "{what}"),
                Some("message") => assert_eq!(item["content"][0]["text"], text, "{what}"),
                _ => assert_eq!(parsed(&item["arguments"]), arguments, "{what}"),
            }
        }
    }
}

/// What reached the provider.
fn requests(sdk: &Sdk, outcome: &Outcome, image: &[u8]) {
    let forms = [BASE64_STANDARD.encode(image), BASE64_URL_SAFE.encode(image)];
    let asked = arrives(&prompt());
    for (call, times) in outcome.calls.iter().zip([1, 2]) {
        let whole = call.json().to_string();
        let body = forms.iter().fold(whole, |body, form| body.replace(form, "(the image)"));
        let what = format!("{}: {}", sdk.name, body.chars().take(4_000).collect::<String>());
        assert_eq!(body.matches("(the image)").count(), 1, "the image is another one: {what}");
        let quoted = serde_json::to_string(&asked).unwrap();
        // As the prompt, and as what the tool said.
        assert_eq!(body.matches(quoted.trim_matches('"')).count(), times, "{what}");
        let head = format!("{:?}", call.headers);
        assert!(head.contains(KEY), "{}: {head}", sdk.name);
    }
    // A block that is signed comes back as it was said.
    if sdk.name.contains("anthropic") {
        let block = &outcome.asked()[1]["messages"][1]["content"][0];
        let said = json!({ "type": "thinking", "thinking": script().thinking, "signature": SIGNATURE });
        assert_eq!(*block, said, "{}", sdk.name);
    }
}
