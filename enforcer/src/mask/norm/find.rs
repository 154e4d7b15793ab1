//! Finds where an escape could begin: one look at every byte and the one after it, in
//! blocks that the compiler makes vectors of.

/// Bytes of a block.
const BLOCK: usize = 32;
/// Multiplied with eight bytes that are 0 or 1, it gathers them in the topmost byte.
const GATHER: u64 = 0x0102_0408_1020_4080;

/// The candidates of a slice, in order.
pub(super) struct Candidates<'a> {
    raw: &'a [u8],
    base: usize,
    /// Candidates of the block at `base` that were not given yet.
    bits: u32,
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
            self.bits &= u32::MAX << skip;
        }
        while self.bits == 0 {
            self.load(self.base + BLOCK);
            if self.base >= self.raw.len() {
                return None;
            }
        }
        let at = self.base + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(at)
    }

    /// Goes to the first block at or after `at` that is not clean.
    fn load(&mut self, at: usize) {
        let mut at = at;
        self.bits = 0;
        while let Some(pair) = self.raw.get(at..).and_then(<[u8]>::first_chunk::<{ BLOCK + 1 }>) {
            if !is_clean(pair) {
                self.bits = candidates(pair);
                if self.bits != 0 {
                    break;
                }
            }
            at += BLOCK;
        }
        self.base = at;
        if self.bits == 0 && at < self.raw.len() {
            let rest = &self.raw[at..];
            let mut pair = [b'a'; BLOCK + 1];
            pair[..rest.len().min(BLOCK + 1)].copy_from_slice(&rest[..rest.len().min(BLOCK + 1)]);
            self.bits = candidates(&pair);
            // What comes after the last byte is not known yet.
            if let Some(last) = rest.len().checked_sub(1)
                && last < BLOCK
                && introduces(rest[last])
            {
                self.bits |= 1 << last;
            }
        }
    }
}

/// Whether a block holds nothing that could be a candidate, at a quick look.
fn is_clean(pair: &[u8; BLOCK + 1]) -> bool {
    let (here, next) = halves(pair);
    let mut found = 0_u8;
    for i in 0..BLOCK {
        let (b, n) = (here[i], next[i]);
        let special = ((b.wrapping_sub(0x20) >= 0x60) & (b != b'\n') & (b != b'\t'))
            | (b == b'\\')
            | (b == b'%')
            | (b == b'&')
            | ((b == b'=') & ((n.wrapping_sub(b'2') <= 5) | (n < 0x0e)));
        found |= u8::from(special);
    }
    found == 0
}

/// The candidates of a block, a bit each.
fn candidates(pair: &[u8; BLOCK + 1]) -> u32 {
    let (here, next) = halves(pair);
    let mut flags = [0_u8; BLOCK];
    for i in 0..BLOCK {
        flags[i] = u8::from(is_candidate(here[i], next[i]));
    }
    let mut bits = 0;
    for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        let gathered = u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
        bits |= u32::from(gathered.to_le_bytes()[0]) << (8 * index);
    }
    bits
}

fn halves(pair: &[u8; BLOCK + 1]) -> (&[u8; BLOCK], &[u8; BLOCK]) {
    let (Some(here), Some(next)) = (pair.first_chunk(), pair.last_chunk()) else {
        return (&[0; BLOCK], &[0; BLOCK]);
    };
    (here, next)
}

/// Whether an escape can begin with these two bytes. Without branches, for vectors.
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

/// Whether an escape can begin with this byte.
fn introduces(b: u8) -> bool {
    matches!(b, b'\\' | b'%' | b'&' | b'=' | 0 | b'\r' | 0x1b) || leads(b)
}

/// Whether a character that is not its own normal form can begin with this byte. Most of the
/// accented letters of Europe, and the ideographs, do not.
pub(super) fn leads(b: u8) -> bool {
    (b >= 0xc2) & (b != 0xc3) & (b.wrapping_sub(0xe4) > 5) & (b.wrapping_sub(0xeb) > 3) & (b < 0xf4)
}
