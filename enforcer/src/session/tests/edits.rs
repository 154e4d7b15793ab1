//! An attacker who can write to the folder.

use super::*;

#[test]
fn a_whole_recording_verifies_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.valid);
    assert_eq!((report.segments, report.records, report.sessions, report.open), (1, 7, 2, 0));
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
    let path = segment(dir.path(), 1);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            assert_ne!(problems(dir.path()), [], "byte {at} ^ {flip}");
        }
    }
}

#[test]
fn a_record_that_is_edited_with_its_hash_made_anew_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let at = bounds(&whole);
    // The attacker knows the layout, and goes on as far as the record that is edited.
    let mut bytes = whole.clone();
    let (mut session, mut host) = (record::Chain::default(), record::Chain::default());
    host.next = 1;
    host.previous = record::decode(&whole).unwrap().0.hash;
    let text = b"\"job\"";
    let place = bytes[at[1]..at[2]].windows(5).position(|window| window == text).unwrap() + at[1];
    bytes[place..place + 5].copy_from_slice(b"\"jab\"");
    let when = record::decode(&whole[at[1]..]).unwrap().0.at_unix_us;
    record::seal(&mut bytes[at[1]..at[2]], &mut session, &mut host, when);
    fs::write(segment(dir.path(), 1), &bytes).unwrap();
    let found = problems(dir.path());
    assert_eq!(found[0].what, "edited");
    assert_eq!(found[0].offset, at[2] as u64);
}

#[test]
fn a_record_that_is_removed_doubled_or_moved_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let path = segment(dir.path(), 1);
    let at = bounds(&whole);
    let record = |n: usize| &whole[at[n]..at[n + 1]];
    let count = at.len() - 1;
    let build = |order: Vec<usize>| order.into_iter().flat_map(|n| record(n).to_vec()).collect::<Vec<_>>();
    // The newest record alone can go unseen: what verify prints as `head` is for that.
    for n in 0..count - 1 {
        fs::write(&path, build((0..count).filter(|m| *m != n).collect())).unwrap();
        assert!(whats(dir.path()).contains(&"records-missing"), "removed {n}");
        let mut order: Vec<usize> = (0..count).collect();
        order.swap(n, n + 1);
        fs::write(&path, build(order)).unwrap();
        assert!(whats(dir.path()).contains(&"repeated-or-moved"), "swapped {n}");
    }
    for n in 0..count {
        let mut order: Vec<usize> = (0..count).collect();
        order.insert(n, n);
        fs::write(&path, build(order)).unwrap();
        assert!(whats(dir.path()).contains(&"repeated-or-moved"), "doubled {n}");
    }
}

#[test]
fn the_newest_records_cannot_go_if_the_head_was_noted() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let at = bounds(&whole);
    let head = read::verify(dir.path()).unwrap().head;
    assert!(read::verify_with(dir.path(), None, Some(&head)).unwrap().valid);
    fs::write(segment(dir.path(), 1), &whole[..at[at.len() - 2]]).unwrap();
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.open, 1, "the session whose end is gone shows as cut");
    assert_eq!(read::ls(dir.path()).unwrap()[0].outcome, "cut");
    let report = read::verify_with(dir.path(), None, Some(&head)).unwrap();
    assert_eq!(report.problems[0].what, "head-missing");
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
    fs::write(segment(dir.path(), 1), kept).unwrap();
    assert!(whats(dir.path()).contains(&"records-missing"));
}

#[test]
fn one_session_is_verified_alone() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let ids: Vec<_> = read::ls(dir.path()).unwrap().into_iter().map(|one| one.id).collect();
    let mut bytes = whole.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(segment(dir.path(), 1), &bytes).unwrap();
    assert!(!read::verify_with(dir.path(), Some(ids[0]), None).unwrap().valid);
    assert!(read::verify_with(dir.path(), Some(ids[1]), None).unwrap().valid);
}

#[test]
fn a_segment_that_is_missing_moved_doubled_or_of_another_recording_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        drop(open(dir.path()).begin(header()).unwrap());
        drop(open(other.path()).begin(header()).unwrap());
    }
    assert_eq!(problems(dir.path()), []);
    let path = |number| segment(dir.path(), number);
    for missing in 1..3 {
        let kept = fs::read(path(missing)).unwrap();
        fs::remove_file(path(missing)).unwrap();
        let found = whats(dir.path());
        assert!(found.contains(&"segment-missing") && found.contains(&"records-missing"), "{found:?}");
        fs::copy(segment(other.path(), missing), path(missing)).unwrap();
        assert_ne!(problems(dir.path()), []);
        fs::write(path(missing), kept).unwrap();
        assert_eq!(problems(dir.path()), []);
    }
    let (second, third) = (fs::read(path(2)).unwrap(), fs::read(path(3)).unwrap());
    fs::write(path(2), &third).unwrap();
    fs::write(path(3), &second).unwrap();
    assert!(whats(dir.path()).contains(&"segment-header-misplaced"));
    fs::write(path(2), &second).unwrap();
    fs::write(path(3), &third).unwrap();
    let twin = dir.path().join(SegmentName::new(2, "beef").file());
    fs::write(&twin, &second).unwrap();
    assert!(whats(dir.path()).contains(&"segment-number-twice"));
    fs::remove_file(&twin).unwrap();
    fs::write(path(2), &second[..second.len() - 1]).unwrap();
    assert!(whats(dir.path()).contains(&"truncated"));
}

