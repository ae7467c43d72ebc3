//! Real routers in this process, each on a runtime of its own, and servers that no router is.

use std::{
    net::TcpListener as Port,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{Router as Paths, body::Body, http::HeaderMap, response::IntoResponse, routing::get};
use clap::Parser as _;
use futures::stream as items;
use serde_json::json;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

use super::*;

/// A router that ends with the test.
struct Router {
    http: SocketAddr,
    runtime: Option<Runtime>,
}

impl Router {
    fn start(ip: &str, stats: u16, folder: &Path) -> Self {
        let free = || Port::bind((ip, 0)).and_then(|port| port.local_addr());
        let (http, admin) = (free().expect("a port"), free().expect("a port"));
        let options = ortolan_router::options::Options::try_parse_from([
            "ortolan-router",
            &format!("--state={}", folder.join("state.yaml").display()),
            &format!("--http={http}"),
            &format!("--admin={admin}"),
            &format!("--stats={ip}:{stats}"),
            &format!("--stats-token-file={}", folder.join("token").display()),
            &format!("--router-name=router-{ip}"),
        ])
        .expect("options");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(async {
            let ended = ortolan_router::run::run(options).await;
            ended.expect("the router begins");
        });
        Self {
            http,
            runtime: Some(runtime),
        }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let port = Port::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    port.expect("a port").port()
}

async fn pod() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let paths = Paths::new().fallback(async || "answered");
    tokio::spawn(async move { axum::serve(listener, paths).await });
    address
}

fn write(folder: &TempDir, generation: u64, pod: SocketAddr) {
    let revision = json!({"name": "cats-1", "weight": 100, "endpoints": [pod.to_string()]});
    let cats = json!({"generation": generation, "revisions": [revision]});
    let table = json!({"services": {"demo/cats": cats}}).to_string();
    let beside = folder.path().join("next");
    std::fs::write(&beside, table).expect("a file");
    std::fs::rename(&beside, folder.path().join("state.yaml")).expect("a file");
}

/// The routers' EndpointSlice, as the watch brings it.
fn slices(addresses: &[&str]) -> impl Stream<Item = Event<EndpointSlice>> + Send + use<> {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|ip| json!({"addresses": [ip]}))
        .collect();
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints});
    let slice = serde_json::from_value(slice).expect("a slice");
    let events = [Event::Init, Event::InitApply(slice), Event::InitDone];
    items::iter(events).chain(items::pending())
}

/// Who listens, and how that is ended.
struct Listening {
    collector: Collector,
    metrics: Metrics,
    leads: Arc<AtomicBool>,
    triggered: mpsc::UnboundedReceiver<Key>,
    task: tokio::task::JoinHandle<()>,
}

fn listen(addresses: &[&str], port: u16, token: Option<PathBuf>) -> Listening {
    let leads = Arc::new(AtomicBool::new(true));
    let (triggers, triggered) = mpsc::unbounded_channel();
    let (collector, metrics) = (Collector::default(), Metrics::default());
    let open = Arc::clone(&leads);
    let listener = Arc::new(Listener {
        service: ("ns".into(), "routers".into()),
        port,
        token,
        gate: Gate::new(move || open.load(Ordering::SeqCst)),
        metrics: metrics.clone(),
        triggers,
        collector: collector.clone(),
    });
    let events = slices(addresses);
    Listening {
        collector,
        metrics,
        leads,
        triggered,
        task: tokio::spawn(async move { listener.lead(events).await }),
    }
}

fn cats() -> Key {
    Key {
        namespace: "demo".into(),
        name: "cats".into(),
    }
}

