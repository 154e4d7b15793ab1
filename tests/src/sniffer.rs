//! What arrives at the peer's end of the cable: the oracle of every escape test.
#![allow(unsafe_code, reason = "a packet socket has no safe constructor for its address")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::netns::{Cable, Netns, PEER_INTERFACE, PEER4, PEER6, WORK4, WORK6};
use crate::wait::PATIENCE;

/// Protocol numbers of IPv6 neighbour discovery and multicast reports, which
/// the kernel itself sends as soon as an interface is up.
const KERNEL_ICMP6: std::ops::RangeInclusive<u8> = 130..=143;
const ICMP6: u8 = 58;
const SENTINEL_PORT: u16 = 9;

/// One packet of the workload's end, from its network header on.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub bytes: Vec<u8>,
}

/// Collects packets until it is dropped.
pub struct Sniffer {
    seen: Arc<Seen>,
    work: Sender,
}

#[derive(Default)]
struct Seen {
    packets: Mutex<Vec<Packet>>,
    more: Condvar,
}

impl Seen {
    fn packets(&self) -> Result<MutexGuard<'_, Vec<Packet>>> {
        self.packets.lock().map_err(|_| panicked())
    }
}

fn panicked() -> anyhow::Error {
    anyhow::anyhow!("the sniffer panicked")
}

/// A socket in the workload's namespace that belongs to the test, not to a workload.
struct Sender {
    v4: UdpSocket,
    v6: UdpSocket,
}

impl Sniffer {
    pub fn start(cable: &Cable) -> Result<Self> {
        let socket = packet_socket(&cable.peer)?;
        let work = cable.work.run(|| -> std::io::Result<Sender> {
            Ok(Sender { v4: UdpSocket::bind((WORK4, 0))?, v6: UdpSocket::bind((WORK6, 0))? })
        })??;
        let seen = Arc::<Seen>::default();
        let weak = Arc::downgrade(&seen);
        std::thread::spawn(move || {
            let mut buffer = vec![0_u8; 70_000];
            loop {
                // SAFETY: the buffer is as long as said.
                let read =
                    unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                let Some(seen) = weak.upgrade() else { return };
                let Ok(length) = usize::try_from(read) else { continue };
                if let Some(packet) = parse(&buffer[..length])
                    && let Ok(mut packets) = seen.packets()
                {
                    packets.push(packet);
                    seen.more.notify_all();
                }
            }
        });
        Ok(Self { seen, work })
    }

    /// Everything that has come from the workload's end so far. Packets of the
    /// test's own are sent after it: when those are here, so is all before them.
    /// One of each family, because a packet may wait for its neighbour to be found.
    pub fn packets(&self) -> Result<Vec<Packet>> {
        let sentinel = format!("sentinel {:?}", Instant::now()).into_bytes();
        self.work.v4.send_to(&sentinel, (PEER4, SENTINEL_PORT)).context("sending the sentinel")?;
        self.work.v6.send_to(&sentinel, (PEER6, SENTINEL_PORT)).context("sending the sentinel")?;
        let missing = |packets: &mut Vec<Packet>| {
            let here =
                |v4: bool| packets.iter().any(|p| p.source.is_ipv4() == v4 && contains(&p.bytes, &sentinel));
            !(here(true) && here(false))
        };
        let seen = self.seen.packets()?;
        let waited = self.seen.more.wait_timeout_while(seen, PATIENCE, missing);
        let (mut packets, waited) = waited.map_err(|_| panicked())?;
        if waited.timed_out() {
            bail!("the sentinel did not arrive: the cable is broken, and the sniffer proves nothing");
        }
        packets.retain(|p| !contains(&p.bytes, b"sentinel "));
        Ok(packets.clone())
    }

    /// Forgets what has come so far.
    pub fn clear(&self) -> Result<()> {
        self.packets()?;
        self.seen.packets()?.clear();
        Ok(())
    }
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn packet_socket(netns: &Netns) -> Result<OwnedFd> {
    let opened = netns.run(|| -> std::io::Result<OwnedFd> {
        let all = i32::from(0x0003_u16.to_be());
        // SAFETY: plain numbers; the descriptor is owned from here on.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, all) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = nix::net::if_::if_nametoindex(PEER_INTERFACE)?;
        // SAFETY: zero is a valid address of this family.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.cast_unsigned().try_into().unwrap_or(0);
        address.sll_protocol = 0x0003_u16.to_be();
        address.sll_ifindex = index.cast_signed();
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: an address of that length.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let patience = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
        // SAFETY: a value of that length.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                length,
            )
        };
        if set != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(fd)
    })?;
    opened.context("a packet socket needs root")
}

/// Packets of the workload's end that it did not send by itself.
fn parse(bytes: &[u8]) -> Option<Packet> {
    let packet = match bytes.first()? >> 4 {
        4 if bytes.len() >= 20 => Packet {
            source: IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[12..16]).ok()?)),
            destination: IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[16..20]).ok()?)),
            protocol: bytes[9],
            bytes: bytes.to_vec(),
        },
        6 if bytes.len() >= 41 => Packet {
            source: IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).ok()?)),
            destination: IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[24..40]).ok()?)),
            protocol: bytes[6],
            bytes: bytes.to_vec(),
        },
        // Not IP: address resolution, which the sentinel causes too.
        _ => return None,
    };
    let noise = match packet.protocol {
        ICMP6 => KERNEL_ICMP6.contains(&bytes[40]),
        // Hop-by-hop: multicast reports of the kernel.
        0 if packet.source.is_ipv6() && bytes.len() > 48 => {
            bytes[40] == ICMP6 && KERNEL_ICMP6.contains(&bytes[48])
        }
        _ => false,
    };
    let ours =
        packet.source == IpAddr::V4(PEER4) || (packet.source.is_ipv6() && packet.source == IpAddr::V6(PEER6));
    (!noise && !ours).then_some(packet)
}
