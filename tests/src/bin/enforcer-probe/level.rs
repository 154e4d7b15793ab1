//! What a process may do: an unprivileged user, root in a container, root of the host.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use enforcer::launch::sockets::Hiding;
use enforcer::launch::{JobSpec, LaunchSpec};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::check;

const NOBODY: u32 = 65534;

/// What Docker leaves to root in a container: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const CONTAINER: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 27
    | 1 << 29
    | 1 << 31;

/// Enters the cgroup, becomes what `level` says, and runs this program again with the rest
/// of the command line; returns only if that fails. As systemd, runc and `enforcer run` do
/// it: a program that a process runs after it has come into the cgroup is the workload's.
pub fn enter(level: &str, cgroup: &str, rest: &[String]) -> io::Error {
    if level == "launched" {
        return launched(cgroup, rest);
    }
    let become_it = || match level {
        "root" => Ok(()),
        "user" => user(),
        "unit" => super::unit::enter(&PathBuf::from(std::env::var_os("ENFORCER_TEST_UNIT").unwrap())),
        "container" => container(false),
        "container-set" => container(true),
        other => panic!("no level {other}"),
    };
    let prepared = std::fs::write(PathBuf::from(cgroup).join("cgroup.procs"), "0").and_then(|()| become_it());
    let own = std::env::args().next().unwrap();
    let words = std::iter::once(&own).chain(rest);
    let words: Vec<CString> = words.map(|word| CString::new(word.as_str()).unwrap()).collect();
    match prepared {
        // The file itself, which may not be seen any more where it was.
        Ok(()) => nix::unistd::execv(c"/proc/self/exe", &words).unwrap_err().into(),
        Err(error) => error,
    }
}

/// An unprivileged user, without more than that.
pub fn user() -> io::Result<()> {
    nix::unistd::setgroups(&[])?;
    let (uid, gid) = (nix::unistd::Uid::from_raw(NOBODY), nix::unistd::Gid::from_raw(NOBODY));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

fn launched(cgroup: &str, rest: &[String]) -> io::Error {
    let argv = std::iter::once(std::env::args().next().unwrap()).chain(rest.iter().cloned());
    let spec = LaunchSpec {
        job: JobSpec {
            argv: argv.map(String::into_bytes).collect(),
            env: vec![(b"PATH".to_vec(), b"/usr/sbin:/usr/bin:/sbin:/bin".to_vec())],
            umask: 0o022,
            report: None,
        },
        cgroup: PathBuf::from(cgroup),
        mounts: Vec::new(),
        read_only: Vec::new(),
        variables: Vec::new(),
        hidden: Vec::new(),
        sockets: Some(Hiding { expose: Vec::new(), own: "/run/enforcer".into() }),
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
        caller: enforcer::net::sys::caller(std::process::id()).unwrap(),
    };
    let root = std::fs::File::open("/").unwrap();
    io::Error::other(enforcer::launch::become_job(&spec, root.as_fd()).to_string())
}

/// Namespaces and capabilities as Docker's; the network namespace is the one it has.
fn container(set: bool) -> io::Result<()> {
    // Runtimes pass on the standard descriptors alone.
    // SAFETY: it closes descriptors; this process has made none yet.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) })?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags)?;
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None)?;
            std::process::exit(i32::from(!matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0))));
        }
        nix::unistd::ForkResult::Child => {}
    }
    // Whoever ends the first process ends this one.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::MS_RDONLY, none)?;
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::MS_RDONLY, none)?;
    for private in ["/tmp", "/run"] {
        mount(Some("none"), private, Some("tmpfs"), MsFlags::empty(), none)?;
    }
    if set {
        enforcer::launch::filter::install()?;
    }
    capabilities(CONTAINER)
}

fn capabilities(kept: u64) -> io::Result<()> {
    for capability in (0..64).filter(|bit| kept >> bit & 1 == 0) {
        enforcer::net::sys::drop_bounding(capability)?;
    }
    let (low, high) = ((kept & 0xffff_ffff) as u32, (kept >> 32) as u32);
    // _LINUX_CAPABILITY_VERSION_3, of this process.
    let header = [0x2008_0522_u32, 0];
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: a header and two sets of three words, as the version has it.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    check(i32::try_from(done).unwrap()).map(drop)
}
