//! Which answers are read event by event, and how events stand in them.

use http::{HeaderMap, Method, header};

use super::json::Doc;
use super::shape::Dialect;

/// How events stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    Lines,
    /// The elements of one JSON list, one after another.
    List,
    /// AWS's `application/vnd.amazon.eventstream`.
    Frames,
    /// Each message of a WebSocket.
    Messages,
}

/// An answer that is read event by event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub framing: Framing,
    /// What its path says; its events may say otherwise.
    pub dialect: Option<Dialect>,
}

impl Answer {
    /// What the answer to a request is, by the path that was asked for and the answer's type.
    /// Every stream of server-sent events or of lines is read, since a gateway serves models anywhere.
    pub fn of(path: &str, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let dialect = dialect(path);
        let framing = match (kind.as_str(), dialect) {
            ("text/event-stream", _) => Framing::Sse,
            ("application/vnd.amazon.eventstream", _) if is_bedrock(path) => Framing::Frames,
            (
                "application/x-ndjson"
                | "application/ndjson"
                | "application/jsonl"
                | "application/x-jsonl"
                | "application/x-jsonlines"
                | "application/stream+json",
                _,
            ) => Framing::Lines,
            ("application/json", Some(Dialect::Gemini)) if is_gemini_stream(path) => Framing::List,
            _ => return None,
        };
        Some(Self { framing, dialect })
    }

    /// What the messages of a WebSocket are.
    pub fn of_websocket(path: &str) -> Option<Self> {
        let dialect = dialect(path).filter(|dialect| *dialect == Dialect::Responses);
        dialect.map(|_| Self { framing: Framing::Messages, dialect })
    }
}

/// Whether a request is one to a model, whose body is JSON with prompts and files.
pub fn asks_model(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    method == Method::POST && says_whole(path, headers)
}

/// Whether a body is JSON of a model's API, in one piece.
pub fn says_whole(path: &str, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("application/json") && dialect(path).is_some()
}

/// Whether a body is JSON, by any type that it has.
pub fn says_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().filter_map(|kind| kind.to_str().ok()).any(|kind| {
        let kind = kind.trim_start().to_ascii_lowercase();
        let essence = kind.split(';').next().unwrap_or_default().trim_end();
        kind.starts_with("application/json") || essence == "text/json" || essence.ends_with("+json")
    })
}

/// Whose API an answer is of, also one that is fetched later, by the path that it is kept at.
pub fn of_model(path: &str) -> Option<Dialect> {
    let has = |part: &str| path.contains(part);
    dialect(path).or_else(|| match () {
        () if has("/responses/") || has("/threads/") => Some(Dialect::Responses),
        () if has("/chat/completions/") => Some(Dialect::Chat),
        () if has("/messages/batches/") => Some(Dialect::Anthropic),
        () => None,
    })
}

/// Whose API an answer in one piece is of, by how it is built.
pub fn built_as(answer: &[u8]) -> Option<Dialect> {
    let doc = Doc::parse(answer).ok()?;
    let has = |key: &str| doc.get(Doc::ROOT, key).is_some();
    let says = |key: &str, what: &str| doc.text(Doc::ROOT, key).is_some_and(|text| *text == *what.as_bytes());
    match () {
        () if !doc.is_object(Doc::ROOT) => None,
        () if has("choices") => Some(Dialect::Chat),
        () if has("candidates") => Some(Dialect::Gemini),
        () if says("object", "response") || has("required_action") => Some(Dialect::Responses),
        () if says("type", "message") && has("content") => Some(Dialect::Anthropic),
        () if has("stopReason") => Some(Dialect::Converse),
        () if has("message") && has("done") => Some(Dialect::Ollama),
        () => None,
    }
}

/// Whether a text is one whole value.
pub fn is_value(text: &[u8]) -> bool {
    Doc::parse(text).is_ok_and(|doc| doc.is_object(Doc::ROOT))
}

/// Whether something in a text looks like a tool call of an API, where it cannot be read.
pub fn may_call(text: &[u8]) -> bool {
    const SIGNS: [&[u8]; 5] =
        [b"\"tool_calls\"", b"\"functioncall\"", b"\"tooluse\"", b"tool_use\"", b"_call\""];
    let text = folded(text);
    SIGNS.iter().any(|sign| memchr::memmem::find(&text, sign).is_some())
}

/// As a client may read names that is not exact about them: escaped, and in any case.
fn folded(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\\', 0xc5, rest) {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let code = rest.strip_prefix(b"\\u").and_then(|after| after.get(..4));
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::try_from(u16::from_str_radix(digits, 16).ok()?).ok());
        let (byte, length) = match code {
            Some(code) if code.is_ascii_alphanumeric() || code == b'_' => (code, 6),
            // U+017F, which is an `s` to some.
            _ if rest.starts_with(&[0xc5, 0xbf]) => (b's', 2),
            _ if rest.get(..6).is_some_and(|code| code.eq_ignore_ascii_case(b"\\u017f")) => (b's', 6),
            _ => (rest[0], 1),
        };
        plain.push(byte);
        rest = &rest[length..];
    }
    plain.extend_from_slice(rest);
    plain.make_ascii_lowercase();
    plain
}

