//! Runs of token characters in a normal form: values that their surroundings tell, and
//! what may be coded in them.
//!
//! Text is passed over by blocks: one bit for each byte says where token characters stand, and so
//! where twelve of them stand together.

use wide::u8x16;

use super::{
    coded::{Coded, Coding, Start},
    context::{LOOK_BEHIND, RUN_MAX, RUN_MIN},
    error::MaskError,
    filter::Target,
    lanes::{self, BLOCK},
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
        let mut tokens = Tokens::new(view.data, from);
        while let Some(run) = next(view, &mut tokens, from, reach) {
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
            if known < self.coded.len() {
                // What ends with its run is open no more when the next one comes.
                for index in self.decode(view, known, budget, &mut decided, out)?.into_iter().rev() {
                    self.coded.remove(index).close(budget);
                }
            }
            from = run.end;
        }
        for index in over.into_iter().rev() {
            self.coded.remove(index).close(budget);
        }
        Ok(decided)
    }

    /// Decodes what is new in the runs from `first` on, and gives those that have ended.
    fn decode(
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
            && let Some(hit) = contexts.judge(before, &data[run.start..], length)
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
        for at in base64_starts(view.data, run.start, run.end) {
            self.coded_at(view, run, at, Coding::Base64, (depth, budget))?;
        }
        let behind = |at: usize| at.checked_sub(1).map_or(0, |at| text[at]);
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
    #[inline]
    fn coded_at(
        &mut self,
        view: &View<'_>,
        run: Run,
        at: usize,
        coding: Coding,
        below: (u8, &mut Budget),
    ) -> Result<bool, MaskError> {
        if coding.opens(&view.data[at..run.end]) {
            self.begin(view, run, at, coding, below)
        } else {
            Ok(false)
        }
    }

    fn begin(
        &mut self,
        view: &View<'_>,
        run: Run,
        at: usize,
        coding: Coding,
        (depth, budget): (u8, &mut Budget),
    ) -> Result<bool, MaskError> {
        let (text, position) = (&view.data[at..run.end], view.base + at as u64);
        if self.coded.iter().any(|coded| coded.covers(coding, position)) {
            return Ok(false);
        }
        match coding.start(text, run.open) {
            Start::No => {}
            Start::Unknown => return Ok(true),
            Start::Yes => {
                let digits = text.iter().take_while(|b| coding.value(**b).is_some());
                self.coded.push(Coded::new(coding, position, digits.count(), (depth, view.esc), budget)?);
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

/// Where in a text, between two offsets, as many digits of base64 begin as have to look decoded:
/// the first of them, and those behind what stands between.
fn base64_starts(text: &[u8], from: usize, to: usize) -> impl Iterator<Item = usize> {
    let (mut base, mut next, mut starts) = (from, from, 0_u64);
    std::iter::from_fn(move || {
        while starts == 0 {
            if next >= to {
                return None;
            }
            base = next;
            let marks = |block: &[u8; BLOCK]| (lanes::bits(block, base64), lanes::bits(block, between));
            let (digits, between) = lanes::at(text, base, marks);
            let before = base.checked_sub(1).map_or(0, |at| text[at]);
            let goes_on = digits << 1 | u64::from(is(before, BASE64));
            let fresh = between << 1 | u64::from(is(before, BETWEEN));
            let inside = digits & lanes::lowest(to - base);
            starts = lanes::together::<{ Coding::SHORTEST }>(inside, 0) & (!goes_on | fresh);
            // What begins behind that was not seen whole.
            next += if to - base > BLOCK { BLOCK + 1 - Coding::SHORTEST } else { BLOCK };
        }
        let start = base + starts.trailing_zeros() as usize;
        starts &= starts - 1;
        Some(start)
    })
}

/// The next run that is long enough, or reaches the end of the bytes at hand. Up to `reach`
/// there is nothing but one that begins at `from`, where all before it is out.
fn next(view: &View<'_>, tokens: &mut Tokens<'_>, from: usize, reach: usize) -> Option<Run> {
    let data = view.data;
    let mut at = from;
    if reach > from {
        let end = tokens.end(reach);
        let open = end == data.len() && !view.last;
        if end - from >= RUN_MIN || open {
            return Some(Run { start: from, end, open });
        }
        at = end;
    }
    if let Some(start) = tokens.long(at) {
        let end = tokens.end(start + RUN_MIN);
        return Some(Run { start, end, open: end == data.len() && !view.last });
    }
    // The last run, however short, may go on.
    let short = data[at..].iter().rev().take_while(|byte| is(**byte, TOKEN)).count();
    let end = data.len();
    (!view.last && short > 0).then_some(Run { start: end - short, end, open: true })
}

/// Where token characters stand, a bit each, in a block that goes forward, and in the next.
struct Tokens<'a> {
    data: &'a [u8],
    base: usize,
    here: u64,
    next: u64,
    /// Behind which of them so many more stand that it is a run.
    long: u64,
}

impl<'a> Tokens<'a> {
    fn new(data: &'a [u8], from: usize) -> Self {
        let mut tokens = Self { data, base: from, here: 0, next: 0, long: 0 };
        tokens.jump(from);
        tokens
    }

    /// Goes to the block in which an offset stands, which is not before the one at hand.
    fn go(&mut self, at: usize) {
        match at - self.base {
            0..BLOCK => {}
            BLOCK..TWO_BLOCKS => {
                self.base += BLOCK;
                self.here = self.next;
                self.load();
            }
            _ => self.jump(at),
        }
    }

    fn jump(&mut self, at: usize) {
        self.base = at;
        self.here = lanes::at(self.data, at, |block| lanes::bits(block, token));
        self.load();
    }

    fn load(&mut self) {
        self.next = lanes::at(self.data, self.base + BLOCK, |block| lanes::bits(block, token));
        self.long = lanes::together::<RUN_MIN>(self.here, self.next);
    }

    /// Where the token characters end that begin at an offset.
    fn end(&mut self, mut at: usize) -> usize {
        loop {
            self.go(at);
            let others = !self.here >> (at - self.base);
            if others != 0 {
                return at + others.trailing_zeros() as usize;
            }
            at = self.base + BLOCK;
        }
    }

    /// The first offset from `at` on where a run begins, or goes on for long enough.
    fn long(&mut self, mut at: usize) -> Option<usize> {
        while at < self.data.len() {
            self.go(at);
            let long = self.long >> (at - self.base);
            if long != 0 {
                return Some(at + long.trailing_zeros() as usize);
            }
            at = self.base + BLOCK;
        }
        None
    }
}

const TWO_BLOCKS: usize = 2 * BLOCK;

fn token(bytes: u8x16) -> u8x16 {
    // From the dash to the nine: dot, slash and digits.
    let more = lanes::within(bytes, b'-', b'9') | lanes::is(bytes, b'+') | lanes::is(bytes, b'_');
    lanes::letter(bytes) | more | lanes::is(bytes, b'=') | lanes::is(bytes, b'~')
}

fn base64(bytes: u8x16) -> u8x16 {
    lanes::letter(bytes) | lanes::within(bytes, b'/', b'9') | between(bytes)
}

fn between(bytes: u8x16) -> u8x16 {
    let dashes = lanes::is(bytes, b'-') | lanes::is(bytes, b'_');
    lanes::is(bytes, b'+') | lanes::is(bytes, b'/') | dashes
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
    fn what_a_byte_can_be_is_said_twice_alike() {
        for byte in 0..=255_u8 {
            let mut block = [b' '; BLOCK];
            let at = usize::from(byte) % BLOCK;
            block[at] = byte;
            let lanes =
                [lanes::bits(&block, token), lanes::bits(&block, base64), lanes::bits(&block, between)];
            let one = [TOKEN, BASE64, BETWEEN].map(|class| u64::from(is(byte, class)) << at);
            assert_eq!(lanes, one, "{byte}");
        }
    }

    /// Runs of all lengths around the shortest and around a block, with what can stand in them.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![4 => "[a-zA-Z0-9]{1,15}", 1 => "[a-zA-Z0-9]{50,140}", 2 => "[-+/_=.~]{1,2}", 2 => "[ \":\n]{1,3}"];
        prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn every_long_run_is_found_with_its_end(text in texts(), from in 0..200_usize) {
            let from = from.min(text.len());
            let mut tokens = Tokens::new(&text, from);
            let (mut at, mut found, mut slow) = (from, Vec::new(), Vec::new());
            while let Some(start) = tokens.long(at) {
                at = tokens.end(start + RUN_MIN);
                found.push((start, at));
            }
            let mut at = from;
            while at < text.len() {
                let length = text[at..].iter().take_while(|b| is(**b, TOKEN)).count();
                slow.extend((length >= RUN_MIN).then_some((at, at + length)));
                at += length.max(1);
            }
            prop_assert_eq!(found, slow);
        }

        #[test]
        fn base64_begins_where_a_look_at_each_byte_says(text in texts(), from in 0..200_usize, left in 0..100_usize) {
            let to = text.len().saturating_sub(left);
            let from = from.min(to);
            let before = |at: usize| at.checked_sub(1).map_or(0, |at| text[at]);
            let whole = |at: usize| {
                text[at..to].iter().take_while(|b| is(**b, BASE64)).count() >= Coding::SHORTEST
            };
            let slow: Vec<usize> =
                (from..to).filter(|at| starts(before(*at), text[*at]) & BASE64 != 0 && whole(*at)).collect();
            prop_assert_eq!(base64_starts(&text, from, to).collect::<Vec<_>>(), slow);
        }
    }
}
