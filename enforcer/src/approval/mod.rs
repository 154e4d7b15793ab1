//! Held statements: who has to agree, and the one release that follows.
//!
//! ```text
//!                       the people of the quorum, or root past it (recorded as that)
//!            +---------------------------------------------------------------> approved
//!            |          one eligible decider                                     |
//!            +---------------------------------------------------------------> rejected
//!            |          time: nobody decided, or the client cannot be held and
//!            |          the rule lets no retry pass                              |
//!         pending ------------------------------------------------------------> expired
//!          ^ |  |       the client that waits (it is gone), the job (it ended),
//!          | |  |       a restart (the connection ended with the process)        |
//!          | |  +-------------------------------------------------------------> cancelled
//!          +-+
//!       a vote; another client takes the place of one that is gone (votes fall, what was
//!       seen is another thing); the client is answered and it is about a retry from then on
//!
//!       approved --> grant --> used       by the first statement (scope `once`)
//!                          --> lapsed     time, the client, the session, the job, a restart
//! ```
//!
//! What applies to whom: an approval of a request that **waits** is bound to the SHA-256 of
//! its bytes, and `take` compares those that would go out. When the client cannot be held
//! any longer it is answered, and the approval is about a **retry**: the same statement of
//! the same job under the same rule and terms, by a fingerprint without what changes from one
//! attempt to the next. A decider sees both from the beginning (`Approval::applies` and its
//! terms), so a vote for the first holds for the second. An answer carries what was `seen`; if
//! another client's bytes have taken the place, it is ignored.
//!
//! Identical statements of a job wait for one approval. With scope `once` the first that
//! asks goes out and the others are denied, since each would need an approval of its own.
//!
//! **Invariants**: nothing changes before it is in the journal; a yes, a no and the use of a
//! grant for one statement are on disk before anybody is told. Time comes in with each
//! call, and nobody here reads a clock. Who may decide is looked at when the decision
//! falls. A journal that cannot be read, or not be written, releases nothing.
//!
//! Calls are synchronous and can wait for an fsync: one task owns the store, on a thread
//! that may block.

mod bound;
mod client;
pub mod config;
mod decide;
mod desk;
pub mod forge;
mod ids;
mod journal;
pub mod limits;
mod people;
mod quorum;
mod record;
mod release;
mod state;
mod store;
mod submit;
mod terms;
mod told;
mod view;
mod visible;
pub mod webhook;

#[cfg(test)]
mod tests;

pub use bound::{Bound, Digest, Exact, Fingerprint, Request, VOLATILE, VOLATILE_FAMILIES, is_volatile};
pub use client::Class;
pub use decide::{Answer, Decided, Says};
pub use desk::{Asked, Desk, DeskError, Listed, Reception, Spoken, Turn};
pub use ids::{ApprovalId, JobKey, NotAnApproval, RuleKey, UnixMs, WaiterId};
pub use journal::{JOURNAL_NAME, Journal, JournalError, Log, Rewrite};
pub use people::{Account, People, PersonId, TwoPeople, Voter};
pub use quorum::NotEligible;
pub use record::{
    Applies, Approval, Basis, Cancel, Event, Grant, Ignored, Lapse, Scope, Seen, Stamped, Standing, Vote,
};
pub use release::{Denial, Taken};
pub use state::Impossible;
pub use store::{ApprovalError, ApprovalStore};
pub use submit::{Permit, Refusal, Submission, Submitted};
pub use terms::Terms;
pub use view::{Held, View};
pub use visible::{LINE_MAX, MARKS_MAX, Shown, TEXT_MAX, host, visible};
