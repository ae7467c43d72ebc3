//! What came of a service's requests, by the traffic generation under which they arrived and the revision that they
//! were first given to: what [`crate::stats`] tells.
//!
//! A request takes no lock to be counted. Invariants: counts never shrink; `bad` is never more than `requests`; kept are
//! the newest [`GENERATIONS`] generations, and in each a bounded number of revisions; a revision without requests takes
//! no memory for a histogram.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ortolan_stats::{
    CLASSES, EXAMPLES, Example, GENERATIONS, Outcome,
    latency::{BOUNDS, bucket},
};

/// Revisions that a generation remembers beside those that get requests: without a rollout the generation stays, and
/// revisions come and go under it.
const PAST: usize = 6;

/// What a traffic generation is counted under: 0 where the service has none.
#[must_use]
pub fn key(generation: Option<u64>) -> u64 {
    generation.unwrap_or(0)
}

/// What came of the requests of one generation to one revision.
#[derive(Debug)]
pub struct Counts {
    revision: Box<str>,
    ended: OnceLock<Box<Ended>>,
    /// What pods say that their runs took.
    runs: OnceLock<Box<Buckets>>,
    compared: AtomicU64,
    differed: AtomicU64,
    /// The first of those that differed.
    examples: Mutex<Vec<Example>>,
    /// Best classes of the user's answers and of the copies', in pairs.
    classes: Mutex<BTreeMap<String, [u64; 2]>>,
}

/// Counts of times by their bucket.
#[derive(Debug)]
struct Buckets([AtomicU64; BOUNDS + 1]);

#[derive(Debug, Default)]
struct Ended {
    times: Buckets,
    /// Whose times are no measure.
    untimed: AtomicU64,
    bad: AtomicU64,
}

/// What tells one state of a service's counts from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    generation: Option<u64>,
    held: usize,
    /// How often generations or revisions changed.
    turns: u64,
    counted: u64,
}

/// The counts of one service.
#[derive(Debug, Default)]
pub struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The one that requests arrive under is the last.
    generations: VecDeque<(u64, Vec<Arc<Counts>>)>,
    turns: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Buckets {
    fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// A bucket without any is left out.
    fn counts(&self) -> BTreeMap<u16, u64> {
        let counts = self.0.iter().map(|n| n.load(Ordering::Relaxed));
        (0..).zip(counts).filter(|(_, n)| *n > 0).collect()
    }
}

impl Counts {
    fn new(revision: &str) -> Self {
        Self {
            revision: revision.into(),
            ended: OnceLock::new(),
            runs: OnceLock::new(),
            compared: AtomicU64::new(0),
            differed: AtomicU64::new(0),
            examples: Mutex::default(),
            classes: Mutex::default(),
        }
    }

    /// Whether they are this revision's.
    #[must_use]
    pub fn is_of(&self, revision: &str) -> bool {
        *self.revision == *revision
    }

    /// Counts a request that took so long from its arrival to the head of its answer; `None` where that is no measure
    /// of the revision, for its pod was cold.
    pub fn ended(&self, took: Option<Duration>, is_bad: bool) {
        let ended = self.ended.get_or_init(Box::default);
        match took {
            Some(took) => ended.times.add(took),
            None => _ = ended.untimed.fetch_add(1, Ordering::Relaxed),
        }
        if is_bad {
            // Who reads this one, read first, reads the request too.
            ended.bad.fetch_add(1, Ordering::Release);
        }
    }

    /// Counts what a pod says that its run took. It is told with the request that is counted before or after it.
    pub fn ran(&self, took: Duration) {
        self.runs.get_or_init(Box::default).add(took);
    }

    fn examples(&self) -> MutexGuard<'_, Vec<Example>> {
        self.examples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an example of answers that differ, while there are fewer than [`EXAMPLES`]. It is told with the pair that
    /// is counted next.
    pub fn keep(&self, example: impl FnOnce() -> Example) {
        if self.examples().len() >= EXAMPLES {
            return;
        }
        // Made without the lock: it hashes a body.
        let example = example();
        let mut examples = self.examples();
        if examples.len() < EXAMPLES {
            examples.push(example);
        }
    }

