//! A thread that is busy, and what it must hear of all the same.

use super::super::tests::{HELD, bound, everybody, login, requirement, session};
use super::super::told::ENDED;
use super::super::{Cancel, Standing};
use super::*;

/// A desk whose thread does nothing until it is let go.
struct Busy {
    desk: Desk,
    go: std::sync::mpsc::Sender<()>,
    _dir: tempfile::TempDir,
}

impl Busy {
    /// One question of each of these jobs is open; it is about a retry.
    async fn with(jobs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::open(dir.path(), everybody(), "boot").unwrap();
        for job in jobs {
            desk.submit(asked(job)).await.unwrap();
        }
        let (go, going) = std::sync::mpsc::channel();
        let (begin, begun) = std::sync::mpsc::channel();
        let busy = move |_: &mut Owner| {
            begin.send(()).unwrap();
            going.recv().unwrap_or_default();
        };
        desk.calls.as_ref().unwrap().send(Box::new(busy)).unwrap();
        // What it hears from here on it hears later.
        begun.recv().unwrap();
        Self { desk, go, _dir: dir }
    }

    /// As many calls as can wait.
    fn fill(&self) {
        let calls = self.desk.calls.as_ref().unwrap();
        while calls.try_send(Box::new(|_| {})).is_ok() {}
    }

    /// Lets the thread go on, and says what became of a job's question.
    async fn standing(self, job: &str) -> Standing {
        self.go.send(()).unwrap();
        let all = loop {
            match self.desk.list(true).await {
                Ok(all) => break all,
                Err(DeskError::Busy) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let of = |one: &&Listed| one.approval.job == JobKey::new(job);
        all.iter().find(of).unwrap().approval.standing.clone()
    }
}

fn asked(job: &str) -> Asked {
    let needed = crate::policy::RequirementSpec { hold_seconds: Some(0), ..super::super::tests::spec(1) };
    Asked {
        job: JobKey::new(job),
        rule: RuleKey::new("policy/rule"),
        session: session(1),
        bound: bound("/x", 1),
        class: Class::Patient,
        requirement: Arc::new(Requirement::new(needed).unwrap()),
        environment: Fact::Absent,
        reference: Fact::Absent,
        actor: Some(super::super::tests::ACTOR.clone()),
        authors: Vec::new(),
        held: HELD.clone(),
    }
}

const OVER: Standing = Standing::Cancelled(Cancel::JobEnded);

#[tokio::test]
async fn the_end_of_a_job_is_heard_by_a_thread_with_room_and_by_a_full_one() {
    for full in [false, true] {
        let busy = Busy::with(&["job", "other"]).await;
        if full {
            busy.fill();
        }
        busy.desk.job_ended(JobKey::new("job"));
        assert_eq!(busy.standing("job").await, OVER, "full: {full}");
        let busy = Busy::with(&["job", "other"]).await;
        if full {
            busy.fill();
        }
        busy.desk.job_ended(JobKey::new("job"));
        assert_eq!(busy.standing("other").await, Standing::Pending, "full: {full}");
    }
}

#[tokio::test]
async fn what_a_job_asked_before_its_end_is_over_even_if_the_thread_comes_to_it_later() {
    let busy = Busy::with(&[]).await;
    let desk = busy.desk.clone();
    let mut asking = std::pin::pin!(desk.submit(asked("job")));
    assert!(futures_util::poll!(asking.as_mut()).is_pending());
    busy.fill();
    busy.desk.job_ended(JobKey::new("job"));
    busy.go.send(()).unwrap();
    asking.await.unwrap();
    let over = async || busy.desk.list(true).await.is_ok_and(|all| all[0].approval.standing == OVER);
    while !over().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn more_ends_than_can_be_told_apart_end_everything_and_as_many_as_can_do_not() {
    for (ends, standing) in [(ENDED, Standing::Pending), (ENDED + 1, OVER)] {
        let busy = Busy::with(&["job"]).await;
        for number in 0..ends {
            busy.desk.job_ended(JobKey::new(&number.to_string()));
        }
        assert_eq!(busy.standing("job").await, standing);
    }
}

#[tokio::test]
async fn who_asks_and_leaves_before_the_answer_waits_for_nothing() {
    let busy = Busy::with(&[]).await;
    let waits = Asked { requirement: Arc::new(requirement(1)), ..asked("job") };
    {
        let mut asking = std::pin::pin!(busy.desk.submit(waits));
        assert!(futures_util::poll!(asking.as_mut()).is_pending());
    }
    busy.go.send(()).unwrap();
    let all = busy.desk.list(true).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].approval.standing, Standing::Cancelled(Cancel::ClientGone));
    let spoken = Spoken {
        approval: all[0].approval.id,
        seen: all[0].approval.seen,
        by: login("ann"),
        groups: vec![Group::new("ops")],
        scope: Some(Scope::Once),
        reason: None,
    };
    let late = Decided::Ignored(super::super::Ignored::Late);
    assert_eq!(busy.desk.decide(spoken).await.unwrap(), late);
}

#[tokio::test]
async fn after_a_restart_people_are_what_their_tokens_said_and_not_what_is_expected_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let needed = crate::policy::RequirementSpec { hold_seconds: Some(0), ..super::super::tests::spec(2) };
    let needed = Arc::new(Requirement::new(needed).unwrap());
    let desk = Desk::open(dir.path(), everybody(), "boot").unwrap();
    desk.submit(Asked { requirement: Arc::clone(&needed), ..asked("job") }).await.unwrap();
    let open = desk.list(false).await.unwrap().remove(0).approval;
    let spoken = |name: &str, groups: &[&str]| Spoken {
        approval: open.id,
        seen: open.seen,
        by: login(name),
        groups: groups.iter().map(|group| Group::new(group)).collect(),
        scope: Some(Scope::Once),
        reason: None,
    };
    let one = Decided::Counted { have: 1, need: 2 };
    assert_eq!(desk.decide(spoken("ann", &["ops"])).await.unwrap(), one);
    // As her login says by now; the configuration expects more.
    assert!(matches!(desk.decide(spoken("ann", &["web"])).await.unwrap(), Decided::Ignored(_)));
    // The next one waits for the journal until the thread of this one has ended.
    drop(desk);
    let desk = Desk::open(dir.path(), everybody(), "boot").unwrap();
    assert_eq!(desk.decide(spoken("bob", &["ops"])).await.unwrap(), one);
    assert!(matches!(desk.decide(spoken("cat", &["ops"])).await.unwrap(), Decided::Approved { .. }));
}
