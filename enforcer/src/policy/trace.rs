//! The way to a decision, for `explain`.

use crate::workload::identity::Assurance;

use super::known::Known;
use super::layers::Role;
use super::rule::{Condition, Rule, Tri};
use super::{Decision, RuleId, identity};

/// How one rule answered, for `explain`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Step {
    pub rule: RuleId,
    pub matches: Tri,
    /// The first condition that did not hold, or is not known to.
    pub because: Option<&'static str>,
    /// What of a `cel` condition that is: one part of it, and its fate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How far it is known who the job is, if the rule asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assurance: Option<Assurance>,
    pub decides: bool,
}

impl Step {
    pub(super) fn of(rule: &Rule, role: Role, matches: Tri, known: &Known<'_>) -> Self {
        let because = rule.because(matches, known);
        // A rule may match for the reason alone that its condition cannot be evaluated.
        let expression = rule.when.cel.as_ref().filter(|_| matches!(because, None | Some(Condition::Cel)));
        Self {
            rule: rule.id.clone(),
            matches,
            because: because.map(Condition::as_str),
            detail: expression.and_then(|expression| expression.why(known, rule.grants())),
            assurance: rule.asks_who().then(|| identity::assurance(known.facts.identity).known()).flatten(),
            decides: matches == Tri::Yes
                && rule.deciding.is_some()
                && rule.would_have().is_none()
                && role.counts(rule, matches),
        }
    }
}

/// The way to a decision.
#[derive(Debug)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub decision: Decision,
}
