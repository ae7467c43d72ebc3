//! Ours: the operator's own `decide`, fed as the operator feeds it.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use ortolan_core::{
    Timestamp,
    autoscale::{
        Config, Percentile, Sample, State,
        config::{Behavior, Bounds, Latency, Server, Targets},
        decide,
        histogram::Histogram,
        sample::{Pod, Replicas, Requests, Router, Unschedulable, Work},
    },
};
use rand_distr::{Distribution as _, Uniform};
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};

use super::{
    rules::{MOST, Rule},
    world::{self, Kind, OBJECTIVE, World},
};

/// How often pods are scraped, and how old a scrape may be, in seconds.
const SCRAPED: f64 = 5.0;
const STALE: f64 = 15.0;

pub struct Ours {
    config: Config,
    state: Option<State>,
    /// By the pod: when it was scraped, and when the next one is due.
    scraped: BTreeMap<u32, (f64, f64, Pod)>,
    unschedulable: Option<f64>,
    random: Pcg64Mcg,
    /// The last sentence.
    pub said: String,
}

fn at(second: f64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + (second * 1e3).round() as i64)
        .expect("a time of our days")
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("above nothing")
}

pub fn latency() -> Latency {
    Latency {
        percentile: Percentile::new(95.0).expect("a percentile"),
        objective: Duration::from_secs_f64(OBJECTIVE),
    }
}

pub fn server(kind: Kind) -> Server {
    match kind {
        Kind::Slots { parallel, .. } => Server::Slots {
            parallel: count(parallel),
        },
        Kind::Batch { most, .. } => Server::Batching {
            most: count(most),
            parallel: count(1),
        },
    }
}

fn histogram(counts: &[u64]) -> Histogram {
    let some = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    Histogram::of_router(&some.map(|(at, count)| (at as u16, *count)).collect())
}

impl Ours {
    pub fn new(kind: Kind, seed: u64) -> Self {
        Self {
            config: Config {
                bounds: Bounds::new(1, count(MOST)).expect("bounds"),
                targets: Targets::latency_only(latency()),
                server: server(kind),
                behavior: Behavior::default(),
                idle: None,
                measured: None,
            },
            state: None,
            scraped: BTreeMap::new(),
            unschedulable: None,
            random: Pcg64Mcg::seed_from_u64(!seed),
            said: String::new(),
        }
    }

    fn scrape(&mut self, world: &World) -> Vec<Pod> {
        let chance = Uniform::new(0.0, 1.0).expect("a range");
        self.scraped.retain(|name, _| {
            world
                .pods
                .iter()
                .any(|pod| pod.name == *name && pod.serves())
        });
        for pod in world.pods.iter().filter(|pod| pod.serves()) {
            let due = self.scraped.get(&pod.name).map_or(0.0, |(_, due, _)| *due);
            let lost = chance.sample(&mut self.random) < world.scenario.faults.lost_scrapes;
            if world.now < due {
                continue;
            }
            if let Some((_, due, _)) = self.scraped.get_mut(&pod.name) {
                *due = world.now + SCRAPED;
            }
            if !lost {
                let read = Self::read(pod);
                self.scraped
                    .insert(pod.name, (world.now, world.now + SCRAPED, read));
            }
        }
        let fresh = self
            .scraped
            .values()
            .filter(|(read, ..)| world.now - read <= STALE);
        fresh.map(|(.., pod)| pod.clone()).collect()
    }

    fn read(pod: &world::Pod) -> Pod {
        Pod {
            name: pod.name.to_string(),
            started: at(pod.started),
            ready_since: at(pod.ready.unwrap_or(pod.created)),
            counts: Work {
                service: histogram(&pod.service),
                batches: pod.batches,
            },
        }
    }

    fn sample(&mut self, world: &World) -> Sample {
        let waiting = world.wanted() > world.replicas();
        self.unschedulable = match waiting {
            true => self.unschedulable.or(Some(world.now)),
            false => None,
        };
        Sample {
            routers: vec![Router {
                name: "router".into(),
                started: at(world.router_started),
                counts: Requests {
                    arrivals: world.arrivals,
                    latency: histogram(&world.latency),
                },
                in_flight: world.in_flight(),
                held: world.held.len() as u64,
            }],
            expected_routers: 1,
            pods: self.scrape(world),
            replicas: Replicas {
                wanted: world.wanted(),
                ready: world.ready(),
                unschedulable: self.unschedulable.map(|since| Unschedulable {
                    since: at(since),
                    scheduled: world.replicas(),
                }),
            },
            start_up: Some(Duration::from_secs_f64(1.1 * world.scenario.start_up)),
            rollout: false,
        }
    }
}

impl Rule for Ours {
    fn look(&mut self, world: &World) -> Option<u32> {
        if !(world.now.round() as u32).is_multiple_of(2) {
            return None;
        }
        let now = at(world.now);
        let sample = self.sample(world);
        let state = self.state.take().unwrap_or_else(|| State::new(now));
        let (state, decision) = decide(&self.config, state, &sample, now);
        self.state = Some(state);
        self.said = decision.reason.to_string();
        Some(decision.replicas)
    }
}
