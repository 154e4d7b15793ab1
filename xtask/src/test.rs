//! All tests, with their set-up.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};
use crate::{ebpf, setup};

/// The package whose suites are run beside each other.
const SUITES: &str = "enforcer-tests";

/// Suites that begin first, since they take longest; one that is in two parts has a row for each.
/// All others follow by name.
const FIRST: &[(&str, &[&str])] = &[
    ("service", &["--skip", "approvals::"]),
    ("clients", &[]),
    ("service", &["approvals::"]),
    ("containers", &[]),
    ("escapes", &[]),
];

/// How many suites run at a time: they wait for clients and for clocks more than they compute
/// (three tenths of two cores, measured of the longest), and each has cgroups, ports and folders of
/// its own. With more of them a busy machine keeps clients waiting longer than they wait.
const LANES: usize = 2;

/// Sets up, builds and runs all tests, or those whose name contains `filter`.
pub fn all(filter: Option<&str>) -> Result<()> {
    ensure!(is_root()?, "the tests attach programs to cgroups: run them as root");
    let ([object, debug], suites) = setup::for_tests_beside(|| {
        let objects = [ebpf::build()?, ebpf::build_debug()?];
        run(cargo().args(["test", "--workspace", "--locked", "--no-run"]))?;
        Ok((objects, suites()?))
    })?;
    let environment = [("ENFORCER_BPF_OBJECT", object), ("ENFORCER_BPF_DEBUG_OBJECT", debug)];
    // A run takes long: it tells all that fails.
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--exclude", SUITES, "--locked", "--no-fail-fast"]);
    tests.args(filter).envs(environment.clone());
    let failed_alone = run(&mut tests).err().map(|error| format!("{error:#}"));
    let rows = rows(suites, filter.is_some());
    let failed: Vec<String> = failed_alone.into_iter().chain(beside(&rows, filter, &environment)).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

/// A suite, and the words that say which of its tests are run.
struct Row {
    name: String,
    binary: PathBuf,
    words: &'static [&'static str],
}

/// The suites by name, with their binaries. They are those of the whole workspace: for a package
/// alone its dependencies have other features, and it would be built once more.
pub fn suites() -> Result<BTreeMap<String, PathBuf>> {
    let out = cargo()
        .args(["test", "--workspace", "--locked", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(out.status.success(), "the suites do not build");
    let text = String::from_utf8_lossy(&out.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let suites: BTreeMap<String, PathBuf> = messages
        .filter(|message| message["profile"]["test"] == true && of_suites(&message["package_id"]))
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect();
    for (name, _) in FIRST {
        ensure!(suites.contains_key(*name), "there is no suite `{name}`");
    }
    Ok(suites)
}

/// Whether this names the package, as in `path+file:///FOLDER#NAME@VERSION`.
fn of_suites(package: &serde_json::Value) -> bool {
    let name = package.as_str().and_then(|id| id.rsplit_once('#')).map(|(_, name)| name);
    name.is_some_and(|name| name.split('@').next() == Some(SUITES))
}

/// The suites in the order in which they begin; `whole` leaves none in parts.
fn rows(mut suites: BTreeMap<String, PathBuf>, whole: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if !whole {
        for (name, words) in FIRST {
            let binary = suites[*name].clone();
            rows.push(Row { name: (*name).to_owned(), binary, words });
        }
        suites.retain(|name, _| FIRST.iter().all(|(first, _)| first != name));
    }
    rows.extend(suites.into_iter().map(|(name, binary)| Row { name, binary, words: &[] }));
    rows
}

/// Runs the suites, some at a time, and names those that failed. Each line begins with its suite.
fn beside(rows: &[Row], filter: Option<&str>, environment: &[(&str, PathBuf)]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = one(row, filter, environment) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(format!("{} ({error:#})", row.name));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one suite to its end.
fn one(row: &Row, filter: Option<&str>, environment: &[(&str, PathBuf)]) -> Result<()> {
    let Row { name, binary, words } = row;
    let started = Instant::now();
    let mut suite = Command::new("sh")
        // In one stream, so that what a test says stands where it was said.
        .args(["-c", r#"exec "$0" "$@" 2>&1"#])
        .arg(binary)
        .args(*words)
        .args(filter)
        .current_dir(root().join("tests"))
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let mut lines = BufReader::new(suite.stdout.take().context("no output")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        print!("{name} | {}", String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = suite.wait()?;
    println!("{name} | {} s", started.elapsed().as_secs());
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Sets up, builds and runs the demonstration.
pub fn demo() -> Result<()> {
    ensure!(is_root()?, "the demonstration attaches programs to a cgroup: run it as root");
    setup::with_clients()?;
    let object = ebpf::build()?;
    run(Command::new("cargo").current_dir(root()).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "enforcer",
        "--package",
        "enforcer-tests",
        "--bins",
    ]))?;
    run(Command::new(root().join("target/debug/enforcer-demo")).env("ENFORCER_BPF_OBJECT", object))
}

/// Whether this runs as root.
pub fn is_root() -> Result<bool> {
    let out = Command::new("id").arg("-u").output()?;
    Ok(out.stdout.trim_ascii() == b"0")
}
