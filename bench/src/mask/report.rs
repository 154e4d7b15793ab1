//! The tables, and what was aimed at.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::bodies::{self, Cost};
use super::engines::{Engine, Engines};
use super::speed::{self, Speeds};
use super::texts::Kind;

#[derive(clap::Args)]
pub struct Args {
    /// How often everything is measured; the best counts
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Where mask.json and mask.md come to stand
    #[arg(long)]
    dir: PathBuf,
    /// Fail if a body costs more than it may
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Results {
    machine: String,
    date: String,
    patterns: usize,
    speeds: Speeds,
    bodies: Vec<Cost>,
}

pub fn run(args: &Args) -> Result<()> {
    let engines = Engines::new()?;
    let (patterns, without) = engines.patterns();
    println!("mask: {patterns} patterns, {without} of them without a keyword");
    let speeds = speed::measure(&engines, args.repetitions)?;
    let bodies = bodies::measure()?;
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("date")?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let results = Results { machine: super::machine::describe(), date, patterns, speeds, bodies };
    std::fs::create_dir_all(&args.dir)?;
    std::fs::write(args.dir.join("mask.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    let table = results.table();
    std::fs::write(args.dir.join("mask.md"), &table)?;
    println!("{table}");
    let over: Vec<&str> = results.bodies.iter().filter(|it| !it.is_within()).map(|it| it.name).collect();
    ensure!(!args.strict || over.is_empty(), "bodies that cost too much: {}", over.join("; "));
    Ok(())
}

impl Cost {
    fn is_within(&self) -> bool {
        self.memory <= bodies::MEMORY && self.milliseconds <= bodies::TIME
    }
}

impl Results {
    fn table(&self) -> String {
        let mut out =
            format!("\n## Masking\n\n{}, {}; {} patterns.\n\n", self.date, self.machine, self.patterns);
        self.speeds(&mut out);
        self.goals(&mut out);
        self.bodies(&mut out);
        out
    }

    fn speeds(&self, out: &mut String) {
        out.push_str("| GB/s (found in 1 MiB) |");
        for kind in Kind::ALL {
            write!(out, " {}, clean | a secret in 4 KiB |", kind.name()).ok();
        }
        out.push_str("\n| --- |");
        out.push_str(&" ---: |".repeat(2 * Kind::ALL.len()));
        for engine in Engine::ALL {
            write!(out, "\n| {} |", engine.name()).ok();
            for kind in Kind::ALL {
                for secrets in [false, true] {
                    match self.speeds.of(engine, kind, secrets) {
                        Some(it) if secrets && engine != Engine::Copy => {
                            write!(out, " {:.3} ({:.0}) |", it.gigabytes, it.found).ok()
                        }
                        Some(it) => write!(out, " {:.3} |", it.gigabytes).ok(),
                        None => write!(out, " - |").ok(),
                    };
                }
            }
        }
        let planted = self.speeds.of(Engine::Ours, Kind::Logs, true).map_or(0.0, |it| it.planted);
        writeln!(out, "\n\nPut in: {planted:.0} secrets in 1 MiB.\n").ok();
    }

    fn goals(&self, out: &mut String) {
        out.push_str("| goal | must | measured | met |\n| --- | ---: | ---: | ---: |\n");
        let of = |engine, kind, secrets| self.speeds.of(engine, kind, secrets).map(|it| it.gigabytes);
        let ours = |kind, secrets| of(Engine::Ours, kind, secrets);
        let over = |engine, kind| Some(ours(kind, false)? / of(engine, kind, false)?);
        let rows = [
            ("LLM JSON, clean, GB/s", 1.0, ours(Kind::Llm, false)),
            ("LLM JSON, a secret in 4 KiB, GB/s", 0.7, ours(Kind::Llm, true)),
            ("source, clean, GB/s", 0.5, ours(Kind::Source, false)),
            ("source, a secret in 4 KiB, GB/s", 0.35, ours(Kind::Source, true)),
            ("LLM JSON ÷ keywords, then patterns", 4.0, over(Engine::Keywords, Kind::Llm)),
            ("source ÷ keywords, then patterns", 2.5, over(Engine::Keywords, Kind::Source)),
            ("LLM JSON, clean ÷ memcpy", 0.05, over(Engine::Copy, Kind::Llm)),
            ("200 exact values, source, GB/s", 1.0, of(Engine::Exact200, Kind::Source, false)),
            ("4,000 exact values, source, GB/s", 1.0, of(Engine::Exact4000, Kind::Source, false)),
            (
                "LLM JSON in 256-byte chunks ÷ in blocks",
                0.6,
                of(Engine::Chunks, Kind::Llm, false).zip(ours(Kind::Llm, false)).map(|(a, b)| a / b),
            ),
        ];
        for (title, must, is) in rows {
            let Some(is) = is else { continue };
            writeln!(out, "| {title} | ≥ {must:.2} | {is:.2} | {} |", yes(is >= must)).ok();
        }
    }

    fn bodies(&self, out: &mut String) {
        let most = self.bodies.iter().map(|it| it.memory).max().unwrap_or(0);
        let kept = self.bodies.iter().map(|it| it.kept).max().unwrap_or(0);
        let slowest = self.bodies.iter().map(|it| it.milliseconds).fold(0.0, f64::max);
        for (title, must, is, met) in [
            ("1 MiB body: memory, KiB", bodies::MEMORY / 1024, most.div_ceil(1024), most <= bodies::MEMORY),
            (
                "stream between chunks: memory, KiB",
                bodies::STREAM / 1024,
                kept.div_ceil(1024),
                kept <= bodies::STREAM,
            ),
        ] {
            writeln!(out, "| {title} | ≤ {must} | {is} | {} |", yes(met)).ok();
        }
        let met = yes(slowest <= bodies::TIME);
        writeln!(out, "| 1 MiB body: CPU time, ms | ≤ {:.0} | {slowest:.0} | {met} |", bodies::TIME).ok();
        out.push_str("\n| body of 1 MiB, or its coded form | ms | KiB at once | KiB kept | out |\n");
        out.push_str("| --- | ---: | ---: | ---: | --- |\n");
        for it in &self.bodies {
            let (memory, kept) = (it.memory.div_ceil(1024), it.kept.div_ceil(1024));
            let name = it.name.replace('|', "\\|");
            writeln!(out, "| `{name}` | {:.1} | {memory} | {kept} | {} |", it.milliseconds, it.outcome).ok();
        }
    }
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(memory: usize, milliseconds: f64) -> Cost {
        Cost { name: "x", memory, kept: 0, milliseconds, outcome: String::new() }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        assert!(cost(bodies::MEMORY, bodies::TIME).is_within());
        assert!(!cost(bodies::MEMORY + 1, 1.0).is_within());
        assert!(!cost(0, bodies::TIME + 0.1).is_within());
    }

    #[test]
    fn goals_are_compared_with_what_was_measured_beside() {
        let mut speeds = Speeds::default();
        for (engine, gigabytes) in [(Engine::Ours, 1.0), (Engine::Keywords, 0.3), (Engine::Copy, 18.0)] {
            speeds.add(engine, Kind::Llm, false, gigabytes);
        }
        let bodies = vec![cost(bodies::MEMORY, 201.0)];
        let results = Results { machine: "m".into(), date: "d".into(), patterns: 3, speeds, bodies };
        let table = results.table();
        assert!(table.contains("| LLM JSON, clean, GB/s | ≥ 1.00 | 1.00 | yes |"), "{table}");
        assert!(table.contains("| LLM JSON ÷ keywords, then patterns | ≥ 4.00 | 3.33 | no |"), "{table}");
        assert!(table.contains("| 1 MiB body: memory, KiB | ≤ 8192 | 8192 | yes |"), "{table}");
        assert!(table.contains("| 1 MiB body: CPU time, ms | ≤ 200 | 201 | no |"), "{table}");
    }
}
