//! One version of one model, ready to run: from verified files to warm sessions.
//!
//! Inputs: a package, the settings. Output: a [`Model`], or a `Failure` with its documented reason.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
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
    options::{Fallback, Options, Provider, Sessions, WarmUp},
    pipeline::Prepared,
    runtime::{self, Graph, Recipe, graphs::Graphs},
    signature::Signature,
    startup::Startup,
};

mod graph;

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
    /// The library of a provider that is a plugin, where one was named.
    pub plugin: Option<PathBuf>,
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
    /// Where optimised graphs are kept, if they are.
    pub graphs: Option<Graphs>,
    /// Whether it runs before it counts as ready.
    pub warm_up: WarmUp,
}

impl Default for Settings {
    /// What the command line's defaults say.
    fn default() -> Self {
        Self {
            sessions: Sessions::Auto,
            threads: NonZeroUsize::MIN,
            queue: QUEUE,
            provider: Provider::CPU,
            plugin: None,
            fallback: Fallback::Fail,
            batching: Batching::default(),
            priorities: None,
            timeout: None,
            run_limit: None,
            cache: true,
            optimization: Optimization::default(),
            graphs: None,
            warm_up: WarmUp::default(),
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
            plugin: options.provider_library.clone(),
            fallback: options.fallback,
            batching: options.batching(),
            run_limit: options.run_limit,
            graphs: graphs(options),
            warm_up: options.warm_up,
            ..Self::default()
        }
    }
}

/// Where optimised graphs are kept, if they are to be. Without a folder for downloads nothing is served at all.
fn graphs(options: &Options) -> Option<Graphs> {
    let bound = Some(options.optimized_graph_cache).filter(|bound| *bound > 0)?;
    let folder = runtime::downloads(options.access.cache_dir.as_deref()).ok()?;
    Some(Graphs::new(&folder, bound))
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
    /// Where its optimised graph came from or went to, where such graphs are kept.
    pub graph: Option<graph::Kept>,
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
        let Opened {
            cold,
            sessions,
            graph,
        } = load(settings, environment, &package, &meter)?;
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
        known.extend(
            declared::warm_up_shapes(&package.settings, &cold.signature)
                .map_err(|message| Failure::new(Reason::InvalidConfig, message))?,
        );
        let (signature, active) = (Arc::clone(&cold.signature), cold.active);
        let engine = match settings.warm_up {
            WarmUp::Off => cold.start()?,
            WarmUp::Auto => {
                let start = Instant::now();
                startup.enter("WarmUp");
                let engine = cold.warm(warm_up_inputs(&signature, &known))?;
                startup.done("WarmUp", start.elapsed());
                engine
            }
        };
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
            graph,
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

/// What [`load`] gives.
struct Opened {
    cold: Cold,
    sessions: usize,
    graph: Option<graph::Kept>,
}

/// Loads as many sessions as the settings and the provider ask for. Blocking.
fn load(
    settings: &Settings,
    environment: &Environment,
    package: &Package,
    meter: &Arc<Meter>,
) -> Result<Opened, Failure> {
    let per_cpu = cpu::available().get().div_ceil(settings.threads.get());
    let sessions = match settings.sessions {
        Sessions::Exactly(sessions) => sessions.get(),
        Sessions::Auto if !settings.provider.is_gpu() => per_cpu,
        // A device runs one session's kernels after the other, and each session holds the weights.
        Sessions::Auto => 1,
    };
    let recipe = Recipe {
        threads: settings.threads.get(),
        provider: settings.provider,
        plugin: settings.plugin.clone(),
        fallback: settings.fallback,
        optimization: settings.optimization,
        graph: Graph::Make,
    };
    let plan = Plan {
        outline: Arc::new(runtime::inspect(&package.model_path)?),
        model: package.model_path.clone(),
        recipe,
        sessions,
        queue: settings.queue.get(),
        levels: priorities(settings).levels as usize,
        batching: settings.batching.clone(),
        run_limit: settings.run_limit,
        meter: Arc::clone(meter),
    };
    let (cold, graph) = graph::load(settings.graphs.as_ref(), environment, plan.clone(), package)?;
    let fell_back = cold.active == Provider::CPU && settings.provider != Provider::CPU;
    if !fell_back || settings.sessions != Sessions::Auto || per_cpu == sessions {
        return Ok(Opened {
            cold,
            sessions,
            graph,
        });
    }
    drop(cold);
    let recipe = Recipe {
        provider: Provider::CPU,
        ..plan.recipe
    };
    let plan = Plan {
        recipe,
        sessions: per_cpu,
        ..plan
    };
    let (cold, graph) = graph::load(settings.graphs.as_ref(), environment, plan, package)?;
    Ok(Opened {
        cold,
        sessions: per_cpu,
        graph,
    })
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
