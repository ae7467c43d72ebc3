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
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ort::{
    ErrorCode,
    environment::Environment,
    session::{RunOptions, Session},
};
use ortolan_model::failure::{Failure, Reason};
use tokio::sync::oneshot;

use crate::{
    infer::{Outcome, Request, RunError},
    metrics::Meter,
    onnx::Outline,
    options::Provider,
    output::Output,
    runtime::{self, Recipe},
    signature::{Signature, TensorSpec, show_shape},
    tensor::Tensor,
};

struct Job {
    request: Request,
    since: Instant,
    reply: oneshot::Sender<Result<Outcome, RunError>>,
}

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
    /// Counts the runs.
    pub meter: Arc<Meter>,
}

/// The sessions' threads and the queue before them.
pub struct Engine {
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
    /// What the model takes and gives.
    pub signature: Arc<Signature>,
    /// The provider that the sessions got.
    pub active: Provider,
    engine: Engine,
    reports: Receiver<Result<Report, Failure>>,
    starts: Vec<Sender<Arc<Request>>>,
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
                meter: Arc::clone(&plan.meter),
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
            queue,
            waiting,
            capacity,
            stopping,
            switches,
        };
        Ok(Cold {
            signature: Arc::new(signature),
            active,
            engine,
            reports,
            starts,
        })
    }

    /// Queues one request, which fits the signature, and waits for its answer, until its deadline at most.
    pub async fn run(&self, request: Request) -> Result<Outcome, RunError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(RunError::Stopping);
        }
        let deadline = request.deadline;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            request,
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
    /// Runs every session once on `inputs`; the threads then take requests. Blocking.
    pub fn warm(self, inputs: Vec<Option<Tensor>>) -> Result<Engine, Failure> {
        let request = Arc::new(Request::new(inputs));
        for start in &self.starts {
            // A thread that is gone has left its reason in the reports.
            let _ = start.send(Arc::clone(&request));
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

struct Worker {
    jobs: Receiver<Job>,
    switch: Arc<RunOptions>,
    stopping: Arc<AtomicBool>,
    meter: Arc<Meter>,
}

impl Worker {
    fn live(
        &self,
        environment: &Environment,
        plan: &Plan,
        report: &Sender<Result<Report, Failure>>,
        begin: &Receiver<Arc<Request>>,
    ) {
        let opened = catch_unwind(AssertUnwindSafe(|| open(environment, plan)))
            .unwrap_or_else(|_| Err(internal("loading the model panicked")));
        let mut runner = match opened {
            Ok((session, signature, active)) => {
                let runner = Runner::new(session, &signature, Arc::clone(&self.switch));
                let _ = report.send(Ok(Report::Loaded(Box::new((signature, active)))));
                runner
            }
            Err(failure) => {
                let _ = report.send(Err(failure));
                return;
            }
        };
        // No request comes when another session failed to load: then there is nothing to run.
        let Ok(request) = begin.recv() else { return };
        let warm = warm(&mut runner, &request);
        let is_warm = warm.is_ok();
        let _ = report.send(warm.map(|()| Report::Warm));
        drop(request);
        if is_warm {
            self.serve(&mut runner);
        }
    }

    fn serve(&self, runner: &mut Runner) {
        while let Ok(job) = self.jobs.recv() {
            // The client left, or nobody waits any more: the answer would go nowhere.
            if job.reply.is_closed() {
                continue;
            }
            let start = Instant::now();
            let answer = if job.request.deadline.is_some_and(|end| end <= start) {
                Err(RunError::Deadline)
            } else {
                self.answer(runner, job.request, job.since, start)
            };
            let _ = job.reply.send(answer);
        }
    }

    fn answer(
        &self,
        runner: &mut Runner,
        request: Request,
        since: Instant,
        start: Instant,
    ) -> Result<Outcome, RunError> {
        let batch = runner.rows(&request);
        let ran = catch_unwind(AssertUnwindSafe(|| runner.run(request)));
        let took = start.elapsed();
        self.meter.ran(batch, took);
        let outputs = match ran {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(_)) if self.stopping.load(Ordering::Relaxed) => return Err(RunError::Stopping),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(RunError::Panicked),
        };
        Ok(Outcome {
            outputs,
            queued: start - since,
            ran: took,
            batch,
        })
    }
}

fn warm(runner: &mut Runner, request: &Request) -> Result<(), Failure> {
    let failed = |words: &str| {
        let given = request.inputs.iter().flatten();
        let shapes: Vec<_> = given.map(|tensor| show_shape(&tensor.shape)).collect();
        Failure::new(
            Reason::WarmUpFailed,
            format!(
                "the first run, on zeros of the shapes {}, failed: {words}",
                shapes.join(" ")
            ),
        )
    };
    match catch_unwind(AssertUnwindSafe(|| runner.run(request.clone()))) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RunError::Refused(words) | RunError::Failed(words))) => Err(failed(&words)),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed("it panicked")),
    }
}

