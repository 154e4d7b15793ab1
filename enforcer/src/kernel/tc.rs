//! Programs on interfaces: what AF_PACKET sockets of tagged cgroups send is dropped where
//! it leaves, and what comes out of a namespace in which everybody is tagged is dropped at
//! the host's end of its cables.
//!
//! ```text
//!   an interface appears ──▶ link, pinned `tc_egress+NETNS+INDEX` ──▶ the interface goes:
//!                            (looked for again and again)             the pin is removed
//! ```
//!
//! A link (tcx, since Linux 6.6) does not keep its interface, nor the namespace that this
//! is in. Before, there are filters: they stay without a pin, which is a marker there, and
//! names the namespace that the interface is in as well.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::Program;
use nix::net::if_::{if_indextoname, if_nameindex};
use nix::sched::CloneFlags;
use serde::Deserialize;

use super::clsact::{Side, Traffic};
use super::links::{self, AttachType, Problem};
use super::lsm::TierState;
use super::pins::PinDir;
use super::{KernelError, LinkHealth, Result, io_error, listen, packet, rtnl};

/// Whether there are programs on interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tc {
    /// By links where the kernel has them (Linux 6.6), by filters otherwise.
    #[default]
    Auto,
    /// By filters in any case.
    Filters,
    Off,
}

/// Between the name of the program, the namespace and the interface in the name of a pin.
const SEPARATOR: char = '+';
/// Where namespaces get names: iproute2's (also podman's) and Docker's.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// The largest index that the kernel gives is one less.
const NO_INTERFACE: u32 = i32::MAX.cast_unsigned();
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

    fn side(self) -> Side {
        match self {
            Self::Egress => Side::Egress,
            Self::Wall => Side::Ingress,
        }
    }
}

struct Loaded {
    fd: OwnedFd,
    id: u32,
}

/// One link or filter that has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    wall: bool,
    /// Cookie of the namespace that is guarded.
    netns: u64,
    /// In that namespace, or for a wall at the host's end.
    interface: u32,
    /// Of a filter: the namespace that the interface is in.
    within: Option<u64>,
}

impl Place {
    fn kind(self) -> Kind {
        if self.wall { Kind::Wall } else { Kind::Egress }
    }

    fn pin(self) -> String {
        let link = format!("{}{SEPARATOR}{}{SEPARATOR}{}", self.kind().name(), self.netns, self.interface);
        self.within.map_or(link.clone(), |within| format!("{link}{SEPARATOR}{within}"))
    }

    fn of_pin(name: &str) -> Option<Self> {
        let mut parts = name.split(SEPARATOR);
        let kind = parts.next()?;
        let (netns, interface) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let within = parts.next().map(str::parse).transpose().ok()?;
        let found = Self { wall: kind == Kind::Wall.name(), netns, interface, within };
        (found.pin() == name).then_some(found)
    }

    /// Says that the queueing discipline of its interface was made here.
    fn marker(self) -> Option<String> {
        self.within.map(|within| format!("tc_clsact{SEPARATOR}{within}{SEPARATOR}{}", self.interface))
    }
}

pub(super) struct Interfaces {
    /// Or why there are none.
    programs: Result<[Loaded; 2], String>,
    wanted: Tc,
    /// By filters of tc, not by links.
    filters: bool,
    /// Why some interface of the service's own namespace is not guarded.
    trouble: Option<String>,
    held: BTreeSet<Place>,
}

impl Interfaces {
    /// Loads the programs. A kernel that does not take them has all the rest.
    pub fn of(ebpf: &mut Ebpf, wanted: Tc) -> Self {
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
        let filters =
            wanted == Tc::Filters || programs.as_ref().is_ok_and(|[egress, _]| !has_links(egress.fd.as_fd()));
        Self { programs, wanted, filters, trouble: None, held: BTreeSet::new() }
    }

    /// Takes over what an earlier loader left: links that still hold get these programs.
    /// Filters get them when their namespace is looked at.
    pub fn adopt(&mut self, pins: &PinDir) -> Result<()> {
        for place in pins.links()?.iter().filter_map(|name| Place::of_pin(name)) {
            if self.programs.is_ok() && self.filters == place.within.is_some() && self.holds(pins, place) {
                self.held.insert(place);
            } else {
                remove(pins, place)?;
            }
        }
        Ok(())
    }

    fn holds(&self, pins: &PinDir, place: Place) -> bool {
        if place.within.is_some() {
            return true;
        }
        let program = self.program(place.kind()).map(|it| it.fd.as_fd());
        let taken = links::pinned(&pins.link(&place.pin())).and_then(|link| {
            let there = links::info(link.as_fd())?.interface() == place.interface;
            if let (true, Ok(program)) = (there, program) {
                links::update(link.as_fd(), program)?;
            }
            Ok(there)
        });
        matches!(taken, Ok(true))
    }

