//! One version of one model, ready to run: from verified files to warm sessions.
//!
//! Inputs: a package, the settings. Output: a [`Model`], or a `Failure` with its documented reason.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ort::environment::Environment;
use ortolan_model::{
    Digest, Failure, Held, Package, Reason,
    settings::{Batching, Optimization, Priorities},
};

use crate::{
    cache::Load,
    cpu, declared,
    engine::{Cold, Engine, Plan, warm_up_inputs},
    metrics::Meter,
    options::{Fallback, Options, Provider, Sessions},
    pipeline::Prepared,
    runtime::{self, Recipe},
    signature::Signature,
    startup::Startup,
};

/// Requests that may wait where nobody says otherwise.
const QUEUE: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(queue) => queue,
    None => NonZeroUsize::MIN,
};

/// How a model is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many sessions run beside each other.
    pub sessions: Sessions,
    /// Threads inside one session.
    pub threads: NonZeroUsize,
    /// Requests that may wait for a session.
    pub queue: NonZeroUsize,
    /// Where it runs.
    pub provider: Provider,
    /// What to do when the provider does not load.
    pub fallback: Fallback,
    /// How requests are put together; its `max` bounds a single request, too.
    pub batching: Batching,
    /// Levels of priority; `None`: three, of which 2 is the default.
    pub priorities: Option<Priorities>,
    /// How long a request may take that names no deadline itself.
    pub timeout: Option<Duration>,
    /// A run that takes longer is stopped.
    pub run_limit: Option<Duration>,
    /// Whether its answers may be kept, where the server keeps any.
    pub cache: bool,
    /// How far the graph is optimised.
    pub optimization: Optimization,
}

impl Default for Settings {
    /// What the command line's defaults say.
    fn default() -> Self {
        Self {
            sessions: Sessions::Auto,
            threads: NonZeroUsize::MIN,
            queue: QUEUE,
            provider: Provider::CPU,
            fallback: Fallback::Fail,
            batching: Batching::default(),
            priorities: None,
            timeout: None,
            run_limit: None,
            cache: true,
            optimization: Optimization::default(),
        }
    }
}

impl From<&Options> for Settings {
    fn from(options: &Options) -> Self {
        Self {
            sessions: options.sessions,
            threads: options.threads,
            queue: options.queue,
            provider: options.provider,
            fallback: options.fallback,
            batching: options.batching(),
            run_limit: options.run_limit,
            ..Self::default()
        }
    }
}

/// Before the others, as the others, after the others: what a model has whose files say nothing.
const LEVELS: Priorities = Priorities {
    levels: 3,
    default: 2,
};

/// What it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In URLs and metrics.
    pub name: String,
    /// In URLs and metrics.
    pub version: String,
}

/// A model that is warm.
pub struct Model {
    /// In URLs and metrics.
    pub name: String,
    /// In URLs and metrics.
    pub version: String,
    /// Runs it.
    pub engine: Engine,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// How `POST /predict/{model}` reads and answers.
    pub pipeline: Option<Arc<Prepared>>,
    /// The names of an output's classes, by output, where `config.pbtxt` has them.
    pub labels: BTreeMap<String, Vec<String>>,
    /// What lies on disk for it alone.
    pub files: Held,
    /// Of what was fetched.
    pub digest: Digest,
    /// The provider that was asked for.
    pub requested: Provider,
    /// The provider that its sessions got.
    pub active: Provider,
    /// How many.
    pub sessions: usize,
    /// Inside each session.
    pub threads: usize,
    /// More rows than this in one request are refused.
    pub max_rows: Option<usize>,
    /// Its levels of priority.
    pub priorities: Priorities,
    /// How long a request may take that names no deadline itself.
    pub timeout: Option<Duration>,
    /// Tells its kept answers from those of other models; `None`: none of them are kept.
    pub load: Option<Load>,
    /// Its counters.
    pub meter: Arc<Meter>,
}