/// A session with what is known of its inputs and outputs.
struct Runner {
    session: Session,
    switch: Arc<RunOptions>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    has_free_dimensions: bool,
    has_rows: bool,
}

impl Runner {
    fn new(session: Session, signature: &Signature, switch: Arc<RunOptions>) -> Self {
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect();
        Self {
            session,
            switch,
            inputs: names(&signature.inputs),
            outputs: names(&signature.outputs),
            has_free_dimensions: signature.has_free_dimensions(),
            has_rows: signature.is_batchable(),
        }
    }

    /// How many rows a request brings; 1 where the model has no batch dimension.
    fn rows(&self, request: &Request) -> usize {
        let first = request.inputs.iter().flatten().next();
        let rows = first.and_then(|tensor| tensor.shape.first().copied());
        match rows {
            Some(rows) if self.has_rows => usize::try_from(rows).unwrap_or(0),
            _ => 1,
        }
    }

    fn run(&mut self, request: Request) -> Result<Vec<Output>, RunError> {
        let mut given = Vec::with_capacity(request.inputs.len());
        for (name, tensor) in self.inputs.iter().zip(request.inputs) {
            if let Some(tensor) = tensor {
                // Numbers were checked; what is left is a string with a NUL.
                let value = tensor.into_ort().map_err(|error| {
                    RunError::Refused(format!("input {name:?}: {}", error.message()))
                })?;
                given.push((Cow::Borrowed(name.as_str()), value));
            }
        }
        let judge = |error: ort::Error| judge(&error, self.has_free_dimensions);
        let mut outputs = self
            .session
            .run_with_options(given, &*self.switch)
            .map_err(judge)?;
        let mut take = |index: usize| {
            let name = &self.outputs[index];
            let missing = || RunError::Failed(format!("the run gave no output {name:?}"));
            let value = outputs.remove(name).ok_or_else(missing)?;
            Ok(Output::of(value)?)
        };
        if request.outputs.is_empty() {
            return (0..self.outputs.len()).map(take).collect();
        }
        // A value is taken once: an output that is wanted twice is shared.
        let mut taken: Vec<(usize, Output)> = Vec::with_capacity(request.outputs.len());
        for index in request.outputs {
            let known = taken.iter().find(|(at, _)| *at == index);
            let output = match known {
                Some((_, output)) => output.clone(),
                None => take(index)?,
            };
            taken.push((index, output));
        }
        Ok(taken.into_iter().map(|(_, output)| output).collect())
    }
}

/// Whose fault a failed run is. Shapes that only a run can judge are the client's; with every dimension
/// fixed and checked before, a failure is ours or the runtime's.
fn judge(error: &ort::Error, has_free_dimensions: bool) -> RunError {
    let words = error.message().to_owned();
    match error.code() {
        ErrorCode::InvalidArgument | ErrorCode::InvalidProtobuf => RunError::Refused(words),
        _ if has_free_dimensions && !words.contains("allocate") => RunError::Refused(words),
        _ => RunError::Failed(words),
    }
}

fn open(environment: &Environment, plan: &Plan) -> Result<(Session, Signature, Provider), Failure> {
    let loaded = runtime::load(environment, &plan.model, &plan.outline, &plan.recipe)?;
    let signature = Signature::of(&loaded.session, &plan.outline)
        .map_err(|message| Failure::new(Reason::InvalidModel, message))?;
    Ok((loaded.session, signature, loaded.active))
}
