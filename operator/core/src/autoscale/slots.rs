//! What a replica with parallel executions carries within the objective: Erlang C with the tail of Allen and Cunneen.
//!
//! With `c` executions at a time and a mean service time `s`, requests that arrive at the rate `λ` wait with the
//! probability `C` of Erlang C, and for longer than `t` with `C·exp(−θt)`, where `θ = (c/s)(1 − ρ)·2/(1 + cv²)`: the
//! scaling of the mean wait by Allen and Cunneen. A request violates the objective `T` when it is served for as long,
//! or waits for longer than what its own service leaves.

use std::{num::NonZeroU32, time::Duration};

use super::{
    histogram::Histogram,
    units::{PerSecond, float},
};

/// Service times, as far as the formula needs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Shares and seconds.
    shares: Vec<(f64, f64)>,
    /// Mean, in seconds.
    mean: f64,
    /// Squared coefficient of variation.
    cv2: f64,
}

impl Service {
    /// From a histogram; `None` of an empty one, or where every time is nothing.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let shares: Vec<_> = histogram.shares().collect();
        let mean: f64 = shares.iter().map(|(p, s)| p * s).sum();
        let square: f64 = shares.iter().map(|(p, s)| p * (s - mean).powi(2)).sum();
        Self::new(shares, mean, square / (mean * mean))
    }

    /// All requests take the mean (in seconds) as far as the objective is concerned, and vary by `cv2` as far as the
    /// queue is.
    #[must_use]
    pub fn constant(mean: f64, cv2: f64) -> Option<Self> {
        Self::new(vec![(1.0, mean)], mean, cv2)
    }

    /// Shares and their seconds, and the mean and the variation that the queue sees.
    pub(super) fn new(shares: Vec<(f64, f64)>, mean: f64, cv2: f64) -> Option<Self> {
        let sound = mean.is_finite() && mean > 0.0 && cv2.is_finite() && cv2 >= 0.0;
        sound.then_some(Self { shares, mean, cv2 })
    }

    /// The mean, in seconds.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The share that is served for the objective or longer, without any queue.
    #[must_use]
    pub fn slower(&self, objective: Duration) -> f64 {
        let objective = objective.as_secs_f64();
        let slow = self.shares.iter().filter(|(_, s)| *s >= objective);
        slow.fold(0.0, |sum, (p, _)| sum + p)
    }

    /// The rate at which `slots` executions are busy all the time.
    #[must_use]
    pub fn saturation(&self, slots: NonZeroU32) -> f64 {
        float(slots) / self.mean
    }

    /// The share of requests over the objective at a rate below saturation.
    fn violations(&self, slots: NonZeroU32, objective: f64, rate: f64) -> f64 {
        let load = rate * self.mean;
        let waits = erlang_c(slots, load);
        let theta = self.saturation(slots) * (1.0 - load / float(slots)) * 2.0 / (1.0 + self.cv2);
        let each = self.shares.iter().map(|(p, s)| match *s >= objective {
            true => *p,
            false => p * waits * (-theta * (objective - s)).exp(),
        });
        each.sum()
    }
}

/// The probability that a request waits: `load` (in Erlang) on so many servers; 1 at saturation and above.
#[must_use]
pub fn erlang_c(servers: NonZeroU32, load: f64) -> f64 {
    let c = float(servers);
    if load >= c {
        return 1.0;
    }
    // Erlang B by its recursion, which neither overflows nor cancels.
    let mut b = 1.0;
    for k in 1..=servers.get() {
        b = load * b / (f64::from(k) + load * b);
    }
    b / (1.0 - load / c * (1.0 - b))
}

/// The largest rate at which at most `budget` of the requests violate the objective; `None` where more do without any
/// queue.
#[must_use]
pub fn capacity(
    service: &Service,
    slots: NonZeroU32,
    objective: Duration,
    budget: f64,
) -> Option<PerSecond> {
    if service.slower(objective) > budget {
        return None;
    }
    let objective = objective.as_secs_f64();
    let (mut low, mut high) = (0.0, service.saturation(slots));
    // Violations grow with the rate. Fifty halvings are exact to 1e-15 of the saturation.
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        match service.violations(slots, objective, middle) <= budget {
            true => low = middle,
            false => high = middle,
        }
    }
    PerSecond::new(low)
}
