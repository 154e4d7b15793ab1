//! What people see of a held statement before they decide.

use serde::{Deserialize, Serialize};

use super::visible::Shown;
use crate::mask::MaskedText;

/// What the gate knows of a held statement, masked.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub repository: Option<MaskedText>,
    /// A link to the run.
    pub run: Option<MaskedText>,
    pub actor: Option<MaskedText>,
    /// Who wrote the commit.
    pub author: Option<MaskedText>,
    pub host: MaskedText,
    pub statement: MaskedText,
    /// What the statement does, decoded.
    pub effect: Option<MaskedText>,
    /// What the rule says about itself.
    pub message: Option<MaskedText>,
}

/// The same, made visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub repository: Option<Shown>,
    pub run: Option<Shown>,
    pub actor: Option<Shown>,
    #[serde(default)]
    pub author: Option<Shown>,
    pub host: Shown,
    pub statement: Shown,
    pub effect: Option<Shown>,
    pub message: Option<Shown>,
}

impl View {
    pub fn new(held: &Held) -> Self {
        let line = |text: &Option<MaskedText>| text.as_ref().map(Shown::line);
        Self {
            repository: line(&held.repository),
            run: line(&held.run),
            actor: line(&held.actor),
            author: line(&held.author),
            host: Shown::host(&held.host),
            statement: Shown::text(&held.statement),
            effect: line(&held.effect),
            message: line(&held.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_made_visible() {
        let text = MaskedText::fixed("a\n\u{202e}b");
        let held = Held {
            repository: Some(text.clone()),
            run: Some(text.clone()),
            actor: Some(text.clone()),
            author: Some(text.clone()),
            host: text.clone(),
            statement: text.clone(),
            effect: Some(text.clone()),
            message: Some(text),
        };
        let view = serde_json::to_value(View::new(&held)).unwrap();
        for (name, value) in view.as_object().unwrap() {
            let value = value.as_str().unwrap();
            let line = value.contains("<U+000A>") || name == "statement";
            assert!(value.contains("<U+202E>") && line, "{name}: {value}");
        }
    }
}
