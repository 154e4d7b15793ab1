//! The listeners of one network namespace.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen,
    setsockopt, shutdown, socket, sockopt,
};

use super::{KernelError, Result};
use crate::net::sys;

/// Connections that wait for the proxy; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Non-blocking listeners on 127.0.0.1 and `::1`.
pub struct Listeners {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub(super) tcp4: TcpListener,
    pub(super) tcp6: Option<TcpListener>,
    pub(super) udp4: UdpSocket,
    pub(super) udp6: Option<UdpSocket>,
}

impl Listeners {
    pub fn has_ipv6(&self) -> bool {
        self.tcp6.is_some() && self.udp6.is_some()
    }

    /// All of them.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let tcp = [Some(&self.tcp4), self.tcp6.as_ref()].into_iter().flatten().map(AsFd::as_fd);
        tcp.chain([Some(&self.udp4), self.udp6.as_ref()].into_iter().flatten().map(AsFd::as_fd))
    }

    /// Whether nobody has shut them.
    pub fn listens(&self) -> bool {
        let listens = |listener: &TcpListener| getsockopt(listener, sockopt::AcceptConn).unwrap_or(false);
        [Some(&self.tcp4), self.tcp6.as_ref()].into_iter().flatten().all(listens)
    }

    /// Nobody listens any more, whoever else holds the sockets: what waits in the
    /// backlog is reset.
    pub fn shut(&self) {
        for listener in [Some(&self.tcp4), self.tcp6.as_ref()].into_iter().flatten() {
            if let Err(error) = shutdown(listener.as_raw_fd(), Shutdown::Read) {
                tracing::debug!(%error, "a listener was shut before");
            }
        }
    }

    /// tcp4, tcp6, udp4, udp6. Without IPv6 in the namespace the listeners of
    /// IPv4 stand in both places, and nobody is redirected to `::1`.
    pub fn into_fds(self) -> io::Result<[OwnedFd; 4]> {
        let tcp6 = match self.tcp6 {
            Some(listener) => listener,
            None => self.tcp4.try_clone()?,
        };
        let udp6 = match self.udp6 {
            Some(socket) => socket,
            None => self.udp4.try_clone()?,
        };
        Ok([self.tcp4.into(), tcp6.into(), self.udp4.into(), udp6.into()])
    }
}

pub(super) fn open(netns: Option<&File>, tcp_port: u16, dns_port: u16) -> Result<Listeners> {
    inside(netns, tcp_port, move || open_here(tcp_port, dns_port))
}

/// By which the programs know the namespace.
pub(super) fn cookie(netns: Option<&File>, port: u16) -> Result<u64> {
    inside(netns, port, move || {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let socket = socket.map_err(|e| KernelError::Listen { port, source: e.into() })?;
        sys::netns_cookie(socket.as_fd()).map_err(|source| KernelError::Listen { port, source })
    })
}

fn inside<T: Send + 'static>(
    netns: Option<&File>,
    port: u16,
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Some(netns) = netns else { return act() };
    let netns = netns.try_clone().map_err(|source| KernelError::Listen { port, source })?;
    // A thread that ends afterwards: its namespace never has to be put back.
    let done = std::thread::spawn(move || {
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| KernelError::Listen { port, source: e.into() })?;
        act()
    });
    done.join().map_err(|_| KernelError::Thread)?
}

fn open_here(tcp_port: u16, dns_port: u16) -> Result<Listeners> {
    // A namespace is made with `lo` down, and then there is no `::1` yet.
    let early = !is_up("lo");
    let tcp4 = tcp((Ipv4Addr::LOCALHOST, tcp_port).into(), early)?;
    let udp4 = udp((Ipv4Addr::LOCALHOST, dns_port).into(), early)?;
    let tcp6 = optional(tcp((Ipv6Addr::LOCALHOST, tcp_port).into(), early))?;
    let udp6 = optional(udp((Ipv6Addr::LOCALHOST, dns_port).into(), early))?;
    let netns =
        sys::netns_cookie(tcp4.as_fd()).map_err(|source| KernelError::Listen { port: tcp_port, source })?;
    Ok(Listeners { netns, tcp4, tcp6, udp4, udp6 })
}

fn is_up(interface: &str) -> bool {
    let up =
        |it: &InterfaceAddress| it.interface_name == interface && it.flags.contains(InterfaceFlags::IFF_UP);
    getifaddrs().is_ok_and(|mut all| all.any(|it| up(&it)))
}

/// A socket that is bound here; `early` if the address may come later.
fn bound(address: SocketAddr, kind: SockType, early: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&socket, sockopt::IpFreebind, &early)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn tcp(address: SocketAddr, early: bool) -> Result<TcpListener> {
    let open = || {
        let listener = bound(address, SockType::Stream, early)?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(listener.into())
    };
    open().map_err(|source| KernelError::Listen { port: address.port(), source })
}

fn udp(address: SocketAddr, early: bool) -> Result<UdpSocket> {
    let open = bound(address, SockType::Datagram, early);
    open.map(UdpSocket::from).map_err(|source| KernelError::Listen { port: address.port(), source })
}

/// Without IPv6 there is no `::1`; a port that is taken is an error all the same.
fn optional<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(KernelError::Listen { source, .. })
            if source.kind() == io::ErrorKind::AddrNotAvailable
                || source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
