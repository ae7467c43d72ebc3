//! The interface of the program: loads and single requests over HTTP.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, Method, StatusCode},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::time::timeout;

use crate::{
    Answer, Call, Called, Order, Started, Tally, Way,
    ask::{Connection, Target},
    call::Channel,
    run::Run,
};

/// Far more than a photograph.
const MAX_BODY: usize = 32 << 20;
/// For a single request.
const PATIENCE: Duration = Duration::from_secs(60);

type Refusal = (StatusCode, String);
type Runs = Arc<Loads>;

#[derive(Default)]
struct Loads {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Run>>,
}

impl Loads {
    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Run>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes.
pub fn router() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/runs", post(start))
        .route("/runs/{id}", get(look).delete(stop))
        .route("/ask", post(ask))
        .route("/call", post(call))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Runs::default())
}

fn unknown(id: u64) -> Refusal {
    (StatusCode::NOT_FOUND, format!("no load {id} runs here\n"))
}

async fn start(
    State(loads): State<Runs>,
    Json(order): Json<Order>,
) -> Result<Json<Started>, Refusal> {
    let run = Run::start(order)
        .await
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")))?;
    let id = loads.next.fetch_add(1, Ordering::Relaxed);
    loads.running().insert(id, run);
    Ok(Json(Started { id }))
}

async fn look(State(loads): State<Runs>, Path(id): Path<u64>) -> Result<Json<Tally>, Refusal> {
    let running = loads.running();
    running
        .get(&id)
        .map(|run| Json(run.tally()))
        .ok_or_else(|| unknown(id))
}

async fn stop(State(loads): State<Runs>, Path(id): Path<u64>) -> Result<Json<Tally>, Refusal> {
    let run = loads.running().remove(&id);
    Ok(Json(run.ok_or_else(|| unknown(id))?.stop().await))
}

async fn call(Json(call): Json<Call>) -> Result<Json<Called>, Refusal> {
    let bad = |what: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("{what}\n"));
    let messages = call.messages.iter().map(|m| BASE64_STANDARD.decode(m));
    let messages = messages
        .map(|decoded| decoded.map(Bytes::from))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(format!("a message is no base64: {error}")))?;
    let called = async {
        let target = Target::find(&call.url, &call.way).await?;
        let mut channel = Channel::open(&target).await?;
        Ok::<_, crate::ask::Error>(channel.call(&target, messages).await)
    };
    let outcome = timeout(PATIENCE, called)
        .await
        .map_err(|_| bad(format!("no end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| bad(error.to_string()))?;
    Ok(Json(Called {
        code: outcome.status.code().into(),
        message: outcome.status.message().to_owned(),
        messages: outcome
            .messages
            .iter()
            .map(|message| BASE64_STANDARD.encode(message))
            .collect(),
    }))
}

async fn ask(headers: HeaderMap, body: Bytes) -> Result<Json<Answer>, Refusal> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let bad = |what: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("{what}\n"));
    let method = Method::from_bytes(header("x-method").as_bytes())
        .map_err(|_| bad("x-method names the method".into()))?;
    let way = match header("x-way") {
        "" => Way::default(),
        way => serde_json::from_str(way).map_err(|error| bad(format!("x-way: {error}")))?,
    };
    let asked = async {
        let target = Target::find(header("x-url"), &way).await?;
        Connection::open(&target)
            .await?
            .ask(&target, method, header("x-content-type"), body)
            .await
    };
    let (status, body) = timeout(PATIENCE, asked)
        .await
        .map_err(|_| bad(format!("no answer within {} s", PATIENCE.as_secs())))?
        .map_err(|error| bad(error.to_string()))?;
    Ok(Json(Answer {
        status: status.as_u16(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}
