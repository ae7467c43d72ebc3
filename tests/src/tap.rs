//! Between the operator and the API server: counts writes, and freezes the operator after so many, as
//! a process would be that is killed there.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Method, Request};
use kube::client::Body;
use tokio::sync::watch;
use tower::{Layer, Service};

/// What becomes of the write at which the operator freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// It never reaches the API server.
    Before,
    /// It is made, and the operator never hears of it.
    After,
}

#[derive(Debug)]
struct State {
    allowed: usize,
    freeze: Freeze,
    begun: AtomicUsize,
    writes: Mutex<Vec<String>>,
    frozen: watch::Sender<bool>,
}

/// Counts writes, and freezes after so many. Lease renewals are not counted.
#[derive(Clone, Debug)]
pub struct Tap(Arc<State>);

impl Default for Tap {
    fn default() -> Self {
        Self::freezing(usize::MAX, Freeze::Before)
    }
}

impl Tap {
    /// Lets `allowed` writes through, answers and all; `freeze` says what becomes of the next one.
    #[must_use]
    pub fn freezing(allowed: usize, freeze: Freeze) -> Self {
        Self(Arc::new(State {
            allowed,
            freeze,
            begun: AtomicUsize::new(0),
            writes: Mutex::default(),
            frozen: watch::Sender::new(false),
        }))
    }

    /// The writes that reached the API server so far.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.0
            .writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the operator is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        *self.0.frozen.borrow()
    }

    /// Waits until the operator is frozen.
    pub async fn frozen(&self) {
        let mut frozen = self.0.frozen.subscribe();
        // The sender lives as long as this tap.
        let _ = frozen.wait_for(|frozen| *frozen).await;
    }

    fn note(&self, request: &Request<Body>) {
        let line = format!("{} {}", request.method(), request.uri());
        self.0
            .writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

fn is_write(request: &Request<Body>) -> bool {
    let read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    !read && !request.uri().path().contains("/leases")
}

impl<S> Layer<S> for Tap {
    type Service = Tapped<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Tapped {
            inner,
            tap: self.clone(),
        }
    }
}

/// A client's service with a [`Tap`] in front.
pub struct Tapped<S> {
    inner: S,
    tap: Tap,
}

impl<S> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = &self.tap.0;
        if self.tap.is_frozen() {
            return Box::pin(std::future::pending());
        }
        if !is_write(&request) {
            return Box::pin(self.inner.call(request));
        }
        if state.begun.fetch_add(1, Ordering::SeqCst) < state.allowed {
            self.tap.note(&request);
            return Box::pin(self.inner.call(request));
        }
        if state.freeze == Freeze::Before {
            state.frozen.send_replace(true);
            return Box::pin(std::future::pending());
        }
        self.tap.note(&request);
        let made = self.inner.call(request);
        let tap = self.tap.clone();
        Box::pin(async move {
            let _ = made.await;
            tap.0.frozen.send_replace(true);
            std::future::pending().await
        })
    }
}
