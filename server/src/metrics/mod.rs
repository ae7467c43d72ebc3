//! What is counted and how `/metrics` shows it (OpenMetrics). All names start with `ortolan_`; what
//! belongs to a model carries `model` and `version`; units are seconds and bytes.
//!
//! Invariant: a request that was seen before takes no lock: its series are looked up when its model is
//! opened, or when its protocol and code come up for the first time.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    encoding::{
        EncodeLabelValue, LabelValueEncoder,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use self::families::{
    Families, ModelLabels, PhaseLabels, ProtocolLabels, ProviderLabels, RejectedLabels,
    RequestLabels, SecondsCounter,
};
pub use self::histogram::Histogram;
use self::process::Process;
use crate::{
    app::App,
    cache::ResponseCache,
    model::Model,
    observe::{
        timing,
        trail::{self, Phase},
    },
    options::Provider,
    startup::Done,
    statistics::Statistics,
};

mod families;
mod histogram;
mod process;
mod triton;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `/v2/models/{m}/infer`.
    V2,
    /// `/v1/models/{m}:predict`.
    V1,
    /// `/predict/{m}`.
    Raw,
    /// `/v1/embeddings`.
    Embeddings,
    /// `ModelInfer` and each request of `ModelStreamInfer`. Its codes are gRPC's.
    Grpc,
}

impl Protocol {
    const ALL: [Self; 5] = [Self::V2, Self::V1, Self::Raw, Self::Embeddings, Self::Grpc];

    /// As labels and log lines call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Raw => "raw",
            Self::Embeddings => "embeddings",
            Self::Grpc => "grpc",
        }
    }

    const fn is_success(self, code: u16) -> bool {
        match self {
            Self::V2 | Self::V1 | Self::Raw | Self::Embeddings => code < 400,
            Self::Grpc => code == 0,
        }
    }
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

/// Why a request was turned away without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// As many are under way as may be.
    Concurrency,
    /// No place in the queue.
    QueueFull,
    /// The server or the model is on its way out.
    Stopping,
    /// Its deadline passed while it waited.
    Deadline,
}

impl Rejection {
    const ALL: [Self; 4] = [
        Self::Concurrency,
        Self::QueueFull,
        Self::Stopping,
        Self::Deadline,
    ];
}

impl EncodeLabelValue for Rejection {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Concurrency => "concurrency",
            Self::QueueFull => "queue_full",
            Self::Stopping => "stopping",
            Self::Deadline => "deadline",
        };
        name.encode(encoder)
    }
}

/// All counters of the server.
pub struct Metrics {
    registry: Registry,
    families: Families,
    process: Process,
    cache: Gauge,
    /// Whether the models' counts stand there under Triton's names, too.
    pub as_triton: bool,
    /// For requests that name no model that there is: names from outside never become labels.
    pub unknown: Arc<Meter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ortolan");
        let families = Families::default();
        families.register(&mut registry);
        let process = Process::default();
        process.register(&mut registry);
        let cache = Gauge::default();
        registry.register_with_unit(
            "response_cache",
            "Memory that kept answers take",
            Unit::Bytes,
            cache.clone(),
        );
        // Of the series of a model it needs those of requests only: the others stand in no family.
        let mut unknown = Meter::new(&Families::default(), "", "");
        unknown.families = families.clone();
        let unknown = Arc::new(unknown);
        Self {
            registry,
            families,
            process,
            cache,
            as_triton: false,
            unknown,
        }
    }
}

impl Metrics {
    /// The counters of one version of one model. They go on where an earlier load of it left off.
    #[must_use]
    pub fn meter(&self, model: &str, version: &str) -> Meter {
        Meter::new(&self.families, model, version)
    }

    /// Takes a version's series away: it was unloaded.
    pub fn forget(&self, model: &str, version: &str) {
        let (families, model) = (&self.families, labels(model, version));
        for protocol in Protocol::ALL {
            let model = model.clone();
            families.latency.remove(&ProtocolLabels { model, protocol });
        }
        for (protocol, code) in Protocol::ALL
            .into_iter()
            .flat_map(|protocol| (0..600).map(move |code| (protocol, code)))
        {
            let model = model.clone();
            let labels = RequestLabels {
                model,
                protocol,
                code,
            };
            families.requests.remove(&labels);
        }
        for reason in Rejection::ALL {
            let model = model.clone();
            families.rejected.remove(&RejectedLabels { model, reason });
        }
        for times in [
            &families.queue,
            &families.preprocess,
            &families.inference,
            &families.postprocess,
            &families.batch,
        ] {
            times.remove(&model);
        }
        for gauge in [&families.in_flight, &families.depth, &families.sessions] {
            gauge.remove(&model);
        }
        families.busy.remove(&model);
        for counter in [&families.hits, &families.misses] {
            counter.remove(&model);
        }
        self.forget_start(&model);
    }

