//! Masking of a stream, whatever way it is cut.
//!
//! ```text
//!          window hit / run start            automaton dead, or end
//!  (none) ------------------------> open --------------------------> matched or dropped
//!                                   |  ^
//!                     end of chunk  |  |  next chunk: goes on in its state
//!                                   v  |
//!                                suspended      a match that commits is masked at once
//! ```
//!
//! A byte goes out as soon as no open candidate and no beginning of a window reaches over
//! it. **Invariant**: there is no timer, and no size of chunk makes a difference: the
//! matches are a function of the whole stream, their ranges are unioned, and a placeholder
//! goes out only when everything that begins before it is decided.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    byteset::ByteSet,
    error::MaskError,
    filter::{Target, WINDOW},
    masker::Plan,
    rule::{PIVOT_MAX_BYTES, SWALLOW_MAX_BYTES},
    strategy::Replacement,
    types::{Findings, Masked, Place},
};

/// How many possible matches may be open at once, a number; ordinary text has a handful.
pub const OPEN_MAX: usize = 1024;
/// Bytes that are remembered before the first undecided one, to see escapes: `\u003d`.
const BEHIND: usize = 6;

/// Masks a stream chunk by chunk.
#[derive(Debug)]
pub struct StreamMasker {
    plan: Arc<Plan>,
    held: BytesMut,
    scan: Scan,
    place: Place,
    findings: Findings,
    failed: Option<MaskError>,
}

impl StreamMasker {
    pub(super) fn new(plan: Arc<Plan>, place: Place) -> Self {
        let scan = Scan::default();
        Self { plan, held: BytesMut::new(), scan, place, findings: Findings::default(), failed: None }
    }

    /// Takes a chunk and gives what is decided: all of it, without a copy, if nothing in
    /// it can belong to a secret. After an error the stream has to end.
    pub fn push(&mut self, mut chunk: Bytes) -> Result<Masked, MaskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.plan.is_noop() {
            return Ok(Masked::new(chunk));
        }
        if self.held.is_empty() {
            let decided = self.advance(&chunk, false)?;
            self.held.extend_from_slice(&chunk.split_off(decided));
            return self.emit(&chunk);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(&chunk);
        let decided = self.advance(&held, false)?;
        let out = held.split_to(decided).freeze();
        if !held.is_empty() {
            self.held = held;
        }
        self.emit(&out)
    }

    /// Nothing follows: decides what was held back.
    pub fn finish(&mut self) -> Result<Masked, MaskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let held = std::mem::take(&mut self.held).freeze();
        self.advance(&held, true)?;
        self.emit(&held)
    }

    /// Masks a value of which nothing came before and nothing follows, in one look.
    pub(super) fn whole(mut self, value: &Bytes) -> Result<(Masked, Findings), MaskError> {
        self.advance(value, true)?;
        let masked = self.emit(value)?;
        Ok((masked, self.findings))
    }

    /// Everything in a whole value that is to be masked, overlapping or not, in its order.
    pub(super) fn ranges(mut self, value: &[u8]) -> Result<Vec<(usize, usize, Target)>, MaskError> {
        self.advance(value, true)?;
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let mut ranges: Vec<_> =
            self.scan.ranges.iter().map(|r| (offset(r.start), offset(r.end), r.target)).collect();
        ranges.sort_unstable_by_key(|(start, end, target)| (*start, *target, *end));
        Ok(ranges)
    }

    /// How many bytes are held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    fn advance(&mut self, data: &[u8], last: bool) -> Result<usize, MaskError> {
        let decided = self.scan.advance(&self.plan, data, last);
        decided.inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn emit(&mut self, decided: &Bytes) -> Result<Masked, MaskError> {
        let out = self.scan.emit(&self.plan, decided, &self.place, &mut self.findings);
        out.map(Masked::new).inspect_err(|error| self.failed = Some(error.clone()))
    }
}

/// A possible match that the last chunk left undecided.
#[derive(Debug)]
struct Open {
    target: Target,
    /// Position of its first byte in the stream.
    start: u64,
    /// Position of the next byte to look at.
    at: u64,
    state: u32,
    end: Option<u64>,
    /// The first byte that has to wait for this candidate.
    hold: u64,
}

