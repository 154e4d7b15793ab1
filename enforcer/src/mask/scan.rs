//! One scan over the normal form of a stream: where matches begin and how far they go.
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
//! **Invariant**: no size of chunk makes a difference: the matches are a function of the
//! whole stream.

use super::{
    error::MaskError,
    filter::{BEGINNING, Target},
    level::tidy,
    map::Map,
    masker::Plan,
    norm::Esc,
    rule::PIVOT_MAX_BYTES,
    strategy::Replacement,
};

/// How many possible matches may be open at once, a number; ordinary text has a handful.
pub const OPEN_MAX: usize = 256;
/// A value that is masked until its end mark (a private key) may be this long, if it
/// stands in a coding that has to be whole before it can be replaced.
const SWALLOW_CODED_MAX_BYTES: u64 = 8 * 1024;

/// Something to be masked, in positions of the input that the level was given.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Decides whose name the placeholder carries if two begin at one place.
    pub(super) target: Target,
    /// What stands there instead; without it, the target's placeholder.
    pub(super) text: Option<Vec<u8>>,
    /// Nothing is replaced: it is only counted.
    pub(super) observed: bool,
    /// Where it begins, if not at `start`.
    pub(super) above: Option<Above>,
}

/// A place inside of an escape that a level above has undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above {
    /// Which level.
    pub(super) depth: u8,
    /// The position in its input.
    pub(super) input: u64,
}

/// The normal form at hand, and where it stands.
pub(super) struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) data: &'a [u8],
    /// Position of the first byte of `data`.
    pub(super) base: u64,
    pub(super) map: &'a Map,
    /// What escape characters are taken for.
    pub(super) esc: Esc,
    /// Nothing follows.
    pub(super) last: bool,
    /// A match is given only when its end is known.
    pub(super) whole: bool,
}

impl View<'_> {
    /// Where a position stands in the bytes at hand.
    pub(super) fn offset(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }

    pub(super) fn end(&self) -> u64 {
        self.base + self.data.len() as u64
    }

    /// A match whose end is known, as it will be replaced.
    pub(super) fn found(&self, start: u64, end: u64, target: Target) -> Result<Found, MaskError> {
        self.found_at(self.map.start(start), start, end, target)
    }

    fn found_at(&self, input: u64, start: u64, end: u64, target: Target) -> Result<Found, MaskError> {
        let value = &self.data[self.offset(start)..self.offset(end)];
        let replacement = self.plan.replacement(target, value)?;
        let end = self.map.end(end);
        let found = Found { start: input, end, target, text: None, observed: false, above: None };
        Ok(match replacement {
            Replacement::Placeholder => found,
            Replacement::Text(text) => Found { text: Some(text), ..found },
            Replacement::Observe => Found { observed: true, ..found },
        })
    }
}

/// A possible match that is not decided.
#[derive(Clone, Debug)]
struct Open {
    target: Target,
    /// Position of its first byte, in the input of the level.
    input: u64,
    /// Position of its first byte. Of one that begins inside an escape, of the byte behind it.
    start: u64,
    /// Bytes of it that stand before `start`, inside of what was read as an escape.
    hidden: Vec<u8>,
    /// Position of the next byte to look at.
    at: u64,
    state: u32,
    end: Option<u64>,
    /// The first byte that has to wait for this candidate.
    hold: u64,
    /// Where its first byte stands, if not at `input`.
    above: Option<Above>,
}

/// Where a possible match begins.
#[derive(Clone, Copy)]
pub(super) struct Beginning<'a> {
    /// Position in the input of the level.
    pub(super) input: u64,
    /// Position in the normal form, behind what is hidden.
    pub(super) start: u64,
    /// The first byte of the normal form that has to wait for it.
    pub(super) hold: u64,
    /// The part of it inside of what was read as an escape.
    pub(super) hidden: &'a [u8],
    /// Where this part stands, if a level above has undone the escape.
    pub(super) above: Option<Above>,
}

/// Where the scan of one level stands.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Position of the first byte that was not yet looked at as a beginning.
    scanned: u64,
    open: Vec<Open>,
    /// By rule, how far the last value reaches that is masked until its end mark.
    swallowed: Vec<(Target, u64)>,
}

impl Scan {
    /// A scan that begins at a position.
    pub(super) fn at(position: u64) -> Self {
        Self { scanned: position, ..Self::default() }
    }

