//! To zero and back.

use std::time::Duration;

use super::world::{World, at, carrying, config};
use crate::autoscale::{State, rest::Rest};

fn sleeper() -> World {
    let mut config = carrying(0, 20, 50.0);
    config.idle = Some(Duration::from_secs(120));
    let mut world = World::new(config, 1);
    world.run(10.0, 20);
    world
}

/// What is done to a world.
type Change = fn(&mut World);

#[test]
fn after_the_idle_time_and_a_grace_nothing_runs() {
    let mut world = sleeper();
    assert_eq!(world.run(0.0, 120).rest, Rest::Awake);
    let sealed = world.run(0.0, 2);
    assert!(matches!(sealed.rest, Rest::Sealed { .. }));
    assert_eq!(sealed.replicas, 1);
    assert_eq!(world.run(0.0, 28).replicas, 1);
    let asleep = world.run(0.0, 2);
    assert_eq!((asleep.replicas, asleep.rest), (0, Rest::Asleep));
    assert_eq!(asleep.reason.to_string(), "1 → 0: nobody asks anything");
    assert_eq!(world.run(0.0, 3_600).replicas, 0);
}

#[test]
fn a_held_request_wakes_it_at_once_with_as_many_as_wait() {
    for (held, replicas, sentence) in [
        (1, 1, "0 → 1: 1 request waits"),
        (200, 1, "0 → 1: 200 requests wait"),
        (1_300, 3, "0 → 3: 1300 requests wait"),
        (99_999, 20, "0 → 20: 99999 requests wait, maxReplicas is 20"),
    ] {
        let mut world = sleeper();
        world.run(0.0, 200);
        world.sample.routers[0].held = held;
        world.sample.routers[0].counts.arrivals += held;
        // No two seconds have to pass: the routers send a frame at once.
        let woken = world.decide();
        assert_eq!(woken.replicas, replicas);
        assert_eq!(woken.reason.to_string(), sentence);
        assert_eq!(woken.rest, Rest::Awake);
        world.sample.routers[0].held = 0;
        assert!(world.run(0.0, 100).replicas >= replicas);
    }
}

#[test]
fn before_anything_is_learned_those_that_wait_count() {
    let mut config = config(0, 20);
    config.idle = Some(Duration::from_secs(120));
    let mut world = World::new(config, 0);
    world.run(0.0, 200);
    world.sample.routers[0].held = 7;
    assert_eq!(world.decide().replicas, 10);
}

#[test]
fn a_request_in_the_grace_breaks_the_seal() {
    let mut world = sleeper();
    let sealed = world.run(0.0, 130);
    assert!(matches!(sealed.rest, Rest::Sealed { .. }));
    world.sample.routers[0].held = 1;
    let broken = world.decide();
    assert_eq!((broken.rest, broken.replicas), (Rest::Awake, 1));
}

#[test]
fn it_does_not_sleep_without_data_in_a_rollout_or_with_something_in_flight() {
    let kept_awake: [(&str, Change); 4] = [
        ("a router is silent", |w| w.sample.expected_routers = 2),
        ("no pod reports", |w| {
            w.sample.pods.clear();
            w.obeys = false;
        }),
        ("a rollout", |w| w.sample.rollout = true),
        ("in flight", |w| w.sample.routers[0].in_flight = 1),
    ];
    for (name, keep) in kept_awake {
        let mut world = sleeper();
        keep(&mut world);
        let decision = world.run(0.0, 900);
        assert_eq!(
            (decision.rest, decision.replicas),
            (Rest::Awake, 1),
            "{name}"
        );
    }
}

#[test]
fn a_restart_of_the_operator_wakes_nobody() {
    let mut world = sleeper();
    world.run(0.0, 200);
    world.state = State::resume(*world.state.kept(), at(world.second));
    assert_eq!(world.run(0.0, 60).replicas, 0);
    world.sample.routers[0].held = 1;
    assert_eq!(world.decide().replicas, 1);
}

#[test]
fn a_higher_minimum_wakes_it() {
    let mut world = sleeper();
    world.run(0.0, 200);
    world.config = carrying(2, 20, 50.0);
    assert_eq!(world.look(0.0).replicas, 2);
}
