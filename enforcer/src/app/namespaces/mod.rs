//! Network namespaces of tagged processes, beside the one in which the service runs.
//!
//! ```text
//!                     the first connect is refused           nobody tagged is in it
//!     not served ──────────────────────────────────▶ served ────────────────────────▶ not served
//!         │  ▲        listeners are opened inside     │  ▲       listeners are closed
//!         ▼  │ after a while                          ▼  │ opened again
//!       failed (no place, ports taken)              the proxy is gone
//! ```
//!
//! One thread waits for the kernel's refusals. The first connect of a tagged process in
//! a namespace without listeners is refused and says so there; a moment later they are
//! open. The proxy alone holds them: a listener keeps a namespace, and what its
//! interfaces are connected to, alive, so that those of one without tagged processes are
//! closed within two seconds.
//!
//! **Invariant**: the cookie of the namespace that was entered is the one that the kernel
//! named. Whatever a process number means by then, no other namespace is served for it.

mod find;
mod guarded;
mod interfaces;
mod table;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::kernel::{KernelError, Refusal, netns_cookie};
use crate::workload::wire::{Refused, ToProxy};

use super::children::TICK;
use super::daemon::{Daemon, lock};
use find::{Depth, Search, User};
use interfaces::Guard;
pub(super) use table::Table;
use table::{Full, Served};

/// How often it is looked whether namespaces are still in use.
const LOOK: Duration = Duration::from_millis(500);
/// What the kernel says of a connect in a namespace without listeners.
const NOT_SERVED: &str = "netns-not-served";

/// Why a namespace is not served; the connect was refused by the kernel before.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error("no process of the workload is in it any more, or only its sockets are")]
    Gone,
    #[error("somebody in it has port {0}: end that, or set other ports in [listen]")]
    PortsTaken(u16),
    #[error("{0}")]
    Full(Full),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl Unserved {
    fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "netns-gone",
            Self::PortsTaken(_) => "netns-ports-taken",
            Self::Full(_) => "netns-limit",
            Self::Failed(_) => "netns-failed",
        }
    }
}

