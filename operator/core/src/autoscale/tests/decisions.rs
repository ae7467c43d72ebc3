//! Up, down, and why.

use std::time::Duration;

use super::world::{World, at, carrying, config, count, p95};
use crate::autoscale::{
    By, Condition, PerSecond, Reason, State,
    capacity::Source,
    config::{Server, Targets},
    decision::Why,
    rest::Rest,
    sample::Unschedulable,
};

fn words(conditions: &[Condition]) -> Vec<&'static str> {
    conditions.iter().map(Condition::word).collect()
}

/// What is done to a world.
type Change = fn(&mut World);

#[test]
fn the_reason_is_a_sentence() {
    let by = By::Latency {
        latency: p95(50),
        each: 52.0,
        source: Source::Learned,
    };
    let reason = Reason {
        from: 4,
        to: 7,
        why: Why::Demand {
            demand: 312.0,
            needed: 7,
            by,
        },
        bound: None,
    };
    assert_eq!(
        reason.to_string(),
        "4 → 7: 312 rps needs 7 at p95 ≤ 50 ms (1 replica carries 52 rps, learned)"
    );
    assert_eq!(reason.word(), "Demand");
    let mut learns = World::new(config(1, 20), 1);
    learns.run(50.0, 400);
    let sentence = learns.run(110.0, 800).reason.to_string();
    assert_eq!(
        sentence,
        "2: 110 rps needs 2 at p95 ≤ 50 ms (1 replica carries 67 rps, learned)"
    );
}

#[test]
fn capacity_is_learned_from_service_times_and_until_then_requests_in_flight_count() {
    let mut world = World::new(config(1, 20), 1);
    world.sample.routers[0].in_flight = 2;
    let first = world.run(20.0, 20);
    let sentence = first.reason.to_string();
    assert!(
        sentence.ends_with(" at 0.70 each, until it is learned what a replica carries"),
        "{sentence}"
    );
    assert_eq!(first.figures.capacity, None);
    let later = world.run(20.0, 120);
    // One execution of 10 ms at a time, 50 ms: 66.4 a second.
    let capacity = later.figures.capacity.expect("learned").get();
    assert!((65.0..68.0).contains(&capacity), "{capacity}");
    assert_eq!(later.figures.p95, Some(Duration::from_millis(11)));
}

#[test]
fn a_demand_over_what_the_replicas_carry_adds_some_within_seconds() {
    let mut world = World::new(carrying(1, 60, 50.0), 2);
    world.run(40.0, 400);
    let mut took = 0;
    while world.look(400.0).replicas < 8 {
        took += 2;
        assert!(took <= 6, "no eight replicas after {took} s");
    }
    let most = (0..100).map(|_| world.look(400.0).replicas).max();
    assert!(most <= Some(16), "{most:?}");
    assert!(world.look(400.0).replicas >= 8);
}

#[test]
fn fewer_replicas_only_after_fewer_would_have_done_for_the_whole_window() {
    let mut world = World::new(carrying(1, 60, 50.0), 8);
    world.run(380.0, 320);
    let before = world.look(380.0).replicas;
    let held = world.run(40.0, 280);
    assert_eq!(held.replicas, before);
    assert!(
        held.reason
            .to_string()
            .ends_with("would do now, the most of the last 5 min was 9"),
        "{}",
        held.reason
    );
    // 50 % a minute.
    let mut steps = Vec::new();
    for _ in 0..200 {
        let to = world.look(40.0).replicas;
        if steps.last() != Some(&to) {
            steps.push(to);
        }
    }
    assert_eq!(steps.last(), Some(&1), "{steps:?}");
    assert!(steps.is_sorted_by(|one, next| next < one), "{steps:?}");
}

#[test]
fn pods_that_start_are_not_asked_for_twice() {
    let mut world = World::new(carrying(1, 60, 50.0), 2);
    world.run(40.0, 400);
    world.obeys = false;
    let most = (0..60).map(|_| world.look(400.0).replicas).max();
    assert!((8..=20).contains(&most.expect("decided")), "{most:?}");
}

#[test]
fn without_data_there_are_never_fewer_but_there_may_be_more() {
    let lost: [(&str, Change); 3] = [
        ("a router", |world| world.sample.expected_routers = 2),
        ("all routers", |world| world.sample.routers.clear()),
        ("more than half of the pods", |world| {
            world.sample.pods.truncate(1);
            world.obeys = false;
        }),
    ];
    for (name, lose) in lost {
        let mut world = World::new(carrying(1, 60, 50.0), 6);
        world.run(290.0, 400);
        let before = world.look(290.0).replicas;
        world.obeys = false;
        lose(&mut world);
        let after = world.run(10.0, 1_200);
        assert_eq!(after.replicas, before, "{name}");
        // Without any router the demand is what it last was.
        if !world.sample.routers.is_empty() {
            let sentence = after.reason.to_string();
            assert!(
                sentence.contains("while data is missing"),
                "{name}: {sentence}"
            );
            let more = world.run(900.0, 60).replicas;
            assert!(more >= 18, "{name}: {more}");
        }
    }
}

