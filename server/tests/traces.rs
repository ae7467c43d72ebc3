//! Traces of a running server, as a receiver in this process gets them: no collector, but what is sent to one, decoded
//! with OpenTelemetry's own messages.

#![cfg(feature = "otlp")]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    io::Read,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use futures::{StreamExt, stream};
use http::HeaderMap;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use ortolan_server::grpc::proto::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use prost::Message;
use serde_json::json;
use support::{
    Server, fails,
    grpc::{floats, raw},
    onnx, wait_for_metric, written,
};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

const BODY: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}"#;
const INFER: &str = "/v2/models/m/infer";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const PHASES: [&str; 4] = ["preprocess", "queue", "inference", "postprocess"];

/// What came: the head and the message of each batch.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>);

async fn take(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    let mut message = Vec::new();
    match headers.get("content-encoding") {
        Some(_) => {
            let mut unpacked = flate2::read::GzDecoder::new(&*body);
            unpacked.read_to_end(&mut message).unwrap();
        }
        None => message.extend_from_slice(&body),
    }
    let message = ExportTraceServiceRequest::decode(&*message).unwrap();
    received.0.lock().unwrap().push((headers, message));
}

impl Received {
    fn spans(&self) -> Vec<Span> {
        let batches = self.0.lock().unwrap();
        let resources = batches.iter().flat_map(|(_, batch)| &batch.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// Its address and what it gets.
async fn receiver() -> (String, Received) {
    let received = Received::default();
    let app = Router::new()
        .route("/v1/traces", post(take))
        .with_state(received.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), received)
}

async fn traced(options: &[&str]) -> (Server, Received) {
    let (endpoint, received) = receiver().await;
    let options = [&["--otlp-endpoint", &endpoint, "--max-batch", "1"], options].concat();
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    (Server::start(&model, &options).await, received)
}

async fn ask(server: &Server, path: &str, body: &'static str, headers: &[(&str, &str)]) -> u16 {
    let mut request = reqwest::Client::new().post(server.url(path)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let code = response.status().as_u16();
    response.bytes().await.unwrap();
    code
}

/// Ends the server, which sends what it has, and gives what came.
async fn sent(server: &mut Server, received: &Received) -> Vec<Span> {
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(10)).await.success());
    received.spans()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn found(attributes: &[KeyValue], name: &str) -> Option<String> {
    let mut named = attributes.iter().filter(|pair| pair.key == name);
    let pair = named.next()?;
    assert!(named.next().is_none(), "{name} stands there twice");
    match pair.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    found(&span.attributes, name)
}

fn has(span: &Span, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        let found = attribute(span, name);
        assert_eq!(found.as_deref(), Some(*value), "{name} of {span:?}");
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn is_error(span: &Span) -> bool {
    let status = span.status.as_ref();
    status.is_some_and(|status| status.code() == StatusCode::Error)
}

/// Each phase once, below its request, in its time, one after the other.
fn has_phases(spans: &[Span], request: &Span) {
    let mut since = request.start_time_unix_nano;
    for phase in PHASES {
        let all = named(spans, phase);
        let mut below = all
            .into_iter()
            .filter(|span| span.parent_span_id == request.span_id);
        let span = below.next().unwrap_or_else(|| panic!("{phase}: {spans:?}"));
        assert!(below.next().is_none(), "{phase} twice");
        assert_eq!(span.trace_id, request.trace_id, "{phase}");
        assert_eq!(span.kind(), SpanKind::Internal);
        assert!(span.start_time_unix_nano >= since, "{phase}: {spans:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        since = span.start_time_unix_nano;
        assert!(span.end_time_unix_nano <= request.end_time_unix_nano);
    }
}

#[tokio::test]
async fn a_request_that_its_caller_traces_is_a_span_below_the_callers_with_its_phases_below() {
    let (mut server, received) = traced(&["--trace-ratio", "0"]).await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [
        ("traceparent", &*traceparent),
        ("tracestate", "vendor=1,other=2"),
        ("x-request-id", "the-7th"),
        ("user-agent", "tester/1"),
    ];
    assert_eq!(ask(&server, INFER, BODY, &headers).await, 200);
    let port = server.base.rsplit(':').next().unwrap().to_owned();
    let spans = sent(&mut server, &received).await;
    assert_eq!(spans.len(), 5, "{spans:?}");
    let request = named(&spans, "POST /v2/models/{model}/infer")[0];
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), PARENT);
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(request.trace_state, "vendor=1,other=2");
    has(
        request,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/v2/models/{model}/infer"),
            ("http.response.status_code", "200"),
            ("url.path", INFER),
            ("url.scheme", "http"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "tester/1"),
            ("ortolan.request.id", "the-7th"),
            ("ortolan.protocol", "v2"),
            ("ortolan.model.name", "m"),
            ("ortolan.model.version", "1"),
            ("ortolan.run.rows", "2"),
        ],
    );
    assert!(!is_error(request));
    has_phases(&spans, request);
    has(named(&spans, "inference")[0], &[("ortolan.run.rows", "2")]);
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), 5, "each span has an id of its own");
}

