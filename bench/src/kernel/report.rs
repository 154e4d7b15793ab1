//! Medians of all turns, and what was aimed at.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::{Added, ON_PACKETS, Who};
use crate::stats;
use crate::suite::grouped;

/// At most so many nanoseconds in all programs together for a tagged connection.
const TAGGED_CONNECT: f64 = 4_000.0;
/// In the programs on sockets for an untagged connection; its packets are counted by themselves.
const UNTAGGED_CONNECT: f64 = 600.0;
/// For an untagged packet.
const UNTAGGED_PACKET: f64 = 80.0;
/// The program that does nothing with what is sent here.
const RETURNS_AT_ONCE: &str = "ingress";
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What was measured, one value a turn.
#[derive(Debug, Default, Serialize)]
pub struct KernelCost {
    rows: Vec<Row>,
}

/// The values of one number.
#[derive(Debug, Serialize)]
struct Row {
    family: &'static str,
    who: Who,
    what: What,
    values: Vec<f64>,
}

/// What a number is of; nanoseconds, but for the runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A connection and its end, by the clock.
    Connect,
    /// A byte there and back, by the clock.
    Talk,
    /// How much longer one takes in an untagged cgroup than where no program is attached.
    ConnectAdded,
    TalkAdded,
    /// All programs, a connection.
    AllHooks,
    /// The same without what a program that returns at once is counted.
    LessTheCount,
    /// Those on sockets, a connection.
    SocketHooks,
    /// Those on packets, a packet that is sent by either end.
    Packet,
    /// One run of this program, while connections are made.
    Run(String),
    /// How often it runs for a connection.
    Runs(String),
}

/// A median with its quartiles.
struct Cell {
    median: f64,
    low: f64,
    high: f64,
}

impl KernelCost {
    pub fn add_whole(&mut self, family: usize, who: Who, what: &str, each: f64) {
        let what = if what == "talk" { What::Talk } else { What::Connect };
        self.add(family, who, what, each);
    }

    /// Of a turn in which both took their turns.
    pub fn add_difference(&mut self, family: usize, what: &str, added: f64) {
        let what = if what == "talk" { What::TalkAdded } else { What::ConnectAdded };
        self.add(family, Who::Untagged, what, added);
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of milliseconds")]
    pub fn add_connects(&mut self, family: usize, who: Who, added: &Added, count: u32) {
        let count = f64::from(count);
        let (mut all, mut sockets, mut all_runs) = (0.0, 0.0, 0.0);
        for (name, cost) in added.iter().filter(|(_, cost)| cost.runs > 0) {
            let (ns, runs) = (cost.ns as f64, cost.runs as f64);
            all += ns;
            all_runs += runs;
            if !ON_PACKETS.contains(&name.as_str()) {
                sockets += ns;
            }
            self.add(family, who, What::Run(name.clone()), ns / runs);
            self.add(family, who, What::Runs(name.clone()), runs / count);
        }
        self.add(family, who, What::AllHooks, all / count);
        self.add(family, who, What::SocketHooks, sockets / count);
        if let Some(nothing) = added.get(RETURNS_AT_ONCE).filter(|cost| cost.runs > 0) {
            let counted = all_runs * nothing.ns as f64 / nothing.runs as f64;
            self.add(family, who, What::LessTheCount, (all - counted) / count);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of milliseconds")]
    pub fn add_packets(&mut self, family: usize, who: Who, added: &Added) {
        let ns: u64 = ON_PACKETS.iter().filter_map(|name| added.get(*name)).map(|cost| cost.ns).sum();
        let packets = added.get("root_egress").map_or(0, |cost| cost.runs);
        if packets > 0 {
            self.add(family, who, What::Packet, ns as f64 / packets as f64);
        }
    }

    fn add(&mut self, family: usize, who: Who, what: What, value: f64) {
        let family = FAMILIES[family];
        let is_it = |row: &&mut Row| row.family == family && row.who == who && row.what == what;
        match self.rows.iter_mut().find(is_it) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { family, who, what, values: vec![value] }),
        }
    }

    fn cell(&self, family: &str, who: Who, what: &What) -> Option<Cell> {
        let row = self.rows.iter().find(|it| it.family == family && it.who == who && it.what == *what)?;
        let [low, high] = stats::quartiles(&row.values)?;
        Some(Cell { median: stats::median(&row.values)?, low, high })
    }

    /// Everything in Markdown.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "\n### In the kernel\n\n| ns, median [quartiles] | IPv4 | IPv6 |\n| --- | ---: | ---: |\n",
        );
        for (title, who, what) in [
            ("tagged connection: all programs", Who::Tagged, What::AllHooks),
            ("the same, less the kernel's count", Who::Tagged, What::LessTheCount),
            ("tagged connection: programs on sockets", Who::Tagged, What::SocketHooks),
            ("untagged connection: all programs", Who::Untagged, What::AllHooks),
            ("untagged connection: programs on sockets", Who::Untagged, What::SocketHooks),
            ("tagged packet: programs on packets", Who::Tagged, What::Packet),
            ("untagged packet: programs on packets", Who::Untagged, What::Packet),
            ("connect and close, no program attached", Who::Outside, What::Connect),
            ("connect and close, untagged", Who::Untagged, What::Connect),
            ("connect and close, tagged", Who::Tagged, What::Connect),
            ("a byte there and back, no program attached", Who::Outside, What::Talk),
            ("a byte there and back, untagged", Who::Untagged, What::Talk),
            ("a byte there and back, tagged", Who::Tagged, What::Talk),
        ] {
            let cells = FAMILIES.map(|family| self.cell(family, who, &what).map_or("-".to_owned(), text));
            writeln!(out, "| {title} | {} |", cells.join(" | ")).ok();
        }
        self.goals(&mut out);
        self.programs(&mut out);
        out
    }

    fn goals(&self, out: &mut String) {
        out.push_str("\n| goal in the kernel | must | measured | met |\n| --- | ---: | ---: | ---: |\n");
        for family in FAMILIES {
            for (title, who, what, must) in [
                ("tagged connection, all programs, ns", Who::Tagged, What::AllHooks, TAGGED_CONNECT),
                ("untagged connection, ns", Who::Untagged, What::SocketHooks, UNTAGGED_CONNECT),
                ("untagged packet, ns", Who::Untagged, What::Packet, UNTAGGED_PACKET),
            ] {
                let Some(cell) = self.cell(family, who, &what) else { continue };
                let (must_text, is) = (grouped(must, 0), grouped(cell.median, 0));
                writeln!(out, "| {family}: {title} | ≤ {must_text} | {is} | {} |", yes(cell.median <= must))
                    .ok();
            }
            for (title, what) in
                [("connect and close", What::ConnectAdded), ("a byte there and back", What::TalkAdded)]
            {
                let is_it = |row: &&Row| row.family == family && row.who == Who::Untagged && row.what == what;
                let values = self.rows.iter().find(is_it).map_or(&[][..], |row| &row.values);
                let (Some(added), Some([least, most])) =
                    (stats::median(values), stats::median_interval(values))
                else {
                    continue;
                };
                let [added, least_text, most] = [added, least, most].map(|it| grouped(it, 0));
                writeln!(
                    out,
                    "| {family}: untagged {title}, added ns | no difference | {added} [{least_text} to {most}] | {} |",
                    yes(least <= 0.0)
                )
                .ok();
            }
        }
        out.push_str("\nIn brackets: between which the median lies, with 95 % certainty.\n");
    }

    /// Program by program, while connections are made over IPv4.
    fn programs(&self, out: &mut String) {
        out.push_str(
            "\n| program, a connection over IPv4 | tagged: runs | ns a run | ns | untagged: runs | ns a run | ns |\n",
        );
        out.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        let mut names: BTreeMap<&str, ()> = BTreeMap::new();
        for row in &self.rows {
            if let What::Run(name) = &row.what {
                names.insert(name, ());
            }
        }
        for name in names.keys() {
            let of = |who, what: &What, decimals| {
                self.cell(FAMILIES[0], who, what)
                    .map_or("-".to_owned(), |cell| grouped(cell.median, decimals))
            };
            let mut row = format!("| {name} |");
            for who in [Who::Tagged, Who::Untagged] {
                let (runs, run) = (What::Runs((*name).to_owned()), What::Run((*name).to_owned()));
                let value = |what| self.cell(FAMILIES[0], who, what).map(|cell| cell.median);
                let all = value(&runs).zip(value(&run)).map(|(runs, run)| grouped(runs * run, 0));
                let all = all.unwrap_or_else(|| "-".to_owned());
                write!(row, " {} | {} | {all} |", of(who, &runs, 1), of(who, &run, 0)).ok();
            }
            writeln!(out, "{row}").ok();
        }
        out.push_str("\nThe kernel's count is in all of it, about as much as `ingress` on loopback, which returns at once.\n");
    }
}

