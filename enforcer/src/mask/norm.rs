//! The normal form of text: what a reader takes it for, whatever way it was written down.
//!
//! ```text
//! raw bytes --find--> candidates --escape, fold--> units --> normal bytes + a map back
//!   \u0041%4b&#x49;A  (zero width) (fullwidth)                AKIA
//! ```
//!
//! One pass undoes one layer of JSON and C escapes, percent, HTML entities and
//! quoted-printable, leaves out what nobody sees (default-ignorable characters, terminal
//! control sequences, NUL and with it UTF-16 and UTF-32, CR) and folds look-alikes of ASCII
//! to ASCII. Everything else is its own normal form. What is undone depends on the bytes
//! before it in the stream only and on at most `ESCAPE_MAX_BYTES` after its beginning, so it
//! makes no difference how the stream is cut. Only a copy is changed: what goes out is made
//! of the raw bytes.
//!
//! A backspace stays as it is: to undo it, the last byte of every chunk would have to wait.

#[cfg(any(test, fuzzing))]
pub(super) mod check;
mod escape;
mod find;
mod fold;
#[cfg(test)]
mod tests;

use escape::{Before, Reader, Stop, Unit};
use find::Candidates;

/// How many bytes of input may wait as the beginning of an escape; so many more as can belong to
/// another one that it interrupts.
pub(super) const ESCAPE_MAX_BYTES: usize = 32;
/// How many bytes of an escape that is not complete are looked at for a layer below.
const BODY_MAX: usize = 12;

/// What an escape character (ESC) is taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Esc {
    /// The beginning of a control sequence of a terminal, which nobody sees.
    #[default]
    Sequence,
    /// A byte like any other: known values can have it.
    Byte,
}

/// What an equals sign at a line's end is taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Breaks {
    /// Itself, until quoted-printable is undone; from then on a soft break.
    #[default]
    Unseen,
    /// A soft break: nobody sees it.
    Soft,
    /// Itself, whatever comes.
    Hard,
}

/// What is carried from chunk to chunk.
#[derive(Debug, Clone)]
pub(super) struct Normaliser {
    esc: Esc,
    breaks: Breaks,
    /// The last byte taken ended an escape in quoted-printable.
    follows: bool,
    /// Normal bytes since something that could begin an escape, if no byte since then
    /// rules it out.
    since: usize,
}

impl Default for Normaliser {
    fn default() -> Self {
        Self { esc: Esc::default(), breaks: Breaks::default(), follows: false, since: BODY_MAX }
    }
}

/// A unit that is not its own normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escape {
    /// Where what it gives stands in the normal form.
    pub(super) norm: usize,
    /// Bytes that it gives; none if it is left out.
    pub(super) norm_len: usize,
    /// Where it begins in the raw bytes.
    pub(super) raw: usize,
    /// Its raw bytes.
    pub(super) raw_len: usize,
}

/// The normal form of some input, and where each byte came from.
#[derive(Debug, Default)]
pub(super) struct Normal {
    /// The normal form.
    pub(super) bytes: Vec<u8>,
    escapes: Vec<Escape>,
    taken: usize,
    again: bool,
}

impl Normaliser {
    /// One that takes escape characters for this.
    pub(super) fn new(esc: Esc) -> Self {
        Self { esc, ..Self::default() }
    }

    /// The same, which takes equals signs at the end of lines for this.
    pub(super) fn with(self, breaks: Breaks) -> Self {
        Self { breaks, ..self }
    }

    /// The same, directly behind something that was quoted-printable.
    pub(super) fn behind_quoted(self) -> Self {
        Self { follows: true, ..self.with(Breaks::Soft) }
    }

    /// What escape characters are taken for.
    pub(super) fn esc(&self) -> Esc {
        self.esc
    }

    /// Whether these bytes are their own normal form and leave nothing waiting. Then they
    /// need not be pushed.
    pub(super) fn is_plain(&self, raw: &[u8]) -> bool {
        if self.follows {
            return false;
        }
        let mut found = Candidates::new(raw);
        let mut from = 0;
        let state = Before { esc: self.esc, breaks: self.breaks, follows: false };
        while let Some(at) = found.next(from) {
            if !matches!(escape::read(Reader::new(&raw[at..], false), state), Err(Stop::Not)) {
                return false;
            }
            from = at + 1;
        }
        true
    }

