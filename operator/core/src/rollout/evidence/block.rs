//! Blocks: what is counted until it is one vote.
//!
//! A block closes after ten seconds and sixty requests of the candidate, so that a burst of errors
//! lies inside one block, and always when the weights change, so that counts under different weights
//! are never pooled: with an outage that both sides share, pooling makes the side whose weight rose
//! look guilty. What arrived under the weights before and ends after the change is a block of its own.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    count::{Count, Sides, Signal},
    frozen, guard,
    share::{self, Logs},
};
use crate::rollout::clock;

/// A block is open for so long at least.
pub const LEAST_TIME: Duration = Duration::from_secs(10);
/// A block holds so many requests of the candidate at least.
pub const LEAST_REQUESTS: u64 = 60;

/// No bet gains more than this factor in a block. Bets on 10 and 30 times pay up to twelve times for a single burst; ten
/// times as many errors pay less than three. A gain that is cut keeps the test valid.
const MOST_GAIN: f64 = 3.0;
/// The same where time is measured: a node that is slow for half a minute under the only pod of a candidate is three or
/// four votes in a row, and none of its doing.
const MOST_GAIN_OF_TIME: f64 = 2.0;

/// What is tolerated of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerated {
    /// The ratio of bad rates, 1 for "no worse".
    pub ratio: f64,
    /// The share of answers that may differ from the stable revision's, 0 to 1, beside those in which that differs from
    /// itself.
    pub disagreement: f64,
}

/// Of answers none may differ.
impl From<f64> for Tolerated {
    fn from(ratio: f64) -> Self {
        Self {
            ratio,
            disagreement: 0.0,
        }
    }
}

/// What a block is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stakes {
    /// The ratio of bad rates that is tolerated, 1 for "no worse".
    ratio: f64,
    /// Where answers are compared: the share that may differ.
    disagreement: Option<f64>,
    /// No bet gains more than this factor.
    most: f64,
}

impl Stakes {
    /// For a signal, where this is tolerated.
    #[must_use]
    pub fn of(signal: Signal, tolerated: impl Into<Tolerated>) -> Self {
        let Tolerated {
            ratio,
            disagreement,
        } = tolerated.into();
        let most = match signal {
            Signal::Errors | Signal::Disagreement => MOST_GAIN,
            Signal::SlowerThanSlo | Signal::SlowerThanStable | Signal::ServiceTime => {
                MOST_GAIN_OF_TIME
            }
        };
        Self {
            ratio,
            disagreement: (signal == Signal::Disagreement).then_some(disagreement),
            most,
        }
    }
}

/// The test of one signal: six numbers, and the block that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// The logarithm of what each bet has grown to.
    logs: Logs,
    /// The block that is open.
    open: Sides,
    /// Since when.
    since: Timestamp,
    /// What arrived under the weights before, and ended since they changed.
    #[serde(default, skip_serializing_if = "is_empty")]
    late: Sides,
    /// Everything since the candidate began, for people to read.
    total: Sides,
    /// The rate that the candidate is held against while the stable revision has no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen: Option<f64>,
}

fn is_empty(sides: &Sides) -> bool {
    *sides == Sides::default()
}

