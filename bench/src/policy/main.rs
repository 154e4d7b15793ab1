//! Measures how long a decision takes: `cargo xtask bench --only policy`.
//!
//! Two policies are asked in turns in one thread, by its own CPU time: 100 rules and 10,000
//! rules, of which 50 are candidates for each request and have a condition in CEL. Their ratio
//! says what the other 9,950 cost. What tells the 50 apart is the path, by which the index
//! leaves most of them out, or a header, so that each condition is evaluated.

#[path = "../mask/clock.rs"]
mod clock;
#[path = "../machine.rs"]
#[expect(dead_code, reason = "shared with the other program")]
mod machine;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use enforcer::policy::{BodyFacts, Fact, Facts, Policy, Protocol, Stage, Verdict, WorkloadFacts};
use http::HeaderMap;
use serde::Serialize;

/// Rules that a host has.
const CANDIDATES: usize = 50;
/// What a decision may take at p99, in ns.
const GOAL: u64 = 50_000;

#[derive(Parser)]
#[command(name = "enforcer-policy-bench", about = "Measures how long a decision takes")]
struct Args {
    /// Decisions of each kind, by thousands
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// Where policy.json and policy.md come to stand
    #[arg(long)]
    dir: PathBuf,
    /// Fail if a decision takes longer than it may
    #[arg(long)]
    strict: bool,
}

/// What is asked of a host's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// The last of the candidates allows.
    Last,
    /// None of them does.
    None,
    /// The last of the candidates allows, and it is a header that tells them apart.
    Header,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Last, Kind::None, Kind::Header];

    fn name(self) -> &'static str {
        match self {
            Kind::Last => "the last candidate allows",
            Kind::None => "no rule decides",
            Kind::Header => "the last allows, by a header",
        }
    }

    fn path(self) -> String {
        match self {
            Kind::Last => format!("/v1/project{}/items", CANDIDATES - 1),
            Kind::None => "/v1/elsewhere/items".to_owned(),
            Kind::Header => "/v1/items".to_owned(),
        }
    }

    /// What holds for one of a host's rules alone.
    fn condition(self, project: usize) -> String {
        match self {
            Kind::Last | Kind::None => format!("http.path.startsWith(\"/v1/project{project}/\")"),
            Kind::Header => format!("\"project{project}\" in http.headers[\"x-project\"]"),
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    rules: usize,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
struct Results {
    machine: String,
    date: String,
    load_ms: Vec<(usize, u64)>,
    rows: Vec<Row>,
}

fn host(number: usize) -> String {
    format!("api-{number}.example.com")
}

/// `CANDIDATES` rules for each of so many hosts.
fn policy(rules: usize, kind: Kind) -> Result<Policy> {
    let mut text = "version: 1\nname: bench\nrules:\n".to_owned();
    for number in 0..rules {
        let host = host(number % (rules / CANDIDATES));
        let condition = kind.condition(number / (rules / CANDIDATES));
        writeln!(
            text,
            "  - id: r{number}\n    when:\n      host: {host}\n      cel: >-\n        http.method in [\"GET\", \"POST\"] \
             && {condition}\n        && workload.labels.team == \"web\" \
             && \"application/json\" in http.headers[\"accept\"]\n        && !(\"debug\" in http.query)\n    allow: true"
        )?;
    }
    Ok(Policy::from_text("bench.yaml", &text)?)
}

struct Asker {
    workload: WorkloadFacts,
    headers: HeaderMap,
}

impl Asker {
    fn new() -> Result<Self> {
        let labels = [("team".to_owned(), "web".to_owned())].into_iter().collect();
        let workload = WorkloadFacts { name: "build-7".to_owned(), cgroup: "/ci/7".to_owned(), labels };
        let mut headers = HeaderMap::new();
        for name in ["accept", "content-type"] {
            headers.insert(name, "application/json".parse()?);
        }
        headers.insert("user-agent", "bench/1".parse()?);
        headers.insert("x-project", format!("project{}", CANDIDATES - 1).parse()?);
        Ok(Self { workload, headers })
    }

    fn facts<'a>(&'a self, host: &'a str, path: &'a str) -> Facts<'a> {
        Facts {
            workload: &self.workload,
            identity: Fact::Absent,
            stage: Stage::Http,
            host: Fact::Known(host),
            port: Fact::Known(443),
            protocol: Fact::Known(Protocol::Https),
            method: Fact::Known("GET"),
            path: Fact::Known(path),
            query: Fact::Known("page=2&size=50"),
            headers: Fact::Known(&self.headers),
            tool: Fact::Unknown,
            body: BodyFacts::default(),
        }
    }
}

