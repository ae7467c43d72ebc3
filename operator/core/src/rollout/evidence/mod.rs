//! The evidence: whether what was counted says that the candidate is worse than the stable revision.
//!
//! Inputs: readings of monotonic counters of routers and pods, the changes of weights, the time.
//! Output: an E value, the mean of one sequential test for each signal, and hard guards. Roll back
//! when E ≥ 1/α.
//!
//! Invariants: it may be looked at at any time and as often as one likes; reading the same counters
//! twice changes nothing; counts under different weights are never pooled; missing data changes
//! nothing. State is serialisable and small: six numbers and an open block for each signal, and
//! what was last read of each router.

pub mod block;
pub mod count;
pub mod drift;
pub mod frozen;
pub mod guard;
pub mod meter;
pub mod share;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::meter::Meters;
pub use self::{
    block::{Stakes, Test, Tolerated},
    count::{Count, Sides, Signal, Tally},
    drift::Drift,
    meter::{Counters, Reading},
};

/// What the candidate is held against from a change of weights on.
#[derive(Clone, Debug, PartialEq)]
pub enum Against {
    /// The stable revision, which has traffic.
    Stable,
    /// What the stable revision did before, by signal: it has no traffic now.
    Before(BTreeMap<Signal, Count>),
}

/// What is known against a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The traffic generation that is counted now.
    generation: u64,
    /// Since when.
    since: Timestamp,
    /// One test for each signal. Which signals there are is settled when the candidate begins: one
    /// that joined later would lift a mean below 1 and so make the test invalid.
    tests: BTreeMap<Signal, Test>,
    /// What was last read.
    meters: Meters,
    /// Requests of the candidate since the step began.
    in_step: u64,
    /// Pairs of answers that were compared since the step began.
    compared_in_step: u64,
    /// What the hard guard tripped on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tripped: Option<(Signal, Count)>,
    /// How far its classes are from the stable revision's, as last known: told, and no vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
}

impl Evidence {
    /// Nothing is known yet of a candidate; `generation` is that of the traffic now.
    #[must_use]
    pub fn new(signals: &BTreeSet<Signal>, generation: u64, now: Timestamp) -> Self {
        let tests = signals.iter().map(|signal| (*signal, Test::new(now)));
        Self {
            generation,
            since: now,
            tests: tests.collect(),
            meters: Meters::default(),
            in_step: 0,
            compared_in_step: 0,
            tripped: None,
            drift: None,
        }
    }

    /// Takes note of how far the classes are apart now. Answers whether that is worth telling for the first time; from
    /// then on it stays so.
    pub fn drifts(&mut self, now: Drift) -> bool {
        let was = self.drift.as_ref().is_some_and(|drift| drift.notable);
        let is_news = now.notable && !was;
        self.drift = Some(Drift {
            notable: now.notable || was,
            ..now
        });
        is_news
    }

    /// How far the candidate's classes are from the stable revision's.
    #[must_use]
    pub fn drift(&self) -> Option<&Drift> {
        self.drift.as_ref()
    }

    /// Counts what was added to the counters since the last reading, and lets full blocks vote.
    pub fn observe(
        &mut self,
        readings: &[Reading],
        tolerated: impl Into<Tolerated>,
        now: Timestamp,
    ) {
        let tolerated = tolerated.into();
        let added = self.meters.read(readings, self.generation, self.since);
        let of = |signal| {
            added
                .current
                .get(&signal)
                .map_or(0, |s| s.candidate.requests)
        };
        self.in_step += of(Signal::Errors);
        self.compared_in_step += of(Signal::Disagreement);
        for (signal, test) in &mut self.tests {
            if let Some(delta) = added.current.get(signal) {
                test.add(*delta);
            }
            if let Some(delta) = added.late.get(signal) {
                test.add_late(*delta);
            }
            let guarded = matches!(signal, Signal::Errors | Signal::Disagreement);
            if guarded && self.tripped.is_none() {
                self.tripped = test.guard().map(|count| (*signal, count));
            }
            test.close_full(Stakes::of(*signal, tolerated), now);
        }
    }

    /// The weights change: what was counted so far votes, and counting goes on under `generation`.
    pub fn shift(
        &mut self,
        readings: &[Reading],
        generation: u64,
        against: &Against,
        tolerated: impl Into<Tolerated>,
        now: Timestamp,
    ) {
        let tolerated = tolerated.into();
        self.generation = generation;
        self.since = now;
        self.meters.forget(readings);
        for (signal, test) in &mut self.tests {
            let frozen = match against {
                Against::Stable => None,
                Against::Before(counts) => {
                    let seen = Some(test.total().stable).filter(|count| count.requests > 0);
                    counts
                        .get(signal)
                        .copied()
                        .filter(|count| count.requests > 0)
                        .or(seen)
                        .and_then(frozen::frozen_rate)
                }
            };
            test.close_all(Stakes::of(*signal, tolerated), frozen, now);
        }
        self.observe(readings, tolerated, now);
    }

    /// Every open block votes: the weights are about to change.
    pub fn close(&mut self, tolerated: impl Into<Tolerated>, now: Timestamp) {
        let tolerated = tolerated.into();
        for (signal, test) in &mut self.tests {
            test.close_all(Stakes::of(*signal, tolerated), test.frozen(), now);
        }
    }

    /// A step begins: the requests that it needs are counted from here.
    pub fn begin_step(&mut self) {
        self.in_step = 0;
        self.compared_in_step = 0;
    }

    /// Requests of the candidate since the step began.
    #[must_use]
    pub fn requests_in_step(&self) -> u64 {
        self.in_step
    }

    /// Pairs of answers that were compared since the step began.
    #[must_use]
    pub fn compared_in_step(&self) -> u64 {
        self.compared_in_step
    }

    /// What the hard guard tripped on: it stays tripped. Slowness alone trips none.
    #[must_use]
    pub fn tripped(&self) -> Option<(Signal, Count)> {
        self.tripped
    }

    /// The mean of the tests' E values; 1 without tests.
    #[must_use]
    pub fn e_value(&self) -> f64 {
        if self.tests.is_empty() {
            return 1.0;
        }
        let sum: f64 = self.tests.values().map(Test::e_value).sum();
        sum / self.tests.len() as f64
    }

    /// Whether the candidate is worse, at this confidence (0 to 1, such as 0.99).
    #[must_use]
    pub fn is_against(&self, confidence: f64) -> bool {
        self.e_value() >= limit(confidence)
    }

    /// The tests, by signal.
    #[must_use]
    pub fn tests(&self) -> &BTreeMap<Signal, Test> {
        &self.tests
    }

    /// The strongest test in a sentence that says why.
    #[must_use]
    pub fn why(&self, confidence: f64) -> String {
        let strongest = self
            .tests
            .iter()
            .max_by(|a, b| a.1.e_value().total_cmp(&b.1.e_value()));
        let Some((signal, test)) = strongest else {
            return "no signal is tested".into();
        };
        let Sides { candidate, stable } = test.total();
        let against = match test.frozen() {
            Some(rate) => format!(
                "{stable} of the stable revision, {:.2} % allowed for what it did before",
                100.0 * rate
            ),
            None => format!("{stable} of the stable revision"),
        };
        format!(
            "{signal}: {candidate} of the candidate, {against}; E = {:.3}, the limit is {:.0}",
            self.e_value(),
            limit(confidence)
        )
    }
}

/// The E value at which a candidate is worse: 1/α with α = 1 − confidence.
#[must_use]
pub fn limit(confidence: f64) -> f64 {
    1.0 / (1.0 - confidence).max(f64::EPSILON)
}

#[cfg(test)]
mod tests;
