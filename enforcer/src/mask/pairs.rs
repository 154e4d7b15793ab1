//! What the prefilter asks first: whether two neighbouring pairs of bytes can be a window.
//!
//! Each known window is in one of 32 buckets, and a table tells of every pair of bytes in which
//! buckets it is the first half of a window and in which the second: two bytes cost one look into
//! the table. Windows that begin alike are together, and those whose beginning goes on in many
//! ways (`sk-` and any two letters) are apart from the others: a pair is in few buckets.

/// Buckets for windows whose first half goes on in very many ways, by how many, ...
const BROAD: u32 = 6;
/// ... for those whose third byte is fixed and whose fourth is not, by the third, ...
const MIDDLE: u32 = 10;
/// ... and for all others, in their order.
const NARROW: u32 = 16;
const _: () = assert!(BROAD + MIDDLE + NARROW == 32);
/// So many ways are many: letters and digits.
const MANY: u32 = 32;
/// Of so many pairs text is made: letters, digits and a few signs. An estimate.
const USUAL: u32 = 40 * 40;
/// Of a thousand windows of text so many may get through, by that estimate; with more, the table
/// would not pay.
const THROUGH_MAX: u32 = 100;
/// How many pairs there are, and how many of folded bytes, which have one bit less.
const PAIRS: usize = 1 << 16;
const FOLDED: usize = 1 << 14;

/// Bytes of a block: four windows begin in it.
pub(super) const BLOCK: usize = 8;

/// By a pair of bytes, its buckets: as a first half in the lower bits, as a second one in the upper.
#[derive(Debug)]
pub(super) struct Pairs(Box<[u64; PAIRS]>);

impl Pairs {
    /// A table of windows that are folded as the filter does, first byte lowest; none if there is
    /// no window, or too many for it.
    pub(super) fn of(windows: impl Iterator<Item = u32> + Clone) -> Option<Self> {
        windows.clone().next()?;
        let mut ways = vec![(0, 0); FOLDED];
        for window in windows.clone() {
            let (first, [.., third, _]) = (halves(window).0, window.to_le_bytes());
            ways[first] = (ways[first].0 + 1, third);
        }
        let buckets = buckets(&ways);
        let mut folded = vec![0_u64; FOLDED];
        for window in windows {
            let (first, second) = halves(window);
            folded[first] |= 1 << buckets[first];
            folded[second] |= 1 << (32 + buckets[first]);
        }
        if through(&folded) > u64::from(THROUGH_MAX) {
            return None;
        }
        let raw: Vec<u64> = (0..=u16::MAX).map(|pair| folded[index(pair)]).collect();
        raw.into_boxed_slice().try_into().ok().map(Self)
    }

    /// The first block from an offset on in which a window can begin at one of every second position.
    /// Up to there none does; of the last bytes nothing is known.
    pub(super) fn next(&self, hay: &[u8], from: usize) -> usize {
        let at = |pair: u64| self.0[usize::try_from(pair & 0xffff).unwrap_or(0)];
        let Some((first, mut rest)) = hay.get(from..).and_then(<[u8]>::split_first_chunk) else {
            return from;
        };
        let mut before = at(u64::from(u16::from_le_bytes(*first)));
        let mut begin = from;
        while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>() {
            let block = u64::from_le_bytes(*block);
            let [one, two, three, four] = [block, block >> 16, block >> 32, block >> 48].map(at);
            let known = before & one >> 32 | one & two >> 32 | two & three >> 32 | three & four >> 32;
            if known != 0 {
                return begin;
            }
            before = four;
            begin += BLOCK;
            rest = behind;
        }
        begin
    }
}

fn halves(window: u32) -> (usize, usize) {
    let [a, b, c, d] = window.to_le_bytes();
    (index(u16::from_le_bytes([a, b])), index(u16::from_le_bytes([c, d])))
}

/// The number of a pair, the same for all that are folded to one.
fn index(pair: u16) -> usize {
    let [a, b] = pair.to_le_bytes().map(|byte| usize::from(byte & 0x1f | byte >> 1 & 0x60));
    a | b << 7
}

/// The bucket of the windows that begin with a pair, by the number of these and the third byte of
/// one of them.
fn buckets(ways: &[(u32, u8)]) -> Vec<u32> {
    let narrow: u32 = ways.iter().map(|(ways, _)| ways).filter(|ways| **ways < MANY).sum();
    let share = narrow.div_ceil(NARROW).max(1);
    let mut before = 0;
    let bucket = |&(ways, third): &(u32, u8)| match ways / MANY {
        0 => {
            let bucket = BROAD + MIDDLE + before / share;
            before += ways;
            bucket.min(31)
        }
        1 => BROAD + u32::from(third) % MIDDLE,
        many => (many.ilog2() - 1).min(BROAD - 1),
    };
    ways.iter().map(bucket).collect()
}

/// How many of a thousand windows of text get through, as if every usual pair were as frequent as
/// the next.
fn through(folded: &[u64]) -> u64 {
    let mut counts = [0_u64; 64];
    for pair in folded {
        let mut bits = *pair;
        while bits != 0 {
            counts[bits.trailing_zeros() as usize] += 1;
            bits &= bits - 1;
        }
    }
    let (firsts, seconds) = counts.split_at(32);
    let hits = firsts.iter().zip(seconds).map(|(first, second)| first * second);
    hits.sum::<u64>() * 1000 / u64::from(USUAL * USUAL)
}
