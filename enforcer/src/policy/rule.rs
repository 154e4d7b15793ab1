//! A compiled rule, and what it says about facts in three-valued logic.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mask::Selection;

use super::decision::{AddressRules, Durability, Reason, RuleId, WouldDeny};
use super::facts::{Fact, Facts, Protocol, Stage};
use super::file::Mode;
use super::glob::{Host, HostGlob, TextGlob, undelimited};

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

/// An effect that decides. A later one, `hold`, will stand here.
#[derive(Debug, Clone)]
pub(super) enum Deciding {
    Allow,
    Deny(Arc<str>),
    Passthrough,
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
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub id: RuleId,
    pub mode: Mode,
    pub when: Conditions,
    pub deciding: Option<Deciding>,
    pub adding: Adding,
}

/// Facts whose host was parsed once for all rules.
pub(super) struct Known<'a> {
    pub facts: &'a Facts<'a>,
    pub host: Fact<Host<'a>>,
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

/// The path as a server reads it that cuts segments at `;`; None if none has one.
fn without_parameters(path: &str) -> Option<String> {
    const MARKS: [&str; 2] = [";", "%3B"];
    if !MARKS.iter().any(|mark| path.contains(mark)) {
        return None;
    }
    let cut = |segment: &str| {
        let end = MARKS.iter().filter_map(|mark| segment.find(mark)).min().unwrap_or(segment.len());
        segment[..end].to_owned()
    };
    let segments: Vec<String> = path.split('/').skip(1).map(cut).collect();
    let last = segments.len() - 1;
    let kept = segments.iter().enumerate().filter(|(at, segment)| *at == last || !segment.is_empty());
    Some(kept.map(|(_, segment)| format!("/{segment}")).collect())
}

impl Rule {
    /// What a rule in audit mode would have done, if that is to deny.
    pub fn would_deny(&self) -> Option<WouldDeny> {
        let Some(Deciding::Deny(message)) = &self.deciding else { return None };
        (self.mode == Mode::Audit).then(|| WouldDeny {
            rule: Some(self.id.clone()),
            reason: Reason::PolicyDeny,
            message: Some(message.clone()),
        })
    }

    /// Conditions in the order in which they are tried, with their names.
    pub fn conditions(&self, known: &Known<'_>) -> [(&'static str, Tri); 9] {
        let when = &self.when;
        let facts = known.facts;
        let workload = facts.workload;
        let labels = when
            .labels
            .iter()
            .all(|(key, globs)| workload.labels.get(key).is_some_and(|value| any(globs, value)));
        [
            ("workload.name", any(&when.name, &workload.name).into()),
            ("workload.cgroup", any(&when.cgroup, &workload.cgroup).into()),
            ("workload.labels", labels.into()),
            (
                "host",
                fact(!when.host.is_empty(), known.host, |host| {
                    when.host.iter().any(|glob| glob.matches(host))
                }),
            ),
            ("port", fact(!when.port.is_empty(), facts.port, |port| when.port.contains(&port))),
            (
                "protocol",
                fact(!when.protocol.is_empty(), facts.protocol, |protocol| when.protocol.contains(&protocol)),
            ),
            ("method", fact(!when.method.is_empty(), facts.method, |method| self.method(method))),
            ("path", fact(!when.path.is_empty(), facts.path, |path| self.path(path))),
            ("passthrough", self.passthrough(facts)),
        ]
    }

    /// Methods are case-sensitive, but not for every server: what denies does not trust it.
    fn method(&self, method: &str) -> bool {
        let exact = matches!(self.deciding, Some(Deciding::Allow | Deciding::Passthrough));
        let same = |wanted: &String| match exact {
            true => wanted == method,
            false => wanted.eq_ignore_ascii_case(method),
        };
        self.when.method.iter().any(same)
    }

    /// Some servers cut parameters off a segment (`/admin;x/`, RFC 3986, section
    /// 3.3), others do not: what allows has to match both readings, everything else
    /// matches either.
    fn path(&self, path: &str) -> bool {
        let path = &*undelimited(path);
        let matches = |path: &str| self.when.path.iter().any(|glob| glob.matches(path));
        let Some(plain) = without_parameters(path) else { return matches(path) };
        match self.deciding {
            Some(Deciding::Allow | Deciding::Passthrough) => matches(path) && matches(&plain),
            Some(Deciding::Deny(..)) | None => matches(path) || matches(&plain),
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

    pub fn matches(&self, known: &Known<'_>) -> Tri {
        self.conditions(known).into_iter().map(|(_, tri)| tri).min().unwrap_or(Tri::Yes)
    }
}
