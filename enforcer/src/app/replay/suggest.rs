//! A policy, and its tests, from what was let through.
//!
//! One rule for each host and port, and for reading, each other method and what is relayed
//! unread by themselves. A path that holds the job's own repository, as a verified token names
//! it, becomes a condition on `identity.repository`: the rule is then for each job's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use crate::app::yaml::{plain, quoted};
use crate::policy::{AddressRules, MAX_VALUES, Policy, PolicyError, Protocol, Verdict};
use crate::proxy::resolve::{self, Special};
use crate::session::read::Statement;
use crate::workload::identity::{Assurance, Field};

use super::diff::what;
use super::generalise::globs;
use super::{Answer, Replayed};

/// Different paths below a repository; beyond it, all of them.
pub(super) const MAX_OWN: usize = 16;
/// Statements that are told to be left out.
const MAX_TOLD: usize = 10;
/// Methods that change nothing (RFC 9110, section 9.2.1) have one rule.
const READING: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// What is gathered.
#[derive(Default)]
pub struct Suggestion {
    /// Only jobs of this name, as a glob.
    workload: Option<String>,
    seen: BTreeMap<Key, Seen>,
    statements: u64,
    left_out: BTreeMap<&'static str, (u64, Vec<String>)>,
}

/// A policy that lets through what was let through, and its tests.
#[derive(Debug)]
pub struct Suggested {
    pub policy: String,
    pub tests: String,
    pub rules: usize,
    /// Statements that it is made from.
    pub statements: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SuggestError {
    #[error("nothing that policy let through is in the recording{}", notes(.0))]
    Nothing(Vec<String>),
    #[error("the policy that was written does not load: {0}")]
    DoesNotLoad(PolicyError),
    #[error("the policy that was written does not let through what was: {0}")]
    DoesNotPass(String),
}

fn notes(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\n  {note}")).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    port: u16,
    protocol: Protocol,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Read,
    Other(String),
    Unread,
}

/// One for each method and path, with the first that was like it.
#[derive(Default)]
struct Seen {
    /// By method, path and repository.
    examples: BTreeMap<(String, String, Option<String>), Replayed>,
    destinations: BTreeSet<IpAddr>,
    statements: u64,
}

/// A path around the job's own repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Own {
    before: String,
    after: String,
    /// Whatever follows.
    open: bool,
}

impl Suggestion {
    /// For jobs of this name, or for all.
    pub fn of(workload: Option<String>) -> Self {
        Self { workload, ..Self::default() }
    }

    /// Takes one more into account.
    pub fn add(&mut self, statement: Statement) {
        let verdict = statement.verdict.clone();
        let line = |statement: &Statement| {
            let request = statement.request.as_ref();
            request.map_or_else(
                || statement.host.clone().unwrap_or_default(),
                |it| format!("{} {}{}", it.method, it.authority, it.path),
            )
        };
        match verdict.as_str() {
            "allow" | "passthrough" => {}
            "hold" => return self.leave_out("were held: keep the rule that does", line(&statement)),
            _ => return self.leave_out("were denied", line(&statement)),
        }
        let said = line(&statement);
        let Some(replayed) = Replayed::new(statement) else {
            return self.leave_out("have something masked where a rule would look", said);
        };
        // That a connection may come to something is no permission; its requests are.
        let (Some(host), true) = (replayed.host(), replayed.request.is_some() || verdict == "passthrough")
        else {
            return;
        };
        let (method, path) = match &replayed.request {
            Some(request) => (request.method.as_str().to_owned(), request.path.clone()),
            None => (String::new(), String::new()),
        };
        let kind = match method.as_str() {
            "" => Kind::Unread,
            method if READING.contains(&method) => Kind::Read,
            method => Kind::Other(method.to_owned()),
        };
        let port = replayed.request.as_ref().map_or(replayed.statement.port, |request| request.port);
        let key = Key { host: host.to_owned(), port, protocol: replayed.protocol, kind };
        let seen = self.seen.entry(key).or_default();
        seen.destinations.extend(replayed.statement.destination.map(|it| it.ip().to_canonical()));
        seen.statements += 1;
        self.statements += 1;
        let repository = repository(&replayed).map(str::to_owned);
        seen.examples.entry((method, path, repository)).or_insert(replayed);
    }

