//! The second tier: programs at the kernel's security hooks, where it runs such programs.
//!
//! Their links are pinned like the others. The kernel replaces no program of such a link,
//! so that a loader attaches its own beside the earlier ones and then moves its pins over
//! theirs: there is no moment without.
//!
//! That a program could be attached says nothing: without `bpf` among the security modules
//! of this boot it is never called. So the loader has one of them answer.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::Lsm;
use aya::{Btf, Ebpf};
use enforcer_common as abi;
use enforcer_common::{Offsets, UNIX_NAME, cfg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::btf::{BtfError, Structures};
use super::links::Problem;
use super::pins::PinDir;
use super::{KernelConfig, KernelError, LinkHealth, Plain, Result, executor, io_error, links, map_error};

/// `BPF_LSM_MAC` and `BPF_MAP_UPDATE_ELEM` of linux/bpf.h.
const LSM_MAC: u32 = 27;
const MAP_UPDATE: libc::c_int = 2;
const LIST: &str = "/sys/kernel/security/lsm";
/// By this the names of all these programs begin.
const PREFIX: &str = "lsm_";
/// How often the processes of a cgroup are listed until no new one is found.
const ROUNDS: usize = 100;
/// Characters of what the verifier says that are kept.
const VERIFIER: usize = 400;

/// Program and hook. What only watches comes first.
const HOOKS: &[(&str, &str)] = &[
    ("lsm_bpf", "bpf"),
    ("lsm_exec", "bprm_check_security"),
    ("lsm_clone", "task_alloc"),
    ("lsm_create", "socket_create"),
    ("lsm_sendmsg", "socket_sendmsg"),
    ("lsm_connect", "socket_connect"),
    ("lsm_receive", "file_receive"),
    ("lsm_open", "file_open"),
    ("lsm_unlink", "inode_unlink"),
    ("lsm_rename", "inode_rename"),
    ("lsm_ptrace", "ptrace_access_check"),
    ("lsm_kill", "task_kill"),
    ("lsm_capable", "capable"),
    ("lsm_unix", "unix_stream_connect"),
    ("lsm_unix_send", "unix_may_send"),
];
/// Only where splice and sendfile do not come through `socket_sendmsg`: before Linux 6.5.
const SPLICE: (&str, &str) = ("lsm_write", "file_permission");

/// Whether the second tier is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LsmMode {
    /// Where the kernel allows it; where not is reported.
    #[default]
    Auto,
    Off,
    /// Without it the service does not start.
    Require,
}

/// How the second tier is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsmConfig {
    pub mode: LsmMode,
    /// Unix sockets of processes outside that tagged ones may reach, by the name that the
    /// server gave them: a path, or `@` and an abstract name.
    pub unix_allow: Vec<String>,
    /// What systemd starts in the cgroup of a service before the service: no program of a
    /// workload. It need not be there.
    pub executor: PathBuf,
}

impl Default for LsmConfig {
    fn default() -> Self {
        Self {
            mode: LsmMode::Auto,
            unix_allow: Self::unix_default(),
            executor: PathBuf::from("/usr/lib/systemd/systemd-executor"),
        }
    }
}

impl LsmConfig {
    /// Readiness and logs of services, without which a tagged unit does not start.
    pub fn unix_default() -> Vec<String> {
        ["notify", "journal/stdout", "journal/socket", "journal/dev-log"]
            .map(|name| format!("/run/systemd/{name}"))
            .to_vec()
    }
}

/// A part of the enforcement that a kernel may have or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// `cgroup` or `lsm`.
    pub name: &'static str,
    pub state: TierState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierState {
    Active,
    /// Turned off in the configuration.
    Off,
    /// Why, and what to do about it.
    Unavailable {
        why: String,
    },
}

/// What is needed before the object is loaded.
pub(super) struct Prepared {
    pub offsets: Plain<Offsets>,
    splice: bool,
    btf: Btf,
}

/// The tier as it stands.
pub(super) struct LsmTier {
    pub state: TierState,
    /// No earlier loader had it: nobody is bound yet.
    pub is_new: bool,
    attached: Vec<Attached>,
    bound: Option<MapData>,
}

/// One program at its hook. The link is held as well as its pin, and nobody detaches one
/// that is held.
struct Attached {
    name: &'static str,
    link: OwnedFd,
    link_id: u32,
}