impl Daemon {
    /// Waits for refusals and serves the namespaces that they name, by a thread of its own.
    pub(super) fn watch_namespaces(self: &Arc<Self>) -> Result<()> {
        let readable = lock(&self.refusals).as_fd().try_clone_to_owned()?;
        let guard = Guard::start(self)?;
        let daemon = Arc::clone(self);
        std::thread::Builder::new().name("refusals".to_owned()).spawn(move || {
            let mut looked = Instant::now();
            while !daemon.stop.load(Ordering::Acquire) {
                // What is refused while there is no proxy waits for the one that will write
                // it down.
                let open = lock(&daemon.namespaces).is_open();
                let left = if open { LOOK.saturating_sub(looked.elapsed()) } else { TICK };
                let mut fds = vec![PollFd::new(guard.as_fd(), PollFlags::POLLIN)];
                if open {
                    fds.push(PollFd::new(readable.as_fd(), PollFlags::POLLIN));
                }
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                if let Err(error) = poll(&mut fds, left)
                    && error != nix::errno::Errno::EINTR
                {
                    tracing::error!(%error, "refusals are looked for every {} ms only", LOOK.as_millis());
                    std::thread::sleep(LOOK);
                }
                guard.look(&daemon, looked.elapsed() >= LOOK);
                daemon.forward_refusals();
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    daemon.look_after_namespaces();
                }
            }
        })?;
        Ok(())
    }

    /// Serves the network namespace of a tagged process before it connects anywhere, and
    /// returns the namespace's cookie. What is served already stays as it is.
    pub fn serve_namespace_of(&self, pid: u32) -> Result<u64> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process has this number")?;
        let process = pidfd_open(number, PidfdFlags::empty()).context("no such process")?;
        let tag = self.with_kernel(|kernel| kernel.tag_of_process(pid))?;
        let tag = tag.context("the process is in no tagged cgroup")?;
        let netns = File::open(find::namespace_file(pid)).context("its network namespace")?;
        // Whoever has not ended had its number all the time.
        let ended = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)?;
        ensure!(ended == 0, "the process has ended");
        let cookie = netns_cookie(&netns)?;
        let mut table = lock(&self.namespaces);
        ensure!(table.is_open(), "no proxy runs that could serve it");
        if !table.is_served(cookie) {
            self.serve(&mut table, cookie, tag, netns)?;
        }
        Ok(cookie)
    }

    /// A new proxy serves what the one before it served, as far as somebody is there.
    pub(super) fn serve_again(&self, home: u64) -> Result<()> {
        let mut table = lock(&self.namespaces);
        table.start(home, find::own_inode()?);
        let mut before: HashSet<u64> = self
            .with_kernel(|kernel| kernel.served())?
            .into_iter()
            .filter(|cookie| *cookie != home)
            .collect();
        if !before.is_empty() {
            for (netns, tag) in find::opened(self.tagged_cgroups()) {
                let Ok(cookie) = netns_cookie(&netns) else { continue };
                if before.remove(&cookie)
                    && let Err(error) = self.serve(&mut table, cookie, tag, netns)
                {
                    tracing::warn!(cookie, "a network namespace is not served again: {error}");
                    self.with_kernel(|kernel| kernel.forget_netns(cookie))?;
                }
            }
        }
        for cookie in before {
            self.with_kernel(|kernel| kernel.forget_netns(cookie))?;
        }
        Ok(())
    }

    /// Without a proxy nothing is opened: who connects is refused.
    pub(super) fn serve_nobody(&self) {
        lock(&self.namespaces).stop();
    }

    /// Reads what the kernel refused: namespaces that are needed are served, and the
    /// proxy writes all of it down.
    pub(super) fn forward_refusals(&self) {
        let mut reader = lock(&self.refusals);
        if !lock(&self.namespaces).is_open() {
            return;
        }
        let refusals = reader.read();
        for refusal in refusals.iter().filter(|it| it.reason == NOT_SERVED && it.tag != 0) {
            self.serve_refused(refusal);
        }
        for refusal in refusals {
            if self.stuck.load(Ordering::Acquire) {
                // None of them is waited for once more.
                break;
            }
            self.say(&ToProxy::Refused(Box::new(refused(refusal))));
        }
    }

    fn serve_refused(&self, refusal: &Refusal) {
        let cookie = refusal.netns;
        let mut table = lock(&self.namespaces);
        let now = Instant::now();
        if !table.is_open() || table.is_served(cookie) || !table.is_due(cookie, now) {
            return;
        }
        let served = match table.room(refusal.tag) {
            Err(full) => Err(Unserved::Full(full)),
            Ok(()) => match self.namespace_of(refusal, &table) {
                Some(netns) => self.serve(&mut table, cookie, refusal.tag, netns),
                None => Err(Unserved::Gone),
            },
        };
        match served {
            Ok(()) => {
                let micros = u64::try_from(now.elapsed().as_micros()).unwrap_or(u64::MAX);
                tracing::info!(cookie, pid = refusal.pid, micros, "a network namespace is served");
            }
            Err(why) => {
                let again = table.failed(cookie, now);
                drop(table);
                tracing::warn!(cookie, pid = refusal.pid, ?again, "a network namespace is not served: {why}");
                let mut told = refused(refusal.clone());
                told.hook = "loader".to_owned();
                told.reason = why.reason().to_owned();
                self.say(&ToProxy::Refused(Box::new(told)));
            }
        }
    }

    /// The namespace that a refusal names: that of the process, of one of its threads, or
    /// of others of the workload. A process that was refused is often gone by now.
    fn namespace_of(&self, refusal: &Refusal, table: &Table) -> Option<File> {
        let mut search = Search::new(refusal.netns, table.inodes());
        let mut look = |path: PathBuf| search.look(&path);
        if let Some(found) = find::files_of(refusal.pid, Depth::Threads).find_map(&mut look) {
            return Some(found);
        }
        let workload = self.tagged_cgroups().into_iter().filter(|(tag, _)| *tag == refusal.tag);
        let pids = find::processes(workload.map(|(_, path)| path));
        pids.into_iter().flat_map(|pid| find::files_of(pid, Depth::Leaders)).find_map(look)
    }

    /// Opens the listeners inside and gives them to the proxy.
    fn serve(&self, table: &mut Table, cookie: u64, tag: u64, netns: File) -> Result<(), Unserved> {
        let failed = |error: anyhow::Error| match error.downcast_ref::<KernelError>() {
            Some(KernelError::Listen { port, source }) if source.kind() == std::io::ErrorKind::AddrInUse => {
                Unserved::PortsTaken(*port)
            }
            _ => Unserved::Failed(error),
        };
        table.room(tag).map_err(Unserved::Full)?;
        let inode = find::inode(&netns).map_err(|error| Unserved::Failed(error.into()))?;
        self.hand_over(cookie, &netns).map_err(failed)?;
        self.guard_interfaces(cookie, &netns);
        table.guarded.add(inode, cookie, tag);
        table.insert(cookie, Served::new(inode, tag));
        Ok(())
    }

    fn hand_over(&self, cookie: u64, netns: &File) -> Result<()> {
        let listeners = self.listeners(cookie, Some(netns))?;
        let opened = listeners.netns;
        let handed = if opened == cookie {
            let fds: [OwnedFd; 4] = listeners.into_fds()?;
            self.tell(&ToProxy::Listeners { netns: cookie }, &fds.each_ref().map(AsFd::as_fd))
        } else {
            // A file of a namespace stays that of one namespace.
            Err(anyhow::anyhow!("it is namespace {opened}, not {cookie}"))
        };
        if handed.is_err() {
            self.with_kernel(|kernel| kernel.forget_netns(opened))?;
        }
        handed
    }

    /// What leads out of the namespaces that somebody is in is looked at always; what
    /// listens there, while there is a proxy.
    fn look_after_namespaces(&self) {
        let mut table = lock(&self.namespaces);
        let cgroups = self.tagged_cgroups();
        let mut used = find::in_use(&cgroups, Depth::Leaders);
        if !table.all_in(&used) {
            used = find::in_use(&cgroups, Depth::Threads);
        }
        if table.is_open() {
            self.look_after_listeners(&mut table, &used);
        }
        self.look_after_interfaces(&mut table.guarded, &used);
    }

    /// Closes the listeners of namespaces in which nobody tagged is, and serves those that
    /// somebody is in, also if they have not connected anywhere yet.
    fn look_after_listeners(&self, table: &mut Table, used: &HashMap<u64, User>) {
        table.forget_failures(Instant::now());
        let tags = used.iter().map(|(inode, user)| (*inode, user.tag)).collect();
        for cookie in table.unused(&tags) {
            if let Err(error) = self.with_kernel(|kernel| kernel.forget_netns(cookie)) {
                tracing::warn!(%error, cookie, "a network namespace that nobody is in stays known");
            }
            self.say(&ToProxy::ListenersGone { netns: cookie });
            tracing::info!(cookie, "nobody tagged is in a network namespace: its listeners are closed");
        }
        let known = table.inodes();
        for (inode, user) in used.iter().filter(|(inode, _)| !known.contains(inode)) {
            self.serve_at_sight(table, *inode, user);
        }
    }

    fn serve_at_sight(&self, table: &mut Table, inode: u64, user: &User) {
        if table.room(user.tag).is_err() {
            return;
        }
        let Some(netns) = user.open(inode) else { return };
        let Ok(cookie) = netns_cookie(&netns) else { return };
        let now = Instant::now();
        if table.is_served(cookie) || !table.is_due(cookie, now) {
            return;
        }
        if let Err(why) = self.serve(table, cookie, user.tag, netns) {
            let again = table.failed(cookie, now);
            tracing::warn!(cookie, ?again, "a network namespace is not served: {why}");
        }
    }

    /// Of all workloads that are enforced, with their tags.
    fn tagged_cgroups(&self) -> Vec<(u64, PathBuf)> {
        let lifted: HashSet<u64> = lock(&self.lifted).keys().copied().collect();
        let place = |path: &str| self.mount().join(path.trim_start_matches('/'));
        let workloads = lock(&self.workloads);
        let enforced = workloads.values().filter(|it| !lifted.contains(&it.tag));
        enforced.map(|it| (it.tag, place(&it.cgroup_path))).collect()
    }

    /// For `enforcer status`: how many are served, by workload.
    pub(super) fn served_namespaces(&self) -> HashMap<u64, usize> {
        lock(&self.namespaces).by_tag()
    }
}

fn refused(refusal: Refusal) -> Refused {
    Refused {
        at_unix_ms: refusal.at_unix_ms,
        tag: refusal.tag,
        pid: refusal.pid,
        comm: refusal.comm,
        hook: refusal.hook.to_owned(),
        reason: refusal.reason.to_owned(),
        family: refusal.family,
        protocol: refusal.protocol,
        destination: refusal.destination,
        detail: refusal.detail,
        suppressed: refusal.suppressed,
    }
}
