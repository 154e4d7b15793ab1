//! Makes ESCAPES.md: runs the battery on this machine and in the guests, and writes down
//! what it saw, one column a kernel.

use std::collections::BTreeMap;
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

/// Each level with its heading.
const LEVELS: &[(&str, &str, &str)] = &[
    (
        "user",
        "An unprivileged user",
        "uid 65534 without capabilities, with `no_new_privs`, in a tagged cgroup: what an agent is that \
         something else than `enforcer run` started.",
    ),
    (
        "launched",
        "An unprivileged user in `enforcer run`",
        "The same, started by `enforcer run`, on a host with the settings that `enforcer doctor` asks for \
         (sockets of daemons hidden, `kernel.yama.ptrace_scope` not 0).",
    ),
    (
        "container",
        "Root in a container",
        "Docker's namespaces and default capabilities (`CAP_NET_RAW` among them), and no seccomp profile; \
         the network namespace is shared with processes outside.",
    ),
    (
        "container-set",
        "Root in a container, with the settings",
        "The same with `NoNewPrivileges`, the address families and system calls of `enforcer run`, and a \
         network namespace of its own.",
    ),
    ("root", "Root of the host", "All capabilities, in a tagged cgroup: can be detected, not promised."),
];

#[derive(clap::Args)]
pub struct Args {
    /// Run the battery only here; other columns stay as they were run before
    #[arg(long)]
    on: Vec<Place>,
    /// Run nothing, write the table of what was run before
    #[arg(long, conflicts_with = "on")]
    render: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    Host,
    #[value(name = "6.1")]
    Old,
    #[value(name = "6.12")]
    New,
}

/// Runs the battery and writes the table.
pub fn all(args: &Args) -> Result<()> {
    ensure!(test::is_root()?, "the battery attaches programs to cgroups: run it as root");
    let places = match (args.render, args.on.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec![Place::Host, Place::Old, Place::New],
        (false, false) => args.on.clone(),
    };
    for place in places {
        match place {
            Place::Host => keep("host", &host()?)?,
            Place::Old => guest("6.1")?,
            Place::New => guest("6.12")?,
        }
    }
    let path = root().join("ESCAPES.md");
    fs::write(&path, render()?)?;
    println!("wrote {}", path.display());
    write_readme()
}

/// What is not stopped, in the README.
fn write_readme() -> Result<()> {
    const BEGIN: &str = "<!-- escapes: begin -->";
    const END: &str = "<!-- escapes: end -->";
    let columns = columns()?;
    let path = root().join("README.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).context("the README has no place for what is not stopped")?;
    let (_, after) = rest.split_once(END).context("the README's list has no end")?;
    let lines: Vec<String> = LEVELS
        .iter()
        .map(|(level, heading, _)| format!("- {heading}: {}\n", open(&columns, level)))
        .collect();
    fs::write(&path, format!("{before}{BEGIN}\n\n{}\n{END}{after}", lines.concat()))?;
    Ok(())
}

/// Every technique at every level, on this machine.
fn host() -> Result<String> {
    let out = Command::new("cargo")
        .current_dir(root())
        .args(["test", "--package", "enforcer-tests", "--test", "escapes", "--locked"])
        .args(["--", "--test-threads=1", "--nocapture", "enforcing"])
        .env("ENFORCER_BPF_OBJECT", ebpf::build()?)
        .env("ENFORCER_WRITE_TABLE", "1")
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    print!("{text}");
    ensure!(out.status.success(), "the table in tests/tests/escapes says otherwise");
    Ok(text)
}

fn guest(series: &str) -> Result<()> {
    setup::packages(setup::VM)?;
    for (column, environment) in [("", ""), ("-lsm", "ENFORCER_ESCAPES_LSM=1")] {
        let wanted =
            vm::Guest { series, suite: "escapes", filter: Some("enforcing"), environment, lsm: true };
        keep(&format!("{series}{column}"), &vm::all(&wanted)?)?;
    }
    Ok(())
}

fn file(column: &str) -> PathBuf {
    root().join("target/escapes").join(format!("{column}.json"))
}

/// Keeps the results of one run, with the day and the kernel.
fn keep(column: &str, text: &str) -> Result<()> {
    let mut levels = serde_json::Map::new();
    let mut kernel = Value::Null;
    // A line of the test's harness may stand before it.
    for line in text.lines().filter_map(|line| line.split_once(RESULT)) {
        let result: Value = serde_json::from_str(line.1.trim()).context("a result that is cut")?;
        if column.ends_with("-lsm") && result["lsm"] != true {
            println!("{column}: no LSM tier is at work there, so it is no column");
            return Ok(());
        }
        kernel = result["kernel"].clone();
        let level = result["level"].as_str().context("a result without a level")?.to_owned();
        levels.insert(level, result["outcomes"].clone());
    }
    ensure!(levels.len() == LEVELS.len(), "{column}: results of {} levels", levels.len());
    let out = Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
    let date = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    fs::create_dir_all(root().join("target/escapes"))?;
    let kept = json!({ "kernel": kernel, "date": date, "levels": levels });
    fs::write(file(column), serde_json::to_vec_pretty(&kept)?)?;
    Ok(())
}

struct Column {
    title: String,
    results: Value,
}

fn columns() -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in COLUMNS {
        let Ok(text) = fs::read(file(name)) else { continue };
        let results: Value = serde_json::from_slice(&text)?;
        let kernel = results["kernel"].as_str().unwrap_or_default();
        let title = match *name {
            "host" => format!("{kernel} (host)"),
            _ if name.ends_with("-lsm") => format!("{kernel}, LSM"),
            _ => kernel.to_owned(),
        };
        columns.push(Column { title, results });
    }
    ensure!(columns.first().is_some_and(|it| it.title.ends_with("(host)")), "run it with `--on host` first");
    Ok(columns)
}