/// Looks at the kernel's types. What fails here is the reason why there is no second tier.
pub(super) fn prepare(mode: LsmMode) -> Result<Prepared, TierState> {
    if mode == LsmMode::Off {
        return Err(TierState::Off);
    }
    let unavailable = |why: String| TierState::Unavailable { why };
    let structures = Structures::of_this_kernel().map_err(|error| unavailable(told(&error)))?;
    let offsets = offsets(&structures).map_err(|error| unavailable(told(&error)))?;
    let btf = Btf::from_sys_fs().map_err(|error| unavailable(told(&error)))?;
    Ok(Prepared { offsets: Plain(offsets), splice: structures.offset("proto_ops.sendpage").is_ok(), btf })
}

fn offsets(of: &Structures) -> Result<Offsets, BtfError> {
    Ok(Offsets {
        socket_sk: of.offset("socket.sk")?,
        sock_family: of.offset("sock.__sk_common.skc_family")?,
        sock_state: of.offset("sock.__sk_common.skc_state")?,
        sock_protocol: of.offset("sock.sk_protocol")?,
        sock_cgroup: of.offset("sock.sk_cgrp_data.cgroup")?,
        unix_addr: of.offset("unix_sock.addr")?,
        unix_peer: of.offset("unix_sock.peer")?,
        unix_address_len: of.offset("unix_address.len")?,
        unix_address_name: of.offset("unix_address.name")?,
        cgroup_level: of.offset("cgroup.level")?,
        cgroup_kn: of.offset("cgroup.kn")?,
        cgroup_ancestors: of.offset("cgroup.ancestors")?,
        kernfs_id: of.offset("kernfs_node.id")?,
        // It was renamed when it came under RCU.
        kernfs_parent: of.offset("kernfs_node.parent").or_else(|_| of.offset("kernfs_node.__parent"))?,
        kernfs_priv: of.offset("kernfs_node.priv")?,
        task_leader: of.offset("task_struct.group_leader")?,
        task_cgroups: of.offset("task_struct.cgroups")?,
        css_set_cgroup: of.offset("css_set.dfl_cgrp")?,
        file_inode: of.offset("file.f_inode")?,
        file_mode: of.offset("file.f_mode")?,
        file_private: of.offset("file.private_data")?,
        inode_mode: of.offset("inode.i_mode")?,
        inode_super: of.offset("inode.i_sb")?,
        inode_private: of.offset("inode.i_private")?,
        super_magic: of.offset("super_block.s_magic")?,
        userns_level: of.offset("user_namespace.level")?,
        bprm_file: of.offset("linux_binprm.file")?,
        inode_number: of.offset("inode.i_ino")?,
        super_device: of.offset("super_block.s_dev")?,
        task_parent: of.offset("task_struct.real_parent")?,
        task_tgid: of.offset("task_struct.tgid")?,
    })
}

/// Attaches the tier, or says why it cannot be had.
pub(super) fn load(
    ebpf: &mut Ebpf,
    config: &KernelConfig,
    pins: &PinDir,
    settings: &mut Array<MapData, u64>,
    prepared: Result<Prepared, TierState>,
) -> Result<LsmTier> {
    let is_new = !pins.links()?.iter().any(|name| name.starts_with(PREFIX));
    let attached = match prepared {
        Ok(prepared) => {
            allow(ebpf, config)?;
            executor::tell(settings, &config.lsm.executor)?;
            attach(ebpf, pins, settings, &prepared)?
        }
        Err(state) => Err(state),
    };
    let names: Vec<_> = attached.iter().flatten().map(|it| it.name).collect();
    let stale = |name: &String| name.starts_with(PREFIX) && !names.contains(&name.as_str());
    let stale: Vec<String> = pins.links()?.into_iter().filter(stale).collect();
    match attached {
        Err(TierState::Unavailable { why }) if config.lsm.mode == LsmMode::Require => {
            Err(KernelError::NoLsm { why })
        }
        // What an earlier loader could, this one cannot: it must not be less.
        Err(TierState::Unavailable { why }) if !stale.is_empty() => Err(KernelError::NoLsm { why }),
        attached => {
            for name in stale {
                let pin = pins.link(&name);
                fs::remove_file(&pin).map_err(io_error("removing", &pin))?;
            }
            let bound = ebpf.take_map("BOUND").and_then(|map| match map {
                Map::Unsupported(map) => Some(map),
                _ => None,
            });
            Ok(match attached {
                Ok(attached) => LsmTier { state: TierState::Active, is_new, attached, bound },
                Err(state) => LsmTier { state, is_new: false, attached: Vec::new(), bound: None },
            })
        }
    }
}