#[test]
fn a_tail_cut_at_any_byte_is_found_repaired_and_kept() {
    let source = tempfile::tempdir().unwrap();
    let whole = small(source.path());
    let at = bounds(&whole);
    for cut in 0..whole.len() {
        // In memory, where the thousands of fsyncs cost nothing.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(segment(dir.path(), 1), &whole[..cut]).unwrap();
        let between = cut > 0 && at.contains(&cut);
        let expected: &[&str] = if between { &[] } else { &["torn-tail"] };
        assert_eq!(whats(dir.path()), expected, "cut at {cut}");
        let session = open(dir.path()).begin(header()).unwrap();
        session.close(Outcome::Completed).unwrap();
        assert_eq!(problems(dir.path()), [], "cut at {cut}");
        let torn = cut - at.iter().rev().find(|bound| **bound <= cut).unwrap();
        let kept = fs::read(dir.path().join(format!("{}.torn", SegmentName::new(1, "").file())));
        assert_eq!(kept.map_or(0, |kept| kept.len()), torn, "cut at {cut}");
    }
}

#[test]
fn zeros_that_a_loss_of_power_left_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = small(dir.path());
    bytes.extend_from_slice(&[0; 10_000]);
    fs::write(segment(dir.path(), 1), &bytes).unwrap();
    assert_eq!(whats(dir.path()), ["torn-tail"]);
    drop(open(dir.path()));
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn links_pipes_and_missing_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for path in [link, dir.path().join("missing")] {
        let refused = Recording::open(&path, RecordingOptions::default());
        assert!(matches!(refused, Err(SessionError::Open { .. })));
        assert!(read::verify(&path).is_err());
    }
    let linked = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", segment(linked.path(), 1)).unwrap();
    assert!(Recording::open(linked.path(), RecordingOptions::default()).is_err());
    assert_eq!(whats(linked.path()), ["not-readable"]);
    let reserve = tempfile::tempdir().unwrap();
    let victim = reserve.path().join("victim");
    fs::write(&victim, "x").unwrap();
    std::os::unix::fs::symlink(&victim, reserve.path().join("reserve")).unwrap();
    assert!(Recording::open(reserve.path(), RecordingOptions::default()).is_err());
    assert_eq!(fs::read(&victim).unwrap(), b"x");
}

#[test]
fn a_name_that_is_taken_is_passed_over_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let recording =
        Recording::open(dir.path(), RecordingOptions { segment_bytes: 1, ..RecordingOptions::default() })
            .unwrap();
    std::os::unix::fs::symlink("/etc/passwd", segment(dir.path(), 2)).unwrap();
    recording.begin(header()).unwrap().close(Outcome::Completed).unwrap();
    assert_eq!(whats(dir.path()), ["not-readable"]);
}

#[test]
fn one_process_records_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = Recording::open(dir.path(), RecordingOptions::default());
    assert!(matches!(second, Err(SessionError::Open { cause, .. }) if cause.contains("another process")));
    drop(first);
    open(dir.path());
}

/// Three records by the page that describes the format, without `record`.
#[test]
fn the_example_of_the_documentation_is_right() {
    let page = include_str!("../../../../docs/recording.md");
    let example = page.split("<!-- example -->").nth(1).unwrap();
    let mut records = example.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| {
        let hex: String = line.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    });
    let mut next = || -> Vec<u8> { records.next().unwrap() };
    let (first, second, third) = (next(), next(), next());
    let hash = |bytes: &[u8]| bytes[bytes.len() - 32..].to_vec();
    let by_hand = |session: &[u8], host: &[u8], record: &[u8]| {
        let covered = &record[..record.len() - 32];
        blake3::hash(&[session, host, covered].concat()).as_bytes().to_vec()
    };
    let zeros = [0; 32];
    assert_eq!(hash(&first), by_hand(&zeros, &zeros, &first));
    assert_eq!(hash(&second), by_hand(&zeros, &hash(&first), &second));
    assert_eq!(hash(&third), by_hand(&hash(&second), &hash(&second), &third));
    let dir = tempfile::tempdir().unwrap();
    fs::write(segment(dir.path(), 1), [first, second, third].concat()).unwrap();
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.records, report.sessions, report.open), (3, 1, 0));
    assert!(page.contains(&report.head));
}

#[test]
fn a_recording_that_is_being_written_verifies() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = RecordingOptions { segment_bytes: 500_000, ..RecordingOptions::default() };
    let recording = Recording::open(dir.path(), options).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = masked(&b"text ".repeat(4000));
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let session = recording.begin(header()).unwrap();
                let (statement, direction, offset, bytes) = (1, Direction::Response, 0, bytes.clone());
                session.record(Event::Body { statement, direction, offset, bytes }).unwrap();
                session.close(Outcome::Completed).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        });
        for _ in 0..30 {
            let found = problems(dir.path());
            done.store(!found.is_empty(), std::sync::atomic::Ordering::Relaxed);
            assert_eq!(found, []);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
