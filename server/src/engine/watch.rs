//! The watchdog: a run that takes longer than its limit is told to stop.
//!
//! Invariant: only the run that was too long is told, never the next one: start, end and the order to stop
//! are taken under one lock for each session. Once the server ends, the switch stays thrown, whatever else happens.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use ort::session::RunOptions;

/// One session's run, as the watchdog sees it.
pub(super) struct Watch {
    /// Stops what runs under it.
    pub(super) switch: Arc<RunOptions>,
    limit: Option<Duration>,
    state: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    began: Option<Instant>,
    is_stopped: bool,
    /// The end of the server: the switch stays thrown.
    is_ended: bool,
}

impl Watch {
    pub(super) fn new(switch: RunOptions, limit: Option<Duration>) -> Self {
        Self {
            switch: Arc::new(switch),
            limit,
            state: Mutex::default(),
        }
    }

    /// A run begins.
    pub(super) fn begin(&self) {
        if self.limit.is_some() {
            self.lock().began = Some(Instant::now());
        }
    }

    /// The run has ended; the limit, if it was stopped because of it. The session can run again.
    pub(super) fn end(&self) -> Option<Duration> {
        let limit = self.limit?;
        let mut run = self.lock();
        let is_stopped = std::mem::take(&mut run.is_stopped);
        run.began = None;
        if !is_stopped {
            return None;
        }
        if !run.is_ended {
            warn(self.switch.unterminate());
        }
        Some(limit)
    }

    /// Stops what runs, and whatever would run after it.
    pub(super) fn terminate(&self) {
        self.lock().is_ended = true;
        warn(self.switch.terminate());
    }

    fn check(&self, now: Instant) {
        let Some(limit) = self.limit else { return };
        let mut run = self.lock();
        let is_over = run
            .began
            .is_some_and(|began| now.saturating_duration_since(began) > limit);
        if is_over && !run.is_stopped {
            run.is_stopped = true;
            warn(self.switch.terminate());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn(done: ort::Result<()>) {
    if let Err(error) = done {
        tracing::warn!("cannot stop a run: {error}");
    }
}

/// Looks after sessions until they are gone.
pub(super) fn start(watches: &[Arc<Watch>], limit: Duration) -> std::io::Result<()> {
    let watches: Vec<Weak<Watch>> = watches.iter().map(Arc::downgrade).collect();
    // A tenth of the limit is how late it may be; a thousand times a second is often enough.
    let step = (limit / 10).clamp(Duration::from_millis(1), Duration::from_secs(1));
    let look = move || {
        loop {
            thread::sleep(step);
            let alive: Vec<_> = watches.iter().filter_map(Weak::upgrade).collect();
            if alive.is_empty() {
                return;
            }
            let now = Instant::now();
            alive.iter().for_each(|watch| watch.check(now));
        }
    };
    let builder = thread::Builder::new().name("watchdog".to_owned());
    builder.spawn(look).map(drop)
}
