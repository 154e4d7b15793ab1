//! The second tier: what the cgroup hooks cannot stop.
//!
//! Every attempt is made by somebody untagged first: one that fails there proves nothing.
//! Where the kernel does not have the tier the tests assert just that, with its reason,
//! and that nothing else stops the attempt: what is said to be missing is exact.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use enforcer::kernel::{Kernel, KernelConfig, KernelError, LsmConfig, LsmMode, TierState};
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::sniffer::contains;

use crate::world::*;

/// Whether the kernel has the tier. In a virtual machine it is known beforehand.
fn tier(world: &mut World) -> bool {
    let tiers = world.kernel().tiers();
    let state = tiers.into_iter().find(|tier| tier.name == "lsm").unwrap().state;
    let active = match &state {
        TierState::Active => true,
        TierState::Unavailable { why } => {
            assert!(why.contains("EPERM") || why.contains("`lsm=`") || why.contains("CONFIG_"), "{why}");
            false
        }
        TierState::Off => panic!("nobody turned it off"),
    };
    match std::env::var("ENFORCER_TEST_LSM").as_deref() {
        Ok("active") => assert!(active, "{state:?}"),
        Ok("unavailable") => assert!(!active),
        _ => {}
    }
    active
}

fn with_mode(world: &World, mode: LsmMode) -> KernelConfig {
    KernelConfig { lsm: LsmConfig { mode, ..LsmConfig::default() }, ..world.config.clone() }
}

fn attempt(world: &World, cgroup: &Cgroup, args: &[&str]) -> String {
    world.probe_in(cgroup, &[&["lsm"], args].concat())
}

/// The attempt works for somebody untagged, and for a job only without the tier.
#[track_caller]
fn is_stopped(world: &mut World, active: bool, args: &[&str], hook: &str, reason: &str) {
    let free = attempt(world, &world.outside, args);
    let job = attempt(world, &world.job, args);
    if active {
        assert!(free.starts_with("ok "), "{args:?} untagged: {free}");
        assert!(job.starts_with(EPERM), "{args:?} in a job: {job}");
        assert_eq!(world.refused_with(hook, reason).tag, TAG, "{args:?}");
    } else {
        assert_eq!(job, free, "{args:?}: without the tier nothing else stops it");
    }
}

/// A process that does nothing, until its standard input ends.
fn idle(world: &World, cgroup: &Cgroup) -> (Child, BufReader<ChildStdout>) {
    begun(world.spawn(cgroup, &["lsm", "idle"]))
}

/// Once it has said that it is ready.
fn begun(mut child: Child) -> (Child, BufReader<ChildStdout>) {
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    (child, said)
}

/// A connection to the peer that somebody untagged has made.
fn connected(world: &World) -> TcpStream {
    world.cable.work.run(|| TcpStream::connect(real4()).unwrap()).unwrap()
}

fn payload_leaked(world: &World) -> bool {
    world.leaked().iter().any(|packet| contains(&packet.bytes, PAYLOAD))
}

#[test]
fn the_tier_is_there_or_says_why_and_what_is_required_is_not_done_without() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let health = world.kernel().health().unwrap();
    assert!(health.is_good(), "{health:#?}");
    assert_eq!(health.links.iter().any(|link| link.name.starts_with("lsm_")), active);
    drop(world.kernel.take());
    match Kernel::load_or_adopt(with_mode(&world, LsmMode::Require)) {
        Ok(kernel) => assert!(active && kernel.health().unwrap().is_good()),
        Err(KernelError::NoLsm { why }) => assert!(!active && !why.is_empty(), "{why}"),
        Err(error) => panic!("{error:?}"),
    }
    let kernel = Kernel::load_or_adopt(with_mode(&world, LsmMode::Off)).unwrap();
    assert!(kernel.tiers().iter().any(|tier| tier.state == TierState::Off));
    let health = kernel.health().unwrap();
    assert!(health.is_good() && !health.links.iter().any(|link| link.name.starts_with("lsm_")));
    let left = std::fs::read_dir(&world.config.pins).unwrap().flatten();
    let left: Vec<_> = left.filter(|it| it.file_name().to_string_lossy().contains("lsm_")).collect();
    assert!(left.is_empty(), "{left:?}");
    drop(kernel);
    world.kernel = Some(load(&world.config));
    assert_eq!(tier(&mut world), active);
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
}

