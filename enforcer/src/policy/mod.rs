//! Policy files, and the decisions that follow from them.
//!
//! A policy is compiled once and never changes; asking it does no I/O. Rules are
//! tried in the order of the files' names and of the rules in them. Effects that
//! add (mask, observe, ...) of every matching rule count; the first matching rule
//! that decides ends it. Nothing decides: denied.
//!
//! **Invariant**: a fact that a rule needs and that is not known never lets
//! anything through: `decide` denies, and `feasible`, which is asked before all
//! facts can exist, denies only what no completion of them could allow.

mod cidr;
mod compile;
mod decision;
mod error;
mod facts;
mod file;
mod glob;
mod rule;
mod store;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

pub use cidr::{Cidr, CidrError};
pub use compile::{MAX_NAME_BYTES, MAX_RULES, MAX_VALUES};
pub use decision::{
    AddressRule, AddressRules, BodyClass, Decision, Durability, Feasibility, INSPECT_CAP_BYTES, PolicyHash,
    Reason, RuleId, Verdict, WouldDeny,
};
pub use error::{Finding, PolicyError};
pub use facts::{Fact, Facts, Protocol, Stage, WorkloadFacts};
pub use file::Mode;
pub use rule::Tri;
pub use store::PolicyStore;

use error::Findings;
use glob::Host;
use rule::{Deciding, Known, Rule};

/// Bytes of one policy file.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// All rules that are in force, compiled.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    hash: PolicyHash,
    /// What no rule decides is let through and recorded: every file is in audit mode.
    audit_default: bool,
    /// There is no policy; the reason says so.
    missing: bool,
}

/// How one rule answered, for `explain`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Step {
    pub rule: RuleId,
    pub matches: Tri,
    /// The first condition that did not hold, or is not known to.
    pub because: Option<&'static str>,
    pub decides: bool,
}

/// The way to a decision.
#[derive(Debug)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub decision: Decision,
}

impl Policy {
    /// What is in force while no policy can be loaded.
    pub fn deny_all() -> Self {
        let hash = PolicyHash::new(blake3::hash(b"deny-all"));
        Self { rules: Vec::new(), hash, audit_default: false, missing: true }
    }

    /// Loads every `*.yaml` of a folder in the order of their names;
    /// `*.test.yaml` are their tests.
    pub fn load_dir(dir: &Path) -> Result<Self, PolicyError> {
        Self::compile(&Self::read_dir(dir)?)
    }

