//! The port and its connections: which HTTP a client speaks, the limits of its heads, and the drain.
//!
//! ```text
//!  TCP ─► which HTTP? by its first bytes ─┐
//!  TCP ─► TLS ─► which HTTP? by ALPN ─────┴─► HTTP/1.1 or HTTP/2 ─► proxy
//! ```
//!
//! Invariants: half a head holds a connection no longer than [`Heads::timeout`], half a handshake no longer than
//! [`ortolan_tls::HANDSHAKE`]; a client that takes nothing of an
//! answer is cut off by the kernel after [`STALL`]; while the router drains, an answer over HTTP/1.1 closes its
//! connection and a connection of HTTP/2 is told to go away; once it is closed, idle connections end and busy ones
//! finish.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::FutureExt;
use http::{HeaderValue, Request, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ortolan_tls::Tls;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    alarm::Alarms,
    phase::{Ending, Phase},
    proxy::Proxy,
};

/// What every connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client that takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(30);
/// The rest of a preface is on its way.
const GLANCE: Duration = Duration::from_millis(5);
/// For the first bytes of a connection that was taken as the port closed.
const LAST_GLANCE: Duration = Duration::from_millis(200);
/// When no file handle is left, taking a connection fails until one is closed.
const OUT_OF_HANDLES: Duration = Duration::from_millis(50);
/// A client that is told to go away comes back at once; not a thousand times a second.
const LEAST_AGE: Duration = Duration::from_millis(500);
/// Clients of HTTP/2 that send all their requests over one connection are common.
const STREAMS: u32 = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 64 << 10;
const SEND_BUFFER: usize = 1 << 20;
const RESETS: usize = 128;
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// Limits of the heads of requests.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// For a head to come, and so for an idle connection of HTTP/1.1.
    pub timeout: Duration,
    /// Bytes of a head.
    pub bytes: usize,
    /// Headers in it.
    pub count: usize,
}

/// The port.
pub struct Port {
    /// Where clients come in.
    pub listener: TcpListener,
    /// Who answers them.
    pub proxy: Arc<Proxy>,
    /// The limits of heads.
    pub heads: Heads,
    /// How far the end is.
    pub ending: Arc<Ending>,
    /// With certificates, or in clear text.
    pub tls: Option<Arc<Tls>>,
}

/// Serves until the phase is closed and every connection has ended.
pub async fn serve(port: Port) {
    let mut phase = port.ending.watch();
    let port = Arc::new(port);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = port.listener.accept() => accepted,
            () = until(&mut phase, Phase::Closed) => break,
        };
        match accepted {
            Ok((stream, client)) => {
                drop(connections.spawn(connection(stream, client, Arc::clone(&port))))
            }
            Err(error) => {
                tracing::warn!("cannot take a connection: {error}");
                sleep(OUT_OF_HANDLES).await;
            }
        }
    }
    // Connections that the kernel took for us already would be reset with the port.
    while let Some(Ok((stream, client))) = port.listener.accept().now_or_never() {
        connections.spawn(connection(stream, client, Arc::clone(&port)));
    }
    // The last connection takes the port with it.
    drop(port);
    connections.close();
    connections.wait().await;
}

/// Ends when the phase is this one or a later one.
async fn until(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let reached = |now: &Phase| *now == Phase::Closed || *now == wanted;
    // The sender lives as long as the router.
    let _ = phase.wait_for(reached).await;
}

/// Looks at the first bytes of a connection and leaves them there.
async fn speaks_two(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || first[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        sleep(GLANCE).await;
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, port: Arc<Port>) {
    // Answers are written in one piece. Both only make the connection better.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALL));
    let mut phase = port.ending.watch();
    // Nothing was asked yet, so that nothing is lost; but what is on its way already is answered.
    let last = async {
        until(&mut phase, Phase::Closed).await;
        sleep(LAST_GLANCE).await;
    };
    let Some(tls) = &port.tls else {
        let speaks_two = tokio::select! {
            speaks_two = timeout(port.heads.timeout, speaks_two(&stream)) => speaks_two,
            () = last => return,
        };
        if let Ok(Ok(speaks_two)) = speaks_two {
            Box::pin(speak(stream, speaks_two, client, port)).await;
        }
        return;
    };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = last => return,
    };
    match accepted {
        Ok(stream) => {
            let speaks_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Box::pin(speak(stream, speaks_two, client, port)).await;
        }
        // A client that breaks off, or is not let in, is its own affair.
        Err(error) => tracing::debug!("TLS: {error}"),
    }
}

/// Until the client has gone, or the router.
async fn speak<S>(stream: S, speaks_two: bool, client: SocketAddr, port: Arc<Port>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let phase = port.ending.watch();
    let (proxy, ending, heads) = (
        Arc::clone(&port.proxy),
        Arc::clone(&port.ending),
        port.heads,
    );
    // The port is closed while this connection may go on.
    drop(port);
    let alarms = Alarms::default();
    // Over HTTP/1.1 one deadline follows the other.
    let shared = (!speaks_two).then(|| alarms.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, ending) = (Arc::clone(&proxy), Arc::clone(&ending));
        let alarms = shared.clone().unwrap_or_default();
        // In a box: an idle connection has no request, and need not have room for one.
        Box::pin(async move {
            let version = request.version();
            let mut answer = proxy.answer(request, client, alarms).await;
            // HTTP/2 has no such header: its connections are told to end by GOAWAY.
            if version < Version::HTTP_2 && ending.is_draining() && answer.status() != 101 {
                answer
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        })
    });
    let io = TokioIo::new(stream);
    if speaks_two {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(u32::try_from(heads.bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(io, service);
        drive(
            Box::pin(connection),
            |connection| connection.graceful_shutdown(),
            phase,
            Phase::Draining,
        )
        .await;
    } else {
        let connection = http1::Builder::new()
            .timer(alarms.answer)
            .header_read_timeout(heads.timeout)
            .max_headers(heads.count)
            .max_header_size(heads.bytes)
            .max_buf_size(heads.bytes.max(64 << 10) * 2)
            .serve_connection(io, service)
            .with_upgrades();
        // While the router drains, answers close their connections; idle ones may stay until the end.
        drive(
            Box::pin(connection),
            |connection| connection.graceful_shutdown(),
            phase,
            Phase::Closed,
        )
        .await;
    }
}

/// Until the client has gone, or the router; `leave` is the phase in which the connection is asked to end. In a box, so
/// that an idle connection takes no more room than its protocol needs.
async fn drive<C>(
    mut connection: Pin<Box<C>>,
    end: fn(Pin<&mut C>),
    mut phase: watch::Receiver<Phase>,
    leave: Phase,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let born = Instant::now();
    let told = async {
        until(&mut phase, leave).await;
        tokio::select! {
            () = sleep_until(born + LEAST_AGE) => {}
            () = until(&mut phase, Phase::Closed) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            end(connection.as_mut());
            connection.await
        }
    };
    // A client that breaks off is its own affair.
    if let Err(error) = ended {
        tracing::debug!("connection: {error}");
    }
}
