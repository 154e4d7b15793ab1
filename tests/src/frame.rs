//! Frames that are sent around the whole stack, by AF_PACKET.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sched::CloneFlags;

/// Both ports of what is sent.
pub const PORT: u16 = 4447;
const ETH_P_IP: u16 = 0x0800;

/// A packet socket; what it sends leaves by one interface, to everybody there.
pub struct Frames {
    socket: OwnedFd,
    interface: u32,
}

impl Frames {
    /// In this thread's network namespace.
    pub fn open(interface: &str) -> io::Result<Self> {
        let interface = nix::net::if_::if_nametoindex(interface)?;
        // SAFETY: plain numbers; the descriptor is owned from here on.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { socket, interface })
    }

    /// In another one, whoever is there; the socket is that of this process.
    pub fn open_in(netns: &File, interface: &str) -> io::Result<Self> {
        let (netns, interface) = (netns.try_clone()?, interface.to_owned());
        let opened = std::thread::spawn(move || {
            nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)?;
            Self::open(&interface)
        });
        opened.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
    }

    /// Asks for the way around queues and their classifiers.
    pub fn bypass(&self) -> io::Result<()> {
        const PACKET_QDISC_BYPASS: libc::c_int = 20;
        let (on, size) = (1_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0));
        // SAFETY: the kernel reads an integer.
        let done = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// One datagram of IPv4.
    pub fn send(&self, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let packet = datagram(from, to, payload);
        // SAFETY: zero is a valid address of this family.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.cast_unsigned().try_into().unwrap_or(0);
        address.sll_protocol = ETH_P_IP.to_be();
        address.sll_ifindex = self.interface.cast_signed();
        address.sll_halen = 6;
        address.sll_addr = [0xff; 8];
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: a packet and an address of those lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn datagram(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    packet.splice(10..12, sum.to_be_bytes());
    for port in [PORT, PORT] {
        packet.extend(port.to_be_bytes());
    }
    packet.extend(length(8));
    // Of UDP there need not be one.
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}
