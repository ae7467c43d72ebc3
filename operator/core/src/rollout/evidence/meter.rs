//! Monotonic counters of routers and pods, and what was added to them since they were last read.
//!
//! A router counts by the generation of the traffic that a request **arrived** under, and charges a
//! request that was retried elsewhere to the revision first chosen. A counter that began anew (another
//! start time, or a smaller number) counts from zero, never backwards. A source that was never seen
//! before is only a baseline, unless it started under the weights of now. What was read of routers is
//! kept in the status; what was read of pods is not: after a restart of the operator their first
//! reading is a baseline.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::count::{Sides, Tally};

/// No more routers than this are remembered; a further one adds nothing.
pub const MOST_ROUTERS: usize = 32;

/// What one router or pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its name.
    pub source: String,
    /// When its counters began.
    pub started: Timestamp,
    /// Its counters.
    pub counters: Counters,
}

/// Counters since the start of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counters {
    /// A router's, by the traffic generation under which a request arrived.
    ByGeneration(BTreeMap<u64, Tally>),
    /// A pod's, which knows of no weights: what is added across a change of them is left out.
    Whole(Tally),
}

/// What was last read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meters {
    routers: BTreeMap<String, Seen>,
    #[serde(skip)]
    pods: BTreeMap<String, (Timestamp, Tally)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    started: Timestamp,
    generations: BTreeMap<u64, Tally>,
}

/// What was added since the last reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// By requests that arrived under the weights of now.
    pub current: Tally,
    /// By requests that arrived under the weights before.
    pub late: Tally,
}

impl Meters {
    /// Reads the counters; `generation` is that of the traffic now, which began at `since`.
    pub fn read(&mut self, readings: &[Reading], generation: u64, since: Timestamp) -> Added {
        let mut added = Added::default();
        for reading in readings {
            match &reading.counters {
                Counters::ByGeneration(counters) => {
                    let known = self.routers.get(&reading.source);
                    if known.is_none() && self.routers.len() >= MOST_ROUTERS {
                        continue;
                    }
                    let baseline = known.is_none() && reading.started < since;
                    let before = known.filter(|seen| seen.started == reading.started);
                    for (at, tally) in counters.range(generation.saturating_sub(1)..=generation) {
                        if baseline {
                            continue;
                        }
                        let into = match *at == generation {
                            true => &mut added.current,
                            false => &mut added.late,
                        };
                        add_since(
                            into,
                            tally,
                            before.and_then(|seen| seen.generations.get(at)),
                        );
                    }
                    self.remember(reading, counters, generation);
                }
                Counters::Whole(tally) => {
                    if let Some((started, before)) = self.pods.get(&reading.source) {
                        let before = (*started == reading.started).then_some(before);
                        add_since(&mut added.current, tally, before);
                    }
                    let now = (reading.started, tally.clone());
                    self.pods.insert(reading.source.clone(), now);
                }
            }
        }
        added
    }

    /// The weights change: pods' next readings are baselines, and routers that are gone are forgotten.
    pub fn forget(&mut self, readings: &[Reading]) {
        self.pods.clear();
        self.routers
            .retain(|name, _| readings.iter().any(|reading| reading.source == *name));
    }

    fn remember(&mut self, reading: &Reading, counters: &BTreeMap<u64, Tally>, generation: u64) {
        let recent = counters.range(generation.saturating_sub(1)..);
        let seen = Seen {
            started: reading.started,
            generations: recent.map(|(at, tally)| (*at, tally.clone())).collect(),
        };
        self.routers.insert(reading.source.clone(), seen);
    }
}

