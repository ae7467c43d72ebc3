//! A session's thread: loads it, warms it up, takes jobs until the queue is closed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use ort::{environment::Environment, session::Session};
use ortolan_model::failure::{Failure, Reason};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    unix::{set_thread_priority_and_policy, thread_native_id},
};

use super::{
    First, Plan, Report, internal,
    job::Job,
    probe::{self, Rows},
    queue::Shared,
    runner::{Apart, Runner},
    watch::Watch,
};
use crate::{
    batch::Policy,
    infer::{Outcome, Request, RunError},
    metrics::Meter,
    options::Provider,
    output::Output,
    runtime::{self, Graph},
    signature::{Signature, show_shape},
};

/// Nothing is added to or taken from the thread's weight.
const NEUTRAL: u8 = 48;

/// Lets the thread wait for its turn when it wakes up (`SCHED_BATCH`). By default the kernel hands a core at once to
/// the thread that was woken: on a busy core each request would stop the thread that reads requests, and run alone. With
/// turns, what was read together runs together: on one core 31–34k requests a second of a tiny model became 52–61k, 1.05 rows a
/// run became 12–14. Where the kernel refuses, nothing but that is lost.
fn take_turns() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let set = ThreadPriorityValue::try_from(NEUTRAL)
        .map_err(|error| error.to_string())
        .and_then(|neutral| {
            let neutral = ThreadPriority::Crossplatform(neutral);
            set_thread_priority_and_policy(thread_native_id(), neutral, policy)
                .map_err(|error| error.to_string())
        });
    if let Err(error) = set {
        tracing::debug!("a session's thread does not wait for its turn: {error}");
    }
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared<Job>>,
    pub(super) watch: Arc<Watch>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) meter: Arc<Meter>,
    /// One session of a model looks whether rows can be put together, and writes the optimised graph.
    pub(super) is_first: bool,
}

impl Worker {
    pub(super) fn live(
        &self,
        environment: &Environment,
        plan: &Plan,
        report: &Sender<Result<Report, Failure>>,
        begin: &Receiver<First>,
    ) {
        let opened = guarded(|| self.open(environment, plan))
            .unwrap_or_else(|_| Err(internal("loading the model panicked")));
        let (mut runner, signature) = match opened {
            Ok((session, signature, active)) => {
                let switch = Arc::clone(&self.watch.switch);
                let runner = Runner::new(session, &signature, switch);
                let signature = Arc::new(signature);
                let _ = report.send(Ok(Report::Loaded(Arc::clone(&signature), active)));
                (runner, signature)
            }
            Err(failure) => {
                let _ = report.send(Err(failure));
                return;
            }
        };
        // No request comes when another session failed to load: then there is nothing to run.
        let Ok(first) = begin.recv() else { return };
        let warm = match &first {
            Some(request) => self.warm(&mut runner, &signature, request),
            None => Ok(self.is_first.then(|| probe::unseen(&signature))),
        };
        let is_warm = warm.is_ok();
        let _ = report.send(warm.map(Report::Warm));
        drop(first);
        if is_warm {
            take_turns();
            while let Some(jobs) = self.shared.next() {
                self.serve(&mut runner, jobs);
            }
        }
    }

    fn open(
        &self,
        environment: &Environment,
        plan: &Plan,
    ) -> Result<(Session, Signature, Provider), Failure> {
        let mut recipe = plan.recipe.clone();
        if !self.is_first && matches!(recipe.graph, Graph::Write(_)) {
            recipe.graph = Graph::Make;
        }
        let loaded = runtime::load(environment, &plan.model, &plan.outline, &recipe)?;
        let signature = Signature::of(&loaded.session, &plan.outline)
            .map_err(|message| Failure::new(Reason::InvalidModel, message))?;
        Ok((loaded.session, signature, loaded.active))
    }

