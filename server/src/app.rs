//! What all requests share: the models, how far the start is, the limits and the counters.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use ortolan_model::Digest;
use tokio::sync::watch;

use crate::{
    admission::Admission, cache::ResponseCache, catalog::Catalog, cpu, metrics::Metrics,
    observe::Observer, pipeline::workers::Workers, repository::Keeper, startup::Startup,
};

/// Bodies that may wait to be decoded, unless the options say otherwise.
const PIPELINE_QUEUE: usize = 256;

/// How far the app's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Open,
    /// Clients are asked to go elsewhere, and served.
    Draining,
    /// No new client is taken.
    Closed,
}

/// Shared by all connections.
pub struct App {
    /// The models.
    pub catalog: Catalog,
    /// How far the server's start is.
    pub startup: Arc<Startup>,
    /// The largest body that is read.
    pub max_body: usize,
    /// How many predictions may be under way.
    pub admission: Admission,
    /// Answers that are kept, if any are to be.
    pub cache: Option<ResponseCache>,
    /// The counters.
    pub metrics: Metrics,
    /// The threads that pipelines run on, as many as the sessions may have cores.
    pub pipelines: Workers,
    /// Follows single requests.
    pub observer: Observer,
    /// The same as the phase, for each answer to look at without a lock.
    draining: AtomicBool,
    phase: watch::Sender<Phase>,
    repository: OnceLock<Keeper>,
    /// Of the whole repository, where it cannot change.
    pub digest: OnceLock<Digest>,
}

impl App {
    /// Nothing loaded yet, no answers kept.
    #[must_use]
    pub fn new(max_body: usize) -> Self {
        Self {
            catalog: Catalog::default(),
            startup: Arc::default(),
            max_body,
            admission: Admission::default(),
            cache: None,
            metrics: Metrics::default(),
            pipelines: Workers::new(cpu::available(), PIPELINE_QUEUE),
            observer: Observer::default(),
            draining: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Open),
            repository: OnceLock::new(),
            digest: OnceLock::new(),
        }
    }

    /// What keeps the catalog, where the server has a repository.
    #[must_use]
    pub fn repository(&self) -> Option<&Keeper> {
        self.repository.get()
    }

    /// The catalog is kept by `keeper` from now on; there is one at most.
    pub fn keep(&self, keeper: Keeper) -> &Keeper {
        self.repository.get_or_init(|| keeper)
    }

    /// From now on every answer closes its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.phase.send_if_modified(|phase| {
            let is_open = *phase == Phase::Open;
            if is_open {
                *phase = Phase::Draining;
            }
            is_open
        });
    }

    /// From now on no connection is taken, and those that there are end with what they are answering.
    pub fn close(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Closed);
    }

    /// How far the end is, now and from now on.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether `drain` was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
