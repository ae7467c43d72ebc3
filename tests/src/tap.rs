//! Between the operator and the API server: counts writes, and freezes the operator after so many, as
//! a process would be that is killed there; or lets something happen to one of them, or to one of its reads, as on a bad
//! network ([`reads`]).

pub mod reads;

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body as Answer;
use http::{Method, Request, Response};
use kube::client::Body;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

use self::reads::{LATE, Outbreak, ReadFault};

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
    /// It is not made, and answered with 500.
    Failed,
}

/// What happens to a request, or to several.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// To the write after so many others.
    Write(usize, Fault),
    /// To the read after so many others.
    Read(usize, ReadFault),
    /// To every watch that is open when the write after so many others was answered.
    Watches(usize, Outbreak),
    /// Every first listing is from the past.
    Listings,
}

#[derive(Debug)]
struct State {
    allowed: usize,
    freeze: Freeze,
    trouble: Trouble,
    /// The resourceVersion that answers from the past are from.
    past: String,
    begun: AtomicUsize,
    writes: Mutex<Vec<String>>,
    reads: Mutex<Vec<String>>,
    /// The paths that were listed from the past, whose next watch is late.
    stale: Mutex<BTreeSet<String>>,
    /// Where listings are to be from the past, the paths that were watched since: they are not any more.
    caught_up: Mutex<BTreeSet<String>>,
    outbreak: watch::Sender<Option<Outbreak>>,
    frozen: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        Self::new(allowed, freeze, Trouble::None, "")
    }

    /// Lets this happen to the write after so many others.
    #[must_use]
    pub fn faulty(after: usize, fault: Fault) -> Self {
        Self::troubled(Trouble::Write(after, fault), "")
    }

    /// Lets this happen to the read after so many others; `past` is the resourceVersion that a stale answer is from.
    #[must_use]
    pub fn misread(after: usize, fault: ReadFault, past: &str) -> Self {
        Self::troubled(Trouble::Read(after, fault), past)
    }

    /// Lets this happen to all watches when the write after so many others was answered.
    #[must_use]
    pub fn unwatched(after: usize, outbreak: Outbreak, past: &str) -> Self {
        Self::troubled(Trouble::Watches(after, outbreak), past)
    }

    /// The first listing of each kind is from the past, and the watch that follows brings the rest late.
    #[must_use]
    pub fn behind(past: &str) -> Self {
        Self::troubled(Trouble::Listings, past)
    }

    fn troubled(trouble: Trouble, past: &str) -> Self {
        Self::new(usize::MAX, Freeze::Before, trouble, past)
    }

    fn new(allowed: usize, freeze: Freeze, trouble: Trouble, past: &str) -> Self {
        Self(Arc::new(State {
            allowed,
            freeze,
            trouble,
            past: past.to_owned(),
            begun: AtomicUsize::new(0),
            writes: Mutex::default(),
            reads: Mutex::default(),
            stale: Mutex::default(),
            caught_up: Mutex::default(),
            outbreak: watch::Sender::new(None),
            frozen: watch::Sender::new(false),
        }))
    }

    /// The writes that reached the API server so far.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        lock(&self.0.writes).clone()
    }

    /// The reads that the operator began so far.
    #[must_use]
    pub fn reads(&self) -> Vec<String> {
        lock(&self.0.reads).clone()
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
        lock(&self.0.writes).push(line(request));
    }

    /// What is to happen to the next read, which is this one.
    fn read(&self, request: &Request<Body>) -> Option<ReadFault> {
        let state = &self.0;
        let mut reads = lock(&state.reads);
        let number = reads.len();
        reads.push(line(request));
        if let Trouble::Read(at, fault) = state.trouble
            && at == number
        {
            return Some(fault);
        }
        let path = request.uri().path().to_owned();
        let all = match state.trouble {
            Trouble::Listings => true,
            Trouble::Watches(_, Outbreak::Past) => state.outbreak.borrow().is_some(),
            _ => false,
        };
        if reads::is_watch(request) {
            if all {
                lock(&state.caught_up).insert(path.clone());
            }
            return lock(&state.stale).remove(&path).then_some(ReadFault::Late);
        }
        (all && !lock(&state.caught_up).contains(&path)).then_some(ReadFault::Stale)
    }

    /// The write with this number was answered.
    fn answered(&self, number: usize) {
        if let Trouble::Watches(at, outbreak) = self.0.trouble
            && at == number
        {
            self.0.outbreak.send_replace(Some(outbreak));
        }
    }
}

