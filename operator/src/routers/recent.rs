//! What each revision of a service did in the last ten minutes: what was added to the routers' counts, in slots of half
//! a minute.
//!
//! Pure: the slot of now is a parameter. Invariants: nothing is ever negative; a slot that is older than [`SLOTS`] counts
//! no more; so much is kept as there was traffic, and of at most [`REVISIONS`] revisions.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ortolan_stats::Outcome;

/// The time of one slot.
pub const SLOT: Duration = Duration::from_secs(30);
/// Slots that are kept: ten minutes.
pub const SLOTS: u64 = 20;
/// Revisions that are kept: far more than get requests at a time.
const REVISIONS: usize = 16;

/// One service.
#[derive(Debug, Default)]
pub struct Recent(BTreeMap<Box<str>, VecDeque<Slot>>);

/// Eight bytes for a bucket: a thousand services with traffic take some megabytes.
#[derive(Debug, Default)]
struct Slot {
    number: u64,
    requests: u64,
    bad: u64,
    latency: Histogram,
    /// What pods said that their runs took.
    runs: Histogram,
}

/// Counts by bucket, sorted by it.
#[derive(Debug, Default)]
struct Histogram(Vec<(u16, u32)>);

impl Histogram {
    fn add(&mut self, counts: &BTreeMap<u16, u64>) {
        for (bucket, count) in counts {
            let count = u32::try_from(*count).unwrap_or(u32::MAX);
            match self.0.binary_search_by_key(bucket, |(at, _)| *at) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(count),
                Err(at) => self.0.insert(at, (*bucket, count)),
            }
        }
    }

    fn counts(&self) -> BTreeMap<u16, u64> {
        let counts = self.0.iter();
        counts.map(|(at, n)| (*at, u64::from(*n))).collect()
    }
}

impl Slot {
    fn add(&mut self, outcome: &Outcome) {
        self.requests = self.requests.saturating_add(outcome.requests);
        self.bad = self.bad.saturating_add(outcome.bad);
        self.latency.add(&outcome.latency);
        self.runs.add(&outcome.runs);
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            requests: self.requests,
            bad: self.bad,
            latency: self.latency.counts(),
            runs: self.runs.counts(),
            // Nothing is held against what answers to copies were before.
            ..Outcome::default()
        }
    }

    const fn is_old(&self, now: u64) -> bool {
        self.number + SLOTS <= now
    }
}

impl Recent {
    /// Adds what came of a revision's requests in the slot of now.
    pub fn add(&mut self, revision: &str, outcome: &Outcome, now: u64) {
        let slots = match self.0.get_mut(revision) {
            Some(slots) => slots,
            None => {
                self.make_room();
                self.0.entry(revision.into()).or_default()
            }
        };
        // Whoever comes late, by a clock that went back, counts in the newest.
        if slots.back().is_none_or(|newest| newest.number < now) {
            slots.push_back(Slot {
                number: now,
                ..Slot::default()
            });
        }
        if let Some(newest) = slots.back_mut() {
            newest.add(outcome);
        }
    }

    /// The revision that was quiet for longest makes room for another one.
    fn make_room(&mut self) {
        if self.0.len() < REVISIONS {
            return;
        }
        let newest = |slots: &VecDeque<Slot>| slots.back().map(|slot| slot.number);
        let quietest = self.0.iter().min_by_key(|(_, slots)| newest(slots));
        if let Some(name) = quietest.map(|(name, _)| name.clone()) {
            self.0.remove(&name);
        }
    }

    /// Forgets what is too old. Answers whether anything is left.
    pub fn forget(&mut self, now: u64) -> bool {
        self.0.retain(|_, slots| {
            while slots.front().is_some_and(|slot| slot.is_old(now)) {
                slots.pop_front();
            }
            !slots.is_empty()
        });
        !self.0.is_empty()
    }

    /// What each revision did in the last ten minutes; one without requests is left out.
    #[must_use]
    pub fn outcomes(&self, now: u64) -> BTreeMap<String, Outcome> {
        let of_one = |slots: &VecDeque<Slot>| {
            let mut sum = Outcome::default();
            for slot in slots.iter().filter(|slot| !slot.is_old(now)) {
                sum += &slot.outcome();
            }
            sum
        };
        let all = self.0.iter();
        all.map(|(name, slots)| (name.to_string(), of_one(slots)))
            .filter(|(_, outcome)| outcome.requests > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(requests: u64, bad: u64) -> Outcome {
        Outcome {
            requests,
            bad,
            latency: BTreeMap::from([(3, requests - bad), (9, bad)]),
            runs: BTreeMap::from([(2, requests)]),
            ..Outcome::default()
        }
    }

    #[test]
    fn what_is_older_than_ten_minutes_counts_no_more() {
        let mut recent = Recent::default();
        recent.add("a", &outcome(10, 1), 0);
        recent.add("a", &outcome(5, 0), 0);
        recent.add("a", &outcome(7, 2), 19);
        recent.add("b", &outcome(1, 0), 19);
        let all = recent.outcomes(19);
        assert_eq!(all["a"], outcome(22, 3));
        assert_eq!(recent.outcomes(20)["a"], outcome(7, 2));
        assert!(recent.forget(20));
        assert_eq!(recent.outcomes(19)["a"], outcome(7, 2), "it is gone");
        assert!(!recent.forget(39));
        assert!(recent.0.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut recent = Recent::default();
        recent.add("a", &outcome(1, 0), 5);
        recent.add("a", &outcome(1, 0), 3);
        assert_eq!(recent.outcomes(5)["a"].requests, 2);
    }

    #[test]
    fn revisions_that_come_and_go_do_not_pile_up() {
        let mut recent = Recent::default();
        for n in 0..100 {
            recent.add("stays", &outcome(1, 0), n / 10);
            recent.add(&format!("r-{n}"), &outcome(1, 0), n / 10);
        }
        let all = recent.outcomes(10);
        assert_eq!(all.len(), REVISIONS);
        assert_eq!(all["stays"].requests, 100);
        assert!(all.contains_key("r-99") && !all.contains_key("r-0"));
    }
}
