//! Results for whoever writes them down, and what was written down before.

use std::collections::BTreeMap;
use std::path::Path;

use crate::arena::State;
use crate::outcome::Level;

/// The line that `cargo xtask escapes` looks for begins so.
const RESULT: &str = "escape-results: ";
/// The column of the machine on which the table was made, after the technique's name.
const HOST_COLUMN: usize = 2;

/// The series of this kernel: `6.1`.
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Without what a table cannot hold.
pub fn plain(said: &str) -> String {
    let text = said.trim().trim_start_matches("error ");
    let text = text.split(" (os error").next().unwrap_or_default();
    text.replace('|', "/").chars().take(60).collect()
}

pub fn print(state: State, level: Level, kernel: &str, lsm: bool, results: &BTreeMap<&'static str, String>) {
    let state = format!("{state:?}").to_lowercase();
    let line = serde_json::json!({
        "kernel": kernel, "lsm": lsm, "state": state, "level": level.name(), "outcomes": results,
    });
    println!("{RESULT}{line}");
}

/// Holds the host's column of the committed table to what was seen, unless it is about
/// to be written again, or this is another machine (`ENFORCER_TEST_ATTACH`).
pub fn compare(level: Level, results: &BTreeMap<&'static str, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ESCAPES.md");
    if std::env::var_os("ENFORCER_WRITE_TABLE").is_some()
        || std::env::var_os("ENFORCER_TEST_ATTACH").is_some()
    {
        return;
    }
    let text = std::fs::read_to_string(&path).expect("ESCAPES.md: make it by `cargo xtask escapes`");
    let begin = format!("<!-- {}: begin -->", level.name());
    let end = format!("<!-- {}: end -->", level.name());
    let (_, rest) = text.split_once(&begin).expect("ESCAPES.md has a table for each level");
    let (table, _) = rest.split_once(&end).expect("and its end");
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name, (*cells.get(HOST_COLUMN)?).to_owned()))
    });
    let committed: BTreeMap<&str, String> = rows.collect();
    assert_eq!(&committed, results, "ESCAPES.md is old: make it again by `cargo xtask escapes`");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let begin = format!("- {}: ", level.heading());
    let line = readme.lines().find_map(|line| line.strip_prefix(&begin)).expect("the README has each level");
    for (name, outcome) in results {
        let said = line.contains(&format!("`{name}`"));
        assert!(said || outcome != "not stopped", "the README does not say that {name} is not stopped");
    }
}
