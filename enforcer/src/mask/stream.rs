//! Masking of a stream, whatever way it is cut.
//!
//! A byte goes out as soon as no possible match reaches over it. **Invariant**: there is
//! no timer, and no size of chunk makes a difference: the matches are a function of the
//! whole stream, their ranges are unioned, and a placeholder goes out only when
//! everything that begins before it is decided.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    error::MaskError,
    filter::Target,
    findings::{Finding, Findings},
    level::{Budget, Level, grow, tidy, tidy_bytes},
    locate::Locate,
    masker::Plan,
    norm::Esc,
    scan::Found,
    types::{Entity, Masked, Place},
};

/// Memory that a stream may keep while it waits for more, in bytes.
pub const KEPT_MAX_BYTES: usize = 64 * 1024;

/// Masks a stream chunk by chunk.
#[derive(Debug)]
pub struct StreamMasker {
    plan: Arc<Plan>,
    /// What came and did not go out, behind as many bytes that did.
    held: Vec<u8>,
    gone: usize,
    /// Position of the first byte that did not go out.
    base: u64,
    level: Level,
    budget: Budget,
    /// The same stream once more, without control sequences of terminals, if values that are looked
    /// for have escape characters of their own.
    other: Option<Box<(Level, Budget)>>,
    /// What was found and did not go out.
    found: Vec<Found>,
    /// Where the union that was last given a placeholder begins and ends.
    masked_from: u64,
    masked_to: u64,
    place: Place,
    locate: Locate,
    findings: Findings,
    failed: Option<MaskError>,
}

impl StreamMasker {
    pub(super) fn new(plan: Arc<Plan>, place: Place) -> Self {
        Self::located(plan, place, Locate::default())
    }

    /// The same with what tells where in its place something stands.
    pub(super) fn located(plan: Arc<Plan>, place: Place, locate: Locate) -> Self {
        Self {
            locate,
            other: plan.escapes.then(|| Box::new((Level::top(Esc::Byte), Budget::default()))),
            plan,
            held: Vec::new(),
            gone: 0,
            base: 0,
            level: Level::top(Esc::Sequence),
            budget: Budget::default(),
            found: Vec::new(),
            masked_from: 0,
            masked_to: 0,
            place,
            findings: Findings::default(),
            failed: None,
        }
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
        self.locate.keep(&chunk, self.base);
        let decided = self.advance(&chunk, false)?;
        let out = if self.held.is_empty() {
            let behind = chunk.split_off(decided);
            grow(&mut self.held, behind.len());
            self.held.extend_from_slice(&behind);
            chunk
        } else {
            self.take(&chunk, decided)
        };
        let masked = self.emit(&out)?;
        self.tidy()?;
        Ok(masked)
    }

    /// The first bytes that are decided, of those that are held and of a chunk behind them.
    fn take(&mut self, chunk: &[u8], decided: usize) -> Bytes {
        let held = &self.held[self.gone..];
        if let Some(behind) = decided.checked_sub(held.len()) {
            let (first, rest) = chunk.split_at(behind);
            let out = [held, first].concat();
            self.held.clear();
            self.gone = 0;
            grow(&mut self.held, rest.len());
            self.held.extend_from_slice(rest);
            return out.into();
        }
        let out = Bytes::copy_from_slice(&held[..decided]);
        self.gone += decided;
        // Not for each byte: what stays is moved.
        if self.gone >= self.held.len() - self.gone {
            self.held.drain(..self.gone);
            self.gone = 0;
        }
        grow(&mut self.held, chunk.len());
        self.held.extend_from_slice(chunk);
        out
    }

