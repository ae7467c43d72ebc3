//! One GET, redirects followed by hand: credentials stay with the URI's own origin.
//!
//! TLS is rustls with ring, the provider that kube uses too. Trusted are the certificates of the
//! platform (`/etc/ssl/certs`, or the file in `SSL_CERT_FILE`), so that a CA mounted into the
//! container works. `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are obeyed, loopback
//! never goes through a proxy.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            self,
            connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::verdict::{self, Trouble};
use crate::{
    failure::{Failure, Reason},
    source::credentials::Credentials,
    uri::shown,
};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("ortolan-server/", env!("CARGO_PKG_VERSION"));

/// An HTTP client for one store.
pub(super) struct Client {
    inner: legacy::Client<Connector, Empty<Bytes>>,
    authorization: Option<HeaderValue>,
    proxies: Arc<Matcher>,
    answer: Duration,
}

impl Client {
    pub(super) fn new(credentials: Option<Credentials>, answer: Duration) -> Result<Self, Failure> {
        let proxies = Arc::new(Matcher::from_env());
        let connector = connector_through(Arc::clone(&proxies))?;
        let inner = legacy::Client::builder(TokioExecutor::new()).build(connector);
        let authorization = credentials.map(|c| authorization(&c)).transpose()?;
        Ok(Self {
            inner,
            authorization,
            proxies,
            answer,
        })
    }

    pub(super) fn sends_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// Follows redirects from `url`. The answer, and who gave it.
    pub(super) async fn get(
        &self,
        url: &Url,
        conditions: &HeaderMap,
    ) -> Result<(Response<Incoming>, Url), Trouble> {
        let mut at = url.clone();
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&at, at_home, conditions).await?;
            let Some(next) = redirect(&at, &response)? else {
                return Ok((response, at));
            };
            // Once away, never trusted again: the other origin chose where we go next.
            at_home &= next.origin() == url.origin();
            at = next;
        }
        Err(Trouble::fatal(
            Reason::StoreUnavailable,
            format!("{} redirects more than {MAX_REDIRECTS} times", shown(url)),
        ))
    }

    async fn once(
        &self,
        url: &Url,
        at_home: bool,
        conditions: &HeaderMap,
    ) -> Result<Response<Incoming>, Trouble> {
        let request = self.request(url, at_home, conditions)?;
        match tokio::time::timeout(self.answer, self.inner.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(verdict::of_error(url, &error)),
            Err(_) => Err(Trouble::again(format!(
                "{} did not answer within {} s",
                url.host_str().unwrap_or_default(),
                self.answer.as_secs_f32()
            ))),
        }
    }

    fn request(
        &self,
        url: &Url,
        at_home: bool,
        conditions: &HeaderMap,
    ) -> Result<Request<Empty<Bytes>>, Trouble> {
        let wrong = |e: &dyn std::fmt::Display| {
            Trouble::fatal(
                Reason::UnsupportedUri,
                format!("{} cannot be asked for ({e})", shown(url)),
            )
        };
        let uri: Uri = url.as_str().parse().map_err(|e| wrong(&e))?;
        let mut request = Request::get(uri.clone())
            .body(Empty::new())
            .map_err(|e| wrong(&e))?;
        let headers = request.headers_mut();
        headers.extend(conditions.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        // The file as it is: its digest and its ranges are those of the stored bytes.
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if let Some(value) = self.authorization.as_ref().filter(|_| at_home) {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        if uri.scheme_str() == Some("http")
            && let Some(value) =
                intercept(&self.proxies, &uri).and_then(|p| p.basic_auth().cloned())
        {
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// Connections over HTTP/1.1, in clear text or TLS; for a hyper client.
pub type Connector = HttpsConnector<Route>;

/// Connections as models are fetched over: the same certificates are trusted, the same proxies used.
pub fn connector() -> Result<Connector, Failure> {
    connector_through(Arc::new(Matcher::from_env()))
}

fn connector_through(proxies: Arc<Matcher>) -> Result<Connector, Failure> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls_config()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Route { tcp, proxies }))
}

/// The next address of a redirect, `None` for any other answer.
fn redirect(at: &Url, response: &Response<Incoming>) -> Result<Option<Url>, Trouble> {
    let follow = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !follow {
        return Ok(None);
    }
    let next = response
        .headers()
        .get(header::LOCATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| at.join(v).ok())
        .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    let Some(mut next) = next else {
        return Err(Trouble::fatal(
            Reason::StoreUnavailable,
            format!(
                "{} redirects, but not to an http or https address",
                shown(at)
            ),
        ));
    };
    if at.scheme() == "https" && next.scheme() == "http" {
        return Err(Trouble::fatal(
            Reason::StoreUnavailable,
            format!(
                "{} redirects from https to {}, where anybody on the way could change the model; \
                 if that is meant, use that address as the URI",
                shown(at),
                shown(&next)
            ),
        ));
    }
    // A password in the address would be another's choice of credentials.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

fn authorization(credentials: &Credentials) -> Result<HeaderValue, Failure> {
    let text = match credentials {
        Credentials::Bearer(token) => format!("Bearer {token}"),
        Credentials::Basic { username, password } => {
            let pair = format!("{username}:{password}");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            )
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Failure::new(
            Reason::InvalidConfig,
            "the token holds characters that HTTP cannot carry",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls_config() -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::debug!(errors = ?found.errors, "no CA certificates: no https store will be trusted");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(Reason::Internal, format!("TLS cannot be set up: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reaches a host directly or through a proxy.
#[derive(Clone)]
pub struct Route {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

fn intercept(
    proxies: &Matcher,
    uri: &Uri,
) -> Option<hyper_util::client::proxy::matcher::Intercept> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if loopback {
        None
    } else {
        proxies.intercept(uri)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let proxy = intercept(&self.proxies, &uri);
        Box::pin(async move {
            let (inner, through_proxy) = match proxy {
                None => (tcp.call(uri).await?, false),
                Some(proxy) if uri.scheme_str() == Some("https") => {
                    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                    if let Some(auth) = proxy.basic_auth() {
                        tunnel = tunnel.with_auth(auth.clone());
                    }
                    (tunnel.call(uri).await?, false)
                }
                Some(proxy) => (tcp.call(proxy.uri().clone()).await?, true),
            };
            Ok(Stream {
                inner,
                through_proxy,
            })
        })
    }
}

/// A connection that knows whether requests on it must name the whole address.
pub struct Stream {
    inner: TokioIo<TcpStream>,
    through_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.through_proxy)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
