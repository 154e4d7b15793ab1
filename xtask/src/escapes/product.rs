//! The whole product of techniques, levels, states and kernels, for `cargo xtask soak`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Place, date, guest_of, host, results, title};
use crate::run::root;

/// What is kept of it.
fn file() -> PathBuf {
    root().join("target/soak/escapes.rows.json")
}

/// Runs all of it in these places, and says how many attempts there were, how many of
/// them leaked, and whether all came out as they should.
pub fn all(places: &[Place]) -> Result<Value> {
    let mut rows: BTreeMap<String, Value> = match fs::read_to_string(file()) {
        Ok(text) => serde_json::from_str(&text).context("what was run before")?,
        Err(_) => BTreeMap::new(),
    };
    let (mut tried, mut unexpected, mut passed) = (0, 0, true);
    for (column, run) in runs(places) {
        let (text, succeeded) = run()?;
        passed &= succeeded;
        for (key, row) in rows_of(column, &text)? {
            tried += row["tried"].as_u64().unwrap_or_default();
            unexpected += row["unexpected"].as_u64().unwrap_or_default();
            rows.insert(key, row);
        }
        fs::create_dir_all(root().join("target/soak"))?;
        fs::write(file(), serde_json::to_vec_pretty(&rows)?)?;
        super::page::write()?;
    }
    Ok(json!({ "tried": tried, "unexpected": unexpected, "passed": passed && unexpected == 0 }))
}

type Run = Box<dyn Fn() -> Result<(String, bool)>>;

fn runs(places: &[Place]) -> Vec<(&'static str, Run)> {
    let mut all: Vec<(&'static str, Run)> = Vec::new();
    for place in Place::or_all(places) {
        match place {
            Place::Host => all.push(("host", Box::new(|| host("", true)))),
            Place::Old => {
                all.push(("6.1", Box::new(|| guest_of("6.1", false, None))));
                all.push(("6.1-lsm", Box::new(|| guest_of("6.1", true, None))));
            }
            Place::New => {
                all.push(("6.12", Box::new(|| guest_of("6.12", false, None))));
                all.push(("6.12-lsm", Box::new(|| guest_of("6.12", true, None))));
            }
        }
    }
    all
}

/// A row for each state, by column and state.
fn rows_of(column: &str, text: &str) -> Result<Vec<(String, Value)>> {
    let mut states: BTreeMap<String, (String, u64, u64, BTreeMap<String, usize>)> = BTreeMap::new();
    for result in results(text)? {
        let state = result["state"].as_str().context("a result without a state")?;
        let level = result["level"].as_str().context("a result without a level")?;
        let kernel = result["kernel"].as_str().unwrap_or_default().to_owned();
        let row = states.entry(state.to_owned()).or_default();
        let outcomes: Vec<&str> =
            result["outcomes"].as_object().into_iter().flatten().filter_map(|(_, it)| it.as_str()).collect();
        row.0 = kernel;
        row.1 += outcomes.iter().filter(|outcome| **outcome != "-").count() as u64;
        row.2 += result["unexpected"].as_u64().context("a result that does not say what is wrong")?;
        row.3.insert(level.to_owned(), outcomes.iter().filter(|it| **it == "not stopped").count());
    }
    let date = date()?;
    let row = |(state, (kernel, tried, unexpected, open)): (String, (String, u64, u64, _))| {
        let row = json!({
            "kernel": title(column, &kernel), "state": state, "date": date,
            "tried": tried, "unexpected": unexpected, "open": open,
        });
        (format!("{column} {state}"), row)
    };
    Ok(states.into_iter().map(row).collect())
}

/// What stands in ESCAPES.md; None if nothing was run here.
pub fn section() -> Result<Option<String>> {
    let Ok(text) = fs::read_to_string(file()) else { return Ok(None) };
    let rows: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    let levels: Vec<&str> = super::page::LEVELS.iter().map(|(level, _, _)| *level).collect();
    let mut text = format!(
        "\n\n| Kernel | State | Date | Attempts | Not as in the table | Not stopped: {} |\n|---|---|---|---:|---:|{}\n",
        levels.join(" | "),
        "---:|".repeat(levels.len())
    );
    for row in rows.values() {
        let word = |key: &str| row[key].as_str().unwrap_or("?").to_owned();
        let open = levels.iter().map(|level| row["open"][level].as_u64());
        let open = open.map(|count| count.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            word("kernel"),
            word("state"),
            word("date"),
            row["tried"],
            row["unexpected"],
            open.collect::<Vec<_>>().join(" | ")
        ));
    }
    Ok(Some(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_by_state() {
        let text = "test a ... escape-results: {\"kernel\":\"6.1\",\"lsm\":true,\"state\":\"down\",\"level\":\
                    \"user\",\"unexpected\":1,\"outcomes\":{\"a\":\"not stopped\",\"b\":\"-\",\"c\":\"n/a: x\"}}\n\
                    escape-results: {\"kernel\":\"6.1\",\"lsm\":true,\"state\":\"down\",\"level\":\"root\",\
                    \"unexpected\":0,\"outcomes\":{\"a\":\"redirected\"}}\nok\n";
        let rows = rows_of("6.1-lsm", text).unwrap();
        assert_eq!(rows.len(), 1);
        let (key, row) = &rows[0];
        assert_eq!((key.as_str(), row["kernel"].as_str()), ("6.1-lsm down", Some("6.1, LSM")));
        assert_eq!((row["tried"].as_u64(), row["unexpected"].as_u64()), (Some(3), Some(1)));
        assert_eq!((row["open"]["user"].as_u64(), row["open"]["root"].as_u64()), (Some(1), Some(0)));
    }
}
