//! Connections: every limit is set here, and the drain ends here.
//!
//! Invariants: half a request's head never holds a connection for longer than [`HEAD`]; while the
//! app drains, every answer closes its connection; once `close` fires, no connection is taken, idle
//! ones are closed and busy ones finish their answer.

use std::{
    convert::Infallible, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    response::IntoResponse,
};
use futures::FutureExt;
use http::{HeaderValue, Request, Response, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use ortolan_model::{Failure, Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tower::ServiceExt;

use super::error::ApiError;
use crate::app::App;

/// For the head of a request, and so for an idle connection too. Pools of common clients keep theirs for 60 s
/// (Python, Java) to 90 s (Go, Rust); ours must not be the shorter one by a hair, and must end.
const HEAD: Duration = Duration::from_secs(120);
/// Ours and our clients' headers are few.
const MAX_HEADERS: usize = 100;
/// When no file handle is left, taking a connection fails until one is closed.
const OUT_OF_HANDLES: Duration = Duration::from_millis(50);

/// Takes the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process listens there; choose another with --http"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege; choose another with --http"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; choose another with --http"
            }
            _ => "choose another with --http",
        };
        Failure::new(
            Reason::PortInUse,
            format!("cannot listen on {address}: {error}; {why}"),
        )
    })
}

/// Serves until `close` fires and every connection has ended.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    mut close: oneshot::Receiver<()>,
) {
    let graceful = GracefulShutdown::new();
    let accept = |accepted: std::io::Result<(TcpStream, SocketAddr)>| match accepted {
        Ok((stream, _)) => {
            connection(stream, &router, &app, &graceful);
            true
        }
        Err(error) => {
            tracing::warn!("cannot take a connection: {error}");
            false
        }
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if !accept(accepted) {
                    tokio::time::sleep(OUT_OF_HANDLES).await;
                }
            }
            _ = &mut close => break,
        }
    }
    // What the kernel has taken for us already would be reset with the port.
    while let Some(accepted) = listener.accept().now_or_never() {
        if !accept(accepted) {
            break;
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn connection(stream: TcpStream, router: &Router, app: &Arc<App>, graceful: &GracefulShutdown) {
    // An answer leaves at once: it is written in one piece.
    let _ = stream.set_nodelay(true);
    let (router, app) = (router.clone(), Arc::clone(app));
    let service = service_fn(move |request| answer(router.clone(), Arc::clone(&app), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        // A client that breaks off is its own affair.
        if let Err(error) = watched.await {
            tracing::debug!("connection: {error}");
        }
    });
}

async fn answer<B>(
    router: Router,
    app: Arc<App>,
    request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let answered = AssertUnwindSafe(router.oneshot(request))
        .catch_unwind()
        .await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!("a request panicked; this is a bug in the server");
            ApiError::internal("the request panicked; this is a bug in the server").into_response()
        }
    };
    if app.is_draining() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;

    async fn panics() -> &'static str {
        panic!("as a bug would")
    }

    async fn ask(app: &Arc<App>, path: &str) -> Response<Body> {
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/ok", get(|| async { "ok" }));
        let request = Request::get(path).body(Body::empty()).unwrap();
        answer(router, Arc::clone(app), request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_the_next_request_is_answered() {
        let app = Arc::new(App::new(1));
        assert_eq!(
            ask(&app, "/panics").await.status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(ask(&app, "/ok").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn answers_close_their_connection_only_while_the_app_drains() {
        let app = Arc::new(App::new(1));
        assert!(
            !ask(&app, "/ok")
                .await
                .headers()
                .contains_key(header::CONNECTION)
        );
        app.drain();
        assert_eq!(
            ask(&app, "/ok").await.headers()[header::CONNECTION],
            "close"
        );
    }

    /// Time stands still but for timers: what a client sees that says `words` and then nothing.
    async fn silence_after(words: &[u8]) -> Duration {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Arc::new(App::new(1));
        let router = Router::new().route("/ok", get(|| async { "ok" }));
        let (_keep, closed) = oneshot::channel();
        tokio::spawn(serve(listener, router, app, closed));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(words).await.unwrap();
        let start = Instant::now();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(HEAD * 10, client.read_to_end(&mut answer)).await;
        end.expect("the server ends the connection").unwrap();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_does_not_hold_a_connection_for_ever() {
        let held = silence_after(b"GET /ok HTTP/1.1\r\nhost: a\r\nx-half: ").await;
        assert!(held <= HEAD + Duration::from_secs(1), "{held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_in_the_end() {
        let held = silence_after(b"GET /ok HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(held <= HEAD + Duration::from_secs(1), "{held:?}");
        assert!(
            held >= HEAD - Duration::from_secs(1),
            "kept for the next request: {held:?}"
        );
    }
}
