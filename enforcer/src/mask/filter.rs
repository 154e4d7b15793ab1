//! The prefilter: one pass over the bytes that says where a match could begin.
//!
//! Every pattern and every literal gives the set of its possible first five bytes, folded
//! with `| 0x20` so that case costs nothing. Two windows of four bytes stand in each: one
//! at its first byte and one at its second. So it is enough to look at every second
//! position, wherever a match begins. A Bloom filter of the windows, two bits in one word
//! for each, stays in the nearest caches; a hit names what to verify there.

use super::pairs::{self, Pairs};

/// Bytes of a beginning.
pub(super) const BEGINNING: usize = 5;
/// Bytes of a window.
pub(super) const WINDOW: usize = 4;
/// Sets bit 5 of every byte: letters of both cases become one.
const FOLD: u32 = 0x2020_2020;
/// The set has at least 2^19 bits (64 KiB), at most 2^23 (1 MiB), ...
const BITS: std::ops::RangeInclusive<u32> = 19..=23;
/// ... and else this many for a window.
const BITS_PER_WINDOW: usize = 16;
/// Entries are found by the first so many bits of their hash.
const HEAD_BITS: u32 = 16;
/// Set where a beginning's number stands with its second window.
const SECOND: u64 = 1 << 31;

/// What to verify at a hit: an index into the masker's rules and literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A literal of an exact value.
    Literal(u32),
    /// A pattern.
    Rule(u32),
    /// A value that its surroundings tell.
    Context(u32),
}

/// One window of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    window: u32,
    /// How many bytes before the window the match begins: 0 or 1.
    back: u8,
    target: Target,
}

/// The compiled prefilter.
#[derive(Debug)]
pub(super) struct Filter {
    /// Asked before the hashes, unless there are too many windows.
    pairs: Option<Pairs>,
    shift: u32,
    bits: Vec<u64>,
    /// By the first bits of a hash, the index of the first entry in `entries`.
    heads: Vec<u32>,
    /// Sorted by hash.
    entries: Vec<Entry>,
    /// Which one and two bytes can be a beginning's first as they are, and which three and four
    /// folded ones.
    ones: [u64; 4],
    twos: Vec<u64>,
    threes: Vec<u32>,
    fours: Vec<u32>,
}

/// Folds a byte as the filter does.
pub(super) fn fold(byte: u8) -> u8 {
    byte | 0x20
}

impl Filter {
    /// Builds the filter from beginnings and what they stand for, and from the first two bytes of
    /// each in the cases that it can have.
    pub(super) fn new(beginnings: &[([u8; BEGINNING], Target)], firsts: &[[u8; 2]]) -> Self {
        // Numbers are sorted and not entries: the built-in rules alone give a hundred thousand.
        let mut keys = Vec::with_capacity(2 * beginnings.len());
        let mut fours = Vec::with_capacity(beginnings.len());
        let (mut ones, mut twos) = ([0_u64; 4], vec![0_u64; 65536 / 64]);
        for first in firsts {
            set(&mut ones, first[0].into());
            set(&mut twos, u16::from_le_bytes(*first));
        }
        for (index, (beginning, _)) in (0_u64..).zip(beginnings) {
            let [a, b, c, d, e] = beginning.map(|byte| u32::from(fold(byte)));
            let first = a | b << 8 | c << 16 | d << 24;
            keys.push(u64::from(spread(first)) << 32 | index);
            keys.push(u64::from(spread(b | c << 8 | d << 16 | e << 24)) << 32 | SECOND | index);
            fours.push(first);
        }
        keys.sort_unstable();
        fours.sort_unstable();
        fours.dedup();
        let mut threes: Vec<_> = fours.iter().map(|four| four & 0xff_ffff).collect();
        threes.sort_unstable();
        threes.dedup();
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let (beginning, target) = &beginnings[(key & (SECOND - 1)) as usize];
            let back = u8::from(key & SECOND != 0);
            let [a, b, c, d, e] = beginning.map(fold);
            let window = u32::from_le_bytes(if back == 0 { [a, b, c, d] } else { [b, c, d, e] });
            entries.push(Entry { window, back, target: *target });
        }
        entries.dedup();
        let wanted = (entries.len() * BITS_PER_WINDOW).next_power_of_two().trailing_zeros();
        let bits_log = wanted.clamp(*BITS.start(), *BITS.end());
        let shift = 32 - bits_log;
        let mut bits = vec![0; 1 << (bits_log - 6)];
        let mut heads = Vec::with_capacity((1 << HEAD_BITS) + 1);
        for (index, entry) in (0_u32..).zip(&entries) {
            let hash = spread(entry.window) >> shift;
            bits[(hash >> 6) as usize] |= 1 << (hash & 63) | 1 << second_bit(entry.window);
            heads.resize(heads.len().max(head(entry.window) + 1), index);
        }
        heads.resize((1 << HEAD_BITS) + 1, u32::try_from(entries.len()).unwrap_or(u32::MAX));
        let pairs = Pairs::of(entries.iter().map(|entry| entry.window));
        Self { pairs, shift, bits, heads, entries, ones, twos, threes, fours }
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next of every second position from `from` on where the hash of a window is known.
    pub(super) fn next(&self, hay: &[u8], from: usize) -> Option<usize> {
        match self.shift {
            13 => self.next_in::<13>(hay, from),
            12 => self.next_in::<12>(hay, from),
            11 => self.next_in::<11>(hay, from),
            10 => self.next_in::<10>(hay, from),
            _ => self.next_in::<9>(hay, from),
        }
    }

