//! What would be masked, where and why: for people who write policies.

use super::{
    detectors,
    error::MaskError,
    filter::Target,
    masker::{Masker, Plan},
    stream::StreamMasker,
    types::{Entity, Place},
};

/// Why something is known to be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// Somebody registered this very value.
    Value,
    /// It has a form that a detector knows.
    Form,
}

/// One match. **Invariant**: where it stands, never what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What knew it.
    pub rule: String,
    /// What kind of secret it is.
    pub entity: Entity,
    /// Offset of the first byte that would be masked.
    pub from: usize,
    /// Offset of the first byte behind it.
    pub to: usize,
    /// How it is known.
    pub known: Known,
}

/// A detector, as it is listed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Listed {
    /// What it finds.
    pub entity: String,
    /// The set that turns it on.
    pub set: String,
}

/// All built-in detectors; of several for one entity and set, one.
pub fn listed() -> Vec<Listed> {
    let mut listed: Vec<Listed> =
        detectors::all().map(|d| Listed { entity: d.entity.to_string(), set: d.set.to_string() }).collect();
    listed.sort_by(|a, b| (&a.set, &a.entity).cmp(&(&b.set, &b.entity)));
    listed.dedup_by(|a, b| (&a.set, &a.entity) == (&b.set, &b.entity));
    listed
}

impl Masker {
    /// Every match in a whole value, in the order of their beginnings. Matches may overlap.
    pub fn explain(&self, value: &[u8]) -> Result<Vec<Explained>, MaskError> {
        if self.is_noop() {
            return Ok(Vec::new());
        }
        let ranges = StreamMasker::new(self.plan(), Place::Other).ranges(value)?;
        let explained = |(from, to, target)| {
            let (rule, known) = named(&self.plan(), target);
            Explained { rule, entity: self.plan().entity(target).clone(), from, to, known }
        };
        Ok(ranges.into_iter().map(explained).collect())
    }
}

fn named(plan: &Plan, target: Target) -> (String, Known) {
    let entity = plan.entity(target).as_str();
    match target {
        Target::Literal(_) => (format!("exact:{entity}"), Known::Value),
        Target::Rule(_) => (entity.to_ascii_lowercase().replace('_', "-"), Known::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mask::{ExactValue, Selection},
        secret::SecretBytes,
    };

    #[test]
    fn matches_have_a_place_and_a_reason() {
        let value = ExactValue::new("deploy", &SecretBytes::from("obviously fake")).unwrap();
        let masker = Masker::new(&Selection::All, &[value]).unwrap();
        let text = b"user me@example.org has obviously fake";
        let found = masker.explain(text).unwrap();
        let said: Vec<_> = found.iter().map(|e| (e.entity.as_str(), &text[e.from..e.to], e.known)).collect();
        assert_eq!(
            said,
            [("EMAIL", &b"me@example.org"[..], Known::Form), ("DEPLOY", b"obviously fake", Known::Value)]
        );
        assert_eq!(found[1].rule, "exact:DEPLOY");
        assert!(masker.explain(b"nothing of that kind").unwrap().is_empty());
    }

    #[test]
    fn all_detectors_are_listed_once() {
        let listed = listed();
        let github = listed.iter().filter(|l| l.entity == "GITHUB_TOKEN").count();
        assert_eq!(github, 1);
        assert!(listed.iter().any(|l| l.set == "pii"));
    }
}
