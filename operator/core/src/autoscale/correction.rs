//! What the model of the capacity is off by, learned from violations: κ.
//!
//! The model knows nothing of neighbours on the node, of garbage, of a router that balances badly. Only violations that
//! queueing causes near the predicted load speak about it, so they have to pass gates; a service time over the
//! objective, or a burst, moves nothing.

use serde::{Deserialize, Serialize};

/// Requests from which something follows.
pub const LEAST_REQUESTS: u64 = 500;
const LEAST: f64 = 0.4;
const MOST: f64 = 1.5;
/// Down faster than up: too few replicas hurt, too many cost.
const DOWN: f64 = 0.9;
const UP: f64 = 1.05;

/// By what the predicted capacity is multiplied: 0.4 to 1.5.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Correction(f64);

impl Default for Correction {
    fn default() -> Self {
        Self(1.0)
    }
}

impl From<f64> for Correction {
    /// The nearest that is allowed.
    fn from(factor: f64) -> Self {
        match factor.is_finite() {
            true => Self(factor.clamp(LEAST, MOST)),
            false => Self::default(),
        }
    }
}

impl From<Correction> for f64 {
    fn from(correction: Correction) -> Self {
        correction.0
    }
}

/// What was seen over a minute in which nothing changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them slower than the objective.
    pub slower: u64,
    /// The share that may be.
    pub budget: f64,
    /// The share whose service alone is: no number of replicas helps those.
    pub unavoidable: f64,
    /// The rate, as a share of what the ready replicas should carry.
    pub load: f64,
}

/// A share of requests with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// 0 to 1.
    pub share: f64,
    /// Standard error.
    pub error: f64,
    /// Of how many requests.
    pub of: u64,
}

impl Share {
    /// So many of so many; `None` of none.
    #[must_use]
    pub fn of(some: u64, all: u64) -> Option<Self> {
        let share = (all > 0).then(|| (some as f64 / all as f64).min(1.0))?;
        Some(Self {
            share,
            error: (share * (1.0 - share) / all as f64).sqrt(),
            of: all,
        })
    }
}

impl Correction {
    /// By what the capacity is multiplied.
    #[must_use]
    pub const fn factor(self) -> f64 {
        self.0
    }

    /// What follows from a minute.
    #[must_use]
    pub fn after(self, seen: &Seen) -> Self {
        let Some(v) = Share::of(seen.slower, seen.requests) else {
            return self;
        };
        // Without ready pods the load is infinite.
        if seen.requests < LEAST_REQUESTS || !seen.load.is_finite() {
            return self;
        }
        let by_queueing = v.share - seen.unavoidable > seen.budget / 4.0;
        if v.share - 2.0 * v.error > seen.budget && by_queueing && seen.load > 0.5 {
            Self::from(self.0 * DOWN)
        } else if v.share + 2.0 * v.error < seen.budget / 2.0 && seen.load > 0.8 {
            Self::from(self.0 * UP)
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_violations_by_queueing_near_the_predicted_load_correct_it() {
        let seen = |requests, slower, unavoidable, load| Seen {
            requests,
            slower,
            budget: 0.05,
            unavoidable,
            load,
        };
        let cases = [
            ("many at a high load", seen(1_000, 100, 0.0, 0.9), 0.9),
            ("too few requests", seen(499, 100, 0.0, 0.9), 1.0),
            ("within the error", seen(600, 40, 0.0, 0.9), 1.0),
            ("the service itself", seen(1_000, 100, 0.09, 0.9), 1.0),
            ("at a low load", seen(1_000, 100, 0.0, 0.5), 1.0),
            ("nearly none at a high load", seen(1_000, 5, 0.0, 0.9), 1.05),
            ("none at a low load", seen(1_000, 0, 0.0, 0.8), 1.0),
            ("as many as allowed", seen(1_000, 50, 0.0, 0.9), 1.0),
            ("no ready pod", seen(1_000, 900, 0.0, f64::INFINITY), 1.0),
            ("no requests", seen(0, 0, 0.0, 0.9), 1.0),
        ];
        for (name, seen, expected) in cases {
            let after = Correction::default().after(&seen).factor();
            assert!((after - expected).abs() < 1e-12, "{name}: {after}");
        }
    }

    #[test]
    fn it_stays_within_bounds() {
        let bad = Seen {
            requests: 1_000,
            slower: 900,
            budget: 0.05,
            unavoidable: 0.0,
            load: 1.0,
        };
        let good = Seen { slower: 0, ..bad };
        let many = |seen: &Seen| (0..100).fold(Correction::default(), |c, _| c.after(seen));
        assert_eq!(many(&bad).factor(), 0.4);
        assert_eq!(many(&good).factor(), 1.5);
        assert_eq!(Correction::from(f64::NAN).factor(), 1.0);
    }
}
