//! The recording against edits, kills and broken disks.

mod broken;
mod edits;
mod events;
mod kill;

use std::fs;
use std::path::{Path, PathBuf};

use super::dir::SegmentName;
use super::*;
use crate::mask::{Masked, MaskedText, Masker};

pub fn header() -> SessionHeader {
    SessionHeader {
        started_unix_ms: 1,
        kind: SessionKind::Connection,
        workload: MaskedText::fixed("job"),
        facts: None,
        tag: 7,
        cgroup: 8,
        uid: 0,
        pid: 1,
        comm: MaskedText::fixed("curl"),
        client: None,
        destination: "192.0.2.1:443".parse().ok(),
        policy: "p".to_owned(),
        identity: None,
    }
}

pub fn event(statement: u32) -> Event {
    Event::Statement {
        statement,
        method: MaskedText::fixed("GET"),
        authority: MaskedText::fixed("a.example"),
        path: MaskedText::fixed("/"),
        query: None,
        version: "1.1",
    }
}

pub fn masked(bytes: &[u8]) -> Masked {
    Masker::builtin_all().unwrap().mask(bytes).0
}

pub fn open(dir: &Path) -> Recording {
    Recording::open(dir, RecordingOptions::default()).unwrap()
}

pub fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(SegmentName::new(number, "").file())
}

/// Two sessions whose records interleave; returns the bytes of the segment.
pub fn small(dir: &Path) -> Vec<u8> {
    let recording = open(dir);
    let (a, b) = (recording.begin(header()).unwrap(), recording.begin(header()).unwrap());
    a.record(event(1)).unwrap();
    b.record(event(1)).unwrap();
    a.close(Outcome::Completed).unwrap();
    b.close(Outcome::Denied { reason: "policy-deny" }).unwrap();
    drop(recording);
    fs::read(segment(dir, 1)).unwrap()
}

pub fn problems(dir: &Path) -> Vec<read::Problem> {
    read::verify(dir).unwrap().problems
}

/// What is wrong, in a word.
pub fn whats(dir: &Path) -> Vec<&'static str> {
    problems(dir).iter().map(|problem| problem.what).collect()
}

/// Where each record of a segment begins, and where the last one ends.
pub fn bounds(bytes: &[u8]) -> Vec<usize> {
    let mut at = vec![0];
    while let Ok((_, length)) = record::decode(&bytes[at[at.len() - 1]..]) {
        at.push(at[at.len() - 1] + length);
    }
    at
}