    /// Names and texts of what `load_dir` would load.
    pub fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, PolicyError> {
        let unreadable = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PolicyError::Read { path, source }
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
            let path = entry.map_err(unreadable(dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".yaml") && !name.ends_with(".test.yaml") && !name.starts_with('.') {
                paths.push((name, path));
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(PolicyError::Empty { path: dir.to_path_buf() });
        }
        let mut files = Vec::with_capacity(paths.len());
        for (name, path) in paths {
            let length = fs::metadata(&path).map_err(unreadable(&path))?.len();
            if length > MAX_FILE_BYTES {
                let source = std::io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes"));
                return Err(PolicyError::Read { path, source });
            }
            let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
            files.push((name, text));
        }
        Ok(files)
    }

    /// What the hash of a policy of these files would be, valid or not.
    pub fn hash_of(files: &[(String, String)]) -> PolicyHash {
        let mut hasher = blake3::Hasher::new();
        for part in files.iter().flat_map(|(name, text)| [name, text]) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        PolicyHash::new(hasher.finalize())
    }

    /// One policy out of one text.
    pub fn from_text(name: &str, text: &str) -> Result<Self, PolicyError> {
        Self::compile(&[(name.to_owned(), text.to_owned())])
    }

    /// Names and texts of files, in their order. All errors of all files are found.
    pub fn compile(files: &[(String, String)]) -> Result<Self, PolicyError> {
        let mut wrong = Vec::new();
        let mut policy = Self { audit_default: !files.is_empty(), ..Self::deny_all() };
        policy.missing = false;
        let mut names = std::collections::BTreeSet::new();
        for (name, text) in files {
            let mut findings = Findings::new(name, text);
            if let Some(compiled) = compile::compile(text, &mut findings) {
                if !names.insert(compiled.name.clone()) {
                    let message = format!("another file has the policy name `{}`", compiled.name);
                    findings.push(&serde_saphyr::Location::UNKNOWN, message, None);
                }
                policy.audit_default &= compiled.mode == Mode::Audit;
                policy.rules.extend(compiled.rules);
            }
            wrong.extend(findings.list);
        }
        if !wrong.is_empty() {
            return Err(PolicyError::Invalid { findings: wrong });
        }
        policy.hash = Self::hash_of(files);
        Ok(policy)
    }

    pub fn hash(&self) -> &PolicyHash {
        &self.hash
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether it stands in for one that could not be loaded: everything is denied.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The verdict, with the effects of every rule that matches on the way to it.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.walk(facts, |_| {})
    }

    /// The same as `decide`, with the way to it.
    pub fn explain(&self, facts: &Facts<'_>) -> Trace {
        let mut steps = Vec::new();
        let decision = self.walk(facts, |step| steps.push(step));
        Trace { steps, decision }
    }

    /// Whether any completion of the missing facts could be allowed.
    pub fn feasible(&self, facts: &Facts<'_>) -> Feasibility {
        let Some(known) = known(facts) else {
            return Feasibility::Never(Box::new(Decision::bare(Verdict::Deny, Reason::InvalidFact)));
        };
        for rule in &self.rules {
            match (&rule.deciding, rule.matches(&known)) {
                (None, _) | (_, Tri::No) => {}
                (Some(Deciding::Deny(_)), Tri::Maybe) => {}
                (Some(Deciding::Deny(_)), Tri::Yes) if rule.mode == Mode::Audit => {}
                (Some(Deciding::Allow | Deciding::Passthrough), _) => return Feasibility::Possible,
                (Some(Deciding::Deny(message)), Tri::Yes) => {
                    let mut decision = Decision::bare(Verdict::Deny, Reason::PolicyDeny);
                    decision.rule = Some(rule.id.clone());
                    decision.message = Some(message.clone());
                    return Feasibility::Never(Box::new(decision));
                }
            }
        }
        if self.audit_default {
            return Feasibility::Possible;
        }
        Feasibility::Never(Box::new(self.default_deny()))
    }

    fn default_deny(&self) -> Decision {
        let reason = if self.missing { Reason::NoPolicy } else { Reason::PolicyDefaultDeny };
        Decision::bare(Verdict::Deny, reason)
    }

    fn walk(&self, facts: &Facts<'_>, mut step: impl FnMut(Step)) -> Decision {
        let Some(known) = known(facts) else { return Decision::bare(Verdict::Deny, Reason::InvalidFact) };
        let mut added = Decision::bare(Verdict::Deny, Reason::PolicyDefaultDeny);
        added.durability = Durability::PageCache;
        // The first rule that might have decided, had a fact been known.
        let mut missing: Option<&Rule> = None;
        for rule in &self.rules {
            let matches = rule.matches(&known);
            step(Step {
                rule: rule.id.clone(),
                matches,
                because: rule
                    .conditions(&known)
                    .into_iter()
                    .find(|(_, tri)| *tri == matches)
                    .and_then(|(name, _)| (matches != Tri::Yes).then_some(name)),
                decides: matches == Tri::Yes && rule.deciding.is_some() && rule.would_deny().is_none(),
            });
            if matches == Tri::No {
                continue;
            }
            // An effect that adds only ever narrows, or names networks for dialling
            // what is decided elsewhere: in doubt it counts.
            add(&mut added, rule);
            if let Some(would) = rule.would_deny() {
                // As if it were not there, so that it opens nothing that others close.
                added.audit.get_or_insert(would);
                continue;
            }
            match &rule.deciding {
                Some(deciding) if matches == Tri::Yes && missing.is_none() => {
                    return decided(added, rule, deciding);
                }
                Some(_) if matches == Tri::Yes => break,
                Some(_) => missing = missing.or(Some(rule)),
                None => {}
            }
        }
        if let Some(rule) = missing {
            let mut decision = deny(added, Reason::MissingFact);
            decision.rule = Some(rule.id.clone());
            return decision;
        }
        let default = self.default_deny();
        if self.audit_default {
            added.verdict = Verdict::Allow;
            added.reason = Reason::PolicyAllow;
            added.audit.get_or_insert(WouldDeny { rule: None, reason: default.reason, message: None });
            return added;
        }
        deny(added, default.reason)
    }
}

/// None: the host is not in canonical form, and no rule can be trusted with it.
fn known<'a>(facts: &'a Facts<'a>) -> Option<Known<'a>> {
    let host = match facts.host {
        Fact::Known(host) => Fact::Known(Host::parse(host)?),
        Fact::Unknown => Fact::Unknown,
        Fact::Absent => Fact::Absent,
    };
    Some(Known { facts, host })
}

fn add(decision: &mut Decision, rule: &Rule) {
    let adding = &rule.adding;
    decision.request_mask = std::mem::take(&mut decision.request_mask).union(&adding.request_mask);
    decision.response_mask = std::mem::take(&mut decision.response_mask).union(&adding.response_mask);
    decision.observe |= adding.observe;
    if adding.inspect {
        decision.body = BodyClass::Inspect { cap: INSPECT_CAP_BYTES };
    }
    decision.durability = decision.durability.max(adding.durability);
    decision.addresses.extend(&adding.addresses);
}

fn decided(mut decision: Decision, rule: &Rule, deciding: &Deciding) -> Decision {
    let (verdict, reason) = match deciding {
        Deciding::Allow => (Verdict::Allow, Reason::PolicyAllow),
        Deciding::Passthrough => (Verdict::Passthrough, Reason::PolicyPassthrough),
        Deciding::Deny(message) => {
            decision.message = Some(message.clone());
            decision = deny(decision, Reason::PolicyDeny);
            (Verdict::Deny, Reason::PolicyDeny)
        }
    };
    decision.verdict = verdict;
    decision.reason = reason;
    decision.rule = Some(rule.id.clone());
    decision
}

/// A denial is on disk before it is answered, whatever the rules say.
fn deny(mut decision: Decision, reason: Reason) -> Decision {
    decision.verdict = Verdict::Deny;
    decision.reason = reason;
    decision.durability = Durability::Fsync;
    // It is denied, whatever would have been.
    decision.audit = None;
    decision
}