#[test]
fn what_the_cgroup_tier_does_stays_as_it_is() {
    let mut world = World::with_lsm();
    tier(&mut world);
    for (technique, to) in [("tcp", real4()), ("tcp", real6()), ("fastopen", real4()), ("uring", real4())] {
        let outcome = world.tagged(technique, to);
        assert!(outcome.ends_with(&format!("PROXY {to} {TAG} enforcer-probe")), "{technique}: {outcome}");
    }
    assert!(world.tagged("dns", "[fd77::2]:53").starts_with("ok"));
    assert_eq!(world.tagged("own-loopback", "127.0.0.1:0"), "ok own server same-peer=true udp=4");
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.nothing_leaked("with the second tier");
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    // Made before its process was tagged, and not connected: it is taken up.
    let (mut child, mut said) = begun(world.spawn(&world.outside, &["tcp", &real4().to_string(), "wait"]));
    world.job.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    child.wait().unwrap();
    assert!(line.contains("PROXY "), "{line}");
}

#[test]
fn other_families_of_sockets_are_refused() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    for (family, kind) in [(libc::AF_PACKET, libc::SOCK_RAW), (libc::AF_PACKET, libc::SOCK_DGRAM)]
        .into_iter()
        .chain([(libc::AF_VSOCK, libc::SOCK_STREAM), (libc::AF_ALG, libc::SOCK_SEQPACKET)])
    {
        let args = ["family", &family.to_string(), &kind.to_string(), "0"];
        is_stopped(&mut world, active, &args, "lsm_create", "socket-family");
    }
    for (family, kind) in [(libc::AF_UNIX, libc::SOCK_STREAM), (libc::AF_NETLINK, libc::SOCK_RAW)] {
        let args = ["family", &family.to_string(), &kind.to_string(), "0"];
        assert!(attempt(&world, &world.job, &args).starts_with("ok "), "{args:?}");
    }
}

#[test]
fn nothing_is_sent_by_a_connection_that_was_made_outside() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    // A bind(2) that fails makes it no socket of the workload's own.
    for how in ["write", "send", "sendfile", "splice", "uring", "bind-write"] {
        for (tagged, leaks) in [(false, true), (true, !active)] {
            let cgroup = if tagged { &world.job } else { &world.outside };
            let stream = OwnedFd::from(connected(&world));
            world.sniffer.clear().unwrap();
            let child = world.spawn_with(cgroup, &["lsm", "send", how], stream.into());
            let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            assert_eq!(outcome.starts_with("ok "), leaks, "{how}, tagged: {tagged}: {outcome}");
            assert!(leaks || outcome.starts_with(EPERM), "{how}: {outcome}");
            assert_eq!(payload_leaked(&world), leaks, "{how}, tagged: {tagged}");
        }
    }
    if active {
        world.refused_with("lsm_sendmsg", "foreign-socket");
    }
}

/// Also in the hands of a process that was only moved: what is about the network does not
/// wait until it starts a program.
#[test]
fn nothing_is_sent_by_a_connection_of_a_process_that_comes_in() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    for how in ["write", "sendfile"] {
        let args = ["lsm", "connected", &real4().to_string(), how];
        let (mut child, mut said) = begun(world.spawn(&world.outside, &args));
        world.job.add(child.id()).unwrap();
        world.sniffer.clear().unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut outcome = String::new();
        said.read_line(&mut outcome).unwrap();
        child.wait().unwrap();
        assert_eq!(outcome.starts_with(EPERM), active, "{how}: {outcome}");
        assert_eq!(payload_leaked(&world), !active, "{how}");
    }
}

#[test]
fn descriptors_of_the_network_are_not_taken_from_others() {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use std::os::fd::AsRawFd;
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    for (tagged, comes) in [(false, true), (true, !active)] {
        let stream = connected(&world);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fds = [stream.as_raw_fd()];
        let given = [ControlMessage::ScmRights(&fds)];
        let parts = [std::io::IoSlice::new(b"x")];
        sendmsg::<UnixAddr>(ours.as_raw_fd(), &parts, &given, MsgFlags::empty(), None).unwrap();
        world.sniffer.clear().unwrap();
        let cgroup = if tagged { &world.job } else { &world.outside };
        let child = world.spawn_with(cgroup, &["lsm", "receive"], OwnedFd::from(theirs).into());
        let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(outcome.trim() == "ok sent", comes, "tagged: {tagged}: {outcome}");
        assert!(comes || outcome.trim() == "ok nothing came", "{outcome}");
        assert_eq!(payload_leaked(&world), comes, "tagged: {tagged}");
    }
    if active {
        world.refused_with("lsm_receive", "foreign-socket");
    }
}

