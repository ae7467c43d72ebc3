//! Plays the routers of a namespace: one that follows the traffic of its InferenceServices by a watch, counts requests
//! that nobody sent by the shares, as bad and as slow as the test says, and tells the operator of them as a router does.
//!
//! Real: the EndpointSlice, the connection, the token, the frames. Not real: the requests, and that a share goes to a
//! revision whether it has pods or not. It listens on an address of this machine that is none of loopback, for an
//! EndpointSlice has none of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use ortolan_crds::{InferenceService, InferenceServiceStatus, ShadowStatus};
use ortolan_stats::{
    EXAMPLES, Example, Frame, GENERATIONS, Outcome, PATH, Service,
    example::{Difference, What},
    latency,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::world::World;

/// Between two frames: a second in a real router.
const FRAME: Duration = Duration::from_millis(500);
/// Between two additions to the counts.
const TICK: Duration = Duration::from_millis(100);
/// Requests a second of each service.
const RATE: f64 = 400.0;

/// How a revision answers.
#[derive(Clone, Copy, Debug)]
pub struct Conduct {
    /// This part of the requests is bad, 0 to 1.
    pub bad: f64,
    /// So long an answer takes.
    pub millis: u64,
}

/// What nothing else is said of.
const WELL: Conduct = Conduct {
    bad: 0.0,
    millis: 20,
};

#[derive(Default)]
struct Played {
    told: Service,
    shares: Vec<(String, f64)>,
    shadow: Option<ShadowStatus>,
    /// Requests and bad ones that are owed: parts of whole ones.
    owed: BTreeMap<String, (f64, f64)>,
    seen: Vec<InferenceServiceStatus>,
}

struct Shared {
    started: Timestamp,
    token: String,
    services: Mutex<BTreeMap<String, Played>>,
    conduct: Mutex<BTreeMap<String, Conduct>>,
    /// Revisions whose answers to copies are other ones.
    differ: Mutex<BTreeSet<String>>,
    follows: watch::Sender<bool>,
    speaks: watch::Sender<bool>,
    rate: Mutex<f64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The router that is played; it ends when this is dropped.
pub struct Routers {
    shared: Arc<Shared>,
    namespace: String,
    port: u16,
    token: PathBuf,
    _tasks: JoinSet<()>,
}

impl Drop for Routers {
    fn drop(&mut self) {
        self.shared.speaks.send_replace(false);
        let _ = std::fs::remove_file(&self.token);
    }
}

/// An address of this machine that an EndpointSlice may have: none of loopback. Nothing is sent to find it.
pub async fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
    // Of a network for documentation.
    socket.connect("198.51.100.1:9").await.expect("a route");
    socket.local_addr().expect("an address").ip()
}

/// The EndpointSlice of a router at this address.
#[must_use]
pub fn router_slice(name: &str, service: &str, address: &str) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    }))
    .expect("a slice")
}

