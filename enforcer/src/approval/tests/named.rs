//! One case each, as it could happen.

use super::*;

#[test]
fn a_statement_goes_out_once_after_the_quorum_and_never_before() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert!(matches!(desk.take(waiter, bound), Taken::Wait { .. }));
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    assert!(matches!(desk.take(waiter, bound), Taken::Wait { .. }));
    assert!(desk.store.ready().is_empty());
    assert!(is_approved(desk.yes("bob", id)));
    assert_eq!(desk.store.ready(), [waiter]);
    assert_eq!(desk.released(waiter, bound), id);
    assert_eq!(desk.denied(waiter, bound), Denial::Unknown);
    assert!(desk.store.grant(id).is_none());
    // The very same again is another question.
    let again = desk.wait(&submission(&requirement, bound));
    assert_ne!(again.approval(), id);
}

#[test]
fn one_person_in_two_groups_counts_once() {
    let mut desk = Desk::new();
    let mut spec = spec(1);
    spec.stages[0].needs.push(Need { people: 1, groups: [Group::new("sec")].into() });
    let requirement = Requirement::new(spec).unwrap();
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert_eq!(desk.yes("cat", id), counted(1, 2));
    assert_eq!(desk.yes("cat", id), Decided::Repeated { have: 1, need: 2 });
    assert!(matches!(desk.take(waiter, bound), Taken::Wait { .. }));
    assert!(is_approved(desk.yes("ann", id)));
}

#[test]
fn two_identities_of_one_person_count_once() {
    let mut desk = Desk::new();
    for account in [forge("ann"), login("ann-at-home")] {
        desk.people.map(account.clone(), PersonId::new("ann")).unwrap();
        desk.people.set_groups(account, [Group::new("ops")]);
    }
    let requirement = requirement(2);
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    let id = waiter.approval();
    let yes = Says::Approve(Scope::Once);
    assert_eq!(desk.says(&login("ann"), id, yes), counted(1, 2));
    assert_eq!(desk.says(&forge("Ann"), id, yes), Decided::Repeated { have: 1, need: 2 });
    assert_eq!(desk.says(&login("ann-at-home"), id, yes), Decided::Repeated { have: 1, need: 2 });
    assert!(desk.standing(id).is_pending());
    // Two people who turn out to be one count as one when the next answers.
    let requirement = super::requirement(3);
    let waiter = desk.wait(&submission(&requirement, bound("/y", 1)));
    let id = waiter.approval();
    desk.people.set_groups(login("dan"), [Group::new("ops")]);
    desk.people.map(login("dan"), PersonId::new("dan")).unwrap();
    assert_eq!(desk.yes("dan", id), counted(1, 3));
    assert_eq!(desk.yes("bob", id), counted(2, 3));
    let mut merged = everybody();
    merged.set_groups(login("dan"), [Group::new("ops")]);
    merged.map(login("dan"), PersonId::new("bob")).unwrap();
    desk.people = merged;
    assert_eq!(desk.yes("ann", id), counted(2, 3));
}

#[test]
fn an_admin_on_their_own_job_counts_as_little_as_anybody() {
    let mut desk = Desk::new();
    desk.people = people(&[("actor", &["admins", "ops"]), ("ann", &["ops"])]);
    let requirement = requirement(1);
    let waiter = desk.wait(&submission(&requirement, bound("/x", 1)));
    let id = waiter.approval();
    let party = Decided::Ignored(Ignored::NotEligible(NotEligible::Party));
    for account in [login("actor"), forge("ACTOR")] {
        assert_eq!(desk.says(&account, id, Says::Approve(Scope::Once)), party);
        assert_eq!(desk.says(&account, id, Says::Reject), party);
    }
    // An admin who is in no group that is asked is nobody here.
    desk.people.map(login("root"), PersonId::new("root")).unwrap();
    desk.people.set_groups(login("root"), [Group::new("admins")]);
    let nobody = Decided::Ignored(Ignored::NotEligible(NotEligible::NoGroup));
    assert_eq!(desk.yes("root", id), nobody);
    assert!(desk.standing(id).is_pending());
    assert!(is_approved(desk.yes("ann", id)));
}

#[test]
fn the_author_of_the_commit_does_not_count() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let authors = [forge("Bob")];
    let s = Submission { authors: &authors, ..submission(&requirement, bound("/x", 1)) };
    let id = desk.wait(&s).approval();
    assert_eq!(desk.yes("bob", id), Decided::Ignored(Ignored::NotEligible(NotEligible::Party)));
    assert!(is_approved(desk.yes("ann", id)));
}

