//! The body of an answer: the router's own, or a pod's as it comes. With a pod's goes what the request holds: its place
//! at the pod, its connection, and the end that is to be counted.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::{
    access::Line,
    alarm::Alarm,
    body::{Source, Upload},
    copies::Sample,
    headers::{self, GRPC_STATUS},
    live::Place,
    metrics::End,
    pool::{Call, One},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Answer {
    /// Of the router.
    Whole(Full<Bytes>),
    /// Of the router: a message of gRPC and its trailers.
    Grpc(Option<Bytes>, Option<HeaderMap>),
    /// Of a pod.
    Streamed(Box<Streamed>),
}

/// A pod's answer on its way.
pub struct Streamed {
    body: Incoming,
    flight: Flight,
    /// The longest pause between two parts; none for streams.
    patience: Option<Duration>,
    /// Until when the next part is waited for.
    waiting: Option<tokio::time::Instant>,
    alarm: Alarm,
    has_ended: bool,
    /// Copied when it has gone out.
    copy: Option<Box<Sample>>,
}

/// What a request holds while it is with a pod. Its end is counted when it is dropped.
pub struct Flight {
    place: Place,
    connection: Connection,
    source: Source<Upload>,
    end: End,
    is_grpc: bool,
    /// From the arrival to the head of the answer, where the pod was warm.
    took: Option<Duration>,
    /// What the pod says that its run took.
    ran: Option<Duration>,
    line: Option<Box<Line>>,
}

/// What the answer comes through.
pub enum Connection {
    /// HTTP/1.1; for the next request when this one has ended.
    One(One),
    /// HTTP/2.
    Two(Call),
    /// It is no longer one of HTTP.
    Gone,
}

impl Answer {
    /// Of the router.
    #[must_use]
    pub const fn whole(body: Full<Bytes>) -> Self {
        Self::Whole(body)
    }

    /// Of the router: a message and its trailers.
    #[must_use]
    pub const fn grpc(message: Bytes, trailers: HeaderMap) -> Self {
        Self::Grpc(Some(message), Some(trailers))
    }

    /// Of a pod.
    #[must_use]
    pub fn streamed(
        body: Incoming,
        flight: Flight,
        (alarm, patience): (Alarm, Option<Duration>),
        copy: Option<Box<Sample>>,
    ) -> Self {
        Self::Streamed(Box::new(Streamed {
            body,
            flight,
            patience,
            waiting: None,
            alarm,
            has_ended: false,
            copy,
        }))
    }
}

/// The code in a head or behind a body.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let value = headers.get(GRPC_STATUS).map(HeaderValue::to_str)?;
    value.ok()?.parse().ok()
}

impl Flight {
    /// Of a request whose answer's head has come.
    #[must_use]
    pub fn new(
        place: Place,
        (connection, source): (Connection, Source<Upload>),
        head: (http::StatusCode, &HeaderMap),
        is_grpc: bool,
        arrived: Instant,
        line: Option<Box<Line>>,
    ) -> Self {
        let took = arrived.elapsed();
        place.revision.meter.latency.observe(took);
        let is_cold = place.pod.answered_cold();
        let (code, headers) = head;
        let end = if is_grpc {
            // Without a status an answer has ended too early: UNKNOWN.
            End::Grpc(grpc_status(headers).unwrap_or(2))
        } else {
            End::Http(code.as_u16())
        };
        Self {
            place,
            connection,
            source,
            end,
            is_grpc,
            took: (!is_cold).then_some(took),
            ran: headers::run(headers).filter(|_| !is_cold),
            line,
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.place.revision.meter.ended(self.end);
        // A pod that breaks off because its client did is not to blame.
        let is_clients = self.end == End::Broken && self.source.fault().is_some();
        if let (Some(charged), Some(is_bad)) = (&self.place.charged, self.end.is_bad())
            && !is_clients
        {
            // Another revision's pod says nothing of this one. Before the end, so that whoever reads that reads this, too.
            if let Some(ran) = self
                .ran
                .filter(|_| charged.is_of(&self.place.revision.name))
            {
                charged.ran(ran);
            }
            charged.ended(self.took, is_bad);
        }
        if let Some(line) = &self.line {
            line.write(Some(&self.place), self.end);
        }
        // Half an answer is no use to the next request.
        let is_whole = !matches!(self.end, End::Left | End::Broken);
        if let Connection::One(sender) = std::mem::replace(&mut self.connection, Connection::Gone)
            && is_whole
            && self.source.is_sent()
        {
            self.place.pod.pool.put(sender);
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
            let Some(patience) = self.patience else {
                return Poll::Pending;
            };
            let until = *self
                .waiting
                .get_or_insert_with(|| tokio::time::Instant::now() + patience);
            ready!(self.alarm.poll(until, cx));
            self.breaks();
            let message = format!("nothing of the answer came for {} s", patience.as_secs());
            return Poll::Ready(Some(Err(message.into())));
        };
        self.waiting = None;
        match polled {
            Some(Err(error)) => {
                self.breaks();
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    // Nothing comes after them, and nobody may ask.
                    self.has_ended = true;
                    if self.flight.is_grpc
                        && let Some(status) = grpc_status(trailers)
                    {
                        self.flight.end = End::Grpc(status);
                    }
                }
                if let (Some(copy), Some(data)) = (&mut self.copy, frame.data_ref())
                    && !copy.keeps(data)
                {
                    self.copy = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.has_ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn breaks(&mut self) {
        self.flight.end = End::Broken;
        let place = &self.flight.place;
        place.revision.failed(&place.pod);
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let has_ended = self.has_ended || self.body.is_end_stream();
        if !has_ended && self.flight.end != End::Broken {
            self.flight.end = End::Left;
        }
        if let Some(copy) = self.copy.take().filter(|_| has_ended) {
            copy.send();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Grpc(message, trailers) => {
                let frame = message.take().map(Frame::data);
                let frame = frame.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Grpc(_, trailers) => trailers.is_none(),
            Self::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Grpc(..) => SizeHint::default(),
            Self::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}
