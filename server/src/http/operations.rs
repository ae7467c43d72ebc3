//! Health, metrics and the page that tells a visitor where to go.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{Answer, Shared, error::ApiError, json};
use crate::{
    app::App,
    catalog::{Listed, State as Standing},
    model::Model,
    repository::Keeper,
};

/// What `prometheus-client` writes.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) async fn live() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(app): Shared) -> Answer {
    match app.catalog.is_open() {
        true => Ok("ok\n".into_response()),
        false => Err(not_ready(&app)),
    }
}

fn not_ready(app: &App) -> ApiError {
    if let Some(failure) = app.repository().and_then(Keeper::first_failure) {
        return ApiError::unavailable(format!("not ready: {failure}"));
    }
    ApiError::unavailable(format!(
        "not ready yet; phase: {}",
        app.startup.snapshot().phase
    ))
}

pub(super) async fn live_v2() -> Response {
    json(json!({ "live": true }).to_string())
}

pub(super) async fn ready_v2(State(app): Shared) -> Answer {
    match app.catalog.is_open() {
        true => Ok(json(json!({ "ready": true }).to_string())),
        false => Err(not_ready(&app)),
    }
}

/// 200 with all that is known of the models when ready, 503 with the phases until then. A server of one
/// model tells of it at the top, one of a repository lists all of its models.
pub(super) async fn startup(State(app): Shared) -> Response {
    let snapshot = app.startup.snapshot();
    let is_ready = app.catalog.is_open();
    let mut body = match app.catalog.models().as_slice() {
        [model] if is_ready && app.repository().is_none() => described(model),
        _ => json!({}),
    };
    if app.repository().is_some() {
        let listed = app.catalog.list();
        body["models"] = listed.iter().map(state_of).collect();
        if let Some(digest) = app.digest.get() {
            body["digest"] = digest.to_string().into();
        }
    }
    if let (Some(body), serde_json::Value::Object(phases)) = (body.as_object_mut(), json!(snapshot))
    {
        body.extend(phases);
    }
    let mut response = json(body.to_string());
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn state_of(listed: &Listed) -> serde_json::Value {
    let (state, mut body) = match &listed.state {
        Standing::Ready(model) => ("READY", described(model)),
        Standing::Loading(startup) => ("LOADING", json!(startup.snapshot())),
        Standing::Failed(reason) => ("UNAVAILABLE", json!({ "reason": reason })),
    };
    if body.get("model").is_none() {
        body["model"] = json!({ "name": listed.name, "version": listed.version });
    }
    body["state"] = state.into();
    body
}

fn described(model: &Model) -> serde_json::Value {
    let signature = &model.signature;
    let mut body = json!({
        "digest": model.digest.to_string(),
        "model": {
            "name": model.name,
            "version": model.version,
            "inputs": signature.inputs,
            "outputs": signature.outputs,
            "opset": signature.opset,
        },
        "provider": {
            "requested": model.requested.as_str(),
            "active": model.active.as_str(),
        },
        "sessions": model.sessions,
        "threads": model.threads,
    });
    if let Some(graph) = &model.graph {
        body["optimizedGraph"] = graph.to_string().into();
    }
    body
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
    let state = app.startup.snapshot().phase;
    let mut paths = vec![
        ("GET  /v2".to_owned(), "the server"),
        (
            "GET  /v2/health/live, /v2/health/ready".to_owned(),
            "its health",
        ),
        (
            "POST /v2/repository/index".to_owned(),
            "the models and their states",
        ),
        ("GET  /metrics".to_owned(), "OpenMetrics"),
        (
            "GET  /openapi.json".to_owned(),
            "all of this as an OpenAPI document",
        ),
        (
            "GET  /healthz/live, ready, startup".to_owned(),
            "probes; startup tells what was loaded",
        ),
    ];
    let models = app.catalog.models();
    for model in &models {
        paths.extend(paths_of(model));
    }
    let width = paths.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let lines: Vec<String> = paths
        .iter()
        .map(|(path, what)| format!("{path:width$}  {what}\n"))
        .collect();
    let names: Vec<String> = models
        .iter()
        .map(|model| format!("{}, version {}", model.name, model.version))
        .collect();
    let served = match names.as_slice() {
        [] => "no model".to_owned(),
        [name] => format!("the ONNX model {name}"),
        names => format!("the ONNX models {}", names.join("; ")),
    };
    format!(
        "Ortolan serves {served}. State: {state}\n\n{}",
        lines.concat()
    )
}

fn paths_of(model: &Model) -> Vec<(String, &'static str)> {
    let name = &model.name;
    let mut paths = vec![
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
    ];
    if let Some(pipeline) = &model.pipeline {
        paths.push((format!("POST /predict/{name}"), pipeline.reader.what()));
    }
    paths
}