#[tokio::test]
async fn what_a_caller_does_not_trace_is_not_traced_and_what_it_says_badly_begins_anew() {
    let (mut server, received) = traced(&[]).await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    ask(&server, INFER, BODY, &[("traceparent", &unsampled)]).await;
    for malformed in [
        "00-nonsense".to_owned(),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
    ] {
        ask(&server, INFER, BODY, &[("traceparent", &malformed)]).await;
    }
    ask(&server, INFER, BODY, &[]).await;
    let spans = sent(&mut server, &received).await;
    let requests = named(&spans, "POST /v2/models/{model}/infer");
    assert_eq!(requests.len(), 4, "{spans:?}");
    for request in &requests {
        assert!(request.parent_span_id.is_empty(), "{request:?}");
        assert_ne!(hex(&request.trace_id), TRACE);
        has_phases(&spans, request);
    }
    let traces: std::collections::BTreeSet<_> = requests.iter().map(|r| &r.trace_id).collect();
    assert_eq!(traces.len(), 4);
    let (mut silent, none) = traced(&["--trace-ratio", "0"]).await;
    ask(&silent, INFER, BODY, &[]).await;
    assert_eq!(sent(&mut silent, &none).await, []);
}

#[tokio::test]
async fn every_way_to_a_model_is_traced_and_nothing_else_is() {
    let (mut server, received) = traced(&[]).await;
    let rows = r#"{"instances":[[1,2]]}"#;
    let text = r#"{"model":"m","input":"x"}"#;
    let mut expected = Vec::new();
    for (path, body, code, route) in [
        (INFER, BODY, 200, "/v2/models/{model}/infer"),
        (INFER, "{", 400, "/v2/models/{model}/infer"),
        (
            "/v2/models/other/infer",
            BODY,
            404,
            "/v2/models/{model}/infer",
        ),
        (
            "/v2/models/m/versions/1/infer",
            BODY,
            200,
            "/v2/models/{model}/versions/{version}/infer",
        ),
        (
            "/v1/models/m:predict",
            rows,
            200,
            "/v1/models/{model}:predict",
        ),
        ("/v1/embeddings", text, 400, "/v1/embeddings"),
        ("/predict/m", "x", 415, "/predict/{model}"),
    ] {
        assert_eq!(ask(&server, path, body, &[]).await, code, "{path}");
        expected.push((route.to_owned(), code.to_string()));
    }
    for path in ["/", "/metrics", "/v2/models/m", "/healthz/ready"] {
        server.get(path).await;
    }
    let spans = sent(&mut server, &received).await;
    let requests = spans.iter().filter(|span| span.kind() == SpanKind::Server);
    let mut seen: Vec<_> = requests
        .map(|span| {
            assert!(!is_error(span), "the client's mistake: {span:?}");
            let code = attribute(span, "http.response.status_code").unwrap();
            (attribute(span, "http.route").unwrap(), code)
        })
        .collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(named(&spans, "inference").len(), 3, "{spans:?}");
}

fn grpc_request(rows: u8) -> ModelInferRequest {
    let values: Vec<f32> = (0..rows * 2).map(f32::from).collect();
    raw("FP32", &[rows.into(), 2], floats(&values))
}

