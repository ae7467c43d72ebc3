use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

fn sides(n_c: u64, n_s: u64, e_c: u64, e_s: u64) -> Sides {
    Sides {
        candidate: Count::new(n_c, e_c),
        stable: Count::new(n_s, e_s),
    }
}

fn reading(generation: u64, signals: &[(Signal, Sides)]) -> Reading {
    let tally: Tally = signals.iter().copied().collect();
    Reading {
        source: "router".into(),
        started: at(0),
        counters: Counters::ByGeneration(BTreeMap::from([(generation, tally)])),
    }
}

fn fresh(signals: &[Signal]) -> Evidence {
    Evidence::new(&signals.iter().copied().collect(), 1, at(0))
}

#[test]
fn the_decision_is_on_the_mean_of_the_tests() {
    let signals = [
        Signal::Errors,
        Signal::SlowerThanSlo,
        Signal::SlowerThanStable,
    ];
    let mut evidence = fresh(&signals);
    let counted = [
        (Signal::Errors, sides(60, 1_140, 1, 6)),
        (Signal::SlowerThanSlo, sides(60, 1_140, 1, 19)),
    ];
    evidence.observe(&[reading(1, &counted)], 1.0, at(10));
    let vote = share::vote(&sides(60, 1_140, 1, 6), 1.0).expect("a vote");
    let single = share::e_value(&vote);
    assert!(single > 1.2, "{single}");
    assert!((evidence.e_value() - (single + 1.0 + 1.0) / 3.0).abs() < 1e-8);
}

#[test]
fn evidence_is_against_a_candidate_from_one_over_alpha_on() {
    assert!((limit(0.99) - 100.0).abs() < 1e-9);
    let mut evidence = fresh(&[Signal::Errors]);
    let mut blocks = 0;
    while !evidence.is_against(0.99) {
        blocks += 1;
        let so_far = sides(60 * blocks, 1_140 * blocks, 3 * blocks, 6 * blocks);
        evidence.observe(
            &[reading(1, &[(Signal::Errors, so_far)])],
            1.0,
            at(12 * i64::try_from(blocks).expect("in range")),
        );
        assert!(blocks < 20);
    }
    assert!(
        blocks > 3,
        "ten times the errors take several votes, not {blocks}"
    );
    let why = evidence.why(0.99);
    assert!(why.starts_with("errors and timeouts: "), "{why}");
    assert!(why.ends_with("the limit is 100"), "{why}");
}

#[test]
fn nothing_read_is_no_evidence() {
    let mut evidence = fresh(&[Signal::Errors]);
    let before = evidence.clone();
    for second in 1..1_000 {
        evidence.observe(&[], 1.0, at(second));
    }
    assert_eq!(evidence, before);
    assert_eq!(evidence.e_value(), 1.0);
    assert_eq!(fresh(&[]).e_value(), 1.0);
}

#[test]
fn a_shared_outage_across_a_change_of_weights_is_no_evidence() {
    let mut evidence = fresh(&[Signal::Errors]);
    let calm = sides(300, 5_700, 0, 0);
    evidence.observe(&[reading(1, &[(Signal::Errors, calm)])], 1.0, at(60));
    evidence.shift(&[reading(1, &[])], 2, &Against::Stable, 1.0, at(60));
    // Half of everything fails from here on: pooled with the calm before, the candidate, whose
    // weight rose fivefold, has far more of the errors than of the requests.
    let bad = sides(1_000, 3_000, 490, 1_470);
    evidence.observe(&[reading(2, &[(Signal::Errors, bad)])], 1.0, at(80));
    assert!(
        (evidence.e_value() - 1.0).abs() < 1e-9,
        "{}",
        evidence.e_value()
    );
    let pooled = sides(1_300, 8_700, 490, 1_470);
    let pooled = share::e_value(&share::vote(&pooled, 1.0).expect("a vote"));
    assert!(pooled > 1.2, "{pooled}");
}

#[test]
fn the_guard_trips_on_half_of_the_requests_while_stable_is_healthy() {
    let cases = [
        (sides(32, 361, 32, 0), false),
        (sides(33, 361, 33, 0), true),
        (sides(67, 380, 33, 0), false),
        (sides(66, 760, 33, 3), true),
        (sides(66, 760, 33, 77), false),
        (sides(40, 760, 40, 700), false),
        (sides(40, 0, 40, 0), true),
        (sides(0, 760, 0, 760), false),
    ];
    for (block, trips) in cases {
        let mut evidence = fresh(&[Signal::Errors]);
        evidence.observe(&[reading(1, &[(Signal::Errors, block)])], 1.0, at(1));
        assert_eq!(evidence.tripped().is_some(), trips, "{block:?}");
    }
}

#[test]
fn slow_requests_do_not_trip_the_guard() {
    let mut evidence = fresh(&[Signal::Errors, Signal::SlowerThanStable]);
    let slow = [
        (Signal::Errors, sides(40, 760, 0, 0)),
        (Signal::SlowerThanStable, sides(40, 760, 40, 0)),
    ];
    evidence.observe(&[reading(1, &slow)], 1.0, at(1));
    assert_eq!(evidence.tripped(), None);
}

