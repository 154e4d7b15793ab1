//! `enforcer doctor`: how well a host and its scopes are held, and what is missing.
//!
//! ```text
//!   Host (files, probes) --+
//!                          +--> CHECKS, each a pure function --> Report
//!   Scope (unit, users) ---+                                      grades, fixes, what is open
//! ```
//!
//! **Invariant**: nothing on the host is changed, and what cannot be looked at is never good.

mod check;
mod checks;
pub mod harden;
mod host;
mod people;
mod scope;
mod techniques;
mod unit;

use serde::Serialize;

pub use check::{Check, Fix, Found, Level, Look, Severity, State};
pub use checks::CHECKS;
pub use host::{Access, Host, Meta, Probes, Service};
pub use people::Person;
pub use scope::{Kind, RUN, Scope, ScopeError};
pub use techniques::{BEYOND, TECHNIQUES, Technique, technique};
pub use unit::{Unit, UnitError, service_name};

/// The version of the report's form; what is added to it does not change it.
const FORM: u32 = 1;

/// How well an attacker is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Nothing is missing: proof.
    Proof,
    /// The same for root of the host, whose acts are noticed and not prevented.
    Detected,
    Open,
    /// Nothing is missing that was looked at, and not all could be.
    Unknown,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub form: u32,
    /// What was asked for.
    pub require: Level,
    /// Whether every scope is held against it; None if it cannot be told.
    pub held: Option<bool>,
    pub host: Vec<Finding>,
    pub scopes: Vec<ScopeReport>,
}

/// A scope's grades, which its host takes part in.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeReport {
    pub name: String,
    pub kind: Kind,
    pub users: Vec<String>,
    pub cgroup: String,
    pub grades: Vec<Graded>,
    pub findings: Vec<Finding>,
}

/// What is known of one level.
#[derive(Clone, Debug, Serialize)]
pub struct Graded {
    pub level: Level,
    pub grade: Grade,
    /// The checks that miss something, by their ids.
    pub missing: Vec<&'static str>,
    pub unknown: Vec<&'static str>,
    /// Techniques that are not stopped.
    pub not_stopped: Vec<&'static str>,
}

/// What one check found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub state: State,
    pub severity: Severity,
    /// The levels whose grade it decides.
    pub decides: Vec<Level>,
    pub found: String,
    pub fix: Vec<Fix>,
    /// What is open if it is missing.
    pub opens: &'static [&'static str],
}

/// Looks at the host and at each scope.
pub fn examine(host: &Host, scopes: &[Scope], require: Level) -> Report {
    let of_host: Vec<Finding> = CHECKS
        .iter()
        .filter_map(|check| match check.look {
            Look::Host(look) => Some(finding(check, look(host))),
            Look::Scope(_) => None,
        })
        .collect();
    let scopes: Vec<ScopeReport> = scopes.iter().map(|scope| examine_scope(host, scope, &of_host)).collect();
    let grades =
        || scopes.iter().flat_map(|scope| scope.grades.iter()).filter(|graded| graded.level == require);
    let held = if grades().any(|graded| graded.grade == Grade::Open) {
        Some(false)
    } else if scopes.is_empty() || grades().any(|graded| graded.grade == Grade::Unknown) {
        None
    } else {
        Some(true)
    };
    Report { form: FORM, require, held, host: of_host, scopes }
}

fn examine_scope(host: &Host, scope: &Scope, of_host: &[Finding]) -> ScopeReport {
    let findings: Vec<Finding> = CHECKS
        .iter()
        .filter_map(|check| match check.look {
            Look::Scope(look) => {
                let mut found = look(host, scope);
                if scope.kind == Kind::Cgroup {
                    found.fix.iter_mut().for_each(without_unit);
                }
                Some(finding(check, found))
            }
            Look::Host(_) => None,
        })
        .collect();
    let all: Vec<&Finding> = of_host.iter().chain(&findings).collect();
    let grades = Level::ALL.map(|level| grade(level, &all)).into();
    ScopeReport {
        name: scope.name.clone(),
        kind: scope.kind,
        users: scope.people.iter().map(|person| person.name.clone()).collect(),
        cgroup: scope.cgroup.display().to_string(),
        grades,
        findings,
    }
}

/// What starts the processes of a cgroup is not known here, and has no drop-in.
fn without_unit(fix: &mut Fix) {
    if let Fix::DropIn(lines) = fix {
        let line = |line: &String| format!("# start these in a unit with: {line}");
        *fix = Fix::Shell(lines.iter().map(line).collect());
    }
}

fn finding(check: &Check, found: Found) -> Finding {
    Finding {
        id: check.id,
        state: found.state,
        severity: check.severity(),
        decides: check.decides().collect(),
        found: found.text,
        fix: found.fix,
        opens: check.opens,
    }
}

fn grade(level: Level, findings: &[&Finding]) -> Graded {
    let with = |state: State| {
        let decides = move |finding: &&&Finding| finding.decides.contains(&level) && finding.state == state;
        findings.iter().filter(decides).copied().collect::<Vec<&Finding>>()
    };
    let (missing, unknown) = (with(State::Missing), with(State::Unknown));
    let is_open = |technique: &&Technique| {
        let beyond = level == Level::HostRoot && BEYOND.contains(&technique.name);
        let opened = missing.iter().any(|finding| finding.opens.contains(&technique.name));
        technique.from <= level && (beyond || opened)
    };
    let not_stopped = TECHNIQUES.iter().filter(is_open).map(|technique| technique.name).collect();
    let grade = match (missing.is_empty(), unknown.is_empty(), level) {
        (false, ..) => Grade::Open,
        (_, false, _) => Grade::Unknown,
        (.., Level::HostRoot) => Grade::Detected,
        _ => Grade::Proof,
    };
    let ids = |findings: Vec<&Finding>| findings.iter().map(|finding| finding.id).collect();
    Graded { level, grade, missing: ids(missing), unknown: ids(unknown), not_stopped }
}
