//! What a value looks like, whatever stands before it.

use super::super::{byteset::ByteSet, check};

/// The bytes of which a vendor makes its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Digits,
    Hex,
    Alnum,
    /// Letters, digits, `_` and `-`.
    Word,
    /// Any byte of a run.
    Token,
    Uuid,
}

const HEX: ByteSet = ByteSet::DIGIT.range(b'a', b'f').range(b'A', b'F');
const WORD: ByteSet = ByteSet::WORD.with(b"-");
/// The bytes of a run.
pub(super) const RUN: ByteSet = ByteSet::ALNUM.with(b"_+/=.~-");

impl Form {
    pub(super) fn holds(self, value: &[u8]) -> bool {
        match self {
            Self::Digits => ByteSet::DIGIT.holds(value),
            // Machines print hex in one case.
            Self::Hex => {
                HEX.holds(value) && !value.iter().any(u8::is_ascii_uppercase)
                    || HEX.holds(value) && !value.iter().any(u8::is_ascii_lowercase)
            }
            Self::Alnum => ByteSet::ALNUM.holds(value),
            Self::Word => WORD.holds(value),
            Self::Token => RUN.holds(value),
            Self::Uuid => uuid(value),
        }
    }
}

/// 8-4-4-4-12; vendors' documents show letters beyond `f`, too.
pub(super) fn uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_alphanumeric(),
        })
}

pub(super) fn hex(value: &[u8]) -> bool {
    HEX.holds(value)
}

/// A digit and a letter.
pub(super) fn mixed(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic)
}

/// Whether a value could have been drawn by a machine: entropy, and no structure of words.
pub(super) fn random(value: &[u8], bits: f64) -> bool {
    let others = value.iter().filter(|b| !b.is_ascii_alphanumeric()).count();
    // What is random has no separators at regular places, as names have.
    let longest =
        value.split(|b| !b.is_ascii_alphanumeric()).max_by_key(|part| part.len()).unwrap_or_default();
    mixed(value)
        && check::entropy(value) >= bits
        && check::scrambled(value)
        && longest.len() >= 12.min(value.len() * 3 / 4)
        && mixed(longest)
        && check::scrambled(longest)
        && others * 6 <= value.len()
        && !sequence(value)
}

/// Whether a long value of letters and digits is too dense for words, though digits are rare.
pub(super) fn dense(value: &[u8]) -> bool {
    value.len() >= 32
        && Form::Alnum.holds(value)
        && mixed(value)
        && check::entropy(value) >= 4.4
        && check::pieces(value) >= 5
        && !sequence(value)
}

/// Whether a value runs up or down for a while, as what people make up does.
pub(super) fn sequence(value: &[u8]) -> bool {
    let mut run = 0;
    let mut longest = 0;
    for pair in value.windows(2) {
        run = if pair[1].wrapping_sub(pair[0]) <= 1 || pair[0].wrapping_sub(pair[1]) == 1 {
            run + 1
        } else {
            0
        };
        longest = longest.max(run);
    }
    longest >= 6
}

/// Whether it is no placeholder.
pub(super) fn real(value: &[u8]) -> bool {
    let zeros = value.iter().filter(|b| **b == b'0').count();
    check::real(value) && check::entropy(value) > 2.0 && zeros * 3 < value.len() * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_random() {
        for words in [
            "ultraPictureBox1",
            "X25519.secret_length",
            "kubernetes-1.2.3-alpha",
            "0123456789abcdefghij",
            "SalesResults-1.2",
        ] {
            assert!(!random(words.as_bytes(), 3.0), "{words}");
        }
        for drawn in ["Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB", "951bc382db9abad29c68634761dd6e19"] {
            assert!(random(drawn.as_bytes(), 3.0), "{drawn}");
        }
        assert!(
            uuid(b"123e4567-e89b-12d3-a456-426614174000") && !uuid(b"123e4567-e89b-12d3-a456-4266141740001")
        );
        assert!(Form::Hex.holds(b"09af") && !Form::Hex.holds(b"g"));
    }
}
