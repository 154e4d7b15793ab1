//! AF_PACKET: no hook of a cgroup sees it, the programs on interfaces do.

use std::net::UdpSocket;
use std::time::Duration;

use enforcer::kernel::{Cables, netns_cookie};
use enforcer_tests::frame::{Frames, PORT};
use enforcer_tests::netns::{Netns, PEER4, WORK_INTERFACE, WORK4};
use enforcer_tests::sniffer::contains;

use crate::world::*;

const ENOBUFS: &str = "error 105 ";

/// False where the kernel has no such links, and says so.
fn guard(world: &mut World) -> bool {
    let netns = world.cable.work.file().try_clone().unwrap();
    let cookie = netns_cookie(&netns).unwrap();
    world.kernel().guard_interfaces(cookie, Some(&netns)).unwrap();
    match world.kernel().guarded_interfaces() {
        Ok(_) => true,
        Err(why) => {
            assert!(why.contains("Linux 6.6"), "{why}");
            assert!(before_6_6(), "{why}");
            false
        }
    }
}

fn before_6_6() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|it| it.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) < (6, 6)
}

fn guarded(world: &mut World) -> usize {
    world.kernel().guarded_interfaces().unwrap()
}

fn pins(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(&world.config.pins).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("link_tc_")).collect()
}

/// An allowed outcome for who may not even have such a socket, by an LSM.
fn sent(outcome: &str) -> bool {
    assert!(outcome == "ok sent" || outcome.starts_with(EPERM), "{outcome}");
    outcome == "ok sent"
}

#[test]
fn frames_of_a_tagged_process_do_not_leave() {
    let mut world = World::served();
    let seen = |world: &World| world.leaked().iter().any(|it| contains(&it.bytes, PAYLOAD));
    let before = sent(&world.tagged("frame", real4()));
    assert_eq!(seen(&world), before, "without the program");
    if !guard(&mut world) {
        return;
    }
    let outcome = world.tagged("frame", real4());
    assert!(outcome.starts_with(if before { ENOBUFS } else { EPERM }), "{outcome}");
    world.nothing_leaked("a frame");
    if before {
        let refusal = world.refused_with("tc_egress", "off-loopback");
        assert_eq!((refusal.tag, refusal.family), (TAG, 17));
    }
    // Nor around the queues.
    let to = real4().to_string();
    let outcome = world.probe_in(&world.job, &["frame", &to, "bypass"]);
    assert!(outcome.starts_with(EPERM), "{outcome}");
    world.nothing_leaked("a frame around the queues");
    for extra in ["", "bypass"] {
        let outcome = world.probe_in(&world.outside, &["frame", &to, extra]);
        assert_eq!(outcome, "ok sent");
        assert!(seen(&world), "an untagged frame, {extra}");
    }
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    // A released workload is free.
    let id = enforcer::kernel::cgroup_id(world.job.path()).unwrap();
    world.kernel().untag(id).unwrap();
    assert_eq!(world.tagged("frame", real4()), "ok sent");
}

#[test]
fn interfaces_that_come_are_guarded_and_those_that_go_are_forgotten() {
    let mut world = World::served();
    if !guard(&mut world) {
        return;
    }
    assert_eq!(guarded(&mut world), 1);
    world.cable.work.ip(&["link", "add", "more0", "type", "veth", "peer", "name", "more1"]).unwrap();
    guard(&mut world);
    assert_eq!((guarded(&mut world), pins(&world).len()), (3, 3));
    world.cable.work.ip(&["link", "del", "more0"]).unwrap();
    guard(&mut world);
    assert_eq!((guarded(&mut world), pins(&world).len()), (1, 1));
    // The next loader takes it over, and makes what somebody has detached.
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    assert_eq!(guarded(&mut world), 1);
    std::fs::remove_file(world.config.pins.join(&pins(&world)[0])).unwrap();
    guard(&mut world);
    let outcome = world.tagged("frame", real4());
    assert!(outcome.starts_with(ENOBUFS) || outcome.starts_with(EPERM), "{outcome}");
    world.nothing_leaked("a link that was made again");
    // A namespace that is gone leaves no pin behind.
    let gone = Netns::new("gone").unwrap();
    gone.ip(&["link", "add", "more0", "type", "veth", "peer", "name", "more1"]).unwrap();
    let cookie = netns_cookie(gone.file()).unwrap();
    world.kernel().guard_interfaces(cookie, Some(gone.file())).unwrap();
    assert_eq!(pins(&world).len(), 3);
    drop(gone);
    world.kernel().forget_netns(cookie).unwrap();
    assert_eq!(pins(&world).len(), 1);
}

/// By the host's end of a cable nothing comes out, whoever has sent it, until that is undone.
#[test]
fn nothing_comes_out_of_a_namespace_behind_a_wall() {
    let mut world = World::served();
    if !guard(&mut world) {
        return;
    }
    // The far end of the cable plays the host here.
    let netns = world.cable.work.file().try_clone().unwrap();
    let cookie = netns_cookie(&netns).unwrap();
    let frames = Frames::open_in(&netns, WORK_INTERFACE).unwrap();
    let host = world.cable.peer.run(|| UdpSocket::bind((PEER4, PORT)).unwrap()).unwrap();
    host.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let arrives = || {
        frames.send(WORK4, PEER4, PAYLOAD).unwrap();
        host.recv(&mut [0; 64]).is_ok()
    };
    let wall = |world: &mut World, up: bool| {
        let (mut kernel, netns) = (world.kernel.take().unwrap(), netns.try_clone().unwrap());
        let done = world.cable.peer.run(move || {
            let ends = Cables::list().unwrap().leading_into(&netns).unwrap();
            assert_eq!(ends.len(), 1);
            kernel.wall_off(cookie, if up { &ends } else { &[] }).unwrap();
            kernel
        });
        world.kernel = Some(done.unwrap());
    };
    assert!(arrives());
    wall(&mut world, true);
    assert!(!arrives());
    wall(&mut world, false);
    assert!(arrives());
    wall(&mut world, true);
    assert!(!arrives());
    world.kernel().forget_netns(cookie).unwrap();
    assert!(arrives());
}
