//! A histogram without a lock: two atomic additions for each observation.
//!
//! `prometheus-client`'s own takes a mutex and walks the buckets one by one; five of them stand in
//! the way of every request.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// 0.1 ms to more than 60 s; each bound is at most 10 % above the one before, so that a quantile read from the
/// buckets is wrong by less than that. 1.1^140 × 0.1 ms = 62 s.
const TIMES: usize = 141;
/// 1, 2, 4, … 1024 rows.
const SIZES: usize = 11;

static TIME_BOUNDS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let seconds = (0..TIMES).map(|step| 1e-4 * 1.1_f64.powi(step as i32));
    seconds.map(|bound| (bound * 1e9) as u64).collect()
});
static SIZE_BOUNDS: LazyLock<Vec<u64>> = LazyLock::new(|| (0..SIZES).map(|n| 1 << n).collect());

/// Counts how often values fell into each bucket. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The largest value of each bucket, in units of `unit`.
    bounds: &'static [u64],
    /// One for each bound and one above the last.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
    /// What one means, in the metric's unit.
    unit: f64,
}

impl Histogram {
    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let sum = AtomicU64::new(0);
        Self(Arc::new(Inner {
            bounds,
            counts,
            sum,
            unit,
        }))
    }

    /// Of times: 0.1 ms to a minute.
    #[must_use]
    pub fn times() -> Self {
        Self::new(&TIME_BOUNDS, 1e-9)
    }

    /// Of batch sizes: powers of two to 1024.
    #[must_use]
    pub fn sizes() -> Self {
        Self::new(&SIZE_BOUNDS, 1.0)
    }

    /// Counts a time.
    pub fn observe(&self, took: Duration) {
        self.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a size.
    pub fn observe_size(&self, size: usize) {
        self.add(size as u64);
    }

    fn add(&self, value: u64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self
            .0
            .bounds
            .iter()
            .map(|bound| *bound as f64 * self.0.unit);
        let counts = self.0.counts.iter();
        bounds
            .map(rounded)
            .chain([f64::INFINITY])
            .zip(counts.map(|count| count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// Six digits tell bounds apart that are 10 % from each other, and stay the same text from scrape to scrape.
fn rounded(bound: f64) -> f64 {
    let scale = 10_f64.powi(5 - bound.log10().floor() as i32);
    (bound * scale).round() / scale
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let buckets = self.buckets();
        // The count is the sum of the buckets, whatever is counted in the meantime.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum.load(Ordering::Relaxed) as f64 * self.0.unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_is_not_below_it() {
        let sizes = Histogram::sizes();
        for size in [0, 1, 2, 3, 4, 1024, 1025] {
            sizes.observe_size(size);
        }
        let counts: Vec<u64> = sizes.buckets().iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn bounds_of_time_are_at_most_a_tenth_apart_from_a_tenth_of_a_millisecond_to_a_minute() {
        let times = Histogram::times();
        times.observe(Duration::from_millis(5));
        let buckets = times.buckets();
        let bounds: Vec<f64> = buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds[0], 1e-4);
        assert!(bounds[TIMES - 1] > 60.0 && bounds[TIMES] == f64::INFINITY);
        for pair in bounds[..TIMES].windows(2) {
            assert!(pair[1] > pair[0] && pair[1] < pair[0] * 1.101, "{pair:?}");
        }
        let hit = buckets.iter().position(|(_, count)| *count == 1).unwrap();
        assert!(bounds[hit - 1] < 5e-3 && bounds[hit] >= 5e-3);
        times.observe(Duration::from_secs(600));
        assert_eq!(times.buckets()[TIMES].1, 1, "above all bounds");
    }
}
