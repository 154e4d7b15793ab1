//! Socket options and control messages that choose an interface, a route or a header.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use super::{
    connect, connect_and_talk, option, raw_address, routing_header, send, send_msg, send_to, socket,
    source_route, udp,
};

const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_WINDOW: i32 = 29;
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_FREEBIND: i32 = 78;
const IPV6_2292PKTOPTIONS: i32 = 6;

/// The option of this name: level, number and value.
fn named(name: &str, to: SocketAddr) -> Option<(i32, i32, Vec<u8>)> {
    let index = || nix::net::if_::if_nametoindex("work0").unwrap();
    // One option that pads, and another that pads.
    let padding = vec![0, 0, 1, 4, 0, 0, 0, 0];
    Some(match name {
        "device" => (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"work0\0".to_vec()),
        "ifindex" => (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index().to_ne_bytes().to_vec()),
        "mark" => (libc::SOL_SOCKET, libc::SO_MARK, 1_u32.to_ne_bytes().to_vec()),
        "unicast-if" if to.is_ipv4() => (libc::IPPROTO_IP, IP_UNICAST_IF, index().to_be_bytes().to_vec()),
        "unicast-if" => (libc::IPPROTO_IPV6, IPV6_UNICAST_IF, index().to_be_bytes().to_vec()),
        "route" => (libc::IPPROTO_IP, libc::IP_OPTIONS, source_route()),
        "pktinfo" => {
            let value = [&Ipv6Addr::UNSPECIFIED.octets()[..], &index().to_ne_bytes()].concat();
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, value)
        }
        "rthdr" => (libc::IPPROTO_IPV6, libc::IPV6_RTHDR, routing_header(4, 0)),
        "hopopts" => (libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, padding),
        "dstopts" => (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, padding),
        "rthdrdstopts" => (libc::IPPROTO_IPV6, libc::IPV6_RTHDRDSTOPTS, padding),
        "pktoptions" => {
            // A control message within the option: an interface.
            let value = [&Ipv6Addr::UNSPECIFIED.octets()[..], &index().to_ne_bytes()].concat();
            let mut message = (16 + value.len()).to_ne_bytes().to_vec();
            message.extend(libc::IPPROTO_IPV6.to_ne_bytes());
            message.extend(libc::IPV6_PKTINFO.to_ne_bytes());
            message.extend(value);
            message.resize(40, 0);
            (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS, message)
        }
        "freebind" => (libc::IPPROTO_IPV6, IPV6_FREEBIND, 1_i32.to_ne_bytes().to_vec()),
        "transparent6" => (libc::IPPROTO_IPV6, IPV6_TRANSPARENT, 1_i32.to_ne_bytes().to_vec()),
        "transparent" => (libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1_i32.to_ne_bytes().to_vec()),
        _ => return None,
    })
}

/// `option NAME`, then TCP; `udp-option NAME`, then a datagram; `udp-message NAME`: the
/// value as a control message.
pub fn attempt(name: &str, to: SocketAddr, extra: Option<&str>) -> Option<io::Result<String>> {
    let of = || named(extra.unwrap(), to).unwrap();
    Some(match name {
        "option" => {
            let (level, number, value) = of();
            socket(to, libc::SOCK_STREAM, 0).and_then(|fd| {
                option(&fd, level, number, &value)?;
                connect_and_talk(&fd, to, false)
            })
        }
        "udp-option" => udp(to, false, |fd| {
            let (level, number, value) = of();
            option(fd, level, number, &value)?;
            send_to(fd, to, 0)
        }),
        "udp-option-connect" => udp(to, false, |fd| {
            let (level, number, value) = of();
            option(fd, level, number, &value)?;
            connect(fd, to)?;
            send(fd)
        }),
        "udp-message" => udp(to, false, |fd| {
            let (level, number, value) = of();
            send_msg(fd, to, level, number, &value)
        }),
        "repair" => repair(to),
        _ => return None,
    })
}

/// A connection that is declared to stand, and data on it: no SYN has gone out.
fn repair(to: SocketAddr) -> io::Result<String> {
    let fd: OwnedFd = socket(to, libc::SOCK_STREAM, 0)?;
    option(&fd, libc::IPPROTO_TCP, TCP_REPAIR, &1_i32.to_ne_bytes())?;
    super::bind_socket(&fd, "10.77.0.1:4455".parse().unwrap())?;
    let (address, length) = raw_address(to);
    // SAFETY: an address of that length.
    super::check(unsafe {
        libc::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), (&raw const address).cast(), length)
    })?;
    // Nobody has told it how much the other end takes.
    let window: Vec<u8> = [0, 65_535, 65_535, 65_535, 0_u32].iter().flat_map(|it| it.to_ne_bytes()).collect();
    option(&fd, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, &window)?;
    // Off, without a probe of the window, which the peer would answer with a reset.
    option(&fd, libc::IPPROTO_TCP, TCP_REPAIR, &(-1_i32).to_ne_bytes())?;
    send(&fd)?;
    Ok("sent".to_owned())
}
