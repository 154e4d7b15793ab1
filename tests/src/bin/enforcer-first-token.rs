//! `enforcer-first-token ask|relay HOST ADDRESS ROOTS`: how soon the answers of a model begin.

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    enforcer_tests::llm::first_token::part(&words)
}
