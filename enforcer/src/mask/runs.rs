//! Runs of token characters in a normal form: values that their surroundings tell, and
//! what may be coded in them.
//!
//! Text is skipped by leaps: a run of twelve cannot hide between two bytes that are eleven
//! apart and no token characters.

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
        let data = view.data;
        let from = run.start.max(view.offset(self.looked));
        let mut before = from.checked_sub(1).map_or(0, |at| data[at]);
        // In a run that has ended nothing begins that is too short.
        let to = if run.open { run.end } else { (run.end + 1).saturating_sub(Coding::SHORTEST) };
        for at in from..to {
            let byte = data[at];
            let starts = starts(before, byte);
            before = byte;
            if starts == 0 {
                continue;
            }
            for coding in Coding::ALL {
                let last = at + coding.wanted() - 1;
                let fits = || last < run.end && is(data[last], coding.class());
                if starts & coding.class() == 0 || (!run.open && !fits()) {
                    continue;
                }
                let position = view.base + at as u64;
                if self.coded.iter().any(|coded| coded.covers(coding, position)) {
                    continue;
                }
                match coding.start(&data[at..run.end], run.open) {
                    Start::No => {}
                    Start::Unknown => {
                        self.looked = position;
                        return Ok(Some((at + coding.free_digits()).min(run.end)));
                    }
                    Start::Yes => {
                        let digits = data[at..run.end].iter().take_while(|b| coding.value(**b).is_some());
                        self.coded.push(Coded::new(coding, position, digits.count(), depth, budget)?);
                    }
                }
            }
        }
        self.looked = self.looked.max(view.base + run.end as u64);
        Ok(None)
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
        at = end + 1;
    }
    // The last run, however short, may go on.
    let at = at.min(data.len());
    let short = data[at..].iter().rev().take_while(|byte| is(**byte, TOKEN)).count();
    let end = data.len();
    (!view.last && short > 0).then_some(Run { start: end - short, end, open: true })
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
