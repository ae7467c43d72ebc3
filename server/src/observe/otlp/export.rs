//! Spans on their way to a collector, and what of it is worth a line in the log.
//!
//! ```text
//!  requests ─► room? ─► SDK's queue ─► SDK's thread ─► Reporting ─► SDK's exporter ─► Client ─► collector
//!                no: left out whole                      a line at most once a minute
//! ```
//!
//! Invariants: a request never waits; a request that does not fit into the queue is left out with all its spans, so that
//! no trace lacks a part because of it; whatever the collector does, there is at most one warning a minute.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use ortolan_model::{Connector, Failure, connector};
use tokio::{runtime::Handle, time::timeout};

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(60);
/// A collector's answer says at most how many spans it did not take, and why.
const LONGEST_ANSWER: usize = 64 * 1024;

/// How many spans are on their way, and what went wrong.
#[derive(Debug)]
pub(super) struct Tally {
    places: usize,
    waiting: AtomicUsize,
    left_out: AtomicU64,
    /// The exporter's errors do not say why.
    trouble: Mutex<String>,
}

impl Tally {
    /// With a queue of so many places.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            waiting: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Takes places for all spans of a request; without enough of them it is left out.
    pub(super) fn admits(&self, spans: usize) -> bool {
        let before = self.waiting.fetch_add(spans, Ordering::Relaxed);
        let fits = before + spans <= self.places;
        if !fits {
            self.waiting.fetch_sub(spans, Ordering::Relaxed);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// So many spans left the queue.
    fn taken(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }

    fn went_wrong(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn why(&self) -> String {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The exporter, and the log of what became of its batches.
#[derive(Debug)]
pub(super) struct Reporting<E> {
    pub(super) inner: E,
    pub(super) tally: Arc<Tally>,
    pub(super) endpoint: String,
    pub(super) reports: Mutex<Reports>,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.tally.taken(spans);
        let sent = self.inner.export(batch).await;
        let left_out = self.tally.left_out.swap(0, Ordering::Relaxed);
        let lost = if sent.is_err() { spans as u64 } else { 0 };
        let line = {
            let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.next(Instant::now(), sent.is_ok(), lost, left_out)
        };
        let endpoint = &self.endpoint;
        match line {
            Some(Line::Fails(missing)) => {
                let why = match (self.tally.why(), &sent) {
                    (why, _) if !why.is_empty() => why,
                    (_, Err(error)) => error.to_string(),
                    (_, Ok(())) => String::new(),
                };
                tracing::warn!("traces cannot be sent to {endpoint}: {why}; {missing}");
            }
            Some(Line::Overflows(missing)) => tracing::warn!(
                "more is traced than can be sent to {endpoint}: {missing}; lower --trace-ratio or raise \
                 OTEL_BSP_MAX_QUEUE_SIZE"
            ),
            Some(Line::Works(missing)) => {
                tracing::info!("traces are sent to {endpoint} again; {missing}");
            }
            None => {}
        }
        sent
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// What is missing since the last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missing {
    spans: u64,
    requests: u64,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { spans, requests } = self;
        write!(
            f,
            "since the last word of it {spans} spans were lost and {requests} requests left out"
        )
    }
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Fails(Missing),
    Overflows(Missing),
    Works(Missing),
}

/// What was said of the sending, and what is still to be said.
#[derive(Debug, Default)]
pub(super) struct Reports {
    missing: Missing,
    said: Option<Instant>,
    is_failing: bool,
}

impl Reports {
    /// What to say of one more batch.
    fn next(&mut self, now: Instant, is_sent: bool, lost: u64, left_out: u64) -> Option<Line> {
        self.missing.spans += lost;
        self.missing.requests += left_out;
        let may_warn = self.said.is_none_or(|said| now >= said + QUIET);
        let line = match (is_sent, self.is_failing) {
            (false, _) if may_warn => Line::Fails,
            // Not after every batch of a collector that takes every second one.
            (true, true) if may_warn => Line::Works,
            (true, false) if may_warn && self.missing.requests > 0 => Line::Overflows,
            _ => {
                self.is_failing |= !is_sent;
                return None;
            }
        };
        self.is_failing = !is_sent;
        self.said = Some(now);
        Some(line(std::mem::take(&mut self.missing)))
    }
}

/// Sends to the collector from the server's own threads: the SDK's is none of the runtime's, and a connection needs one.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Handle,
    inner: legacy::Client<Connector, Full<Bytes>>,
    patience: Duration,
    tally: Arc<Tally>,
}

impl Client {
    /// Inside a runtime. `patience` is for a whole exchange.
    pub(super) fn new(patience: Duration, tally: Arc<Tally>) -> Result<Self, Failure> {
        Ok(Self {
            runtime: Handle::current(),
            inner: legacy::Client::builder(TokioExecutor::new()).build(connector()?),
            patience,
            tally,
        })
    }
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, patience) = (self.inner.clone(), self.patience);
        let sending = self.runtime.spawn(async move {
            timeout(patience, exchange(&client, request))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {patience:?}").into()))
        });
        let answered = sending.await.unwrap_or_else(|error| Err(error.into()));
        match &answered {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => {
                let said = String::from_utf8_lossy(response.body());
                let said: String = said.chars().take(200).collect();
                let why = format!("it answers {}: {}", response.status(), said.escape_debug());
                self.tally.went_wrong(why);
            }
            Err(error) => self.tally.went_wrong(whole(&**error)),
        }
        answered
    }
}

async fn exchange(
    client: &legacy::Client<Connector, Full<Bytes>>,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let response = client.request(request.map(Full::new)).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// An error with its causes: the outermost alone says no more than that it failed.
fn whole(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_does_not_fit_is_left_out_whole() {
        let tally = Tally::new(10);
        assert!(tally.admits(5) && tally.admits(5));
        assert!(!tally.admits(1));
        tally.taken(5);
        assert!(!tally.admits(6) && tally.admits(5));
        assert_eq!(tally.left_out.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn there_is_one_warning_a_minute_and_a_word_when_it_works_again() {
        let start = Instant::now();
        let mut reports = Reports::default();
        let missing = |spans, requests| Missing { spans, requests };
        for (second, is_sent, lost, left_out, expected) in [
            (0, true, 0, 0, None),
            (5, false, 7, 0, Some(Line::Fails(missing(7, 0)))),
            (10, false, 7, 1, None),
            (15, true, 0, 0, None),
            (64, false, 3, 1, None),
            (65, false, 1, 0, Some(Line::Fails(missing(11, 2)))),
            (66, true, 0, 0, None),
            (130, true, 0, 0, Some(Line::Works(missing(0, 0)))),
            (131, true, 0, 4, None),
            (200, true, 0, 1, Some(Line::Overflows(missing(0, 5)))),
            (300, true, 0, 0, None),
        ] {
            let now = start + Duration::from_secs(second);
            let line = reports.next(now, is_sent, lost, left_out);
            assert_eq!(line, expected, "at {second} s");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let inner = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(inner);
        assert!(whole(&outer).contains("connection refused"));
    }
}
