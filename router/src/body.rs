//! A request's body on its way to a pod: streamed, and kept while it is small, so that it can be sent once more.
//!
//! ```text
//!  client ─► Source ─► Outgoing (first try)
//!               └─kept─► Outgoing (second try) …
//! ```
//!
//! Invariants: of one body at most the bound is kept, of all bodies together at most [`Memory`]'s; a body that is over
//! it is streamed all the same and sent once; only the newest try is given anything.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use ortolan_linger::Lingering;
use tokio::time::Instant;

use crate::alarm::Alarm;

/// A client's body: one that still comes when its request was answered is read and thrown away, so that the client
/// reads the answer.
pub type Upload = Lingering<Incoming>;

/// What goes wrong with a body by its sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// Nothing of it came for so long.
    #[error("nothing of the body came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The client broke off.
    #[error("the client broke off")]
    Left,
    /// The request was sent to another pod meanwhile.
    #[error("the request was sent elsewhere")]
    Superseded,
}

/// The memory for all bodies that are kept.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    bound: usize,
}

impl Memory {
    /// At most so many bytes.
    #[must_use]
    pub const fn new(bound: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self { used, bound }
    }

    /// Takes so many, if there are.
    #[must_use]
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bound);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Gives them back.
    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that are kept now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What holds for a body.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The longest that is let through; none for streams.
    pub longest: Option<u64>,
    /// The longest pause between two parts, and what tells of its end; none for streams.
    pub patience: Option<(Duration, Alarm)>,
    /// The most that is kept of it.
    pub kept: usize,
    /// What is kept of all.
    pub memory: Arc<Memory>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

struct Inner<B> {
    body: B,
    rules: Rules,
    kept: Vec<Part>,
    /// Bytes in `kept`, taken of the memory.
    bytes: usize,
    /// How many of the kept parts the newest try has.
    at: usize,
    is_replayable: bool,
    has_begun: bool,
    has_ended: bool,
    seen: u64,
    newest: u32,
    fault: Option<Fault>,
    /// Until when the next part is waited for.
    waiting: Option<Instant>,
}

/// The body of one request. Clones are the same body.
pub struct Source<B>(Option<Arc<Mutex<Inner<B>>>>);

/// One try at sending it. The type is independent of where the body comes from, since connections are shared.
pub struct Outgoing {
    source: Option<Arc<dyn Tried>>,
    number: u32,
}

