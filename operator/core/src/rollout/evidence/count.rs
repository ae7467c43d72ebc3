//! What is counted: requests and bad events, of two sides, by signal.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Add, AddAssign},
};

use serde::{Deserialize, Serialize};

/// What makes a request a bad one. Each is a test of its own; the decision is on their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// A 5xx or a timeout, as the router saw it.
    Errors,
    /// The router waited longer than the objective's edge.
    SlowerThanSlo,
    /// The router waited longer than the edge nearest to the stable revision's 95th percentile.
    SlowerThanStable,
    /// The pod itself took longer than that edge, time in its queue left out. An almost idle candidate
    /// beside queueing stable pods looks fast to the router even when its model is slower.
    ServiceTime,
    /// The answer differs from that of the stable revision to the same input. The stable side is pairs
    /// of the stable revision with itself.
    Disagreement,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 5] = [
        Self::Errors,
        Self::SlowerThanSlo,
        Self::SlowerThanStable,
        Self::ServiceTime,
        Self::Disagreement,
    ];
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errors => "errors and timeouts",
            Self::SlowerThanSlo => "requests slower than the objective",
            Self::SlowerThanStable => "requests slower than the stable revision's 95th percentile",
            Self::ServiceTime => "runs slower than the stable revision's 95th percentile",
            Self::Disagreement => "answers that differ from the stable revision's",
        })
    }
}

/// Requests and how many of them were bad. Written as `[requests, bad]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 2]", into = "[u64; 2]")]
pub struct Count {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that were bad.
    pub bad: u64,
}

impl Count {
    /// So many requests, so many of them bad.
    #[must_use]
    pub const fn new(requests: u64, bad: u64) -> Self {
        Self { requests, bad }
    }

    /// The share of bad ones, 0 to 1; of nothing there is no share.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.requests > 0).then(|| self.bad as f64 / self.requests as f64)
    }

    /// What was counted since `before`; `None` when the counter began anew in between.
    fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(before.requests)?,
            bad: self.bad.checked_sub(before.bad)?,
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.bad, self.requests)?;
        match self.rate() {
            Some(rate) => write!(f, " ({:.2} %)", 100.0 * rate),
            None => Ok(()),
        }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            bad: self.bad.saturating_add(other.bad),
        }
    }
}

impl From<[u64; 2]> for Count {
    fn from([requests, bad]: [u64; 2]) -> Self {
        Self { requests, bad }
    }
}

impl From<Count> for [u64; 2] {
    fn from(count: Count) -> Self {
        [count.requests, count.bad]
    }
}

/// The same signal of both sides. Written as `[candidate, stable]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[Count; 2]", into = "[Count; 2]")]
pub struct Sides {
    /// The revision that is tried.
    pub candidate: Count,
    /// The revision that serves.
    pub stable: Count,
}

impl Sides {
    /// What was counted since `before`; `None` when one of the counters began anew in between.
    #[must_use]
    pub(super) fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            candidate: self.candidate.since(before.candidate)?,
            stable: self.stable.since(before.stable)?,
        })
    }
}

impl AddAssign for Sides {
    fn add_assign(&mut self, other: Self) {
        self.candidate = self.candidate + other.candidate;
        self.stable = self.stable + other.stable;
    }
}

impl From<[Count; 2]> for Sides {
    fn from([candidate, stable]: [Count; 2]) -> Self {
        Self { candidate, stable }
    }
}

impl From<Sides> for [Count; 2] {
    fn from(sides: Sides) -> Self {
        [sides.candidate, sides.stable]
    }
}

/// Counts of both sides by signal.
pub type Tally = BTreeMap<Signal, Sides>;
