//! All tests, with their set-up.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// How many tests of a suite are run again when they failed; more is no accident.
const AGAIN: usize = 5;

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
    let unit = Row { name: "all but the suites".to_owned(), binary: None, words: &[] };
    let mut failed: Vec<Failed> = one(unit, filter.as_slice(), &environment).err().into_iter().collect();
    failed.extend(beside(rows(suites, filter.is_some()), filter.as_slice(), &environment));
    let failed: Vec<String> = failed.into_iter().filter_map(|failed| again(failed, &environment)).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Runs what failed once more, with nothing beside it: a client that has its own idea of how long a
/// second is fails on a machine that is busy with something else. What fails twice is named.
fn again(failed: Failed, environment: &[(&str, PathBuf)]) -> Option<String> {
    let Failed { row, tests, why } = failed;
    if tests.is_empty() || tests.len() > AGAIN {
        return Some(format!("{} ({why})", row.name));
    }
    println!("{} | once more, alone: {}", row.name, tests.join(", "));
    let mut exact = vec!["--exact"];
    exact.extend(tests.iter().map(String::as_str));
    let row = Row { words: &[], ..row };
    match one(row, &exact, environment) {
        Ok(row) => {
            println!("{} | FLAKY, held when run again: {}", row.name, tests.join(", "));
            None
        }
        Err(Failed { row, tests, why }) => Some(format!("{} ({why}: {})", row.name, tests.join(", "))),
    }
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

/// A suite, and the words that say which of its tests are run.
struct Row {
    name: String,
    /// None for all tests of the workspace that are not in suites.
    binary: Option<PathBuf>,
    words: &'static [&'static str],
}

/// A suite that failed.
struct Failed {
    row: Row,
    /// The tests that did; none if it ended before it could say so.
    tests: Vec<String>,
    why: String,
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
            let binary = Some(suites[*name].clone());
            rows.push(Row { name: (*name).to_owned(), binary, words });
        }
        suites.retain(|name, _| FIRST.iter().all(|(first, _)| first != name));
    }
    rows.extend(suites.into_iter().map(|(name, binary)| Row { name, binary: Some(binary), words: &[] }));
    rows
}

/// Runs the suites, some at a time; those that failed.
fn beside(rows: Vec<Row>, filter: &[&str], environment: &[(&str, PathBuf)]) -> Vec<Failed> {
    let rows = Mutex::new(rows.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(row) = held(&rows).next() {
                    if let Err(one) = one(row, filter, environment) {
                        held(&failed).push(one);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one suite to its end. Each line begins with its name.
fn one(row: Row, more: &[&str], environment: &[(&str, PathBuf)]) -> Result<Row, Failed> {
    let started = Instant::now();
    let mut tests = Vec::new();
    let ended = listen(command(&row, more).envs(environment.iter().cloned()), &row.name, &mut tests);
    println!("{} | {} s", row.name, started.elapsed().as_secs());
    match ended {
        Ok(status) if status.success() => Ok(row),
        Ok(status) => Err(Failed { row, tests, why: status.to_string() }),
        Err(error) => Err(Failed { row, tests, why: format!("{error:#}") }),
    }
}

fn command(row: &Row, more: &[&str]) -> Command {
    let mut command = match &row.binary {
        Some(binary) => {
            let mut suite = Command::new("sh");
            // In one stream, so that what a test says stands where it was said.
            suite.args(["-c", r#"exec "$0" "$@" 2>&1"#]).arg(binary);
            suite.current_dir(root().join("tests"));
            suite
        }
        None => {
            let mut all = cargo();
            all.args(["test", "--workspace", "--exclude", SUITES, "--locked", "--no-fail-fast", "--"]);
            all
        }
    };
    command.args(row.words).args(more);
    command
}

/// Runs it, says what it says under this name, and keeps the names of the tests that failed: they
/// stand indented under the last `failures:` of a test binary.
fn listen(command: &mut Command, name: &str, failed: &mut Vec<String>) -> Result<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?);
    let (mut line, mut listed) = (Vec::new(), false);
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{name} | {text}");
        match text.trim_end().strip_prefix("    ") {
            Some(test) if listed => failed.push(test.to_owned()),
            _ => listed = text.trim_end() == "failures:",
        }
        line.clear();
    }
    Ok(child.wait()?)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A suite of this script, which finds in `$D` a folder of its own.
    fn suite(dir: &tempfile::TempDir, script: &str) -> Row {
        let path = dir.path().join("suite");
        let text = format!("#!/bin/sh\nD={}\n{script}", dir.path().display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Row { name: "of a test".to_owned(), binary: Some(path), words: &["--skip", "slow"] }
    }

    const FAILS: &str = "printf 'test a ... ok\\ntest b::c ... FAILED\\n\\nfailures:\\n\\n---- b::c stdout ----\\n    \
                         no name\\n\\n\\nfailures:\\n    b::c\\n\\ntest result: FAILED\\n'; exit 101\n";

    #[test]
    fn what_fails_once_is_run_again_alone_and_what_fails_twice_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let once = format!("echo \"$@\" >> $D/said; [ -e $D/ran ] && exit 0; touch $D/ran; {FAILS}");
        let failed = one(suite(&dir, &once), &[], &[]).err().unwrap();
        assert_eq!(failed.tests, ["b::c"]);
        assert_eq!(again(failed, &[]), None);
        let said = std::fs::read_to_string(dir.path().join("said")).unwrap();
        assert_eq!(said, "--skip slow\n--exact b::c\n");
        let failed = one(suite(&dir, FAILS), &[], &[]).err().unwrap();
        let named = again(failed, &[]).unwrap();
        assert!(named.contains("of a test") && named.contains("101") && named.contains("b::c"), "{named}");

        // One that names no test, or many, is not run again.
        let counts = |fails: &str| {
            let failed = one(suite(&dir, &format!("echo >> $D/runs; {fails}")), &[], &[]).err().unwrap();
            assert!(again(failed, &[]).is_some());
            let runs = std::fs::read_to_string(dir.path().join("runs")).unwrap();
            std::fs::remove_file(dir.path().join("runs")).unwrap();
            runs.lines().count()
        };
        assert_eq!(counts("kill -9 $$"), 1);
        let many = |tests: usize| format!("echo failures:; yes '    a' | head -{tests}; exit 101");
        assert_eq!(counts(&many(AGAIN)), 2);
        assert_eq!(counts(&many(AGAIN + 1)), 1);
    }
}