    /// Four windows a step.
    fn next_in<const SHIFT: u32>(&self, hay: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            if let Some(pairs) = &self.pairs {
                at = pairs.next(hay, at);
            }
            let Some(block) = hay.get(at..).and_then(<[u8]>::first_chunk) else { break };
            let hits = known_in::<SHIFT>(&self.bits, block);
            if hits != 0 {
                return Some(at + hits.trailing_zeros() as usize);
            }
            at += pairs::BLOCK;
        }
        while let Some(window) = hay.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) {
            if known::<SHIFT>(&self.bits, u32::from_le_bytes(*window) | FOLD) != 0 {
                return Some(at);
            }
            at += 2;
        }
        None
    }

    /// What could begin at `hay[at]`, or one byte before it: how many bytes before, and what.
    pub(super) fn targets(&self, hay: &[u8], at: usize) -> impl Iterator<Item = (usize, Target)> + '_ {
        let window = hay.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>);
        let window = window.map(|window| u32::from_le_bytes(*window) | FOLD);
        let found = window.map_or(&[][..], |window| {
            let head = head(window);
            let (from, to) = (self.heads[head] as usize, self.heads[head + 1] as usize);
            &self.entries[from..to]
        });
        let window = window.unwrap_or_default();
        let entries = found.iter().filter(move |entry| entry.window == window);
        entries.map(|entry| (usize::from(entry.back), entry.target))
    }

    /// What could begin with these bytes, of which there are at least four.
    pub(super) fn beginning(&self, hay: &[u8]) -> impl Iterator<Item = Target> + '_ {
        self.targets(hay, 0).filter(|(back, _)| *back == 0).map(|(_, target)| target)
    }

    /// Whether these bytes, fewer than a beginning, can be the first of one.
    pub(super) fn begins(&self, tail: &[u8]) -> bool {
        let two = |a: u8, b: u8| has(&self.twos, u16::from_le_bytes([a, b]));
        let folded = |bytes: [u8; WINDOW]| u32::from_le_bytes(bytes.map(fold));
        match *tail {
            [a] => has(&self.ones, a.into()),
            [a, b] => two(a, b),
            [a, b, c] => two(a, b) && self.threes.binary_search(&(folded([a, b, c, 0]) & 0xff_ffff)).is_ok(),
            [a, b, c, d] => two(a, b) && self.fours.binary_search(&folded([a, b, c, d])).is_ok(),
            _ => false,
        }
    }
}

fn set(bits: &mut [u64], number: u16) {
    bits[usize::from(number >> 6)] |= 1 << (number & 63);
}

fn has(bits: &[u64], number: u16) -> bool {
    bits[usize::from(number >> 6)] >> (number & 63) & 1 == 1
}

/// Of two windows never the same; its first bits are the hash.
fn spread(folded: u32) -> u32 {
    folded.wrapping_mul(0x9e37_79b1)
}

/// Which other bit of the same word stands for a window.
fn second_bit(folded: u32) -> u32 {
    folded.wrapping_mul(0x85eb_ca6b) >> 26
}

fn head(folded: u32) -> usize {
    (spread(folded) >> (32 - HEAD_BITS)) as usize
}

/// Whether the hash of a window is known: 1 if it is.
#[inline]
fn known<const SHIFT: u32>(bits: &[u64], folded: u32) -> u64 {
    let hash = spread(folded) >> SHIFT;
    let both = |word: &u64| word >> (hash & 63) & word >> second_bit(folded) & 1;
    bits.get((hash >> 6) as usize).map_or(0, both)
}

