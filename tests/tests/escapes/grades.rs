//! What `enforcer doctor` says is not stopped is what the table says: for each level, a host
//! that is as the suite's arena, graded.

use std::collections::BTreeSet;

use enforcer::app::doctor::{Level as Graded, Report, TECHNIQUES as KNOWN};

use crate::arena::State;
use crate::outcome::{Level, Outcome};
use crate::table::TECHNIQUES;
use enforcer_tests::fake::Fake;

/// Kernels, and whether the second tier is there.
const TIERS: [(&str, bool); 3] = [("6.18", false), ("6.12", true), ("6.1", true)];

/// What doctor knows and nobody tries here, since it is about what else is on a host than the
/// enforcer: daemons, accounts, files, devices.
const NOT_TRIED: [&str; 19] = [
    "container-daemon",
    "core-handler",
    "core-pattern",
    "cron",
    "helper-daemon",
    "module",
    "privileged-program",
    "raw-device",
    "resolver-daemon",
    "root-by-group",
    "root-file",
    "runner-file",
    "socket",
    "su-session",
    "sudo",
    "system-bus",
    "tun-own",
    "unit-file",
    "user-manager",
];

fn good(lsm: bool) -> Fake {
    let mut fake = Fake::good();
    if !lsm {
        fake.without_lsm();
    }
    fake
}

/// The arena: nothing on interfaces, nobody who closes what was connected
/// before, and outsiders who lend a hand.
fn arena(lsm: bool) -> Fake {
    let mut fake = good(lsm);
    fake.status.as_mut().unwrap()["interfaces"] = serde_json::json!({ "guarded": 0, "problem": "none" });
    fake.replace("/boot/config-6.12.117+deb12-amd64", "INET_DIAG_DESTROY=y", "INET_DIAG_DESTROY=n");
    fake.replace("/proc/sys/kernel/yama/ptrace_scope", "1", "0");
    let listens = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                   0000000000000000: 00000002 00000000 00010000 0001 01 19 @relay\n";
    fake.file("/proc/net/unix", listens, 0, 0o444);
    fake
}

fn graded(level: Level, lsm: bool) -> (Graded, Report) {
    let mut fake = arena(lsm);
    match level.name() {
        "user" => {
            fake.unit("[Service]\nUser=ci\nNoNewPrivileges=yes\nStandardInput=socket\n");
            fake.process(99, enforcer_tests::fake::CI, "tmux", "/user.slice/user-1000.slice/session-1.scope");
            (Graded::Unprivileged, fake.report(Graded::Unprivileged))
        }
        "launched" => (Graded::Unprivileged, fake.run_report(None)),
        // The kernel and the host's other users are as doctor asks for.
        "unit" | "container-set" => {
            fake = good(lsm);
            let grade = if level.name() == "unit" { Graded::Unprivileged } else { Graded::ContainerRoot };
            (grade, fake.report(grade))
        }
        "container" => (Graded::ContainerRoot, fake.container()),
        "root" => {
            fake.unit("[Service]\nUser=root\nStandardInput=socket\n");
            (Graded::HostRoot, fake.report(Graded::HostRoot))
        }
        other => panic!("no host for {other}"),
    }
}

#[test]
fn what_doctor_says_is_not_stopped_is_what_the_table_says() {
    let mut differences = Vec::new();
    for ((kernel, lsm), level) in
        TIERS.into_iter().flat_map(|tier| Level::ALL.into_iter().map(move |level| (tier, level)))
    {
        let (grade, report) = graded(level, lsm);
        let said = report.scopes[0].grades.iter().find(|graded| graded.level == grade).unwrap();
        let (mut said, mut wanted): (BTreeSet<&str>, BTreeSet<&str>) =
            (said.not_stopped.iter().copied().collect(), BTreeSet::new());
        said.retain(|name| !NOT_TRIED.contains(name));
        for technique in TECHNIQUES.iter().flat_map(|group| group.iter()) {
            match technique.expected(kernel, lsm, level, State::Enforcing) {
                Outcome::NotStopped => {
                    wanted.insert(technique.name);
                }
                // Nobody can on this kernel, or it makes no sense there: on others it may.
                Outcome::Absent | Outcome::Untried => {
                    said.remove(technique.name);
                }
                _ => {}
            }
        }
        if said != wanted {
            let place = format!("{}, {kernel}, lsm {lsm}", level.name());
            differences.push(format!("{place}: doctor {said:?}, the table {wanted:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_doctor_knows_beside_the_table_is_told_here() {
    let tried: BTreeSet<&str> = TECHNIQUES.iter().flat_map(|group| group.iter()).map(|it| it.name).collect();
    let known: BTreeSet<&str> = KNOWN.iter().map(|technique| technique.name).collect();
    let beside: BTreeSet<&str> = known.difference(&tried).copied().collect();
    assert_eq!(beside, NOT_TRIED.into_iter().collect());
}
