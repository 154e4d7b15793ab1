//! A statement is held: whether it passes by a grant, waits, or is denied at once.

use std::sync::Arc;

use super::bound::{Bound, Exact};
use super::client::Class;
use super::ids::{ApprovalId, JobKey, RuleKey, UnixMs, WaiterId};
use super::journal::Log;
use super::limits::{
    Flood, GRANTS_PER_HOST, GRANTS_PER_JOB, NEW_PER_HOST, NEW_PER_JOB, PENDING_PER_HOST, PENDING_PER_JOB,
    WAITERS,
};
use super::people::{Account, People};
use super::quorum::{self, NotEligible};
use super::record::{Applies, Approval, Event, Grant, Seen, Standing};
use super::state::Waiter;
use super::store::{ApprovalError, ApprovalStore};
use super::terms::Terms;
use super::view::{Held, View};
use crate::policy::{JobFacts, NoStage, Requirement};
use crate::session::SessionId;

/// A statement that policy holds.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    pub job: JobKey,
    pub rule: RuleKey,
    pub session: SessionId,
    pub bound: Bound,
    /// How long the client waits.
    pub class: Class,
    pub requirement: &'a Requirement,
    pub facts: JobFacts<'a>,
    /// Who started the job, if a verified token says so.
    pub actor: Option<&'a Account>,
    /// Who wrote the commit, if that is known.
    pub authors: &'a [Account],
    pub held: &'a Held,
}

/// Leave to send one statement, once. Only this module makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the approval is used up"]
pub struct Permit {
    approval: ApprovalId,
    exact: Exact,
}

impl Permit {
    pub(super) fn new(approval: ApprovalId, exact: Exact) -> Self {
        Self { approval, exact }
    }

    /// The approval that it came of.
    pub fn approval(&self) -> ApprovalId {
        self.approval
    }

    /// The bytes that may go out.
    pub fn exact(&self) -> Exact {
        self.exact
    }
}

/// Why a held statement is denied at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    NoStage(#[from] NoStage),
    #[error("nobody can be shown to be somebody else: {0}")]
    Parties(NotEligible),
    #[error("{needed} people would have to agree, and at most {possible} can")]
    NobodyCanDecide { possible: usize, needed: usize },
    #[error(transparent)]
    Flood(#[from] Flood),
}

/// What becomes of a held statement.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A grant covers it.
    Pass(Permit),
    /// It waits. `asked`: people are asked anew; else the question was open already.
    Wait {
        waiter: WaiterId,
        until: UnixMs,
        asked: bool,
    },
    /// It is denied, and a retry passes once people have agreed.
    Later {
        approval: ApprovalId,
    },
    Refused(Refusal),
}

impl<L: Log> ApprovalStore<L> {
    pub fn submit(
        &mut self,
        submission: &Submission<'_>,
        people: &People,
        now: UnixMs,
    ) -> Result<Submitted, ApprovalError> {
        let now = self.advance(now)?;
        let s = submission;
        let terms = match Terms::of(s.requirement, s.facts, s.actor, s.authors) {
            Ok(terms) => terms,
            Err(none) => return Ok(Submitted::Refused(none.into())),
        };
        if let Some(grant) = self.covering(s, &terms) {
            let (id, once, exact) = (grant.id, grant.once, s.bound.exact());
            self.commit(now, vec![Event::Used { id, exact }], once)?;
            return Ok(Submitted::Pass(Permit::new(id, exact)));
        }
        if let Err(refusal) = decidable(&terms, people) {
            return Ok(Submitted::Refused(refusal));
        }
        let fingerprint = s.bound.fingerprint();
        let same = |open: &Approval| open.is_for(&s.job, &s.rule, &fingerprint, &terms);
        if let Some(open) = self.state.question(same) {
            let (id, expires) = (open.id, open.expires);
            if self.state.waiting(id).count() >= WAITERS {
                return Ok(Submitted::Refused(Flood::Waiters.into()));
            }
            return Ok(self.wait(s, id, expires, now, false));
        }
        if let Some(flood) = self.flood(&s.job) {
            return Ok(Submitted::Refused(flood.into()));
        }
        let approval = self.question(s, terms, now);
        let (id, expires) = (approval.id, approval.expires);
        self.commit(now, vec![Event::Opened(Box::new(approval))], false)?;
        Ok(self.wait(s, id, expires, now, true))
    }

    /// A grant for this very statement that does not belong to a client that waits.
    fn covering(&self, s: &Submission<'_>, terms: &Terms) -> Option<&Grant> {
        self.state.grants.values().find(|grant| {
            grant.fingerprint == s.bound.fingerprint()
                && grant.job == s.job
                && grant.rule == s.rule
                && *grant.terms == *terms
                && grant.exact.is_none()
                && grant.session.is_none_or(|session| session == s.session)
        })
    }

    fn flood(&self, job: &JobKey) -> Option<Flood> {
        let state = &self.state;
        let pending = self.pending().filter(|approval| approval.job == *job).count();
        let new = state.opened.iter().filter(|(_, by)| by == job).count();
        let grants = state.grants.values().filter(|grant| grant.job == *job).count();
        // A question can become a grant.
        [
            (pending >= PENDING_PER_JOB, Flood::JobPending),
            (state.pending.len() >= PENDING_PER_HOST, Flood::HostPending),
            (new >= NEW_PER_JOB, Flood::JobNew),
            (state.opened.len() >= NEW_PER_HOST, Flood::HostNew),
            (pending + grants >= GRANTS_PER_JOB, Flood::JobGrants),
            (state.pending.len() + state.grants.len() >= GRANTS_PER_HOST, Flood::HostGrants),
        ]
        .into_iter()
        .find_map(|(over, flood)| over.then_some(flood))
    }

    fn question(&self, s: &Submission<'_>, terms: Terms, now: UnixMs) -> Approval {
        let waits = !s.class.hold_under(s.requirement.hold()).is_zero();
        let mut approval = Approval {
            id: ApprovalId(self.state.next_approval),
            seen: Seen::default(),
            job: s.job.clone(),
            rule: s.rule.clone(),
            fingerprint: s.bound.fingerprint(),
            exact: s.bound.exact(),
            session: s.session,
            terms: Arc::new(terms),
            view: Arc::new(View::new(s.held)),
            opened: now,
            expires: now.after(s.requirement.open()),
            applies: if waits { Applies::Waiting } else { Applies::Retry },
            votes: Vec::new(),
            standing: Standing::Pending,
            ended: None,
        };
        approval.seen = approval.shown_as();
        approval
    }

    fn wait(
        &mut self,
        s: &Submission<'_>,
        id: ApprovalId,
        expires: UnixMs,
        now: UnixMs,
        asked: bool,
    ) -> Submitted {
        let hold = s.class.hold_under(s.requirement.hold());
        if hold.is_zero() {
            return Submitted::Later { approval: id };
        }
        let until = now.after(hold).min(expires);
        let waiter = WaiterId { approval: id, number: self.state.next_waiter };
        self.state.next_waiter += 1;
        let state =
            Waiter { exact: s.bound.exact(), session: s.session, hold_until: until, turned_away: false };
        self.state.waiters.insert(waiter, state);
        Submitted::Wait { waiter, until, asked }
    }
}

/// Whether enough people could agree, if all of them did.
fn decidable(terms: &Terms, people: &People) -> Result<(), Refusal> {
    quorum::parties_are_known(terms, people).map_err(Refusal::Parties)?;
    let (possible, needed) = (quorum::places(terms, people, people.accounts()), terms.quorum());
    if possible < needed { Err(Refusal::NobodyCanDecide { possible, needed }) } else { Ok(()) }
}
