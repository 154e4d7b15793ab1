//! Measures enforcer beside other proxies: `cargo xtask bench`.
//!
//! ```text
//!   CPU 0: lg (load generator), up (upstream)      CPU 1: the proxy alone
//! ```
//! Every run has a fresh upstream and a fresh proxy; proxies are interleaved
//! within each repetition, so that what the machine does meanwhile hits all.

mod kernel;
mod lg;
mod machine;
mod stats;
mod suite;
mod tls;
mod up;

use clap::{Parser, Subcommand};
use enforcer_tests::llm::first_token;

#[derive(Parser)]
#[command(name = "enforcer-bench", about = "Measures enforcer beside other proxies")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// The upstream
    Up(up::Args),
    /// The load generator: one JSON line
    Lg(lg::Args),
    /// Accepts what the cost of the kernel half is measured by
    KernelServe(kernel::ServeArgs),
    /// Accepts what nobody redirects
    KernelOthers,
    /// Connects and talks as asked for
    KernelLoad,
    /// Asks for answers of a model and says how soon they begin, or relays them
    FirstToken {
        /// ask|relay HOST ADDRESS ROOTS
        words: Vec<String>,
    },
    /// All scenarios with all targets
    Suite(suite::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().part {
        Part::Up(args) => up::run(&args),
        Part::Lg(args) => lg::run(args),
        Part::KernelServe(args) => kernel::serve(&args),
        Part::KernelOthers => kernel::others(),
        Part::KernelLoad => kernel::load(),
        Part::FirstToken { words } => first_token::part(&words),
        Part::Suite(args) => suite::run(&args),
    }
}
