//! The series of every model: their labels, names and help.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{Histogram, Protocol, Rejection};

type SecondsGauge = Gauge<f64, std::sync::atomic::AtomicU64>;
pub(super) type SecondsCounter = Counter<f64, std::sync::atomic::AtomicU64>;
type Times<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) model: Arc<str>,
    pub(super) version: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    #[prometheus(flatten)]
    pub(super) model: ModelLabels,
    pub(super) protocol: Protocol,
    pub(super) code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProtocolLabels {
    #[prometheus(flatten)]
    pub(super) model: ModelLabels,
    pub(super) protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RejectedLabels {
    #[prometheus(flatten)]
    pub(super) model: ModelLabels,
    pub(super) reason: Rejection,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PhaseLabels {
    #[prometheus(flatten)]
    pub(super) model: ModelLabels,
    pub(super) phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProviderLabels {
    #[prometheus(flatten)]
    pub(super) model: ModelLabels,
    pub(super) requested: &'static str,
    pub(super) active: &'static str,
}

/// Every series of every model. Clones share them.
#[derive(Clone)]
pub(super) struct Families {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) latency: Times<ProtocolLabels>,
    pub(super) queue: Times<ModelLabels>,
    pub(super) preprocess: Times<ModelLabels>,
    pub(super) inference: Times<ModelLabels>,
    pub(super) postprocess: Times<ModelLabels>,
    pub(super) batch: Times<ModelLabels>,
    pub(super) rejected: Family<RejectedLabels, Counter>,
    pub(super) in_flight: Family<ModelLabels, Gauge>,
    pub(super) depth: Family<ModelLabels, Gauge>,
    pub(super) sessions: Family<ModelLabels, Gauge>,
    pub(super) busy: Family<ModelLabels, SecondsCounter>,
    pub(super) hits: Family<ModelLabels, Counter>,
    pub(super) misses: Family<ModelLabels, Counter>,
    pub(super) phases: Family<PhaseLabels, SecondsGauge>,
    pub(super) provider: Family<ProviderLabels, Gauge>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(Histogram::times),
            queue: Family::new_with_constructor(Histogram::times),
            preprocess: Family::new_with_constructor(Histogram::times),
            inference: Family::new_with_constructor(Histogram::times),
            postprocess: Family::new_with_constructor(Histogram::times),
            batch: Family::new_with_constructor(Histogram::sizes),
            rejected: Family::default(),
            in_flight: Family::default(),
            depth: Family::default(),
            sessions: Family::default(),
            busy: Family::default(),
            hits: Family::default(),
            misses: Family::default(),
            phases: Family::default(),
            provider: Family::default(),
        }
    }
}

impl Families {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Predictions answered, by protocol and code",
            self.requests.clone(),
        );
        registry.register(
            "rejected",
            "Predictions not tried, by reason",
            self.rejected.clone(),
        );
        registry.register("batch_rows", "Rows that ran together", self.batch.clone());
        registry.register(
            "response_cache_hits",
            "Predictions answered without a run",
            self.hits.clone(),
        );
        registry.register(
            "response_cache_misses",
            "Predictions whose answer was not kept",
            self.misses.clone(),
        );
        let gauges = [
            (
                "in_flight",
                "Predictions that are being answered",
                &self.in_flight,
            ),
            (
                "queue_depth",
                "Predictions that wait for a session",
                &self.depth,
            ),
            (
                "sessions",
                "Sessions that run beside each other",
                &self.sessions,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "provider",
            "1 for the provider asked for and the one that runs",
            self.provider.clone(),
        );
        self.register_times(registry);
    }

    fn register_times(&self, registry: &mut Registry) {
        let times = [
            ("queue", "From the queue to a session", &self.queue),
            ("preprocess", "From the body to tensors", &self.preprocess),
            ("inference", "Inside ONNX Runtime", &self.inference),
            (
                "postprocess",
                "From tensors to the answer's body",
                &self.postprocess,
            ),
        ];
        for (name, help, histogram) in times {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        registry.register_with_unit(
            "request",
            "From the head of a prediction to its answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_with_unit(
            "session_busy",
            "Time that all sessions together ran",
            Unit::Seconds,
            self.busy.clone(),
        );
        registry.register_with_unit(
            "startup_phase",
            "How long a phase of the start took",
            Unit::Seconds,
            self.phases.clone(),
        );
    }
}
