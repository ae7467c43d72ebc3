//! Flagger's published rule: each interval the success rate and the 99th percentile of the duration
//! of that interval are held against thresholds; so many failed checks roll back.

use super::world::Ended;

/// The values of the example in Flagger's documentation, in seconds and checks: ten checks in ten
/// minutes.
const INTERVAL: u32 = 60;
const FAILED_CHECKS: u32 = 5;
const LEAST_SUCCESS: f64 = 0.99;
/// The 99th percentile is above the objective when more than this share is.
const MOST_SLOW: f64 = 0.01;

#[derive(Default)]
pub struct Flagger {
    interval: Ended,
    seconds: u32,
    failed: u32,
}

impl Flagger {
    /// Counts a second of the candidate; whether it rolls back.
    pub fn observe(&mut self, candidate: Ended) -> bool {
        self.interval.add(candidate);
        self.seconds += 1;
        if self.seconds.is_multiple_of(INTERVAL) {
            let Ended {
                requests,
                errors,
                slower_than_slo,
                ..
            } = std::mem::take(&mut self.interval);
            let all = requests as f64;
            // An interval without requests is left out, in Flagger's favour: it counts one as failed.
            let fails = requests > 0
                && (1.0 - errors as f64 / all < LEAST_SUCCESS
                    || slower_than_slo as f64 / all > MOST_SLOW);
            self.failed += u32::from(fails);
        }
        self.failed >= FAILED_CHECKS
    }
}