    /// Appends the normal form of `raw` and says how many of its bytes were taken. The rest
    /// can be the beginning of an escape: it has to come again in front of what follows.
    /// With `last` nothing follows and everything is taken.
    pub(super) fn push(&mut self, raw: &[u8], last: bool, out: &mut Normal) -> usize {
        let mut run = Run { raw, last, base: out.taken, from: out.bytes.len(), done: 0, at: 0, out };
        let end = self.walk(&mut run).map_or(raw.len(), |stop| run.unbroken(stop));
        run.copy(end);
        self.follows &= run.done == end;
        self.since = self.since(&run.out.bytes[run.from..]);
        out.taken += end;
        end
    }

    /// The normal form of something without its end, if that can be the beginning of an escape.
    pub(super) fn cut(mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let mut out = Normal::default();
        let mut run = Run { raw, last: false, base: 0, from: 0, done: 0, at: 0, out: &mut out };
        let end = self.walk(&mut run)?;
        run.copy(end);
        Some(out.bytes)
    }

    /// Undoes one after the other, up to where something has to wait.
    fn walk(&mut self, run: &mut Run<'_>) -> Option<usize> {
        let mut found = Candidates::new(run.raw);
        while let Some(at) = found.next(run.at) {
            run.at = at;
            if let Err(stop) = self.step(run) {
                return Some(stop);
            }
        }
        None
    }

    /// Undoes what begins at a candidate, or where something has to wait.
    fn step(&mut self, run: &mut Run<'_>) -> Result<(), usize> {
        if run.raw[run.at] >= 0x80 {
            return self.foreign(run);
        }
        let follows = self.follows && run.at == run.done;
        let state = Before { esc: self.esc, breaks: self.breaks, follows };
        match escape::read(Reader::new(&run.raw[run.at..], run.last), state) {
            Ok(unit) => self.undo(&unit, run),
            Err(Stop::Not) => run.at += 1,
            Err(Stop::Wait) => return Err(run.at),
        }
        Ok(())
    }

    /// Goes on to the next ASCII byte: text in one script needs no look ahead.
    fn foreign(&mut self, run: &mut Run<'_>) -> Result<(), usize> {
        while let Some(byte) = run.raw.get(run.at)
            && *byte >= 0x80
        {
            match escape::foreign(Reader::new(&run.raw[run.at..], run.last)) {
                Ok(unit) => self.undo(&unit, run),
                Err(Stop::Not) => {
                    run.at += 1;
                    while run.raw.get(run.at).is_some_and(|b| (0x80..0xc0).contains(b)) {
                        run.at += 1;
                    }
                }
                Err(Stop::Wait) => return Err(run.at),
            }
        }
        Ok(())
    }

    fn undo(&mut self, unit: &Unit, run: &mut Run<'_>) {
        run.copy(run.at);
        let given = unit.given();
        let norm = run.out.bytes.len();
        let escape = Escape { norm, norm_len: given.len(), raw: run.base + run.at, raw_len: unit.len() };
        run.out.escapes.push(escape);
        run.out.again = run.out.again || unit.layered || self.reopens(given, run);
        for byte in given {
            run.out.bytes.push(*byte);
        }
        run.at += unit.len();
        run.done = run.at;
        self.follows = unit.quoted;
        if unit.quoted && self.breaks == Breaks::Unseen {
            self.breaks = Breaks::Soft;
        }
    }

    /// Whether what is given here can complete an escape of another layer that it interrupts.
    fn reopens(&mut self, given: &[u8], run: &mut Run<'_>) -> bool {
        let normal = &run.out.bytes[run.from..];
        match given {
            [b'\n'] => normal.last().map_or(self.since == 0, |b| *b == b'='),
            _ if given.iter().all(|b| escape::goes_on(*b)) => {
                // What was looked at needs no second look.
                self.since = self.since(normal);
                run.from = run.out.bytes.len();
                self.since < BODY_MAX
            }
            _ => false,
        }
    }

