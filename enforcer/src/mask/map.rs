//! From positions of a normal form back to those of the bytes that it was made of.

use std::collections::VecDeque;

/// From `normal` on, byte by byte, the input goes on at `input`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    normal: u64,
    input: u64,
}

/// Where each position of a normal form comes from.
///
/// A unit that was undone (an escape) is a piece; so is what follows it. Two pieces at one
/// position of the normal form stand around something that gave nothing.
#[derive(Debug, Default)]
pub(super) struct Map(VecDeque<Piece>);

impl Map {
    /// A map that begins at these two positions.
    pub(super) fn at(normal: u64, input: u64) -> Self {
        Self(VecDeque::from([Piece { normal, input }]))
    }

    /// A unit of the input gave some bytes of the normal form, or none.
    pub(super) fn unit(&mut self, normal: u64, normal_len: u64, input: u64, input_len: u64) {
        if normal_len == 0 || self.start(normal) != input {
            self.0.push_back(Piece { normal, input });
        }
        self.0.push_back(Piece { normal: normal + normal_len, input: input + input_len });
    }

    /// Where the byte at `position` begins in the input; at the end, where the next one will.
    pub(super) fn start(&self, position: u64) -> u64 {
        let after = self.0.partition_point(|piece| piece.normal <= position);
        let piece = after.checked_sub(1).and_then(|index| self.0.get(index));
        piece.map_or(position, |piece| piece.input + (position - piece.normal))
    }

    /// Where the byte before `position` ends in the input.
    pub(super) fn end(&self, position: u64) -> u64 {
        let at = self.0.partition_point(|piece| piece.normal < position);
        match self.0.get(at) {
            // Something ends here: the first piece says where.
            Some(piece) if piece.normal == position => piece.input,
            _ => self.start(position),
        }
    }

    /// Which byte of the normal form begins at a place of the input, if one does.
    pub(super) fn back(&self, input: u64) -> Option<u64> {
        let after = self.0.partition_point(|piece| piece.input <= input);
        let piece = after.checked_sub(1).and_then(|index| self.0.get(index))?;
        Some(piece.normal + (input - piece.input))
    }

    /// Nothing before `position` is asked for again. What gave nothing there may be.
    pub(super) fn forget(&mut self, position: u64) {
        while self.0.get(1).is_some_and(|next| next.normal < position) {
            self.0.pop_front();
        }
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
}
