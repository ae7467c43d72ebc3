//! What the user wants: bounds, targets, and how fast replicas may change.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::units::{PerSecond, Percentile};

/// How a revision is to be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Between how many replicas.
    pub bounds: Bounds,
    /// What is to be kept.
    pub targets: Targets,
    /// How a replica executes.
    pub server: Server,
    /// How fast replicas may change.
    pub behavior: Behavior,
    /// After how long without requests nothing runs; `None` where at least one replica always does.
    pub idle: Option<Duration>,
    /// What one replica carries at the objective, where the user measured it.
    pub measured: Option<PerSecond>,
}

/// The least and the most replicas: the most is at least one, and not below the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    min: u32,
    max: NonZeroU32,
}

impl Bounds {
    /// From `min` to `max` replicas; `None` where `max` is below `min`.
    #[must_use]
    pub fn new(min: u32, max: NonZeroU32) -> Option<Self> {
        (min <= max.get()).then_some(Self { min, max })
    }

    /// The least while the service is awake: one at least.
    #[must_use]
    pub fn least(self) -> u32 {
        self.min.clamp(1, self.max.get())
    }

    /// The most.
    #[must_use]
    pub const fn most(self) -> u32 {
        self.max.get()
    }

    /// Whether nothing may run.
    #[must_use]
    pub const fn may_sleep(self) -> bool {
        self.min == 0
    }
}

/// What is to be kept: at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Targets {
    latency: Option<Latency>,
    concurrency: Option<NonZeroU32>,
    rate: Option<PerSecond>,
}

impl Targets {
    /// Any of them; `None` where there is none, or where the rate is 0.
    #[must_use]
    pub fn new(
        latency: Option<Latency>,
        concurrency: Option<NonZeroU32>,
        rate: Option<PerSecond>,
    ) -> Option<Self> {
        let some = latency.is_some() || concurrency.is_some() || rate.is_some();
        let sound = rate.is_none_or(|rate| rate > PerSecond::NONE);
        (some && sound).then_some(Self {
            latency,
            concurrency,
            rate,
        })
    }

    /// The latency alone.
    #[must_use]
    pub const fn latency_only(latency: Latency) -> Self {
        Self {
            latency: Some(latency),
            concurrency: None,
            rate: None,
        }
    }

    /// The objective of the latency.
    #[must_use]
    pub const fn latency(self) -> Option<Latency> {
        self.latency
    }

    /// Requests in flight on each replica.
    #[must_use]
    pub const fn concurrency(self) -> Option<NonZeroU32> {
        self.concurrency
    }

    /// Requests a second on each replica.
    #[must_use]
    pub fn rate(self) -> Option<PerSecond> {
        self.rate.filter(|rate| *rate > PerSecond::NONE)
    }
}

/// So many per cent of the requests are answered within a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// How many.
    pub percentile: Percentile,
    /// Within this time. A bound of the routers' buckets, for counts to be exact.
    pub objective: Duration,
}

/// How a replica executes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Server {
    /// One by one, so many side by side.
    Slots {
        /// How many.
        parallel: NonZeroU32,
    },
    /// In batches.
    Batching {
        /// Rows in a batch, at most.
        most: NonZeroU32,
        /// Batches side by side.
        parallel: NonZeroU32,
    },
}

impl Server {
    /// Requests that a replica executes at the same time, at most.
    #[must_use]
    pub fn at_once(self) -> u32 {
        match self {
            Self::Slots { parallel } => parallel.get(),
            Self::Batching { most, parallel } => most.get().saturating_mul(parallel.get()),
        }
    }
}

/// How fast replicas may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Up.
    pub up: Step,
    /// Down.
    pub down: Step,
    /// Replicas go down to the most that was needed within this time.
    pub stabilization: Duration,
}

/// So many per cent within a time; one replica always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Per cent of the replicas at the beginning of the period.
    pub percent: NonZeroU32,
    /// The period.
    pub period: Duration,
}

impl Default for Behavior {
    /// Ten times as many in a minute; half of them, after five minutes in which fewer were enough.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        let step = |percent: u32| Step {
            percent: NonZeroU32::new(percent).unwrap_or(NonZeroU32::MIN),
            period: minute,
        };
        Self {
            up: step(900),
            down: step(50),
            stabilization: 5 * minute,
        }
    }
}
