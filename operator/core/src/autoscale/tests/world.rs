//! A revision as the tests see it: samples by the second, with exact numbers and no chance.

use std::{num::NonZeroU32, time::Duration};

use jiff::Timestamp;

use crate::autoscale::{
    Config, Decision, PerSecond, Percentile, Sample, State,
    batching::Batches,
    config::{Behavior, Bounds, Latency, Server, Targets},
    decide,
    histogram::{Bucket, Histogram},
    sample::{Pod, Replicas, Requests, Router, Work},
};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

pub fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("above nothing")
}

pub fn p95(ms: u64) -> Latency {
    Latency {
        percentile: Percentile::new(95.0).expect("a percentile"),
        objective: Duration::from_millis(ms),
    }
}

/// p95 ≤ 50 ms of one execution at a time; between `min` and `max`.
pub fn config(min: u32, max: u32) -> Config {
    Config {
        bounds: Bounds::new(min, count(max)).expect("bounds"),
        targets: Targets::latency_only(p95(50)),
        server: Server::Slots { parallel: count(1) },
        behavior: Behavior::default(),
        idle: None,
        measured: None,
    }
}

/// The same, and one replica carries so much.
pub fn carrying(min: u32, max: u32, rate: f64) -> Config {
    Config {
        measured: PerSecond::new(rate),
        ..config(min, max)
    }
}

/// A revision, a router, and pods that are ready at once.
pub struct World {
    pub config: Config,
    pub state: State,
    pub sample: Sample,
    pub second: i64,
    /// Whether the pods follow what is decided.
    pub obeys: bool,
    /// Shares of requests by their service time in ms.
    pub service: Vec<(f64, u64)>,
    /// The share of requests over the objective: by default enough to leave the correction alone.
    pub slower: f64,
}

impl World {
    pub fn new(config: Config, replicas: u32) -> Self {
        let router = Router {
            name: "router-a".into(),
            started: at(-1_000),
            counts: Requests::default(),
            in_flight: 0,
            held: 0,
        };
        let mut world = Self {
            config,
            state: State::new(at(0)),
            sample: Sample {
                routers: vec![router],
                expected_routers: 1,
                pods: Vec::new(),
                replicas: Replicas {
                    wanted: replicas,
                    ready: 0,
                    unschedulable: None,
                },
                start_up: Some(Duration::from_secs(5)),
                rollout: false,
            },
            second: 0,
            obeys: true,
            service: vec![(1.0, 10)],
            slower: 0.03,
        };
        world.scale(replicas);
        world
    }

    /// So many pods are ready.
    pub fn scale(&mut self, replicas: u32) {
        self.sample.replicas.ready = replicas;
        self.sample.pods.truncate(replicas as usize);
        for n in self.sample.pods.len()..replicas as usize {
            self.sample.pods.push(Pod {
                name: format!("pod-{n}"),
                started: at(self.second),
                ready_since: at(self.second),
                counts: Work::default(),
            });
        }
    }

    /// Two seconds at this rate.
    pub fn look(&mut self, rate: f64) -> Decision {
        self.second += 2;
        let requests = (2.0 * rate).round() as u64;
        if let Some(router) = self.sample.routers.first_mut() {
            router.counts.arrivals += requests;
            let slow = (requests as f64 * self.slower).round() as u64;
            let ms = Duration::from_millis;
            let latency = &mut router.counts.latency;
            latency.count(Bucket::new(ms(9), Some(ms(11))), requests - slow);
            latency.count(Bucket::new(ms(90), Some(ms(110))), slow);
        }
        let pods = self.sample.pods.len().max(1) as u64;
        for pod in &mut self.sample.pods {
            for (share, ms) in &self.service {
                let each = (share * (requests / pods) as f64).round() as u64;
                add(&mut pod.counts, each, *ms);
            }
        }
        self.decide()
    }

    /// Decides upon the sample as it is.
    pub fn decide(&mut self) -> Decision {
        let (state, decision) = decide(
            &self.config,
            self.state.clone(),
            &self.sample,
            at(self.second),
        );
        self.state = state;
        if self.obeys {
            self.scale(decision.replicas);
        }
        decision
    }

    /// So many seconds at this rate; the last decision.
    pub fn run(&mut self, rate: f64, seconds: i64) -> Decision {
        let until = self.second + seconds;
        loop {
            let decision = self.look(rate);
            if self.second >= until {
                return decision;
            }
        }
    }
}

fn add(work: &mut Work, requests: u64, ms: u64) {
    let around = Bucket::new(
        Duration::from_millis(ms - 1),
        Some(Duration::from_millis(ms + 1)),
    );
    work.service.count(around, requests);
    let mut one = Batches::default();
    one.count(1, ms as f64 / 1e3);
    let n = requests as f64;
    work.batches += &Batches {
        batches: requests,
        rows: requests,
        rows_squared: n,
        seconds: n * one.seconds,
        row_seconds: n * one.row_seconds,
    };
}

/// A histogram with so many times of about so many ms.
pub fn histogram(times: &[(u64, u64)]) -> Histogram {
    let mut work = Work::default();
    for (ms, requests) in times {
        add(&mut work, *requests, *ms);
    }
    work.service
}
