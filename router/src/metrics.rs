//! What is counted, and how `/metrics` shows it (OpenMetrics). Names start with `ortolan_router_`.
//!
//! Invariants: names from outside never become labels, only those of the table; a service or revision that leaves the
//! table takes its series along; a request that is answered 200 looks up nothing.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{latency::Latency, table::ServiceName};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    namespace: Arc<str>,
    service: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRevision {
    namespace: Arc<str>,
    service: Arc<str>,
    revision: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    #[prometheus(flatten)]
    revision: OfRevision,
    protocol: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCopy {
    #[prometheus(flatten)]
    revision: OfRevision,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRetry {
    #[prometheus(flatten)]
    service: OfService,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// All counters of the router; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    families: Families,
}

#[derive(Clone, Default)]
struct Families {
    arrivals: Family<OfService, Counter>,
    held: Family<OfService, Gauge>,
    ejections: Family<OfService, Counter>,
    retries: Family<OfRetry, Counter>,
    assigned: Family<OfRevision, Counter>,
    in_flight: Family<OfRevision, Gauge>,
    latency: Family<OfRevision, Latency>,
    codes: Family<OfCode, Counter>,
    copies: Family<OfCopy, Counter>,
    refused: Family<OfReason, Counter>,
}

/// How a request ended, as its revision's counters say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code of HTTP.
    Http(u16),
    /// With this status of gRPC.
    Grpc(u16),
    /// The pod broke off in the middle of its answer.
    Broken,
    /// The client left.
    Left,
}

impl End {
    /// Whether it speaks against the revision; `None` where the client left, which says nothing of it.
    #[must_use]
    pub const fn is_bad(self) -> Option<bool> {
        match self {
            Self::Http(code) => Some(code >= 500),
            // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
            Self::Grpc(code) => Some(matches!(code, 2 | 4 | 13 | 14 | 15)),
            Self::Broken => Some(true),
            Self::Left => None,
        }
    }
}

/// The counters of one service.
#[derive(Clone, Debug)]
pub struct ServiceMeter {
    labels: OfService,
    /// Requests that came for it.
    pub arrivals: Counter,
    /// Requests that wait for a pod.
    pub held: Gauge,
    /// How often a pod was left out for its failures.
    pub ejections: Counter,
}

/// The counters of one revision.
pub struct Meter {
    labels: OfRevision,
    families: Families,
    /// Requests that were given to it.
    pub arrivals: Counter,
    /// Requests that are with its pods.
    pub in_flight: Gauge,
    /// From the request's arrival to the head of its answer, time in the line included.
    pub latency: Latency,
    ok: Counter,
    grpc_ok: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ortolan_router");
        let f = Families::default();
        registry.register(
            "arrivals",
            "Requests that came, by service",
            f.arrivals.clone(),
        );
        registry.register("held", "Requests that wait for a pod", f.held.clone());
        registry.register(
            "ejections",
            "Pods left out because requests to them failed",
            f.ejections.clone(),
        );
        registry.register(
            "retries",
            "Requests sent to a pod once more, by reason",
            f.retries.clone(),
        );
        registry.register(
            "assigned",
            "Requests given to a revision",
            f.assigned.clone(),
        );
        registry.register(
            "in_flight",
            "Requests that are with pods",
            f.in_flight.clone(),
        );
        registry.register(
            "requests",
            "Requests that ended at a pod, by code",
            f.codes.clone(),
        );
        registry.register(
            "copies",
            "Copies of requests for comparison, by the revision that they were meant for and what became of them",
            f.copies.clone(),
        );
        registry.register(
            "refused",
            "Requests that the router answered with an error, by reason",
            f.refused.clone(),
        );
        registry.register_with_unit(
            "request",
            "From the arrival of a request to the head of its answer",
            Unit::Seconds,
            f.latency.clone(),
        );
        Self {
            registry: Arc::new(registry),
            families: f,
        }
    }
}

