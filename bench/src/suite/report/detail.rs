//! Each scenario by itself: medians with their range, ratios, and what others did.

use super::{Results, grouped, head, line};
use crate::suite::run::FOREIGN;
use crate::suite::scenario::Scenario;

/// A table for each scenario.
pub fn tables(out: &mut String, results: &Results, scenarios: &[Scenario]) {
    for scenario in scenarios {
        line(out, &format!("\n### {}\n", scenario.title));
        let mut titles = Vec::new();
        for metric in &scenario.metrics {
            titles.push(format!("{} [min-max]", metric.title));
            if metric.has_ratio() {
                titles.push("÷ direct".to_owned());
            }
        }
        titles.push("foreign".to_owned());
        head(out, "", &titles);
        for target in &results.targets {
            if scenario.metrics.iter().any(|metric| results.shown(scenario, target, metric).is_some()) {
                row(out, results, scenario, target);
            }
        }
    }
}

fn row(out: &mut String, results: &Results, scenario: &Scenario, target: &str) {
    let mut text = format!("| {target} |");
    let mut foreign: f64 = 0.0;
    for metric in &scenario.metrics {
        let cell = results.shown(scenario, target, metric);
        foreign = foreign.max(cell.map_or(0.0, |cell| cell.foreign));
        let shown = |value| grouped(value, metric.decimals);
        let words = cell.map_or_else(
            || "-".to_owned(),
            |cell| format!("{} [{}-{}]", shown(cell.median), shown(cell.min), shown(cell.max)),
        );
        text.push_str(&format!(" {words} |"));
        if metric.has_ratio() {
            let ratio = results.ratio(scenario, target, "direct", metric);
            text.push_str(&ratio.map_or_else(|| " - |".to_owned(), |ratio| format!(" {ratio:.3} |")));
        }
    }
    let mark = if foreign > FOREIGN { "!" } else { "" };
    line(out, &format!("{text} {foreign:.2}{mark} |"));
}
