//! Which bytes of a block are of a class, a bit each. Sixteen at a time, with the vectors that
//! every x86-64 and every AArch64 has; elsewhere by a loop.

use wide::u8x16;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// What `look` says of the block at an offset. Behind the end of the data stand zeros.
#[inline]
pub(super) fn at<T>(data: &[u8], at: usize, look: impl Fn(&[u8; BLOCK]) -> T) -> T {
    let rest = data.get(at..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return look(block);
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    look(&block)
}

/// Which bytes of a block are of a class.
#[inline]
pub(super) fn bits(block: &[u8; BLOCK], class: impl Fn(u8x16) -> u8x16) -> u64 {
    let sixteens = block.as_chunks::<16>().0.iter().enumerate();
    sixteens.fold(0, |bits, (index, sixteen)| {
        bits | u64::from(class(u8x16::new(*sixteen)).to_bitmask()) << (16 * index)
    })
}

/// Those that are this byte.
#[inline]
pub(super) fn is(bytes: u8x16, byte: u8) -> u8x16 {
    bytes.simd_eq(u8x16::splat(byte))
}

/// Those from `first` to `last`.
#[inline]
pub(super) fn within(bytes: u8x16, first: u8, last: u8) -> u8x16 {
    let behind = bytes - u8x16::splat(first);
    behind.min(u8x16::splat(last - first)).simd_eq(behind)
}

/// Letters of both cases.
#[inline]
pub(super) fn letter(bytes: u8x16) -> u8x16 {
    within(bytes | u8x16::splat(0x20), b'a', b'z')
}

/// The first so many bits; all, if they are more than there are.
#[inline]
pub(super) fn lowest(count: usize) -> u64 {
    if count < BLOCK { (1 << count) - 1 } else { u64::MAX }
}

/// The bits behind which `COUNT - 1` more stand in `bits` and in those that follow.
#[inline]
pub(super) fn together<const COUNT: usize>(bits: u64, next: u64) -> u64 {
    let mut wide = u128::from(bits) | u128::from(next) << 64;
    let mut have = 1;
    while have < COUNT {
        let step = have.min(COUNT - have);
        wide &= wide >> step;
        have += step;
    }
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_together_is_seen_over_the_end_of_a_block() {
        let half = |wide: u128| u64::try_from(wide & u128::from(u64::MAX)).unwrap();
        for (from, count) in (0..64).flat_map(|from| (10..30).map(move |count| (from, count))) {
            let wide = ((1_u128 << count) - 1) << from;
            // Of 12 that stand together, each from the first on behind which 11 more stand.
            let expected = if count < 12 { 0 } else { half((wide >> 11) & (u128::MAX << from)) };
            assert_eq!(together::<12>(half(wide), half(wide >> 64)), expected, "{from} {count}");
        }
    }

    #[test]
    fn behind_the_end_stand_zeros() {
        let text = [b'x'; BLOCK + 9];
        for from in [0, 8, 9, 10, BLOCK, BLOCK + 9, BLOCK + 10, usize::MAX] {
            let left = text.len().saturating_sub(from).min(BLOCK);
            assert_eq!(at(&text, from, |block| bits(block, letter)).count_ones() as usize, left, "{from}");
        }
    }
}
