//! Rules that depend on what is in the body of a request, which is read only for them.
//!
//! ```text
//!  head --awaits--+--> nothing: decide                           (the body is not read)
//!                 +--> denied, whatever is in the body: decide   (the same)
//!                 +--> these facts --> read whole --> decide
//! ```
//!
//! **Invariant**: to ask what is needed counts nothing, and decides nothing: that is done once,
//! with all that is known by then.

use crate::protocol::llm::Item;

use super::decision::{Reason, Verdict};
use super::facts::{Awaits, Fact, Facts, Stage};
use super::known::Known;
use super::layers::Selected;
use super::rule::{Deciding, Rule};
use super::{Decision, Policy};

/// What a walk over the rules is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// What rules say counts, and is counted.
    Decide,
    /// To know what a decision needs.
    Look,
    /// To tell of all rules, also those that the host rules out.
    Explain,
}

/// Rules that might have decided, had a fact been known.
#[derive(Default)]
pub(super) struct Doubt<'r> {
    first: Option<&'r Rule>,
    /// One of them could do something else than deny, or waits for something else than a body.
    open: bool,
}

impl<'r> Doubt<'r> {
    pub fn add(&mut self, rule: &'r Rule, deciding: &Deciding, awaits: Awaits) {
        self.first = self.first.or(Some(rule));
        self.open |= !awaits.any() || !matches!(deciding, Deciding::Deny(_));
    }

    /// A rule behind them does something else than deny.
    pub fn otherwise(&mut self) {
        self.open = true;
    }

    /// Whether a rule behind them decides all the same: whatever they say, it is denied.
    pub fn leaves(&self, deciding: &Deciding) -> bool {
        self.first.is_none() || !self.open && matches!(deciding, Deciding::Deny(_))
    }

    /// The first of them, if no rule behind them has decided. What no rule decides may be `denied`.
    pub fn missing(self, denied: bool) -> Option<&'r Rule> {
        self.first.filter(|_| self.open || !denied)
    }
}

impl Policy {
    /// Whether any rule needs to know what is in a body.
    pub fn asks_bodies(&self) -> bool {
        self.bodies || self.layers.as_ref().is_some_and(|layers| layers.bodies)
    }

    /// Whether a rule may match anything in the answer, of which nothing is known yet, and whether
    /// one may match a block of code in it.
    pub(super) fn awaits_parts(&self, facts: &Facts<'_>) -> (bool, bool) {
        let any = self.tools || self.layers.as_ref().is_some_and(|layers| layers.tools);
        if !any || facts.stage != Stage::Http || matches!(facts.tool, Fact::Known(_)) {
            return (false, false);
        }
        let facts = Facts { tool: Fact::Unknown, ..facts.clone() };
        let Some(known) = Known::of(&facts, true) else { return (false, false) };
        let layers = self.layers.as_ref().map(|layers| layers.of(facts.identity));
        let below = match layers {
            None => [None, None],
            Some(Selected::These(layers)) => layers,
            Some(Selected::Unknown) => return (true, true),
        };
        let below = below.into_iter().flatten().map(|layer| &*layer.policy);
        let (mut any, mut code) = (false, false);
        for layer in std::iter::once(self).chain(below).filter(|layer| layer.tools) {
            let rules = layer.index.candidates(&known).filter_map(|one| layer.rules.get(one.number));
            for rule in rules.filter(|rule| rule.tool.is_some()) {
                let more = !any || !code && rule.tool == Some(Item::Code);
                if more && rule.awaits_answer(&known) {
                    (any, code) = (true, code || rule.tool == Some(Item::Code));
                }
            }
        }
        (any, code)
    }

    /// What has to be known of the body before this can be decided; `None`: it is denied, whatever
    /// that is.
    pub fn awaits(&self, facts: &Facts<'_>) -> Option<Awaits> {
        if !self.asks_bodies() {
            return Some(Awaits::default());
        }
        let decision = self.judge(facts, Walk::Look, |_, _, _, _| {});
        (!decision.is_settled()).then_some(decision.awaits)
    }
}

impl Decision {
    /// Denied, and not for the reason that a fact is not known.
    fn is_settled(&self) -> bool {
        self.verdict == Verdict::Deny && self.reason != Reason::MissingFact
    }
}
