//! `POST /predict/{m}`: a photograph through the model's pipeline, labels back.

use std::time::Instant;

use bytes::Bytes;
use ortolan_model::{Input, Output};
use serde::Serialize;

use super::error::ApiError;
use crate::{
    app::{App, Serving},
    pipeline::{
        classify::{self, Class},
        image::{self, ImageError, Kind},
    },
    tensor::{Elements, Tensor},
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
pub(super) fn check_kind(serving: &Serving, kind: Option<&str>) -> Result<(), ApiError> {
    if serving.pipeline.is_none() {
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
    serving: &Serving,
    kind: Option<&str>,
    body: Bytes,
) -> Result<Vec<u8>, ApiError> {
    let Some(pipeline) = &serving.pipeline else {
        return Err(ApiError::internal("the pipeline was there a moment ago"));
    };
    let start = Instant::now();
    let Input::Image(input) = &pipeline.input;
    let wanted = input.clone();
    let claimed = Kind::of_media_type(&essence(kind));
    let Ok(_place) = serving.pipeline_queue.try_acquire() else {
        app.metrics.rejected("queue_full");
        return Err(ApiError::unavailable(
            "too many images wait to be decoded; try again",
        ));
    };
    // Decoding takes milliseconds of CPU: never on the threads that move bytes, and only as many at once as
    // there are sessions to feed.
    let slot = serving.pipeline_slots.acquire().await;
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
    app.metrics.preprocessed(start.elapsed());
    let outcome = super::run(app, serving, vec![tensor]).await?;
    let start = Instant::now();
    let Output::Classification {
        labels,
        softmax,
        top_k,
    } = &pipeline.output;
    let (_, scores) = outcome.outputs[0]
        .try_extract_tensor::<f32>()
        .map_err(|error| ApiError::internal(format!("cannot read the scores: {error}")))?;
    let predictions =
        classify::rank(scores, labels, *softmax, *top_k).map_err(ApiError::internal)?;
    let answer = Answer {
        model: &app.name,
        version: &app.version,
        predictions,
    };
    let text =
        serde_json::to_vec(&answer).map_err(|error| ApiError::internal(error.to_string()))?;
    app.metrics.postprocessed(start.elapsed());
    Ok(text)
}