fn attach(
    ebpf: &mut Ebpf,
    pins: &PinDir,
    settings: &mut Array<MapData, u64>,
    prepared: &Prepared,
) -> Result<Result<Vec<Attached>, TierState>> {
    let mut made = Vec::new();
    for (name, hook) in HOOKS.iter().chain(prepared.splice.then_some(&SPLICE)) {
        let program = ebpf.program_mut(name).and_then(|program| <&mut Lsm>::try_from(program).ok());
        let Some(program) = program else {
            return Ok(Err(TierState::Unavailable { why: format!("the object has no {name}") }));
        };
        match attach_one(program, hook, &prepared.btf) {
            Ok((link, link_id)) => made.push(Attached { name, link, link_id }),
            Err(why) => return Ok(Err(TierState::Unavailable { why: format!("{name}: {why}") })),
        }
    }
    // The kernel asks the hook for this very question.
    settings.set(cfg::LSM_PROBE, u64::from(std::process::id()), 0).map_err(map_error("CFG"))?;
    if settings.get(&cfg::LSM_PROBE, 0).map_err(map_error("CFG"))? != 0 {
        settings.set(cfg::LSM_PROBE, 0, 0).map_err(map_error("CFG"))?;
        return Ok(Err(TierState::Unavailable { why: why_never_called() }));
    }
    for attached in &made {
        attached.pin(pins)?;
    }
    Ok(Ok(made))
}

impl Attached {
    /// Moves a pin over what is pinned there, if anything is.
    fn pin(&self, pins: &PinDir) -> Result<()> {
        // The BPF file system takes no dots.
        let (new, pin) = (pins.link(&format!("{}_new", self.name)), pins.link(self.name));
        let failed = |source| KernelError::Attach { name: self.name, path: pin.clone(), source };
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        links::pin(self.link.as_fd(), &new).map_err(failed)?;
        fs::rename(&new, &pin).map_err(failed)
    }

    fn problem(&self, pins: &PinDir) -> Option<Problem> {
        match links::pinned(&pins.link(self.name)).and_then(|link| links::info(link.as_fd())) {
            Ok(info) if info.id == self.link_id => None,
            Ok(info) => {
                let text = format!("link {} is pinned, not {}", info.id, self.link_id);
                Some(Problem { text, certain: true })
            }
            Err(error) => Some(Problem::unreadable(&error)),
        }
    }
}

#[repr(C)]
struct CreateAttr {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
}

/// A link that holds for as long as its descriptor or a pin of it.
fn attach_one(program: &mut Lsm, hook: &str, btf: &Btf) -> Result<(OwnedFd, u32), String> {
    program.load(hook, btf).map_err(|error| why_refused(&error))?;
    let fd = program.fd().map_err(|error| told(&error))?.as_fd().as_raw_fd();
    let attr = CreateAttr { program: fd, target: 0, attach_type: LSM_MAC, flags: 0 };
    let link = links::bpf(links::LINK_CREATE, &attr).map_err(|error| format!("attaching it: {error}"))?;
    // SAFETY: a new descriptor that nobody else has.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let id = links::info(link.as_fd()).map_err(|error| told(&error))?.id;
    Ok((link, id))
}

fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn why_refused(error: &aya::programs::ProgramError) -> String {
    use aya::programs::ProgramError;
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            "the kernel lets nobody load programs for its security hooks (EPERM): lockdown \
             (/sys/kernel/security/lockdown) or another security module forbids it"
                .to_owned()
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let from = log.ceil_char_boundary(log.len().saturating_sub(VERIFIER));
            format!("the kernel refused the program: {io_error}: {}", log[from..].trim())
        }
        ProgramError::Btf(_) => {
            "the kernel has no such hook for programs: it was built without CONFIG_BPF_LSM".to_owned()
        }
        other => told(other),
    }
}

fn why_never_called() -> String {
    let next = "add `bpf` to `lsm=` on the kernel's command line, behind the others, and boot again";
    match fs::read_to_string(LIST) {
        Ok(list) => format!("`bpf` is not among the security modules of this boot ({}): {next}", list.trim()),
        Err(_) => format!("`bpf` is not among the security modules of this boot: {next}"),
    }
}

/// Fills the list of the Unix sockets that may be reached.
fn allow(ebpf: &mut Ebpf, config: &KernelConfig) -> Result<()> {
    let missing = || KernelError::Missing { path: config.object.clone(), name: "UNIX_ALLOW" };
    // Borrowed: the programs that use it are loaded after this.
    let map = ebpf.map_mut("UNIX_ALLOW").ok_or_else(missing)?;
    let mut names: HashMap<_, [u8; UNIX_NAME], u8> =
        HashMap::try_from(map).map_err(map_error("UNIX_ALLOW"))?;
    let wanted = config.lsm.unix_allow.iter().map(|name| unix_name(name)).collect::<Result<Vec<_>>>()?;
    let before: Vec<[u8; UNIX_NAME]> = names.keys().flatten().collect();
    for name in before.iter().filter(|name| !wanted.contains(*name)) {
        names.remove(name).map_err(map_error("UNIX_ALLOW"))?;
    }
    for name in wanted {
        names.insert(name, 1, 0).map_err(map_error("UNIX_ALLOW"))?;
    }
    Ok(())
}

