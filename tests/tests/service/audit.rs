//! Policy in audit mode lets through what it would deny. The kernel half does not know of
//! it: what never comes to policy is refused all the same.

use std::io::Read;
use std::process::Stdio;

use enforcer_tests::bpf::Objects;
use enforcer_tests::tamper::contents;

use crate::escapes::ATTEMPTS;
use crate::world::*;

/// What a loader tells the programs; the other maps are written by traffic.
const MAPS: [&str; 4] = ["map_CFG", "map_TAGS", "map_NETNS", "map_UNIX_ALLOW"];

fn policy(mode: &str) -> String {
    format!(
        "version: 1\nname: test\nmode: {mode}\nrules:\n  - id: not-this\n    \
         when: {{host: upstream.test, path: /denied}}\n    deny: not this\n  - id: rest\n    \
         when: {{host: upstream.test}}\n    allow: true\n    addresses: [private]\n"
    )
}

#[test]
fn a_policy_in_audit_mode_changes_nothing_in_the_kernel() {
    let world = World::new();
    let pins = world.service.pins().unwrap();
    // One job that stays: tags come and go with jobs.
    let mut command = world.service.command(&["run", "--", "sh", "-c", "echo here; read line"]).unwrap();
    let mut job = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    job.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let told = || {
        let maps = MAPS.map(|name| contents(&pins.join(name)).unwrap());
        assert!(maps.iter().take(3).all(|map| !map.is_empty()), "{maps:?}");
        (Objects::of(&pins).unwrap(), maps)
    };
    let mut seen = Vec::new();
    for (mode, answer) in [("enforce", "not this"), ("audit", "hello"), ("enforce", "not this")] {
        std::fs::write(world.service.dir.path().join("policies/test.yaml"), policy(mode)).unwrap();
        let out = world.service.output(&["reload"]).unwrap();
        assert!(out.status.success(), "{out:?}");
        let said = world.job("curl -sS -m 5 https://upstream.test/denied");
        assert!(said.contains(answer), "{mode}: {said}");
        seen.push(told());
        world.leaked();
        if mode == "audit" {
            for (technique, to, _) in ATTEMPTS.iter().filter(|(_, _, refused)| *refused) {
                let said = world.nothing_leaves(&format!("{PROBE} {technique} {to}"));
                assert!(said.starts_with(REFUSED), "{technique} {to}: {said}");
            }
        }
    }
    // To the byte.
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
    drop(job.stdin.take());
    job.wait().unwrap();
}
