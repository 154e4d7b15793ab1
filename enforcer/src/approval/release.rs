//! A client that waits gets its answer, or goes.

use super::bound::Exact;
use super::ids::{UnixMs, WaiterId};
use super::journal::Log;
use super::record::{Cancel, Event, Standing};
use super::store::{ApprovalError, ApprovalStore};
use super::submit::Permit;
use super::visible::Shown;

/// Why a statement that waited does not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("a decider rejected it{}", said(reason.as_ref()))]
    Rejected { reason: Option<Shown> },
    #[error("nobody decided in time")]
    Expired,
    #[error("it was cancelled")]
    Cancelled(Cancel),
    #[error("the client cannot be held any longer; send the same request again once it is approved")]
    ComeAgain,
    #[error("the client cannot be held any longer")]
    HeldTooLong,
    #[error("the approval was for one statement, and another one has used it; ask again")]
    UsedUp,
    #[error("the bytes are not those that were held")]
    OtherBytes,
    #[error("nothing is known of this client")]
    Unknown,
}

fn said(reason: Option<&Shown>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// What a client that waits is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// These bytes may go out now, and never again.
    Release(Permit),
    Wait {
        until: UnixMs,
    },
    Denied(Denial),
}

impl<L: Log> ApprovalStore<L> {
    /// Asks for a client that waits, with the bytes that would go out. After any answer
    /// but `Wait` the client is no longer known here.
    pub fn take(&mut self, waiter: WaiterId, bytes: Exact, now: UnixMs) -> Result<Taken, ApprovalError> {
        let now = self.advance(now)?;
        let Some(waits) = self.state.waiters.get(&waiter).cloned() else {
            return Ok(Taken::Denied(Denial::Unknown));
        };
        let id = waiter.approval;
        let approval = self.state.approvals.get(&id);
        let standing = approval.map(|approval| &approval.standing);
        let retry = approval.is_some_and(|approval| approval.terms.retry_seconds.is_some());
        let denied = match standing {
            _ if !waits.turned_away && waits.exact != bytes => Some(Denial::OtherBytes),
            None => Some(Denial::Unknown),
            Some(Standing::Rejected { reason, .. }) => Some(Denial::Rejected { reason: reason.clone() }),
            Some(Standing::Cancelled(why)) => Some(Denial::Cancelled(*why)),
            Some(Standing::Expired) if waits.turned_away && !retry => Some(Denial::HeldTooLong),
            Some(Standing::Expired) => Some(Denial::Expired),
            Some(_) if waits.turned_away && retry => Some(Denial::ComeAgain),
            Some(_) if waits.turned_away => Some(Denial::HeldTooLong),
            Some(Standing::Pending) => return Ok(Taken::Wait { until: waits.hold_until }),
            Some(Standing::Approved(_)) => None,
        };
        if let Some(denial) = denied {
            self.gone(waiter, now)?;
            return Ok(Taken::Denied(denial));
        }
        let grant = self.state.grants.get(&id).filter(|grant| {
            grant.exact.is_none_or(|exact| exact == bytes)
                && grant.session.is_none_or(|session| session == waits.session)
        });
        let Some(once) = grant.map(|grant| grant.once) else {
            self.gone(waiter, now)?;
            return Ok(Taken::Denied(Denial::UsedUp));
        };
        self.commit(now, vec![Event::Used { id, exact: bytes }], once)?;
        self.state.waiters.remove(&waiter);
        Ok(Taken::Release(Permit::new(id, bytes)))
    }

    /// A client has gone; if nobody else waits, its question goes with it.
    pub fn gone(&mut self, waiter: WaiterId, now: UnixMs) -> Result<(), ApprovalError> {
        // Clients whose time is over are told so before one that leaves takes the question along.
        let now = self.advance(now)?;
        self.state.waiters.remove(&waiter);
        self.advance(now).map(drop)
    }
}