/// Adds what a tally grew by, by signal; all of it where a counter began anew.
fn add_since(into: &mut Tally, tally: &Tally, before: Option<&Tally>) {
    for (signal, sides) in tally {
        let before: Option<Sides> = before.and_then(|tally| tally.get(signal).copied());
        let grown = before.and_then(|before| sides.since(before));
        *into.entry(*signal).or_default() += grown.unwrap_or(*sides);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::count::{Count, Signal},
        *,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn tally(candidate: u64, stable: u64, bad: u64) -> Tally {
        let sides = Sides {
            candidate: Count::new(candidate, bad),
            stable: Count::new(stable, 0),
        };
        Tally::from([(Signal::Errors, sides)])
    }

    fn router(started: i64, generations: &[(u64, Tally)]) -> Reading {
        Reading {
            source: "router".into(),
            started: at(started),
            counters: Counters::ByGeneration(generations.iter().cloned().collect()),
        }
    }

    fn pod(started: i64, tally: Tally) -> Reading {
        Reading {
            source: "pod".into(),
            started: at(started),
            counters: Counters::Whole(tally),
        }
    }

    fn errors(tally: &Tally) -> (u64, u64, u64) {
        let sides = tally.get(&Signal::Errors).copied().unwrap_or_default();
        (
            sides.candidate.requests,
            sides.stable.requests,
            sides.candidate.bad,
        )
    }

    #[test]
    fn what_was_there_before_we_looked_is_not_counted() {
        let mut meters = Meters::default();
        let added = meters.read(&[router(0, &[(7, tally(5, 95, 5))])], 7, at(50));
        assert_eq!(added, Added::default());
        let added = meters.read(&[router(0, &[(7, tally(8, 152, 6))])], 7, at(50));
        assert_eq!(errors(&added.current), (3, 57, 1));
    }

    #[test]
    fn a_router_that_starts_under_the_weights_of_now_counts_whole() {
        let mut meters = Meters::default();
        let added = meters.read(&[router(60, &[(7, tally(5, 95, 5))])], 7, at(50));
        assert_eq!(errors(&added.current), (5, 95, 5));
    }

    #[test]
    fn a_restart_is_never_a_negative_rate() {
        for (started, now) in [
            (10, tally(2, 38, 0)),
            (0, tally(2, 38, 0)),
            (10, tally(500, 900, 9)),
        ] {
            let mut meters = Meters::default();
            meters.read(&[router(0, &[(7, tally(50, 950, 5))])], 7, at(0));
            let added = meters.read(&[router(started, &[(7, now.clone())])], 7, at(0));
            assert_eq!(errors(&added.current), errors(&now), "started at {started}");
        }
    }

    #[test]
    fn counts_go_to_the_weights_under_which_a_request_arrived() {
        let mut meters = Meters::default();
        meters.read(&[router(0, &[(7, tally(5, 95, 0))])], 7, at(0));
        let later = router(
            0,
            &[
                (6, tally(9, 9, 9)),
                (7, tally(6, 114, 1)),
                (8, tally(25, 75, 2)),
            ],
        );
        let added = meters.read(&[later], 8, at(50));
        assert_eq!(errors(&added.late), (1, 19, 1));
        assert_eq!(errors(&added.current), (25, 75, 2));
    }

    #[test]
    fn the_same_reading_twice_adds_nothing() {
        let mut meters = Meters::default();
        let reading = [router(60, &[(7, tally(5, 95, 5))]), pod(0, tally(9, 0, 1))];
        meters.read(&reading, 7, at(50));
        let before = meters.clone();
        assert_eq!(errors(&meters.read(&reading, 7, at(50)).current), (0, 0, 0));
        assert_eq!(meters, before);
    }

    #[test]
    fn what_a_pod_did_across_a_change_of_weights_is_left_out() {
        let mut meters = Meters::default();
        meters.read(&[pod(0, tally(100, 0, 1))], 7, at(0));
        let added = meters.read(&[pod(0, tally(110, 0, 2))], 7, at(0));
        assert_eq!(errors(&added.current), (10, 0, 1));
        meters.forget(&[]);
        let added = meters.read(&[pod(0, tally(150, 0, 9))], 8, at(9));
        assert_eq!(errors(&added.current), (0, 0, 0));
        let added = meters.read(&[pod(0, tally(151, 0, 9))], 8, at(9));
        assert_eq!(errors(&added.current), (1, 0, 0));
    }

    #[test]
    fn the_number_of_routers_that_are_remembered_is_bounded() {
        let mut meters = Meters::default();
        for number in 0..100 {
            let mut reading = router(60, &[(7, tally(1, 1, 0))]);
            reading.source = format!("router-{number}");
            meters.read(&[reading], 7, at(50));
        }
        assert_eq!(meters.routers.len(), MOST_ROUTERS);
        meters.forget(&[]);
        assert!(meters.routers.is_empty());
    }
}