    fn leave_out(&mut self, why: &'static str, what: String) {
        let (count, told) = self.left_out.entry(why).or_default();
        *count += 1;
        if told.len() < MAX_TOLD && !told.contains(&what) {
            told.push(what);
        }
    }

    /// Writes it all down, and tries it on what it was made from.
    pub fn finish(self, name: &str) -> Result<Suggested, SuggestError> {
        let mut notes: Vec<String> = self
            .left_out
            .iter()
            .map(|(why, (count, told))| format!("{count} requests {why}: {}", told.join(", ")))
            .collect();
        if self.seen.is_empty() {
            return Err(SuggestError::Nothing(notes));
        }
        let mut rules = Vec::new();
        let mut ids = BTreeMap::new();
        for (key, seen) in &self.seen {
            rules.extend(Rule::all(key, seen, self.workload.as_deref(), &mut ids, &mut notes));
        }
        let mut policy = String::from(
            "# What was let through, as it was recorded. Written by `enforcer policy suggest`;\n\
             # the file is yours to change. Read it as you would read a request for access.\n",
        );
        for note in &notes {
            // Writing to a string does not fail.
            writeln!(policy, "#\n# Note: {}", plain(note)).ok();
        }
        write!(policy, "version: 1\nname: {name}\nrules:\n").ok();
        rules.iter().for_each(|rule| rule.write(&mut policy));
        let loaded =
            Policy::from_text(&format!("{name}.yaml"), &policy).map_err(SuggestError::DoesNotLoad)?;
        for replayed in self.seen.values().flat_map(|seen| seen.examples.values()) {
            if !passes(&loaded, replayed) {
                return Err(SuggestError::DoesNotPass(what(replayed)));
            }
        }
        let mut tests = String::from("tests:\n");
        let mut written = BTreeSet::new();
        for case in rules.iter().flat_map(Rule::cases) {
            let text = case.render(&loaded, self.workload.as_deref());
            tests.extend(text.filter(|text| written.insert(text.clone())));
        }
        Ok(Suggested { rules: rules.len(), policy, tests, statements: self.statements, notes })
    }
}

/// Whether it is let through, whatever a header may be.
fn passes(policy: &Policy, replayed: &Replayed) -> bool {
    match replayed.ask(policy) {
        Answer::Decided(decision) => matches!(decision.verdict, Verdict::Allow | Verdict::Passthrough),
        Answer::Untold => false,
    }
}

/// As a verified token names it: a rule goes by no other.
fn repository(replayed: &Replayed) -> Option<&str> {
    let (claims, assurance) = replayed.identity()?;
    let repository = claims.get(Field::Repository)?;
    (assurance == Assurance::Oidc && repository.contains('/')).then_some(repository)
}

impl Own {
    /// The repository's own path: whole segments, or with `.git` after it.
    fn of(path: &str, repository: &str) -> Option<Self> {
        let needle = format!("/{repository}");
        let at = path.match_indices(&needle).find_map(|(at, _)| {
            let after = &path[at + needle.len()..];
            let rest = after.strip_prefix(".git").unwrap_or(after);
            (rest.is_empty() || rest.starts_with('/')).then_some((at, after))
        });
        let (at, after) = at?;
        let one = BTreeSet::from([after]);
        let settled = globs(&one).pop_first()?;
        let (after, open) = match settled.split_once('*') {
            Some((fixed, _)) => (fixed.to_owned(), true),
            None => (settled, false),
        };
        Some(Self { before: format!("{}/", &path[..at]), after, open })
    }

    /// Everything below the same repository.
    fn opened(&self) -> Self {
        let git = if self.after.starts_with(".git") { ".git/" } else { "/" };
        Self { before: self.before.clone(), after: git.to_owned(), open: true }
    }

    fn cel(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let whole = format!("{} + identity.repository + {}", text(&self.before), text(&self.after));
        if self.open { format!("http.path.startsWith({whole})") } else { format!("http.path == {whole}") }
    }
}

