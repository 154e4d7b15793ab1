//! Runs of token characters in a normal form: values that their surroundings tell, and
//! what may be coded in them.
//!
//! Text is skipped by leaps: of a block, one bit for each byte says where twelve token
//! characters stand together, and near the end of the bytes at hand a run of twelve cannot hide
//! between two bytes that are eleven apart and no token characters.

use super::{
    coded::{Coded, Coding, Start},
    context::{LOOK_BEHIND, RUN_MAX, RUN_MIN},
    error::MaskError,
    filter::Target,
    level::{Budget, tidy},
    masker::UNKNOWN_INDEX,
    scan::{Found, View},
    unknown::{UNKNOWN_MAX_BYTES, looks_like_credential},
};

/// What has to be known of the text behind a run that nothing names.
const AFTER_BYTES: usize = 16;

/// What a byte can be a part of.
const TOKEN: u8 = 1;
const BASE64: u8 = 2;
const HEX: u8 = 4;
const BASE32: u8 = 8;
/// Stands between the parts of a path or a name, before which something coded can begin.
const BETWEEN: u8 = 16;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = index as u8;
        table[index] = match byte {
            b'0' | b'1' | b'8' | b'9' | b'a'..=b'f' => TOKEN | BASE64 | HEX,
            b'2'..=b'7' | b'A'..=b'F' => TOKEN | BASE64 | HEX | BASE32,
            b'G'..=b'Z' => TOKEN | BASE64 | BASE32,
            b'g'..=b'z' => TOKEN | BASE64,
            b'+' | b'/' | b'-' | b'_' => TOKEN | BASE64 | BETWEEN,
            b'=' | b'.' | b'~' => TOKEN,
            _ => 0,
        };
        index += 1;
    }
    table
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Where the search for runs stands.
#[derive(Debug)]
pub(super) struct Runs {
    /// Position from which runs were not looked at.
    at: u64,
    /// Up to here there is nothing but one run from there on, which is not measured again for
    /// each chunk.
    known: u64,
    /// Position from which nothing coded was looked for.
    looked: u64,
    coded: Vec<Coded>,
}

/// A run in the bytes at hand.
#[derive(Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    /// It may go on in the next chunk.
    open: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self::at(0)
    }
}

impl Runs {
    pub(super) fn at(position: u64) -> Self {
        Self { at: position, known: position, looked: position, coded: Vec::new() }
    }

    pub(super) fn close(self, budget: &mut Budget) {
        for coded in self.coded {
            coded.close(budget);
        }
    }

    pub(super) fn gathers(&self) -> bool {
        self.coded.iter().any(Coded::gathers)
    }

    /// Gives memory back that is not needed to wait for more, and says how much is.
    pub(super) fn tidy(&mut self) -> usize {
        let coded: usize = self.coded.iter_mut().map(Coded::tidy).sum();
        tidy(&mut self.coded) + coded
    }

    /// Looks at what is new, and says up to which position it is decided.
    pub(super) fn advance(
        &mut self,
        view: &View<'_>,
        depth: u8,
        budget: &mut Budget,
        out: &mut Vec<Found>,
    ) -> Result<u64, MaskError> {
        let mut decided = view.end();
        let mut from = view.offset(self.at);
        self.at = view.end();
        let over = self.decode(view, 0, budget, &mut decided, out)?;
        let mut reach = view.offset(std::mem::replace(&mut self.known, view.end()));
        while let Some(run) = next(view, from, reach) {
            reach = 0;
            let at = self.at;
            if let Some(hold) = self.context(view, run, depth, out)? {
                decided = decided.min(view.base + hold as u64);
            }
            let known = self.coded.len();
            if let Some(hold) = self.coded(view, run, depth, budget)? {
                decided = decided.min(view.base + hold as u64);
                self.at = self.at.min(self.looked);
            }
            if self.at < at {
                self.known = view.base + run.end as u64;
            }
            // What ends with its run is open no more when the next one comes.
            for index in self.decode(view, known, budget, &mut decided, out)?.into_iter().rev() {
                self.coded.remove(index).close(budget);
            }
            from = run.end;
        }
        for index in over.into_iter().rev() {
            self.coded.remove(index).close(budget);
        }
        Ok(decided)
    }

