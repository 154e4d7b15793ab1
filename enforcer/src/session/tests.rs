//! The recording against kills, edits and full disks.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;
use crate::mask::MaskedText;

fn header() -> SessionHeader {
    SessionHeader {
        started_unix_ms: 1,
        kind: SessionKind::Connection,
        workload: MaskedText::fixed("job"),
        tag: 7,
        cgroup: 8,
        uid: 0,
        pid: 1,
        comm: MaskedText::fixed("curl"),
        client: None,
        destination: "192.0.2.1:443".parse().ok(),
        policy: "p".to_owned(),
    }
}

fn event(statement: u32) -> Event {
    Event::Statement {
        statement,
        method: MaskedText::fixed("GET"),
        authority: MaskedText::fixed("a.example"),
        path: MaskedText::fixed("/"),
        query: None,
        version: "1.1",
    }
}

fn open(dir: &Path) -> Recording {
    Recording::open(dir, RecordingOptions::default()).unwrap()
}

/// Two sessions whose records interleave; returns the bytes of the segment.
fn small(dir: &Path) -> Vec<u8> {
    let recording = open(dir);
    let (a, b) = (recording.begin(header()).unwrap(), recording.begin(header()).unwrap());
    a.record(&event(1)).unwrap();
    b.record(&event(1)).unwrap();
    a.close(&Outcome::Completed).unwrap();
    b.close(&Outcome::Denied { reason: "policy-deny" }).unwrap();
    drop(recording);
    fs::read(dir.join(read::segment_name(1))).unwrap()
}

fn problems(dir: &Path) -> Vec<read::Problem> {
    read::verify(dir).unwrap().problems
}

/// Where each record of a segment begins, and where the last one ends.
fn bounds(bytes: &[u8]) -> Vec<usize> {
    let mut at = vec![0];
    while let Ok((_, length)) = record::decode(&bytes[at[at.len() - 1]..]) {
        at.push(at[at.len() - 1] + length);
    }
    at
}

#[test]
fn a_whole_recording_verifies_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    assert_eq!(problems(dir.path()), []);
    let sessions = read::ls(dir.path()).unwrap();
    let outcomes: Vec<_> = sessions.iter().map(|one| one.outcome.as_str()).collect();
    assert_eq!(outcomes, ["denied", "completed"]);
    assert_eq!(sessions[0].statements, 1);
    let (id, entries) = read::show(dir.path(), &sessions[0].id.to_string()).unwrap();
    assert_eq!((id, entries.len()), (sessions[0].id, 3));
    assert!(matches!(read::show(dir.path(), "0"), Err(read::ShowError::Ambiguous(_, 2))));
    assert!(matches!(read::show(dir.path(), "x"), Err(read::ShowError::Unknown(_))));
}

#[test]
fn every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let path = dir.path().join(read::segment_name(1));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_ne!(problems(dir.path()), [], "byte {at}");
    }
}

#[test]
fn a_record_that_is_removed_doubled_or_moved_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let path = dir.path().join(read::segment_name(1));
    let at = bounds(&whole);
    let record = |n: usize| &whole[at[n]..at[n + 1]];
    let count = at.len() - 1;
    let build = |order: Vec<usize>| order.into_iter().flat_map(|n| record(n).to_vec()).collect::<Vec<_>>();
    // The newest record alone can go unseen: what verify prints as `head` is for that.
    for n in 0..count - 1 {
        fs::write(&path, build((0..count).filter(|m| *m != n).collect())).unwrap();
        assert_ne!(problems(dir.path()), [], "removed {n}");
        let mut order: Vec<usize> = (0..count).collect();
        order.swap(n, n + 1);
        fs::write(&path, build(order)).unwrap();
        assert_ne!(problems(dir.path()), [], "swapped {n}");
    }
    for n in 0..count {
        let mut order: Vec<usize> = (0..count).collect();
        order.insert(n, n);
        fs::write(&path, build(order)).unwrap();
        assert_ne!(problems(dir.path()), [], "doubled {n}");
    }
}

#[test]
fn a_session_cannot_be_taken_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let at = bounds(&whole);
    let first = record::decode(&whole[at[1]..]).unwrap().0.session;
    let kept: Vec<u8> = (0..at.len() - 1)
        .filter(|n| record::decode(&whole[at[*n]..]).unwrap().0.session != first)
        .flat_map(|n| whole[at[n]..at[n + 1]].to_vec())
        .collect();
    fs::write(dir.path().join(read::segment_name(1)), kept).unwrap();
    assert_ne!(problems(dir.path()), []);
}

