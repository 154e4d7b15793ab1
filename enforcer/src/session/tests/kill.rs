//! A process that is killed at any moment.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;

const FOLDER: &str = "ENFORCER_TEST_RECORD_UNTIL_KILLED";

/// The child of the test below: records until it is killed, and says what was
/// acknowledged. Without the folder it has nothing to do.
#[test]
fn child_records_until_killed() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let options = RecordingOptions { segment_bytes: 200_000, ..RecordingOptions::default() };
    let recording = Recording::open(Path::new(&dir), options).unwrap();
    let mut out = std::io::stdout();
    let body = masked(&b"text ".repeat(8000));
    for n in 0.. {
        let session = recording.begin(header()).unwrap();
        session.record(event(n)).unwrap();
        let bytes = body.clone();
        let (statement, direction, offset) = (n, Direction::Response, 0);
        session.record(Event::Body { statement, direction, offset, bytes }).unwrap();
        let id = session.id();
        session.close(Outcome::Completed).unwrap();
        writeln!(out, "\nacknowledged {id}").unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "session::tests::kill::child_records_until_killed", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ids = |line: Option<std::io::Result<String>>| {
            line.unwrap().unwrap().strip_prefix("acknowledged ").map(str::to_owned)
        };
        let before = acknowledged.len();
        while acknowledged.len() < before + 1 + round % 7 {
            acknowledged.extend(ids(lines.next()));
        }
        // Kills at different places of the writing.
        for _ in 0..round * 1994 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let rest = lines.map_while(Result::ok);
        acknowledged.extend(rest.filter_map(|line| Some(line.strip_prefix("acknowledged ")?.to_owned())));
    }
    drop(open(dir.path()));
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    let sessions = read::ls(dir.path()).unwrap();
    let completed: std::collections::HashSet<_> = sessions
        .iter()
        .filter(|one| one.outcome == "completed" && one.records == 4)
        .map(|one| one.id.to_string())
        .collect();
    // A line that the kill cut in two is no acknowledgement.
    let lost: Vec<_> = acknowledged.iter().filter(|id| id.len() == 36 && !completed.contains(*id)).collect();
    assert!(lost.is_empty(), "{} acknowledged, lost {lost:?}", acknowledged.len());
}
