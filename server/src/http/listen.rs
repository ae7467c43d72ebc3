//! Ports and their connections: every limit is set here, and the drain ends here.
//!
//! ```text
//!  TCP ─► TLS? ─► which HTTP? ─► HTTP/1.1 or HTTP/2 ─► dispatch
//! ```
//!
//! Invariants: half a handshake or half a request's head never holds a connection for longer than
//! [`ortolan_tls::HANDSHAKE`] or [`HEAD`], nor does a client that takes nothing of its answer ([`wire::STALL`]);
//! while the app drains, every answer over HTTP/1.1 closes its connection and every connection of HTTP/2 is
//! told to go away; once the app is closed, no connection is taken, idle ones are closed and busy ones
//! finish their answers.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::FutureExt;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use ortolan_model::{Failure, Reason};
use ortolan_tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    dispatch::Dispatch,
    wire::{Http, Wire},
};
use crate::app::Phase;

/// For the head of a request, and so for an idle connection of HTTP/1.1 too. Pools of common clients keep theirs
/// for 60 s (Python, Java) to 90 s (Go, Rust); ours must not be the shorter one by a hair, and must end.
const HEAD: Duration = Duration::from_secs(120);
/// Ours and our clients' headers are few.
const MAX_HEADERS: usize = 100;
/// For the head of a request of HTTP/1.1, and for what is read of a body at once.
const HTTP1_BUFFER: usize = 128 << 10;
/// For the head of a request of HTTP/2, unpacked.
const HTTP2_HEAD: u32 = 64 << 10;
/// Requests at once on a connection of HTTP/2: as many as the default queue has places.
const STREAMS: u32 = 256;
/// What a client may send ahead of what is read, on one stream and on all of a connection. A photograph goes in
/// one round trip; a connection holds no more than this in memory besides the messages that are being read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Larger frames than the least that the protocol has: a tensor of 64 MiB is 1,024 of them, not 4,096.
const FRAME: u32 = 64 << 10;
/// What is written ahead of what a client takes, on one stream.
const SEND_BUFFER: usize = 1 << 20;
/// A connection of HTTP/2 on which nothing comes for so long is asked whether it is still there; one that does
/// not answer in [`PONG`] is closed. Clients keep idle connections for hours, and load balancers forget them.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// Requests that a client takes back before they are answered ("rapid reset"), before it is sent away.
const RESETS: usize = 64;
/// A connection that comes while the app drains lives at least so long: a client that comes back at once
/// after it was told to go away would else come back a thousand times a second.
const LEAST_AGE: Duration = Duration::from_millis(500);
/// When no file handle is left, taking a connection fails until one is closed.
const OUT_OF_HANDLES: Duration = Duration::from_millis(50);

/// Takes the address that `option` names.
pub async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "it cannot be used",
        };
        Failure::new(
            Reason::PortInUse,
            format!("cannot listen on {address}: {error}; {why}; choose another with {option}"),
        )
    })
}

/// A port.
pub struct Port {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Answers their requests.
    pub dispatch: Dispatch,
    /// With certificates, or in clear text.
    pub tls: Option<Arc<Tls>>,
    /// How far the app's end is.
    pub phase: watch::Receiver<Phase>,
}

