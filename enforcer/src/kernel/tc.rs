//! Programs on interfaces, by tcx links (Linux 6.6): what AF_PACKET sockets of tagged
//! cgroups send is dropped where it leaves, and what comes out of a namespace in which
//! everybody is tagged is dropped at the host's end of its cables.
//!
//! ```text
//!   an interface appears ──▶ link, pinned `tc_egress+NETNS+INDEX` ──▶ the interface goes:
//!                            (looked for again and again)             the pin is removed
//! ```
//!
//! A link does not keep its interface, nor the namespace that this is in. Before 6.6
//! there are none, and it is said so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::programs::Program;
use nix::net::if_::{if_indextoname, if_nameindex};
use nix::sched::CloneFlags;

use super::links::{self, AttachType, Problem};
use super::pins::PinDir;
use super::{KernelError, LinkHealth, Result, io_error, packet};

/// Between the name of the program, the namespace and the interface in the name of a pin.
const SEPARATOR: char = '+';
/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Which program, and so where it is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Egress,
    Wall,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Egress => "tc_egress",
            Self::Wall => "tc_wall",
        }
    }

    fn attach_type(self) -> AttachType {
        match self {
            Self::Egress => AttachType::TcxEgress,
            Self::Wall => AttachType::TcxIngress,
        }
    }
}

struct Loaded {
    fd: OwnedFd,
    id: u32,
}

/// One link that has to be there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    wall: bool,
    /// Cookie of the namespace that is guarded.
    netns: u64,
    /// In that namespace, or for a wall at the host's end.
    interface: u32,
}

impl Place {
    fn kind(self) -> Kind {
        if self.wall { Kind::Wall } else { Kind::Egress }
    }

    fn pin(self) -> String {
        format!("{}{SEPARATOR}{}{SEPARATOR}{}", self.kind().name(), self.netns, self.interface)
    }

    fn of_pin(name: &str) -> Option<Self> {
        let mut parts = name.split(SEPARATOR);
        let kind = parts.next()?;
        let (netns, interface) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let found = Self { wall: kind == Kind::Wall.name(), netns, interface };
        (found.pin() == name).then_some(found)
    }
}

pub(super) struct Interfaces {
    /// Or why there are none.
    programs: Result<[Loaded; 2], String>,
    held: BTreeSet<Place>,
}

impl Interfaces {
    /// Loads the programs. A kernel that does not take them has all the rest.
    pub fn of(ebpf: &mut Ebpf) -> Self {
        let mut load = |kind: Kind| -> Result<Loaded, String> {
            let Some(Program::SchedClassifier(program)) = ebpf.program_mut(kind.name()) else {
                return Err(format!("the object has no {}", kind.name()));
            };
            program.load().map_err(|error| error.to_string())?;
            let fd = program.fd().map_err(|error| error.to_string())?.as_fd().try_clone_to_owned();
            let id = program.info().map_err(|error| error.to_string())?.id();
            Ok(Loaded { fd: fd.map_err(|error| error.to_string())?, id })
        };
        let programs = load(Kind::Egress).and_then(|egress| Ok([egress, load(Kind::Wall)?]));
        Self { programs, held: BTreeSet::new() }
    }

    /// Takes over what an earlier loader left: links that still hold get these programs.
    pub fn adopt(&mut self, pins: &PinDir) -> Result<()> {
        for place in pins.links()?.iter().filter_map(|name| Place::of_pin(name)) {
            let pin = pins.link(&place.pin());
            let program = self.program(place.kind()).map(|it| it.fd.as_fd());
            let taken = links::pinned(&pin).and_then(|link| {
                let there = links::info(link.as_fd())?.interface() == place.interface;
                if let (true, Ok(program)) = (there, program) {
                    links::update(link.as_fd(), program)?;
                }
                Ok(there)
            });
            if matches!(taken, Ok(true)) && self.programs.is_ok() {
                self.held.insert(place);
            } else {
                packet::remove(&pin)?;
            }
        }
        Ok(())
    }

    /// Puts the program on all interfaces of a namespace but `lo` (the current namespace
    /// when none is given), and forgets those that are gone.
    pub fn guard(&mut self, pins: &PinDir, netns: u64, file: Option<&File>) -> Result<()> {
        let there = inside(file, || Ok(if_nameindex()?.iter().map(|it| it.index()).collect::<Vec<u32>>()))?;
        let there: Vec<u32> = there.into_iter().filter(|index| *index != LOOPBACK).collect();
        self.keep(pins, false, netns, &there, file)
    }

    /// Drops all that comes in by these interfaces of the current namespace, which lead
    /// into that one, and by no others.
    pub fn wall(&mut self, pins: &PinDir, netns: u64, ends: &[u32]) -> Result<()> {
        self.keep(pins, true, netns, ends, None)
    }

    /// Removes all that was made for a namespace.
    pub fn leave(&mut self, pins: &PinDir, netns: u64) -> Result<()> {
        self.keep_none(pins, |place| place.netns == netns)
    }

