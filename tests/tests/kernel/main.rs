//! The kernel half alone: every technique is tried from a tagged cgroup in a
//! network namespace, and what arrives at the other end of its cable decides.
//!
//! Needs root. The hooks are attached to a cgroup of the test's own, or where
//! `ENFORCER_TEST_ATTACH` says (the root, in a virtual machine).
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "what a child does between fork and exec")]

mod attribution;
mod debug;
mod foreign;
mod interfaces;
mod lifecycle;
mod loopback;
mod lsm;
mod routes;
mod scopes;
mod tamper;
mod world {
    pub use enforcer_tests::kernel::*;
}

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::WORK4;
use enforcer_tests::sniffer::contains;

use world::*;

#[test]
fn the_sniffer_sees_what_an_untagged_process_sends() {
    let world = World::served();
    for (technique, to) in [
        ("tcp", real4().to_string()),
        ("tcp", real6().to_string()),
        ("tcp", mapped()),
        ("mptcp", real4().to_string()),
        ("fastopen", real4().to_string()),
        ("uring", real4().to_string()),
        ("bindtodevice", real4().to_string()),
        ("udp-sendto", real4().to_string()),
        ("udp-sendto", mapped()),
        ("udp-sendmsg", real6().to_string()),
        ("udp-sendmmsg", real4().to_string()),
        ("udp-connect", real4().to_string()),
        ("udp-rthdr", "[2001:db8::1]:4444".to_owned()),
        ("quic", real4().to_string()),
        ("udplite", real4().to_string()),
        ("icmp-raw", real4().to_string()),
        ("icmp-dgram", real4().to_string()),
        ("icmp-dgram", real6().to_string()),
    ] {
        let outcome = world.untagged(technique, &to);
        assert!(outcome.starts_with("ok"), "{technique} {to}: {outcome}");
        if outcome.contains("peer=") {
            assert!(outcome.ends_with("REAL"), "{technique} {to}: {outcome}");
        }
        let packets = world.leaked();
        assert!(packets.iter().any(|p| contains(&p.bytes, PAYLOAD)), "{technique} {to}: {packets:?}");
    }
    assert!(world.records.lock().unwrap().is_empty(), "nobody untagged came to the proxy");
}

#[test]
fn tcp_reaches_the_proxy_with_the_right_record_whatever_the_call() {
    let world = World::served();
    for (technique, to) in [
        ("tcp", real4().to_string()),
        ("tcp", real6().to_string()),
        ("tcp", mapped()),
        ("fastopen", real4().to_string()),
        ("fastopen", real6().to_string()),
        ("fastopen-connect", real4().to_string()),
        ("uring", real4().to_string()),
        ("uring", real6().to_string()),
    ] {
        let outcome = world.tagged(technique, &to);
        let shown = if to.contains("ffff") { real4().to_string() } else { to.clone() };
        assert!(
            outcome.ends_with(&format!("PROXY {shown} {TAG} enforcer-probe")),
            "{technique} {to}: {outcome}"
        );
        if outcome.contains("peer=") {
            assert!(
                outcome.contains(&format!("peer={to} ")),
                "getpeername is restored: {technique} {outcome}"
            );
        }
        world.nothing_leaked(technique);
    }
    let records = world.records.lock().unwrap();
    let job = enforcer::kernel::cgroup_id(world.job.path()).unwrap();
    assert!(records.iter().all(|r| r.cgroup == job && r.uid == 0 && r.pid != 0 && r.netns != 0));
}

#[test]
fn many_workloads_at_once_are_told_apart() {
    let world = World::served();
    let children: Vec<_> = (0..40)
        .map(|n| {
            let (cgroup, tag) = if n % 2 == 0 { (&world.job, TAG) } else { (&world.other_job, OTHER_TAG) };
            let to = SocketAddr::from((Ipv4Addr::new(192, 0, 2, n), 1000 + u16::from(n)));
            (to, tag, world.spawn(cgroup, &["tcp", &to.to_string()]))
        })
        .collect();
    for (to, tag, child) in children {
        let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(outcome.contains(&format!("PROXY {to} {tag} ")), "{to} {tag}: {outcome}");
    }
    world.nothing_leaked("forty connections");
}

#[test]
fn datagrams_are_refused_whatever_the_call() {
    let mut world = World::served();
    for technique in ["udp-sendto", "udp-sendmsg", "udp-sendmmsg", "udp-connect", "quic"] {
        for to in [real4().to_string(), real6().to_string(), mapped()] {
            let outcome = world.tagged(technique, &to);
            assert!(outcome.starts_with(EPERM), "{technique} {to}: {outcome}");
            world.nothing_leaked(technique);
        }
    }
    for to in ["239.1.2.3:5000", "255.255.255.255:5000", "10.77.0.2:443"] {
        let outcome = world.tagged("udp-sendto", to);
        assert!(outcome.starts_with("error "), "{to}: {outcome}");
        world.nothing_leaked(to);
    }
    let refusal = world.refused_with("sendmsg4", "udp");
    assert_eq!((refusal.tag, refusal.protocol, refusal.comm.as_str()), (TAG, 17, "enforcer-probe"));
    assert!(refusal.destination.is_some());
    world.refused_with("egress", "off-loopback");
}

