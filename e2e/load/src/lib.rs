//! Load from inside a cluster, through a Service's own address, and single requests the same way.
//!
//! Inputs: an [`Order`] over HTTP. Output: a [`Tally`] of what was sent and how it was answered.
//!
//! | request | answer |
//! |---|---|
//! | `POST /runs` with an [`Order`] | [`Started`]: the load runs until it is stopped |
//! | `GET /runs/{id}` | the [`Tally`] so far |
//! | `DELETE /runs/{id}` | no more requests; the [`Tally`] when the last answer is in |
//! | `POST /ask`, headers `x-url`, `x-method`, `x-content-type`, `x-way` (a [`Way`], JSON) | [`Answer`] to one request with that body |
//! | `POST /call` with a [`Call`] | [`Called`]: one gRPC call |
//! | `GET /healthz` | `200` |
//!
//! Invariants: nothing is ever tried again, here or in a library below. A request that gets no
//! answer, a late one, one that is not 200 (gRPC: not OK) or one without the value that was asked for is a failure.
//! A connection that the other side has closed (or said it would) before the next request is replaced,
//! which is no failure; one that breaks under a request is.

mod ask;
mod call;
mod run;
mod web;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub use web::router;

/// How a request comes to the URL's host, where it does not go there straight and as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Way {
    /// `host:port` to connect to, in the place of the URL's own: a gateway before it. The URL's host stays the
    /// request's `Host` or `:authority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Headers of each request, beside those that it has anyhow.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// What to send, how often, and what to read out of the answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// `http://host[:port]/path`; the host is looked up once, when the load starts.
    pub url: String,
    /// Through what, and with which headers.
    #[serde(default)]
    pub way: Way,
    /// The body of each request, JSON. Without one the request is a GET.
    pub body: Option<serde_json::Value>,
    /// In the place of `body`, bodies that take turns over all clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bodies: Vec<serde_json::Value>,
    /// In the place of `body`, a message in base64: each request is a unary gRPC call to the method that the URL's
    /// path names, and each answer's message, in base64, is the value that is counted.
    #[serde(default)]
    pub message: Option<String>,
    /// A JSON pointer into the answer: the values found there are counted.
    pub pointer: String,
    /// Clients that connect anew for every request.
    pub fresh: usize,
    /// Clients that keep their connection.
    pub kept: usize,
    /// Milliseconds between an answer and the client's next request.
    pub pause_ms: u64,
    /// Milliseconds until a request without an answer has failed.
    pub timeout_ms: u64,
}

/// A load that runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Started {
    /// What it is called in the paths.
    pub id: u64,
}

/// What a load has seen. Times are milliseconds since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were answered or failed.
    pub sent: u64,
    /// Those that failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Miss>,
    /// The slowest answer.
    pub slowest_ms: u64,
    /// How long the load has run.
    pub elapsed_ms: u64,
    /// The longest time without any answer: what a client would notice as a stop.
    pub longest_gap_ms: u64,
    /// The value at the pointer, as JSON, and how often it came.
    pub answers: BTreeMap<String, Seen>,
}

/// One failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Miss {
    /// When the request was sent.
    pub at_ms: u64,
    /// How long it took to fail.
    pub took_ms: u64,
    /// Whether the connection was a kept one.
    pub kept: bool,
    /// What happened.
    pub what: String,
}

/// How often a value was answered.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Answers with it.
    pub count: u64,
    /// The first one.
    pub first_ms: u64,
    /// The last one.
    pub last_ms: u64,
}

/// One gRPC call, on a connection of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// `http://host[:port]/package.Service/Method`.
    pub url: String,
    /// Through what, and with which headers.
    #[serde(default)]
    pub way: Way,
    /// The messages to send, in base64; one for a unary call.
    pub messages: Vec<String>,
}

/// How a gRPC call ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// The status, 0 for OK.
    pub code: i32,
    /// Its sentence.
    pub message: String,
    /// The messages that were answered, in base64.
    pub messages: Vec<String>,
}

/// The answer to one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}
