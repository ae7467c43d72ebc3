//! The HTTP side: paths to handlers, codes, bodies. Connections are in [`listen`].
//!
//! Inputs: requests. Outputs: answers, each error as `{"error": "…"}`. Invariants: no body is read
//! beyond its limit; a request that panics is a 500 and nothing more; what needs the model is 503
//! until the model is warm.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, Request, StatusCode, Uri, header};

use self::error::ApiError;
use crate::{
    app::{App, Serving},
    engine::{Outcome, RunError},
    metrics::Protocol,
    tensor::Tensor,
};

mod body;
pub mod error;
pub mod listen;
mod operations;
mod raw;
mod v1;
mod v2;

type Shared = State<Arc<App>>;
type Answer = Result<Response, ApiError>;

/// Every path of the server.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(operations::page))
        .route("/metrics", get(operations::metrics))
        .route("/healthz/live", get(operations::live))
        .route("/healthz/ready", get(operations::ready))
        .route("/healthz/startup", get(operations::startup))
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(operations::live_v2))
        .route("/v2/health/ready", get(operations::ready_v2))
        .route("/v2/models/{model}", get(model_metadata))
        .route(
            "/v2/models/{model}/versions/{version}",
            get(version_metadata),
        )
        .route("/v2/models/{model}/ready", get(model_ready))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(version_ready),
        )
        .route("/v2/models/{model}/infer", post(infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(infer_version),
        )
        .route("/v1/models/{model}", get(v1_status).post(v1_predict))
        .route("/predict/{model}", post(predict))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is no path {}; GET / lists the paths", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(request: Request<Body>) -> ApiError {
    let message = format!(
        "{} does not answer {}",
        request.uri().path(),
        request.method()
    );
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

fn json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn unknown_model(app: &App, name: &str, version: Option<&str>) -> ApiError {
    let message = match version {
        Some(version) if name == app.name => {
            format!(
                "the model {name:?} has no version {version:?}; it has {:?}",
                app.version
            )
        }
        _ => format!("there is no model {name:?}; this server has {:?}", app.name),
    };
    ApiError::new(StatusCode::NOT_FOUND, message)
}

/// The model, if that is its name and it is ready.
fn find<'a>(app: &'a App, name: &str, version: Option<&str>) -> Result<&'a Serving, ApiError> {
    if name != app.name || version.is_some_and(|version| version != app.version) {
        return Err(unknown_model(app, name, version));
    }
    app.serving.get().ok_or_else(|| {
        let phase = app.startup.snapshot().phase;
        ApiError::unavailable(format!(
            "the model {name:?} is not ready yet; phase: {phase}"
        ))
    })
}

/// Queues tensors and counts what came of it.
async fn run(app: &App, serving: &Serving, tensors: Vec<Tensor>) -> Result<Outcome, ApiError> {
    let inputs: Result<Vec<_>, _> = tensors.into_iter().map(Tensor::into_ort).collect();
    // Numbers were checked; what is left is a string with a NUL, which ONNX Runtime cannot take.
    let inputs = inputs.map_err(|error| {
        ApiError::bad(format!(
            "ONNX Runtime does not take these inputs: {}",
            error.message()
        ))
    })?;
    match serving.engine.run(inputs).await {
        Ok(outcome) => {
            app.metrics.ran(outcome.queued, outcome.ran);
            Ok(outcome)
        }
        Err(error) => {
            match &error {
                RunError::Busy { .. } => app.metrics.rejected("queue_full"),
                RunError::Stopping => app.metrics.rejected("stopping"),
                RunError::Failed(_) | RunError::Panicked => tracing::error!("{error}"),
                RunError::Refused(_) => {}
            }
            Err(error.into())
        }
    }
}

/// Counts and times a prediction.
async fn counted(app: &App, protocol: Protocol, work: impl Future<Output = Answer>) -> Response {
    let start = Instant::now();
    let guard = app.metrics.begin();
    let response = work.await.into_response();
    drop(guard);
    app.metrics
        .answered(protocol, response.status().as_u16(), start.elapsed());
    response
}

async fn server_metadata() -> Response {
    json(v2::server_metadata().to_string())
}

async fn model_metadata(State(app): Shared, Path(model): Path<String>) -> Answer {
    let serving = find(&app, &model, None)?;
    Ok(json(v2::model_metadata(&app, serving).to_string()))
}

async fn version_metadata(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    let serving = find(&app, &model, Some(&version))?;
    Ok(json(v2::model_metadata(&app, serving).to_string()))
}

async fn model_ready(State(app): Shared, Path(model): Path<String>) -> Answer {
    find(&app, &model, None)?;
    Ok(ready_answer(&app))
}

async fn version_ready(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    find(&app, &model, Some(&version))?;
    Ok(ready_answer(&app))
}

fn ready_answer(app: &App) -> Response {
    json(serde_json::json!({ "name": app.name, "ready": true }).to_string())
}

async fn infer(State(app): Shared, Path(model): Path<String>, request: Request<Body>) -> Response {
    counted(&app, Protocol::V2, infer_any(&app, &model, None, request)).await
}

async fn infer_version(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    counted(
        &app,
        Protocol::V2,
        infer_any(&app, &model, Some(&version), request),
    )
    .await
}

async fn infer_any(
    app: &App,
    model: &str,
    version: Option<&str>,
    request: Request<Body>,
) -> Answer {
    let serving = find(app, model, version)?;
    refuse_encodings(&request)?;
    if request
        .headers()
        .contains_key("inference-header-content-length")
    {
        return Err(ApiError::unsupported(
            "binary tensor data is not read here; send the tensors as JSON, without the header \
             Inference-Header-Content-Length",
        ));
    }
    let body = body::read(request.into_body(), app.max_body).await?;
    Ok(json(v2::infer(app, serving, &body).await?))
}

/// Compressed bodies are not unpacked: say so instead of calling them malformed.
fn refuse_encodings(request: &Request<Body>) -> Result<(), ApiError> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::unsupported(format!(
            "the body has the content encoding {encoding:?}; send it as it is"
        ))),
        _ => Ok(()),
    }
}

async fn v1_status(State(app): Shared, Path(model): Path<String>) -> Answer {
    if model != app.name {
        return Err(unknown_model(&app, &model, None));
    }
    Ok(json(v1::status(&app).to_string()))
}

/// `/v1/models/NAME:predict`: the router cannot split a segment, so it is split here.
async fn v1_predict(
    State(app): Shared,
    Path(path): Path<String>,
    request: Request<Body>,
) -> Response {
    let Some((model, verb)) = path.rsplit_once(':') else {
        let message = format!("POST goes to /v1/models/{path}:predict");
        return ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
    };
    if verb != "predict" {
        let message = format!("there is no verb {verb:?}; POST goes to /v1/models/{model}:predict");
        return ApiError::new(StatusCode::NOT_FOUND, message).into_response();
    }
    let work = async {
        let serving = find(&app, model, None)?;
        refuse_encodings(&request)?;
        let body = body::read(request.into_body(), app.max_body).await?;
        Ok(json(v1::predict(&app, serving, &body).await?))
    };
    counted(&app, Protocol::V1, work).await
}

async fn predict(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response {
    let work = async {
        let serving = find(&app, &model, None)?;
        refuse_encodings(&request)?;
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let kind = kind.as_ref().map(|kind| kind.to_str().unwrap_or_default());
        raw::check_kind(serving, kind)?;
        let body = body::read(request.into_body(), app.max_body).await?;
        Ok(json(raw::predict(&app, serving, kind, body).await?))
    };
    counted(&app, Protocol::Raw, work).await
}
