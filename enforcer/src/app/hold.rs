//! Listeners between two proxies, when one follows the other as planned.
//!
//! ```text
//!   served --planned end--> held --the next proxy is ready--> served
//!     |                      |
//!     |                      +--[listen] hold_ms is over, or the holder dies--> shut
//!     +--the proxy dies----------------------------------------------------> shut
//! ```
//!
//! While a proxy serves, it alone has them: its death is a refused connection, at once.
//! Before a planned end they are fetched from it (by pidfd, so that a proxy that is
//! stuck gives them too). If the loader stays it holds them itself. If it ends as well,
//! a small process holds them for the next one ([`super::holder`]), and so does
//! systemd's store of descriptors if there is one: the process is what shuts them when
//! nobody comes in time, for whoever holds a copy.
//!
//! **Invariant**: who holds a listener that no proxy serves also counts the time, and
//! only sockets that the programs have marked as ours are taken back.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::kernel::Listeners;
use crate::net::ipc::{Channel, Listener, tell_systemd};
use crate::net::sys;

use super::children;
use super::daemon::{Daemon, lock};
use super::holder::{FromHolder, ToHolder};
use super::release::now_boot_ms;

/// How the descriptors are called in systemd's store, before the time at which they are late.
const STORED: &str = "enforcer-";

/// What is known of listeners beside those that the proxy has.
#[derive(Default)]
pub(super) struct Hold {
    /// Inodes of the sockets that the proxy serves.
    serving: HashSet<u64>,
    held: HashMap<u64, Listeners>,
    /// When what is held is late.
    until: Option<Instant>,
    /// Who holds those of an earlier loader.
    holder: Option<Channel>,
}

/// Descriptors that systemd kept for us, with the time that was left. They are taken out
/// of its store at once: should this process die, they die with it.
pub(super) fn stored() -> Vec<(OwnedFd, Duration)> {
    let Ok(given) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    let given: Vec<(RawFd, String)> = given.collect();
    let now = now_boot_ms();
    let mut stored = Vec::new();
    for (raw, name) in given {
        let Ok(fd) = sys::inherited(raw) else { continue };
        if let Err(error) = tell_systemd(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]) {
            tracing::warn!(%error, "systemd keeps listeners that it was told to let go");
        }
        let until = name.strip_prefix(STORED).and_then(|until| until.parse::<u64>().ok());
        let left = until.map_or(0, |until| until.saturating_sub(now));
        if left > 0 {
            stored.push((fd, Duration::from_millis(left)));
        }
    }
    stored
}

impl Daemon {
    fn hold_for(&self) -> Duration {
        Duration::from_millis(self.config.listen.hold_ms)
    }

    fn holder_socket(&self) -> PathBuf {
        self.config.run.dir.join("holder.sock")
    }

    /// Finds out what an earlier loader has left: in systemd's store, and with a holder.
    pub(super) fn inherit(&self, stored: Vec<(OwnedFd, Duration)>) -> Result<()> {
        let left = stored.iter().map(|(_, left)| *left).min();
        let sockets = stored.into_iter().map(|(fd, _)| fd).collect();
        let listeners = self.with_kernel(|kernel| kernel.take_back(sockets))?;
        let holder = Channel::connect(&self.holder_socket()).ok();
        lock(&self.hold).holder = holder;
        if let Some(left) = left {
            put(&self.hold, listeners, left);
        }
        Ok(())
    }

    /// Whether the next proxy may get listeners that are there already.
    pub(super) fn holds_listeners(&self) -> bool {
        let hold = lock(&self.hold);
        !hold.held.is_empty() || hold.holder.is_some()
    }

    /// The listeners of a network namespace (the current one when none is given): those
    /// that were kept, or new ones.
    pub(super) fn listeners(&self, cookie: u64, netns: Option<&fs::File>) -> Result<Listeners> {
        self.fetch_held();
        let kept = lock(&self.hold).held.remove(&cookie).filter(Listeners::listens);
        let listeners = match kept {
            Some(kept) => kept,
            None => self.with_kernel(|kernel| kernel.open_listeners(netns))?,
        };
        let inodes = listeners.sockets().filter_map(inode);
        lock(&self.hold).serving.extend(inodes);
        Ok(listeners)
    }

    /// A proxy serves all that it is to serve: what is left is nobody's.
    pub(super) fn drop_held(&self) {
        drop_all(&self.hold);
    }

    /// Before a planned end of the proxy, with the loader staying.
    pub(super) fn keep_listeners(&self, proxy: u32) {
        match self.fetch_from(proxy) {
            Ok(listeners) => put(&self.hold, listeners, self.hold_for()),
            Err(error) => tracing::warn!("connections are refused until the next proxy serves: {error:#}"),
        }
    }

