//! Medians, ratios, goals: a table for people and JSON for programs.

mod detail;
mod goals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::process::scheduling;
use super::run::{FOREIGN, Sample};
use super::scenario::{Metric, Scenario};
use super::{Target, peers};
use enforcer_tests::llm::first_token;

use crate::kernel::KernelCost;
use crate::{machine, stats};

/// Above this (max - min) / median a row is marked.
const SPREAD: f64 = 0.25;

/// One run.
#[derive(Debug, Serialize)]
struct Row {
    repetition: usize,
    scenario: &'static str,
    target: &'static str,
    values: BTreeMap<&'static str, f64>,
    foreign: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A target that was not measured.
#[derive(Debug, Serialize)]
struct LeftOut {
    name: String,
    reason: String,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Results {
    machine: String,
    date: String,
    versions: BTreeMap<&'static str, String>,
    scheduling: &'static str,
    quick: bool,
    targets: Vec<&'static str>,
    left_out: Vec<LeftOut>,
    rows: Vec<Row>,
    /// What the programs cost in the kernel, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelCost>,
    /// How soon the answers of a model begin, if that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_token: Vec<first_token::Row>,
}

/// The runs of one target in one scenario, taken together.
#[derive(Debug, Serialize)]
struct Summary {
    scenario: &'static str,
    target: &'static str,
    metric: &'static str,
    #[serde(flatten)]
    cell: Cell,
    over_direct: Option<f64>,
}

/// What stands in the file.
#[derive(Serialize)]
struct File<'a> {
    summary: Vec<Summary>,
    #[serde(flatten)]
    results: &'a Results,
}

/// A number with how much to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cell {
    median: f64,
    min: f64,
    max: f64,
    spread: f64,
    foreign: f64,
}

impl Results {
    pub fn new(quick: bool, targets: &[Target], enforcer: &Path) -> Self {
        Self {
            machine: machine::describe(),
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d"])),
            versions: targets.iter().filter_map(|target| version(target, enforcer)).collect(),
            scheduling: scheduling(),
            quick,
            targets: targets.iter().map(Target::name).collect(),
            left_out: Vec::new(),
            rows: Vec::new(),
            kernel: None,
            first_token: Vec::new(),
        }
    }

    /// Takes a target out of what is measured.
    pub fn leave_out(&mut self, name: &str, reason: &str) {
        eprintln!("bench: {name} is left out: {reason}");
        self.left_out.push(LeftOut { name: name.to_owned(), reason: reason.to_owned() });
    }

    pub fn is_left_out(&self, name: &str) -> bool {
        self.left_out.iter().any(|it| it.name == name)
    }

    pub fn add(&mut self, repetition: usize, scenario: &Scenario, target: &Target, done: Result<Sample>) {
        let (scenario, target) = (scenario.key, target.name());
        let (values, foreign, error) = match done {
            Ok(sample) => (sample.values, sample.foreign, None),
            Err(error) => (BTreeMap::new(), 0.0, format!("{error:#}").lines().next().map(str::to_owned)),
        };
        match &error {
            None => eprintln!("{repetition} {scenario:14} {target:15} {values:?} foreign {foreign:.3}"),
            Some(error) => eprintln!("{repetition} {scenario:14} {target:15} failed: {error}"),
        }
        self.rows.push(Row { repetition, scenario, target, values, foreign, error });
    }

    pub fn has(&self, target: &str) -> bool {
        self.rows.iter().any(|row| row.target == target && !row.values.is_empty())
    }

