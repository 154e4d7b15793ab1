//! Starting a command in a tagged cgroup.
//!
//! The loader starts this program again as `launch-exec`, which is root, has one
//! thread and runs nobody's code: it enters the cgroup, makes the mounts, gives
//! everything up, and becomes the command.
//!
//! **Invariant**: the process is in the tagged cgroup before it runs a byte that
//! is not ours, and no descriptor but the three standard ones reaches the command.

pub mod daemons;
pub mod filter;
pub mod roots;
pub mod sockets;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, execve, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use crate::net::sys::{self, Caller};

use sockets::{Hidden, Hiding};

/// The exit code for failures of our own (as docker and env have it).
pub const FAILED: u8 = 125;
/// The command was found and cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// The mask of a caller that is not known any more.
pub const DEFAULT_UMASK: u32 = 0o022;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// What is to be run. Bytes need not be text; they come as they are.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobSpec {
    pub argv: Vec<Vec<u8>>,
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The caller's file mode creation mask.
    pub umask: u32,
    /// Whether the caller is told what the job does not see.
    #[serde(default)]
    pub report: Option<Form>,
}

/// In which form a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    Text,
    Json,
}

/// What the loader tells the helper that becomes the job.
#[derive(Debug, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub job: JobSpec,
    pub cgroup: PathBuf,
    /// Mounted read-only: what, and over what.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Folders that the job sees and does not change.
    pub read_only: Vec<PathBuf>,
    pub variables: Vec<(String, String)>,
    /// Folders that the job is not to see.
    pub hidden: Vec<PathBuf>,
    /// The host's sockets, unless the configuration shows them.
    pub sockets: Option<Hiding>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub caller: Caller,
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("{doing}: {source}")]
    Step { doing: String, source: io::Error },
    #[error("the command holds a NUL byte")]
    Nul,
    #[error("{0}: command not found")]
    NotFound(String),
    #[error("{0}: cannot be run: {1}")]
    CannotRun(String, io::Error),
}

impl LaunchError {
    pub fn code(&self) -> u8 {
        match self {
            Self::Step { .. } | Self::Nul => FAILED,
            Self::NotFound(_) => NOT_FOUND,
            Self::CannotRun(..) => CANNOT_RUN,
        }
    }
}

fn step<T>(doing: &str, result: Result<T, impl Into<io::Error>>) -> Result<T, LaunchError> {
    result.map_err(|error| LaunchError::Step { doing: doing.to_owned(), source: error.into() })
}

/// Becomes the command; returns only if that fails.
pub fn become_job(spec: &LaunchSpec, cwd: BorrowedFd<'_>) -> LaunchError {
    match prepare(spec, cwd).and_then(|()| exec(&spec.job, &spec.variables)) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(spec: &LaunchSpec, cwd: BorrowedFd<'_>) -> Result<(), LaunchError> {
    local_stdio()?;
    step("entering the job's cgroup", fs::write(spec.cgroup.join("cgroup.procs"), "0"))?;
    step("namespaces", unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP))?;
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    step("a mount namespace", mount(None::<&str>, "/", None::<&str>, slave, None::<&str>))?;
    for (from, over) in &spec.mounts {
        read_only(from, over)?;
    }
    for kept in spec.read_only.iter().filter(|kept| kept.is_dir()) {
        read_only(kept, kept)?;
    }
    let folder = step("the working folder", fs::read_link(format!("/proc/self/fd/{}", cwd.as_raw_fd())))?;
    let hide = |hiding| sockets::hide(hiding, spec.uid, spec.gid, &folder);
    let sockets = spec.sockets.as_ref().map(hide).transpose()?;
    cover_cgroups(&spec.cgroup)?;
    // Pins can be seen wherever the file system that has them is mounted as well.
    let pins = sys::mounts_of(&mounts()?, "bpf");
    for hidden in spec.hidden.iter().chain(&pins).filter(|hidden| hidden.is_dir()) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        let done = mount(Some("none"), hidden, Some("tmpfs"), flags, Some("mode=0"));
        step(&format!("hiding {}", hidden.display()), done)?;
    }
    enter_folder(cwd)?;
    // Ours says that the service is to be killed last; a job is not.
    let score = spec.caller.oom_score_adj.to_string();
    step("the caller's place for the OOM killer", fs::write("/proc/self/oom_score_adj", score))?;
    step("signals", sys::reset_signals(&spec.caller.ignored))?;
    // Before the limits, which may leave no room for a descriptor.
    step("closing descriptors", sys::close_on_exec_from(3))?;
    for limit in &spec.caller.limits {
        step("the caller's resource limits", sys::set_limit(limit))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(spec.job.umask & 0o777));
    let groups: Vec<Gid> = spec.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    bounding()?;
    step("the caller's groups", setgroups(&groups))?;
    step("the caller's group", setresgid(gid, gid, gid))?;
    step("the caller's user", setresuid(uid, uid, uid))?;
    for set in
        [caps::CapSet::Ambient, caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted]
    {
        let done = caps::clear(None, set).map_err(|error| io::Error::other(error.to_string()));
        step("giving up capabilities", done)?;
    }
    step("a keyring", sys::join_new_keyring())?;
    step("no new privileges", nix::sys::prctl::set_no_new_privs())?;
    // A debugger could make the caller's other processes, which nothing redirects, send.
    let domain = step("a domain of its own", sys::isolate())?;
    step("a filter of system calls", filter::install())?;
    if let Some(form) = spec.job.report {
        tell(form, &Told { sockets, domain });
    }
    Ok(())
}

