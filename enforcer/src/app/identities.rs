//! `job.sock`, on which jobs say who they are. Everybody may connect.
//!
//! **Invariant**: not a byte of what is sent there is read here. Who connected is known from the
//! kernel; the connection goes on to the proxy with that.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::net::ipc::{Channel, Listener, Peer};
use crate::workload::wire::ToProxy;

use super::children::TICK;
use super::daemon::Daemon;

/// How many connections of one workload are passed on in this time; others are closed.
const MANY: u32 = 50;
const WHILE: Duration = Duration::from_secs(10);
/// Workloads whose connections are counted at a time.
const COUNTED: usize = 4096;

/// Opens the socket and serves it for as long as the process lives.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    let path = daemon.config.job_socket();
    let listener = Listener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new().spawn(move || {
        let mut rates = Rates::default();
        loop {
            match listener.accept() {
                Ok((channel, peer)) => daemon.pass_job_on(&channel, peer, &mut rates),
                Err(error) => {
                    tracing::warn!(%error, "a job was not taken");
                    std::thread::sleep(TICK);
                }
            }
        }
    })?;
    Ok(())
}

impl Daemon {
    fn pass_job_on(&self, channel: &Channel, peer: Peer, rates: &mut Rates) {
        let look = |pid| self.with_kernel(|kernel| kernel.tag_of_process(pid));
        let found = channel.with_peer(peer, look).map_err(anyhow::Error::from).and_then(|found| found);
        let (tag, problem) = match found {
            Ok(tag) => (tag, None),
            // It may have connected from a job and left the socket to another.
            Err(error) => (None, Some(format!("it is not known who asks: {error:#}"))),
        };
        if !rates.allow(tag, Instant::now()) {
            return;
        }
        // Without a proxy the other end sees its connection closed, and asks again.
        if let Err(error) = self.tell(&ToProxy::Job { tag, problem }, &[channel.as_fd()]) {
            tracing::debug!("a job is not served: {error:#}");
        }
    }
}

/// What each workload had of late.
#[derive(Default)]
struct Rates(HashMap<Option<u64>, (Instant, u32)>);

impl Rates {
    fn allow(&mut self, tag: Option<u64>, now: Instant) -> bool {
        if self.0.len() >= COUNTED {
            self.0.retain(|_, (begun, _)| now.duration_since(*begun) < WHILE);
        }
        let (begun, count) = self.0.entry(tag).or_insert((now, 0));
        if now.duration_since(*begun) >= WHILE {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
        *count <= MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_workload_has_so_many_in_a_while_and_takes_none_from_others() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        assert!((0..MANY).all(|_| rates.allow(Some(1), begun)));
        assert!(!rates.allow(Some(1), begun));
        assert!(rates.allow(Some(2), begun) && rates.allow(None, begun));
        assert!(rates.allow(Some(1), begun + WHILE));
    }
}
