//! What lets more than the client that waits through, and how little that is.

use super::*;

/// A client of pip's class; after 10 s it has been answered.
fn impatient<'a>(requirement: &'a Requirement, bound: Bound) -> Submission<'a> {
    Submission { class: Class::Pip, ..submission(requirement, bound) }
}

#[test]
fn a_client_that_cannot_wait_passes_when_it_comes_again() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let waiter = desk.wait(&impatient(&requirement, bound("/x", 1)));
    let id = waiter.approval();
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    desk.pass(10);
    desk.store.tick(desk.now).unwrap();
    assert_eq!(desk.store.ready(), [waiter]);
    assert_eq!(desk.denied(waiter, bound("/x", 1)), Denial::ComeAgain);
    assert_eq!(desk.store.get(id).unwrap().applies, Applies::Retry);
    assert!(is_approved(desk.yes("bob", id)));
    // Other statements, jobs and rules are not meant.
    for s in [
        impatient(&requirement, bound("/y", 1)),
        Submission { job: JobKey::new("j2"), ..impatient(&requirement, bound("/x", 2)) },
        Submission { rule: RuleKey::new("r2"), ..impatient(&requirement, bound("/x", 2)) },
    ] {
        assert!(matches!(desk.submit(&s), Submitted::Wait { asked: true, .. }), "{s:?}");
    }
    // Nor is a rule that demands something else by now.
    let other = super::requirement(3);
    assert!(matches!(desk.submit(&impatient(&other, bound("/x", 2))), Submitted::Wait { asked: true, .. }));
    let Submitted::Pass(permit) = desk.submit(&impatient(&requirement, bound("/x", 2))) else { panic!() };
    assert_eq!((permit.approval(), permit.exact()), (id, bound("/x", 2).exact()));
    assert!(matches!(desk.submit(&impatient(&requirement, bound("/x", 3))), Submitted::Wait { .. }));
}

#[test]
fn a_retry_before_the_answer_waits_for_the_same_question() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let first = desk.wait(&impatient(&requirement, bound("/x", 1)));
    desk.pass(10);
    assert_eq!(desk.denied(first, bound("/x", 1)), Denial::ComeAgain);
    let s = impatient(&requirement, bound("/x", 2));
    let Submitted::Wait { waiter, asked: false, .. } = desk.submit(&s) else { panic!() };
    assert_eq!(waiter.approval(), first.approval());
    desk.pass(3);
    assert!(is_approved(desk.yes("ann", first.approval())));
    desk.released(waiter, bound("/x", 2));
    assert!(desk.store.grant(first.approval()).is_none());
}

#[test]
fn a_grant_for_a_retry_ends() {
    for (early, want) in [(1, true), (0, false)] {
        let mut desk = Desk::new();
        let requirement = requirement(1);
        let waiter = desk.wait(&impatient(&requirement, bound("/x", 1)));
        desk.pass(10);
        assert!(is_approved(desk.yes("ann", waiter.approval())));
        assert_eq!(desk.store.deadline(), Some(desk.now.after(std::time::Duration::from_secs(900))));
        desk.pass(900);
        desk.now.0 -= early;
        let passes = matches!(desk.submit(&impatient(&requirement, bound("/x", 2))), Submitted::Pass(_));
        assert_eq!(passes, want);
    }
}

#[test]
fn without_a_retry_in_the_rule_it_ends_with_the_client() {
    let mut desk = Desk::new();
    let requirement = Requirement::new(RequirementSpec { retry_seconds: None, ..spec(1) }).unwrap();
    let waiter = desk.wait(&impatient(&requirement, bound("/x", 1)));
    desk.pass(10);
    assert_eq!(desk.yes("ann", waiter.approval()), Decided::Ignored(Ignored::Late));
    assert_eq!(desk.denied(waiter, bound("/x", 1)), Denial::HeldTooLong);
    assert_eq!(*desk.standing(waiter.approval()), Standing::Expired);
}

#[test]
fn a_rule_that_holds_nobody_leaves_only_the_retry() {
    let mut desk = Desk::new();
    let requirement = Requirement::new(RequirementSpec { hold_seconds: Some(0), ..spec(1) }).unwrap();
    let Submitted::Later { approval } = desk.submit(&submission(&requirement, bound("/x", 1))) else {
        panic!()
    };
    assert!(is_approved(desk.yes("ann", approval)));
    assert!(matches!(desk.submit(&submission(&requirement, bound("/x", 2))), Submitted::Pass(_)));
}

#[test]
fn identical_statements_are_one_question_and_one_of_them_goes_out() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let bound = bound("/x", 1);
    let first = desk.wait(&submission(&requirement, bound));
    let Submitted::Wait { waiter: second, asked: false, .. } = desk.submit(&submission(&requirement, bound))
    else {
        panic!()
    };
    assert_eq!(first.approval(), second.approval());
    assert_eq!(desk.store.waiting(first.approval()), 2);
    assert!(is_approved(desk.yes("ann", first.approval())));
    assert_eq!(desk.store.ready(), [first, second]);
    desk.released(second, bound);
    assert_eq!(desk.denied(first, bound), Denial::UsedUp);
}

#[test]
fn a_client_with_other_bytes_is_not_released_in_the_place_of_the_first() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let first = desk.wait(&submission(&requirement, bound("/x", 1)));
    let second = desk.wait(&submission(&requirement, bound("/x", 2)));
    assert_eq!(first.approval(), second.approval());
    assert!(is_approved(desk.yes("ann", first.approval())));
    assert_eq!(desk.denied(second, bound("/x", 2)), Denial::UsedUp);
    desk.released(first, bound("/x", 1));
}

