//! Ways to name a destination that a check of connect(2) could miss.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::{
    PATIENCE, PAYLOAD, bind_socket, check, check_size, connect, raw_address, send, send_msg, send_to, socket,
    talk, udp,
};

/// The shortest address of IPv6 that the kernel takes (RFC 2133).
const SHORT_IPV6: libc::socklen_t = 24;
const UDP_SEGMENT: i32 = 103;

pub fn attempt(name: &str, to: SocketAddr) -> Option<io::Result<String>> {
    Some(match name {
        "int80" => super::abi::int80(to),
        "x32" => super::abi::x32(to),
        "reconnect" => reconnect(to),
        "reconnect-from-own" => reconnect_from_own(to),
        "nonblocking" => nonblocking(to),
        "bound" => bound(to),
        "scope" => super::connect_and_talk(&stream(to), scoped(to), false),
        "short" => short(to),
        "race" => race(to),
        "udp-reconnect" => udp(to, false, |fd| {
            let own = UdpSocket::bind("127.0.0.1:0")?;
            connect(fd, own.local_addr()?)?;
            unspec(fd)?;
            connect(fd, to)?;
            send(fd)
        }),
        "udp-connected-sendto" => udp(to, false, |fd| {
            // Of loopback the kernel would take the source, and so not send it out.
            let own = UdpSocket::bind("10.77.0.1:0")?;
            connect(fd, own.local_addr()?)?;
            send_to(fd, to, 0)
        }),
        "udp-unspec" => udp(to, false, |fd| {
            let (mut address, length) = raw_address(to);
            address.ss_family = 0;
            send_raw(fd, &address, length)
        }),
        "udp-ipv4-on-ipv6" => udp("[::]:0".parse().unwrap(), false, |fd| {
            send_to(fd, to, 0).or_else(|_| connect(fd, to).and_then(|()| send(fd)))
        }),
        "udp-write" => udp(to, false, |fd| {
            connect(fd, to)?;
            std::fs::File::from(fd.try_clone()?).write_all(PAYLOAD)
        }),
        "udp-splice" => udp(to, false, |fd| connect(fd, to).and_then(|()| splice(fd))),
        "udp-gso" => {
            udp(to, false, |fd| send_msg(fd, to, libc::IPPROTO_UDP, UDP_SEGMENT, &4_u16.to_ne_bytes()))
        }
        "udp-scope" => udp(to, false, |fd| send_to(fd, scoped(to), 0)),
        "udp-broadcast" => udp(to, false, |fd| {
            super::option(fd, libc::SOL_SOCKET, libc::SO_BROADCAST, &1_i32.to_ne_bytes())?;
            send_to(fd, to, 0)
        }),
        // The number of a family in the place of a port.
        "family" => super::raw::family(to.port().into(), libc::SOCK_DGRAM, 0)
            .or_else(|_| super::raw::family(to.port().into(), libc::SOCK_STREAM, 0))
            .map(|_| "made".to_owned()),
        "uring-family" => super::uring::make(to.port().into()).map(|_| "made".to_owned()),
        "uring-socket" => super::uring::make_and_talk(to),
        "uring-fastopen" => super::uring::fast_open(to),
        _ => return None,
    })
}

fn stream(to: SocketAddr) -> OwnedFd {
    socket(to, libc::SOCK_STREAM, 0).unwrap()
}

/// On the cable's interface.
fn scoped(to: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = to else { return to };
    let index = nix::net::if_::if_nametoindex("work0").unwrap();
    SocketAddrV6::new(*v6.ip(), v6.port(), 0, index).into()
}

