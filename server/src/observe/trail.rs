//! The trail of one request: written where its phases end, told when it is over.
//!
//! Invariants: whoever still works for a request holds its trail, so that it is told once, after the last byte
//! of the answer or when the client has left; a request that belongs to no followed task leaves none.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request};

use super::{Outlets, access, context::TraceId, traces::Span};
use crate::metrics::Protocol;

tokio::task_local! {
    static TRAIL: Arc<Trail>;
}

/// A part of a prediction's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the body to tensors.
    Preprocess,
    /// From the queue to a session.
    Queue,
    /// Inside ONNX Runtime.
    Inference,
    /// From tensors to the answer's body.
    Postprocess,
}

/// A phase as it went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) phase: Phase,
    pub(super) took: Duration,
    #[cfg_attr(not(feature = "otlp"), allow(dead_code))]
    // a line needs no more than how long it took
    pub(super) ended: Instant,
}

/// Which model answered, and how.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    pub(super) model: Arc<str>,
    pub(super) version: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) code: u16,
}

/// What happened until now.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) prediction: Option<Prediction>,
    /// The answer's, of HTTP or of gRPC; `None`: the client left before it.
    pub(super) code: Option<u16>,
    pub(super) stretches: Vec<Stretch>,
    /// Rows that ran together.
    pub(super) batch: Option<usize>,
}

impl Story {
    /// The protocol's own, else the answer's.
    pub(super) fn final_code(&self) -> Option<u16> {
        let prediction = self.prediction.as_ref();
        prediction.map(|prediction| prediction.code).or(self.code)
    }

    /// All stretches of a phase together.
    pub(super) fn took(&self, phase: Phase) -> Option<Duration> {
        let of_phase = self.stretches.iter().filter(|s| s.phase == phase);
        of_phase.map(|stretch| stretch.took).reduce(|a, b| a + b)
    }
}

/// What is known of a request from its head on.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: Arc<str>,
    pub(super) id: HeaderValue,
    /// Of its caller's trace, or of the one that begins with it.
    pub(super) trace_id: Option<TraceId>,
}

/// One request that is followed.
#[derive(Debug)]
pub struct Trail {
    outlets: Arc<Outlets>,
    pub(super) head: Head,
    pub(super) since: Instant,
    span: Option<Span>,
    story: Mutex<Story>,
    /// `None` for a request of a stream: only the stream's bytes are counted.
    pub(super) bytes: Option<Bytes>,
}

/// Of the bodies, as they are on the wire.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
}

impl Trail {
    pub(super) fn new<B>(
        outlets: Arc<Outlets>,
        request: &Request<B>,
        id: &HeaderValue,
        trace_id: Option<TraceId>,
        span: Option<Span>,
    ) -> Self {
        let head = Head {
            method: request.method().clone(),
            path: request.uri().path().into(),
            id: id.clone(),
            trace_id,
        };
        Self {
            outlets,
            head,
            since: Instant::now(),
            span,
            story: Mutex::default(),
            bytes: Some(Bytes::default()),
        }
    }

    /// Runs a request's work, whose phases are this trail's.
    pub async fn follow<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        TRAIL.scope(self, work).await
    }

    /// The same for work that does not wait.
    pub(super) fn follow_now<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        TRAIL.sync_scope(Arc::clone(self), work)
    }

    /// The answer's code.
    pub fn coded(&self, code: u16) {
        self.story().code = Some(code);
    }

    /// Bytes of the request's body came.
    pub(super) fn read(&self, bytes: usize) {
        if let Some(count) = &self.bytes {
            count.read.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Bytes of the answer's body left.
    pub(super) fn wrote(&self, bytes: usize) {
        if let Some(count) = &self.bytes {
            count.written.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// A trail for one request of this stream.
    fn fork(&self) -> Self {
        let traced = self.outlets.traces.as_ref().zip(self.span.as_ref());
        Self {
            outlets: Arc::clone(&self.outlets),
            head: self.head.clone(),
            since: Instant::now(),
            span: traced.map(|(traces, stream)| traces.below(stream)),
            story: Mutex::default(),
            bytes: None,
        }
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let story = std::mem::take(self.story.get_mut().unwrap_or_else(PoisonError::into_inner));
        if self.outlets.access_log {
            access::write(self, &story);
        }
        if let (Some(traces), Some(span)) = (&self.outlets.traces, &self.span) {
            traces.end(self, &story, span);
        }
    }
}

/// One request of a stream: it is told of by itself, when it is answered.
pub async fn apart<T>(work: impl Future<Output = T>) -> T {
    match TRAIL.try_with(|trail| Arc::new(trail.fork())) {
        Ok(trail) => trail.follow(work).await,
        Err(_) => work.await,
    }
}

fn note(write: impl FnOnce(&mut Story)) {
    // A task that is not followed has no trail.
    let _ = TRAIL.try_with(|trail| write(&mut trail.story()));
}

/// A phase of the task's request ended now.
pub(crate) fn passed(phase: Phase, took: Duration) {
    note(|story| {
        let ended = Instant::now();
        story.stretches.push(Stretch { phase, took, ended });
    });
}

/// The task's request ran, among so many rows.
pub(crate) fn ran(queued: Duration, ran: Duration, batch: usize) {
    note(|story| {
        let ended = Instant::now();
        let stretch = |phase, took, ended| Stretch { phase, took, ended };
        let began = ended.checked_sub(ran).unwrap_or(ended);
        story.stretches.push(stretch(Phase::Queue, queued, began));
        let run = stretch(Phase::Inference, ran, ended);
        story.stretches.push(run);
        story.batch = Some(batch);
    });
}

/// The task's prediction was answered.
pub(crate) fn answered(model: &Arc<str>, version: &Arc<str>, protocol: Protocol, code: u16) {
    note(|story| {
        story.prediction = Some(Prediction {
            model: Arc::clone(model),
            version: Arc::clone(version),
            protocol,
            code,
        });
    });
}
