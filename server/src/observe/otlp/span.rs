//! From what happened to spans, by the semantic conventions of HTTP and RPC (1.45).
//!
//! Inputs: a request's head and its story. Outputs: its span, ended, and one below it for each phase. Invariants: ids
//! and decision are those that the request began with; what did not happen leaves no attribute; values come from
//! the client only where a convention says so, and no tensor is among them.

use std::time::{Instant, SystemTime};

use http::{HeaderMap, Request, Version, header, uri::Authority};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::call::Call;
use crate::observe::{
    context::TraceId,
    trail::{Phase, Story, Stretch, Trail},
};

/// A client may name itself at any length.
const LONGEST_TEXT: usize = 256;

/// A request's span that is under way. It is recorded and sent, or it would not be there.
#[derive(Debug)]
pub(in crate::observe) struct Span {
    pub(super) context: SpanContext,
    pub(super) parent: SpanId,
    pub(super) parent_is_remote: bool,
    pub(super) call: Call,
    pub(super) began: SystemTime,
    pub(super) asked: Vec<KeyValue>,
}

impl Span {
    /// The trace that it belongs to.
    pub(in crate::observe) fn trace_id(&self) -> TraceId {
        TraceId(u128::from_be_bytes(self.context.trace_id().to_bytes()))
    }
}

/// What the head of a request says.
pub(super) fn of_head<B>(call: Call, scheme: &'static str, request: &Request<B>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    match call {
        Call::Rest(name) => {
            attributes.push(KeyValue::new("http.request.method", "POST"));
            let route = name.strip_prefix("POST ").unwrap_or(name);
            attributes.push(KeyValue::new("http.route", route));
            attributes.push(KeyValue::new("url.scheme", scheme));
        }
        Call::Grpc(name) => {
            attributes.push(KeyValue::new("rpc.system.name", "grpc"));
            attributes.push(KeyValue::new("rpc.method", name));
        }
        Call::Streamed => return attributes,
    }
    attributes.push(KeyValue::new("url.path", short(request.uri().path())));
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    attributes.push(KeyValue::new("network.protocol.version", version));
    if let Some(authority) = authority(request) {
        attributes.push(KeyValue::new("server.address", short(authority.host())));
        if let Some(port) = authority.port_u16() {
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
    }
    if let Some(agent) = text(request.headers(), header::USER_AGENT) {
        attributes.push(KeyValue::new("user_agent.original", short(agent)));
    }
    attributes
}

fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let of_uri = request.uri().authority().cloned();
    of_uri.or_else(|| text(request.headers(), header::HOST)?.parse().ok())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

/// The request's span, ended now, and those of its phases. `ids` gives each phase its own.
pub(super) fn ended(
    span: &Span,
    trail: &Trail,
    story: &Story,
    scope: &InstrumentationScope,
    ids: impl Fn() -> SpanId,
) -> Vec<SpanData> {
    let mut spans = Vec::with_capacity(1 + story.stretches.len());
    let data = |name, kind, start, end| SpanData {
        span_context: span.context.clone(),
        parent_span_id: span.parent,
        parent_span_is_remote: span.parent_is_remote,
        span_kind: kind,
        name,
        start_time: start,
        end_time: end,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    };
    let at = |instant: Instant| span.began + instant.saturating_duration_since(trail.since);
    for stretch in &story.stretches {
        let end = at(stretch.ended);
        // What a clock cannot tell apart is not put before its request.
        let start = end.checked_sub(stretch.took).unwrap_or(end).max(span.began);
        let name = name(stretch.phase).into();
        let mut phase = data(name, SpanKind::Internal, start, end);
        phase.span_context = below(&span.context, ids());
        phase.parent_span_id = span.context.span_id();
        phase.parent_span_is_remote = false;
        phase.attributes = of_phase(stretch, story);
        spans.push(phase);
    }
    let kind = match span.call {
        Call::Rest(_) | Call::Grpc(_) => SpanKind::Server,
        Call::Streamed => SpanKind::Internal,
    };
    let name = span.call.name().into();
    let mut request = data(name, kind, span.began, at(Instant::now()));
    request.attributes.clone_from(&span.asked);
    of_answer(&mut request, span.call, trail, story);
    spans.push(request);
    spans
}