#[test]
fn processes_outside_are_left_alone() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let (mut child, _said) = idle(&world, &world.outside);
    let pid = child.id().to_string();
    is_stopped(&mut world, active, &["getfd", &pid, "0"], "lsm_ptrace", "foreign-process");
    is_stopped(&mut world, active, &["ptrace", &pid], "lsm_ptrace", "foreign-process");
    is_stopped(&mut world, active, &["kill", &pid], "lsm_kill", "foreign-process");
    // Nor once the job has brought it in: it has started no program there and could leave.
    let own = world.job.path().to_str().unwrap().to_owned();
    for what in ["ptrace", "kill"] {
        let outcome = attempt(&world, &world.job, &["pull-in", &own, &pid, what]);
        assert_eq!(outcome.starts_with(EPERM), active, "{what}: {outcome}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(attempt(&world, &world.job, &["kill-own"]), "ok done");
}

#[test]
fn nobody_leaves_the_cgroup() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let outside = world.outside.path().to_str().unwrap().to_owned();
    is_stopped(&mut world, active, &["move", &outside], "lsm_open", "foreign-cgroup");
    is_stopped(&mut world, active, &["clone", &outside], "lsm_clone", "foreign-cgroup");
    let above = world.job.path().parent().unwrap().to_str().unwrap().to_owned();
    assert_eq!(attempt(&world, &world.job, &["move", &above]).starts_with(EPERM), active);
    // Further in is not out: a service manager in a job has its units there.
    let inner = world.job.child("inner").unwrap();
    assert_eq!(attempt(&world, &world.job, &["move", inner.path().to_str().unwrap()]), "ok done");
}

#[test]
fn the_programs_and_their_pins_are_out_of_reach() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    is_stopped(&mut world, active, &["bpf"], "lsm_bpf", "kernel-interface");
    let pins = world.config.pins.clone();
    let pin = |name: &str| pins.join(name).to_str().unwrap().to_owned();
    // Somebody else's pins beside ours, which an attempt may have.
    for name in ["untagged", "tagged"] {
        std::fs::create_dir(world.mount.join(name)).unwrap();
        std::fs::rename(pins.join("link_recvmsg4"), world.mount.join(name).join("pin")).unwrap();
        let (cgroup, stopped) = if name == "tagged" { (&world.job, active) } else { (&world.outside, false) };
        let at = world.mount.join(name).join("pin").to_str().unwrap().to_owned();
        let moved = format!("{at}2");
        let outcome = attempt(&world, cgroup, &["rename", &at, &moved]);
        assert_eq!(outcome.starts_with(EPERM), stopped, "{name}: {outcome}");
        let at = if stopped { at } else { moved };
        std::fs::rename(&at, pins.join("link_recvmsg4")).unwrap();
        std::fs::remove_dir(world.mount.join(name)).unwrap();
    }
    let outcome = attempt(&world, &world.job, &["unlink", &pin("link_recvmsg4")]);
    assert_eq!(outcome.starts_with(EPERM), active, "{outcome}");
    assert_eq!(world.kernel().health().unwrap().is_good(), active);
    if active {
        world.refused_with("lsm_rename", "kernel-interface");
        world.refused_with("lsm_unlink", "kernel-interface");
    }
    let folder = world.mount.to_str().unwrap().to_owned();
    is_stopped(&mut world, active, &["open", &folder], "lsm_open", "kernel-interface");
    let marker = "/sys/kernel/tracing/trace_marker";
    if Path::new(marker).exists() {
        is_stopped(&mut world, active, &["write-open", marker], "lsm_open", "kernel-interface");
    } else {
        assert!(!active, "the virtual machines have tracefs");
    }
}

#[test]
fn capabilities_over_the_host_are_refused() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap().to_owned();
    is_stopped(&mut world, active, &["mount", &at], "lsm_capable", "capability");
    while nix::mount::umount(folder.path()).is_ok() {}
    is_stopped(&mut world, active, &["tun"], "lsm_capable", "capability");
}

