//! `POST /predict/{m}`: a photograph, a text, bytes or rows through the model's pipeline.

use std::time::Instant;

use bytes::Bytes;

use super::error::ApiError;
use crate::{
    app::App,
    model::Model,
    pipeline::{
        self,
        form::{self, Form},
    },
};

/// What the body is; refused by its Content-Type before it is read.
pub(super) fn form(model: &Model, kind: Option<&str>) -> Result<Form, ApiError> {
    let pipeline = pipeline::of(model)?;
    Ok(form::of(&pipeline.reader, kind).map_err(pipeline::PipelineError::from)?)
}

/// Reads, runs, answers.
pub(super) async fn predict(
    app: &App,
    model: &Model,
    form: Form,
    body: Bytes,
    deadline: Option<Instant>,
) -> Result<Vec<u8>, ApiError> {
    Ok(pipeline::predict(app, model, form, body, deadline).await?)
}
