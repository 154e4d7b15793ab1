//! People answer.

use super::ids::{ApprovalId, UnixMs};
use super::journal::Log;
use super::limits::{SESSION_GRANT, VOTES};
use super::people::{Account, People};
use super::quorum;
use super::record::{Applies, Approval, Basis, Event, Grant, Ignored, Scope, Seen, Vote};
use super::store::{ApprovalError, ApprovalStore};
use super::visible::Shown;
use crate::mask::MaskedText;
use crate::policy::Group;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a decider says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Approve(Scope),
    Reject,
}

/// One answer. The caller has verified that `by` gives it.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    pub approval: ApprovalId,
    /// What they had before their eyes.
    pub seen: Seen,
    pub by: &'a Account,
    pub says: Says,
    pub reason: Option<&'a MaskedText>,
}

/// What an answer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It was the last that was needed. This is how far the statement may go: as narrow as
    /// the narrowest that any of them said.
    Approved {
        once: bool,
        until: UnixMs,
    },
    /// It counts; so many places of those that are needed are taken.
    Counted {
        have: usize,
        need: usize,
    },
    /// The same person has said so before, by this login or another.
    Repeated {
        have: usize,
        need: usize,
    },
    Rejected,
    /// It changed nothing, and stands in the journal.
    Ignored(Ignored),
    /// There is no such approval, or it was forgotten.
    Unknown,
}

impl<L: Log> ApprovalStore<L> {
    /// Who may decide is looked at now, for everybody who has answered so far.
    pub fn decide(
        &mut self,
        answer: &Answer<'_>,
        people: &People,
        now: UnixMs,
    ) -> Result<Decided, ApprovalError> {
        let now = self.advance(now)?;
        let id = answer.approval;
        let groups: BTreeSet<Group> = people.groups(answer.by).cloned().collect();
        let votes = |approval: &Approval| {
            approval.votes.iter().any(|vote| vote.by == *answer.by && vote.groups != groups)
        };
        if self.pending().any(votes) {
            // What they have said before counts by what they are now, also after a restart.
            let event = Event::Groups { by: answer.by.clone(), groups: groups.clone() };
            self.commit(now, vec![event], true)?;
        }
        let Some(approval) = self.state.approvals.get(&id) else { return Ok(Decided::Unknown) };
        if let Some(why) = not_taken(approval, answer, people) {
            let by = answer.by.clone();
            self.commit(now, vec![Event::Ignored { id, by, why }], false)?;
            return Ok(Decided::Ignored(why));
        }
        let (by, reason) = (answer.by.clone(), answer.reason.map(Shown::line));
        let scope = match answer.says {
            Says::Reject => {
                self.commit(now, vec![Event::Rejected { id, by, reason }], true)?;
                return Ok(Decided::Rejected);
            }
            Says::Approve(scope) => scope,
        };
        let voter = people.voter(answer.by);
        let repeated = standing(approval, people).any(|vote| people.voter(&vote.by) == voter);
        let before = quorum::places(&approval.terms, people, approval.votes.iter().map(|vote| &vote.by));
        let mut asked = approval.clone();
        let vote = Vote { at: now, by, scope, reason, groups };
        asked.votes.retain(|other| other.by != vote.by);
        asked.votes.push(vote.clone());
        let votes: Vec<&Vote> = standing(&asked, people).collect();
        let logins = votes.iter().map(|vote| &vote.by);
        let (have, need) = (quorum::places(&asked.terms, people, logins.clone()), asked.terms.quorum());
        if asked.votes.len() > VOTES && have <= before {
            let why = Ignored::TooManyVotes;
            self.commit(now, vec![Event::Ignored { id, by: vote.by, why }], false)?;
            return Ok(Decided::Ignored(why));
        }
        if have < need {
            self.commit(now, vec![Event::Voted { id, vote }], false)?;
            return Ok(if repeated {
                Decided::Repeated { have, need }
            } else {
                Decided::Counted { have, need }
            });
        }
        let basis = Basis::Quorum { by: logins.cloned().collect() };
        let scopes: Vec<Scope> = votes.iter().map(|vote| vote.scope).collect();
        self.approve(&asked, vec![Event::Voted { id, vote }], basis, &scopes, now)
    }

