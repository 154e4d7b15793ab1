//! The owner of the state: what time changes, and how an event takes effect.

use std::path::Path;

use super::ids::{ApprovalId, JobKey, UnixMs, WaiterId};
use super::journal::{JOURNAL_NAME, Journal, JournalError, Log, Rewrite};
use super::limits::{CLOCK_SLACK, WINDOW};
use super::people::People;
use super::record::{Applies, Approval, Cancel, Event, Grant, Lapse, Stamped, Vote};
use super::state::{Impossible, State};
use crate::session::SessionId;

/// Why nothing could be done. Nothing has changed then, and nothing may go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("internal error of the approvals: {0}; restart the service and report it")]
    Internal(#[from] Impossible),
}

/// All held statements of a host. One task owns it; every call says what time it is, and
/// that does not go back while the process lives. A call can wait for the disk.
#[derive(Debug)]
pub struct ApprovalStore<L = Journal> {
    pub(super) state: State,
    pub(super) log: L,
    ready: Vec<WaiterId>,
    news: Vec<Approval>,
}

impl ApprovalStore {
    /// Opens the journal in a folder. Who waited before is gone, and is not approved.
    pub fn open(dir: &Path, now: UnixMs) -> Result<Self, ApprovalError> {
        let (log, events) = Journal::open(dir)?;
        let mut state = State::default();
        for (line, event) in events.into_iter().enumerate() {
            let what = "its event does not follow from those before";
            let path = dir.join(JOURNAL_NAME);
            state.apply(event).map_err(|_| JournalError::Damaged { path, line: line + 2, what })?;
        }
        Self::resume(log, state, now)
    }
}

impl<L: Log> ApprovalStore<L> {
    /// Goes on with what a log says.
    pub(super) fn resume(log: L, state: State, now: UnixMs) -> Result<Self, ApprovalError> {
        let mut store = Self { state, log, ready: Vec::new(), news: Vec::new() };
        let went_back = now.after(CLOCK_SLACK) < store.state.latest;
        let at = now.max(store.state.latest);
        let why = |waits: bool| match (went_back, waits) {
            (true, _) => Some((Cancel::ClockWentBack, Lapse::ClockWentBack)),
            (false, true) => Some((Cancel::Restarted, Lapse::Restarted)),
            (false, false) => None,
        };
        let pending = store.pending().filter_map(|approval| {
            let (why, _) = why(approval.applies == Applies::Waiting)?;
            Some(Event::Cancelled { id: approval.id, why })
        });
        let grants = store.state.grants.values().filter_map(|grant| {
            let (_, why) = why(grant.exact.is_some() || grant.session.is_some())?;
            Some(Event::Lapsed { id: grant.id, why })
        });
        let events = pending.chain(grants).collect();
        store.commit(at, events, true)?;
        if went_back {
            // Nothing that could end is left, so time can begin anew.
            store.state.latest = now;
            store.state.opened.clear();
            store.log.rewrite(&store.state.snapshot())?;
        }
        store.advance(now)?;
        Ok(store)
    }

    /// Lets time pass; the earliest moment at which it has to pass again is `deadline`.
    pub fn tick(&mut self, now: UnixMs) -> Result<(), ApprovalError> {
        self.advance(now).map(drop)
    }

    /// When something ends next.
    pub fn deadline(&self) -> Option<UnixMs> {
        let pending = self.pending().map(|approval| approval.expires);
        let grants = self.state.grants.values().map(|grant| grant.until);
        let waiters = self.state.waiters.values().filter(|waiter| !waiter.turned_away);
        pending.chain(grants).chain(waiters.map(|waiter| waiter.hold_until)).min()
    }

