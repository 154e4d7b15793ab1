//! From positions of a normal form back to those of the bytes that it was made of.

use std::collections::VecDeque;

/// Units of one shape at one distance from each other (in UTF-16, every second byte), so that
/// they cost no more than one.
#[derive(Clone, Copy, Debug)]
struct Piece {
    normal: u64,
    input: u64,
    /// How many units there are; of the last piece, one.
    count: u16,
    /// Bytes of a unit in the normal form, and in the input.
    given: u8,
    taken: u16,
    /// Bytes of the input directly behind it that give nothing.
    nothing: u16,
    /// Plain bytes behind each unit; behind that of the last piece, all that follow.
    plain: u8,
}

impl Piece {
    fn new(normal: u64, input: u64, given: u64, taken: u64) -> Self {
        let given = u8::try_from(given).unwrap_or(u8::MAX);
        let taken = u16::try_from(taken).unwrap_or(u16::MAX);
        Self { normal, input, count: 1, given, taken, nothing: 0, plain: 0 }
    }

    /// How far a unit and what is behind it go, in the normal form and in the input.
    fn step(&self) -> (u64, u64) {
        let (plain, taken) = (u64::from(self.plain), u64::from(self.taken) + u64::from(self.nothing));
        (u64::from(self.given) + plain, taken + plain)
    }

    /// Which of the units stands last before something so far behind the first, if one
    /// follows the other after `step`; and where, in the normal form and in the input.
    fn unit_at(&self, behind: u64, step: u64) -> (u64, u64) {
        let last = u64::from(self.count - 1);
        let index = behind.checked_div(step).map_or(last, |index| index.min(last));
        let (normal, input) = self.step();
        (self.normal + index * normal, self.input + index * input)
    }

    /// Where the normal byte at `position` begins in the input, and where it ends.
    fn byte(&self, position: u64) -> (u64, u64) {
        let (normal, input) = self.unit_at(position - self.normal, self.step().0);
        let (given, taken) = (u64::from(self.given), u64::from(self.taken));
        let at = position - normal;
        if at + 1 == given {
            (input + at, input + taken)
        } else if at < given {
            (input + at, input + at + 1)
        } else {
            let start = input + taken + u64::from(self.nothing) + (at - given);
            (start, start + 1)
        }
    }

    /// What stands behind this, if that is like it.
    fn takes(&mut self, next: &Self) -> bool {
        let shape = |piece: &Self| (piece.given, piece.taken, piece.nothing, piece.plain);
        let like = shape(self) == shape(next) && self.plain < u8::MAX && self.count < u16::MAX;
        self.count += u16::from(like);
        like
    }
}

/// Where each position of a normal form comes from.
///
/// A unit that was undone (an escape) begins a piece, if it is not like the one before it.
#[derive(Debug, Default)]
pub(super) struct Map(VecDeque<Piece>);

impl Map {
    /// A map that begins at these two positions.
    pub(super) fn at(normal: u64, input: u64) -> Self {
        Self(VecDeque::from([Piece::new(normal, input, 0, 0)]))
    }

    /// A unit of the input gave some bytes of the normal form, or none. Between it and the one
    /// before it there is nothing but plain bytes.
    pub(super) fn unit(&mut self, normal: u64, normal_len: u64, input: u64, input_len: u64) {
        debug_assert_eq!(self.start(normal), input, "nothing but plain bytes between two units");
        if let Some(last) = self.0.back_mut() {
            let plain = normal - last.normal - u64::from(last.given);
            let more = u16::try_from(input_len).ok().and_then(|more| last.nothing.checked_add(more));
            match more {
                Some(more) if plain == 0 && normal_len == 0 => {
                    last.nothing = more;
                    return;
                }
                _ => last.plain = u8::try_from(plain).unwrap_or(u8::MAX),
            }
        }
        // The last piece is complete.
        let before = self.0.len().checked_sub(2);
        if let Some(before) = before
            && let last = self.0[before + 1]
            && self.0[before].takes(&last)
        {
            self.0.pop_back();
        }
        self.0.push_back(Piece::new(normal, input, normal_len, input_len));
    }

    /// Where the byte at `position` begins in the input; at the end, where the next one will.
    pub(super) fn start(&self, position: u64) -> u64 {
        let after = self.0.partition_point(|piece| piece.normal <= position);
        let piece = after.checked_sub(1).and_then(|index| self.0.get(index));
        piece.map_or(position, |piece| piece.byte(position).0)
    }

