//! The one door through which every write goes: open only while we lead.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

/// Whether this replica leads, and until when: one that was frozen (SIGSTOP, a paused VM) has lost its
/// Lease before it can run the code that notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tenure {
    /// It does not lead.
    #[default]
    None,
    /// It leads until then, unless it renews its Lease.
    Until(Instant),
    /// There is no election.
    Always,
}

impl Tenure {
    /// Whether it leads at this moment.
    #[must_use]
    pub fn holds(self) -> bool {
        match self {
            Self::None => false,
            Self::Until(end) => Instant::now() < end,
            Self::Always => true,
        }
    }
}

/// Whether writing is allowed right now.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn() -> bool + Send + Sync>);

impl Gate {
    /// Asked before every write. A test closes it after so many.
    pub fn new(open: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Open while the Lease is ours.
    #[must_use]
    pub fn leading(leads: watch::Receiver<Tenure>) -> Self {
        Self::new(move || leads.borrow().holds())
    }

    /// Whether the next write may be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (self.0)()
    }
}
