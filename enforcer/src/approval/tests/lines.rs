//! The journal's file: every cut, every changed byte, and broken disks.

use std::fs;
use std::path::{Path, PathBuf};

use super::journal::{self, MAX_LINE, REWRITE_BYTES};
use super::record::Stamped;
use super::*;

const NOW: UnixMs = UnixMs(1_000_000);

fn file(dir: &Path) -> PathBuf {
    dir.join(JOURNAL_NAME)
}

/// A history with every kind of event, in a folder.
fn history(dir: &Path) -> Vec<Stamped> {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let impatient =
        |path, attempt| Submission { class: Class::Pip, ..submission(&requirement, bound(path, attempt)) };
    let retry = desk.wait(&impatient("/retry", 1));
    desk.yes("ann", retry.approval());
    desk.pass(10);
    desk.denied(retry, bound("/retry", 1));
    desk.yes("bob", retry.approval());
    desk.yes("cat", retry.approval());
    let first = desk.wait(&submission(&requirement, bound("/x", 1)));
    desk.wait(&submission(&requirement, bound("/x", 2)));
    desk.store.gone(first, desk.now).unwrap();
    desk.says(&login("ann"), first.approval(), Says::Reject);
    let job = desk.wait(&submission(&requirement, bound("/job", 1)));
    for name in ["ann", "bob"] {
        desk.says(&login(name), job.approval(), Says::Approve(Scope::Job { minutes: 1 }));
    }
    desk.released(job, bound("/job", 1));
    desk.pass(60);
    desk.wait(&submission(&requirement, bound("/left", 1)));
    let events = desk.log.tape().events.clone();
    let (mut journal, found) = Journal::open(dir).unwrap();
    assert_eq!(found, []);
    for (number, event) in events.iter().enumerate() {
        journal.append(std::slice::from_ref(event), number % 3 == 0).unwrap();
    }
    events
}

#[test]
fn a_journal_cut_anywhere_gives_what_was_whole_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let events = history(dir.path());
    let bytes = fs::read(file(dir.path())).unwrap();
    assert_eq!(Journal::open(dir.path()).unwrap().1, events);
    for cut in 0..=bytes.len() {
        let lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let found = journal::read(&bytes[..cut]).unwrap().events;
        assert_eq!(found, events[..lines.saturating_sub(1)], "{cut}");
    }
    // And in the file, at both sides of the end of each line.
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end);
    for cut in ends.flat_map(|end| [end / 2, end, end + 1]) {
        fs::write(file(dir.path()), &bytes[..cut]).unwrap();
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, events[..whole], "{cut}");
        if let Some(next) = events.get(whole) {
            journal.append(std::slice::from_ref(next), false).unwrap();
            drop(journal);
            assert_eq!(Journal::open(dir.path()).unwrap().1, events[..=whole], "{cut}");
        }
    }
}

#[test]
fn nothing_is_approved_by_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let events = history(dir.path());
    let bytes = fs::read(file(dir.path())).unwrap();
    let mut seen_grant = false;
    for (end, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        for cut in [end, end + 1] {
            fs::write(file(dir.path()), &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
            let at = events[..whole].last().map_or(NOW, |event| event.at);
            let store = ApprovalStore::open(dir.path(), at).unwrap();
            let approved = |id: ApprovalId| {
                events[..whole]
                    .iter()
                    .any(|event| matches!(&event.event, Event::Approved { id: of, .. } if *of == id))
            };
            for approval in store.list() {
                assert_eq!(approved(approval.id), matches!(approval.standing, Standing::Approved(_)));
                assert!(approval.applies == Applies::Retry || !approval.standing.is_pending());
                seen_grant |= store.grant(approval.id).is_some();
                assert!(store.grant(approval.id).is_none() || approved(approval.id));
            }
        }
    }
    assert!(seen_grant);
}

#[test]
fn a_changed_byte_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let bytes = fs::read(file(dir.path())).unwrap();
    let last = bytes.len() - 1;
    for at in 0..last {
        for flip in [1, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            assert!(journal::read(&changed).is_err(), "{at}");
        }
    }
    let mut changed = bytes;
    changed[last / 2] ^= 1;
    fs::write(file(dir.path()), &changed).unwrap();
    let error = ApprovalStore::open(dir.path(), NOW).unwrap_err();
    assert!(matches!(error, ApprovalError::Journal(JournalError::Damaged { .. })), "{error}");
    // It is as it was, for whoever mends it.
    assert_eq!(fs::read(file(dir.path())).unwrap(), changed);
}

#[test]
fn lines_that_are_gone_doubled_or_moved_open_nothing() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let bytes = fs::read(file(dir.path())).unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut edits: Vec<Vec<&[u8]>> = Vec::new();
    for at in 0..lines.len() {
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        edits.push(twice);
        if at + 1 < lines.len() {
            let mut gone = lines.clone();
            gone.remove(at);
            edits.push(gone);
            let mut moved = lines.clone();
            moved.swap(at, at + 1);
            edits.push(moved);
        }
    }
    for edit in edits {
        fs::write(file(dir.path()), edit.concat()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Damaged { .. })));
    }
    // A whole line that is none, behind the others.
    for odd in [b"\n".as_slice(), b"x\n", &[b"a".repeat(MAX_LINE), b"\n".to_vec()].concat()] {
        fs::write(file(dir.path()), [&bytes, odd].concat()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Damaged { .. })));
    }
}

