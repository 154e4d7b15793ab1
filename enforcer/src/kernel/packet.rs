//! Packet hooks of tagged cgroups outside of the parent of all jobs: a pair of
//! links for each, pinned by the cgroup's id.
//!
//! A cgroup that is removed takes its links along: what is left is a pin of a link
//! to nothing, which is no fault. A link to nothing of a cgroup that is still there
//! was detached by somebody.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::Program;

use super::links::{self, AttachType};
use super::pins::PinDir;
use super::{KernelError, LinkHealth, Result, cgroup, io_error};

/// Between the name of the program and the id of the cgroup in the name of a pin.
const SEPARATOR: char = '@';

pub(super) struct PacketHooks {
    programs: Vec<Loaded>,
    /// The cgroups that have to have both links.
    held: BTreeMap<u64, PathBuf>,
}

struct Loaded {
    name: &'static str,
    attach_type: AttachType,
    fd: OwnedFd,
    id: u32,
}

impl PacketHooks {
    /// Takes the programs, which are loaded by now.
    pub fn of(ebpf: &Ebpf, object: &Path) -> Result<Self> {
        let mut programs = Vec::new();
        for (name, attach_type) in [("egress", AttachType::Egress), ("ingress", AttachType::Ingress)] {
            let missing = || KernelError::Missing { path: object.to_owned(), name };
            let Some(Program::CgroupSkb(program)) = ebpf.program(name) else { return Err(missing()) };
            let refused = |source| KernelError::Program { name, source: Box::new(source) };
            let fd = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
            let fd = fd.map_err(io_error("keeping the program", object))?;
            let id = program.info().map_err(refused)?.id();
            programs.push(Loaded { name, attach_type, fd, id });
        }
        Ok(Self { programs, held: BTreeMap::new() })
    }

    /// Takes over what an earlier loader left: cgroups that are still tagged get the
    /// programs of this one, pins of all others are removed. False if one could not.
    pub fn adopt(&mut self, pins: &PinDir, tagged: HashMap<u64, PathBuf>) -> Result<bool> {
        let mut all = true;
        for name in pins.links()? {
            if let Some((_, id)) = name.split_once(SEPARATOR)
                && id.parse().ok().is_none_or(|id: u64| !tagged.contains_key(&id))
            {
                remove(&pins.link(&name))?;
            }
        }
        for (cgroup, path) in tagged {
            if let Err(error) = self.attach(pins, cgroup, &path) {
                // Health has it from here on.
                tracing::error!("packet hooks of a tagged cgroup: {:#}", anyhow::Error::from(error));
                all = false;
            }
        }
        Ok(all)
    }

    /// Attaches both programs to this cgroup, or replaces those that are there.
    pub fn attach(&mut self, pins: &PinDir, cgroup: u64, path: &Path) -> Result<()> {
        self.held.insert(cgroup, path.to_owned());
        for program in &self.programs {
            let failed = |source| KernelError::Attach { name: program.name, path: path.to_owned(), source };
            let pin = pins.link(&pin_name(program.name, cgroup));
            let earlier = links::pinned(&pin).ok();
            if let Some(link) = &earlier
                && links::info(link.as_fd()).map_err(failed)?.cgroup == cgroup
            {
                links::update(link.as_fd(), program.fd.as_fd()).map_err(failed)?;
                continue;
            }
            let dir = File::open(path).map_err(failed)?;
            let link = links::create(program.fd.as_fd(), dir.as_fd(), program.attach_type).map_err(failed)?;
            remove(&pin)?;
            links::pin(link.as_fd(), &pin).map_err(failed)?;
        }
        Ok(())
    }

    /// Detaches them; a cgroup that has none, or that is gone, is no error.
    pub fn detach(&mut self, pins: &PinDir, cgroup: u64) -> Result<()> {
        self.held.remove(&cgroup);
        for program in &self.programs {
            // The pin is the only thing that holds the link.
            remove(&pins.link(&pin_name(program.name, cgroup)))?;
        }
        Ok(())
    }

    /// Whether they are attached to this cgroup, and it is still there.
    pub fn is_at(&self, cgroup: u64) -> bool {
        self.held.get(&cgroup).is_some_and(|path| cgroup::cgroup_id(path).is_ok_and(|now| now == cgroup))
    }

    /// Where they are attached, and which programs.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.held.values().map(PathBuf::as_path)
    }

    pub fn program_ids(&self) -> impl Iterator<Item = u32> {
        self.programs.iter().map(|program| program.id)
    }

    /// Attaches again what somebody has detached, as far as its cgroup is there.
    pub fn restore(&mut self, pins: &PinDir) -> Result<()> {
        for (cgroup, path) in self.held.clone() {
            if cgroup::cgroup_id(&path).is_ok_and(|now| now == cgroup) {
                self.attach(pins, cgroup, &path)?;
            }
        }
        Ok(())
    }

    /// How the links of all cgroups are that still exist.
    pub fn health(&self, pins: &PinDir) -> Vec<LinkHealth> {
        let mut found = Vec::new();
        for (id, path) in &self.held {
            for program in &self.programs {
                let name = pin_name(program.name, *id);
                let problem = links::problem(&pins.link(&name), *id, program.id);
                // Asked afterwards: it may be removed at any time.
                if cgroup::cgroup_id(path).is_ok_and(|now| now == *id) {
                    found.push(LinkHealth::of(name, problem));
                }
            }
        }
        found
    }
}

/// The cgroups with these ids at `root` and below: where they are.
pub(super) fn find(root: &Path, ids: &[u64]) -> HashMap<u64, PathBuf> {
    let (mut found, mut open) = (HashMap::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        if found.len() == ids.len() {
            break;
        }
        // Others remove theirs meanwhile.
        let Ok(id) = cgroup::cgroup_id(&path) else { continue };
        if let Ok(entries) = fs::read_dir(&path) {
            let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(below.map(|entry| entry.path()));
        }
        if ids.contains(&id) {
            found.insert(id, path);
        }
    }
    found
}

fn pin_name(program: &str, cgroup: u64) -> String {
    format!("{program}{SEPARATOR}{cgroup}")
}

/// A pin that is not there is no error.
pub(super) fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("removing", pin)(error)),
        _ => Ok(()),
    }
}
