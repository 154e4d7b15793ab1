//! Every limit, and one past it.

use super::limits::*;
use super::*;

fn path(number: usize) -> String {
    format!("/{number}")
}

fn by_job<'a>(requirement: &'a Requirement, job: usize, number: usize) -> Submission<'a> {
    Submission { job: JobKey::new(&path(job)), ..submission(requirement, bound(&path(number), 1)) }
}

#[test]
fn open_questions_of_a_job() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for number in 0..PENDING_PER_JOB {
        desk.wait(&by_job(&requirement, 1, number));
    }
    let flood = Refusal::Flood(Flood::JobPending);
    assert_eq!(desk.refused(&by_job(&requirement, 1, 99)), flood);
    // Joining one is none more, and other jobs may ask.
    desk.wait(&by_job(&requirement, 1, 0));
    desk.wait(&by_job(&requirement, 2, 99));
}

#[test]
fn open_questions_of_the_host() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for number in 0..PENDING_PER_HOST {
        desk.wait(&by_job(&requirement, number, 0));
    }
    let flood = Refusal::Flood(Flood::HostPending);
    assert_eq!(desk.refused(&by_job(&requirement, PENDING_PER_HOST, 0)), flood);
}

/// Asks, and has it rejected, so that it is not open any more.
fn ask_and_hear_no(desk: &mut Desk, s: &Submission<'_>) {
    let waiter = desk.wait(s);
    assert_eq!(desk.says(&login("ann"), waiter.approval(), Says::Reject), Decided::Rejected);
    desk.take(waiter, s.bound);
}

#[test]
fn new_questions_of_a_job_in_a_window() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for number in 0..NEW_PER_JOB {
        ask_and_hear_no(&mut desk, &by_job(&requirement, 1, number));
    }
    let flood = Refusal::Flood(Flood::JobNew);
    assert_eq!(desk.refused(&by_job(&requirement, 1, 99)), flood);
    desk.restart();
    assert_eq!(desk.refused(&by_job(&requirement, 1, 99)), flood);
    desk.pass(WINDOW.as_secs() - 1);
    assert_eq!(desk.refused(&by_job(&requirement, 1, 99)), flood);
    desk.pass(1);
    desk.wait(&by_job(&requirement, 1, 99));
}

#[test]
fn new_questions_of_the_host_in_a_window() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for number in 0..NEW_PER_HOST {
        ask_and_hear_no(&mut desk, &by_job(&requirement, number, 0));
    }
    let flood = Refusal::Flood(Flood::HostNew);
    assert_eq!(desk.refused(&by_job(&requirement, NEW_PER_HOST, 0)), flood);
    desk.pass(WINDOW.as_secs());
    desk.wait(&by_job(&requirement, NEW_PER_HOST, 0));
}

#[test]
fn clients_that_wait_for_one_approval() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for _ in 0..WAITERS {
        desk.wait(&submission(&requirement, bound("/x", 1)));
    }
    let flood = Refusal::Flood(Flood::Waiters);
    assert_eq!(desk.refused(&submission(&requirement, bound("/x", 1))), flood);
}

/// Asks for a grant that lasts, and says what is refused instead.
fn grant(desk: &mut Desk, requirement: &Requirement, job: usize, number: usize) -> Option<Flood> {
    let s = by_job(requirement, job, number);
    let says = Says::Approve(Scope::Job { minutes: 720 });
    loop {
        match desk.submit(&s) {
            Submitted::Wait { waiter, .. } => {
                assert!(is_approved(desk.says(&login("ann"), waiter.approval(), says)));
                desk.released(waiter, s.bound);
                return None;
            }
            Submitted::Refused(Refusal::Flood(Flood::JobNew | Flood::HostNew)) => desk.pass(WINDOW.as_secs()),
            Submitted::Refused(Refusal::Flood(flood)) => return Some(flood),
            other => panic!("{other:?}"),
        }
    }
}

fn lasting() -> Requirement {
    let offers = Offers { session: false, job_minutes: Some(720) };
    Requirement::new(RequirementSpec { offers, ..spec(1) }).unwrap()
}

#[test]
fn grants_of_a_job() {
    let mut desk = Desk::new();
    let requirement = lasting();
    for number in 0..GRANTS_PER_JOB {
        assert_eq!(grant(&mut desk, &requirement, 1, number), None);
    }
    assert_eq!(grant(&mut desk, &requirement, 1, GRANTS_PER_JOB), Some(Flood::JobGrants));
    assert_eq!(grant(&mut desk, &requirement, 2, 0), None);
}

#[test]
fn grants_of_the_host() {
    let mut desk = Desk::new();
    let requirement = lasting();
    for number in 0..GRANTS_PER_HOST {
        assert_eq!(grant(&mut desk, &requirement, number / NEW_PER_JOB, number), None);
    }
    assert_eq!(grant(&mut desk, &requirement, GRANTS_PER_HOST, 0), Some(Flood::HostGrants));
}

#[test]
fn what_has_ended_is_forgotten_in_the_end() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    for number in 0..=DECIDED_KEPT {
        ask_and_hear_no(&mut desk, &by_job(&requirement, number, 0));
        desk.pass(2);
    }
    assert_eq!(desk.store.list().count(), DECIDED_KEPT);
    assert!(desk.store.get(ApprovalId(0)).is_none());
    assert!(desk.store.get(ApprovalId(1)).is_some());
}

#[test]
fn votes_of_one_approval() {
    let mut desk = Desk::new();
    let names: Vec<String> = (0..=VOTES).map(|number| format!("p{number}")).collect();
    let mut needs = spec(1);
    // The second need stays open, so that votes gather.
    needs.stages[0].needs.push(Need { people: 1, groups: [Group::new("sec")].into() });
    let requirement = Requirement::new(needs).unwrap();
    for name in &names {
        desk.people.map(login(name), PersonId::new(name)).unwrap();
        desk.people.set_groups(login(name), [Group::new("ops")]);
    }
    let id = desk.wait(&submission(&requirement, bound("/x", 1))).approval();
    for name in &names[..VOTES] {
        assert_eq!(desk.yes(name, id), counted(1, 2));
    }
    let full = Decided::Ignored(Ignored::TooManyVotes);
    assert_eq!(desk.yes(&names[VOTES], id), full);
    assert_eq!(desk.yes(&names[0], id), Decided::Repeated { have: 1, need: 2 });
    // Whose answer is needed still has room.
    assert!(is_approved(desk.yes("cat", id)));
}
