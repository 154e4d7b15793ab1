//! The client of a job while the job runs: its signals are the job's, its end too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::Mutex;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use crate::admin::request;
use crate::net::ipc::Channel;

use super::daemon::lock;

/// What a terminal sends to all that runs in it, and so to all of a job.
const OF_TERMINALS: &[Signal] =
    &[Signal::INT, Signal::QUIT, Signal::HUP, Signal::WINCH, Signal::TSTP, Signal::CONT];

/// The first process of a job, which leads a process group.
pub(super) struct Running {
    process: OwnedFd,
    group: Pid,
    /// From then on the number may come to mean another process.
    ended: Mutex<bool>,
}

impl Running {
    pub(super) fn of(child: &Child) -> io::Result<Self> {
        let group = Pid::from_child(child);
        Ok(Self { process: pidfd_open(group, PidfdFlags::empty())?, group, ended: Mutex::new(false) })
    }

    /// Waits for its end.
    pub(super) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        // It is left as it is, with its number, until nobody sends it anything.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.process.as_fd()), options))?;
        *lock(&self.ended) = true;
        child.wait()
    }

    /// Passes signals on until the client is gone.
    pub(super) fn follow(&self, channel: &Channel) {
        while let Ok(Some((request::Signal { number }, _))) = channel.recv::<request::Signal>() {
            if let Some(signal) = Signal::from_named_raw(number)
                && let Err(error) = self.send(signal)
            {
                tracing::debug!(%error, "a signal for a job that has ended");
            }
        }
    }

    fn send(&self, signal: Signal) -> rustix::io::Result<()> {
        if !OF_TERMINALS.contains(&signal) {
            return pidfd_send_signal(&self.process, signal);
        }
        // In a session without a terminal the kernel takes no notice of TSTP.
        let signal = if signal == Signal::TSTP { Signal::STOP } else { signal };
        let ended = lock(&self.ended);
        if *ended { Ok(()) } else { kill_process_group(self.group, signal) }
    }
}
