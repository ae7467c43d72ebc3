//! What is counted and how `/metrics` shows it (OpenMetrics). All names start with `ortolan_`, all
//! carry `model` and `version`; units are seconds and bytes.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::app::{App, Serving};

/// 0.1 ms to more than 60 s; each bound is at most 10 % above the one before, so that a quantile read from the
/// buckets is wrong by less than that. 1.1^140 × 0.1 ms = 62 s.
const BUCKETS: i32 = 141;

fn histogram() -> Histogram {
    Histogram::new((0..BUCKETS).map(|step| 1e-4 * 1.1_f64.powi(step)))
}

type SecondsGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `/v2/models/{m}/infer` as JSON.
    V2,
    /// `/v1/models/{m}:predict`.
    V1,
    /// `/predict/{m}`.
    Raw,
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Raw => "raw",
        };
        name.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: Protocol,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    requested: &'static str,
    active: &'static str,
}

/// The counters; cheap to share.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<ProtocolLabels, Histogram, fn() -> Histogram>,
    queue: Histogram,
    preprocess: Histogram,
    inference: Histogram,
    postprocess: Histogram,
    rejected: Family<RejectedLabels, Counter>,
    in_flight: Gauge,
    depth: Gauge,
    busy: Counter<f64, std::sync::atomic::AtomicU64>,
    sessions: Gauge,
    phases: Family<PhaseLabels, SecondsGauge>,
    provider: Family<ProviderLabels, Gauge>,
    memory: Gauge,
}

impl Metrics {
    /// Counters for one model.
    #[must_use]
    pub fn new(model: &str, version: &str) -> Self {
        let labels = [("model", model), ("version", version)];
        let labels = labels.map(|(name, value)| (name.into(), value.to_owned().into()));
        let registry = Registry::with_prefix_and_labels("ortolan", labels.into_iter());
        let mut metrics = Self {
            registry,
            requests: Family::default(),
            latency: Family::new_with_constructor(histogram),
            queue: histogram(),
            preprocess: histogram(),
            inference: histogram(),
            postprocess: histogram(),
            rejected: Family::default(),
            in_flight: Gauge::default(),
            depth: Gauge::default(),
            busy: Counter::default(),
            sessions: Gauge::default(),
            phases: Family::default(),
            provider: Family::default(),
            memory: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Predictions answered, by protocol and HTTP code",
            self.requests.clone(),
        );
        registry.register(
            "rejected",
            "Predictions not tried, by reason",
            self.rejected.clone(),
        );
        registry.register(
            "in_flight",
            "Predictions that are being answered",
            self.in_flight.clone(),
        );
        registry.register(
            "queue_depth",
            "Predictions that wait for a session",
            self.depth.clone(),
        );
        registry.register(
            "sessions",
            "Sessions that run beside each other",
            self.sessions.clone(),
        );
        registry.register(
            "provider",
            "1 for the provider asked for and the one that runs",
            self.provider.clone(),
        );
        let seconds = [
            ("queue", "From the queue to a session", &self.queue),
            ("preprocess", "From the body to tensors", &self.preprocess),
            ("inference", "Inside ONNX Runtime", &self.inference),
            (
                "postprocess",
                "From tensors to the answer's body",
                &self.postprocess,
            ),
        ];
        for (name, help, histogram) in seconds {
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
        registry.register_with_unit(
            "resident_memory",
            "Memory of the process",
            Unit::Bytes,
            self.memory.clone(),
        );
    }

    /// A prediction begins; it is in flight until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A prediction was answered.
    pub fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels { protocol, code })
            .inc();
        self.latency
            .get_or_create(&ProtocolLabels { protocol })
            .observe(took.as_secs_f64());
    }

    /// A prediction was turned away without a try.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected
            .get_or_create(&RejectedLabels { reason })
            .inc();
    }

    /// A run has ended.
    pub fn ran(&self, queued: Duration, ran: Duration) {
        self.queue.observe(queued.as_secs_f64());
        self.inference.observe(ran.as_secs_f64());
        self.busy.inc_by(ran.as_secs_f64());
    }

    /// The body became tensors.
    pub fn preprocessed(&self, took: Duration) {
        self.preprocess.observe(took.as_secs_f64());
    }

    /// The tensors became a body.
    pub fn postprocessed(&self, took: Duration) {
        self.postprocess.observe(took.as_secs_f64());
    }

    /// The text of `/metrics`.
    pub fn render(&self, app: &App) -> Result<String, std::fmt::Error> {
        for done in app.startup.snapshot().phases {
            self.phases
                .get_or_create(&PhaseLabels { phase: done.name })
                .set(done.seconds);
        }
        if let Some(serving) = app.serving.get() {
            self.observe(serving);
        }
        self.memory.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn observe(&self, serving: &Serving) {
        self.depth
            .set(i64::try_from(serving.engine.depth()).unwrap_or(i64::MAX));
        self.sessions
            .set(i64::try_from(serving.sessions).unwrap_or(i64::MAX));
        let labels = ProviderLabels {
            requested: serving.requested.as_str(),
            active: serving.engine.active.as_str(),
        };
        self.provider.get_or_create(&labels).set(1);
    }
}

/// Counts down when the answer is made, or its client has left.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// `/proc/self/statm`: pages in all, pages resident. Linux's pages have 4 KiB wherever this server is built.
fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
