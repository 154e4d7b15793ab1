//! What several layers say together.

use std::sync::Arc;

use super::super::awaits::Walk;
use super::super::decision::{Decision, Feasibility, Reason, Verdict};
use super::super::known::Known;
use super::super::rule::{Deciding, Rule, Tri};
use super::super::{BodyClass, May, Mode, Policy, Said, decided, deny, refused};
use super::{Delegation, Layer, Layers, Selected};

/// How the rules of a layer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
    /// A layer below that can only narrow.
    Closed,
    /// One below that a rule above has left something to.
    Open {
        passthrough: bool,
    },
}

impl Role {
    /// Whether a rule that decides, and that matches so far, counts.
    pub fn counts(self, rule: &Rule, matches: Tri) -> bool {
        let audit = rule.mode == Mode::Audit;
        match (self, &rule.deciding) {
            // Audit mode opens nothing for others.
            (_, Some(Deciding::Delegate(_))) if audit => false,
            (Role::Host, _) => true,
            (Role::Closed | Role::Open { .. }, _) if audit => false,
            // As what comes behind it says, which is no wider.
            (Role::Closed, Some(Deciding::Allow | Deciding::Passthrough)) => matches == Tri::Yes,
            (Role::Open { passthrough: false }, Some(Deciding::Passthrough)) => false,
            _ => true,
        }
    }

    /// Whether the limits of a rule count where it does not let through what may be meant.
    pub fn limits(self, rule: &Rule) -> bool {
        self == Role::Host || rule.mode != Mode::Audit
    }
}

/// What is said so far, from the top down.
struct Standing<'r> {
    decision: Decision,
    /// Whether a layer has said that it may go, or has to wait: those below can only narrow that.
    said: bool,
    /// A rule leaves it to a layer that has not been asked yet.
    left: Option<(&'r Rule, Delegation)>,
}

impl<'r> Standing<'r> {
    fn deny(&mut self, reason: Reason, rule: Option<&Rule>) {
        // The one above stands.
        if self.decision.verdict == Verdict::Deny {
            return;
        }
        let mut decision = deny(self.decision.clone(), reason);
        decision.message = None;
        decision.hold = None;
        decision.rule = None;
        decision.owner = None;
        rule.iter().for_each(|rule| decision.by(rule));
        self.decision = decision;
    }

    /// Effects that add.
    fn take(&mut self, added: Decision) {
        let decision = &mut self.decision;
        decision.request_mask = std::mem::take(&mut decision.request_mask).union(&added.request_mask);
        decision.response_mask = std::mem::take(&mut decision.response_mask).union(&added.response_mask);
        decision.observe |= added.observe;
        if added.body != BodyClass::Stream {
            decision.body = added.body;
        }
        decision.durability = decision.durability.max(added.durability);
        decision.limits.extend(added.limits);
        decision.awaits |= added.awaits;
        if decision.verdict != Verdict::Deny {
            decision.audit = decision.audit.take().or(added.audit);
        }
    }

    fn next(&mut self, layer: &'r Layer, added: Decision, said: Said<'r>) {
        self.take(added);
        if layer.policy.missing {
            self.deny(Reason::NoPolicy, None);
            let why = format!("the layer {} of the policy does not load: nothing is allowed", layer.name);
            self.decision.message.get_or_insert_with(|| Arc::from(why));
            return;
        }
        let open = self.left.filter(|(_, left)| left.to == layer.name.level());
        match (said, open) {
            (Said::Nothing, Some((rule, _))) => self.deny(Reason::NotDecidedBelow, Some(rule)),
            (Said::Nothing, None) => {}
            (Said::Missing(rule), _) => self.deny(Reason::MissingFact, Some(rule)),
            (Said::Decided(rule, Deciding::Delegate(to)), _) => {
                // No more than what this layer could do itself.
                let passes = match self.left {
                    Some((_, left)) => left.passthrough,
                    None => self.decision.verdict == Verdict::Passthrough,
                };
                self.left = Some((rule, Delegation { passthrough: to.passthrough && passes, ..*to }));
            }
            (Said::Decided(rule, deciding), open) => {
                if open.is_some() {
                    self.left = None;
                }
                self.narrow(rule, deciding, open.is_some());
            }
        }
    }