/// Decisions of all policies in turns, each of another host than the one before.
fn measure(policies: &[Policy], kind: Kind, count: usize) -> Result<Vec<Row>> {
    let asker = Asker::new()?;
    let path = kind.path();
    let wanted = if kind == Kind::None { Verdict::Deny } else { Verdict::Allow };
    let mut taken = vec![Vec::with_capacity(count); policies.len()];
    for turn in 0..count {
        for (policy, taken) in policies.iter().zip(&mut taken) {
            let host = host(turn * 7 % (policy.len() / CANDIDATES));
            let facts = asker.facts(&host, &path);
            let mut verdict = None;
            taken.push(clock::taken(|| verdict = Some(policy.decide(&facts).verdict)));
            ensure!(verdict == Some(wanted), "{} rules: {verdict:?}", policy.len());
        }
    }
    let row = |(policy, mut taken): (&Policy, Vec<u64>)| {
        taken.sort_unstable();
        let at = |part: usize| taken.get((taken.len() - 1) * part / 1000).copied().unwrap_or_default();
        Row { kind, rules: policy.len(), p50_ns: at(500), p99_ns: at(990), max_ns: at(1000) }
    };
    Ok(policies.iter().zip(taken).map(row).collect())
}

fn table(results: &Results) -> String {
    let mut out = format!("\n## Decisions\n\n{}, {}.\n\n", results.date, results.machine);
    out.push_str("| 50 candidates with CEL | rules | p50, µs | p99, µs | p99 ÷ that of 100 rules |\n");
    out.push_str("| --- | ---: | ---: | ---: | ---: |\n");
    let micro = |ns: u64| format!("{}.{:02}", ns / 1000, ns % 1000 / 10);
    for row in &results.rows {
        let base =
            results.rows.iter().find(|other| other.kind == row.kind).map_or(1, |base| base.p99_ns.max(1));
        let ratio = row.p99_ns * 100 / base;
        let (p50, p99) = (micro(row.p50_ns), micro(row.p99_ns));
        let ratio = format!("{}.{:02}", ratio / 100, ratio % 100);
        writeln!(out, "| {} | {} | {p50} | {p99} | {ratio} |", row.kind.name(), row.rules).ok();
    }
    for (rules, ms) in &results.load_ms {
        writeln!(out, "\n{rules} rules are loaded in {ms} ms.").ok();
    }
    out
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (mut rows, mut load_ms) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let mut policies = Vec::new();
        load_ms.clear();
        for rules in [100, 10_000] {
            // The work is another thread's, whose time is not ours.
            let begun = std::time::Instant::now();
            policies.push(policy(rules, kind)?);
            load_ms.push((rules, u64::try_from(begun.elapsed().as_millis())?));
        }
        measure(&policies, kind, 1_000)?;
        rows.extend(measure(&policies, kind, args.repetitions * 1_000)?);
    }
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("date")?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let results = Results { machine: machine::describe(), date, load_ms, rows };
    std::fs::create_dir_all(&args.dir)?;
    std::fs::write(args.dir.join("policy.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    let table = table(&results);
    std::fs::write(args.dir.join("policy.md"), &table)?;
    println!("{table}");
    let slow = results.rows.iter().any(|row| row.p99_ns > GOAL);
    ensure!(!args.strict || !slow, "a decision takes longer than {} µs at p99", GOAL / 1000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_decided_as_it_should_be() {
        for kind in Kind::ALL {
            let policies = [policy(100, kind).unwrap(), policy(200, kind).unwrap()];
            let rows = measure(&policies, kind, 10).unwrap();
            assert_eq!(rows.iter().map(|row| row.rules).collect::<Vec<_>>(), [100, 200]);
            assert!(rows.iter().all(|row| row.p50_ns <= row.p99_ns && row.p99_ns <= row.max_ns));
        }
    }
}
