//! What every reconcile shares.

use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::Client;
use ortolan_core::{
    gateway::types::{GrpcRoute, HttpRoute},
    validate::Defaults,
};
use ortolan_crds::InferenceService;

use crate::{
    asker::Asker,
    events::Teller,
    gate::Gate,
    gateways::Gateways,
    golden::Golden,
    index::{Index, Key, Packed},
    metrics::Metrics,
    outage::Outage,
    routers::Collector,
};

/// How long one reconcile may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that the watches keep.
#[derive(Debug, Default)]
pub struct Indices {
    /// ControllerRevisions.
    pub revisions: Index<ControllerRevision>,
    /// Deployments.
    pub deployments: Index<Deployment>,
    /// Services.
    pub services: Index<Service>,
    /// PodDisruptionBudgets.
    pub budgets: Index<PodDisruptionBudget>,
    /// ConfigMaps.
    pub config_maps: Index<ConfigMap>,
    /// Pods.
    pub pods: Index<Pod>,
    /// HTTPRoutes, where the API server knows them: nothing else waits for these two.
    pub http_routes: Index<HttpRoute>,
    /// GRPCRoutes.
    pub grpc_routes: Index<GrpcRoute>,
}

impl Indices {
    /// Whether every first listing is complete: nothing may be decided before.
    #[must_use]
    pub fn are_ready(&self) -> bool {
        self.revisions.is_ready()
            && self.deployments.is_ready()
            && self.services.is_ready()
            && self.budgets.is_ready()
            && self.config_maps.is_ready()
            && self.pods.is_ready()
    }
}

/// What every reconcile shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the platform chose.
    pub defaults: Defaults,
    /// What the watches keep.
    pub indices: Arc<Indices>,
    /// Whether we may write.
    pub gate: Gate,
    /// Events.
    pub teller: Teller,
    /// Metrics.
    pub metrics: Metrics,
    /// When the API server last did not answer.
    pub outage: Outage,
    /// What pods say of themselves.
    pub asker: Asker,
    /// What is remembered between two reconciles.
    pub memory: Memory,
    /// What the routers tell.
    pub routers: Collector,
    /// Runs golden sets.
    pub golden: Golden,
    /// Whether there is the Gateway API.
    pub gateways: Gateways,
}

/// What is remembered of one InferenceService between two reconciles; losing it loses nothing.
#[derive(Default)]
struct Remembered {
    /// As our last write of its status answered it.
    written: Option<Packed<InferenceService>>,
    /// When that was.
    told: Option<Instant>,
    /// When its examples were last written, or tried to.
    examples: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// What is remembered of each InferenceService; empty at the start.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<Key, Remembered>>);

impl Context {
    fn with<T>(&self, key: &Key, f: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut memory = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(memory.entry(key.clone()).or_default())
    }

    /// The newer of what the watch brought and what our last write answered.
    pub fn newest(&self, key: &Key, watched: InferenceService) -> InferenceService {
        self.with(key, |memory| {
            let order = memory.written.as_ref().and_then(|w| w.against(&watched));
            if !order.is_some_and(Ordering::is_gt) {
                memory.written = None;
            }
            memory
                .written
                .as_ref()
                .and_then(Packed::get)
                .unwrap_or(watched)
        })
    }

    /// Keeps what a write of the status answered.
    pub fn wrote(&self, key: &Key, service: InferenceService) {
        self.with(key, |memory| {
            memory.written = Packed::new(service);
            memory.told = Some(Instant::now());
        });
    }

    /// How long ago the status was last written by this process.
    pub fn told(&self, key: &Key) -> Option<Duration> {
        self.with(key, |memory| memory.told.map(|told| told.elapsed()))
    }

    /// Whether examples may be written now: they were not within the last `pause`. Answers how long that still is.
    ///
    /// # Errors
    /// What is left of the pause.
    pub fn may_write_examples(&self, key: &Key, pause: Duration) -> Result<(), Duration> {
        self.with(key, |memory| {
            let last = memory.examples.map(|last| last.elapsed());
            match last.and_then(|ago| pause.checked_sub(ago)) {
                Some(left) if !left.is_zero() => Err(left),
                _ => {
                    memory.examples = Some(Instant::now());
                    Ok(())
                }
            }
        })
    }

    /// Counts a failure; answers how many there were in a row.
    pub fn failed(&self, key: &Key) -> u32 {
        self.with(key, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        })
    }

    /// Forgets the failures.
    pub fn succeeded(&self, key: &Key) {
        self.with(key, |memory| memory.failures = 0);
    }

    /// Forgets a deleted InferenceService.
    pub fn forget(&self, key: &Key) {
        self.asker.forget(key);
        self.golden.forget(key);
        self.gateways.forget(key);
        self.metrics.rollout(key, None, None);
        self.memory
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}
