//! Traces in OTLP over HTTP, to a collector.
//!
//! Inputs: requests that ask a model, with the caller's span; their stories. Outputs: spans, sent in batches by a
//! thread of the SDK's. Whether a request is traced is decided at its head: as the caller's part of the trace is, and by
//! the sampler where the caller says nothing. Invariants: a request that is not traced costs that decision and no more;
//! no request waits for a collector, and none fails because of one.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request};
use opentelemetry::{
    Context, InstrumentationScope,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler,
    SamplingDecision, ShouldSample as _, SpanProcessor as _,
};
use ortolan_model::{Failure, Reason};
use url::Url;

use self::{
    call::Call,
    export::{Client, Reporting, Reports, Tally},
    settings::variable,
};
use super::{
    ObserveOptions,
    context::Parent,
    parse_endpoint, parse_ratio,
    trail::{Story, Trail},
};
use crate::grpc::is_grpc;

mod call;
mod export;
mod settings;
mod span;

pub(super) use self::span::Span;

/// What the last spans may take at the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Makes spans and sends them.
#[derive(Debug)]
pub(super) struct Traces {
    sampler: Sampler,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
    /// Of the server's own addresses.
    scheme: &'static str,
    tally: Arc<Tally>,
    processor: BatchSpanProcessor,
}

impl Traces {
    /// As the options and the environment say, `None` if nobody wants traces; inside a runtime. What the options ask for
    /// and cannot be had is a failure; what only the environment asks for, as of all programs around, is a warning.
    pub(super) fn new(
        options: &ObserveOptions,
        scheme: &'static str,
    ) -> Result<Option<Self>, Failure> {
        let wanted = options.otlp_endpoint.as_ref();
        let opened = match settings::endpoint(wanted, variable) {
            Ok(None) => return Ok(None),
            Ok(Some(endpoint)) => Self::to(&endpoint, options.trace_ratio, scheme),
            Err(error) => Err(error),
        };
        match opened {
            Ok(traces) => Ok(Some(traces)),
            Err(error) if wanted.is_some() => Err(Failure::new(
                Reason::InvalidConfig,
                format!("traces cannot be sent: {error}"),
            )),
            Err(error) => {
                tracing::warn!("no traces are sent: {error}");
                Ok(None)
            }
        }
    }

    fn to(endpoint: &Url, ratio: Option<f64>, scheme: &'static str) -> Result<Self, String> {
        let places = settings::places(variable);
        let tally = Arc::new(Tally::new(places));
        let patience = settings::patience(variable);
        let client =
            Client::new(patience, Arc::clone(&tally)).map_err(|error| error.to_string())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.as_str())
            .with_timeout(patience)
            .build()
            .map_err(|error| error.to_string())?;
        let reporting = Reporting {
            inner: exporter,
            tally: Arc::clone(&tally),
            endpoint: endpoint.to_string(),
            reports: Mutex::new(Reports::default()),
        };
        let batches = BatchConfigBuilder::default().with_max_queue_size(places);
        let mut processor = BatchSpanProcessor::new(reporting, batches.build());
        processor.set_resource(&settings::resource());
        let (sampler, wrong) = settings::sampler(ratio, variable);
        if let Some(wrong) = wrong {
            tracing::warn!("{wrong}");
        }
        tracing::info!("traces go to {endpoint}");
        let scope = InstrumentationScope::builder("ortolan-server");
        Ok(Self {
            sampler,
            ids: RandomIdGenerator::default(),
            scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
            scheme,
            tally,
            processor,
        })
    }

    /// The span of a request that begins, if it is traced.
    pub(super) fn begin<B>(&self, request: &Request<B>, parent: Option<&Parent>) -> Option<Span> {
        let headers = request.headers();
        let call = Call::of(request.method(), request.uri().path(), is_grpc(headers))?;
        let caller = parent.map(|parent| remote(parent, headers));
        let trace = caller
            .as_ref()
            .map_or_else(|| self.ids.new_trace_id(), SpanContext::trace_id);
        let around = caller
            .as_ref()
            .map(|caller| Context::new().with_remote_span_context(caller.clone()));
        let kind = SpanKind::Server;
        let (around, name) = (around.as_ref(), call.name());
        let sampled = self
            .sampler
            .should_sample(around, trace, name, &kind, &[], &[]);
        if sampled.decision != SamplingDecision::RecordAndSample {
            return None;
        }
        let flags = TraceFlags::SAMPLED;
        let own = self.ids.new_span_id();
        Some(Span {
            context: SpanContext::new(trace, own, flags, false, sampled.trace_state),
            parent: caller
                .as_ref()
                .map_or(SpanId::INVALID, SpanContext::span_id),
            parent_is_remote: caller.is_some(),
            call,
            began: SystemTime::now(),
            asked: span::of_head(call, self.scheme, request),
        })
    }

    /// The span of one request of a stream.
    pub(super) fn below(&self, stream: &Span) -> Span {
        Span {
            context: span::below(&stream.context, self.ids.new_span_id()),
            parent: stream.context.span_id(),
            parent_is_remote: false,
            call: Call::Streamed,
            began: SystemTime::now(),
            asked: Vec::new(),
        }
    }

    /// A request is over.
    pub(super) fn end(&self, trail: &Trail, story: &Story, span: &Span) {
        if !self.tally.admits(1 + story.stretches.len()) {
            return;
        }
        let ids = || self.ids.new_span_id();
        for data in span::ended(span, trail, story, &self.scope, ids) {
            self.processor.on_end(data);
        }
    }

    /// Sends what was not sent yet.
    pub(super) fn finish(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }
}

/// The caller's span as the SDK has it.
fn remote(parent: &Parent, headers: &HeaderMap) -> SpanContext {
    let flags = if parent.is_sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    let (trace, own) = (
        TraceId::from(parent.trace_id.0),
        SpanId::from(parent.span_id),
    );
    SpanContext::new(trace, own, flags, true, state(headers))
}

/// `tracestate` goes into the span as it came; one that is malformed counts as none.
fn state(headers: &HeaderMap) -> TraceState {
    let lines = headers.get_all("tracestate").iter();
    let texts: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
    let state = texts.and_then(|texts| texts.join(",").parse().ok());
    state.unwrap_or_default()
}