    /// Decodes what is new in the runs from `first` on, and gives those that have ended.
    #[inline]
    fn decode(
        &mut self,
        view: &View<'_>,
        first: usize,
        budget: &mut Budget,
        decided: &mut u64,
        out: &mut Vec<Found>,
    ) -> Result<Vec<usize>, MaskError> {
        if first >= self.coded.len() {
            return Ok(Vec::new());
        }
        self.decode_some(view, first, budget, decided, out)
    }

    /// The same where there are such runs: rarely, so that it is not a part of those who ask.
    #[cold]
    #[inline(never)]
    fn decode_some(
        &mut self,
        view: &View<'_>,
        first: usize,
        budget: &mut Budget,
        decided: &mut u64,
        out: &mut Vec<Found>,
    ) -> Result<Vec<usize>, MaskError> {
        let mut over = Vec::new();
        for (index, coded) in self.coded.iter_mut().enumerate().skip(first) {
            match coded.advance(view, budget, out)? {
                Some(hold) => *decided = hold.min(*decided),
                None => over.push(index),
            }
        }
        Ok(over)
    }

    /// Asks what stands around a run. Gives from where it has to wait if that is not known yet.
    fn context(
        &mut self,
        view: &View<'_>,
        run: Run,
        depth: u8,
        out: &mut Vec<Found>,
    ) -> Result<Option<usize>, MaskError> {
        let Some(contexts) = &view.plan.contexts else { return Ok(None) };
        let data = view.data;
        // A run that goes on from what is decided was looked at before.
        let goes_on = run.start.checked_sub(1).is_some_and(|at| is(data[at], TOKEN));
        let length = run.end - run.start;
        if goes_on || length > RUN_MAX {
            return Ok(None);
        }
        let entropy = view.plan.wants(UNKNOWN_INDEX);
        let before = &data[run.start.saturating_sub(LOOK_BEHIND)..run.start];
        let more = entropy && !view.last && run.end + AFTER_BYTES > data.len();
        let incomplete = run.open || more;
        if incomplete {
            let begun = &data[run.start..run.end];
            let whole = entropy && length <= UNKNOWN_MAX_BYTES;
            if !whole && !contexts.expects(before, begun) {
                return Ok(None);
            }
            // Looked at again with more of it; it may go out up to where a value could begin.
            self.at = self.at.min(view.base + run.start as u64);
            let hold = if whole { Some(0) } else { contexts.hold(before, begun) };
            return Ok(hold.map(|from| run.start + from));
        }
        let after = &data[run.end..data.len().min(run.end + AFTER_BYTES)];
        if length >= RUN_MIN
            && let Some(hit) = contexts.judge(before, &data[run.start..run.end], &after[..after.len().min(1)])
            && view.plan.wants(hit.rule)
        {
            let position = |at: usize| view.base + (run.start + at) as u64;
            let target = Target::Context(u32::from(hit.rule));
            out.push(view.found(position(hit.from), position(hit.to), target)?);
        }
        // All that a coding holds is judged where the coding stands, with its name.
        let text = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~');
        let ends = data.get(run.end).map_or(view.last, |b| !text(b));
        let alone = depth > 0 && view.base + run.start as u64 == 0 && ends;
        if entropy && !alone && looks_like_credential(before, &data[run.start..run.end], after) {
            let target = Target::Context(u32::from(UNKNOWN_INDEX));
            let [from, to] = [run.start, run.end].map(|at| view.base + at as u64);
            out.push(view.found(from, to, target)?);
        }
        Ok(None)
    }

