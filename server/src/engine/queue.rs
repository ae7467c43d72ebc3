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
    idle: Idle,
}

/// Threads that wait for news, and how many of them were called and have not come yet. Calling one takes a system call
/// whether or not anybody waits; a thread that is on its way finds all that was queued until it comes.
#[derive(Default)]
struct Idle {
    waiting: usize,
    called: usize,
}

impl Idle {
    /// Whether one must be called for what was queued now.
    fn call(&mut self) -> bool {
        let is_needed = self.waiting > self.called;
        self.called += usize::from(is_needed);
        is_needed
    }

    /// A thread goes on, called or by itself. One that was not called may take another's call: then that one is called
    /// once too often, never too rarely.
    fn leave(&mut self) {
        self.waiting -= 1;
        self.called = self.called.saturating_sub(1);
    }
}

impl Shared {
    pub(super) fn new(capacity: usize, levels: usize) -> Self {
        let state = State {
            queue: Queue::new(levels),
            policy: Policy::ALONE,
            is_closed: false,
            idle: Idle::default(),
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
        let mut must_call = false;
        if has_room {
            state.queue.push(level, job);
            must_call = state.idle.call();
        }
        drop(state);
        answer_late(dropped);
        if !has_room {
            return Err(RunError::Busy {
                waiting: self.capacity,
            });
        }
        if must_call {
            self.news.notify_one();
        }
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
                ..
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
        mut state: MutexGuard<'s, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        state.idle.waiting += 1;
        let waited = match until {
            None => self.news.wait(state),
            Some(until) => {
                // Never zero: a condition variable may come back a hair too early, again and again.
                let rest =
                    until.saturating_duration_since(Instant::now()) + Duration::from_micros(1);
                let waited = self.news.wait_timeout(state, rest);
                waited
                    .map(|(state, _)| state)
                    .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0))
            }
        };
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle.leave();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_called_once_until_it_comes_and_each_that_waits_can_be_called() {
        let mut idle = Idle::default();
        assert!(!idle.call(), "nobody waits");
        idle.waiting = 2;
        assert!(idle.call() && idle.call());
        assert!(!idle.call(), "both are on their way");
        idle.leave();
        assert!(!idle.call(), "the other one still is");
        idle.leave();
        assert!(!idle.call(), "nobody waits");
    }

    #[test]
    fn a_thread_that_comes_by_itself_leaves_nobody_uncalled() {
        let mut idle = Idle {
            waiting: 2,
            called: 1,
        };
        // Of two one was called, and the other one comes.
        idle.leave();
        assert!(idle.call(), "whoever still waits hears of the next");
        idle.leave();
        assert_eq!((idle.waiting, idle.called), (0, 0));
    }
}
