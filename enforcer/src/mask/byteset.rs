//! Sets of bytes: what a class of a pattern, or a condition on a neighbour, comes down to.

/// A set of bytes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// No byte.
    pub const NONE: Self = Self([0; 4]);
    /// `0` to `9`.
    pub const DIGIT: Self = Self::NONE.range(b'0', b'9');
    /// `A` to `Z`.
    pub const UPPER: Self = Self::NONE.range(b'A', b'Z');
    /// `a` to `z`.
    pub const LOWER: Self = Self::NONE.range(b'a', b'z');
    /// Letters of both cases.
    pub const LETTER: Self = Self::UPPER.or(Self::LOWER);
    /// Letters and digits.
    pub const ALNUM: Self = Self::LETTER.or(Self::DIGIT);
    /// Letters, digits and `_`.
    pub const WORD: Self = Self::ALNUM.with(b"_");
    /// What token formats are made of: words with `-` and `.`.
    pub const TOKEN: Self = Self::WORD.with(b"-.");
    /// The digits of standard base64.
    pub const BASE64: Self = Self::ALNUM.with(b"+/");

    /// The set with the bytes from `first` to `last`.
    #[must_use]
    pub const fn range(mut self, first: u8, last: u8) -> Self {
        let mut byte = first;
        loop {
            self.0[(byte >> 6) as usize] |= 1 << (byte & 63);
            if byte >= last {
                return self;
            }
            byte += 1;
        }
    }

    /// The set with each of these bytes.
    #[must_use]
    pub const fn with(mut self, bytes: &[u8]) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.0[(bytes[at] >> 6) as usize] |= 1 << (bytes[at] & 63);
            at += 1;
        }
        self
    }

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]])
    }

    /// Every byte that is not in the set.
    #[must_use]
    pub const fn not(self) -> Self {
        let a = self.0;
        Self([!a[0], !a[1], !a[2], !a[3]])
    }

    /// Whether a byte is in it.
    #[inline]
    pub const fn has(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] >> (byte & 63) & 1 == 1
    }

    /// Whether every one of the bytes is in it.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|b| self.has(*b))
    }

    /// Whether no byte is in both.
    pub const fn apart(self, other: Self) -> bool {
        let (a, b) = (self.0, other.0);
        a[0] & b[0] == 0 && a[1] & b[1] == 0 && a[2] & b[2] == 0 && a[3] & b[3] == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        assert!(ByteSet::TOKEN.holds(b"aZ9_-.") && !ByteSet::TOKEN.has(b'~'));
        assert!(ByteSet::DIGIT.apart(ByteSet::LETTER) && !ByteSet::WORD.apart(ByteSet::DIGIT));
        assert!(ByteSet::DIGIT.not().has(0xff) && !ByteSet::DIGIT.not().has(b'5'));
        assert!((0..=255).all(|b| ByteSet::NONE.range(0, 255).has(b)));
    }
}