/// What was made of the job's surroundings.
#[derive(Serialize)]
struct Told {
    /// None if the configuration shows them.
    sockets: Option<Hidden>,
    /// Whether the kernel keeps it from abstract sockets and signals of the others.
    domain: bool,
}

fn tell(form: Form, told: &Told) {
    if form == Form::Json {
        eprintln!("{}", serde_json::to_string(told).unwrap_or_default());
        return;
    }
    match &told.sockets {
        None => eprintln!("enforcer: sockets of the host are shown: [run] hide_sockets = false"),
        Some(hidden) => {
            for path in hidden.in_run.iter().chain(&hidden.covered) {
                eprintln!("enforcer: hidden: {}", path.display());
            }
            for path in &hidden.exposed {
                eprintln!("enforcer: exposed: {}", path.display());
            }
        }
    }
    eprintln!(
        "enforcer: abstract sockets and signals: {}",
        if told.domain { "closed by Landlock" } else { "this kernel has no domains for them (Linux 6.12)" }
    );
}

/// A connection that stands already is no business of the hooks, who never saw it begin.
fn local_stdio() -> Result<(), LaunchError> {
    for (fd, name) in [(0, "input"), (1, "output"), (2, "error")] {
        if step("standard descriptors", sys::leads_out(fd))? {
            let error = io::Error::other("it is a network socket; give the job a pipe or a file");
            return step(&format!("standard {name}"), Err(error));
        }
    }
    Ok(())
}

/// Enters the caller's folder by its path. The descriptor itself belongs to the
/// host's mount namespace: from there `..` leads to the host's own root, past all
/// mounts that were made for the job, to a cgroup file system that is writable.
fn enter_folder(cwd: BorrowedFd<'_>) -> Result<(), LaunchError> {
    let doing = "the working folder";
    let path = step(doing, fs::read_link(format!("/proc/self/fd/{}", cwd.as_raw_fd())))?;
    step(doing, chdir(&path))?;
    let (wanted, found) = (step(doing, nix::sys::stat::fstat(cwd))?, step(doing, nix::sys::stat::stat("."))?);
    if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino) {
        // It is one that is hidden or replaced, or it was removed.
        let error = io::Error::other("jobs do not see this folder; start it from another one");
        return step(doing, Err(error));
    }
    Ok(())
}

/// Root without capabilities would get them back at exec, were they not taken
/// out of the bounding set.
fn bounding() -> Result<(), LaunchError> {
    for capability in caps::all() {
        let held = caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false);
        if held {
            let done = caps::drop(None, caps::CapSet::Bounding, capability)
                .map_err(|error| io::Error::other(error.to_string()));
            step("giving up capabilities", done)?;
        }
    }
    Ok(())
}

/// A bind mount that cannot be written through: without the second step the job
/// would write to the host's file.
fn read_only(from: &Path, over: &Path) -> Result<(), LaunchError> {
    let doing = format!("mounting over {}", over.display());
    step(&doing, mount(Some(from), over, None::<&str>, MsFlags::MS_BIND, None::<&str>))?;
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    step(&doing, mount(None::<&str>, over, None::<&str>, flags, None::<&str>))
}

fn mounts() -> Result<String, LaunchError> {
    step("reading mounts", fs::read_to_string("/proc/self/mountinfo"))
}

/// Over every mount of cgroups the job's own, read-only. That alone is not enough:
/// clone3(2) with CLONE_INTO_CGROUP takes any folder that can be opened for reading,
/// and so root in a job would leave its cgroup.
fn cover_cgroups(own: &Path) -> Result<(), LaunchError> {
    let mounts = mounts()?;
    // By its descriptor: its path is covered with the first of them.
    let opened = step("opening the job's cgroup", fs::File::open(own))?;
    let own = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    for place in sys::mounts_of(&mounts, "cgroup2") {
        // One may stand below something else that is mounted there.
        if place.is_dir() {
            read_only(&own, &place)?;
        }
    }
    Ok(())
}

fn exec(job: &JobSpec, variables: &[(String, String)]) -> Result<std::convert::Infallible, LaunchError> {
    let nul = |bytes: &[u8]| CString::new(bytes).map_err(|_| LaunchError::Nul);
    let argv = job.argv.iter().map(|arg| nul(arg)).collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::with_capacity(job.env.len() + variables.len());
    for (name, value) in &job.env {
        if !variables.iter().any(|(ours, _)| ours.as_bytes() == name.as_slice()) {
            env.push(nul(&[name.as_slice(), b"=", value].concat())?);
        }
    }
    for (name, value) in variables {
        env.push(nul(format!("{name}={value}").as_bytes())?);
    }
    let name = job.argv.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let mut refused = None;
    for candidate in candidates(job) {
        let path = nul(&candidate.into_os_string().into_vec())?;
        match execve(&path, &argv, &env) {
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
            Err(error) => refused = Some(error),
            Ok(never) => match never {},
        }
    }
    Err(match refused {
        Some(error) => LaunchError::CannotRun(name, error.into()),
        None => LaunchError::NotFound(name),
    })
}

/// Where the command may be: as a shell looks for it, in the job's own PATH.
fn candidates(job: &JobSpec) -> Vec<PathBuf> {
    let text = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    let Some(name) = job.argv.first().filter(|name| !name.is_empty()) else { return Vec::new() };
    if name.contains(&b'/') {
        return vec![text(name)];
    }
    let path =
        job.env.iter().find(|(name, _)| name == b"PATH").map_or(&b"/usr/bin:/bin"[..], |(_, path)| path);
    path.split(|byte| *byte == b':').map(|folder| text(folder).join(text(name))).collect()
}