fn render() -> Result<String> {
    let columns = columns()?;
    let mut text = INTRODUCTION.to_owned();
    for column in &columns {
        let date = column.results["date"].as_str().unwrap_or_default();
        text.push_str(&format!("- {}: {date}\n", column.title));
    }
    for (level, heading, what) in LEVELS {
        let heads: Vec<&str> = columns.iter().map(|it| it.title.as_str()).collect();
        text.push_str(&format!("\n## {heading}\n\n{what}\n\n"));
        let open = open(&columns, level);
        text.push_str(&format!("Not stopped: {open}\n\n<!-- {level}: begin -->\n\n"));
        text.push_str(&format!(
            "| Technique | {} |\n|---|{}\n",
            heads.join(" | "),
            "---|".repeat(heads.len())
        ));
        let first = &columns[0].results["levels"][level];
        for name in first.as_object().context("no results")?.keys() {
            let cells = columns.iter().map(|it| it.results["levels"][level][name].as_str().unwrap_or("?"));
            text.push_str(&format!("| `{name}` | {} |\n", cells.collect::<Vec<_>>().join(" | ")));
        }
        text.push_str(&format!("\n<!-- {level}: end -->\n"));
    }
    Ok(text)
}

/// What is not stopped at this level, and where.
fn open(columns: &[Column], level: &str) -> String {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for column in columns {
        for (name, outcome) in column.results["levels"][level].as_object().into_iter().flatten() {
            if outcome == "not stopped" {
                found.entry(name).or_default().push(&column.title);
            }
        }
    }
    if found.is_empty() {
        return "nothing.".to_owned();
    }
    let one = |(name, places): (&&str, &Vec<&str>)| {
        if places.len() == columns.len() {
            format!("`{name}`")
        } else {
            format!("`{name}` ({})", places.join("; "))
        }
    };
    found.iter().map(one).collect::<Vec<_>>().join(", ") + "."
}

const INTRODUCTION: &str = "# Ways out, and what comes of them

Made by `cargo xtask escapes`; do not edit. Each technique is tried by a process in a tagged
cgroup, and by an untagged one of the same privileges. A sniffer at the far end of a cable, in
another network namespace, is the judge: not what the process was told. The programs of the
techniques are in `tests/src/bin/enforcer-probe`, what is expected of each in
`tests/tests/escapes/table`; the test of that name holds the first column to what it sees.

- redirected: it reaches the proxy, which is told where it wanted to go and who it is
- refused (hook): refused by a program of the enforcer, in the call or by dropping the packet;
  an untagged process gets out by it
- refused (rights): an untagged process of this level cannot either
- reaches only the proxy: it is about the enforcer's own port, and gets nothing there
- not stopped: the peer got it
- n/a: nobody gets out by it on this kernel, with what root was told
- -: it makes no sense at this level

Other states (the proxy is dead, loaders adopt each other's programs without end) have to give the
same, but that what is redirected is refused while no proxy is there. Policy in audit mode is not
known to the kernel half.

";
