//! A list of sessions.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Flow, each};
use crate::session::dir::Dir;
use crate::session::record::{Kind, SessionId};

/// One line of a list of sessions.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub id: SessionId,
    pub started_unix_ms: u64,
    /// When the last record was written.
    pub last_unix_ms: u64,
    pub kind: String,
    pub workload: String,
    /// Host and port, as far as they became known.
    pub destination: String,
    pub statements: u64,
    pub allowed: u64,
    pub denied: u64,
    /// Denials that a rule in audit mode let through.
    pub audited: u64,
    pub refused: u64,
    /// Placeholders that stand for secrets.
    pub masked: u64,
    pub records: u64,
    /// `completed`, `denied`, `failed`, `cancelled`; without a close record `open` as long
    /// as the process records that began it, and `cut` after that.
    pub outcome: String,
    pub reason: String,
    /// What stands as the destination is more than an address.
    #[serde(skip)]
    named: bool,
    /// It is a name that was refused.
    #[serde(skip)]
    refused_name: bool,
    /// A name that is asked for came along.
    #[serde(skip)]
    host_found: bool,
}

/// The outcome of a session that goes on.
const OPEN: &str = "open";

/// Which sessions are listed. Names may hold `*` for any text.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub workload: Option<String>,
    pub host: Option<String>,
    /// `allow`, `deny`, `audit` or `refused`: sessions with at least one of these.
    pub verdict: Option<String>,
    /// `denied` are also open ones with a denial.
    pub outcome: Option<String>,
    pub since_unix_ms: Option<u64>,
    pub limit: Option<usize>,
}

/// All sessions, the newest first.
pub fn ls(dir: &Path) -> io::Result<Vec<Summary>> {
    list(dir, &Filter::default())
}

/// The sessions that the filter lets through, the newest first: by their place
/// in the recording, since a clock may go backwards. Holds no more than the
/// limit and those that have not ended.
pub fn list(dir: &Path, filter: &Filter) -> io::Result<Vec<Summary>> {
    let mut open: HashMap<SessionId, (u64, Summary)> = HashMap::new();
    let mut cut: Vec<(u64, Summary)> = Vec::new();
    let mut done: BTreeMap<u64, Summary> = BTreeMap::new();
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut keep = |place: u64, summary: Summary| {
        if filter.passes(&summary) {
            done.insert(place, summary);
            if done.len() > limit {
                done.pop_first();
            }
        }
    };
    each(dir, |record| {
        let value = || serde_json::from_slice::<Value>(record.payload).unwrap_or(Value::Null);
        match record.kind {
            // Another process records from here on: nobody ends what is open.
            Kind::Segment if value()["begins"] == true => cut.extend(open.drain().map(|(_, one)| one)),
            Kind::Segment | Kind::Note => {}
            Kind::Begin => {
                let summary = begin(record.session, &value());
                if filter.may_pass(&summary) {
                    open.insert(record.session, (record.ordinal, summary));
                }
            }
            Kind::Event | Kind::End => {
                if let Some((_, summary)) = open.get_mut(&record.session) {
                    summary.last_unix_ms = record.at_unix_us / 1000;
                    summary.add(record.kind, &value(), filter);
                }
            }
        }
        cut.drain(..).for_each(|(place, summary)| keep(place, summary));
        if record.kind == Kind::End
            && let Some((place, summary)) = open.remove(&record.session)
        {
            keep(place, summary);
        }
        Flow::More
    })?;
    let in_use = Dir::open(dir)?.in_use();
    for (place, mut summary) in open.into_values() {
        if in_use {
            summary.outcome = OPEN.to_owned();
        }
        keep(place, summary);
    }
    Ok(done.into_values().rev().collect())
}

impl Filter {
    /// What is known at the beginning already.
    pub(super) fn may_pass(&self, one: &Summary) -> bool {
        self.workload.as_ref().is_none_or(|want| matches(want, &one.workload))
            && self.since_unix_ms.is_none_or(|since| one.started_unix_ms >= since)
    }

