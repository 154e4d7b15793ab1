//! A compiled rule, and what it says about facts in three-valued logic.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mask::Selection;
use crate::protocol::llm::Item;

use super::cel::Expression;
use super::decision::{AddressRules, Durability, Reason, RuleId, WouldDeny};
use super::facts::{Awaits, Fact, Facts, Protocol, Stage};
use super::file::Mode;
use super::glob::{HostGlob, TextGlob};
use super::identity;
use super::index::Candidate;
use super::known::Known;
use super::layers::Delegation;
use super::limit::{Limit, Limited};
use super::requirement::Requirement;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tri {
    No,
    /// It depends on a fact that is not known.
    Maybe,
    Yes,
}

impl From<bool> for Tri {
    fn from(holds: bool) -> Self {
        if holds { Tri::Yes } else { Tri::No }
    }
}

/// An effect that decides.
#[derive(Debug, Clone)]
pub(super) enum Deciding {
    Allow,
    Deny(Arc<str>),
    Passthrough,
    Hold(Arc<Hold>),
    /// A layer below decides.
    Delegate(Delegation),
}

/// Who has to agree, and what they and the job are told.
#[derive(Debug)]
pub(super) struct Hold {
    pub message: Option<Arc<str>>,
    pub requirement: Arc<Requirement>,
}

/// Effects that add, and never decide.
#[derive(Debug, Clone)]
pub(super) struct Adding {
    pub request_mask: Selection,
    pub response_mask: Selection,
    pub observe: bool,
    pub inspect: bool,
    pub durability: Durability,
    pub addresses: AddressRules,
}

impl Adding {
    /// Whether it has any effect.
    pub fn is_any(&self) -> bool {
        !self.request_mask.is_none()
            || !self.response_mask.is_none()
            || self.observe
            || self.inspect
            || self.durability == Durability::Fsync
            || !self.addresses.is_empty()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub name: Vec<TextGlob>,
    pub cgroup: Vec<TextGlob>,
    pub labels: BTreeMap<String, Vec<TextGlob>>,
    pub host: Vec<HostGlob>,
    pub port: Vec<u16>,
    pub protocol: Vec<Protocol>,
    pub method: Vec<String>,
    pub path: Vec<TextGlob>,
    pub identity: Option<Box<identity::Conditions>>,
    pub cel: Option<Box<Expression>>,
}

/// A condition of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Host,
    Port,
    Protocol,
    Method,
    Name,
    Cgroup,
    Labels,
    Path,
    Identity,
    Passthrough,
    Hold,
    Tool,
    Cel,
}

impl Condition {
    /// In the order in which they are tried; what costs most is last.
    pub const ALL: [Condition; 13] = [
        Condition::Tool,
        Condition::Name,
        Condition::Cgroup,
        Condition::Labels,
        Condition::Host,
        Condition::Port,
        Condition::Protocol,
        Condition::Method,
        Condition::Path,
        Condition::Identity,
        Condition::Passthrough,
        Condition::Hold,
        Condition::Cel,
    ];

    /// In a set of them.
    fn bit(self) -> u16 {
        1 << self as u16
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Name => "workload.name",
            Condition::Cgroup => "workload.cgroup",
            Condition::Labels => "workload.labels",
            Condition::Host => "host",
            Condition::Port => "port",
            Condition::Protocol => "protocol",
            Condition::Method => "method",
            Condition::Path => "path",
            Condition::Identity => "identity",
            Condition::Passthrough => "passthrough",
            Condition::Hold => "hold",
            Condition::Tool => "llm.tool",
            Condition::Cel => "cel",
        }
    }
}

/// A decision asks many rules one thing or two each: what it asks lies together, and what is
/// looked at of a rule that matches lies elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Which conditions do not hold whatever is asked, as a set.
    asks: u16,
    /// What of answers it is about, if it is not about requests.
    pub tool: Option<Item>,
    pub mode: Mode,
    pub when: Conditions,
    pub deciding: Option<Deciding>,
    /// What has to be known of a body before it can be told whether it matches.
    pub awaits: Awaits,
    pub id: RuleId,
    pub owner: Option<Arc<str>>,
    pub adding: Box<Adding>,
    /// How much of it there may be; for what it allows.
    pub limits: Arc<[Limit]>,
}

