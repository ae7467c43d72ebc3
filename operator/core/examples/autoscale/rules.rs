//! The rules that are compared: ours, and others' by what is published of them.

use std::collections::VecDeque;

use ortolan_stats::latency;

use super::world::{Kind, OBJECTIVE, World};

/// The most replicas for every rule.
pub const MOST: u32 = 60;

/// Looks at the world each second; says so when there are to be so many replicas.
pub trait Rule {
    fn look(&mut self, world: &World) -> Option<u32>;
}

/// Executions of a pod at a time.
pub fn at_once(kind: Kind) -> f64 {
    match kind {
        Kind::Slots { parallel, .. } => f64::from(parallel),
        Kind::Batch { most, .. } => f64::from(most),
    }
}

/// The 95th percentile of the last seconds, as `histogram_quantile` interpolates it.
fn p95(world: &World, seconds: usize) -> Option<f64> {
    let mut counts = vec![0_u64; latency::BOUNDS + 1];
    for second in world.minute.iter().rev().take(seconds) {
        for (sum, count) in counts.iter_mut().zip(&second.latency) {
            *sum += u64::from(*count);
        }
    }
    let all: u64 = counts.iter().sum();
    let rank = 0.95 * all as f64;
    let mut seen = 0.0;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bound = |at: usize| latency::bound(at.min(latency::BOUNDS - 1)) as f64 / 1e6;
        let count = *count as f64;
        if seen + count >= rank {
            let below = bucket.checked_sub(1).map_or(0.0, bound);
            return Some(below + (bound(bucket) - below) * (rank - seen) / count);
        }
        seen += count;
    }
    None
}

/// Requests in flight, the mean of the last seconds.
fn concurrency(world: &World, seconds: usize) -> f64 {
    let some = world.minute.iter().rev().take(seconds);
    let count = some.len().max(1) as f64;
    some.map(|second| second.in_flight).sum::<f64>() / count
}

fn every(world: &World, seconds: u32) -> bool {
    (world.now.round() as u32).is_multiple_of(seconds)
}

/// Replicas times the latency over its objective, every 15 s.
pub struct Naive;

impl Rule for Naive {
    fn look(&mut self, world: &World) -> Option<u32> {
        let ratio = p95(world, 30).filter(|_| every(world, 15))? / OBJECTIVE;
        let wanted = (f64::from(world.wanted()) * ratio).ceil();
        Some((wanted as u32).clamp(1, MOST))
    }
}

/// What a HorizontalPodAutoscaler looks at.
#[derive(Clone, Copy)]
pub enum Metric {
    /// An Object metric with a Value: the 95th percentile of the last minute.
    P95,
    /// An External metric with an AverageValue: requests in flight, 0.7 of the executions each, of the last half minute.
    Concurrency,
}

/// `autoscaling/v2` with its defaults: every 15 s, a tolerance of 10 %, up by 100 % or 4 pods in 15 s, down to the most of
/// the last 300 s and by 100 % in 15 s.
pub struct Hpa {
    pub metric: Metric,
    recommended: VecDeque<u32>,
}

impl Hpa {
    pub const fn new(metric: Metric) -> Self {
        Self {
            metric,
            recommended: VecDeque::new(),
        }
    }
}

impl Rule for Hpa {
    fn look(&mut self, world: &World) -> Option<u32> {
        if !every(world, 15) {
            return None;
        }
        let current = world.wanted();
        let (ratio, wanted) = match self.metric {
            Metric::P95 => {
                let ratio = p95(world, 60)? / OBJECTIVE;
                (ratio, ratio * f64::from(world.ready()))
            }
            Metric::Concurrency => {
                let target = 0.7 * at_once(world.scenario.kind);
                let wanted = concurrency(world, 30) / target;
                (wanted / f64::from(current.max(1)), wanted)
            }
        };
        let wanted = match (ratio - 1.0).abs() <= 0.1 {
            true => current,
            false => (wanted.ceil() as u32).clamp(1, MOST),
        };
        self.recommended.push_back(wanted);
        if self.recommended.len() > 20 {
            self.recommended.pop_front();
        }
        let stabilized = self.recommended.iter().copied().max().unwrap_or(wanted);
        let up = wanted.min((2 * current).max(current + 4));
        Some(match wanted > current {
            true => up,
            false => stabilized.min(current),
        })
    }
}

/// Knative's KPA with its defaults: every 2 s, windows of 60 and 6 s, a target of 70 % of the executions, panic at twice
/// the ready pods and for a stable window, at most half of them away at once.
#[derive(Default)]
pub struct Kpa {
    panic: Option<(f64, u32)>,
}

impl Rule for Kpa {
    fn look(&mut self, world: &World) -> Option<u32> {
        if !every(world, 2) {
            return None;
        }
        let target = 0.7 * at_once(world.scenario.kind);
        let ready = f64::from(world.ready().max(1));
        let least = (ready / 2.0).floor();
        let within = |wanted: f64| wanted.ceil().clamp(least, 1_000.0 * ready) as u32;
        let stable = within(concurrency(world, 60) / target);
        let burst = concurrency(world, 6) / target;
        let over = burst.ceil() / ready >= 2.0;
        let burst = within(burst);
        let since = match (over, self.panic) {
            (true, _) => Some(world.now),
            (false, Some((since, _))) if world.now - since < 60.0 => Some(since),
            _ => None,
        };
        // In panic it never goes down.
        let most = self.panic.map_or(world.wanted(), |(_, most)| most);
        let panic = since.map(|since| (since, most.max(burst).max(stable)));
        self.panic = panic;
        let wanted = panic.map_or(stable, |(_, most)| most);
        Some(wanted.clamp(1, MOST))
    }
}

/// Always so many.
pub struct Static(pub u32);

impl Rule for Static {
    fn look(&mut self, _: &World) -> Option<u32> {
        Some(self.0)
    }
}

/// Knows the rate to come, and what a replica carries.
pub struct Oracle {
    pub capacity: f64,
}

impl Rule for Oracle {
    fn look(&mut self, world: &World) -> Option<u32> {
        let scenario = &world.scenario;
        let ahead = 1.1 * scenario.start_up + 1.0;
        let most = scenario.source.most(world.now, world.now + ahead);
        Some(((most / self.capacity).ceil() as u32).clamp(1, MOST))
    }
}
