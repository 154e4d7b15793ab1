//! The kernel half alone: every technique is tried from a tagged cgroup in a
//! network namespace, and what arrives at the other end of its cable decides.
//!
//! Needs root. The hooks are attached to a cgroup of the test's own, or where
//! `ENFORCER_TEST_ATTACH` says (the root, in a virtual machine).
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "what a child does between fork and exec")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use enforcer::kernel::{Kernel, KernelConfig, KernelError, Mode, Refusal};
use enforcer::net::sys;
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::{Cable, PEER4, PEER6, WORK4};
use enforcer_tests::sniffer::{Packet, Sniffer, contains};

const PROBE: &str = env!("CARGO_BIN_EXE_enforcer-probe");
const PAYLOAD: &[u8] = b"PROBE-SECRET";
const TAG: u64 = 7001;
const OTHER_TAG: u64 = 7002;
const REAL_PORT: u16 = 4444;
const TCP_PORT: u16 = 15001;
const DNS_PORT: u16 = 15053;

/// One test at a time: at the root of a machine there is room for one enforcer.
static TURN: Mutex<()> = Mutex::new(());

/// Everything a test needs. Fields are dropped in this order.
struct World {
    kernel: Option<Kernel>,
    refusals: Vec<Refusal>,
    sniffer: Sniffer,
    job: Cgroup,
    other_job: Cgroup,
    _jobs: Cgroup,
    outside: Cgroup,
    own: Cgroup,
    _root: Cgroup,
    cable: Cable,
    config: KernelConfig,
    records: Arc<Mutex<Vec<sys::FlowRecord>>>,
    mount: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let name = format!("enf-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = Cgroup::at_root(&name).unwrap();
        let own = root.child("own").unwrap();
        let jobs = root.child("jobs").unwrap();
        let (job, other_job) = (jobs.child("job").unwrap(), jobs.child("other").unwrap());
        let outside = root.child("outside").unwrap();
        own.add(std::process::id()).unwrap();
        let attach = match std::env::var_os("ENFORCER_TEST_ATTACH") {
            Some(path) => PathBuf::from(path),
            None => root.path().to_owned(),
        };
        let mount = std::env::temp_dir().join(&name);
        let config = KernelConfig {
            object: object(),
            pins: mount.join("enforcer"),
            attach,
            own: own.path().to_owned(),
            jobs: jobs.path().to_owned(),
            tcp_port: TCP_PORT,
            dns_port: DNS_PORT,
        };
        let cable = Cable::new().unwrap();
        serve_peer(&cable);
        let sniffer = Sniffer::start(&cable).unwrap();
        let mut world = Self {
            kernel: Some(load(&config)),
            refusals: Vec::new(),
            sniffer,
            job,
            other_job,
            _jobs: jobs,
            outside,
            own,
            _root: root,
            cable,
            config,
            records: Arc::default(),
            mount,
            _turn: turn,
        };
        let path = world.job.path().to_owned();
        world.kernel().tag(&path, TAG, 0).unwrap();
        let path = world.other_job.path().to_owned();
        world.kernel().tag(&path, OTHER_TAG, 0).unwrap();
        world
    }

    /// With listeners and something that answers like the proxy.
    fn served() -> Self {
        let mut world = Self::new();
        world.serve();
        world.sniffer.clear().unwrap();
        world
    }

    fn serve(&mut self) {
        let netns = self.cable.work.file().try_clone().unwrap();
        let listeners = self.kernel().open_listeners(Some(&netns)).unwrap();
        assert!(listeners.has_ipv6());
        let [tcp4, tcp6, udp4, udp6] = listeners.into_fds().unwrap();
        for fd in [tcp4, tcp6] {
            stand_in(fd, self.records.clone());
        }
        for fd in [udp4, udp6] {
            stand_in_resolver(fd);
        }
    }

