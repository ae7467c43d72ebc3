//! What all requests share: the model's name, how far the start is, and, once loaded, the model.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use ortolan_model::{Digest, Pipeline};
use tokio::sync::Semaphore;

use crate::{engine::Engine, metrics::Metrics, options::Provider, startup::Startup};

/// Shared by all connections.
pub struct App {
    /// In URLs and metrics.
    pub name: String,
    /// In URLs and metrics.
    pub version: String,
    /// How far the start is.
    pub startup: Arc<Startup>,
    /// Empty until the model is warm, set once.
    pub serving: OnceLock<Serving>,
    /// The largest body that is read.
    pub max_body: usize,
    /// The counters.
    pub metrics: Metrics,
    draining: AtomicBool,
}

/// The model, ready.
pub struct Serving {
    /// Runs it.
    pub engine: Engine,
    /// How `POST /predict/{model}` reads and answers.
    pub pipeline: Option<Pipeline>,
    /// Bounds the pipelines that run beside each other.
    pub pipeline_slots: Semaphore,
    /// Bounds the pipelines that run or wait.
    pub pipeline_queue: Semaphore,
    /// Of what was fetched.
    pub digest: Digest,
    /// The provider that was asked for; the engine knows which one it got.
    pub requested: Provider,
    /// How many.
    pub sessions: usize,
    /// Inside each session.
    pub threads: usize,
}

impl App {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new(name: String, version: String, max_body: usize) -> Self {
        Self {
            metrics: Metrics::new(&name, &version),
            name,
            version,
            startup: Arc::default(),
            serving: OnceLock::new(),
            max_body,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on every answer closes its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether `drain` was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
