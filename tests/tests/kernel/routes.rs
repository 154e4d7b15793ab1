//! Options, control messages and gifts by which a socket would take another way.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Stdio;
use std::time::Duration;

use enforcer_tests::sniffer::{Packet, contains};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, bind,
    recvmsg, socket,
};

use crate::world::*;

/// Somewhere behind the peer.
const BEHIND: &str = "192.0.2.1:4444";

#[test]
fn source_routes_are_refused_as_option_and_as_control_message() {
    let mut world = World::served();
    for technique in ["ip-options", "udp-ip-options", "udp-retopts"] {
        world.untagged(technique, BEHIND);
        assert!(!world.leaked().is_empty(), "{technique}: the attempt proves nothing");
        let outcome = world.tagged(technique, BEHIND);
        assert!(outcome.starts_with(EPERM), "{technique}: {outcome}");
        world.nothing_leaked(technique);
    }
    // SOL_IP, IP_OPTIONS.
    assert_eq!(world.refused_with("setsockopt", "socket-option").detail, 4);
}

/// The address is rewritten to loopback, but a control message names another way.
#[test]
fn a_dns_datagram_over_ipv4_does_not_leave_by_its_control_messages() {
    let world = World::served();
    for technique in ["dns-retopts", "dns-pktinfo4"] {
        world.untagged(technique, "192.0.2.1:53");
        let seen = world.leaked().iter().any(|p| contains(&p.bytes, PAYLOAD));
        assert!(seen, "{technique}: the attempt proves nothing");
        world.tagged(technique, "192.0.2.1:53");
        world.nothing_leaked(technique);
    }
}

#[test]
fn io_uring_is_no_way_around() {
    let world = World::served();
    for to in [real4().to_string(), real6().to_string(), mapped()] {
        assert!(world.untagged("uring-sendmsg", &to).starts_with("ok"), "{to}");
        assert!(world.leaked().iter().any(|p| contains(&p.bytes, PAYLOAD)), "{to} proves nothing");
        let outcome = world.tagged("uring-sendmsg", &to);
        assert!(outcome.starts_with(EPERM), "{to}: {outcome}");
        world.nothing_leaked("uring-sendmsg");
    }
}

/// The command came with Linux 6.7: where an untagged process may not either, the
/// kernel has none.
#[test]
fn io_uring_sets_no_option_that_setsockopt_may_not() {
    let mut world = World::served();
    for (option, to) in [("device", real4()), ("route", real4()), ("header", real6())] {
        let args = ["uring-setsockopt", &to.to_string(), option];
        let control = world.probe_in(&world.outside, &args);
        world.sniffer.clear().unwrap();
        let outcome = world.probe_in(&world.job, &args);
        world.nothing_leaked(option);
        if control.starts_with("ok") {
            assert!(outcome.starts_with(EPERM), "{option}: {outcome}");
            world.refused_with("setsockopt", "socket-option");
        } else {
            assert!(kernel_before(6, 7), "{option} ought to work: {control}");
            assert_eq!(outcome, control, "{option}");
        }
    }
}

fn kernel_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) < (major, minor)
}

/// The other direction of a socket that somebody untagged made: whoever uses it,
/// it stays what it was.
#[test]
fn a_socket_of_a_tagged_process_stays_tagged_in_other_hands() {
    let world = World::served();
    for (gift, technique, expected) in
        [("donate-tcp", "foreign-tcp", "PROXY "), ("donate-udp", "foreign-udp", EPERM)]
    {
        let to = real4().to_string();
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let donor = world.spawn_with(&world.job, &[gift, &to], Stdio::from(OwnedFd::from(there)));
        let socket = received(here.as_raw_fd());
        let said = String::from_utf8(donor.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said, "ok given\n");
        let child = world.spawn_with(&world.outside, &[technique, &to], socket.into());
        let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(outcome.contains(expected), "{technique}: {outcome}");
        world.nothing_leaked(technique);
    }
}

fn received(from: RawFd) -> OwnedFd {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message =
        recvmsg::<UnixAddr>(from, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let ControlMessageOwned::ScmRights(fds) = message.cmsgs().unwrap().next().unwrap() else {
        panic!("no descriptor came")
    };
    // SAFETY: it has just been received.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

/// Of linux/in6.h.
const IPV6_FREEBIND: i32 = 78;
static ON: i32 = 1;

fn kernel_is_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) < (major, minor)
}

/// Of TCP over IPv6: a header and nothing else (RFC 9293, section 3.1).
fn is_empty_segment(packet: &[u8]) -> bool {
    const IPV6: usize = 40;
    packet.len() == IPV6 + usize::from(packet[IPV6 + 12] >> 4) * 4
}

/// A socket may be bound to an address that the host does not have. What it sends comes
/// over loopback, and whoever listens there would answer over the network.
#[test]
fn nobody_is_answered_over_the_network() {
    let mut world = World::served();
    let from: SocketAddr = "[fd77::2]:5555".parse().unwrap();
    // There no hook of a cgroup sees the answer to a handshake.
    let old = kernel_is_before(6, 13);
    for (kind, technique, to) in [
        (SockType::Datagram, "foreign-udp", SocketAddr::new(real6().ip(), 53)),
        (SockType::Stream, "foreign-tcp", real6()),
    ] {
        // Made outside, where nobody is refused the option.
        let bound = world.cable.work.run(move || {
            let socket = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let on = (&raw const ON).cast();
            // SAFETY: the kernel reads one number.
            let set =
                unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, IPV6_FREEBIND, on, 4) };
            assert_eq!(set, 0);
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
            socket
        });
        world.sniffer.clear().unwrap();
        let socket = bound.unwrap();
        let args = [technique, &to.to_string()];
        let mut child = world.spawn_with(&world.job, &args, Stdio::from(socket));
        if kind == SockType::Stream {
            // It waits for an answer to its handshake, which is not to come.
            std::thread::sleep(Duration::from_secs(2));
            child.kill().unwrap();
        }
        child.wait().unwrap();
        let seen = world.leaked();
        let away = |packet: &&Packet| {
            let answers = matches!(packet.protocol, 6 | 17);
            answers && !(old && packet.protocol == 6 && is_empty_segment(&packet.bytes))
        };
        assert_eq!(seen.iter().filter(away).count(), 0, "{technique}: {seen:?}");
    }
    for option in ["freebind", "transparent6"] {
        let outcome = world.probe_in(&world.job, &["option", &real6().to_string(), option]);
        assert!(outcome.starts_with(EPERM), "{option}: {outcome}");
        world.refused_with("setsockopt", "socket-option");
    }
}
