//! What a new process makes of what the one before left.

use super::limits::CLOCK_SLACK;
use super::*;

/// Answers the client of pip's class, so that the question is about a retry.
fn turned(desk: &mut Desk, requirement: &Requirement, path: &str) -> ApprovalId {
    let s = Submission { class: Class::Pip, ..submission(requirement, bound(path, 1)) };
    let waiter = desk.wait(&s);
    desk.pass(10);
    assert_eq!(desk.denied(waiter, s.bound), Denial::ComeAgain);
    waiter.approval()
}

#[test]
fn who_waits_is_cancelled_and_a_question_about_a_retry_stays() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let retry = turned(&mut desk, &requirement, "/retry");
    assert_eq!(desk.yes("ann", retry), counted(1, 2));
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    assert_eq!(desk.yes("ann", waiter.approval()), counted(1, 2));
    desk.restart();
    assert_eq!(*desk.standing(waiter.approval()), Standing::Cancelled(Cancel::Restarted));
    assert_eq!(desk.yes("bob", waiter.approval()), Decided::Ignored(Ignored::Late));
    assert_eq!(desk.denied(waiter, bound("/x", 1)), Denial::Unknown);
    assert!(is_approved(desk.yes("bob", retry)));
    let s = submission(&requirement, bound("/retry", 2));
    assert!(matches!(desk.submit(&s), Submitted::Pass(_)));
}

#[test]
fn a_grant_stays_unless_it_belongs_to_a_connection() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let retry = turned(&mut desk, &requirement, "/retry");
    assert!(is_approved(desk.yes("ann", retry)));
    let give = |desk: &mut Desk, path, scope| {
        let id = desk.wait(&submission(&requirement, bound(path, 1))).approval();
        assert!(is_approved(desk.says(&login("ann"), id, Says::Approve(scope))));
        id
    };
    let exact = give(&mut desk, "/exact", Scope::Once);
    let job = give(&mut desk, "/job", Scope::Job { minutes: 5 });
    let session = give(&mut desk, "/session", Scope::Session);
    desk.restart();
    for (id, stays) in [(retry, true), (exact, false), (job, true), (session, false)] {
        assert_eq!(desk.store.grant(id).is_some(), stays, "{id}");
        assert!(matches!(desk.standing(id), Standing::Approved(_)), "{id}");
    }
    let mut passes =
        |path| matches!(desk.submit(&submission(&requirement, bound(path, 2))), Submitted::Pass(_));
    assert!(passes("/retry") && !passes("/retry"));
    assert!(passes("/job") && passes("/job"));
    assert!(!passes("/exact") && !passes("/session"));
}

#[test]
fn what_was_used_stays_used_and_numbers_go_on() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let retry = turned(&mut desk, &requirement, "/retry");
    assert!(is_approved(desk.yes("ann", retry)));
    let s = submission(&requirement, bound("/retry", 2));
    assert!(matches!(desk.submit(&s), Submitted::Pass(_)));
    desk.restart();
    let next = desk.wait(&s);
    assert!(next.approval() > retry);
}

#[test]
fn time_goes_on_over_a_restart() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let retry = turned(&mut desk, &requirement, "/retry");
    assert!(is_approved(desk.yes("ann", retry)));
    let open = turned(&mut desk, &requirement, "/open");
    desk.pass(900);
    desk.restart();
    assert!(desk.store.grant(retry).is_none());
    assert_eq!(*desk.standing(open), Standing::Expired);
}

#[test]
fn a_clock_that_went_back_ends_everything_but_a_little_does_not() {
    let slack = u64::try_from(CLOCK_SLACK.as_millis()).unwrap();
    for (back, stays) in [(slack, true), (slack + 1, false)] {
        let mut desk = Desk::new();
        let requirement = requirement(1);
        let open = turned(&mut desk, &requirement, "/open");
        let retry = turned(&mut desk, &requirement, "/retry");
        assert!(is_approved(desk.yes("ann", retry)));
        desk.now.0 -= back;
        desk.restart();
        assert_eq!(desk.store.grant(retry).is_some(), stays);
        assert_eq!(desk.standing(open).is_pending(), stays);
        // Time is what the clock says from then on.
        let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
        let opened = desk.store.get(waiter.approval()).unwrap().opened;
        assert_eq!(opened == desk.now, !stays);
        desk.restart();
        assert!(desk.store.get(waiter.approval()).is_some());
    }
}
