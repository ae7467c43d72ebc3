//! What a file costs to load and to run: measured by `inspect --measure` in processes of its own, so that neither file
//! finds memory or caches that the other left. Both take turns.

use std::{path::Path, process::Command};

use ortolan_model::{Failure, Reason};
use serde::{Deserialize, Serialize};

use super::Options;
use crate::tool::{Refusal, internal, stats::Spread};

/// Medians over the processes, with the least and the most.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    /// Making a session.
    pub load_seconds: Spread,
    /// How much the process grew by it.
    pub memory_bytes: Spread,
    /// One run.
    pub run_seconds: Spread,
}

#[derive(Deserialize)]
struct Told {
    measured: Measured,
}

#[derive(Deserialize)]
struct Measured {
    sessions: Vec<Session>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    load_seconds: f64,
    run_seconds: f64,
    growth_bytes: f64,
}

pub(super) fn measure(
    options: &Options,
    before: &Path,
    after: &Path,
) -> Result<(Cost, Cost), Refusal> {
    let (mut of_before, mut of_after) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        of_before.push(once(options, before)?);
        of_after.push(once(options, after)?);
    }
    Ok((cost(&of_before)?, cost(&of_after)?))
}

fn cost(sessions: &[Session]) -> Result<Cost, Refusal> {
    let spread = |pick: fn(&Session) -> f64| {
        let numbers: Vec<f64> = sessions.iter().map(pick).collect();
        Spread::of(&numbers).ok_or_else(|| internal("nothing was measured"))
    };
    Ok(Cost {
        load_seconds: spread(|session| session.load_seconds)?,
        memory_bytes: spread(|session| session.growth_bytes)?,
        run_seconds: spread(|session| session.run_seconds)?,
    })
}

/// One process that loads the file into one session and runs it.
fn once(options: &Options, model: &Path) -> Result<Session, Refusal> {
    let this = std::env::current_exe().map_err(internal)?;
    let mut command = Command::new(this);
    command
        .args(["inspect", "--measure", "--json", "--sessions", "1"])
        .args(["--threads", &options.threads.to_string()]);
    if let Some(library) = &options.source.access.onnxruntime {
        command.arg("--onnxruntime").arg(library);
    }
    if let Some(cache) = &options.source.access.cache_dir {
        command.arg("--cache-dir").arg(cache);
    }
    if let Some(data) = &options.inputs.data {
        command.arg("--data").arg(data);
    }
    for named in &options.inputs.shapes {
        let dims: Vec<String> = named.shape.iter().map(i64::to_string).collect();
        command.arg(format!("--shape={}={}", named.name, dims.join(",")));
    }
    // A name that starts with a dash is no option, and a relative path no scheme.
    let model = std::path::absolute(model).map_err(internal)?;
    let said = command.arg(&model).output().map_err(internal)?;
    if !said.status.success() {
        return Err(Failure::new(
            Reason::WarmUpFailed,
            format!(
                "measuring {} failed: {}",
                model.display(),
                String::from_utf8_lossy(&said.stderr)
            ),
        )
        .into());
    }
    let told: Told = serde_json::from_slice(&said.stdout).map_err(internal)?;
    let first = told.measured.sessions.first().copied();
    first.ok_or_else(|| internal("nothing was measured"))
}