/// Who only came in, as a container runtime does, still prepares. What it starts is bound,
/// but for systemd's executor when process 1 starts it: that prepares as well.
#[test]
fn who_prepares_a_job_is_bound_when_it_starts_a_program() {
    let mut world = World::with_lsm();
    let folder = tempfile::tempdir().unwrap();
    let executor = folder.path().join("systemd-executor");
    let another = folder.path().join("another");
    std::fs::create_dir(&another).unwrap();
    let namesake = another.join("systemd-executor");
    for copy in [&executor, &namesake] {
        std::fs::copy(probe(), copy).unwrap();
    }
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let program = text(&probe());
    let (executor, namesake) = (text(&executor), text(&namesake));
    drop(world.kernel.take());
    world.config.lsm.executor = executor.clone().into();
    world.kernel = Some(load(&world.config));
    let active = tier(&mut world);
    for (how, started, prepares) in [
        ("exec-orphan", &executor, true),
        ("exec-orphan", &namesake, false),
        ("exec-orphan", &program, false),
        // Not by process 1.
        ("exec", &executor, false),
    ] {
        let args = ["lsm", "pause", how, started, "lsm", "prepare", &program, "lsm", "bpf"];
        let (mut child, mut said) = begun(world.spawn(&world.outside, &args));
        world.job.add(child.id()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut line = || {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        stdin.write_all(b"\n").unwrap();
        // Moved, which is no program yet.
        assert_eq!(line(), "ok done");
        assert_eq!(line(), "ready");
        stdin.write_all(b"\n").unwrap();
        let prepared = line();
        assert_eq!(prepared.starts_with(EPERM), active && !prepares, "{how} {started}: {prepared}");
        if prepares || !active {
            assert_eq!(prepared, "ok done");
            stdin.write_all(b"\n").unwrap();
            // The service itself.
            assert_eq!(line().starts_with(EPERM), active);
        }
        child.wait().unwrap();
    }
    // Who is bound stays so, whatever the program is and whose child.
    let args = ["exec-orphan", executor.as_str(), "lsm", "bpf"];
    assert_eq!(attempt(&world, &world.job, &args).starts_with(EPERM), active);
    // An upgrade puts another file in its place, and the old one is not it any more.
    std::fs::rename(&namesake, &executor).unwrap();
    world.kernel().know_executor().unwrap();
    let args = ["lsm", "pause", "exec-orphan", executor.as_str(), "lsm", "bpf"];
    let (mut child, mut said) = begun(world.spawn(&world.outside, &args));
    world.job.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut lines = String::new();
    said.read_to_string(&mut lines).unwrap();
    child.wait().unwrap();
    assert_eq!(lines, "ok done\nok done\n");
}

/// A tag that comes late binds those who are there.
#[test]
fn a_tag_binds_who_is_there_already() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let late = world.job.path().parent().unwrap().join("late");
    std::fs::create_dir(&late).unwrap();
    let procs = late.join("cgroup.procs");
    let (mut child, mut said) = begun(world.spawn(&world.outside, &["lsm", "prepare", "/nonexistent"]));
    std::fs::write(procs, child.id().to_string()).unwrap();
    world.kernel().tag(&late, OTHER_TAG + 1, 0).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    child.wait().unwrap();
    assert_eq!(line.starts_with(EPERM), active, "{line}");
    let id = enforcer::kernel::cgroup_id(&late).unwrap();
    world.kernel().untag(id).unwrap();
    std::fs::remove_dir(&late).unwrap();
}

#[test]
fn unix_sockets_of_others_are_reached_only_if_they_are_named() {
    let mut world = World::with_lsm();
    let active = tier(&mut world);
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (stream, datagram, allowed) = (name("stream"), name("datagram"), name("allowed"));
    let _stream = UnixListener::bind(&stream).unwrap();
    let _datagram = UnixDatagram::bind(&datagram).unwrap();
    let _allowed = UnixListener::bind(&allowed).unwrap();
    let abstract_ = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    let in_work = |name: &'static str| {
        world.cable.work.run(move || UnixDatagram::bind_addr(&abstract_(name)).unwrap()).unwrap()
    };
    let (_outside, _known) = (in_work("outside"), in_work("known"));
    for (technique, to, hook) in [
        ("stream", stream.as_str(), "lsm_unix"),
        ("datagram", &datagram, "lsm_unix_send"),
        ("datagram-connected", &datagram, "lsm_unix_send"),
        ("datagram", "@outside", "lsm_unix_send"),
    ] {
        is_stopped(&mut world, active, &[technique, to], hook, "foreign-unix");
    }
    assert_eq!(attempt(&world, &world.job, &["unix-own", folder.path().to_str().unwrap()]), "ok done");
    drop(world.kernel.take());
    world.config.lsm.unix_allow = vec![allowed.clone(), "@known".to_owned()];
    world.kernel = Some(load(&world.config));
    assert_eq!(attempt(&world, &world.job, &["stream", &allowed]), "ok done");
    assert_eq!(attempt(&world, &world.job, &["datagram", "@known"]), "ok done");
    assert_eq!(attempt(&world, &world.job, &["stream", &stream]).starts_with(EPERM), active);
    // A name that is longer by one letter is another.
    let _longer = UnixListener::bind(format!("{allowed}2")).unwrap();
    assert_eq!(attempt(&world, &world.job, &["stream", &format!("{allowed}2")]).starts_with(EPERM), active);
}

/// Standard streams may be sockets that were made outside: an SSH server hands such down.
#[test]
fn streams_that_were_handed_down_go_on() {
    let mut world = World::with_lsm();
    tier(&mut world);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let (_others, datagram) = UnixDatagram::pair().unwrap();
    for socket in [OwnedFd::from(theirs), OwnedFd::from(datagram)] {
        let child = world.spawn_with(&world.job, &["lsm", "send", "write"], Stdio::from(socket));
        let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(outcome.trim(), "ok sent");
    }
}