impl Routers {
    /// A router that follows, counts and speaks.
    pub async fn start(w: &World) -> Self {
        let address = own_address().await;
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let token = std::env::temp_dir().join(format!("token-{}", w.namespace));
        std::fs::write(&token, &w.namespace).expect("a file");
        let slice = router_slice("routers", "routers", &address.ip().to_string());
        let slices = w.api::<EndpointSlice>();
        let made = slices.create(&PostParams::default(), &slice).await;
        made.expect("a slice");
        let shared = Arc::new(Shared {
            started: Timestamp::now(),
            token: format!("Bearer {}", w.namespace),
            services: Mutex::default(),
            conduct: Mutex::default(),
            differ: Mutex::default(),
            follows: watch::Sender::new(true),
            speaks: watch::Sender::new(true),
            rate: Mutex::new(RATE),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(Arc::clone(&shared), w.api()));
        tasks.spawn(count(Arc::clone(&shared)));
        tasks.spawn(serve(Arc::clone(&shared), listener, address));
        Self {
            shared,
            namespace: w.namespace.clone(),
            port: address.port(),
            token,
            _tasks: tasks,
        }
    }

    /// What tells the operator of them.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        vec![
            format!("--router=routers.{}.svc.cluster.local", self.namespace),
            format!("--router-stats-port={}", self.port),
            format!("--router-stats-token-file={}", self.token.display()),
        ]
    }

    /// How a revision answers from now on.
    pub fn conduct(&self, revision: &str, conduct: Conduct) {
        lock(&self.shared.conduct).insert(revision.to_owned(), conduct);
    }

    /// From now on this revision's answers to copies are other ones than the stable revision's.
    pub fn differ(&self, revision: &str) {
        lock(&self.shared.differ).insert(revision.to_owned());
    }

    /// Requests a second of each service from now on.
    pub fn rate(&self, rate: f64) {
        *lock(&self.shared.rate) = rate;
    }

    /// Goes away, with its port: its connections end.
    pub fn hush(&self) {
        self.shared.speaks.send_replace(false);
    }

    /// Is there again. It counted on meanwhile.
    pub fn speak(&self) {
        self.shared.speaks.send_replace(true);
    }

    /// Whether it follows what the status says, from now on.
    pub fn follow(&self, follows: bool) {
        self.shared.follows.send_replace(follows);
    }

    /// Every status of a service that the watch brought, each once.
    #[must_use]
    pub fn seen(&self, name: &str) -> Vec<InferenceServiceStatus> {
        let services = lock(&self.shared.services);
        let played = services.get(&format!("{}/{name}", self.namespace));
        played.map(|played| played.seen.clone()).unwrap_or_default()
    }
}

/// Follows the services until it is dropped.
async fn follow(shared: Arc<Shared>, api: Api<InferenceService>) {
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut follows = shared.follows.subscribe();
    let mut last: BTreeMap<String, InferenceServiceStatus> = BTreeMap::new();
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(watcher::Event::Apply(service) | watcher::Event::InitApply(service))) => {
                    let name = name(&service);
                    let status = service.status.unwrap_or_default();
                    let mut services = lock(&shared.services);
                    let seen = &mut services.entry(name.clone()).or_default().seen;
                    if seen.last() != Some(&status) {
                        seen.push(status.clone());
                    }
                    last.insert(name, status);
                }
                Some(Ok(watcher::Event::Delete(service))) => {
                    let name = name(&service);
                    if let Some(played) = lock(&shared.services).get_mut(&name) {
                        played.shares.clear();
                        played.told = Service::default();
                    }
                    last.remove(&name);
                }
                Some(_) => {}
            },
            _ = follows.changed() => {}
        }
        if *follows.borrow_and_update() {
            let mut services = lock(&shared.services);
            for (name, status) in &last {
                services.entry(name.clone()).or_default().obey(status);
            }
        }
    }
}

fn name(service: &InferenceService) -> String {
    let namespace = service.namespace().unwrap_or_default();
    format!("{namespace}/{}", service.name_any())
}

impl Played {
    fn obey(&mut self, status: &InferenceServiceStatus) {
        let rollout = status.rollout.as_ref();
        let generation = rollout.and_then(|rollout| u64::try_from(rollout.generation?).ok());
        self.told.generation = generation;
        self.shadow = rollout.and_then(|rollout| rollout.shadow.clone());
        self.shares = status
            .traffic
            .iter()
            .map(|traffic| (traffic.revision.clone(), f64::from(traffic.weight) / 100.0))
            .collect();
    }

    /// Copies of so many requests are compared at once; the stable revision agrees with itself.
    fn compare(&mut self, requests: f64, differ: &BTreeSet<String>) {
        let (Some(shadow), Some((stable, _))) = (&self.shadow, self.shares.first()) else {
            return;
        };
        let generation = self.told.generation.unwrap_or(0);
        let pairs = (requests * f64::from(shadow.percent) / 100.0).ceil() as u64;
        let differs = differ.contains(&shadow.revision);
        let counts = self.told.generations.entry(generation).or_default();
        for revision in [stable, &shadow.revision] {
            let outcome = counts.entry(revision.clone()).or_default();
            outcome.compared += pairs;
            if differs && *revision == shadow.revision {
                outcome.differed += pairs;
            }
        }
        if !differs {
            return;
        }
        let told = &mut self.told.examples;
        let told_of_this = told.iter().filter(|one| one.generation == generation);
        let room = EXAMPLES.saturating_sub(told_of_this.count());
        let example = Example {
            at: Timestamp::now(),
            generation,
            stable: stable.clone(),
            candidate: shadow.revision.clone(),
            difference: Difference {
                row: Some(0),
                classes: Some(["3".into(), "7".into()]),
                ..Difference::of(What::Class)
            },
            inputs: Vec::new(),
            body_sha256: String::new(),
            body_bytes: 12,
            trace_id: None,
        };
        // One of each pair, as a router's are: the verdict may fall with the first tick, and nothing is copied after it.
        told.extend((0..pairs).take(room).map(|number| Example {
            body_sha256: format!("{number:064}"),
            ..example.clone()
        }));
    }

