//! `POST /predict/{m}`: a photograph through the model's pipeline, labels back.

use std::time::Instant;

use bytes::Bytes;
use ortolan_model::{Input, Output};
use serde::Serialize;

use super::error::ApiError;
use crate::{
    app::App,
    infer::{self, Request},
    metrics::Rejection,
    model::Model,
    pipeline::{
        classify::{self, Class},
        image::{self, ImageError, Kind},
    },
    tensor::{Elements, Tensor, View},
};

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    version: &'a str,
    predictions: Vec<Class<'a>>,
}

/// What `curl --data-binary` says of any file, and what says nothing: the bytes decide then.
const SAYS_NOTHING: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "binary/octet-stream",
];

/// Refuses a body by its Content-Type before it is read.
pub(super) fn check_kind(model: &Model, kind: Option<&str>) -> Result<(), ApiError> {
    if model.pipeline.is_none() {
        return Err(ApiError::unsupported(
            "this model takes tensors only: it has no pipeline in a model.yaml beside it; \
             POST tensors to /v2/models/{model}/infer",
        ));
    }
    let media = essence(kind);
    let is_known = media.is_empty()
        || SAYS_NOTHING.contains(&media.as_str())
        || Kind::of_media_type(&media).is_some();
    if is_known {
        return Ok(());
    }
    Err(ApiError::unsupported(format!(
        "the content type {media:?} is not read here; send image/jpeg, image/png or image/webp"
    )))
}

/// `image/jpeg; q=1` → `image/jpeg`
fn essence(kind: Option<&str>) -> String {
    kind.and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Decodes, runs, ranks.
pub(super) async fn predict(
    app: &App,
    model: &Model,
    kind: Option<&str>,
    body: Bytes,
) -> Result<Vec<u8>, ApiError> {
    let Some(pipeline) = &model.pipeline else {
        return Err(ApiError::internal("the pipeline was there a moment ago"));
    };
    let start = Instant::now();
    let Input::Image(input) = &pipeline.input;
    let wanted = input.clone();
    let claimed = Kind::of_media_type(&essence(kind));
    let Ok(_place) = model.pipeline_queue.try_acquire() else {
        model.meter.rejected(Rejection::QueueFull);
        return Err(ApiError::unavailable(
            "too many images wait to be decoded; try again",
        ));
    };
    // Decoding takes milliseconds of CPU: never on the threads that move bytes, and only as many at once as
    // there are sessions to feed.
    let slot = model.pipeline_slots.acquire().await;
    let decoded = tokio::task::spawn_blocking(move || image::tensor(&body, claimed, &wanted)).await;
    drop(slot);
    let values = decoded
        .map_err(|error| ApiError::internal(format!("the image pipeline stopped: {error}")))?
        .map_err(|error| match error {
            ImageError::Unsupported(_) => ApiError::unsupported(error.to_string()),
            ImageError::Undecodable(_) | ImageError::TooLarge { .. } => {
                ApiError::undecodable(error.to_string())
            }
            ImageError::Resize(_) => ApiError::internal(error.to_string()),
        })?;
    let tensor = Tensor {
        shape: image::shape(input),
        elements: Elements::Fp32(values),
    };
    model.meter.preprocessed(start.elapsed());
    // The image goes to the only input that every request must bring; it stands first.
    let mut inputs = vec![Some(tensor)];
    inputs.resize(model.signature.inputs.len(), None);
    let outcome = infer::run(app, model, Request::new(inputs)).await?;
    let start = Instant::now();
    let Output::Classification {
        labels,
        softmax,
        top_k,
    } = &pipeline.output;
    let View::Fp32(scores) = outcome.outputs[0].elements()? else {
        return Err(ApiError::internal("the scores are not FP32"));
    };
    let predictions =
        classify::rank(scores, labels, *softmax, *top_k).map_err(ApiError::internal)?;
    let answer = Answer {
        model: &model.name,
        version: &model.version,
        predictions,
    };
    let text =
        serde_json::to_vec(&answer).map_err(|error| ApiError::internal(error.to_string()))?;
    model.meter.postprocessed(start.elapsed());
    Ok(text)
}
