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
};
use http::{HeaderValue, Request, StatusCode, Uri, header};

use self::{error::ApiError, paths::Paths};
use crate::{
    app::App,
    catalog::FindError,
    deadline,
    grpc::Arrived,
    metrics::{Protocol, Rejection},
    model::Model,
};

mod body;
pub mod coding;
pub mod dispatch;
mod embeddings;
pub mod error;
pub mod listen;
mod object;
mod openapi;
mod operations;
mod paths;
mod patience;
mod raw;
mod repository;
pub mod request_id;
mod v1;
mod v2;
mod wire;

type Shared = State<Arc<App>>;
type Answer = Result<Response, ApiError>;

/// Every path of the server.
pub fn router(app: Arc<App>) -> Router {
    paths()
        .into_router()
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// What is answered. `openapi` describes each of these, and its tests see to that.
fn paths() -> Paths {
    let paths = Paths::default()
        .get("/", operations::page)
        .get("/metrics", operations::metrics)
        .get("/openapi.json", openapi::document)
        .get("/healthz/live", operations::live)
        .get("/healthz/ready", operations::ready)
        .get("/healthz/startup", operations::startup)
        .get("/v1/models/{model}", v1_status)
        .post_as(
            "/v1/models/{model}",
            "/v1/models/{model}:predict",
            v1_predict,
        )
        .post("/v1/embeddings", embeddings::embeddings)
        .post("/predict/{model}", predict);
    paths_v2(paths)
}

fn paths_v2(paths: Paths) -> Paths {
    const MODEL: &str = "/v2/models/{model}";
    const VERSION: &str = "/v2/models/{model}/versions/{version}";
    let below = |base: &str, path: &str| format!("{base}/{path}");
    paths
        .get("/v2", v2::server_metadata)
        .get("/v2/", v2::server_metadata)
        .get("/v2/health/live", operations::live_v2)
        .get("/v2/health/ready", operations::ready_v2)
        .get("/v2/models/stats", v2::all_statistics)
        .get(MODEL, v2::model_metadata)
        .get(VERSION, v2::version_metadata)
        .get(&below(MODEL, "ready"), v2::model_ready)
        .get(&below(VERSION, "ready"), v2::version_ready)
        .get(&below(MODEL, "config"), v2::model_config)
        .get(&below(VERSION, "config"), v2::version_config)
        .get(&below(MODEL, "stats"), v2::model_statistics)
        .get(&below(VERSION, "stats"), v2::version_statistics)
        .post(&below(MODEL, "infer"), v2::infer)
        .post(&below(VERSION, "infer"), v2::infer_version)
        .post("/v2/repository/index", repository::index)
        .post("/v2/repository/models/{model}/load", repository::load)
        .post("/v2/repository/models/{model}/unload", repository::unload)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is no path {}; GET / lists the paths", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(request: Request<Body>) -> Response {
    let path = request.uri().path();
    let message = format!("{path} does not answer {}", request.method());
    let mut response = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
    // The router knows one path where there are two: a model's state, and its verb.
    if let Some(name) = path.strip_prefix("/v1/models/") {
        let allowed = if name.contains(':') {
            "POST"
        } else {
            "GET,HEAD"
        };
        let allowed = HeaderValue::from_static(allowed);
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
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
        Ok(model) => match app.admission.enter() {
            Ok(_admitted) => work(model).await.into_response(),
            Err(crowded) => {
                meter.rejected(Rejection::Concurrency);
                ApiError::from(crowded).into_response()
            }
        },
        Err(error) => ApiError::from(error).into_response(),
    };
    drop(guard);
    meter.answered(protocol, response.status().as_u16(), start.elapsed());
    response
}

async fn v1_status(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Answer {
    if model.contains(':') {
        return Ok(wrong_method(request).await);
    }
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
        return wrong_method(request).await;
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
        let form = raw::form(&model, kind)?;
        let timeout = deadline::of_rest(request.headers()).map_err(ApiError::bad)?;
        let until = deadline::earliest(arrived(&request), [timeout]);
        let body = body::receive(request, app.max_body).await?;
        Ok(json(raw::predict(&app, &model, form, body, until).await?))
    };
    counted(&app, Protocol::Raw, found, work).await
}