fn unspec(fd: &OwnedFd) -> io::Result<()> {
    let (mut address, length) = raw_address((Ipv4Addr::UNSPECIFIED, 0).into());
    address.ss_family = 0;
    // SAFETY: an address of that length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

fn reconnect(to: SocketAddr) -> io::Result<String> {
    let fd = stream(to);
    connect(&fd, to)?;
    unspec(&fd)?;
    connect(&fd, to)?;
    talk(fd)
}

/// First to a server of its own, which is nobody's business.
fn reconnect_from_own(to: SocketAddr) -> io::Result<String> {
    let own = TcpListener::bind("127.0.0.1:0")?;
    let fd = stream(to);
    connect(&fd, own.local_addr()?)?;
    unspec(&fd)?;
    connect(&fd, to)?;
    talk(fd)
}

fn nonblocking(to: SocketAddr) -> io::Result<String> {
    let fd = stream(to);
    let stream = TcpStream::from(fd.try_clone()?);
    stream.set_nonblocking(true)?;
    match connect(&fd, to) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => {}
    }
    let mut wait = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLOUT)];
    nix::poll::poll(&mut wait, 1500_u16)?;
    stream.set_nonblocking(false)?;
    talk(fd)
}

/// From the address of its interface.
fn bound(to: SocketAddr) -> io::Result<String> {
    let fd = stream(to);
    let from: SocketAddr = if to.is_ipv4() { "10.77.0.1:0" } else { "[fd77::1]:0" }.parse().unwrap();
    bind_socket(&fd, from)?;
    super::connect_and_talk(&fd, to, false)
}

fn short(to: SocketAddr) -> io::Result<String> {
    let fd = stream(to);
    let (address, length) = raw_address(to);
    let length = if to.is_ipv6() { SHORT_IPV6 } else { length - 8 };
    // SAFETY: an address of at least that length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    talk(fd)
}

/// A second thread changes the address between that of a server of its own and the
/// real one while the kernel reads it; ends when it was somebody else who answered.
fn race(to: SocketAddr) -> io::Result<String> {
    let own = TcpListener::bind("127.0.0.1:0")?;
    let port = own.local_addr()?.port();
    std::thread::spawn(move || while own.accept().is_ok() {});
    let word = |address: SocketAddr| {
        let (address, _) = raw_address(address);
        // SAFETY: an address of IPv4 is longer than eight bytes, and those are its all.
        unsafe { (&raw const address).cast::<u64>().read_unaligned() }
    };
    let (harmless, evil) = (word((Ipv4Addr::LOCALHOST, port).into()), word(to));
    let shared = Arc::new([AtomicU64::new(harmless), AtomicU64::new(0)]);
    let over = Arc::new(AtomicBool::new(false));
    let (theirs, ended) = (Arc::clone(&shared), Arc::clone(&over));
    let flipper = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            theirs[0].store(evil, Ordering::Relaxed);
            theirs[0].store(harmless, Ordering::Relaxed);
        }
    });
    // Beside others it may take a while until both have had their turn.
    let until = Instant::now() + 10 * PATIENCE;
    let mut last = Err(io::ErrorKind::TimedOut.into());
    while Instant::now() < until {
        let fd = stream(to);
        let at = shared.as_ptr();
        // SAFETY: sixteen bytes of atomics, which the other thread changes meanwhile.
        if let Err(e) = check(unsafe { libc::connect(fd.as_raw_fd(), at.cast(), 16) }) {
            last = Err(e);
            continue;
        }
        let mut stream = TcpStream::from(fd);
        if stream.peer_addr().is_ok_and(|peer| peer.port() == port) {
            continue;
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(PAYLOAD)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        last = Ok(answer);
        break;
    }
    over.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    last
}

fn send_raw(fd: &OwnedFd, address: &libc::sockaddr_storage, length: u32) -> io::Result<()> {
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: a payload and an address of those lengths.
    check_size(unsafe {
        libc::sendto(fd.as_raw_fd(), PAYLOAD.as_ptr().cast(), PAYLOAD.len(), 0, address, length)
    })
}

/// From a pipe, without a call that sends.
fn splice(fd: &OwnedFd) -> io::Result<()> {
    let (out, into) = nix::unistd::pipe()?;
    nix::unistd::write(&into, PAYLOAD)?;
    let none = std::ptr::null_mut();
    // SAFETY: two descriptors and no offsets.
    check_size(unsafe { libc::splice(out.as_raw_fd(), none, fd.as_raw_fd(), none, PAYLOAD.len(), 0) })
}