/// Whether the API of a model is spoken there in messages of a WebSocket.
pub fn speaks_messages(path: &str) -> bool {
    let gemini = path.starts_with("/ws/google.") || path.ends_with("/BidiGenerateContent");
    gemini || Answer::of_websocket(path).is_some()
}

/// Whether a method of gRPC is one in whose answer a model may call tools.
pub fn speaks_grpc(path: &str) -> bool {
    const METHODS: [&str; 5] =
        ["GenerateContent", "StreamGenerateContent", "BidiGenerateContent", "RawPredict", "StreamRawPredict"];
    let mut parts = path.rsplit('/');
    let (method, service) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    METHODS.contains(&method) && service.starts_with("google.")
}

/// Whose API a request speaks, if it asks a model something.
pub fn api(method: &Method, path: &str, headers: &HeaderMap) -> Option<Dialect> {
    asks_model(method, path, headers).then(|| dialect(path)).flatten()
}

/// Whether a request to a model asks for an answer in server-sent events.
pub fn asks_for_events(dialect: Dialect, path: &str, query: Option<&str>, body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Asked {
        #[serde(default)]
        stream: bool,
    }
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Anthropic => {
            serde_json::from_slice::<Asked>(body).is_ok_and(|asked| asked.stream)
        }
        Dialect::Gemini => {
            is_gemini_stream(path) && query.is_some_and(|query| query.split('&').any(|it| it == "alt=sse"))
        }
        Dialect::Converse | Dialect::Ollama => false,
    }
}

/// Whose API is spoken at a path.
pub fn speaks(path: &str) -> Option<Dialect> {
    dialect(path)
}

/// By the end of the path: what stands before it is the gateway's.
fn dialect(path: &str) -> Option<Dialect> {
    let path = path.trim_end_matches('/');
    let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
    if ends(&["/chat/completions", "/completions"]) {
        Some(Dialect::Chat)
    } else if ends(&["/responses", "/responses/compact", "/realtime"]) {
        Some(Dialect::Responses)
    } else if ends(&["/messages", "/messages/count_tokens", ":rawPredict", ":streamRawPredict", "/complete"])
    {
        Some(Dialect::Anthropic)
    } else if ends(&[":streamGenerateContent", ":generateContent", ":countTokens"]) {
        Some(Dialect::Gemini)
    } else if is_bedrock(path) {
        Some(Dialect::Converse)
    } else if ends(&["/api/chat", "/api/generate"]) {
        Some(Dialect::Ollama)
    } else {
        None
    }
}

fn is_gemini_stream(path: &str) -> bool {
    path.ends_with(":streamGenerateContent")
}

