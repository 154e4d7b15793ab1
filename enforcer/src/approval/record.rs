//! An approval, a grant, and the events that change them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bound::{Digest, Exact, Fingerprint};
use super::ids::{ApprovalId, JobKey, RuleKey, UnixMs};
use super::people::Account;
use super::quorum::NotEligible;
use super::terms::Terms;
use super::view::View;
use super::visible::Shown;
use crate::policy::{Group, Offers};
use crate::session::SessionId;

/// What an approval would let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applies {
    /// The exact bytes that wait. If the terms have a retry, then a retry of the same
    /// statement once the client cannot be held any longer.
    Waiting,
    /// A retry: the same statement by its fingerprint.
    Retry,
}

/// How far a decider lets a statement go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    Once,
    /// The same statement as often as it comes, as long as the session lasts.
    Session,
    /// The same statement as often as it comes in this job, for so many minutes.
    Job {
        minutes: u32,
    },
}

impl Scope {
    /// Whether the rule lets deciders go as far.
    pub fn within(self, offers: Offers) -> bool {
        match self {
            Scope::Once => true,
            Scope::Session => offers.session,
            Scope::Job { minutes } => minutes > 0 && offers.job_minutes.is_some_and(|most| minutes <= most),
        }
    }
}

/// One person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub at: UnixMs,
    pub by: Account,
    pub scope: Scope,
    pub reason: Option<Shown>,
    /// Those that the login had when it was last seen. A vote from a time when that was not
    /// written down counts for none.
    #[serde(default)]
    pub groups: BTreeSet<Group>,
}

/// By what an approval was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// By those whose yes counted when the decision fell.
    Quorum { by: Vec<Account> },
    /// By the host's root, past the quorum.
    BreakGlass { by: Shown, reason: Shown },
}

/// Why an approval was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cancel {
    ClientGone,
    JobEnded,
    /// The proxy began anew, and the client's connection ended with it.
    Restarted,
    /// The clock went back over a restart, so no end could be trusted.
    ClockWentBack,
}

/// Where an approval stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Pending,
    Approved(Basis),
    Rejected { by: Account, reason: Option<Shown> },
    Expired,
    Cancelled(Cancel),
}

impl Standing {
    pub fn is_pending(&self) -> bool {
        *self == Standing::Pending
    }
}

/// What a decider had before their eyes. An answer to something else is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(Digest);

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A held statement, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub id: ApprovalId,
    /// What an answer has to carry.
    pub seen: Seen,
    pub job: JobKey,
    pub rule: RuleKey,
    pub fingerprint: Fingerprint,
    /// The bytes that wait, or the last that waited.
    pub exact: Exact,
    /// The session of the client that waits, or of the last that waited.
    pub session: SessionId,
    pub terms: Arc<Terms>,
    pub view: Arc<View>,
    pub opened: UnixMs,
    pub expires: UnixMs,
    pub applies: Applies,
    pub votes: Vec<Vote>,
    pub standing: Standing,
    /// When it was decided, or ended.
    pub ended: Option<UnixMs>,
}

impl Approval {
    /// Whether a statement is the one that this is about.
    pub(super) fn is_for(
        &self,
        job: &JobKey,
        rule: &RuleKey,
        fingerprint: &Fingerprint,
        terms: &Terms,
    ) -> bool {
        self.fingerprint == *fingerprint && self.job == *job && self.rule == *rule && *self.terms == *terms
    }

    /// The number alone is not enough: a journal that was lost begins at 1 again.
    pub(super) fn shown_as(&self) -> Seen {
        Seen(Digest::of_fields(
            "seen",
            &[
                &self.id.0.to_le_bytes(),
                &self.opened.0.to_le_bytes(),
                self.job.as_str().as_bytes(),
                self.rule.as_str().as_bytes(),
                self.fingerprint.digest().as_bytes(),
                self.exact.digest().as_bytes(),
            ],
        ))
    }
}

/// What lets statements through. It has the number of the approval that it came of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub id: ApprovalId,
    pub job: JobKey,
    pub rule: RuleKey,
    pub fingerprint: Fingerprint,
    pub terms: Arc<Terms>,
    /// These bytes alone, from a client that waits for them.
    pub exact: Option<Exact>,
    /// Used up by the first statement.
    pub once: bool,
    /// In this session alone.
    pub session: Option<SessionId>,
    /// From here on it is void.
    pub until: UnixMs,
}

/// Why a grant is void before it was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lapse {
    Expired,
    ClientGone,
    SessionEnded,
    JobEnded,
    Restarted,
    ClockWentBack,
}

/// Why an answer changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ignored {
    /// It was decided or had ended.
    Late,
    /// Another statement has taken the place of the one that was seen.
    Changed,
    NotEligible(NotEligible),
    ScopeTooWide,
    TooManyVotes,
}

/// One change, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Opened(Box<Approval>),
    /// The client that waited is gone, and another one waits with bytes of its own; what
    /// people said to those before does not count.
    Rebound {
        id: ApprovalId,
        exact: Exact,
        session: SessionId,
    },
    /// The client was answered; from now on it is about a retry.
    Turned {
        id: ApprovalId,
    },
    Voted {
        id: ApprovalId,
        vote: Vote,
    },
    Approved {
        id: ApprovalId,
        basis: Basis,
        grant: Box<Grant>,
    },
    Rejected {
        id: ApprovalId,
        by: Account,
        reason: Option<Shown>,
    },
    Expired {
        id: ApprovalId,
    },
    Cancelled {
        id: ApprovalId,
        why: Cancel,
    },
    /// A grant let a statement through. It is written before that goes out.
    Used {
        id: ApprovalId,
        exact: Exact,
    },
    Lapsed {
        id: ApprovalId,
        why: Lapse,
    },
    Ignored {
        id: ApprovalId,
        by: Account,
        why: Ignored,
    },
    /// Somebody who has answered before has other groups now, in all that is open.
    Groups {
        by: Account,
        groups: BTreeSet<Group>,
    },
    /// How far numbers have come, at the beginning of a journal that was written anew.
    Numbers {
        next: u64,
    },
    /// An approval as it is when the journal is written anew.
    Kept(Box<Approval>),
    /// A grant as it is when the journal is written anew.
    KeptGrant(Box<Grant>),
}

/// An event and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    pub at: UnixMs,
    pub event: Event,
}