    /// Gives memory back that is not needed to wait for more, and says how much is.
    pub(super) fn tidy(&mut self) -> usize {
        let hidden: usize = self.open.iter().map(|open| open.hidden.capacity()).sum();
        tidy(&mut self.open) + tidy(&mut self.swallowed) + hidden
    }

    /// Looks at what is new, and says up to which position it is decided.
    pub(super) fn advance(&mut self, view: &View<'_>, out: &mut Vec<Found>) -> Result<u64, MaskError> {
        self.go_on_all(view, out)?;
        let (plan, data) = (view.plan, view.data);
        let from = view.offset(self.scanned);
        let mut next = from;
        if !plan.filter.is_empty() {
            let mut at = from;
            while let Some(hit) = plan.filter.next(data, at) {
                for (back, target) in plan.filter.targets(data, hit) {
                    // What begins before `from` was seen when the first of its windows was.
                    if hit >= from + back {
                        self.begin(view, hit - back, target, out)?;
                    }
                }
                at = hit + 2;
            }
            // The last of every second position that had a window.
            next = match data.len().checked_sub(from + 4) {
                Some(room) => from + room / 2 * 2 + 1,
                None => from,
            };
        }
        let tail = if view.last { data.len() } else { tail(plan, data, next) };
        if !plan.runs.is_empty() {
            self.begin_runs(view, from, tail, out)?;
        }
        self.scanned = view.base + tail as u64;
        let undecided = self.open.iter().map(|open| open.hold).min();
        Ok(undecided.map_or(self.scanned, |position| position.min(self.scanned)))
    }

    /// Tries everything that has no fixed beginning. Positions in the held tail are looked
    /// at when they come again.
    fn begin_runs(
        &mut self,
        view: &View<'_>,
        from: usize,
        to: usize,
        out: &mut Vec<Found>,
    ) -> Result<(), MaskError> {
        let (plan, data) = (view.plan, view.data);
        let runs = &plan.runs;
        let mut pivots = Pivots::default();
        let mut at = from;
        while at < to {
            // Most rules have no pivot near, and so nothing begins for them up to `until`.
            let (near, until) = pivots.near(plan, data, at);
            let until = until.min(to);
            while let Some((here, starts)) = runs.next(data, near, at, until) {
                for (bit, (target, _)) in runs.targets.iter().enumerate() {
                    if starts >> bit & 1 == 1 {
                        self.begin(view, here, *target, out)?;
                    }
                }
                at = here + 1;
            }
            at = until;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        view: &View<'_>,
        at: usize,
        target: Target,
        out: &mut Vec<Found>,
    ) -> Result<(), MaskError> {
        let start = view.base + at as u64;
        let input = view.map.start(start);
        // Where something was left out (a NUL between two values), nothing stands before.
        let touches = view.map.end(start) == input;
        let before = at.checked_sub(1).filter(|_| touches).map(|at| view.data[at]);
        self.begin_at(
            view,
            before,
            Beginning { input, start, hold: start, hidden: &[], above: None },
            target,
            out,
        )
    }

    /// What begins inside of what was read as an escape.
    pub(super) fn begin_hidden(
        &mut self,
        view: &View<'_>,
        beginning: Beginning<'_>,
        out: &mut Vec<Found>,
    ) -> Result<(), MaskError> {
        let rest = view.data[view.offset(beginning.start)..].iter().take(BEGINNING);
        let mut text = [0; BEGINNING];
        let mut len = 0;
        for (slot, byte) in text.iter_mut().zip(beginning.hidden.iter().chain(rest)) {
            *slot = *byte;
            len += 1;
        }
        for target in view.plan.filter.beginning(&text[..len]) {
            self.begin_at(view, None, beginning, target, out)?;
        }
        Ok(())
    }

    /// Whether something that begins inside of an escape is not decided, for which this position
    /// of the normal form has to wait.
    pub(super) fn is_inside(&self, hold: u64) -> bool {
        self.open.iter().any(|open| open.hold == hold && !open.hidden.is_empty())
    }

    /// How many possible matches are not decided.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    fn begin_at(
        &mut self,
        view: &View<'_>,
        before: Option<u8>,
        Beginning { input, start, hold, hidden, above }: Beginning<'_>,
        target: Target,
        out: &mut Vec<Found>,
    ) -> Result<(), MaskError> {
        let mut state = 0;
        if let Target::Rule(index) = target {
            let rule = view.plan.rule(index);
            // What begins in a value that is swallowed is masked with it.
            let inside = |(t, end): &(Target, u64)| *t == target && start < *end;
            if rule.swallow() && self.swallowed.iter().any(inside) {
                return Ok(());
            }
            if before.is_some_and(|byte| !rule.may_follow(byte)) {
                return Ok(());
            }
            state = match rule.start() {
                Some(state) => state,
                None => return Ok(()),
            };
            if !hidden.is_empty() {
                let progress = rule.run(hidden, 0, state, false);
                if progress.over {
                    return Ok(());
                }
                state = progress.state;
            }
        }
        let hidden = hidden.to_vec();
        let open = Open { target, input, start, hidden, at: start, state, end: None, hold, above };
        self.go_on(view, open, out)
    }