/// The pod of a candidate with a twentieth of 100 requests a second never has a queue, so that the router sees nothing of a
/// model that is half as slow again: all of its runs are over an edge that one in twenty of the stable revision's is.
#[test]
fn a_model_that_is_half_as_slow_again_is_caught_by_its_runs_although_the_router_sees_nothing() {
    let mut evidence = fresh(&[
        Signal::Errors,
        Signal::SlowerThanStable,
        Signal::ServiceTime,
    ]);
    let mut blocks = 0;
    while !evidence.is_against(0.99) {
        blocks += 1;
        assert!(blocks <= 10, "two minutes have passed: {evidence:?}");
        let counted = [
            (
                Signal::Errors,
                sides(60 * blocks, 1_140 * blocks, 0, blocks),
            ),
            (
                Signal::SlowerThanStable,
                sides(60 * blocks, 1_140 * blocks, 0, 57 * blocks),
            ),
            (
                Signal::ServiceTime,
                sides(60 * blocks, 1_140 * blocks, 60 * blocks, 57 * blocks),
            ),
        ];
        let now = at(12 * i64::try_from(blocks).expect("in range"));
        evidence.observe(&[reading(1, &counted)], 1.0, now);
    }
    let why = evidence.why(0.99);
    assert!(why.starts_with("runs slower than"), "{why}");
    assert_eq!(evidence.tripped(), None);
}

#[test]
fn what_a_step_needs_is_counted_from_its_beginning() {
    let mut evidence = fresh(&[Signal::Errors]);
    let read = |requests| reading(1, &[(Signal::Errors, sides(requests, 0, 0, 0))]);
    evidence.observe(&[read(70)], 1.0, at(1));
    assert_eq!(evidence.requests_in_step(), 70);
    evidence.begin_step();
    evidence.observe(&[read(75)], 1.0, at(2));
    assert_eq!(evidence.requests_in_step(), 5);
}

#[test]
fn the_frozen_rate_is_of_the_last_minutes_or_else_of_the_rollout() {
    let shifted = |before: &[(Signal, Count)]| {
        let mut evidence = fresh(&[Signal::Errors]);
        let counted = sides(60, 1_140, 0, 6);
        evidence.observe(&[reading(1, &[(Signal::Errors, counted)])], 1.0, at(10));
        let before = Against::Before(before.iter().copied().collect());
        evidence.shift(&[], 2, &before, 1.0, at(10));
        evidence.tests()[&Signal::Errors].frozen()
    };
    let upper = |n, e| frozen::upper_wilson(Count::new(n, e));
    assert_eq!(
        shifted(&[(Signal::Errors, Count::new(600, 30))]),
        upper(600, 30)
    );
    assert_eq!(shifted(&[]), upper(1_140, 6));
    let mut never = fresh(&[Signal::Errors]);
    never.shift(&[], 2, &Against::Before(BTreeMap::new()), 1.0, at(10));
    assert_eq!(never.tests()[&Signal::Errors].frozen(), None);
}

#[test]
fn evidence_of_two_routers_and_five_signals_is_small_and_read_back_as_it_was() {
    let all: BTreeSet<Signal> = Signal::ALL.into_iter().collect();
    let mut evidence = Evidence::new(&all, 7, at(0));
    let read = |source: &str, n: u64| {
        let tally: Tally = Signal::ALL
            .map(|s| (s, sides(n, 19 * n, n / 90, n / 7)))
            .into();
        Reading {
            source: format!("ortolan-router-5d4f8c7b9-{source}"),
            started: at(0),
            counters: Counters::ByGeneration([(6, tally.clone()), (7, tally)].into()),
        }
    };
    for second in 0..3_600 {
        let n = 250 * u64::try_from(second).expect("in range");
        evidence.observe(&[read("abcde", n), read("fghij", n)], 1.0, at(second));
    }
    let text = serde_json::to_string(&evidence).expect("it is written");
    assert_eq!(
        serde_json::from_str::<Evidence>(&text).expect("it is read back"),
        evidence
    );
    assert!(text.len() < 4_096, "{} bytes", text.len());
}

proptest! {
    /// Whatever the counters do, the E value is a number, and reading them again changes nothing.
    #[test]
    fn any_counters_give_a_number_and_the_same_twice(
        history in prop::collection::vec((0_u64..3, 0_u64..500, 0_u64..5_000, 0_u64..600, 0_u64..6_000, 0_i64..40), 1..40),
    ) {
        let mut evidence = fresh(&[Signal::Errors, Signal::SlowerThanSlo]);
        let mut now = 0;
        for (generation, n_c, n_s, e_c, e_s, wait) in history {
            now += wait;
            let counted = sides(n_c, n_s, e_c.min(n_c), e_s.min(n_s));
            let read = [reading(generation, &[(Signal::Errors, counted)])];
            evidence.observe(&read, 1.0, at(now));
            let once = evidence.clone();
            evidence.observe(&read, 1.0, at(now));
            prop_assert_eq!(&once, &evidence);
            prop_assert!(evidence.e_value() >= 0.0 && !evidence.e_value().is_nan());
        }
    }
}
