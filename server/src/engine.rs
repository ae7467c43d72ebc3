//! Runs the model: one OS thread owns one session.
//!
//! ```text
//!  submit ──► bounded queue ──► thread 1: session ──► oneshot
//!               (full: Busy) └► thread N: session ──► oneshot
//! ```
//!
//! Inputs: tensors that fit the signature. Outputs: the graph's outputs in order, or a `RunError`.
//! Invariants: nothing waits without a bound; a request whose client left is dropped before it runs; a panic
//! inside a run answers that request and leaves the thread alive; after `stop` everything queued is
//! answered, and after `terminate` what still runs is stopped as well.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ort::{
    ErrorCode,
    environment::Environment,
    session::{RunOptions, Session, SessionInputValue},
    value::DynValue,
};
use ortolan_model::failure::{Failure, Reason};
use tokio::sync::oneshot;

use crate::{
    onnx::Outline,
    options::Provider,
    runtime::{self, Recipe},
    signature::{Signature, TensorSpec},
    tensor::Tensor,
};

/// Why a request was not answered with tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The queue is full.
    #[error("the queue is full: {waiting} requests wait already; try again")]
    Busy {
        /// The queue's length.
        waiting: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopping,
    /// The graph cannot compute these inputs.
    #[error("the model cannot run on these inputs: {0}")]
    Refused(String),
    /// ONNX Runtime failed where it should not.
    #[error("ONNX Runtime failed: {0}")]
    Failed(String),
    /// A bug: the run panicked.
    #[error("the run panicked; this is a bug in the server")]
    Panicked,
}

/// What a run gave.
pub struct Outcome {
    /// The graph's outputs, in its order.
    pub outputs: Vec<DynValue>,
    /// From the queue to the session.
    pub queued: Duration,
    /// Inside ONNX Runtime.
    pub ran: Duration,
}

struct Job {
    inputs: Vec<SessionInputValue<'static>>,
    since: Instant,
    reply: oneshot::Sender<Result<Outcome, RunError>>,
}

/// What an engine is made from.
#[derive(Clone, Debug)]
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
}

/// The sessions' threads and the queue before them.
pub struct Engine {
    /// What the model takes and gives.
    pub signature: Signature,
    /// The provider that the sessions got.
    pub active: Provider,
    queue: Sender<Job>,
    waiting: Receiver<Job>,
    capacity: usize,
    stopping: Arc<AtomicBool>,
    switches: Vec<Arc<RunOptions>>,
}

/// What a thread reports before it takes requests.
enum Report {
    Loaded(Box<(Signature, Provider)>),
    Warm,
}

/// Sessions that are loaded, not yet warm.
pub struct Cold {
    engine: Engine,
    reports: Receiver<Result<Report, Failure>>,
    starts: Vec<Sender<Arc<Vec<Tensor>>>>,
}

impl Engine {
    /// Loads every session, each in its own thread. Blocking.
    pub fn load(environment: &Environment, plan: &Plan) -> Result<Cold, Failure> {
        let (queue, waiting) = bounded(plan.queue);
        let (report, reports) = bounded(plan.sessions * 2);
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut switches, mut starts) = (Vec::new(), Vec::new());
        for number in 0..plan.sessions {
            let switch = Arc::new(RunOptions::new().map_err(|error| internal(error.message()))?);
            let (start, begin) = bounded(1);
            let worker = Worker {
                jobs: waiting.clone(),
                switch: Arc::clone(&switch),
                stopping: Arc::clone(&stopping),
            };
            let (environment, plan, report) = (environment.clone(), plan.clone(), report.clone());
            thread::Builder::new()
                .name(format!("session-{number}"))
                .spawn(move || worker.live(&environment, &plan, &report, &begin))
                .map_err(|error| internal(&format!("cannot start a thread: {error}")))?;
            switches.push(switch);
            starts.push(start);
        }
        drop(report);
        let mut first = None;
        for _ in 0..plan.sessions {
            if let Report::Loaded(loaded) = next(&reports)? {
                first.get_or_insert(*loaded);
            }
        }
        let (signature, active) = first.ok_or_else(|| internal("no session was loaded"))?;
        let capacity = plan.queue;
        let engine = Self {
            signature,
            active,
            queue,
            waiting,
            capacity,
            stopping,
            switches,
        };
        Ok(Cold {
            engine,
            reports,
            starts,
        })
    }

    /// Queues one request and waits for its answer.
    pub async fn run(&self, inputs: Vec<SessionInputValue<'static>>) -> Result<Outcome, RunError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(RunError::Stopping);
        }
        let (reply, answer) = oneshot::channel();
        let job = Job {
            inputs,
            since: Instant::now(),
            reply,
        };
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(RunError::Busy {
                    waiting: self.capacity,
                });
            }
            Err(TrySendError::Disconnected(_)) => return Err(RunError::Stopping),
        }
        // The sender is dropped unanswered only when its thread is gone.
        answer.await.unwrap_or(Err(RunError::Stopping))
    }

    /// How many requests wait for a session.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.waiting.len()
    }

    /// Stops what runs now and answers what is queued with `Stopping`: the end of the grace period.
    pub fn terminate(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for switch in &self.switches {
            if let Err(error) = switch.terminate() {
                tracing::warn!("cannot stop a run: {error}");
            }
        }
        while let Ok(job) = self.waiting.try_recv() {
            let _ = job.reply.send(Err(RunError::Stopping));
        }
    }
}