#[test]
fn of_two_approvals_at_the_same_instant_one_decides_and_one_is_late() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert!(is_approved(desk.yes("ann", id)));
    assert_eq!(desk.yes("bob", id), Decided::Ignored(Ignored::Late));
    desk.released(waiter, bound);
    assert_eq!(desk.yes("cat", id), Decided::Ignored(Ignored::Late));
    let tape = desk.log.tape();
    let count = |what: fn(&Event) -> bool| tape.events.iter().filter(|e| what(&e.event)).count();
    assert_eq!(count(|event| matches!(event, Event::Used { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Approved { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Ignored { why: Ignored::Late, .. })), 2);
}

#[test]
fn a_decider_who_loses_the_role_does_not_count() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    desk.people.set_groups(login("ann"), []);
    assert_eq!(desk.yes("bob", id), counted(1, 2));
    assert!(matches!(desk.take(waiter, bound), Taken::Wait { .. }));
    let gone = Decided::Ignored(Ignored::NotEligible(NotEligible::NoGroup));
    assert_eq!(desk.yes("ann", id), gone);
    assert!(is_approved(desk.yes("cat", id)));
    let Standing::Approved(Basis::Quorum { by }) = desk.standing(id) else { panic!() };
    assert_eq!(*by, [login("bob"), login("cat")]);
}

#[test]
fn an_answer_at_the_end_is_late_and_one_before_is_not() {
    for (early, want) in [(1, true), (0, false)] {
        let mut desk = Desk::new();
        let spec = RequirementSpec { open_seconds: 60, ..spec(1) };
        let requirement = Requirement::new(spec).unwrap();
        let bound = bound("/x", 1);
        let waiter = desk.wait(&submission(&requirement, bound));
        let id = waiter.approval();
        desk.pass(60);
        desk.now.0 -= early;
        let decided = desk.yes("ann", id);
        assert_eq!(is_approved(decided), want, "{decided:?}");
        if want {
            desk.released(waiter, bound);
        } else {
            assert_eq!(decided, Decided::Ignored(Ignored::Late));
            assert_eq!(*desk.standing(id), Standing::Expired);
            assert_eq!(desk.denied(waiter, bound), Denial::Expired);
        }
    }
}

#[test]
fn what_was_approved_in_time_still_does_not_go_out_after_the_end() {
    let mut desk = Desk::new();
    let requirement = Requirement::new(RequirementSpec { open_seconds: 60, ..spec(1) }).unwrap();
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    assert!(is_approved(desk.yes("ann", waiter.approval())));
    desk.pass(60);
    assert_eq!(desk.denied(waiter, bound), Denial::UsedUp);
}

#[test]
fn one_no_of_somebody_eligible_is_enough_and_a_stranger_s_is_nothing() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    let unmapped = Decided::Ignored(Ignored::NotEligible(NotEligible::Unmapped));
    assert_eq!(desk.says(&login("stranger"), id, Says::Reject), unmapped);
    assert_eq!(desk.says(&login("bob"), id, Says::Reject), Decided::Rejected);
    assert_eq!(desk.store.ready(), [waiter]);
    assert_eq!(desk.yes("cat", id), Decided::Ignored(Ignored::Late));
    assert_eq!(desk.denied(waiter, bound), Denial::Rejected { reason: None });
}

#[test]
fn nobody_waits_where_nobody_can_decide() {
    let mut desk = Desk::new();
    let three = requirement(3);
    desk.wait(&submission(&three, bound("/x", 1)));
    let four = requirement(4);
    let refusal = Refusal::NobodyCanDecide { possible: 3, needed: 4 };
    assert_eq!(desk.refused(&submission(&four, bound("/y", 1))), refusal);
    let stranger = login("stranger");
    let unknown = Refusal::Parties(NotEligible::PartyUnmapped);
    for actor in [None, Some(&stranger)] {
        let s = Submission { actor, ..submission(&three, bound("/y", 1)) };
        assert_eq!(desk.refused(&s), unknown);
    }
    let loose = Requirement::new(RequirementSpec { excludes_self: false, ..spec(3) }).unwrap();
    desk.wait(&Submission { actor: None, ..submission(&loose, bound("/y", 1)) });
    let facts = JobFacts { environment: Fact::Unknown, reference: Fact::Absent };
    let mut staged = spec(1);
    staged.stages[0].environment = Some("test".to_owned());
    let staged = Requirement::new(staged).unwrap();
    let s = Submission { facts, ..submission(&staged, bound("/z", 1)) };
    assert_eq!(desk.refused(&s), Refusal::NoStage(NoStage::Unknown));
}

#[test]
fn other_bytes_than_those_that_were_held_do_not_go_out() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let (held, other) = (bound("/x", 1), bound("/x", 2));
    let waiter = desk.wait(&submission(&requirement, held));
    assert!(is_approved(desk.yes("ann", waiter.approval())));
    assert_eq!(held.fingerprint(), other.fingerprint());
    assert_eq!(desk.denied(waiter, other), Denial::OtherBytes);
    // Who tried has lost it.
    assert_eq!(desk.denied(waiter, held), Denial::Unknown);
    assert!(desk.store.grant(waiter.approval()).is_none());
}