/// A rule, with what it was made from.
struct Rule<'a> {
    id: String,
    key: &'a Key,
    workload: Option<&'a str>,
    methods: BTreeSet<&'a str>,
    condition: Condition,
    addresses: Vec<IpAddr>,
    statements: u64,
    /// The first of them.
    example: Option<&'a Replayed>,
}

enum Condition {
    Unread,
    Paths(Vec<String>),
    /// Of the job's own repository; with the providers that said which that is.
    Own(BTreeSet<Own>, BTreeSet<&'static str>),
}

impl<'a> Rule<'a> {
    fn all(
        key: &'a Key,
        seen: &'a Seen,
        workload: Option<&'a str>,
        ids: &mut BTreeMap<String, usize>,
        notes: &mut Vec<String>,
    ) -> Vec<Self> {
        let (mut own, mut providers) = (BTreeSet::new(), BTreeSet::new());
        let (mut own_methods, mut methods) = (BTreeSet::new(), BTreeSet::new());
        let (mut own_example, mut example) = (None, None);
        let mut paths = BTreeSet::new();
        for ((method, path, repository), replayed) in &seen.examples {
            match repository.as_deref().and_then(|repository| Own::of(path, repository)) {
                Some(one) => {
                    own.insert(one);
                    providers.extend(replayed.identity().map(|(claims, _)| claims.provider.as_str()));
                    own_methods.insert(method.as_str());
                    own_example.get_or_insert(replayed);
                }
                None => {
                    paths.insert(path.as_str());
                    methods.insert(method.as_str());
                    example.get_or_insert(replayed);
                }
            }
        }
        if own.len() > MAX_OWN {
            own = own.iter().map(Own::opened).collect();
        }
        let addresses = special(key, seen, notes);
        let mut rule = |methods: &BTreeSet<&'a str>, condition, example| Self {
            id: id(key, &condition, ids),
            key,
            workload,
            methods: methods.clone(),
            condition,
            addresses: addresses.clone(),
            statements: seen.statements,
            example,
        };
        let mut rules = Vec::new();
        if !own.is_empty() {
            rules.push(rule(&own_methods, Condition::Own(own, providers), own_example));
        }
        if key.kind == Kind::Unread {
            rules.push(rule(&methods, Condition::Unread, example));
        } else if !paths.is_empty() {
            let all: Vec<String> = globs(&paths).into_iter().collect();
            rules.extend(
                all.chunks(MAX_VALUES).map(|some| rule(&methods, Condition::Paths(some.to_vec()), example)),
            );
        }
        rules
    }

    fn write(&self, out: &mut String) {
        let Key { host, port, protocol, .. } = self.key;
        let mut text = format!("  # {} requests\n  - id: {}\n    when:\n", self.statements, self.id);
        if let Some(workload) = self.workload {
            text += &format!("      workload: {{name: {}}}\n", quoted(workload));
        }
        text += &format!("      host: {}\n      port: {port}\n      protocol: {protocol}\n", quoted(host));
        if !matches!(self.condition, Condition::Unread) {
            let methods: Vec<_> = self.methods.iter().copied().collect();
            text += &format!("      method: [{}]\n", methods.join(", "));
        }
        match &self.condition {
            Condition::Unread => text += "    passthrough: true\n",
            Condition::Paths(paths) => {
                text += "      path:\n";
                for path in paths {
                    text += &format!("        - {}\n", quoted(path));
                }
                text += "    allow: true\n";
            }
            Condition::Own(own, providers) => {
                let providers: Vec<_> = providers.iter().copied().collect();
                text += &format!("      identity: {{provider: [{}]}}\n      cel: |\n", providers.join(", "));
                for (number, one) in own.iter().enumerate() {
                    let or = if number == 0 { "" } else { "|| " };
                    text += &format!("        {or}{}\n", one.cel());
                }
                text += "    allow: true\n";
            }
        }
        if !self.addresses.is_empty() {
            let list: Vec<String> =
                self.addresses.iter().map(|address| quoted(&address.to_string())).collect();
            text += &format!("    # Not public: where it was.\n    addresses: [{}]\n", list.join(", "));
        }
        *out += &text;
    }

