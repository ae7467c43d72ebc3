//! One setting, loaded and driven as the server does it.

use std::{
    cell::{Cell as Mutable, RefCell},
    num::NonZeroUsize,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use ort::environment::Environment;
use ortolan_model::{
    Failure, Package, Reason,
    settings::{Batching, Mode},
};

use super::{Cell, Options, QUANTILE, choose::Slo, grid::Layout};
use crate::{
    infer::{Request, RunError},
    metrics::Metrics,
    model::{Identity, Model, Settings},
    options::Sessions,
    startup::Startup,
    tool::{
        Refusal,
        inputs::{self, Inputs},
        internal,
        stats::{self, Spread},
    },
};

/// Batches under way for each session: one runs, one gathers.
const DEEP: usize = 2;
/// Of a round's time, before it counts.
const WARM_UP: f64 = 0.2;
/// Enough to see whether rows can run together.
const SOME: usize = 8;
/// Different random requests.
const DIFFERENT: usize = 16;

/// The model and how to measure it.
pub(super) struct Bench {
    environment: Environment,
    package: Package,
    feeds: Vec<Inputs>,
    words: String,
    batchable: bool,
    reason: String,
    quantile: f64,
    time: Duration,
    rounds: u16,
    requests: Option<u64>,
}

/// What one round showed.
struct Round {
    rows_per_second: f64,
    p50: Duration,
    tail: Duration,
    together: f64,
}

impl Bench {
    /// Loads the model once to see what it takes.
    pub(super) fn new(
        environment: Environment,
        package: Package,
        options: &Options,
    ) -> Result<Self, Refusal> {
        let one = Layout {
            sessions: 1,
            threads: 1,
        };
        let asked = open(&environment, &package, one, together(SOME))?;
        let model = open(&environment, &package, one, Batching::default())?;
        let (feeds, words) = inputs::feeds(&options.inputs, &model.signature, DIFFERENT)?;
        Ok(Self {
            batchable: asked.engine.policy.max_rows > 1,
            reason: model.engine.reason.clone(),
            environment,
            package,
            feeds,
            words,
            quantile: options.slo.map_or(QUANTILE, |slo: Slo| slo.quantile),
            time: options.time,
            rounds: options.rounds,
            requests: options.requests,
        })
    }

    pub(super) const fn is_batchable(&self) -> bool {
        self.batchable
    }

    /// What the server does about batches when nobody says anything, and why.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn inputs(&self) -> &str {
        &self.words
    }

    pub(super) const fn quantile(&self) -> f64 {
        self.quantile
    }

    /// Loads a setting and runs all its rounds.
    pub(super) fn measure(&self, layout: Layout, batch: usize) -> Result<Cell, Refusal> {
        let model = Arc::new(open(
            &self.environment,
            &self.package,
            layout,
            together(batch),
        )?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(internal)?;
        let clients = DEEP * layout.sessions * batch;
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let local = tokio::task::LocalSet::new();
            rounds.push(local.block_on(&runtime, self.round(&model, clients))?);
        }
        let spread = |pick: fn(&Round) -> f64| {
            let numbers: Vec<f64> = rounds.iter().map(pick).collect();
            Spread::of(&numbers).ok_or_else(|| internal("no round was measured"))
        };
        let median = |pick: fn(&Round) -> Duration| {
            stats::median(&rounds.iter().map(pick).collect::<Vec<_>>())
        };
        Ok(Cell {
            layout,
            batch,
            rows: spread(|round| round.rows_per_second)?,
            p50: median(|round| round.p50),
            tail: median(|round| round.tail),
            together: spread(|round| round.together)?.median,
        })
    }

    async fn round(&self, model: &Arc<Model>, clients: usize) -> Result<Round, Refusal> {
        let warm_up = self.time.mul_f64(WARM_UP);
        let load = Rc::new(Load {
            model: Arc::clone(model),
            counts_from: Instant::now() + warm_up,
            ends: match self.requests {
                Some(_) => None,
                None => Some(Instant::now() + warm_up + self.time),
            },
            left: Mutable::new(self.requests.unwrap_or(u64::MAX)),
            next: Mutable::new(0),
            seen: RefCell::default(),
        });
        let feeds: Rc<[Inputs]> = self.feeds.clone().into();
        let tasks: Vec<_> = (0..clients)
            .map(|_| tokio::task::spawn_local(client(Rc::clone(&load), Rc::clone(&feeds))))
            .collect();
        for task in tasks {
            task.await
                .map_err(internal)?
                .map_err(|error| Failure::new(Reason::WarmUpFailed, error.to_string()))?;
        }
        let mut seen = load.seen.take();
        let last = seen.last.unwrap_or(load.counts_from);
        let seconds = last
            .saturating_duration_since(load.counts_from)
            .as_secs_f64();
        Ok(Round {
            rows_per_second: seen.rows as f64 / seconds.max(1e-9),
            p50: stats::quantile(&mut seen.latencies, 0.5),
            tail: stats::quantile(&mut seen.latencies, self.quantile),
            together: seen.together as f64 / seen.latencies.len().max(1) as f64,
        })
    }
}

/// What the clients of one round share.
struct Load {
    model: Arc<Model>,
    counts_from: Instant,
    ends: Option<Instant>,
    left: Mutable<u64>,
    next: Mutable<usize>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    rows: u64,
    /// Rows that ran with each request, added up.
    together: u64,
    last: Option<Instant>,
}

impl Load {
    /// When the next request is sent; `None` at the end of the round.
    fn begin(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.ends.is_some_and(|ends| now >= ends) || self.left.get() == 0 {
            return None;
        }
        if now >= self.counts_from {
            self.left.set(self.left.get() - 1);
        }
        Some(now)
    }
}

async fn client(load: Rc<Load>, feeds: Rc<[Inputs]>) -> Result<(), RunError> {
    while let Some(sent) = load.begin() {
        let at = load.next.get();
        load.next.set((at + 1) % feeds.len());
        let request = Request::new(feeds[at].clone());
        let rows = load.model.signature.rows(&request).unwrap_or(1) as u64;
        let outcome = load.model.engine.run(0, request).await?;
        let now = Instant::now();
        // What the last round's clients left half done counts where it ends.
        if now >= load.counts_from {
            let mut seen = load.seen.borrow_mut();
            if sent >= load.counts_from {
                seen.latencies.push(now - sent);
                seen.together += outcome.batch as u64;
            }
            seen.rows += rows;
            seen.last = Some(now);
        }
    }
    Ok(())
}

/// At most so many rows in a run.
fn together(batch: usize) -> Batching {
    let (mode, max) = match batch {
        1 => (Mode::Alone, None),
        _ => (Mode::Together, Some(batch)),
    };
    Batching {
        mode: Some(mode),
        max,
        ..Batching::default()
    }
}

/// The model with this setting, warm.
fn open(
    environment: &Environment,
    package: &Package,
    layout: Layout,
    batching: Batching,
) -> Result<Model, Refusal> {
    let identity = Identity {
        name: "tune".to_owned(),
        version: "1".to_owned(),
    };
    let number = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    let settings = Settings {
        sessions: Sessions::Exactly(number(layout.sessions)),
        threads: number(layout.threads),
        queue: number(1 << 16),
        batching,
        optimization: package.settings.optimization,
        ..Settings::default()
    };
    let meter = Metrics::default().meter(&identity.name, &identity.version);
    let startup = Startup::default();
    let package = package.clone();
    let model = Model::open(identity, &settings, environment, package, &startup, meter)?;
    Ok(model)
}