    /// Where the byte before `position` ends in the input.
    pub(super) fn end(&self, position: u64) -> u64 {
        let after = self.0.partition_point(|piece| piece.normal < position);
        match after.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some(piece) => piece.byte(position - 1).1,
            // Of what gave nothing, the beginning.
            None => match self.0.front() {
                Some(first) if first.normal == position => first.input,
                _ => self.start(position),
            },
        }
    }

    /// Which byte of the normal form begins at a place of the input, if one does.
    pub(super) fn back(&self, input: u64) -> Option<u64> {
        let after = self.0.partition_point(|piece| piece.input <= input);
        let piece = after.checked_sub(1).and_then(|index| self.0.get(index))?;
        let (normal, from) = piece.unit_at(input - piece.input, piece.step().1);
        let (given, taken) = (u64::from(piece.given), u64::from(piece.taken));
        let at = input - from;
        let plain = |at: u64| normal + given + at.saturating_sub(u64::from(piece.nothing));
        Some(if at < taken { normal + at } else { plain(at - taken) })
    }

    /// Nothing before `position` is asked for again. What gave nothing there may be.
    pub(super) fn forget(&mut self, position: u64) {
        while self.0.get(1).is_some_and(|next| next.normal < position) {
            self.0.pop_front();
        }
    }

    /// Gives memory back that is not needed, and says how much is.
    pub(super) fn tidy(&mut self) -> usize {
        /// More than most texts have.
        const SPARE: usize = 4;
        if self.0.capacity() > 2 * self.0.len() + SPARE {
            self.0.shrink_to(self.0.len());
        }
        self.0.capacity() * size_of::<Piece>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_nothing_at_the_beginning_is_kept() {
        let mut map = Map::at(0, 0);
        map.unit(0, 0, 0, 3);
        map.forget(0);
        assert_eq!((map.end(0), map.start(0)), (0, 3));
    }

    #[test]
    fn positions_are_found_around_units() {
        // ab%41c, then a zero-width space of three bytes, then d.
        let mut map = Map::at(0, 0);
        map.unit(2, 1, 2, 3);
        map.unit(4, 0, 6, 3);
        let starts: Vec<u64> = (0..=5).map(|at| map.start(at)).collect();
        assert_eq!(starts, [0, 1, 2, 5, 9, 10]);
        let ends: Vec<u64> = (1..=5).map(|at| map.end(at)).collect();
        assert_eq!(ends, [1, 2, 5, 6, 10]);
        assert_eq!([0, 2, 5, 9].map(|at| map.back(at)), [Some(0), Some(2), Some(3), Some(4)]);
        map.forget(4);
        assert_eq!((map.end(4), map.start(4), map.end(5)), (6, 9, 10));
    }

    #[test]
    fn positions_are_the_same_however_units_repeat() {
        let mut state = 7_u64;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        for _ in 0..200 {
            let mut map = Map::at(5, 9);
            // Of each byte of the normal form, where it begins and ends.
            let (mut bytes, mut input) = (Vec::new(), 9);
            for _ in 0..below(12) {
                let (given, plain) = (below(3), below(3));
                let taken = given.max(1) + below(5);
                for _ in 0..=below(5) {
                    map.unit(5 + bytes.len() as u64, given, input, taken);
                    bytes.extend((0..given).map(|at| {
                        let end = if at + 1 == given { input + taken } else { input + at + 1 };
                        (input + at, end)
                    }));
                    input += taken;
                    bytes.extend((0..plain).map(|at| (input + at, input + at + 1)));
                    input += plain;
                }
            }
            let end = 5 + bytes.len() as u64;
            assert_eq!(map.start(end), input);
            let forgotten = below(bytes.len() as u64 + 1);
            map.forget(5 + forgotten);
            for (position, (from, to)) in (5..).zip(&bytes).skip(usize::try_from(forgotten).unwrap()) {
                assert_eq!((map.start(position), map.end(position + 1)), (*from, *to), "{map:?} {position}");
                assert!(map.back(*from).is_some_and(|at| at <= position), "{map:?} {position}");
            }
        }
    }

    #[test]
    fn units_of_one_shape_cost_as_much_as_one() {
        let mut map = Map::at(0, 0);
        for at in 0..60_000 {
            map.unit(at + 1, 0, 2 * at + 1, 1);
        }
        assert_eq!((map.start(59_999), map.end(60_000), map.back(2 * 777)), (119_998, 119_999, Some(777)));
        assert!(map.tidy() < 1024);
        let mut map = Map::at(0, 0);
        for at in 0..10_000 {
            map.unit(at, 1, 5 * at, 3);
            map.unit(at + 1, 0, 5 * at + 3, 2);
        }
        assert_eq!((map.start(777), map.end(777), map.start(9_999)), (3885, 3883, 49_995));
        assert!(map.tidy() < 1024);
        let mut map = Map::at(0, 0);
        for at in 0..10_000 {
            map.unit(1, 0, 5 * at + 1, 2);
            map.unit(1, 0, 5 * at + 3, 3);
        }
        assert_eq!((map.end(1), map.start(1)), (1, 50_001));
        assert!(map.tidy() < 1024);
    }
}