#[tokio::test]
async fn a_call_is_a_span_of_rpc_and_a_stream_has_one_below_for_each_of_its_requests() {
    let (mut server, received) = traced(&["--trace-ratio", "0"]).await;
    let channel = Endpoint::from_shared(server.base.clone()).unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.connect().await.unwrap());
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    fn with<T>(body: T, traceparent: &str) -> tonic::Request<T> {
        let mut request = tonic::Request::new(body);
        let value = traceparent.parse().unwrap();
        request.metadata_mut().insert("traceparent", value);
        request
    }
    let call = with(grpc_request(3), &traceparent);
    client.model_infer(call).await.unwrap();
    let unknown = ModelInferRequest {
        model_name: "other".into(),
        ..grpc_request(1)
    };
    let call = with(unknown, &traceparent);
    client.model_infer(call).await.unwrap_err();
    let requests = stream::iter([1, 2].map(grpc_request));
    let answers = client.model_stream_infer(with(requests, &traceparent));
    assert_eq!(answers.await.unwrap().into_inner().count().await, 2);
    drop(client);
    let spans = sent(&mut server, &received).await;
    let calls = named(&spans, "inference.GRPCInferenceService/ModelInfer");
    let codes: Vec<_> = calls
        .iter()
        .map(|span| attribute(span, "rpc.response.status_code").unwrap())
        .collect();
    assert_eq!(codes, ["OK", "NOT_FOUND"]);
    has(
        calls[0],
        &[
            ("rpc.system.name", "grpc"),
            ("rpc.method", "inference.GRPCInferenceService/ModelInfer"),
            ("network.protocol.version", "2"),
            ("ortolan.protocol", "grpc"),
            ("ortolan.model.name", "m"),
            ("ortolan.run.rows", "3"),
        ],
    );
    has_phases(&spans, calls[0]);
    let streams = named(&spans, "inference.GRPCInferenceService/ModelStreamInfer");
    has(streams[0], &[("rpc.response.status_code", "OK")]);
    for server_span in [calls[0], calls[1], streams[0]] {
        assert_eq!(server_span.kind(), SpanKind::Server);
        assert_eq!(hex(&server_span.parent_span_id), PARENT);
    }
    let requests = named(&spans, "request");
    assert_eq!((streams.len(), requests.len()), (1, 2), "{spans:?}");
    for request in requests {
        assert_eq!(request.parent_span_id, streams[0].span_id);
        has(
            request,
            &[
                ("ortolan.model.name", "m"),
                ("rpc.response.status_code", "OK"),
            ],
        );
        has_phases(&spans, request);
    }
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[tokio::test]
async fn the_environment_of_all_programs_is_followed_where_no_option_says_otherwise() {
    let (endpoint, received) = receiver().await;
    let (dir, path) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    let before = format!(
        "export OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_SERVICE_NAME=birds HOSTNAME=pod-7 \
         OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test OTEL_TRACES_SAMPLER=always_on \
         OTEL_EXPORTER_OTLP_HEADERS=authorization=secret OTEL_EXPORTER_OTLP_COMPRESSION=gzip"
    );
    let mut server = Server::start_limited(dir, &path, &["--max-batch", "1"], &before).await;
    // always_on heeds no caller.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    ask(&server, INFER, BODY, &[("traceparent", &unsampled)]).await;
    assert_eq!(sent(&mut server, &received).await.len(), 5);
    let batches = received.0.lock().unwrap();
    let (headers, batch) = &batches[0];
    assert_eq!(headers["authorization"], "secret");
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let spans = &batch.resource_spans[0];
    let resource = &spans.resource.as_ref().unwrap().attributes;
    for (name, value) in [
        ("service.name", "birds"),
        ("service.instance.id", "pod-7"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "test"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(found(resource, name).as_deref(), Some(value), "{name}");
    }
    let scope = spans.scope_spans[0].scope.as_ref().unwrap();
    assert_eq!(scope.name, "ortolan-server");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_one_warning_and_no_request() {
    let (dir, path) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    // Port 9 answers nobody here.
    let options = ["--otlp-endpoint", "http://127.0.0.1:9", "--max-batch", "1"];
    let before = "export OTEL_BSP_SCHEDULE_DELAY=20";
    let mut server = Server::start_limited(dir, &path, &options, before).await;
    let is_warned = |log: &str| log.contains("traces cannot be sent");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut after = 0;
    // On after the warning, for as many batches as would make many more.
    while after < 100 {
        assert_eq!(ask(&server, INFER, BODY, &[]).await, 200);
        after += usize::from(is_warned(&server.log()));
        assert!(Instant::now() < deadline, "{}", server.log());
    }
    server.signal("TERM");
    let asked = Instant::now();
    assert!(server.ended(Duration::from_secs(10)).await.success());
    let log = server.log();
    assert!(asked.elapsed() < Duration::from_secs(6), "{log}");
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
    assert!(log.contains("Connection refused"), "{log}");
    assert!(log.contains("spans were lost"), "{log}");
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            came.send(connection).unwrap();
        }
    });
    let (dir, path) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    let options = ["--otlp-endpoint", &*endpoint, "--max-batch", "1"];
    let before = "export OTEL_BSP_SCHEDULE_DELAY=20 OTEL_BSP_MAX_QUEUE_SIZE=20";
    let mut server = Server::start_limited(dir, &path, &options, before).await;
    assert_eq!(ask(&server, INFER, BODY, &[]).await, 200);
    let _held = comes.recv().await.unwrap();
    // Five spans a request: far more than there are places.
    for _ in 0..50 {
        assert_eq!(ask(&server, INFER, BODY, &[]).await, 200);
    }
    server.signal("TERM");
    let asked = Instant::now();
    assert!(server.ended(Duration::from_secs(10)).await.success());
    assert!(asked.elapsed() < Duration::from_secs(6), "{}", server.log());
    let log = server.log();
    assert!(log.contains("the last traces were not sent"), "{log}");
}

