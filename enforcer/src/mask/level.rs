//! One level of a stream: its normal form, the scan of it, and what is decoded from it.
//!
//! ```text
//! bytes --Normaliser--> normal form --Scan-----------> matches ---------+
//!                            |------- Runs ----------> values by context |--> mapped back
//!                            |           `-> coded runs: a level each ---+
//!                            '------- escapes in it again: a level ------+
//! ```
//!
//! Each level takes its input in any chunks, and says up to where it is decided. What a
//! level finds in something decoded is given back as a range of its own input.

use super::{
    error::MaskError,
    filter::WINDOW,
    map::Map,
    masker::Plan,
    norm::{ESCAPE_MAX_BYTES, Esc, Normal, Normaliser},
    runs::Runs,
    scan::{Above, Beginning, Found, Scan, View},
};

/// How many levels may stand on each other.
pub const DEPTH_MAX: u8 = 5;
/// How many levels of one stream may be open at once.
pub const LEVELS_MAX: usize = 64;
/// Bytes that one level looks at in one go; it bounds what is kept.
const BLOCK_BYTES: usize = 2 * 1024;
/// Bytes that are kept behind what is decided: of what goes out while it is looked at, and of
/// what stands before that.
const LOOK_BEHIND: usize = 384;
/// Memory of a list that is not given back: most streams need it again at once.
const SPARE_BYTES: usize = 256;
/// What all levels of a stream share.
#[derive(Debug)]
pub(super) struct Budget {
    levels: usize,
    /// Bytes that decompression may still give.
    pub(super) expanded: u64,
}

/// Bytes that may be decompressed inside of one stream.
pub const EXPANDED_MAX_BYTES: u64 = 8 * 1024 * 1024;

impl Default for Budget {
    fn default() -> Self {
        Self { levels: 0, expanded: EXPANDED_MAX_BYTES }
    }
}

/// An escape in which something could begin.
#[derive(Clone, Copy, Debug)]
struct Inside {
    /// The level that has undone it, and where it stands in the input of that level.
    depth: u8,
    input: u64,
    /// Where what it gave stands in the normal form of this level, and where this goes on behind it.
    normal: u64,
    behind: u64,
    text: [u8; ESCAPE_MAX_BYTES],
    len: u8,
}

