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

mod awaits;
mod cel;
mod cidr;
mod compile;
mod decision;
mod error;
mod facts;
mod file;
mod folder;
mod glob;
mod hits;
mod identity;
mod index;
mod known;
mod limit;
mod meter;
mod layers;
mod near;
mod requirement;
mod rule;
mod schema;
mod store;
mod trace;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use cel::{
    MAX_CEL_BYTES, MAX_CEL_COST, MAX_CEL_DEPTH, MAX_CEL_LOOPS, MAX_CEL_PATTERN_BYTES,
    MAX_CEL_PATTERN_COMPILED_BYTES, MAX_CEL_TEXT_BYTES,
};
pub use cidr::{Cidr, CidrError};
pub use compile::{MAX_NAME_BYTES, MAX_OWNER_BYTES, MAX_RULES, MAX_VALUES};
pub use decision::{
    AddressRule, AddressRules, BodyClass, Decision, Durability, Feasibility, INSPECT_CAP_BYTES, PolicyHash,
    Reason, RuleId, Verdict, WouldDeny,
};
pub use error::{Finding, PolicyError};
pub use facts::{
    Awaits, BodyFacts, Fact, Facts, IdentityFacts, Protocol, Stage, Told, ToolFacts, WorkloadFacts,
};
pub use file::Mode;
pub use hits::{Hit, Hits, MAX_LISTED, MAX_LISTED_LIMITS};
pub use known::MAX_PARAMETERS;
pub use layers::{
    Kept, LayerError, LayerName, LayerProblem, LayersFrom, Level, MAX_LAYER_BYTES, MAX_LAYER_FILES,
    MAX_LAYER_NAME_BYTES, MAX_LAYER_RULES, MAX_LAYER_VALUES, MAX_LAYERS, MAX_LAYERS_BYTES,
};
pub use limit::{Limit, Limited, MAX_LIMITS, MAX_WINDOW_SECONDS, Per, Unit};
pub use meter::{Account, Clock, MAX_COUNTERS, Meters, Over, Payer, Size, Used, Why};
pub use requirement::{
    Group, HoldStage, JobFacts, MAX_GROUPS, MAX_JOB_MINUTES, MAX_OPEN, MAX_QUORUM, MAX_RETRY, MAX_STAGES,
    Need, NoStage, Offers, Requirement, RequirementError, RequirementSpec,
};
pub use rule::Tri;
pub use schema::SCHEMA;
pub use store::{PolicyFrom, PolicyStore};
pub use trace::{Step, Trace};

use awaits::{Doubt, Walk};
use compile::Room;
use error::Findings;
use hits::Counts;
use index::Index;
use known::Known;
use layers::{Delegation, Layers, Role};
use rule::{Deciding, Rule};

/// Bytes of one policy file.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// All rules that are in force, compiled.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Arc<Rule>>,
    index: Index,
    counts: Counts,
    hash: PolicyHash,
    /// Those of organizations and repositories.
    layers: Option<Box<Layers>>,
    /// What no rule decides is let through and recorded: every file is in audit mode.
    audit_default: bool,
    /// A rule holds requests for people.
    holds: bool,
    /// A rule is about tool calls in answers.
    tools: bool,
    /// A rule needs to know what is in bodies.
    bodies: bool,
    /// There is no policy; the reason says so.
    missing: bool,
}

impl Policy {
    /// What is in force while no policy can be loaded.
    pub fn deny_all() -> Self {
        let hash = PolicyHash::new(blake3::hash(b"deny-all"));
        Self {
            rules: Vec::new(),
            index: Index::default(),
            counts: Counts::default(),
            hash,
            layers: None,
            audit_default: false,
            holds: false,
            tools: false,
            bodies: false,
            missing: true,
        }
    }

    /// Loads every `*.yaml` of a folder in the order of their names;
    /// `*.test.yaml` are their tests.
    pub fn load_dir(dir: &Path) -> Result<Self, PolicyError> {
        Self::compile(&Self::read_dir(dir)?)
    }

    /// Names and texts of what `load_dir` would load.
    pub fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, PolicyError> {
        Ok(folder::read(dir, MAX_FILE_BYTES, u64::MAX)?.unwrap_or_default())
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
        Self::compile_layer(files, None)
    }

