//! What holds whatever comes.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::world::{World, at, carrying, config, count, histogram, p95};
use crate::autoscale::{
    Config, PerSecond, Sample, State,
    batching::Batches,
    config::{Server, Targets},
    decide,
    rest::Rest,
    sample::{Pod, Replicas, Requests, Router, Unschedulable, Work},
};

fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..2_000_u64, Just(u64::MAX), any::<u64>()]
}

fn wild() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        0.0..1e6,
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY)
    ]
}

prop_compose! {
    fn work()(
        counts in vec((prop_oneof![1..2_000_u64, Just(100_000_000)], extreme()), 0..4),
        batches in extreme(), rows in extreme(), sums in (wild(), wild(), wild()),
    ) -> Work {
        let (rows_squared, seconds, row_seconds) = sums;
        Work {
            service: histogram(&counts),
            batches: Batches { batches, rows, rows_squared, seconds, row_seconds },
        }
    }
}

prop_compose! {
    fn sample()(
        routers in vec((0..3_u8, 0..3_i64, extreme(), work(), extreme(), extreme()), 0..3),
        expected_routers in 0..4_u32,
        pods in vec((0..9_u8, 0..3_i64, -100..100_i64, work()), 0..9),
        replicas in (0..50_u32, 0..50_u32, proptest::option::of((0..9_999_i64, 0..50_u32))),
        start_up in proptest::option::of((0..u64::MAX).prop_map(Duration::from_micros)),
        rollout in any::<bool>(),
    ) -> Sample {
        let router = |(name, started, arrivals, work, in_flight, held): (u8, i64, u64, Work, u64, u64)| Router {
            name: name.to_string(),
            started: at(started),
            counts: Requests { arrivals, latency: work.service },
            in_flight,
            held,
        };
        let pod = |(name, started, ready, counts): (u8, i64, i64, Work)| Pod {
            name: name.to_string(),
            started: at(started),
            ready_since: at(ready),
            counts,
        };
        let (wanted, ready, waiting) = replicas;
        Sample {
            routers: routers.into_iter().map(router).collect(),
            expected_routers,
            pods: pods.into_iter().map(pod).collect(),
            replicas: Replicas {
                wanted,
                ready,
                unschedulable: waiting.map(|(since, scheduled)| Unschedulable { since: at(since), scheduled }),
            },
            start_up,
            rollout,
        }
    }
}

prop_compose! {
    fn any_config()(
        min in 0..5_u32, more in 0..40_u32, ms in 1..1_000_u64, slots in 1..64_u32,
        batching in any::<bool>(), idle in proptest::option::of(0..600_u64),
        measured in proptest::option::of(prop_oneof![Just(0.0), 1e-300..1e300]),
        concurrency in proptest::option::of(1..100_u32),
        rate in proptest::option::of(prop_oneof![Just(1e-300), 1e-3..1e9]),
    ) -> Config {
        let parallel = count(slots);
        Config {
            targets: Targets::new(
                Some(p95(ms)), concurrency.map(count), rate.and_then(PerSecond::new),
            ).expect("a target"),
            server: match batching {
                true => Server::Batching { most: parallel, parallel: count(1) },
                false => Server::Slots { parallel },
            },
            idle: idle.map(Duration::from_secs),
            measured: measured.and_then(PerSecond::new),
            ..config(min, (min + more).max(1))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_comes_the_bounds_are_kept_and_no_number_is_none(
        config in any_config(),
        looks in vec((sample(), -20..400_i64), 1..12),
    ) {
        let mut state = State::new(at(0));
        let mut second = 0;
        for (sample, step) in looks {
            second += step;
            let now = at(second);
            let (next, decision) = decide(&config, state.clone(), &sample, now);
            let again = decide(&config, state, &sample, now);
            prop_assert_eq!(&decision, &again.1);
            prop_assert_eq!(&next, &again.0);
            let text = serde_json::to_string(&next).expect("JSON");
            prop_assert!(serde_json::from_str::<State>(&text).is_ok(), "{}", text);
            let least = if decision.rest == Rest::Asleep { 0 } else { config.bounds.least() };
            prop_assert!((least..=config.bounds.most()).contains(&decision.replicas));
            if !config.bounds.may_sleep() || config.idle.is_none() {
                prop_assert!(decision.replicas > 0);
            }
            // Numbers that are none are written as null, and do not read back.
            let text = serde_json::to_string(&decision).expect("JSON");
            let read = serde_json::from_str::<crate::autoscale::Decision>(&text);
            prop_assert!(read.is_ok(), "{}: {:?}", text, read);
            prop_assert!(!decision.reason.to_string().contains("NaN"));
            state = next;
        }
    }
}

// Minutes and hours of looks.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn never_fewer_while_data_is_missing(
        looks in vec((0.0..2_000.0_f64, 0..3_usize, 0..2_u32), 1..200),
        replicas in 1..30_u32,
    ) {
        let mut world = World::new(carrying(1, 60, 40.0), replicas);
        world.run(replicas as f64 * 30.0, 400);
        let whole = world.sample.clone();
        for (rate, pods, routers) in looks {
            let before = world.state.kept().wish;
            world.obeys = false;
            world.sample.expected_routers = 1 + routers;
            let silent = routers > 0 || 2 * pods < world.sample.replicas.ready as usize;
            world.sample.pods = whole.pods.iter().take(pods).cloned().collect();
            let after = world.look(rate).replicas;
            if silent {
                prop_assert!(Some(after) >= before, "{:?} to {}", before, after);
            }
        }
    }

    #[test]
    fn the_same_look_twice_decides_the_same(
        rates in vec(0.0..2_000.0_f64, 1..60),
        replicas in 1..10_u32,
    ) {
        let mut world = World::new(config(1, 60), replicas);
        world.obeys = false;
        for rate in rates {
            let first = world.look(rate).replicas;
            let state = world.state.clone();
            prop_assert_eq!(world.decide().replicas, first);
            world.state = state;
        }
    }

    #[test]
    fn more_demand_never_needs_fewer(
        rates in vec(0.0..500.0_f64, 1..120),
        some in 0.0..1_000.0_f64,
        more in 0.0..1_000.0_f64,
        held in (0..1_000_u64, 0..1_000_u64),
    ) {
        let run = |rate: f64, held: u64| {
            let mut world = World::new(carrying(1, 1_000, 40.0), 1);
            for rate in &rates {
                world.look(*rate);
            }
            world.sample.routers[0].held = held;
            world.look(rate).replicas
        };
        let (fewer, many) = (run(some, held.0), run(some + more, held.0 + held.1));
        prop_assert!(many >= fewer, "{} and {}", fewer, many);
    }

    #[test]
    fn a_constant_load_settles_and_stays(rate in 1.0..2_000.0_f64, replicas in 1..60_u32) {
        let mut world = World::new(config(1, 60), replicas);
        world.run(rate, 1_500);
        let settled = world.look(rate).replicas;
        for _ in 0..900 {
            let now = world.look(rate).replicas;
            prop_assert!(now <= settled, "from {} to {}", settled, now);
        }
    }
}