    pub fn write(&self, path: &Path, scenarios: &[Scenario]) -> Result<()> {
        let mut summary = Vec::new();
        for (scenario, metric) in each(scenarios) {
            for target in &self.targets {
                let Some(cell) = self.shown(scenario, target, &metric) else { continue };
                let over_direct =
                    self.ratio(scenario, target, "direct", &metric).filter(|_| metric.has_ratio());
                summary.push(Summary {
                    scenario: scenario.key,
                    target,
                    metric: metric.key,
                    cell,
                    over_direct,
                });
            }
        }
        let text = serde_json::to_string_pretty(&File { summary, results: self })?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    fn value(&self, repetition: usize, scenario: &str, target: &str, key: &str) -> Option<f64> {
        let found =
            |row: &&Row| row.repetition == repetition && row.scenario == scenario && row.target == target;
        self.rows.iter().find(found)?.values.get(key).copied()
    }

    fn cell(&self, scenario: &str, target: &str, metric: &Metric) -> Option<Cell> {
        let rows: Vec<&Row> =
            self.rows.iter().filter(|row| row.scenario == scenario && row.target == target).collect();
        let values: Vec<f64> = rows
            .iter()
            .filter_map(|row| {
                let value = *row.values.get(metric.key)?;
                let base = if metric.added && target != "direct" {
                    self.value(row.repetition, scenario, "direct", metric.key)?
                } else {
                    0.0
                };
                Some(value - base)
            })
            .collect();
        let foreign = rows.iter().map(|row| row.foreign).fold(0.0, f64::max);
        let (min, max) = stats::range(&values)?;
        Some(Cell { median: stats::median(&values)?, min, max, spread: stats::spread(&values), foreign })
    }

    /// The same, but for what says nothing of direct.
    fn shown(&self, scenario: &Scenario, target: &str, metric: &Metric) -> Option<Cell> {
        self.cell(scenario.key, target, metric).filter(|_| target != "direct" || metric.of_direct)
    }

    fn ratio(&self, scenario: &Scenario, one: &str, other: &str, metric: &Metric) -> Option<f64> {
        let median = |target| self.shown(scenario, target, metric).map(|cell| cell.median);
        stats::ratio(median(one), median(other))
    }
}

impl Cell {
    fn text(self, decimals: usize) -> String {
        let mut text = grouped(self.median, decimals);
        if self.spread > SPREAD {
            text.push('~');
        }
        if self.foreign > FOREIGN {
            text.push('!');
        }
        text
    }
}

/// With a comma between thousands.
pub fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{out}{rest}")
}

/// The report in Markdown.
pub fn table(results: &Results, scenarios: &[Scenario]) -> String {
    let mut out = String::new();
    let versions: Vec<String> =
        results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    line(&mut out, &format!("{}, {}; {}.", results.date, results.machine, versions.join(", ")));
    if !scenarios.is_empty() {
        of_scenarios(&mut out, results, scenarios);
    }
    if let Some(kernel) = &results.kernel {
        line(&mut out, &kernel.table());
    }
    if !results.first_token.is_empty() {
        line(&mut out, &first_token::table(&results.first_token));
    }
    out
}

fn of_scenarios(out: &mut String, results: &Results, scenarios: &[Scenario]) {
    let repetitions = results.rows.iter().map(|row| row.repetition + 1).max().unwrap_or(0);
    let kind = if results.quick { ", quick" } else { "" };
    let text = format!(
        "The proxy alone on CPU 1, load and upstream on CPU 0, {}; \
         repetitions: {repetitions}{kind}.\nMedians; `~`: (max - min) / median is over {SPREAD}; `!`: others used over \
         {FOREIGN} of the machine meanwhile; `-`: not done, or not at that rate.\nThe enforcer's policy, masking \
         of text and recording are on. Latencies are what is added to direct's; for direct itself the whole.\n",
        results.scheduling
    );
    line(out, &text);
    medians(out, results, scenarios);
    ratios(out, results, scenarios);
    goals::table(out, results, scenarios);
    missing(out, results);
    detail::tables(out, results, scenarios);
}

/// The release of what is measured.
fn version(target: &Target, enforcer: &Path) -> Option<(&'static str, String)> {
    match target {
        Target::Enforcer { fsync: false } => {
            let text = said(Command::new(enforcer).arg("--version"));
            Some(("enforcer", text.trim_start_matches("enforcer ").to_owned()))
        }
        Target::Peer { kind, program } => Some((kind.name(), peers::version(*kind, program))),
        _ => None,
    }
}

