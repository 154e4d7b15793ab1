//! The prefilter: one pass over the bytes that says where a match could begin.
//!
//! Every pattern and every literal gives the set of its possible first four bytes (a
//! window, folded with `| 0x20` so that case costs nothing). A bit set of their hashes
//! stays in the first-level cache; text without a window of any rule is read once, four
//! bytes a look, and goes out as it came. A hit names what to verify there.

use std::collections::BTreeMap;

/// Bytes of a window.
pub(super) const WINDOW: usize = 4;
/// Sets bit 5 of every byte: letters of both cases become one.
const FOLD: u32 = 0x2020_2020;
const FOLD_WIDE: u64 = 0x2020_2020_2020_2020;
/// 2^18 bits, 32 KiB.
const SMALL_BITS: u32 = 18;
/// 2^22 bits, 512 KiB, for thousands of exact values.
const LARGE_BITS: u32 = 22;
/// From this many windows on the larger table is taken.
const SMALL_WINDOWS: usize = 8192;

/// What to verify at a hit: an index into the masker's rules and literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A literal of an exact value.
    Literal(u32),
    /// A pattern.
    Rule(u32),
}

/// The compiled prefilter.
#[derive(Debug)]
pub(super) struct Filter {
    shift: u32,
    bits: Vec<u64>,
    /// By hash, one more than the index of the first entry in `entries`; 0 is none.
    heads: Vec<u32>,
    /// Sorted by hash: `(hash, folded window, target)`.
    entries: Vec<(u32, u32, Target)>,
    /// Which one, two and three folded bytes can begin a window.
    prefixes: [Vec<u64>; 2],
    triples: Vec<u32>,
}

impl Filter {
    /// Builds the filter from windows and what they stand for.
    pub(super) fn new(windows: &[([u8; WINDOW], Target)]) -> Self {
        let folded: BTreeMap<(u32, Target), ()> =
            windows.iter().map(|(w, target)| ((u32::from_le_bytes(*w) | FOLD, *target), ())).collect();
        let bits_log = if folded.len() < SMALL_WINDOWS { SMALL_BITS } else { LARGE_BITS };
        let shift = 32 - bits_log;
        let mut filter = Self {
            shift,
            bits: vec![0; 1 << (bits_log - 6)],
            heads: vec![0; 1 << bits_log],
            entries: Vec::with_capacity(folded.len()),
            prefixes: [vec![0; 256 / 64], vec![0; 65536 / 64]],
            triples: Vec::new(),
        };
        for (window, target) in folded.into_keys() {
            let hash = hash(window, shift);
            filter.bits[(hash >> 6) as usize] |= 1 << (hash & 63);
            filter.entries.push((hash, window, target));
            let (one, two, three) = (window & 0xff, window & 0xffff, window & 0xff_ffff);
            filter.prefixes[0][(one >> 6) as usize] |= 1 << (one & 63);
            filter.prefixes[1][(two >> 6) as usize] |= 1 << (two & 63);
            filter.triples.push(three);
        }
        filter.entries.sort_unstable();
        filter.triples.sort_unstable();
        filter.triples.dedup();
        for (index, (hash, _, _)) in (1_u32..).zip(&filter.entries) {
            let head = &mut filter.heads[*hash as usize];
            if *head == 0 {
                *head = index;
            }
        }
        filter
    }

    /// The next position at or after `from` where the hash of a window is known.
    pub(super) fn next(&self, hay: &[u8], from: usize) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        if self.shift == 32 - SMALL_BITS {
            next_in::<{ 32 - SMALL_BITS }>(&self.bits, hay, from)
        } else {
            next_in::<{ 32 - LARGE_BITS }>(&self.bits, hay, from)
        }
    }

    /// What could begin with this window.
    pub(super) fn targets(&self, window: [u8; WINDOW]) -> impl Iterator<Item = Target> + '_ {
        let window = u32::from_le_bytes(window) | FOLD;
        let hash = hash(window, self.shift);
        let head = self.heads[hash as usize] as usize;
        let found = if head == 0 { &[] } else { &self.entries[head - 1..] };
        found
            .iter()
            .take_while(move |(h, _, _)| *h == hash)
            .filter(move |(_, w, _)| *w == window)
            .map(|(_, _, target)| *target)
    }

    /// Whether these bytes, fewer than a window, can be the beginning of one.
    pub(super) fn begins(&self, tail: &[u8]) -> bool {
        let bit = |set: &[u64], at: usize| set[at >> 6] >> (at & 63) & 1 == 1;
        let fold = |b: u8| u32::from(b | 0x20);
        match *tail {
            [a] => bit(&self.prefixes[0], fold(a) as usize),
            [a, b] => bit(&self.prefixes[1], (fold(a) | fold(b) << 8) as usize),
            [a, b, c] => {
                let three = fold(a) | fold(b) << 8 | fold(c) << 16;
                self.triples.binary_search(&three).is_ok()
            }
            _ => false,
        }
    }
}

fn hash(folded: u32, shift: u32) -> u32 {
    folded.wrapping_mul(0x9e37_79b1) >> shift
}

/// Five windows a step, all taken from one load of eight bytes.
fn next_in<const SHIFT: u32>(bits: &[u64], hay: &[u8], from: usize) -> Option<usize> {
    let known = |folded: u32| -> u64 {
        let hash = folded.wrapping_mul(0x9e37_79b1) >> SHIFT;
        bits.get((hash >> 6) as usize).map_or(0, |word| word >> (hash & 63) & 1)
    };
    let window =
        |wide: u64, byte: u32| -> u32 { u32::try_from((wide >> (8 * byte)) & 0xffff_ffff).unwrap_or(0) };
    let mut at = from;
    while let Some(block) = hay.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let wide = u64::from_le_bytes(*block) | FOLD_WIDE;
        let hits = known(window(wide, 0))
            | known(window(wide, 1)) << 1
            | known(window(wide, 2)) << 2
            | known(window(wide, 3)) << 3
            | known(window(wide, 4)) << 4;
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize);
        }
        at += 5;
    }
    while let Some(block) = hay.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) {
        if known(u32::from_le_bytes(*block) | FOLD) != 0 {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_seen_and_every_beginning_known() {
        let filter = Filter::new(&[(*b"AKIA", Target::Rule(0)), (*b"akib", Target::Literal(3))]);
        for before in 0..20 {
            let mut text = vec![b'.'; before];
            text.extend_from_slice(b"akIAxx");
            assert_eq!(filter.next(&text, 0), Some(before));
            assert_eq!(filter.next(&text, before + 1), None);
        }
        assert_eq!(filter.targets(*b"akia").collect::<Vec<_>>(), [Target::Rule(0)]);
        assert_eq!(filter.targets(*b"AKIB").collect::<Vec<_>>(), [Target::Literal(3)]);
        assert_eq!(filter.targets(*b"AKIC").count(), 0);
        assert!(filter.begins(b"a") && filter.begins(b"aK") && filter.begins(b"AKI"));
        assert!(!filter.begins(b"k") && !filter.begins(b"ai") && !filter.begins(b"AKA"));
    }
}