/// What a try needs of its body.
trait Tried: Send + Sync {
    fn poll(&self, number: u32, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>>;
    fn has_ended(&self, number: u32) -> bool;
}

impl<B> Clone for Source<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Source<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// Of a request.
    pub fn new(body: B, rules: Rules) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Inner {
            is_replayable: true,
            body,
            rules,
            kept: Vec::new(),
            bytes: 0,
            at: 0,
            has_begun: false,
            has_ended: false,
            seen: 0,
            newest: 0,
            fault: None,
            waiting: None,
        }))))
    }

    fn inner(&self) -> Option<MutexGuard<'_, Inner<B>>> {
        let inner = self.0.as_ref()?;
        Some(inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A try, from the beginning. The one before it gets nothing more.
    pub fn outgoing(&self) -> Outgoing {
        let Some(mut inner) = self.inner() else {
            return Outgoing::none();
        };
        inner.newest += 1;
        inner.at = 0;
        let source = self.0.clone().map(|source| source as Arc<dyn Tried>);
        Outgoing {
            source,
            number: inner.newest,
        }
    }

    /// Whether the body can be sent (once more).
    #[must_use]
    pub fn can_replay(&self) -> bool {
        self.inner()
            .is_none_or(|inner| inner.is_replayable || !inner.has_begun)
    }

    /// It will not be sent again: nothing more is kept.
    pub fn commit(&self) {
        if let Some(mut inner) = self.inner() {
            inner.is_replayable = false;
            inner.forget_sent();
        }
    }

    /// Whether all of it was given to the newest try. A connection that still waits for the rest of a body is of no use to
    /// the next request, although its answer has ended.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.inner()
            .is_none_or(|inner| inner.has_ended && inner.at == inner.kept.len())
    }

    /// All of it, where it has ended and is kept.
    #[must_use]
    pub fn whole(&self) -> Option<Vec<Bytes>> {
        let Some(inner) = self.inner() else {
            return Some(Vec::new());
        };
        let is_whole = inner.has_ended && inner.is_replayable && inner.fault.is_none();
        let part = |part: &Part| match part {
            Part::Data(data) => Some(data.clone()),
            Part::Trailers(_) => None,
        };
        is_whole.then(|| inner.kept.iter().map(part).collect())?
    }

    /// What its sender did wrong, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.inner()?.fault
    }

    /// Reads ahead as much as may be kept, while the request waits: a client of HTTP/1.1 that leaves is only noticed once
    /// its body is read. Ends only with a fault.
    pub async fn read_ahead(&self) -> Fault {
        if self.0.is_none() {
            return std::future::pending().await;
        }
        std::future::poll_fn(|cx| {
            let Some(mut inner) = self.inner() else {
                return Poll::Pending;
            };
            while !inner.has_ended && inner.is_replayable {
                match ready!(inner.poll_body(cx)) {
                    None => {}
                    Some(Ok(part)) => inner.keep(part, true),
                    Some(Err(fault)) => return Poll::Ready(fault),
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl<B> Inner<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            let Some((patience, alarm)) = &self.rules.patience else {
                return Poll::Pending;
            };
            let until = *self
                .waiting
                .get_or_insert_with(|| Instant::now() + *patience);
            ready!(alarm.poll(until, cx));
            let fault = Fault::Stalled(*patience);
            return self.fails(fault);
        };
        self.waiting = None;
        match frame {
            None => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Some(Err(_)) => self.fails(Fault::Left),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.seen += data.len() as u64;
                    match self.rules.longest {
                        Some(longest) if self.seen > longest => {
                            self.fails(Fault::TooLarge(longest))
                        }
                        _ => {
                            self.has_ended = self.body.is_end_stream();
                            Poll::Ready(Some(Ok(Part::Data(data))))
                        }
                    }
                }
                Err(frame) => {
                    self.has_ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    Poll::Ready(Some(Ok(Part::Trailers(trailers))))
                }
            },
        }
    }

    fn fails(&mut self, fault: Fault) -> Poll<Option<Result<Part, Fault>>> {
        self.fault = Some(fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl<B> Inner<B> {
    /// Keeps a part if it fits. `is_ahead`: it was not sent yet, and is kept in any case, as the last one then.
    fn keep(&mut self, part: Part, is_ahead: bool) {
        let length = match &part {
            Part::Data(data) => data.len(),
            Part::Trailers(_) => 0,
        };
        let fits = self.is_replayable
            && self.bytes + length <= self.rules.kept
            && self.rules.memory.take(length);
        if fits {
            self.bytes += length;
        } else {
            self.is_replayable = false;
        }
        if fits || is_ahead {
            self.kept.push(part);
            self.at += usize::from(!is_ahead);
        } else {
            self.forget_sent();
        }
    }

    /// What was sent and is not sent again needs no memory. One part that was read ahead may remain.
    fn forget_sent(&mut self) {
        if self.at == self.kept.len() {
            self.kept = Vec::new();
            self.at = 0;
            self.rules.memory.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        self.rules.memory.give(self.bytes);
    }
}

impl<B> Tried for Mutex<Inner<B>>
where
    B: Body<Data = Bytes> + Send + Unpin,
{
    fn poll(&self, number: u32, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let mut inner = self.lock().unwrap_or_else(PoisonError::into_inner);
        if number != inner.newest {
            return Poll::Ready(Some(Err(Fault::Superseded)));
        }
        inner.has_begun = true;
        if let Some(part) = inner.kept.get(inner.at).cloned() {
            inner.at += 1;
            if !inner.is_replayable {
                inner.forget_sent();
            }
            return Poll::Ready(Some(Ok(part)));
        }
        let polled = ready!(inner.poll_body(cx));
        if let Some(Ok(part)) = &polled {
            inner.keep(part.clone(), false);
        }
        Poll::Ready(polled)
    }

    fn has_ended(&self, number: u32) -> bool {
        let inner = self.lock().unwrap_or_else(PoisonError::into_inner);
        number == inner.newest
            && inner.has_ended
            && inner.at == inner.kept.len()
            && inner.fault.is_none()
    }
}

impl Outgoing {
    /// No body.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            source: None,
            number: 0,
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({})", self.number)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Some(source) = &self.source else {
            return Poll::Ready(None);
        };
        let part = ready!(source.poll(self.number, cx));
        Poll::Ready(part.map(|part| {
            part.map(|part| match part {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.source
            .as_ref()
            .is_none_or(|source| source.has_ended(self.number))
    }

    fn size_hint(&self) -> SizeHint {
        if self.source.is_none() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests;
