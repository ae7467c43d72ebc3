//! The simulator of `cargo run --example autoscale`, short: fresh runs of the quickest scenario agree with the table of
//! `docs/autoscaling-simulation.md`, and the promises of that page hold for them. The seeds are fixed, and others than those
//! of the table.

#[path = "../examples/autoscale/ours.rs"]
mod ours;
#[path = "../examples/autoscale/rules.rs"]
mod rules;
#[path = "../examples/autoscale/run.rs"]
mod run;
#[path = "../examples/autoscale/source.rs"]
mod source;
#[expect(
    dead_code,
    reason = "the tables themselves are printed by the example alone"
)]
#[path = "../examples/autoscale/tables.rs"]
mod tables;
#[path = "../examples/autoscale/world.rs"]
mod world;

use run::{Name, Outcome, once};
use world::Scenario;

const PAGE: &str = include_str!("../../../docs/autoscaling-simulation.md");
const SCENARIO: &str = "pulse";
/// Runs of each cell of the table, and of this test.
const TABLE: f64 = 5.0;
const FRESH: u64 = 2;

fn scenario() -> Scenario {
    let all = tables::scenarios().into_iter();
    let mut some = all.filter(|scenario| scenario.name == SCENARIO);
    some.next().expect("it is one of them")
}

/// Violations and replicas of a row of the page, each with half of its confidence interval.
fn told(rule: &str) -> [(f64, f64); 2] {
    let line = format!("| {SCENARIO} | {rule} |");
    let row = PAGE.lines().find(|row| row.starts_with(&line));
    let cells: Vec<&str> = row.expect("the page has the row").split('|').collect();
    [cells[3], cells[4]].map(|cell| {
        let (mean, half) = cell.split_once('±').expect("a mean and its error");
        let number = |text: &str| text.trim().parse::<f64>().expect("a number");
        (number(mean), number(half))
    })
}

fn fresh(name: Name) -> Vec<Outcome> {
    (100..100 + FRESH)
        .map(|seed| once(scenario(), name, seed))
        .collect()
}

#[test]
fn fresh_runs_agree_with_the_table() {
    for name in [Name::Ours, Name::Kpa] {
        let runs = fresh(name);
        let mean = |of: &dyn Fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / FRESH as f64;
        let means = [mean(&|run| run.violations), mean(&|run| run.replicas)];
        for ((told, half), mean) in told(name.text()).into_iter().zip(means) {
            // The interval of the mean of fresh runs, from that of the table's; what all runs have in common to two
            // decimals may be off by the next.
            let wide = half.max(0.05) * (1.0 + TABLE / FRESH as f64).sqrt();
            assert!(
                (mean - told).abs() <= wide,
                "{}: {mean} instead of {told} ± {wide}: if that is meant, run the example again and write the page anew",
                name.text()
            );
        }
    }
}

#[test]
fn a_pulse_is_seen_within_four_seconds() {
    for run in fresh(Name::Ours) {
        assert!(run.detect.is_some_and(|detect| detect <= 4.0), "{run:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let short = Scenario {
        seconds: 120,
        ..scenario()
    };
    let twice = [0, 1].map(|_| once(short, Name::Ours, 7));
    assert_eq!(twice[0], twice[1]);
    assert_ne!(twice[0], once(short, Name::Ours, 8));
}