fn is_bedrock(path: &str) -> bool {
    let stream = path.ends_with("/invoke-with-response-stream") || path.ends_with("/converse-stream");
    stream || path.contains("/model/") && (path.ends_with("/invoke") || path.ends_with("/converse"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(path: &str, kind: &'static str) -> Option<(Framing, Option<Dialect>)> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Answer::of(path, &headers).map(|answer| (answer.framing, answer.dialect))
    }

    #[test]
    fn a_stream_of_events_is_asked_for_in_the_body_or_in_the_address() {
        let gemini = "/v1beta/models/g:streamGenerateContent";
        for (dialect, path, query, body, want) in [
            (Dialect::Chat, "/v1/chat/completions", None, r#"{"stream":true,"n":1}"#, true),
            (Dialect::Responses, "/v1/responses", None, r#"{"n":[{"stream":false}],"stream":true}"#, true),
            (Dialect::Anthropic, "/v1/messages", Some("beta=true"), r#"{"stream": true}"#, true),
            (Dialect::Anthropic, "/v1/messages", None, r#"{"stream":false}"#, false),
            (Dialect::Anthropic, "/v1/messages", None, r#"{"tools":[{"stream":true}]}"#, false),
            (Dialect::Chat, "/v1/chat/completions", None, r#"{"stream":true"#, false),
            (Dialect::Gemini, gemini, Some("alt=sse"), "{}", true),
            (Dialect::Gemini, gemini, Some("key=1&alt=sse"), "{}", true),
            (Dialect::Gemini, gemini, None, "{}", false),
            (Dialect::Gemini, "/v1beta/models/g:generateContent", Some("alt=sse"), "{}", false),
            (Dialect::Ollama, "/api/chat", None, r#"{"stream":true}"#, false),
        ] {
            assert_eq!(asks_for_events(dialect, path, query, body.as_bytes()), want, "{path} {body}");
        }
    }

    #[test]
    fn answers_are_known_by_path_and_type() {
        let sse = "text/event-stream; charset=utf-8";
        for (path, dialect) in [
            ("/v1/chat/completions", Dialect::Chat),
            ("/openai/deployments/x/chat/completions", Dialect::Chat),
            ("/proxy/v1/responses", Dialect::Responses),
            ("/backend-api/codex/responses", Dialect::Responses),
            ("/v1/messages", Dialect::Anthropic),
            ("/v1beta/models/g:streamGenerateContent", Dialect::Gemini),
        ] {
            assert_eq!(of(path, sse), Some((Framing::Sse, Some(dialect))), "{path}");
        }
        assert_eq!(of("/events", "Text/Event-Stream"), Some((Framing::Sse, None)));
        let aws = "application/vnd.amazon.eventstream";
        let path = "/model/a.b/invoke-with-response-stream";
        assert_eq!(of(path, aws), Some((Framing::Frames, Some(Dialect::Converse))));
        assert_eq!(of("/gateway/model/a/converse-stream", aws).map(|of| of.0), Some(Framing::Frames));
        assert_eq!(of("/bucket/key", aws), None);
        assert_eq!(of("/api/chat", "application/x-ndjson"), Some((Framing::Lines, Some(Dialect::Ollama))));
        assert_eq!(of("/logs", "application/x-ndjson"), Some((Framing::Lines, None)));
        let list = of("/v1beta/models/g:streamGenerateContent", "application/json; charset=UTF-8");
        assert_eq!(list, Some((Framing::List, Some(Dialect::Gemini))));
        assert_eq!(of("/v1/chat/completions", "application/json"), None);
        assert!(Answer::of_websocket("/v1/responses").is_some() && Answer::of_websocket("/ws").is_none());
    }

    #[test]
    fn json_is_known_by_any_of_its_types_and_what_is_kept_by_its_path() {
        for (kinds, want) in [
            (&["application/json; charset=utf-8"][..], true),
            (&["Text/JSON"], true),
            (&["application/problem+json; x=y"], true),
            (&["text/html", "application/json"], true),
            (&["text/plain"], false),
            (&["application/x-ndjson"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for kind in kinds {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            assert_eq!(says_json(&headers), want, "{kinds:?}");
        }
        for (path, want) in [
            ("/v1/responses/resp_1", Some(Dialect::Responses)),
            ("/v1/threads/t/runs/r", Some(Dialect::Responses)),
            ("/v1/chat/completions/c", Some(Dialect::Chat)),
            ("/v1/messages", Some(Dialect::Anthropic)),
            ("/v1/messages/batches/b/results", Some(Dialect::Anthropic)),
            ("/v1/models", None),
        ] {
            assert_eq!(of_model(path), want, "{path}");
        }
        for (text, want) in [
            (r#"{"a": NaN, "Tool_calls": []}"#, true),
            (r#"{"tool\u005fcalls": 1, "\u00""#, true),
            (r#"{"tool_call\u017F": 1"#, true),
            ("{\"tool_call\u{17f}\": 1", true),
            (r#"{"\u0022tool_calls\u0022": 1"#, false),
            (r#"{"type":"tool_use""#, true),
            (r#"{"type":"custom_tool_call""#, true),
            (r#"{"readme":"reads \"tool_calls\" of it"}"#, false),
            (r#"{"tool_use": 1"#, true),
            ("{}", false),
        ] {
            assert_eq!(may_call(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn what_a_model_says_in_messages_and_over_grpc_is_known_by_its_path() {
        let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
        assert!(speaks_messages(live) && speaks_messages("/v1/realtime") && !speaks_messages("/ws"));
        assert!(speaks_messages("/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent"));
        let service = "/google.ai.generativelanguage.v1beta.GenerativeService";
        assert!(speaks_grpc(&format!("{service}/StreamGenerateContent")));
        assert!(speaks_grpc("/google.cloud.aiplatform.v1.PredictionService/RawPredict"));
        assert!(!speaks_grpc(&format!("{service}/CountTokens")) && !speaks_grpc("/x/GenerateContent"));
    }

    #[test]
    fn an_answer_in_one_piece_says_by_its_shape_whose_it_is() {
        for (text, want) in [
            (r#"{"choices":[]}"#, Some(Dialect::Chat)),
            (r#"{"candidates":[]}"#, Some(Dialect::Gemini)),
            (r#"{"object":"response","output":[]}"#, Some(Dialect::Responses)),
            (r#"{"type":"message","content":[]}"#, Some(Dialect::Anthropic)),
            (r#"{"output":{},"stopReason":"tool_use"}"#, Some(Dialect::Converse)),
            (r#"{"message":{},"done":true}"#, Some(Dialect::Ollama)),
            ("[]", None),
            (r#"{"type":"message"}"#, None),
            ("{", None),
        ] {
            assert_eq!(built_as(text.as_bytes()), want, "{text}");
        }
    }
}
