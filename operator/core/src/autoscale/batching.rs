//! What a replica that batches carries within the objective.
//!
//! A batch of `n` takes `τ(n) = α + βn`, fitted by least squares from sums that pods count. A request waits for at most
//! the batch that runs and is served by the next one, so that the objective `T` at the share `q` leaves
//! `τ* = T/(1 + q)` for one batch; the largest batch within it, run without pause at 85 %, is the capacity.

use std::{num::NonZeroU32, ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

use super::units::{PerSecond, Percentile, float};

/// The share of the time in which batches run.
const BUSY: f64 = 0.85;
/// Seconds a row, where the batches have all had the same size and nothing can be fitted. Also the least slope: a
/// fit of noise may be flat or fall, and then a batch of any size would be free.
const LEAST_SLOPE: f64 = 1e-4;

/// Sums over the batches that a pod ran: they grow as long as it runs, and add up over pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batches {
    /// Batches.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// The sum of the squares of each batch's rows.
    pub rows_squared: f64,
    /// Seconds that they ran.
    pub seconds: f64,
    /// The sum of each batch's rows times its seconds.
    pub row_seconds: f64,
}

impl Batches {
    /// What was counted since; `None` when a count shrank.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let grown = |now: f64, before: f64| (now >= before).then_some(now - before);
        Some(Self {
            batches: self.batches.checked_sub(before.batches)?,
            rows: self.rows.checked_sub(before.rows)?,
            rows_squared: grown(self.rows_squared, before.rows_squared)?,
            seconds: grown(self.seconds, before.seconds)?,
            row_seconds: grown(self.row_seconds, before.row_seconds)?,
        })
    }

    /// These sums, or none where they cannot be sums of times.
    #[must_use]
    pub fn sound(self) -> Self {
        let sums = [self.rows_squared, self.seconds, self.row_seconds];
        match sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0) {
            true => self,
            false => Self::default(),
        }
    }

    /// Counts one batch.
    pub fn count(&mut self, rows: u32, seconds: f64) {
        let n = f64::from(rows);
        *self += &Self {
            batches: 1,
            rows: u64::from(rows),
            rows_squared: n * n,
            seconds,
            row_seconds: n * seconds,
        };
    }

    /// The time of a batch by its rows; `None` without batches, or where the sums make no sense.
    #[must_use]
    pub fn fit(&self) -> Option<Line> {
        let (batches, rows) = (self.batches as f64, self.rows as f64);
        if self.batches == 0 || self.rows == 0 {
            return None;
        }
        let spread = batches * self.rows_squared - rows * rows;
        // Below this the difference is what is left of rounding.
        let varies = spread > 1e-9 * rows * rows;
        let slope = match varies {
            true => (batches * self.row_seconds - rows * self.seconds) / spread,
            false => LEAST_SLOPE,
        };
        Line::new(self.seconds, rows, batches, slope)
    }
}

impl AddAssign<&Self> for Batches {
    fn add_assign(&mut self, other: &Self) {
        self.batches = self.batches.saturating_add(other.batches);
        self.rows = self.rows.saturating_add(other.rows);
        self.rows_squared += other.rows_squared;
        self.seconds += other.seconds;
        self.row_seconds += other.row_seconds;
    }
}

/// `τ(n) = α + βn`, in seconds: `α` is not negative, `β` is above nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    alpha: f64,
    beta: f64,
}

impl Line {
    /// `alpha` and `beta` in seconds; `None` where they are no times.
    #[must_use]
    pub fn of(alpha: f64, beta: f64) -> Option<Self> {
        let sound = alpha.is_finite() && alpha >= 0.0 && beta.is_finite() && beta > 0.0;
        sound.then_some(Self { alpha, beta })
    }

    fn new(seconds: f64, rows: f64, batches: f64, slope: f64) -> Option<Self> {
        if !(seconds > 0.0 && slope.is_finite()) {
            return None;
        }
        // Through the middle of what was seen, and never below nothing at no rows.
        let steepest = seconds / rows;
        let beta = slope.clamp(LEAST_SLOPE.min(steepest), steepest);
        Self::of(((seconds - beta * rows) / batches).max(0.0), beta)
    }

    /// The time of a batch of so many rows, in seconds.
    #[must_use]
    pub fn time(self, rows: f64) -> f64 {
        self.alpha + self.beta * rows
    }

    /// The rate that full batches without pause would give.
    #[must_use]
    pub fn saturation(self, most: NonZeroU32) -> f64 {
        float(most) / self.time(float(most))
    }

    /// The rate of one executor at which the percentile is within the objective; `None` where a batch of one is not.
    #[must_use]
    pub fn capacity(
        self,
        most: NonZeroU32,
        objective: Duration,
        percentile: Percentile,
    ) -> Option<PerSecond> {
        let time = objective.as_secs_f64() / (1.0 + percentile.share());
        if time <= self.time(1.0) {
            return None;
        }
        let rows = ((time - self.alpha) / self.beta).floor().min(float(most));
        PerSecond::positive(BUSY * rows / self.time(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(most: u32, alpha_ms: f64, beta_ms: f64) -> Option<f64> {
        let line = Line::of(alpha_ms / 1e3, beta_ms / 1e3).expect("times");
        let most = NonZeroU32::new(most).expect("above nothing");
        let p95 = Percentile::new(95.0).expect("a percentile");
        let capacity = line.capacity(most, Duration::from_millis(50), p95);
        capacity.map(PerSecond::get)
    }

    #[test]
    fn the_largest_batch_within_the_objective_is_the_capacity() {
        let tenth = |rate: Option<f64>| rate.map(|rate| (rate * 10.0).round() / 10.0);
        assert_eq!(tenth(capacity(16, 6.0, 1.0)), Some(618.2));
        assert_eq!(tenth(capacity(32, 6.0, 1.0)), Some(646.0));
        assert_eq!(capacity(16, 30.0, 1.0), None);
    }

    #[test]
    fn the_line_is_found_from_the_sums() {
        let mut sums = Batches::default();
        for rows in [1, 4, 4, 9, 16] {
            sums.count(rows, 0.006 + 0.001 * f64::from(rows));
        }
        let line = sums.fit().expect("a line");
        assert!((line.alpha - 0.006).abs() < 1e-9, "{line:?}");
        assert!((line.beta - 0.001).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn batches_of_one_size_say_nothing_of_the_slope() {
        let mut sums = Batches::default();
        for _ in 0..1_000 {
            sums.count(7, 0.013);
        }
        let line = sums.fit().expect("a line");
        assert_eq!(line.beta, 1e-4);
        assert!((line.time(7.0) - 0.013).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn a_line_falls_nowhere_and_is_nowhere_below_nothing() {
        // Larger batches were faster: noise.
        let mut falling = Batches::default();
        falling.count(1, 0.02);
        falling.count(10, 0.01);
        // Steeper than through nothing at no rows.
        let mut steep = Batches::default();
        steep.count(5, 0.001);
        steep.count(6, 0.01);
        for sums in [falling, steep] {
            let line = sums.fit().expect("a line");
            assert!(line.alpha >= 0.0 && line.beta > 0.0, "{line:?}");
        }
    }

    #[test]
    fn sums_without_sense_give_no_line() {
        let nothing = Batches::default();
        let no_time = Batches {
            batches: 5,
            rows: 5,
            ..nothing
        };
        let wrong = Batches {
            seconds: f64::NAN,
            ..no_time
        };
        for sums in [nothing, no_time, wrong] {
            assert_eq!(sums.fit(), None, "{sums:?}");
        }
    }
}
