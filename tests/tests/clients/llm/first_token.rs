//! How soon an answer begins.

use enforcer_tests::llm::first_token::measure;

/// Times are for `cargo xtask bench`; here it is shown that all that is measured works, and
/// that an answer begins before it has ended.
#[test]
fn an_answer_begins_before_it_has_ended() {
    let rows = measure(&[env!("CARGO_BIN_EXE_enforcer-first-token")], 8).unwrap();
    for row in &rows {
        println!("{row}");
    }
    let paced: Vec<_> = rows.iter().filter(|row| row.kind.ends_with("10 ms")).collect();
    assert!(paced.len() == 2 && paced.iter().all(|row| row.share < 0.5), "{rows:?}");
}
