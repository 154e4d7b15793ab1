//! Looks for a secret in bytes and in files, in the forms that it could stand in.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Pieces of a secret that are looked for begin at each of these steps, and have this
/// length: no 17 bytes in a row go unseen.
const STEP: usize = 6;
const PIECE: usize = 12;
/// Shorter texts in base64 hide no piece.
const ENCODED: usize = 16;
/// Compressed in base64 in compressed: deeper is nothing that is written here.
const DEPTH: usize = 3;

/// A secret, and the forms in which it is looked for.
pub struct Needle {
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Needle {
    pub fn new(secret: &str) -> Self {
        let bytes = secret.as_bytes();
        let pieces = bytes.windows(PIECE).step_by(STEP);
        let mut forms: Vec<_> = pieces.map(|piece| ("raw", piece.to_vec())).collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.push(("upper hex", hex.to_uppercase().into_bytes()));
        forms.push(("hex", hex.into_bytes()));
        forms.push(("UTF-16", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        for before in 0..3 {
            let shifted = [&vec![0; before], bytes].concat();
            // Digits that depend on neighbours are left out.
            let digits = |text: String| text[(before * 8).div_ceil(6)..shifted.len() * 8 / 6].to_owned();
            forms.push(("base64", digits(BASE64_STANDARD_NO_PAD.encode(&shifted)).into_bytes()));
            forms.push(("URL-safe base64", digits(BASE64_URL_SAFE_NO_PAD.encode(&shifted)).into_bytes()));
        }
        Self { forms }
    }

    /// The form in which it stands there, if it does; compressed data is looked into.
    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.found_within(bytes, DEPTH)
    }

    fn found_within(&self, bytes: &[u8], depth: usize) -> Option<&'static str> {
        let plain = self.forms.iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| *name);
        if plain.is_some() || depth == 0 {
            return plain;
        }
        let compressed = gzip_within(bytes).find_map(|inner| self.found_within(&inner, depth - 1));
        compressed.or_else(|| base64_within(bytes).find_map(|inner| self.found_within(&inner, depth - 1)))
    }

    /// Every file below the folder in which it stands, and in which form.
    pub fn files(&self, folder: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
        let mut found = Vec::new();
        for (path, bytes) in files(folder)? {
            found.extend(self.found_in(&bytes).map(|form| (path, form)));
        }
        Ok(found)
    }
}

pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// All regular files below, with what they hold.
pub fn files(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push((entry.path(), std::fs::read(entry.path())?));
        }
    }
    Ok(found)
}

/// What comes out of every gzip member (RFC 1952) that begins somewhere, as far as it goes.
fn gzip_within(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let starts = memchr::memmem::find_iter(bytes, &[0x1f, 0x8b, 8]);
    starts.map(|at| gunzip(&bytes[at..])).filter(|inner| !inner.is_empty())
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    // A member that is cut off still gives its beginning.
    drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut inner));
    inner
}

/// What the longest runs of base64 digits say.
fn base64_within(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let runs = bytes.split(move |byte| !is_digit(byte)).filter(|run| run.len() >= ENCODED);
    runs.filter_map(|run| {
        let run: String = run.iter().map(|byte| char::from(*byte)).collect();
        let run = run.replace('-', "+").replace('_', "/");
        let whole = run.get(..run.len() / 4 * 4)?;
        BASE64_STANDARD_NO_PAD.decode(whole).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SECRET: &str = "aB3-dE6_gH9.kL2-nO5";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let needle = Needle::new(SECRET);
        let text = |before: &str| format!("{before}{SECRET} and more");
        let mut forms = vec![
            text("x").into_bytes(),
            SECRET[1..18].into(),
            gzip(text("x").as_bytes()),
            [b"\0\x1f\x8b\x08", &gzip(text("").as_bytes())[..], b"rest"].concat(),
            BASE64_STANDARD_NO_PAD.encode(gzip(text("").as_bytes())).into_bytes(),
            SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ];
        for before in ["", "1", "12", "123"] {
            forms.push(BASE64_STANDARD_NO_PAD.encode(text(before)).into_bytes());
            forms.push(BASE64_URL_SAFE_NO_PAD.encode(text(before)).into_bytes());
        }
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02X}")).collect();
        forms.extend([hex.to_lowercase().into_bytes(), hex.into_bytes()]);
        for form in forms {
            assert!(needle.found_in(&form).is_some(), "{}", String::from_utf8_lossy(&form));
        }
        for form in [&b""[..], b"aB3-dE6_gH", b"nothing of it stands here at all", &gzip(b"nor here")] {
            assert_eq!(needle.found_in(form), None);
        }
    }

    #[test]
    fn files_of_every_folder_are_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let path = folder.path().join("a/b/c");
        std::fs::write(&path, SECRET).unwrap();
        std::fs::write(folder.path().join("other"), "nothing").unwrap();
        assert_eq!(Needle::new(SECRET).files(folder.path()).unwrap(), [(path, "raw")]);
    }
}