impl Model {
    /// Loads the sessions and warms them up. Blocking.
    pub fn open(
        identity: Identity,
        settings: &Settings,
        environment: &Environment,
        package: Package,
        startup: &Startup,
        meter: Meter,
    ) -> Result<Self, Failure> {
        let start = Instant::now();
        startup.enter("Load");
        let meter = Arc::new(meter);
        let (cold, sessions) = load(settings, environment, &package.model_path, &meter)?;
        declared::check(&package.settings, &cold.signature)
            .map_err(|message| Failure::new(Reason::InvalidConfig, message))?;
        let pipeline = package.config.pipeline.as_ref();
        let pipeline = pipeline.map(|pipeline| Prepared::new(pipeline, &cold.signature));
        let pipeline = pipeline
            .transpose()
            .map_err(|message| Failure::new(Reason::InvalidConfig, message))?;
        let mut known = pipeline.as_ref().map_or_else(Vec::new, |pipeline| {
            pipeline.warm_up_shapes(&cold.signature)
        });
        startup.done("Load", start.elapsed());
        let start = Instant::now();
        startup.enter("WarmUp");
        known.extend(
            declared::warm_up_shapes(&package.settings, &cold.signature)
                .map_err(|message| Failure::new(Reason::InvalidConfig, message))?,
        );
        let inputs = warm_up_inputs(&cold.signature, &known);
        let (signature, active) = (Arc::clone(&cold.signature), cold.active);
        let engine = cold.warm(inputs)?;
        startup.done("WarmUp", start.elapsed());
        meter.opened(settings.provider, active, sessions);
        meter.loaded(&startup.snapshot().phases);
        Ok(Self {
            name: identity.name,
            version: identity.version,
            engine,
            signature,
            pipeline: pipeline.map(Arc::new),
            labels: package.settings.labels,
            files: package.files,
            digest: package.digest,
            requested: settings.provider,
            active,
            sessions,
            threads: settings.threads.get(),
            max_rows: settings.batching.max,
            priorities: priorities(settings),
            timeout: settings.timeout,
            load: settings.cache.then(Load::new),
            meter,
        })
    }
}

impl Model {
    /// The place in the queue of a request's priority, 0 first; what is above the number of levels is last.
    #[must_use]
    pub fn level(&self, priority: u32) -> usize {
        level(self.priorities, priority)
    }
}

fn level(priorities: Priorities, priority: u32) -> usize {
    let named = if priority == 0 {
        priorities.default
    } else {
        priority
    };
    named.clamp(1, priorities.levels.max(1)) as usize - 1
}

fn priorities(settings: &Settings) -> Priorities {
    settings.priorities.unwrap_or(LEVELS)
}

/// Loads as many sessions as the settings and the provider ask for. Blocking.
fn load(
    settings: &Settings,
    environment: &Environment,
    model: &Path,
    meter: &Arc<Meter>,
) -> Result<(Cold, usize), Failure> {
    let per_cpu = cpu::available().get().div_ceil(settings.threads.get());
    let sessions = match settings.sessions {
        Sessions::Exactly(sessions) => sessions.get(),
        Sessions::Auto if settings.provider == Provider::CPU => per_cpu,
        // A device runs one session's kernels after the other, and each session holds the weights.
        Sessions::Auto => 1,
    };
    let recipe = Recipe {
        threads: settings.threads.get(),
        provider: settings.provider,
        fallback: settings.fallback,
        optimization: settings.optimization,
    };
    let plan = Plan {
        outline: Arc::new(runtime::inspect(model)?),
        model: model.to_path_buf(),
        recipe,
        sessions,
        queue: settings.queue.get(),
        levels: priorities(settings).levels as usize,
        batching: settings.batching.clone(),
        run_limit: settings.run_limit,
        meter: Arc::clone(meter),
    };
    let cold = Engine::load(environment, &plan)?;
    let fell_back = cold.active == Provider::CPU && settings.provider != Provider::CPU;
    if !fell_back || settings.sessions != Sessions::Auto || per_cpu == 1 {
        return Ok((cold, sessions));
    }
    drop(cold);
    let recipe = Recipe {
        provider: Provider::CPU,
        ..recipe
    };
    let plan = Plan {
        recipe,
        sessions: per_cpu,
        ..plan
    };
    Ok((Engine::load(environment, &plan)?, per_cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        use clap::Parser;
        let options = Options::try_parse_from(["ortolan-server", "m.onnx"]).unwrap();
        assert_eq!(Settings::from(&options), Settings::default());
    }

    #[test]
    fn priority_1_is_first_0_the_default_and_what_there_is_not_last() {
        let table = [(0, 1), (1, 0), (2, 1), (3, 2), (4, 2), (u32::MAX, 2)];
        for (priority, place) in table {
            assert_eq!(level(LEVELS, priority), place, "{priority}");
        }
        let none = Priorities {
            levels: 0,
            default: 0,
        };
        assert_eq!((level(none, 0), level(none, 7)), (0, 0));
    }
}