    /// Takes a candidate as far as the bytes at hand go.
    fn go_on(&mut self, view: &View<'_>, mut open: Open, out: &mut Vec<Found>) -> Result<(), MaskError> {
        let over = match open.target {
            Target::Literal(index) => literal(view, &open, index, out)?,
            Target::Rule(index) => self.run_rule(view, &mut open, index, out)?,
            Target::Context(_) => true,
        };
        if over {
            return Ok(());
        }
        // Of literals that begin alike one waits for all.
        let alike = |other: &Open| {
            let begins = (other.input, &other.hidden) == (open.input, &open.hidden);
            begins && matches!(other.target, Target::Literal(_))
        };
        if matches!(open.target, Target::Literal(_)) && self.open.iter().any(alike) {
            return Ok(());
        }
        if self.open.len() >= OPEN_MAX {
            return Err(MaskError::TooManyOpen { limit: OPEN_MAX });
        }
        self.open.push(open);
        Ok(())
    }

    /// Goes on with everything that was left undecided.
    fn go_on_all(&mut self, view: &View<'_>, out: &mut Vec<Found>) -> Result<(), MaskError> {
        for open in std::mem::take(&mut self.open) {
            if !matches!(open.target, Target::Literal(_)) {
                self.go_on(view, open, out)?;
                continue;
            }
            let text = [&open.hidden[..], view.data[view.offset(open.start)..].get(..4).unwrap_or_default()];
            let literals = view.plan.filter.beginning(&text.concat());
            let literals: Vec<Target> = literals.filter(|t| matches!(t, Target::Literal(_))).collect();
            for target in literals {
                self.go_on(view, Open { target, ..open.clone() }, out)?;
            }
        }
        Ok(())
    }

    /// Whether the rule is done with.
    fn run_rule(
        &mut self,
        view: &View<'_>,
        open: &mut Open,
        index: u32,
        out: &mut Vec<Found>,
    ) -> Result<bool, MaskError> {
        let rule = view.plan.rule(index);
        let progress = rule.run(view.data, view.offset(open.at), open.state, view.last);
        open.state = progress.state;
        open.at = view.end();
        let commits = rule.commits() && !view.whole && view.plan.early(open.target);
        if let Some(end) = progress.end {
            let end = view.base + end as u64;
            let length = end - open.start + open.hidden.len() as u64;
            let most = if commits { super::rule::SWALLOW_MAX_BYTES } else { SWALLOW_CODED_MAX_BYTES };
            if rule.swallow() && length > most {
                return Err(MaskError::NoEnd { entity: rule.entity.to_string(), limit: most });
            }
            if commits {
                // The range begins where the match does also when it grows: the union that
                // was given a placeholder then grows with it.
                open.hold = end;
                if rule.swallow() {
                    self.swallowed.retain(|(target, _)| *target != open.target);
                    self.swallowed.push((open.target, end));
                }
                let found = view.found_at(open.input, end, end, open.target)?;
                out.push(Found { above: open.above, ..found });
            } else {
                open.end = Some(end);
            }
        }
        if commits || !progress.over {
            return Ok(progress.over);
        }
        if let Some(end) = open.end {
            if rule.swallow() {
                self.swallowed.retain(|(target, _)| *target != open.target);
                self.swallowed.push((open.target, end));
            }
            out.extend(verified(view, open, end, index)?);
        }
        Ok(true)
    }
}

