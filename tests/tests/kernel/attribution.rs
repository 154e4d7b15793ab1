//! Many connections at once whose sources are the same: each one is told apart.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::Netns;

use crate::world::*;

/// Connections of all processes together; `ENFORCER_TEST_CONNECTS` says another number.
const CONNECTS: u32 = 4_000;
/// The number of a process among those of its namespace: eight of them, in three.
const PROCESSES: [(usize, u32); 8] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)];

fn connects() -> u32 {
    match std::env::var("ENFORCER_TEST_CONNECTS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => CONNECTS,
    }
}

#[test]
fn connections_with_the_same_source_are_told_apart() {
    let mut world = World::served();
    let others = [Netns::new("second").unwrap(), Netns::new("third").unwrap()];
    for netns in &others {
        world.serve_in(netns);
    }
    let each = connects().div_ceil(u32::try_from(PROCESSES.len()).unwrap());
    let jobs: Vec<(Cgroup, u64)> = (0..PROCESSES.len())
        .map(|number| {
            let job = world.jobs.child(&format!("many-{number}")).unwrap();
            let tag = 8000 + number as u64;
            world.kernel().tag(job.path(), tag, 0).unwrap();
            (job, tag)
        })
        .collect();
    let begun = Instant::now();
    let children: Vec<Child> = PROCESSES
        .iter()
        .zip(&jobs)
        .map(|((namespace, number), (job, tag))| {
            let netns = [&world.cable.work, &others[0], &others[1]][*namespace];
            attribute(job, netns, *number, each, *tag)
        })
        .collect();
    for child in children {
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said.trim(), format!("ok {each}"));
    }
    let took = begun.elapsed();
    let records = std::mem::take(&mut *world.records.lock().unwrap());
    assert_eq!(records.len(), PROCESSES.len() * each as usize);
    let namespaces: std::collections::HashSet<u64> = records.iter().map(|it| it.netns).collect();
    assert_eq!(namespaces.len(), 3);
    for (_, tag) in &jobs {
        let of_tag = records.iter().filter(|it| it.tag == *tag).count();
        assert_eq!(of_tag, each as usize, "{tag}");
    }
    println!("{} connections in {took:?}", records.len());
    world.nothing_leaked("connections with the same source");
}

fn attribute(job: &Cgroup, netns: &Netns, number: u32, each: u32, tag: u64) -> Child {
    let procs = File::options().write(true).open(job.path().join("cgroup.procs")).unwrap();
    let netns = netns.file().try_clone().unwrap();
    let mut command = Command::new(probe());
    command.args(["attribute", &number.to_string(), &each.to_string(), &tag.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: only system calls, no memory is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::write(&procs, b"0")?;
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(())
        });
    }
    command.spawn().unwrap()
}