    /// So many requests arrive, and end at once.
    fn count(&mut self, requests: f64, conduct: &BTreeMap<String, Conduct>) {
        let at = self.told.generation.unwrap_or(0);
        let counts = self.told.generations.entry(at).or_default();
        for (revision, share) in &self.shares {
            let conduct = conduct.get(revision).copied().unwrap_or(WELL);
            let owed = self.owed.entry(revision.clone()).or_default();
            owed.0 += requests * share;
            let all = whole(&mut owed.0);
            owed.1 += conduct.bad * all as f64;
            let bad = whole(&mut owed.1);
            let outcome = counts.entry(revision.clone()).or_default();
            let bucket = latency::bucket(1000 * conduct.millis);
            let bucket = u16::try_from(bucket).expect("a bucket");
            let added = Outcome {
                requests: all,
                bad,
                latency: BTreeMap::from([(bucket, all)]),
                ..Outcome::default()
            };
            if all > 0 {
                *outcome += &added;
            }
        }
        while self.told.generations.len() > GENERATIONS {
            self.told.generations.pop_first();
        }
    }
}

/// Takes the whole ones out.
fn whole(owed: &mut f64) -> u64 {
    let whole = owed.floor().max(0.0);
    *owed -= whole;
    whole as u64
}

async fn count(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let requests = *lock(&shared.rate) * TICK.as_secs_f64();
        let conduct = lock(&shared.conduct).clone();
        let differ = lock(&shared.differ).clone();
        for played in lock(&shared.services).values_mut() {
            played.count(requests, &conduct);
            played.compare(requests, &differ);
        }
    }
}

/// Listens while it speaks, at the same port each time.
async fn serve(shared: Arc<Shared>, first: TcpListener, address: SocketAddr) {
    let mut listener = Some(first);
    let mut speaks = shared.speaks.subscribe();
    loop {
        if speaks.wait_for(|speaks| *speaks).await.is_err() {
            return;
        }
        let listener = match listener.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(_) => {
                    tokio::time::sleep(TICK).await;
                    continue;
                }
            },
        };
        let paths = axum::Router::new().route(PATH, get(stats));
        let paths = paths.with_state(Arc::clone(&shared));
        tokio::select! {
            _ = axum::serve(listener, paths) => {}
            _ = speaks.wait_for(|speaks| !speaks) => {}
        }
    }
}

async fn stats(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let given = headers.get(header::AUTHORIZATION);
    if given.is_none_or(|given| given != shared.token.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let speaks = shared.speaks.subscribe();
    let frames = stream::unfold(
        (shared, speaks, true),
        async |(shared, mut speaks, first)| {
            if !first {
                let silent = speaks.wait_for(|speaks| !speaks);
                // What ends here ends the connection.
                if tokio::time::timeout(FRAME, silent).await.is_ok() {
                    return None;
                }
            }
            let line = frame(&shared);
            Some((Ok::<_, Infallible>(line), (shared, speaks, false)))
        },
    );
    Body::from_stream(frames).into_response()
}

fn frame(shared: &Shared) -> String {
    let services = lock(&shared.services);
    let services = services
        .iter()
        .map(|(name, played)| (name.clone(), played.told.clone()));
    let frame = Frame {
        router: "router-a".into(),
        started: shared.started,
        services: services.collect(),
        gone: Vec::new(),
    };
    let mut line = serde_json::to_string(&frame).expect("a frame is JSON");
    line.push('\n');
    line
}