    /// Puts the program on all interfaces of a namespace but `lo` (the current namespace
    /// when none is given), and forgets those that are gone.
    pub fn guard(&mut self, pins: &PinDir, netns: u64, file: Option<&File>) -> Result<()> {
        let there = inside(file, || Ok(if_nameindex()?.iter().map(|it| it.index()).collect::<Vec<u32>>()))?;
        let there: Vec<u32> = there.into_iter().filter(|index| *index != LOOPBACK).collect();
        let kept = self.keep(pins, false, netns, &there, file);
        if file.is_none() {
            self.trouble = kept.as_ref().err().map(|error| match error {
                KernelError::Interfaces(why) => why.to_string(),
                other => other.to_string(),
            });
        }
        kept
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

    /// For the list of tiers.
    pub fn tier(&self) -> TierState {
        match (&self.programs, &self.trouble) {
            _ if self.wanted == Tc::Off => TierState::Off,
            (Err(why), _) | (Ok(_), Some(why)) => TierState::Unavailable { why: why.clone() },
            (Ok(_), None) => TierState::Active,
        }
    }

    /// The links on interfaces of this namespace. Those of another one are looked after
    /// there, and an interface that is gone is no fault.
    pub fn health(&self, pins: &PinDir, home: Option<u64>) -> Vec<LinkHealth> {
        let here = self.held.iter().filter(|place| match place.within {
            None => place.wall || Some(place.netns) == home,
            within => within == home,
        });
        let checked = here.filter_map(|place| {
            let problem = self.problem(pins, *place, None);
            // Asked afterwards: it may go at any time.
            if_indextoname(place.interface).ok()?;
            Some(LinkHealth::of(place.pin(), problem))
        });
        checked.collect()
    }

    /// Makes links or filters on exactly these interfaces.
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
        if interfaces.is_empty() {
            return Ok(());
        }
        let within = match (self.filters, wall) {
            (false, _) => None,
            (true, false) => Some(netns),
            (true, true) => Some(listen::cookie(None, 0)?),
        };
        // One that cannot be guarded keeps none of the others from it.
        let mut failed = None;
        for interface in interfaces {
            let place = Place { wall, netns, interface: *interface, within };
            let known = self.held.contains(&place);
            match self.problem(pins, place, file) {
                None if known => continue,
                Some(problem) if known => tracing::error!(pin = place.pin(), "made again: {}", problem.text),
                _ => {}
            }
            failed = failed.or(self.attach(pins, place, file).err());
        }
        failed.map_or(Ok(()), Err)
    }