    fn classes(&self) -> MutexGuard<'_, BTreeMap<String, [u64; 2]>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the classes of the user's answer and of the copy's. They are told with the pair that is counted next.
    pub fn said(&self, both: [String; 2]) {
        let mut classes = self.classes();
        for (side, class) in both.into_iter().enumerate() {
            // One place is for the rest.
            let is_new = !classes.contains_key(&class);
            let is_rest = is_new && classes.len() >= CLASSES;
            let name = if is_rest { String::new() } else { class };
            classes.entry(name).or_default()[side] += 1;
        }
    }

    /// Counts a copy whose answer was compared with the user's.
    pub fn compared(&self, differs: bool) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        if differs {
            self.differed.fetch_add(1, Ordering::Release);
        }
    }

    /// All its counters together: whatever is counted makes it grow.
    fn sum(&self) -> u64 {
        let ended = self.ended.get().into_iter();
        let counters = ended.flat_map(|all| all.times.0.iter().chain([&all.untimed, &all.bad]));
        let runs = self.runs.get().into_iter().flat_map(|runs| &runs.0);
        let counters = counters.chain(runs).chain([&self.compared, &self.differed]);
        counters.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn outcome(&self) -> Outcome {
        let differed = self.differed.load(Ordering::Acquire);
        let pairs = Outcome {
            compared: self.compared.load(Ordering::Relaxed),
            differed,
            classes: self.classes().clone(),
            runs: self
                .runs
                .get()
                .map(|runs| runs.counts())
                .unwrap_or_default(),
            ..Outcome::default()
        };
        let Some(ended) = self.ended.get() else {
            return pairs;
        };
        let bad = ended.bad.load(Ordering::Acquire);
        let latency = ended.times.counts();
        Outcome {
            requests: latency.values().sum::<u64>() + ended.untimed.load(Ordering::Relaxed),
            bad,
            latency,
            ..pairs
        }
    }
}

fn of<'a>(counts: &'a [Arc<Counts>], revision: &str) -> Option<&'a Arc<Counts>> {
    counts.iter().find(|one| *one.revision == *revision)
}

