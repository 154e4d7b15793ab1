//! Checking every hash, and saying what exactly is wrong.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::{Next, Segment};
use crate::session::dir::{Dir, SegmentName};
use crate::session::record::{Broken, Chain, Kind, NOTHING, Record, SessionId};

/// Problems that are kept; of a recording that is wrong everywhere, the first ones say enough.
const PROBLEMS_KEPT: usize = 1000;
/// Sessions without an end that are named.
const OPEN_NAMED: usize = 1000;
/// How often the last record of a recording that is being written is looked at again.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Something that is wrong with a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub segment: u64,
    /// Where in the segment, in bytes.
    pub offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The kind of problem, for scripts.
    pub what: &'static str,
    /// The same for people.
    pub detail: String,
}

/// What `verify` found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub valid: bool,
    pub segments: u64,
    pub records: u64,
    pub sessions: u64,
    /// Sessions without a close record: running, or cut by a crash.
    pub open: u64,
    pub open_sessions: Vec<SessionId>,
    /// The hash of the last record: keep it elsewhere, and a later removal of
    /// the newest records can be shown too.
    pub head: String,
    /// How many problems there are; the first 1000 are named.
    pub problem_count: u64,
    pub problems: Vec<Problem>,
}

/// Reads every record in order and checks every hash.
pub fn verify(dir: &Path) -> io::Result<Report> {
    verify_with(dir, None, None)
}

/// The same, keeping only what concerns one session (and what concerns no
/// session), and demanding that a head that was noted before is still there.
pub fn verify_with(dir: &Path, only: Option<SessionId>, head: Option<&str>) -> io::Result<Report> {
    let dir = Dir::open(dir)?;
    let names = dir.segments()?;
    let live = dir.in_use();
    let mut walk = Walk { only, live, wanted: head.map(str::to_ascii_lowercase), ..Walk::default() };
    for (at, name) in names.iter().enumerate() {
        walk.number(name);
        let newest = at + 1 == names.len();
        match Segment::open(&dir, name) {
            Ok(mut segment) => walk.segment(name, &mut segment, newest)?,
            Err(error) => walk.problem(0, None, "not-readable", error.to_string()),
        }
    }
    Ok(walk.report())
}

#[derive(Default)]
struct Walk {
    only: Option<SessionId>,
    /// A process is recording now.
    live: bool,
    wanted: Option<String>,
    host: Chain,
    open: HashMap<SessionId, Chain>,
    /// The segment that is read.
    current: u64,
    /// An older segment ends in the middle of a record; harmless if the next
    /// one goes on from the record before.
    torn: Option<Problem>,
    report: Report,
}

impl Walk {
    fn problem(&mut self, offset: u64, session: Option<SessionId>, what: &'static str, detail: String) {
        self.note(Problem { segment: self.current, offset, session, what, detail });
    }

    fn note(&mut self, problem: Problem) {
        if self.only.is_some() && problem.session.is_some() && problem.session != self.only {
            return;
        }
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_KEPT {
            self.report.problems.push(problem);
        }
    }

    fn number(&mut self, name: &SegmentName) {
        let expected = self.current + 1;
        let last = self.current;
        self.current = name.number;
        self.report.segments += 1;
        match name.number.cmp(&expected) {
            Ordering::Equal => {}
            Ordering::Greater => {
                let missing = name.number - expected;
                let detail =
                    format!("{missing} segments from number {expected} on are missing before this one");
                self.problem(0, None, "segment-missing", detail);
            }
            Ordering::Less => {
                self.problem(0, None, "segment-number-twice", format!("there are two segments {last}"));
            }
        }
    }

