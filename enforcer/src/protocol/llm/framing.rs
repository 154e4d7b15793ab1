//! Which answers are read event by event, and how events stand in them.

use http::{HeaderMap, Method, header};

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
}
