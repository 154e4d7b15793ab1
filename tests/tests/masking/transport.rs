//! The ways of a body through the masker.

use bytes::Bytes;
use enforcer::mask::{MaskError, Masker, Place, StreamMasker};
use enforcer::protocol::http::coding::{Coding, Decoder, Encoder};
use enforcer_tests::chance::Chance;

/// A body that is longer goes in so many chunks.
const SINGLY: usize = 512;

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// In one piece.
    Whole,
    /// In pieces, cut anywhere.
    Cut,
    /// Byte by byte, or in so many equal chunks.
    Bytes,
    /// Under content codings, cut anywhere.
    Coded,
    /// As the value of a header field or a query.
    Field,
}

impl Transport {
    pub const ALL: [Self; 5] = [Self::Whole, Self::Cut, Self::Bytes, Self::Coded, Self::Field];

    /// What comes out, or how far it came before it was stopped.
    pub fn carry(self, masker: &Masker, body: &[u8], chance: &mut Chance) -> Came {
        match self {
            Self::Whole => Came::out(masker.mask(body).0.as_bytes()),
            Self::Field => {
                let place = chance.pick(&[&Place::Other, &Place::Path, &Place::Query]);
                let masked = masker.mask_at(Bytes::copy_from_slice(body), place.clone()).0;
                Came::out(masked.as_bytes())
            }
            Self::Cut => pushed(masker, cut(body, chance)),
            Self::Bytes => {
                let size = body.len().div_ceil(SINGLY).max(1);
                pushed(masker, body.chunks(size).map(Bytes::copy_from_slice).collect())
            }
            Self::Coded => decoded(masker, body, chance),
        }
    }
}

/// What a body became.
pub struct Came {
    pub out: Vec<u8>,
    pub stopped: Option<MaskError>,
}

impl Came {
    fn out(bytes: &[u8]) -> Self {
        Self { out: bytes.to_vec(), stopped: None }
    }
}

/// In up to eight pieces.
pub fn cut(body: &[u8], chance: &mut Chance) -> Vec<Bytes> {
    let mut at: Vec<usize> = (0..chance.below(8)).map(|_| chance.below(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&body[pair[0]..pair[1]])).collect()
}

pub fn pushed(masker: &Masker, chunks: Vec<Bytes>) -> Came {
    let mut stream = masker.stream();
    let mut came = Came { out: Vec::new(), stopped: None };
    for chunk in chunks {
        if !take(&mut stream, chunk, &mut came) {
            return came;
        }
    }
    match stream.finish() {
        Ok(rest) => came.out.extend_from_slice(rest.as_bytes()),
        Err(error) => came.stopped = Some(error),
    }
    came
}

fn take(stream: &mut StreamMasker, chunk: Bytes, came: &mut Came) -> bool {
    match stream.push(chunk) {
        Ok(masked) => came.out.extend_from_slice(masked.as_bytes()),
        Err(error) => came.stopped = Some(error),
    }
    came.stopped.is_none()
}

const CODINGS: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

/// Coded, cut, decoded and masked, as the gate does it.
fn decoded(masker: &Masker, body: &[u8], chance: &mut Chance) -> Came {
    let codings: Vec<Coding> = (0..chance.between(1, 2)).map(|_| chance.pick(&CODINGS)).collect();
    let mut encoder = Encoder::new(&codings);
    let mut coded = encoder.push(Bytes::copy_from_slice(body), chance.one_in(2)).unwrap().to_vec();
    coded.extend_from_slice(&encoder.finish().unwrap());
    let mut decoder = Decoder::new(&codings, 1 << 24).unwrap();
    let mut pieces = Vec::new();
    for chunk in cut(&coded, chance) {
        decoder.push(chunk);
        while let Some(piece) = decoder.next().unwrap() {
            pieces.push(piece);
        }
    }
    decoder.finish();
    while let Some(piece) = decoder.next().unwrap() {
        pieces.push(piece);
    }
    assert_eq!(pieces.concat(), body, "{codings:?}");
    pushed(masker, pieces)
}
