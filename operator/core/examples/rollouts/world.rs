//! A world of requests, one second at a time: how many each side gets, and which of them are bad.

use std::collections::VecDeque;

use rand_distr::{Binomial, Distribution as _, Poisson};
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};

/// Requests of one pod at its load, per second: how many pods a side has.
const PER_POD: f64 = 25.0;
/// The share of requests slower than the objective, on a healthy revision.
const SLOWER_THAN_SLO: f64 = 0.005;
/// The share slower than the stable revision's 95th percentile, by its meaning.
const SLOWER_THAN_STABLE: f64 = 0.05;
/// How long a request of an outage hangs until it ends as a timeout, in seconds.
const TIMEOUT: usize = 10;

/// What goes wrong beside the steady share of errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// For so many seconds, the node of one of the candidate's pods is slow: three of ten requests
    /// there pass both edges.
    SlowNode { seconds: u32 },
    /// For so many seconds three of ten requests of both sides time out; in the middle of it the
    /// candidate's weight is raised to this.
    OutageAcrossStep { seconds: u32, weight: f64 },
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Requests a second, of both sides together.
    pub rate: f64,
    /// The candidate's share of them, 0 to 1.
    pub weight: f64,
    /// The stable revision's share of errors.
    pub errors: f64,
    /// How many errors come in a row.
    pub burst: u64,
    /// How many times as many errors the candidate makes.
    pub worse: f64,
    /// How many times as many slow requests it has.
    pub slower: f64,
    /// What else goes wrong.
    pub fault: Fault,
    /// For how many seconds it is looked at.
    pub seconds: u32,
}

/// Requests that ended in a second, of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub requests: u64,
    pub errors: u64,
    pub slower_than_slo: u64,
    pub slower_than_stable: u64,
}

impl Ended {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.slower_than_slo += other.slower_than_slo;
        self.slower_than_stable += other.slower_than_stable;
    }
}

/// What ended in a second under one generation of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub candidate: Ended,
    pub stable: Ended,
}

pub struct World {
    scenario: Scenario,
    random: Pcg64Mcg,
    /// What is left of the candidate's next request: the split is exact, not drawn.
    owed: f64,
    /// Errors of bursts that have begun, of the candidate and the stable revision.
    pending: [u64; 2],
    /// When the fault begins.
    begins: u32,
    /// Requests that hang, by the second in which they time out, and whether they arrived after the
    /// weight was raised.
    hanging: VecDeque<[Second; 2]>,
    second: u32,
}

impl World {
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        // Not in a fixed place of the blocks, and over before the end.
        let begins = scenario.seconds / 3 + drawn(&mut random, 60, 0.5) as u32;
        Self {
            scenario,
            random,
            owed: 0.0,
            pending: [0; 2],
            begins,
            hanging: vec![Default::default(); TIMEOUT].into(),
            second: 0,
        }
    }

    /// What the stable revision did in the ten minutes before it lost its traffic.
    pub fn history(scenario: Scenario, seed: u64) -> Ended {
        let calm = Scenario {
            weight: 0.0,
            fault: Fault::None,
            ..scenario
        };
        let mut world = Self::new(calm, !seed);
        let mut ended = Ended::default();
        for _ in 0..600 {
            ended.add(world.next()[0].stable);
        }
        ended
    }

    /// Whether the weight was raised by now.
    pub fn raised(&self) -> bool {
        match self.scenario.fault {
            Fault::OutageAcrossStep { seconds, .. } => self.second >= self.begins + seconds / 2,
            _ => false,
        }
    }

    /// The next second: what ended of requests that arrived before and after the weight was raised.
    pub fn next(&mut self) -> [Second; 2] {
        let mut ended = self.hanging.pop_front().unwrap_or_default();
        let mut hang = <[Second; 2]>::default();
        let after = usize::from(self.raised());
        let outage = self.outage();
        let weight = match self.scenario.fault {
            Fault::OutageAcrossStep { weight, .. } if self.raised() => weight,
            _ => self.scenario.weight,
        };
        let arrivals = Poisson::new(self.scenario.rate)
            .map(|poisson| poisson.sample(&mut self.random))
            .unwrap_or(0.0);
        let owed = self.owed + arrivals * weight;
        self.owed = owed.fract();
        let requests = [
            owed.floor() as u64,
            (arrivals - owed.floor()).max(0.0) as u64,
        ];
        for (side, requests) in requests.into_iter().enumerate() {
            let lost = drawn(&mut self.random, requests, outage);
            let made = self.made(side, requests - lost, weight);
            let hangs = Ended {
                requests: lost,
                errors: lost,
                slower_than_slo: lost,
                slower_than_stable: lost,
            };
            for (second, what) in [(&mut ended[after], made), (&mut hang[after], hangs)] {
                let of = match side {
                    0 => &mut second.candidate,
                    _ => &mut second.stable,
                };
                of.add(what);
            }
        }
        self.hanging.push_back(hang);
        self.second += 1;
        ended
    }

    fn during(&self, seconds: u32) -> bool {
        (self.begins..self.begins + seconds).contains(&self.second)
    }

    fn outage(&self) -> f64 {
        match self.scenario.fault {
            Fault::OutageAcrossStep { seconds, .. } if self.during(seconds) => 0.3,
            _ => 0.0,
        }
    }

    fn made(&mut self, side: usize, requests: u64, weight: f64) -> Ended {
        let s = self.scenario;
        let (worse, slower) = match side {
            0 => (s.worse, s.slower),
            _ => (1.0, 1.0),
        };
        let begun = drawn(
            &mut self.random,
            requests,
            s.errors * worse / s.burst as f64,
        );
        self.pending[side] += begun * s.burst;
        let errors = self.pending[side].min(requests);
        self.pending[side] -= errors;
        let node = match s.fault {
            Fault::SlowNode { seconds } if side == 0 && self.during(seconds) => {
                0.3 / (s.rate * weight / PER_POD).ceil().max(1.0)
            }
            _ => 0.0,
        };
        let slow = |share: f64| (share * slower + node).min(1.0);
        let slower_than_stable = drawn(&mut self.random, requests, slow(SLOWER_THAN_STABLE));
        // Who passes the far edge passed the near one.
        let both = slow(SLOWER_THAN_SLO) / slow(SLOWER_THAN_STABLE);
        Ended {
            requests,
            errors,
            slower_than_slo: drawn(&mut self.random, slower_than_stable, both),
            slower_than_stable,
        }
    }
}

fn drawn(random: &mut Pcg64Mcg, of: u64, chance: f64) -> u64 {
    if of == 0 || chance <= 0.0 {
        return 0;
    }
    Binomial::new(of, chance.min(1.0)).map_or(0, |binomial| binomial.sample(random))
}
