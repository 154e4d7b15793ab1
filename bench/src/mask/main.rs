//! Measures the masking engine beside other ways to do the same: `cargo xtask bench --only mask`.
//!
//! One thread and its own CPU time, so that what the machine does meanwhile matters little.
//! `enforcer-mask-bench loop --kind llm --seconds 10` is one engine on one text, for a profiler.
#![allow(clippy::cast_precision_loss, reason = "bytes and nanoseconds that are far below 2^52")]

mod bodies;
mod clock;
mod corpus;
mod engines;
mod keywords;
#[path = "../machine.rs"]
#[expect(dead_code, reason = "shared with the other program")]
mod machine;
mod report;
mod speed;
mod texts;
mod tokens;

use clap::{Parser, Subcommand};

/// What the memory of streams and bodies is measured by.
#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

#[derive(Parser)]
#[command(name = "enforcer-mask-bench", about = "Measures the masking engine")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Everything, as tables
    Suite(report::Args),
    /// False positives on files of packages
    Corpus(corpus::Args),
    /// One engine on one text for some seconds, for a profiler
    Loop(speed::LoopArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().part {
        Part::Suite(args) => report::run(&args),
        Part::Corpus(args) => corpus::run(&args),
        Part::Loop(args) => speed::profiled(&args),
    }
}
