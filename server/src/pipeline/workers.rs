//! The threads that pipelines run on: decoding a photograph takes milliseconds, and neither the threads that
//! move bytes nor those of the sessions may wait for it.
//!
//! Inputs: closures. Outputs: what they give. Invariants: at most so many run, at most so many wait, one
//! more is refused; what nobody waits for any more is not begun; a closure that panics takes nothing
//! with it; no thread is started before the first closure.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
    thread,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

/// How much less than the sessions' threads these weigh with the kernel (`nice`): a core that both want
/// goes to a session for three quarters of the time.
const NICE: i32 = 5;

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// Too many wait.
    #[error("too many requests wait to be decoded: {0}; try again")]
    Full(usize),
    /// A bug.
    #[error("the pipeline panicked; this is a bug in the server")]
    Panicked,
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and the queue before them.
pub struct Workers {
    threads: NonZeroUsize,
    capacity: usize,
    queue: OnceLock<Sender<Job>>,
}

impl Workers {
    /// So many threads, and so many places to wait. Nothing is started yet.
    #[must_use]
    pub const fn new(threads: NonZeroUsize, capacity: usize) -> Self {
        Self {
            threads,
            capacity,
            queue: OnceLock::new(),
        }
    }

    /// Runs `work` on one of the threads. Dropping the future keeps it from beginning.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            // The client left: nobody waits for the answer.
            if !reply.is_closed()
                && let Ok(done) = catch_unwind(AssertUnwindSafe(work))
            {
                let _ = reply.send(done);
            }
        });
        let queue = self.queue.get_or_init(|| self.start());
        match queue.try_send(job) {
            Ok(()) => answer.await.map_err(|_| WorkError::Panicked),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Err(WorkError::Full(self.capacity))
            }
        }
    }

    /// The threads end with the sender.
    fn start(&self) -> Sender<Job> {
        let (queue, jobs) = bounded(self.capacity);
        for number in 0..self.threads.get() {
            let jobs = jobs.clone();
            let started = thread::Builder::new()
                .name(format!("pipeline-{number}"))
                .spawn(move || live(&jobs));
            if let Err(error) = started {
                tracing::error!("cannot start a thread for pipelines: {error}");
            }
        }
        queue
    }
}

fn live(jobs: &Receiver<Job>) {
    let own = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(own), NICE) {
        tracing::debug!("pipelines run with the sessions' priority: {error}");
    }
    while let Ok(job) = jobs.recv() {
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn workers(threads: usize, capacity: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads).unwrap(), capacity)
    }

    #[tokio::test]
    async fn work_is_done_on_threads_of_its_own_and_a_panic_takes_none_with_it() {
        let workers = workers(1, 4);
        let name = || thread::current().name().map(str::to_owned);
        assert_eq!(workers.run(name).await.unwrap().unwrap(), "pipeline-0");
        let panicked: Result<(), _> = workers.run(|| panic!("on purpose")).await;
        assert_eq!(panicked, Err(WorkError::Panicked));
        assert_eq!(workers.run(|| 3).await, Ok(3));
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_refused_and_what_nobody_waits_for_is_not_begun() {
        let workers = workers(1, 1);
        let (running, runs) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let slow = workers.run(move || {
            running.send(()).unwrap();
            released.recv().unwrap();
        });
        let mut slow = Box::pin(slow);
        assert!(futures::poll!(&mut slow).is_pending());
        runs.recv().unwrap();
        let (begun, begins) = mpsc::channel();
        let mut left = Box::pin(workers.run(move || begun.send(()).unwrap()));
        assert!(futures::poll!(&mut left).is_pending());
        assert_eq!(workers.run(|| ()).await, Err(WorkError::Full(1)));
        drop(left);
        release.send(()).unwrap();
        slow.await.unwrap();
        // The place of what nobody waits for is free once a thread has looked at it.
        let answer = loop {
            match workers.run(|| 7).await {
                Err(WorkError::Full(_)) => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        assert_eq!(answer, Ok(7));
        assert!(begins.try_recv().is_err());
    }
}