#[test]
fn after_a_gap_in_the_data_the_window_begins_anew() {
    let mut world = World::new(carrying(1, 60, 50.0), 6);
    world.run(290.0, 400);
    let before = world.look(290.0).replicas;
    world.sample.expected_routers = 2;
    world.run(10.0, 600);
    world.sample.expected_routers = 1;
    assert_eq!(world.run(10.0, 296).replicas, before);
    assert!(world.run(10.0, 60).replicas < before);
}

#[test]
fn a_router_that_was_away_brings_no_burst() {
    let mut world = World::new(carrying(1, 60, 50.0), 2);
    world.run(80.0, 400);
    let router = world.sample.routers.remove(0);
    world.sample.routers.clear();
    world.run(80.0, 60);
    world.sample.routers.push(router);
    world.sample.routers[0].counts.arrivals += 60 * 80;
    let most = (0..30).map(|_| world.look(80.0).replicas).max();
    assert!(most <= Some(3), "{most:?}");
}

#[test]
fn a_restart_of_the_operator_takes_nothing_away() {
    let mut world = World::new(config(1, 60), 6);
    world.run(300.0, 400);
    let before = world.look(300.0);
    let kept = *world.state.kept();
    let text = serde_json::to_string(&kept).expect("JSON");
    let kept = serde_json::from_str(&text).expect("what was kept");
    world.state = State::resume(kept, at(world.second));
    world.sample.replicas.wanted = 1;
    let after = world.look(10.0);
    assert_eq!(after.replicas, before.replicas);
    assert_eq!(after.figures.capacity, before.figures.capacity);
    assert_eq!(world.run(10.0, 296).replicas, before.replicas);
    assert!(world.run(10.0, 120).replicas < before.replicas);
}

#[test]
fn the_whole_state_can_be_written_down_and_stays_small() {
    let mut world = World::new(config(0, 60), 6);
    for n in 0..4_000 {
        world.look(f64::from(n % 300));
    }
    let text = serde_json::to_string(&world.state).expect("JSON");
    let read: State = serde_json::from_str(&text).expect("a state");
    let decided = world.look(500.0);
    let mut replayed = World::new(world.config, 1);
    replayed.state = read;
    replayed.sample = world.sample.clone();
    replayed.second = world.second;
    // The pods of the sample have followed the decision.
    replayed.sample.replicas.ready = decided.reason.from;
    assert_eq!(replayed.decide().replicas, decided.replicas);
    assert!(text.len() < 20_000, "{} bytes", text.len());
    let kept = serde_json::to_string(world.state.kept()).expect("JSON");
    assert!(kept.len() < 400, "{kept}");
}

#[test]
fn of_several_targets_the_one_that_needs_the_most_wins_and_is_named() {
    let mut config = carrying(1, 60, 100.0);
    config.targets =
        Targets::new(Some(p95(50)), Some(count(8)), PerSecond::new(200.0)).expect("targets");
    let cases = [
        (
            170.0,
            4,
            "2: 170 rps needs 2 at p95 ≤ 50 ms (1 replica carries 100 rps, measured)",
        ),
        (170.0, 57, "8: 57 in flight needs 8 at 8 each"),
    ];
    for (rate, in_flight, sentence) in cases {
        let mut world = World::new(config, 1);
        world.sample.routers[0].in_flight = in_flight;
        assert_eq!(world.run(rate, 800).reason.to_string(), sentence);
    }
    config.targets = Targets::new(None, None, PerSecond::new(200.0)).expect("a target");
    let mut world = World::new(config, 1);
    assert_eq!(
        world.run(512.0, 800).reason.to_string(),
        "3: 512 rps needs 3 at 200 each"
    );
    assert_eq!(Targets::new(None, None, None), None);
    assert_eq!(Targets::new(None, None, PerSecond::new(0.0)), None);
}

#[test]
fn an_objective_below_the_service_time_is_a_condition_and_not_the_maximum() {
    let mut world = World::new(config(1, 60), 1);
    world.service = vec![(1.0, 70)];
    world.slower = 1.0;
    let decision = world.run(20.0, 1_200);
    assert_eq!(decision.replicas, 3, "{}", decision.reason);
    assert_eq!(words(&decision.conditions), ["SLOUnattainable"]);
    assert_eq!(
        decision.conditions[0].to_string(),
        "p95 ≤ 50 ms cannot be kept by any number of replicas: the p95 of the service time alone is 71 ms"
    );
}

