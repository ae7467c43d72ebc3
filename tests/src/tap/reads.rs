//! What becomes of the operator's reads: everything that it sends with GET, in the order in which it is sent.
//!
//! Which there are: at the start the version of the API server, whether it knows InferenceServices, which kinds of routes
//! it knows, and for each kind that is kept a listing and the watch that follows it (InferenceServices, ControllerRevisions,
//! Deployments, Services, PodDisruptionBudgets, ConfigMaps, Pods, the routers' EndpointSlices); a listing of ReferenceGrants
//! where there are routers; an object by its name where a write met one. In the middle of a rollout there are no requests
//! but these watches, so what happens then happens to all of them at once, after some write ([`Outbreak`]).
//!
//! An answer from the past is the API server's own: a listing at an exact resourceVersion, and the watch that follows it
//! brings what happened since [`LATE`] later. The API server promises not to answer so (no listing of ours names a
//! version); a cache in front of it does, and so does a replica that begins to lead with watches that are behind.
//! Requests to pods and routers are no requests to the API server and are not touched here.

use std::{collections::VecDeque, future::Future, io, time::Duration};

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt as _;
use http::{Request, Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// How late something is that is late.
pub const LATE: Duration = Duration::from_secs(3);
/// The largest listing of a test.
const MOST: usize = 64 << 20;

/// What becomes of one read. The operator lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// The connection breaks before it reaches the API server.
    Dropped,
    /// It is answered with 500.
    Failed,
    /// It is answered with 429.
    Busy,
    /// It is asked after [`LATE`].
    Late,
    /// It is asked twice, and the second answer is heard; a watch brings every event twice.
    Twice,
    /// The connection breaks in the middle of the answer, that of a watch after its first event.
    Cut,
    /// The version that it begins at is gone (410).
    Expired,
    /// It is answered from the past. A watch brings every event [`LATE`] later.
    Stale,
}

impl ReadFault {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Dropped,
        Self::Failed,
        Self::Busy,
        Self::Late,
        Self::Twice,
        Self::Cut,
        Self::Expired,
        Self::Stale,
    ];
}

/// What becomes of all watches that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbreak {
    /// They bring nothing for [`LATE`], and then everything.
    Behind,
    /// Their connections break.
    Broken,
    /// Their versions are gone (410): everything is listed anew.
    Expired,
    /// The same, and the listings are from the past.
    Past,
}

impl Outbreak {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Behind, Self::Broken, Self::Expired, Self::Past];
}

/// Whether it is a watch.
#[must_use]
pub fn is_watch<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair.starts_with("watch="))
}

fn refusal(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "made by a test", "reason": reason, "code": code.as_u16(),
    })
}

fn answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// What the API server does not see at all: an answer of its own, or a connection that breaks.
pub fn instead(fault: ReadFault, is_watch: bool) -> Option<Result<Response<Body>, io::Error>> {
    let refuse = |code, reason| Some(Ok(answer(code, &refusal(code, reason))));
    match fault {
        ReadFault::Dropped => Some(Err(broken())),
        ReadFault::Failed => refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        ReadFault::Busy => refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        // A watch says so in its first event.
        ReadFault::Expired if !is_watch => refuse(StatusCode::GONE, "Expired"),
        _ => None,
    }
}

/// A connection that breaks.
#[must_use]
pub fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

/// The same question to the past. `true`: it asks for one object, and its answer is a listing ([`one_of`]). `None`: the
/// question has no past (the version of the API server, say).
#[must_use]
pub fn to_the_past(uri: &Uri, version: &str) -> Option<(Uri, bool)> {
    let path = uri.path();
    let segments: Vec<&str> = path.split('/').collect();
    let namespaces = segments
        .iter()
        .position(|segment| *segment == "namespaces")?;
    let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
    let (path, query, is_one) = match segments.len() - namespaces {
        3 => {
            let query = uri.query().unwrap_or_default().split('&');
            let kept = query.filter(|pair| {
                !pair.is_empty()
                    && !pair.starts_with("resourceVersion")
                    && !pair.starts_with("continue")
            });
            (
                path.to_owned(),
                kept.map(str::to_owned).collect::<Vec<_>>(),
                false,
            )
        }
        4 => {
            let (list, name) = path.rsplit_once('/')?;
            (
                list.to_owned(),
                vec![format!("fieldSelector=metadata.name%3D{name}")],
                true,
            )
        }
        _ => return None,
    };
    let query = query
        .into_iter()
        .chain([exact])
        .collect::<Vec<_>>()
        .join("&");
    // Of a path and a query that were part of a URI.
    let uri = format!("{path}?{query}").parse().ok()?;
    Some((uri, is_one))
}