impl Inside {
    /// What could begin in it: from each byte on behind the first that begins something known.
    fn begin<'a>(text: &'a [u8], plan: &'a Plan) -> impl Iterator<Item = (usize, &'a [u8])> {
        let begins = |text: &[u8]| text[0].is_ascii() && plan.filter.begins(&text[..text.len().min(WINDOW)]);
        (1..text.len()).map(|at| (at, &text[at..])).filter(move |(_, text)| begins(text))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Level {
    depth: u8,
    /// A match is given only when its end is known.
    whole: bool,
    normaliser: Normaliser,
    normal: Normal,
    /// Input that can be the beginning of an escape.
    waiting: Vec<u8>,
    /// Position of its first byte: all input before it was taken.
    taken: u64,
    /// The normal form from `base` on.
    kept: Vec<u8>,
    base: u64,
    map: Map,
    /// Up to here the normal form is decided, and the input.
    decided: u64,
    decided_input: u64,
    scan: Scan,
    runs: Runs,
    /// Escapes that were not yet looked into, ...
    inside: Vec<Inside>,
    /// ... those in which something has begun that is not decided, ...
    begun: Vec<Inside>,
    /// ... and those that the level above has undone and whose end was not yet taken here, in
    /// positions of the input: what follows them is undone once more here.
    handed: Vec<Inside>,
    again: Option<Box<Level>>,
}

impl Level {
    /// The level of a stream itself.
    pub(super) fn top(esc: Esc) -> Self {
        Self::new(0, (0, &[]), (false, esc))
    }

    /// A level for something that was decoded, and has a beginning.
    pub(super) fn below(depth: u8, esc: Esc, budget: &mut Budget) -> Result<Self, MaskError> {
        Self::open(depth, (0, &[]), (true, esc), budget)
    }

    /// A level whose input begins at a position, behind these bytes.
    fn open(
        depth: u8,
        begin: (u64, &[u8]),
        kind: (bool, Esc),
        budget: &mut Budget,
    ) -> Result<Self, MaskError> {
        if depth > DEPTH_MAX {
            return Err(MaskError::TooDeep { limit: DEPTH_MAX });
        }
        if budget.levels >= LEVELS_MAX {
            return Err(MaskError::TooManyLevels { limit: LEVELS_MAX });
        }
        budget.levels += 1;
        Ok(Self::new(depth, begin, kind))
    }

    fn new(depth: u8, (position, behind): (u64, &[u8]), (whole, esc): (bool, Esc)) -> Self {
        let base = position - behind.len() as u64;
        Self {
            depth,
            whole,
            normaliser: Normaliser::new(esc),
            normal: Normal::default(),
            waiting: Vec::new(),
            taken: position,
            kept: behind.to_vec(),
            base,
            map: Map::at(base, base),
            decided: position,
            decided_input: position,
            scan: Scan::at(position),
            runs: Runs::at(position),
            inside: Vec::new(),
            begun: Vec::new(),
            handed: Vec::new(),
            again: None,
        }
    }

    /// Gives what this level took of the budget back.
    pub(super) fn close(self, budget: &mut Budget) {
        budget.levels = budget.levels.saturating_sub(1);
        self.runs.close(budget);
        if let Some(again) = self.again {
            again.close(budget);
        }
    }

    /// Takes the next bytes of the input, and says up to where the input is decided.
    pub(super) fn push(
        &mut self,
        plan: &Plan,
        budget: &mut Budget,
        data: &[u8],
        last: bool,
        out: &mut Vec<Found>,
    ) -> Result<u64, MaskError> {
        let mut rest = data;
        while rest.len() > BLOCK_BYTES {
            let (block, behind) = rest.split_at(BLOCK_BYTES);
            self.block(plan, budget, block, false, out)?;
            rest = behind;
        }
        self.block(plan, budget, rest, last, out)
    }

    fn block(
        &mut self,
        plan: &Plan,
        budget: &mut Budget,
        data: &[u8],
        last: bool,
        out: &mut Vec<Found>,
    ) -> Result<u64, MaskError> {
        let known = self.inside.len();
        let again = self.normalise(plan, data, last);
        let mut decided = self.take_handed(known);
        decided = decided.min(self.decided_again(plan, budget, (again, known), last, out)?);
        let esc = self.normaliser.esc();
        let (data, whole) = (&self.kept[..], self.whole);
        let view = View { plan, data, base: self.base, map: &self.map, esc, last, whole };
        let first = out.len();
        decided = decided.min(self.scan.look_inside(
            self.depth,
            (&mut self.inside, &mut self.begun),
            &view,
            out,
        )?);
        decided = decided.min(self.scan.advance(&view, out)?);
        decided = decided.min(self.runs.advance(&view, self.depth, budget, out)?);
        debug_assert!(out[first..].iter().all(|found| found.start <= found.end));
        // Something can begin inside of an escape that gave nothing, which ends where it begins.
        let all = decided == view.end() && self.inside.is_empty() && self.handed.is_empty();
        let input = if all { self.taken } else { self.map.end(decided).min(self.taken) };
        // What gave nothing and was decided stays so when something begins behind it.
        self.decided_input = self.decided_input.max(input);
        self.decided = decided;
        self.forget();
        Ok(self.decided_input)
    }

    /// Appends the normal form of the next bytes. Whether it can hold escapes again.
    fn normalise(&mut self, plan: &Plan, data: &[u8], last: bool) -> bool {
        let end = self.base + self.kept.len() as u64;
        if self.waiting.is_empty() && self.normaliser.is_plain(data) {
            grow(&mut self.kept, data.len());
            self.kept.extend_from_slice(data);
            self.taken += data.len() as u64;
            return false;
        }
        self.waiting.extend_from_slice(data);
        self.normal.clear();
        let used = self.normaliser.push(&self.waiting, last, &mut self.normal);
        for escape in self.normal.escapes() {
            let (normal, input) = (end + escape.norm as u64, self.taken + escape.raw as u64);
            self.map.unit(normal, escape.norm_len as u64, input, escape.raw_len as u64);
            let raw = &self.waiting[escape.raw..escape.raw + escape.raw_len];
            let mut text = [0; ESCAPE_MAX_BYTES];
            let Some(room) = text.get_mut(..raw.len()).filter(|_| raw[0].is_ascii()) else { continue };
            if Inside::begin(raw, plan).next().is_some() {
                room.copy_from_slice(raw);
                let (behind, len) = (normal + escape.norm_len as u64, raw.len().to_le_bytes()[0]);
                self.inside.push(Inside { depth: self.depth, input, normal, behind, text, len });
            }
        }
        grow(&mut self.kept, self.normal.bytes.len());
        self.kept.extend_from_slice(&self.normal.bytes);
        self.waiting.drain(..used);
        self.taken += used as u64;
        self.normal.again()
    }

    /// Finds the place of escapes of the level above in the normal form, behind the first so many
    /// that are known, and says up to which position no other one is waited for.
    fn take_handed(&mut self, known: usize) -> u64 {
        let end = self.base + self.kept.len() as u64;
        let ready = self.handed.partition_point(|escape| escape.behind <= self.taken);
        for escape in self.handed.drain(..ready) {
            let at_end = (escape.behind == self.taken).then_some(end);
            // If what follows it belongs to one unit with what it gave, nothing begins inside.
            let begins = |at: &u64| self.map.start(*at) == escape.behind;
            if let Some(behind) = at_end.or_else(|| self.map.back(escape.behind).filter(begins)) {
                let normal = self.map.back(escape.normal).map_or(behind, |normal| normal.min(behind));
                self.inside.push(Inside { normal, behind, ..escape });
            }
        }
        self.inside[known..].sort_by_key(|escape| escape.behind);
        let waits = self.handed.first().filter(|escape| escape.normal < self.taken);
        waits.and_then(|escape| self.map.back(escape.normal)).map_or(end, |normal| normal.min(end))
    }

    /// Looks at the normal form as something to be undone once more, if it can hold escapes; of
    /// those in which something could begin so many are known.
    fn decided_again(
        &mut self,
        plan: &Plan,
        budget: &mut Budget,
        (again, known): (bool, usize),
        last: bool,
        out: &mut Vec<Found>,
    ) -> Result<u64, MaskError> {
        let end = self.base + self.kept.len() as u64;
        let offset = |position: u64| usize::try_from(position - self.base).unwrap_or(usize::MAX);
        if self.again.is_none() {
            if !again {
                return Ok(end);
            }
            let behind = &self.kept[..offset(self.decided)];
            let kind = (self.whole, self.normaliser.esc());
            let mut level = Level::open(self.depth + 1, (self.decided, behind), kind, budget)?;
            let begun = self.begun.iter().filter(|escape| escape.normal >= self.decided);
            level.handed.extend(begun.chain(&self.inside[..known]));
            self.again = Some(Box::new(level));
        }
        let Some(level) = &mut self.again else { return Ok(end) };
        level.handed.extend_from_slice(&self.inside[known..]);
        let from = level.taken + level.waiting.len() as u64;
        let first = out.len();
        let decided = level.push(plan, budget, &self.kept[offset(from)..], last, out)?;
        for found in &mut out[first..] {
            let above = found.above.take_if(|above| above.depth == self.depth);
            found.start = above.map_or_else(|| self.map.start(found.start), |above| above.input);
            found.end = self.map.end(found.end);
        }
        let over = (!again && decided == end) || last;
        if let Some(level) = self.again.take_if(|_| over) {
            level.close(budget);
        }
        Ok(decided)
    }

    /// Drops what nobody looks back at.
    fn forget(&mut self) {
        let from = self.decided.saturating_sub(LOOK_BEHIND as u64).max(self.base);
        let count = usize::try_from(from - self.base).unwrap_or(usize::MAX).min(self.kept.len());
        self.map.forget(from);
        // Not for each byte: what stays is moved.
        if count >= self.kept.len() - count {
            self.kept.drain(..count);
            self.base = from;
        }
    }

    /// Whether something compressed is being gathered, which has a limit of its own.
    pub(super) fn gathers(&self) -> bool {
        self.runs.gathers() || self.again.as_ref().is_some_and(|level| level.gathers())
    }

    /// Gives memory back that is not needed to wait for more, and says how much is.
    pub(super) fn tidy(&mut self) -> usize {
        let escapes = [&mut self.inside, &mut self.begun, &mut self.handed];
        let escapes: usize = escapes.into_iter().map(tidy).sum();
        let lists = tidy_bytes(&mut self.waiting) + tidy_bytes(&mut self.kept) + escapes;
        let again = self.again.as_mut().map_or(0, |level| size_of::<Self>() + level.tidy());
        lists + again + self.normal.tidy() + self.map.tidy() + self.scan.tidy() + self.runs.tidy()
    }
}

/// Makes room without doubling what there is: most of a stream's memory stands in few lists.
pub(super) fn grow(list: &mut Vec<u8>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 4));
    }
}