#[test]
fn datagrams_on_loopback_reach_nobody_else() {
    let world = World::served();
    let relay = world
        .cable
        .work
        .run(|| {
            let relay = UdpSocket::bind(("0.0.0.0", 6000)).unwrap();
            relay.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            relay
        })
        .unwrap();
    for technique in ["udp-sendto", "udp-connect"] {
        // Its own interface's address is routed over loopback as well.
        for to in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 6000)),
            (WORK4, 6000).into(),
            (Ipv4Addr::UNSPECIFIED, 6000).into(),
        ] {
            let outcome = world.tagged(technique, to);
            assert!(outcome.starts_with("error "), "{technique} {to}: {outcome}");
            assert!(relay.recv(&mut [0; 64]).is_err(), "{technique} {to} reached the relay");
        }
    }
    assert!(world.untagged("udp-sendto", "127.0.0.1:6000").starts_with("ok"));
    assert!(relay.recv(&mut [0; 64]).is_ok());
}

#[test]
fn dns_is_redirected_and_its_source_restored() {
    let world = World::served();
    for technique in ["dns", "dns-connect"] {
        for (to, shown) in [
            ("10.77.0.2:53", "10.77.0.2:53"),
            ("127.0.0.53:53", "127.0.0.53:53"),
            ("[fd77::2]:53", "[fd77::2]:53"),
            ("[::ffff:10.77.0.2]:53", "10.77.0.2:53"),
        ] {
            let outcome = world.tagged(technique, to);
            let expected = format!("ok from={to} A? for {shown} {TAG} | from={to} AAAA? for {shown} {TAG}");
            assert_eq!(outcome, expected, "{technique} {to}");
            world.nothing_leaked(technique);
        }
    }
}

/// The address is rewritten to loopback, but a control message says otherwise.
#[test]
fn a_dns_datagram_does_not_leave_by_its_control_messages() {
    let world = World::served();
    for technique in ["dns-pktinfo", "dns-rthdr"] {
        let to = format!("[{}]:53", enforcer_tests::netns::PEER6);
        let outcome = world.untagged(technique, &to);
        let seen = world.leaked().iter().any(|p| contains(&p.bytes, b"PROBE-SECRET"));
        // A kernel without mobile IPv6 takes no routing header here.
        let refused = technique == "dns-rthdr" && outcome.starts_with("error 22 ");
        assert!(seen || refused, "{technique}: the attempt proves nothing: {outcome}");
        world.tagged(technique, &to);
        world.nothing_leaked(technique);
    }
}

#[test]
fn other_sockets_cannot_be_made() {
    let mut world = World::served();
    for technique in ["icmp-dgram", "icmp-raw", "udplite", "mptcp"] {
        for to in [real4(), real6()] {
            let outcome = world.tagged(technique, to);
            assert!(outcome.starts_with(EPERM), "{technique} {to}: {outcome}");
            world.nothing_leaked(technique);
        }
    }
    assert_eq!(world.refused_with("sock_create", "socket-type").tag, TAG);
}

#[test]
fn options_that_choose_a_route_are_refused() {
    let mut world = World::served();
    for (technique, to) in
        [("bindtodevice", real4()), ("udp-rthdr", real6()), ("igmp", (Ipv4Addr::new(239, 1, 2, 3), 1).into())]
    {
        let outcome = world.tagged(technique, to);
        assert!(outcome.starts_with(EPERM), "{technique}: {outcome}");
        world.nothing_leaked(technique);
    }
    assert_eq!(world.refused_with("setsockopt", "socket-option").detail, 35);
}

