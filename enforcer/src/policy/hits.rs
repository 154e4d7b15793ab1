//! How often each rule had a say since a policy is in force.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{MAX_NAME_BYTES, Policy, RuleId, Used};

/// The most rules that are told of at once, so that they fit into a message.
pub const MAX_LISTED: usize = 500;
/// The same of limits.
pub const MAX_LISTED_LIMITS: usize = 100;

/// One count for each rule, in their order.
#[derive(Debug, Default)]
pub(super) struct Counts {
    rules: Box<[AtomicU64]>,
    undecided: AtomicU64,
}

impl Counts {
    pub fn of(rules: usize) -> Self {
        Self { rules: (0..rules).map(|_| AtomicU64::new(0)).collect(), undecided: AtomicU64::new(0) }
    }

    pub fn count(&self, rule: usize) {
        if let Some(count) = self.rules.get(rule) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn count_undecided(&self) {
        self.undecided.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often a rule matched. One that may match when more is known is not counted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    pub rule: String,
    pub hits: u64,
}

/// What a policy was asked since it is in force: a connection, each request on it and each
/// name that is resolved are a decision of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// BLAKE3 of the policy, as hex.
    pub policy: String,
    /// In the order of the rules; those with the most hits if they are too many.
    pub rules: Vec<Hit>,
    /// How many rules are not listed.
    pub more: usize,
    /// Decisions to which no rule led.
    pub undecided: u64,
    /// How much is used of limits.
    #[serde(default)]
    pub limits: Vec<Used>,
}

impl Policy {
    /// How often each rule had a say, at most of so many rules, of all layers.
    pub fn hits(&self, most: usize) -> Hits {
        let layers = self.layers.iter().flat_map(|layers| layers.all()).map(|layer| &*layer.policy);
        let counted = |policy: &'_ Self| {
            let counts = policy.counts.rules.iter().map(|count| count.load(Ordering::Relaxed));
            policy.rules.iter().map(|rule| rule.id.clone()).zip(counts).collect::<Vec<_>>()
        };
        let every = std::iter::once(self).chain(layers).flat_map(counted);
        let mut all: Vec<(usize, (RuleId, u64))> = every.enumerate().collect();
        let total = all.len();
        // Names of layers may be long.
        let room = most.saturating_mul(2 * MAX_NAME_BYTES + 1);
        let bytes: usize = all.iter().map(|(_, (rule, _))| rule.as_str().len()).sum();
        if total > most || bytes > room {
            all.sort_by_key(|(number, (_, hits))| (std::cmp::Reverse(*hits), *number));
            let mut bytes = 0;
            let fits = all.iter().take_while(|(_, (rule, _))| {
                bytes += rule.as_str().len();
                bytes <= room
            });
            let fits = fits.count();
            all.truncate(most.min(fits));
            all.sort_by_key(|(number, _)| *number);
        }
        let more = total - all.len();
        let named = |(_, (rule, hits)): (usize, (RuleId, u64))| Hit { rule: rule.as_str().to_owned(), hits };
        Hits {
            policy: self.hash().as_str().to_owned(),
            rules: all.into_iter().map(named).collect(),
            more,
            undecided: self.counts.undecided.load(Ordering::Relaxed),
            limits: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fact, Facts, Protocol, Stage, WorkloadFacts};
    use super::*;

    const POLICY: &str = "
version: 1
name: p
rules:
  - {id: adds, when: {host: a.test}, observe: true}
  - {id: tried, when: {host: a.test, method: PUT}, mode: audit, deny: no}
  - {id: lets, when: {host: a.test, method: GET}, allow: true}
  - {id: late, when: {host: a.test}, deny: no}
";

    fn ask(policy: &Policy, host: &str, method: &str) {
        let workload = WorkloadFacts::default();
        let facts = Facts {
            host: Fact::Known(host),
            port: Fact::Known(443),
            protocol: Fact::Known(Protocol::Https),
            method: Fact::Known(method),
            path: Fact::Known("/"),
            ..Facts::new(&workload, Stage::Http)
        };
        let decided = policy.decide(&facts);
        // To look at the way to it is no decision.
        assert_eq!(policy.explain(&facts).decision, decided);
    }

