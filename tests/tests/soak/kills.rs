//! `kill -9` of the proxy, the signer, the loader, and of any of them together, at random
//! moments: nothing tagged gets out, nobody untagged notices, and it comes back in time.
//!
//! The test is what starts a dead loader again, at once, as systemd would.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use enforcer_tests::bpf::Objects;
use enforcer_tests::chance::Chance;
use enforcer_tests::service::kill9;
use enforcer_tests::traffic::monotonic_ns;

use crate::report::{Kill, Report, percentiles};
use crate::world::World;

/// How many there are in a run of all tests; `cargo xtask soak` asks for a thousand.
const FEW: usize = 30;
/// What is not back by then does not come back. How soon it is back is asked of a soak alone
/// (`ENFORCER_SOAK_RECOVERY_MS`): a machine that does other things says nothing about that.
const LOST: Duration = Duration::from_secs(30);
/// From one recovery to the next death, at most.
const QUIET: Duration = Duration::from_millis(1000);
/// From one death to the next that comes before the recovery, at most.
const AGAIN: Duration = Duration::from_millis(400);
/// One death in so many is followed by such a second one.
const TWICE: u64 = 5;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Proxy,
    Signer,
    Loader,
}

use Victim::{Loader, Proxy, Signer};

const VICTIMS: &[&[Victim]] = &[
    &[Proxy],
    &[Signer],
    &[Loader],
    &[Proxy, Signer],
    &[Proxy, Loader],
    &[Signer, Loader],
    &[Proxy, Signer, Loader],
];

/// The proxies and signers of this loader that run.
fn children(loader: i32) -> BTreeMap<i32, Victim> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{loader}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            let line = std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
            let victim = match line.split(|byte| *byte == 0).nth(1) {
                Some(b"proxy") => Proxy,
                Some(b"signer") => Signer,
                _ => continue,
            };
            found.insert(pid.parse().unwrap(), victim);
        }
    }
    found
}

/// What is known of the death that was last.
struct Death {
    at: u64,
    /// Who answered until then.
    before: BTreeMap<i32, Victim>,
}

fn strike(world: &mut World, victims: &[Victim]) -> Death {
    let before = children(world.service.daemon_pid().unwrap());
    let at = monotonic_ns();
    for victim in victims {
        if *victim == Loader {
            world.service.kill_daemon().unwrap();
            drop(world.service.spawn_daemon().unwrap());
            continue;
        }
        // Those that are being started have no name yet, and some may just be gone.
        for (pid, _) in before.iter().filter(|(_, it)| *it == victim) {
            let _gone = kill9(*pid).is_err();
        }
    }
    Death { at, before }
}

/// Waits until others answer, and says when those were there.
fn wait_for_others(world: &mut World, death: &Death, report: &mut Report) -> u64 {
    let until = Instant::now() + LOST;
    loop {
        if !world.service.daemon_runs().unwrap() {
            // It could not start: systemd tries again, too.
            report.failed_starts += 1;
            drop(world.service.spawn_daemon().unwrap());
        }
        let now = children(world.service.daemon_pid().unwrap());
        let is_new = |wanted| now.iter().any(|(pid, it)| *it == wanted && !death.before.contains_key(pid));
        if is_new(Proxy) && is_new(Signer) {
            return monotonic_ns();
        }
        assert!(Instant::now() < until, "nobody is started: {now:?}, before {:?}", death.before);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until all that a workload does is answered again.
fn wait_until_back(world: &World, death: &Death, new: u64) {
    let until = Instant::now() + LOST;
    for kind in ["https", "keep-alive", "dns"] {
        while world.tagged.log.back(kind, death.at, new).is_none() {
            let last = world.tagged.log.all(|it| it.kind == kind && it.ended >= death.at);
            assert!(Instant::now() < until, "{kind} is not answered: {:?}", last.last());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Nothing of this may ever have been.
fn check(world: &World, what: &str) {
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{what}: {leaked:?}");
    let failed = world.untagged.log.all(|it| !it.is_ok());
    assert!(failed.is_empty(), "{what}: an untagged process was disturbed: {failed:?}");
    let escaped = |it: &enforcer_tests::traffic::Attempt| it.kind == "escape" && !it.is_ok();
    let escaped = world.tagged.log.all(escaped);
    assert!(escaped.is_empty(), "{what}: {escaped:?}");
}

#[test]
fn whoever_is_killed_when_nothing_leaves_nobody_else_notices_and_it_comes_back_in_time() {
    let wanted = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u32>().unwrap_or_else(|_| panic!("{name}: {value}")))
    };
    let kills = wanted("ENFORCER_SOAK_KILLS").map_or(FEW, |kills| usize::try_from(kills).unwrap());
    let limit = wanted("ENFORCER_SOAK_RECOVERY_MS");
    let mut chance = Chance::new();
    let mut report = Report::new(chance.seed);
    println!("soak: ENFORCER_SOAK_SEED={} chooses the same again", chance.seed);
    let mut world = World::new();
    let mut objects = Objects::of(&world.service.pins().unwrap()).unwrap();
    while report.struck < kills {
        let mut victims = chance.pick(VICTIMS).to_vec();
        chance.shuffle(&mut victims);
        std::thread::sleep(chance.moment(QUIET));
        let mut death = strike(&mut world, &victims);
        report.struck += 1;
        let first = death.at;
        let twice = chance.one_in(TWICE);
        if twice {
            std::thread::sleep(chance.moment(AGAIN));
            victims = chance.pick(VICTIMS).to_vec();
            death = strike(&mut world, &victims);
            report.struck += 1;
        }
        let new = wait_for_others(&mut world, &death, &mut report);
        wait_until_back(&world, &death, new);
        victims.sort_unstable();
        let kill = Kill { victims: format!("{victims:?}"), twice, first, at: death.at, new };
        report.add(kill);
        check(&world, &format!("seed {}, death {}: {victims:?}", chance.seed, report.struck));
        if report.struck % 100 < 2 {
            objects.add(Objects::of(&world.service.pins().unwrap()).unwrap());
            println!("soak: {} of {kills}", report.struck);
        }
    }
    world.service.wait_whole().unwrap();
    let verified = world.service.output(&["sessions", "verify"]).unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let now = Objects::of(&world.service.pins().unwrap()).unwrap();
    report.conclude(&world);
    objects.add(now);
    world.service.release().unwrap();
    objects.wait_gone().unwrap();
    let slowest = percentiles(report.recoveries()).max;
    assert!(
        limit.is_none_or(|limit| slowest <= f64::from(limit)),
        "the slowest recovery took {slowest:.0} ms"
    );
}
