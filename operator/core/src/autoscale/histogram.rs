//! Histograms of times, by buckets that say themselves where they are: routers and pods have different ones.
//!
//! A time is taken as the middle of its bucket. The objective should be a bucket's bound; where it is not, the bucket
//! that it falls into is above it when its middle is.

use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

use ortolan_stats::latency;
use serde::{Deserialize, Serialize};

/// Times above one bound, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    above: u64,
    upto: u64,
}

impl Bucket {
    /// Above `above`, up to `upto`; without an end when that is `None`.
    #[must_use]
    pub fn new(above: Duration, upto: Option<Duration>) -> Self {
        Self {
            above: micros(above),
            upto: upto.map_or(u64::MAX, micros),
        }
    }

    /// The middle, in seconds; of a bucket without an end its beginning.
    #[must_use]
    pub fn middle(self) -> f64 {
        match self.upto {
            u64::MAX => self.above as f64 / 1e6,
            upto => (self.above as f64 + upto as f64) / 2e6,
        }
    }

    fn bound(self) -> Duration {
        Duration::from_micros(match self.upto {
            u64::MAX => self.above,
            upto => upto,
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1)
}

/// How many times fell into each bucket. Empty buckets are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64, u64)>", into = "Vec<(u64, u64, u64)>")]
pub struct Histogram(BTreeMap<Bucket, u64>);

impl Histogram {
    /// From what a router tells: counts by the bucket of [`ortolan_stats::latency`].
    #[must_use]
    pub fn of_router(counts: &BTreeMap<u16, u64>) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in counts {
            let at = usize::from(*bucket).min(latency::BOUNDS);
            let bound = |at: usize| match at < latency::BOUNDS {
                true => latency::bound(at),
                false => u64::MAX,
            };
            let above = at.checked_sub(1).map_or(0, bound);
            histogram.count(
                Bucket {
                    above,
                    upto: bound(at),
                },
                *count,
            );
        }
        histogram
    }

    /// Counts so many times of one bucket.
    pub fn count(&mut self, bucket: Bucket, count: u64) {
        if count > 0 {
            let sum = self.0.entry(bucket).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// All that was counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self.0.values();
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many are above a time.
    #[must_use]
    pub fn above(&self, time: Duration) -> u64 {
        let time = time.as_secs_f64();
        let slower = self.0.iter().filter(|(bucket, _)| bucket.middle() > time);
        slower.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }

    /// The bound of the bucket up to which at least this share (0 to 1) lies, never interpolated; of a bucket without
    /// an end its beginning. `None` of an empty histogram.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all = self.total() as f64;
        let mut seen = 0_u64;
        let last = self.0.keys().next_back()?;
        let found = self.0.iter().find_map(|(bucket, count)| {
            seen = seen.saturating_add(*count);
            // 0.95 of 100 is 95 but for rounding.
            (seen as f64 >= share * all - 1e-9 * all).then_some(bucket)
        });
        Some(found.unwrap_or(last).bound())
    }

    /// Each bucket's share and middle, in seconds.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let all = self.total().max(1) as f64;
        let each = self.0.iter();
        each.map(move |(bucket, count)| (*count as f64 / all, bucket.middle()))
    }

    /// What was counted since `before`; `None` when a count shrank: it began anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let mut grown = Self::default();
        for (bucket, count) in &self.0 {
            let had = before.0.get(bucket).copied().unwrap_or(0);
            grown.count(*bucket, count.checked_sub(had)?);
        }
        let kept = before.0.keys().all(|bucket| self.0.contains_key(bucket));
        kept.then_some(grown)
    }
}

impl AddAssign<&Self> for Histogram {
    fn add_assign(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.count(*bucket, *count);
        }
    }
}

impl From<Vec<(u64, u64, u64)>> for Histogram {
    fn from(counts: Vec<(u64, u64, u64)>) -> Self {
        let mut histogram = Self::default();
        for (above, upto, count) in counts {
            histogram.count(Bucket { above, upto }, count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u64, u64, u64)> {
    fn from(histogram: Histogram) -> Self {
        let counts = histogram.0.into_iter();
        counts
            .map(|(bucket, count)| (bucket.above, bucket.upto, count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts between these bounds, the last one above all of them.
    fn of(bounds: &[u64], counts: &[u64]) -> Histogram {
        let ends = bounds.iter().copied().chain([u64::MAX]);
        let begins = [0].into_iter().chain(bounds.iter().copied());
        let mut histogram = Histogram::default();
        for ((above, upto), count) in begins.zip(ends).zip(counts) {
            histogram.count(Bucket { above, upto }, *count);
        }
        histogram
    }

    const BOUNDS: [u64; 4] = [10_000, 20_000, 50_000, 100_000];

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(of(&BOUNDS, &[50, 30, 15, 5, 0]).quantile(0.95), ms(50));
        let saturated = of(&BOUNDS, &[50, 30, 15, 3, 2]);
        assert_eq!(saturated.quantile(0.99), ms(100));
        assert_eq!(saturated.quantile(0.5), ms(10));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn a_time_at_the_objective_does_not_violate_it() {
        let some = of(&BOUNDS, &[50, 30, 15, 3, 2]);
        assert_eq!(some.above(Duration::from_millis(50)), 5);
        assert_eq!(some.above(Duration::from_millis(100)), 0);
        let far = of(&[1_000], &[1, 7]);
        assert_eq!(far.above(Duration::from_micros(999)), 7);
    }

    #[test]
    fn counts_that_shrank_began_anew() {
        let before = of(&BOUNDS, &[5, 1, 0, 0, 0]);
        let after = of(&BOUNDS, &[6, 1, 2, 0, 0]);
        assert_eq!(after.since(&before), Some(of(&BOUNDS, &[1, 0, 2, 0, 0])));
        assert_eq!(before.since(&after), None);
        assert_eq!(of(&BOUNDS, &[9]).since(&before), None);
    }

    #[test]
    fn the_buckets_of_a_router_lie_where_it_has_them() {
        let last = u16::try_from(latency::BOUNDS).expect("small");
        let histogram = Histogram::of_router(&BTreeMap::from([(0, 1), (8, 2), (last, 3)]));
        let text = serde_json::to_string(&histogram).expect("JSON");
        let end = u64::MAX;
        assert_eq!(text, format!("[[0,64,1],[120,128,2],[67108864,{end},3]]"));
        let read: Histogram = serde_json::from_str(&text).expect("a histogram");
        assert_eq!(read, histogram);
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut most = of(&BOUNDS, &[u64::MAX, 5]);
        most += &most.clone();
        assert_eq!(most.total(), u64::MAX);
        assert!(most.quantile(0.99).is_some());
    }
}