impl Tally {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on requests arrive under this generation. The counts for these revisions, in their order.
    pub fn turn<'a>(
        &self,
        generation: u64,
        revisions: impl Iterator<Item = &'a str>,
    ) -> Vec<Arc<Counts>> {
        let mut state = self.state();
        let mut is_new = false;
        let at = state.generations.iter().position(|(g, _)| *g == generation);
        let had = at.and_then(|at| state.generations.remove(at));
        let mut known = had.map(|(_, counts)| counts).unwrap_or_else(|| {
            is_new = true;
            Vec::new()
        });
        let mut current = Vec::new();
        for revision in revisions {
            let counts = of(&known, revision).cloned();
            current.push(counts.unwrap_or_else(|| {
                is_new = true;
                Arc::new(Counts::new(revision))
            }));
        }
        known.retain(|one| of(&current, &one.revision).is_none());
        let too_many = known.len().saturating_sub(PAST);
        known.drain(..too_many);
        known.extend(current.iter().cloned());
        state.generations.push_back((generation, known));
        while state.generations.len() > GENERATIONS {
            state.generations.pop_front();
        }
        if is_new {
            state.turns += 1;
        }
        current
    }

    /// The counts of a request that arrived under an earlier generation. Those of one that is forgotten are read by
    /// nobody.
    #[must_use]
    pub fn of(&self, generation: u64, revision: &str) -> Arc<Counts> {
        let mut state = self.state();
        let mut all = state.generations.iter_mut();
        let kept = all.find(|(known, _)| *known == generation);
        let known = kept.as_ref().and_then(|(_, counts)| of(counts, revision));
        if let Some(counts) = known {
            return Arc::clone(counts);
        }
        let counts = Arc::new(Counts::new(revision));
        if let Some((_, all)) = kept
            && all.len() <= PAST
        {
            all.push(Arc::clone(&counts));
        }
        counts
    }

    /// All counts, by generation and revision.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<u64, BTreeMap<String, Outcome>> {
        let of_one = |counts: &[Arc<Counts>]| {
            let named = counts.iter();
            named
                .map(|one| (one.revision.to_string(), one.outcome()))
                .collect()
        };
        let state = self.state();
        let all = state.generations.iter();
        all.map(|(generation, counts)| (*generation, of_one(counts)))
            .collect()
    }

    /// Examples of answers that differ, of all generations.
    #[must_use]
    pub fn examples(&self) -> Vec<Example> {
        let state = self.state();
        let all = state.generations.iter().flat_map(|(_, counts)| counts);
        all.flat_map(|counts| counts.examples().clone()).collect()
    }

    /// What changes whenever a service with this generation and so many held requests has something else to tell.
    #[must_use]
    pub fn mark(&self, generation: Option<u64>, held: usize) -> Mark {
        let state = self.state();
        let all = state.generations.iter().flat_map(|(_, counts)| counts);
        Mark {
            generation,
            held,
            turns: state.turns,
            counted: all.map(|counts| counts.sum()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ortolan_stats::example::{Difference, What};
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn requests(tally: &Tally, generation: u64, revision: &str) -> Option<(u64, u64)> {
        let all = tally.generations();
        let outcome = all.get(&generation)?.get(revision)?;
        assert_eq!(outcome.latency.values().sum::<u64>(), outcome.requests);
        Some((outcome.requests, outcome.bad))
    }

    #[test]
    fn a_late_end_is_counted_where_the_request_arrived() {
        let tally = Tally::default();
        let first = tally.turn(1, ["a"].into_iter());
        let second = tally.turn(2, ["a", "b"].into_iter());
        first[0].ended(Some(MS), true);
        second[0].ended(Some(MS), false);
        second[1].ended(Some(MS), false);
        assert_eq!(requests(&tally, 1, "a"), Some((1, 1)));
        assert_eq!(requests(&tally, 2, "a"), Some((1, 0)));
        assert_eq!(requests(&tally, 2, "b"), Some((1, 0)));
        // It arrived under the first and was given to a revision that came later.
        tally.of(1, "b").ended(Some(MS), false);
        tally.of(1, "b").ended(Some(MS), false);
        assert_eq!(requests(&tally, 1, "b"), Some((2, 0)));
    }

    #[test]
    fn the_newest_generations_are_kept_and_one_that_comes_back_counts_on() {
        let tally = Tally::default();
        for generation in 1..=5 {
            tally.turn(generation, ["a"].into_iter())[0].ended(Some(MS), false);
        }
        let kept = |tally: &Tally| tally.generations().into_keys().collect::<Vec<_>>();
        assert_eq!(kept(&tally), [3, 4, 5]);
        tally.of(1, "a").ended(Some(MS), false);
        assert_eq!(kept(&tally), [3, 4, 5], "nobody reads those any more");
        tally.turn(3, ["a"].into_iter())[0].ended(Some(MS), false);
        assert_eq!(requests(&tally, 3, "a"), Some((2, 0)));
        tally.turn(1, ["a"].into_iter());
        assert_eq!(kept(&tally), [1, 3, 5], "the oldest by use goes");
    }

    #[test]
    fn revisions_that_come_and_go_under_one_generation_do_not_pile_up() {
        let tally = Tally::default();
        for n in 0..100 {
            let name = format!("r-{n}");
            tally.turn(0, ["stays", &name].into_iter())[0].ended(Some(MS), false);
        }
        assert_eq!(tally.generations()[&0].len(), PAST + 2);
        assert_eq!(requests(&tally, 0, "stays"), Some((100, 0)));
        assert_eq!(requests(&tally, 0, "r-99"), Some((0, 0)));
        for n in 0..100 {
            let _ = tally.of(0, &format!("late-{n}"));
        }
        assert_eq!(tally.generations()[&0].len(), PAST + 2);
    }

    #[test]
    fn whatever_there_is_to_tell_changes_the_mark() {
        let tally = Tally::default();
        let counts = tally.turn(1, ["a"].into_iter());
        let mark = || tally.mark(Some(1), 0);
        let before = mark();
        let _ = tally.turn(1, ["a"].into_iter());
        assert_eq!(mark(), before, "nothing is new");
        counts[0].ended(Some(MS), false);
        assert_ne!(mark(), before);
        let before = mark();
        let _ = tally.turn(1, ["a", "b"].into_iter());
        assert_ne!(mark(), before);
        assert_ne!(tally.mark(Some(1), 1), mark());
        assert_ne!(tally.mark(None, 0), mark());
        let before = mark();
        counts[0].compared(false);
        assert_ne!(mark(), before);
        let before = mark();
        counts[0].ran(MS);
        assert_ne!(mark(), before);
        assert_eq!(tally.generations()[&1]["a"].runs.values().sum::<u64>(), 1);
    }

    #[test]
    fn pairs_are_counted_beside_requests_and_without_any() {
        let tally = Tally::default();
        let counts = tally.turn(1, ["a"].into_iter());
        counts[0].compared(false);
        counts[0].compared(true);
        let pairs = |tally: &Tally| {
            let outcome = tally.generations()[&1]["a"].clone();
            (outcome.requests, outcome.compared, outcome.differed)
        };
        assert_eq!(pairs(&tally), (0, 2, 1));
        assert!(tally.examples().is_empty());
        counts[0].ended(Some(MS), false);
        assert_eq!(pairs(&tally), (1, 2, 1));
    }

    #[test]
    fn classes_are_counted_by_name_until_there_are_too_many() {
        let tally = Tally::default();
        let counts = tally.turn(1, ["a"].into_iter());
        for number in 0..1000 {
            let class = (number % 100).to_string();
            counts[0].said([class.clone(), class]);
        }
        counts[0].said(["7".into(), "8".into()]);
        let classes = tally.generations()[&1]["a"].classes.clone();
        assert_eq!(classes.len(), CLASSES + 1);
        assert_eq!((classes["7"], classes["8"]), ([11, 10], [10, 11]));
        assert_eq!(classes[""], [500, 500], "the rest");
    }

    #[test]
    fn the_first_examples_are_kept_and_no_further_one_is_made() {
        let tally = Tally::default();
        let counts = tally.turn(1, ["a", "b"].into_iter());
        let made = std::cell::Cell::new(0);
        for number in 0..100 {
            counts[1].keep(|| {
                made.set(made.get() + 1);
                Example {
                    at: jiff::Timestamp::UNIX_EPOCH,
                    generation: 1,
                    stable: "a".into(),
                    candidate: "b".into(),
                    difference: Difference::of(What::Late),
                    inputs: Vec::new(),
                    body_sha256: String::new(),
                    body_bytes: number,
                    trace_id: None,
                }
            });
        }
        let kept: Vec<u64> = tally.examples().iter().map(|one| one.body_bytes).collect();
        assert_eq!(kept, (0..EXAMPLES as u64).collect::<Vec<_>>());
        assert_eq!(made.get(), EXAMPLES);
        // With its generation they go.
        (2..=4).for_each(|generation| drop(tally.turn(generation, ["a"].into_iter())));
        assert!(tally.examples().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_counted(ends in prop::collection::vec((0_u64..1 << 40, any::<bool>()), 0..50)) {
            let tally = Tally::default();
            let counts = tally.turn(1, ["a"].into_iter());
            for (micros, is_bad) in &ends {
                counts[0].ended(Some(Duration::from_micros(*micros)), *is_bad);
            }
            let bad = ends.iter().filter(|(_, is_bad)| *is_bad).count() as u64;
            prop_assert_eq!(requests(&tally, 1, "a"), Some((ends.len() as u64, bad)));
        }
    }
}
