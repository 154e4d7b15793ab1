//! Packets made by hand, and sockets that no hook of the address family sees.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{PAYLOAD, check, check_size, connect, option, raw_address, send_bytes_to, socket, talk};

const SOL_PACKET: i32 = 263;
const PACKET_TX_RING: i32 = 13;
const PACKET_QDISC_BYPASS: i32 = 20;
const SOCK_DCCP: i32 = 6;
const SOL_DCCP: i32 = 269;
const DCCP_SERVICE: i32 = 2;
/// A frame of the ring: its header, then the packet.
const FRAME: usize = 2048;
const WORK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PEER_LINK: [u8; 6] = [2, 0, 0, 0, 0, 2];
const WORK_LINK: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub fn attempt(name: &str, to: SocketAddr, extra: Option<&str>) -> Option<io::Result<String>> {
    let done = match name {
        "raw-protocol" => protocol(to, extra.unwrap().parse().unwrap()),
        "hdrincl" => by_hand(to, &[datagram(WORK, to, 0, PAYLOAD)]),
        "hdrincl-loopback" => {
            let named = (Ipv4Addr::LOCALHOST, to.port()).into();
            by_hand(to, &[datagram(WORK, named, 0, PAYLOAD)])
        }
        "fragments" => {
            // Ports stand in the first alone.
            let whole = udp_header(to.port(), &[0; 16]);
            let more = 0x2000_u16;
            by_hand(to, &[ip(WORK, to, 17, more, &whole), ip(WORK, to, 17, 3, PAYLOAD)])
        }
        "packet-raw" => packet(to, libc::SOCK_RAW, false),
        "packet-dgram" => packet(to, libc::SOCK_DGRAM, false),
        "packet-bypass" => packet(to, libc::SOCK_RAW, true),
        "packet-ring" => ring(to),
        "sctp" => stream(to, libc::SOCK_STREAM, 132),
        "sctp-seqpacket" => {
            socket(to, libc::SOCK_SEQPACKET, 132).and_then(|fd| send_bytes_to(&fd, to, 0, PAYLOAD))
        }
        "dccp" => dccp(to),
        "l2tp" => socket(to, libc::SOCK_DGRAM, 115).and_then(|fd| send_bytes_to(&fd, to, 0, PAYLOAD)),
        "smc" => {
            // AF_SMC, which talks TCP below.
            family(43, libc::SOCK_STREAM, 0).and_then(|fd| connect(&fd, to))
        }
        _ => return None,
    };
    Some(done.map(|()| "sent".to_owned()))
}

pub fn family(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn stream(to: SocketAddr, kind: i32, protocol: i32) -> io::Result<()> {
    let fd = socket(to, kind, protocol)?;
    connect(&fd, to)?;
    talk(fd).map(drop)
}

fn dccp(to: SocketAddr) -> io::Result<()> {
    let fd = socket(to, SOCK_DCCP, 33)?;
    option(&fd, SOL_DCCP, DCCP_SERVICE, &42_u32.to_be_bytes())?;
    connect(&fd, to)
}

fn protocol(to: SocketAddr, number: i32) -> io::Result<()> {
    let fd = socket(to, libc::SOCK_RAW, number)?;
    send_bytes_to(&fd, SocketAddr::new(to.ip(), 0), 0, PAYLOAD)
}

fn by_hand(to: SocketAddr, packets: &[Vec<u8>]) -> io::Result<()> {
    let fd = socket(to, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    packets.iter().try_for_each(|packet| send_bytes_to(&fd, SocketAddr::new(to.ip(), 0), 0, packet))
}

fn udp_header(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let words = [4455_u16, port, length, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend(payload);
    bytes
}

fn datagram(from: Ipv4Addr, to: SocketAddr, fragment: u16, payload: &[u8]) -> Vec<u8> {
    ip(from, to, 17, fragment, &udp_header(to.port(), payload))
}

/// A packet of IPv4 with its checksum.
pub fn ip(from: Ipv4Addr, to: SocketAddr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(to) = to.ip() else { panic!("packets by hand are of IPv4") };
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn frame(to: SocketAddr) -> Vec<u8> {
    let mut frame = [&PEER_LINK[..], &WORK_LINK, &[8, 0]].concat();
    frame.extend(datagram(WORK, to, 0, PAYLOAD));
    frame
}

fn link_address() -> libc::sockaddr_ll {
    // SAFETY: zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = 17;
    address.sll_protocol = 0x0800_u16.to_be();
    address.sll_ifindex = nix::net::if_::if_nametoindex("work0").unwrap().cast_signed();
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&PEER_LINK);
    address
}

fn packet(to: SocketAddr, kind: i32, bypass: bool) -> io::Result<()> {
    let fd = family(libc::AF_PACKET, kind, i32::from(0x0800_u16.to_be()))?;
    if bypass {
        option(&fd, SOL_PACKET, PACKET_QDISC_BYPASS, &1_i32.to_ne_bytes())?;
    }
    let bytes = if kind == libc::SOCK_RAW { frame(to) } else { frame(to)[14..].to_vec() };
    let address = link_address();
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: a frame and an address of those lengths.
    check_size(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const address).cast(),
            length,
        )
    })
}

/// Through shared memory: the frame is not an argument of any call.
fn ring(to: SocketAddr) -> io::Result<()> {
    const SEND_REQUEST: u32 = 1;
    /// `struct tpacket_hdr`, aligned, without the address behind it.
    const HEADER: usize = 32;
    let fd = family(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    // Block size, blocks, frame size, frames.
    let request = [4096_u32, 1, u32::try_from(FRAME).unwrap(), 2];
    let request: Vec<u8> = request.iter().flat_map(|word| word.to_ne_bytes()).collect();
    option(&fd, SOL_PACKET, PACKET_TX_RING, &request)?;
    let address = link_address();
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: an address of that length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    let bytes = frame(to);
    // SAFETY: the ring is one page, and the frame fits behind the header of its first slot.
    unsafe {
        let shared = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), 4096, shared, libc::MAP_SHARED, fd.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = at.cast::<u8>();
        at.add(HEADER).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        at.add(8).cast::<u32>().write(u32::try_from(bytes.len()).unwrap());
        at.cast::<u64>().write_volatile(u64::from(SEND_REQUEST));
        check_size(libc::send(fd.as_raw_fd(), std::ptr::null(), 0, 0))
    }
}

/// To a port of the machine itself, where a process outside of the job listens: the way
/// to the host of a virtual machine is the same.
pub fn vsock(port: u32) -> io::Result<OwnedFd> {
    let fd = family(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    connect_vsock(&fd, port)?;
    Ok(fd)
}

pub fn connect_vsock(fd: &OwnedFd, port: u32) -> io::Result<()> {
    let address = vsock_address(1, port);
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: an address of that length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

pub fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: zero is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = 40;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Where an address goes that needs no namespace: used by those who inject packets.
pub fn injected(to: SocketAddr) -> Vec<u8> {
    datagram(Ipv4Addr::new(10, 99, 0, 2), to, 0, PAYLOAD)
}

/// The address as bytes, for programs that are made by hand.
pub fn words(to: SocketAddr) -> (u32, u32) {
    let (address, _) = raw_address(to);
    // SAFETY: the address is one of IPv4.
    let v4 = unsafe { &*(&raw const address).cast::<libc::sockaddr_in>() };
    (v4.sin_addr.s_addr, u32::from(v4.sin_port))
}
