//! What all requests share: the models, how far the start is, the limits and the counters.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{catalog::Catalog, metrics::Metrics, startup::Startup};

/// Shared by all connections.
pub struct App {
    /// The models.
    pub catalog: Catalog,
    /// How far the server's start is.
    pub startup: Arc<Startup>,
    /// The largest body that is read.
    pub max_body: usize,
    /// The counters.
    pub metrics: Metrics,
    draining: AtomicBool,
}

impl App {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new(max_body: usize) -> Self {
        Self {
            catalog: Catalog::default(),
            startup: Arc::default(),
            max_body,
            metrics: Metrics::default(),
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