    /// Removes what was made for other namespaces than these.
    pub fn leave_others(&mut self, pins: &PinDir, netns: &[u64]) -> Result<()> {
        self.keep_none(pins, |place| !netns.contains(&place.netns))
    }

    /// How many interfaces are guarded, or why none is.
    pub fn state(&self) -> Result<usize, String> {
        match &self.programs {
            Ok(_) => Ok(self.held.iter().filter(|place| !place.wall).count()),
            Err(why) => Err(why.clone()),
        }
    }

    /// The links on interfaces of this namespace. Those of another one are looked after
    /// there, and an interface that is gone is no fault.
    pub fn health(&self, pins: &PinDir, home: Option<u64>) -> Vec<LinkHealth> {
        let here = self.held.iter().filter(|place| place.wall || Some(place.netns) == home);
        let checked = here.filter_map(|place| {
            let problem = self.problem(pins, *place);
            // Asked afterwards: it may go at any time.
            if_indextoname(place.interface).ok()?;
            Some(LinkHealth::of(place.pin(), problem))
        });
        checked.collect()
    }

    /// Makes links on exactly these interfaces.
    fn keep(
        &mut self,
        pins: &PinDir,
        wall: bool,
        netns: u64,
        interfaces: &[u32],
        file: Option<&File>,
    ) -> Result<()> {
        self.keep_none(pins, |place| {
            place.wall == wall && place.netns == netns && !interfaces.contains(&place.interface)
        })?;
        for interface in interfaces {
            let place = Place { wall, netns, interface: *interface };
            let known = self.held.contains(&place);
            match self.problem(pins, place) {
                None if known => continue,
                Some(problem) if known => tracing::error!(pin = place.pin(), "made again: {}", problem.text),
                _ => {}
            }
            self.attach(pins, place, file)?;
        }
        Ok(())
    }

    fn attach(&mut self, pins: &PinDir, place: Place, file: Option<&File>) -> Result<()> {
        let Ok(program) = self.program(place.kind()) else { return Ok(()) };
        let (program, kind) = (program.fd.as_fd().try_clone_to_owned(), place.kind());
        let program = program.map_err(KernelError::Interfaces)?;
        let made =
            inside(file, move || links::create_on(program.as_fd(), place.interface, kind.attach_type()));
        let link = match made {
            Ok(link) => link,
            // It has gone since it was listed.
            Err(KernelError::Interfaces(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(());
            }
            Err(KernelError::Interfaces(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.programs = Err("links on interfaces need Linux 6.6".to_owned());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let pin = pins.link(&place.pin());
        packet::remove(&pin)?;
        links::pin(link.as_fd(), &pin).map_err(io_error("pinning", &pin))?;
        self.held.insert(place);
        Ok(())
    }

    fn keep_none(&mut self, pins: &PinDir, which: impl Fn(&Place) -> bool) -> Result<()> {
        let gone: Vec<Place> = self.held.iter().filter(|place| which(place)).copied().collect();
        for place in gone {
            let pin = pins.link(&place.pin());
            // A link that only loses its pin goes a moment later. One whose interface is
            // gone cannot be detached, and need not be.
            if let Ok(link) = links::pinned(&pin)
                && let Err(error) = links::detach(link.as_fd())
            {
                tracing::debug!(%error, pin = place.pin(), "a link that was detached before");
            }
            packet::remove(&pin)?;
            self.held.remove(&place);
        }
        Ok(())
    }

    fn program(&self, kind: Kind) -> Result<&Loaded, &String> {
        let [egress, wall] = self.programs.as_ref()?;
        Ok(if kind == Kind::Wall { wall } else { egress })
    }

    fn problem(&self, pins: &PinDir, place: Place) -> Option<Problem> {
        let program = self.program(place.kind()).ok()?.id;
        links::problem_on(&pins.link(&place.pin()), place.interface, program)
    }
}

/// Runs in a network namespace, on a thread that ends there.
fn inside<T: Send + 'static>(
    netns: Option<&File>,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let Some(netns) = netns else { return act().map_err(KernelError::Interfaces) };
    let netns = netns.try_clone().map_err(KernelError::Interfaces)?;
    let done = std::thread::spawn(move || {
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)?;
        act()
    });
    done.join().map_err(|_| KernelError::Thread)?.map_err(KernelError::Interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_what_it_holds() {
        for place in [
            Place { wall: false, netns: 4711, interface: 2 },
            Place { wall: true, netns: u64::MAX, interface: u32::MAX },
        ] {
            assert!(Place::of_pin(&place.pin()) == Some(place));
        }
        for other in ["connect4", "egress@17", "tc_egress+1", "tc_egress+1+2+3", "tc_egress+01+2", "tc_x+1+2"]
        {
            assert!(Place::of_pin(other).is_none(), "{other}");
        }
    }
}
