//! A load: a few clients, each with one request at a time, and one tally.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::body::Bytes;
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    Miss, Order, Seen, Tally,
    ask::{Connection, Error, Target, with_sources},
    call::Channel,
};

/// Enough to see when all of them happened.
const KEPT_FAILURES: usize = 500;
/// As much of a wrong answer as a person reads.
const KEPT_BYTES: usize = 300;

/// A load that runs until it is stopped.
pub struct Run {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

struct Shared {
    order: Order,
    /// Those that take turns; at least one.
    bodies: Vec<Bytes>,
    turn: AtomicUsize,
    target: Target,
    start: Instant,
    tally: Mutex<(Tally, u64)>,
}

impl Run {
    /// Finds the target and starts the clients.
    pub async fn start(order: Order) -> Result<Self, Error> {
        let target = Target::find(&order.url, &order.way).await?;
        let text = |body: &Value| Bytes::from(body.to_string());
        let bodies = match (&order.message, &order.body) {
            (Some(message), _) => {
                let message = BASE64_STANDARD.decode(message);
                vec![
                    message
                        .map_err(|error| Error::Message(error.to_string()))?
                        .into(),
                ]
            }
            (None, _) if !order.bodies.is_empty() => order.bodies.iter().map(text).collect(),
            (None, Some(body)) => vec![text(body)],
            (None, None) => vec![Bytes::new()],
        };
        let (stop, stopping) = watch::channel(false);
        let (fresh, kept) = (order.fresh, order.kept);
        let shared = Arc::new(Shared {
            order,
            bodies,
            turn: AtomicUsize::new(0),
            target,
            start: Instant::now(),
            tally: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for number in 0..fresh + kept {
            clients.spawn(client(
                Arc::clone(&shared),
                number >= fresh,
                stopping.clone(),
            ));
        }
        Ok(Self {
            shared,
            stop,
            clients,
        })
    }

    /// What was seen so far.
    pub fn tally(&self) -> Tally {
        let mut tally = self.shared.lock().0.clone();
        tally.elapsed_ms = self.shared.now();
        tally
    }

    /// Lets the requests on their way end, and says what was seen.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.tally()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }

    fn body(&self) -> Bytes {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.bodies[turn % self.bodies.len()].clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Tally, u64)> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, at_ms: u64, kept: bool, outcome: Result<String, String>) {
        let now = self.now();
        let mut guard = self.lock();
        let (tally, last) = &mut *guard;
        tally.sent += 1;
        match outcome {
            Ok(value) => {
                tally.slowest_ms = tally.slowest_ms.max(now - at_ms);
                tally.longest_gap_ms = tally.longest_gap_ms.max(now - *last);
                *last = now;
                let seen = tally.answers.entry(value).or_insert(Seen {
                    count: 0,
                    first_ms: now,
                    last_ms: now,
                });
                seen.count += 1;
                seen.last_ms = now;
            }
            Err(what) => {
                tally.failed += 1;
                if tally.failures.len() < KEPT_FAILURES {
                    tally.failures.push(Miss {
                        at_ms,
                        took_ms: now - at_ms,
                        kept,
                        what,
                    });
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn client(shared: Arc<Shared>, keep: bool, mut stopping: watch::Receiver<bool>) {
    let limit = Duration::from_millis(shared.order.timeout_ms);
    let pause = Duration::from_millis(shared.order.pause_ms);
    let mut open = Open::default();
    while !*stopping.borrow() {
        let at_ms = shared.now();
        let outcome = match timeout(limit, once(&shared, &mut open)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} ms", shared.order.timeout_ms)),
        };
        if !keep || outcome.is_err() {
            open = Open::default();
        }
        shared.count(at_ms, keep, outcome);
        // A long pause ends with the run.
        if matches!(timeout(pause, stopping.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// What a client keeps from one request to the next.
#[derive(Default)]
struct Open {
    http: Option<Connection>,
    grpc: Option<Channel>,
}

/// One request; the value that is counted, or what went wrong.
async fn once(shared: &Shared, open: &mut Open) -> Result<String, String> {
    match shared.order.message {
        Some(_) => call(shared, &mut open.grpc).await,
        None => ask(shared, &mut open.http).await,
    }
}

/// One unary call; the answer's message. A connection that goes away before anything of the call has left
/// is replaced, as one that did so earlier.
async fn call(shared: &Shared, channel: &mut Option<Channel>) -> Result<String, String> {
    let outcome = loop {
        if channel.as_ref().is_some_and(|open| !open.is_usable()) {
            *channel = None;
        }
        let was_kept = channel.is_some();
        let open = match channel {
            Some(open) => open,
            None => {
                let opened = Channel::open(&shared.target).await;
                channel.insert(opened.map_err(|error| error.to_string())?)
            }
        };
        let outcome = open.call(&shared.target, vec![shared.body()]).await;
        if !(was_kept && open.sent_nothing()) {
            break outcome;
        }
        *channel = None;
    };
    match (outcome.status.code(), outcome.messages.as_slice()) {
        (tonic::Code::Ok, [message]) => Ok(BASE64_STANDARD.encode(message)),
        (tonic::Code::Ok, messages) => Err(format!("{} answers to one call", messages.len())),
        (code, _) => Err(format!("{code:?}: {}", with_sources(&outcome.status))),
    }
}

/// One request; the value at the pointer.
async fn ask(shared: &Shared, connection: &mut Option<Connection>) -> Result<String, String> {
    if let Some(open) = connection
        && !open.is_usable().await
    {
        *connection = None;
    }
    let say = |error: Error| error.to_string();
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(&shared.target).await.map_err(say)?),
    };
    let (method, kind) = match (&shared.order.body, shared.order.bodies.as_slice()) {
        (None, []) => (Method::GET, ""),
        _ => (Method::POST, "application/json"),
    };
    let (status, body) = open
        .ask(&shared.target, method, kind, shared.body())
        .await
        .map_err(say)?;
    let shown = || String::from_utf8_lossy(&body[..body.len().min(KEPT_BYTES)]).into_owned();
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", shown()));
    }
    let json: Value =
        serde_json::from_slice(&body).map_err(|error| format!("no JSON ({error}): {}", shown()))?;
    match json.pointer(&shared.order.pointer) {
        Some(value) => Ok(value.to_string()),
        None => Err(format!("nothing at {}: {}", shared.order.pointer, shown())),
    }
}
