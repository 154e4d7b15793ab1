//! Finds where an escape could begin: blocks without such a byte are passed over.

use wide::u8x16;

use super::super::lanes::{self, BLOCK};

/// The candidates of a slice, in order.
pub(super) struct Candidates<'a> {
    raw: &'a [u8],
    base: usize,
    /// Bytes of the block at `base` that could be candidates and were not looked at.
    bits: u64,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(raw: &'a [u8]) -> Self {
        let mut found = Self { raw, base: 0, bits: 0 };
        found.load(0);
        found
    }

    /// The next candidate at or after `from`.
    #[inline]
    pub(super) fn next(&mut self, from: usize) -> Option<usize> {
        let skip = from - self.base.min(from);
        if skip >= BLOCK {
            self.load(from);
        } else {
            self.bits &= u64::MAX << skip;
        }
        loop {
            while self.bits == 0 {
                self.load(self.base + BLOCK);
                if self.base >= self.raw.len() {
                    return None;
                }
            }
            let at = self.base + self.bits.trailing_zeros() as usize;
            self.bits &= self.bits - 1;
            match self.raw[at..] {
                // What comes after the last byte is not known yet.
                [_] => return Some(at),
                [byte, next, ..] if is_candidate(byte, next) => return Some(at),
                _ => {}
            }
        }
    }

    /// Goes to the first block at or after `at` in which something introduces an escape.
    fn load(&mut self, mut at: usize) {
        self.bits = 0;
        while at < self.raw.len() {
            // Behind the end stand zeros, which would introduce something.
            let inside = lanes::lowest(self.raw.len() - at);
            self.bits = inside & lanes::at(self.raw, at, |block| lanes::bits(block, introduces));
            if self.bits != 0 {
                break;
            }
            at += BLOCK;
        }
        self.base = at;
    }
}

/// The bytes with which an escape can begin.
fn introduces(bytes: u8x16) -> u8x16 {
    let control = lanes::is(bytes, 0) | lanes::is(bytes, b'\r') | lanes::is(bytes, 0x1b);
    let mark = lanes::is(bytes, b'\\') | lanes::is(bytes, b'%') | lanes::is(bytes, b'&');
    let found = control | mark | lanes::is(bytes, b'=');
    // Most text is ASCII.
    if bytes.to_bitmask() == 0 { found } else { found | foreign(bytes) }
}

/// The same as [`leads`].
fn foreign(bytes: u8x16) -> u8x16 {
    let none = lanes::within(bytes, 0xe4, 0xe9) | lanes::within(bytes, 0xeb, 0xee);
    lanes::within(bytes, 0xc2, 0xf3) & !(none | lanes::is(bytes, 0xc3))
}

/// Whether an escape can begin with these two bytes.
fn is_candidate(b: u8, n: u8) -> bool {
    let letter = (n | 0x20).wrapping_sub(b'a');
    let digit = n.wrapping_sub(b'0') <= 9;
    (b == b'\\')
        | ((b == b'%') & (digit | (letter <= 5) | (letter == b'u' - b'a')))
        | ((b == b'&') & ((letter < 26) | (n == b'#')))
        | ((b == b'=') & ((n.wrapping_sub(b'2') <= 5) | (n == b'\r') | (n == b'\n')))
        | (b == 0)
        | (b == b'\r')
        | (b == 0x1b)
        | leads(b)
}

/// Whether a character that is not its own normal form can begin with this byte. Most of the
/// accented letters of Europe, and the ideographs, do not.
pub(super) fn leads(b: u8) -> bool {
    (b >= 0xc2) & (b != 0xc3) & (b.wrapping_sub(0xe4) > 5) & (b.wrapping_sub(0xeb) > 3) & (b < 0xf4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_an_escape_is_said_twice_alike() {
        for byte in 0..=255_u8 {
            let mut block = [b'a'; BLOCK];
            block[usize::from(byte) % BLOCK] = byte;
            let expected = (0..=255_u8).any(|next| is_candidate(byte, next));
            assert_eq!(lanes::bits(&block, introduces) != 0, expected, "{byte:#x}");
        }
    }
}
