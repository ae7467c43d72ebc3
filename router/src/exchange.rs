//! One try: a request to one pod, over HTTP/1.1 or, for gRPC, HTTP/2, up to the head of its answer.
//!
//! Output: the answer, or how far the request came. A connection that was closed while it waited for its next request
//! is no failure: nothing was sent, and another one is taken.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::Connection,
    body::{Outgoing, Source},
    live::Place,
    pod::Pod,
    pool::ConnectError,
};

/// A request's head as pods get it.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path and query, for gRPC the authority, too.
    pub uri: Uri,
    /// Without what ends at the router.
    pub headers: HeaderMap,
    /// Over HTTP/2.
    pub is_grpc: bool,
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
    fn request(&self, body: Outgoing) -> Request<Outgoing> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.version_mut() = if self.is_grpc {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        request
    }
}

/// Sends the request to a pod.
///
/// # Errors
/// When no head of an answer came by `deadline`.
pub async fn send<B>(
    place: &Option<Place>,
    head: &Head,
    source: &Source<B>,
    deadline: Instant,
) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    match place {
        Some(Place { pod, .. }) => to(pod, head, source, deadline).await,
        None => Err(Failed::Late),
    }
}

/// The same, to a pod without a place there.
///
/// # Errors
/// As [`send`].
pub async fn to<B>(
    pod: &Pod,
    head: &Head,
    source: &Source<B>,
    deadline: Instant,
) -> Result<Answered, Failed>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    let work = async {
        if head.is_grpc {
            two(pod, head, source).await
        } else {
            one(pod, head, source).await
        }
    };
    timeout_at(deadline, work)
        .await
        .unwrap_or(Err(Failed::Late))
}

async fn one<B>(pod: &Pod, head: &Head, source: &Source<B>) -> Result<Answered, Failed>
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

async fn two<B>(pod: &Pod, head: &Head, source: &Source<B>) -> Result<Answered, Failed>
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
    head: &Head,
    (protocol, client): (HeaderValue, OnUpgrade),
    deadline: Instant,
) -> Result<Answered, Failed> {
    let Some(held) = place.as_ref() else {
        return Err(Failed::Late);
    };
    let pod = std::sync::Arc::clone(&held.pod);
    let work = async {
        let mut sender = pod.pool.open().await?;
        let mut request = head.request(Outgoing::none());
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
        let answer = sender.send_request(request).await.map_err(Failed::Lost)?;
        Ok::<_, Failed>((answer, sender))
    };
    let (mut answer, sender) = timeout_at(deadline, work)
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
