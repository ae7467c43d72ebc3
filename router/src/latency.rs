//! A histogram of times without a lock and without a search.
//!
//! Eight steps for each power of two, from 64 µs to 67 s: a bound is at most an eighth above the one before it, and the
//! bucket of a time follows from its bits.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Times up to 2⁶ µs fall into the first bucket.
const FIRST: u32 = 6;
/// Times over 2²⁶ µs fall into the last.
const LAST: u32 = 26;
const STEPS: usize = 8;
const BOUNDS: usize = (LAST - FIRST) as usize * STEPS + 1;

/// Counts by bucket. Clones share the counts.
#[derive(Clone)]
pub struct Latency(Arc<Inner>);

struct Inner {
    buckets: [AtomicU64; BOUNDS + 1],
    micros: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Arc::new(Inner {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latency")
    }
}

fn bucket(micros: u64) -> usize {
    if micros <= 1 << FIRST {
        return 0;
    }
    let below = micros - 1;
    let power = below.ilog2();
    if power >= LAST {
        return BOUNDS;
    }
    let step = (below >> (power - 3)) & 7;
    (power - FIRST) as usize * STEPS + step as usize + 1
}

/// The largest time of a bucket, in microseconds.
fn bound(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => 1 << FIRST,
        Some(n) => (STEPS as u64 + (n % STEPS) as u64 + 1) << (FIRST as usize + n / STEPS - 3),
    }
}

impl Latency {
    /// Counts a time.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let upper = (0..BOUNDS).map(|i| bound(i) as f64 / 1e6);
        let counts = self.0.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = upper.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_rise_by_at_most_an_eighth_from_64_microseconds_to_67_seconds() {
        assert_eq!((bound(0), bound(BOUNDS - 1)), (64, 1 << 26));
        for i in 1..BOUNDS {
            let (below, above) = (bound(i - 1), bound(i));
            assert!(
                above > below && (above - below) * 8 <= below,
                "{below} {above}"
            );
        }
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }

    proptest! {
        #[test]
        fn a_time_falls_into_the_first_bucket_that_is_not_below_it(micros in 0_u64..1 << 26) {
            let bucket = bucket(micros);
            prop_assert!(bound(bucket) >= micros);
            prop_assert!(bucket == 0 || bound(bucket - 1) < micros);
        }
    }
}
