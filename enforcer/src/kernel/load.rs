//! Loads the object, keeps the pinned maps, and makes or replaces the links.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, RingBuf, SkStorage};
use aya::programs::{Program, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use enforcer_common as abi;
use enforcer_common::cfg;

use super::attach::{Attachment, Loaded};
use super::links::{self, AttachType};
use super::lsm::{self, LsmTier};
use super::maps::PinnedMap;
use super::packet::PacketHooks;
use super::pins::PinDir;
use super::tc::Interfaces;
use super::{
    KernelConfig, KernelError, Plain, ProgramLog, Refusals, Result, cgroup, io_error, kept, map_error,
};

/// Which cgroup a program is attached to.
#[derive(Clone, Copy)]
enum Place {
    Attach,
    Own,
    Jobs,
}

/// In the order in which links are made and replaced: what only refuses comes
/// first, and what redirects comes last, when all that it relies on stands.
const PROGRAMS: &[(&str, AttachType, Place)] = &[
    ("egress", AttachType::Egress, Place::Jobs),
    ("ingress", AttachType::Ingress, Place::Jobs),
    ("root_egress", AttachType::Egress, Place::Attach),
    ("own_egress", AttachType::Egress, Place::Own),
    ("sock_create", AttachType::SockCreate, Place::Attach),
    ("setsockopt", AttachType::Setsockopt, Place::Attach),
    ("bind4", AttachType::Bind4, Place::Attach),
    ("bind6", AttachType::Bind6, Place::Attach),
    ("own_setsockopt", AttachType::Setsockopt, Place::Own),
    ("own_getsockopt", AttachType::Getsockopt, Place::Own),
    ("recvmsg4", AttachType::Recvmsg4, Place::Attach),
    ("recvmsg6", AttachType::Recvmsg6, Place::Attach),
    ("getpeername4", AttachType::Getpeername4, Place::Attach),
    ("getpeername6", AttachType::Getpeername6, Place::Attach),
    ("sendmsg4", AttachType::Sendmsg4, Place::Attach),
    ("sendmsg6", AttachType::Sendmsg6, Place::Attach),
    ("connect4", AttachType::Connect4, Place::Attach),
    ("connect6", AttachType::Connect6, Place::Attach),
];

/// Programs of earlier releases that are not needed any more: their links are removed
/// when those of this release stand.
const RETIRED: &[&str] = &["sock_ops"];

const MAPS: &[&str] =
    &["TAGS", "CFG", "NETNS", "FLOWS", "EVENTS", "RATE", "SOCKETS", "ASKED", "UNIX_ALLOW", "BOUND"];

pub(super) struct Half {
    pub attachments: Vec<Attachment>,
    pub maps: Vec<PinnedMap>,
    pub settings: Array<MapData, u64>,
    pub tags: HashMap<MapData, u64, Plain<abi::Tag>>,
    pub served: HashMap<MapData, u64, Plain<abi::Netns>>,
    pub sockets: SkStorage<MapData, Plain<abi::Flow>>,
    pub refusals: Refusals,
    pub log: Option<ProgramLog>,
    pub packet: PacketHooks,
    pub interfaces: Interfaces,
    pub lsm: LsmTier,
}

pub(super) fn load(config: &KernelConfig, mount: &Path, pins: &PinDir) -> Result<Half> {
    check_version(pins)?;
    let prepared = lsm::prepare(config.lsm.mode);
    let mut ebpf = load_object(config, pins, prepared.as_ref().ok().map(|it| &it.offsets))?;
    let mut settings = Array::try_from(take(&mut ebpf, config, "CFG")?).map_err(map_error("CFG"))?;
    let tags = HashMap::try_from(take(&mut ebpf, config, "TAGS")?).map_err(map_error("TAGS"))?;
    let served = HashMap::try_from(take(&mut ebpf, config, "NETNS")?).map_err(map_error("NETNS"))?;
    let sockets = SkStorage::try_from(take(&mut ebpf, config, "SOCKETS")?).map_err(map_error("SOCKETS"))?;
    let ring = RingBuf::try_from(take(&mut ebpf, config, "EVENTS")?).map_err(map_error("EVENTS"))?;
    let log = ProgramLog::of(&mut ebpf)?;
    let own = cgroup::cgroup_id(&config.own)?;
    let own_level = cgroup::level(mount, &config.own)?;
    let fresh = settings.get(&cfg::ABI, 0).map_err(map_error("CFG"))? == 0;
    // Settings before links: from its first run a program knows who we are.
    for (index, value) in
        [(cfg::OWN_ID, own), (cfg::OWN_LEVEL, u64::from(own_level)), (cfg::ABI, abi::ABI_VERSION)]
    {
        settings.set(index, value, 0).map_err(map_error("CFG"))?;
    }
    // All before the first is attached.
    for (name, ..) in PROGRAMS {
        load_program(&mut ebpf, config, name)?;
    }
    if fresh {
        settings.set(cfg::NO_FOREIGN, 1, 0).map_err(map_error("CFG"))?;
    } else if !says_who_uses_sockets(&ebpf, pins) {
        settings.set(cfg::NO_FOREIGN, 0, 0).map_err(map_error("CFG"))?;
    }
    let mut attachments = Vec::with_capacity(PROGRAMS.len());
    for (name, attach_type, place) in PROGRAMS {
        let cgroup = match place {
            Place::Attach => &config.attach,
            Place::Own => &config.own,
            Place::Jobs => &config.jobs,
        };
        attachments.push(attach(&ebpf, config, pins, name, *attach_type, cgroup)?);
    }
    for name in RETIRED {
        pins.remove_link(name)?;
    }
    kept::adopt_former(pins, &attachments)?;
    let packet = PacketHooks::of(&ebpf, &config.object)?;
    let maps = MAPS.iter().map(|name| PinnedMap::of(pins, name)).collect::<Result<_>>()?;
    let interfaces = Interfaces::of(&mut ebpf, config.tc);
    let lsm = lsm::load(&mut ebpf, config, pins, &mut settings, prepared)?;
    Ok(Half {
        attachments,
        maps,
        settings,
        tags,
        served,
        sockets,
        refusals: Refusals::new(ring),
        log,
        packet,
        interfaces,
        lsm,
    })
}

/// Maps of another layout must not be given to these programs.
fn check_version(pins: &PinDir) -> Result<()> {
    let path = pins.map("CFG");
    if !path.exists() {
        return Ok(());
    }
    let map = MapData::from_pin(&path).map_err(map_error("CFG"))?;
    let settings: Array<_, u64> = Array::try_from(Map::Array(map)).map_err(map_error("CFG"))?;
    match settings.get(&cfg::ABI, 0).map_err(map_error("CFG"))? {
        // 0: an earlier loader ended before it had attached anything.
        0 | abi::ABI_VERSION => Ok(()),
        found => Err(KernelError::Version { path: pins.shown().to_owned(), found, wanted: abi::ABI_VERSION }),
    }
}

fn load_object(config: &KernelConfig, pins: &PinDir, offsets: Option<&Plain<abi::Offsets>>) -> Result<Ebpf> {
    let paths: Vec<(&str, PathBuf)> = MAPS.iter().map(|name| (*name, pins.map(name))).collect();
    let mut loader = EbpfLoader::new();
    // Storage of tasks: aya makes it and has no type for it.
    loader.allow_unsupported_maps();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    // Of a debug build: only lines that somebody wants to read are made.
    let level = log::max_level() as u8;
    loader.override_global(aya_log::LEVEL, &level, false);
    if let Some(offsets) = offsets {
        loader.override_global("OFFSETS", offsets, true);
    }
    let object = fs::read(&config.object).map_err(io_error("reading the object", &config.object))?;
    loader
        .load(&object)
        .map_err(|source| KernelError::Load { path: config.object.clone(), source: Box::new(source) })
}

fn take(ebpf: &mut Ebpf, config: &KernelConfig, name: &'static str) -> Result<Map> {
    ebpf.take_map(name).ok_or_else(|| KernelError::Missing { path: config.object.clone(), name })
}

fn load_program(ebpf: &mut Ebpf, config: &KernelConfig, name: &'static str) -> Result<()> {
    let missing = || KernelError::Missing { path: config.object.clone(), name };
    match ebpf.program_mut(name).ok_or_else(missing)? {
        Program::CgroupSkb(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSockopt(p) => p.load(),
        _ => return Err(missing()),
    }
    .map_err(|source| KernelError::Program { name, source: Box::new(source) })
}

/// Whether the programs that were attached before are of this build. Those of another
/// may have let workloads use sockets that they had not made without noting it.
fn says_who_uses_sockets(ebpf: &Ebpf, pins: &PinDir) -> bool {
    const NOTES: &str = "sock_create";
    let tag = ebpf.program(NOTES).and_then(|it| it.info().ok()).map(|it| it.tag());
    let before = links::pinned(&pins.link(NOTES)).and_then(|link| links::info(link.as_fd()));
    let Ok(before) = before else { return false };
    let mut loaded = loaded_programs().flatten();
    tag.is_some() && loaded.find(|it| it.id() == before.program).map(|it| it.tag()) == tag
}

/// Joins a loaded program to its cgroup.
fn attach(
    ebpf: &Ebpf,
    config: &KernelConfig,
    pins: &PinDir,
    name: &'static str,
    attach_type: AttachType,
    place: &Path,
) -> Result<Attachment> {
    let program =
        ebpf.program(name).ok_or_else(|| KernelError::Missing { path: config.object.clone(), name })?;
    let refused = |source| KernelError::Program { name, source: Box::new(source) };
    let id = program.info().map_err(refused)?.id();
    let fd = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(io_error("keeping the program", &config.object))?;
    Attachment::make(pins, name, attach_type, place, Loaded { fd, id })
}
