//! Held statements against named cases, a model, and cuts of the journal.

mod flood;
mod grants;
mod lines;
mod model;
mod named;
mod restart;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;

use super::state::State;
use super::*;
use crate::mask::MaskedText;
use crate::policy::{Fact, Group, HoldStage, JobFacts, Need, NoStage, Offers, Requirement, RequirementSpec};
use crate::session::SessionId;

/// A log in memory, which a test can cut and break.
#[derive(Debug, Clone, Default)]
pub struct Memory(Rc<RefCell<Tape>>);

#[derive(Debug, Default)]
pub struct Tape {
    pub events: Vec<Stamped>,
    /// So many of them are on disk.
    pub synced: usize,
    pub broken: bool,
}

impl Memory {
    pub fn tape(&self) -> std::cell::RefMut<'_, Tape> {
        self.0.borrow_mut()
    }

    /// What a process finds that begins after a crash which left so many events.
    pub fn reopen(&self, kept: usize, now: UnixMs) -> ApprovalStore<Memory> {
        let events: Vec<Stamped> = self.tape().events.iter().take(kept).cloned().collect();
        let log = Memory::default();
        log.tape().synced = events.len();
        log.tape().events = events.clone();
        let mut state = State::default();
        events.into_iter().for_each(|event| state.apply(event).unwrap());
        ApprovalStore::resume(log, state, now).unwrap()
    }
}

impl Log for Memory {
    fn append(&mut self, events: &[Stamped], durable: bool) -> Result<(), JournalError> {
        let mut tape = self.tape();
        if tape.broken {
            return Err(JournalError::Unwritable { cause: "broken".to_owned() });
        }
        tape.events.extend_from_slice(events);
        if durable {
            tape.synced = tape.events.len();
        }
        Ok(())
    }

    fn rewrite_due(&self) -> Option<Rewrite> {
        None
    }

    fn rewrite(&mut self, events: &[Stamped]) -> Result<(), JournalError> {
        let mut tape = self.tape();
        tape.events = events.to_vec();
        tape.synced = events.len();
        Ok(())
    }
}

pub fn login(name: &str) -> Account {
    Account::subject("https://idp.test", name)
}

pub fn forge(name: &str) -> Account {
    Account::forge("forge.test", name)
}

/// Everybody has a login at the forge and one at the identity provider, which has the groups.
pub fn people(list: &[(&str, &[&str])]) -> People {
    let mut people = People::default();
    for (name, groups) in list {
        people.map(forge(name), PersonId::new(name)).unwrap();
        people.map(login(name), PersonId::new(name)).unwrap();
        people.set_groups(login(name), groups.iter().map(|group| Group::new(group)));
    }
    people
}

/// An actor, and three who may decide.
pub fn everybody() -> People {
    people(&[("actor", &["ops"]), ("ann", &["ops"]), ("bob", &["ops"]), ("cat", &["ops", "sec"])])
}

pub fn spec(people: usize) -> RequirementSpec {
    let needs = vec![Need { people, groups: [Group::new("ops")].into() }];
    RequirementSpec {
        stages: vec![HoldStage { environment: None, reference: None, needs }],
        excludes_self: true,
        open_seconds: 600,
        hold_seconds: None,
        retry_seconds: Some(900),
        keep_alive: false,
        offers: Offers { session: true, job_minutes: Some(30) },
    }
}

pub fn requirement(people: usize) -> Requirement {
    Requirement::new(spec(people)).unwrap()
}

pub fn session(number: u8) -> SessionId {
    format!("00000000-0000-7000-8000-0000000000{number:02x}").parse().unwrap()
}

/// The same statement, with another date for each attempt.
pub fn bound(statement: &str, attempt: u32) -> Bound {
    let date = attempt.to_string();
    let headers: &[(&str, &[u8])] = &[("date", date.as_bytes())];
    Bound::request(&Request {
        method: "POST",
        scheme: "https",
        authority: "a.test",
        path_and_query: statement,
        headers,
        body: Digest::of([b"body".as_slice()]),
    })
}

pub static ACTOR: LazyLock<Account> = LazyLock::new(|| forge("actor"));
pub static HELD: LazyLock<Held> = LazyLock::new(|| Held {
    host: MaskedText::fixed("a.test"),
    statement: MaskedText::fixed("POST /"),
    ..Held::default()
});

pub fn submission<'a>(requirement: &'a Requirement, bound: Bound) -> Submission<'a> {
    Submission {
        job: JobKey::new("job"),
        rule: RuleKey::new("policy/rule"),
        session: session(1),
        bound,
        class: Class::Patient,
        requirement,
        facts: JobFacts { environment: Fact::Absent, reference: Fact::Absent },
        actor: Some(&ACTOR),
        authors: &[],
        held: &HELD,
    }
}

/// A store with what the named cases do to it.
pub struct Desk {
    pub store: ApprovalStore<Memory>,
    pub log: Memory,
    pub people: People,
    pub now: UnixMs,
}

impl Desk {
    pub fn new() -> Self {
        let log = Memory::default();
        let now = UnixMs(1_000_000);
        let store = ApprovalStore::resume(log.clone(), State::default(), now).unwrap();
        Self { store, log, people: everybody(), now }
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(std::time::Duration::from_secs(seconds));
    }

    pub fn submit(&mut self, submission: &Submission<'_>) -> Submitted {
        self.store.submit(submission, &self.people, self.now).unwrap()
    }

    /// A client that waits.
    pub fn wait(&mut self, submission: &Submission<'_>) -> WaiterId {
        match self.submit(submission) {
            Submitted::Wait { waiter, .. } => waiter,
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(&mut self, submission: &Submission<'_>) -> Refusal {
        match self.submit(submission) {
            Submitted::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub fn seen(&self, id: ApprovalId) -> Seen {
        self.store.get(id).unwrap().seen
    }

    pub fn standing(&self, id: ApprovalId) -> &Standing {
        &self.store.get(id).unwrap().standing
    }

    pub fn says(&mut self, by: &Account, id: ApprovalId, says: Says) -> Decided {
        let seen = self.seen(id);
        let answer = Answer { approval: id, seen, by, says, reason: None };
        self.store.decide(&answer, &self.people, self.now).unwrap()
    }

    pub fn yes(&mut self, name: &str, id: ApprovalId) -> Decided {
        self.says(&login(name), id, Says::Approve(Scope::Once))
    }

    pub fn take(&mut self, waiter: WaiterId, bound: Bound) -> Taken {
        self.store.take(waiter, bound.exact(), self.now).unwrap()
    }

    pub fn denied(&mut self, waiter: WaiterId, bound: Bound) -> Denial {
        match self.take(waiter, bound) {
            Taken::Denied(denial) => denial,
            other => panic!("{other:?}"),
        }
    }

    pub fn released(&mut self, waiter: WaiterId, bound: Bound) -> ApprovalId {
        match self.take(waiter, bound) {
            Taken::Release(permit) => {
                assert_eq!(permit.exact(), bound.exact());
                permit.approval()
            }
            other => panic!("{other:?}"),
        }
    }

    /// As after a crash that left everything that was written.
    pub fn restart(&mut self) {
        let kept = self.log.tape().events.len();
        self.store = self.log.reopen(kept, self.now);
        self.log = self.store.log.clone();
    }
}

pub fn counted(have: usize, need: usize) -> Decided {
    Decided::Counted { have, need }
}

pub fn is_approved(decided: Decided) -> bool {
    matches!(decided, Decided::Approved { .. })
}
