//! Which rules a host can match, so that a decision asks few of many.
//!
//! **Invariant**: what is left out would have answered no, and what is left in comes in
//! the order of the files: a walk over the candidates decides as one over all rules.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::Fact;
use super::glob::{Host, Key};
use super::rule::Rule;

/// Numbers of rules, rising.
type Numbers = Vec<u32>;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// How many rules there are.
    count: u32,
    exact: HashMap<Box<str>, Numbers>,
    /// By what follows an asterisk, with its dot.
    suffixes: HashMap<Box<str>, Numbers>,
    addresses: HashMap<IpAddr, Numbers>,
    networks: Numbers,
    /// Rules without a host.
    any: Numbers,
}

impl Index {
    pub fn of(rules: &[Arc<Rule>]) -> Self {
        let mut index = Self::default();
        for rule in rules {
            let number = index.count;
            index.count += 1;
            if rule.when.host.is_empty() {
                index.any.push(number);
            }
            for glob in &rule.when.host {
                let numbers = match glob.key() {
                    Key::Exact(name) => index.exact.entry(name.into()).or_default(),
                    Key::Suffix(suffix) => index.suffixes.entry(suffix.into()).or_default(),
                    Key::Address(address) => index.addresses.entry(address).or_default(),
                    Key::Network => &mut index.networks,
                };
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        index
    }

    pub fn all(&self) -> Candidates<'_> {
        Candidates::All(0..self.count)
    }

    /// Numbers of the rules that may match, rising.
    pub fn candidates(&self, host: Fact<Host<'_>>) -> Candidates<'_> {
        let mut lists: Vec<&[u32]> = vec![&self.any];
        match host {
            Fact::Unknown => return self.all(),
            Fact::Absent => {}
            Fact::Known(Host::Name(name)) => {
                lists.extend(self.exact.get(name).map(Vec::as_slice));
                let dots = name.match_indices('.').map(|(dot, _)| &name[dot..]);
                lists.extend(dots.filter_map(|suffix| self.suffixes.get(suffix)).map(Vec::as_slice));
            }
            Fact::Known(Host::Address(address)) => {
                lists.push(&self.networks);
                lists.extend(self.addresses.get(&address).map(Vec::as_slice));
            }
        }
        lists.retain(|list| !list.is_empty());
        Candidates::Some(lists)
    }

    /// One that leaves nothing out.
    #[cfg(test)]
    pub fn plain(count: usize) -> Self {
        let count = u32::try_from(count).unwrap();
        Self { count, any: (0..count).collect(), ..Self::default() }
    }

    #[cfg(test)]
    pub fn is_plain(&self) -> bool {
        self.any.len() == self.count as usize
    }
}

/// Merges lists of numbers that rise; a number that is in several comes once.
pub(super) enum Candidates<'a> {
    All(std::ops::Range<u32>),
    Some(Vec<&'a [u32]>),
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let number = match self {
            Candidates::All(all) => all.next()?,
            Candidates::Some(lists) => {
                let least = lists.iter().filter_map(|list| list.first().copied()).min()?;
                for list in lists {
                    *list = list.strip_prefix(&[least]).unwrap_or(list);
                }
                least
            }
        };
        usize::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Facts, IdentityFacts, Policy, Protocol, Stage, WorkloadFacts};
    use super::*;
    use crate::workload::identity::{Assurance, Claims, Field};

    const HOSTS: [&str; 9] = [
        "a.test",
        "b.test",
        "x.a.test",
        "y.x.a.test",
        "test",
        "10.1.2.3",
        "10.9.9.9",
        "2001:db8::1",
        "xa.test",
    ];

    fn rules() -> impl Strategy<Value = Vec<String>> {
        let globs = vec![
            "a.test",
            "b.test",
            "'*.test'",
            "'**.test'",
            "'*.a.test'",
            "'**.a.test'",
            "10.1.2.3",
            "10.0.0.0/8",
            "'2001:db8::/32'",
            "'2001:db8::1'",
        ];
        let hosts = proptest::collection::vec(prop::sample::select(globs), 0..4);
        let conditions = vec![
            "",
            "method: GET",
            "path: /x/**",
            "port: 443",
            "protocol: http",
            "workload: {name: 'b*', labels: {team: web}}",
            "workload: {cgroup: /ci/**}",
            "cel: http.path == '/'",
            "cel: destination.port == 443",
            "identity: {repository: a/b}",
            "identity: {assurance: none}",
            "cel: identity.actor == 'mona'",
        ];
        let effects = vec![
            "allow: true",
            "deny: no",
            "observe: true",
            "mode: audit, deny: no",
            "mask: {request: [secrets]}",
            "hold: {needs: [{people: 1, groups: [ops]}]}",
            "allow: true, addresses: [private]",
            "body: inspect",
        ];
        let rule = (hosts, prop::sample::select(conditions), prop::sample::select(effects));
        let rule = rule.prop_map(|(hosts, condition, effect)| {
            let hosts =
                if hosts.is_empty() { String::new() } else { format!("host: [{}]", hosts.join(", ")) };
            let parts: Vec<&str> =
                [hosts.as_str(), condition].into_iter().filter(|part| !part.is_empty()).collect();
            format!("when: {{{}}}, {effect}", parts.join(", "))
        });
        proptest::collection::vec(rule, 0..12)
    }

    fn policy(rules: &[String]) -> Policy {
        let lines: String =
            rules.iter().enumerate().map(|(n, rule)| format!("  - {{id: r{n}, {rule}}}\n")).collect();
        let rules = if lines.is_empty() { " []\n".to_owned() } else { format!("\n{lines}") };
        Policy::from_text("p.yaml", &format!("version: 1\nname: p\nrules:{rules}")).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_left_out_changes_nothing(
            rules in rules(),
            host in 0..HOSTS.len() + 2,
            method in prop::option::of(prop::sample::select(vec!["GET", "POST"])),
            path in prop::sample::select(vec!["/", "/x/y"]),
            assurance in prop::sample::select(Assurance::ALL.to_vec()),
        ) {
            let texts = [(Field::Repository, "a/b".to_owned()), (Field::Actor, "mona".to_owned())];
            let claims = Claims { texts: texts.into(), ..Claims::default() };
            let (indexed, plain) = (policy(&rules), policy(&rules).unindexed());
            let labels = [("team".to_owned(), "web".to_owned())].into();
            let workload = WorkloadFacts { name: "build".to_owned(), cgroup: "/x".to_owned(), labels };
            let facts = Facts {
                host: match HOSTS.get(host) {
                    Some(host) => Fact::Known(host),
                    None if host == HOSTS.len() => Fact::Unknown,
                    None => Fact::Absent,
                },
                port: Fact::Known(443),
                protocol: Fact::Known(Protocol::Https),
                method: method.map_or(Fact::Unknown, Fact::Known),
                path: Fact::Known(path),
                identity: match assurance {
                    Assurance::None => Fact::Absent,
                    assurance => Fact::Known(IdentityFacts { claims: &claims, assurance }),
                },
                ..Facts::new(&workload, Stage::Http)
            };
            prop_assert_eq!(indexed.decide(&facts), plain.decide(&facts));
            prop_assert_eq!(indexed.feasible(&facts), plain.feasible(&facts));
            let (one, other) = (indexed.explain(&facts), plain.explain(&facts));
            prop_assert_eq!(&one.decision, &other.decision);
            prop_assert_eq!(format!("{:?}", one.steps), format!("{:?}", other.steps));
            prop_assert_eq!(one.decision, indexed.decide(&facts));
        }
    }

    #[test]
    fn few_of_many_are_asked() {
        let rules: Vec<String> =
            (0..300).map(|n| format!("when: {{host: 'h{}.test'}}, observe: true", n % 100)).collect();
        let policy = policy(&rules);
        let asked = |host| policy.index.candidates(host).collect::<Vec<_>>();
        assert_eq!(asked(Fact::Known(Host::Name("h7.test"))), [7, 107, 207]);
        assert!(asked(Fact::Known(Host::Name("x.h7.test"))).is_empty());
        assert!(asked(Fact::Absent).is_empty());
        assert_eq!(asked(Fact::Unknown).len(), 300);
        assert!(!policy.index.is_plain() && policy.unindexed().index.is_plain());
    }
}