#[test]
fn when_another_takes_its_place_votes_fall() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let first = desk.wait(&submission(&requirement, bound("/x", 1)));
    let same = desk.wait(&submission(&requirement, bound("/x", 1)));
    let other = desk.wait(&submission(&requirement, bound("/x", 2)));
    let id = first.approval();
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    let seen = desk.seen(id);
    desk.store.gone(first, desk.now).unwrap();
    assert_eq!(desk.seen(id), seen);
    desk.store.gone(same, desk.now).unwrap();
    assert_ne!(desk.seen(id), seen);
    assert_eq!(desk.store.get(id).unwrap().exact, bound("/x", 2).exact());
    let by = login("bob");
    let says = Says::Approve(Scope::Once);
    let answer = Answer { approval: id, seen, by: &by, says, reason: None };
    let decided = desk.store.decide(&answer, &desk.people, desk.now).unwrap();
    assert_eq!(decided, Decided::Ignored(Ignored::Changed));
    assert_eq!(desk.yes("bob", id), counted(1, 2));
    assert!(is_approved(desk.yes("ann", id)));
    desk.released(other, bound("/x", 2));
}

#[test]
fn a_session_s_grant_serves_that_session() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    let says = Says::Approve(Scope::Session);
    assert!(is_approved(desk.says(&login("ann"), waiter.approval(), says)));
    desk.released(waiter, bound("/x", 1));
    for attempt in 2..5 {
        assert!(matches!(desk.submit(&submission(&requirement, bound("/x", attempt))), Submitted::Pass(_)));
    }
    let elsewhere = Submission { session: session(2), ..submission(&requirement, bound("/x", 9)) };
    assert!(matches!(desk.submit(&elsewhere), Submitted::Wait { asked: true, .. }));
    assert!(matches!(desk.submit(&submission(&requirement, bound("/y", 1))), Submitted::Wait { .. }));
    desk.store.session_ended(session(1), desk.now).unwrap();
    assert!(matches!(desk.submit(&submission(&requirement, bound("/x", 5))), Submitted::Wait { .. }));
}

#[test]
fn a_job_s_grant_serves_all_its_sessions_and_ends() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    let says = Says::Approve(Scope::Job { minutes: 30 });
    assert!(is_approved(desk.says(&login("ann"), waiter.approval(), says)));
    let s = |attempt| Submission { session: session(2), ..submission(&requirement, bound("/x", attempt)) };
    assert!(matches!(desk.submit(&s(2)), Submitted::Pass(_)));
    desk.released(waiter, bound("/x", 1));
    desk.pass(30 * 60 - 1);
    assert!(matches!(desk.submit(&s(3)), Submitted::Pass(_)));
    desk.pass(1);
    assert!(matches!(desk.submit(&s(4)), Submitted::Wait { .. }));
}

#[test]
fn nobody_can_let_more_through_than_the_rule_does() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    let wide = Decided::Ignored(Ignored::ScopeTooWide);
    for minutes in [0, 31, u32::MAX] {
        let says = Says::Approve(Scope::Job { minutes });
        assert_eq!(desk.says(&login("ann"), waiter.approval(), says), wide);
    }
    let strict = RequirementSpec { offers: Offers::default(), ..spec(1) };
    let strict = Requirement::new(strict).unwrap();
    let waiter = desk.wait(&submission(&strict, bound("/y", 1)));
    for scope in [Scope::Session, Scope::Job { minutes: 1 }] {
        assert_eq!(desk.says(&login("ann"), waiter.approval(), Says::Approve(scope)), wide);
    }
    assert!(is_approved(desk.yes("ann", waiter.approval())));
}

#[test]
fn the_narrowest_of_what_they_say_counts() {
    use Scope::{Job, Once, Session};
    let (minute, until) = (60_000, |grant: &Grant, desk: &Desk| grant.until.0 - desk.now.0);
    for (one, other, once, session, time) in [
        (Once, Job { minutes: 5 }, true, false, 600_000),
        (Session, Once, true, false, 600_000),
        (Job { minutes: 5 }, Job { minutes: 3 }, false, false, 3 * minute),
        (Session, Job { minutes: 3 }, false, true, 3 * minute),
        (Session, Session, false, true, 12 * 60 * minute),
    ] {
        let mut desk = Desk::new();
        let requirement = requirement(2);
        let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
        let id = waiter.approval();
        desk.says(&login("ann"), id, Says::Approve(one));
        assert!(is_approved(desk.says(&login("bob"), id, Says::Approve(other))));
        let grant = desk.store.grant(id).unwrap();
        assert_eq!((grant.once, grant.session.is_some()), (once, session), "{one:?} {other:?}");
        assert_eq!(until(grant, &desk), time, "{one:?} {other:?}");
        assert_eq!(grant.exact.is_some(), once);
    }
}

#[test]
fn a_session_that_nobody_waits_in_gives_once() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let waiter = desk.wait(&impatient(&requirement, bound("/x", 1)));
    desk.pass(10);
    let says = Says::Approve(Scope::Session);
    let Decided::Approved { once, .. } = desk.says(&login("ann"), waiter.approval(), says) else { panic!() };
    assert!(once);
}
