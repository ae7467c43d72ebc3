//! The Open Inference Protocol V2 over REST, with Triton's extensions.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{Method, Request};

use self::request::Form;
use super::{Answer, Shared, arrived, body, counted, error::ApiError};
use crate::{app::App, deadline, infer, metrics::Protocol, model::Model, oip};

mod answer;
mod describe;
pub(crate) mod request;

pub(super) use self::describe::{
    all_statistics, model_config, model_metadata, model_ready, model_statistics, server_metadata,
    version_config, version_metadata, version_ready, version_statistics,
};

/// The model of a `POST /v2/models/{model}/infer` whose name stands in the path as it is: what most requests are, and
/// what need not go through the router.
pub(super) fn model_asked<B>(request: &Request<B>) -> Option<&str> {
    let path = request.uri().path();
    let model = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let is_plain = !model.is_empty() && !model.contains(['/', '%']);
    (is_plain && request.method() == Method::POST).then_some(model)
}

/// `POST /v2/models/{model}/infer`
pub(super) async fn infer(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response {
    infer_by(&app, &model, arrived(&request), request).await
}

/// The same without the router.
pub(super) async fn infer_by(
    app: &App,
    model: &str,
    arrived: Instant,
    request: Request<Body>,
) -> Response {
    let found = app.catalog.find(model, None);
    let work = |model| run(app, model, arrived, request);
    counted(app, Protocol::V2, found, work).await
}

/// `POST /v2/models/{model}/versions/{version}/infer`
pub(super) async fn infer_version(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let found = app.catalog.find(&model, Some(&version));
    let arrived = arrived(&request);
    let work = |model| run(&app, model, arrived, request);
    counted(&app, Protocol::V2, found, work).await
}

async fn run(app: &App, model: Arc<Model>, arrived: Instant, request: Request<Body>) -> Answer {
    let timeout = deadline::of_rest(request.headers()).map_err(ApiError::bad)?;
    let form = Form::of(request.headers())?;
    let body = body::receive(request, app.max_body).await?;
    let start = Instant::now();
    let asked = request::read(&body, form, &model.signature)?;
    drop(body);
    model.meter.preprocessed(start.elapsed());
    let deadline = deadline::earliest(arrived, [timeout, asked.parameters.timeout]);
    let inference = oip::inference(asked.inputs, &asked.wanted, &asked.parameters, deadline);
    let outcome = infer::run(app, &model, inference).await?;
    let start = Instant::now();
    let answered = answer::write(&model, asked.id.as_deref(), &asked.wanted, &outcome)?;
    model.meter.postprocessed(start.elapsed());
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_inference_request_passes_the_router_by() {
        for (method, path, model) in [
            (Method::POST, "/v2/models/m/infer", Some("m")),
            (Method::POST, "/v2/models/m.2/infer?a=/b", Some("m.2")),
            (Method::GET, "/v2/models/m/infer", None),
            (Method::POST, "/v2/models//infer", None),
            (Method::POST, "/v2/models/infer", None),
            (Method::POST, "/v2/models/m%20n/infer", None),
            (Method::POST, "/v2/models/m/versions/1/infer", None),
            (Method::POST, "/v2/models/m/infer/", None),
            (Method::POST, "/v1/models/m/infer", None),
        ] {
            let request = Request::builder().method(&method).uri(path).body(());
            let request = request.unwrap();
            assert_eq!(model_asked(&request), model, "{method} {path}");
        }
    }
}
