//! Sockets that a workload uses and has not made: only while there are such, packets are
//! looked at for them at the root.

use std::os::fd::OwnedFd;

use aya::maps::{Array, Map, MapData};
use enforcer::kernel::Kernel;
use enforcer_common::cfg;
use enforcer_tests::bpf::debug_object;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::world::*;

/// Whether nothing is looked at, by the map itself.
fn none_is_foreign(world: &World) -> bool {
    let map = MapData::from_pin(world.config.pins.join("map_CFG")).unwrap();
    let settings: Array<_, u64> = Array::try_from(Map::Array(map)).unwrap();
    settings.get(&cfg::NO_FOREIGN, 0).unwrap() == 1
}

fn made_outside(world: &World, kind: SockType) -> OwnedFd {
    let make = move || socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    world.cable.work.run(make).unwrap()
}

fn adopt_again(world: &mut World) {
    drop(world.kernel.take());
    world.kernel = Some(Kernel::load_or_adopt(world.config.clone()).unwrap());
}

/// What a workload makes itself is seen in its own cgroup.
#[test]
fn packets_are_looked_at_at_the_root_from_the_first_foreign_socket_on() {
    let mut world = World::served();
    for technique in ["tcp", "udp-connect", "udp-sendto", "dns"] {
        let to = if technique == "dns" { "[fd77::2]:53".to_owned() } else { real4().to_string() };
        let outcome = world.tagged(technique, &to);
        assert!(none_is_foreign(&world), "{technique}: {outcome}");
    }
    assert!(world.untagged("tcp", real4()).ends_with("REAL"));
    world.sniffer.clear().unwrap();
    adopt_again(&mut world);
    assert!(none_is_foreign(&world), "a loader that begins again knows it still");

    let foreign = made_outside(&world, SockType::Datagram);
    let child = world.spawn_with(&world.job, &["foreign-udp", &real4().to_string()], foreign.into());
    let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(outcome.contains(EPERM), "{outcome}");
    assert!(!none_is_foreign(&world));
    adopt_again(&mut world);
    assert!(!none_is_foreign(&world));
    world.nothing_leaked("a foreign socket");
}

/// A socket that another workload has made is one, too: that one's cgroup may be tagged no more.
#[test]
fn a_socket_of_another_workload_is_foreign() {
    let world = World::served();
    let made = {
        let (before, other) = (world.own.path().to_owned(), world.other_job.path().to_owned());
        let own = std::process::id().to_string();
        std::fs::write(other.join("cgroup.procs"), &own).unwrap();
        let made = made_outside(&world, SockType::Stream);
        std::fs::write(before.join("cgroup.procs"), &own).unwrap();
        made
    };
    assert!(none_is_foreign(&world));
    let child = world.spawn_with(&world.job, &["foreign-tcp", &real4().to_string()], made.into());
    let outcome = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(outcome.contains("PROXY "), "{outcome}");
    assert!(!none_is_foreign(&world));
}

/// Those of another build may have let workloads use such sockets without a word.
#[test]
fn after_other_programs_there_may_be_foreign_sockets() {
    let mut world = World::served();
    assert!(none_is_foreign(&world));
    world.config.object = debug_object().unwrap();
    adopt_again(&mut world);
    assert!(!none_is_foreign(&world));
}

/// The packet hooks of a cgroup that is not below the jobs' go with its tag.
#[test]
fn what_a_lifted_tag_leaves_is_looked_at_at_the_root() {
    let mut world = World::served();
    let scope = world.outside.child("scope").unwrap();
    let id = world.kernel().tag(scope.path(), 77, 0).unwrap();
    assert!(none_is_foreign(&world));
    world.kernel().untag(id).unwrap();
    assert!(!none_is_foreign(&world));
}
