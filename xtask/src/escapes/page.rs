//! What ESCAPES.md and the README say, made of the results of runs.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{COLUMNS, file, title};
use crate::run::root;

/// Each level with its heading.
pub const LEVELS: &[(&str, &str, &str)] = &[
    (
        "user",
        "An unprivileged user",
        "uid 65534 without capabilities, with `no_new_privs`, in a tagged cgroup: what an agent is that \
         something else than `enforcer run` started, on a host without any setting.",
    ),
    (
        "launched",
        "An unprivileged user in `enforcer run`",
        "The same, started by `enforcer run`, on a host with the settings that `enforcer doctor` asks for \
         (sockets of daemons hidden, `kernel.yama.ptrace_scope` not 0).\n\n\
         What no setting closes: abstract sockets of outsiders where there is neither the tier `lsm` nor \
         Linux 6.12; `enforcer doctor` lists them (`abstract-sockets`). And Unix sockets of daemons that \
         doctor does not know: it looks at those that it lists in docs/doctor.md.",
    ),
    (
        "unit",
        "An unprivileged user in a unit, with the settings",
        "A user of its own in a unit of systemd that is a scope, with the drop-in that `enforcer scope \
         harden --own-network` writes, applied line by line, and the settings that `enforcer doctor` asks \
         for. What was connected when it came under the tag is closed (SOCK_DESTROY).\n\n\
         What no setting closes: what a process sends by a connection that it brings into a scope, until \
         the service looks, twice a second. And, without the tier `lsm`, Unix sockets of daemons at other \
         paths than those that the drop-in hides.",
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
         network namespace of its own, in a scope: what was connected before is closed.",
    ),
    ("root", "Root of the host", "All capabilities, in a tagged cgroup: can be detected, not promised."),
];

/// The results of one run of the battery.
pub struct Column {
    pub name: &'static str,
    title: String,
    results: Value,
}

impl Column {
    fn outcomes(&self, level: &str) -> impl Iterator<Item = (&String, &str)> {
        let all = self.results["levels"][level].as_object().into_iter().flatten();
        all.map(|(name, outcome)| (name, outcome.as_str().unwrap_or("?")))
    }
}

/// What was run, in order.
pub fn columns() -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in COLUMNS {
        let Ok(text) = fs::read(file(name)) else { continue };
        let results: Value = serde_json::from_slice(&text)?;
        let title = title(name, results["kernel"].as_str().unwrap_or_default());
        columns.push(Column { name, title, results });
    }
    ensure!(columns.first().is_some_and(|it| it.name == "host"), "run it with `--on host` first");
    Ok(columns)
}

/// Writes ESCAPES.md, and what is not stopped into the README.
pub fn write() -> Result<()> {
    let columns = columns()?;
    let path = root().join("ESCAPES.md");
    let soak = match super::product::section()? {
        Some(section) => section,
        // That of an earlier run, by whoever made it.
        None => between(&fs::read_to_string(&path).unwrap_or_default(), SOAK).unwrap_or_default(),
    };
    fs::write(&path, render(&columns, &soak)?)?;
    println!("wrote {}", path.display());
    let path = root().join("README.md");
    let text = fs::read_to_string(&path)?;
    let old = between(&text, PLACE).context("the README has no place for what is not stopped")?;
    let lines: Vec<String> = LEVELS
        .iter()
        .map(|(level, heading, _)| format!("- {heading}: {}\n", open(&columns, level)))
        .collect();
    let new = format!("\n\n{}\n", lines.concat());
    fs::write(&path, text.replacen(&format!("{}{old}", begin(PLACE)), &format!("{}{new}", begin(PLACE)), 1))?;
    Ok(())
}

const PLACE: &str = "escapes";
const SOAK: &str = "soak";

fn begin(place: &str) -> String {
    format!("<!-- {place}: begin -->")
}

fn end(place: &str) -> String {
    format!("<!-- {place}: end -->")
}

fn between(text: &str, place: &str) -> Option<String> {
    let (_, rest) = text.split_once(&begin(place))?;
    Some(rest.split_once(&end(place))?.0.to_owned())
}

