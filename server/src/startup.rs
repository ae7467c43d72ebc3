//! How far the start is: the phases with their times, as `/healthz/startup` and the metrics show them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// One finished phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// Fetch, Verify, Unpack, Load or WarmUp.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
}

/// The start as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// The phase that runs now, or Ready.
    pub phase: &'static str,
    /// Bytes so far in this phase, where bytes are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes in all, where that is known.
    #[serde(rename = "totalBytes", skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What is done.
    pub phases: Vec<Done>,
}

/// Written by the loader, read by every request to `/healthz/startup`.
#[derive(Debug)]
pub struct Startup {
    began: Instant,
    state: Mutex<Snapshot>,
}

impl Default for Startup {
    fn default() -> Self {
        let state = Snapshot {
            phase: "Starting",
            bytes: None,
            total: None,
            phases: Vec::new(),
        };
        Self {
            began: Instant::now(),
            state: Mutex::new(state),
        }
    }
}

impl Startup {
    /// A phase begins.
    pub fn enter(&self, phase: &'static str) {
        self.change(|state| {
            state.phase = phase;
            (state.bytes, state.total) = (None, None);
        });
    }

    /// A phase has ended.
    pub fn done(&self, name: &'static str, took: Duration) {
        self.change(|state| {
            state.phases.push(Done {
                name,
                seconds: rounded(took),
            })
        });
    }

    /// How it stands.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Since the process began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ortolan_model::Progress for Startup {
    fn phase(&self, phase: ortolan_model::Phase) {
        self.enter(phase.as_str());
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.change(|state| (state.bytes, state.total) = (Some(done), total));
    }
}

/// Microseconds are enough.
fn rounded(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e6
}