/// As `sockaddr_un` has it.
fn unix_name(name: &str) -> Result<[u8; UNIX_NAME]> {
    let bytes = match name.strip_prefix('@') {
        Some(name) if !name.is_empty() => [b"\0", name.as_bytes()].concat(),
        None if name.starts_with('/') => name.as_bytes().to_vec(),
        _ => return Err(KernelError::UnixName(name.to_owned())),
    };
    let mut padded = [0; UNIX_NAME];
    let place = padded.get_mut(..bytes.len()).filter(|_| !bytes[1..].contains(&0));
    place.ok_or_else(|| KernelError::UnixName(name.to_owned()))?.copy_from_slice(&bytes);
    Ok(padded)
}

#[repr(C)]
struct UpdateAttr {
    map: RawFd,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl LsmTier {
    pub fn health(&self, pins: &PinDir) -> impl Iterator<Item = LinkHealth> {
        self.attached.iter().map(|it| LinkHealth::of(it.name.to_owned(), it.problem(pins)))
    }

    /// Pins again what is not pinned.
    pub fn restore(&self, pins: &PinDir) -> Vec<KernelError> {
        let changed = self.attached.iter().filter(|it| it.problem(pins).is_some());
        changed.filter_map(|it| it.pin(pins).err()).collect()
    }

    /// Binds the processes that are in a cgroup already: they will start no program that
    /// would. One that comes in later is whoever starts a job, until it does.
    pub fn bind_all(&self, cgroup: &Path) -> Result<()> {
        let Some(map) = &self.bound else { return Ok(()) };
        let mut known = std::collections::HashSet::new();
        for _ in 0..ROUNDS {
            let mut found = Vec::new();
            processes(cgroup, &mut found)?;
            found.retain(|pid| known.insert(*pid));
            if found.is_empty() {
                return Ok(());
            }
            for pid in found {
                bind(map, pid).map_err(io_error("binding the processes of", cgroup))?;
            }
        }
        let error = std::io::Error::other("its processes multiply faster than they can be bound");
        Err(io_error("binding the processes of", cgroup)(error))
    }
}

fn processes(cgroup: &Path, found: &mut Vec<i32>) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    match fs::read_to_string(&procs) {
        Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // It was removed, or holds threads of a process that is counted elsewhere.
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => {}
        Err(error) => return Err(io_error("reading", &procs)(error)),
    }
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn bind(map: &MapData, pid: i32) -> std::io::Result<()> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(()) };
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    match update(map.fd().as_fd(), process.as_raw_fd(), 1) {
        // It ended meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        done => done,
    }
}

fn update(map: BorrowedFd<'_>, key: RawFd, value: u64) -> std::io::Result<()> {
    let attr = UpdateAttr {
        map: map.as_raw_fd(),
        reserved: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: (&raw const value).expose_provenance() as u64,
        flags: 0,
    };
    links::bpf(MAP_UPDATE, &attr).map(drop)
}

// SAFETY: integers, without padding: the size is asserted where it is defined.
unsafe impl aya::Pod for Plain<abi::Offsets> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel_and_others_are_refused() {
        let path = unix_name("/run/a.sock").unwrap();
        assert_eq!((&path[..11], path[11]), (&b"/run/a.sock"[..], 0));
        assert_eq!(&unix_name("@a").unwrap()[..3], b"\0a\0");
        let longest = format!("/{}", "x".repeat(UNIX_NAME - 1));
        assert!(unix_name(&longest).is_ok());
        assert!(unix_name(&format!("{longest}x")).is_err());
        assert!(unix_name(&format!("@{}", "x".repeat(UNIX_NAME - 1))).is_ok());
        assert!(unix_name(&format!("@{}", "x".repeat(UNIX_NAME))).is_err());
        for name in ["", "@", "run/a.sock", "/a\0b"] {
            assert!(matches!(unix_name(name), Err(KernelError::UnixName(_))), "{name:?}");
        }
    }

    #[test]
    fn this_kernel_has_every_field() {
        let structures = Structures::of_this_kernel().unwrap();
        let found = offsets(&structures).unwrap();
        assert_eq!(found.unix_address_name, 8);
        assert!(found.sock_cgroup > found.sock_family);
    }
}
