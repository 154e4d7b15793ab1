//! What becomes of a match: what stands in its place, or why nothing goes on.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::{check, error::MaskError, types::Entity};
use crate::secret::{SecretBytes, SecretText};

/// Bytes of the key of surrogates.
pub const SURROGATE_KEY_BYTES: usize = 32;
/// A shorter value shows too much of itself with its last four characters.
pub const KEEP_LAST_MIN_BYTES: usize = 12;
/// Characters that `keep-last-4` keeps.
const KEPT: usize = 4;
/// Letters and digits that a value needs so that its form can be kept: with fewer, what is
/// put in place of it could be guessed to be it.
pub const FORM_MIN_BYTES: usize = 8;
/// Hexadecimal digits of a surrogate.
const SURROGATE_DIGITS: usize = 16;
/// What is put in place of a value is never longer than this and the entity's name, or than the
/// value itself.
pub const REPLACEMENT_EXTRA_BYTES: usize = 32;

/// What is done with what was found, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// It stays, and is told.
    Observe,
    /// A placeholder with the last four characters of the value, if it is long enough.
    #[serde(rename = "keep-last-4")]
    KeepLast4,
    /// The same text for the same value, wherever the same key is used: `[ENTITY:16 digits]`.
    Surrogate,
    /// Other letters and digits, the same for the same value; length, cases and punctuation stay.
    FormatPreserving,
    /// `[MASKED:ENTITY]`.
    #[default]
    Placeholder,
    /// Nothing.
    Drop,
    /// It is denied, since nobody can be asked where it is masked: a rule with `hold` that looks at
    /// `findings` asks people before that.
    Hold,
    /// The message does not go out.
    Deny,
}

impl Strategy {
    /// All of them, as they are written.
    pub const NAMES: &[&str] =
        &["placeholder", "keep-last-4", "surrogate", "format-preserving", "drop", "deny", "hold", "observe"];

    /// Whether it makes no difference what the value is.
    pub(super) fn is_fixed(self) -> bool {
        !matches!(self, Self::KeepLast4 | Self::Surrogate | Self::FormatPreserving)
    }

    /// What stands in place of a value; an error if the message must not go on.
    ///
    /// `fixed` is how many bytes of the beginning the issuer's format prescribes: they are no
    /// secret. Without a key there are no surrogates, but placeholders.
    pub fn replacement(
        self,
        entity: &Entity,
        value: &[u8],
        fixed: usize,
        key: Option<&SurrogateKey>,
    ) -> Result<Replacement, MaskError> {
        Ok(match (self, key) {
            (Self::Observe, _) => Replacement::Observe,
            (Self::Deny, _) => return Err(MaskError::Denied { entity: entity.clone(), rule: "".into() }),
            (Self::Hold, _) => return Err(MaskError::Held { entity: entity.clone(), rule: "".into() }),
            (Self::Drop, _) => Replacement::Text(Vec::new()),
            (Self::KeepLast4, _) => last_characters(entity, value),
            (Self::Surrogate, Some(key)) => {
                let digits = key.surrogate(entity, value);
                Replacement::Text(format!("[{entity}:{digits}]").into_bytes())
            }
            (Self::FormatPreserving, Some(key)) => key.same_form(entity, value, fixed),
            (Self::Placeholder | Self::Surrogate | Self::FormatPreserving, _) => Replacement::Placeholder,
        })
    }
}

/// What stands in place of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// `[MASKED:ENTITY]`.
    Placeholder,
    /// This text.
    Text(Vec<u8>),
    /// The match itself: it is only told.
    Observe,
}

fn last_characters(entity: &Entity, value: &[u8]) -> Replacement {
    let kept = &value[value.len().saturating_sub(KEPT)..];
    // Nothing that a text around it could take for its own: a quote, a backslash, an angle.
    if value.len() < KEEP_LAST_MIN_BYTES || !kept.iter().all(u8::is_ascii_alphanumeric) {
        return Replacement::Placeholder;
    }
    Replacement::Text([b"[MASKED:", entity.as_str().as_bytes(), b":...", kept, b"]"].concat())
}

/// The key with which surrogates are made: the same for all hosts of an organisation that
/// are to make the same ones.
#[derive(Clone)]
pub struct SurrogateKey(hmac::Key);

impl std::fmt::Debug for SurrogateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SurrogateKey(..)")
    }
}

impl SurrogateKey {
    /// Takes exactly [`SURROGATE_KEY_BYTES`] bytes.
    pub fn new(key: &SecretBytes) -> Result<Self, MaskError> {
        let key = key.expose();
        if key.len() != SURROGATE_KEY_BYTES {
            return Err(MaskError::Key { length: key.len(), wanted: SURROGATE_KEY_BYTES });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// The key as it stands in its file, in hexadecimal digits.
    pub fn from_hex(digits: &SecretText) -> Result<Self, MaskError> {
        let digits = digits.expose().as_bytes();
        let nibble = |b: &u8| char::from(*b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let byte = |pair: &[u8]| Some(nibble(pair.first()?)? << 4 | nibble(pair.get(1)?)?);
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        Self::new(&SecretBytes::new(bytes.unwrap_or_default()))
    }

    /// Bytes that follow from the value, as many blocks as are asked for.
    fn block(&self, purpose: &[u8], entity: &Entity, value: &[u8], block: u32) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(purpose);
        mac.update(&block.to_be_bytes());
        // A name has no zero byte, so that name and value cannot be shifted against each other.
        mac.update(entity.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(value);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(mac.sign().as_ref());
        bytes
    }

    fn surrogate(&self, entity: &Entity, value: &[u8]) -> String {
        let bytes = self.block(b"surrogate", entity, value, 0);
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        digits[..SURROGATE_DIGITS].to_owned()
    }

    /// The same form with other letters and digits, and with no valid check digits.
    fn same_form(&self, entity: &Entity, value: &[u8], fixed: usize) -> Replacement {
        let (kept, rest) = value.split_at(fixed.min(value.len()));
        if rest.iter().filter(|b| b.is_ascii_alphanumeric()).count() < FORM_MIN_BYTES {
            return Replacement::Placeholder;
        }
        let mut out = kept.to_vec();
        let mut block = [0; 32];
        for (at, &byte) in rest.iter().enumerate() {
            if at % 16 == 0 {
                let number = u32::try_from(at / 16).unwrap_or(u32::MAX);
                block = self.block(b"form", entity, value, number);
            }
            // Two bytes for one of at most 26, so that all are as good as equally likely.
            let random = u16::from_be_bytes([block[at % 16 * 2], block[at % 16 * 2 + 1]]);
            let of = |first: u8, many: u16| first + u8::try_from(random % many).unwrap_or_default();
            out.push(match byte {
                b'0'..=b'9' => of(b'0', 10),
                b'A'..=b'Z' => of(b'A', 26),
                b'a'..=b'z' | 0x80.. => of(b'a', 26),
                _ => byte,
            });
        }
        spoil(&mut out);
        if out == value { Replacement::Placeholder } else { Replacement::Text(out) }
    }
}

/// Nobody is to be charged by accident: check digits do not hold.
fn spoil(value: &mut [u8]) {
    for _ in 0..3 {
        if !check::luhn(value) && !check::iban(value) {
            return;
        }
        let Some(last) = value.iter_mut().rfind(|b| b.is_ascii_alphanumeric()) else { return };
        *last = match *last {
            b'9' => b'0',
            b'Z' => b'A',
            b'z' => b'a',
            other => other + 1,
        };
    }
}

#[cfg(test)]
mod tests;
