//! Loading, attaching and pinning the kernel half: the only user of aya, in a
//! process of its own.
//!
//! ```text
//!            load_or_adopt                     release
//!   nothing ───────────────▶ enforcing ───────────────────▶ nothing
//!                             │     ▲
//!        the loader dies      ▼     │  load_or_adopt: maps kept, programs replaced
//!                          orphaned ┘  (tagged cgroups are refused, others untouched)
//! ```
//!
//! Links and maps are pinned, so that what holds does not depend on a process
//! of ours. Everything here is synchronous, and nothing here reads what a job
//! or a target sent.
#![allow(unsafe_code, reason = "bpf(2), and map values that aya takes as plain bytes")]

mod attach;
mod before;
mod btf;
mod cgroup;
mod clsact;
mod event;
mod executor;
mod foreign;
mod health;
mod held;
mod kept;
mod links;
mod listen;
mod load;
mod log;
mod lsm;
mod maps;
mod packet;
mod pins;
mod rtnl;
mod tc;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, SkStorage};
use enforcer_common as abi;
use enforcer_common::cfg;
use thiserror::Error;

pub use before::{Closed, Spared, close_foreign};
pub use cgroup::{cgroup_id, cgroup2_mount, find_cgroup2};
pub use event::{Refusal, Refusals};
pub use foreign::Foreign;
pub use health::{Health, LinkHealth};
pub use held::{Holder, share_files};
pub use listen::Listeners;
pub use log::ProgramLog;
pub use lsm::{LsmConfig, LsmMode, Tier, TierState};
pub use rtnl::{Cables, LinkChanges};
pub use tc::Tc;

use attach::Attachment;
use lsm::LsmTier;
use maps::PinnedMap;
use packet::PacketHooks;
use pins::{Lock, PinDir};
use tc::Interfaces;

/// What the loader has to know.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The compiled kernel half.
    pub object: PathBuf,
    /// Directory of the pins, as process 1 sees it; its parent is, or becomes, a bpffs.
    pub pins: PathBuf,
    /// Cgroup at which the socket hooks are attached: the root of cgroup2 in production.
    pub attach: PathBuf,
    /// The enforcer's own cgroup: its processes may take the ports and read flow records.
    pub own: PathBuf,
    /// Parent of all jobs: the packet hooks are attached here.
    pub jobs: PathBuf,
    pub tcp_port: u16,
    pub dns_port: u16,
    /// The second tier.
    pub lsm: LsmConfig,
    /// What there is on interfaces.
    pub tc: Tc,
}

/// What tagged processes get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are redirected to the proxy.
    Redirect,
    /// They have no network.
    Deny,
}

