//! One inference, whatever protocol asked for it.
//!
//! Inputs: a model, tensors in its order. Output: its outputs, or a `RunError` that each protocol
//! translates. Invariants: nothing runs that does not fit the model's signature; everything is counted.

use std::time::{Duration, Instant};

use crate::{
    app::App,
    cache::Key,
    metrics::Rejection,
    model::Model,
    output::{Output, Unreadable},
    tensor::Tensor,
};

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// In the model's order; `None` where an optional input is left out.
    pub inputs: Vec<Option<Tensor>>,
    /// Which of the model's outputs are wanted, in the order of the answer. Empty: all, in the model's order.
    pub outputs: Vec<usize>,
    /// 1 is served first, then 2, and so on; 0 is the model's default.
    pub priority: u32,
    /// After this nobody wants the answer.
    pub deadline: Option<Instant>,
}

impl Request {
    /// All outputs, no deadline, no priority.
    #[must_use]
    pub fn new(inputs: Vec<Option<Tensor>>) -> Self {
        Self {
            inputs,
            ..Self::default()
        }
    }
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each of [`Request::outputs`], in that order.
    pub outputs: Vec<Output>,
    /// From the queue to the session.
    pub queued: Duration,
    /// Inside ONNX Runtime; a batch's time for each of its requests.
    pub ran: Duration,
    /// How many rows ran together; 1 when the model has no batch dimension, 0 when nothing ran because the
    /// answer was kept.
    pub batch: usize,
}

/// Why a request was not answered with tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The queue is full.
    #[error("the queue is full: {waiting} requests wait already; try again")]
    Busy {
        /// The queue's length.
        waiting: usize,
    },
    /// The server is shutting down, or the model was unloaded.
    #[error("the server is shutting down")]
    Stopping,
    /// The request's deadline passed before its answer was there.
    #[error("the request's deadline passed before the model answered")]
    Deadline,
    /// More rows than the model takes at once.
    #[error(
        "the request has {rows} rows, and this model takes at most {limit} at once (its maximum batch)"
    )]
    TooManyRows {
        /// The request's.
        rows: usize,
        /// The model's.
        limit: usize,
    },
    /// The run was stopped by the watchdog.
    #[error("the run took longer than {limit:?} and was stopped; --run-limit sets this limit")]
    Overrun {
        /// How long a run may take.
        limit: Duration,
    },
    /// The graph cannot compute these inputs.
    #[error("the model cannot run on these inputs: {0}")]
    Refused(String),
    /// ONNX Runtime failed where it should not.
    #[error("ONNX Runtime failed: {0}")]
    Failed(String),
    /// A bug: the run panicked.
    #[error("the run panicked; this is a bug in the server")]
    Panicked,
}

impl From<Unreadable> for RunError {
    fn from(error: Unreadable) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Checks a request against the model, queues it, waits for its answer and counts what came of it.
pub async fn run(app: &App, model: &Model, request: Request) -> Result<Outcome, RunError> {
    model.signature.check(&request).map_err(RunError::Refused)?;
    if let (Some(limit), Some(rows)) = (model.max_rows, model.signature.rows(&request))
        && rows > limit
    {
        return Err(RunError::TooManyRows { rows, limit });
    }
    let (Some(cache), Some(load)) = (&app.cache, model.load) else {
        return compute(model, request).await;
    };
    let start = Instant::now();
    let key = Key::of(load, &request);
    let found = cache.find(&key);
    model.meter.looked_up(found.is_some(), start.elapsed());
    if let Some(outputs) = found {
        return Ok(Outcome {
            outputs,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
            batch: 0,
        });
    }
    let outcome = compute(model, request).await?;
    cache.keep(key, &outcome.outputs)?;
    Ok(outcome)
}

async fn compute(model: &Model, mut request: Request) -> Result<Outcome, RunError> {
    if request.deadline.is_none() {
        request.deadline = model.timeout.map(|timeout| Instant::now() + timeout);
    }
    let level = model.level(request.priority);
    match model.engine.run(level, request).await {
        Ok(outcome) => {
            model
                .meter
                .inferred(outcome.queued, outcome.ran, outcome.batch);
            Ok(outcome)
        }
        Err(error) => {
            count(model, &error);
            Err(error)
        }
    }
}

fn count(model: &Model, error: &RunError) {
    match error {
        RunError::Busy { .. } => model.meter.rejected(Rejection::QueueFull),
        RunError::Stopping => model.meter.rejected(Rejection::Stopping),
        RunError::Deadline => model.meter.rejected(Rejection::Deadline),
        RunError::Failed(_) | RunError::Panicked | RunError::Overrun { .. } => {
            tracing::error!(model = model.name, version = model.version, "{error}");
        }
        RunError::Refused(_) | RunError::TooManyRows { .. } => {}
    }
}