    fn segment(&mut self, name: &SegmentName, segment: &mut Segment, newest: bool) -> io::Result<()> {
        let mut looks = 0;
        loop {
            match segment.next()? {
                Next::Record(record, offset) => {
                    looks = 0;
                    self.check(name.number, offset, &record);
                }
                Next::End => {
                    if newest && !self.live && segment.at == 0 {
                        self.problem(0, None, "torn-tail", "the newest segment is empty".to_owned());
                    }
                    return Ok(());
                }
                // The service may be writing this very record.
                Next::Broken(Broken::Torn) if newest && self.live && looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(LOOK_AGAIN);
                    segment.again()?;
                }
                Next::Broken(broken) => {
                    self.broken(broken, segment.at, segment.file_length()?, newest);
                    return Ok(());
                }
            }
        }
    }

    fn broken(&mut self, broken: Broken, at: u64, length: u64, newest: bool) {
        let left = length.saturating_sub(at);
        match (broken, newest) {
            (Broken::Torn, true) => {
                let detail = format!("the last {left} bytes are no whole record: it was cut");
                self.problem(at, None, "torn-tail", detail);
            }
            (Broken::Torn, false) => {
                let detail = format!("the segment ends in the middle of a record, {left} bytes in");
                self.torn = Some(Problem {
                    segment: self.current,
                    offset: at,
                    session: None,
                    what: "truncated",
                    detail,
                });
            }
            (Broken::Malformed, _) => {
                let detail = format!("what stands here is no record; {left} bytes cannot be read");
                self.problem(at, None, "unreadable", detail);
            }
        }
    }

    fn check(&mut self, segment: u64, offset: u64, record: &Record<'_>) {
        self.report.records += 1;
        let session = record.kind.of_session().then_some(record.session);
        self.misplaced(segment, offset, record);
        let expected = self.host.next;
        let place = record.ordinal.cmp(&expected);
        if place == Ordering::Equal {
            self.torn = None;
        } else if let Some(torn) = self.torn.take() {
            self.note(torn);
        }
        match place {
            Ordering::Equal => {}
            Ordering::Greater => {
                let missing = record.ordinal - expected;
                let detail = format!("{missing} records before this one are missing");
                self.problem(offset, session, "records-missing", detail);
            }
            Ordering::Less => {
                // Both chains go on from the record before, as if this one were not there.
                let detail =
                    format!("record {} stands where {expected} should: repeated or moved", record.ordinal);
                self.problem(offset, session, "repeated-or-moved", detail);
                return;
            }
        }
        let chain = match session {
            Some(id) => self.session(offset, id, record, place),
            None => Some(NOTHING),
        };
        let checked = place == Ordering::Equal;
        if checked && chain.is_some_and(|chain| !record.follows(&chain, &self.host.previous)) {
            let detail = "the hash does not follow from the record and those before it".to_owned();
            self.problem(offset, session, "edited", detail);
        }
        self.host = Chain { previous: record.hash, next: record.ordinal.saturating_add(1) };
        if self.wanted.is_some() {
            let hash = blake3::Hash::from_bytes(record.hash).to_hex();
            self.wanted.take_if(|wanted| wanted.as_str() == hash.as_str());
        }
    }

    fn misplaced(&mut self, segment: u64, offset: u64, record: &Record<'_>) {
        let header = record.kind == Kind::Segment;
        if header && (offset != 0 || record.sequence != segment) {
            let detail = format!("the header of segment {} stands here", record.sequence);
            self.problem(offset, None, "segment-header-misplaced", detail);
        } else if !header && offset == 0 {
            let detail = "the segment does not begin with a header".to_owned();
            self.problem(offset, None, "segment-header-missing", detail);
        }
    }

    /// Follows the chain of one session; says from which hash this record
    /// should go on, if that is known.
    fn session(
        &mut self,
        offset: u64,
        id: SessionId,
        record: &Record<'_>,
        place: Ordering,
    ) -> Option<[u8; 32]> {
        let begin = record.kind == Kind::Begin;
        let known = self.open.get(&id).copied();
        let expected = known.unwrap_or_default();
        if begin && known.is_none() {
            self.report.sessions += 1;
        }
        let detail = match (begin, known) {
            (true, Some(_)) => Some("the session begins a second time".to_owned()),
            (false, None) => Some("the session's beginning is missing, or it has ended before".to_owned()),
            _ if record.sequence != expected.next => Some(format!(
                "record {} of the session stands where {} should",
                record.sequence, expected.next
            )),
            _ => None,
        };
        let sound = detail.is_none();
        if let Some(detail) = detail {
            // What the host's chain has said already is said of the session too.
            self.problem(offset, Some(id), "session-gap", detail);
        }
        if record.kind == Kind::End {
            self.open.remove(&id);
        } else {
            let next = record.sequence.saturating_add(1);
            self.open.insert(id, Chain { previous: record.hash, next });
        }
        (sound || place == Ordering::Equal).then_some(expected.previous)
    }

    fn report(mut self) -> Report {
        if let Some(torn) = self.torn.take() {
            self.note(torn);
        }
        if let Some(head) = self.wanted.take() {
            let detail = format!("no record has the hash {head}: the newest records have been removed");
            self.problem(0, None, "head-missing", detail);
        }
        let mut report = self.report;
        let mut open: Vec<_> =
            self.open.into_keys().filter(|id| self.only.is_none_or(|only| only == *id)).collect();
        open.sort();
        report.open = open.len() as u64;
        open.truncate(OPEN_NAMED);
        report.open_sessions = open;
        report.head = blake3::Hash::from_bytes(self.host.previous).to_hex().to_string();
        report.valid = report.problem_count == 0;
        report
    }
}