    fn passes(&self, one: &Summary) -> bool {
        let host = host_of(&one.destination);
        self.may_pass(one)
            && self.outcome.as_ref().is_none_or(|want| {
                *want == one.outcome || want == "denied" && one.outcome == OPEN && one.denied > 0
            })
            && self.host.as_ref().is_none_or(|want| one.host_found || names(want, host))
            && self.verdict.as_ref().is_none_or(|want| match want.as_str() {
                "allow" => one.allowed > 0,
                "deny" => one.denied > 0,
                "audit" => one.audited > 0,
                "refused" => one.refused > 0,
                _ => false,
            })
    }
}

/// Whether a host, or an address in brackets, fits the pattern.
fn names(pattern: &str, host: &str) -> bool {
    matches(pattern, host) || matches(pattern, host.trim_matches(['[', ']']))
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether the text fits the pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn begin(id: SessionId, value: &Value) -> Summary {
    let started_unix_ms = value["started_unix_ms"].as_u64().unwrap_or_default();
    Summary {
        id,
        started_unix_ms,
        last_unix_ms: started_unix_ms,
        kind: text(value, "kind"),
        workload: text(value, "workload"),
        destination: text(value, "destination"),
        statements: 0,
        allowed: 0,
        denied: 0,
        audited: 0,
        refused: 0,
        masked: 0,
        records: 1,
        outcome: "cut".to_owned(),
        reason: String::new(),
        named: false,
        refused_name: false,
        host_found: false,
    }
}

impl Summary {
    fn add(&mut self, kind: Kind, value: &Value, filter: &Filter) {
        self.records += 1;
        if kind == Kind::End {
            self.outcome = text(value, "outcome");
            self.reason = text(value, "reason");
            return;
        }
        match value["event"].as_str() {
            Some("statement") => {
                self.statements += 1;
                self.first_request(&text(value, "authority"), filter);
            }
            Some("refused") => self.refused += 1 + value["suppressed"].as_u64().unwrap_or_default(),
            Some("plan") => {
                if let Some(host) = value["host"].as_str() {
                    self.destination = format!("{host}:{}", value["port"]);
                    self.named = true;
                }
            }
            Some(event @ ("verdict" | "dns")) => {
                if event == "dns" {
                    self.question(text(value, "name"), value["verdict"] == "deny", filter);
                }
                match value["verdict"].as_str() {
                    Some("deny") => self.denied += 1,
                    _ => self.allowed += 1,
                }
                self.audited += u64::from(!value["audit"].is_null());
            }
            Some("findings") => {
                let findings = value["findings"].as_array().map_or(&[][..], Vec::as_slice);
                self.masked += findings.iter().filter_map(|one| one["count"].as_u64()).sum::<u64>();
            }
            _ => {}
        }
    }
}

impl Summary {
    /// The first name that was asked for stands for all of them, or the first that was refused.
    fn question(&mut self, name: String, refused: bool, filter: &Filter) {
        self.host_found |= filter.host.as_ref().is_some_and(|want| matches(want, &name));
        if !self.named || refused && !self.refused_name {
            self.destination = name;
            self.named = true;
            self.refused_name |= refused;
        }
    }

    /// Without TLS only the requests say which host is meant.
    fn first_request(&mut self, authority: &str, filter: &Filter) {
        let host = host_of(authority);
        self.host_found |= filter.host.as_ref().is_some_and(|want| names(want, host));
        if !self.named && !host.is_empty() {
            let port = self.destination.rsplit_once(':').map_or("80", |(_, port)| port);
            self.destination = format!("{host}:{port}");
            self.named = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{host_of, matches};

    #[test]
    fn an_authority_loses_its_port_alone() {
        for (authority, host) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*.example", "a.example"),
            ("a*c", "abc"),
            ("*b*", "abc"),
            ("a*b*c", "axbyc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("*.example", "example"), ("a*c", "ab"), ("*x*", "abc")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