/// Of a listing of at most one object that object, or that there is none.
///
/// # Errors
/// When the answer breaks off, or is none.
pub async fn one_of(response: Response<Body>) -> Result<Response<Body>, io::Error> {
    let bytes = axum::body::to_bytes(response.into_body(), MOST)
        .await
        .map_err(io::Error::other)?;
    let mut list: Value = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    let kind = list["kind"]
        .as_str()
        .unwrap_or_default()
        .trim_end_matches("List")
        .to_owned();
    let Some(mut object) = list["items"].get_mut(0).map(Value::take) else {
        return Ok(answer(
            StatusCode::NOT_FOUND,
            &refusal(StatusCode::NOT_FOUND, "NotFound"),
        ));
    };
    object["apiVersion"] = list["apiVersion"].take();
    object["kind"] = json!(kind);
    Ok(answer(StatusCode::OK, &object))
}

/// The first half of an answer, and then the connection breaks.
///
/// # Errors
/// When it broke off by itself.
pub async fn half(response: Response<Body>) -> Result<Response<Body>, io::Error> {
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MOST)
        .await
        .map_err(io::Error::other)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    let chunks = [Ok(bytes.slice(..bytes.len() / 2)), Err(broken())];
    Ok(Response::from_parts(
        parts,
        Body::from_stream(futures::stream::iter(chunks)),
    ))
}

/// A watch's lines, on their way to the operator.
struct Lines {
    arriving: mpsc::UnboundedReceiver<(Instant, Result<Bytes, axum::Error>)>,
    /// The beginning of a line.
    begun: Vec<u8>,
    ready: VecDeque<Bytes>,
    outbreak: watch::Receiver<Option<Outbreak>>,
    fault: Option<ReadFault>,
    /// Nothing comes after this.
    over: bool,
}

/// A watch's answer to which this happens, and the outbreak when there is one.
pub fn watched(
    response: Response<Body>,
    fault: Option<ReadFault>,
    outbreak: watch::Receiver<Option<Outbreak>>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let (arrived, arriving) = mpsc::unbounded_channel();
    tokio::spawn(carry(body.into_data_stream(), arrived));
    let lines = Lines {
        arriving,
        begun: Vec::new(),
        ready: VecDeque::new(),
        outbreak,
        fault,
        over: false,
    };
    let lines = futures::stream::unfold(lines, async |mut lines: Lines| {
        let line = lines.next().await?;
        Some((line, lines))
    });
    Response::from_parts(parts, Body::from_stream(lines))
}

/// Until either end goes away: what a watch brings, and when it came.
async fn carry(
    mut chunks: BodyDataStream,
    arrived: mpsc::UnboundedSender<(Instant, Result<Bytes, axum::Error>)>,
) {
    loop {
        tokio::select! {
            () = arrived.closed() => return,
            chunk = chunks.next() => match chunk {
                // It may have gone away just now.
                Some(chunk) => drop(arrived.send((Instant::now(), chunk))),
                None => return,
            }
        }
    }
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        if self.fault == Some(ReadFault::Expired) {
            self.fault = None;
            return self.expire();
        }
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                Ok(()) = self.outbreak.changed() => {
                    let outbreak = *self.outbreak.borrow_and_update();
                    match outbreak {
                        Some(Outbreak::Behind) => tokio::time::sleep(LATE).await,
                        Some(Outbreak::Broken) => return self.broken(),
                        Some(Outbreak::Expired | Outbreak::Past) => return self.expire(),
                        None => {}
                    }
                }
                arrived = self.arriving.recv() => match arrived {
                    None => return None,
                    Some((_, Err(error))) => {
                        self.over = true;
                        return Some(Err(io::Error::other(error)));
                    }
                    Some((at, Ok(bytes))) => {
                        if self.fault == Some(ReadFault::Stale) {
                            tokio::time::sleep_until(at + LATE).await;
                        }
                        if let Some(end) = self.take(&bytes) {
                            return end;
                        }
                    }
                }
            }
        }
    }

    /// Takes bytes that came. An answer is one at which the watch ends.
    fn take(&mut self, bytes: &Bytes) -> Option<Option<Result<Bytes, io::Error>>> {
        self.begun.extend_from_slice(bytes);
        while let Some(at) = self.begun.iter().position(|byte| *byte == b'\n') {
            let rest = self.begun.split_off(at + 1);
            let line = Bytes::from(std::mem::replace(&mut self.begun, rest));
            match self.fault {
                Some(ReadFault::Cut) => return Some(self.broken()),
                Some(ReadFault::Twice) => self.ready.extend([line.clone(), line]),
                _ => self.ready.push_back(line),
            }
        }
        None
    }

    fn broken(&mut self) -> Option<Result<Bytes, io::Error>> {
        self.over = true;
        Some(Err(broken()))
    }

    fn expire(&mut self) -> Option<Result<Bytes, io::Error>> {
        self.over = true;
        let event = json!({"type": "ERROR", "object": refusal(StatusCode::GONE, "Expired")});
        Some(Ok(Bytes::from(format!("{event}\n"))))
    }
}

/// Waits, and then does it.
pub async fn later<T>(what: impl Future<Output = T>) -> T {
    tokio::time::sleep(LATE).await;
    what.await
}
