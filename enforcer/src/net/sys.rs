//! The system calls that the standard library does not offer.
//!
//! The flow record comes from the kernel half by a private socket option that
//! exists only in the enforcer's own cgroup: the proxy needs no capability.
#![allow(unsafe_code, reason = "getsockopt and setsockopt with options of our own")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::OrigDst;
use enforcer_common as abi;

mod caller;
mod line;

pub use caller::{
    Caller, caller, close_on_exec_from, isolate, join_new_keyring, landlock_version, leads_out, mounts_of,
    reset_signals, set_filter, set_limit, unescape,
};
pub use line::Line;

const SO_NETNS_COOKIE: i32 = 71;
/// Since Linux 6.5.
const SO_PEERPIDFD: i32 = 77;

/// What the kernel half knows about one connection or datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Where the process wanted to go.
    pub orig_dst: OrigDst,
    /// The workload.
    pub tag: u64,
    /// The tagged cgroup.
    pub cgroup: u64,
    pub pid: u32,
    pub uid: u32,
    /// Name of the process: for people to read, it proves nothing.
    pub comm: String,
    /// Cookie of the client's socket.
    pub cookie: u64,
    /// Cookie of the client's network namespace.
    pub netns: u64,
}

/// The record of an accepted TCP connection, which can be taken once. `None`:
/// no tagged process made this connection, so it has to be closed.
pub fn flow_of(fd: BorrowedFd<'_>) -> io::Result<Option<FlowRecord>> {
    match get::<abi::Flow>(fd, abi::SOL_ENFORCER, abi::OPT_FLOW) {
        Ok(flow) if flow.tag == 0 => Ok(None),
        Ok(flow) => Ok(Some(record(&flow))),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The record of a datagram that came to the UDP listener `fd` from `source`.
/// It stays, because resolvers send several datagrams from one socket. Two
/// threads must not ask on the same listener at the same time.
pub fn udp_flow_of(fd: BorrowedFd<'_>, source: SocketAddr) -> io::Result<Option<FlowRecord>> {
    let key = abi::DatagramKey { addr: words(source.ip()), port: u32::from(source.port()), reserved: 0 };
    set(fd, abi::SOL_ENFORCER, abi::OPT_KEY, &key)?;
    flow_of(fd)
}

/// Takes over a descriptor that the kernel has just made for this process.
pub(super) fn own(raw: std::os::fd::RawFd) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the callers pass what accept4 or recvmsg returned, which nobody else owns.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(raw) }
}

/// Takes over a descriptor that this process was started with, by its number.
pub fn inherited(raw: std::os::fd::RawFd) -> io::Result<std::os::fd::OwnedFd> {
    if raw <= libc::STDERR_FILENO {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: F_GETFD has no effect; it fails if the number is no descriptor.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(own(raw))
}

/// A copy of a descriptor, numbered `least` or above, that closes at exec. For
/// use between fork and exec.
pub fn duplicate_above(raw: std::os::fd::RawFd, least: std::os::fd::RawFd) -> io::Result<std::os::fd::RawFd> {
    // SAFETY: it makes a new descriptor; a number that is none fails.
    let copy = unsafe { libc::fcntl(raw, libc::F_DUPFD_CLOEXEC, least) };
    if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(copy) }
}

