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
    norm::{Breaks, Esc, Normal, Normaliser},
    types::Entity,
};
use crate::secret::{Secret, SecretBytes};

/// Shorter values occur in ordinary text.
pub const EXACT_MIN_BYTES: usize = 8;
/// Longer values would hold a stream back for too long (a coding makes it up to 6 times that).
pub const EXACT_MAX_BYTES: usize = 8 * 1024;

/// So often a value with escapes of its own is looked for as text in JSON that is text in JSON.
const JSON_MAX: usize = 3;
/// In so many places at most something that nobody sees is looked for inside of escapes.
const INTERRUPTED_MAX: usize = 64;
/// So many bytes at most do the literals have that this makes of one value.
const INTERRUPTED_MAX_BYTES: usize = 2 * 1024 * 1024;

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
        let length = Forms::shortest(trimmed);
        if length < BEGINNING {
            let minimum = BEGINNING;
            return Err(MaskError::TooLittle { entity: entity.to_string(), length, minimum });
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
        let mut forms = Forms::of_text(value);
        let wide = wide_forms(value);
        if !value.is_ascii() {
            wide.iter().for_each(|bytes| forms.undone(bytes));
        }
        // Of quoted-printable only characters that one can see are undone.
        if value.iter().any(|b| !matches!(b, b' '..=b'~')) {
            quoted_printable(value).iter().for_each(|bytes| forms.undone(bytes));
        }
        for bytes in wide.iter().take(2).chain([value]) {
            for alignment in 0..3 {
                let standard = digits(bytes, alignment, 3, 6, BASE64);
                let coded = Some((Coding::Base64, alignment));
                forms.insert(standard.iter().map(|&b| url_safe(b)).collect(), false, coded);
                forms.insert(standard, false, coded);
            }
        }
        for alignment in 0..5 {
            let coded = Some((Coding::Base32, alignment));
            forms.insert(digits(value, alignment, 5, 5, BASE32), true, coded);
        }
        for (before, between) in [("", ""), ("", ":"), ("", " "), ("0x", ","), ("0x", ", ")] {
            let coded = (before.is_empty() && between.is_empty()).then_some((Coding::Hex, 0));
            forms.insert(list(value, between, |b| format!("{before}{b:02x}")), true, coded);
        }
        for between in [",", ", ", " "] {
            forms.insert(list(value, between, |b| b.to_string()), false, None);
        }
        if let Ok(text) = str::from_utf8(value) {
            for (quote, between) in [("\"", ","), ("\"", ", "), ("'", ","), ("'", ", ")] {
                let quoted: Vec<String> = text.chars().map(|c| format!("{quote}{c}{quote}")).collect();
                forms.insert(quoted.join(between).into_bytes(), false, None);
            }
        }
        let form = |(bytes, caseless, coded)| {
            let plain = bytes == *value;
            Form { bytes: Secret::new(bytes), caseless, coded, plain }
        };
        forms.all.into_iter().filter(|(bytes, ..)| bytes.len() >= BEGINNING).map(form).collect()
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

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE32: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Bytes, whether letters of either case stand for each other, and how they are coded: see [`Form`].
type Literal = (Vec<u8>, bool, Option<(Coding, usize)>);

/// The literals of one value.
struct Forms {
    /// In which ways a stream that the value stands in can be read.
    readings: Vec<Normaliser>,
    all: BTreeSet<Literal>,
    /// Bytes of those in which an escape is interrupted.
    interrupted: usize,
}

impl Forms {
    fn new(value: &[u8]) -> Self {
        let mut readings = vec![Normaliser::default()];
        if value.contains(&b'\x1b') {
            readings.push(Normaliser::new(Esc::Byte));
        }
        // What is quoted-printable somewhere before makes a soft break of such a line's end: that of
        // a key, say, which is padded.
        if memchr::memmem::find(&without(value, b"\0\r"), b"=\n").is_some() {
            let breaks = |reading: Normaliser| {
                [Breaks::Unseen, Breaks::Soft, Breaks::Hard].map(|breaks| reading.clone().with(breaks))
            };
            readings = readings.into_iter().flat_map(breaks).collect();
        }
        Self { readings, all: BTreeSet::new(), interrupted: 0 }
    }

    /// How much is left of a value, in bytes, where its escapes are undone and what nobody sees is
    /// left out, but for escape characters of its own: where they are bytes like any other it is
    /// found, too.
    fn shortest(value: &[u8]) -> usize {
        let esc = if value.contains(&b'\x1b') { Esc::Byte } else { Esc::Sequence };
        let mut forms = Self { readings: vec![Normaliser::new(esc)], all: BTreeSet::new(), interrupted: 0 };
        forms.undone(value);
        forms.undone(&without(value, b"\0\r"));
        forms.all.iter().map(|(form, ..)| form.len()).min().unwrap_or_default()
    }

    /// Those of a value that is text, with any escapes.
    fn of_text(value: &[u8]) -> Self {
        let mut forms = Self::new(value);
        forms.of(value);
        if value.iter().any(|b| b"\0\r\x1b".contains(b)) {
            forms.with_unseen(value);
        }
        if forms.all.len() > 1 {
            forms.in_codings(value);
        }
        forms
    }

    fn insert(&mut self, form: Vec<u8>, caseless: bool, coded: Option<(Coding, usize)>) -> bool {
        self.all.insert((form, caseless, coded))
    }

    /// How a value looks when escapes are undone in it, and when they are interrupted.
    fn of(&mut self, value: &[u8]) {
        self.undone(value);
        self.interrupted(value);
        self.behind_quoted(value);
    }

    /// How a value looks that begins with a pair of quoted-printable (`=41`), or with the end of one
    /// and another: alone it would stay, and behind one it does not.
    fn behind_quoted(&mut self, value: &[u8]) {
        for at in (0..=2).filter(|at| value[*at..].starts_with(b"=") && value[..*at].is_ascii()) {
            for reading in self.readings.clone() {
                let mut form = Normal::default();
                reading.behind_quoted().push(&value[at..], true, &mut form);
                self.undone(&[&value[..at], &form.bytes].concat());
            }
        }
    }

    /// How a value looks when escapes are undone in it, once and more often.
    ///
    /// A value can end like an escape begins (`...100%`): what follows it is then read as a part
    /// of it, so the value is looked for without that end, too.
    fn undone(&mut self, value: &[u8]) {
        for reading in self.readings.clone() {
            let mut form = value.to_vec();
            for _ in 0..=DEPTH_MAX {
                if let Some(cut) = reading.clone().cut(&form).filter(|cut| cut.len() >= BEGINNING) {
                    self.insert(cut, false, None);
                }
                let mut whole = Normal::default();
                reading.clone().push(&form, true, &mut whole);
                let is_last = whole.bytes == form;
                self.insert(form, false, None);
                if is_last {
                    break;
                }
                form = whole.bytes;
            }
        }
    }

    /// How a value looks that has an escape in it and in this something that nobody sees: the
    /// escape stays, and all others are undone.
    fn interrupted(&mut self, value: &[u8]) {
        for reading in self.readings.clone() {
            let mut whole = Normal::default();
            reading.clone().push(value, true, &mut whole);
            let units = whole.escapes().filter(|unit| value[unit.raw].is_ascii());
            for at in units.flat_map(|unit| unit.raw + 1..unit.raw + unit.raw_len).take(INTERRUPTED_MAX) {
                let (mut normaliser, mut form) = (reading.clone(), Normal::default());
                for part in [&value[..at], &value[at..]] {
                    normaliser.push(part, true, &mut form);
                }
                let length = form.bytes.len();
                if self.interrupted + length > INTERRUPTED_MAX_BYTES {
                    return;
                }
                if self.insert(form.bytes, false, None) {
                    self.interrupted += length;
                }
            }
        }
    }

    /// How a value looks in which something stands that nobody sees. This is left out where its own
    /// escape is undone, and stands between the bytes of other escapes until then; in UTF-16 a zero
    /// follows the escape character, which is then alone.
    fn with_unseen(&mut self, value: &[u8]) {
        let [percent, html] = coded_in_part(value);
        for form in [without(value, b"\0\r"), without(value, b"\0\r\x1b"), percent, html] {
            self.of(&form);
        }
    }

    /// How a value with escapes of its own looks in a coding: they are undone with some of those that
    /// this makes, and what the ones give can belong to the others.
    fn in_codings(&mut self, value: &[u8]) {
        let [percent, html] = coded_in_part(value);
        let mut codings = vec![percent, html];
        let mut json = value.to_vec();
        for _ in 0..JSON_MAX {
            json = in_json(&json);
            codings.push(json.clone());
        }
        for coded in codings {
            self.undone(&coded);
        }
    }
}

fn without(value: &[u8], unseen: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|b| !unseen.contains(b)).collect()
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

/// The value as text in JSON (RFC 8259, section 7), without its quotes.
fn in_json(value: &[u8]) -> Vec<u8> {
    let coded = |b: u8| match b {
        b'"' | b'\\' => vec![b'\\', b],
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        0x08 => b"\\b".to_vec(),
        0x0c => b"\\f".to_vec(),
        ..0x20 => format!("\\u{b:04x}").into_bytes(),
        other => vec![other],
    };
    value.iter().flat_map(|b| coded(*b)).collect()
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
    fn a_value_is_long_enough_also_when_its_escapes_are_undone() {
        for little in ["%41%42%43%44", "\\u0041bcd", "0\x0041\0%21", "a\0b\0c\0d\0"] {
            let error = ExactValue::new("pin", &SecretBytes::from(little)).unwrap_err().to_string();
            assert!(error.contains("PIN") && error.contains("at least 5"), "{error}");
        }
        for enough in ["%41%42%43%44%45", "\\u0041bcde", "0\x0041\0%21a", "\x1b[31mabc\x1b[0m"] {
            assert!(ExactValue::new("pin", &SecretBytes::from(enough)).is_ok(), "{enough:?}");
        }
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