    /// Before a planned end of the proxy and of the loader. On an error connections are
    /// refused meanwhile, and that is all.
    pub(super) fn hand_on_listeners(&self, proxy: u32) {
        let done = self.start_holder().and_then(|holder| {
            let listeners = self.fetch_from(proxy)?;
            let name = format!("{STORED}{}", now_boot_ms() + self.config.listen.hold_ms);
            for one in listeners {
                let fds: Vec<BorrowedFd<'_>> = one.sockets().collect();
                holder.send(&ToHolder::Hold, &fds)?;
                tell_systemd(&format!("FDSTORE=1\nFDNAME={name}"), &fds)?;
            }
            Ok(())
        });
        if let Err(error) = done {
            tracing::warn!("connections are refused until the service is started again: {error:#}");
        }
    }

    /// Copies of the listeners that this proxy serves, by its number: whatever it is doing.
    fn fetch_from(&self, proxy: u32) -> Result<Vec<Listeners>> {
        let serving = std::mem::take(&mut lock(&self.hold).serving);
        let number = i32::try_from(proxy).ok().and_then(Pid::from_raw).context("no proxy")?;
        let process = pidfd_open(number, PidfdFlags::empty()).context("no proxy")?;
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for entry in fs::read_dir(format!("/proc/{proxy}/fd")).context("the proxy's descriptors")? {
            let entry = entry?;
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            let inode =
                target.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']')?.parse::<u64>().ok());
            let Some(inode) = inode.filter(|inode| serving.contains(inode)) else { continue };
            let number: ForeignRawFd = entry.file_name().to_string_lossy().parse()?;
            if seen.insert(inode) {
                let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
                found.push(copy.context("fetching the proxy's listeners (this needs CAP_SYS_PTRACE)")?);
            }
        }
        self.with_kernel(|kernel| kernel.take_back(found))
    }

    /// Starts the process that holds listeners when this one has ended. It leaves the
    /// enforcer's own cgroup, which systemd empties before it starts the next loader.
    fn start_holder(&self) -> Result<Channel> {
        let path = self.holder_socket();
        let listener = Listener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let (ours, theirs) = Channel::pair()?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup v2")?;
        let mut command = children::command(
            &self.proxy_user()?,
            "holder",
            children::Lives::On,
            &[theirs.as_fd().as_raw_fd(), listener.as_fd().as_raw_fd()],
        );
        command.args(["--for-ms", &self.config.listen.hold_ms.to_string(), "--cgroup", own]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let holder = command.spawn().context("starting the holder")?;
        let attach = &self.config.cgroup.attach;
        let attach = self.mount().join(attach.strip_prefix("/").unwrap_or(attach));
        fs::write(attach.join("cgroup.procs"), holder.id().to_string())
            .with_context(|| format!("moving the holder to {}", attach.display()))?;
        Ok(ours)
    }

    /// Asks the holder for what it has, once. One that was late has shut it.
    fn fetch_held(&self) {
        let Some(holder) = lock(&self.hold).holder.take() else { return };
        let fetched = || -> io::Result<(Vec<OwnedFd>, u64)> {
            holder.set_patience(Some(self.hold_for()))?;
            holder.send(&ToHolder::Take, &[])?;
            let (mut sockets, mut left) = (Vec::new(), 0);
            while let Some((FromHolder::Held { left_ms }, fds)) = holder.recv::<FromHolder>()? {
                sockets.extend(fds);
                left = left_ms;
            }
            Ok((sockets, left))
        };
        match fetched() {
            Ok((sockets, left)) => match self.with_kernel(|kernel| kernel.take_back(sockets)) {
                Ok(listeners) => put(&self.hold, listeners, Duration::from_millis(left)),
                Err(error) => tracing::warn!("listeners of the service before: {error:#}"),
            },
            Err(error) => tracing::debug!(%error, "the holder was late"),
        }
    }
}

/// Holds listeners until somebody takes them, but not longer than that.
fn put(hold: &Arc<Mutex<Hold>>, listeners: Vec<Listeners>, left: Duration) {
    let until = Instant::now() + left;
    {
        let mut hold = lock(hold);
        hold.held.extend(listeners.into_iter().map(|it| (it.netns, it)));
        hold.until = Some(until);
    }
    let hold = Arc::clone(hold);
    std::thread::spawn(move || {
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        if lock(&hold).until == Some(until) {
            drop_all(&hold);
        }
    });
}

/// Shuts what is held, for whoever has a copy of it.
fn drop_all(hold: &Mutex<Hold>) {
    let left: Vec<Listeners> = lock(hold).held.drain().map(|(_, listeners)| listeners).collect();
    left.iter().for_each(Listeners::shut);
}

fn inode(socket: BorrowedFd<'_>) -> Option<u64> {
    let file = fs::File::from(socket.try_clone_to_owned().ok()?);
    Some(file.metadata().ok()?.ino())
}
