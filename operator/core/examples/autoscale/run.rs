//! One run of a scenario under a rule, and many of them.

use std::collections::VecDeque;

use ortolan_core::autoscale::{
    batching::Line,
    histogram::{Bucket, Histogram},
    slots::{self, Service},
};
use rand_distr::{Distribution as _, LogNormal};
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};

use super::{
    ours::{Ours, latency},
    rules::{Hpa, Kpa, MOST, Metric, Naive, Oracle, Rule, Static},
    source::WARM_UP,
    world::{Kind, Scenario, World},
};

/// The rules, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Ours,
    Naive,
    HpaP95,
    HpaConcurrency,
    Kpa,
    StaticMean,
    StaticPeak,
    Oracle,
}

pub const ALL: [Name; 8] = [
    Name::Ours,
    Name::Naive,
    Name::HpaP95,
    Name::HpaConcurrency,
    Name::Kpa,
    Name::StaticMean,
    Name::StaticPeak,
    Name::Oracle,
];

impl Name {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ours => "Ortolan",
            Self::Naive => "ratio",
            Self::HpaP95 => "HPA on p95",
            Self::HpaConcurrency => "HPA on concurrency",
            Self::Kpa => "KPA",
            Self::StaticMean => "static, mean",
            Self::StaticPeak => "static, peak",
            Self::Oracle => "oracle",
        }
    }

    fn rule(self, scenario: &Scenario, seed: u64) -> Box<dyn Rule> {
        let capacity = capacity(scenario.kind);
        let end = WARM_UP + f64::from(scenario.seconds);
        let replicas = |rate: f64| ((rate / capacity).ceil() as u32).clamp(1, MOST);
        match self {
            Self::Ours => Box::new(Ours::new(scenario.kind, seed)),
            Self::Naive => Box::new(Naive),
            Self::HpaP95 => Box::new(Hpa::new(Metric::P95)),
            Self::HpaConcurrency => Box::new(Hpa::new(Metric::Concurrency)),
            Self::Kpa => Box::new(Kpa::default()),
            Self::StaticMean => {
                let rates = (0..scenario.seconds)
                    .map(|second| scenario.source.rate(WARM_UP + f64::from(second)));
                let mean = rates.sum::<f64>() / f64::from(scenario.seconds);
                Box::new(Static(replicas(mean)))
            }
            Self::StaticPeak => Box::new(Static(replicas(scenario.source.most(WARM_UP, end)))),
            Self::Oracle => Box::new(Oracle { capacity }),
        }
    }
}

