//! The HTTP side: paths to handlers, codes, bodies. Connections are in [`listen`].
//!
//! Inputs: requests. Outputs: answers, each error as `{"error": "…"}`. Invariants: no body is read
//! beyond its limit; a request that panics is a 500 and nothing more; what needs a model is 503
//! until that model is warm.

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
use crate::{app::App, catalog::FindError, grpc::Arrived, metrics::Protocol, model::Model};

mod body;
pub mod coding;
pub mod dispatch;
pub mod error;
pub mod listen;
mod object;
mod operations;
mod patience;
mod raw;
pub mod request_id;
pub mod tls;
mod v1;
mod v2;
mod wire;

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
        .route("/v2", get(v2::server_metadata))
        .route("/v2/", get(v2::server_metadata))
        .route("/v2/health/live", get(operations::live_v2))
        .route("/v2/health/ready", get(operations::ready_v2))
        .merge(models_v2())
        .route("/v1/models/{model}", get(v1_status).post(v1_predict))
        .route("/predict/{model}", post(predict))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

fn models_v2() -> Router<Arc<App>> {
    const MODEL: &str = "/v2/models/{model}";
    const VERSION: &str = "/v2/models/{model}/versions/{version}";
    let below = |base: &str, path: &str| format!("{base}/{path}");
    Router::new()
        .route(MODEL, get(v2::model_metadata))
        .route(VERSION, get(v2::version_metadata))
        .route(&below(MODEL, "ready"), get(v2::model_ready))
        .route(&below(VERSION, "ready"), get(v2::version_ready))
        .route(&below(MODEL, "config"), get(v2::model_config))
        .route(&below(VERSION, "config"), get(v2::version_config))
        .route("/v2/models/stats", get(v2::all_statistics))
        .route(&below(MODEL, "stats"), get(v2::model_statistics))
        .route(&below(VERSION, "stats"), get(v2::version_statistics))
        .route(&below(MODEL, "infer"), post(v2::infer))
        .route(&below(VERSION, "infer"), post(v2::infer_version))
        .route("/v2/repository/index", post(v2::index))
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

/// When a request's head arrived.
fn arrived(request: &Request<Body>) -> Instant {
    let arrived = request.extensions().get::<Arrived>();
    arrived.map_or_else(Instant::now, |arrived| arrived.0)
}

/// Counts and times a prediction. Names that are not ours are counted together.
async fn counted(
    app: &App,
    protocol: Protocol,
    found: Result<Arc<Model>, FindError>,
    work: impl AsyncFnOnce(Arc<Model>) -> Answer,
) -> Response {
    let start = Instant::now();
    let meter = match &found {
        Ok(model) => Arc::clone(&model.meter),
        Err(_) => Arc::clone(&app.metrics.unknown),
    };
    let guard = meter.begin();
    let response = match found {
        Ok(model) => work(model).await.into_response(),
        Err(error) => ApiError::from(error).into_response(),
    };
    drop(guard);
    meter.answered(protocol, response.status().as_u16(), start.elapsed());
    response
}

async fn v1_status(State(app): Shared, Path(model): Path<String>) -> Answer {
    let ready = match app.catalog.find(&model, None) {
        Ok(_) => true,
        Err(FindError::NotReady { .. } | FindError::Failed { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(json(v1::status(&model, ready).to_string()))
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
    let found = app.catalog.find(model, None);
    let work = async |model: Arc<Model>| {
        let body = body::receive(request, app.max_body).await?;
        Ok(json(v1::predict(&app, &model, &body).await?))
    };
    counted(&app, Protocol::V1, found, work).await
}

async fn predict(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response {
    let found = app.catalog.find(&model, None);
    let work = async |model: Arc<Model>| {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let kind = kind.as_ref().map(|kind| kind.to_str().unwrap_or_default());
        raw::check_kind(&model, kind)?;
        let body = body::receive(request, app.max_body).await?;
        Ok(json(raw::predict(&app, &model, kind, body).await?))
    };
    counted(&app, Protocol::Raw, found, work).await
}
