//! Certificate validation: chains that a careful client would refuse are served by
//! real TLS upstreams behind the proxy, and no leaf is minted for any of them.
//!
//! With `ENFORCER_VECTORS` set, x509-limbo's cases (`limbo.json.xz` in that folder,
//! read by the `xz` command) are served one after the other; without it, the
//! project's own few chains are all there is. It needs root: upstreams answer for any
//! address in a network namespace of the test's own.

mod case;
mod chains;
mod lane;
mod lenient;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use self::case::{Case, Deviation, Limbo, applies};
use self::lane::{Got, Lane};
use crate::kit::vectors;

fn read_limbo(dir: &Path) -> (Limbo, BTreeMap<String, String>) {
    let path = dir.join("limbo.json.xz");
    let out = Command::new("xz").arg("-dc").arg(&path).output().expect("the xz command");
    assert!(out.status.success(), "xz: {}", String::from_utf8_lossy(&out.stderr));
    let limbo = serde_json::from_slice(&out.stdout).expect("limbo's format");
    let pinned = std::fs::read_to_string(dir.join("limbo-rustls-deviations.json")).expect("the pinned list");
    let pinned: Vec<Deviation> = serde_json::from_str(&pinned).expect("the pinned list's format");
    (limbo, pinned.into_iter().map(|one| (one.id, one.expected)).collect())
}

/// In a network namespace in which every address is this machine's own.
fn everywhere() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
    for args in ["link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"] {
        let done = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }
}

/// Cases that differ from what is wanted, and how many were judged.
#[derive(Default)]
struct Tally {
    leaf: usize,
    refused: usize,
    unspeakable: usize,
    known: usize,
    differ: Vec<String>,
}

fn serve_all(cases: &[Case], pinned: &BTreeMap<String, String>) -> Tally {
    everywhere();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lane = Lane::start().await;
        let mut tally = Tally::default();
        for case in cases {
            let got = lane.judge(case).await;
            match got {
                Got::Leaf => tally.leaf += 1,
                Got::Refused => tally.refused += 1,
                Got::Unspeakable => tally.unspeakable += 1,
            }
            let want = if case.expected_result == "SUCCESS" { Got::Leaf } else { Got::Refused };
            if got == want || got == Got::Unspeakable {
                continue;
            }
            if pinned.get(&case.id) == Some(&case.expected_result) {
                tally.known += 1;
            } else {
                tally.differ.push(format!("{}: wanted {}, got {got:?}", case.id, case.expected_result));
            }
        }
        tally
    })
}

#[test]
fn no_leaf_is_minted_for_a_chain_that_limbo_wants_refused() {
    let Some(dir) = vectors("limbo.json.xz") else { return };
    let (limbo, pinned) = read_limbo(&dir);
    let cases: Vec<Case> = limbo.testcases.into_iter().filter(applies).collect();
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(lanes));
        let lanes: Vec<_> = parts.map(|part| scope.spawn(|| serve_all(part, &pinned))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    println!(
        "{} chains served: {} got a leaf, {} were refused; {} cannot be served or asked for; {} differ as pinned",
        cases.len(),
        sum(|t| t.leaf),
        sum(|t| t.refused),
        sum(|t| t.unspeakable),
        sum(|t| t.known),
    );
    let differ: Vec<&String> = tallies.iter().flat_map(|tally| &tally.differ).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(sum(|t| t.refused) > 8000 && sum(|t| t.leaf) > 800 && sum(|t| t.unspeakable) < 100);
}
