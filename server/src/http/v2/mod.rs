//! The Open Inference Protocol V2 over REST, with Triton's extensions.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::Request;

use self::request::Form;
use super::{Answer, Shared, body, counted, error::ApiError};
use crate::{app::App, deadline, infer, metrics::Protocol, model::Model, oip};

mod answer;
mod describe;
pub(crate) mod request;

pub(super) use self::describe::{
    all_statistics, model_config, model_metadata, model_ready, model_statistics, server_metadata,
    version_config, version_metadata, version_ready, version_statistics,
};

/// `POST /v2/models/{model}/infer`
pub(super) async fn infer(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response {
    let found = app.catalog.find(&model, None);
    let work = |model| run(&app, model, request);
    counted(&app, Protocol::V2, found, work).await
}

/// `POST /v2/models/{model}/versions/{version}/infer`
pub(super) async fn infer_version(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let found = app.catalog.find(&model, Some(&version));
    let work = |model| run(&app, model, request);
    counted(&app, Protocol::V2, found, work).await
}

async fn run(app: &App, model: Arc<Model>, request: Request<Body>) -> Answer {
    let since = super::arrived(&request);
    let timeout = deadline::of_rest(request.headers()).map_err(ApiError::bad)?;
    let form = Form::of(request.headers())?;
    let body = body::receive(request, app.max_body).await?;
    let start = Instant::now();
    let asked = request::read(&body, form, &model.signature)?;
    drop(body);
    model.meter.preprocessed(start.elapsed());
    let deadline = deadline::earliest(since, [timeout, asked.parameters.timeout]);
    let inference = oip::inference(asked.inputs, &asked.wanted, &asked.parameters, deadline);
    let outcome = infer::run(app, &model, inference).await?;
    let start = Instant::now();
    let answered = answer::write(&model, asked.id.as_deref(), &asked.wanted, &outcome)?;
    model.meter.postprocessed(start.elapsed());
    Ok(answered)
}
