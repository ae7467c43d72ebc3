//! A model's own counts since it was loaded, as the statistics extension of the protocol tells them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often something was done and how long it took in all.
#[derive(Debug, Default)]
pub struct Span {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// A [`Span`] as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long in all, in nanoseconds.
    pub nanos: u64,
}

impl Span {
    /// Once more.
    pub fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos(took), Ordering::Relaxed);
    }

    /// How it stands.
    #[must_use]
    pub fn total(&self) -> Total {
        Total {
            count: self.count.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Batches of more rows than this are counted with those of the power of two below: clients choose how many rows they
/// send, and each number that is counted by itself takes memory until the model goes.
const EXACT: usize = 1024;

fn size(rows: usize) -> usize {
    match rows.checked_ilog2() {
        Some(log) if rows > EXACT => 1 << log,
        _ => rows,
    }
}

/// The counts of one model.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Requests answered with tensors, from their head to their answer.
    pub success: Span,
    /// Requests answered with an error.
    pub fail: Span,
    /// From the queue to a session.
    pub queue: Span,
    /// From the body to tensors.
    pub input: Span,
    /// Inside ONNX Runtime; a batch's time counts for each of its requests.
    pub infer: Span,
    /// From tensors to the body.
    pub output: Span,
    /// Answered from the response cache.
    pub cache_hit: Span,
    /// Looked for in the response cache and not found.
    pub cache_miss: Span,
    rows: AtomicU64,
    last_millis: AtomicU64,
    /// One entry for each [`size`] of a batch that ever ran, one addition for each run.
    batches: Mutex<BTreeMap<usize, Total>>,
}

impl Statistics {
    /// A session ran once, with so many rows.
    pub fn ran(&self, rows: usize, took: Duration) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = now.unwrap_or_default().as_millis();
        self.last_millis
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let total = batches.entry(size(rows)).or_default();
        total.count += 1;
        total.nanos += nanos(took);
    }

    /// Rows that ran: a request of a batch of 8 counts 8.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Runs of a session.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.batches().iter().map(|(_, total)| total.count).sum()
    }

    /// When a session last ran, in milliseconds since 1970; 0: never.
    #[must_use]
    pub fn last_millis(&self) -> u64 {
        self.last_millis.load(Ordering::Relaxed)
    }

    /// The runs by their number of rows, least first; above [`EXACT`] by the power of two below.
    #[must_use]
    pub fn batches(&self) -> Vec<(usize, Total)> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches
            .iter()
            .map(|(rows, total)| (*rows, *total))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_their_rows() {
        let statistics = Statistics::default();
        assert_eq!((statistics.runs(), statistics.last_millis()), (0, 0));
        for rows in [8, 1, 8] {
            statistics.ran(rows, Duration::from_micros(2));
        }
        assert_eq!((statistics.rows(), statistics.runs()), (17, 3));
        let twice = Total {
            count: 2,
            nanos: 4000,
        };
        assert_eq!(statistics.batches()[1], (8, twice));
        assert!(statistics.last_millis() > 0);
    }

    #[test]
    fn no_client_makes_the_counts_grow_without_end() {
        let statistics = Statistics::default();
        for rows in 0..100_000 {
            statistics.ran(rows, Duration::ZERO);
        }
        statistics.ran(usize::MAX, Duration::ZERO);
        let sizes: Vec<usize> = statistics.batches().iter().map(|(rows, _)| *rows).collect();
        assert_eq!(sizes[..=EXACT], (0..=EXACT).collect::<Vec<_>>());
        assert_eq!(
            sizes[EXACT + 1..],
            [2048, 4096, 8192, 16_384, 32_768, 65_536, 1 << 63]
        );
        assert_eq!(statistics.runs(), 100_001);
    }
}
