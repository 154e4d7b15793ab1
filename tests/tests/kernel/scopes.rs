//! Tagged cgroups that are not below the parent of all jobs.

use std::path::{Path, PathBuf};

use enforcer::kernel::{KernelError, cgroup_id};
use enforcer_common::MAX_TAGS;
use enforcer_tests::cgroup::Cgroup;

use crate::world::*;

const SCOPE_TAG: u64 = 7100;

fn pin(world: &World, program: &str, cgroup: u64) -> PathBuf {
    world.config.pins.join(format!("link_{program}@{cgroup}"))
}

fn beside_the_jobs(world: &World, name: &str) -> Cgroup {
    Cgroup::at(&world.config.attach.join(name)).unwrap()
}

/// How many links there are; all are as they should be.
#[track_caller]
fn good_links(world: &mut World) -> usize {
    let health = world.kernel().health().unwrap();
    assert!(health.is_good(), "{health:#?}");
    health.links.len()
}

/// What is wrong, by the names of the links.
fn problems(world: &mut World) -> Vec<String> {
    let health = world.kernel().health().unwrap();
    health.links.into_iter().filter(|link| link.problem.is_some()).map(|link| link.name).collect()
}

#[test]
fn a_cgroup_beside_the_jobs_is_redirected_and_has_a_backstop_of_its_own() {
    let mut world = World::served();
    let before = good_links(&mut world);
    let scope = beside_the_jobs(&world, &format!("enf-scope-{}", std::process::id()));
    let below = scope.child("below").unwrap();
    assert!(world.probe_in(&below, &["tcp", &real4().to_string()]).ends_with("REAL"));
    world.leaked();
    let id = world.kernel().tag(scope.path(), SCOPE_TAG, 0).unwrap();
    assert_eq!(id, cgroup_id(scope.path()).unwrap());
    assert_eq!(good_links(&mut world), before + 2);
    let outcome = world.probe_in(&below, &["tcp", &real4().to_string()]);
    assert!(outcome.contains(&format!("PROXY {} {SCOPE_TAG} ", real4())), "{outcome}");
    assert!(world.probe_in(&below, &["udp-sendto", &real4().to_string()]).starts_with(EPERM));
    world.nothing_leaked("a tagged cgroup beside the jobs");
    // Without the hooks that redirect, packets come to the backstop.
    enforcer_tests::tamper::detach(&world.config.pins.join("link_connect4")).unwrap();
    let outcome = world.probe_in(&below, &["tcp", &real4().to_string()]);
    assert!(!outcome.contains("REAL"), "{outcome}");
    world.nothing_leaked("a scope without connect4");
    world.refused_with("egress", "off-loopback");
    assert!(world.kernel().untag(id).unwrap());
    assert!(!pin(&world, "egress", id).exists() && !pin(&world, "ingress", id).exists());
    assert!(world.probe_in(&below, &["tcp", &real4().to_string()]).ends_with("REAL"));
}

#[test]
fn a_missing_hook_is_noticed_and_a_cgroup_that_is_gone_is_no_fault() {
    let mut world = World::served();
    let before = good_links(&mut world);
    let name = format!("enf-scope-{}", std::process::id());
    let scope = beside_the_jobs(&world, &name);
    let id = world.kernel().tag(scope.path(), SCOPE_TAG, 0).unwrap();
    std::fs::remove_file(pin(&world, "egress", id)).unwrap();
    assert_eq!(problems(&mut world), [format!("egress@{id}")]);
    assert_eq!(world.kernel().tag(scope.path(), SCOPE_TAG, 0).unwrap(), id);
    assert_eq!(problems(&mut world), [""; 0]);
    drop(scope);
    assert_eq!(good_links(&mut world), before);
    // The same path is another cgroup, and has no tag of the earlier one.
    let scope = beside_the_jobs(&world, &name);
    assert_ne!(cgroup_id(scope.path()).unwrap(), id);
    assert!(world.probe_in(&scope, &["tcp", &real4().to_string()]).ends_with("REAL"));
    assert!(world.kernel().untag(id).unwrap());
    assert!(!pin(&world, "egress", id).exists());
    assert!(!world.kernel().untag(id).unwrap());
    world.leaked();
}

#[test]
fn the_next_loader_adopts_the_hooks_of_cgroups_that_are_still_tagged() {
    let mut world = World::served();
    let before = good_links(&mut world);
    let name = format!("enf-scope-{}", std::process::id());
    let (stays, goes) = (beside_the_jobs(&world, &name), beside_the_jobs(&world, &format!("{name}-gone")));
    let stays_id = world.kernel().tag(stays.path(), SCOPE_TAG, 0).unwrap();
    let goes_id = world.kernel().tag(goes.path(), SCOPE_TAG + 1, 0).unwrap();
    drop(world.kernel.take());
    drop(goes);
    // Somebody takes one away while nobody looks.
    std::fs::remove_file(pin(&world, "ingress", stays_id)).unwrap();
    world.kernel = Some(load(&world.config));
    assert_eq!(good_links(&mut world), before + 2);
    assert!(pin(&world, "ingress", stays_id).exists());
    assert!(world.kernel().untag(goes_id).unwrap());
    assert!(!pin(&world, "egress", goes_id).exists());
    assert!(world.probe_in(&stays, &["tcp", &real4().to_string()]).contains("PROXY"));
    world.nothing_leaked("adoption of a scope");
}

#[test]
fn only_what_the_hooks_see_can_be_tagged() {
    let mut world = World::new();
    let mount = enforcer_tests::cgroup::mount().unwrap();
    if world.config.attach == mount {
        // At the true root there is nothing beside it.
        assert!(matches!(world.kernel().tag(&mount, SCOPE_TAG, 0), Err(KernelError::OwnCgroup(_))));
        return;
    }
    let elsewhere = Cgroup::at_root(&format!("enf-elsewhere-{}", std::process::id())).unwrap();
    let refused = world.kernel().tag(elsewhere.path(), SCOPE_TAG, 0);
    assert!(matches!(refused, Err(KernelError::NotAttached { .. })), "{refused:?}");
}

#[test]
fn as_many_cgroups_are_tagged_as_there_is_room_for_and_no_more() {
    let mut world = World::new();
    let parent = world.job.child("many").unwrap();
    let make = |n: u32| -> PathBuf {
        let path = parent.path().join(n.to_string());
        std::fs::create_dir(&path).unwrap();
        path
    };
    let tagged = u32::try_from(world.kernel().tags().unwrap().len()).unwrap();
    let mut first: Option<u64> = None;
    for n in tagged..MAX_TAGS {
        let id = world.kernel().tag(&make(n), SCOPE_TAG + u64::from(n), 0).unwrap();
        first.get_or_insert(id);
    }
    let one_more: &Path = &make(MAX_TAGS);
    let refused = world.kernel().tag(one_more, SCOPE_TAG, 0);
    assert!(matches!(refused, Err(KernelError::TooManyTags)), "{refused:?}");
    assert!(world.kernel().untag(first.unwrap()).unwrap());
    world.kernel().tag(one_more, SCOPE_TAG, 0).unwrap();
}