    /// Begins to decode where a run looks coded. Gives where it may do so with more of it.
    fn coded(
        &mut self,
        view: &View<'_>,
        run: Run,
        depth: u8,
        budget: &mut Budget,
    ) -> Result<Option<usize>, MaskError> {
        let from = run.start.max(view.offset(self.looked));
        // What is looked at again for what stands around it was looked through before.
        if !run.open && from < run.end {
            self.coded_in(view, Run { start: from, ..run }, depth, budget)?;
        } else if run.open {
            let mut before = from.checked_sub(1).map_or(0, |at| view.data[at]);
            for (at, &byte) in view.data.iter().enumerate().take(run.end).skip(from) {
                let starts = starts(before, byte);
                before = byte;
                for coding in Coding::ALL.into_iter().filter(|coding| starts & coding.class() != 0) {
                    if self.coded_at(view, run, at, coding, (depth, budget))? {
                        self.looked = view.base + at as u64;
                        return Ok(Some((at + coding.free_digits()).min(run.end)));
                    }
                }
            }
        }
        self.looked = self.looked.max(view.base + run.end as u64);
        Ok(None)
    }

    /// The same in a run that has ended, of which all is known: what is too short to have been
    /// coded is passed over by leaps.
    fn coded_in(
        &mut self,
        view: &View<'_>,
        run: Run,
        depth: u8,
        budget: &mut Budget,
    ) -> Result<(), MaskError> {
        let text = &view.data[..run.end];
        let behind = |at: usize| at.checked_sub(1).map_or(0, |at| text[at]);
        let last = Coding::SHORTEST - 1;
        let mut before = behind(run.start);
        for at in run.start..run.end.saturating_sub(last) {
            let starts = starts(before, text[at]);
            before = text[at];
            if starts & BASE64 != 0 && is(text[at + last], BASE64) {
                self.coded_at(view, run, at, Coding::Base64, (depth, budget))?;
            }
        }
        for coding in [Coding::Hex, Coding::Base32] {
            let (class, last) = (coding.class(), coding.wanted() - 1);
            let mut at = run.start;
            while let Some(&byte) = text.get(at + last) {
                if !is(byte, class) {
                    at += last + 1;
                    continue;
                }
                let digits = |b: &&u8| is(**b, class);
                let begin = at + last - text[at..at + last].iter().rev().take_while(digits).count();
                let end = at + last + text[at + last..].iter().take_while(digits).count();
                if end - begin > last && !is(behind(begin), class) {
                    self.coded_at(view, run, begin, coding, (depth, budget))?;
                }
                at = end;
            }
        }
        Ok(())
    }

    /// Begins to decode at a byte where a coding can begin, if that looks coded; true if it cannot
    /// be told yet.
    fn coded_at(
        &mut self,
        view: &View<'_>,
        run: Run,
        at: usize,
        coding: Coding,
        (depth, budget): (u8, &mut Budget),
    ) -> Result<bool, MaskError> {
        let position = view.base + at as u64;
        if self.coded.iter().any(|coded| coded.covers(coding, position)) {
            return Ok(false);
        }
        let text = &view.data[at..run.end];
        match coding.start(text, run.open) {
            Start::No => {}
            Start::Unknown => return Ok(true),
            Start::Yes => {
                let digits = text.iter().take_while(|b| coding.value(**b).is_some());
                self.coded.push(Coded::new(coding, position, digits.count(), depth, budget)?);
            }
        }
        Ok(false)
    }
}

/// In which codings something can begin at a byte.
fn starts(before: u8, byte: u8) -> u8 {
    let (before, byte) = (CLASSES[usize::from(before)], CLASSES[usize::from(byte)]);
    let fresh = byte & !before & (BASE64 | HEX | BASE32);
    // Behind a slash, a dash, ... something in base64 may begin, too.
    fresh | if before & BETWEEN != 0 { byte & BASE64 } else { 0 }
}

