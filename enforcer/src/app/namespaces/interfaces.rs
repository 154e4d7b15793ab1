//! The interfaces of the service's own namespace, and of those that are served.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::daemon::{Daemon, lock};
use super::find::{self, User};
use super::guarded::Guarded;
use crate::kernel::{Cables, LinkChanges, Tc, netns_cookie, netns_forwards, own_netns_cookie};

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
        if daemon.config.kernel.tc != Tc::Off
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
        if self.config.kernel.tc != Tc::Off
            && let Err(error) = self.with_kernel(|kernel| kernel.guard_interfaces(cookie, Some(netns)))
        {
            tracing::error!(cookie, "the interfaces of a network namespace are not all guarded: {error:#}");
        }
    }

    /// For `enforcer status`: how many have the program, or why none has, and how many
    /// namespaces have a wall.
    pub(in super::super) fn guarded_interfaces(&self) -> Result<Value> {
        let walled = lock(&self.namespaces).guarded.walled();
        if self.config.kernel.tc == Tc::Off {
            return Ok(json!({ "guarded": 0, "walled": 0, "problem": "switched off: [kernel] tc" }));
        }
        let state = self.with_kernel(|kernel| Ok(kernel.guarded_interfaces()))?;
        Ok(state.map_or_else(
            |why| json!({ "guarded": 0, "walled": 0, "problem": why }),
            |many| json!({ "guarded": many, "walled": walled, "problem": null }),
        ))
    }

    /// Interfaces come and go, and so does who is in a namespace.
    pub(super) fn look_after_interfaces(&self, guarded: &mut Guarded, used: &HashMap<u64, User>) {
        if self.config.kernel.tc == Tc::Off {
            return;
        }
        if let Err(error) = self.know_namespaces(guarded, used) {
            tracing::error!("what was made for a network namespace stays: {error:#}");
        }
        if guarded.is_empty() {
            return;
        }
        let cables = match Cables::list() {
            Ok(cables) => cables,
            Err(error) => return tracing::error!(%error, "the host's interfaces cannot be listed"),
        };
        let mut exits = HashMap::new();
        for (cookie, inode) in guarded.next(Instant::now()) {
            let Some(netns) = used.get(&inode).and_then(|user| user.open(inode)) else { continue };
            self.guard_interfaces(cookie, &netns);
            match cables.leading_into(&netns) {
                Ok(ends) => drop(exits.insert(inode, Exits { cookie, netns, ends })),
                Err(error) => tracing::error!(%error, cookie, "its cables are not known"),
            }
        }
        let with_cables = exits.iter().filter(|(_, exits)| !exits.ends.is_empty());
        let shared = self.shared_with_others(with_cables.map(|(inode, _)| *inode).collect());
        for (inode, exits) in exits {
            let walled = match exits.can_be_walled(shared.contains(&inode)) {
                Ok(can_be) => can_be,
                // It stays as it is.
                Err(error) => {
                    tracing::error!(cookie = exits.cookie, "whether it forwards is not known: {error:#}");
                    continue;
                }
            };
            let ends = if walled { &exits.ends[..] } else { &[] };
            if let Err(error) = self.with_kernel(|kernel| kernel.wall_off(exits.cookie, ends)) {
                let cookie = exits.cookie;
                tracing::error!(cookie, "what leaves a network namespace is not dropped here: {error:#}");
            } else if guarded.note_wall(inode, walled) {
                let what = if walled { "is dropped at" } else { "passes" };
                tracing::info!(cookie = exits.cookie, "what leaves a network namespace {what} its cables");
            }
        }
    }

    /// Learns which namespaces there are, and leaves those that nobody tagged is in.
    fn know_namespaces(&self, guarded: &mut Guarded, used: &HashMap<u64, User>) -> Result<()> {
        let own = find::own_inode()?;
        for (inode, user) in used {
            if *inode == own || guarded.is_known(*inode) || !guarded.has_room(user.tag) {
                continue;
            }
            if let Some(cookie) = user.open(*inode).and_then(|netns| netns_cookie(&netns).ok()) {
                guarded.add(*inode, cookie, user.tag);
            }
        }
        for cookie in guarded.gone(used) {
            self.with_kernel(|kernel| kernel.unguard(cookie))?;
        }
        if !guarded.settled {
            let all: Vec<u64> = guarded.cookies().chain([own_netns_cookie()?]).collect();
            self.with_kernel(|kernel| kernel.guard_only(&all))?;
            guarded.settled = true;
        }
        Ok(())
    }

    /// Those of these namespaces in which somebody is who is not tagged: they may leave
    /// by the interfaces. Who is not known counts as one of them.
    fn shared_with_others(&self, inodes: HashSet<u64>) -> HashSet<u64> {
        if inodes.is_empty() {
            return inodes;
        }
        let is_tagged =
            |pid| self.with_kernel(|kernel| kernel.tag_of_process(pid)).is_ok_and(|it| it.is_some());
        let others = find::everybody_in(&inodes).into_iter().filter(|(thread, inode)| {
            // One that has ended has no tag any more, and is nobody.
            !is_tagged(*thread)
                && std::fs::metadata(find::namespace_file(*thread)).is_ok_and(|it| it.ino() == *inode)
        });
        others.map(|(_, inode)| inode).collect()
    }
}

/// What leads out of a namespace into the service's.
struct Exits {
    cookie: u64,
    netns: File,
    ends: Vec<u32>,
}

impl Exits {
    /// A namespace may pass on what is somebody else's, whoever is in it.
    fn can_be_walled(&self, shared: bool) -> Result<bool> {
        Ok(!self.ends.is_empty() && !shared && !netns_forwards(&self.netns)?)
    }
}
