//! Loading, dying, adopting, releasing.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use enforcer::kernel::{Kernel, KernelError, Mode};
use enforcer_tests::bpf::Objects;
use enforcer_tests::wait::until;

use crate::world::*;

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
fn what_cannot_be_tagged_is_refused() {
    let mut world = World::new();
    let own = world.own.path().to_owned();
    assert!(matches!(world.kernel().tag(&own, TAG, 0), Err(KernelError::OwnCgroup(_))));
    let above = own.parent().unwrap().to_owned();
    assert!(matches!(world.kernel().tag(&above, TAG, 0), Err(KernelError::OwnCgroup(_))));
    let job = world.job.path().to_owned();
    assert!(matches!(world.kernel().tag(&job, 0, 0), Err(KernelError::NoTag)));
    assert!(matches!(world.kernel().tag("/proc/self".as_ref(), TAG, 0), Err(KernelError::NotACgroup { .. })));
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

/// An earlier release had a program more: its link is found by its name.
#[test]
fn a_link_that_this_release_does_not_need_is_removed() {
    let mut world = World::served();
    drop(world.kernel.take());
    let pin = |name: &str| world.config.pins.join(format!("link_{name}"));
    std::fs::rename(pin("getpeername6"), pin("sock_ops")).unwrap();
    let before = Objects::of(&world.config.pins).unwrap();
    let kernel = Kernel::load_or_adopt(world.config.clone()).unwrap();
    assert!(!pin("sock_ops").exists() && pin("getpeername6").exists());
    assert!(kernel.health().unwrap().is_good());
    // Nor does it run on without its pin.
    until("the link that is not needed is gone", || {
        Objects::of(&world.config.pins).unwrap().links.len() <= before.links.len()
    });
    world.kernel = Some(kernel);
    assert!(world.tagged("tcp", real6()).contains("PROXY"));
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

/// A bpffs that was there before is the same one in a new mount namespace: what is
/// pinned there stays when the loader goes, whether process 1 may be looked at or not.
#[test]
fn a_private_mount_namespace_shares_the_bpffs_that_was_there_before() {
    let mut world = World::served();
    world.kernel.take().unwrap().release().unwrap();
    std::fs::create_dir_all(&world.mount).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), &world.mount, Some("bpf"), flags, None::<&str>).unwrap();
    let (mut loader, said) = loader_process(&world, true);
    assert_eq!(said.trim(), "loaded");
    assert!(world.config.pins.join("link_connect4").exists());
    loader.kill().unwrap();
    loader.wait().unwrap();
    world.sniffer.clear().unwrap();
    assert!(!world.tagged("tcp", real4()).contains("REAL"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.nothing_leaked("a loader in a private mount namespace");
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    let adopted = load(&world.config);
    assert!(adopted.health().unwrap().is_good());
    assert_eq!(adopted.tags().unwrap().len(), 1);
    adopted.release().unwrap();
    nix::mount::umount(&world.mount).unwrap();
    world.kernel = Some(load(&world.config));
}

/// A bpffs that somebody mounted without a mode is everybody's, as /tmp is.
#[test]
fn pins_are_not_trusted_to_a_directory_of_somebody_else() {
    let mut world = World::new();
    world.kernel.take().unwrap().release().unwrap();
    std::fs::create_dir_all(&world.mount).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), &world.mount, Some("bpf"), flags, None::<&str>).unwrap();
    let pins = &world.config.pins;
    let refused = |what: &str| {
        let refused = Kernel::load_or_adopt(world.config.clone());
        assert!(matches!(refused, Err(KernelError::ForeignPins(_))), "{what}");
        assert!(!pins.join("map_CFG").exists(), "{what}: something was pinned");
    };
    std::fs::create_dir(pins).unwrap();
    std::os::unix::fs::chown(pins, Some(65534), None).unwrap();
    refused("of another user");
    std::os::unix::fs::chown(pins, Some(0), None).unwrap();
    std::fs::set_permissions(pins, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    refused("open to all");
    std::fs::remove_dir(pins).unwrap();
    let elsewhere = world.mount.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, pins).unwrap();
    refused("a link");
    std::fs::remove_file(pins).unwrap();
    std::fs::remove_dir(&elsewhere).unwrap();
    load(&world.config).release().unwrap();
    nix::mount::umount(&world.mount).unwrap();
    world.kernel = Some(load(&world.config));
}

#[test]
fn the_tag_of_a_process_is_that_of_its_innermost_tagged_cgroup() {
    let mut world = World::served();
    let inner = world.job.child("inner").unwrap();
    let inner_path = inner.path().to_owned();
    world.kernel().tag(&inner_path, OTHER_TAG, 0).unwrap();
    let mut child = world.spawn(&inner, &["tcp", &real4().to_string(), "wait"]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(world.kernel().tag_of_process(child.id()).unwrap(), Some(OTHER_TAG));
    assert_eq!(world.kernel().tag_of_process(std::process::id()).unwrap(), None);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    assert!(line.contains(&format!(" {OTHER_TAG} ")), "{line}");
    let pid = child.id();
    child.wait().unwrap();
    assert_eq!(world.kernel().tag_of_process(pid).unwrap(), None);
}

/// A loader as a process of its own, and what it said.
fn loader_process(world: &World, private_mounts: bool) -> (Child, String) {
    let config = &world.config;
    let mut command = Command::new(probe());
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

/// What is passed on from one loader to the next: by a process, or by systemd.
#[test]
fn only_listeners_of_the_enforcer_are_taken_back() {
    let mut world = World::new();
    // Nobody is served there yet, so that anybody gets the ports.
    let taken = world.cable.work.run(|| {
        let tcp = TcpListener::bind(("127.0.0.1", TCP_PORT)).unwrap();
        [OwnedFd::from(tcp), UdpSocket::bind(("127.0.0.1", DNS_PORT)).unwrap().into()]
    });
    let foreign = Vec::from(taken.unwrap());
    assert_eq!(world.kernel().take_back(foreign).unwrap().len(), 0);
    let netns = world.cable.work.file().try_clone().unwrap();
    let listeners = world.kernel().open_listeners(Some(&netns)).unwrap();
    let cookie = listeners.netns;
    // The mark stays with the sockets, whichever process has them, and so do connections.
    let copies = || listeners.sockets().map(|it| it.try_clone_to_owned().unwrap()).collect::<Vec<_>>();
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    let mut back = world.kernel().take_back(copies()).unwrap();
    assert!(back.len() == 1 && back[0].netns == cookie && back[0].has_ipv6() && back[0].listens());
    // Of other ports; and half of them is nothing that could be served.
    let half = copies().into_iter().take(2).collect();
    assert_eq!(world.kernel().take_back(half).unwrap().len(), 0);
    let copy = copies();
    let [tcp4, tcp6, udp4, udp6] = back.remove(0).into_fds().unwrap();
    for fd in [tcp4, tcp6] {
        stand_in(fd, world.records.clone());
    }
    drop((udp4, udp6));
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("tcp", real6()).contains("PROXY"));
    // Shut is shut, for whoever has a copy.
    listeners.shut();
    assert_eq!(world.kernel().take_back(copy).unwrap().len(), 0);
    assert!(!listeners.listens());
    let outcome = world.tagged("tcp", real4());
    assert!(outcome.starts_with("error 111 "), "{outcome}");
    world.nothing_leaked("listeners that were passed on");
}