/// Something to be masked.
#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    /// Decides whose name the placeholder carries if two begin at one place.
    target: Target,
}

/// Where the stream stands.
#[derive(Debug)]
struct Scan {
    /// Position of the first byte that did not go out.
    base: u64,
    /// Position of the first byte that was not yet looked at as a beginning.
    scanned: u64,
    /// The bytes before `base`.
    behind: [u8; BEHIND],
    open: Vec<Open>,
    ranges: Vec<Range>,
    /// By rule, how far the last value reaches that is masked until its end mark.
    swallowed: Vec<(Target, u64)>,
    /// Where the union that was last given a placeholder ends.
    masked_to: u64,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            base: 0,
            scanned: 0,
            behind: [b'\n'; BEHIND],
            open: Vec::new(),
            ranges: Vec::new(),
            swallowed: Vec::new(),
            masked_to: 0,
        }
    }
}

impl Scan {
    /// Looks at what is new in `data`, which begins at `base`, and says how much of it is decided.
    fn advance(&mut self, plan: &Plan, data: &[u8], last: bool) -> Result<usize, MaskError> {
        for open in std::mem::take(&mut self.open) {
            self.go_on(plan, data, open, last)?;
        }
        let from = self.offset(self.scanned);
        let mut at = from;
        while let Some(hit) = plan.filter.next(data, at) {
            if let Some(window) = data[hit..].first_chunk::<WINDOW>() {
                for target in plan.filter.targets(*window) {
                    self.begin(plan, data, hit, target, last)?;
                }
            }
            at = hit + 1;
        }
        if !plan.runs.is_empty() {
            self.begin_runs(plan, data, from, last)?;
        }
        let tail = if last { data.len() } else { tail(plan, data, from) };
        self.scanned = self.base + tail as u64;
        let undecided = self.open.iter().map(|o| o.hold).min();
        let mut limit = undecided.map_or(tail, |position| self.offset(position).min(tail));
        // What depends on a whole value is not cut in it.
        let cut = |limit: usize| {
            let cut = self.ranges.iter().filter(|r| !plan.fixed(r.target) && self.offset(r.end) > limit);
            cut.map(|r| self.offset(r.start)).filter(|start| *start < limit).min()
        };
        while let Some(start) = cut(limit) {
            limit = start;
        }
        Ok(limit)
    }

    /// Where a position of the stream stands in the bytes at hand.
    fn offset(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }

    /// Tries everything that has no fixed beginning. Positions in the held tail are looked
    /// at when they come again.
    fn begin_runs(&mut self, plan: &Plan, data: &[u8], from: usize, last: bool) -> Result<(), MaskError> {
        let to = if last { data.len() } else { tail(plan, data, from) };
        let mut before = at_before(&self.behind, data, from);
        let mut pivots = Pivots::default();
        // Near an escape the byte before says too little; `begin` then looks in full.
        let mut near_escape = BEHIND + 1;
        for (at, &byte) in data.iter().enumerate().take(to).skip(from) {
            let second = data.get(at + 1).map_or(u32::MAX, |b| plan.runs.seconds[usize::from(*b)]);
            let starts = plan.runs.starts[usize::from(byte)] & second;
            let fresh = starts & !plan.runs.follows[usize::from(before)] != 0;
            if fresh || (near_escape > 0 && starts != 0) {
                for (bit, (target, _)) in plan.runs.targets.iter().enumerate() {
                    if starts >> bit & 1 == 1 && pivots.near(plan, data, bit, at) {
                        self.begin(plan, data, at, *target, last)?;
                    }
                }
            }
            near_escape =
                if matches!(byte, b'\\' | b'%') { BEHIND + 1 } else { near_escape.saturating_sub(1) };
            before = byte;
        }
        Ok(())
    }

    /// The bytes before an offset, the nearest last.
    fn behind(&self, data: &[u8], at: usize) -> [u8; BEHIND] {
        let mut behind = [0; BEHIND];
        for (back, slot) in (1..=BEHIND).zip(behind.iter_mut().rev()) {
            *slot = match at.checked_sub(back) {
                Some(i) => data[i],
                None => self.behind[BEHIND - (back - at)],
            };
        }
        behind
    }