    /// What it lets through, and what is near to it.
    fn cases(&self) -> Vec<Case<'a>> {
        let Some(example) = self.example else { return Vec::new() };
        let case = |what: &str| Case {
            name: format!("{}: {what}", self.id),
            example,
            host: self.key.host.clone(),
            path: example.request.as_ref().map_or("/", |request| &request.path).to_owned(),
            repository: repository(example).map(str::to_owned),
            near: true,
        };
        let mut cases = vec![Case { near: false, ..case("as it was seen") }];
        if self.key.host.parse::<IpAddr>().is_err() {
            cases.push(Case { host: format!("{}.invalid", self.key.host), ..case("another host") });
        }
        match &self.condition {
            Condition::Unread => {}
            Condition::Paths(_) => {
                cases.push(Case { path: "/never-seen/at-all".to_owned(), ..case("another path") });
            }
            Condition::Own(..) => {
                let other = Some("somebody-else/another".to_owned());
                cases.push(Case { repository: other, ..case("the repository of another job") });
                cases.push(Case { repository: None, ..case("a job of which nobody knows who it is") });
            }
        }
        cases
    }
}

/// A name for the rule that is not another one's.
fn id(key: &Key, condition: &Condition, ids: &mut BTreeMap<String, usize>) -> String {
    let kind = match &key.kind {
        Kind::Read => "read".to_owned(),
        Kind::Other(method) => method.to_ascii_lowercase(),
        Kind::Unread => "unread".to_owned(),
    };
    let own = if matches!(condition, Condition::Own(..)) { "-own" } else { "" };
    let kind: String = kind.chars().take(16).collect();
    let host: String =
        key.host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    let name = format!("{host}{own}-{kind}");
    let number = ids.entry(name.clone()).or_default();
    *number += 1;
    if *number == 1 { name } else { format!("{name}-{number}") }
}

/// Addresses that are dialled only if a rule names them.
fn special(key: &Key, seen: &Seen, notes: &mut Vec<String>) -> Vec<IpAddr> {
    let mut named = Vec::new();
    for address in &seen.destinations {
        match resolve::check(*address, &AddressRules::default()) {
            Ok(()) => {}
            Err(Special::Private | Special::Loopback | Special::Reserved) => named.push(*address),
            Err(why) => {
                let note = format!("{} was at {address}: {}; no rule names that", key.host, why.reason());
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    named
}

/// A test of the policy.
struct Case<'a> {
    name: String,
    example: &'a Replayed,
    host: String,
    path: String,
    repository: Option<String>,
    /// It is not what was seen.
    near: bool,
}

impl Case<'_> {
    /// With the verdict that the policy has; none if what is near is let through by another rule.
    fn render(&self, policy: &Policy, workload: Option<&str>) -> Option<String> {
        let mut fields = vec![
            format!("host: {}", quoted(&self.host)),
            format!("port: {}", self.example.statement.port),
            format!("protocol: {}", self.example.protocol),
        ];
        if let Some(request) = &self.example.request {
            fields.push(format!("method: {}", request.method));
            fields.push(format!("path: {}", quoted(&self.path)));
        }
        if workload.is_some() {
            fields.push(format!("workload: {}", quoted(&self.example.statement.workload)));
        }
        let identity = self.repository.as_deref().zip(self.example.identity());
        if let Some((repository, (claims, _))) = identity {
            let provider = claims.provider.as_str();
            fields.push(format!("identity: {{provider: {provider}, repository: {}}}", quoted(repository)));
        }
        let verdict = match self.example.ask_as(policy, &self.host, &self.path, self.repository.as_deref()) {
            Answer::Decided(decision) => decision.verdict,
            Answer::Untold => Verdict::Deny,
        };
        if self.near && verdict != Verdict::Deny {
            return None;
        }
        let name = quoted(&self.name);
        Some(format!("  - {{name: {name}, request: {{{}}}, verdict: {verdict}}}\n", fields.join(", ")))
    }
}