#[test]
fn a_segment_that_is_missing_or_of_another_recording_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        drop(open(dir.path()).begin(header()).unwrap());
        drop(open(other.path()).begin(header()).unwrap());
    }
    assert_eq!(problems(dir.path()), []);
    let second = dir.path().join(read::segment_name(2));
    let kept = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    assert_ne!(problems(dir.path()), []);
    fs::copy(other.path().join(read::segment_name(2)), &second).unwrap();
    assert_ne!(problems(dir.path()), []);
    fs::write(&second, kept).unwrap();
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn a_tail_cut_at_any_byte_is_repaired_and_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let whole = small(source.path());
    for cut in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(read::segment_name(1)), &whole[..cut]).unwrap();
        let session = open(dir.path()).begin(header()).unwrap();
        session.close(&Outcome::Completed).unwrap();
        assert_eq!(problems(dir.path()), [], "cut at {cut}");
    }
}

#[test]
fn a_session_without_an_end_is_cut_and_a_dropped_one_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    drop(recording.begin(header()).unwrap());
    std::mem::forget(recording.begin(header()).unwrap());
    let outcomes: Vec<_> = read::ls(dir.path()).unwrap().into_iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, ["cut", "cancelled"]);
    assert_eq!(read::verify(dir.path()).unwrap().open, 1);
}

#[test]
fn links_and_missing_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for path in [link, dir.path().join("missing")] {
        assert!(matches!(
            Recording::open(&path, RecordingOptions::default()),
            Err(SessionError::Open { .. })
        ));
    }
    let inner = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inner.path().join(read::segment_name(1))).unwrap();
    assert!(Recording::open(inner.path(), RecordingOptions::default()).is_err());
}

#[test]
fn segments_rotate_and_stay_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let options = RecordingOptions { segment_bytes: 600, ..RecordingOptions::default() };
    let recording = Recording::open(dir.path(), options).unwrap();
    let session = recording.begin(header()).unwrap();
    for n in 0..50 {
        session.record(&event(n)).unwrap();
    }
    session.close(&Outcome::Completed).unwrap();
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.segments > 5);
}

#[test]
fn an_event_over_the_limit_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let session = recording.begin(header()).unwrap();
    let room = MAX_RECORD - record::HEAD - record::HASH;
    let make = |length: usize| Event::Error {
        side: Side::Internal,
        reason: "test",
        detail: MaskedText::fixed(Box::leak("x".repeat(length).into_boxed_str())),
    };
    let frame = serde_json::to_vec(&make(0)).unwrap().len();
    session.record(&make(room - frame)).unwrap();
    assert!(matches!(session.record(&make(room - frame + 1)), Err(SessionError::TooLong { .. })));
    session.close(&Outcome::Completed).unwrap();
    assert_eq!(problems(dir.path()), []);
}

#[tokio::test]
async fn waiters_share_an_fsync_and_all_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let session = recording.begin(header()).unwrap();
        tasks.spawn(async move { session.record_durable(&event(n)).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(problems(dir.path()), []);
}

#[tokio::test]
async fn a_removed_segment_is_noticed_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let session = recording.begin(header()).unwrap();
    fs::remove_file(dir.path().join(read::segment_name(1))).unwrap();
    assert!(matches!(session.record_durable(&event(1)).await, Err(SessionError::Unwritable { .. })));
    assert!(recording.healthy().is_err());
    while recording.healthy().is_err() {
        tokio::task::yield_now().await;
    }
    assert!(session.record_durable(&event(2)).await.is_ok());
    // The gap is not hidden.
    assert_ne!(problems(dir.path()), []);
}

/// The child of the test below: records until it is killed.
#[test]
fn child_records_until_killed() {
    let Some(dir) = std::env::var_os("ENFORCER_TEST_RECORD_UNTIL_KILLED") else { return };
    let recording = open(Path::new(&dir));
    for n in 0.. {
        let session = recording.begin(header()).unwrap();
        session.record(&event(n)).unwrap();
        session.close(&Outcome::Completed).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_recording_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for _ in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "session::tests::child_records_until_killed"])
            .env("ENFORCER_TEST_RECORD_UNTIL_KILLED", dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while read::verify(dir.path()).unwrap().records < before + 50 {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        drop(open(dir.path()));
        let report = read::verify(dir.path()).unwrap();
        assert_eq!(report.problems, []);
        before = report.records;
    }
}