/// What a replica carries, by the model and the true service times; 0.7 of the executions where the objective is below
/// them.
pub fn capacity(kind: Kind) -> f64 {
    match kind {
        Kind::Slots {
            parallel,
            mean,
            cv2,
        } => {
            let sigma2 = (1.0 + cv2).ln();
            let times = LogNormal::new(mean.ln() - 0.5 * sigma2, sigma2.sqrt()).expect("times");
            let mut random = Pcg64Mcg::seed_from_u64(1);
            let mut histogram = Histogram::default();
            for _ in 0..20_000 {
                let micros = std::time::Duration::from_micros;
                let from = (times.sample(&mut random) * 1e6) as u64 / 200 * 200;
                histogram.count(Bucket::new(micros(from), Some(micros(from + 200))), 1);
            }
            let service = Service::of(&histogram).expect("times");
            let parallel = std::num::NonZeroU32::new(parallel).expect("above nothing");
            let latency = latency();
            let rate = slots::capacity(
                &service,
                parallel,
                latency.objective,
                latency.percentile.budget(),
            );
            rate.map_or(0.7 * service.saturation(parallel), |rate| rate.get())
        }
        Kind::Batch { most, alpha, beta } => {
            let most = std::num::NonZeroU32::new(most).expect("above nothing");
            let line = Line::of(alpha, beta).expect("a line");
            let latency = latency();
            let rate = line.capacity(most, latency.objective, latency.percentile);
            rate.map_or(0.7 * line.saturation(most), |rate| rate.get())
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Requests over the objective, in per cent.
    pub violations: f64,
    /// Replicas on average, those that start included.
    pub replicas: f64,
    /// From the change of the rate to the first step up, in seconds.
    pub detect: Option<f64>,
    /// From the change to the end of the last ten seconds, within five minutes, in which too many violated.
    pub recover: Option<f64>,
    /// Changes of the direction, each hour.
    pub reversals: f64,
    /// The most that was wanted.
    pub most: u32,
    /// By the second: rate, replicas.
    pub course: Vec<(f64, u32)>,
}

/// Runs a scenario under a rule.
pub fn once(scenario: Scenario, name: Name, seed: u64) -> Outcome {
    let mut rule = name.rule(&scenario, seed);
    let first = scenario.source.rate(0.0) / capacity(scenario.kind);
    let mut world = World::new(scenario, (first.ceil() as u32).clamp(1, MOST), seed);
    let mut outcome = Outcome::default();
    let (mut requests, mut slower) = (0, 0);
    let mut wanted = world.wanted();
    let mut direction = 0_i32;
    let mut turns = 0;
    let mut recent: VecDeque<(u64, u64)> = VecDeque::new();
    let change = scenario.source.change();
    let mut before = None;
    for second in 0..(WARM_UP as u32 + scenario.seconds) {
        world.advance();
        let now = f64::from(second + 1);
        let next = rule.look(&world).unwrap_or(wanted);
        if next != wanted {
            world.scale(next);
        }
        if let Some(change) = change {
            if now <= change {
                before = Some(next);
            } else if outcome.detect.is_none() && before.is_some_and(|before| next > before) {
                outcome.detect = Some(now - change);
            }
        }
        let last = world.minute.back().cloned().unwrap_or_default();
        recent.push_back((last.ended, last.slower));
        if recent.len() > 10 {
            recent.pop_front();
        }
        if let Some(change) = change.filter(|change| now > *change && now <= change + 300.0) {
            let (ended, slow) = recent
                .iter()
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let recover = outcome.recover.get_or_insert(0.0);
            if slow as f64 > 0.05 * ended as f64 {
                *recover = now - change;
            }
        }
        if now > WARM_UP {
            requests += last.ended;
            slower += last.slower;
            outcome.replicas += f64::from(world.replicas());
            outcome.most = outcome.most.max(next);
            let way = (next as i32 - wanted as i32).signum();
            turns += u32::from(way != 0 && direction != 0 && way != direction);
            outcome.course.push((scenario.source.rate(now), next));
        }
        if next != wanted {
            direction = (next as i32 - wanted as i32).signum();
        }
        wanted = next;
    }
    // What still waits would violate.
    let late = world.held.len() as u64;
    outcome.violations = 100.0 * (slower + late) as f64 / (requests + late).max(1) as f64;
    outcome.replicas /= f64::from(scenario.seconds);
    outcome.reversals = f64::from(turns) * 3_600.0 / f64::from(scenario.seconds);
    outcome
}

/// Runs a scenario so many times, on every core.
pub fn many(scenario: Scenario, name: Name, runs: u64) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let of = |thread: u64| {
        let seeds = (thread..runs).step_by(threads as usize);
        seeds
            .map(move |seed| (seed, once(scenario, name, seed)))
            .collect::<Vec<_>>()
    };
    let mut all = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || of(thread)))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("a run does not panic"))
            .collect::<Vec<_>>()
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Student's 97.5th percentile by the degrees of freedom, from one to nine.
const STUDENT: [f64; 9] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
];

/// A mean, half of its 95 % confidence interval, and the standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    pub mean: f64,
    pub half: f64,
    pub deviation: f64,
}

impl Mean {
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / n)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (n - 1.0).max(1.0)).sqrt();
        let t = values
            .len()
            .checked_sub(2)
            .map_or(0.0, |at| STUDENT.get(at).copied().unwrap_or(1.96));
        Some(Self {
            mean,
            half: t * deviation / n.sqrt(),
            deviation,
        })
    }
}