    fn kernel(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    fn spawn(&self, cgroup: &Cgroup, args: &[&str]) -> Child {
        let procs = File::options().write(true).open(cgroup.path().join("cgroup.procs")).unwrap();
        let netns = self.cable.work.file().try_clone().unwrap();
        let mut command = Command::new(PROBE);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: only system calls, no memory is allocated.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::write(&procs, b"0")?;
                if libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    fn probe_in(&self, cgroup: &Cgroup, args: &[&str]) -> String {
        let done = self.spawn(cgroup, args).wait_with_output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// A tagged process tries.
    fn tagged(&self, technique: &str, to: impl ToString) -> String {
        self.probe_in(&self.job, &[technique, &to.to_string()])
    }

    /// An untagged process in the same network namespace tries.
    fn untagged(&self, technique: &str, to: impl ToString) -> String {
        self.probe_in(&self.outside, &[technique, &to.to_string()])
    }

    /// What came over the cable since the last time.
    fn leaked(&self) -> Vec<Packet> {
        let packets = self.sniffer.packets().unwrap();
        self.sniffer.clear().unwrap();
        packets
    }

    #[track_caller]
    fn nothing_leaked(&self, what: &str) {
        let packets = self.leaked();
        assert!(packets.is_empty(), "{what}: {packets:?}");
    }

    #[track_caller]
    fn refused_with(&mut self, hook: &str, reason: &str) -> Refusal {
        let new = self.kernel().poll_refusals();
        self.refusals.extend(new);
        let found = self.refusals.iter().rev().find(|r| r.hook == hook && r.reason == reason);
        found.unwrap_or_else(|| panic!("no {hook}/{reason} in {:#?}", self.refusals)).clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            kernel.release().unwrap();
        } else {
            enforcer::kernel::release(&self.config.pins).unwrap();
        }
        std::fs::remove_dir(&self.mount).unwrap();
    }
}

/// What fails half-way leaves pins, for the next loader to adopt; a test cleans up.
fn load(config: &KernelConfig) -> Kernel {
    Kernel::load_or_adopt(config.clone()).unwrap_or_else(|e| {
        enforcer::kernel::release(&config.pins).unwrap();
        panic!("{e}: {}", tail(&format!("{e:?}")));
    })
}

/// The end of what the verifier says: the beginning is every instruction.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(3000);
    &text[text.ceil_char_boundary(from)..]
}

fn object() -> PathBuf {
    std::env::var_os("ENFORCER_BPF_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/enforcer.bpf.o")),
        PathBuf::from,
    )
}

fn real4() -> SocketAddr {
    (PEER4, REAL_PORT).into()
}

fn real6() -> SocketAddr {
    (PEER6, REAL_PORT).into()
}

fn mapped() -> String {
    format!("[::ffff:{PEER4}]:{REAL_PORT}")
}

/// At the far end: answers REAL over TCP, and listens for datagrams.
fn serve_peer(cable: &Cable) {
    let (listener, datagrams) = cable
        .peer
        .run(|| {
            let datagrams = UdpSocket::bind(("::", REAL_PORT)).unwrap();
            (TcpListener::bind(("::", REAL_PORT)).unwrap(), datagrams)
        })
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                if stream.read(&mut buffer).is_ok() {
                    // The client may be gone: the packet has been seen all the same.
                    drop(stream.write_all(b"REAL"));
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while datagrams.recv(&mut buffer).is_ok() {}
    });
}

/// Accepts like the proxy: no record, no answer.
fn stand_in(fd: OwnedFd, records: Arc<Mutex<Vec<sys::FlowRecord>>>) {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let Some(record) = sys::flow_of(stream.as_fd()).unwrap() else { continue };
            assert_eq!(sys::flow_of(stream.as_fd()).unwrap(), None, "a record is taken once");
            records.lock().unwrap().push(record.clone());
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut buffer = [0; 64];
                if stream.read(&mut buffer).is_ok() {
                    let answer = format!("PROXY {} {} {}", record.orig_dst, record.tag, record.comm);
                    drop(stream.write_all(answer.as_bytes()));
                }
            });
        }
    });
}

fn stand_in_resolver(fd: OwnedFd) {
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = match sys::udp_flow_of(socket.as_fd(), from).unwrap() {
                Some(r) => {
                    format!("{} for {} {}", String::from_utf8_lossy(&buffer[..length]), r.orig_dst, r.tag)
                }
                None => "NOBODY".to_owned(),
            };
            drop(socket.send_to(answer.as_bytes(), from));
        }
    });
}

