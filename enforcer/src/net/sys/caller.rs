//! What a command that is started for somebody takes from them, and what it must not
//! take from us.
#![allow(unsafe_code, reason = "close_range, keyctl, signal and setrlimit")]

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The signals that have names; behind them come those of the C library.
const SIGNALS: i32 = 31;

/// The state of a process that one which is started for it begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub limits: Vec<ResourceLimit>,
    pub oom_score_adj: i32,
    /// Signals that it ignores, by number.
    pub ignored: Vec<i32>,
}

/// Reads it from `/proc/PID`.
pub fn caller(pid: u32) -> io::Result<Caller> {
    let other = || io::Error::new(io::ErrorKind::InvalidData, "a file of /proc/PID has another form");
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).ok_or_else(other)?;
    let mask = u64::from_str_radix(mask.trim(), 16).map_err(|_| other())?;
    // Our own client ignores SIGPIPE, as every program in Rust does.
    let ignored = (1..=SIGNALS).filter(|signal| mask >> (signal - 1) & 1 == 1 && *signal != libc::SIGPIPE);
    Ok(Caller {
        limits: limits_of(pid)?,
        oom_score_adj: score.trim().parse().map_err(|_| other())?,
        ignored: ignored.collect(),
    })
}

/// Marks every descriptor from this number on to close at exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: it changes a flag of descriptors. By number: the wrapper is younger than the libc we need.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nothing is blocked, and nothing ignored but these: at exec, what we ignore would
/// stay ignored.
pub fn reset_signals(ignored: &[i32]) -> io::Result<()> {
    for signal in 1..=SIGNALS {
        let what = if ignored.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: no function is installed. SIGKILL and SIGSTOP are refused.
        unsafe { libc::signal(signal, what) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from)
}

/// A session keyring of its own: the service's would be shared by all that it starts.
pub fn join_new_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: takes no memory; without a name it makes a new one.
    if unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, no_name) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel without keyrings.
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}

/// The version of Landlock's interface; 0 if the kernel has none.
pub fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<u64>();
    // SAFETY: takes no memory in this form.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// No look into processes outside, no signal to them, no abstract socket of theirs: by
/// Landlock, whose domain holds for all that this process starts. Before Linux 6.12,
/// or where the kernel was started without it, there is no such domain: false.
pub fn isolate() -> io::Result<bool> {
    const ABSTRACT_SOCKETS: u64 = 1;
    const SIGNALS: u64 = 2;
    // `struct landlock_ruleset_attr`: no access to files or ports is handled.
    let attr = [0_u64, 0, ABSTRACT_SOCKETS | SIGNALS];
    if landlock_version() < 6 {
        return Ok(false);
    }
    // SAFETY: the kernel reads the structure, whose size is given.
    let rules =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), size_of_val(&attr), 0_u32) };
    let rules = i32::try_from(rules).unwrap_or(-1);
    if rules < 0 {
        return Err(io::Error::last_os_error());
    }
    let rules = super::own(rules);
    // SAFETY: takes a descriptor and no memory.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this descriptor is a socket of another kind than those within the machine.
pub fn leads_out(fd: std::os::fd::RawFd) -> io::Result<bool> {
    let mut family: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&family)).unwrap_or(0);
    let at = (&raw mut family).cast();
    // SAFETY: the kernel writes at most `length` bytes, the size of `family`.
    let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, at, &raw mut length) };
    if done == 0 {
        return Ok(family != libc::AF_UNIX);
    }
    match io::Error::last_os_error() {
        // A file, or nothing.
        error if matches!(error.raw_os_error(), Some(libc::ENOTSOCK | libc::EBADF)) => Ok(false),
        error => Err(error),
    }
}

/// Installs a seccomp filter: code, jump if true, jump if false, operand.
pub fn set_filter(code: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let mut code: Vec<libc::sock_filter> =
        code.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let length = libc::c_ushort::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
    // SAFETY: the kernel reads that many instructions.
    match unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where file systems of this type are mounted, as mountinfo has it.
pub fn mounts_of(mountinfo: &str, kind: &str) -> Vec<PathBuf> {
    let place = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let at = left.split(' ').nth(4)?;
        (right.split(' ').next()? == kind).then(|| PathBuf::from(unescape(at)))
    };
    mountinfo.lines().filter_map(place).collect()
}

/// mountinfo writes a space as `\\040`.
pub fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escaped, plain);
    }
    text
}

/// One of the limits of getrlimit(2): its number there, soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// The resource limits of a process, from `/proc/PID/limits`: prlimit(2) on another
/// user's process asks for CAP_SYS_RESOURCE. Its lines are in the order of the
/// numbers, its columns are as wide as fs/proc/base.c has them.
pub fn limits_of(pid: u32) -> io::Result<Vec<ResourceLimit>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let column = |line: &str, at: usize| match line.get(at..)?.split_whitespace().next()? {
        "unlimited" => Some(libc::RLIM64_INFINITY),
        number => number.parse().ok(),
    };
    let limit = |(resource, line): (u32, &str)| {
        Some(ResourceLimit { resource, soft: column(line, 26)?, hard: column(line, 47)? })
    };
    let limits: Option<Vec<_>> = (0..).zip(text.lines().skip(1)).map(limit).collect();
    limits.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/limits has another form"))
}

/// Sets a limit of this process, no higher than the host lets it.
pub fn set_limit(limit: &ResourceLimit) -> io::Result<()> {
    let set = |soft, hard| {
        let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `new` is read, and lives longer than the call.
        match unsafe { libc::setrlimit64(limit.resource, &raw const new) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match set(limit.soft, limit.hard) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let own = limits_of(std::process::id())?;
            let most = own.get(limit.resource as usize).map_or(0, |own| own.hard);
            set(limit.soft.min(most), limit.hard.min(most))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_type() {
        let text = "\
30 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
90 30 0:28 /inner /mnt/in\\040ner rw shared:4 - cgroup2 cgroup2 rw
31 30 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
";
        let want = ["/mnt/in ner", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mounts_of(text, "cgroup2"), want);
    }

    #[test]
    fn the_state_of_a_process_is_read() {
        let own = caller(std::process::id()).unwrap();
        assert_eq!(own.limits.len(), 16);
        assert!(!own.ignored.contains(&libc::SIGPIPE));
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: the number is a descriptor, whose flag is cleared, marked, and read.
        let marked = unsafe {
            libc::fcntl(here.as_raw_fd(), libc::F_SETFD, 0);
            close_on_exec_from(here.as_raw_fd().cast_unsigned()).unwrap();
            libc::fcntl(here.as_raw_fd(), libc::F_GETFD)
        };
        assert_eq!(marked, libc::FD_CLOEXEC);
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' HUP; echo 4 > /proc/self/oom_score_adj; echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let other = caller(child.id()).unwrap();
        assert_eq!((other.ignored.contains(&libc::SIGHUP), other.oom_score_adj), (true, 4));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
