//! Sockets that no hook has seen: connected before their process was tagged, or made
//! elsewhere and brought along. They are closed by `SOCK_DESTROY` of sock_diag(7).
//!
//! A listener is left alone: it sends nothing by itself, and what it accepts belongs to
//! its cgroup. So is a datagram socket that is not connected: each of its sends passes a
//! hook.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};

use super::{KernelError, Result};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const INET_DIAG_CGROUP_ID: u16 = 21;
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// `struct inet_diag_sockid` in both.
const SOCKET_ID: usize = 48;
/// More than the kernel puts into one message of a dump.
const BUFFER: usize = 64 * 1024;
/// As `enum` in net/tcp_states.h has them, which sock_diag gives for datagrams too.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// At least so many are closed before it is looked whether the time is over.
const AT_A_TIME: usize = 256;

/// What is not foreign.
#[derive(Clone, Debug, Default)]
pub struct Spared {
    /// Sockets that belong to these cgroups were made under the hooks.
    pub cgroups: HashSet<u64>,
    /// Ports of the enforcer on loopback: what is connected there was redirected, if the
    /// network namespace is served.
    pub ports: [u16; 2],
}

/// What came of it in one network namespace.
#[derive(Debug, Default)]
pub struct Closed {
    pub count: usize,
    /// Those of the inodes that are sockets here, closed or not.
    pub met: HashSet<u64>,
    /// False: the time was over before all were closed.
    pub whole: bool,
}

/// Closes connected sockets of a network namespace that are among these inodes, until
/// this moment. `is_served` is asked by the cookie of the namespace.
pub fn close_foreign(
    netns: &File,
    inodes: &HashSet<u64>,
    spared: &Spared,
    is_served: &(dyn Fn(u64) -> bool + Sync),
    until: Instant,
) -> Result<Closed> {
    let failed = |source| KernelError::FromBefore { source };
    let run = || -> io::Result<Closed> {
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)?;
        close_here(inodes, spared, is_served, until)
    };
    // A thread of its own, which ends there: nothing has to be put back.
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| KernelError::Thread)?.map_err(failed)
}

fn close_here(
    inodes: &HashSet<u64>,
    spared: &Spared,
    is_served: &(dyn Fn(u64) -> bool + Sync),
    until: Instant,
) -> io::Result<Closed> {
    let mut found = Vec::new();
    let fd = diag()?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let (family, protocol) = (narrow(family)?, narrow(protocol)?);
            let all = dump(&fd, family, protocol, inodes)?;
            found.extend(all.into_iter().map(|it| (family, protocol, it)));
        }
    }
    // Only now: a namespace in which somebody was redirected was served before.
    let cookie = super::own_netns_cookie().map_err(io::Error::other)?;
    let ports: &[u16] = if is_served(cookie) { &spared.ports } else { &[] };
    let mut closed = Closed { whole: true, ..Closed::default() };
    closed.met.extend(found.iter().map(|(_, _, it)| it.inode));
    let foreign = found.iter().filter(|(_, protocol, it)| it.is_foreign(*protocol, &spared.cgroups, ports));
    for (number, (family, protocol, it)) in foreign.enumerate() {
        if number > 0 && number % AT_A_TIME == 0 && Instant::now() > until {
            closed.whole = false;
            break;
        }
        closed.count += usize::from(destroy(&fd, *family, *protocol, &it.id)?);
    }
    Ok(closed)
}

/// One socket of a dump.
#[derive(Debug, PartialEq)]
struct Found {
    state: u8,
    id: [u8; SOCKET_ID],
    inode: u64,
    cgroup: Option<u64>,
}

impl Found {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let message = bytes.get(..MESSAGE)?;
        let mut cgroup = None;
        let mut rest = &bytes[MESSAGE..];
        while let Some((length, kind)) = rest.first_chunk::<4>().map(|it| (u16_at(it, 0), u16_at(it, 2))) {
            let length = usize::from(length);
            let value = rest.get(4..length)?;
            if kind == INET_DIAG_CGROUP_ID {
                cgroup = Some(u64::from_ne_bytes(value.try_into().ok()?));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Self {
            state: message[1],
            id: message[4..4 + SOCKET_ID].try_into().ok()?,
            inode: u64::from(u32::from_ne_bytes(message[68..72].try_into().ok()?)),
            cgroup,
        })
    }

    fn is_foreign(&self, protocol: u8, cgroups: &HashSet<u64>, ports: &[u16]) -> bool {
        let connected = if i32::from(protocol) == libc::IPPROTO_UDP {
            self.state == ESTABLISHED
        } else {
            self.state != LISTEN && self.state != CLOSE
        };
        let inside = self.cgroup.is_some_and(|cgroup| cgroups.contains(&cgroup));
        connected && !inside && !(self.is_to_loopback() && ports.contains(&self.port()))
    }

    fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[2], self.id[3]])
    }

    fn is_to_loopback(&self) -> bool {
        let to = &self.id[20..36];
        let v4 = Ipv4Addr::LOCALHOST.octets();
        let mapped = [&[0; 10][..], &[0xff; 2], &v4].concat();
        to == [&v4[..], &[0; 12]].concat() || to == mapped || to == std::net::Ipv6Addr::LOCALHOST.octets()
    }
}

fn diag() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// The sockets of this kind that are meant. A dump that is broken off is an error: it may
/// lack some.
fn dump(fd: &OwnedFd, family: u8, protocol: u8, meant: &HashSet<u64>) -> io::Result<Vec<Found>> {
    ask(fd, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, protocol, &[0; SOCKET_ID])?;
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, after)) = split(rest) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return listed(error_of(body)?).map(|()| found),
                _ => found.extend(Found::parse(body).filter(|it| meant.contains(&it.inode))),
            }
            rest = after;
        }
    }
}

