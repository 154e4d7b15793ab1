//! What holds for any input, each a function of bytes that panics where it does not: the targets
//! in `fuzz/` give them to libFuzzer, and the suite `masking` such bytes as are made by a seed.
#![allow(clippy::unwrap_used, reason = "who finds an input that does not hold has to see it")]

mod coding;
mod llm;
mod masker;

use bytes::Bytes;

use crate::chance::Chance;

pub use coding::{what_is_coded_is_read_again, what_is_decoded_is_the_same_for_any_cut};
pub use llm::{any_bytes_as_a_stream_are_the_same_for_any_cut, the_text_of_a_model_is_the_same_for_any_cut};
pub use masker::{any_cut_is_the_same, no_known_value_comes_out};

/// The input chooses with its first bytes what is done, and the rest is what it is done to.
fn chosen(data: &[u8]) -> (Chance, &[u8]) {
    let (seed, rest) = data.split_first_chunk::<4>().unwrap_or((&[0; 4], data));
    (Chance::seeded(u64::from(u32::from_le_bytes(*seed))), rest)
}

/// Cut anywhere, often into single bytes.
fn cut(bytes: &[u8], chance: &mut Chance) -> Vec<Bytes> {
    let single = chance.one_in(3);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if single { 1 } else { 1 << chance.below(8) };
        let (piece, behind) = rest.split_at(chance.between(1, most).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = behind;
    }
    pieces
}

/// Says what differs so that one can read it.
#[track_caller]
fn same(cut: &[u8], whole: &[u8]) {
    assert_eq!(cut.escape_ascii().to_string(), whole.escape_ascii().to_string(), "cut, and whole");
}
