//! What the routers tell: finds them, reads their streams while this process leads, and answers what is known of a
//! service.
//!
//! ```text
//!  EndpointSlices of the routers' Service ─▶ endpoints ─▶ one stream each ─▶ heard (pure) ─▶ stats(service)
//! ```
//!
//! Invariants: who does not lead reads nothing and knows nothing; a router that is not reached is tried again, with
//! pauses, as long as it may have requests; a stream that works is read to its end even when its router is not ready any
//! more.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{watcher, watcher::Event},
};
use ortolan_core::rollout::routers::Routers;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    endpoints::Endpoints,
    heard::{Came, Heard},
    stream::{Fault, Source},
};
use crate::{gate::Gate, index::Key, metrics::Metrics, watch::watching};

pub mod endpoints;
pub mod heard;
pub mod recent;
pub mod stream;

/// Which Service an EndpointSlice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Between two looks at whether we lead, and whether every router has its stream.
const LOOK: Duration = Duration::from_millis(250);
/// Before a stream is tried again; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is known from the routers; clones share it. The default one knows nothing, as where there are no routers.
#[derive(Clone)]
pub struct Collector(Arc<Mutex<Heard>>);

impl Default for Collector {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Heard::new(Instant::now()))))
    }
}

impl Collector {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a service.
    #[must_use]
    pub fn stats(&self, key: &Key) -> Routers {
        self.heard().stats(key, Instant::now())
    }
}

/// Where the routers are, and who wants to know.
pub struct Listener {
    /// The routers' Service: its namespace and name.
    pub service: (String, String),
    /// The port of their streams.
    pub port: u16,
    /// The file with the token that opens them.
    pub token: Option<PathBuf>,
    /// Whether we lead.
    pub gate: Gate,
    /// Counts streams and frames.
    pub metrics: Metrics,
    /// Hears of services for which all routers follow another generation.
    pub triggers: mpsc::UnboundedSender<Key>,
    /// Where it is kept.
    pub collector: Collector,
}

/// The namespace and the name of a Service, of its full name.
#[must_use]
pub fn service(full: &str) -> Option<(String, String)> {
    let mut labels = full.split('.');
    let name = labels.next()?.to_owned();
    Some((labels.next()?.to_owned(), name))
}

fn watch(
    client: Client,
    (namespace, name): &(String, String),
) -> impl Stream<Item = Event<EndpointSlice>> + Send {
    let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().labels(&format!("{SERVICE_NAME}={name}"));
    watching(api, config).filter_map(|event| async move {
        event
            .inspect_err(|error| {
                tracing::warn!(%error, "the watch of the routers' EndpointSlices broke off and starts again; what was seen last holds");
            })
            .ok()
    })
}

impl Listener {
    /// For ever: listens while we lead.
    pub async fn run(self, client: Client) {
        let this = Arc::new(self);
        loop {
            if this.gate.is_open() {
                let events = watch(client.clone(), &this.service);
                this.lead(events).await;
            }
            sleep(LOOK).await;
        }
    }

    /// Until we lead no more.
    async fn lead(self: &Arc<Self>, events: impl Stream<Item = Event<EndpointSlice>>) {
        *self.collector.heard() = Heard::new(Instant::now());
        let mut streams = Streams::default();
        let mut events = std::pin::pin!(events);
        let mut endpoints = Endpoints::default();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.gate.is_open() {
            tokio::select! {
                Some(event) = events.next() => {
                    endpoints.apply(event);
                    if let Some(routers) = endpoints.routers() {
                        self.collector.heard().expect(routers);
                    }
                }
                _ = look.tick() => self.collector.heard().forget(Instant::now()),
            }
            for router in endpoints.routers().unwrap_or_default() {
                streams.ensure(self, router);
            }
            self.metrics
                .routers(self.collector.heard().count(Instant::now()));
        }
        drop(streams);
        // Another process knows better from now on.
        *self.collector.heard() = Heard::new(Instant::now());
        self.metrics.routers(0);
    }

    /// One router's streams, one after the other, as long as it may have requests.
    async fn follow(self: Arc<Self>, router: IpAddr) {
        let source = Source {
            address: SocketAddr::new(router, self.port),
            token: self.token.clone(),
        };
        let mut failures = 0_u32;
        while self.collector.heard().expects(router) {
            let fault = stream::read(&source, |frame, is_first| {
                failures = 0;
                self.metrics.heard();
                let came = Came {
                    from: router,
                    is_first,
                    at: Instant::now(),
                    now: Timestamp::now(),
                };
                for key in self.collector.heard().take(&came, frame) {
                    // The receiver is gone only when the process ends.
                    let _ = self.triggers.send(key);
                }
            })
            .await;
            self.metrics.stream_ended();
            tell(&fault, router, failures);
            sleep(pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }
}

/// The first failure of a row is told loudly.
fn tell(fault: &Fault, router: IpAddr, failures: u32) {
    let message = "a router's stream of counts broke off, and is opened again";
    if failures == 0 {
        tracing::warn!(%router, error = %fault, message);
    } else {
        tracing::debug!(%router, error = %fault, failures, message);
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_PAUSE)
}

/// The tasks that read; they end when this is dropped.
#[derive(Default)]
struct Streams {
    tasks: JoinSet<()>,
    by_router: HashMap<IpAddr, AbortHandle>,
}

impl Streams {
    fn ensure(&mut self, listener: &Arc<Listener>, router: IpAddr) {
        while self.tasks.try_join_next().is_some() {}
        self.by_router.retain(|_, task| !task.is_finished());
        self.by_router
            .entry(router)
            .or_insert_with(|| self.tasks.spawn(Arc::clone(listener).follow(router)));
    }
}

#[cfg(test)]
mod tests;
