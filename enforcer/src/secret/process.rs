//! Memory that nobody else reads: what a process that holds secrets does first.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump, and no look into this process by another one of its user: the
/// signer and the proxy run as the same user, and the proxy may be taken over.
///
/// Before any secret is read, since the state does not survive exec.
pub fn close_to_others() -> std::io::Result<()> {
    not_traceable()?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// No look into this process by another one of its user, by ptrace(2) or /proc.
pub fn not_traceable() -> std::io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Keeps all memory that is touched from now on out of swap.
///
/// It needs `RLIMIT_MEMLOCK`, which the loader raises where it may: the caller
/// says in the log when it could not be had, and goes on.
pub fn never_swapped() -> std::io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}
