//! A session with what is known of its inputs and outputs: runs one request, or several as one.
//!
//! Copies: the tensors of one request go to ONNX Runtime as they are; those of several are copied once,
//! into one buffer for each input. Outputs are not copied: each request gets its rows of what they share.

use std::{borrow::Cow, sync::Arc};

use ort::{
    ErrorCode,
    session::{RunOptions, Session},
    value::DynValue,
};

use super::job::Job;
use crate::{
    infer::{Request, RunError},
    output::Output,
    signature::{Signature, TensorSpec, show_shape},
    tensor::{Elements, Tensor},
};

/// Runs requests on one session.
pub(super) struct Runner {
    session: Session,
    switch: Arc<RunOptions>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    has_free_dimensions: bool,
}

/// Why several requests did not run as one. Each of them can still run alone.
#[derive(Debug)]
pub(super) enum Apart {
    /// The graph gave something else than a row for each row.
    NotRows(String),
    /// The run failed.
    Failed(RunError),
}

impl Runner {
    pub(super) fn new(session: Session, signature: &Signature, switch: Arc<RunOptions>) -> Self {
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect();
        Self {
            session,
            switch,
            inputs: names(&signature.inputs),
            outputs: names(&signature.outputs),
            has_free_dimensions: signature.has_free_dimensions(),
        }
    }

    /// One request, by itself.
    pub(super) fn run(&mut self, request: Request) -> Result<Vec<Output>, RunError> {
        let wanted = request.outputs;
        let mut values: Vec<Option<DynValue>> = self.compute(request.inputs)?;
        let mut take = |index: usize| match values.get_mut(index).and_then(Option::take) {
            Some(value) => Ok(Output::of(value)?),
            None => Err(RunError::Failed(format!("the run gave no output {index}"))),
        };
        if wanted.is_empty() {
            return (0..self.outputs.len()).map(take).collect();
        }
        // A value is taken once: an output that is wanted twice is shared.
        let mut taken: Vec<Output> = Vec::with_capacity(wanted.len());
        for (place, index) in wanted.iter().enumerate() {
            let earlier = wanted[..place].iter().position(|known| known == index);
            taken.push(match earlier {
                Some(earlier) => taken[earlier].clone(),
                None => take(*index)?,
            });
        }
        Ok(taken)
    }

    /// Several requests as one; the outputs of each, in the order of the jobs.
    pub(super) fn run_together(&mut self, jobs: &[Job]) -> Result<Vec<Vec<Output>>, Apart> {
        let inputs = (0..self.inputs.len())
            .map(|index| join(jobs, index))
            .collect();
        let values = self.compute(inputs).map_err(Apart::Failed)?;
        let rows: Vec<usize> = jobs.iter().map(|job| job.rows).collect();
        let total: usize = rows.iter().sum();
        let mut columns = Vec::with_capacity(values.len());
        for (value, name) in values.into_iter().flatten().zip(&self.outputs) {
            let output = Output::of(value).map_err(|error| Apart::Failed(error.into()))?;
            let Some(parts) = output.split(&rows) else {
                return Err(Apart::NotRows(format!(
                    "{total} rows went in, and the output {name:?} has the shape {}",
                    show_shape(output.shape())
                )));
            };
            columns.push(parts);
        }
        let answer = |(place, job): (usize, &Job)| {
            let part = |index: usize| columns[index][place].clone();
            match job.request.outputs.as_slice() {
                [] => (0..columns.len()).map(part).collect(),
                wanted => wanted.iter().copied().map(part).collect(),
            }
        };
        Ok(jobs.iter().enumerate().map(answer).collect())
    }

    /// The graph's outputs in its order.
    fn compute(&mut self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Option<DynValue>>, RunError> {
        let mut given = Vec::with_capacity(inputs.len());
        for (name, tensor) in self.inputs.iter().zip(inputs) {
            if let Some(tensor) = tensor {
                // Numbers were checked; what is left is a string with a NUL.
                let value = tensor.into_ort().map_err(|error| {
                    RunError::Refused(format!("input {name:?}: {}", error.message()))
                })?;
                given.push((Cow::Borrowed(name.as_str()), value));
            }
        }
        let has_free_dimensions = self.has_free_dimensions;
        let outputs = self
            .session
            .run_with_options(given, &*self.switch)
            .map_err(|error| judge(&error, has_free_dimensions))?;
        // They come in the order of the session's outputs, which is the graph's.
        Ok(outputs.into_iter().map(|(_, value)| Some(value)).collect())
    }
}

/// One input of all jobs, one upon the other; `None` when they leave it out.
fn join(jobs: &[Job], index: usize) -> Option<Tensor> {
    let parts = || {
        jobs.iter()
            .filter_map(|job| job.request.inputs[index].as_ref())
    };
    let first = parts().next()?;
    let count = parts().map(|tensor| tensor.elements.len()).sum();
    let rows: i64 = parts().filter_map(|tensor| tensor.shape.first()).sum();
    let mut elements = Elements::with_capacity(first.elements.view().datatype(), count);
    for tensor in parts() {
        elements.extend(tensor.elements.view());
    }
    let mut shape = first.shape.clone();
    if let Some(first) = shape.first_mut() {
        *first = rows;
    }
    Some(Tensor { shape, elements })
}

/// Whose fault a failed run is. Shapes that only a run can judge are the client's; with every dimension
/// fixed and checked before, a failure is ours or the runtime's.
fn judge(error: &ort::Error, has_free_dimensions: bool) -> RunError {
    let words = error.message().to_owned();
    match error.code() {
        ErrorCode::InvalidArgument | ErrorCode::InvalidProtobuf => RunError::Refused(words),
        _ if has_free_dimensions && !words.contains("allocate") => RunError::Refused(words),
        _ => RunError::Failed(words),
    }
}