#[tokio::test]
async fn what_the_server_does_not_serve_is_an_error_and_who_left_has_no_code() {
    let (endpoint, received) = receiver().await;
    let options = ["--otlp-endpoint", &*endpoint, "--max-batch", "1"];
    let mut server = Server::start(&onnx::slow_loop(1024, 2400), &options).await;
    let body = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": vec![0.5; 1024]}
    ]});
    let asking = |timeout: &'static str| {
        reqwest::Client::new()
            .post(server.url(INFER))
            .header("x-request-timeout", timeout)
            .body(body.to_string())
            .send()
    };
    let late = asking("1ms").await.unwrap();
    assert_eq!(late.status(), 504);
    let begun = "ortolan_in_flight{model=\"m\",version=\"1\"} 1\n";
    tokio::select! {
        answered = asking("60s") => panic!("the test needs a slower model: {answered:?}"),
        () = wait_for_metric(&server, begun) => {}
    }
    let spans = sent(&mut server, &received).await;
    let requests = named(&spans, "POST /v2/models/{model}/infer");
    assert_eq!(requests.len(), 2, "{spans:?}");
    let codes = ["http.response.status_code", "error.type"];
    let of = |span: &Span| codes.map(|code| attribute(span, code));
    assert_eq!(of(requests[0]), [Some("504".into()), Some("504".into())]);
    assert!(is_error(requests[0]));
    assert_eq!(of(requests[1]), [None, None]);
}

#[tokio::test]
async fn log_lines_say_which_trace_they_belong_to() {
    let options = ["--access-log", "--log-format", "json"];
    let (mut server, received) = traced(&options).await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    ask(&server, INFER, BODY, &[("traceparent", &unsampled)]).await;
    ask(&server, INFER, BODY, &[]).await;
    let spans = sent(&mut server, &received).await;
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(INFER));
    let lines: Vec<serde_json::Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
    let begun_here = named(&spans, "POST /v2/models/{model}/infer")[0];
    assert_eq!(lines[0]["trace_id"], TRACE, "its caller's, traced or not");
    assert_eq!(lines[1]["trace_id"], hex(&begun_here.trace_id));
    // Without traces, too.
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let mut plain = Server::start(&model, &options).await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    ask(&plain, INFER, BODY, &[("traceparent", &traceparent)]).await;
    ask(&plain, INFER, BODY, &[]).await;
    plain.signal("TERM");
    plain.ended(Duration::from_secs(10)).await;
    let log = plain.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(INFER)).collect();
    assert!(lines[0].contains(TRACE), "{log}");
    assert!(!lines[1].contains("trace_id"), "{log}");
}

#[tokio::test]
async fn what_cannot_be_meant_ends_the_server_if_an_option_says_it_and_else_is_a_warning() {
    let ended = fails(b"", &["--otlp-endpoint", "grpc://c:4317"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("http://HOST:4318"),
        "{}",
        ended.stderr
    );
    let (dir, path) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    let before =
        "export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 OTEL_EXPORTER_OTLP_PROTOCOL=grpc";
    let server = Server::start_limited(dir, &path, &[], before).await;
    let log = server.log();
    assert!(
        log.contains("no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL"),
        "{log}"
    );
}