/// Gives memory back that was needed but for a while, and says how much is kept, in bytes.
pub(super) fn tidy<T>(list: &mut Vec<T>) -> usize {
    let most = 2 * list.len() + SPARE_BYTES / size_of::<T>();
    if list.capacity() > most {
        list.shrink_to(list.len());
    }
    list.capacity() * size_of::<T>()
}

/// The same for a list that [`grow`] makes room in.
pub(super) fn tidy_bytes(list: &mut Vec<u8>) -> usize {
    if list.capacity() > list.len() + list.len() / 2 + SPARE_BYTES {
        list.shrink_to(list.len());
    }
    list.capacity()
}

impl Scan {
    /// Tries what begins inside of escapes, and says up to which position that is decided. Keeps
    /// those in which something has begun.
    fn look_inside(
        &mut self,
        depth: u8,
        (inside, begun): (&mut Vec<Inside>, &mut Vec<Inside>),
        view: &View<'_>,
        out: &mut Vec<Found>,
    ) -> Result<u64, MaskError> {
        /// The bytes behind an escape that have to be there for a beginning to be known.
        const BEHIND: u64 = 4;
        begun.retain(|escape| self.is_inside(escape.normal));
        let ready = inside.partition_point(|escape| view.last || escape.behind + BEHIND <= view.end());
        for escape in inside.drain(..ready) {
            let open = self.open();
            for (at, hidden) in Inside::begin(&escape.text[..usize::from(escape.len)], view.plan) {
                let input = escape.input + at as u64;
                let above = (escape.depth != depth).then_some(Above { depth: escape.depth, input });
                let beginning = Beginning {
                    input: if above.is_some() { view.map.start(escape.normal) } else { input },
                    start: escape.behind,
                    hold: escape.normal,
                    hidden,
                    above,
                };
                self.begin_hidden(view, beginning, out)?;
            }
            if self.open() > open {
                begun.push(escape);
            }
        }
        Ok(inside.first().map_or(view.end(), |escape| escape.normal))
    }
}
