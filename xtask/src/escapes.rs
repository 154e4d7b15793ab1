//! Makes ESCAPES.md: runs the battery on this machine and in the guests, and writes down
//! what it saw, one column a kernel.

mod page;
pub mod product;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::run::root;
use crate::{ebpf, setup, test, vm};

/// The line of a result begins so.
const RESULT: &str = "escape-results: ";
/// The columns, in order: a file of results each.
const COLUMNS: &[&str] = &["host", "6.1", "6.1-lsm", "6.12", "6.12-lsm"];
/// The tests of the state that the tables are about.
const ENFORCING: &str = "enforcing";

#[derive(clap::Args)]
pub struct Args {
    /// Run the battery only here; other columns stay as they were run before
    #[arg(long)]
    on: Vec<Place>,
    /// Run nothing, write the table of what was run before
    #[arg(long, conflicts_with = "on")]
    render: bool,
}

/// Where it runs: in the guests with the tier `lsm` and without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// This machine
    Host,
    /// A guest with Debian's 6.1
    #[value(name = "6.1")]
    Old,
    /// A guest with Debian's 6.12
    #[value(name = "6.12")]
    New,
}

impl Place {
    fn or_all(named: &[Self]) -> Vec<Self> {
        if named.is_empty() { vec![Self::Host, Self::Old, Self::New] } else { named.to_vec() }
    }
}

/// Runs the battery and writes the table.
pub fn all(args: &Args) -> Result<()> {
    ensure!(test::is_root()?, "the battery attaches programs to cgroups: run it as root");
    let places = if args.render { Vec::new() } else { Place::or_all(&args.on) };
    for place in places {
        match place {
            Place::Host => keep("host", host(ENFORCING, false)?)?,
            Place::Old => guests("6.1")?,
            Place::New => guests("6.12")?,
        }
    }
    page::write()
}

/// The battery on this machine: its output, and whether all was as expected.
fn host(filter: &str, all: bool) -> Result<(String, bool)> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .args(["test", "--package", "enforcer-tests", "--test", "escapes", "--locked"])
        .args(["--", "--test-threads=1", "--nocapture", filter])
        .env("ENFORCER_BPF_OBJECT", ebpf::build()?)
        .env("ENFORCER_WRITE_TABLE", "1")
        .stderr(Stdio::inherit());
    if all {
        command.env("ENFORCER_ESCAPES_ALL", "1");
    }
    let out = command.output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    print!("{text}");
    Ok((text, out.status.success()))
}

fn guests(series: &str) -> Result<()> {
    for (column, lsm) in [("", false), ("-lsm", true)] {
        keep(&format!("{series}{column}"), guest_of(series, lsm, Some(ENFORCING))?)?;
    }
    Ok(())
}

/// The battery in a guest; all techniques in all states if no tests are named.
fn guest_of(series: &str, lsm: bool, filter: Option<&str>) -> Result<(String, bool)> {
    setup::packages(setup::VM)?;
    let environment = if filter.is_none() {
        "ENFORCER_WRITE_TABLE=1 ENFORCER_ESCAPES_ALL=1"
    } else {
        "ENFORCER_WRITE_TABLE=1"
    };
    vm::run_suite(&vm::Guest { series, suite: "escapes", filter, environment, lsm })
}

fn file(column: &str) -> PathBuf {
    root().join("target/escapes").join(format!("{column}.json"))
}

/// As the tables call a column.
fn title(column: &str, kernel: &str) -> String {
    match column {
        "host" => format!("{kernel} (host)"),
        _ if column.ends_with("-lsm") => format!("{kernel}, LSM"),
        _ => kernel.to_owned(),
    }
}

fn date() -> Result<String> {
    let out = Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The results that stand in an output; a line of the test's harness may stand before one.
fn results(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().filter_map(|line| line.split_once(RESULT));
    lines.map(|line| serde_json::from_str(line.1.trim()).context("a result that is cut")).collect()
}

/// Keeps the results of one run, with the day and the kernel.
fn keep(column: &str, (text, succeeded): (String, bool)) -> Result<()> {
    let mut levels = serde_json::Map::new();
    let mut kernel = Value::Null;
    for result in results(&text)? {
        ensure!(result["lsm"] == column.ends_with("-lsm"), "{column}: the LSM tier is not as it should be");
        kernel = result["kernel"].clone();
        let level = result["level"].as_str().context("a result without a level")?.to_owned();
        levels.insert(level, result["outcomes"].clone());
    }
    ensure!(levels.len() == page::LEVELS.len(), "{column}: results of {} levels", levels.len());
    fs::create_dir_all(root().join("target/escapes"))?;
    let kept = json!({ "kernel": kernel, "date": date()?, "levels": levels });
    fs::write(file(column), serde_json::to_vec_pretty(&kept)?)?;
    ensure!(succeeded, "{column}: the table in tests/tests/escapes says otherwise; see above");
    Ok(())
}