impl Test {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            logs: Logs::default(),
            open: Sides::default(),
            since: now,
            late: Sides::default(),
            total: Sides::default(),
            frozen: None,
        }
    }

    /// The E value: how many times likelier the counts are made by a worse candidate, as bets go.
    #[must_use]
    pub fn e_value(&self) -> f64 {
        share::e_value(&self.logs)
    }

    /// Everything that was counted.
    #[must_use]
    pub fn total(&self) -> Sides {
        self.total
    }

    /// The frozen rate in use, 0 to 1.
    #[must_use]
    pub fn frozen(&self) -> Option<f64> {
        self.frozen
    }

    /// Counts requests that arrived under the weights of now.
    pub(super) fn add(&mut self, delta: Sides) {
        self.open += delta;
        self.total += delta;
    }

    /// Counts requests that arrived under the weights before.
    pub(super) fn add_late(&mut self, delta: Sides) {
        self.late += delta;
        self.total += delta;
    }

    /// Lets every block vote that is full.
    pub(super) fn close_full(&mut self, stakes: Stakes, now: Timestamp) {
        let enough = |block: &Sides| block.candidate.requests >= LEAST_REQUESTS;
        if enough(&self.open) && clock::passed(self.since, now) >= LEAST_TIME {
            self.close_open(stakes, now);
        }
        if enough(&self.late) {
            self.close_late(stakes);
        }
    }

    /// The weights change: every block votes, and from now on the candidate is held against `frozen`
    /// where there is such a rate.
    pub(super) fn close_all(&mut self, stakes: Stakes, frozen: Option<f64>, now: Timestamp) {
        self.close_late(stakes);
        self.close_open(stakes, now);
        self.frozen = frozen;
    }

    /// The candidate's count when it fails so badly that no test is needed.
    pub(super) fn guard(&self) -> Option<Count> {
        guard::trips(&self.open, self.frozen)
    }

    fn close_open(&mut self, stakes: Stakes, now: Timestamp) {
        let block = std::mem::take(&mut self.open);
        self.since = now;
        let vote = match self.frozen {
            Some(rate) => frozen::vote(block.candidate, rate),
            None => self.vote(&block, stakes),
        };
        self.count(vote, stakes);
    }

    fn close_late(&mut self, stakes: Stakes) {
        let block = std::mem::take(&mut self.late);
        self.count(self.vote(&block, stakes), stakes);
    }

    /// A block's vote beside the stable revision. A model agrees with itself, or nearly, so that of answers there is no
    /// share of bad events to look at: their rate is held against what is tolerated.
    fn vote(&self, block: &Sides, stakes: Stakes) -> Option<Logs> {
        match stakes.disagreement {
            None => share::vote(block, stakes.ratio),
            Some(allowed) => {
                let rate = frozen::disagreement_rate(self.total.stable, allowed)?;
                frozen::vote(block.candidate, rate)
            }
        }
    }

    /// Adds a vote. Nine decimals are kept: enough for any decision, short in the status, and read
    /// back from it to the last bit.
    fn count(&mut self, vote: Option<Logs>, stakes: Stakes) {
        for (log, gain) in self.logs.iter_mut().zip(vote.unwrap_or_default()) {
            *log = ((*log + gain.min(stakes.most.ln())) * 1e9).round() / 1e9;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn errors(ratio: f64) -> Stakes {
        Stakes::of(Signal::Errors, ratio)
    }

    fn sides(n_c: u64, n_s: u64, e_c: u64, e_s: u64) -> Sides {
        Sides {
            candidate: Count::new(n_c, e_c),
            stable: Count::new(n_s, e_s),
        }
    }

    #[test]
    fn a_block_votes_after_ten_seconds_and_sixty_candidate_requests() {
        for (seconds, requests, votes) in [
            (9, 600, false),
            (10, 59, false),
            (10, 60, true),
            (600, 59, false),
        ] {
            let mut test = Test::new(at(0));
            test.add(sides(requests, 20 * requests, 5, 5));
            test.close_full(errors(1.0), at(seconds));
            assert_eq!(
                test.e_value() != 1.0,
                votes,
                "{seconds} s, {requests} requests"
            );
            assert_eq!(test.open == Sides::default(), votes);
        }
    }

    #[test]
    fn a_block_votes_when_the_weights_change_however_small_it_is() {
        let mut test = Test::new(at(0));
        test.add(sides(2, 38, 1, 0));
        test.close_all(errors(1.0), None, at(1));
        assert!(
            (test.e_value() - 2.515_908).abs() < 1e-6,
            "{}",
            test.e_value()
        );
    }

    #[test]
    fn no_vote_multiplies_a_bet_by_more_than_three_nor_one_on_time_by_more_than_two() {
        for (signal, most) in [(Signal::Errors, 3.0_f64), (Signal::SlowerThanStable, 2.0)] {
            let mut test = Test::new(at(0));
            for block in 1..=2 {
                test.add(sides(60, 1_140, 60, 0));
                test.close_full(Stakes::of(signal, 1.0), at(10 * block));
            }
            let most = 2.0 * most.ln();
            assert!(test.logs.iter().all(|log| *log <= most + 1e-9), "{test:?}");
            assert!((test.logs[5] - most).abs() < 1e-8, "{test:?}");
        }
    }

    /// The table of `docs/rollouts.md`.
    #[test]
    fn answers_may_differ_as_often_as_is_tolerated_and_as_the_stable_revision_differs_from_itself()
    {
        // Of 100 pairs each block: the candidate's that differ, the stable revision's with itself, what is tolerated;
        // blocks until the mean with three signals that say nothing is 100.
        for (of_candidate, of_stable, disagreement, expected) in [
            (0, 0, 0.01, None),
            (1, 0, 0.01, None),
            (2, 0, 0.01, Some(31)),
            (3, 0, 0.01, Some(17)),
            (5, 0, 0.01, Some(11)),
            (10, 0, 0.01, Some(8)),
            (20, 0, 0.01, Some(7)),
            (1, 0, 0.0, Some(34)),
            (5, 5, 0.01, None),
        ] {
            let tolerated = Tolerated {
                ratio: 1.0,
                disagreement,
            };
            let stakes = Stakes::of(Signal::Disagreement, tolerated);
            let mut test = Test::new(at(0));
            let needed = (1..=400).find(|block| {
                test.add(sides(100, 100, of_candidate, of_stable));
                test.close_full(stakes, at(10 * block));
                (test.e_value() + 3.0) / 4.0 >= 100.0
            });
            assert_eq!(
                needed, expected,
                "{of_candidate} and {of_stable} where {disagreement} is tolerated"
            );
        }
    }

    #[test]
    fn pairs_of_the_candidate_alone_are_no_evidence() {
        let mut test = Test::new(at(0));
        test.add(sides(600, 0, 100, 0));
        test.close_full(Stakes::of(Signal::Disagreement, 1.0), at(10));
        assert_eq!(test.e_value(), 1.0);
    }

    #[test]
    fn one_block_is_one_vote_however_many_errors_it_holds() {
        let e = |bad| {
            let mut test = Test::new(at(0));
            test.add(sides(60, 1_140, bad, 0));
            test.close_full(errors(1.0), at(10));
            test.e_value()
        };
        assert_eq!(e(1), e(60));
    }

    #[test]
    fn what_arrived_under_other_weights_is_a_block_of_its_own() {
        let mut test = Test::new(at(0));
        test.close_all(errors(1.0), None, at(5));
        test.add(sides(50, 50, 5, 5));
        test.add_late(sides(5, 95, 1, 19));
        test.close_all(errors(1.0), None, at(6));
        assert_eq!(test.e_value(), 1.0, "each block has just its share");
    }

    #[test]
    fn without_stable_traffic_the_candidate_is_held_against_the_frozen_rate() {
        let mut test = Test::new(at(0));
        test.close_all(errors(1.0), Some(0.005), at(0));
        for block in 1..=3 {
            test.add(sides(100, 0, 5, 0));
            test.close_full(errors(1.0), at(10 * block));
        }
        assert!((test.e_value() - 3.381_945).abs() < 1e-6);
        assert_eq!(test.total(), sides(300, 0, 15, 0));
    }

    #[test]
    fn a_clock_that_moves_back_closes_nothing() {
        let mut test = Test::new(at(100));
        test.add(sides(600, 600, 60, 0));
        test.close_full(errors(1.0), at(0));
        assert_eq!(test.e_value(), 1.0);
    }

    #[test]
    fn a_test_is_read_back_from_the_status_as_it_was() {
        let mut test = Test::new(at(0));
        for block in 1..200 {
            test.add(sides(61, 1_100 + block, block % 3, block % 7));
            test.close_full(
                errors(1.1),
                at(10 * i64::try_from(block).expect("in range")),
            );
        }
        test.add_late(sides(1, 2, 0, 1));
        let text = serde_json::to_string(&test).expect("it is written");
        assert_eq!(
            serde_json::from_str::<Test>(&text).expect("it is read back"),
            test
        );
    }
}
