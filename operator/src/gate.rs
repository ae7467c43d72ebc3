//! The one door through which every write goes: open only while we lead.

use std::sync::Arc;

use tokio::sync::watch;

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
    pub fn leading(leads: watch::Receiver<bool>) -> Self {
        Self::new(move || *leads.borrow())
    }

    /// Whether the next write may be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (self.0)()
    }
}
