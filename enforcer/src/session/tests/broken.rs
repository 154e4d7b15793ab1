//! Disks that are full, gone or read-only.

use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

/// A small file system of its own. Mounting needs root: without it the tests fail.
struct Tiny {
    dir: tempfile::TempDir,
}

impl Tiny {
    fn new(size: &str, flags: MsFlags) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        umount2(self.dir.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn big(statement: u32) -> Event {
    let bytes = masked("a ".repeat(4000).as_bytes());
    Event::Body { statement, direction: Direction::Response, offset: 0, bytes }
}

/// Waits until the recording takes events again.
fn healed(recording: &Recording) {
    let begun = Instant::now();
    while let Err(error) = recording.healthy() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::yield_now();
    }
}

#[test]
fn a_draft_that_cannot_be_written_is_written_to_nobody() {
    let disk = Tiny::new("512k", MsFlags::empty());
    let recording = open(disk.path());
    let session = recording.begin(header()).unwrap();
    session.draft(&event(1)).unwrap();
    (0..).find_map(|n| session.record(big(n)).err()).unwrap();
    session.draft(&event(2)).unwrap();
    // Whoever asks is told so, not only the first.
    for _ in 0..3 {
        assert!(session.flush().is_err());
    }
    mount(None::<&str>, disk.path(), None::<&str>, MsFlags::MS_REMOUNT, Some("size=4m")).unwrap();
    healed(&recording);
    session.flush().unwrap();
    session.close(Outcome::Completed).unwrap();
    assert_eq!(problems(disk.path()), []);
    assert_eq!(read::ls(disk.path()).unwrap()[0].statements, 2);
}

#[test]
fn a_full_disk_stops_the_recording_whole_and_space_brings_it_back() {
    let disk = Tiny::new("512k", MsFlags::empty());
    let recording = open(disk.path());
    let session = recording.begin(header()).unwrap();
    let error = (0..).find_map(|n| session.record(big(n)).err()).unwrap();
    // More than the reserve has room for: the end goes without it.
    for n in 0..5 {
        assert_eq!(session.draft(&big(n)).is_ok(), n < 4);
    }
    let text = error.to_string();
    assert!(text.contains("No space left") && text.contains("free space"), "{text}");
    assert!(recording.healthy().is_err());
    assert!(recording.begin(header()).is_err(), "a session that is not recorded does not begin");
    // There is room for the end, and no half record anywhere.
    session.close(Outcome::Failed { side: Side::Internal, reason: "log-unavailable" }).unwrap();
    assert_eq!(problems(disk.path()), []);
    assert_eq!(read::ls(disk.path()).unwrap()[0].outcome, "failed");
    let names = fs::read_dir(disk.path()).unwrap().count();
    // Attempts on a disk that is still full leave nothing behind.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        assert!(recording.healthy().is_err());
    }
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), names);
    mount(None::<&str>, disk.path(), None::<&str>, MsFlags::MS_REMOUNT, Some("size=4m")).unwrap();
    healed(&recording);
    recording.begin(header()).unwrap().close(Outcome::Completed).unwrap();
    let report = read::verify(disk.path()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.segments, report.open), (2, 0));
    // Even without room at the very start it says so.
    drop(recording);
    let full = Tiny::new("16k", MsFlags::empty());
    assert!(Recording::open(full.path(), RecordingOptions::default()).is_err());
}

#[test]
fn a_record_that_did_not_fit_does_not_break_the_session_it_belongs_to() {
    let disk = Tiny::new("512k", MsFlags::empty());
    let recording = open(disk.path());
    let session = recording.begin(header()).unwrap();
    let mut taken = 0;
    while session.record(big(taken)).is_ok() {
        taken += 1;
    }
    mount(None::<&str>, disk.path(), None::<&str>, MsFlags::MS_REMOUNT, Some("size=4m")).unwrap();
    healed(&recording);
    session.record(big(taken)).unwrap();
    session.close(Outcome::Completed).unwrap();
    assert_eq!(problems(disk.path()), []);
    let shown = read::ls(disk.path()).unwrap();
    assert_eq!(shown[0].records, u64::from(taken) + 3);
}

#[test]
fn a_read_only_folder_is_refused() {
    let disk = Tiny::new("1m", MsFlags::MS_RDONLY);
    let refused = Recording::open(disk.path(), RecordingOptions::default());
    assert!(matches!(refused, Err(SessionError::Open { cause, .. }) if cause.contains("Read-only")));
}

#[tokio::test]
async fn a_removed_segment_is_noticed_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let session = recording.begin(header()).unwrap();
    fs::remove_file(segment(dir.path(), 1)).unwrap();
    assert!(matches!(session.record_durable(event(1)).await, Err(SessionError::Unwritable { .. })));
    assert!(recording.healthy().is_err());
    assert!(session.record(event(2)).is_err(), "a lost segment takes nothing more");
    healed(&recording);
    assert!(session.record_durable(event(2)).await.is_ok());
    // The gap is not hidden.
    assert!(whats(dir.path()).contains(&"records-missing"));
}

#[tokio::test]
async fn a_folder_that_was_moved_away_takes_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let (path, aside) = (outer.path().join("sessions"), outer.path().join("aside"));
    fs::create_dir(&path).unwrap();
    let recording = open(&path);
    let session = recording.begin(header()).unwrap();
    fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    let error = session.record_durable(event(1)).await.unwrap_err();
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    assert!(recording.begin(header()).is_err());
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    healed(&recording);
    session.record_durable(event(2)).await.unwrap();
    session.close(Outcome::Completed).unwrap();
    assert_eq!(problems(&path), []);
}

#[tokio::test]
async fn waiters_share_an_fsync_and_all_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let sync = || recording.shared.sync.fsyncs();
    let before = sync();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let session = recording.begin(header()).unwrap();
        tasks.spawn(async move { session.record_durable(event(n)).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let fsyncs = sync() - before;
    assert!((1..=32).contains(&fsyncs), "64 waiters, {fsyncs} fsyncs");
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn what_nobody_waits_for_is_on_disk_soon() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        RecordingOptions { flush_interval: Duration::from_millis(50), ..RecordingOptions::default() };
    let recording = Recording::open(dir.path(), options).unwrap();
    let session = recording.begin(header()).unwrap();
    let before = recording.shared.sync.fsyncs();
    session.record(event(1)).unwrap();
    let begun = Instant::now();
    while recording.shared.sync.fsyncs() == before {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::yield_now();
    }
}

#[test]
fn many_threads_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let options = RecordingOptions { segment_bytes: 50_000, ..RecordingOptions::default() };
    let recording = Recording::open(dir.path(), options).unwrap();
    let shared = recording.begin(header()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..200 {
                    shared.record(event(n)).unwrap();
                    recording.begin(header()).unwrap().close(Outcome::Completed).unwrap();
                }
            });
        }
    });
    shared.close(Outcome::Completed).unwrap();
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.sessions, report.open), (801, 0));
}
