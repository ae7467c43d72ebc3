//! A histogram of times without a lock and without a search: its buckets are those of [`ortolan_stats::latency`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ortolan_stats::latency::{BOUNDS, bound, bucket};
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

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
