//! Somebody with root detaches, replaces, unpins, or attaches a program of their own.

use enforcer::kernel::{Kernel, KernelError, Mode};
use enforcer_common::cfg;
use enforcer_tests::tamper::{Allows, detach, update};

use crate::world::*;

/// The names of what is not as it was, each certainly changed by somebody.
fn changed(world: &mut World) -> Vec<String> {
    let health = world.kernel().health().unwrap();
    assert!(health.problems().all(|it| it.changed), "{health:#?}");
    health.problems().map(|it| it.name.clone()).collect()
}

#[track_caller]
fn put_back(world: &mut World) {
    let failed = world.kernel().restore();
    assert!(failed.is_empty(), "{failed:?}");
    let health = world.kernel().health().unwrap();
    assert!(health.is_good(), "{health:#?}");
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.nothing_leaked("what was put back");
}

#[test]
fn a_detached_link_is_noticed_and_made_again() {
    let mut world = World::served();
    let pin = world.config.pins.join("link_connect4");
    detach(&pin).unwrap();
    assert_eq!(changed(&mut world), ["connect4"]);
    assert!(!world.kernel().health().unwrap().is_good());
    // The backstop holds without it: nothing leaves.
    let outcome = world.tagged("tcp", real4());
    assert!(!outcome.contains("REAL"), "{outcome}");
    world.nothing_leaked("a detached connect4");
    put_back(&mut world);
    // The next loader does the same without being told.
    detach(&pin).unwrap();
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    put_back(&mut world);
}

#[test]
fn every_link_that_is_detached_is_attached_again() {
    let mut world = World::served();
    let pins: Vec<_> = std::fs::read_dir(&world.config.pins).unwrap().map(|it| it.unwrap().path()).collect();
    let links = pins.iter().filter(|pin| pin.file_name().unwrap().to_string_lossy().starts_with("link_"));
    let links: Vec<_> = links.collect();
    for pin in &links {
        detach(pin).unwrap();
    }
    assert_eq!(changed(&mut world).len(), links.len());
    put_back(&mut world);
}

/// The loader holds its links: without their pins they are attached all the same.
#[test]
fn a_pin_that_is_removed_opens_nothing_and_is_made_again() {
    let mut world = World::served();
    for name in ["link_connect4", "link_egress", "link_root_egress", "map_TAGS", "map_CFG"] {
        std::fs::remove_file(world.config.pins.join(name)).unwrap();
    }
    assert_eq!(changed(&mut world).len(), 5);
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    world.nothing_leaked("removed pins");
    put_back(&mut world);
    // The next loader finds the same maps.
    let tags = world.kernel().tags().unwrap();
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    assert_eq!(world.kernel().tags().unwrap(), tags);
    put_back(&mut world);
}

#[test]
fn a_link_that_runs_another_program_is_noticed_and_put_right() {
    let mut world = World::served();
    update(&world.config.pins.join("link_connect4"), &Allows::connect4().unwrap()).unwrap();
    assert_eq!(changed(&mut world), ["connect4"]);
    let foreign = world.kernel().health().unwrap().foreign;
    assert_eq!((foreign.len(), foreign[0].name.as_str(), foreign[0].before), (1, "stranger", false));
    put_back(&mut world);
}

#[test]
fn a_program_of_somebody_else_is_named_and_one_that_was_there_is_no_fault() {
    let mut world = World::served();
    let stranger = Allows::connect4().unwrap();
    for place in [world.config.attach.clone(), world.config.jobs.clone(), world.config.own.clone()] {
        stranger.attach(&place, true).unwrap();
        let health = world.kernel().health().unwrap();
        let [found] = &health.foreign[..] else { panic!("{health:#?}") };
        assert_eq!((&found.cgroup, found.name.as_str(), found.before), (&place, "stranger", false));
        assert_eq!(found.attach_type, "connect4");
        assert!(!health.is_good() && health.problems().next().is_none());
        stranger.detach(&place).unwrap();
        assert!(world.kernel().health().unwrap().is_good());
    }
    stranger.attach(&world.config.attach, true).unwrap();
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    let health = world.kernel().health().unwrap();
    assert!(health.foreign.len() == 1 && health.foreign[0].before && health.is_good(), "{health:#?}");
    stranger.detach(&world.config.attach).unwrap();
}

/// By the old way of attaching, one can have a cgroup for oneself.
#[test]
fn an_exclusive_program_in_the_way_is_fatal_and_named() {
    let mut world = World::new();
    world.kernel.take().unwrap().release().unwrap();
    let stranger = Allows::egress().unwrap();
    stranger.attach(&world.config.jobs, false).unwrap();
    let Err(refused) = Kernel::load_or_adopt(world.config.clone()) else { panic!("it was loaded") };
    assert!(matches!(refused, KernelError::Exclusive { name: "egress", .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("(stranger) at ") && said.contains("bpftool cgroup detach"), "{said}");
    stranger.detach(&world.config.jobs).unwrap();
    world.kernel = Some(load(&world.config));
}

#[test]
fn what_is_denied_for_tampering_stays_so_until_it_is_forgiven() {
    let mut world = World::served();
    world.kernel().deny_until_forgiven().unwrap();
    assert!(world.tagged("tcp", real4()).starts_with(EPERM));
    drop(world.kernel.take());
    world.kernel = Some(load(&world.config));
    let health = world.kernel().health().unwrap();
    assert!(health.tampered && health.mode == Mode::Deny && !health.is_good(), "{health:#?}");
    assert!(world.tagged("tcp", real4()).starts_with(EPERM));
    world.nothing_leaked("the deny mode");
    world.kernel().forgive().unwrap();
    put_back(&mut world);
}

#[test]
fn pins_of_another_version_are_not_adopted_and_go_on_to_hold() {
    let mut world = World::served();
    drop(world.kernel.take());
    let path = world.config.pins.join("map_CFG");
    let set = |version: u64| {
        let map = aya::maps::MapData::from_pin(&path).unwrap();
        let mut settings = aya::maps::Array::<_, u64>::try_from(aya::maps::Map::Array(map)).unwrap();
        settings.set(cfg::ABI, version, 0).unwrap();
    };
    for version in [enforcer_common::ABI_VERSION + 1, u64::MAX] {
        set(version);
        let Err(refused) = Kernel::load_or_adopt(world.config.clone()) else { panic!("it was adopted") };
        assert!(matches!(refused, KernelError::Version { found, .. } if found == version), "{refused:?}");
        assert!(refused.to_string().contains("enforcer release --all"), "{refused}");
        assert!(world.tagged("tcp", real4()).contains("PROXY"));
        assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    }
    world.nothing_leaked("pins of another version");
    set(enforcer_common::ABI_VERSION);
    world.kernel = Some(load(&world.config));
}