    /// The host's root lets a statement go, once. That stands in the journal as what it is,
    /// and is nobody's vote. The caller has verified that it is root, outside of any job.
    pub fn break_glass(
        &mut self,
        id: ApprovalId,
        seen: Seen,
        by: &MaskedText,
        reason: &MaskedText,
        now: UnixMs,
    ) -> Result<Decided, ApprovalError> {
        let now = self.advance(now)?;
        let Some(approval) = self.state.approvals.get(&id).cloned() else { return Ok(Decided::Unknown) };
        if !approval.standing.is_pending() {
            return Ok(Decided::Ignored(Ignored::Late));
        }
        if approval.seen != seen {
            return Ok(Decided::Ignored(Ignored::Changed));
        }
        let basis = Basis::BreakGlass { by: Shown::line(by), reason: Shown::line(reason) };
        self.approve(&approval, Vec::new(), basis, &[Scope::Once], now)
    }

    fn approve(
        &mut self,
        approval: &Approval,
        mut events: Vec<Event>,
        basis: Basis,
        scopes: &[Scope],
        now: UnixMs,
    ) -> Result<Decided, ApprovalError> {
        let grant = self.granted(approval, scopes, now);
        let (once, until) = (grant.once, grant.until);
        events.push(Event::Approved { id: approval.id, basis, grant: Box::new(grant) });
        self.commit(now, events, true)?;
        Ok(Decided::Approved { once, until })
    }

    /// What all of them agree to. A session that nobody waits in any more gives no more
    /// than once.
    fn granted(&self, approval: &Approval, scopes: &[Scope], now: UnixMs) -> Grant {
        let waits = approval.applies == Applies::Waiting;
        let in_session = scopes.contains(&Scope::Session);
        let session = self.state.waiting(approval.id);
        let session = session
            .map(|(_, waiter)| waiter)
            .find(|waiter| !waits || waiter.exact == approval.exact)
            .map(|waiter| waiter.session);
        let minutes = scopes.iter().filter_map(|scope| match scope {
            Scope::Job { minutes } => Some(*minutes),
            Scope::Once | Scope::Session => None,
        });
        let once = scopes.contains(&Scope::Once) || scopes.is_empty() || in_session && session.is_none();
        let until = match (once, minutes.min()) {
            (true, _) if waits => approval.expires,
            (true, _) => approval.terms.retry().map_or(approval.expires, |retry| now.after(retry)),
            (false, Some(minutes)) => now.after(Duration::from_secs(60 * u64::from(minutes))),
            (false, None) => now.after(SESSION_GRANT),
        };
        Grant {
            id: approval.id,
            job: approval.job.clone(),
            rule: approval.rule.clone(),
            fingerprint: approval.fingerprint,
            terms: approval.terms.clone(),
            exact: (once && waits).then_some(approval.exact),
            once,
            session: if once || !in_session { None } else { session },
            until,
        }
    }
}

/// The answers that count now.
fn standing<'a>(approval: &'a Approval, people: &'a People) -> impl Iterator<Item = &'a Vote> {
    approval.votes.iter().filter(|vote| quorum::standing(&approval.terms, people, &vote.by).is_ok())
}

/// Why an answer changes nothing.
fn not_taken(approval: &Approval, answer: &Answer<'_>, people: &People) -> Option<Ignored> {
    if !approval.standing.is_pending() {
        return Some(Ignored::Late);
    }
    if approval.seen != answer.seen {
        return Some(Ignored::Changed);
    }
    if let Err(why) = quorum::standing(&approval.terms, people, answer.by) {
        return Some(Ignored::NotEligible(why));
    }
    let Says::Approve(scope) = answer.says else { return None };
    (!scope.within(approval.terms.offers)).then_some(Ignored::ScopeTooWide)
}
