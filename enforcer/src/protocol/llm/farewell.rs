//! The error event of each API: its client shows why an answer ends.

use bytes::Bytes;
use serde_json::{Value, json};

use super::framing::Framing;
use super::shape::Dialect;
use super::{LlmError, eventstream};

/// What is written in place of the rest of an answer. Nothing in it is of the answer.
pub fn of(framing: Framing, dialect: Option<Dialect>, error: &LlmError) -> Bytes {
    let reason = error.reason();
    let why = format!("the egress enforcer of this host ends this answer: {error} ({reason})");
    ends(framing, dialect, reason, &why)
}

/// The same for another reason.
pub fn ends(framing: Framing, dialect: Option<Dialect>, reason: &str, why: &str) -> Bytes {
    let (event, value) = event(dialect, reason, why);
    match framing {
        Framing::Sse => match event {
            Some(name) => format!("event: {name}\ndata: {value}\n\n").into(),
            None => format!("data: {value}\n\n").into(),
        },
        Framing::Lines => format!("{value}\n").into(),
        Framing::List => format!(",\n{value}]").into(),
        Framing::Messages => value.to_string().into(),
        Framing::Frames => {
            let headers = eventstream::headers(&[
                (":exception-type", "modelStreamErrorException"),
                (":content-type", "application/json"),
                (":message-type", "exception"),
            ]);
            // It is far shorter than the longest frame.
            let payload = json!({ "message": why }).to_string();
            eventstream::write(&headers, payload.as_bytes()).unwrap_or_default()
        }
    }
}

/// The body of a refusal, for the client of such an API.
pub fn refusal(dialect: Dialect, reason: &str, why: &str) -> Value {
    event(Some(dialect), reason, why).1
}

/// The same for a client that may come again later, in the words of the API for that.
pub fn limited(dialect: Dialect, reason: &str, why: &str) -> Value {
    let mut value = refusal(dialect, reason, why);
    let (kind, status) = match dialect {
        Dialect::Anthropic | Dialect::Converse => ("rate_limit_error", None),
        Dialect::Chat | Dialect::Responses => ("rate_limit_exceeded", None),
        Dialect::Gemini => ("", Some("RESOURCE_EXHAUSTED")),
        Dialect::Ollama => return value,
    };
    match status {
        Some(status) => {
            value["error"]["code"] = 429.into();
            value["error"]["status"] = status.into();
        }
        None => value["error"]["type"] = kind.into(),
    }
    if dialect == Dialect::Responses {
        value["status"] = 429.into();
    }
    value
}

/// An error of such an API, as an event of a stream that has begun.
pub fn error_event(dialect: Dialect, error: &Value) -> Bytes {
    let name = match dialect {
        Dialect::Anthropic | Dialect::Converse | Dialect::Responses => "event: error\n",
        Dialect::Chat | Dialect::Gemini | Dialect::Ollama => "",
    };
    format!("{name}data: {error}\n\n").into()
}

fn event(dialect: Option<Dialect>, reason: &str, why: &str) -> (Option<&'static str>, Value) {
    match dialect {
        Some(Dialect::Anthropic | Dialect::Converse) => {
            let error = json!({ "type": "error", "error": { "type": "permission_error", "message": why } });
            (Some("error"), error)
        }
        Some(Dialect::Responses) => {
            let error = json!({
                "type": "error", "code": reason, "message": why, "param": null, "sequence_number": 0,
                "error": { "type": "invalid_request_error", "code": reason, "message": why, "param": null },
                "status": 403,
            });
            (Some("error"), error)
        }
        Some(Dialect::Gemini) => {
            (None, json!({ "error": { "code": 403, "message": why, "status": "PERMISSION_DENIED" } }))
        }
        Some(Dialect::Ollama) => (None, json!({ "error": why })),
        Some(Dialect::Chat) | None => {
            let error = json!({
                "error": { "message": why, "type": "invalid_request_error", "param": null, "code": reason },
            });
            (None, error)
        }
    }
}