    /// Gives memory back that is not needed to wait; an error if too much is.
    fn tidy(&mut self) -> Result<(), MaskError> {
        let kept = size_of::<Self>() + tidy_bytes(&mut self.held) + tidy(&mut self.found) + self.level.tidy();
        let kept = kept + self.other.as_mut().map_or(0, |other| size_of_val(&**other) + other.0.tidy());
        let texts: usize = self.found.iter().filter_map(|found| found.text.as_ref()).map(Vec::capacity).sum();
        let mut kept = kept + texts;
        if kept + self.locate.kept() > KEPT_MAX_BYTES {
            // Then places are told by their offset.
            self.locate.forget();
        }
        kept += self.locate.kept();
        let gathers = self.level.gathers() || self.other.as_ref().is_some_and(|other| other.0.gathers());
        if kept > KEPT_MAX_BYTES && !gathers {
            let error = MaskError::TooMuchKept { limit: KEPT_MAX_BYTES };
            self.failed = Some(error.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Nothing follows: decides what was held back.
    pub fn finish(&mut self) -> Result<Masked, MaskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.plan.is_noop() {
            return Ok(Masked::empty());
        }
        self.advance(&[], true)?;
        let held = self.take(&[], self.held());
        self.emit(&held)
    }

    /// Masks a value of which nothing came before and nothing follows, in one look.
    pub(super) fn whole(mut self, value: &Bytes) -> Result<(Masked, Findings), MaskError> {
        self.advance(value, true)?;
        Ok((self.emit(value)?, self.findings))
    }

    /// Everything in a whole value that is to be masked, overlapping or not, in its order.
    pub(super) fn ranges(mut self, value: &[u8]) -> Result<Vec<(usize, usize, Target)>, MaskError> {
        self.advance(value, true)?;
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let range = |found: &Found| (offset(found.start), offset(found.end), found.target);
        let mut ranges: Vec<_> = self.found.iter().map(range).collect();
        ranges.sort_unstable_by_key(|(start, end, target)| (*start, *target, *end));
        Ok(ranges)
    }

    /// How many bytes are held back now.
    pub fn held(&self) -> usize {
        self.held.len() - self.gone
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// How much of what is held and of `data` is decided.
    fn advance(&mut self, data: &[u8], last: bool) -> Result<usize, MaskError> {
        let Self { plan, level, budget, other, found, .. } = self;
        let decided = level.push(plan, budget, data, last, found).and_then(|decided| {
            let Some(other) = other else { return Ok(decided) };
            let (level, budget) = &mut **other;
            Ok(decided.min(level.push(plan, budget, data, last, found)?))
        });
        let decided = decided.inspect_err(|error| {
            if let MaskError::Denied { entity, rule } | MaskError::Held { entity, rule } = error {
                self.count(entity, rule.clone(), None);
            }
            self.failed = Some(error.clone());
        })?;
        let decided = whole_texts(&self.plan, &self.found, decided);
        Ok(usize::try_from(decided.saturating_sub(self.base)).unwrap_or(usize::MAX))
    }

    /// Counts something that begins at this position, if it is known.
    fn count(&mut self, entity: &Entity, rule: Arc<str>, position: Option<u64>) {
        let at = position.and_then(|position| self.locate.at(position));
        let (entity, place) = (entity.clone(), self.place.clone());
        self.findings.add(Finding { entity, rule, count: 1, place, at });
    }

    /// Replaces what is to be masked in bytes that are decided, and moves on behind them.
    fn emit(&mut self, decided: &Bytes) -> Result<Masked, MaskError> {
        let base = self.base;
        let end = base + decided.len() as u64;
        self.base = end;
        if self.found.is_empty() && self.masked_to <= base {
            return Ok(Masked::new(decided.clone()));
        }
        // Of two that begin at one place, the one that is coded like what it replaces.
        self.found.sort_by_key(|found| (found.start, found.text.is_none(), found.target, found.end));
        let slice = |from: u64, to: u64| {
            let index = |p: u64| usize::try_from(p - base).unwrap_or(usize::MAX);
            &decided[index(from)..index(to)]
        };
        let mut out = BytesMut::with_capacity(decided.len());
        let mut at = self.masked_to.clamp(base, end);
        let ready = self.found.partition_point(|found| found.start < end);
        let ready: Vec<Found> = self.found.drain(..ready).collect();
        let plan = Arc::clone(&self.plan);
        for (index, found) in ready.iter().enumerate() {
            let entity = plan.entity(found.target);
            if found.observed {
                self.count(entity, plan.name(found.target), Some(found.start));
                continue;
            }
            // Before `base` all is out. What begins there goes on from what was masked: a value that
            // is masked while it comes, to its end mark, is found anew each time that it grows.
            let goes_on = (self.masked_from..self.masked_to).contains(&found.start);
            if found.start < base && !goes_on {
                let error = MaskError::TooLate { entity: entity.clone() };
                self.failed = Some(error.clone());
                return Err(error);
            }
            if found.start >= self.masked_to {
                let start = found.start;
                self.masked_from = start;
                out.extend_from_slice(slice(at, start));
                // What reaches over its end is masked with it: the value is not this one.
                let over = |other: &Found| other.start < found.end && other.end > found.end;
                let shows = !self.plan.early(found.target);
                let mut others = ready[index + 1..].iter().take_while(|other| other.start < found.end);
                let reached = shows && others.any(|other| !other.observed && over(other));
                let text = found.text.clone().filter(|_| !reached);
                let text = text.unwrap_or_else(|| entity.placeholder().into_bytes());
                let wide = found.end <= end && is_wide(slice(start, found.end.max(start)));
                out.extend(text.iter().enumerate().flat_map(|(index, byte)| {
                    let between = (wide && index > 0).then_some(0);
                    between.into_iter().chain([*byte])
                }));
                self.count(entity, plan.name(found.target), Some(found.start));
            }
            self.masked_to = self.masked_to.max(found.end);
            at = self.masked_to.clamp(base, end);
        }
        out.extend_from_slice(slice(at, end));
        Ok(Masked::new(out.freeze()))
    }
}

/// How much of what is decided can go out: what stands in place of a value goes out when all
/// of the value is decided, since something else may still reach over its end.
fn whole_texts(plan: &Plan, found: &[Found], mut decided: u64) -> u64 {
    loop {
        let cut = |found: &&Found| {
            !plan.early(found.target) && found.start < decided && found.end > decided && !found.observed
        };
        match found.iter().filter(cut).map(|found| found.start).min() {
            Some(start) => decided = start,
            None => return decided,
        }
    }
}

/// Whether text is in UTF-16: every second byte is zero. What replaces it has to be, too.
fn is_wide(text: &[u8]) -> bool {
    text.len() >= 3 && text.len() % 2 == 1 && text.iter().skip(1).step_by(2).all(|byte| *byte == 0)
}
