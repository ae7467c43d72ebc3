//! Runs the model and what was made of it on the same inputs, and tells how far the outputs lie apart.
//!
//! Two comparisons: with the file as it says, nothing optimised; and with the file as the server runs it today,
//! optimised while it is loaded. The second is what changes for those who serve it.

use std::path::Path;

use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
};
use serde::Serialize;

use super::{
    difference::{Difference, Values},
    refused,
};
use crate::{
    onnx::Outline,
    tool::{
        Refusal,
        inputs::{self, InputOptions, Inputs},
        inspect::measure::Runner,
        internal,
    },
};

/// Random inputs to compare on.
const RANDOM: usize = 8;

/// How far outputs moved.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// What was run.
    pub inputs: String,
    /// How many inputs.
    pub runs: usize,
    /// By output.
    pub outputs: Vec<Output>,
}

/// One output.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Output {
    /// In the graph.
    pub name: String,
    /// Against the file with nothing optimised.
    pub from_unoptimised: Difference,
    /// Against the file as the server runs it.
    pub from_served: Difference,
}

pub(super) fn compare(
    environment: &Environment,
    model: &Path,
    optimised: &Path,
    options: &InputOptions,
) -> Result<Comparison, Refusal> {
    let served = GraphOptimizationLevel::Level3;
    let mut plain = open(environment, model, GraphOptimizationLevel::Disable)?;
    let mut before = open(environment, model, served)?;
    let mut after = open(environment, optimised, served)?;
    let (feeds, words) = inputs::feeds(options, plain.signature(), RANDOM)?;
    let mut outputs: Vec<Output> = plain
        .signature()
        .outputs
        .iter()
        .map(|spec| Output {
            name: spec.name.clone(),
            from_unoptimised: Difference::default(),
            from_served: Difference::default(),
        })
        .collect();
    let runs = feeds.len();
    for feed in feeds {
        let plain = run(&mut plain, &feed)?;
        let before = run(&mut before, &feed)?;
        let after = run(&mut after, &feed)?;
        for (at, output) in outputs.iter_mut().enumerate() {
            output.from_unoptimised.add(&plain[at], &after[at]);
            output.from_served.add(&before[at], &after[at]);
        }
    }
    Ok(Comparison {
        inputs: words,
        runs,
        outputs,
    })
}

fn open(
    environment: &Environment,
    model: &Path,
    level: GraphOptimizationLevel,
) -> Result<Runner, Refusal> {
    let build = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_optimization_level(level)?
            .with_intra_threads(1)?
            .commit_from_file(model)
    };
    let session = build().map_err(|error| refused(model, None, &error))?;
    Runner::new(session, &Outline::default())
}

/// All outputs in the graph's order.
fn run(runner: &mut Runner, inputs: &Inputs) -> Result<Vec<Values>, Refusal> {
    let (outputs, _) = runner.run(inputs)?;
    let values = outputs.iter().map(Values::of);
    values
        .collect::<ort::Result<_>>()
        .map_err(|error| internal(error.message()))
}
