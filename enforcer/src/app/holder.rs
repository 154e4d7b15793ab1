//! Holds the listeners while one loader follows another, and counts the time.
//!
//! It is started by a loader that ends as planned, outlives it, gives what it holds to
//! the next one, and ends. When nobody comes in time it shuts the listeners for all who
//! have a copy: who connects is refused at once then, and never waits for ever.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};

use crate::net::ipc::{Channel, Listener, MAX_FDS};
use crate::net::sys;

/// From a loader: that which ends sends `Hold`, with sockets; the next one sends `Take`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToHolder {
    Hold,
    Take,
}

/// To the next loader: some of the sockets, until the end of the connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromHolder {
    Held { left_ms: u64 },
}

/// Holds until a loader in this cgroup takes, or the time is over.
pub fn run(control: RawFd, listener: RawFd, patience: Duration, cgroup: &str) -> Result<()> {
    crate::secret::process::close_to_others()?;
    let control = Channel::from(sys::inherited(control)?);
    let listener = Listener::from(sys::inherited(listener)?);
    let (sockets, until) = given(&control, patience)?;
    drop(control);
    while !sockets.is_empty() && readable(listener.as_fd(), until)? {
        let (next, peer) = listener.accept()?;
        // The number of a process that is gone may mean another: that is an error.
        if !matches!(next.with_peer(peer, |pid| is_in(pid, cgroup)), Ok(Ok(true))) {
            continue;
        }
        // The next loader says it when its proxy is ready, or dies before.
        if readable(next.as_fd(), until)? && matches!(next.recv::<ToHolder>(), Ok(Some((ToHolder::Take, _))))
        {
            return give(&next, &sockets, until);
        }
    }
    for socket in &sockets {
        // That of a datagram socket fails, and nobody waits for it.
        shutdown(socket.as_raw_fd(), Shutdown::Read).ok();
    }
    Ok(())
}

/// What the loader that ends hands over, until it closes its end, and when it is late.
fn given(control: &Channel, patience: Duration) -> Result<(Vec<OwnedFd>, Instant)> {
    let mut sockets = Vec::new();
    let mut until = Instant::now() + patience;
    while readable(control.as_fd(), until)? {
        let Some((ToHolder::Hold, fds)) = control.recv::<ToHolder>()? else { break };
        if sockets.is_empty() {
            until = Instant::now() + patience;
        }
        sockets.extend(fds);
    }
    Ok((sockets, until))
}

fn give(next: &Channel, sockets: &[OwnedFd], until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(0);
    for some in sockets.chunks(MAX_FDS) {
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        next.send(&FromHolder::Held { left_ms }, &fds)?;
    }
    Ok(())
}

/// A root in a job may reach the socket, but is not in the enforcer's own cgroup.
fn is_in(pid: u32, cgroup: &str) -> std::io::Result<bool> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(text.lines().any(|line| line.strip_prefix("0::") == Some(cgroup)))
}

/// Waits until there is something to read; false when it is late.
fn readable(fd: BorrowedFd<'_>, until: Instant) -> Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
