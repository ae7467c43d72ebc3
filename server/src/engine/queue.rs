//! The queue between the protocols and the sessions' threads: bounded, shared, decided by [`next_batch`].
//!
//! Invariants, which `scripts/loom.sh` holds against every order in which the threads may run: a job is taken once, or
//! answered as late once; as long as a job could run, no thread that could take it sleeps; once closed, every thread ends,
//! and none before the queue is empty.

#[cfg(not(ortolan_loom))]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(ortolan_loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(ortolan_loom)]
use std::sync::PoisonError;

use crate::{
    batch::{Batch, Policy, Queue, Waiting, next_batch},
    infer::RunError,
};

/// A job that can be told that it is too late for it.
pub(super) trait Late: Waiting {
    /// Tells it.
    fn answer(self);
}

/// Shared by the engine and its threads.
pub(super) struct Shared<J> {
    state: Mutex<State<J>>,
    /// A request came, or the end.
    news: Condvar,
    capacity: usize,
}

struct State<J> {
    queue: Queue<J>,
    policy: Policy,
    idle: Idle,
    is_closed: bool,
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

impl<J: Late> Shared<J> {
    pub(super) fn new(capacity: usize, levels: usize) -> Self {
        let state = State {
            queue: Queue::new(levels),
            policy: Policy::ALONE,
            idle: Idle::default(),
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

    /// Queues a job for a session, or drops it with the reason.
    pub(super) fn push(&self, level: usize, job: J) -> Result<(), RunError> {
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
        let calls = has_room && state.idle.call();
        drop(state);
        dropped.into_iter().for_each(Late::answer);
        if !has_room {
            return Err(RunError::Busy {
                waiting: self.capacity,
            });
        }
        if calls {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Waits for jobs that run together; `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<J>> {
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
            if !batch.run.is_empty() {
                // What is left may have to run while this thread is busy: another one sees to it. Who is woken first is not
                // promised, so that one may sleep on who saw an empty queue.
                let calls = !state.queue.is_empty() && state.idle.call();
                drop(state);
                if calls {
                    self.news.notify_one();
                }
                batch.dropped.into_iter().for_each(Late::answer);
                return Some(batch.run);
            }
            if !batch.dropped.is_empty() {
                drop(state);
                batch.dropped.into_iter().for_each(Late::answer);
                state = self.lock();
                continue;
            }
            state = self.wait(state, batch.wait);
        }
    }

    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<J>>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State<J>> {
        state.idle.waiting += 1;
        let mut state = match until {
            None => self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                // Never zero: a condition variable may come back a hair too early, again and again.
                let rest =
                    until.saturating_duration_since(Instant::now()) + Duration::from_micros(1);
                let waited = self.news.wait_timeout(state, rest);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.idle.leave();
        state
    }

    /// Nothing comes in any more; what waits is still served.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_all();
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&self) -> Vec<J> {
        self.lock().queue.drain()
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