/// The same for the windows at every second position of a block, a bit each.
#[inline]
fn known_in<const SHIFT: u32>(bits: &[u64], block: &[u8; pairs::BLOCK + 2]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j] = *block;
    let windows = [[a, b, c, d], [c, d, e, f], [e, f, g, h], [g, h, i, j]];
    let [one, two, three, four] =
        windows.map(|window| known::<SHIFT>(bits, u32::from_le_bytes(window) | FOLD));
    one | two << 2 | three << 4 | four << 6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_beginning_is_seen_at_every_position() {
        let beginnings = [(*b"AKIA1", Target::Rule(0)), (*b"akib2", Target::Literal(3))];
        let filter = Filter::new(&beginnings, &[*b"AK", *b"ak"]);
        for before in 0..20 {
            let mut text = vec![b'.'; before];
            text.extend_from_slice(b"akIA1x");
            let hit = filter.next(&text, 0).unwrap();
            let found: Vec<_> = filter.targets(&text, hit).collect();
            assert_eq!(found, [(hit - before, Target::Rule(0))], "{before}");
        }
        assert_eq!(filter.beginning(b"AKIB2").collect::<Vec<_>>(), [Target::Literal(3)]);
        assert_eq!(filter.beginning(b"AKIC2").count(), 0);
        for (tail, begins) in [
            ("a", true),
            ("aK", false),
            ("AK", true),
            ("AKI", true),
            ("akib", true),
            ("Akib", false),
            ("k", false),
        ] {
            assert_eq!(filter.begins(tail.as_bytes()), begins, "{tail}");
        }
        assert!(!filter.begins(b"ai") && !filter.begins(b"AKA") && !filter.begins(b"akic"));
    }

    #[test]
    fn a_filter_of_nothing_has_no_table() {
        let filter = Filter::new(&[], &[]);
        assert!(filter.is_empty() && filter.pairs.is_none());
        assert_eq!(filter.next(b"AKIA1", 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]
        #[test]
        fn every_window_at_a_second_position_is_found(
            few in prop::collection::vec("[a-z_:/$0-9-]{5}", 1..30),
            many in any::<bool>(),
            parts in prop::collection::vec((any::<prop::sample::Index>(), 0..5_usize, any::<bool>(), "[ -~]{0,9}"), 0..60),
            from in 0..40_usize,
        ) {
            let mut texts = few.clone();
            // So many that pairs do not help, and some that go on with any letter.
            let letters = || (b'a'..=b'z').map(char::from);
            texts.extend(letters().flat_map(|a| letters().map(move |b| format!("sk-{a}{b}"))));
            if many {
                let digit = |n: u32, at: u32| char::from_digit(spread(n) >> (6 * at) & 31, 32).unwrap();
                texts.extend((0..20_000).map(|n| (0..5).map(|at| digit(n, at)).collect()));
            }
            let beginnings: Vec<_> = texts
                .iter()
                .filter_map(|text| Some((*text.as_bytes().first_chunk()?, Target::Rule(0))))
                .collect();
            let filter = Filter::new(&beginnings, &[]);
            prop_assert_eq!(filter.pairs.is_none(), many);
            let windows: std::collections::HashSet<Vec<u8>> = beginnings
                .iter()
                .flat_map(|(b, _)| b.windows(WINDOW).map(|w| w.iter().map(|b| fold(*b)).collect()))
                .collect();
            let mut hay = Vec::new();
            for (which, cut, upper, between) in &parts {
                let text = which.get(&texts);
                let text = &text[..text.len() - cut];
                hay.extend(if *upper { text.to_ascii_uppercase() } else { text.to_owned() }.bytes());
                hay.extend(between.bytes());
            }
            let (mut at, mut found) = (from, Vec::new());
            while let Some(hit) = filter.next(&hay, at) {
                prop_assert!(hit >= at && (hit - at) % 2 == 0);
                if filter.targets(&hay, hit).next().is_some() {
                    found.push(hit);
                }
                at = hit + 2;
            }
            let known = |at: &usize| {
                hay.get(*at..at + WINDOW).is_some_and(|w| windows.contains(&w.iter().map(|b| fold(*b)).collect::<Vec<_>>()))
            };
            prop_assert_eq!(found, (from..hay.len()).step_by(2).filter(known).collect::<Vec<_>>());
        }
    }
}