    /// Clients for whom `take` has an answer since the last time.
    pub fn ready(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.ready)
    }

    /// Approvals that people are asked for since the last time, or that have ended since then, as they
    /// were at that moment.
    pub fn news(&mut self) -> Vec<Approval> {
        std::mem::take(&mut self.news)
    }

    pub fn get(&self, id: ApprovalId) -> Option<&Approval> {
        self.state.approvals.get(&id)
    }

    /// The grant that came of an approval, while it can be used.
    pub fn grant(&self, id: ApprovalId) -> Option<&Grant> {
        self.state.grants.get(&id)
    }

    /// All that are remembered, oldest first.
    pub fn list(&self) -> impl Iterator<Item = &Approval> {
        self.state.approvals.values()
    }

    pub fn pending(&self) -> impl Iterator<Item = &Approval> {
        self.state.pending.iter().filter_map(|id| self.state.approvals.get(id))
    }

    /// Whoever has a vote in an open question is in the groups that their last token said,
    /// whatever else is expected of them.
    pub fn remember_groups(&self, people: &mut People) {
        let mut votes: Vec<&Vote> = self.pending().flat_map(|approval| &approval.votes).collect();
        votes.sort_by_key(|vote| vote.at);
        for vote in votes {
            people.set_groups(vote.by.clone(), vote.groups.iter().cloned());
        }
    }

    /// How many clients wait for an approval.
    pub fn waiting(&self, id: ApprovalId) -> usize {
        self.state.waiting(id).count()
    }

    /// A job is over: nobody can ask in its name any more.
    pub fn job_ended(&mut self, job: &JobKey, now: UnixMs) -> Result<(), ApprovalError> {
        self.jobs_ended(|its| its == job, now)
    }

    /// So much is over that nobody can say what: nothing that is open is anybody's any more.
    pub fn all_ended(&mut self, now: UnixMs) -> Result<(), ApprovalError> {
        self.jobs_ended(|_| true, now)
    }

    fn jobs_ended(&mut self, over: impl Fn(&JobKey) -> bool, now: UnixMs) -> Result<(), ApprovalError> {
        let now = self.advance(now)?;
        let pending = self.pending().filter(|approval| over(&approval.job));
        let pending = pending.map(|approval| Event::Cancelled { id: approval.id, why: Cancel::JobEnded });
        let grants = self.state.grants.values().filter(|grant| over(&grant.job));
        let grants = grants.map(|grant| Event::Lapsed { id: grant.id, why: Lapse::JobEnded });
        let events = pending.chain(grants).collect();
        self.commit(now, events, true)
    }

    /// A session is over, and with it what was granted for it.
    pub fn session_ended(&mut self, session: SessionId, now: UnixMs) -> Result<(), ApprovalError> {
        let now = self.advance(now)?;
        let grants = self.state.grants.values().filter(|grant| grant.session == Some(session));
        let events = grants.map(|grant| Event::Lapsed { id: grant.id, why: Lapse::SessionEnded }).collect();
        self.commit(now, events, false)
    }

    /// Writes events, and then lets them take effect.
    pub(super) fn commit(
        &mut self,
        at: UnixMs,
        events: Vec<Event>,
        durable: bool,
    ) -> Result<(), ApprovalError> {
        if events.is_empty() {
            return Ok(());
        }
        match self.log.rewrite_due() {
            None => {}
            Some(Rewrite::Lost) => self.log.rewrite(&self.state.snapshot())?,
            Some(Rewrite::Large) => {
                if let Err(error) = self.log.rewrite(&self.state.snapshot()) {
                    tracing::warn!(%error, "the journal of the approvals is not written anew");
                }
            }
        }
        let stamped: Vec<Stamped> = events.into_iter().map(|event| Stamped { at, event }).collect();
        self.log.append(&stamped, durable)?;
        for event in stamped {
            let ended = ends(&event.event);
            let opened = if let Event::Opened(approval) = &event.event { Some(approval.id) } else { None };
            self.state.apply(event)?;
            self.news.extend(ended.or(opened).and_then(|id| self.state.approvals.get(&id)).cloned());
            if let Some(id) = ended {
                self.ready.extend(self.state.waiting(id).map(|(waiter, _)| waiter));
            }
        }
        Ok(())
    }

    /// Ends what is over by now. Says the time, which never goes back.
    pub(super) fn advance(&mut self, now: UnixMs) -> Result<UnixMs, ApprovalError> {
        let now = now.max(self.state.latest);
        self.state.latest = now;
        self.turn_away(now);
        while self.state.opened.front().is_some_and(|(at, _)| at.after(WINDOW) <= now) {
            self.state.opened.pop_front();
        }
        let pending = self.pending().filter_map(|approval| self.settled(approval, now));
        let grants = self.state.grants.values().filter_map(|grant| self.lapsed(grant, now));
        let events = pending.chain(grants).collect();
        self.commit(now, events, false)?;
        Ok(now)
    }

    /// Clients that cannot be held any longer are told to come again, come what may.
    fn turn_away(&mut self, now: UnixMs) {
        for (id, waiter) in &mut self.state.waiters {
            if waiter.hold_until <= now && !waiter.turned_away && self.state.pending.contains(&id.approval) {
                waiter.turned_away = true;
                self.ready.push(*id);
            }
        }
    }

    /// What time and the clients that are left make of an open question.
    fn settled(&self, approval: &Approval, now: UnixMs) -> Option<Event> {
        let id = approval.id;
        if approval.expires <= now {
            return Some(Event::Expired { id });
        }
        if approval.applies == Applies::Retry {
            return None;
        }
        let all = |waiter: &WaiterId| waiter.approval == id;
        let turned_away = self.state.waiters.iter().any(|(waiter, state)| all(waiter) && state.turned_away);
        if turned_away && approval.terms.retry_seconds.is_some() {
            return Some(Event::Turned { id });
        }
        let mut waiting = self.state.waiting(id).map(|(_, waiter)| waiter);
        let Some(first) = waiting.next() else {
            return Some(if turned_away {
                Event::Expired { id }
            } else {
                Event::Cancelled { id, why: Cancel::ClientGone }
            });
        };
        if first.exact == approval.exact || waiting.any(|waiter| waiter.exact == approval.exact) {
            return None;
        }
        Some(Event::Rebound { id, exact: first.exact, session: first.session })
    }

    fn lapsed(&self, grant: &Grant, now: UnixMs) -> Option<Event> {
        if grant.until <= now {
            return Some(Event::Lapsed { id: grant.id, why: Lapse::Expired });
        }
        let exact = grant.exact?;
        let waits = self.state.waiting(grant.id).any(|(_, waiter)| waiter.exact == exact);
        (!waits).then_some(Event::Lapsed { id: grant.id, why: Lapse::ClientGone })
    }
}

/// The approval that an event ends.
fn ends(event: &Event) -> Option<ApprovalId> {
    match event {
        Event::Approved { id, .. }
        | Event::Rejected { id, .. }
        | Event::Expired { id }
        | Event::Cancelled { id, .. } => Some(*id),
        _ => None,
    }
}