/// A span of the same trace.
pub(super) fn below(parent: &SpanContext, id: SpanId) -> SpanContext {
    let (trace, flags) = (parent.trace_id(), parent.trace_flags());
    SpanContext::new(trace, id, flags, false, parent.trace_state().clone())
}

const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Preprocess => "preprocess",
        Phase::Queue => "queue",
        Phase::Inference => "inference",
        Phase::Postprocess => "postprocess",
    }
}

fn of_phase(stretch: &Stretch, story: &Story) -> Vec<KeyValue> {
    let rows = story.batch.filter(|_| stretch.phase == Phase::Inference);
    rows.map(rows_of_run).into_iter().collect()
}

fn rows_of_run(rows: usize) -> KeyValue {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    KeyValue::new("ortolan.run.rows", rows)
}

fn of_answer(span: &mut SpanData, call: Call, trail: &Trail, story: &Story) {
    let attributes = &mut span.attributes;
    let id = trail.head.id.to_str().unwrap_or_default();
    attributes.push(KeyValue::new("ortolan.request.id", id.to_owned()));
    if let Some(prediction) = &story.prediction {
        let protocol = prediction.protocol.as_str();
        attributes.push(KeyValue::new("ortolan.protocol", protocol));
        if !prediction.model.is_empty() {
            let of = |name, text: &str| KeyValue::new(name, text.to_owned());
            attributes.push(of("ortolan.model.name", &prediction.model));
            attributes.push(of("ortolan.model.version", &prediction.version));
        }
    }
    attributes.extend(story.batch.map(rows_of_run));
    let Some(code) = story.final_code() else {
        return;
    };
    let fault = match call {
        Call::Rest(_) => {
            let number = KeyValue::new("http.response.status_code", i64::from(code));
            attributes.push(number);
            (code >= 500).then(|| code.to_string())
        }
        Call::Grpc(_) | Call::Streamed => {
            let Some(name) = grpc_name(code) else {
                return;
            };
            attributes.push(KeyValue::new("rpc.response.status_code", name));
            is_fault_of_server(code).then(|| name.to_owned())
        }
    };
    if let Some(fault) = fault {
        attributes.push(KeyValue::new("error.type", fault));
        span.status = Status::error("");
    }
}

/// gRPC's own names.
fn grpc_name(code: u16) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied()
}

/// As the conventions have it for servers: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const fn is_fault_of_server(code: u16) -> bool {
    matches!(code, 2 | 4 | 12..=15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_was_asked_over_what() {
        let request = Request::post("/v2/models/m/infer")
            .header("host", "models.example:8080")
            .header("user-agent", "x".repeat(1000))
            .body(())
            .unwrap();
        let attributes = of_head(
            Call::Rest("POST /v2/models/{model}/infer"),
            "https",
            &request,
        );
        let found = |name: &str| {
            let mut found = attributes.iter().filter(|pair| pair.key.as_str() == name);
            found.next().map(|pair| pair.value.to_string())
        };
        for (name, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/v2/models/{model}/infer"),
            ("url.scheme", "https"),
            ("url.path", "/v2/models/m/infer"),
            ("network.protocol.version", "1.1"),
            ("server.address", "models.example"),
            ("server.port", "8080"),
        ] {
            assert_eq!(found(name).as_deref(), Some(value), "{name}");
        }
        let agent = found("user_agent.original").unwrap();
        assert_eq!(agent.len(), LONGEST_TEXT);
    }

    #[test]
    fn grpcs_codes_have_grpcs_names_and_what_a_client_did_wrong_is_no_fault() {
        for (code, name, is_fault) in [
            (0, Some("OK"), false),
            (3, Some("INVALID_ARGUMENT"), false),
            (4, Some("DEADLINE_EXCEEDED"), true),
            (5, Some("NOT_FOUND"), false),
            (8, Some("RESOURCE_EXHAUSTED"), false),
            (13, Some("INTERNAL"), true),
            (16, Some("UNAUTHENTICATED"), false),
            (200, None, false),
        ] {
            assert_eq!(grpc_name(code), name);
            assert_eq!(is_fault_of_server(code), is_fault, "{code}");
        }
        // By the library that the answers come from, too.
        for code in 0..17 {
            let ours: String = grpc_name(code).unwrap().replace('_', "").to_lowercase();
            let theirs = format!("{:?}", tonic::Code::from_i32(i32::from(code)));
            assert_eq!(ours, theirs.to_lowercase());
        }
    }
}