/// Compares a literal. Gives whether it is decided.
fn literal(view: &View<'_>, open: &Open, index: u32, out: &mut Vec<Found>) -> Result<bool, MaskError> {
    let form = view.plan.literal(index);
    let literal = form.bytes.expose();
    let same = |a: &[u8], b: &[u8]| if form.caseless { a.eq_ignore_ascii_case(b) } else { a == b };
    let here = &view.data[view.offset(open.start)..];
    let (hidden, behind) = literal.split_at(literal.len().min(open.hidden.len()));
    let common = behind.len().min(here.len());
    if !same(hidden, &open.hidden[..hidden.len()]) || !same(&behind[..common], &here[..common]) {
        return Ok(true);
    }
    if common < behind.len() {
        return Ok(view.last);
    }
    let end = open.start + common as u64;
    let found = view.found_at(open.input, open.start, end, open.target)?;
    let mut found = Found { above: open.above, ..found };
    if behind.is_empty() && !hidden.is_empty() {
        // It is all inside of the escape, which is masked to its end, by who has undone it.
        found.end = view.map.start(end);
        if open.above.is_some() {
            return Ok(true);
        }
    }
    if let Some((coding, alignment)) = form.coded {
        let placeholder = || view.plan.entity(open.target).placeholder().into_bytes();
        let text = found.text.unwrap_or_else(placeholder);
        found.text = Some(coding.stand_in(&text, alignment, literal));
    }
    out.push(found);
    Ok(true)
}

/// The secret part of a match, if its conditions hold.
fn verified(view: &View<'_>, open: &Open, end: u64, index: u32) -> Result<Option<Found>, MaskError> {
    let rule = view.plan.rule(index);
    if open.hidden.is_empty() {
        // And where something was left out, nothing stands behind.
        let behind =
            if view.map.end(end) == view.map.start(end) { view.data.len() } else { view.offset(end) };
        let (from, to) = (view.offset(open.start), view.offset(end));
        let Some((from, to)) = rule.verify(&view.data[..behind], from, to) else { return Ok(None) };
        let whole = from == view.offset(open.start);
        let (start, end) = (view.base + from as u64, view.base + to as u64);
        let input = if whole { open.input } else { view.map.start(start) };
        return view.found_at(input, start, end, open.target).map(Some);
    }
    // A part of it stands before the normal form: it is masked as a whole.
    let mut text = open.hidden.clone();
    let from = view.offset(open.start);
    text.extend_from_slice(&view.data[from..(view.offset(end) + 1).min(view.data.len())]);
    let length = open.hidden.len() + view.offset(end) - from;
    if rule.verify(&text, 0, length).is_none() {
        return Ok(None);
    }
    let found = view.found_at(open.input, open.start, end, open.target)?;
    Ok(Some(Found { above: open.above, ..found }))
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
    /// The rules of which a match can begin at an offset, a bit each, and up to where that holds.
    fn near(&mut self, plan: &Plan, data: &[u8], at: usize) -> (u32, usize) {
        let (mut near, mut until) = (u32::MAX, data.len());
        for (bit, (_, pivot)) in plan.runs.targets.iter().enumerate() {
            let (Some(byte), Some(slot)) = (pivot, self.0.get_mut(bit)) else { continue };
            let pivot = slot.get_or_insert_with(|| {
                let inside = |b: &u8| plan.runs.follows[usize::from(*b)] >> bit & 1 == 1;
                let tail = data.len() - data.iter().rev().take_while(|b| inside(b)).count();
                Pivot { next: 0, tail }
            });
            if pivot.next <= at {
                let found = memchr::memchr(*byte, &data[at..]);
                pivot.next = found.map_or(usize::MAX, |offset| at + offset);
            }
            let first = pivot.next.saturating_sub(PIVOT_MAX_BYTES).min(pivot.tail);
            if at < first {
                near &= !(1 << bit);
                until = until.min(first);
            } else if at < pivot.tail {
                // Looked at again behind the pivot.
                until = until.min(pivot.next.saturating_add(1)).min(pivot.tail);
            }
        }
        (near, until)
    }
}

/// Where the tail begins that is too short for a beginning but can be the first of one.
fn tail(plan: &Plan, data: &[u8], from: usize) -> usize {
    let first = data.len().saturating_sub(4).max(from);
    (first..data.len()).find(|&at| plan.filter.begins(&data[at..])).unwrap_or(data.len())
}
