//! All scenarios with all targets, interleaved.

mod enforcer;
mod peers;
pub mod process;
mod report;
mod run;
mod scenario;
mod stop;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use enforcer_tests::llm;

use crate::stats;
pub use report::grouped;
use run::Bench;
use scenario::Scenario;

#[derive(clap::Args)]
pub struct Args {
    /// Two short repetitions
    #[arg(long)]
    quick: bool,
    /// The other proxies, as NAME=PROGRAM
    #[arg(long = "peer", value_name = "NAME=PROGRAM")]
    peers: Vec<String>,
    /// A proxy that cannot be measured, for the report
    #[arg(long, value_name = "NAME=REASON")]
    left_out: Vec<String>,
    /// Run only the scenarios whose key contains this; `kernel` is what programs cost there,
    /// `first-token` how soon the answers of a model begin
    #[arg(long)]
    only: Option<String>,
    /// How often everything is measured
    #[arg(long)]
    repetitions: Option<usize>,
    /// Seconds of one run
    #[arg(long)]
    seconds: Option<f64>,
    /// The program that is measured
    #[arg(long)]
    enforcer: PathBuf,
    /// Its compiled kernel half
    #[arg(long)]
    object: PathBuf,
    /// Where runs keep their files, and results.json and table.md come to stand
    #[arg(long)]
    dir: PathBuf,
    /// Write the results here, too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Who is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Direct,
    Enforcer { fsync: bool },
    Peer { kind: peers::Kind, program: PathBuf },
}

impl Target {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Enforcer { fsync: false } => "enforcer",
            Self::Enforcer { fsync: true } => "enforcer fsync",
            Self::Peer { kind, .. } => kind.name(),
        }
    }
}

/// What the command line asks for.
struct Plan {
    targets: Vec<Target>,
    scenarios: Vec<Scenario>,
    repetitions: usize,
    /// Turns in which the cost in the kernel is measured, if it is.
    kernel: Option<usize>,
    /// How often an answer of a model is waited for, if it is.
    first_token: Option<usize>,
}

/// The key of what programs cost in the kernel.
const KERNEL: &str = "kernel";
/// The key of how soon the answers of a model begin.
const FIRST_TOKEN: &str = "first-token";
/// Its turns in one repetition.
const ANSWERS: usize = 100;
/// The kernel's turns in one repetition.
const TURNS: usize = 20;

fn plan(args: &Args) -> Result<Plan> {
    let mut targets =
        vec![Target::Direct, Target::Enforcer { fsync: false }, Target::Enforcer { fsync: true }];
    for peer in &args.peers {
        let (name, program) = peer.split_once('=').context("a peer is NAME=PROGRAM")?;
        targets.push(Target::Peer { kind: name.parse()?, program: program.into() });
    }
    let seconds = args.seconds.unwrap_or(if args.quick { 1.0 } else { 4.0 });
    let mut scenarios = scenario::all(args.quick, seconds);
    let wanted = |key: &str| args.only.as_ref().is_none_or(|only| key.contains(only.as_str()));
    scenarios.retain(|it| wanted(it.key));
    let repetitions = args.repetitions.unwrap_or(if args.quick { 2 } else { 5 });
    let kernel = wanted(KERNEL).then_some(repetitions * TURNS);
    let first_token = wanted(FIRST_TOKEN).then_some(repetitions * ANSWERS);
    let nothing = scenarios.is_empty() && kernel.is_none() && first_token.is_none();
    ensure!(!nothing, "no scenario has that in its key");
    Ok(Plan { targets, scenarios, repetitions, kernel, first_token })
}

pub fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark attaches programs to a cgroup: run it as root");
    let plan = plan(args)?;
    let stop = stop::Stop::watch()?;
    let bench = Bench::new(&args.dir, &args.enforcer, &args.object)?;
    let mut results = report::Results::new(args.quick, &plan.targets, &args.enforcer);
    for left_out in &args.left_out {
        let (name, reason) = left_out.split_once('=').context("--left-out is NAME=REASON")?;
        results.leave_out(name, reason);
    }
    if let Some(turns) = plan.kernel {
        results.kernel = Some(crate::kernel::measure(&args.object, turns)?);
    }
    if let Some(turns) = plan.first_token {
        let this = std::env::current_exe()?;
        let this = this.to_str().context("the path of this program is no text")?;
        results.first_token = llm::first_token::measure(&[this, "first-token"], turns)?;
    }
    for repetition in 0..plan.repetitions {
        for (at, scenario) in plan.scenarios.iter().enumerate() {
            for target in stats::rotated(&plan.targets, repetition + at) {
                let skipped = stop.is_wanted() || results.is_left_out(target.name());
                if skipped || !scenario.is_for(&target) {
                    continue;
                }
                match bench.measure(scenario, &target, !args.quick) {
                    Err(error) if error.is::<peers::DoesNotStart>() => {
                        results.leave_out(target.name(), &format!("{error:#}"));
                    }
                    done => results.add(repetition, scenario, &target, done),
                }
            }
        }
    }
    peers::forget_squid()?;
    results.write(&args.dir.join("results.json"), &plan.scenarios)?;
    if let Some(path) = &args.json {
        results.write(path, &plan.scenarios)?;
    }
    let table = report::table(&results, &plan.scenarios);
    std::fs::write(args.dir.join("table.md"), &table)?;
    println!("{table}");
    ensure!(!stop.is_wanted(), "ended early");
    for target in plan.targets[..3].iter().filter(|_| !plan.scenarios.is_empty()) {
        ensure!(results.has(target.name()), "{} was measured nowhere", target.name());
    }
    Ok(())
}
