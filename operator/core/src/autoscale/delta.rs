//! What counters grew by, of sources that come, go and begin anew.
//!
//! The first reading of a source is only a baseline. A counter that is below what it was, or whose source says that it
//! started since, counts from nothing.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rollout::clock::passed;

/// Counters that grow as long as their source runs.
pub trait Counters: Clone {
    /// What they grew by; `None` when one of them shrank.
    fn since(&self, before: &Self) -> Option<Self>;
}

/// How long a source that is not heard of is remembered.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Sources that are remembered, at most: far more than a revision has pods.
const SOURCES: usize = 2_000;

/// The last reading of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Baseline<T> {
    at: Timestamp,
    started: Timestamp,
    counts: T,
}

/// The last readings of all sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baselines<T>(BTreeMap<String, Baseline<T>>);

impl<T> Default for Baselines<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Counters> Baselines<T> {
    /// What a source counted since its last reading, and over which time; `None` of the first one, and where no time
    /// passed.
    pub fn read(
        &mut self,
        name: &str,
        started: Timestamp,
        counts: &T,
        now: Timestamp,
    ) -> Option<(T, Duration)> {
        let reading = Baseline {
            at: now,
            started,
            counts: counts.clone(),
        };
        let Some(before) = self.0.get_mut(name) else {
            if self.0.len() < SOURCES {
                self.0.insert(name.to_owned(), reading);
            }
            return None;
        };
        let over = passed(before.at, now);
        if over.is_zero() {
            return None;
        }
        let grown = match before.started == started {
            true => counts.since(&before.counts),
            false => None,
        };
        *before = reading;
        Some((grown.unwrap_or_else(|| counts.clone()), over))
    }

    /// Forgets sources that were not heard of for long.
    pub fn forget(&mut self, now: Timestamp) {
        self.0
            .retain(|_, baseline| passed(baseline.at, now) <= FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Counters for u64 {
        fn since(&self, before: &Self) -> Option<Self> {
            self.checked_sub(*before)
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn counters_begin_with_a_baseline_and_begin_anew() {
        let mut baselines = Baselines::default();
        // second, started, count, grown by
        let readings = [
            (0, 0, 100_u64, None),
            (2, 0, 150, Some((50, 2))),
            (2, 0, 170, None),
            (5, 0, 150, Some((0, 3))),
            (7, 0, 20, Some((20, 2))),
            // Started anew, and above what it was.
            (9, 8, 90, Some((90, 2))),
            (11, 8, 90, Some((0, 2))),
        ];
        for (second, started, count, expected) in readings {
            let grown = baselines.read("pod", at(started), &count, at(second));
            let seconds = grown.map(|(grown, over)| (grown, over.as_secs()));
            assert_eq!(seconds, expected, "at {second} s");
        }
        assert_eq!(baselines.read("other", at(0), &7, at(20)), None);
    }

    #[test]
    fn a_source_that_is_gone_is_forgotten() {
        let mut baselines = Baselines::default();
        baselines.read("pod", at(0), &5_u64, at(0));
        baselines.forget(at(600));
        assert_eq!(baselines.0.len(), 1);
        baselines.forget(at(601));
        assert!(baselines.0.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut baselines = Baselines::default();
        for n in 0..2 * SOURCES {
            baselines.read(&n.to_string(), at(0), &5_u64, at(0));
        }
        assert_eq!(baselines.0.len(), SOURCES);
    }
}