impl Cold {
    /// What the model takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.engine.signature
    }

    /// The provider that the sessions got.
    #[must_use]
    pub fn active(&self) -> Provider {
        self.engine.active
    }

    /// Runs every session once on `inputs`; the threads then take requests. Blocking.
    pub fn warm(self, inputs: Vec<Tensor>) -> Result<Engine, Failure> {
        let inputs = Arc::new(inputs);
        for start in &self.starts {
            // A thread that is gone has left its reason in the reports.
            let _ = start.send(Arc::clone(&inputs));
        }
        for _ in &self.starts {
            next(&self.reports)?;
        }
        Ok(self.engine)
    }
}

fn next(reports: &Receiver<Result<Report, Failure>>) -> Result<Report, Failure> {
    reports
        .recv()
        .unwrap_or_else(|_| Err(internal("a session's thread ended before it was ready")))
}

fn internal(message: &str) -> Failure {
    Failure::new(Reason::Internal, message)
}

/// The tensors to warm up with: zeros, free dimensions 1, `known` where a shape is better known.
#[must_use]
pub fn warm_up_inputs(signature: &Signature, known: &[(usize, Vec<i64>)]) -> Vec<Tensor> {
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
        .map(|(index, spec)| Tensor::zeros(spec.datatype, shape(index, spec)))
        .collect()
}

struct Worker {
    jobs: Receiver<Job>,
    switch: Arc<RunOptions>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn live(
        &self,
        environment: &Environment,
        plan: &Plan,
        report: &Sender<Result<Report, Failure>>,
        begin: &Receiver<Arc<Vec<Tensor>>>,
    ) {
        let opened = catch_unwind(AssertUnwindSafe(|| open(environment, plan)))
            .unwrap_or_else(|_| Err(internal("loading the model panicked")));
        let mut session = match opened {
            Ok((session, signature, active)) => {
                let _ = report.send(Ok(Report::Loaded(Box::new((signature, active)))));
                session
            }
            Err(failure) => {
                let _ = report.send(Err(failure));
                return;
            }
        };
        // No inputs come when another session failed to load: then there is nothing to run.
        let Ok(inputs) = begin.recv() else { return };
        let warm = self.warm(&mut session, &inputs);
        let is_warm = warm.is_ok();
        let _ = report.send(warm.map(|()| Report::Warm));
        drop(inputs);
        if is_warm {
            self.serve(&mut session);
        }
    }

    fn warm(&self, session: &mut Session, inputs: &[Tensor]) -> Result<(), Failure> {
        let failed = |words: &str| {
            let shapes: Vec<_> = inputs
                .iter()
                .map(|tensor| crate::signature::show_shape(&tensor.shape))
                .collect();
            Failure::new(
                Reason::WarmUpFailed,
                format!(
                    "the first run, on zeros of the shapes {}, failed: {words}",
                    shapes.join(" ")
                ),
            )
        };
        let values: Result<Vec<_>, _> = inputs.iter().cloned().map(Tensor::into_ort).collect();
        let values = values.map_err(|error| failed(error.message()))?;
        match catch_unwind(AssertUnwindSafe(|| {
            self.run(session, &output_names(session), &values)
        })) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error.message())),
            Err(_) => Err(failed("it panicked")),
        }
    }

    fn serve(&self, session: &mut Session) {
        let has_free_dimensions = session_has_free_dimensions(session);
        let names = output_names(session);
        while let Ok(Job {
            inputs,
            since,
            reply,
        }) = self.jobs.recv()
        {
            // The client left: nobody waits for the answer.
            if reply.is_closed() {
                continue;
            }
            let start = Instant::now();
            let ran = catch_unwind(AssertUnwindSafe(|| self.run(session, &names, &inputs)));
            let answer = match ran {
                Ok(Ok(outputs)) => Ok(Outcome {
                    outputs,
                    queued: start - since,
                    ran: start.elapsed(),
                }),
                Ok(Err(error)) => Err(self.judge(&error, has_free_dimensions)),
                Err(_) => Err(RunError::Panicked),
            };
            let _ = reply.send(answer);
        }
    }

    fn run(
        &self,
        session: &mut Session,
        names: &[String],
        inputs: &[SessionInputValue<'static>],
    ) -> ort::Result<Vec<DynValue>> {
        let mut outputs = session.run_with_options(inputs, &*self.switch)?;
        let missing = |name: &str| ort::Error::new(format!("the run gave no output {name:?}"));
        names
            .iter()
            .map(|name| outputs.remove(name).ok_or_else(|| missing(name)))
            .collect()
    }

    /// Whose fault a failed run is. Shapes that only a run can judge are the client's; with every dimension
    /// fixed and checked before, a failure is ours or the runtime's.
    fn judge(&self, error: &ort::Error, has_free_dimensions: bool) -> RunError {
        if self.stopping.load(Ordering::Relaxed) {
            return RunError::Stopping;
        }
        let words = error.message().to_owned();
        match error.code() {
            ErrorCode::InvalidArgument | ErrorCode::InvalidProtobuf => RunError::Refused(words),
            _ if has_free_dimensions && !words.contains("allocate") => RunError::Refused(words),
            _ => RunError::Failed(words),
        }
    }
}

fn open(environment: &Environment, plan: &Plan) -> Result<(Session, Signature, Provider), Failure> {
    let loaded = runtime::load(environment, &plan.model, &plan.outline, &plan.recipe)?;
    let signature = Signature::of(&loaded.session, &plan.outline)
        .map_err(|message| Failure::new(Reason::InvalidModel, message))?;
    Ok((loaded.session, signature, loaded.active))
}

fn output_names(session: &Session) -> Vec<String> {
    session
        .outputs()
        .iter()
        .map(|output| output.name().to_owned())
        .collect()
}

fn session_has_free_dimensions(session: &Session) -> bool {
    session.inputs().iter().any(|input| {
        input
            .dtype()
            .tensor_shape()
            .is_none_or(|shape| shape.iter().any(|dim| *dim < 0))
    })
}