fn text(cell: Cell) -> String {
    format!("{} [{}-{}]", grouped(cell.median, 0), grouped(cell.low, 0), grouped(cell.high, 0))
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use enforcer_tests::bpf::Cost;

    use super::*;

    fn added(costs: &[(&str, u64, u64)]) -> Added {
        let cost = |(name, runs, ns): &(&str, u64, u64)| {
            ((*name).to_owned(), Cost { name: (*name).to_owned(), runs: *runs, ns: *ns })
        };
        costs.iter().map(cost).collect()
    }

    #[test]
    fn packets_are_no_part_of_an_untagged_connection_and_all_of_a_tagged_one() {
        let mut cost = KernelCost::default();
        for _ in 0..3 {
            cost.add_connects(
                0,
                Who::Untagged,
                &added(&[("connect4", 10, 6_000), ("root_egress", 40, 2_400)]),
                10,
            );
            cost.add_connects(
                0,
                Who::Tagged,
                &added(&[("connect4", 10, 20_000), ("egress", 40, 20_010)]),
                10,
            );
            cost.add_packets(0, Who::Untagged, &added(&[("root_egress", 40, 3_240), ("egress", 0, 0)]));
        }
        for added in [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
            cost.add_difference(0, "connect", added);
            cost.add_difference(0, "talk", added + 2.0);
        }
        let table = cost.table();
        assert!(table.contains("| IPv4: untagged connection, ns | ≤ 600 | 600 | yes |"), "{table}");
        assert!(
            table.contains("| IPv4: tagged connection, all programs, ns | ≤ 4,000 | 4,001 | no |"),
            "{table}"
        );
        assert!(table.contains("| IPv4: untagged packet, ns | ≤ 80 | 81 | no |"), "{table}");
        assert!(
            table.contains("connect and close, added ns | no difference | 4 [-1 to 6] | yes |"),
            "{table}"
        );
        assert!(
            table.contains("a byte there and back, added ns | no difference | 6 [1 to 8] | no |"),
            "{table}"
        );
        assert!(table.contains("| connect4 | 1.0 | 2,000 | 2,000 | 1.0 | 600 | 600 |"), "{table}");
    }
}
