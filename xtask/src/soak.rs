//! What takes too long for every change: a thousand deaths, a thousand reloads, a hundred
//! thousand connections, ten million secrets. The tests are those of `cargo xtask test`, only with more to do.
//!
//! Each part leaves `target/soak/PART.json`, with its date and what it measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::escapes::{Place, product};
use crate::run::{root, run};
use crate::{ebpf, setup};

/// A recovery that takes longer than this has failed, in ms. On a machine that does
/// nothing else: `cargo xtask test` allows more.
const RECOVERY_MS: &str = "1000";

/// What is asked for on the command line.
#[derive(clap::Args)]
pub struct Args {
    /// Deaths of the proxy, the signer and the loader
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// Reloads of the policy, one in ten of them broken
    #[arg(long, default_value_t = 1_000)]
    reloads: u32,
    /// Connections of eight processes in three network namespaces
    #[arg(long, default_value_t = 100_000)]
    connects: u32,
    /// Cases of a known secret in some form on some way through the masker
    #[arg(long, default_value_t = 10_000_000)]
    cases: u32,
    /// Go on with this batch of a thousand cases, with the seed that was chosen then
    #[arg(long, requires = "seed")]
    batch: Option<u32>,
    /// Run only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Where ways out are tried: everywhere, if nothing is named
    #[arg(long)]
    on: Vec<Place>,
    /// Chooses the same victims, moments and secrets again
    #[arg(long)]
    seed: Option<u64>,
    /// Write the results of all parts here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// kill -9 at random moments, under traffic from tagged and untagged processes
    Kills,
    /// Reloads under load: every statement is judged by one generation, and none is lost
    Reloads,
    /// Connections with the same source ports, each attributed to its workload
    Connects,
    /// Every way out at every level in every state on every kernel, into ESCAPES.md
    Escapes,
    /// Random secrets in random forms, cut anywhere: none comes out
    Mask,
}

impl Part {
    const ALL: &[Self] = &[Self::Kills, Self::Reloads, Self::Connects, Self::Escapes, Self::Mask];

    fn name(self) -> &'static str {
        match self {
            Self::Kills => "kills",
            Self::Reloads => "reloads",
            Self::Connects => "connects",
            Self::Escapes => "escapes",
            Self::Mask => "mask",
        }
    }

    /// The test's binary and its name there.
    fn test(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Kills => (
                "soak",
                "kills::whoever_is_killed_when_nothing_leaves_nobody_else_notices_and_it_comes_back_in_time",
            ),
            Self::Reloads => (
                "soak",
                "reloads::every_statement_is_judged_by_one_generation_and_none_is_lost_or_gets_through",
            ),
            Self::Connects => ("kernel", "attribution::connections_with_the_same_source_are_told_apart"),
            Self::Escapes => return None,
            Self::Mask => ("masking", "random::no_random_secret_comes_out_in_any_form_on_any_way"),
        })
    }

    /// How much there is to do; the test writes what it measured into the file.
    fn environment(self, args: &Args, report: &Path) -> Vec<(&'static str, String)> {
        match self {
            Self::Kills => {
                let mut all = vec![
                    ("ENFORCER_SOAK_KILLS", args.kills.to_string()),
                    ("ENFORCER_SOAK_RECOVERY_MS", RECOVERY_MS.to_owned()),
                    ("ENFORCER_SOAK_JSON", report.display().to_string()),
                ];
                all.extend(args.seed.map(|seed| ("ENFORCER_SOAK_SEED", seed.to_string())));
                all
            }
            Self::Reloads => vec![
                ("ENFORCER_SOAK_RELOADS", args.reloads.to_string()),
                ("ENFORCER_SOAK_JSON", report.display().to_string()),
            ],
            Self::Connects => vec![("ENFORCER_TEST_CONNECTS", args.connects.to_string())],
            Self::Escapes => Vec::new(),
            Self::Mask => {
                let mut all = vec![
                    ("ENFORCER_SOAK_CASES", args.cases.to_string()),
                    ("ENFORCER_SOAK_JSON", report.display().to_string()),
                ];
                all.extend(args.seed.map(|seed| ("ENFORCER_SOAK_SEED", seed.to_string())));
                all.extend(args.batch.map(|batch| ("ENFORCER_SOAK_BATCH", batch.to_string())));
                all
            }
        }
    }

    /// None: all there is.
    fn how_much(self, args: &Args) -> Option<u32> {
        match self {
            Self::Kills => Some(args.kills),
            Self::Reloads => Some(args.reloads),
            Self::Connects => Some(args.connects),
            Self::Escapes => None,
            Self::Mask => Some(args.cases),
        }
    }
}