#[test]
fn events_that_cannot_follow_open_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let events = history(dir.path());
    let used = events.iter().find(|event| matches!(event.event, Event::Approved { .. })).unwrap();
    fs::remove_file(file(dir.path())).unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.append(std::slice::from_ref(used), true).unwrap();
    drop(journal);
    let error = ApprovalStore::open(dir.path(), NOW).unwrap_err();
    let ApprovalError::Journal(JournalError::Damaged { line, .. }) = error else { panic!("{error}") };
    assert_eq!(line, 2);
    // Nor does one that is from before the one before it.
    fs::remove_file(file(dir.path())).unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let numbers = |at| Stamped { at, event: Event::Numbers { next: 1 } };
    journal.append(&[numbers(UnixMs(NOW.0 + 1)), numbers(NOW)], true).unwrap();
    drop(journal);
    let error = ApprovalStore::open(dir.path(), NOW).unwrap_err();
    assert!(matches!(error, ApprovalError::Journal(JournalError::Damaged { line: 3, .. })), "{error}");
}

#[test]
fn two_processes_do_not_share_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path()).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Open { .. })));
}

#[test]
fn a_link_is_not_followed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("x"), "").unwrap();
    std::os::unix::fs::symlink(other.path().join("x"), file(dir.path())).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Open { .. })));
    let link = other.path().join("dir");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(matches!(Journal::open(&link), Err(JournalError::Open { .. })));
}

#[test]
fn a_journal_that_was_removed_takes_nothing_until_it_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = ApprovalStore::open(dir.path(), NOW).unwrap();
    let (people, requirement) = (everybody(), requirement(1));
    let s = submission(&requirement, bound("/x", 1));
    let Submitted::Wait { waiter, .. } = store.submit(&s, &people, NOW).unwrap() else { panic!() };
    fs::remove_file(file(dir.path())).unwrap();
    let by = login("ann");
    let id = waiter.approval();
    let seen = store.get(id).unwrap().seen;
    let says = Says::Approve(Scope::Job { minutes: 5 });
    let answer = Answer { approval: id, seen, by: &by, says, reason: None };
    assert!(store.decide(&answer, &people, NOW).is_err());
    assert!(store.get(id).unwrap().standing.is_pending());
    assert!(matches!(store.take(waiter, s.bound.exact(), NOW), Ok(Taken::Wait { .. })));
    assert!(is_approved(store.decide(&answer, &people, NOW).unwrap()));
    drop(store);
    let store = ApprovalStore::open(dir.path(), NOW).unwrap();
    assert!(store.grant(id).is_some());
}

#[test]
fn on_a_full_disk_nothing_is_released_and_room_is_enough_to_go_on() {
    let mut memory = Desk::new();
    let requirement = requirement(1);
    let waiter = memory.wait(&submission(&requirement, bound("/x", 1)));
    memory.log.tape().broken = true;
    memory.pass(1);
    let by = login("ann");
    let seen = memory.seen(waiter.approval());
    let says = Says::Approve(Scope::Once);
    let answer = Answer { approval: waiter.approval(), seen, by: &by, says, reason: None };
    for _ in 0..3 {
        assert!(memory.store.decide(&answer, &memory.people, memory.now).is_err());
    }
    memory.log.tape().broken = false;
    assert!(is_approved(memory.yes("ann", waiter.approval())));
}

#[test]
fn a_large_journal_is_written_anew_with_all_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = ApprovalStore::open(dir.path(), NOW).unwrap();
    let (people, requirement) = (everybody(), requirement(1));
    let text: &'static str = Box::leak("\u{1b}".repeat(TEXT_MAX).into_boxed_str());
    let held = Held { statement: MaskedText::fixed(text), ..HELD.clone() };
    let (by, mut now, mut last, mut largest) = (login("ann"), NOW, 0, 0);
    let mut rewritten = 0;
    let mut kept = None;
    for number in 0..600 {
        now = now.after(std::time::Duration::from_secs(2));
        let (job, path) = (JobKey::new(&format!("{}", number / 10)), format!("/{number}"));
        let s = Submission { job, held: &held, ..submission(&requirement, bound(&path, 1)) };
        let Submitted::Wait { waiter, .. } = store.submit(&s, &people, now).unwrap() else { panic!() };
        let id = waiter.approval();
        let seen = store.get(id).unwrap().seen;
        let says = if number == 0 { Says::Approve(Scope::Job { minutes: 30 }) } else { Says::Reject };
        let answer = Answer { approval: id, seen, by: &by, says, reason: None };
        store.decide(&answer, &people, now).unwrap();
        drop(store.take(waiter, s.bound.exact(), now).unwrap());
        kept.get_or_insert(id);
        let length = fs::metadata(file(dir.path())).unwrap().len();
        largest = largest.max(length);
        rewritten += u32::from(length < last);
        last = length;
    }
    assert!(largest >= REWRITE_BYTES, "{largest}");
    assert!(rewritten <= 1, "{rewritten}");
    let before: Vec<Approval> = store.list().cloned().collect();
    let mut log = store.log;
    log.rewrite(&store.state.snapshot()).unwrap();
    drop(log);
    let store = ApprovalStore::open(dir.path(), now).unwrap();
    assert_eq!(store.list().cloned().collect::<Vec<_>>(), before);
    assert!(store.grant(kept.unwrap()).is_some());
    assert_eq!(store.state.next_approval, 600);
}
