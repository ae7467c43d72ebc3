//! The simulator of `cargo run --example rollouts`, short: the promises of `docs/rollouts.md` hold for
//! few runs of the worlds at their edges. The seeds are fixed.

#[path = "../examples/rollouts/flagger.rs"]
mod flagger;
#[path = "../examples/rollouts/run.rs"]
mod run;
#[expect(
    dead_code,
    reason = "the tables themselves are printed by the example alone"
)]
#[path = "../examples/rollouts/tables.rs"]
mod tables;
#[path = "../examples/rollouts/world.rs"]
mod world;

use run::{by, cell, exposed, rolled_back};
use world::Scenario;

const RUNS: u32 = 50;

#[test]
fn a_healthy_candidate_is_rarely_rolled_back_in_any_world() {
    let mut all = Vec::new();
    for (place, (name, world)) in tables::worlds().into_iter().enumerate() {
        let mut outcomes = Vec::new();
        for (rate, weight) in [(5.0, 50), (100.0, 5)] {
            let seed = 500 + place as u64;
            outcomes.extend(cell(world(tables::base(rate, weight)), RUNS, seed).ours);
        }
        let false_ones = rolled_back(&outcomes);
        assert!(
            false_ones <= 2.0,
            "{name}: {false_ones} % of healthy candidates"
        );
        all.extend(outcomes);
    }
    assert!(rolled_back(&all) <= 1.0, "{} %", rolled_back(&all));
}

#[test]
fn ten_times_the_errors_is_caught_within_two_minutes_at_a_hundred_requests_a_second() {
    for errors in [0.005, 0.01] {
        let scenario = Scenario {
            errors,
            worse: 10.0,
            ..tables::base(100.0, 5)
        };
        let outcomes = cell(scenario, RUNS, 600).ours;
        assert_eq!(rolled_back(&outcomes), 100.0, "base rate {errors}");
        let half = by(&outcomes, 0.5).expect("that many");
        assert!(
            half <= 120,
            "half of them after {half} s at a base rate of {errors}"
        );
    }
}

#[test]
fn a_candidate_that_fails_always_is_gone_after_a_few_seconds() {
    let scenario = Scenario {
        worse: 1_000.0,
        ..tables::base(100.0, 5)
    };
    let outcomes = cell(scenario, RUNS, 700).ours;
    let last = by(&outcomes, 1.0).expect("that many");
    assert!(last <= 15, "{last} s");
    assert!(exposed(&outcomes) <= 60);
}

#[test]
fn a_candidate_that_is_slower_is_caught() {
    let scenario = Scenario {
        slower: 3.0,
        seconds: 900,
        ..tables::base(100.0, 5)
    };
    let outcomes = cell(scenario, RUNS, 800).ours;
    assert!(
        rolled_back(&outcomes) >= 99.0,
        "{} %",
        rolled_back(&outcomes)
    );
}

#[test]
fn thresholds_fire_at_healthy_candidates_where_the_test_does_not() {
    let cell = cell(tables::base(20.0, 5), RUNS, 900);
    assert!(
        rolled_back(&cell.flagger) >= 20.0,
        "{} %",
        rolled_back(&cell.flagger)
    );
    assert!(rolled_back(&cell.ours) <= 2.0);
}

#[test]
fn the_same_seed_gives_the_same_runs() {
    let twice = [0, 1].map(|_| cell(tables::base(100.0, 5), 20, 42).flagger);
    assert_eq!(twice[0], twice[1]);
    let other = cell(tables::base(100.0, 5), 20, 43).flagger;
    assert_ne!(twice[0], other);
}
