//! Reading a recording back: list, show, verify.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::record::{self, Broken, HASH, Hash, Kind, Record, SessionId};

/// The file name of a segment.
pub fn segment_name(number: u64) -> String {
    format!("{number:08}.seg")
}

/// The segments of a recording in their order.
fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse().ok());
        if let Some(number) = number {
            found.insert(number, entry.path());
        }
    }
    Ok(found.into_iter().collect())
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file", path.display())));
    }
    fs::read(path)
}

/// The end of what was recorded before.
pub struct Tail {
    pub number: u64,
    pub hash: Hash,
    /// Bytes of a torn last record, which have been cut off.
    pub torn: u64,
}

/// Finds the last whole record, and cuts off what a killed process left of the
/// next one. Anything else that is wrong is left for `verify` to find.
pub fn repair_tail(dir: &Path) -> io::Result<Tail> {
    let mut tail = Tail { number: 0, hash: [0; HASH], torn: 0 };
    let segments = segments(dir)?;
    if let Some((number, _)) = segments.last() {
        tail.number = *number;
    }
    for (at, (_, path)) in segments.iter().enumerate().rev() {
        let bytes = load(path)?;
        let mut rest = bytes.as_slice();
        let mut last = None;
        while let Ok((record, length)) = record::decode(rest) {
            last = Some(record.hash);
            rest = &rest[length..];
        }
        let newest = at + 1 == segments.len();
        if newest && !rest.is_empty() && record::decode(rest).err() == Some(Broken::Torn) {
            tail.torn = rest.len() as u64;
            let file = fs::OpenOptions::new().write(true).open(path)?;
            file.set_len((bytes.len() - rest.len()) as u64)?;
            file.sync_data()?;
        }
        if let Some(hash) = last {
            tail.hash = hash;
            break;
        }
    }
    Ok(tail)
}

/// Something that is wrong with a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub segment: u64,
    /// Where in the segment, in bytes.
    pub offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub what: &'static str,
}

/// What `verify` found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub segments: u64,
    pub records: u64,
    pub sessions: u64,
    /// Sessions without a close record: running, or cut by a crash.
    pub open: u64,
    /// The hash of the last record: keep it elsewhere, and a later removal of
    /// the newest records can be shown too.
    pub head: String,
    pub problems: Vec<Problem>,
}

/// Reads every record in order and checks every hash.
pub fn verify(dir: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    let head = walk(dir, &mut report, |_| {})?;
    report.head = blake3::Hash::from_bytes(head).to_hex().to_string();
    Ok(report)
}

#[derive(Default)]
struct Walk {
    host: Hash,
    chains: HashMap<SessionId, (Hash, u64, bool)>,
    /// The number that the next segment should have; unknown before the first.
    next: Option<u64>,
}

/// Calls `each` for every record that can be read; problems go to the report.
fn walk(dir: &Path, report: &mut Report, mut each: impl FnMut(&Record<'_>)) -> io::Result<Hash> {
    let mut walk = Walk::default();
    for (number, path) in segments(dir)? {
        report.segments += 1;
        if walk.next.is_none_or(|next| next != number) && number != 1 {
            report.problems.push(Problem {
                segment: number,
                offset: 0,
                session: None,
                what: "segment-missing-before",
            });
        }
        walk.next = Some(number + 1);
        let bytes = load(&path)?;
        let mut at = 0;
        while at < bytes.len() {
            match record::decode(&bytes[at..]) {
                Ok((record, length)) => {
                    walk.check(number, at as u64, &record, report);
                    each(&record);
                    at += length;
                }
                Err(broken) => {
                    let what = if broken == Broken::Torn { "torn-record" } else { "unreadable" };
                    report.problems.push(Problem { segment: number, offset: at as u64, session: None, what });
                    break;
                }
            }
        }
    }
    report.sessions = walk.chains.len() as u64;
    report.open = walk.chains.values().filter(|(_, _, closed)| !closed).count() as u64;
    Ok(walk.host)
}

impl Walk {
    fn check(&mut self, segment: u64, offset: u64, record: &Record<'_>, report: &mut Report) {
        report.records += 1;
        let mut problem = |what| {
            let session = (record.kind != Kind::Segment).then_some(record.session);
            report.problems.push(Problem { segment, offset, session, what });
        };
        let zero = [0; HASH];
        if record.kind == Kind::Segment {
            if offset != 0 || record.sequence != segment {
                problem("segment-header-misplaced");
            }
            if !record.follows((&zero, &self.host)) {
                problem("chain-broken");
            }
            self.host = record.hash;
            return;
        }
        if offset == 0 {
            problem("segment-header-missing");
        }
        let known = self.chains.get(&record.session).copied();
        let (previous, sequence, closed) = known.unwrap_or((zero, 0, false));
        if (record.kind == Kind::Begin) != (record.sequence == 0) || record.sequence != sequence {
            problem("sequence-gap");
        }
        if closed {
            problem("record-after-close");
        }
        if !record.follows((&previous, &self.host)) {
            problem("chain-broken");
        }
        self.host = record.hash;
        self.chains.insert(record.session, (record.hash, record.sequence + 1, record.kind == Kind::End));
    }
}

/// One line of a list of sessions.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub id: SessionId,
    pub started_unix_ms: u64,
    pub kind: String,
    pub workload: String,
    /// Host and port, as far as they became known.
    pub destination: String,
    pub statements: u64,
    pub denied: u64,
    pub refused: u64,
    /// Placeholders that stand for secrets.
    pub masked: u64,
    /// `completed`, `denied`, `failed`, `cancelled`; `cut` without a close record.
    pub outcome: String,
    pub reason: String,
}

