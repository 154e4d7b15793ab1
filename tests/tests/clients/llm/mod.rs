//! Official SDKs and coding agents, unmodified, against fakes of their APIs under the real
//! names, which stream secrets one character at a time in text, in arguments of tools and in
//! the repeats at the end.

pub mod agents;
mod first_token;
mod raw;
mod sdks;
pub mod world;

/// Secrets are masked in both directions, but the client's own key where its provider reads it.
const MASKED: &str = r#"
version: 1
name: models
rules:
  - id: mask
    when: {host: [api.openai.com, api.anthropic.com, generativelanguage.googleapis.com, ollama.com]}
    mask:
      request:
        - secrets
        - {select: {header: authorization}, strategy: observe}
        - {select: {header: x-api-key}, strategy: observe}
        - {select: {header: x-goog-api-key}, strategy: observe}
      response: [secrets]
    addresses: [loopback]
  - id: models
    when: {host: [api.openai.com, api.anthropic.com, generativelanguage.googleapis.com, ollama.com]}
    allow: true
"#;
