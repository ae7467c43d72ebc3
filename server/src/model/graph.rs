//! Loads a model's sessions from its kept optimised graph, or keeps the one that is made.
//!
//! Inputs: where graphs are kept, the plan, the package. Outputs: the sessions, and what was done about the graph. Invariant:
//! without a kept graph, or with one that does not load, the sessions are made from the model itself.

use std::fmt;

use ort::environment::Environment;
use ortolan_model::{Failure, Package};

use crate::{
    engine::{Cold, Engine, Plan},
    onnx::census,
    options::Provider,
    runtime::{
        Graph,
        graphs::{self, Draft, Graphs, Key},
    },
};

/// What was done about a model's optimised graph, where such graphs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The sessions were made from it.
    Used,
    /// It was written for the next start.
    Written,
    /// There is none, for this reason.
    Without(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Used => f.write_str("used"),
            Self::Written => f.write_str("written"),
            Self::Without(why) => write!(f, "none: {why}"),
        }
    }
}

/// Makes the plan's sessions.
pub(super) fn load(
    graphs: Option<&Graphs>,
    environment: &Environment,
    mut plan: Plan,
    package: &Package,
) -> Result<(Cold, Option<Kept>), Failure> {
    let Some(graphs) = graphs else {
        return Ok((Engine::load(environment, &plan)?, None));
    };
    let key = match key(&plan, package) {
        Ok(key) => key,
        Err(why) => return without(why, environment, &plan),
    };
    if let Some(path) = graphs.find(&key) {
        plan.recipe.graph = Graph::Kept(path.clone());
        match Engine::load(environment, &plan) {
            Ok(cold) => {
                tracing::info!("loaded from the optimised graph {}", path.display());
                return Ok((cold, Some(Kept::Used)));
            }
            Err(failure) => {
                tracing::warn!(
                    "the optimised graph {} does not load and is made anew: {failure}",
                    path.display()
                );
                graphs.forget(&path);
            }
        }
    }
    let draft = match graphs.draft(&key) {
        Ok(draft) => draft,
        Err(error) => {
            let why = format!("the cache directory cannot be written: {error}");
            tracing::warn!("optimised graphs are not kept, {why}");
            return without(why, environment, &plan);
        }
    };
    plan.recipe.graph = Graph::Write(draft.path().to_path_buf());
    let cold = Engine::load(environment, &plan)?;
    Ok((cold, Some(published(draft))))
}

fn without(
    why: String,
    environment: &Environment,
    plan: &Plan,
) -> Result<(Cold, Option<Kept>), Failure> {
    let plan = Plan {
        recipe: crate::runtime::Recipe {
            graph: Graph::Make,
            ..plan.recipe.clone()
        },
        ..plan.clone()
    };
    Ok((Engine::load(environment, &plan)?, Some(Kept::Without(why))))
}

fn published(draft: Draft) -> Kept {
    match draft.publish() {
        Ok(true) => Kept::Written,
        Ok(false) => Kept::Without(
            "ONNX Runtime wrote none, or it is larger than --optimized-graph-cache".to_owned(),
        ),
        Err(error) => Kept::Without(format!("it could not be written: {error}")),
    }
}

/// The name of the plan's graph, or why none is kept.
fn key(plan: &Plan, package: &Package) -> Result<Key, String> {
    let provider = plan.recipe.provider;
    if provider != Provider::CPU {
        return Err(format!(
            "only graphs for the processor are kept, {} makes its own",
            provider.as_str()
        ));
    }
    let processor = graphs::processor()
        .ok_or_else(|| "the processor's instructions are not known".to_owned())?;
    let census = census::census(&plan.model).map_err(|error| format!("the model {error}"))?;
    if !census.parameters.external.is_empty() {
        return Err("the model has external data".to_owned());
    }
    let bytes = std::fs::metadata(&plan.model).map_or(u64::MAX, |metadata| metadata.len());
    if bytes > graphs::LARGEST {
        return Err("the model is too large for one file".to_owned());
    }
    Ok(Key::new(
        &package.digest,
        plan.recipe.optimization,
        provider.as_str(),
        ort::info(),
        &processor,
    ))
}