#[test]
fn on_the_cliff_the_number_of_replicas_does_not_run_away() {
    let mut world = World::new(config(1, 60), 1);
    world.service = vec![(0.953, 10), (0.047, 70)];
    world.slower = 0.05;
    let decision = world.run(200.0, 1_200);
    assert!((4..=10).contains(&decision.replicas), "{}", decision.reason);
    assert_eq!(words(&decision.conditions), ["SLONearFloor"]);
}

#[test]
fn violations_near_the_predicted_load_lower_what_is_expected_of_a_replica() {
    let mut world = World::new(config(1, 60), 4);
    world.run(240.0, 120);
    let before = world.look(240.0);
    world.slower = 0.3;
    let after = world.run(240.0, 300);
    assert!(after.figures.correction < before.figures.correction);
    assert!(after.replicas > before.replicas, "{}", after.reason);
    assert!(after.figures.correction >= 0.4);
}

#[test]
fn pods_that_no_node_takes_do_not_become_more() {
    let mut world = World::new(carrying(1, 60, 50.0), 4);
    world.obeys = false;
    world.sample.replicas.unschedulable = Some(Unschedulable {
        since: at(0),
        scheduled: 4,
    });
    assert!(world.run(1_000.0, 118).replicas >= 20);
    let decision = world.run(1_000.0, 10);
    assert_eq!(decision.replicas, 5);
    assert!(
        decision
            .reason
            .to_string()
            .ends_with(", nodes take no more than 4"),
        "{}",
        decision.reason
    );
    assert_eq!(words(&decision.conditions), ["CapacityConstrained"]);
    world.sample.replicas.unschedulable = None;
    assert!(world.run(1_000.0, 4).replicas >= 20);
}

#[test]
fn the_bounds_are_kept_and_named() {
    let mut world = World::new(carrying(2, 5, 50.0), 2);
    let decision = world.run(1_000.0, 60);
    assert_eq!(decision.replicas, 5);
    assert_eq!(words(&decision.conditions), ["CapacityConstrained"]);
    let sentence = decision.reason.to_string();
    assert!(sentence.ends_with(", maxReplicas is 5"), "{sentence}");
    let decision = world.run(1.0, 1_200);
    assert_eq!(decision.replicas, 2, "{}", decision.reason);
    world.config = carrying(1, 1, 50.0);
    assert_eq!(world.look(1.0).replicas, 1);
    world.config = carrying(3, 4, 50.0);
    let decision = world.look(1.0);
    assert_eq!(decision.replicas, 3);
    let sentence = decision.reason.to_string();
    assert!(sentence.ends_with(", minReplicas is 3"), "{sentence}");
}

#[test]
fn bursts_that_the_replicas_would_not_carry_are_a_risk() {
    let mut world = World::new(carrying(1, 2, 50.0), 2);
    for n in 0..600 {
        world.look(if n % 30 < 3 { 400.0 } else { 40.0 });
    }
    let decision = world.look(40.0);
    assert_eq!(words(&decision.conditions), ["BurstRisk"]);
    let mut calm = World::new(carrying(1, 2, 50.0), 2);
    assert_eq!(calm.run(40.0, 1_300).conditions, []);
}

#[test]
fn batches_are_learned_from_sums() {
    let mut config = config(1, 20);
    config.server = Server::Batching {
        most: count(16),
        parallel: count(1),
    };
    let mut world = World::new(config, 1);
    // Batches of one of 10 ms: 1e-4 s a row more.
    let decision = world.run(100.0, 60);
    let capacity = decision.figures.capacity.expect("learned").get();
    assert!((1_150.0..1_200.0).contains(&capacity), "{capacity}");
    assert_eq!(decision.rest, Rest::Awake);
}

#[test]
fn cold_pods_teach_nothing() {
    let mut world = World::new(config(1, 20), 1);
    assert_eq!(world.run(100.0, 28).figures.capacity, None);
    assert!(world.run(100.0, 4).figures.capacity.is_some());
    // A pod that is slow while it is cold.
    world.obeys = false;
    world.scale(2);
    world.sample.pods[1].counts.service = super::world::histogram(&[(400, 150)]);
    world.decide();
    world.sample.pods[1].counts.service = super::world::histogram(&[(400, 190)]);
    let capacity = world.look(0.0).figures.capacity.expect("learned").get();
    assert!((65.0..68.0).contains(&capacity), "{capacity}");
}