/// Serves until the app is closed and every connection has ended.
pub async fn serve(port: Port) {
    let Port {
        listener,
        dispatch,
        tls,
        mut phase,
    } = port;
    let dispatch = Arc::new(dispatch);
    let connections = TaskTracker::new();
    let accept = |accepted: std::io::Result<(TcpStream, SocketAddr)>| match accepted {
        Ok((stream, _)) => {
            // An answer leaves at once: it is written in one piece.
            let _ = stream.set_nodelay(true);
            let (dispatch, phase) = (Arc::clone(&dispatch), dispatch.app().phase());
            connections.spawn(connection(stream, tls.clone(), dispatch, phase));
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
            () = until(&mut phase, is_closed) => break,
        }
    }
    // What the kernel has taken for us already would be reset with the port.
    while let Some(accepted) = listener.accept().now_or_never() {
        if !accept(accepted) {
            break;
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn is_closed(phase: Phase) -> bool {
    phase == Phase::Closed
}

/// Ends when the phase is one of those that are waited for.
async fn until(phase: &mut watch::Receiver<Phase>, awaited: fn(Phase) -> bool) {
    // The app outlives its connections: the other end is not dropped.
    let _ = phase.wait_for(|phase| awaited(*phase)).await;
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    dispatch: Arc<Dispatch>,
    phase: watch::Receiver<Phase>,
) {
    let Some(tls) = tls else {
        return speak(stream, dispatch, phase).await;
    };
    match tls.accept(stream).await {
        Ok(stream) => speak(stream, dispatch, phase).await,
        // A client that breaks off, or is not let in, is its own affair.
        Err(error) => tracing::debug!("TLS: {error}"),
    }
}

/// Until the client has gone, or the app.
async fn speak<S>(stream: S, dispatch: Arc<Dispatch>, mut phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut wire = Wire::new(stream);
    let http = tokio::select! {
        http = timeout(HEAD, wire.sniff()) => http,
        // Nothing was asked yet, so that nothing is lost.
        () = until(&mut phase, is_closed) => return,
    };
    let Ok(Ok(http)) = http else { return };
    let service = service_fn(move |request| {
        let dispatch = Arc::clone(&dispatch);
        async move { dispatch.answer(request).await }
    });
    let io = TokioIo::new(wire);
    match http {
        Http::One => {
            // Without `pipeline_flush`: with it no answer leaves while bytes of a next request are there, neither the
            // answer before half a head nor the 400 to a head that is none.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_headers(MAX_HEADERS)
                .max_buf_size(HTTP1_BUFFER)
                .serve_connection(io, service);
            // While the app drains, answers close their connections; idle ones may stay until the end.
            drive(connection, phase, is_closed).await;
        }
        Http::Two => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME)
                .max_header_list_size(HTTP2_HEAD)
                .max_send_buf_size(SEND_BUFFER)
                .max_pending_accept_reset_streams(RESETS)
                .max_local_error_reset_streams(RESETS)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG)
                .serve_connection(io, service);
            drive(connection, phase, |phase| phase != Phase::Open).await;
        }
    }
}

async fn drive<C>(connection: C, mut phase: watch::Receiver<Phase>, goes: fn(Phase) -> bool)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let born = Instant::now();
    let mut connection = pin!(connection);
    let told = async {
        until(&mut phase, goes).await;
        tokio::select! {
            () = sleep_until(born + LEAST_AGE) => {}
            () = until(&mut phase, is_closed) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that breaks off is its own affair.
    if let Err(error) = ended {
        tracing::debug!("connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;
    use crate::{app::App, grpc::Grpc, http::dispatch::Speaks};

    /// Time stands still but for timers: what a client sees that says `words` and then nothing.
    async fn silence_after(words: &[u8]) -> Duration {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--http")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let app = Arc::new(App::new(1));
        let router = Router::new().route("/ok", get(|| async { "ok" }));
        let grpc = Grpc::new(&app).unwrap();
        let port = Port {
            listener,
            phase: app.phase(),
            dispatch: Dispatch::new(router, grpc, app, Speaks::Both),
            tls: None,
        };
        tokio::spawn(serve(port));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(words).await.unwrap();
        let start = Instant::now();
        let mut answer = Vec::new();
        let end = timeout(HEAD * 10, client.read_to_end(&mut answer)).await;
        end.expect("the server ends the connection").unwrap();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_does_not_hold_a_connection_for_ever() {
        for half in [
            &b"GET /ok HTTP/1.1\r\nhost: a\r\nx-half: "[..],
            b"",
            b"PRI * HTTP/2.0\r\n",
        ] {
            let held = silence_after(half).await;
            assert!(held <= HEAD + Duration::from_secs(1), "{half:?}: {held:?}");
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_2_that_answers_no_ping_is_closed() {
        let held = silence_after(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert!(held <= PING + PONG + Duration::from_secs(1), "{held:?}");
    }
}