    fn forget_start(&self, model: &ModelLabels) {
        for phase in ["Fetch", "Verify", "Unpack", "Load", "WarmUp"] {
            let model = model.clone();
            self.families.phases.remove(&PhaseLabels { model, phase });
        }
        for requested in Provider::ALL.map(Provider::as_str) {
            for active in Provider::ALL.map(Provider::as_str) {
                let model = model.clone();
                let labels = ProviderLabels {
                    model,
                    requested,
                    active,
                };
                self.families.provider.remove(&labels);
            }
        }
    }

    /// The text of `/metrics`.
    pub fn render(&self, app: &App) -> Result<String, std::fmt::Error> {
        let models = app.catalog.models();
        for model in &models {
            self.observe(model);
        }
        self.process.observe();
        let kept = app.cache.as_ref().map_or(0, ResponseCache::bytes);
        self.cache.set(i64::try_from(kept).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        if self.as_triton {
            triton::encode(&mut text, models.iter().map(Arc::as_ref))?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn observe(&self, model: &Model) {
        let depth = i64::try_from(model.engine.depth()).unwrap_or(i64::MAX);
        self.families
            .depth
            .get_or_create(&model.meter.labels)
            .set(depth);
    }
}

fn labels(model: &str, version: &str) -> ModelLabels {
    ModelLabels {
        model: model.into(),
        version: version.into(),
    }
}

/// The codes that are counted without a lock; others are looked up.
const CODES: [u16; 13] = [
    0, 200, 400, 404, 405, 408, 413, 415, 422, 429, 500, 503, 504,
];

/// The counters of one version of one model.
pub struct Meter {
    labels: ModelLabels,
    families: Families,
    answered: [[OnceLock<Counter>; CODES.len()]; Protocol::ALL.len()],
    latency: [OnceLock<Histogram>; Protocol::ALL.len()],
    queue: Histogram,
    preprocess: Histogram,
    inference: Histogram,
    postprocess: Histogram,
    batch: Histogram,
    in_flight: Gauge,
    busy: SecondsCounter,
    hits: Counter,
    misses: Counter,
    /// What the protocol's statistics tell: counted since this load.
    pub statistics: Statistics,
}

impl Meter {
    fn new(families: &Families, model: &str, version: &str) -> Self {
        let labels = labels(model, version);
        Self {
            answered: Default::default(),
            latency: Default::default(),
            queue: families.queue.get_or_create_owned(&labels),
            preprocess: families.preprocess.get_or_create_owned(&labels),
            inference: families.inference.get_or_create_owned(&labels),
            postprocess: families.postprocess.get_or_create_owned(&labels),
            batch: families.batch.get_or_create_owned(&labels),
            in_flight: families.in_flight.get_or_create_owned(&labels),
            busy: families.busy.get_or_create_owned(&labels),
            hits: families.hits.get_or_create_owned(&labels),
            misses: families.misses.get_or_create_owned(&labels),
            families: families.clone(),
            labels,
            statistics: Statistics::default(),
        }
    }

    /// A prediction begins; it is in flight until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A prediction was answered. `code` is the protocol's own.
    pub fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        let place = protocol as usize;
        let request = || RequestLabels {
            model: self.labels.clone(),
            protocol,
            code,
        };
        let requests = &self.families.requests;
        match CODES.iter().position(|known| *known == code) {
            Some(known) => {
                let counter = &self.answered[place][known];
                counter
                    .get_or_init(|| requests.get_or_create_owned(&request()))
                    .inc();
            }
            None => {
                requests.get_or_create(&request()).inc();
            }
        }
        let latency = self.latency[place].get_or_init(|| {
            let model = self.labels.clone();
            let labels = ProtocolLabels { model, protocol };
            self.families.latency.get_or_create_owned(&labels)
        });
        latency.observe(took);
        trail::answered(&self.labels.model, &self.labels.version, protocol, code);
        if protocol.is_success(code) {
            self.statistics.success.add(took);
        } else {
            self.statistics.fail.add(took);
        }
    }

    /// A prediction was turned away without a run.
    pub fn rejected(&self, reason: Rejection) {
        let labels = RejectedLabels {
            model: self.labels.clone(),
            reason,
        };
        self.families.rejected.get_or_create(&labels).inc();
    }

    /// An answer was looked for among those that are kept.
    pub fn looked_up(&self, is_hit: bool, took: Duration) {
        if is_hit {
            self.hits.inc();
            self.statistics.cache_hit.add(took);
        } else {
            self.misses.inc();
            self.statistics.cache_miss.add(took);
        }
    }

    /// The body became tensors.
    pub fn preprocessed(&self, took: Duration) {
        self.preprocess.observe(took);
        trail::passed(Phase::Preprocess, took);
        self.statistics.input.add(took);
    }

    /// A request waited for a session, and its run, of so many rows in all, took so long.
    pub fn inferred(&self, queued: Duration, ran: Duration, batch: usize) {
        trail::ran(queued, ran, batch);
        timing::ran(ran);
        self.queue.observe(queued);
        self.inference.observe(ran);
        self.statistics.queue.add(queued);
        self.statistics.infer.add(ran);
    }

    /// A session ran once, whether or not it gave an answer.
    pub fn ran(&self, rows: usize, took: Duration) {
        self.batch.observe_size(rows);
        self.busy.inc_by(took.as_secs_f64());
        self.statistics.ran(rows, took);
    }

    /// The tensors became a body.
    pub fn postprocessed(&self, took: Duration) {
        self.postprocess.observe(took);
        trail::passed(Phase::Postprocess, took);
        self.statistics.output.add(took);
    }

    /// How many sessions the model runs on, and where.
    pub fn opened(&self, requested: Provider, active: Provider, sessions: usize) {
        let labels = ProviderLabels {
            model: self.labels.clone(),
            requested: requested.as_str(),
            active: active.as_str(),
        };
        self.families.provider.get_or_create(&labels).set(1);
        self.families
            .sessions
            .get_or_create(&self.labels)
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        // Nothing waits yet.
        self.families.depth.get_or_create(&self.labels).set(0);
    }

    /// How long the phases of the load took.
    pub fn loaded(&self, phases: &[Done]) {
        for done in phases {
            let labels = PhaseLabels {
                model: self.labels.clone(),
                phase: done.name,
            };
            self.families
                .phases
                .get_or_create(&labels)
                .set(done.seconds);
        }
    }
}

/// Counts down when the answer is made, or its client has left.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.render(&App::new(1)).unwrap()
    }

