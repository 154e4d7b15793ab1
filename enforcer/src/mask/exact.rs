//! Exact values: secrets that the operator registered or that stand in a workload's environment.
//!
//! What is known is looked for as written and in the fixed codings that tools apply
//! without asking: a coding is fixed if it gives the same bytes for the same value
//! wherever the value stands (base64 has three forms, by alignment). Codings with
//! optional escapes (JSON, percent, UTF-16, ...) are undone before anything is looked for.

use std::collections::BTreeSet;

use super::{
    coded::Coding,
    error::MaskError,
    filter::BEGINNING,
    level::DEPTH_MAX,
    norm::{Normal, Normaliser},
    types::Entity,
};
use crate::secret::{Secret, SecretBytes};

/// Shorter values occur in ordinary text.
pub const EXACT_MIN_BYTES: usize = 8;
/// Longer values would hold a stream back for too long (a coding makes it up to 6 times that).
pub const EXACT_MAX_BYTES: usize = 8 * 1024;

/// In so many places at most something that nobody sees is looked for inside of escapes.
const INTERRUPTED_MAX: usize = 64;

/// A value that is a secret because somebody said so.
#[derive(Clone, Debug)]
pub struct ExactValue {
    entity: Entity,
    value: SecretBytes,
}

impl ExactValue {
    /// Registers a value under a name; the placeholder will be `[MASKED:<name>]`.
    /// White space around the value (the newline at the end of a file) is not part of it.
    pub fn new(entity: &str, value: &SecretBytes) -> Result<Self, MaskError> {
        let trimmed = value.expose().trim_ascii();
        let length = trimmed.len();
        let entity = Entity::new(entity);
        if length < EXACT_MIN_BYTES {
            let minimum = EXACT_MIN_BYTES;
            return Err(MaskError::TooShort { entity: entity.to_string(), length, minimum });
        }
        if length > EXACT_MAX_BYTES {
            let maximum = EXACT_MAX_BYTES;
            return Err(MaskError::TooLong { entity: entity.to_string(), length, maximum });
        }
        Ok(Self { entity, value: Secret::new(trimmed.to_vec()) })
    }

    /// Under which name.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Every literal that stands for this value in a normal form, each once.
    pub(super) fn forms(&self) -> Vec<Form> {
        let value = self.value.expose();
        let mut forms = Forms::new();
        normal_forms(value, &mut forms);
        interrupted(value, &mut forms);
        if value.iter().any(|b| b"\0\r\x1b".contains(b)) {
            with_unseen(value, &mut forms);
        }
        let wide = wide_forms(value);
        if !value.is_ascii() {
            wide.iter().for_each(|bytes| normal_forms(bytes, &mut forms));
        }
        // Of quoted-printable only characters that one can see are undone.
        if value.iter().any(|b| !matches!(b, b' '..=b'~')) {
            quoted_printable(value).iter().for_each(|bytes| normal_forms(bytes, &mut forms));
        }
        for bytes in wide.iter().take(2).chain([value]) {
            for alignment in 0..3 {
                let standard = digits(bytes, alignment, 3, 6, BASE64);
                let coded = Some((Coding::Base64, alignment));
                forms.insert((standard.iter().map(|&b| url_safe(b)).collect(), false, coded));
                forms.insert((standard, false, coded));
            }
        }
        for alignment in 0..5 {
            let coded = Some((Coding::Base32, alignment));
            forms.insert((digits(value, alignment, 5, 5, BASE32), true, coded));
        }
        for (before, between) in [("", ""), ("", ":"), ("", " "), ("0x", ","), ("0x", ", ")] {
            let coded = (before.is_empty() && between.is_empty()).then_some((Coding::Hex, 0));
            forms.insert((list(value, between, |b| format!("{before}{b:02x}")), true, coded));
        }
        for between in [",", ", ", " "] {
            forms.insert((list(value, between, |b| b.to_string()), false, None));
        }
        if let Ok(text) = str::from_utf8(value) {
            for (quote, between) in [("\"", ","), ("\"", ", "), ("'", ","), ("'", ", ")] {
                let quoted: Vec<String> = text.chars().map(|c| format!("{quote}{c}{quote}")).collect();
                forms.insert((quoted.join(between).into_bytes(), false, None));
            }
        }
        let form = |(bytes, caseless, coded)| {
            let plain = bytes == *value;
            Form { bytes: Secret::new(bytes), caseless, coded, plain }
        };
        forms.into_iter().filter(|(bytes, ..)| bytes.len() >= BEGINNING).map(form).collect()
    }
}

/// A literal to look for.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) bytes: SecretBytes,
    /// Letters of either case stand for each other.
    pub(super) caseless: bool,
    /// How it is coded, and how many bytes of its first group stand before it.
    pub(super) coded: Option<(Coding, usize)>,
    /// It is the value itself.
    pub(super) plain: bool,
}

