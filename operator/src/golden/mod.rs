//! Golden sets are run in the background: a candidate's pod is asked what the set knows the answers of, before any user
//! asks it, and no reconcile waits for it.
//!
//! ```text
//!  of(service, uri, pods) ─▶ remembered? ─▶ outcome
//!        │ no
//!        └─▶ fetch the file ─▶ parse ─▶ ask the candidate's pod, and the stable one's ─▶ remember ─▶ trigger
//! ```
//!
//! Inputs: where the set is, an address of a ready pod of each revision. Output: an [`Outcome`], by revision and URI, for as
//! long as the process lives; the verdict is [`ortolan_core::rollout::golden`]'s. Invariants: one run of a service at a time
//! and [`PARALLEL`] of all; every fetch, answer and run is bounded in bytes and time; what could not be reached is tried
//! again after longer and longer pauses, and is neither an agreement nor a disagreement; nothing is fetched from this
//! machine itself or its cloud's metadata ([`fetch`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ortolan_core::rollout::golden::Judgement;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

pub use self::fetch::Reach;
use self::{fetch::Store, pods::Pods, run::Work};
use crate::{asker::pause, index::Key};

mod fetch;
mod pods;
mod run;

/// Sets that are run at once, of all services: each holds its file in memory.
const PARALLEL: usize = 2;

/// A ready pod of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod<'a> {
    /// Its revision.
    pub revision: &'a str,
    /// Its IP address; the port is the servers' own unless one stands behind it (`127.0.0.1:18080`).
    pub address: &'a str,
    /// The model's name there.
    pub model: &'a str,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every line was answered.
    Judged(Judgement),
    /// The set cannot be used as it is: a sentence that says what to change.
    Unusable(String),
    /// The file or a pod was not reached; it is tried again by itself.
    Unreached {
        /// What happened.
        why: String,
        /// When [`Golden::of`] starts the next run.
        again: Duration,
    },
}

/// Why a run did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    /// It would not the next time either.
    #[error("{0}")]
    Final(String),
    /// It may the next time.
    #[error("{0}")]
    Passing(String),
}

#[derive(Debug)]
enum State {
    UnderWay,
    Done(Outcome),
    Failed {
        why: String,
        at: Instant,
        times: u32,
    },
}

/// The newest run of a service.
#[derive(Debug)]
struct Run {
    revision: String,
    uri: String,
    number: u64,
    state: State,
    task: AbortHandle,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Runs {
    by_service: HashMap<Key, Run>,
    begun: u64,
}

/// Runs golden sets and keeps what they came to.
#[derive(Clone)]
pub struct Golden(Arc<Inner>);

struct Inner {
    store: Store,
    pods: Pods,
    permits: Semaphore,
    runs: Mutex<Runs>,
    triggers: mpsc::UnboundedSender<Key>,
}

impl Golden {
    /// `triggers` hears of each service whose run has ended.
    ///
    /// # Errors
    /// When TLS cannot be set up, which is a fault of the build.
    pub fn new(reach: Reach, triggers: mpsc::UnboundedSender<Key>) -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(Inner {
            store: Store::new(reach)?,
            pods: Pods::new(),
            permits: Semaphore::new(PARALLEL),
            runs: Mutex::default(),
            triggers,
        })))
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the set at `uri` makes of the candidate; `None` while that is being found out. Starts a run when none of this
    /// revision and URI has begun, in the place of any other of the service. Inside a runtime.
    #[must_use]
    pub fn of(
        &self,
        key: &Key,
        uri: &str,
        candidate: Pod<'_>,
        stable: Option<Pod<'_>>,
    ) -> Option<Outcome> {
        let mut runs = self.runs();
        let failures = match runs.by_service.get(key) {
            Some(run) if run.revision == candidate.revision && run.uri == uri => match &run.state {
                State::UnderWay => return None,
                State::Done(outcome) => return Some(outcome.clone()),
                State::Failed { why, at, times } => {
                    let again = pause(*times).saturating_sub(at.elapsed());
                    if !again.is_zero() {
                        let why = why.clone();
                        return Some(Outcome::Unreached { why, again });
                    }
                    *times
                }
            },
            _ => 0,
        };
        runs.begun += 1;
        let number = runs.begun;
        let work = Work::new(uri, candidate, stable);
        let task = tokio::spawn(self.clone().run(key.clone(), work, number, failures));
        let run = Run {
            revision: candidate.revision.to_owned(),
            uri: uri.to_owned(),
            number,
            state: State::UnderWay,
            task: task.abort_handle(),
        };
        runs.by_service.insert(key.clone(), run);
        None
    }

    async fn run(self, key: Key, work: Work, number: u64, failures: u32) {
        let Ok(_permit) = self.0.permits.acquire().await else {
            return;
        };
        let state = match work.run(&self.0.store, &self.0.pods).await {
            Ok(judgement) => State::Done(Outcome::Judged(judgement)),
            Err(Trouble::Final(why)) => State::Done(Outcome::Unusable(why)),
            Err(Trouble::Passing(why)) => {
                tracing::debug!(service = key.name, why, "a golden set was not run");
                State::Failed {
                    why,
                    at: Instant::now(),
                    times: failures + 1,
                }
            }
        };
        let mut runs = self.runs();
        // Nobody waits for it any more when another one is in its place.
        if let Some(run) = runs.by_service.get_mut(&key)
            && run.number == number
        {
            run.state = state;
            // The receiver is gone only when the process ends.
            let _ = self.0.triggers.send(key);
        }
    }

    /// Forgets a service's run and ends it: the service was deleted, needs no golden set any more, or is to be judged anew
    /// (a file that was mended keeps its URI).
    pub fn forget(&self, key: &Key) {
        self.runs().by_service.remove(key);
    }
}

/// What really happened: clients wrap it in words of their own.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