/// A copy of a descriptor under this number, which stays open at exec. For use
/// between fork and exec, in a process whose descriptors nobody else counts on.
pub fn duplicate_to(raw: std::os::fd::RawFd, to: std::os::fd::RawFd) -> io::Result<()> {
    // SAFETY: what had the number before is closed in this child alone.
    if unsafe { libc::dup2(raw, to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs code in the child between fork and exec; it may only make system calls.
pub fn before_exec(
    command: &mut std::process::Command,
    act: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the callers' closures make async-signal-safe system calls alone.
    unsafe { command.pre_exec(act) };
}

/// Sends small writes at once.
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32)
}

/// Finds a dead peer: first probe after `idle` seconds, then every `interval`, `count` times.
pub fn set_keepalive(fd: BorrowedFd<'_>, idle: i32, interval: i32, count: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1_i32)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &idle)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &interval)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &count)
}

/// Gives up when sent bytes stay unacknowledged for this long.
pub fn set_user_timeout(fd: BorrowedFd<'_>, milliseconds: u32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &milliseconds)
}

/// Closing sends RST instead of FIN: a cut must not look like an end.
pub fn set_reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// The process that connected this Unix socket: a descriptor that never comes to
/// mean another process, as a number does that is used again. A process that is
/// gone is an error. Before Linux 6.5 it is looked up by its number.
pub fn process_of_peer(fd: BorrowedFd<'_>, pid: rustix::process::Pid) -> io::Result<std::os::fd::OwnedFd> {
    // Both close at exec.
    match get::<i32>(fd, libc::SOL_SOCKET, SO_PEERPIDFD) {
        Ok(raw) => Ok(own(raw)),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
        }
        Err(error) => Err(error),
    }
}

/// The supplementary groups that the process had when it connected this Unix socket.
pub fn groups_of_peer(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let size = groups.len() * size_of::<u32>();
        let mut length = libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes at most `length` bytes, the size of `groups`.
        let done = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let found = length as usize / size_of::<u32>();
        if done == 0 {
            groups.truncate(found);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || found <= groups.len() {
            return Err(error);
        }
        groups.resize(found, 0);
    }
}

/// Takes a capability out of the bounding set, by its number; false if the kernel
/// knows none with it.
pub fn drop_bounding(capability: i32) -> io::Result<bool> {
    // SAFETY: the operation takes a number and touches no memory.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
        0 => Ok(true),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Identifies the network namespace of a socket; never reused while the host is up.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    get(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// The socket address of four words as the kernel half keeps them.
pub fn socket_addr(addr: &[u32; 4], port: u16) -> SocketAddr {
    let mut octets = [0_u8; 16];
    for (place, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(addr) {
        *place = word.to_ne_bytes();
    }
    let ip = Ipv6Addr::from(octets);
    SocketAddr::new(ip.to_canonical(), port)
}

/// The opposite of [`socket_addr`].
pub fn words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0_u32; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// A process name as the kernel keeps it: up to the first NUL, made printable.
pub fn comm_text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn record(flow: &abi::Flow) -> FlowRecord {
    FlowRecord {
        orig_dst: OrigDst(socket_addr(&flow.addr, flow.port)),
        tag: flow.tag,
        cgroup: flow.cgroup,
        pid: flow.pid,
        uid: flow.uid,
        comm: comm_text(&flow.comm),
        cookie: flow.cookie,
        netns: flow.netns,
    }
}

/// Values that any bytes are valid for.
trait Plain: Copy {}
impl Plain for abi::Flow {}
impl Plain for abi::DatagramKey {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for libc::linger {}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = length_of::<T>();
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    if length != length_of::<T>() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    // SAFETY: all bytes are written, and `Plain` types have no invalid ones.
    Ok(unsafe { value.assume_init() })
}

fn set<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `length_of::<T>()` bytes of `value`.
    let done = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length_of::<T>())
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn addresses_keep_their_bytes() {
        for text in ["10.1.2.3:443", "[fd00::2]:8443", "127.0.0.1:53"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_addr(&words(address.ip()), address.port()), address);
        }
        assert!(abi::is_mapped(&words("10.1.2.3".parse().unwrap())));
    }

    #[test]
    fn process_names_are_cut_and_made_printable() {
        assert_eq!(comm_text(b"curl\0garbage....."[..16].try_into().unwrap()), "curl");
        assert_eq!(comm_text(b"a\x1b[31mb\0\0\0\0\0\0\0\0\0"), "a?[31mb");
    }

    #[test]
    fn outside_of_the_own_cgroup_there_is_no_record() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        flow_of(client.as_fd()).unwrap_err();
        assert_ne!(netns_cookie(client.as_fd()).unwrap(), 0);
        set_nodelay(client.as_fd()).unwrap();
    }
}
