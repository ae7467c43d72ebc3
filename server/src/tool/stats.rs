//! Medians and spreads of a few measurements.

use std::time::Duration;

/// The middle of several measurements with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Half of the measurements are not above, half not below.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    /// Of at least one number; `None` of none.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least: first,
            most: last,
        })
    }

    /// (most − least) / median: 0.1 when the measurements differ by a tenth. 0 for a median of 0.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.most - self.least) / self.median
    }
}

/// The median of several durations, zero of none.
#[must_use]
pub fn median(durations: &[Duration]) -> Duration {
    let seconds: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
    Spread::of(&seconds).map_or(Duration::ZERO, |spread| {
        Duration::from_secs_f64(spread.median)
    })
}

/// The `quantile` (0 to 1) of durations, by the nearest rank above; zero of none. Sorts them.
pub fn quantile(durations: &mut [Duration], quantile: f64) -> Duration {
    durations.sort_unstable();
    let rank = (quantile * durations.len() as f64).ceil() as usize;
    durations
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_what_lies_around() {
        let table: [(&[f64], f64, f64); 4] = [
            (&[5.0], 5.0, 0.0),
            (&[3.0, 1.0, 2.0], 2.0, 1.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5, 1.2),
            (&[0.0, 0.0], 0.0, 0.0),
        ];
        for (numbers, median, relative) in table {
            let spread = Spread::of(numbers).unwrap();
            assert_eq!((spread.median, spread.relative()), (median, relative));
        }
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_quantile_is_the_nearest_rank_above() {
        let mut ms: Vec<_> = (1..=10).rev().map(Duration::from_millis).collect();
        for (wanted, expected) in [(0.0, 1), (0.5, 5), (0.9, 9), (0.95, 10), (1.0, 10)] {
            assert_eq!(
                quantile(&mut ms, wanted),
                Duration::from_millis(expected),
                "{wanted}"
            );
        }
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_median_lies_between_the_least_and_the_greatest(numbers in proptest::collection::vec(0.0..1e9_f64, 1..50)) {
            let spread = Spread::of(&numbers).unwrap();
            prop_assert!(spread.least <= spread.median && spread.median <= spread.most);
            let below = numbers.iter().filter(|n| **n <= spread.median).count();
            prop_assert!(below * 2 >= numbers.len());
        }
    }
}
