//! AF_PACKET: no hook of a cgroup sees it, the programs on interfaces do.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use enforcer::kernel::{Cables, Kernel, Tc, TierState, netns_cookie};
use enforcer_tests::frame::{Frames, PORT};
use enforcer_tests::netns::{Netns, PEER4, WORK_INTERFACE, WORK4};
use enforcer_tests::sniffer::contains;

use crate::world::*;

const ENOBUFS: &str = "error 105 ";

fn guard(world: &mut World) {
    let netns = world.cable.work.file().try_clone().unwrap();
    let cookie = netns_cookie(&netns).unwrap();
    world.kernel().guard_interfaces(cookie, Some(&netns)).unwrap();
    world.kernel().guarded_interfaces().unwrap();
}

fn guarded(world: &mut World) -> usize {
    world.kernel().guarded_interfaces().unwrap()
}

fn pins(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(&world.config.pins).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("link_tc_egress") || name.starts_with("link_tc_wall")).collect()
}

/// An allowed outcome for who may not even have such a socket, by an LSM.
fn sent(outcome: &str) -> bool {
    assert!(outcome == "ok sent" || outcome.starts_with(EPERM), "{outcome}");
    outcome == "ok sent"
}

/// By links where the kernel has them, and by filters on all.
#[test]
fn frames_of_a_tagged_process_do_not_leave() {
    frames_do_not_leave(World::served());
    frames_do_not_leave(World::with_filters());
}

fn frames_do_not_leave(mut world: World) {
    let seen = |world: &World| world.leaked().iter().any(|it| contains(&it.bytes, PAYLOAD));
    let before = sent(&world.tagged("frame", real4()));
    assert_eq!(seen(&world), before, "without the program");
    guard(&mut world);
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
    interfaces_come_and_go(World::served());
    interfaces_come_and_go(World::with_filters());
}

fn interfaces_come_and_go(mut world: World) {
    guard(&mut world);
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
    world.kernel().unguard(cookie).unwrap();
    assert_eq!(pins(&world).len(), 1);
}

/// By the host's end of a cable nothing comes out, whoever has sent it, until that is undone.
#[test]
fn nothing_comes_out_of_a_namespace_behind_a_wall() {
    behind_a_wall(World::served());
    behind_a_wall(World::with_filters());
}

fn behind_a_wall(mut world: World) {
    guard(&mut world);
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
    world.kernel().unguard(cookie).unwrap();
    assert!(arrives());
}

fn tc(netns: &Netns, args: &[&str]) -> String {
    let done = Command::new("tc").args(["-n", netns.name()]).args(args).output().unwrap();
    assert!(done.status.success(), "tc {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn disciplines(world: &World) -> String {
    tc(&world.cable.work, &["qdisc", "show", "dev", WORK_INTERFACE])
}

fn filters(world: &World) -> String {
    tc(&world.cable.work, &["filter", "show", "dev", WORK_INTERFACE, "egress"])
}

/// What somebody else has set up for tc stays, and what was made here goes.
#[test]
fn filters_of_others_stay_and_ours_leave_nothing_behind() {
    let mut world = World::with_filters();
    let cookie = netns_cookie(world.cable.work.file()).unwrap();
    guard(&mut world);
    assert!(disciplines(&world).contains("clsact") && filters(&world).contains("tc_egress"));
    // Nobody else uses it: it goes.
    world.kernel().unguard(cookie).unwrap();
    assert!(!disciplines(&world).contains("clsact"), "{}", disciplines(&world));
    // Ours, but somebody has come to use it.
    guard(&mut world);
    let add = ["filter", "add", "dev", WORK_INTERFACE, "egress", "prio"];
    let with = |priority: &'static str| [&add[..], &[priority, "u32", "match", "u32", "0", "0"]].concat();
    let removed = ["filter", "del", "dev", WORK_INTERFACE, "egress", "prio", "3"];
    tc(&world.cable.work, &with("3"));
    world.kernel().unguard(cookie).unwrap();
    assert!(filters(&world).contains("u32") && !filters(&world).contains("tc_egress"));
    tc(&world.cable.work, &removed);
    // Theirs, with the priority that we would have taken.
    tc(&world.cable.work, &with("1"));
    guard(&mut world);
    assert!(filters(&world).contains("tc_egress"), "{}", filters(&world));
    // The next loader takes over what is there, once.
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    assert_eq!(guarded(&mut world), 1);
    guard(&mut world);
    assert_eq!(filters(&world).matches("direct-action").count(), 1, "{}", filters(&world));
    // Somebody takes ours away: it is made again.
    let ours = filters(&world).lines().find(|line| line.contains("tc_egress")).unwrap().to_owned();
    let words: Vec<&str> = ours.split(' ').collect();
    let priority = words[words.iter().position(|word| *word == "pref").unwrap() + 1];
    tc(&world.cable.work, &["filter", "del", "dev", WORK_INTERFACE, "egress", "prio", priority]);
    assert!(!filters(&world).contains("tc_egress"));
    guard(&mut world);
    assert!(filters(&world).contains("tc_egress"));
    // A release without a loader finds them by their pins.
    drop(world.kernel.take());
    enforcer::kernel::release(&world.config.pins).unwrap();
    assert!(disciplines(&world).contains("clsact"), "it is theirs");
    assert!(filters(&world).contains("u32") && !filters(&world).contains("tc_egress"));
    world.kernel = Some(load(&world.config));
}

/// Beside the older discipline there is no place, and what leaves would be taken for what
/// comes in: that is told.
#[test]
fn where_there_is_no_place_for_a_filter_it_is_said() {
    let mut world = World::with_filters();
    tc(&world.cable.work, &["qdisc", "add", "dev", WORK_INTERFACE, "ingress"]);
    let netns = world.cable.work.file().try_clone().unwrap();
    let cookie = netns_cookie(&netns).unwrap();
    let refused = world.kernel().guard_interfaces(cookie, Some(&netns)).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("ingress"), "{why}");
    assert!(disciplines(&world).contains("ingress"));
    tc(&world.cable.work, &["qdisc", "del", "dev", WORK_INTERFACE, "ingress"]);
    guard(&mut world);
}

/// The list of tiers says it, for `enforcer status` and `enforcer doctor`.
#[test]
fn what_there_is_on_interfaces_is_a_tier() {
    let state = |kernel: &mut Kernel| kernel.tiers().into_iter().find(|it| it.name == "tc").unwrap().state;
    let mut world = World::new();
    assert_eq!(state(world.kernel()), TierState::Active);
    drop(world.kernel.take());
    world.config.tc = Tc::Off;
    world.kernel = Some(load(&world.config));
    assert_eq!(state(world.kernel()), TierState::Off);
    // Of the service's own namespace, an interface has no place for it.
    drop(world.kernel.take());
    world.config.tc = Tc::Filters;
    let mut kernel = load(&world.config);
    tc(&world.cable.work, &["qdisc", "add", "dev", WORK_INTERFACE, "ingress"]);
    let cookie = netns_cookie(world.cable.work.file()).unwrap();
    let home = move || {
        kernel.guard_interfaces(cookie, None).unwrap_err();
        kernel
    };
    let mut kernel = world.cable.work.run(home).unwrap();
    assert!(matches!(state(&mut kernel), TierState::Unavailable { why } if why.contains("ingress")));
    world.kernel = Some(kernel);
}
