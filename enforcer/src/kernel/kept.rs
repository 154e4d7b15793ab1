//! Listeners that outlive the proxy that served them: which sockets are ours, and
//! programs for those whose cgroup is gone.
//!
//! A socket stays in the cgroup in which it was made. Under systemd the enforcer's own
//! cgroup is a new one after each restart, but connections of a listener that was kept
//! come to the old one, and ask there for their record.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::SkStorage;
use enforcer_common as abi;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::attach::Attachment;
use super::links;
use super::pins::PinDir;
use super::{Kernel, Listeners, Plain, Result, io_error, map_error};
use crate::net::sys;

/// Between the name of a program and the id of a cgroup that is gone. A pin's name has no dots.
const FORMER: &str = "-former-";

/// The sockets of one network namespace.
#[derive(Default)]
struct Found {
    tcp4: Option<TcpListener>,
    tcp6: Option<TcpListener>,
    udp4: Option<UdpSocket>,
    udp6: Option<UdpSocket>,
}

impl Kernel {
    /// Of sockets that come from elsewhere: the listeners that are ours and still listen.
    /// What the bind hooks have not marked as ours is closed, whoever has passed it on.
    pub fn take_back(&mut self, sockets: Vec<OwnedFd>) -> Result<Vec<Listeners>> {
        let mut found: BTreeMap<u64, Found> = BTreeMap::new();
        for socket in sockets {
            if self.is_own(&socket) {
                // One that cannot be looked at is none that could be served.
                self.sort(socket, &mut found).ok();
            }
        }
        let mut taken = Vec::new();
        for (netns, Found { tcp4, tcp6, udp4, udp6 }) in found {
            let (Some(tcp4), Some(udp4)) = (tcp4, udp4) else { continue };
            let listeners = Listeners { netns, tcp4, tcp6, udp4, udp6 };
            let flags = if listeners.has_ipv6() { 0 } else { abi::NETNS_NO_IPV6 };
            let (tcp_port, dns_port) = (self.config.tcp_port, self.config.dns_port);
            let served = abi::Netns { tcp_port, dns_port, flags };
            self.served.insert(netns, Plain(served), 0).map_err(map_error("NETNS"))?;
            taken.push(listeners);
        }
        Ok(taken)
    }

    /// Whether one of our processes bound it to a port of ours, by the storage that the
    /// kernel keeps with a socket wherever it goes.
    fn is_own(&self, socket: &OwnedFd) -> bool {
        let sockets: &SkStorage<_, Plain<abi::Flow>> = &self.sockets;
        sockets.get(socket, 0).is_ok_and(|flow| flow.0.flags & abi::FLOW_OWN != 0)
    }

    fn sort(&self, socket: OwnedFd, found: &mut BTreeMap<u64, Found>) -> io::Result<()> {
        let here = found.entry(sys::netns_cookie(socket.as_fd())?).or_default();
        let is_ours = |address: SocketAddr, port| address.ip().is_loopback() && address.port() == port;
        if getsockopt(&socket, sockopt::SockType)? == SockType::Stream {
            let listens = getsockopt(&socket, sockopt::AcceptConn)?;
            let listener = TcpListener::from(socket);
            let address = listener.local_addr()?;
            if listens && is_ours(address, self.config.tcp_port) {
                let place = if address.is_ipv4() { &mut here.tcp4 } else { &mut here.tcp6 };
                *place = Some(listener);
            }
        } else {
            let socket = UdpSocket::from(socket);
            let address = socket.local_addr()?;
            if is_ours(address, self.config.dns_port) {
                let place = if address.is_ipv4() { &mut here.udp4 } else { &mut here.udp6 };
                *place = Some(socket);
            }
        }
        Ok(())
    }
}

/// Keeps a link to the enforcer's cgroup of before under another name, as long as
/// sockets of it are there.
pub(super) fn set_aside(pins: &PinDir, name: &str, link: &OwnedFd) -> io::Result<()> {
    let info = links::info(link.as_fd())?;
    let kept = pins.link(&format!("{name}{FORMER}{}", info.cgroup));
    match std::fs::remove_file(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(pins.link(name), kept)
}

/// Gives links that were set aside the programs of this loader, and removes those whose
/// cgroup is gone with its last socket.
pub(super) fn adopt_former(pins: &PinDir, attachments: &[Attachment]) -> Result<()> {
    for pin in pins.links()? {
        let Some((name, _)) = pin.split_once(FORMER) else { continue };
        let path = pins.link(&pin);
        let link = links::pinned(&path).map_err(io_error("opening", &path))?;
        let info = links::info(link.as_fd()).map_err(io_error("looking at", &path))?;
        let attachment = attachments.iter().find(|it| it.name == name);
        match attachment {
            Some(attachment) if info.cgroup != 0 => {
                links::update(link.as_fd(), attachment.program()).map_err(io_error("replacing", &path))?;
            }
            _ => std::fs::remove_file(&path).map_err(io_error("removing", &path))?,
        }
    }
    Ok(())
}
