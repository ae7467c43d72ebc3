//! When requests are due in an open loop: at even distances, or as independent clients would send them. Pure.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

/// The distances between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Exponential distances, as of many independent clients: bursts and gaps.
    Poisson,
    /// All the same.
    Constant,
}

/// An endless sequence of due times, counted from the start.
#[derive(Clone, Debug)]
pub struct Arrivals {
    pattern: Pattern,
    rate: f64,
    count: u64,
    seconds: f64,
    rng: Rng,
}

impl Arrivals {
    /// `rate` requests a second on average; it must be above zero.
    #[must_use]
    pub fn new(pattern: Pattern, rate: f64, seed: u64) -> Self {
        Self {
            pattern,
            rate,
            count: 0,
            seconds: 0.0,
            rng: Rng::with_seed(seed),
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.count += 1;
        let seconds = match self.pattern {
            // From the count, so that no error adds up.
            Pattern::Constant => (self.count - 1) as f64 / self.rate,
            Pattern::Poisson => {
                // 1 − u lies in (0, 1]: its logarithm is finite.
                self.seconds -= (1.0 - self.rng.f64()).ln() / self.rate;
                self.seconds
            }
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn constant_arrivals_stand_at_even_distances() {
        let due: Vec<_> = Arrivals::new(Pattern::Constant, 1000.0, 1)
            .take(4)
            .collect();
        assert_eq!(due, [0, 1, 2, 3].map(Duration::from_millis));
        let last = Arrivals::new(Pattern::Constant, 3.0, 1)
            .nth(3_000_000)
            .unwrap();
        assert!(last.abs_diff(Duration::from_secs(1_000_000)) < Duration::from_micros(1));
    }

    #[test]
    fn poisson_distances_have_the_mean_and_the_spread_of_the_exponential_distribution() {
        let due: Vec<f64> = Arrivals::new(Pattern::Poisson, 100.0, 7)
            .take(100_000)
            .map(|due| due.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Both equal 1/rate; 100 000 draws keep them within two per cent.
        assert!((mean - 0.01).abs() < 0.0002, "{mean}");
        assert!((variance.sqrt() - 0.01).abs() < 0.0002, "{variance}");
        let short = gaps.iter().filter(|gap| **gap < 0.001).count() as f64 / gaps.len() as f64;
        assert!(
            (short - 0.0952).abs() < 0.005,
            "1 - e^-0.1 of them are short: {short}"
        );
    }

    proptest! {
        #[test]
        fn due_times_never_go_back(rate in 0.01..1e6_f64, seed: u64) {
            for pattern in [Pattern::Poisson, Pattern::Constant] {
                let due: Vec<_> = Arrivals::new(pattern, rate, seed).take(100).collect();
                prop_assert!(due.windows(2).all(|pair| pair[0] <= pair[1]));
            }
        }
    }
}
