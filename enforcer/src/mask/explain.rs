//! What would be masked, where and why: for people who write policies.

use std::sync::Arc;

use super::{
    context::RUN_MAX,
    error::MaskError,
    filter::Target,
    masker::{Masker, Plan, by_surroundings},
    names::{ENCODED, NAME_MAX_BYTES},
    rule::{self, Rule},
    selection::SET_ENTROPY,
    strategy::Strategy,
    stream::StreamMasker,
    types::{Entity, Place},
    unknown::UNKNOWN_MAX_BYTES,
};

/// How sure it is that a value behind a name for secrets is one.
const CONTEXT_CONFIDENCE: f64 = 0.7;

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
#[derive(Clone, Debug, PartialEq)]
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
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
    /// What would be done with it.
    pub strategy: Strategy,
}

/// A detector, as it is listed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Listed {
    /// Its name, which a policy can use in place of the entity's.
    pub rule: String,
    /// What it finds.
    pub entity: String,
    /// The set that turns it on.
    pub set: String,
    /// How sure a match is, from 0 to 1.
    pub confidence: f64,
    /// The longest match in bytes; none for what is masked until its end mark.
    pub longest: Option<usize>,
}

/// All detectors, by set and entity.
pub fn listed() -> Result<Vec<Listed>, MaskError> {
    let listed = |rule: &Arc<Rule>| {
        let detector = &rule.detector;
        Listed {
            rule: detector.rule.to_string(),
            entity: detector.entity.to_string(),
            set: detector.set.to_string(),
            confidence: rounded(detector.confidence),
            longest: rule.longest,
        }
    };
    let around = |(rule, set, entity): (&str, &str, &str)| Listed {
        rule: rule.to_owned(),
        entity: entity.to_owned(),
        set: set.to_owned(),
        confidence: CONTEXT_CONFIDENCE,
        longest: Some(if set == SET_ENTROPY { UNKNOWN_MAX_BYTES } else { RUN_MAX }),
    };
    let mut all: Vec<Listed> = rule::builtin()?.iter().map(listed).collect();
    all.extend(by_surroundings().map(around));
    let (rule, set, entity) = ENCODED;
    all.push(Listed { longest: Some(NAME_MAX_BYTES), ..around((rule, set, entity)) });
    all.sort_by(|a, b| (&a.set, &a.entity, &a.rule).cmp(&(&b.set, &b.entity, &b.rule)));
    Ok(all)
}

/// As it was written: 0.9 is not 0.8999999761581421.
fn rounded(confidence: f32) -> f64 {
    (f64::from(confidence) * 1000.0).round() / 1000.0
}

impl Masker {
    /// The ranges of everything in a whole value that is to be masked, overlapping or not.
    pub(super) fn ranges(&self, value: &[u8]) -> Result<Vec<(usize, usize, Target)>, MaskError> {
        StreamMasker::new(self.plan(), Place::Other).ranges(value)
    }

    /// Every match in a whole value, in the order of their beginnings. Matches may overlap.
    pub fn explain(&self, value: &[u8]) -> Result<Vec<Explained>, MaskError> {
        if self.is_noop() {
            return Ok(Vec::new());
        }
        let ranges = self.ranges(value)?;
        Ok(ranges.into_iter().map(|range| explained(&self.plan(), range)).collect())
    }
}

fn explained(plan: &Plan, (from, to, target): (usize, usize, Target)) -> Explained {
    let entity = plan.entity(target).clone();
    let (known, confidence) = match target {
        Target::Literal(_) => (Known::Value, 1.0),
        Target::Rule(index) => (Known::Form, rounded(plan.rule(index).detector.confidence)),
        Target::Context(_) => (Known::Form, CONTEXT_CONFIDENCE),
    };
    let rule = plan.name(target).to_string();
    Explained { rule, entity, from, to, known, confidence, strategy: plan.strategy(target) }
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
        let listed = listed().unwrap();
        let mut rules: Vec<_> = listed.iter().map(|l| &l.rule).collect();
        rules.sort();
        rules.dedup();
        assert_eq!(rules.len(), listed.len(), "two rules have one name");
        assert!(listed.iter().any(|l| l.set == "pii" && l.entity == "EMAIL" && l.longest.is_some()));
    }
}