#[test]
fn a_socket_made_before_the_tag_is_caught() {
    let world = World::served();
    for (technique, expected) in [
        ("tcp", "PROXY "),
        ("udp-sendto", EPERM),
        ("udp-connect", EPERM),
        // Bound to the cable: what is redirected cannot leave by loopback.
        ("bindtodevice", "error "),
    ] {
        let mut child = world.spawn(&world.outside, &[technique, &real4().to_string(), "wait"]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        world.job.add(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
        child.wait().unwrap();
        assert!(line.contains(expected), "{technique}: {line}");
        world.nothing_leaked(technique);
    }
}

/// As by SCM_RIGHTS: its cgroup is that of whoever made it, the task's is not.
#[test]
fn a_socket_made_by_somebody_untagged_is_caught() {
    let world = World::served();
    let made = |kind| {
        world
            .cable
            .work
            .run(move || {
                let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
                nix::sys::socket::socket(nix::sys::socket::AddressFamily::Inet, kind, flags, None).unwrap()
            })
            .unwrap()
    };
    for (technique, kind, expected) in [
        ("foreign-tcp", nix::sys::socket::SockType::Stream, "PROXY "),
        ("foreign-udp", nix::sys::socket::SockType::Datagram, EPERM),
    ] {
        let to = real4().to_string();
        let child = world.spawn_with(&world.job, &[technique, &to], made(kind).into());
        let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(outcome.contains(expected), "{technique}: {outcome}");
        world.nothing_leaked(technique);
    }
}

#[test]
fn nobody_pulls_from_a_tagged_listener() {
    let world = World::served();
    let pull = |cgroup: &Cgroup| {
        let mut child = world.spawn(cgroup, &["listen", "0.0.0.0:7000"]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let pulled = world
            .cable
            .peer
            .run(|| {
                let mut text = String::new();
                TcpStream::connect_timeout(&(WORK4, 7000).into(), Duration::from_millis(700))
                    .and_then(|mut stream| stream.read_to_string(&mut text))
                    .map(|_| text)
            })
            .unwrap();
        child.wait().unwrap();
        pulled
    };
    assert_eq!(pull(&world.outside).unwrap().as_bytes(), PAYLOAD);
    world.sniffer.clear().unwrap();
    pull(&world.job).unwrap_err();
    world.nothing_leaked("an inbound pull");
}

#[test]
fn the_ports_of_the_proxy_are_nobody_elses() {
    let mut world = World::served();
    for port in [TCP_PORT, DNS_PORT] {
        for technique in ["bind", "bind-udp"] {
            for ip in ["0.0.0.0", "127.0.0.2", "[::]", "[::1]"] {
                let to = format!("{ip}:{port}");
                let outcome = world.untagged(technique, &to);
                assert!(outcome.starts_with(EPERM), "untagged {technique} {to}: {outcome}");
                let outcome = world.tagged(technique, &to);
                assert!(outcome.starts_with(EPERM), "tagged {technique} {to}: {outcome}");
            }
        }
    }
    assert!(world.untagged("bind", "127.0.0.1:15002").starts_with("ok"));
    world.refused_with("bind4", "enforcer-port");
    world.refused_with("bind6", "enforcer-port");
}

#[test]
fn a_workload_reaches_its_own_loopback_servers_and_nobody_elses() {
    let world = World::served();
    for ip in ["127.0.0.1", "[::1]"] {
        let outcome = world.tagged("own-loopback", format!("{ip}:0"));
        assert_eq!(outcome, "ok own server same-peer=true udp=4", "{ip}");
    }
    let relay = world.cable.work.run(|| TcpListener::bind("127.0.0.1:6001").unwrap()).unwrap();
    relay.set_nonblocking(true).unwrap();
    let outcome = world.tagged("tcp", "127.0.0.1:6001");
    assert!(outcome.contains(&format!("PROXY 127.0.0.1:6001 {TAG} ")), "{outcome}");
    let outcome = world.tagged("tcp", "0.0.0.0:6001");
    assert!(outcome.contains("PROXY 0.0.0.0:6001"), "{outcome}");
    assert!(relay.accept().is_err(), "the relay was reached");
    // Another workload's server is as foreign as an untagged one.
    let mut server = world.spawn(&world.other_job, &["listen", "127.0.0.1:6002"]);
    let mut line = String::new();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let outcome = world.tagged("tcp", "127.0.0.1:6002");
    assert!(outcome.contains("PROXY 127.0.0.1:6002"), "{outcome}");
    server.wait().unwrap();
}

#[test]
fn a_connection_that_nobody_redirected_has_no_record() {
    let mut world = World::served();
    for to in [format!("127.0.0.1:{TCP_PORT}"), format!("[::1]:{TCP_PORT}"), format!("0.0.0.0:{TCP_PORT}")] {
        assert!(world.untagged("tcp", &to).starts_with(EPERM), "{to}");
        // Ours may, and are nobody as well.
        let outcome = world.probe_in(&world.own, &["tcp", &to]);
        assert!(!outcome.contains("PROXY"), "{to}: {outcome}");
    }
    for technique in ["dns", "dns-connect"] {
        let to = format!("127.0.0.1:{DNS_PORT}");
        assert!(world.untagged(technique, &to).starts_with(EPERM), "{technique}");
        let outcome = world.probe_in(&world.own, &[technique, &to]);
        assert!(outcome.contains("NOBODY"), "{outcome}");
    }
    assert!(world.records.lock().unwrap().is_empty());
    assert_eq!(world.refused_with("connect4", "enforcer-port").tag, 0);
}

/// A workload that dials the proxy itself gets a record of just that.
#[test]
fn dialling_the_proxy_directly_names_the_proxy_as_destination() {
    let world = World::served();
    let to = format!("127.0.0.1:{TCP_PORT}");
    let outcome = world.tagged("tcp", &to);
    assert!(outcome.contains(&format!("PROXY {to} {TAG} ")), "{outcome}");
    let outcome = world.tagged("udp-sendto", format!("127.0.0.1:{DNS_PORT}"));
    assert!(outcome.starts_with(EPERM), "{outcome}");
}
