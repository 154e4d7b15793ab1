//! Fakes of the APIs of language models, under their real host names: what they stream is
//! a script, one character for each delta, with the repeats, ids and counts that the
//! providers' references document. They know no model and check no key.

pub mod asker;
mod chat;
pub mod first_token;
mod gemini;
mod messages;
mod ollama;
pub mod relay;
mod responses;
mod script;
mod serve;

pub use messages::SIGNATURE;
pub use script::{Script, Tool, Turn};
pub use serve::{Call, FakeLlm};

use serde_json::Value;

/// The real names that the fake answers to.
pub const HOSTS: [&str; 5] =
    ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "chatgpt.com", "ollama.com"];

/// A server-sent event (HTML, section 9.2).
pub(crate) struct Event {
    name: Option<&'static str>,
    data: String,
}

impl Event {
    fn named(name: &'static str, data: &Value) -> Self {
        Self { name: Some(name), data: data.to_string() }
    }

    fn data(data: &Value) -> Self {
        Self::raw(&data.to_string())
    }

    fn raw(data: &str) -> Self {
        Self { name: None, data: data.to_owned() }
    }

    fn text(&self) -> String {
        let name = self.name.map_or_else(String::new, |name| format!("event: {name}\n"));
        format!("{name}data: {}\n\n", self.data)
    }
}
