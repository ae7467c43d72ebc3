//! One try: a request to one pod, over HTTP/1.1 or, for gRPC, HTTP/2, up to the head of its answer.
//!
//! Output: the answer, or how far the request came. A connection that was closed while it waited for its next request
//! is no failure: nothing was sent, and another one is taken.

use std::pin::pin;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::{
    alarm::Alarm,
    answer::Connection,
    body::{Outgoing, Source},
    live::Place,
    pod::Pod,
    pool::ConnectError,
};

/// A request's head as pods get it. The first try takes the headers with it, and what is kept for the next one is cheaper
/// than a map of them.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path and query, for gRPC the authority, too.
    pub uri: Uri,
    /// Without what ends at the router; until the first try.
    pub headers: HeaderMap,
    /// Over HTTP/2.
    pub is_grpc: bool,
    /// Since the first try, the headers.
    kept: Option<Vec<(HeaderName, HeaderValue)>>,
}

/// How a try failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nothing was sent.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// Something may have been sent, and no byte of an answer came.
    #[error("the connection was lost before an answer came: {0}")]
    Lost(hyper::Error),
    /// No answer came in time.
    #[error("no answer came in time")]
    Late,
}

/// The head of an answer, its body to come, and what it comes through.
pub type Answered = (Response<Incoming>, Connection);

impl Head {
    /// Of a request that was not tried yet.
    #[must_use]
    pub const fn new(method: Method, uri: Uri, headers: HeaderMap, is_grpc: bool) -> Self {
        Self {
            method,
            uri,
            headers,
            is_grpc,
            kept: None,
        }
    }

    /// The same, tried or not, as one that was not.
    #[must_use]
    pub fn again(&self) -> Self {
        let kept = self.kept.as_deref();
        let headers = kept.map_or_else(|| self.headers.clone(), map);
        Self::new(self.method.clone(), self.uri.clone(), headers, self.is_grpc)
    }

    fn request(&mut self, body: Outgoing) -> Request<Outgoing> {
        let headers = match self.kept.as_deref() {
            Some(kept) => map(kept),
            None => {
                let pairs = self.headers.iter();
                self.kept = Some(pairs.map(|(n, value)| (n.clone(), value.clone())).collect());
                std::mem::take(&mut self.headers)
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        *request.version_mut() = if self.is_grpc {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        request
    }
}

fn map(kept: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(kept.len());
    for (name, value) in kept {
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// Sends the request to a pod.
///
/// # Errors
/// When no head of an answer came by the deadline.
pub async fn send<B>(
    place: &Option<Place>,
    head: &mut Head,
    source: &Source<B>,
    (alarm, deadline): (&Alarm, Instant),
) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    match place {
        Some(Place { pod, .. }) => to(pod, head, source, (alarm, deadline)).await,
        None => Err(Failed::Late),
    }
}

/// The same, to a pod without a place there.
///
/// # Errors
/// As [`send`].
pub async fn to<B>(
    pod: &Pod,
    head: &mut Head,
    source: &Source<B>,
    (alarm, deadline): (&Alarm, Instant),
) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    let work = pin!(async {
        if head.is_grpc {
            two(pod, head, source).await
        } else {
            one(pod, head, source).await
        }
    });
    alarm
        .within(deadline, work)
        .await
        .unwrap_or(Err(Failed::Late))
}

async fn one<B>(pod: &Pod, head: &mut Head, source: &Source<B>) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    loop {
        let (mut sender, is_fresh) = match pod.pool.take() {
            Some(sender) => (sender, false),
            None => (pod.pool.open().await?, true),
        };
        // The end of the answer before may not have come through yet.
        if !is_fresh && sender.ready().await.is_err() {
            continue;
        }
        let request = head.request(source.outgoing());
        match sender.try_send_request(request).await {
            Ok(answer) => return Ok((answer, Connection::One(sender))),
            Err(mut error) => {
                if error.take_message().is_none() || is_fresh {
                    return Err(Failed::Lost(error.into_error()));
                }
            }
        }
    }
}

async fn two<B>(pod: &Pod, head: &mut Head, source: &Source<B>) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    let mut again = true;
    loop {
        let (mut sender, call) = pod.pool.share().await?;
        let request = head.request(source.outgoing());
        match sender.try_send_request(request).await {
            Ok(answer) => return Ok((answer, Connection::Two(call))),
            Err(mut error) => {
                if error.take_message().is_none() || !again {
                    return Err(Failed::Lost(error.into_error()));
                }
                again = false;
            }
        }
    }
}

/// Sends a request that asks for another protocol. When the pod agrees, bytes go to and fro until one end closes, and
/// the place at the pod is held as long.
///
/// # Errors
/// As [`send`].
pub async fn upgrade(
    place: &mut Option<Place>,
    head: &mut Head,
    (protocol, client): (HeaderValue, OnUpgrade),
    (alarm, deadline): (&Alarm, Instant),
) -> Result<Answered, Failed> {
    let Some(held) = place.as_ref() else {
        return Err(Failed::Late);
    };
    let pod = std::sync::Arc::clone(&held.pod);
    let work = pin!(async {
        let mut sender = pod.pool.open().await?;
        let mut request = head.request(Outgoing::none());
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
        let answer = sender.send_request(request).await.map_err(Failed::Lost)?;
        Ok::<_, Failed>((answer, sender))
    });
    let (mut answer, sender) = alarm
        .within(deadline, work)
        .await
        .unwrap_or(Err(Failed::Late))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((answer, Connection::One(sender)));
    }
    let server = hyper::upgrade::on(&mut answer);
    let held = place.take();
    tokio::spawn(async move {
        let _held = held;
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => return tracing::debug!("no other protocol: {error}"),
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!("a connection of another protocol broke off: {error}");
        }
    });
    Ok((answer, Connection::Gone))
}
