//! What was read: counters of routers and pods, and how many pods there are.

use std::{ops::AddAssign, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{batching::Batches, delta::Counters, histogram::Histogram};

/// What is known at one moment of one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The routers that were heard of since the last look.
    pub routers: Vec<Router>,
    /// How many routers there are. Fewer in `routers`: data is missing.
    pub expected_routers: u32,
    /// The ready pods whose metrics were read lately.
    pub pods: Vec<Pod>,
    /// The revision's pods.
    pub replicas: Replicas,
    /// From a pod's creation to its readiness, the 90th percentile; `None` while no start was seen.
    pub start_up: Option<Duration>,
    /// Whether a rollout is under way: no sleep then.
    pub rollout: bool,
}

/// A router, for one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Router {
    /// Its name: that of its pod.
    pub name: String,
    /// When its counts began.
    pub started: Timestamp,
    /// What it counted.
    pub counts: Requests,
    /// Requests that a pod has, now.
    pub in_flight: u64,
    /// Requests that wait for a pod, now.
    pub held: u64,
}

/// What a router counted of user requests (copies left out).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests that came, held ones included: the demand.
    pub arrivals: u64,
    /// Times from the arrival to the answer, of those that ended.
    pub latency: Histogram,
}

impl Counters for Requests {
    fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            arrivals: self.arrivals.checked_sub(before.arrivals)?,
            latency: self.latency.since(&before.latency)?,
        })
    }
}

/// A ready pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// When its process began.
    pub started: Timestamp,
    /// Since when it is ready.
    pub ready_since: Timestamp,
    /// What it counted.
    pub counts: Work,
}

/// What a pod counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Service times of requests, time in the queue left out.
    pub service: Histogram,
    /// Its batches.
    pub batches: Batches,
}

impl Counters for Work {
    fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            service: self.service.since(&before.service)?,
            batches: self.batches.since(&before.batches)?,
        })
    }
}

impl AddAssign<&Self> for Work {
    fn add_assign(&mut self, other: &Self) {
        self.service += &other.service;
        self.batches += &other.batches;
    }
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// As the Deployment has it: what is gone out from where nothing was decided yet.
    pub wanted: u32,
    /// Ready ones.
    pub ready: u32,
    /// Since when pods wait for a node in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable: Option<Unschedulable>,
}

/// Pods that no node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unschedulable {
    /// Since when.
    pub since: Timestamp,
    /// How many of the revision's pods have a node.
    pub scheduled: u32,
}

impl Sample {
    /// Requests that wait for a pod.
    #[must_use]
    pub fn held(&self) -> u64 {
        let each = self.routers.iter().map(|router| router.held);
        each.fold(0, u64::saturating_add)
    }

    /// Requests that pods have.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let each = self.routers.iter().map(|router| router.in_flight);
        each.fold(0, u64::saturating_add)
    }

    /// Whether every router was heard of.
    #[must_use]
    pub fn heard_all_routers(&self) -> bool {
        self.expected_routers > 0 && self.routers.len() >= self.expected_routers as usize
    }

    /// Whether at least half of the ready pods told something.
    #[must_use]
    pub fn heard_half_of_the_pods(&self) -> bool {
        2 * self.pods.len() >= self.replicas.ready as usize
    }
}