/// How the kernel ends a dump. TCP and UDP are in every kernel, but what lists them may be
/// a module that cannot be loaded: that is no sign that there are no sockets.
fn listed(error: i32) -> io::Result<()> {
    match error {
        0 => Ok(()),
        libc::ENOENT => Err(io::Error::other(
            "the kernel cannot list them: load the modules inet_diag, tcp_diag and udp_diag",
        )),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// False: it was gone already.
fn destroy(fd: &OwnedFd, family: u8, protocol: u8, id: &[u8; SOCKET_ID]) -> io::Result<bool> {
    ask(fd, SOCK_DESTROY, NLM_F_ACK, family, protocol, id)?;
    let mut buffer = vec![0; BUFFER];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let (_, body, _) = split(&buffer[..length]).ok_or(io::ErrorKind::InvalidData)?;
    match error_of(body)? {
        0 => Ok(true),
        libc::ENOENT => Ok(false),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn ask(
    fd: &OwnedFd,
    kind: u16,
    flags: u16,
    family: u8,
    protocol: u8,
    id: &[u8; SOCKET_ID],
) -> io::Result<()> {
    let mut message = Vec::with_capacity(HEADER + REQUEST);
    message.extend(u32::try_from(HEADER + REQUEST).unwrap_or(0).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    // Then a byte for extensions, one of padding, and a bit for each state.
    message.extend([family, protocol, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(id);
    send(fd.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

/// Kind and body of the first message, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*header.first_chunk()?)).ok()?;
    let body = bytes.get(HEADER..length)?;
    Some((u16_at(header, 4), body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn error_of(body: &[u8]) -> io::Result<i32> {
    let number = body.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    Ok(-i32::from_ne_bytes(*number))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn narrow(number: i32) -> io::Result<u8> {
    u8::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket_to(address: [u8; 16], port: u16, state: u8, cgroup: u64) -> Found {
        let mut id = [0; SOCKET_ID];
        id[2..4].copy_from_slice(&port.to_be_bytes());
        id[20..36].copy_from_slice(&address);
        Found { state, id, inode: 7, cgroup: Some(cgroup) }
    }

    #[test]
    fn what_was_redirected_or_made_inside_or_only_listens_is_not_foreign() {
        let (cgroups, ports) = (HashSet::from([5]), [15001, 15053]);
        let mut v4 = [0; 16];
        v4[..4].copy_from_slice(&[127, 0, 0, 1]);
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
        let tcp = |found: Found| found.is_foreign(6, &cgroups, &ports);
        assert!(!tcp(socket_to(v4, 15001, ESTABLISHED, 4)));
        assert!(!tcp(socket_to(v6, 15001, ESTABLISHED, 4)));
        assert!(tcp(socket_to(v4, 80, ESTABLISHED, 4)));
        assert!(tcp(socket_to([9; 16], 15001, ESTABLISHED, 4)));
        assert!(!tcp(socket_to([9; 16], 80, ESTABLISHED, 5)));
        // Where nobody is served, whoever has the port is not the enforcer.
        assert!(socket_to(v4, 15001, ESTABLISHED, 4).is_foreign(6, &cgroups, &[]));
        assert!(!tcp(socket_to([0; 16], 0, LISTEN, 4)));
        assert!(socket_to([9; 16], 53, ESTABLISHED, 4).is_foreign(17, &cgroups, &ports));
        assert!(!socket_to([0; 16], 0, CLOSE, 4).is_foreign(17, &cgroups, &ports));
    }

    #[test]
    fn a_message_is_taken_apart() {
        let mut body = vec![0; MESSAGE];
        body[1] = ESTABLISHED;
        body[4..6].copy_from_slice(&80_u16.to_be_bytes());
        body[68..72].copy_from_slice(&4711_u32.to_ne_bytes());
        // An attribute of another kind, which is padded, and that of the cgroup.
        body.extend([5_u16, 8].map(u16::to_ne_bytes).concat());
        body.extend([1, 0, 0, 0]);
        body.extend([12, INET_DIAG_CGROUP_ID].map(u16::to_ne_bytes).concat());
        body.extend(99_u64.to_ne_bytes());
        let found = Found::parse(&body).unwrap();
        assert_eq!((found.state, found.inode, found.cgroup), (ESTABLISHED, 4711, Some(99)));
        assert_eq!(Found::parse(&body[..MESSAGE - 1]), None);
        assert_eq!(split(&[0; 8]), None);
    }

    #[test]
    fn sockets_that_cannot_be_listed_are_not_none() {
        listed(0).unwrap();
        let missing = listed(libc::ENOENT).unwrap_err();
        assert!(missing.to_string().contains("tcp_diag"), "{missing}");
        assert_eq!(listed(libc::EPERM).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    /// What this process has connected in its own namespace, as far as it may look.
    #[test]
    fn sockets_are_found_with_their_inodes() {
        use std::os::unix::fs::MetadataExt;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", client.as_raw_fd());
        let inode = std::fs::metadata(path).unwrap().ino();
        let found = dump(&diag().unwrap(), 2, 6, &HashSet::from([inode])).unwrap();
        let [own] = &found[..] else { panic!("{found:?}") };
        assert_eq!(own.port(), listener.local_addr().unwrap().port());
        assert!(own.state == ESTABLISHED && own.is_to_loopback() && own.cgroup.is_some());
    }
}