    fn attach(&mut self, pins: &PinDir, place: Place, file: Option<&File>) -> Result<()> {
        let Ok(program) = self.program(place.kind()) else { return Ok(()) };
        let program = program.fd.as_fd().try_clone_to_owned().map_err(KernelError::Interfaces)?;
        let (kind, by_filter) = (place.kind(), place.within.is_some());
        let made = inside(file, move || {
            if by_filter {
                let side = kind.side();
                let made = Traffic::open()?.put(place.interface, side, kind.name(), program.as_fd())?;
                return Ok((program, made));
            }
            links::create_on(program.as_fd(), place.interface, kind.attach_type()).map(|link| (link, false))
        });
        let (pinned, made) = match made {
            Ok(made) => made,
            // It has gone since it was listed.
            Err(KernelError::Interfaces(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(());
            }
            Err(KernelError::Interfaces(error))
                if by_filter && matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) =>
            {
                let why = "the kernel has neither links on interfaces (Linux 6.6) nor filters of tc: \
                           modprobe sch_ingress cls_bpf";
                self.programs = Err(why.to_owned());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(marker) = place.marker().filter(|_| made) {
            let marker = pins.link(&marker);
            packet::remove(&marker)?;
            links::pin(pinned.as_fd(), &marker).map_err(io_error("pinning", &marker))?;
        }
        let pin = pins.link(&place.pin());
        packet::remove(&pin)?;
        links::pin(pinned.as_fd(), &pin).map_err(io_error("pinning", &pin))?;
        self.held.insert(place);
        Ok(())
    }

    fn keep_none(&mut self, pins: &PinDir, which: impl Fn(&Place) -> bool) -> Result<()> {
        let gone: Vec<Place> = self.held.iter().filter(|place| which(place)).copied().collect();
        for place in gone {
            remove(pins, place)?;
            self.held.remove(&place);
        }
        Ok(())
    }

    fn program(&self, kind: Kind) -> Result<&Loaded, &String> {
        let [egress, wall] = self.programs.as_ref()?;
        Ok(if kind == Kind::Wall { wall } else { egress })
    }

    /// `file`: of the namespace that its interface is in.
    fn problem(&self, pins: &PinDir, place: Place, file: Option<&File>) -> Option<Problem> {
        let program = self.program(place.kind()).ok()?.id;
        if place.within.is_none() {
            return links::problem_on(&pins.link(&place.pin()), place.interface, program);
        }
        let kind = place.kind();
        let found = inside(file, move || Traffic::open()?.find(place.interface, kind.side(), kind.name()));
        let text = match found {
            Ok(Some(filter)) if filter.program == program => return None,
            Ok(Some(filter)) => format!("runs program {}, not {program}", filter.program),
            Ok(None) => "the filter is gone".to_owned(),
            Err(error) => format!("the filter cannot be looked at: {error}"),
        };
        // Others may set the whole of tc anew, and interfaces go by themselves.
        Some(Problem { text, certain: false })
    }
}

/// Removes the filters that pins name: without a loader, too.
pub(super) fn release(pins: &PinDir) -> Result<()> {
    for place in pins.links()?.iter().filter_map(|name| Place::of_pin(name)) {
        if place.within.is_some() {
            remove(pins, place)?;
        }
    }
    Ok(())
}

/// Removes a link or a filter with its pin.
fn remove(pins: &PinDir, place: Place) -> Result<()> {
    let pin = pins.link(&place.pin());
    match place.within {
        // A link that only loses its pin goes a moment later. One whose interface is
        // gone cannot be detached, and need not be.
        None => {
            if let Ok(link) = links::pinned(&pin)
                && let Err(error) = links::detach(link.as_fd())
            {
                tracing::debug!(%error, pin = place.pin(), "a link that was detached before");
            }
        }
        Some(within) => {
            let marker = place.marker().map(|it| pins.link(&it)).filter(|it| it.exists());
            let (kind, made_here) = (place.kind(), marker.is_some());
            let act = move || {
                let traffic = Traffic::open()?;
                traffic.take_away(place.interface, kind.side(), kind.name())?;
                let last = traffic.is_empty(place.interface)?;
                if last && made_here {
                    traffic.remove_clsact(place.interface)?;
                }
                Ok(last)
            };
            // What is gone, with its interface or its namespace, needs no removal.
            let last = reach(within).is_none_or(|file| {
                inside(file.as_ref(), act).unwrap_or_else(|error| {
                    tracing::debug!(%error, pin = place.pin(), "a filter that is gone already");
                    true
                })
            });
            if let Some(marker) = marker.filter(|_| last) {
                packet::remove(&marker)?;
            }
        }
    }
    packet::remove(&pin)
}

/// Whether a namespace passes on what comes in by one way out of it to another.
pub(super) fn forwards(netns: &File) -> Result<bool> {
    inside(Some(netns), || {
        // Those of the namespace of whoever reads them. Without IPv6 there is no second one.
        let is_on = |path: &str| match fs::read_to_string(path) {
            Ok(text) => Ok(text.trim() != "0"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let on = is_on("/proc/sys/net/ipv4/ip_forward")? || is_on("/proc/sys/net/ipv6/conf/all/forwarding")?;
        Ok(on && rtnl::ways_out()? > 1)
    })
}

/// The namespace with this cookie: nothing for the current one, otherwise a file of it, if
/// somebody is in it or it has a name.
fn reach(cookie: u64) -> Option<Option<File>> {
    if listen::cookie(None, 0).is_ok_and(|own| own == cookie) {
        return Some(None);
    }
    let listed = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<PathBuf>>()
    };
    let named = NAMED.iter().flat_map(|folder| listed(folder));
    let is_process =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.as_encoded_bytes()[0].is_ascii_digit());
    let used = listed("/proc").into_iter().filter(is_process).map(|path| path.join("ns/net"));
    let mut seen = HashSet::new();
    let mut look = |path: &Path| {
        let file = File::open(path).ok()?;
        let new = seen.insert(file.metadata().ok()?.ino());
        (new && listen::cookie(Some(&file), 0).ok()? == cookie).then_some(file)
    };
    named.chain(used).find_map(|path| look(&path)).map(Some)
}

/// Whether the kernel has links on interfaces: then what is wrong is that there is no such
/// interface, not the question.
fn has_links(program: BorrowedFd<'_>) -> bool {
    let made = links::create_on(program, NO_INTERFACE, AttachType::TcxEgress);
    !matches!(made, Err(error) if error.raw_os_error() == Some(libc::EINVAL))
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
            Place { wall: false, netns: 4711, interface: 2, within: None },
            Place { wall: true, netns: u64::MAX, interface: u32::MAX, within: None },
            Place { wall: true, netns: 4711, interface: 3, within: Some(u64::MAX) },
        ] {
            assert_eq!(Place::of_pin(&place.pin()), Some(place));
            assert!(place.marker().is_none_or(|it| Place::of_pin(&it).is_none()));
        }
        for other in
            ["connect4", "egress@17", "tc_egress+1", "tc_egress+1+2+3+4", "tc_egress+01+2", "tc_x+1+2"]
        {
            assert!(Place::of_pin(other).is_none(), "{other}");
        }
    }
}
