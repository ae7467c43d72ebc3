//! Runs the model: one OS thread owns one session.
//!
//! ```text
//!  run ──► bounded queue ──► thread 1: session ──► oneshot
//!            (full: Busy)  └► thread N: session ──► oneshot
//! ```
//!
//! Inputs: requests that fit the signature. Outputs: the wanted outputs, or a `RunError`. Which requests
//! run next, and which together, [`crate::batch`] decides. Invariants: nothing waits without a bound; a
//! request whose client left or whose deadline passed is dropped before it runs, and one that runs goes on to its
//! end; a request that fails beside others runs again alone; a panic inside a run answers that request
//! and leaves the thread alive; after `terminate` everything queued is answered, and what still runs is
//! stopped.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use ort::{environment::Environment, session::RunOptions};
use ortolan_model::{
    failure::{Failure, Reason},
    settings::Batching,
};
use tokio::sync::oneshot;

use self::{job::Job, probe::Rows, queue::Shared, watch::Watch, worker::Worker};
use crate::{
    batch::Policy,
    infer::{Outcome, Request, RunError},
    metrics::Meter,
    onnx::Outline,
    options::Provider,
    runtime::Recipe,
    signature::{Signature, TensorSpec},
    tensor::Tensor,
};

mod job;
mod probe;
mod queue;
mod runner;
mod watch;
mod worker;

/// What an engine is made from.
#[derive(Clone)]
pub struct Plan {
    /// The `.onnx` file.
    pub model: PathBuf,
    /// Its outline.
    pub outline: Arc<Outline>,
    /// How sessions are made.
    pub recipe: Recipe,
    /// How many of them.
    pub sessions: usize,
    /// The queue's length.
    pub queue: usize,
    /// Levels of priority; 1: all requests are equal.
    pub levels: usize,
    /// How requests are put together.
    pub batching: Batching,
    /// A run that takes longer is stopped.
    pub run_limit: Option<Duration>,
    /// Counts the runs.
    pub meter: Arc<Meter>,
}

/// The sessions' threads and the queue before them.
pub struct Engine {
    shared: Arc<Shared<Job>>,
    signature: Arc<Signature>,
    stopping: Arc<AtomicBool>,
    watches: Vec<Arc<Watch>>,
    /// How requests are put together.
    pub policy: Policy,
    /// Why so, in words.
    pub reason: String,
}

/// What a thread reports before it takes requests.
enum Report {
    Loaded(Arc<Signature>, Provider),
    Warm(Option<Rows>),
}

/// What a session runs before it takes requests; `None`: nothing.
type First = Option<Arc<Request>>;

/// Sessions that are loaded, not yet warm.
pub struct Cold {
    /// What the model takes and gives.
    pub signature: Arc<Signature>,
    /// The provider that the sessions got.
    pub active: Provider,
    engine: Engine,
    batching: Batching,
    reports: Receiver<Result<Report, Failure>>,
    starts: Vec<Sender<First>>,
}