#[derive(Debug, Error)]
pub enum KernelError {
    #[error("no cgroup2 mount in /proc/self/mountinfo: mount one at /sys/fs/cgroup")]
    NoCgroup2,
    #[error("{path} is not a directory of the cgroup2 mount {mount}")]
    NotACgroup { path: PathBuf, mount: PathBuf },
    #[error("{path} stands {level} levels deep, and tags are looked for at {max} at most", max = abi::MAX_LEVEL)]
    TooDeep { path: PathBuf, level: u32 },
    #[error("tag 0 means nobody")]
    NoTag,
    #[error("{0} holds the enforcer itself: tag a cgroup beside it")]
    OwnCgroup(PathBuf),
    #[error("{path} is not below {attach}, where the hooks are attached: nothing would be enforced there")]
    NotAttached { path: PathBuf, attach: PathBuf },
    #[error("{max} cgroups are tagged, and more cannot be: untag others, or tag their parent", max = abi::MAX_TAGS)]
    TooManyTags,
    #[error(
        "the loader runs in a cgroup namespace, where it does not see how deep a cgroup stands: start it outside"
    )]
    CgroupNamespace,
    #[error(
        "the loader runs in a private mount namespace, where pins would die with it, and that of process 1 \
         cannot be entered (/proc/1/root): start it outside, or mount a bpffs on {0} of the host first"
    )]
    PrivateMounts(PathBuf),
    #[error("{0} is open to others than root: remove it, and mount the bpffs above it with mode=0700")]
    ForeignPins(PathBuf),
    #[error("another loader holds {0}: stop it first")]
    Locked(PathBuf),
    #[error(
        "the pins in {path} are of version {found}, this is {wanted}, and what is tagged stays as it is: end \
         the jobs, run `enforcer release --all`, which lifts the enforcement of those that run on, and start \
         again; or start the version that made them"
    )]
    Version { path: PathBuf, found: u64, wanted: u64 },
    #[error("{path}: {doing} failed")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("loading {path} failed")]
    Load { path: PathBuf, source: Box<aya::EbpfError> },
    #[error("{path} has no {name}: it was built from other sources")]
    Missing { path: PathBuf, name: &'static str },
    #[error("the kernel refused the program {name}")]
    Program { name: &'static str, source: Box<aya::programs::ProgramError> },
    #[error("attaching {name} to {path} failed")]
    Attach { name: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{name} cannot be attached to {path} beside {other}, which somebody attached to have no other there: \
         detach that with `bpftool cgroup detach`, or have it attached with BPF_F_ALLOW_MULTI"
    )]
    Exclusive { name: &'static str, path: PathBuf, other: String },
    #[error("`lsm` cannot be had, which `[kernel] lsm` requires or an earlier loader had: {why}")]
    NoLsm { why: String },
    #[error(
        "`{0}` in `[kernel] unix_allow` is no name of a Unix socket: a path from the root, or `@` and \
         an abstract name, of at most {max} bytes", max = abi::UNIX_NAME
    )]
    UnixName(String),
    #[error("map {name}")]
    Map { name: &'static str, source: Box<aya::maps::MapError> },
    #[error("the log of the programs")]
    Log(#[source] Box<aya_log::Error>),
    #[error("listening on {port} of the network namespace failed")]
    Listen { port: u16, source: io::Error },
    #[error("closing sockets from before the tag failed")]
    FromBefore { source: io::Error },
    #[error("the interfaces of a network namespace")]
    Interfaces(#[source] io::Error),
    #[error("the thread in the other namespace ended without an answer")]
    Thread,
}

type Result<T, E = KernelError> = std::result::Result<T, E>;

/// The loaded kernel half. Dropping it changes nothing in the kernel.
pub struct Kernel {
    config: KernelConfig,
    mount: PathBuf,
    pins: PinDir,
    attachments: Vec<Attachment>,
    maps: Vec<PinnedMap>,
    /// Programs of others that were there before, by id.
    known: BTreeSet<u32>,
    settings: Array<MapData, u64>,
    tags: HashMap<MapData, u64, Plain<abi::Tag>>,
    served: HashMap<MapData, u64, Plain<abi::Netns>>,
    sockets: SkStorage<MapData, Plain<abi::Flow>>,
    refusals: Option<Refusals>,
    log: Option<ProgramLog>,
    packet: PacketHooks,
    interfaces: Interfaces,
    /// The namespace whose interfaces are guarded from here: the service's own.
    home: Option<u64>,
    lsm: LsmTier,
    _lock: Lock,
}

impl Kernel {
    /// Loads the programs and attaches them, or replaces those that an earlier
    /// loader left; maps, tags and served namespaces are kept.
    pub fn load_or_adopt(config: KernelConfig) -> Result<Self> {
        cgroup::require_initial_namespace()?;
        let mount = cgroup2_mount()?;
        let pins = PinDir::prepare(&config.pins)?;
        let lock = Lock::take(&pins)?;
        let loaded = load::load(&config, &mount, &pins)?;
        let mut kernel = Self {
            config,
            mount,
            pins,
            attachments: loaded.attachments,
            maps: loaded.maps,
            known: BTreeSet::new(),
            settings: loaded.settings,
            tags: loaded.tags,
            served: loaded.served,
            sockets: loaded.sockets,
            refusals: Some(loaded.refusals),
            log: loaded.log,
            packet: loaded.packet,
            interfaces: loaded.interfaces,
            home: None,
            lsm: loaded.lsm,
            _lock: lock,
        };
        kernel.adopt_packet_hooks()?;
        kernel.know_others()?;
        kernel.interfaces.adopt(&kernel.pins)?;
        Ok(kernel)
    }

    fn adopt_packet_hooks(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.tags()?.into_iter().map(|(id, _)| id).collect();
        let mut tagged =
            if ids.is_empty() { Default::default() } else { packet::find(&self.config.attach, &ids) };
        if self.lsm.is_new {
            for path in tagged.values() {
                // A workload that forks without end does not keep the service from starting.
                if let Err(error) = self.lsm.bind_all(path) {
                    tracing::error!(%error, "processes of a tagged cgroup are not bound by the tier lsm");
                }
            }
        }
        tagged.retain(|_, path| !path.starts_with(&self.config.jobs));
        if !self.packet.adopt(&self.pins, tagged)? {
            self.look_at_the_root()?;
        }
        Ok(())
    }

    /// Looks which file systemd's executor is now; for the second tier.
    pub fn know_executor(&mut self) -> Result<()> {
        executor::tell(&mut self.settings, &self.config.lsm.executor)
    }

    /// Tags a cgroup and all below it, and returns its id. Do this before the
    /// first process enters. A tag further down counts more than one above it.
    ///
    /// A cgroup that is not below the parent of all jobs gets packet hooks of its
    /// own. If they fail the tag is in force all the same: a backstop is missing.
    pub fn tag(&mut self, path: &Path, tag: u64, flags: u32) -> Result<u64> {
        if tag == 0 {
            return Err(KernelError::NoTag);
        }
        let id = cgroup_id(path)?;
        let level = cgroup::level(&self.mount, path)?;
        if cgroup::holds(path, &self.config.own)? {
            // The proxy would be redirected to itself.
            return Err(KernelError::OwnCgroup(path.to_owned()));
        }
        if !cgroup::holds(&self.config.attach, path)? {
            let attach = self.config.attach.clone();
            return Err(KernelError::NotAttached { path: path.to_owned(), attach });
        }
        // The level first: an entry at a level that nobody looks at is no tag.
        let levels = self.setting(cfg::LEVELS)? | 1 << level;
        self.set(cfg::LEVELS, levels)?;
        let entry = Plain(abi::Tag { id: tag, flags, level });
        self.tags.insert(id, entry, 0).map_err(|error| match &error {
            aya::maps::MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                KernelError::TooManyTags
            }
            _ => map_error("TAGS")(error),
        })?;
        if !cgroup::holds(&self.config.jobs, path)?
            && let Err(error) = self.packet.attach(&self.pins, id, path)
        {
            self.look_at_the_root()?;
            return Err(error);
        }
        // Last: a workload that forks without end can make it fail.
        self.lsm.bind_all(path)?;
        Ok(id)
    }

    /// Lifts the tag of a cgroup; false when it had none.
    pub fn untag(&mut self, cgroup: u64) -> Result<bool> {
        if self.packet.is_at(cgroup) {
            // From here on what its sockets send is seen at the root only.
            self.look_at_the_root()?;
        }
        let had = match self.tags.remove(&cgroup) {
            Ok(()) => true,
            Err(aya::maps::MapError::KeyNotFound) => false,
            Err(aya::maps::MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
                false
            }
            Err(e) => return Err(map_error("TAGS")(e)),
        };
        if had {
            let levels = self.tags()?.iter().fold(0, |levels, (_, tag)| levels | 1 << tag.level);
            self.set(cfg::LEVELS, levels)?;
        }
        // After the tag: until then they are its backstop.
        self.packet.detach(&self.pins, cgroup)?;
        Ok(had)
    }

    /// All tagged cgroups by id, those of an earlier loader too.
    pub fn tags(&self) -> Result<Vec<(u64, abi::Tag)>> {
        self.tags.iter().map(|entry| entry.map(|(id, tag)| (id, tag.0)).map_err(map_error("TAGS"))).collect()
    }

    /// The tag of the cgroup in which a process is, for those who must not
    /// listen to a workload. A process that is gone has none.
    pub fn tag_of_process(&self, pid: u32) -> Result<Option<u64>> {
        let Some(path) = cgroup::of_process(&self.mount, pid)? else { return Ok(None) };
        // From the inside out, as the programs look.
        for ancestor in path.ancestors().take_while(|it| it.starts_with(&self.mount)) {
            match self.tags.get(&cgroup_id(ancestor)?, 0) {
                Ok(tag) => return Ok(Some(tag.0.id)),
                Err(aya::maps::MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("TAGS")(e)),
            }
        }
        Ok(None)
    }

    /// Opens the listeners of a network namespace (the current one when none is
    /// given) and lets its tagged processes be redirected to them. The caller
    /// has to be in the enforcer's own cgroup: others may not take these ports,
    /// and accepted sockets belong to the cgroup of whoever opened the listener.
    pub fn open_listeners(&mut self, netns: Option<&File>) -> Result<Listeners> {
        let (tcp_port, dns_port) = (self.config.tcp_port, self.config.dns_port);
        let cookie = listen::cookie(netns, tcp_port)?;
        let earlier = self.served.get(&cookie, 0).ok();
        // Before they are opened: the bind hooks then notice that it is us.
        let served = abi::Netns { tcp_port, dns_port, flags: abi::NETNS_NO_IPV6 };
        self.served.insert(cookie, Plain(served), 0).map_err(map_error("NETNS"))?;
        let listeners = match listen::open(netns, tcp_port, dns_port) {
            Ok(listeners) => listeners,
            Err(error) => {
                // Whoever has the ports was there first, and keeps them.
                if earlier.is_none() {
                    self.forget_netns(cookie)?;
                }
                return Err(error);
            }
        };
        if listeners.has_ipv6() {
            let served = abi::Netns { flags: 0, ..served };
            self.served.insert(cookie, Plain(served), 0).map_err(map_error("NETNS"))?;
        }
        Ok(listeners)
    }

    /// The cookies of all namespaces that are served, or were by an earlier loader.
    pub fn served(&self) -> Result<Vec<u64>> {
        self.served.keys().map(|cookie| cookie.map_err(map_error("NETNS"))).collect()
    }

    /// Drops what AF_PACKET sockets of tagged cgroups send by any interface of a network
    /// namespace but `lo`: of the current one when none is given. To be called again when
    /// interfaces may have come.
    pub fn guard_interfaces(&mut self, netns: u64, file: Option<&File>) -> Result<()> {
        if file.is_none() {
            self.home = Some(netns);
        }
        self.interfaces.guard(&self.pins, netns, file)
    }

    /// Drops everything that comes out of a network namespace by its cables that end in
    /// the current one, at these `ends`: for a namespace in which everybody is tagged, and
    /// traffic has no business but on its own `lo`. Without ends this is undone.
    pub fn wall_off(&mut self, netns: u64, ends: &[u32]) -> Result<()> {
        self.interfaces.wall(&self.pins, netns, ends)
    }

    /// Leaves what leads into or out of a network namespace as it was.
    pub fn unguard(&mut self, netns: u64) -> Result<()> {
        self.interfaces.leave(&self.pins, netns)
    }

    /// Leaves the interfaces of all network namespaces but these as they were.
    pub fn guard_only(&mut self, netns: &[u64]) -> Result<()> {
        self.interfaces.leave_others(&self.pins, netns)
    }

    /// How many interfaces are guarded, or why none can be.
    pub fn guarded_interfaces(&self) -> std::result::Result<usize, String> {
        self.interfaces.state()
    }

    /// Stops serving a namespace that is gone, or whose listeners are closed for good.
    pub fn forget_netns(&mut self, netns: u64) -> Result<()> {
        match self.served.remove(&netns) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(aya::maps::MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(e) => Err(map_error("NETNS")(e)),
        }
    }

    pub fn set_mode(&mut self, mode: Mode) -> Result<()> {
        self.set(cfg::MODE, if mode == Mode::Deny { cfg::MODE_DENY } else { cfg::MODE_REDIRECT })
    }

    /// What of the enforcement this kernel has, and why not the rest.
    pub fn tiers(&self) -> Vec<Tier> {
        let cgroup = Tier { name: "cgroup", state: TierState::Active };
        vec![
            cgroup,
            Tier { name: "lsm", state: self.lsm.state.clone() },
            Tier { name: "tc", state: self.interfaces.tier() },
        ]
    }

    /// The reader of refusals, once: for a thread or a task that waits for them.
    pub fn refusals(&mut self) -> Option<Refusals> {
        self.refusals.take()
    }

    /// Refusals that wait to be read, without waiting. Empty once `refusals` was called.
    pub fn poll_refusals(&mut self) -> Vec<Refusal> {
        self.refusals.as_mut().map(Refusals::read).unwrap_or_default()
    }

    /// The reader of what the programs of a debug build log, once: for a thread
    /// that waits for it. Those for hosts do not log, and have none.
    pub fn program_log(&mut self) -> Option<ProgramLog> {
        self.log.take()
    }

    /// Lifts all enforcement: every link, pin, map and directory, and the bpffs
    /// if it was mounted for us.
    pub fn release(self) -> Result<()> {
        let Self {
            pins, settings, tags, served, sockets, refusals, log, attachments, maps, lsm, _lock, ..
        } = self;
        tc::release(&pins)?;
        pins.remove()?;
        // What somebody has unpinned is detached by this.
        drop((settings, tags, served, sockets, refusals, log, attachments, maps, lsm));
        Ok(())
    }

    /// The program at the root looks at every packet from here on: hooks of a cgroup's own
    /// may be missing.
    fn look_at_the_root(&mut self) -> Result<()> {
        self.set(cfg::NO_FOREIGN, 0)
    }

    fn setting(&self, index: u32) -> Result<u64> {
        self.settings.get(&index, 0).map_err(map_error("CFG"))
    }

    fn set(&mut self, index: u32, value: u64) -> Result<()> {
        self.settings.set(index, value, 0).map_err(map_error("CFG"))
    }
}

/// By which the programs know a network namespace; never used again while the host is up.
pub fn netns_cookie(netns: &File) -> Result<u64> {
    listen::cookie(Some(netns), 0)
}

/// The same for the current one.
pub fn own_netns_cookie() -> Result<u64> {
    listen::cookie(None, 0)
}

/// Whether it passes on what comes in by one of its interfaces to another: what leaves it
/// may be anybody's.
pub fn netns_forwards(netns: &File) -> Result<bool> {
    tc::forwards(netns)
}

/// Lifts all enforcement when no loader runs: for `enforcer release --all` and
/// for the removal of the package. Nothing pinned is success.
pub fn release(pins: &Path) -> Result<()> {
    let pins = PinDir::reach(pins)?;
    if !pins.exists() {
        return pins.unmount();
    }
    let _lock = Lock::take(&pins)?;
    tc::release(&pins)?;
    pins.remove()
}

/// A map value of the shared layout, which has no padding.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: the layouts are `repr(C)` structs of integers; their sizes are asserted where they are defined.
unsafe impl aya::Pod for Plain<abi::Tag> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<abi::Netns> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<abi::Flow> {}

fn map_error(name: &'static str) -> impl Fn(aya::maps::MapError) -> KernelError {
    move |source| KernelError::Map { name, source: Box::new(source) }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KernelError + 'a {
    move |source| KernelError::Io { doing, path: path.to_owned(), source }
}
