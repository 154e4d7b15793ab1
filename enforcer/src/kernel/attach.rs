//! One program, its cgroup, and the pinned link between them.
//!
//! The loader holds the link as well as its pin: whoever removes the pin detaches
//! nothing while the loader lives.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::links::{self, AttachType, Problem};
use super::pins::PinDir;
use super::{KernelError, Result, cgroup, foreign, kept};

/// A program in the kernel.
pub(super) struct Loaded {
    pub fd: OwnedFd,
    pub id: u32,
}

/// What one pinned link has to be.
pub(super) struct Attachment {
    pub name: &'static str,
    pub place: PathBuf,
    attach_type: AttachType,
    program: Loaded,
    link: OwnedFd,
    link_id: u32,
    cgroup: u64,
}

impl Attachment {
    /// Attaches the program, or has the link that an earlier loader pinned run it.
    pub fn make(
        pins: &PinDir,
        name: &'static str,
        attach_type: AttachType,
        place: &Path,
        program: Loaded,
    ) -> Result<Self> {
        let failed = |source| KernelError::Attach { name, path: place.to_owned(), source };
        let pin = pins.link(name);
        let earlier = if pin.exists() { Some(links::pinned(&pin).map_err(failed)?) } else { None };
        let cgroup = cgroup::cgroup_id(place)?;
        if let Some(link) = &earlier
            && outlives_its_cgroup(name)
            && ![0, cgroup].contains(&links::info(link.as_fd()).map_err(failed)?.cgroup)
        {
            kept::set_aside(pins, name, link).map_err(failed)?;
        }
        let link = join(pins, name, attach_type, place, &program, earlier)?;
        let link_id = links::info(link.as_fd()).map_err(failed)?.id;
        Ok(Self { name, place: place.to_owned(), attach_type, program, link, link_id, cgroup })
    }

    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.fd.as_fd()
    }

    pub fn program_id(&self) -> u32 {
        self.program.id
    }

    /// What is wrong with the link now: the one that is held, and the one that is pinned.
    pub fn problem(&self, pins: &PinDir) -> Option<Problem> {
        let look = |link: &OwnedFd| links::info(link.as_fd());
        let held = match look(&self.link) {
            Ok(info) => links::wrong(&info, self.cgroup, self.program.id),
            Err(error) => Some(Problem { text: error.to_string(), certain: false }),
        };
        let pinned = || match links::pinned(&pins.link(self.name)).and_then(|link| look(&link)) {
            Ok(info) if info.id == self.link_id => None,
            Ok(info) => {
                let text = format!("link {} is pinned, not {}", info.id, self.link_id);
                Some(Problem { text, certain: true })
            }
            Err(error) => Some(Problem::unreadable(&error)),
        };
        held.or_else(pinned)
    }

    /// Makes it as it was: attached, running this program, and pinned.
    pub fn restore(&mut self, pins: &PinDir) -> Result<()> {
        let failed = |source| KernelError::Attach { name: self.name, path: self.place.clone(), source };
        let held = self.link.try_clone().map_err(failed)?;
        self.cgroup = cgroup::cgroup_id(&self.place)?;
        self.link = join(pins, self.name, self.attach_type, &self.place, &self.program, Some(held))?;
        self.link_id = links::info(self.link.as_fd()).map_err(failed)?.id;
        Ok(())
    }
}

/// Listeners that are kept ask for records in the cgroup in which they were opened.
fn outlives_its_cgroup(name: &str) -> bool {
    matches!(name, "own_setsockopt" | "own_getsockopt")
}

/// The earlier link if it is attached there, else a new one; it is pinned in any case.
fn join(
    pins: &PinDir,
    name: &'static str,
    attach_type: AttachType,
    place: &Path,
    program: &Loaded,
    earlier: Option<OwnedFd>,
) -> Result<OwnedFd> {
    let failed = |source| KernelError::Attach { name, path: place.to_owned(), source };
    let cgroup = cgroup::cgroup_id(place)?;
    let mut link = None;
    if let Some(earlier) = &earlier {
        let info = links::info(earlier.as_fd()).map_err(failed)?;
        if info.cgroup == cgroup && info.attach_type == attach_type as u32 {
            links::update(earlier.as_fd(), program.fd.as_fd()).map_err(failed)?;
            link = Some(earlier.try_clone().map_err(failed)?);
        }
    }
    let link = match link {
        Some(link) => link,
        None => {
            let dir = File::open(place).map_err(failed)?;
            links::create(program.fd.as_fd(), dir.as_fd(), attach_type).map_err(|source| {
                match foreign::exclusive(place, attach_type) {
                    Some(other) if source.kind() == io::ErrorKind::PermissionDenied => {
                        KernelError::Exclusive { name, path: place.to_owned(), other }
                    }
                    _ => failed(source),
                }
            })?
        }
    };
    repin(&link, &pins.link(name)).map_err(failed)?;
    // Until here the earlier one was held: there was always one of them.
    drop(earlier);
    Ok(link)
}

/// Pins a link where another one, or none, is pinned.
fn repin(link: &OwnedFd, pin: &Path) -> io::Result<()> {
    let ours = links::info(link.as_fd())?.id;
    match links::pinned(pin).and_then(|pinned| links::info(pinned.as_fd())) {
        Ok(info) if info.id == ours => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Attached elsewhere, or to a cgroup that is gone.
        _ => fs::remove_file(pin)?,
    }
    links::pin(link.as_fd(), pin)
}