    /// The same for a layer below the host's.
    fn compile_layer(files: &[(String, String)], layer: Option<&LayerName>) -> Result<Self, PolicyError> {
        // Whoever asks may have little of a stack left; what reads expressions needs some.
        let compiled = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("policy".to_owned()).stack_size(cel::STACK_BYTES);
            let compiling = builder.spawn_scoped(scope, || Self::compile_here(files, layer));
            compiling
                .map_err(|source| PolicyError::Thread { source })?
                .join()
                .map_err(|_| PolicyError::Broken)?
        });
        compiled.map(Self::moved_together)
    }

    /// What a rule holds lies between what the parsers have left, all over the memory of
    /// another thread; a copy of it lies in one piece, and those of one host one after the
    /// other. A decision that asks a few of many rules waits for memory more than for
    /// anything else.
    fn moved_together(self) -> Self {
        let mut order: Vec<(usize, &Arc<Rule>)> = self.rules.iter().enumerate().collect();
        order.sort_by_cached_key(|(_, rule)| rule.when.host.first().map(ToString::to_string));
        let mut rules: Vec<(usize, Arc<Rule>)> =
            order.into_iter().map(|(number, rule)| (number, Arc::new(Rule::clone(rule)))).collect();
        rules.sort_unstable_by_key(|(number, _)| *number);
        Self { rules: rules.into_iter().map(|(_, rule)| rule).collect(), ..self }
    }

    fn compile_here(files: &[(String, String)], layer: Option<&LayerName>) -> Result<Self, PolicyError> {
        let mut wrong = Vec::new();
        let mut policy = Self { audit_default: !files.is_empty(), ..Self::deny_all() };
        policy.missing = false;
        let mut names = std::collections::BTreeSet::new();
        let mut room = Room::of(layer);
        for (name, text) in files {
            let mut findings = Findings::new(name, text);
            if let Some(compiled) = compile::compile(text, layer, &mut room, &mut findings) {
                if !names.insert(compiled.name.clone()) {
                    let message = format!("another file has the policy name `{}`", compiled.name);
                    findings.push(&serde_saphyr::Location::UNKNOWN, message, None);
                }
                policy.audit_default &= compiled.mode == Mode::Audit;
                policy.rules.extend(compiled.rules.into_iter().map(Arc::new));
            }
            wrong.extend(findings.list);
            if room.is_over {
                break;
            }
        }
        if !wrong.is_empty() {
            return Err(PolicyError::Invalid { findings: wrong });
        }
        policy.hash = Self::hash_of(files);
        let holds = |rule: &Arc<Rule>| matches!(rule.deciding, Some(Deciding::Hold(_)));
        policy.holds = policy.rules.iter().any(|rule| rule.mode == Mode::Enforce && holds(rule));
        policy.tools = policy.rules.iter().any(|rule| rule.tool.is_some());
        policy.bodies = policy.rules.iter().any(|rule| rule.awaits.any());
        policy.index = Index::of(&policy.rules);
        policy.counts = Counts::of(policy.rules.len());
        Ok(policy)
    }

    /// One that asks every rule, and all of it.
    #[cfg(test)]
    fn unindexed(self) -> Self {
        let rules = self.rules.iter().map(|rule| Arc::new(Rule::clone(rule).asking_all())).collect();
        Self { index: Index::plain(self.rules.len()), rules, ..self }
    }

    /// Of all layers.
    pub fn hash(&self) -> &PolicyHash {
        self.layers.as_ref().and_then(|layers| layers.whole()).unwrap_or(&self.hash)
    }

    /// Of the host's layer alone.
    pub fn host_hash(&self) -> &PolicyHash {
        &self.hash
    }

    /// The same, with layers below it.
    fn over(self, layers: Layers) -> Self {
        let layers = layers.below(&self.hash);
        Self { layers: Some(Box::new(layers)), ..self }
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

    /// Whether any rule holds statements for people.
    pub fn holds(&self) -> bool {
        self.holds || self.layers.as_ref().is_some_and(|layers| layers.holds)
    }

    /// The limits of all rules of all layers, in their order.
    fn limits(&self) -> impl Iterator<Item = (&RuleId, Limit)> {
        let layers = self.layers.iter().flat_map(|layers| layers.all());
        let below = layers.flat_map(|layer| &layer.policy.rules);
        self.rules.iter().chain(below).flat_map(|rule| rule.limits.iter().map(|limit| (&rule.id, *limit)))
    }

    /// Who rules belong to, and how many.
    pub fn owners(&self) -> BTreeMap<&str, usize> {
        let mut owners = BTreeMap::new();
        for owner in self.rules.iter().filter_map(|rule| rule.owner.as_deref()) {
            *owners.entry(owner).or_default() += 1;
        }
        owners
    }

    /// The verdict, with the effects of every rule that matches on the way to it.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut decision = self.judge(facts, Walk::Decide, |_, _, _, _| {});
        (decision.tools, decision.code) = self.awaits_parts(facts);
        decision
    }

    /// The same as `decide`, with the way to it.
    pub fn explain(&self, facts: &Facts<'_>) -> Trace {
        let mut steps = Vec::new();
        let mut decision = self.judge(facts, Walk::Explain, |rule, role, matches, known| {
            steps.push(Step::of(rule, role, matches, known))
        });
        (decision.tools, decision.code) = self.awaits_parts(facts);
        Trace { steps, decision }
    }

    /// Whether any completion of the missing facts could be allowed.
    pub fn feasible(&self, facts: &Facts<'_>) -> Feasibility {
        let Some(known) = Known::of(facts, false) else {
            return Feasibility::Never(Box::new(Decision::bare(Verdict::Deny, Reason::InvalidFact)));
        };
        let may = self.may(&known, Role::Host);
        match &self.layers {
            None => self.whether(&may),
            Some(layers) => layers.feasible(self, &may, &known),
        }
    }

    /// What the rules of this layer may come to say.
    fn may(&self, known: &Known<'_>, role: Role) -> May<'_> {
        let mut may = May::default();
        let candidates = self.index.candidates(known);
        for (candidate, rule) in candidates.filter_map(|one| Some((one, self.rules.get(one.number)?))) {
            let matches = rule.matches(known, candidate);
            if matches == Tri::No || !role.counts(rule, Tri::Yes) {
                continue;
            }
            match &rule.deciding {
                None => {}
                Some(Deciding::Deny(_)) if matches == Tri::Maybe => {}
                Some(Deciding::Deny(_) | Deciding::Hold(_)) if rule.mode == Mode::Audit => {}
                // People may agree.
                Some(Deciding::Allow | Deciding::Passthrough | Deciding::Hold(_)) => {
                    may.passes = true;
                    return may;
                }
                Some(Deciding::Delegate(to)) => {
                    if !may.left.iter().any(|(_, left)| left == to) {
                        may.left.push((rule, *to));
                    }
                    if matches == Tri::Yes {
                        return may;
                    }
                }
                Some(Deciding::Deny(_)) => {
                    may.denied = Some((candidate.number, rule));
                    return may;
                }
            }
        }
        may.silent = true;
        may
    }

    /// The same for the host's layer, if it is the only one.
    fn whether(&self, may: &May<'_>) -> Feasibility {
        let never = |decision| Feasibility::Never(Box::new(decision));
        if may.passes || may.silent && self.audit_default {
            return Feasibility::Possible;
        }
        if let Some((number, rule)) = may.denied {
            return never(self.counted(number, rule));
        }
        if let Some((rule, _)) = may.left.first() {
            return never(refused(Some(*rule), Reason::NotDecidedBelow));
        }
        self.counts.count_undecided();
        never(self.default_deny())
    }

    /// The denial of a rule that denies, which has had a say.
    fn counted(&self, number: usize, rule: &Rule) -> Decision {
        self.counts.count(number);
        let mut decision = refused(Some(rule), Reason::PolicyDeny);
        if let Some(Deciding::Deny(message)) = &rule.deciding {
            decision.message = Some(message.clone());
        }
        decision
    }

    fn default_deny(&self) -> Decision {
        let reason = if self.missing { Reason::NoPolicy } else { Reason::PolicyDefaultDeny };
        Decision::bare(Verdict::Deny, reason)
    }

    fn judge(
        &self,
        facts: &Facts<'_>,
        walk: Walk,
        mut step: impl FnMut(&Rule, Role, Tri, &Known<'_>),
    ) -> Decision {
        let Some(known) = Known::of(facts, true) else {
            return Decision::bare(Verdict::Deny, Reason::InvalidFact);
        };
        let (added, said) = self.walk(&known, Role::Host, walk, &mut step);
        uncounted(match &self.layers {
            None => self.concluded(added, said, &known, walk),
            Some(layers) => layers.judge(self, (added, said), &known, walk, &mut step),
        })
    }

    /// What the rules of this layer say: over all of them, or over those that the host can match.
    fn walk(
        &self,
        known: &Known<'_>,
        role: Role,
        walk: Walk,
        step: &mut impl FnMut(&Rule, Role, Tri, &Known<'_>),
    ) -> (Decision, Said<'_>) {
        let mut added = Decision::bare(Verdict::Deny, Reason::PolicyDefaultDeny);
        added.durability = Durability::PageCache;
        let mut doubt = Doubt::default();
        let candidates = if walk == Walk::Explain { self.index.all() } else { self.index.candidates(known) };
        for (candidate, rule) in candidates.filter_map(|one| Some((one, self.rules.get(one.number)?))) {
            let matches = rule.matches(known, candidate);
            step(rule, role, matches, known);
            let whole = matches == Tri::Yes && role.counts(rule, matches);
            if !whole && role.limits(rule) && rule.may_limit(known) {
                // What is in doubt is no way around a limit: whatever lets it through.
                added.limits.extend(rule.limited());
            }
            if matches == Tri::No {
                continue;
            }
            // Who only looks at the way is told of all rules, and decides nothing.
            if walk == Walk::Decide && matches == Tri::Yes {
                self.counts.count(candidate.number);
            }
            if rule.mode == Mode::Audit && matches!(rule.deciding, Some(Deciding::Delegate(_))) {
                // As if it were not there, its addresses, too: nobody below decides whom they are for.
                continue;
            }
            let awaits = known.facts.body.missing(rule.awaits);
            if matches == Tri::Maybe {
                added.awaits |= awaits;
            }
            // An effect that adds only ever narrows, or names networks for dialling
            // what is decided elsewhere: in doubt it counts.
            add(&mut added, rule);
            if let Some(would) = rule.would_have() {
                // As if it were not there, so that it opens nothing that others close.
                added.audit.get_or_insert(would);
                continue;
            }
            match &rule.deciding {
                Some(_) if !role.counts(rule, matches) => {}
                Some(deciding) if matches == Tri::Yes && doubt.leaves(deciding) => {
                    return (added, Said::Decided(rule, deciding));
                }
                Some(_) if matches == Tri::Yes => {
                    doubt.otherwise();
                    break;
                }
                Some(deciding) => doubt.add(rule, deciding, awaits),
                None => {}
            }
        }
        let denied = role == Role::Host && !self.audit_default;
        (added, doubt.missing(denied).map_or(Said::Nothing, Said::Missing))
    }

    /// What the host's layer says, if it is the only one.
    fn concluded(&self, mut added: Decision, said: Said<'_>, known: &Known<'_>, walk: Walk) -> Decision {
        match said {
            Said::Decided(rule, deciding) => return decided(added, rule, deciding),
            Said::Missing(rule) => {
                let mut decision = deny(added, Reason::MissingFact);
                decision.by(rule);
                return decision;
            }
            Said::Nothing => {}
        }
        if walk == Walk::Decide {
            self.counts.count_undecided();
        }
        let default = self.default_deny();
        let about_tool = matches!(known.facts.tool, Fact::Known(_));
        if about_tool && !self.missing {
            // Its request was let through, with the answer.
            added.verdict = Verdict::Allow;
            added.reason = Reason::PolicyAllow;
            return added;
        }
        if self.audit_default {
            added.verdict = Verdict::Allow;
            added.reason = Reason::PolicyAllow;
            added.audit.get_or_insert(WouldDeny { rule: None, reason: default.reason, message: None });
            return added;
        }
        deny(added, default.reason)
    }
}

/// What the rules of one layer say.
enum Said<'r> {
    Decided(&'r Rule, &'r Deciding),
    /// This one might have decided, had a fact been known.
    Missing(&'r Rule),
    Nothing,
}

/// What the rules of one layer may come to say once all is known.
#[derive(Default)]
struct May<'r> {
    /// That it may go, or has to wait.
    passes: bool,
    /// That a layer below decides: each way in which that may be left to it.
    left: Vec<(&'r Rule, Delegation)>,
    /// What denies otherwise, whatever becomes known, and its number.
    denied: Option<(usize, &'r Rule)>,
    /// Nothing.
    silent: bool,
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
        Deciding::Allow => {
            decision.limits.extend(rule.limited());
            (Verdict::Allow, Reason::PolicyAllow)
        }
        Deciding::Passthrough => (Verdict::Passthrough, Reason::PolicyPassthrough),
        // There is none.
        Deciding::Delegate(_) => {
            decision = deny(decision, Reason::NotDecidedBelow);
            (Verdict::Deny, Reason::NotDecidedBelow)
        }
        Deciding::Deny(message) => {
            decision.message = Some(message.clone());
            decision = deny(decision, Reason::PolicyDeny);
            (Verdict::Deny, Reason::PolicyDeny)
        }
        Deciding::Hold(hold) => {
            decision.message.clone_from(&hold.message);
            decision.hold = Some(Arc::clone(&hold.requirement));
            // What people agree to is there as a whole, and so is that they were asked.
            decision.body = BodyClass::Inspect { cap: INSPECT_CAP_BYTES };
            decision.durability = Durability::Fsync;
            (Verdict::Hold, Reason::PolicyHold)
        }
    };
    decision.verdict = verdict;
    decision.reason = reason;
    decision.by(rule);
    decision
}

/// A denial without any effect that adds.
fn refused(rule: Option<&Rule>, reason: Reason) -> Decision {
    let mut decision = Decision::bare(Verdict::Deny, reason);
    rule.iter().for_each(|rule| decision.by(rule));
    decision
}

/// What passes unread cannot be counted: where a rule limits it, it does not.
fn uncounted(decision: Decision) -> Decision {
    let limited = decision.limits.iter().find(|limited| !limited.audit);
    let Some(limited) = limited.filter(|_| decision.verdict == Verdict::Passthrough).cloned() else {
        return decision;
    };
    let mut denied = deny(decision, Reason::MissingFact);
    denied.message = Some("a rule limits this, and what passes unread is not counted".into());
    denied.rule = Some(limited.rule);
    denied.owner = limited.owner;
    denied
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
