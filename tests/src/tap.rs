//! Between the operator and the API server: counts writes, and freezes the operator after so many, as
//! a process would be that is killed there; or lets something happen to one of them, as on a bad network.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
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

/// What becomes of one write. The operator lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before it reaches the API server.
    Dropped,
    /// It is made, and then the connection breaks.
    Unanswered,
    /// It is made after [`LATE`].
    Late,
    /// It is made twice, and the answer to the second is heard.
    Twice,
}

/// How late a late write is.
const LATE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct State {
    allowed: usize,
    freeze: Freeze,
    fault: Option<(usize, Fault)>,
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
        Self::new(allowed, freeze, None)
    }

    /// Lets this happen to the write after so many others.
    #[must_use]
    pub fn faulty(after: usize, fault: Fault) -> Self {
        Self::new(usize::MAX, Freeze::Before, Some((after, fault)))
    }

    fn new(allowed: usize, freeze: Freeze, fault: Option<(usize, Fault)>) -> Self {
        Self(Arc::new(State {
            allowed,
            freeze,
            fault,
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

type Answer<S> =
    Result<<S as Service<Request<Body>>>::Response, <S as Service<Request<Body>>>::Error>;

impl<S> Tapped<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: From<io::Error> + Send + 'static,
{
    fn hit(
        &mut self,
        request: Request<Body>,
        fault: Fault,
    ) -> Pin<Box<dyn Future<Output = Answer<S>> + Send>> {
        let broken = || S::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        if fault == Fault::Dropped {
            return Box::pin(std::future::ready(Err(broken())));
        }
        let again = (fault == Fault::Twice).then(|| copy(&request));
        let first = self.inner.call(request);
        // Made after the first was answered: a future does nothing before.
        let second = again.flatten().map(|again| self.inner.call(again));
        Box::pin(async move {
            if fault == Fault::Late {
                tokio::time::sleep(LATE).await;
            }
            let answer = first.await;
            match second {
                Some(second) => second.await,
                None if fault == Fault::Unanswered => Err(broken()),
                None => answer,
            }
        })
    }
}

fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

impl<S> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: From<io::Error> + Send + 'static,
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
        let number = state.begun.fetch_add(1, Ordering::SeqCst);
        if number < state.allowed {
            self.tap.note(&request);
            return match state.fault.filter(|(at, _)| *at == number) {
                None => Box::pin(self.inner.call(request)),
                Some((_, fault)) => self.hit(request, fault),
            };
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
