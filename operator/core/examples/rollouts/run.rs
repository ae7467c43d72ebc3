//! One run of a scenario under both rules, and many of them.

use ortolan_core::{
    Timestamp,
    rollout::evidence::{Against, Count, Counters, Evidence, Reading, Sides, Signal, Tally},
};

use super::{
    flagger::Flagger,
    world::{Ended, Scenario, Second, World},
};

const SIGNALS: [Signal; 3] = [
    Signal::Errors,
    Signal::SlowerThanSlo,
    Signal::SlowerThanStable,
];
const CONFIDENCE: f64 = 0.99;

/// When a rule rolled back, in seconds, and the candidate's errors until then or until the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub rolled_back: Option<u32>,
    pub exposed: u64,
}

/// Outcomes of many runs.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub ours: Vec<Outcome>,
    pub flagger: Vec<Outcome>,
}

/// The share of runs that rolled back, in per cent.
pub fn rolled_back(outcomes: &[Outcome]) -> f64 {
    let count = outcomes.iter().filter(|o| o.rolled_back.is_some()).count();
    100.0 * count as f64 / outcomes.len().max(1) as f64
}

/// The second by which this share of all runs had rolled back; `None` when fewer did.
pub fn by(outcomes: &[Outcome], share: f64) -> Option<u32> {
    let mut seconds: Vec<u32> = outcomes.iter().filter_map(|o| o.rolled_back).collect();
    seconds.sort_unstable();
    let place = (share * outcomes.len() as f64).ceil() as usize;
    seconds.get(place.max(1) - 1).copied()
}

/// The candidate's errors that got through, in the middle run.
pub fn exposed(outcomes: &[Outcome]) -> u64 {
    let mut exposed: Vec<u64> = outcomes.iter().map(|o| o.exposed).collect();
    exposed.sort_unstable();
    exposed.get(exposed.len() / 2).copied().unwrap_or(0)
}

/// Runs a scenario so many times, on every core; the seeds follow from `seed`.
pub fn cell(scenario: Scenario, runs: u32, seed: u64) -> Cell {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let runs_of = |thread: u32| {
        (thread..runs)
            .step_by(threads as usize)
            .map(move |run| once(scenario, (seed << 32) + u64::from(run)))
            .collect::<Vec<_>>()
    };
    let both = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || runs_of(thread)))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("a run does not panic"))
            .collect::<Vec<_>>()
    });
    let (ours, flagger) = both.into_iter().unzip();
    Cell { ours, flagger }
}

fn once(scenario: Scenario, seed: u64) -> (Outcome, Outcome) {
    let mut world = World::new(scenario, seed);
    let mut ours = Ours::new(scenario, seed);
    let mut flagger = Flagger::default();
    let mut outcomes = <[Outcome; 2]>::default();
    for second in 1..=scenario.seconds {
        if world.raised() {
            ours.raise(second - 1);
        }
        let ended = world.next();
        let mut candidate = ended[0].candidate;
        candidate.add(ended[1].candidate);
        let verdicts = [
            outcomes[0].rolled_back.is_none() && ours.observe(ended, second),
            outcomes[1].rolled_back.is_none() && flagger.observe(candidate),
        ];
        for (outcome, verdict) in outcomes.iter_mut().zip(verdicts) {
            if outcome.rolled_back.is_none() {
                outcome.exposed += candidate.errors;
                outcome.rolled_back = verdict.then_some(second);
            }
        }
        if outcomes.iter().all(|outcome| outcome.rolled_back.is_some()) {
            break;
        }
    }
    (outcomes[0], outcomes[1])
}

/// The operator's evidence, fed by one router.
struct Ours {
    evidence: Evidence,
    reading: [Reading; 1],
    raised: bool,
}

impl Ours {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let start = at(0);
        let mut evidence = Evidence::new(&SIGNALS.into_iter().collect(), 1, start);
        let tally: Tally = SIGNALS.map(|signal| (signal, Sides::default())).into();
        let reading = [Reading {
            source: "router".into(),
            started: start,
            counters: Counters::ByGeneration([(1, tally.clone()), (2, tally)].into()),
        }];
        if scenario.weight >= 1.0 {
            // What the stable revision did in the ten minutes before.
            let history = World::history(scenario, seed);
            let before = SIGNALS.map(|signal| {
                let mut count = Count::default();
                add(&mut count, signal, history);
                (signal, count)
            });
            let before = before.into();
            evidence.shift(&reading, 1, &Against::Before(before), 1.0, start);
        }
        Self {
            evidence,
            reading,
            raised: false,
        }
    }

    fn raise(&mut self, second: u32) {
        if !self.raised {
            self.raised = true;
            let now = at(second);
            self.evidence
                .shift(&self.reading, 2, &Against::Stable, 1.0, now);
        }
    }

    fn observe(&mut self, ended: [Second; 2], second: u32) -> bool {
        let Counters::ByGeneration(generations) = &mut self.reading[0].counters else {
            return false;
        };
        for (tally, ended) in generations.values_mut().zip(ended) {
            for (signal, sides) in tally {
                add(&mut sides.candidate, *signal, ended.candidate);
                add(&mut sides.stable, *signal, ended.stable);
            }
        }
        self.evidence.observe(&self.reading, 1.0, at(second));
        self.evidence.tripped().is_some() || self.evidence.is_against(CONFIDENCE)
    }
}

fn add(count: &mut Count, signal: Signal, ended: Ended) {
    count.requests += ended.requests;
    count.bad += match signal {
        Signal::Errors => ended.errors,
        Signal::SlowerThanSlo => ended.slower_than_slo,
        _ => ended.slower_than_stable,
    };
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::from(second)).expect("a time of our days")
}
