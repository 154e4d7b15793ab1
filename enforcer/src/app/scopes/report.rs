//! What an administrator is told of scopes.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::places::children;
use super::{Daemon, Known, Match, Scopes};

/// The most matches of one scope that are listed, since a message has an end.
pub const MAX_LISTED: usize = 64;

/// Of a scope that stands in `[[scope]]`.
pub const CONFIGURATION: &str = "configuration";

/// One scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScopeReport {
    pub name: String,
    /// Where it was described: `configuration` or `command`.
    pub from: String,
    /// All matches, of which some may not be listed.
    pub count: usize,
    pub matches: Vec<MatchReport>,
    pub problems: Vec<String>,
    /// Whether something that it means is not enforced.
    pub failed: bool,
    /// Of how many matches not all sockets from before are closed.
    #[serde(default)]
    pub sweeping: usize,
}

/// How one cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Tagged, and nothing from before is open.
    Enforced,
    /// Tagged; connections from before may still be open.
    Sweeping,
    /// Not enforced for a while.
    Lifted,
    /// It cannot be tagged.
    Failed,
}

/// One cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MatchReport {
    pub cgroup: String,
    /// None: it is only looked at.
    pub state: Option<State>,
    pub tag: Option<u64>,
    pub since_unix_ms: Option<u64>,
    /// Sockets from before the tag that were closed.
    pub sockets_closed: u64,
    /// While it is being swept: processes that were found and not yet looked at.
    #[serde(default)]
    pub processes_left: Option<usize>,
    pub lifted_until_unix_ms: Option<u64>,
    pub problems: Vec<String>,
}

pub(super) fn of_all(scopes: &Scopes, lifted: &HashMap<u64, u64>) -> Vec<ScopeReport> {
    scopes.known.iter().map(|known| of(scopes, known, lifted)).collect()
}

fn of(scopes: &Scopes, known: &Known, lifted: &HashMap<u64, u64>) -> ScopeReport {
    let mut problems = known.problems.clone();
    let refused = known.refused.iter().take(MAX_LISTED);
    problems.extend(refused.map(|(path, why)| format!("{} is not tagged: {why}", scopes.places.shown(path))));
    if known.matches.is_empty() {
        problems.push("it matches nothing now".to_owned());
    }
    problems.extend(scopes.unwatched().map(str::to_owned));
    let matches = known.matches.values().take(MAX_LISTED).map(|found| {
        let lifted_until_unix_ms = lifted.get(&found.note.tag).copied();
        MatchReport {
            cgroup: scopes.places.shown(&found.note.path),
            state: Some(state_of(found, lifted_until_unix_ms.is_some())),
            tag: Some(found.note.tag),
            since_unix_ms: Some(found.note.since_unix_ms),
            sockets_closed: found.note.closed,
            processes_left: found.sweep.under_way(),
            lifted_until_unix_ms,
            problems: problems_of(scopes, known, found),
        }
    });
    ScopeReport {
        name: known.scope.name().to_owned(),
        from: if known.by_command { "command" } else { CONFIGURATION }.to_owned(),
        count: known.matches.len(),
        matches: matches.collect(),
        problems,
        failed: known.matches.values().any(|found| found.failed.is_some()),
        sweeping: known.matches.values().filter(|found| found.sweep.under_way().is_some()).count(),
    }
}

fn problems_of(scopes: &Scopes, known: &Known, found: &Match) -> Vec<String> {
    let asks = known.scope.asks_for_labels();
    let labels = if asks { scopes.containers.problem(found.note.cgroup) } else { None };
    found.failed.iter().cloned().chain(labels).chain(found.sweep.problems()).collect()
}

fn state_of(found: &Match, lifted: bool) -> State {
    if lifted {
        State::Lifted
    } else if found.failed.is_some() {
        State::Failed
    } else if found.sweep.under_way().is_some() {
        State::Sweeping
    } else {
        State::Enforced
    }
}

impl Daemon {
    /// What a scope would match now; matches that would be refused have a problem.
    pub(super) fn survey(&self, scopes: &Scopes, known: &Known, by: u32) -> ScopeReport {
        let asker = self.cgroup_of(by);
        let mut found: Vec<MatchReport> = Vec::new();
        let mut open = vec![scopes.places.attach.clone()];
        while let Some(path) = open.pop() {
            let look = scopes.places.look(&known.patterns, &path);
            if look.matched || look.holds_only_matches {
                let place = scopes.places.place(&path);
                let cgroup = scopes.places.shown(&place);
                let why = self.objection(scopes, known, &place, asker.as_deref());
                let is_new = found.iter().all(|it| it.cgroup != cgroup);
                // A parent that cannot be tagged with its children is none of them.
                if is_new && (look.matched || why.is_none()) {
                    let problems = why.into_iter().collect();
                    let (tag, since_unix_ms, lifted_until_unix_ms) = (None, None, None);
                    found.push(MatchReport {
                        cgroup,
                        state: None,
                        tag,
                        since_unix_ms,
                        sockets_closed: 0,
                        processes_left: None,
                        lifted_until_unix_ms,
                        problems,
                    });
                }
            }
            if look.descend {
                open.extend(children(&path));
            }
        }
        found.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
        let mut problems = known.problems.clone();
        if found.is_empty() {
            problems.push("it matches nothing now".to_owned());
        }
        let count = found.len();
        let failed = found.iter().any(|it| !it.problems.is_empty());
        // Those that are refused are what somebody wants to see.
        found.sort_by_key(|it| it.problems.is_empty());
        found.truncate(MAX_LISTED);
        let name = known.scope.name().to_owned();
        ScopeReport { name, from: "command".to_owned(), count, matches: found, problems, failed, sweeping: 0 }
    }

    fn objection(
        &self,
        scopes: &Scopes,
        known: &Known,
        place: &Path,
        asker: Option<&Path>,
    ) -> Option<String> {
        let refusal = scopes.places.refusal(place, known.scope.force);
        let locks_out = !known.scope.force && asker.is_some_and(|asker| asker.starts_with(place));
        let other = crate::kernel::cgroup_id(place).ok().and_then(|cgroup| scopes.held_by(cgroup));
        refusal
            .or_else(|| {
                locks_out
                    .then(|| "you are in it, and would have no say over it afterwards (--force)".to_owned())
            })
            .or_else(|| other.map(|other| format!("it is in the scope `{other}`")))
    }
}