/// All sessions, the newest first.
pub fn ls(dir: &Path) -> io::Result<Vec<Summary>> {
    let mut found: BTreeMap<SessionId, Summary> = BTreeMap::new();
    let mut ignored = Report::default();
    walk(dir, &mut ignored, |record| {
        let Ok(value) = serde_json::from_slice::<Value>(record.payload) else { return };
        match record.kind {
            Kind::Segment => {}
            Kind::Begin => {
                found.insert(record.session, begin(record.session, &value));
            }
            Kind::Event | Kind::End => {
                if let Some(summary) = found.get_mut(&record.session) {
                    summary.add(record.kind, &value);
                }
            }
        }
    })?;
    Ok(found.into_values().rev().collect())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn begin(id: SessionId, value: &Value) -> Summary {
    Summary {
        id,
        started_unix_ms: value["started_unix_ms"].as_u64().unwrap_or_default(),
        kind: text(value, "kind"),
        workload: text(value, "workload"),
        destination: text(value, "destination"),
        statements: 0,
        denied: 0,
        refused: 0,
        masked: 0,
        outcome: "cut".to_owned(),
        reason: String::new(),
    }
}

impl Summary {
    fn add(&mut self, kind: Kind, value: &Value) {
        if kind == Kind::End {
            self.outcome = text(value, "outcome");
            self.reason = text(value, "reason");
            return;
        }
        match value["event"].as_str() {
            Some("statement") => self.statements += 1,
            Some("refused") => self.refused += 1 + value["suppressed"].as_u64().unwrap_or_default(),
            Some("plan") => {
                if let Some(host) = value["host"].as_str() {
                    self.destination = format!("{host}:{}", value["port"]);
                }
            }
            Some("verdict" | "dns") if value["verdict"] == "deny" => self.denied += 1,
            Some("findings") => {
                let findings = value["findings"].as_array().map_or(&[][..], Vec::as_slice);
                self.masked += findings.iter().filter_map(|one| one["count"].as_u64()).sum::<u64>();
            }
            _ => {}
        }
    }
}

/// One record of a session, as it is shown.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub sequence: u64,
    pub payload: Value,
}

/// Why a session cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error("the recording cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("no session begins with `{0}`; `enforcer sessions ls` lists them")]
    Unknown(String),
    #[error("`{0}` is the beginning of {1} sessions; give more of the id")]
    Ambiguous(String, usize),
}

/// All records of the session whose id begins with `prefix`.
pub fn show(dir: &Path, prefix: &str) -> Result<(SessionId, Vec<Entry>), ShowError> {
    let mut found: BTreeMap<SessionId, Vec<Entry>> = BTreeMap::new();
    let mut ignored = Report::default();
    walk(dir, &mut ignored, |record| {
        if record.kind == Kind::Segment || !record.session.to_string().starts_with(prefix) {
            return;
        }
        let payload = serde_json::from_slice(record.payload).unwrap_or(Value::Null);
        found.entry(record.session).or_default().push(Entry { sequence: record.sequence, payload });
    })?;
    match found.len() {
        0 => Err(ShowError::Unknown(prefix.to_owned())),
        1 => found.pop_first().ok_or_else(|| ShowError::Unknown(prefix.to_owned())),
        many => Err(ShowError::Ambiguous(prefix.to_owned(), many)),
    }
}
