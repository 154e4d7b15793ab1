//! How much may be asked of people, and kept.

use std::time::Duration;

/// Questions of one job that are open at the same time.
pub const PENDING_PER_JOB: usize = 8;
/// Questions of the whole host that are open at the same time.
pub const PENDING_PER_HOST: usize = 256;
/// The window for new questions.
pub const WINDOW: Duration = Duration::from_secs(600);
/// New questions of one job in a window.
pub const NEW_PER_JOB: usize = 20;
/// New questions of the whole host in a window.
pub const NEW_PER_HOST: usize = 400;
/// Clients that wait for one approval, with the same statement.
pub const WAITERS: usize = 16;
/// Grants of one job that are not used up.
pub const GRANTS_PER_JOB: usize = 64;
/// Grants of the whole host that are not used up.
pub const GRANTS_PER_HOST: usize = 4096;
/// Approvals that are remembered after their end, for those who ask or answer late.
pub const DECIDED_KEPT: usize = 500;
/// Answers that one approval keeps, by different logins; beyond, only those that bring it
/// nearer to its quorum.
pub const VOTES: usize = 64;
/// The longest that a grant for a session lasts, if the session does.
pub const SESSION_GRANT: Duration = Duration::from_secs(12 * 60 * 60);
/// How far the clock may have gone back over a restart without ending all grants.
pub const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// Why nobody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error("this job has {PENDING_PER_JOB} questions open")]
    JobPending,
    #[error("this host has {PENDING_PER_HOST} questions open")]
    HostPending,
    #[error("this job has asked {NEW_PER_JOB} questions in {} minutes", WINDOW.as_secs() / 60)]
    JobNew,
    #[error("this host has asked {NEW_PER_HOST} questions in {} minutes", WINDOW.as_secs() / 60)]
    HostNew,
    #[error("{WAITERS} clients wait with the same statement")]
    Waiters,
    #[error("this job has {GRANTS_PER_JOB} grants that are not used up")]
    JobGrants,
    #[error("this host has {GRANTS_PER_HOST} grants that are not used up")]
    HostGrants,
}
