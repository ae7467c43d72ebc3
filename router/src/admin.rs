//! The router's own paths, on an address of their own: `/metrics`, `/healthz/live`, `/healthz/ready` and `/table`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{directory::Directory, metrics::Metrics};

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    directory: Arc<Directory>,
}

/// The paths.
pub fn router(metrics: Metrics, directory: Arc<Directory>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz/live", get(|| async { "ok" }))
        .route("/healthz/ready", get(ready))
        .route("/table", get(table))
        .with_state(Shared { metrics, directory })
}

async fn metrics_text(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text())
}

/// Ready once it knows services, and until it is gone: as long as it takes requests, they are welcome.
async fn ready(State(shared): State<Shared>) -> Response {
    if shared.directory.is_ready() {
        "ok".into_response()
    } else {
        let why = "no table of services yet: neither the API server nor a last state gave one";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

/// What is routed to, as `--state` would read it.
async fn table(State(shared): State<Shared>) -> Response {
    Json(shared.directory.table().unwrap_or_default()).into_response()
}