impl Listening {
    async fn until(&self, what: &str, is: impl Fn(&Routers) -> bool) -> Routers {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = self.collector.stats(&cats());
            if is(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{what}: {stats:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_metric(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.metrics.text().contains(line) {
            assert!(Instant::now() < deadline, "{line}: {}", self.metrics.text());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn requests(stats: &Routers) -> u64 {
        stats.recent.values().map(|outcome| outcome.requests).sum()
    }
}

#[tokio::test]
async fn two_routers_are_read_until_one_dies_and_until_we_lead_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "secret\n").expect("a file");
    let pod = pod().await;
    write(&folder, 3, pod);
    let port = free_port();
    let start = |ip: &str| Router::start(ip, port, folder.path());
    let (first, mut second) = (start("127.0.0.1"), start("127.0.0.2"));
    let token = Some(folder.path().join("token"));
    let mut listening = listen(&["127.0.0.1", "127.0.0.2"], port, token);
    let all = |stats: &Routers| stats.complete && stats.followed == Some(3);
    let stats = listening.until("both follow", all).await;
    let names: Vec<&str> = stats.routers.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["router-127.0.0.1", "router-127.0.0.2"]);

    for n in 0..10 {
        let router = if n < 7 { first.http } else { second.http };
        let url = format!("http://{router}/demo/cats/v2/models/m/infer");
        let answer = reqwest::Client::new().post(url).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let stats = listening
        .until("all are counted", |stats| Listening::requests(stats) == 10)
        .await;
    let requests = |n: usize| stats.routers[n].generations[&3]["cats-1"].requests;
    assert_eq!((requests(0), requests(1)), (7, 3));
    assert_eq!(stats.recent["cats-1"].bad, 0);
    assert!(listening.triggered.try_recv().is_err(), "nothing moved yet");

    write(&folder, 4, pod);
    let moved = tokio::time::timeout(Duration::from_secs(20), listening.triggered.recv());
    assert_eq!(moved.await.expect("in time"), Some(cats()));
    assert_eq!(listening.collector.stats(&cats()).followed, Some(4));

    second.kill();
    let stats = listening
        .until("one is gone", |stats| !stats.complete)
        .await;
    assert_eq!((stats.routers.len(), stats.followed), (1, Some(4)));
    assert_eq!(Listening::requests(&stats), 10, "what it did it did");
    listening.until_metric("ortolan_operator_routers 1\n").await;
    let restarted = start("127.0.0.2");
    listening.until("it is back", |stats| stats.complete).await;

    listening.leads.store(false, Ordering::SeqCst);
    listening.task.await.expect("no panic");
    assert_eq!(listening.collector.stats(&cats()), Routers::default());
    assert!(
        listening
            .metrics
            .text()
            .contains("ortolan_operator_routers 0")
    );
    drop(restarted);
}

/// A server on a port of its own that answers `/stats` with this.
async fn server<F, T, R>(answer: F) -> SocketAddr
where
    F: Fn(HeaderMap) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = R> + Send,
    R: IntoResponse,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let paths = Paths::new().route("/stats", get(answer));
    tokio::spawn(async move { axum::serve(listener, paths).await });
    address
}

/// Why the stream of this server ended, and the frames until then.
async fn broke(address: SocketAddr, token: Option<PathBuf>) -> (String, usize) {
    let mut frames = 0;
    let fault = stream::read(&Source { address, token }, |_, is_first| {
        assert_eq!(is_first, frames == 0);
        frames += 1;
    })
    .await;
    (fault.to_string(), frames)
}

#[tokio::test]
async fn why_a_stream_ended_is_said() {
    let frame = r#"{"router":"a","started":"2026-01-01T00:00:00Z"}"#;
    let whole = format!("{frame}\n{frame}\n");
    for (body, said, frames) in [
        (whole.clone(), "it ended", 2),
        (format!("{frame}\n{frame}"), "it ended", 1),
        (
            format!("{frame}\n{{}}\n"),
            "a line is no frame: missing field `router`",
            1,
        ),
        (String::new(), "it ended", 0),
    ] {
        let address = server(move |_| std::future::ready(body.clone())).await;
        let (why, count) = broke(address, None).await;
        assert!(why.starts_with(said), "{why}");
        assert_eq!(count, frames);
    }
    let silent = server(move |_| {
        let first = items::iter([Ok::<_, std::io::Error>(whole.clone())]);
        std::future::ready(Body::from_stream(first.chain(items::pending())))
    });
    let (why, count) = broke(silent.await, None).await;
    assert_eq!((why.as_str(), count), ("nothing came for 5 s", 2));
    // Nobody listens on it, and nobody else gets it.
    let kept = tokio::net::TcpSocket::new_v4().expect("a socket");
    let bound = kept.bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    bound.expect("a port");
    let nobody = kept.local_addr().expect("an address");
    let (why, _) = broke(nobody, None).await;
    assert!(why.starts_with("cannot connect: "), "{why}");
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let address = server(|headers: HeaderMap| async move {
        match headers.get("authorization").map(|value| value.as_bytes()) {
            Some(b"Bearer right") => (http::StatusCode::OK, ""),
            _ => (http::StatusCode::UNAUTHORIZED, "send the token"),
        }
    })
    .await;
    let ask = || broke(address, Some(file.clone()));
    assert!(ask().await.0.contains("No such file"));
    for (token, said) in [
        (" \n", "it is empty"),
        ("a\nb", "it has bytes that no header has"),
        ("wrong", "it answers 401 Unauthorized: send the token"),
        ("right\n", "it ended"),
    ] {
        std::fs::write(&file, token).expect("a file");
        let why = ask().await.0;
        assert!(why.ends_with(said), "{why}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_and_nothing_counts_twice() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let address = server(move |_| {
        // A request more with each stream; the router began long ago.
        let requests = 100 + count.fetch_add(1, Ordering::SeqCst);
        let outcome = json!({"requests": requests, "bad": 0, "latency": {"7": requests}});
        let cats = json!({"generation": 1, "generations": {"1": {"cats-1": outcome}}});
        let frame = json!({"router": "a", "started": "2020-01-01T00:00:00Z", "services": {"demo/cats": cats}});
        std::future::ready(format!("{frame}\n"))
    })
    .await;
    let listening = listen(&["127.0.0.1"], address.port(), None);
    let stats = listening
        .until("three are added", |stats| Listening::requests(stats) >= 3)
        .await;
    let added = Listening::requests(&stats);
    assert!(
        added < opened.load(Ordering::SeqCst) as u64,
        "the first is of before"
    );
    assert!(stats.complete);
    let text = listening.metrics.text();
    assert!(!text.contains("router_streams_ended_total 0"), "{text}");
}

#[test]
fn pauses_double_up_to_five_seconds() {
    let millis = [0, 1, 2, 5, 40].map(|failures| pause(failures).as_millis());
    assert_eq!(millis, [200, 400, 800, 5000, 5000]);
}

#[test]
fn the_service_is_read_out_of_its_full_name() {
    let found = service("ortolan-router.ortolan-system.svc.cluster.local");
    let expected = ("ortolan-system".to_owned(), "ortolan-router".to_owned());
    assert_eq!(found, Some(expected));
    assert_eq!(service("router"), None);
}
