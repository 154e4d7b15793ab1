//! The first bytes of a run: whether it could hold a secret, and where in it one could begin.

use super::super::lanes;

/// A name within the run itself (`token=...`) ends within this many bytes.
pub(super) const NAME_MAX: usize = lanes::BLOCK;
/// So much of the run stands at least behind such a name.
pub(super) const NAME_AHEAD: usize = 12;

/// A run, and which of its first bytes are digits and which can stand before a value in it.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    run: &'a [u8],
    digits: u64,
    equals: u64,
    others: u64,
}

impl<'a> Head<'a> {
    /// Of the first `length` bytes of a text.
    pub(super) fn of(text: &'a [u8], length: usize) -> Self {
        let other = |b| lanes::is(b, b'-') | lanes::is(b, b'_') | lanes::is(b, b'.');
        let run = &text[..length];
        let inside = lanes::lowest(length);
        lanes::at(text, 0, |block| Self {
            run,
            digits: inside & lanes::bits(block, |b| lanes::within(b, b'0', b'9')),
            equals: inside & lanes::bits(block, |b| lanes::is(b, b'=')),
            others: inside & lanes::bits(block, other),
        })
    }

    /// Whether the run could hold a secret at all: cheap, since every long word comes here.
    pub(super) fn plausible(self) -> bool {
        let digits = self.digits != 0 || self.run.iter().skip(NAME_MAX).any(u8::is_ascii_digit);
        digits || (self.run.len() >= 20 && !self.run.iter().any(|b| matches!(b, b'/' | b'.' | b'-')))
    }

    /// Where the first `=` is.
    pub(super) fn equals(self) -> Option<usize> {
        (self.equals != 0).then_some(self.equals.trailing_zeros() as usize)
    }

    /// Where a value can begin: at the beginning, behind an `=`, or behind a word for a credential
    /// and a dash.
    pub(super) fn starts(self) -> impl Iterator<Item = usize> {
        let mut bits = self.equals | self.others;
        let behind = move || {
            while bits != 0 {
                let at = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let begins = match self.equals >> at & 1 {
                    1 => at + 8 < self.run.len(),
                    _ => at + NAME_AHEAD < self.run.len() && credential_ends(&self.run[..at]),
                };
                if begins {
                    return Some(at + 1);
                }
            }
            None
        };
        std::iter::once(0).chain(std::iter::from_fn(behind))
    }
}

/// Whether a word for a credential ends here.
pub(super) fn credential_ends(text: &[u8]) -> bool {
    let word: &[u8] = match text.last().map(u8::to_ascii_lowercase) {
        Some(b'y') => b"key",
        Some(b'n') => b"token",
        Some(b't') => b"secret",
        Some(b's') => b"access",
        Some(b'e') => b"private",
        Some(b'x') => b"fastforex",
        Some(b'r') => b"refiner",
        _ => return false,
    };
    text.len() >= word.len() && text[text.len() - word.len()..].eq_ignore_ascii_case(word)
}
