//! How far the router's end is.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Open,
    /// Clients are asked to go elsewhere, and served.
    Draining,
    /// No new client is taken.
    Closed,
}

/// The phase, to be watched by connections and looked at by answers.
#[derive(Debug)]
pub struct Ending {
    phase: watch::Sender<Phase>,
    /// The same, without a lock.
    is_draining: AtomicBool,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Open),
            is_draining: AtomicBool::new(false),
        }
    }
}

impl Ending {
    /// Goes on to this phase.
    pub fn enter(&self, phase: Phase) {
        self.is_draining
            .store(phase != Phase::Open, Ordering::Relaxed);
        self.phase.send_replace(phase);
    }

    /// Whether answers close their connections.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Now and from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}
