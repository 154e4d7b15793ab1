//! The arithmetic of the suite.

/// The value below which `percent` of the values lie (nearest rank); 0 for none.
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0)
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The smallest and the largest value.
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    Some((values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?))
}

/// The values below which a quarter and three quarters of the values lie (nearest rank).
pub fn quartiles(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quarters: usize| sorted.get((sorted.len() * quarters).div_ceil(4).max(1) - 1).copied();
    Some([at(1)?, at(3)?])
}

/// Between which the median lies in 95 of 100 cases, whatever the values are spread like:
/// by the ranks that the binomial distribution allows. Nothing for too few values.
pub fn median_interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let length = sorted.len();
    // The largest rank below which 2.5 of 100 cases lie, and its counterpart from above.
    let mut below = 0.0;
    let mut chance = 0.5_f64.powi(i32::try_from(length).ok()?);
    let mut rank = 0;
    while below + chance <= 0.025 {
        below += chance;
        #[expect(clippy::cast_precision_loss, reason = "some hundred values")]
        let next = (length - rank) as f64 / (rank + 1) as f64;
        chance *= next;
        rank += 1;
    }
    Some([*sorted.get(rank.checked_sub(1)?)?, *sorted.get(length - rank)?])
}

/// (max - min) / median: how much to believe a median.
pub fn spread(values: &[f64]) -> f64 {
    let Some(middle) = median(values).filter(|middle| *middle != 0.0) else { return 0.0 };
    range(values).map_or(0.0, |(min, max)| ((max - min) / middle).abs())
}

/// `one / other`, if both are there and more than nothing: what a proxy adds can
/// drown in the noise, and says nothing then.
pub fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one.filter(|one| *one > 0.0)? / other.filter(|other| *other > 0.0)?)
}

/// The order in which a repetition goes through its targets: each begins one further.
pub fn rotated<T: Clone>(items: &[T], by: usize) -> Vec<T> {
    let mut order = items.to_vec();
    if !order.is_empty() {
        order.rotate_left(by % items.len());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 50), 100);
        assert_eq!(percentile(&mut values, 99), 198);
        assert_eq!(percentile(&mut values, 100), 200);
        assert_eq!(percentile(&mut [7], 99), 7);
        assert_eq!(percentile(&mut [7, 9], 0), 7);
        assert_eq!(percentile(&mut [], 50), 0);
    }

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_range_is_of_all_values() {
        assert_eq!(range(&[2.0, -1.0, 3.0]), Some((-1.0, 3.0)));
        assert_eq!(range(&[]), None);
    }

    #[test]
    fn quartiles_are_of_the_nearest_rank() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), Some([1.0, 3.0]));
        assert_eq!(quartiles(&[5.0]), Some([5.0, 5.0]));
        assert_eq!(quartiles(&[]), None);
    }

    #[test]
    fn a_median_lies_between_the_ranks_of_the_binomial_distribution() {
        let up_to = |last: u32| (1..=last).map(f64::from).collect::<Vec<_>>();
        // As tables of the sign test have them.
        assert_eq!(median_interval(&up_to(6)), Some([1.0, 6.0]));
        assert_eq!(median_interval(&up_to(20)), Some([6.0, 15.0]));
        assert_eq!(median_interval(&up_to(100)), Some([40.0, 61.0]));
        assert_eq!(median_interval(&up_to(5)), None);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert!((spread(&[90.0, 100.0, 115.0]) - 0.25).abs() < 1e-9);
        assert!((spread(&[-90.0, -100.0, -115.0]) - 0.25).abs() < 1e-9);
        assert!(spread(&[5.0]).abs() < 1e-9 && spread(&[]).abs() < 1e-9 && spread(&[0.0]).abs() < 1e-9);
    }

    #[test]
    fn ratios_need_both_sides() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
        assert_eq!(ratio(Some(3.0), Some(-2.0)), None);
        assert_eq!(ratio(Some(-3.0), Some(2.0)), None);
        assert_eq!(ratio(None, Some(2.0)), None);
        assert_eq!(ratio(Some(1.0), None), None);
    }

    #[test]
    fn every_target_is_first_once() {
        let items = ["a", "b", "c"];
        assert_eq!(rotated(&items, 0), ["a", "b", "c"]);
        assert_eq!(rotated(&items, 1), ["b", "c", "a"]);
        assert_eq!(rotated(&items, 4), ["b", "c", "a"]);
        assert!(rotated::<u8>(&[], 3).is_empty());
    }
}
