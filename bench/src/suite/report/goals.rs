//! What is aimed at, and what was measured.

use super::{Results, each, grouped, head, line};
use crate::stats;
use crate::suite::scenario::Scenario;

/// A metric of the enforcer, alone or divided by another's.
struct Goal {
    scenario: &'static str,
    key: &'static str,
    over: Option<&'static str>,
    /// Whether more is better.
    more: bool,
    must: f64,
}

const fn goal(
    scenario: &'static str,
    key: &'static str,
    over: Option<&'static str>,
    more: bool,
    must: f64,
) -> Goal {
    Goal { scenario, key, over, more, must }
}

const GOALS: &[Goal] = &[
    goal("h1", "per_s", Some("direct"), true, 0.60),
    goal("h1", "per_s", Some("haproxy"), true, 0.95),
    goal("h1", "per_s", Some("squid"), true, 3.0),
    goal("h1", "per_s", Some("mitmproxy"), true, 60.0),
    goal("h1", "cpu_us", None, false, 27.0),
    goal("h2", "per_s", Some("direct"), true, 0.65),
    goal("h2", "cpu_us", None, false, 12.0),
    goal("connect-reuse", "cpu_us", None, false, 290.0),
    goal("connect-fresh", "cpu_us", None, false, 600.0),
    goal("connect-fresh", "cpu_us", Some("haproxy"), false, 1.0 / 1.8),
    goal("download", "mb_s", Some("direct"), true, 0.50),
    goal("download", "ns_byte", None, false, 1.45),
    goal("download-text", "ns_byte", None, false, 4.0),
    goal("download-text", "mb_s", Some("squid"), true, 1.1),
    goal("rate", "p50_us", Some("nginx"), false, 1.2),
    goal("rate", "p99_us", Some("nginx"), false, 1.5),
    goal("sse", "p50_us", Some("nginx"), false, 2.0),
    goal("sse", "p99_us", Some("nginx"), false, 2.0),
    goal("idle", "idle_kib", None, false, 32.0),
];

/// A table of the goals that could be looked at.
pub fn table(out: &mut String, results: &Results, scenarios: &[Scenario]) {
    line(out, "");
    head(out, "goal", &["must".to_owned(), "measured".to_owned(), "met".to_owned()]);
    for goal in GOALS {
        let found = each(scenarios)
            .find(|(scenario, metric)| scenario.key == goal.scenario && metric.key == goal.key);
        let Some((scenario, metric)) = found else { continue };
        let median = |target: &str| results.cell(scenario.key, target, &metric).map(|cell| cell.median);
        let own = median("enforcer");
        let measured = match goal.over {
            Some(other) => stats::ratio(own, median(other)),
            None => own,
        };
        let Some(measured) = measured else { continue };
        let over = goal.over.map(|other| format!(" ÷ {other}")).unwrap_or_default();
        let sign = if goal.more { "≥" } else { "≤" };
        let met = if is_met(goal.more, goal.must, measured) { "yes" } else { "no" };
        line(
            out,
            &format!(
                "| {}: {}{over} | {sign} {} | {} | {met} |",
                scenario.title,
                metric.title,
                number(goal.must),
                number(measured)
            ),
        );
    }
}

fn is_met(more: bool, must: f64, measured: f64) -> bool {
    if more { measured >= must } else { measured <= must }
}

fn number(value: f64) -> String {
    grouped(value, if value.abs() < 10.0 { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::is_met;

    #[test]
    fn a_goal_is_met_at_its_limit() {
        assert!(is_met(true, 0.6, 0.6) && !is_met(true, 0.6, 0.59));
        assert!(is_met(false, 27.0, 27.0) && !is_met(false, 27.0, 27.1));
    }
}