/// The next run that is long enough, or reaches the end of the bytes at hand. Up to `reach`
/// there is nothing but one that begins at `from`.
fn next(view: &View<'_>, from: usize, reach: usize) -> Option<Run> {
    let data = view.data;
    let mut at = from;
    if reach > from {
        let end = reach + data[reach..].iter().take_while(|byte| is(**byte, TOKEN)).count();
        let open = end == data.len() && !view.last;
        if end - from >= RUN_MIN || open {
            return Some(Run { start: from, end, open });
        }
        at = (end + 1).min(data.len());
    }
    at = leap(data, at);
    while let Some(&byte) = data.get(at + RUN_MIN - 1) {
        if !is(byte, TOKEN) {
            at += RUN_MIN;
            continue;
        }
        let here = at + RUN_MIN - 1;
        let start = here - data[at..here].iter().rev().take_while(|byte| is(**byte, TOKEN)).count();
        let end = here + data[here..].iter().take_while(|byte| is(**byte, TOKEN)).count();
        let open = end == data.len() && !view.last;
        if end - start >= RUN_MIN || open {
            return Some(Run { start, end, open });
        }
        at = leap(data, end + 1);
    }
    // The last run, however short, may go on.
    let at = at.min(data.len());
    let short = data[at..].iter().rev().take_while(|byte| is(**byte, TOKEN)).count();
    let end = data.len();
    (!view.last && short > 0).then_some(Run { start: end - short, end, open: true })
}

/// Bytes that [`leap`] looks at at once.
const BLOCK: usize = 64;

/// Passes over blocks in which no long run begins; `at` itself is no part of a run that began
/// before it, or all before it is out. The last bytes may be left to others.
fn leap(data: &[u8], mut at: usize) -> usize {
    while let Some(block) = data.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        let one = tokens(block);
        // Where so many of them stand together, the bit of the first.
        let two = one & one >> 1;
        let four = two & two >> 2;
        let twelve = four & four >> 4 & four >> 8;
        if twelve != 0 {
            return at + twelve.trailing_zeros() as usize;
        }
        // What begins behind that has not been seen whole.
        at += BLOCK + 1 - RUN_MIN;
    }
    at
}

const _: () = assert!(RUN_MIN == 12);

/// Which bytes are token characters, a bit each. Without branches, for vectors.
fn tokens(block: &[u8; BLOCK]) -> u64 {
    /// Multiplied with eight bytes that are 0 or 1, it gathers them in the topmost byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut flags = [0_u8; BLOCK];
    for (flag, b) in flags.iter_mut().zip(block) {
        let letter = (b | 0x20).wrapping_sub(b'a') < 26;
        let digit = b.wrapping_sub(b'-') <= b'9' - b'-';
        let other = (*b == b'+') | (*b == b'=') | (*b == b'_') | (*b == b'~');
        *flag = u8::from(letter | digit | other);
    }
    let gathered = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
    let eights = flags.as_chunks::<8>().0.iter();
    eights.enumerate().fold(0, |bits, (index, eight)| bits | gathered(eight) << (8 * index))
}

impl Coding {
    fn class(self) -> u8 {
        match self {
            Self::Base64 => BASE64,
            Self::Hex => HEX,
            Self::Base32 => BASE32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_token_character_is_is_said_twice_alike() {
        for byte in 0..=255_u8 {
            let mut block = [b' '; BLOCK];
            block[usize::from(byte) % BLOCK] = byte;
            let expected = u64::from(is(byte, TOKEN)) << (usize::from(byte) % BLOCK);
            assert_eq!(tokens(&block), expected, "{byte}");
        }
    }

    proptest! {
        #[test]
        fn a_leap_passes_over_no_run(
            words in proptest::collection::vec((0..30_usize, prop::sample::select(vec![" ", "\"", ": ", "\n\n"])), 0..40),
        ) {
            let text: String = words.iter().map(|(length, gap)| ["a".repeat(*length), (*gap).to_owned()].concat()).collect();
            let first = text.as_bytes().windows(RUN_MIN).position(|w| w.iter().all(|b| is(*b, TOKEN)));
            let at = leap(text.as_bytes(), 0);
            // It stops at the first, or before it where less than a block is left.
            prop_assert!(first.map_or(at + BLOCK > text.len(), |first| at == first || at < first && at + BLOCK > text.len()), "{} {:?}", at, first);
            // And in no other run.
            let inside = at > 0 && at < text.len() && is(text.as_bytes()[at - 1], TOKEN) && is(text.as_bytes()[at], TOKEN);
            prop_assert!(!inside || at + BLOCK > text.len() || first == Some(at));
        }
    }
}