    #[test]
    fn each_version_has_series_of_its_own_and_takes_them_along_when_it_goes() {
        let metrics = Metrics::default();
        for (version, code, times) in [("1", 200, 3), ("2", 503, 2), ("2", 418, 1)] {
            let meter = metrics.meter("m", version);
            for _ in 0..times {
                meter.answered(Protocol::V2, code, Duration::from_millis(1));
            }
            meter.rejected(Rejection::Deadline);
        }
        let before = text(&metrics);
        for line in [
            r#"ortolan_requests_total{model="m",version="1",protocol="v2",code="200"} 3"#,
            r#"ortolan_requests_total{model="m",version="2",protocol="v2",code="503"} 2"#,
            r#"ortolan_requests_total{model="m",version="2",protocol="v2",code="418"} 1"#,
            r#"ortolan_rejected_total{model="m",version="2",reason="deadline"} 2"#,
            r#"ortolan_request_seconds_count{model="m",version="1",protocol="v2"} 3"#,
        ] {
            assert!(before.contains(line), "{line}\n{before}");
        }
        metrics.forget("m", "2");
        let after = text(&metrics);
        assert!(!after.contains(r#"version="2""#), "{after}");
        assert!(after.contains(r#"version="1""#));
    }

    #[test]
    fn what_fails_is_counted_apart_from_what_succeeds() {
        let metrics = Metrics::default();
        let meter = metrics.meter("m", "1");
        for code in [200, 400, 503] {
            meter.answered(Protocol::Raw, code, Duration::from_nanos(5));
        }
        let statistics = &meter.statistics;
        assert_eq!(statistics.success.total().count, 1);
        assert_eq!(statistics.fail.total().count, 2);
        assert_eq!(statistics.fail.total().nanos, 10);
    }
}
