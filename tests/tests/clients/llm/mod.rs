//! Official SDKs and coding agents, unmodified, against fakes of their APIs under the real
//! names, which stream secrets one character at a time in text, in arguments of tools and in
//! the repeats at the end.

mod agents;
mod first_token;
mod sdks;
mod world;

const OPEN: &str = r#"
version: 1
name: models
rules:
  - id: models
    when: {host: [api.openai.com, api.anthropic.com, generativelanguage.googleapis.com, ollama.com]}
    allow: true
    addresses: [loopback]
"#;

fn policy() -> &'static str {
    OPEN
}
