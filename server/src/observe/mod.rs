//! What happens to single requests, for those who ask: the access log and, with the feature `otlp`, traces.
//!
//! ```text
//!  dispatch ─► begin ─► Trail ◄── Meter: phases, code ─┐
//!                         │   ◄── Counted: bytes       │ the task's own
//!                         ▼ last holder gone           ┘
//!                       a line, a trace
//! ```
//!
//! Inputs: the options; each request. Invariant: who did not ask pays for one look at an `Option` and one for a header
//! a request, and one at the task for each phase.

use std::sync::Arc;

use clap::Args;
use http::{HeaderValue, Request};
use ortolan_model::Failure;
use url::Url;

use self::{context::TraceId, trail::Trail};

mod access;
pub mod context;
pub mod counted;
pub mod timing;
pub mod trail;

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
use self::otlp as traces;

#[cfg(any(test, not(feature = "otlp")))]
#[cfg_attr(feature = "otlp", allow(dead_code))] // tested in every build
mod untraced;
#[cfg(not(feature = "otlp"))]
use self::untraced as traces;

pub use self::access::TARGET as ACCESS_LOG;

/// What is told, beyond the metrics and the log of the server itself.
#[derive(Args, Clone, Debug, Default)]
pub struct ObserveOptions {
    /// Write a log line for every request: what was asked, the answer's code, how long each phase took.
    #[arg(long, env = "ORTOLAN_ACCESS_LOG")]
    pub access_log: bool,

    /// Show the models' counts under the names of Triton's metrics, too: nv_inference_count and the like.
    #[arg(long, env = "ORTOLAN_TRITON_METRICS")]
    pub triton_metrics: bool,

    /// Send traces of predictions to this collector, in OTLP over HTTP: http://HOST:4318
    /// [default: as OTEL_EXPORTER_OTLP_ENDPOINT says, else none].
    #[arg(long, value_name = "URL", value_parser = parse_endpoint, env = "ORTOLAN_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Url>,

    /// Trace this share of the requests whose traceparent does not say whether they are traced, 0 to 1
    /// [default: as OTEL_TRACES_SAMPLER says, else 1].
    #[arg(long, value_name = "SHARE", value_parser = parse_ratio, env = "ORTOLAN_TRACE_RATIO")]
    pub trace_ratio: Option<f64>,
}

/// Reads `http(s)://HOST[:PORT][/PATH]`.
fn parse_endpoint(text: &str) -> Result<Url, String> {
    const INSTEAD: &str = "write the collector's address as http://HOST:4318";
    let url: Url = text
        .trim()
        .parse()
        .map_err(|error| format!("{error}; {INSTEAD}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{}:// is not spoken here; {INSTEAD}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a password in an address ends up in logs; put an authorization into OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    Ok(url)
}

/// Reads a number from 0 to 1.
fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("a share is a number from 0 (none) to 1 (all)".to_owned()),
    }
}

/// Where single requests are told of.
#[derive(Debug)]
struct Outlets {
    access_log: bool,
    traces: Option<traces::Traces>,
}

/// Follows requests if anybody asked for it. The default follows none.
#[derive(Clone, Debug, Default)]
pub struct Observer(Option<Arc<Outlets>>);

/// A request that begins.
#[derive(Debug)]
pub struct Begun {
    /// The trace that it belongs to: its caller's, or one that begins with it.
    pub trace_id: Option<TraceId>,
    /// Where what happens to it is noted, if it is followed.
    pub trail: Option<Arc<Trail>>,
}

impl Observer {
    /// As the options say; inside a runtime. `scheme` is that of the server's own addresses. A collector that does
    /// not answer is no error.
    pub fn new(options: &ObserveOptions, scheme: &'static str) -> Result<Self, Failure> {
        let outlets = Outlets {
            access_log: options.access_log,
            traces: traces::Traces::new(options, scheme)?,
        };
        let is_asked = outlets.access_log || outlets.traces.is_some();
        Ok(Self(is_asked.then(|| Arc::new(outlets))))
    }

    /// What is noted of a request that begins.
    #[must_use]
    pub fn begin<B>(&self, request: &Request<B>, id: &HeaderValue) -> Begun {
        let parent = context::of(request.headers());
        let mut trace_id = parent.map(|parent| parent.trace_id);
        let Some(outlets) = &self.0 else {
            let trail = None;
            return Begun { trace_id, trail };
        };
        let traces = outlets.traces.as_ref();
        let span = traces.and_then(|traces| traces.begin(request, parent.as_ref()));
        trace_id = span.as_ref().map(traces::Span::trace_id).or(trace_id);
        let is_followed = outlets.access_log || span.is_some();
        let trail = is_followed
            .then(|| Arc::new(Trail::new(Arc::clone(outlets), request, id, trace_id, span)));
        Begun { trace_id, trail }
    }

    /// Sends what was not sent yet, within two seconds. Blocking.
    pub fn finish(&self) {
        let outlets = self.0.as_ref();
        if let Some(traces) = outlets.and_then(|outlets| outlets.traces.as_ref()) {
            traces.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_address_is_one_of_http_without_a_password() {
        for text in [
            "http://c:4318",
            "https://c.example/up",
            "http://[::1]:4318/v1/traces",
        ] {
            assert!(parse_endpoint(text).is_ok(), "{text}");
        }
        for (text, said) in [
            ("c:4318", "http://HOST:4318"),
            ("4318", "http://HOST:4318"),
            ("grpc://c:4317", "http://HOST:4318"),
            ("http://me:secret@c:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let error = parse_endpoint(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(parse_ratio("0"), Ok(0.0));
        assert_eq!(parse_ratio("0.01"), Ok(0.01));
        for text in ["", "-0.1", "1.1", "10%", "NaN"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }
}
