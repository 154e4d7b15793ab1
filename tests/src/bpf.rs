//! What of BPF the kernel holds, and what of it belongs to one service.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{loaded_links, loaded_programs};
use aya::sys::{Stats, enable_stats};

use crate::wait::{PATIENCE, within};

/// The kernel half that logs what it decides.
pub fn debug_object() -> Result<PathBuf> {
    let object = std::env::var_os("ENFORCER_BPF_DEBUG_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/enforcer.debug.bpf.o")),
        PathBuf::from,
    );
    ensure!(object.exists(), "no {}: run the tests by `cargo xtask test`", object.display());
    Ok(object)
}

/// Ids of objects, by kind; the kernel does not use one again soon.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// Those of the service with this directory of pins: its pinned maps, every program
    /// that uses one of them, every other map of those, every link to those.
    pub fn of(pins: &Path) -> Result<Self> {
        let mut found = Self::default();
        for entry in std::fs::read_dir(pins)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"map_")) {
                found.maps.insert(MapInfo::from_pin(&path)?.id());
            }
        }
        let pinned = found.maps.clone();
        // One that is freed while it is asked for is nobody's.
        for program in loaded_programs().flatten() {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|id| pinned.contains(id)) {
                found.programs.insert(program.id());
                found.maps.extend(maps);
            }
        }
        let links = loaded_links().flatten();
        found.links =
            links.filter(|it| found.programs.contains(&it.program_id())).map(|it| it.id()).collect();
        Ok(found)
    }

    pub fn add(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
    }

    /// Those that the kernel still has.
    fn remaining(&self) -> Self {
        let programs = loaded_programs().flatten().map(|it| it.id());
        let maps = loaded_maps().flatten().map(|it| it.id());
        let links = loaded_links().flatten().map(|it| it.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
        }
    }

    /// Waits until none of them is there: the kernel frees them behind the back of who lets them go.
    pub fn wait_gone(&self) -> Result<()> {
        let gone = within(PATIENCE, || self.remaining() == Self::default());
        ensure!(gone.is_some(), "still loaded: {:?}", self.remaining());
        Ok(())
    }
}

/// What the programs have cost so far: their names, runs and nanoseconds, by id.
#[derive(Clone, Debug, Default)]
pub struct Costs(pub BTreeMap<u32, Cost>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub name: String,
    pub runs: u64,
    pub ns: u64,
}

impl Costs {
    /// Of these programs. The kernel counts only while somebody holds `count_time`.
    pub fn of(programs: &BTreeSet<u32>) -> Self {
        let found = loaded_programs().flatten().filter(|it| programs.contains(&it.id()));
        let cost = |it: aya::programs::ProgramInfo| Cost {
            name: it.name_as_str().unwrap_or("?").to_owned(),
            runs: it.run_count(),
            ns: u64::try_from(it.run_time().as_nanos()).unwrap_or(u64::MAX),
        };
        Self(found.map(|it| (it.id(), cost(it))).collect())
    }

    /// What has been added since, by name.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, Cost> {
        let mut added = BTreeMap::new();
        for (id, now) in &self.0 {
            let (runs, ns) = earlier.0.get(id).map_or((0, 0), |then| (then.runs, then.ns));
            let sum =
                added.entry(now.name.clone()).or_insert(Cost { name: now.name.clone(), runs: 0, ns: 0 });
            sum.runs += now.runs - runs;
            sum.ns += now.ns - ns;
        }
        added
    }
}

/// Has the kernel count how often and how long programs run, until this is dropped.
pub fn count_time() -> Result<OwnedFd> {
    Ok(enable_stats(Stats::RunTime)?)
}
