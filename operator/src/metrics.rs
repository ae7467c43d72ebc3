//! The operator's own metrics, for Prometheus (OpenMetrics text).

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ortolan_crds::{RolloutPhase, RolloutStatus};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::index::Key;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    /// `namespace/name`: the label `namespace` is Prometheus' own, of the operator's pod.
    inference_service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    outcome: &'static str,
    reason: String,
}

/// The operator's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ResultLabels, Counter>,
    duration: Histogram,
    writes: Family<WriteLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    leader: Gauge,
    weight: Family<RolloutLabels, Gauge>,
    e_value: Family<RolloutLabels, Gauge<f64, AtomicU64>>,
    drift: Family<RolloutLabels, Gauge<f64, AtomicU64>>,
    rollouts: Family<EndLabels, Counter>,
    routers: Gauge,
    frames: Counter,
    streams_ended: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ortolan_operator");
        let reconciles = Family::default();
        registry.register(
            "reconciles",
            "Reconciles that ended, by result",
            reconciles.clone(),
        );
        // From 1 ms (nothing to do) to 33 s; the timeout is 60 s.
        let duration = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        registry.register(
            "reconcile_duration_seconds",
            "Time a reconcile takes",
            duration.clone(),
        );
        let writes = Family::default();
        registry.register(
            "writes",
            "Writes to the API server, by verb and kind",
            writes.clone(),
        );
        let errors = Family::default();
        registry.register(
            "errors",
            "Reconciles that did not finish, by reason",
            errors.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 while this replica leads", leader.clone());
        let weight = Family::default();
        registry.register(
            "rollout_weight",
            "The candidate's share of the requests in per cent, of each rollout under way",
            weight.clone(),
        );
        let e_value = Family::default();
        registry.register(
            "rollout_e_value",
            "The evidence against the candidate, of each rollout under way: 1 is none",
            e_value.clone(),
        );
        let drift = Family::default();
        registry.register(
            "rollout_class_drift",
            "How far the classes of the candidate's answers are from the stable revision's, 0 to 1, of each rollout under way that compares classes",
            drift.clone(),
        );
        let rollouts = Family::default();
        registry.register(
            "rollouts",
            "Rollouts that ended, by outcome and reason",
            rollouts.clone(),
        );
        let (routers, frames) = (Gauge::default(), Counter::default());
        registry.register(
            "routers",
            "Routers whose counts came within the last five seconds",
            routers.clone(),
        );
        registry.register(
            "router_frames",
            "Frames that were read of the routers' streams",
            frames.clone(),
        );
        let streams_ended = Counter::default();
        registry.register(
            "router_streams_ended",
            "Streams of routers that broke off or could not be opened",
            streams_ended.clone(),
        );
        Self {
            registry: Arc::new(registry),
            reconciles,
            duration,
            writes,
            errors,
            leader,
            weight,
            e_value,
            drift,
            rollouts,
            routers,
            frames,
            streams_ended,
        }
    }
}

impl Metrics {
    /// Counts a reconcile.
    pub fn reconciled(&self, took: Duration, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles
            .get_or_create(&ResultLabels { result })
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a write.
    pub fn wrote(&self, verb: &'static str, kind: &'static str) {
        self.writes.get_or_create(&WriteLabels { verb, kind }).inc();
    }

    /// Counts a failure.
    pub fn failed(&self, reason: &str) {
        self.errors
            .get_or_create(&ReasonLabels {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Says whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Says how a rollout stands now, and counts one that ended since `before`.
    pub fn rollout(&self, key: &Key, before: Option<&RolloutStatus>, now: Option<&RolloutStatus>) {
        use RolloutPhase::{Aborting, Failed, Promoting, Stable};
        let was = before.map(|rollout| rollout.phase);
        let ended = now.and_then(|now| match (was?, now.phase) {
            (Promoting, Stable) => Some(("promoted", String::new())),
            (was, Failed) if was != Failed => {
                Some(("failed", now.reason.clone().unwrap_or_default()))
            }
            (Aborting, Stable) => Some(("replaced", String::new())),
            _ => None,
        });
        if let Some((outcome, reason)) = ended {
            self.rollouts
                .get_or_create(&EndLabels { outcome, reason })
                .inc();
        }
        let labels = RolloutLabels {
            inference_service: format!("{}/{}", key.namespace, key.name),
        };
        let Some((now, weight)) = now.and_then(|now| Some((now, now.weight?))) else {
            self.weight.remove(&labels);
            self.e_value.remove(&labels);
            self.drift.remove(&labels);
            return;
        };
        self.weight.get_or_create(&labels).set(i64::from(weight));
        let e_value = now.evidence.as_ref().map_or(1.0, |e| e.e_value);
        self.e_value.get_or_create(&labels).set(e_value);
        let evidence = now.evidence.as_ref();
        match evidence.and_then(|evidence| evidence.drift.as_ref()) {
            Some(drift) => {
                self.drift.get_or_create(&labels).set(drift.distance);
            }
            None => {
                self.drift.remove(&labels);
            }
        }
    }

    /// Says how many routers were heard of lately.
    pub fn routers(&self, count: usize) {
        self.routers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a frame of a router.
    pub fn heard(&self) {
        self.frames.inc();
    }

    /// Counts a router's stream that ended.
    pub fn stream_ended(&self) {
        self.streams_ended.inc();
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