/// Sets up, builds in release, and runs the parts.
pub fn all(args: &Args) -> Result<()> {
    ensure!(crate::test::is_root()?, "the tests attach programs to cgroups: run them as root");
    setup::all()?;
    let object = ebpf::build()?;
    let folder = root().join("target/soak");
    std::fs::create_dir_all(&folder)?;
    let wanted: Vec<Part> =
        Part::ALL.iter().copied().filter(|part| args.only.is_none_or(|only| only == *part)).collect();
    // In release, as hosts have it: how long a recovery takes is measured. The tests
    // start the program that is built beside them.
    if wanted.iter().any(|part| matches!(part, Part::Kills | Part::Reloads | Part::Connects)) {
        let mut build = Command::new("cargo");
        build.current_dir(root()).args(["build", "--quiet", "--release", "--locked"]);
        run(build.args(["--package", "enforcer"]))?;
    }
    let mut results = Vec::new();
    for part in wanted {
        let much = part.how_much(args).map_or_else(|| "all".to_owned(), |it| it.to_string());
        println!("soak: {}: {much}", part.name());
        let result = soak(part, args, &object, &folder)?;
        println!("soak: {}: {} in {} s", part.name(), verdict(&result), result["seconds"]);
        results.push(result);
    }
    if let Some(path) = &args.json {
        write(path, &json!(results))?;
    }
    ensure!(results.iter().all(|it| it["passed"] == true), "a part failed; what it said is above");
    Ok(())
}

fn verdict(result: &Value) -> &'static str {
    if result["passed"] == true { "passed" } else { "FAILED" }
}

fn soak(part: Part, args: &Args, object: &Path, folder: &Path) -> Result<Value> {
    let report = folder.join(format!("{}.report.json", part.name()));
    if report.exists() {
        std::fs::remove_file(&report)?;
    }
    let begun = Instant::now();
    let (passed, measured) = match part.test() {
        Some(test) => tested(part, test, args, object, &report)?,
        None => {
            let found = product::all(&args.on)?;
            (found["passed"] == true, found)
        }
    };
    let result = json!({
        "part": part.name(),
        "date": said("date", &["-u", "+%Y-%m-%d"])?,
        "kernel": said("uname", &["-r"])?,
        "how_many": part.how_much(args),
        "seconds": begun.elapsed().as_secs(),
        "passed": passed,
        "measured": measured,
    });
    write(&folder.join(format!("{}.json", part.name())), &result)?;
    Ok(result)
}

/// Runs a test: whether it passed, and what it measured.
fn tested(
    part: Part,
    (binary, test): (&str, &str),
    args: &Args,
    object: &Path,
    report: &Path,
) -> Result<(bool, Value)> {
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(root()).args(["test", "--quiet", "--release", "--locked"]);
        command.args(["--package", "enforcer-tests", "--test", binary, "--", "--exact", test]);
        command.env("ENFORCER_BPF_OBJECT", object);
        command
    };
    // One that is called otherwise by now would run nothing, and pass.
    let list = cargo().arg("--list").output()?;
    ensure!(
        String::from_utf8_lossy(&list.stdout).lines().any(|line| line == format!("{test}: test")),
        "{binary} has no test {test}: {}",
        String::from_utf8_lossy(&list.stderr)
    );
    let status = cargo().arg("--nocapture").envs(part.environment(args, report)).status()?;
    let measured = match std::fs::read_to_string(report) {
        Ok(text) => serde_json::from_str(&text).context("the test's report")?,
        Err(_) => Value::Null,
    };
    Ok((status.success(), measured))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn said(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program).args(args).output()?;
    if !out.status.success() {
        bail!("{program} ended with {}", out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_numbers_reach_the_tests() {
        let args = Args {
            kills: 7,
            reloads: 8,
            connects: 9,
            cases: 11,
            batch: None,
            only: None,
            on: Vec::new(),
            seed: Some(3),
            json: None,
        };
        let of = |part: Part| part.environment(&args, Path::new("/r"));
        let kills = of(Part::Kills);
        for (name, value) in [("ENFORCER_SOAK_KILLS", "7"), ("ENFORCER_SOAK_SEED", "3")] {
            assert!(kills.contains(&(name, value.to_owned())), "{kills:?}");
        }
        assert!(of(Part::Reloads).contains(&("ENFORCER_SOAK_RELOADS", "8".to_owned())));
        assert!(of(Part::Mask).contains(&("ENFORCER_SOAK_CASES", "11".to_owned())));
        assert_eq!(of(Part::Connects), [("ENFORCER_TEST_CONNECTS", "9".to_owned())]);
        assert_eq!(Part::ALL.len(), <Part as clap::ValueEnum>::value_variants().len());
    }
}
