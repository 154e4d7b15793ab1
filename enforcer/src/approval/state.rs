//! All approvals and grants, and the one place that changes them.
//!
//! What survives a restart is changed by `apply` alone, from events that are in the
//! journal by then, so that reading the journal gives the same state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bound::Exact;
use super::ids::{ApprovalId, JobKey, UnixMs, WaiterId};
use super::limits::{DECIDED_KEPT, WINDOW};
use super::record::{Applies, Approval, Event, Grant, Stamped, Standing};
use crate::session::SessionId;

/// A client that waits. It is in memory only: its connection ends with the process.
#[derive(Debug, Clone)]
pub struct Waiter {
    pub exact: Exact,
    pub session: SessionId,
    pub hold_until: UnixMs,
    /// It was told to come again, whatever happens later.
    pub turned_away: bool,
}

/// An event that cannot follow from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event that does not follow from those before")]
pub struct Impossible;

#[derive(Debug, Default)]
pub struct State {
    /// No later event has an earlier time.
    pub latest: UnixMs,
    pub next_approval: u64,
    pub next_waiter: u64,
    pub approvals: BTreeMap<ApprovalId, Approval>,
    pub pending: BTreeSet<ApprovalId>,
    ended: VecDeque<ApprovalId>,
    pub grants: BTreeMap<ApprovalId, Grant>,
    pub waiters: BTreeMap<WaiterId, Waiter>,
    /// New questions of the last window.
    pub opened: VecDeque<(UnixMs, JobKey)>,
}

impl State {
    pub fn apply(&mut self, stamped: Stamped) -> Result<(), Impossible> {
        let Stamped { at, event } = stamped;
        if at < self.latest {
            return Err(Impossible);
        }
        self.latest = at;
        match event {
            Event::Opened(approval) => {
                if !approval.standing.is_pending() || approval.id.0 < self.next_approval {
                    return Err(Impossible);
                }
                self.keep(*approval)
            }
            Event::Rebound { id, exact, session } => {
                let approval = self.pending(id)?;
                approval.exact = exact;
                approval.session = session;
                approval.votes.clear();
                approval.seen = approval.shown_as();
                Ok(())
            }
            Event::Turned { id } => {
                self.pending(id)?.applies = Applies::Retry;
                Ok(())
            }
            Event::Voted { id, vote } => {
                let approval = self.pending(id)?;
                approval.votes.retain(|other| other.by != vote.by);
                approval.votes.push(vote);
                Ok(())
            }
            Event::Approved { id, basis, grant } => {
                if grant.id != id {
                    return Err(Impossible);
                }
                self.end(id, at, Standing::Approved(basis))?;
                self.grants.insert(id, *grant);
                Ok(())
            }
            Event::Rejected { id, by, reason } => self.end(id, at, Standing::Rejected { by, reason }),
            Event::Expired { id } => self.end(id, at, Standing::Expired),
            Event::Cancelled { id, why } => self.end(id, at, Standing::Cancelled(why)),
            Event::Used { id, .. } => {
                let grant = self.grants.get(&id).ok_or(Impossible)?;
                if grant.once {
                    self.grants.remove(&id);
                }
                Ok(())
            }
            Event::Lapsed { id, .. } => self.grants.remove(&id).map(drop).ok_or(Impossible),
            Event::Ignored { .. } => Ok(()),
            Event::Groups { by, groups } => {
                for id in &self.pending {
                    let votes = self.approvals.get_mut(id).map(|approval| &mut approval.votes);
                    for vote in votes.into_iter().flatten().filter(|vote| vote.by == by) {
                        vote.groups = groups.clone();
                    }
                }
                Ok(())
            }
            Event::Numbers { next } => {
                self.next_approval = self.next_approval.max(next);
                Ok(())
            }
            Event::Kept(approval) => self.keep(*approval),
            Event::KeptGrant(grant) => {
                self.grants.insert(grant.id, *grant).map_or(Ok(()), |_| Err(Impossible))
            }
        }
    }

    fn keep(&mut self, approval: Approval) -> Result<(), Impossible> {
        let (id, ended) = (approval.id, approval.ended);
        self.next_approval = self.next_approval.max(id.0.saturating_add(1));
        if approval.opened.after(WINDOW) > self.latest {
            self.opened.push_back((approval.opened, approval.job.clone()));
        }
        match (approval.standing.is_pending(), ended) {
            (true, None) => drop(self.pending.insert(id)),
            (false, Some(_)) => self.ended.push_back(id),
            _ => return Err(Impossible),
        }
        self.approvals.insert(id, approval).map_or(Ok(()), |_| Err(Impossible))
    }

    fn pending(&mut self, id: ApprovalId) -> Result<&mut Approval, Impossible> {
        self.approvals.get_mut(&id).filter(|approval| approval.standing.is_pending()).ok_or(Impossible)
    }

    fn end(&mut self, id: ApprovalId, at: UnixMs, standing: Standing) -> Result<(), Impossible> {
        let approval = self.pending(id)?;
        approval.standing = standing;
        approval.ended = Some(at);
        self.pending.remove(&id);
        self.ended.push_back(id);
        while self.ended.len() > DECIDED_KEPT {
            if let Some(oldest) = self.ended.pop_front() {
                self.approvals.remove(&oldest);
            }
        }
        Ok(())
    }

    /// All that a restart has to know, as events.
    pub fn snapshot(&self) -> Vec<Stamped> {
        let mut events = vec![Event::Numbers { next: self.next_approval }];
        let ended = self.ended.iter().chain(&self.pending);
        let approvals = ended.filter_map(|id| self.approvals.get(id));
        events.extend(approvals.map(|approval| Event::Kept(Box::new(approval.clone()))));
        events.extend(self.grants.values().map(|grant| Event::KeptGrant(Box::new(grant.clone()))));
        events.into_iter().map(|event| Stamped { at: self.latest, event }).collect()
    }

    /// The clients that wait for an approval, those who have waited longest first.
    pub fn waiting(&self, id: ApprovalId) -> impl Iterator<Item = (WaiterId, &Waiter)> {
        let from = WaiterId { approval: id, number: 0 };
        let to = WaiterId { approval: id, number: u64::MAX };
        let all = self.waiters.range(from..=to).map(|(id, waiter)| (*id, waiter));
        all.filter(|(_, waiter)| !waiter.turned_away)
    }

    /// The open question about the same statement of the same job, under the same terms.
    pub fn question(&self, same: impl Fn(&Approval) -> bool) -> Option<&Approval> {
        self.pending.iter().filter_map(|id| self.approvals.get(id)).find(|approval| same(approval))
    }
}