fn line(request: &Request<Body>) -> String {
    format!("{} {}", request.method(), request.uri())
}

fn is_write(request: &Request<Body>) -> bool {
    ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
}

/// Nothing happens to the election, and nothing of it is counted.
fn is_of_the_election(request: &Request<Body>) -> bool {
    request.uri().path().contains("/leases")
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

type Answered = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

impl<S, B> Tapped<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn ask(&mut self, request: Request<Body>) -> Answered {
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(Answer::new)) })
    }

    fn hit(&mut self, request: Request<Body>, fault: Fault) -> Answered {
        if fault == Fault::Dropped {
            return Box::pin(std::future::ready(Err(reads::broken().into())));
        }
        if fault == Fault::Failed
            && let Some(answer) = reads::instead(ReadFault::Failed, false)
        {
            return Box::pin(std::future::ready(answer.map_err(Into::into)));
        }
        let again = (fault == Fault::Twice).then(|| copy(&request));
        let first = self.ask(request);
        // Made after the first was answered: a future does nothing before.
        let second = again.flatten().map(|again| self.ask(again));
        Box::pin(async move {
            if fault == Fault::Late {
                tokio::time::sleep(LATE).await;
            }
            let answer = first.await;
            match second {
                Some(second) => second.await,
                None if fault == Fault::Unanswered => Err(reads::broken().into()),
                None => answer,
            }
        })
    }

    fn read(&mut self, mut request: Request<Body>) -> Answered {
        let fault = self.tap.read(&request);
        let is_watch = reads::is_watch(&request);
        if let Some(answer) = fault.and_then(|fault| reads::instead(fault, is_watch)) {
            return Box::pin(std::future::ready(answer.map_err(Into::into)));
        }
        if is_watch {
            let outbreak = self.tap.0.outbreak.subscribe();
            let answer = self.ask(request);
            return Box::pin(async move {
                let answer = match fault {
                    Some(ReadFault::Late) => reads::later(answer).await?,
                    _ => answer.await?,
                };
                Ok(reads::watched(answer, fault, outbreak))
            });
        }
        let mut is_one = false;
        if fault == Some(ReadFault::Stale)
            && let Some((uri, one)) = reads::to_the_past(request.uri(), &self.tap.0.past)
        {
            lock(&self.tap.0.stale).insert(request.uri().path().to_owned());
            *request.uri_mut() = uri;
            is_one = one;
        }
        let again = (fault == Some(ReadFault::Twice)).then(|| copy(&request));
        let answer = self.ask(request);
        let second = again.flatten().map(|again| self.ask(again));
        Box::pin(async move {
            match fault {
                Some(ReadFault::Late) => reads::later(answer).await,
                Some(ReadFault::Cut) => Ok(reads::half(answer.await?).await?),
                Some(ReadFault::Stale) if is_one => Ok(reads::one_of(answer.await?).await?),
                _ => match second {
                    Some(second) => {
                        drop(answer.await);
                        second.await
                    }
                    None => answer.await,
                },
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

impl<S, B> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.tap.is_frozen() {
            return Box::pin(std::future::pending());
        }
        if is_of_the_election(&request) {
            return self.ask(request);
        }
        if !is_write(&request) {
            return self.read(request);
        }
        let state = Arc::clone(&self.tap.0);
        let number = state.begun.fetch_add(1, Ordering::SeqCst);
        if number < state.allowed {
            self.tap.note(&request);
            let answer = match state.trouble {
                Trouble::Write(at, fault) if at == number => self.hit(request, fault),
                _ => self.ask(request),
            };
            let tap = self.tap.clone();
            return Box::pin(async move {
                let answer = answer.await;
                tap.answered(number);
                answer
            });
        }
        if state.freeze == Freeze::Before {
            state.frozen.send_replace(true);
            return Box::pin(std::future::pending());
        }
        self.tap.note(&request);
        let made = self.ask(request);
        Box::pin(async move {
            let _ = made.await;
            state.frozen.send_replace(true);
            std::future::pending().await
        })
    }
}
