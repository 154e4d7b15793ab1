//! Compressed, and then written as text.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Class::MustDecoded;
use super::Listed;

pub const FORMS: &[Listed] = &[
    (
        "base64 of gzip",
        MustDecoded,
        |it, _| {
            let packed = STANDARD.encode(gzip(&it.whole())?);
            Some([b"release: ", packed.as_bytes(), b"\n"].concat())
        },
        |out| (super::text::FORMS[1].3)(out).iter().filter_map(|it| from_gzip(it)).collect(),
    ),
    (
        "base64 of base64 of gzip",
        MustDecoded,
        |it, _| {
            let packed = STANDARD.encode(STANDARD.encode(gzip(&it.whole())?));
            Some([b"release: ", packed.as_bytes(), b"\n"].concat())
        },
        |out| (super::text::FORMS[1].3)(out).iter().filter_map(|it| from_gzip(it)).collect(),
    ),
];

pub fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

fn from_gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    // What comes before the end is a leak, too.
    let read = flate2::read::GzDecoder::new(bytes).take(1 << 20).read_to_end(&mut text);
    (read.is_ok() || !text.is_empty()).then_some(text)
}
