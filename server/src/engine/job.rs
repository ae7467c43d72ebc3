//! A request on its way to a session, and what the queue must know of it.

use std::time::Instant;

use tokio::sync::oneshot;

use super::queue::Late;
use crate::{
    batch::Waiting,
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

impl Late for Job {
    fn answer(self) {
        // Who left hears nothing; who came too late hears that.
        let _ = self.reply.send(Err(RunError::Deadline));
    }
}
