//! Health, metrics and the page that tells a visitor where to go.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{Answer, Shared, error::ApiError, json};
use crate::app::App;

/// What `prometheus-client` writes.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) async fn live() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(app): Shared) -> Answer {
    match app.serving.get() {
        Some(_) => Ok("ok\n".into_response()),
        None => Err(not_ready(&app)),
    }
}

fn not_ready(app: &App) -> ApiError {
    ApiError::unavailable(format!(
        "not ready yet; phase: {}",
        app.startup.snapshot().phase
    ))
}

pub(super) async fn live_v2() -> Response {
    json(json!({ "live": true }).to_string())
}

pub(super) async fn ready_v2(State(app): Shared) -> Answer {
    match app.serving.get() {
        Some(_) => Ok(json(json!({ "ready": true }).to_string())),
        None => Err(not_ready(&app)),
    }
}

/// 200 with all that is known of the model when ready, 503 with the phases until then.
pub(super) async fn startup(State(app): Shared) -> Response {
    let snapshot = app.startup.snapshot();
    let Some(serving) = app.serving.get() else {
        let body = json!(snapshot).to_string();
        let mut response = json(body);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    let signature = &serving.engine.signature;
    let body = json!({
        "phase": "Ready",
        "digest": serving.digest.to_string(),
        "model": {
            "name": app.name,
            "version": app.version,
            "inputs": signature.inputs,
            "outputs": signature.outputs,
            "opset": signature.opset,
        },
        "provider": {
            "requested": serving.requested.as_str(),
            "active": serving.engine.active.as_str(),
        },
        "sessions": serving.sessions,
        "threads": serving.threads,
        "phases": snapshot.phases,
    });
    json(body.to_string())
}

pub(super) async fn metrics(State(app): Shared) -> Answer {
    let text = app
        .metrics
        .render(&app)
        .map_err(|error| ApiError::internal(format!("cannot write the metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// One page: what this is and what it answers.
pub(super) async fn page(State(app): Shared) -> String {
    let (name, version) = (&app.name, &app.version);
    let state = app.startup.snapshot().phase;
    let mut paths = vec![
        ("GET  /v2".to_owned(), "the server"),
        (
            "GET  /v2/health/live, /v2/health/ready".to_owned(),
            "its health",
        ),
        (
            format!("GET  /v2/models/{name}"),
            "the model's inputs and outputs",
        ),
        (format!("GET  /v2/models/{name}/ready"), "its readiness"),
        (
            format!("POST /v2/models/{name}/infer"),
            "tensors as JSON, Open Inference Protocol V2",
        ),
        (format!("GET  /v1/models/{name}"), "its state, V1"),
        (
            format!("POST /v1/models/{name}:predict"),
            "{\"instances\": [...]}, V1",
        ),
        ("GET  /metrics".to_owned(), "OpenMetrics"),
        (
            "GET  /healthz/live, ready, startup".to_owned(),
            "probes; startup tells what was loaded",
        ),
    ];
    if app
        .serving
        .get()
        .is_some_and(|serving| serving.pipeline.is_some())
    {
        paths.push((
            format!("POST /predict/{name}"),
            "a photograph: curl --data-binary @photo.jpg",
        ));
    }
    let width = paths.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let lines: Vec<String> = paths
        .iter()
        .map(|(path, what)| format!("{path:width$}  {what}\n"))
        .collect();
    format!(
        "Ortolan serves the ONNX model {name}, version {version}. State: {state}\n\n{}",
        lines.concat()
    )
}
