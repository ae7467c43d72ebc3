//! From a raw body to tensors and from tensors to an answer, as `model.yaml` says.
//!
//! ```text
//!  body ─► form ─► image · text · bytes · rows ─► feeds: one run each ─► infer::run
//!                  (on threads of their own)                                 │
//!  answer ◄─ classification · embedding · raw ◄──────────────────────────────┘
//! ```
//!
//! Inputs: a body and its Content-Type. Output: an answer, or a [`PipelineError`] that the protocol
//! translates. Invariants: a pipeline that was prepared fits its model; what a body can make of memory
//! and of time is bounded; every refusal is a sentence.

use std::ops::Range;

use ortolan_model::{Input, Output, Pipeline};

use self::{
    bytes::Bytes,
    image::{Image, ImageError},
    output::Writer,
    rows::Rows,
    text::Text,
};
use crate::{
    infer::RunError,
    signature::{Signature, TensorSpec},
    tensor::Tensor,
};

pub mod body;
pub mod bytes;
pub mod classify;
pub mod embed;
pub mod form;
pub mod image;
pub mod output;
pub mod rows;
pub mod run;
pub mod text;
pub mod workers;

pub use run::{Embedded, Texts, embed, of, predict};

/// A pipeline that fits its model, ready to read and to answer.
pub struct Prepared {
    /// From a body to tensors.
    pub reader: Reader,
    /// From outputs to an answer.
    pub writer: Writer,
}

/// From a body to tensors.
pub enum Reader {
    /// Photographs.
    Image(Image),
    /// Texts.
    Text(Box<Text>),
    /// Bytes.
    Bytes(Bytes),
    /// Rows of a table.
    Rows(Rows),
}

/// The tensors of one run.
#[derive(Debug, PartialEq)]
pub struct Feed {
    /// For each input that the model requires, in its order.
    pub inputs: Vec<Tensor>,
    /// Which of the request's items it has, in the tensors' order.
    pub items: Vec<usize>,
    /// Where the tokens of each item lie along the second axis; empty where there are none.
    pub spans: Vec<Range<usize>>,
}

/// Why a body gave no tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// 415: a kind of body that is not read.
    #[error("{0}")]
    Kind(String),
    /// 413: more than is read.
    #[error("{0}")]
    TooLarge(String),
    /// 422: it is not what it should be, or a broken one.
    #[error("{0}")]
    Undecodable(String),
    /// 400: what it says does not fit.
    #[error("{0}")]
    Malformed(String),
    /// 500: not the client's fault.
    #[error("{0}")]
    Internal(String),
}

impl From<ImageError> for InputError {
    fn from(error: ImageError) -> Self {
        let message = error.to_string();
        match error {
            ImageError::Unsupported(_) => Self::Kind(message),
            ImageError::Undecodable(_) | ImageError::TooLarge { .. } => Self::Undecodable(message),
            ImageError::Resize(_) => Self::Internal(message),
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The body.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The pipeline's own queue is full.
    #[error("{0}")]
    Busy(String),
    /// The outputs are not what the pipeline makes an answer of: the model's fault, or ours.
    #[error("{0}")]
    Output(String),
    /// The model has no pipeline that could do this.
    #[error("{0}")]
    None(String),
}

impl Prepared {
    /// Checks that a pipeline feeds the model and reads it; else a sentence for `InvalidConfig`. Reads the
    /// tokenizer. Blocking.
    pub fn new(pipeline: &Pipeline, signature: &Signature) -> Result<Self, String> {
        let prepared = || {
            let reader = match &pipeline.input {
                Input::Image(input) => Reader::Image(Image::prepare(input, signature)?),
                Input::Text(input) => Reader::Text(Box::new(Text::prepare(input, signature)?)),
                Input::Bytes(input) => Reader::Bytes(Bytes::prepare(input, signature)?),
                Input::Rows(input) => Reader::Rows(Rows::prepare(input, signature)?),
            };
            let writer = match &pipeline.output {
                Output::Classification(wanted) => Writer::classification(wanted, signature)?,
                Output::Embedding(wanted) => Writer::embedding(wanted, signature)?,
                Output::Raw { tensors } => Writer::raw(tensors, signature)?,
            };
            Ok(Self { reader, writer })
        };
        prepared().map_err(|sentence: String| format!("model.yaml: {sentence}"))
    }

    /// The shapes of the required inputs as requests will bring them: what warm-up runs with.
    #[must_use]
    pub fn warm_up_shapes(&self, signature: &Signature) -> Vec<(usize, Vec<i64>)> {
        let shapes = match &self.reader {
            Reader::Image(image) => vec![image.shape()],
            Reader::Bytes(bytes) => vec![bytes.shape()],
            Reader::Rows(rows) => rows.warm_up_shapes(),
            Reader::Text(text) => {
                let shape = text.warm_up_shape();
                signature.required().map(|_| shape.clone()).collect()
            }
        };
        shapes.into_iter().enumerate().collect()
    }
}

/// The one input of a model that takes one.
fn only_input<'a>(pipeline: &str, signature: &'a Signature) -> Result<&'a TensorSpec, String> {
    let mut inputs = signature.required();
    match (inputs.next(), inputs.next()) {
        (Some(spec), None) => Ok(spec),
        _ => Err(format!(
            "the {pipeline} pipeline feeds one input, and the model has {}",
            signature.required().count()
        )),
    }
}

#[cfg(test)]
mod tests;