    fn begin(
        &mut self,
        plan: &Plan,
        data: &[u8],
        at: usize,
        target: Target,
        last: bool,
    ) -> Result<(), MaskError> {
        let start = self.base + at as u64;
        let state = match target {
            Target::Literal(_) => 0,
            Target::Rule(index) => {
                let rule = plan.rule(index);
                // What begins in a value that is swallowed is masked with it.
                if rule.detector.swallow && self.swallowed.iter().any(|(t, end)| *t == target && start < *end)
                {
                    return Ok(());
                }
                if let Some(class) = rule.detector.not_after
                    && !boundary(&self.behind(data, at), data[at], class)
                {
                    return Ok(());
                }
                match rule.start() {
                    Some(state) => state,
                    None => return Ok(()),
                }
            }
        };
        self.go_on(plan, data, Open { target, start, at: start, state, end: None, hold: start }, last)
    }

    /// Takes a candidate as far as the bytes at hand go.
    fn go_on(&mut self, plan: &Plan, data: &[u8], mut open: Open, last: bool) -> Result<(), MaskError> {
        let over = match open.target {
            Target::Literal(index) => {
                let literal = plan.literal(index);
                let done = usize::try_from(open.at - open.start).unwrap_or(usize::MAX);
                let here = &data[self.offset(open.at)..];
                let wanted = &literal[done.min(literal.len())..];
                let common = wanted.len().min(here.len());
                open.at += common as u64;
                if wanted[..common] != here[..common] {
                    return Ok(());
                }
                if common == wanted.len() {
                    self.add(open.start, open.at, open.target);
                    return Ok(());
                }
                last
            }
            Target::Rule(index) => self.run_rule(plan, data, &mut open, index, last)?,
        };
        if over {
            return Ok(());
        }
        if self.open.len() >= OPEN_MAX {
            return Err(MaskError::TooManyOpen { limit: OPEN_MAX });
        }
        self.open.push(open);
        Ok(())
    }