/// The first line that a command says.
fn said(command: &mut Command) -> String {
    let out = command.output().map(|out| out.stdout).unwrap_or_default();
    String::from_utf8_lossy(&out).lines().next().unwrap_or("unknown").trim().to_owned()
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn head(out: &mut String, first: &str, rest: &[String]) {
    line(out, &format!("| {first} | {} |", rest.join(" | ")));
    line(out, &format!("| --- |{}", " ---: |".repeat(rest.len())));
}

/// Medians of all scenarios.
fn medians(out: &mut String, results: &Results, scenarios: &[Scenario]) {
    head(out, "", &results.targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>());
    for (scenario, metric) in each(scenarios) {
        let mut row = format!("| {}: {} |", scenario.title, metric.title);
        for target in &results.targets {
            let cell = results.shown(scenario, target, &metric);
            let text = cell.map_or_else(|| "-".to_owned(), |cell| cell.text(metric.decimals));
            row.push_str(&format!(" {text} |"));
        }
        line(out, &row);
    }
}

/// The enforcer's medians divided by the others'.
fn ratios(out: &mut String, results: &Results, scenarios: &[Scenario]) {
    let others: Vec<&str> = results.targets.iter().filter(|it| **it != "enforcer").copied().collect();
    line(out, "");
    head(out, "enforcer ÷", &others.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    for (scenario, metric) in each(scenarios) {
        let mut row = format!("| {}: {} |", scenario.title, metric.title);
        for other in &others {
            let ratio = results.ratio(scenario, "enforcer", other, &metric);
            let ratio = ratio.filter(|_| *other != "direct" || metric.has_ratio());
            let text = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            row.push_str(&format!(" {text} |"));
        }
        line(out, &row);
    }
}

/// Whoever is missing, and why.
fn missing(out: &mut String, results: &Results) {
    for LeftOut { name, reason } in &results.left_out {
        line(out, &format!("\n{name} is left out: {reason}"));
    }
    let mut named = BTreeSet::new();
    for row in &results.rows {
        if let Some(error) = row.error.as_ref().filter(|_| named.insert((row.scenario, row.target))) {
            line(out, &format!("\n{} failed in {}: {error}", row.target, row.scenario));
        }
    }
}

fn each(scenarios: &[Scenario]) -> impl Iterator<Item = (&Scenario, Metric)> {
    scenarios.iter().flat_map(|scenario| scenario.metrics.iter().map(move |metric| (scenario, *metric)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::scenario;

    fn sample(key: &'static str, value: f64, foreign: f64) -> Result<Sample> {
        Ok(Sample { values: BTreeMap::from([(key, value)]), foreign })
    }

    fn results() -> (Results, Vec<Scenario>) {
        let targets = [Target::Direct, Target::Enforcer { fsync: false }];
        let scenarios: Vec<Scenario> =
            scenario::all(true, 1.0).into_iter().filter(|it| matches!(it.key, "h1" | "rate")).collect();
        let mut results = Results::new(true, &targets, Path::new("/nonexistent"));
        for (repetition, (direct, own)) in
            [(50_000.0, 30_000.0), (50_000.0, 42_000.0)].into_iter().enumerate()
        {
            results.add(repetition, &scenarios[0], &targets[0], sample("per_s", direct, 0.0));
            results.add(repetition, &scenarios[0], &targets[1], sample("per_s", own, 0.06));
        }
        for (repetition, (direct, own)) in [(70.0, 170.0), (100.0, 210.0)].into_iter().enumerate() {
            results.add(repetition, &scenarios[1], &targets[0], sample("p50_us", direct, 0.0));
            results.add(repetition, &scenarios[1], &targets[1], sample("p50_us", own, 0.0));
        }
        results.leave_out("squid", "why");
        (results, scenarios)
    }

    #[test]
    fn the_table_has_medians_marks_and_what_is_missing() {
        let (results, scenarios) = results();
        let table = table(&results, &scenarios);
        assert!(table.contains(": requests/s | 50,000 | 36,000~! |"), "{table}");
        assert!(table.contains("µs/request | - | - |"), "{table}");
        // What is added is taken within a repetition: 100 and 110.
        assert!(table.contains("added p50, µs | 85~ | 105 |"), "{table}");
        assert!(table.contains("requests/s ÷ direct | ≥ 0.60 | 0.72 | yes |"), "{table}");
        assert!(table.contains("| enforcer | 36,000 [30,000-42,000] | 0.720 | - | 0.06! |"), "{table}");
        assert!(table.contains("\nsquid is left out: why\n"), "{table}");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(-1234.56, 1), "-1,234.6");
        assert_eq!(grouped(999.0, 0), "999");
        assert_eq!(grouped(0.0, 2), "0.00");
    }
}
