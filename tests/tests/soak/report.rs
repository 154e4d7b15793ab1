//! What came of it, for people and for programs.

use std::collections::BTreeMap;

use enforcer_tests::traffic::{Attempt, Log};
use serde::Serialize;

use crate::world::World;

/// One death, the second of two if the first had not been recovered from.
pub struct Kill {
    pub victims: String,
    pub twice: bool,
    /// When the first of two came; the same as the next if there was one only.
    pub first: u64,
    pub at: u64,
    /// When those who answer afterwards were there.
    pub new: u64,
}

/// In milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub struck: usize,
    /// How often a loader that was started again could not begin.
    pub failed_starts: usize,
    /// From the death to the first request that a workload is answered for good, by who died.
    recovery_ms: BTreeMap<String, Percentiles>,
    /// Requests of workloads and of others: how many, how many of them failed, how long they took.
    tagged: BTreeMap<String, Counts>,
    untagged: BTreeMap<String, Counts>,
    leaked_packets: usize,
    #[serde(skip)]
    kills: Vec<Kill>,
    #[serde(skip)]
    recovered: Vec<f64>,
}

#[derive(Serialize)]
struct Counts {
    attempts: usize,
    failed: usize,
    /// What the last failure was, by its own words.
    last: Option<String>,
    took_ms: Percentiles,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub fn add(&mut self, kill: Kill) {
        self.kills.push(kill);
    }

    pub fn recoveries(&self) -> Vec<f64> {
        self.recovered.clone()
    }

    /// A failure that comes after a recovery was none: until the next death it counts as
    /// this one's.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    pub fn conclude(&mut self, world: &World) {
        let mut by_victims: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let https = world.tagged.log.all(|it| it.kind == "https");
        for (at, kill) in self.kills.iter().enumerate() {
            let next = self.kills.get(at + 1).map_or(u64::MAX, |next| next.first);
            let back = back(&https, kill, next).expect("it was answered");
            let took = (back - kill.at) as f64 / 1e6;
            self.recovered.push(took);
            by_victims.entry(kill.victims.clone()).or_default().push(took);
            if kill.twice {
                by_victims.entry("the second of two".to_owned()).or_default().push(took);
            }
        }
        by_victims.insert("all".to_owned(), self.recovered.clone());
        self.recovery_ms = by_victims.into_iter().map(|(who, took)| (who, percentiles(took))).collect();
        self.tagged = counts(&world.tagged.log);
        self.untagged = counts(&world.untagged.log);
        self.show();
    }

    fn show(&self) {
        println!("soak: {} deaths; {} loaders could not begin", self.struck, self.failed_starts);
        for (who, it) in &self.recovery_ms {
            let Percentiles { count, p50, p90, p99, max } = it;
            println!("recovery {who}: {count}, p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} max {max:.0} ms");
        }
        for (whose, counts) in [("tagged", &self.tagged), ("untagged", &self.untagged)] {
            for (kind, Counts { attempts, failed, took_ms, .. }) in counts {
                let Percentiles { p50, p99, max, .. } = took_ms;
                println!(
                    "{whose} {kind}: {attempts}, {failed} failed; p50 {p50:.1} p99 {p99:.1} max {max:.0} ms"
                );
            }
        }
        if let Some(path) = std::env::var_os("ENFORCER_SOAK_JSON") {
            std::fs::write(path, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        }
    }
}

/// The end of the first answered attempt after the last failure before the next death.
fn back(https: &[Attempt], kill: &Kill, next: u64) -> Option<u64> {
    let of_it = || https.iter().filter(|it| it.ended >= kill.at && it.ended < next);
    let failed = of_it().filter(|it| !it.is_ok()).map(|it| it.ended).max().unwrap_or(kill.at);
    of_it().find(|it| it.is_ok() && it.ended >= failed.max(kill.new)).map(|it| it.ended)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
fn counts(log: &Log) -> BTreeMap<String, Counts> {
    let mut by_kind: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for attempt in log.all(|_| true) {
        by_kind.entry(attempt.kind.clone()).or_default().push(attempt);
    }
    let counted = by_kind.into_iter().map(|(kind, all)| {
        let took = all.iter().map(|it| (it.ended - it.began) as f64 / 1e6).collect();
        let failed = all.iter().filter(|it| !it.is_ok()).count();
        let last = all.iter().rev().find_map(|it| it.error.clone());
        (kind, Counts { attempts: all.len(), failed, last, took_ms: percentiles(took) })
    });
    counted.collect()
}

/// By the nearest rank.
pub fn percentiles(mut values: Vec<f64>) -> Percentiles {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values.get(rank - 1).copied().unwrap_or_default()
    };
    Percentiles { count: values.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let of = percentiles((1..=200).map(f64::from).collect());
    assert!((of.p50 - 100.0).abs() < 1e-9 && (of.p99 - 198.0).abs() < 1e-9 && (of.max - 200.0).abs() < 1e-9);
    assert_eq!(percentiles(Vec::new()).count, 0);
}
