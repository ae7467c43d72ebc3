//! The connections to one pod: HTTP/1.1 ones that wait for their next request, and a few of HTTP/2 that many calls
//! share.
//!
//! Connections of HTTP/1.1 are used youngest first, so that what is too much grows old and is closed.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};

use crate::body::Outgoing;

/// A sender of HTTP/1.1.
pub type One = http1::SendRequest<Outgoing>;
/// A sender of HTTP/2.
pub type Two = http2::SendRequest<Outgoing>;

/// Pods are on the same network: one that takes longer is not there.
const CONNECT: Duration = Duration::from_secs(2);
/// The server closes a connection that was idle for 120 s; ours must go first.
const IDLE: Duration = Duration::from_secs(60);
/// Calls on one connection of HTTP/2 before another one is opened; the server allows 256.
const CALLS: usize = 100;
/// Connections of HTTP/2 to one pod.
const CONNECTIONS: usize = 8;
/// As the server's own, see there.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 64 << 10;
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// For the head of an answer.
const HEAD: usize = 128 << 10;

/// Why a pod cannot be connected to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// It does not take connections.
    #[error("it takes no connection: {0}")]
    Refused(Arc<std::io::Error>),
    /// It does not answer in time.
    #[error("no connection within {} s", CONNECT.as_secs())]
    Slow,
    /// It does not speak HTTP.
    #[error("it does not speak HTTP: {0}")]
    Handshake(Arc<hyper::Error>),
}

/// The connections to one pod.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<(One, Instant)>>,
    shared: Mutex<Vec<Shared>>,
    /// Held while a connection of HTTP/2 is made: those that come meanwhile share it. When the last try failed.
    opening: tokio::sync::Mutex<Option<(Instant, ConnectError)>>,
}

#[derive(Debug)]
struct Shared {
    sender: Two,
    calls: Arc<AtomicUsize>,
}

/// A call on a shared connection. Counted until it is dropped.
#[derive(Debug)]
pub struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Without connections.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// A connection of HTTP/1.1 that waits, if there is one.
    pub fn take(&self) -> Option<One> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop() {
            if sender.is_closed() {
                continue;
            }
            if since.elapsed() > IDLE {
                // Those below it are older.
                idle.clear();
                return None;
            }
            return Some(sender);
        }
        None
    }

    /// Keeps a connection of HTTP/1.1 whose answer has come to its end.
    pub fn put(&self, sender: One) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((sender, now));
        // The oldest is looked at each time, so that what is not needed goes without a task that looks after it.
        if idle.len() > 1
            && idle
                .first()
                .is_some_and(|(one, since)| one.is_closed() || now - *since > IDLE)
        {
            idle.remove(0);
        }
    }

    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        match timeout(CONNECT, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => {
                // Heads and frames are written in one piece. Without it a request is only slower.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(ConnectError::Refused(Arc::new(error))),
            Err(_) => Err(ConnectError::Slow),
        }
    }

    /// A new connection of HTTP/1.1.
    ///
    /// # Errors
    /// When the pod takes none.
    pub async fn open(&self) -> Result<One, ConnectError> {
        let stream = TokioIo::new(self.connect().await?);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(stream)
            .await
            .map_err(|error| ConnectError::Handshake(Arc::new(error)))?;
        tokio::spawn(async move {
            // Who waits for an answer is told by the sender.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("connection to a pod: {error}");
            }
        });
        Ok(sender)
    }

    /// A connection of HTTP/2 with room for one more call.
    ///
    /// # Errors
    /// When the pod takes none.
    pub async fn share(&self) -> Result<(Two, Call), ConnectError> {
        if let Some(found) = self.shared(CALLS) {
            return Ok(found);
        }
        let came = Instant::now();
        let mut failed = self.opening.lock().await;
        if let Some(found) = self.shared(CALLS) {
            return Ok(found);
        }
        // Who came before the last failure shares it, instead of trying in turn.
        if let Some((at, error)) = &*failed
            && *at >= came
        {
            return Err(error.clone());
        }
        match self.open_shared().await {
            Ok(()) => *failed = None,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        }
        self.shared(usize::MAX).ok_or(ConnectError::Slow)
    }

    /// The least busy connection, if it has fewer than `calls`, or if there may be no more connections.
    fn shared(&self, calls: usize) -> Option<(Two, Call)> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|one| !one.sender.is_closed());
        let is_last = shared.len() >= CONNECTIONS;
        let least = shared
            .iter()
            .min_by_key(|one| one.calls.load(Ordering::Relaxed))?;
        if !is_last && least.calls.load(Ordering::Relaxed) >= calls {
            return None;
        }
        least.calls.fetch_add(1, Ordering::Relaxed);
        Some((least.sender.clone(), Call(Arc::clone(&least.calls))))
    }

    async fn open_shared(&self) -> Result<(), ConnectError> {
        let stream = TokioIo::new(self.connect().await?);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .handshake(stream)
            .await
            .map_err(|error| ConnectError::Handshake(Arc::new(error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection to a pod: {error}");
            }
        });
        let calls = Arc::default();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.push(Shared { sender, calls });
        Ok(())
    }
}