fn render(columns: &[Column], soak: &str) -> Result<String> {
    let mut text = INTRODUCTION.to_owned();
    for column in columns {
        let date = column.results["date"].as_str().unwrap_or_default();
        text.push_str(&format!("- {}: {date}\n", column.title));
    }
    let soak = if soak.is_empty() { "\n\nNot run yet.\n\n" } else { soak };
    text.push_str(&format!("\n## The whole product\n\n{PRODUCT}\n\n{}{soak}{}\n", begin(SOAK), end(SOAK)));
    for (level, heading, what) in LEVELS {
        let heads: Vec<&str> = columns.iter().map(|it| it.title.as_str()).collect();
        text.push_str(&format!("\n## {heading}\n\n{what}\n\n"));
        text.push_str(&format!("Not stopped: {}\n\n{}\n\n", open(columns, level), begin(level)));
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
        text.push_str(&format!("\n{}\n", end(level)));
    }
    Ok(text)
}

/// What is not stopped at this level, and where.
fn open(columns: &[Column], level: &str) -> String {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for column in columns {
        for (name, _) in column.outcomes(level).filter(|(_, outcome)| *outcome == "not stopped") {
            found.entry(name).or_default().push(column.name);
        }
    }
    let all: Vec<&str> = columns.iter().map(|it| it.name).collect();
    let plain: Vec<&str> = all.iter().copied().filter(|name| !name.ends_with("-lsm")).collect();
    let of = |places: &[&str]| {
        let names = found.iter().filter(|(_, found)| *found == places);
        names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    let everywhere = of(&all);
    if !everywhere.is_empty() {
        parts.push(everywhere);
    }
    if all != plain && !of(&plain).is_empty() {
        parts.push(format!("without LSM {}", of(&plain)));
    }
    let rest: BTreeMap<&Vec<&str>, ()> =
        found.values().filter(|places| **places != all && **places != plain).map(|it| (it, ())).collect();
    for places in rest.keys() {
        let titles = columns.iter().filter(|it| places.contains(&it.name)).map(|it| it.title.as_str());
        let titles = titles.collect::<Vec<_>>().join(" and ");
        let without = if places.iter().all(|name| plain.contains(name)) { " without LSM" } else { "" };
        parts.push(format!("on {titles}{without} {}", of(places)));
    }
    if parts.is_empty() { "nothing.".to_owned() } else { parts.join("; ") + "." }
}

const PRODUCT: &str = "Each technique at each level in each state, by `cargo xtask soak --only escapes`. The \
                       fourth state, policy in audit mode, is no state of the kernel half: \
                       `tests/tests/service/audit.rs` holds its programs and maps to be the same to the byte. While \
                       loaders replace each other, techniques that damage programs are not tried: the next loader \
                       repairs what they do. `-`: not run.";

const INTRODUCTION: &str = "# Ways out, and what comes of them

Made by `cargo xtask escapes`; do not edit. Each technique is tried by a process in a tagged
cgroup, and by an untagged one of the same privileges. A sniffer at the far end of a cable, in
another network namespace, is the judge: not what the process was told. The programs of the
techniques are in `tests/src/bin/enforcer-probe`, what is expected of each in
`tests/tests/escapes/table`; the test of that name holds each column to what it sees there.

- redirected: it reaches the proxy, which is told where it wanted to go and who it is
- refused (hook): refused by a program of the enforcer, in the call or by dropping the packet;
  an untagged process gets out by it
- refused (rights): an untagged process of this level cannot either
- reaches only the proxy: it is about the enforcer's own port, and gets nothing there
- closed at tagging: a connection from before, which the service has closed
- not stopped: the peer got it
- n/a: nobody gets out by it on this kernel, with what root was told
- -: it makes no sense at this level

LSM is the second tier of programs; it runs on Debian's kernels, and not on the host's. Other
states (the proxy is dead, loaders adopt each other's programs without end) have to give the
same, but that what is redirected is refused while no proxy is there.

";