    /// Whether the rule is done with.
    fn run_rule(
        &mut self,
        plan: &Plan,
        data: &[u8],
        open: &mut Open,
        index: u32,
        last: bool,
    ) -> Result<bool, MaskError> {
        let rule = plan.rule(index);
        let progress = rule.run(data, self.offset(open.at), open.state, last);
        open.state = progress.state;
        open.at = self.base + data.len() as u64;
        if let Some(end) = progress.end {
            let end = self.base + end as u64;
            if rule.detector.swallow && end - open.start > SWALLOW_MAX_BYTES {
                let entity = rule.entity.to_string();
                return Err(MaskError::NoEnd { entity, limit: SWALLOW_MAX_BYTES });
            }
            if rule.commits() && plan.fixed(open.target) {
                // The range begins where the match does also when it grows: the union that
                // was given a placeholder then grows with it.
                open.hold = end;
                if rule.detector.swallow {
                    self.swallowed.retain(|(target, _)| *target != open.target);
                    self.swallowed.push((open.target, end));
                }
                self.add(open.start, end, open.target);
            } else {
                open.end = Some(end);
            }
        }
        if rule.commits() && plan.fixed(open.target) {
            return Ok(progress.over);
        }
        if progress.over {
            if let Some(end) = open.end
                && let Some((from, to)) = rule.verify(data, self.offset(open.start), self.offset(end))
            {
                self.add(self.base + from as u64, self.base + to as u64, open.target);
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn add(&mut self, start: u64, end: u64, target: Target) {
        self.ranges.push(Range { start, end, target });
    }

    /// Replaces what is to be masked in bytes that are decided, and moves on behind them.
    fn emit(
        &mut self,
        plan: &Plan,
        decided: &Bytes,
        place: &Place,
        findings: &mut Findings,
    ) -> Result<Bytes, MaskError> {
        let base = self.base;
        let end = base + decided.len() as u64;
        self.behind = self.behind(decided, decided.len());
        self.base = end;
        if self.ranges.is_empty() && self.masked_to <= base {
            return Ok(decided.clone());
        }
        self.ranges.sort_unstable_by_key(|r| (r.start, r.target, r.end));
        let slice = |from: u64, to: u64| {
            let index = |p: u64| usize::try_from(p - base).unwrap_or(usize::MAX);
            &decided[index(from)..index(to)]
        };
        let mut out = BytesMut::with_capacity(decided.len());
        let mut at = self.masked_to.clamp(base, end);
        let ready = self.ranges.partition_point(|r| r.start < end);
        let ready: Vec<Range> = self.ranges.drain(..ready).collect();
        for (index, range) in ready.iter().enumerate() {
            let entity = plan.entity(range.target);
            // A match that grows has no value yet, and needs none.
            let value = if plan.fixed(range.target) { &[] } else { slice(range.start, range.end) };
            let replacement = plan.replacement(range.target, value);
            if replacement.is_err() {
                findings.add(entity, place, 1);
            }
            let text = match replacement? {
                Replacement::Observe if range.start < base => continue,
                Replacement::Observe => {
                    findings.add(entity, place, 1);
                    continue;
                }
                // What reaches over its end is masked with it: the value is not this one.
                Replacement::Text(text)
                    if ready[index + 1..].iter().all(|r| r.start >= range.end || r.end <= range.end) =>
                {
                    text
                }
                _ => entity.placeholder().into_bytes(),
            };
            if range.start >= self.masked_to {
                out.extend_from_slice(slice(at, range.start));
                out.extend_from_slice(&text);
                findings.add(entity, place, 1);
            }
            self.masked_to = self.masked_to.max(range.end);
            at = self.masked_to.clamp(base, end);
        }
        out.extend_from_slice(slice(at, end));
        Ok(out.freeze())
    }
}

/// Where the next pivots stand, so that a run without one costs nothing.
#[derive(Default)]
struct Pivots([Option<Pivot>; 4]);

#[derive(Clone, Copy)]
struct Pivot {
    /// Of the next pivot, or the end.
    next: usize,
    /// Where the run begins that reaches the end and can go on in the next chunk.
    tail: usize,
}

impl Pivots {
    /// Whether the run at an offset can be one that has its pivot.
    fn near(&mut self, plan: &Plan, data: &[u8], bit: usize, at: usize) -> bool {
        let (Some((_, Some(byte))), Some(slot)) = (plan.runs.targets.get(bit), self.0.get_mut(bit)) else {
            return true;
        };
        let pivot = slot.get_or_insert_with(|| {
            let inside = |b: &u8| plan.runs.follows[usize::from(*b)] >> bit & 1 == 1;
            let tail = data.len() - data.iter().rev().take_while(|b| inside(b)).count();
            Pivot { next: 0, tail }
        });
        if pivot.next <= at {
            let found = memchr::memchr(*byte, &data[at..]);
            pivot.next = found.map_or(usize::MAX, |offset| at + offset);
        }
        pivot.next.saturating_sub(at) <= PIVOT_MAX_BYTES || at >= pivot.tail
    }
}

/// Where the tail begins that is too short for a window but can be the beginning of one.
fn tail(plan: &Plan, data: &[u8], from: usize) -> usize {
    let first = data.len().saturating_sub(WINDOW - 1).max(from);
    (first..data.len()).find(|&at| plan.filter.begins(&data[at..])).unwrap_or(data.len())
}

/// The byte before an offset.
fn at_before(behind: &[u8; BEHIND], data: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(behind[BEHIND - 1], |i| data[i])
}

/// Whether what stands before allows a beginning: no byte of the class, or one that is part of
/// an escape (`\n`, `%3D`, `\u003d`), which stands for something else.
fn boundary(behind: &[u8; BEHIND], first: u8, class: ByteSet) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let [a, b, c1, c2, d, e] = *behind;
    if e == b'\\' {
        // The byte at hand is itself the letter of an escape, or a plain backslash stands before it.
        return !matches!(first, b'n' | b'r' | b't' | b'b' | b'f' | b'u') && !class.has(b'\\');
    }
    let after_letter = d == b'\\' && matches!(e, b'n' | b'r' | b't' | b'b' | b'f');
    let after_percent = c2 == b'%' && hex(&[d, e]);
    let after_unicode = a == b'\\' && b == b'u' && hex(&[c1, c2, d, e]);
    after_letter || after_percent || after_unicode || !class.has(e)
}
