//! The interfaces of the service's own namespace, and of those that are served.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::config::Tc;
use super::super::daemon::Daemon;
use super::Table;
use super::find::{self, User};
use crate::kernel::{Cables, LinkChanges, own_netns_cookie};

/// Puts the program on every interface of the host as soon as it appears.
pub struct Guard {
    changes: LinkChanges,
    home: u64,
}

impl Guard {
    pub fn start(daemon: &Daemon) -> Result<Self> {
        // First the changes, then what is there: none is missed.
        let changes = LinkChanges::open().context("waiting for changes of interfaces")?;
        let guard = Self { changes, home: own_netns_cookie()? };
        if daemon.config.kernel.tc == Tc::Off {
            // What an earlier loader left.
            daemon.with_kernel(|kernel| kernel.guard_only(&[]))?;
            return Ok(guard);
        }
        guard.all(daemon);
        match daemon.with_kernel(|kernel| Ok(kernel.guarded_interfaces()))? {
            Ok(many) => tracing::info!(many, "interfaces are guarded against AF_PACKET of tagged processes"),
            Err(why) => tracing::warn!("nothing on interfaces stops AF_PACKET of tagged processes: {why}"),
        }
        Ok(guard)
    }

    /// To be called when this is readable; and `in_any_case` now and then, since somebody
    /// may have detached what was there.
    pub fn look(&self, daemon: &Daemon, in_any_case: bool) {
        if self.changes.any() || in_any_case {
            self.all(daemon);
        }
    }

    fn all(&self, daemon: &Daemon) {
        if daemon.config.kernel.tc == Tc::Auto
            && let Err(error) = daemon.with_kernel(|kernel| kernel.guard_interfaces(self.home, None))
        {
            tracing::error!("the host's interfaces are not all guarded: {error:#}");
        }
    }
}

impl AsFd for Guard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

impl Daemon {
    /// In a namespace that is served. What comes later is seen at the next look.
    pub(super) fn guard_interfaces(&self, cookie: u64, netns: &File) {
        if self.config.kernel.tc == Tc::Auto
            && let Err(error) = self.with_kernel(|kernel| kernel.guard_interfaces(cookie, Some(netns)))
        {
            tracing::error!(cookie, "the interfaces of a network namespace are not all guarded: {error:#}");
        }
    }

    /// For `enforcer status`: how many have the program, or why none has.
    pub(in super::super) fn guarded_interfaces(&self) -> Result<Value> {
        if self.config.kernel.tc == Tc::Off {
            return Ok(json!({ "guarded": 0, "problem": "switched off: [kernel] tc" }));
        }
        let state = self.with_kernel(|kernel| Ok(kernel.guarded_interfaces()))?;
        Ok(state.map_or_else(
            |why| json!({ "guarded": 0, "problem": why }),
            |many| json!({ "guarded": many, "problem": null }),
        ))
    }

    /// Interfaces come and go, and so does who is in a namespace.
    pub(super) fn look_after_interfaces(&self, table: &mut Table, used: &HashMap<u64, User>) {
        if self.config.kernel.tc == Tc::Off || table.is_empty() {
            return;
        }
        let cables = match Cables::list() {
            Ok(cables) => cables,
            Err(error) => return tracing::error!(%error, "the host's interfaces cannot be listed"),
        };
        let mut ends = HashMap::new();
        for (cookie, inode) in table.next_to_guard(Instant::now()) {
            let Some(netns) = used.get(&inode).and_then(|user| user.open(inode)) else { continue };
            self.guard_interfaces(cookie, &netns);
            match cables.leading_into(&netns) {
                Ok(found) => drop(ends.insert(inode, (cookie, found))),
                Err(error) => tracing::error!(%error, cookie, "its cables are not known"),
            }
        }
        let with_cables = ends.iter().filter(|(_, (_, ends))| !ends.is_empty());
        let shared = self.shared_with_others(with_cables.map(|(inode, _)| *inode).collect());
        for (inode, (cookie, ends)) in ends {
            let ends = if shared.contains(&inode) { &[][..] } else { &ends };
            if let Err(error) = self.with_kernel(|kernel| kernel.wall_off(cookie, ends)) {
                tracing::error!(cookie, "what leaves a network namespace is not dropped here: {error:#}");
            }
        }
    }

    /// Those of these namespaces in which somebody is who is not tagged: they may leave
    /// by the interfaces. Who is not known counts as one of them.
    fn shared_with_others(&self, inodes: HashSet<u64>) -> HashSet<u64> {
        if inodes.is_empty() {
            return inodes;
        }
        let is_tagged =
            |pid| self.with_kernel(|kernel| kernel.tag_of_process(pid)).is_ok_and(|it| it.is_some());
        let others = find::everybody_in(&inodes).into_iter().filter(|(pid, inode)| {
            // One that has ended has no tag any more, and is nobody.
            !is_tagged(*pid)
                && std::fs::metadata(find::namespace_file(*pid)).is_ok_and(|it| {
                    use std::os::unix::fs::MetadataExt;
                    it.ino() == *inode
                })
        });
        others.map(|(_, inode)| inode).collect()
    }
}
