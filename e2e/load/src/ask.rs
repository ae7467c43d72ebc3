//! One request on one connection. No pool and no retries: what happens on the wire is what is counted.

use std::net::SocketAddr;

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, uri::Authority,
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};

use crate::Way;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none of ours.
    #[error("{0:?} is no http://host[:port]/path")]
    Url(String),
    /// What stands between is no address.
    #[error("{0:?} is no host:port to go through")]
    Via(String),
    /// A header that cannot be sent.
    #[error("{0:?} is no header that can be sent")]
    Header(String),
    /// The name has no address.
    #[error("{0} has no address: {1}")]
    Lookup(String, String),
    /// Nobody listens, or nobody answers.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection broke, or something else than HTTP came.
    #[error("{stage}: {}", with_sources(.source))]
    Http {
        /// How far it came.
        stage: &'static str,
        /// What hyper says.
        source: hyper::Error,
    },
    /// The order's message is none.
    #[error("the message is no base64: {0}")]
    Message(String),
    /// The request cannot be made of what was given.
    #[error("bad request: {0}")]
    Request(#[from] axum::http::Error),
}

/// An error with what caused it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Where a URL leads.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
    pub(crate) headers: HeaderMap,
}

impl Target {
    /// Looks the host up, once: the URL's, or the one that the way leads through.
    pub async fn find(url: &str, way: &Way) -> Result<Self, Error> {
        let bad = || Error::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let (host, port) = match &way.via {
            None => (
                authority.host().to_owned(),
                authority.port_u16().unwrap_or(80),
            ),
            Some(via) => through(via).ok_or_else(|| Error::Via(via.clone()))?,
        };
        let headers = way.headers.iter().map(|(name, value)| header(name, value));
        let headers = headers.collect::<Result<_, _>>()?;
        let found = lookup_host((host.as_str(), port)).await;
        let lost = |why: String| Error::Lookup(host.clone(), why);
        let address = found
            .map_err(|error| lost(error.to_string()))?
            .next()
            .ok_or_else(|| lost("the name is known, without an address".into()))?;
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        Ok(Self {
            host: authority.to_string(),
            path,
            address,
            headers,
        })
    }
}

fn through(via: &str) -> Option<(String, u16)> {
    let via: Authority = via.parse().ok()?;
    Some((via.host().to_owned(), via.port_u16()?))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    match (name.parse(), value.parse()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(Error::Header(format!("{name}: {value}"))),
    }
}

/// A connection.
pub struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    /// Connects anew.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| Error::Http {
                    stage: "handshake",
                    source,
                })?;
        // Its end, good or bad, is seen by the sender.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Whether another request may be sent on it.
    pub async fn is_usable(&mut self) -> bool {
        self.0.ready().await.is_ok() && !self.0.is_closed()
    }

    /// Sends one request and reads the whole answer.
    pub async fn ask(
        &mut self,
        target: &Target,
        method: Method,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(&target.path)
            .header(header::HOST, &target.host);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(headers) = request.headers_mut() {
            headers.extend(target.headers.clone());
        }
        let at = |stage| move |source| Error::Http { stage, source };
        let answer = self
            .0
            .send_request(request.body(Full::new(body))?)
            .await
            .map_err(at("no answer"))?;
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(at("half an answer"))?
            .to_bytes();
        Ok((status, body))
    }
}
