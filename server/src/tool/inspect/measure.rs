//! What it takes to load and run a model: time, and the growth of the process's resident memory, session by session.
//!
//! The numbers are the kernel's, of this very process, taken after the first runs of each session, so that the arena
//! holds what a run needs. The first session's growth includes what all share; a further session's is what `--sessions
//! N+1` costs more than `--sessions N`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ort::{environment::Environment, session::Session, value::DynValue};
use serde::Serialize;

use super::Options;
use crate::{
    onnx::Outline,
    options::{Fallback, Provider},
    process,
    runtime::{self, Graph, Recipe},
    signature::Signature,
    tool::{
        Refusal,
        inputs::{self, Inputs},
        internal, stats,
    },
};
use ortolan_model::{Failure, Reason};

/// Runs after the first, of which the median is taken: half a second, at most so many.
const MAX_RUNS: usize = 50;
const RUN_TIME: Duration = Duration::from_millis(500);

/// What was seen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Resident bytes with ONNX Runtime's library loaded and no session yet.
    pub before_bytes: u64,
    /// One session after the other.
    pub sessions: Vec<SessionCost>,
    /// What the runs were given.
    pub inputs: String,
    /// ONNX Runtime says that the first dimension is free everywhere.
    #[serde(skip)]
    pub is_batchable: bool,
}

/// What one session took.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCost {
    /// Making the session.
    pub load_seconds: f64,
    /// The first run, which fills the arena.
    pub first_run_seconds: f64,
    /// The median of the runs after it.
    pub run_seconds: f64,
    /// How much the resident memory grew; negative when the allocator gave memory back.
    pub growth_bytes: i64,
}

/// Loads sessions one after the other and runs each.
pub fn measure(
    environment: &Environment,
    model: &Path,
    outline: &Outline,
    options: &Options,
) -> Result<Measured, Refusal> {
    let recipe = Recipe {
        threads: options.threads.into(),
        provider: Provider::CPU,
        plugin: None,
        fallback: Fallback::Fail,
        optimization: ortolan_model::settings::Optimization::All,
        graph: Graph::Make,
    };
    let before_bytes = process::resident().unwrap_or(0);
    let mut resident = before_bytes;
    let (mut kept, mut sessions) = (Vec::new(), Vec::new());
    let (mut given, mut is_batchable) = (String::new(), false);
    for _ in 0..options.sessions {
        let start = Instant::now();
        let session = runtime::load(environment, model, outline, &recipe)?.session;
        let load = start.elapsed();
        let mut runner = Runner::new(session, outline)?;
        is_batchable = runner.signature().is_batchable();
        let (feeds, words) = inputs::feeds(&options.inputs, runner.signature(), 1)?;
        given = words;
        let (first_run, run) = time_runs(&mut runner, &feeds[0])?;
        drop(feeds);
        kept.push(runner);
        let now = process::resident().unwrap_or(0);
        sessions.push(SessionCost {
            load_seconds: load.as_secs_f64(),
            first_run_seconds: first_run.as_secs_f64(),
            run_seconds: run.as_secs_f64(),
            growth_bytes: now as i64 - resident as i64,
        });
        resident = now;
    }
    Ok(Measured {
        before_bytes,
        sessions,
        inputs: given,
        is_batchable,
    })
}

/// A session with its inputs' and outputs' names.
pub struct Runner {
    session: Session,
    signature: Signature,
}

impl Runner {
    /// Takes a session whose inputs and outputs are all tensors.
    pub fn new(session: Session, outline: &Outline) -> Result<Self, Refusal> {
        let signature = Signature::of(&session, outline)
            .map_err(|message| Failure::new(Reason::InvalidModel, message))?;
        Ok(Self { session, signature })
    }

    /// What the model takes and gives.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs the model; gives its outputs in the graph's order, and the time inside ONNX Runtime.
    pub fn run(&mut self, inputs: &Inputs) -> Result<(Vec<DynValue>, Duration), Refusal> {
        let mut given = Vec::new();
        for (spec, tensor) in self.signature.inputs.iter().zip(inputs) {
            if let Some(tensor) = tensor.clone() {
                let value = tensor.into_ort().map_err(|error| {
                    Refusal::Data(format!("input {:?}: {}", spec.name, error.message()))
                })?;
                given.push((spec.name.as_str(), value));
            }
        }
        let start = Instant::now();
        let mut outputs = self.session.run(given).map_err(|error| {
            Failure::new(
                Reason::WarmUpFailed,
                format!("the model cannot run on these inputs: {}", error.message()),
            )
        })?;
        let took = start.elapsed();
        let specs = self.signature.outputs.iter();
        let values: Option<Vec<DynValue>> = specs.map(|spec| outputs.remove(&spec.name)).collect();
        let values = values.ok_or_else(|| internal("the run left an output out"))?;
        Ok((values, took))
    }
}

fn time_runs(runner: &mut Runner, inputs: &Inputs) -> Result<(Duration, Duration), Refusal> {
    let (_, first) = runner.run(inputs)?;
    let mut runs = Vec::new();
    let start = Instant::now();
    while runs.len() < MAX_RUNS && (runs.is_empty() || start.elapsed() < RUN_TIME) {
        runs.push(runner.run(inputs)?.1);
    }
    Ok((first, stats::median(&runs)))
}
