//! What the programs of a debug build say of their decisions, passed on to the log.
//!
//! The object for hosts has nothing of it. What it refuses is in its events, see
//! [`super::Refusals`].

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::Log;

use super::event::wait_readable;
use super::{KernelError, Result};

/// The reading end of the log of a debug build. Its lines have the target
/// `enforcer_ebpf`: `RUST_LOG=enforcer_ebpf=debug` shows them.
pub struct ProgramLog {
    logger: EbpfLogger<&'static dyn Log>,
}

impl ProgramLog {
    /// Nothing when the object does not log.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Option<Self>> {
        match EbpfLogger::init(ebpf) {
            Ok(logger) => Ok(Some(Self { logger })),
            Err(aya_log::Error::MapNotFound) => Ok(None),
            Err(source) => Err(KernelError::Log(Box::new(source))),
        }
    }

    /// Passes on whatever is there, after waiting for it at most this long. Lines
    /// for which the ring has no room are lost.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        wait_readable(self.logger.as_fd(), timeout)?;
        self.logger.flush();
        Ok(())
    }
}