    fn warm(
        &self,
        runner: &mut Runner,
        signature: &Signature,
        request: &Request,
    ) -> Result<Option<Rows>, Failure> {
        let failed = |words: &str| {
            let given = request.inputs.iter().flatten();
            let shapes: Vec<_> = given.map(|tensor| show_shape(&tensor.shape)).collect();
            Failure::new(
                Reason::WarmUpFailed,
                format!(
                    "the first run, on zeros of the shapes {}, failed: {words}; --warm-up off leaves this run out",
                    shapes.join(" ")
                ),
            )
        };
        match guarded(|| runner.run(request.clone())) {
            Ok(Ok(_)) => {}
            Ok(Err(RunError::Refused(words) | RunError::Failed(words))) => {
                return Err(failed(&words));
            }
            Ok(Err(error)) => return Err(failed(&error.to_string())),
            Err(_) => return Err(failed("it panicked")),
        }
        if !self.is_first {
            return Ok(None);
        }
        let panicked = |_| Rows::Apart("the run with several rows panicked".to_owned());
        Ok(Some(
            guarded(|| probe::probe(runner, signature, request)).unwrap_or_else(panicked),
        ))
    }

    /// Runs jobs as one, or each alone where that does not work; answers each of them once.
    fn serve(&self, runner: &mut Runner, mut jobs: Vec<Job>) {
        if jobs.len() > 1 {
            match self.run_together(runner, jobs) {
                Ok(()) => return,
                Err(apart) => jobs = apart,
            }
        }
        for job in jobs {
            let (request, rows, since) = (job.request, job.rows, job.since);
            let start = Instant::now();
            let ran = self.timed(rows, || runner.run(request));
            let took = start.elapsed();
            let answer = ran.map(|outputs| outcome(outputs, start - since, took, rows));
            let _ = job.reply.send(answer.map_err(Fault::into_error));
        }
    }

    /// Gives the jobs back when each of them must run alone.
    fn run_together(&self, runner: &mut Runner, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let rows = jobs.iter().map(|job| job.rows).sum();
        let start = Instant::now();
        let ran = self.timed(rows, || runner.run_together(&jobs));
        let took = start.elapsed();
        let fault = match ran {
            Ok(outputs) => {
                for (job, outputs) in jobs.into_iter().zip(outputs) {
                    let outcome = outcome(outputs, start - job.since, took, rows);
                    let _ = job.reply.send(Ok(outcome));
                }
                return Ok(());
            }
            Err(fault) => fault,
        };
        let error = match fault {
            // Each alone would only take longer.
            Fault::Overrun(limit) => RunError::Overrun { limit },
            Fault::Stopping => RunError::Stopping,
            Fault::Error(Apart::NotRows(words)) => {
                tracing::error!("{words}: requests are not put together any more");
                self.shared.set_policy(Policy::ALONE);
                return Err(jobs);
            }
            Fault::Error(Apart::Failed(error)) => {
                let count = jobs.len();
                tracing::debug!("{count} requests failed together, each runs alone: {error}");
                return Err(jobs);
            }
            Fault::Panicked => {
                let count = jobs.len();
                tracing::error!("{count} requests panicked together, each runs alone");
                return Err(jobs);
            }
        };
        for job in jobs {
            let _ = job.reply.send(Err(error.clone()));
        }
        Ok(())
    }

    /// Runs under the watchdog's eye and counts the run.
    fn timed<T, E>(&self, rows: usize, run: impl FnOnce() -> Result<T, E>) -> Result<T, Fault<E>> {
        let start = Instant::now();
        self.watch.begin();
        let ran = guarded(run);
        let overrun = self.watch.end();
        self.meter.ran(rows, start.elapsed());
        match (ran, overrun) {
            // What ends in the moment in which it is stopped has still ended well.
            (Ok(Ok(done)), _) => Ok(done),
            (_, Some(limit)) => Err(Fault::Overrun(limit)),
            (Ok(Err(_)), None) if self.stopping.load(Ordering::Relaxed) => Err(Fault::Stopping),
            (Ok(Err(error)), None) => Err(Fault::Error(error)),
            (Err(_), None) => Err(Fault::Panicked),
        }
    }
}

fn outcome(outputs: Vec<Output>, queued: Duration, ran: Duration, batch: usize) -> Outcome {
    Outcome {
        outputs,
        queued,
        ran,
        batch,
    }
}

/// How a run ended that gave nothing.
enum Fault<E> {
    Error(E),
    Overrun(Duration),
    Stopping,
    Panicked,
}

impl Fault<RunError> {
    fn into_error(self) -> RunError {
        match self {
            Self::Error(error) => error,
            Self::Overrun(limit) => RunError::Overrun { limit },
            Self::Stopping => RunError::Stopping,
            Self::Panicked => RunError::Panicked,
        }
    }
}

type Panic = Box<dyn Any + Send>;

fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work))
}