impl Metrics {
    /// The counters of a service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> ServiceMeter {
        let labels = of_service(name);
        let f = &self.families;
        ServiceMeter {
            arrivals: f.arrivals.get_or_create_owned(&labels),
            held: f.held.get_or_create_owned(&labels),
            ejections: f.ejections.get_or_create_owned(&labels),
            labels,
        }
    }

    /// The counters of a revision.
    #[must_use]
    pub fn revision(&self, name: &ServiceName, revision: &Arc<str>) -> Meter {
        let OfService { namespace, service } = of_service(name);
        let labels = OfRevision {
            namespace,
            service,
            revision: Arc::clone(revision),
        };
        let f = &self.families;
        let code = |protocol, code: &str| {
            let (revision, code) = (labels.clone(), code.to_owned());
            f.codes.get_or_create_owned(&OfCode {
                revision,
                protocol,
                code,
            })
        };
        Meter {
            arrivals: f.assigned.get_or_create_owned(&labels),
            in_flight: f.in_flight.get_or_create_owned(&labels),
            latency: f.latency.get_or_create_owned(&labels),
            ok: code("http", "200"),
            grpc_ok: code("grpc", "0"),
            labels,
            families: f.clone(),
        }
    }

    /// Counts a request that is sent once more.
    pub fn retried(&self, meter: &ServiceMeter, reason: &'static str) {
        let service = meter.labels.clone();
        let labels = OfRetry { service, reason };
        self.families.retries.get_or_create(&labels).inc();
    }

    /// Counts a request that the router itself answers with an error.
    pub fn refused(&self, reason: &'static str) {
        self.families
            .refused
            .get_or_create(&OfReason { reason })
            .inc();
    }

    /// Takes a service's series away.
    pub fn forget_service(&self, meter: &ServiceMeter) {
        let (f, labels) = (&self.families, &meter.labels);
        f.arrivals.remove(labels);
        f.held.remove(labels);
        f.ejections.remove(labels);
        for reason in RETRY_REASONS {
            let service = labels.clone();
            f.retries.remove(&OfRetry { service, reason });
        }
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

/// What becomes of a copy: the answers agree, or differ; the copy was left out, since there was no room for it; it got
/// no answer; the user's answer is none that can be compared.
pub const COPY_OUTCOMES: [&str; 5] = ["agreed", "differed", "dropped", "failed", "unclear"];

/// Why a request is sent once more.
pub const RETRY_REASONS: [&str; 3] = ["connect", "lost", "busy"];

fn of_service(name: &ServiceName) -> OfService {
    OfService {
        namespace: name.namespace().into(),
        service: name.name().into(),
    }
}

impl Meter {
    /// Counts the end of a request.
    pub fn ended(&self, end: End) {
        let (protocol, code) = match end {
            End::Http(200) => {
                self.ok.inc();
                return;
            }
            End::Grpc(0) => {
                self.grpc_ok.inc();
                return;
            }
            End::Http(code) => ("http", code.to_string()),
            End::Grpc(code) => ("grpc", code.to_string()),
            End::Broken => ("http", "broken".to_owned()),
            End::Left => ("http", "left".to_owned()),
        };
        let revision = self.labels.clone();
        let labels = OfCode {
            revision,
            protocol,
            code,
        };
        self.families.codes.get_or_create(&labels).inc();
    }

    /// Counts a copy that was meant for this revision; `outcome` is one of [`COPY_OUTCOMES`].
    pub fn copied(&self, outcome: &'static str) {
        let revision = self.labels.clone();
        let labels = OfCopy { revision, outcome };
        self.families.copies.get_or_create(&labels).inc();
    }

    /// Takes the revision's series away.
    pub fn forget(&self) {
        let (f, labels) = (&self.families, &self.labels);
        f.assigned.remove(labels);
        f.in_flight.remove(labels);
        f.latency.remove(labels);
        for outcome in COPY_OUTCOMES {
            let revision = labels.clone();
            f.copies.remove(&OfCopy { revision, outcome });
        }
        let http = (100..600_u16).map(|code| ("http", code.to_string()));
        let grpc = (0..17_u16).map(|code| ("grpc", code.to_string()));
        let words = ["broken", "left"].map(|word| ("http", word.to_owned()));
        for (protocol, code) in http.chain(grpc).chain(words) {
            let revision = labels.clone();
            f.codes.remove(&OfCode {
                revision,
                protocol,
                code,
            });
        }
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meter").field(&self.labels).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_end_by_the_pods_fault_is_bad_and_a_client_that_left_says_nothing() {
        let http = [200, 101, 404, 429, 499, 500, 503].map(|code| End::Http(code).is_bad());
        let [fine, bad] = [Some(false), Some(true)];
        assert_eq!(http, [fine, fine, fine, fine, fine, bad, bad]);
        let is_bad = |code: &u16| End::Grpc(*code).is_bad() == bad;
        let grpc: Vec<u16> = (0..17).filter(is_bad).collect();
        assert_eq!(grpc, [2, 4, 13, 14, 15]);
        assert_eq!((End::Broken.is_bad(), End::Left.is_bad()), (bad, None));
    }

    #[test]
    fn what_happens_to_a_revision_is_shown_until_it_leaves_the_table() {
        let metrics = Metrics::default();
        let name = ServiceName::new("demo", "cats").unwrap();
        let service = metrics.service(&name);
        let meter = metrics.revision(&name, &"cats-1".into());
        service.arrivals.inc();
        meter.copied("differed");
        metrics.retried(&service, "lost");
        metrics.refused("host");
        meter.latency.observe(Duration::from_micros(70));
        for end in [
            End::Http(200),
            End::Http(503),
            End::Grpc(0),
            End::Grpc(14),
            End::Left,
        ] {
            meter.ended(end);
        }
        let text = metrics.text();
        let of = r#"namespace="demo",service="cats",revision="cats-1""#;
        for line in [
            r#"ortolan_router_arrivals_total{namespace="demo",service="cats"} 1"#.to_owned(),
            r#"ortolan_router_retries_total{namespace="demo",service="cats",reason="lost"} 1"#
                .to_owned(),
            r#"ortolan_router_refused_total{reason="host"} 1"#.to_owned(),
            format!("ortolan_router_copies_total{{{of},outcome=\"differed\"}} 1"),
            format!("ortolan_router_request_seconds_bucket{{le=\"0.000072\",{of}}} 1"),
            format!("ortolan_router_requests_total{{{of},protocol=\"http\",code=\"200\"}} 1"),
            format!("ortolan_router_requests_total{{{of},protocol=\"grpc\",code=\"14\"}} 1"),
            format!("ortolan_router_requests_total{{{of},protocol=\"http\",code=\"left\"}} 1"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        meter.forget();
        metrics.forget_service(&service);
        let text = metrics.text();
        assert!(!text.contains("cats"), "{text}");
    }
}