    fn counts(hits: &Hits) -> Vec<(&str, u64)> {
        hits.rules.iter().map(|hit| (hit.rule.as_str(), hit.hits)).collect()
    }

    #[test]
    fn what_had_a_say_is_counted_and_what_was_not_asked_is_not() {
        let policy = Policy::from_text("p.yaml", POLICY).unwrap();
        for (host, method) in
            [("a.test", "GET"), ("a.test", "GET"), ("a.test", "PUT"), ("a.test", "POST"), ("b.test", "GET")]
        {
            ask(&policy, host, method);
        }
        let hits = policy.hits(MAX_LISTED);
        assert_eq!(counts(&hits), [("p/adds", 4), ("p/tried", 1), ("p/lets", 2), ("p/late", 2)]);
        assert_eq!((hits.undecided, hits.more, hits.policy.as_str()), (1, 0, policy.hash().as_str()));
    }

    #[test]
    fn what_is_denied_before_all_is_known_is_counted_and_what_may_be_allowed_is_not_yet() {
        let text = "version: 1\nname: p\nrules:\n  - {id: no, when: {host: no.test}, deny: no}\n  - {id: get, when: {host: a.test, method: GET}, allow: true}\n";
        let policy = Policy::from_text("p.yaml", text).unwrap();
        let workload = WorkloadFacts::default();
        for (host, possible) in [("no.test", false), ("a.test", true), ("b.test", false)] {
            let facts = Facts { host: Fact::Known(host), ..Facts::new(&workload, Stage::Connect) };
            assert_eq!(policy.feasible(&facts).is_possible(), possible, "{host}");
        }
        let hits = policy.hits(MAX_LISTED);
        assert_eq!((counts(&hits), hits.undecided), (vec![("p/no", 1), ("p/get", 0)], 1));
    }

    /// Before a request is read, all rules about requests may match.
    #[test]
    fn what_may_match_is_not_counted() {
        let policy = Policy::from_text("p.yaml", POLICY).unwrap();
        let workload = WorkloadFacts::default();
        policy.decide(&Facts { host: Fact::Known("a.test"), ..Facts::new(&workload, Stage::Tls) });
        assert_eq!(
            counts(&policy.hits(MAX_LISTED)),
            [("p/adds", 1), ("p/tried", 0), ("p/lets", 0), ("p/late", 1)]
        );
    }

    #[test]
    fn so_many_are_listed_and_the_idle_ones_are_left_out_first() {
        let policy = Policy::from_text("p.yaml", POLICY).unwrap();
        ask(&policy, "a.test", "POST");
        assert_eq!(policy.hits(4).more, 0);
        let hits = policy.hits(2);
        assert_eq!((counts(&hits), hits.more), (vec![("p/adds", 1), ("p/late", 1)], 2));
    }

    #[test]
    fn as_many_as_are_listed_fit_into_a_message() {
        let hit = Hit { rule: "x".repeat(2 * crate::policy::MAX_NAME_BYTES + 1), hits: u64::MAX };
        let rules = vec![hit; MAX_LISTED];
        let limit = crate::policy::Limit {
            unit: crate::policy::Unit::Requests,
            most: u64::MAX,
            window_seconds: 86_399,
            per: crate::policy::Per::Repository,
        };
        let used = Used {
            rule: "x".repeat(2 * crate::policy::MAX_NAME_BYTES + 1),
            limit: limit.to_string(),
            most: u64::MAX,
            used: u64::MAX,
            counted: usize::MAX,
        };
        let limits = vec![used; MAX_LISTED_LIMITS];
        let hits = Hits { policy: "x".repeat(64), rules, more: usize::MAX, undecided: u64::MAX, limits };
        // As `admin.sock` answers.
        let answer = serde_json::json!({ "ok": true, "message": "", "status": hits });
        assert!(serde_json::to_vec(&answer).unwrap().len() < crate::net::ipc::MAX_MESSAGE);
    }
}
