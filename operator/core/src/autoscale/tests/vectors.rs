//! The vectors of the capacity of parallel executions, and what is learned at its edges.

use std::{num::NonZeroU32, time::Duration};

use crate::autoscale::{
    PerSecond, Percentile,
    capacity::{Learned, Limit, learn},
    config::{Latency, Server},
    histogram::{Bucket, Histogram},
    sample::Work,
    slots::{Service, capacity, erlang_c},
};

const OBJECTIVE: Duration = Duration::from_millis(50);

fn slots(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("above nothing")
}

#[test]
fn erlang_c_is_as_in_the_tables() {
    for (servers, load, expected) in [
        (1, 0.5, 0.5),
        (2, 1.0, 0.333_333),
        (4, 3.0, 0.509_434),
        (10, 8.0, 0.409_180),
        (20, 18.0, 0.550_769),
        (100, 90.0, 0.216_940),
    ] {
        let c = erlang_c(slots(servers), load);
        assert!((c - expected).abs() < 1e-6, "({servers}, {load}): {c}");
    }
    assert_eq!(erlang_c(slots(4), 4.0), 1.0);
    assert_eq!(erlang_c(slots(4), 1e9), 1.0);
}

fn tenths(rate: Option<PerSecond>) -> Option<f64> {
    rate.map(|rate| (rate.get() * 10.0).round() / 10.0)
}

#[test]
fn a_replica_of_so_many_slots_carries_this() {
    let table = [
        (0.0, [33.6, 97.4, 228.9, 494.2, 1026.5]),
        (1.0, [18.2, 74.1, 200.3, 461.8, 991.3]),
    ];
    for (cv2, rates) in table {
        let service = Service::constant(0.015, cv2).expect("a service time");
        for (count, expected) in [1, 2, 4, 8, 16].into_iter().zip(rates) {
            let rate = capacity(&service, slots(count), OBJECTIVE, 0.05);
            assert_eq!(tenths(rate), Some(expected), "{count} slots, cv² {cv2}");
        }
    }
    let slow = Service::constant(0.060, 0.0).expect("a service time");
    assert_eq!(capacity(&slow, slots(1), OBJECTIVE, 0.05), None);
}

#[test]
fn the_capacity_falls_off_a_cliff_as_slow_requests_near_the_budget() {
    for (slow, expected) in [(0.03, 20.5), (0.045, 6.4), (0.0495, 0.7)] {
        let shares = vec![(1.0 - slow, 0.010), (slow, 0.080)];
        let mean = 0.010 + slow * 0.070;
        let service = Service::new(shares, mean, 1.0).expect("service times");
        let rate = capacity(&service, slots(1), OBJECTIVE, 0.05);
        assert_eq!(tenths(rate), Some(expected), "{slow}");
    }
}

fn latency() -> Latency {
    Latency {
        percentile: Percentile::new(95.0).expect("a percentile"),
        objective: OBJECTIVE,
    }
}

/// So many requests of about 10 ms, and so many of about 70 ms.
fn work(fast: u64, slow: u64) -> Work {
    let ms = Duration::from_millis;
    let mut service = Histogram::default();
    service.count(Bucket::new(ms(9), Some(ms(11))), fast);
    service.count(Bucket::new(ms(66), Some(ms(74))), slow);
    Work {
        service,
        ..Work::default()
    }
}

fn learned(fast: u64, slow: u64, before: Option<&Learned>) -> Option<Learned> {
    let parallel = slots(1);
    learn(
        Server::Slots { parallel },
        latency(),
        &work(fast, slow),
        before,
    )
}

#[test]
fn nothing_is_learned_from_few_requests() {
    assert_eq!(learned(49, 0, None), None);
    assert!(learned(50, 0, None).is_some());
    assert_eq!(learned(0, 0, None), None);
}

#[test]
fn on_the_cliff_the_floor_holds_and_below_it_nothing_helps() {
    let limit = |learned: Option<Learned>| learned.expect("learned").limit;
    assert_eq!(limit(learned(1_000, 5, None)), None);
    let near = learned(952, 48, None).expect("learned");
    assert_eq!(near.limit, Some(Limit::NearFloor));
    // 0.3 of what a mean of 12.88 ms allows.
    assert!((near.rate.get() - 0.3 / 0.01288).abs() < 1e-6, "{near:?}");
    // Above the budget, but within the noise of a thousand.
    assert_eq!(limit(learned(945, 55, None)), Some(Limit::NearFloor));
    let floor = Duration::from_millis(74);
    let far = learned(900, 100, None).expect("learned");
    assert_eq!(far.limit, Some(Limit::Unattainable { floor }));
    assert!((far.rate.get() - 0.7 / 0.016).abs() < 1e-6, "{far:?}");
    // Once known, noise does not bring the other number of replicas back.
    let still = learned(945, 55, Some(&far)).expect("learned");
    assert!(matches!(still.limit, Some(Limit::Unattainable { .. })));
    assert_eq!(limit(learned(1_000, 5, Some(&far))), None);
}

#[test]
fn the_capacity_falls_steadily_as_slow_requests_become_more() {
    let mut before = f64::INFINITY;
    for slow in 0..=55 {
        let rate = learned(1_000 - slow, slow, None)
            .expect("learned")
            .rate
            .get();
        assert!(rate <= before + 1e-9, "{slow} slow: {rate} after {before}");
        before = rate;
    }
}
