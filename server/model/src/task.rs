//! Blocking work beside the async world: hashing and unpacking run on a thread of their own, tell
//! how far they are, and stop soon after nobody waits for them any more.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Progress,
    failure::{Failure, Reason},
};

/// Often enough for a progress line, seldom enough to cost nothing.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// What the working thread and the waiting task share.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    done: AtomicU64,
    stopped: AtomicBool,
}

impl Pulse {
    /// `bytes` more are done. An error when nobody waits any more.
    pub(crate) fn advance(&self, bytes: u64) -> io::Result<()> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "stopped: nobody waits for this model any more",
            ));
        }
        Ok(())
    }
}

struct StopOnDrop(Arc<Pulse>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread and reports its pulse meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(
    progress: &dyn Progress,
    total: Option<u64>,
    work: impl FnOnce(&Pulse) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let pulse = Arc::new(Pulse::default());
    let guard = StopOnDrop(Arc::clone(&pulse));
    let inner = Arc::clone(&pulse);
    let mut handle = tokio::task::spawn_blocking(move || work(&inner));
    let result = loop {
        match tokio::time::timeout(REPORT_EVERY, &mut handle).await {
            Ok(joined) => break joined,
            Err(_) => progress.bytes(pulse.done.load(Ordering::Relaxed), total),
        }
    };
    drop(guard);
    result.map_err(|e| Failure::new(Reason::Internal, format!("a worker thread failed: {e}")))?
}
