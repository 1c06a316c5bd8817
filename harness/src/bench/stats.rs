//! The arithmetic of the benchmark: quartiles, paired differences, percentiles, a shuffle from a
//! seed.

use serde::{Serialize, Serializer};

/// The three quartiles of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quartiles {
    #[serde(serialize_with = "tenths")]
    pub(super) q1: f64,
    #[serde(serialize_with = "tenths")]
    pub(super) median: f64,
    #[serde(serialize_with = "tenths")]
    pub(super) q3: f64,
}

/// Writes only as many digits as the measurement supports.
pub(super) fn tenths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 10.0).round() / 10.0)
}

impl Quartiles {
    /// Quartiles with linear interpolation between neighbours; NaN for an empty sample.
    pub(super) fn of(mut sample: Vec<f64>) -> Self {
        sample.sort_by(f64::total_cmp);
        let quartile = |quarters: usize| {
            let place = sample.len().saturating_sub(1) * quarters;
            let (low, share) = (place / 4, [0.0, 0.25, 0.5, 0.75][place % 4]);
            let at = |place: usize| sample.get(place).copied().unwrap_or(f64::NAN);
            if share == 0.0 { at(low) } else { at(low) + share * (at(low + 1) - at(low)) }
        };
        Self { q1: quartile(1), median: quartile(2), q3: quartile(3) }
    }

    /// Quartiles of the differences between values of the same round.
    pub(super) fn of_differences(values: &[f64], reference: &[f64]) -> Self {
        Self::of(differences(values, reference))
    }

    /// Quartiles of the ratios of values of the same round.
    pub(super) fn of_ratios(values: &[f64], reference: &[f64]) -> Self {
        Self::of(values.iter().zip(reference).map(|(value, reference)| value / reference).collect())
    }

    /// The middle quartile alone.
    pub(super) fn median(values: &[f64]) -> f64 {
        Self::of(values.to_vec()).median
    }
}

/// The differences between values of the same round.
pub(super) fn differences(values: &[f64], reference: &[f64]) -> Vec<f64> {
    values.iter().zip(reference).map(|(value, reference)| value - reference).collect()
}

/// The mean of the middle half of the differences between values of the same round: for coarse
/// figures, whose median would be coarse too.
pub(super) fn midmean_difference(values: &[f64], reference: &[f64]) -> f64 {
    let mut all = differences(values, reference);
    all.sort_by(f64::total_cmp);
    let outer = all.len() / 4;
    let middle = &all[outer..all.len() - outer];
    middle.iter().sum::<f64>() / u32::try_from(middle.len()).map_or(f64::NAN, f64::from)
}

/// The value below which `percent` of a sorted sample lies (nearest rank).
pub(super) fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    per_mille(sorted, percent * 10)
}

/// The same of a thousand.
pub(super) fn per_mille<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    sorted.get((sorted.len() * per_mille).div_ceil(1000).checked_sub(1)?).copied()
}

/// The generator SplitMix64: the same seed gives the same order of rounds on every machine.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Shuffles a short list.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            // The bias of the remainder is far below one in a billion for a short list.
            let choices = u64::try_from(end + 1).unwrap_or(u64::MAX);
            let chosen = usize::try_from(self.next() % choices).unwrap_or(end);
            list.swap(end, chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate_between_neighbours() {
        for (sample, q1, median, q3) in [
            (vec![7.0], 7.0, 7.0, 7.0),
            (vec![3.0, 1.0], 1.5, 2.0, 2.5),
            (vec![5.0, 1.0, 2.0, 4.0, 3.0], 2.0, 3.0, 4.0),
            (vec![4.0, -2.0, 1.0, 10.0], 0.25, 2.5, 5.5),
            (vec![1.0, 2.0, 3.0, 4.0, 5.0, 1000.0], 2.25, 3.5, 4.75),
        ] {
            let found = Quartiles::of(sample.clone());
            assert_eq!(found, Quartiles { q1, median, q3 }, "{sample:?}");
        }
        assert!(Quartiles::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn differences_are_taken_within_a_round() {
        // The machine slows down tenfold in the third round: unpaired medians differ by 10, pairs
        // by 5.
        let reference = [100.0, 110.0, 1000.0, 105.0];
        let values = [105.0, 115.0, 1005.0, 111.0];
        let found = Quartiles::of_differences(&values, &reference);
        assert_eq!(found, Quartiles { q1: 5.0, median: 5.0, q3: 5.25 });
        assert_eq!(midmean_difference(&values, &reference), 5.0);
        assert_eq!(midmean_difference(&values[3..], &reference[3..]), 6.0);
        assert!(midmean_difference(&[], &[]).is_nan());
        let twice = reference.map(|value| value * 2.0);
        let found = Quartiles::of_ratios(&twice, &reference);
        assert_eq!(found, Quartiles { q1: 2.0, median: 2.0, q3: 2.0 });
    }

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sample: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&sample, 50), Some(100));
        assert_eq!(percentile(&sample, 99), Some(198));
        assert_eq!(percentile(&sample[..1], 99), Some(1));
        assert_eq!(percentile::<u32>(&[], 50), None);
        let sample: Vec<u32> = (1..=2000).collect();
        for (of_thousand, expected) in [(500, 1000), (990, 1980), (999, 1998), (1000, 2000)] {
            assert_eq!(per_mille(&sample, of_thousand), Some(expected));
        }
        assert_eq!(per_mille(&sample[..1], 1), Some(1));
        assert_eq!(per_mille::<u32>(&[], 999), None);
    }

    #[test]
    fn a_shuffle_keeps_every_member_and_follows_its_seed() {
        let shuffled = |seed| {
            let mut list: Vec<u32> = (0..6).collect();
            Random(seed).shuffle(&mut list);
            list
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert!((2..20).any(|seed| shuffled(seed) != shuffled(1)));
        let mut all = shuffled(7);
        all.sort_unstable();
        assert_eq!(all, (0..6).collect::<Vec<u32>>());
    }
}
