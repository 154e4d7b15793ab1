//! Results for whoever writes them down, and what was written down before.

use std::collections::BTreeMap;

use crate::arena::State;
use crate::outcome::Level;

/// The line that `cargo xtask escapes` looks for begins so.
const RESULT: &str = "escape-results: ";
/// As it was when this was built: in a virtual machine there are no other files.
const TABLE: &str = include_str!("../../../ESCAPES.md");
const README: &str = include_str!("../../../README.md");
/// The first column is that of the machine on which the table was made.
const HOST: &str = " (host)";

/// The series of this kernel: `6.1`.
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Whether this is a machine of the suite's own.
pub fn is_guest() -> bool {
    std::env::var_os("ENFORCER_TEST_ATTACH").is_some()
}

/// Without what a table cannot hold.
pub fn plain(said: &str) -> String {
    let text = said.trim().trim_start_matches("error ");
    let text = text.split(" (os error").next().unwrap_or_default();
    text.replace('|', "/").chars().take(60).collect()
}

pub fn print(
    state: State,
    level: Level,
    kernel: &str,
    lsm: bool,
    unexpected: usize,
    results: &BTreeMap<&'static str, String>,
) {
    let state = format!("{state:?}").to_lowercase();
    let line = serde_json::json!({
        "kernel": kernel, "lsm": lsm, "state": state, "level": level.name(),
        "unexpected": unexpected, "outcomes": results,
    });
    println!("{RESULT}{line}");
}

/// Holds this kernel's column of the committed table to what was seen, unless it is about
/// to be written again.
pub fn compare(level: Level, lsm: bool, results: &BTreeMap<&'static str, String>) {
    if std::env::var_os("ENFORCER_WRITE_TABLE").is_some() {
        return;
    }
    let begin = format!("<!-- {}: begin -->", level.name());
    let end = format!("<!-- {}: end -->", level.name());
    let (_, rest) = TABLE.split_once(&begin).expect("ESCAPES.md has a table for each level");
    let (table, _) = rest.split_once(&end).expect("and its end");
    let mut rows = table.lines().filter(|line| line.starts_with("| ")).map(cells);
    let heads = rows.next().expect("a table has a head");
    let own = match (is_guest(), lsm) {
        (false, _) => HOST.to_owned(),
        (true, false) => kernel(),
        (true, true) => format!("{}, LSM", kernel()),
    };
    let is_own = |head: &str| if own == HOST { head.ends_with(HOST) } else { head == own };
    let column = heads.iter().position(|head| is_own(head));
    let column = column.unwrap_or_else(|| panic!("ESCAPES.md has no column {own}: `cargo xtask escapes`"));
    let committed: BTreeMap<&str, &str> =
        rows.map(|cells| (cells[0].trim_matches('`'), outcome(cells[column]))).collect();
    let seen: BTreeMap<&str, &str> = results.iter().map(|(name, text)| (*name, outcome(text))).collect();
    assert_eq!(committed, seen, "ESCAPES.md is old: make it again by `cargo xtask escapes`");
    let begin = format!("- {}: ", level.heading());
    let line = README.lines().find_map(|line| line.strip_prefix(&begin)).expect("the README has each level");
    for (name, outcome) in seen {
        let said = line.contains(&format!("`{name}`"));
        assert!(said || outcome != "not stopped", "the README does not say that {name} is not stopped");
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// Without what root was told where nobody gets out.
fn outcome(cell: &str) -> &str {
    cell.split(':').next().unwrap_or(cell)
}
