//! Which rules a host and a path can match, so that a decision asks few of many.
//!
//! A rule that is asked lies somewhere in memory, and to wait for that costs more than to ask
//! it. What tells most rules of a host apart is the beginning of the path, which stands in the
//! lists themselves.
//!
//! **Invariant**: what is left out would have answered no, and what is left in comes in
//! the order of the files: a walk over the candidates decides as one over all rules.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::Fact;
use super::glob::{Host, Key};
use super::known::Known;
use super::rule::Rule;

/// Bytes of a path's beginning that stand in the lists: an entry is half a cache line.
const BEGINS: usize = 26;

/// Rules by their numbers, rising.
type Numbers = Vec<Entry>;

/// A rule, and what a path begins with that it can match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    number: u32,
    /// Whoever finds it in this list knows that its host is the one asked for.
    is_host: bool,
    length: u8,
    begins: [u8; BEGINS],
}

impl Entry {
    fn of(number: u32, rule: &Rule) -> Self {
        let path = rule.begins().as_bytes();
        let (mut begins, length) = ([0; BEGINS], path.len().min(BEGINS));
        begins[..length].copy_from_slice(&path[..length]);
        Self { number, is_host: false, length: u8::try_from(length).unwrap_or_default(), begins }
    }

    fn may_match(&self, path: &str) -> bool {
        path.as_bytes().starts_with(&self.begins[..usize::from(self.length)])
    }
}

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
            let entry = Entry::of(index.count, rule);
            index.count += 1;
            if rule.when.host.is_empty() {
                index.any.push(entry);
            }
            for glob in &rule.when.host {
                let (numbers, is_host) = match glob.key() {
                    Key::Exact(name) => (index.exact.entry(name.into()).or_default(), true),
                    Key::Suffix(suffix) => (index.suffixes.entry(suffix.into()).or_default(), false),
                    Key::Address(address) => (index.addresses.entry(address).or_default(), true),
                    Key::Network => (&mut index.networks, false),
                };
                if numbers.last().is_none_or(|last| last.number != entry.number) {
                    numbers.push(Entry { is_host, ..entry });
                }
            }
        }
        // Most lists are of one host, and lists grow by doubling.
        index.exact.values_mut().chain(index.suffixes.values_mut()).for_each(Vec::shrink_to_fit);
        index
            .addresses
            .values_mut()
            .chain([&mut index.networks, &mut index.any])
            .for_each(Vec::shrink_to_fit);
        index
    }

    pub fn all(&self) -> Candidates<'_> {
        Candidates::All(0..self.count)
    }

    /// Numbers of the rules that may match, rising.
    pub fn candidates<'a>(&'a self, known: &'a Known<'_>) -> Candidates<'a> {
        let mut lists: Vec<&[Entry]> = vec![&self.any];
        match known.host {
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
        Candidates::Some(lists, known.paths())
    }

    /// One that leaves nothing out.
    #[cfg(test)]
    pub fn plain(count: usize) -> Self {
        let count = u32::try_from(count).unwrap();
        let entry = |number| Entry { number, is_host: false, length: 0, begins: [0; BEGINS] };
        Self { count, any: (0..count).map(entry).collect(), ..Self::default() }
    }

    #[cfg(test)]
    pub fn is_plain(&self) -> bool {
        self.any.len() == self.count as usize
    }
}

/// Merges lists of numbers that rise; a number that is in several comes once.
pub(super) enum Candidates<'a> {
    All(std::ops::Range<u32>),
    /// With the path, in each way in which a server may read it.
    Some(Vec<&'a [Entry]>, Option<[&'a str; 2]>),
}