impl Engine {
    /// Loads every session, each in its own thread. Blocking.
    pub fn load(environment: &Environment, plan: &Plan) -> Result<Cold, Failure> {
        let shared = Arc::new(Shared::new(plan.queue, plan.levels));
        let (report, reports) = bounded(plan.sessions * 2);
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut watches, mut starts) = (Vec::new(), Vec::new());
        for number in 0..plan.sessions {
            let switch = RunOptions::new().map_err(|error| internal(error.message()))?;
            let watch = Arc::new(Watch::new(switch, plan.run_limit));
            let (start, begin) = bounded(1);
            let worker = Worker {
                shared: Arc::clone(&shared),
                watch: Arc::clone(&watch),
                stopping: Arc::clone(&stopping),
                meter: Arc::clone(&plan.meter),
                is_first: number == 0,
            };
            let (environment, plan, report) = (environment.clone(), plan.clone(), report.clone());
            let live = move || worker.live(&environment, &plan, &report, &begin);
            spawn(&format!("session-{number}"), live)?;
            watches.push(watch);
            starts.push(start);
        }
        drop(report);
        let mut first = None;
        for _ in 0..plan.sessions {
            if let Report::Loaded(signature, active) = next(&reports)? {
                first.get_or_insert((signature, active));
            }
        }
        let (signature, active) = first.ok_or_else(|| internal("no session was loaded"))?;
        if let Some(limit) = plan.run_limit {
            watch::start(&watches, limit)
                .map_err(|error| internal(&format!("cannot start a thread: {error}")))?;
        }
        let engine = Self {
            shared,
            signature: Arc::clone(&signature),
            stopping,
            watches,
            policy: Policy::ALONE,
            reason: String::new(),
        };
        Ok(Cold {
            signature,
            active,
            engine,
            batching: plan.batching.clone(),
            reports,
            starts,
        })
    }

    /// Queues one request, which fits the signature, at a level of priority, 0 first, and waits for its answer,
    /// until its deadline at most.
    pub async fn run(&self, level: usize, request: Request) -> Result<Outcome, RunError> {
        let deadline = request.deadline;
        let (reply, answer) = oneshot::channel();
        let job = Job::new(request, &self.signature, reply);
        self.shared.push(level, job)?;
        let answer = match deadline {
            None => answer.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(RunError::Deadline),
            },
        };
        // The sender is dropped unanswered only when its thread is gone.
        answer.unwrap_or(Err(RunError::Stopping))
    }

    /// How many requests wait for a session.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.len()
    }

    /// Stops what runs now and answers what is queued with `Stopping`: the end of the grace period.
    pub fn terminate(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.shared.close();
        for watch in &self.watches {
            watch.terminate();
        }
        for job in self.shared.drain() {
            let _ = job.reply.send(Err(RunError::Stopping));
        }
    }
}

impl Drop for Engine {
    /// Whoever has a request here holds the engine: the queue is empty, and the threads end.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Cold {
    /// Runs every session once on `inputs`, and one of them as often as it takes to know whether rows can
    /// be put together; the threads then take requests. Blocking.
    pub fn warm(self, inputs: Vec<Option<Tensor>>) -> Result<Engine, Failure> {
        self.begin(Some(Arc::new(Request::new(inputs))))
    }

    /// The threads take requests at once; rows are put together only where that is asked for, since nothing is known
    /// of the model.
    pub fn start(self) -> Result<Engine, Failure> {
        self.begin(None)
    }

    fn begin(self, first: First) -> Result<Engine, Failure> {
        for start in &self.starts {
            // A thread that is gone has left its reason in the reports.
            let _ = start.send(first.clone());
        }
        let mut found = None;
        for _ in &self.starts {
            if let Report::Warm(Some(rows)) = next(&self.reports)? {
                found = Some(rows);
            }
        }
        let mut engine = self.engine;
        let rows = found.unwrap_or_else(|| Rows::Apart("nothing is known of it".to_owned()));
        let has_one_shape = self.signature.has_one_row_shape();
        (engine.policy, engine.reason) =
            probe::decide(&self.batching, &rows, self.active, has_one_shape);
        if let (Rows::Differ(why), true) = (&rows, engine.policy.max_rows > 1) {
            tracing::warn!("rows are put together as asked for, although {why}");
        }
        engine.shared.set_policy(engine.policy.clone());
        Ok(engine)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let builder = thread::Builder::new().name(name.to_owned());
    let spawned = builder.spawn(work).map(drop);
    spawned.map_err(|error| internal(&format!("cannot start a thread: {error}")))
}

fn next(reports: &Receiver<Result<Report, Failure>>) -> Result<Report, Failure> {
    reports
        .recv()
        .unwrap_or_else(|_| Err(internal("a session's thread ended before it was ready")))
}

fn internal(message: &str) -> Failure {
    Failure::new(Reason::Internal, message)
}

/// The tensors to warm up with: zeros, free dimensions 1, `known` where a shape is better known, nothing
/// for optional inputs.
#[must_use]
pub fn warm_up_inputs(signature: &Signature, known: &[(usize, Vec<i64>)]) -> Vec<Option<Tensor>> {
    let shape = |index: usize, spec: &TensorSpec| match known.iter().find(|(at, _)| *at == index) {
        Some((_, shape)) => shape.clone(),
        None => spec
            .shape
            .iter()
            .map(|dim| if *dim < 0 { 1 } else { *dim })
            .collect(),
    };
    let inputs = signature.inputs.iter().enumerate();
    inputs
        .map(|(index, spec)| {
            let zeros = || Tensor::zeros(spec.datatype, shape(index, spec));
            (!spec.optional).then(zeros)
        })
        .collect()
}
