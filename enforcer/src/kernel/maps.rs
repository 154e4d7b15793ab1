//! The pins of the maps: without them the next loader would begin with empty ones,
//! and what is tagged would be nobody's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::links::{self, Problem};
use super::pins::PinDir;
use super::{Result, io_error};

/// A map that is held, and has to be pinned.
pub(super) struct PinnedMap {
    pub name: &'static str,
    fd: OwnedFd,
    id: u32,
}

impl PinnedMap {
    pub fn of(pins: &PinDir, name: &'static str) -> Result<Self> {
        let pin = pins.map(name);
        let fd = links::pinned(&pin).map_err(io_error("opening", &pin))?;
        let id = links::info(fd.as_fd()).map_err(io_error("looking at", &pin))?.id;
        Ok(Self { name, fd, id })
    }

    pub fn problem(&self, pins: &PinDir) -> Option<Problem> {
        match links::pinned(&pins.map(self.name)).and_then(|map| links::info(map.as_fd())) {
            Ok(info) if info.id == self.id => None,
            Ok(info) => {
                let text = format!("map {} is pinned, not {}", info.id, self.id);
                Some(Problem { text, certain: true })
            }
            Err(error) => Some(Problem::unreadable(&error)),
        }
    }

    /// Pins it again.
    pub fn restore(&self, pins: &PinDir) -> Result<()> {
        let pin = pins.map(self.name);
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("removing", &pin)(error));
            }
            _ => {}
        }
        links::pin(self.fd.as_fd(), &pin).map_err(io_error("pinning", &pin))
    }
}