#[test]
fn when_the_client_goes_its_question_goes_too() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    desk.store.gone(waiter, desk.now).unwrap();
    assert_eq!(*desk.standing(waiter.approval()), Standing::Cancelled(Cancel::ClientGone));
    assert_eq!(desk.yes("ann", waiter.approval()), Decided::Ignored(Ignored::Late));
    // After the yes, too.
    let waiter = desk.wait(&submission(&requirement, bound));
    assert!(is_approved(desk.yes("ann", waiter.approval())));
    desk.store.gone(waiter, desk.now).unwrap();
    assert!(desk.store.grant(waiter.approval()).is_none());
    assert!(matches!(desk.submit(&submission(&requirement, bound)), Submitted::Wait { asked: true, .. }));
}

#[test]
fn when_the_job_ends_so_does_all_that_it_asked_and_got() {
    let mut desk = Desk::new();
    let (once, more) = (requirement(1), requirement(2));
    let waiter = desk.wait(&submission(&once, bound("/x", 1)));
    let got = desk.wait(&submission(&once, bound("/y", 1)));
    let scope = Says::Approve(Scope::Job { minutes: 5 });
    assert!(is_approved(desk.says(&login("ann"), got.approval(), scope)));
    let other = Submission { job: JobKey::new("other"), ..submission(&more, bound("/x", 1)) };
    let other = desk.wait(&other);
    desk.store.job_ended(&JobKey::new("job"), desk.now).unwrap();
    assert_eq!(desk.denied(waiter, bound("/x", 1)), Denial::Cancelled(Cancel::JobEnded));
    assert_eq!(desk.denied(got, bound("/y", 1)), Denial::UsedUp);
    assert!(desk.standing(other.approval()).is_pending());
}

#[test]
fn break_glass_stands_as_what_it_is_and_is_nobody_s_vote() {
    let mut desk = Desk::new();
    let requirement = requirement(2);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    assert_eq!(desk.yes("ann", id), counted(1, 2));
    let (by, reason) = (MaskedText::fixed("uid 0"), MaskedText::fixed("fire\nalarm"));
    let seen = desk.seen(id);
    let wrong = desk.store.break_glass(id, Seen::default(), &by, &reason, desk.now).unwrap();
    assert_eq!(wrong, Decided::Ignored(Ignored::Changed));
    assert!(is_approved(desk.store.break_glass(id, seen, &by, &reason, desk.now).unwrap()));
    let Standing::Approved(Basis::BreakGlass { reason, .. }) = desk.standing(id) else { panic!() };
    assert_eq!(reason.as_str(), "fire<U+000A>alarm");
    assert_eq!(desk.store.get(id).unwrap().votes.len(), 1);
    let late = desk.store.break_glass(id, seen, &by, &MaskedText::fixed("again"), desk.now).unwrap();
    assert_eq!(late, Decided::Ignored(Ignored::Late));
    desk.released(waiter, bound);
}

#[test]
fn who_has_seen_something_else_has_decided_nothing() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let one = desk.wait(&submission(&requirement, bound("/x", 1)));
    let other = desk.wait(&submission(&requirement, bound("/y", 1)));
    let by = login("ann");
    let seen = desk.seen(one.approval());
    let says = Says::Approve(Scope::Once);
    let answer = Answer { approval: other.approval(), seen, by: &by, says, reason: None };
    let decided = desk.store.decide(&answer, &desk.people, desk.now).unwrap();
    assert_eq!(decided, Decided::Ignored(Ignored::Changed));
    let answer = Answer { approval: ApprovalId(99), ..answer };
    assert_eq!(desk.store.decide(&answer, &desk.people, desk.now).unwrap(), Decided::Unknown);
}

#[test]
fn what_cannot_be_written_does_not_happen() {
    let mut desk = Desk::new();
    let requirement = requirement(1);
    let bound = bound("/x", 1);
    let waiter = desk.wait(&submission(&requirement, bound));
    let id = waiter.approval();
    let by = login("ann");
    let says = Says::Approve(Scope::Once);
    let answer = Answer { approval: id, seen: desk.seen(id), by: &by, says, reason: None };
    desk.log.tape().broken = true;
    assert!(desk.store.decide(&answer, &desk.people, desk.now).is_err());
    assert!(desk.standing(id).is_pending());
    assert!(
        desk.store.submit(&submission(&requirement, super::bound("/y", 1)), &desk.people, desk.now).is_err()
    );
    desk.log.tape().broken = false;
    assert!(is_approved(desk.yes("ann", id)));
    desk.log.tape().broken = true;
    assert!(desk.store.take(waiter, bound.exact(), desk.now).is_err());
    desk.log.tape().broken = false;
    desk.released(waiter, bound);
}
