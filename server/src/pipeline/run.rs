//! One request through a model's pipeline.
//!
//! Inputs: a model, a body or texts. Output: an answer, or vectors for a protocol that writes its own. What
//! takes long runs on the pipelines' own threads; the runs of one request go to as many sessions as
//! there are.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    PipelineError, Prepared, Reader,
    body::{self, Fed},
    form::Form,
    output::{self, About, Part, Writer},
    workers::{WorkError, Workers},
};
use crate::{
    app::App,
    infer::{self, Request, RunError},
    metrics::Rejection,
    model::Model,
};

/// Rows and bytes up to this are read at once, like tensors: handing them to another thread takes longer.
const SMALL_BODY: usize = 8 * 1024;
/// Outputs up to this many elements are read at once, too.
const SMALL_OUTPUT: usize = 32 * 1024;

/// What is to be embedded.
pub enum Texts {
    /// As people write.
    Words(Vec<String>),
    /// As the tokenizer numbers them, special ones included.
    Tokens(Vec<Vec<u32>>),
}

/// What became of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// One for each text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Of all texts together, special ones included, padding not.
    pub tokens: usize,
}

/// Answers `POST /predict/{model}`.
pub async fn predict(
    app: &App,
    model: &Model,
    form: Form,
    body: Bytes,
    deadline: Option<Instant>,
) -> Result<Vec<u8>, PipelineError> {
    let prepared = Arc::clone(of(model)?);
    let start = Instant::now();
    let is_small =
        matches!(prepared.reader, Reader::Rows(_) | Reader::Bytes(_)) && body.len() <= SMALL_BODY;
    let fed = if is_small {
        body::read(&prepared, form, &body)?
    } else {
        let shared = Arc::clone(&prepared);
        let work = move || body::read(&shared, form, &body);
        on_workers(&app.pipelines, model, deadline, work).await??
    };
    model.meter.preprocessed(start.elapsed());
    let Fed {
        feeds,
        count,
        is_list,
        top_k,
        tokens,
    } = fed;
    let parts = run_all(app, model, &prepared.writer, feeds, deadline).await?;
    let start = Instant::now();
    let (name, version, size) = (model.name.clone(), model.version.clone(), elements(&parts));
    let write = move || {
        let about = About {
            model: &name,
            version: &version,
            count,
            is_list,
            top_k,
            tokens,
        };
        prepared.writer.write(&about, &parts)
    };
    let answer = finish(app, model, size, write).await?;
    model.meter.postprocessed(start.elapsed());
    Ok(answer)
}

/// The vectors of texts, for a model whose pipeline is text → embedding.
pub async fn embed(
    app: &App,
    model: &Model,
    texts: Texts,
    deadline: Option<Instant>,
) -> Result<Embedded, PipelineError> {
    let prepared = Arc::clone(of(model)?);
    let (Reader::Text(_), Writer::Embedding { recipe, .. }) = (&prepared.reader, &prepared.writer)
    else {
        return Err(PipelineError::None(format!(
            "the model {:?} makes no embeddings of texts: its pipeline is not text → embedding",
            model.name
        )));
    };
    let recipe = *recipe;
    let start = Instant::now();
    let shared = Arc::clone(&prepared);
    let work = move || {
        let Reader::Text(text) = &shared.reader else {
            return Ok((Vec::new(), 0, 0));
        };
        let tokens = match texts {
            Texts::Words(texts) => text.encode(&texts)?,
            Texts::Tokens(texts) => text.take(texts)?,
        };
        let sum = tokens.iter().map(super::text::Tokens::len).sum();
        Ok::<_, super::InputError>((text.feeds(&tokens), tokens.len(), sum))
    };
    let (feeds, count, tokens) = on_workers(&app.pipelines, model, deadline, work).await??;
    model.meter.preprocessed(start.elapsed());
    let parts = run_all(app, model, &prepared.writer, feeds, deadline).await?;
    let start = Instant::now();
    let size = elements(&parts);
    let work = move || output::vectors(recipe, count, &parts);
    let vectors = finish(app, model, size, work).await?;
    model.meter.postprocessed(start.elapsed());
    Ok(Embedded { vectors, tokens })
}

/// The pipeline of a model that has one.
pub fn of(model: &Model) -> Result<&Arc<Prepared>, PipelineError> {
    model.pipeline.as_ref().ok_or_else(|| {
        PipelineError::None(format!(
            "the model {:?} takes tensors only: it has no pipeline in a model.yaml beside it; \
             POST tensors to /v2/models/{}/infer",
            model.name, model.name
        ))
    })
}

/// Runs all feeds, as many at once as there are sessions, and gives what came of them in their order.
async fn run_all(
    app: &App,
    model: &Model,
    writer: &Writer,
    feeds: Vec<super::Feed>,
    deadline: Option<Instant>,
) -> Result<Vec<Part>, PipelineError> {
    if feeds.len() > 1 && !writer.takes_parts() {
        return Err(PipelineError::Input(super::InputError::TooLarge(format!(
            "the request needs {} runs of the model, and raw outputs are those of one; send less in one request",
            feeds.len()
        ))));
    }
    let inputs = model.signature.inputs.len();
    let run = |feed: super::Feed| async move {
        let mut tensors: Vec<_> = feed.inputs.into_iter().map(Some).collect();
        // The optional inputs stand behind the others.
        tensors.resize(inputs, None);
        let request = Request {
            outputs: writer.wanted(),
            deadline,
            ..Request::new(tensors)
        };
        let outcome = infer::run(app, model, request).await?;
        Ok::<_, PipelineError>(Part {
            outcome,
            items: feed.items,
            spans: feed.spans,
        })
    };
    stream::iter(feeds.into_iter().map(run))
        .buffered(model.sessions.max(1))
        .try_collect()
        .await
}

fn elements(parts: &[Part]) -> usize {
    let outputs = parts.iter().flat_map(|part| &part.outcome.outputs);
    outputs
        .map(|output| crate::tensor::element_count(output.shape()).unwrap_or(0))
        .sum()
}

/// Makes the answer, on another thread where that takes long.
async fn finish<T: Send + 'static>(
    app: &App,
    model: &Model,
    elements: usize,
    work: impl FnOnce() -> Result<T, PipelineError> + Send + 'static,
) -> Result<T, PipelineError> {
    if elements <= SMALL_OUTPUT {
        return work();
    }
    on_workers(&app.pipelines, model, None, work).await?
}

async fn on_workers<T: Send + 'static>(
    workers: &Workers,
    model: &Model,
    deadline: Option<Instant>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PipelineError> {
    let in_time = move || deadline.is_none_or(|deadline| Instant::now() < deadline);
    let done = workers.run(move || in_time().then(work)).await;
    match done {
        Ok(Some(done)) => Ok(done),
        Ok(None) => {
            model.meter.rejected(Rejection::Deadline);
            Err(RunError::Deadline.into())
        }
        Err(error @ WorkError::Full(_)) => {
            model.meter.rejected(Rejection::QueueFull);
            Err(PipelineError::Busy(error.to_string()))
        }
        Err(WorkError::Panicked) => Err(RunError::Panicked.into()),
    }
}