fn any(globs: &[TextGlob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

fn fact<T>(wanted: bool, fact: Fact<T>, holds: impl FnOnce(T) -> bool) -> Tri {
    match fact {
        _ if !wanted => Tri::Yes,
        Fact::Known(value) => holds(value).into(),
        Fact::Unknown => Tri::Maybe,
        Fact::Absent => Tri::No,
    }
}

impl Rule {
    pub fn new(
        id: RuleId,
        mode: Mode,
        when: Conditions,
        (deciding, adding): (Option<Deciding>, Adding),
        tool: Option<Item>,
    ) -> Self {
        let asked = |condition: &Condition| match condition {
            Condition::Name => !when.name.is_empty(),
            Condition::Cgroup => !when.cgroup.is_empty(),
            Condition::Labels => !when.labels.is_empty(),
            Condition::Host => !when.host.is_empty(),
            Condition::Port => !when.port.is_empty(),
            Condition::Protocol => !when.protocol.is_empty(),
            Condition::Method => !when.method.is_empty(),
            Condition::Path => !when.path.is_empty(),
            Condition::Identity => when.identity.is_some(),
            Condition::Passthrough => matches!(deciding, Some(Deciding::Passthrough)),
            Condition::Hold => matches!(deciding, Some(Deciding::Hold(_))),
            Condition::Tool => true,
            Condition::Cel => when.cel.is_some(),
        };
        let asks = Condition::ALL.iter().filter(|one| asked(one)).fold(0, |asks, one| asks | one.bit());
        let awaits = when.cel.as_ref().map(|expression| expression.needs().body()).unwrap_or_default();
        Self {
            asks,
            tool,
            mode,
            when,
            deciding,
            awaits,
            id,
            owner: None,
            adding: Box::new(adding),
            limits: Arc::default(),
        }
    }

    /// The same, asked for what holds anyway, too.
    #[cfg(test)]
    pub fn asking_all(self) -> Self {
        Self { asks: u16::MAX, ..self }
    }

    /// What a rule in audit mode would have done, if that is to deny or to hold.
    pub fn would_have(&self) -> Option<WouldDeny> {
        let (reason, message) = match &self.deciding {
            _ if self.mode != Mode::Audit => return None,
            Some(Deciding::Deny(message)) => (Reason::PolicyDeny, Some(message.clone())),
            Some(Deciding::Hold(hold)) => (Reason::PolicyHold, hold.message.clone()),
            Some(Deciding::Allow | Deciding::Passthrough | Deciding::Delegate(_)) | None => return None,
        };
        Some(WouldDeny { rule: Some(self.id.clone()), reason, message })
    }

    /// Its limits, if it has any.
    pub fn limited(&self) -> Option<Limited> {
        let (limits, audit) = (Arc::clone(&self.limits), self.mode == Mode::Audit);
        let limited = || Limited { rule: self.id.clone(), owner: self.owner.clone(), audit, limits };
        (!self.limits.is_empty()).then(limited)
    }

    pub fn condition(&self, condition: Condition, known: &Known<'_>) -> Tri {
        self.condition_as(condition, known, self.grants())
    }

    /// As a rule has it that lets something through (`grants`), or as one that does not.
    fn condition_as(&self, condition: Condition, known: &Known<'_>, grants: bool) -> Tri {
        let when = &self.when;
        let facts = known.facts;
        let workload = facts.workload;
        match condition {
            Condition::Name => any(&when.name, &workload.name).into(),
            Condition::Cgroup => any(&when.cgroup, &workload.cgroup).into(),
            Condition::Labels => when
                .labels
                .iter()
                .all(|(key, globs)| workload.labels.get(key).is_some_and(|value| any(globs, value)))
                .into(),
            Condition::Host => fact(!when.host.is_empty(), known.host, |host| {
                when.host.iter().any(|glob| glob.matches(host))
            }),
            Condition::Port => fact(!when.port.is_empty(), facts.port, |port| when.port.contains(&port)),
            Condition::Protocol => {
                fact(!when.protocol.is_empty(), facts.protocol, |protocol| when.protocol.contains(&protocol))
            }
            Condition::Method => {
                fact(!when.method.is_empty(), facts.method, |method| self.method(method, grants))
            }
            Condition::Path => {
                fact(!when.path.is_empty(), known.path.as_ref(), |path| self.path(path, known, grants))
            }
            Condition::Identity => {
                when.identity.as_ref().map_or(Tri::Yes, |wanted| wanted.holds(facts.identity, grants))
            }
            Condition::Passthrough => self.passthrough(facts),
            Condition::Hold => self.held(facts),
            Condition::Tool => {
                let asked = match facts.tool {
                    Fact::Known(tool) => Some(tool.item),
                    Fact::Unknown | Fact::Absent => None,
                };
                (self.tool == asked).into()
            }
            Condition::Cel => {
                when.cel.as_ref().map_or(Tri::Yes, |expression| expression.holds(known, grants))
            }
        }
    }

    /// Whether it lets something through, so that what is in doubt does not count.
    pub fn grants(&self) -> bool {
        matches!(self.deciding, Some(Deciding::Allow | Deciding::Passthrough | Deciding::Delegate(_)))
    }

    /// Whether it looks at who the job is.
    pub fn asks_who(&self) -> bool {
        let cel = self.when.cel.as_ref().is_some_and(|expression| expression.needs().identity);
        cel || self.when.identity.is_some()
    }

    /// Methods are case-sensitive, but not for every server: what denies does not trust it.
    fn method(&self, method: &str, exact: bool) -> bool {
        let same = |wanted: &String| match exact {
            true => wanted == method,
            false => wanted.eq_ignore_ascii_case(method),
        };
        self.when.method.iter().any(same)
    }

    /// Some servers cut parameters off a segment (`/admin;x/`, RFC 3986, section
    /// 3.3), others do not: what allows has to match both readings, everything else
    /// matches either.
    fn path(&self, path: &str, known: &Known<'_>, grants: bool) -> bool {
        let matches = |path: &str| self.when.path.iter().any(|glob| glob.matches(path));
        match &known.plain {
            None => matches(path),
            Some(plain) if grants => matches(path) && matches(plain),
            Some(plain) => matches(path) || matches(plain),
        }
    }

    /// Passing through is possible only where a TLS connection has just shown
    /// its SNI. Before that it may come; after that the bytes are being read.
    fn passthrough(&self, facts: &Facts<'_>) -> Tri {
        if !matches!(self.deciding, Some(Deciding::Passthrough)) {
            return Tri::Yes;
        }
        let tls = match facts.protocol {
            Fact::Known(protocol) => matches!(protocol, Protocol::Https | Protocol::Tls),
            Fact::Unknown => true,
            Fact::Absent => false,
        };
        match facts.stage {
            _ if !tls => Tri::No,
            Stage::Connect | Stage::Dns => Tri::Maybe,
            Stage::Tls => Tri::Yes,
            Stage::Http => Tri::No,
        }
    }

    /// Only a request can be held. Before one was read it may still come; what turns out
    /// to be something else is what the rule is not about, and another has to let it through.
    fn held(&self, facts: &Facts<'_>) -> Tri {
        match (&self.deciding, facts.stage) {
            (Some(Deciding::Hold(_)), Stage::Http) => Tri::Yes,
            (Some(Deciding::Hold(_)), Stage::Connect | Stage::Dns | Stage::Tls) => Tri::Maybe,
            _ => Tri::Yes,
        }
    }

    /// What every path begins with that it can match, in each reading of it.
    pub fn begins(&self) -> &str {
        let glob = if let [glob] = &*self.when.path { glob.begins() } else { "" };
        let cel = self.when.cel.as_ref().map_or("", |expression| expression.begins());
        if cel.len() > glob.len() { cel } else { glob }
    }

    pub fn matches(&self, known: &Known<'_>, found: Candidate) -> Tri {
        let host = if found.is_host { Condition::Host.bit() } else { 0 };
        self.all(known, &Condition::ALL, self.asks & !host)
    }

    /// Whether a server may read this as what it limits, in a reading in which it does not let
    /// it through. Who the job is has one reading.
    pub fn may_limit(&self, known: &Known<'_>) -> bool {
        let loosely = |condition: Condition| match condition {
            Condition::Method | Condition::Path => self.condition_as(condition, known, false),
            Condition::Cel => {
                let strict = self.when.cel.as_ref().is_some_and(|expression| expression.misses_who(known));
                self.condition_as(condition, known, strict)
            }
            condition => self.condition(condition, known),
        };
        let mut asked = Condition::ALL.into_iter().filter(|one| self.asks & one.bit() != 0);
        !self.limits.is_empty() && asked.all(|condition| loosely(condition) != Tri::No)
    }

    /// Whether it may match something in the answer to this request.
    pub fn awaits_answer(&self, known: &Known<'_>) -> bool {
        let [Condition::Tool, rest @ ..] = &Condition::ALL else { return self.tool.is_some() };
        self.tool.is_some() && self.all(known, rest, self.asks) != Tri::No
    }

    fn all(&self, known: &Known<'_>, conditions: &[Condition], asks: u16) -> Tri {
        let mut worst = Tri::Yes;
        for condition in conditions.iter().copied().filter(|one| asks & one.bit() != 0) {
            worst = worst.min(self.condition(condition, known));
            if worst == Tri::No {
                return worst;
            }
        }
        worst
    }

    /// The first condition that makes it match no better than it does.
    pub fn because(&self, matches: Tri, known: &Known<'_>) -> Option<Condition> {
        let first = || Condition::ALL.into_iter().find(|one| self.condition(*one, known) == matches);
        if matches == Tri::Yes { None } else { first() }
    }
}