impl Form {
    /// The first two bytes, in every case that they can have.
    pub(super) fn firsts(&self) -> Vec<[u8; 2]> {
        let Some(&[a, b]) = self.bytes.expose().first_chunk() else { return Vec::new() };
        if !self.caseless {
            return vec![[a, b]];
        }
        let cases = |byte: u8| [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
        cases(a).into_iter().flat_map(|a| cases(b).map(|b| [a, b])).collect()
    }
}

type Forms = BTreeSet<(Vec<u8>, bool, Option<(Coding, usize)>)>;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE32: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How a value looks when escapes are undone in it, once and more often.
///
/// A value can end like an escape begins (`...100%`): what follows it is then read as a part
/// of it, so the value is looked for without that end, too.
fn normal_forms(value: &[u8], forms: &mut Forms) {
    let mut form = value.to_vec();
    for _ in 0..=DEPTH_MAX {
        let mut cut = Normal::default();
        let taken = Normaliser::default().push(&form, false, &mut cut);
        if taken < form.len() && cut.bytes.len() >= BEGINNING {
            forms.insert((cut.bytes, false, None));
        }
        let mut whole = Normal::default();
        Normaliser::default().push(&form, true, &mut whole);
        if !forms.insert((form, false, None)) {
            return;
        }
        form = whole.bytes;
    }
}

/// How a value looks that has an escape in it and in this something that nobody sees: the escape
/// stays, and all others are undone.
fn interrupted(value: &[u8], forms: &mut Forms) {
    let mut whole = Normal::default();
    Normaliser::default().push(value, true, &mut whole);
    let units = whole.escapes().filter(|unit| value[unit.raw].is_ascii());
    for at in units.flat_map(|unit| unit.raw + 1..unit.raw + unit.raw_len).take(INTERRUPTED_MAX) {
        let (mut normaliser, mut form) = (Normaliser::default(), Normal::default());
        for part in [&value[..at], &value[at..]] {
            normaliser.push(part, true, &mut form);
        }
        forms.insert((form.bytes, false, None));
    }
}

/// How a value looks in which something stands that nobody sees. This is left out where its own
/// escape is undone, and stands between the bytes of other escapes until then; in UTF-16 a zero
/// follows the escape character, which is then alone.
fn with_unseen(value: &[u8], forms: &mut Forms) {
    let without = |unseen: &[u8]| value.iter().copied().filter(|b| !unseen.contains(b)).collect();
    let [percent, html] = coded_in_part(value);
    for form in [without(b"\0\r"), without(b"\0\r\x1b"), percent, html] {
        normal_forms(&form, forms);
        interrupted(&form, forms);
    }
}

/// The value in UTF-16 and UTF-32, in both orders of bytes.
fn wide_forms(value: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8(value.to_vec());
    // What is no text is taken for one in Latin-1.
    let text = text.unwrap_or_else(|_| value.iter().copied().map(char::from).collect());
    let units: Vec<u16> = text.encode_utf16().collect();
    vec![
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
    ]
}

/// The value as quoted-printable (RFC 2045, section 6.7): every byte, or those that have to be.
fn quoted_printable(value: &[u8]) -> [Vec<u8>; 2] {
    let coded = |b: u8| format!("={b:02X}").into_bytes();
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    [
        value.iter().flat_map(|&b| coded(b)).collect(),
        value.iter().flat_map(|&b| if plain(b) { vec![b] } else { coded(b) }).collect(),
    ]
}

/// The value in codings that leave as they are some of the bytes that escapes are made of: what a
/// query of a URL cannot hold in percent, and HTML with the names that it cannot do without.
fn coded_in_part(value: &[u8]) -> [Vec<u8>; 2] {
    let percent = |b: u8| match b {
        b'%' | b'+' | b'&' | b'=' | ..=b' ' | 0x7f.. => format!("%{b:02X}").into_bytes(),
        other => vec![other],
    };
    let html = |b: u8| match b {
        b'&' => b"&amp;".to_vec(),
        b'<' => b"&lt;".to_vec(),
        b'>' => b"&gt;".to_vec(),
        b'"' => b"&quot;".to_vec(),
        other => vec![other],
    };
    [value.iter().flat_map(|b| percent(*b)).collect(), value.iter().flat_map(|b| html(*b)).collect()]
}

/// Each byte in some form, with something between them.
fn list(value: &[u8], between: &str, form: impl Fn(u8) -> String) -> Vec<u8> {
    value.iter().map(|&b| form(b)).collect::<Vec<_>>().join(between).into_bytes()
}

/// The digits that depend on nothing but the value, if `alignment` other bytes of the same
/// group of `group` bytes stand before it.
fn digits(value: &[u8], alignment: usize, group: usize, bits: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let mut padded = vec![0; alignment % group];
    padded.extend_from_slice(value);
    let first = (alignment * 8).div_ceil(bits);
    let last = padded.len() * 8 / bits;
    (first..last)
        .map(|digit| {
            let value = (digit * bits..(digit + 1) * bits)
                .fold(0, |sum, bit| sum << 1 | usize::from(padded[bit / 8] >> (7 - bit % 8) & 1));
            alphabet[value]
        })
        .collect()
}

fn url_safe(digit: u8) -> u8 {
    match digit {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn the_length_is_checked_after_trimming() {
        let short = ExactValue::new("pin", &SecretBytes::from("1234567\n")).unwrap_err();
        assert!(short.to_string().contains("PIN") && short.to_string().contains("at least 8"));
        assert!(ExactValue::new("pin", &SecretBytes::from("12345678\n")).is_ok());
        let most = SecretBytes::new(vec![b'x'; EXACT_MAX_BYTES]);
        assert!(ExactValue::new("big", &most).is_ok());
        let over = SecretBytes::new(vec![b'x'; EXACT_MAX_BYTES + 1]);
        assert!(ExactValue::new("big", &over).is_err());
    }

    #[test]
    fn base64_of_any_text_around_the_value_contains_a_literal() {
        let value = ExactValue::new("v", &SecretBytes::from("obviously fake/+value?")).unwrap();
        let literals = value.forms();
        for before in 0..7 {
            for after in 0..7 {
                let text = [&vec![0xa5; before], &b"obviously fake/+value?"[..], &vec![0x5a; after]];
                let text = text.concat();
                for coded in [
                    base64::engine::general_purpose::STANDARD.encode(&text),
                    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text),
                ] {
                    let found = literals
                        .iter()
                        .any(|l| memchr::memmem::find(coded.as_bytes(), l.bytes.expose()).is_some());
                    assert!(found, "{before} before, {after} after");
                }
            }
        }
    }
}