const EPERM: &str = "error 1 ";

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
    for technique in ["udp-sendto", "udp-sendmsg", "udp-sendmmsg", "udp-connect"] {
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
    for (technique, expected) in [("tcp", "PROXY "), ("udp-sendto", EPERM), ("udp-connect", EPERM)] {
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

#[test]
fn a_namespace_that_is_not_served_is_refused_and_reported() {
    let mut world = World::new();
    world.sniffer.clear().unwrap();
    for to in [real4(), real6()] {
        let outcome = world.tagged("tcp", to);
        assert!(outcome.starts_with(EPERM), "{outcome}");
    }
    world.nothing_leaked("an unserved namespace");
    let refusal = world.refused_with("connect4", "netns-not-served");
    assert_eq!(refusal.destination, Some(real4()));
    assert_ne!(refusal.netns, 0);
}

#[test]
fn deny_mode_refuses_and_release_of_a_tag_frees() {
    let mut world = World::served();
    world.kernel().set_mode(Mode::Deny).unwrap();
    assert!(world.tagged("tcp", real4()).starts_with(EPERM));
    world.refused_with("connect4", "deny-mode");
    world.kernel().set_mode(Mode::Redirect).unwrap();
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    world.nothing_leaked("deny mode");

    let id = enforcer::kernel::cgroup_id(world.job.path()).unwrap();
    assert!(world.kernel().untag(id).unwrap());
    assert!(!world.kernel().untag(id).unwrap());
    assert!(world.tagged("tcp", real4()).ends_with("REAL"));
    assert!(world.tagged("udp-sendto", real4()).starts_with("ok"));
    assert!(world.probe_in(&world.other_job, &["udp-sendto", &real4().to_string()]).starts_with(EPERM));
}

#[test]
fn a_flood_of_refusals_is_counted_not_reported() {
    let mut world = World::served();
    let started = Instant::now();
    let mut rounds = 0;
    // Until more were refused in one second than are reported.
    while rounds < 150 {
        world.spawn(&world.job, &["udp-sendto", &real4().to_string()]).wait().unwrap();
        rounds += 1;
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
    let reported = world.kernel().poll_refusals().len();
    assert!(reported > 0 && reported <= seconds * 100, "{reported} in {seconds} s");
}

#[test]
fn a_second_loader_refuses_and_the_next_one_adopts() {
    let mut world = World::served();
    assert!(matches!(Kernel::load_or_adopt(world.config.clone()), Err(KernelError::Locked(_))));
    let health = world.kernel().health().unwrap();
    assert!(health.is_good(), "{health:#?}");
    assert_eq!((health.links.len(), health.tags), (18, 2));
    let before = world.kernel().tags().unwrap();
    drop(world.kernel.take());
    // Without a loader everything that is pinned holds.
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.kernel = Some(Kernel::load_or_adopt(world.config.clone()).unwrap());
    assert_eq!(world.kernel().tags().unwrap(), before);
    assert!(world.kernel().health().unwrap().is_good());
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    world.nothing_leaked("adoption");
}

#[test]
fn a_detached_link_is_noticed_and_made_again() {
    let mut world = World::served();
    let pin = world.config.pins.join("link_connect4");
    std::fs::remove_file(&pin).unwrap();
    let health = world.kernel().health().unwrap();
    assert!(!health.is_good());
    assert_eq!(
        health.links.iter().filter(|l| l.problem.is_some()).map(|l| l.name).collect::<Vec<_>>(),
        ["connect4"]
    );
    // The backstop holds without it: nothing leaves.
    let outcome = world.tagged("tcp", real4());
    assert!(!outcome.contains("REAL"), "{outcome}");
    world.nothing_leaked("a detached connect4");
    drop(world.kernel.take());
    world.kernel = Some(Kernel::load_or_adopt(world.config.clone()).unwrap());
    assert!(world.kernel().health().unwrap().is_good());
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
}

#[test]
fn release_leaves_nothing() {
    let world = World::served();
    let (pins, mount) = (world.config.pins.clone(), world.mount.clone());
    drop(world);
    assert!(!pins.exists());
    assert!(!mount.exists());
    enforcer::kernel::release(&pins).unwrap();
    let mounts = std::fs::read_to_string("/proc/1/mountinfo").unwrap();
    assert!(!mounts.contains(mount.to_str().unwrap()));
}

#[test]
fn a_dead_proxy_is_a_refused_connection_and_nobody_else_notices() {
    let mut world = World::new();
    let netns = world.cable.work.file().try_clone().unwrap();
    drop(world.kernel().open_listeners(Some(&netns)).unwrap());
    world.sniffer.clear().unwrap();
    for to in [real4().to_string(), real6().to_string(), mapped()] {
        let outcome = world.tagged("tcp", &to);
        assert!(outcome.starts_with("error 111 "), "{to}: {outcome}");
    }
    world.nothing_leaked("a dead proxy");
    // The port is free, and still nobody's.
    assert!(world.tagged("bind", format!("127.0.0.1:{TCP_PORT}")).starts_with(EPERM));
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    world.serve();
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
}

/// A loader as a process of its own, and what it said.
fn loader_process(world: &World, private_mounts: bool) -> (Child, String) {
    let config = &world.config;
    let mut command = Command::new(PROBE);
    command.arg("loader").args([&config.object, &config.pins, &config.attach, &config.own, &config.jobs]);
    command.arg(world.job.path()).stdout(Stdio::piped());
    if private_mounts {
        // SAFETY: only system calls, no memory is allocated.
        unsafe {
            command.pre_exec(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
                let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
                nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
                Ok(())
            });
        }
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

#[test]
fn killing_the_loader_changes_nothing_for_workloads() {
    let mut world = World::served();
    drop(world.kernel.take());
    let (mut loader, said) = loader_process(&world, false);
    assert_eq!(said.trim(), "loaded");
    assert!(matches!(Kernel::load_or_adopt(world.config.clone()), Err(KernelError::Locked(_))));
    // SIGKILL.
    loader.kill().unwrap();
    loader.wait().unwrap();
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.nothing_leaked("a killed loader");
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    world.kernel = Some(load(&world.config));
    assert!(world.kernel().health().unwrap().is_good());
}

/// Where process 1 may not be looked at, such a loader refuses to load; it
/// never pins where nobody but itself sees it.
#[test]
fn a_loader_in_a_private_mount_namespace_does_not_take_the_pins_with_it() {
    let mut world = World::served();
    world.kernel.take().unwrap().release().unwrap();
    let (mut loader, said) = loader_process(&world, true);
    loader.kill().unwrap();
    loader.wait().unwrap();
    world.sniffer.clear().unwrap();
    if said.trim() == "loaded" {
        assert!(!world.tagged("tcp", real4()).contains("REAL"));
        assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
        world.nothing_leaked("a loader in a private mount namespace");
    } else {
        assert!(said.starts_with("refused") && said.contains("/proc/1/"), "{said}");
        assert!(std::fs::metadata("/proc/1/root").is_err(), "process 1 can be looked at: {said}");
    }
    world.kernel = Some(load(&world.config));
    assert!(world.kernel().health().unwrap().is_good());
}

#[test]
fn the_tag_of_a_process_is_that_of_its_outermost_tagged_cgroup() {
    let mut world = World::served();
    let inner = world.job.child("inner").unwrap();
    let inner_path = inner.path().to_owned();
    world.kernel().tag(&inner_path, OTHER_TAG, 0).unwrap();
    let mut child = world.spawn(&inner, &["tcp", &real4().to_string(), "wait"]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(world.kernel().tag_of_process(child.id()).unwrap(), Some(TAG));
    assert_eq!(world.kernel().tag_of_process(std::process::id()).unwrap(), None);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    assert!(line.contains(&format!(" {TAG} ")), "{line}");
    let pid = child.id();
    child.wait().unwrap();
    assert_eq!(world.kernel().tag_of_process(pid).unwrap(), None);
}