    fn narrow(&mut self, rule: &Rule, deciding: &Deciding, open: bool) {
        let before = self.decision.clone();
        match (deciding, before.verdict) {
            (_, Verdict::Deny) | (Deciding::Delegate(_), _) => {}
            (Deciding::Allow | Deciding::Passthrough, _) if self.said || !open => {
                self.decision.limits.extend(rule.limited());
            }
            (Deciding::Hold(_), Verdict::Hold) => {
                self.decision = before.held_by_two();
            }
            _ => {
                self.said = true;
                self.decision = decided(Decision { hold: None, message: None, ..before }, rule, deciding);
            }
        }
    }

    fn end(mut self) -> Decision {
        if let Some((rule, _)) = self.left {
            self.deny(Reason::NotDecidedBelow, Some(rule));
        }
        self.decision
    }
}

impl Layers {
    /// What the host's layer says, and after it those of the job.
    pub fn judge<'r>(
        &'r self,
        host: &'r Policy,
        (added, said): (Decision, Said<'r>),
        known: &Known<'_>,
        walk: Walk,
        step: &mut impl FnMut(&Rule, Role, Tri, &Known<'_>),
    ) -> Decision {
        let mut standing = match said {
            Said::Decided(rule, Deciding::Delegate(to)) => Standing {
                decision: Decision { verdict: Verdict::Allow, reason: Reason::PolicyAllow, ..added },
                said: false,
                left: Some((rule, *to)),
            },
            said => Standing { decision: host.concluded(added, said, known, walk), said: true, left: None },
        };
        match self.of(known.facts.identity) {
            Selected::Unknown => standing.deny(Reason::MissingFact, None),
            Selected::These(layers) => {
                for layer in layers.into_iter().flatten() {
                    let role = role(layer, standing.left.map(|(_, left)| left));
                    let (added, said) = layer.policy.walk(known, role, walk, step);
                    standing.next(layer, added, said);
                }
            }
        }
        standing.end()
    }

    /// The same before all is known: whether any completion passes all layers.
    pub fn feasible(&self, host: &Policy, may: &May<'_>, known: &Known<'_>) -> Feasibility {
        // What may be left open at this layer: nothing, or to whom.
        let mut ways: Vec<Option<Delegation>> = may.left.iter().map(|(_, left)| Some(*left)).collect();
        if may.passes || may.silent && host.audit_default {
            ways.push(None);
        }
        if ways.is_empty() {
            return host.whether(may);
        }
        let Selected::These(layers) = self.of(known.facts.identity) else { return Feasibility::Possible };
        let mut asked = may.left.first().map(|(rule, _)| *rule);
        for layer in layers.into_iter().flatten() {
            if layer.policy.missing {
                return Feasibility::Never(Box::new(refused(None, Reason::NoPolicy)));
            }
            let mut next: Vec<Option<Delegation>> = Vec::new();
            let mut denied = None;
            for way in ways {
                let role = role(layer, way);
                let may = layer.policy.may(known, role);
                let on = match role {
                    Role::Open { .. } => may.passes.then_some(None),
                    Role::Host | Role::Closed => (may.passes || may.silent).then_some(way),
                };
                asked = asked.or(may.left.first().map(|(rule, _)| *rule));
                let left = may.left.iter().map(|(_, left)| Some(*left));
                for way in on.into_iter().chain(left) {
                    if !next.contains(&way) {
                        next.push(way);
                    }
                }
                denied = denied.or(may.denied);
            }
            if next.is_empty() {
                let denial = match denied {
                    Some((number, rule)) => layer.policy.counted(number, rule),
                    None => refused(asked, Reason::NotDecidedBelow),
                };
                return Feasibility::Never(Box::new(denial));
            }
            ways = next;
        }
        match ways.contains(&None) {
            true => Feasibility::Possible,
            false => Feasibility::Never(Box::new(refused(asked, Reason::NotDecidedBelow))),
        }
    }
}

fn role(layer: &Layer, left: Option<Delegation>) -> Role {
    match left.filter(|left| left.to == layer.name.level()) {
        Some(left) => Role::Open { passthrough: left.passthrough },
        None => Role::Closed,
    }
}