    /// How many bytes at the end of the normal form can belong to an escape that began before
    /// them and is interrupted here; `BODY_MAX` if there is none.
    fn since(&self, normal: &[u8]) -> usize {
        let body = normal.iter().rev().take(BODY_MAX).take_while(|b| escape::is_body(**b)).count();
        match normal.len().checked_sub(body + 1) {
            None => self.since.saturating_add(body).min(BODY_MAX),
            Some(before) if body < BODY_MAX && escape::is_introducer(normal[before]) => body,
            Some(_) => BODY_MAX,
        }
    }
}

/// One push.
struct Run<'a> {
    raw: &'a [u8],
    last: bool,
    /// What was taken by earlier pushes.
    base: usize,
    /// From where on the normal form was not looked at for what escapes interrupt.
    from: usize,
    /// Raw bytes whose normal form stands in `out`.
    done: usize,
    /// Where to go on.
    at: usize,
    out: &'a mut Normal,
}

impl Run<'_> {
    /// Where has to wait what ends at `end`, behind which an escape may stand that is not
    /// complete: with what it gives, an escape of another layer could go on that begins before
    /// it (`%4\u0031`), and who undoes that has to have it from its beginning.
    fn unbroken(&self, end: usize) -> usize {
        let plain = &self.raw[self.done..end];
        let body = plain.iter().rev().take(BODY_MAX).take_while(|b| escape::is_body(**b)).count();
        match plain.len().checked_sub(body + 1) {
            Some(before) if body < BODY_MAX && escape::is_introducer(plain[before]) => self.done + before,
            _ => end,
        }
    }

    /// Takes bytes that are their own normal form.
    fn copy(&mut self, to: usize) {
        match &self.raw[self.done..to] {
            [] => {}
            [byte] => self.out.bytes.push(*byte),
            plain => self.out.bytes.extend_from_slice(plain),
        }
    }
}

impl Normal {
    /// Where the unit begins that gave the normal byte at `norm`; for the end of the normal
    /// form, the end of what was taken.
    #[cfg(any(test, fuzzing))]
    pub(super) fn raw(&self, norm: usize) -> usize {
        if norm >= self.bytes.len() {
            return self.taken;
        }
        let before = self.escapes.partition_point(|e| e.norm <= norm);
        match before.checked_sub(1).map(|i| &self.escapes[i]) {
            None => norm,
            Some(escape) if norm < escape.norm + escape.norm_len => escape.raw,
            Some(escape) => escape.raw + escape.raw_len + (norm - escape.norm - escape.norm_len),
        }
    }

    /// Where the unit ends that gave the normal byte before `norm`. It is before `raw(norm)`
    /// where something was left out between the two.
    #[cfg(any(test, fuzzing))]
    pub(super) fn raw_end(&self, norm: usize) -> usize {
        let Some(byte) = norm.min(self.bytes.len()).checked_sub(1) else { return 0 };
        let before = self.escapes.partition_point(|e| e.norm <= byte);
        match before.checked_sub(1).map(|i| &self.escapes[i]) {
            Some(escape) if byte < escape.norm + escape.norm_len => escape.raw + escape.raw_len,
            _ => self.raw(byte) + 1,
        }
    }

    /// What is not its own normal form, in order. Plain text can begin inside: in `5%ABCDEF`
    /// the bytes `%AB` are one unit, and yet `ABCDEF` may be meant. Units whose first byte is
    /// not ASCII, and units of one byte, have nothing of their own inside.
    pub(super) fn escapes(&self) -> impl Iterator<Item = &Escape> {
        self.escapes.iter()
    }

    /// Whether the normal form may hold escapes again.
    pub(super) fn again(&self) -> bool {
        self.again
    }

    /// Gives memory back, and says how much is kept.
    pub(super) fn tidy(&mut self) -> usize {
        self.clear();
        super::level::tidy(&mut self.bytes) + super::level::tidy(&mut self.escapes)
    }

    /// Forgets everything but the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.escapes.clear();
        self.taken = 0;
        self.again = false;
    }
}
