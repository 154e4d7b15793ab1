//! Content codings.

use bytes::Bytes;
use enforcer::protocol::http::coding::{Coding, CodingError, Decoder, Encoder, STACKED_MAX};

use super::{chosen, cut, same};
use crate::chance::Chance;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];
/// A decoded body.
const DECODED_MAX: u64 = 1 << 22;

fn codings(chance: &mut Chance, most: usize) -> Vec<Coding> {
    (0..chance.between(1, most)).map(|_| chance.pick(&ALL)).collect()
}

fn coded(codings: &[Coding], text: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut encoder = Encoder::new(codings);
    let mut coded = Vec::new();
    for piece in cut(text, chance) {
        coded.extend_from_slice(&encoder.push(piece, chance.one_in(4)).unwrap());
    }
    coded.extend_from_slice(&encoder.finish().unwrap());
    coded
}

fn decoded(codings: &[Coding], chunks: Vec<Bytes>) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(codings, DECODED_MAX)?;
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(piece) = decoder.next()? {
            out.extend_from_slice(&piece);
        }
    }
    decoder.finish();
    while let Some(piece) = decoder.next()? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

/// What the encoder writes, in any codings on top of each other, the decoder reads, however it
/// is cut.
pub fn what_is_coded_is_read_again(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let codings = codings(&mut chance, STACKED_MAX);
    let coded = coded(&codings, text, &mut chance);
    let read = decoded(&codings, cut(&coded, &mut chance));
    same(&read.unwrap_or_else(|error| panic!("{codings:?}: {error}")), text);
}

/// Bytes that are not what they are said to be, or only nearly, are read or refused in the same
/// way however they are cut.
pub fn what_is_decoded_is_the_same_for_any_cut(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let codings = codings(&mut chance, 2);
    let mut body = if chance.one_in(3) { text.to_vec() } else { coded(&codings, text, &mut chance) };
    if !body.is_empty() && chance.one_in(2) {
        let at = chance.below(body.len());
        body[at] ^= 1 << chance.below(8);
    }
    if chance.one_in(4) {
        body.truncate(chance.below(body.len() + 1));
    }
    let whole = decoded(&codings, vec![Bytes::copy_from_slice(&body)]);
    let pieces = decoded(&codings, cut(&body, &mut chance));
    match (&pieces, &whole) {
        (Ok(pieces), Ok(whole)) => same(pieces, whole),
        (Err(_), Err(_)) => {}
        _ => panic!("{codings:?}: cut {pieces:?}, whole {whole:?} of {}", body.escape_ascii()),
    }
}