/// A rule's number, and whether its host is already known to be the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub number: usize,
    pub is_host: bool,
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let (number, is_host) = match self {
            Candidates::All(all) => (all.next()?, false),
            Candidates::Some(lists, paths) => loop {
                let least = *lists.iter().filter_map(|list| list.first()).min_by_key(|one| one.number)?;
                let mut is_host = false;
                for list in lists.iter_mut() {
                    if let [first, rest @ ..] = *list
                        && first.number == least.number
                    {
                        is_host |= first.is_host;
                        *list = rest;
                    }
                }
                if paths.is_none_or(|paths| paths.iter().any(|path| least.may_match(path))) {
                    break (least.number, is_host);
                }
            },
        };
        Some(Candidate { number: usize::try_from(number).ok()?, is_host })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            "path: /x",
            "path: ['/x/**', /]",
            "path: '/x/*/z'",
            "path: /x/**, cel: http.path.startsWith('/x/y')",
            "cel: http.path.startsWith('/x/')",
            "cel: http.path.startsWith('/x;') || http.path == '/'",
            "cel: http.path.startsWith('/x;')",
            "cel: '\"/x/y\" == http.path && http.headers[\"a\"][0] == \"b\"'",
            "cel: http.path.startsWith('/a-beginning-that-is-longer-than-an-entry/')",
            "cel: '!http.path.startsWith(\"/x\")'",
            "cel: http.path.contains('y') && http.path.startsWith('/x')",
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
            path in prop::option::of(prop::sample::select(vec![
                "/", "/x", "/x/y", "/x/y;z", "/x;p/y", "/y;/x", "/x/y/z", "/x%2Fy", "/a;/x/y",
                "/a-beginning-that-is-longer-than-an-entry", "/a-beginning-that-is-longer-than-an-entry/x",
            ])),
            assurance in prop::sample::select(Assurance::ALL.to_vec()),
        ) {
            let texts = [(Field::Repository, "a/b".to_owned()), (Field::Actor, "mona".to_owned())];
            let claims = Claims { texts: texts.into(), ..Claims::default() };
            let (indexed, plain) = (policy(&rules), policy(&rules).unindexed());
            let labels = [("team".to_owned(), "web".to_owned())].into();
            let workload = WorkloadFacts { name: "build".to_owned(), cgroup: "/x".to_owned(), labels };
            let headers = http::HeaderMap::new();
            let facts = Facts {
                host: match HOSTS.get(host) {
                    Some(host) => Fact::Known(host),
                    None if host == HOSTS.len() => Fact::Unknown,
                    None => Fact::Absent,
                },
                port: Fact::Known(443),
                protocol: Fact::Known(Protocol::Https),
                method: method.map_or(Fact::Unknown, Fact::Known),
                path: path.map_or(Fact::Unknown, Fact::Known),
                headers: Fact::Known(&headers),
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

    fn asked(policy: &Policy, host: Fact<&str>, path: Fact<&str>) -> Vec<usize> {
        let workload =
            WorkloadFacts { name: "a".to_owned(), cgroup: "/a".to_owned(), labels: BTreeMap::new() };
        let facts = Facts { host, path, ..Facts::new(&workload, Stage::Http) };
        policy.index.candidates(&Known::of(&facts, true).unwrap()).map(|one| one.number).collect()
    }

    #[test]
    fn what_begins_otherwise_is_not_asked() {
        let conditions = [
            "path: /a/**",
            "path: '/a/*/c'",
            "path: [/a/b, /b]",
            "cel: http.path.startsWith('/a/b')",
            "cel: http.path == '/a/b' && http.method == 'GET'",
            "cel: http.path.startsWith('/a/b') || http.method == 'GET'",
            "path: /a/**, cel: http.path.startsWith('/a/b')",
            "cel: http.path.endsWith('/b')",
        ];
        let rules: Vec<String> =
            conditions.iter().map(|when| format!("when: {{host: a.test, {when}}}, observe: true")).collect();
        let policy = policy(&rules);
        let asked = |path| asked(&policy, Fact::Known("a.test"), path);
        assert_eq!(asked(Fact::Known("/a/b")), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(asked(Fact::Known("/a/x")), [0, 1, 2, 5, 7]);
        assert_eq!(asked(Fact::Known("/x")), [2, 5, 7]);
        // One server reads it as the path without the parameter.
        assert_eq!(asked(Fact::Known("/a;x/b")), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(asked(Fact::Unknown).len(), 8);
        assert_eq!(asked(Fact::Absent).len(), 8);
    }

    #[test]
    fn few_of_many_are_asked() {
        let rules: Vec<String> =
            (0..300).map(|n| format!("when: {{host: 'h{}.test'}}, observe: true", n % 100)).collect();
        let policy = policy(&rules);
        assert_eq!(asked(&policy, Fact::Known("h7.test"), Fact::Unknown), [7, 107, 207]);
        assert!(asked(&policy, Fact::Known("x.h7.test"), Fact::Unknown).is_empty());
        assert!(asked(&policy, Fact::Absent, Fact::Unknown).is_empty());
        assert_eq!(asked(&policy, Fact::Unknown, Fact::Known("/")).len(), 300);
        assert!(!policy.index.is_plain() && policy.unindexed().index.is_plain());
    }
}
