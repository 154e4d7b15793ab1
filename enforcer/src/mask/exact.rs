//! Exact values: secrets that the operator registered or that stand in a workload's environment.
//!
//! What is known is looked for as written and in the fixed codings that tools apply
//! without asking: a coding is fixed if it gives the same bytes for the same value
//! wherever the value stands (base64 has three forms, by alignment). Codings with
//! optional escapes are not literals; only their common forms are listed here.

use std::collections::BTreeSet;

use super::{error::MaskError, types::Entity};
use crate::secret::{Secret, SecretBytes};

/// Shorter values occur in ordinary text.
pub const EXACT_MIN_BYTES: usize = 8;
/// Longer values would hold a stream back for too long (a coding makes it up to 6 times that).
pub const EXACT_MAX_BYTES: usize = 8 * 1024;

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

    /// Every literal that stands for this value, each once.
    pub(super) fn literals(&self) -> Vec<SecretBytes> {
        let value = self.value.expose();
        let mut forms: BTreeSet<Vec<u8>> = BTreeSet::new();
        forms.insert(value.clone());
        for alignment in 0..3 {
            let standard = base64_core(value, alignment);
            forms.insert(standard.iter().map(|&b| url_safe(b)).collect());
            forms.insert(standard);
        }
        forms.insert(each(value, |b| format!("{b:02x}")));
        forms.insert(each(value, |b| format!("{b:02X}")));
        forms.insert(each(value, |b| format!("%{b:02x}")));
        forms.insert(each(value, |b| format!("%{b:02X}")));
        forms.insert(percent_minimal(value));
        for slash in [false, true] {
            let once = json_escaped(value, slash);
            forms.insert(json_escaped(&once, slash));
            forms.insert(once);
        }
        forms.insert(each(value, |b| format!("\\u{b:04x}")));
        forms.insert(each(value, |b| format!("\\u{b:04X}")));
        forms.insert(value.iter().flat_map(|&b| [b, 0]).collect());
        forms.insert(value.iter().flat_map(|&b| [0, b]).collect());
        // A value is at least 8 bytes, so every form is at least 9 bytes long.
        forms.into_iter().map(Secret::new).collect()
    }
}

fn each(value: &[u8], form: impl Fn(u8) -> String) -> Vec<u8> {
    value.iter().flat_map(|&b| form(b).into_bytes()).collect()
}

/// The base64 digits that depend on nothing but the value, if `alignment` other bytes
/// of the same group of three stand before it.
fn base64_core(value: &[u8], alignment: usize) -> Vec<u8> {
    use base64::Engine as _;
    let mut padded = vec![0; alignment];
    padded.extend_from_slice(value);
    let digits = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&padded).into_bytes();
    let first = [0, 2, 3][alignment];
    let last = padded.len() * 8 / 6;
    digits[first..last].to_vec()
}

fn url_safe(digit: u8) -> u8 {
    match digit {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

/// What `encodeURIComponent` and most libraries write: unreserved bytes stay.
fn percent_minimal(value: &[u8]) -> Vec<u8> {
    each(value, |b| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    })
}

/// The body of a JSON string (RFC 8259, section 7), with `/` escaped or not.
fn json_escaped(value: &[u8], slash: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    for &b in value {
        match b {
            b'"' | b'\\' => out.extend([b'\\', b]),
            b'/' if slash => out.extend(b"\\/"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..=0x1f => out.extend(format!("\\u{b:04x}").into_bytes()),
            _ => out.push(b),
        }
    }
    out
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
        let literals = value.literals();
        for before in 0..7 {
            for after in 0..7 {
                let text = [&vec![0xa5; before], &b"obviously fake/+value?"[..], &vec![0x5a; after]];
                let text = text.concat();
                for coded in [
                    base64::engine::general_purpose::STANDARD.encode(&text),
                    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text),
                ] {
                    let found =
                        literals.iter().any(|l| memchr::memmem::find(coded.as_bytes(), l.expose()).is_some());
                    assert!(found, "{before} before, {after} after");
                }
            }
        }
    }
}
