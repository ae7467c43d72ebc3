//! The queue between the protocols and the sessions' threads: bounded, shared, decided by [`next_batch`].

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    batch::{Batch, Policy, Queue, Waiting, next_batch},
    infer::{Outcome, Request, RunError},
    signature::Signature,
};

/// What is sent back to whoever waits.
pub(super) type Answer = Result<Outcome, RunError>;

/// A request on its way to a session.
pub(super) struct Job {
    pub(super) request: Request,
    /// On the first axis; 1 where the model has no batch dimension.
    pub(super) rows: usize,
    /// Whether its rows can stand above and below those of others.
    pub(super) can_join: bool,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Answer>,
}

impl Job {
    pub(super) fn new(
        request: Request,
        signature: &Signature,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        let rows = signature.rows(&request);
        Self {
            rows: rows.unwrap_or(1),
            can_join: rows.is_some_and(|rows| rows > 0),
            request,
            since: Instant::now(),
            reply,
        }
    }
}

impl Waiting for Job {
    fn rows(&self) -> usize {
        self.rows
    }

    /// The same inputs are given, and all dimensions but the first are equal.
    fn joins(&self, other: &Self) -> bool {
        let mut inputs = self.request.inputs.iter().zip(&other.request.inputs);
        self.can_join
            && other.can_join
            && inputs.all(|pair| match pair {
                (None, None) => true,
                (Some(a), Some(b)) => a.shape.get(1..) == b.shape.get(1..),
                _ => false,
            })
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn deadline(&self) -> Option<Instant> {
        self.request.deadline
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Shared by the engine and its threads.
pub(super) struct Shared {
    state: Mutex<State>,
    /// A request came, or the end.
    news: Condvar,
    capacity: usize,
}

struct State {
    queue: Queue<Job>,
    policy: Policy,
    is_closed: bool,
}

impl Shared {
    pub(super) fn new(capacity: usize, levels: usize) -> Self {
        let state = State {
            queue: Queue::new(levels),
            policy: Policy::ALONE,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            news: Condvar::new(),
            capacity,
        }
    }

    pub(super) fn set_policy(&self, policy: Policy) {
        self.lock().policy = policy;
    }

    pub(super) fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Queues a job for a session, or gives it back with the reason.
    pub(super) fn push(&self, level: usize, job: Job) -> Result<(), RunError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(RunError::Stopping);
        }
        let mut dropped = Vec::new();
        if state.queue.len() >= self.capacity {
            // Places of those who left or came too late are free.
            dropped = state.queue.sweep(Instant::now());
        }
        let has_room = state.queue.len() < self.capacity;
        if has_room {
            state.queue.push(level, job);
        }
        drop(state);
        answer_late(dropped);
        if !has_room {
            return Err(RunError::Busy {
                waiting: self.capacity,
            });
        }
        self.news.notify_one();
        Ok(())
    }

    /// Waits for jobs that run together; `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            let State {
                queue,
                policy,
                is_closed,
            } = &mut *state;
            let batch = match queue.is_empty() {
                true if *is_closed => return None,
                true => Batch::default(),
                false => next_batch(queue, policy, Instant::now()),
            };
            if !batch.dropped.is_empty() {
                drop(state);
                answer_late(batch.dropped);
                if !batch.run.is_empty() {
                    return Some(batch.run);
                }
                state = self.lock();
                continue;
            }
            if !batch.run.is_empty() {
                return Some(batch.run);
            }
            state = self.wait(state, batch.wait);
        }
    }

    fn wait<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        let Some(until) = until else {
            return self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        // Never zero: a condition variable may come back a hair too early, again and again.
        let rest = until.saturating_duration_since(Instant::now()) + Duration::from_micros(1);
        let (state, _) = self
            .news
            .wait_timeout(state, rest)
            .unwrap_or_else(PoisonError::into_inner);
        state
    }

    /// Nothing comes in any more; what waits is still served.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_all();
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&self) -> Vec<Job> {
        self.lock().queue.drain()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who left hears nothing; who came too late hears that.
fn answer_late(jobs: Vec<Job>) {
    for job in jobs {
        let _ = job.reply.send(Err(RunError::Deadline));
    }
}
