//! `enforcer-first-token HOST ADDRESS ROOTS`: how soon the answers of a model begin.

use enforcer_tests::llm::asker::{Place, run};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    run(&Place::parse(&words)?)
}
