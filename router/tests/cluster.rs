//! What comes of requests where the services are those of a cluster: a real router that watches an API server, which
//! here is a few lists and a stream of changes.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router as Paths,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use support::{Client, Pod, Router, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

/// The service demo/cats and the pods of its revisions.
struct Cluster {
    address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    service: Mutex<Value>,
    slices: Vec<Value>,
    changes: broadcast::Sender<String>,
}

fn service(routing: Value) -> Value {
    json!({
        "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "cats", "namespace": "demo", "resourceVersion": "1"},
        "spec": {"model": {"uri": "file:///m"}, "routing": routing},
        "status": {
            "traffic": [{"revision": "cats-1", "weight": 100}, {"revision": "cats-2", "weight": 0}],
            "revisions": [
                {"name": "cats-1", "phase": "Serving", "model": {"version": "1", "opset": 17}},
                {"name": "cats-2", "phase": "Starting", "model": {"version": "2024-01", "opset": 17}},
            ],
        },
    })
}

fn slice(revision: &str, pods: &[SocketAddr]) -> Vec<Value> {
    let one = |(n, pod): (usize, &SocketAddr)| {
        json!({
            "metadata": {"name": format!("{revision}-{n}"), "namespace": "demo", "resourceVersion": "1", "labels": {
                "serving.ortolan.dev/service": "cats", "serving.ortolan.dev/revision": revision}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": pod.port()}],
            "endpoints": [{"addresses": [pod.ip().to_string()], "conditions": {"ready": true}}],
        })
    };
    pods.iter().enumerate().map(one).collect()
}

fn list(items: &[Value]) -> Response {
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
    Json(list).into_response()
}

fn is_watch(query: &HashMap<String, String>) -> bool {
    query.get("watch").is_some_and(|watch| watch == "true")
}

async fn services(
    State(seen): State<Arc<Seen>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !is_watch(&query) {
        return list(&[seen.service.lock().unwrap().clone()]);
    }
    let changes = seen.changes.subscribe();
    let lines = futures::stream::unfold(changes, async |mut changes| {
        let line = changes.recv().await.ok()?;
        Some((Ok::<_, std::convert::Infallible>(line), changes))
    });
    Body::from_stream(lines.boxed()).into_response()
}

async fn slices(
    State(seen): State<Arc<Seen>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if is_watch(&query) {
        let silence = futures::stream::pending::<Result<String, std::convert::Infallible>>();
        return Body::from_stream(silence).into_response();
    }
    list(&seen.slices)
}

impl Cluster {
    async fn start(routing: Value, first: &[SocketAddr], second: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            service: Mutex::new(service(routing)),
            slices: [slice("cats-1", first), slice("cats-2", second)].concat(),
            changes: broadcast::Sender::new(16),
        });
        let of_services = "/apis/serving.ortolan.dev/v1alpha1/inferenceservices";
        let of_slices = "/apis/discovery.k8s.io/v1/endpointslices";
        let paths = Paths::new()
            .route(of_services, get(services))
            .route(of_slices, get(slices))
            .with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
        Self { address, seen }
    }

    /// A router that watches it, when it has seen everything and follows.
    async fn router(&self) -> Router {
        let router = Router::watching(self.address, &[]);
        eventually("the router has a table and watches", || async {
            let ready = reqwest::get(format!("http://{}/healthz/ready", router.admin)).await;
            ready.is_ok_and(|answer| answer.status() == 200)
                && self.seen.changes.receiver_count() > 0
        })
        .await;
        router
    }

    fn change(&self, routing: Value) {
        let object = service(routing);
        *self.seen.service.lock().unwrap() = object.clone();
        let line = json!({"type": "MODIFIED", "object": object});
        self.seen.changes.send(format!("{line}\n")).unwrap();
    }
}

/// What the router's table says of the service's routing.
async fn routing(router: &Router) -> Value {
    let table = reqwest::get(format!("http://{}/table", router.admin));
    let text = table.await.unwrap().text().await.unwrap();
    let table: Value = serde_json::from_str(&text).unwrap();
    table["services"]["demo/cats"]["routing"].clone()
}

#[tokio::test]
async fn what_is_for_nobody_or_not_allowed_is_answered_with_a_sentence() {
    let (one, two) = (Pod::start("one").await, Pod::start("two").await);
    let cluster = Cluster::start(json!({}), &[one.address], &[two.address]).await;
    let router = cluster.router().await;
    for (host, path, code, sentence) in [
        (
            "cats.example.org",
            "/v2",
            404,
            "no service has the host cats.example.org: write name.namespace",
        ),
        (
            "fish.demo",
            "/v2",
            404,
            "there is no service fish in the namespace demo",
        ),
        (
            "cats.prod.svc",
            "/v2",
            404,
            "there is no service cats in the namespace prod",
        ),
        ("cats", "/v2", 404, "write cats.NAMESPACE"),
        (
            "127.0.0.1",
            "/v2/models/m/infer",
            404,
            "the path names the service, /NAMESPACE/NAME/v2/…",
        ),
        (
            "127.0.0.1",
            "/demo/%63ats/v2",
            404,
            "the path names the service",
        ),
        (
            "127.0.0.1",
            "/cats/demo/v2",
            404,
            "there is no service demo in the namespace cats",
        ),
        (
            "cats.demo",
            "/v2/repository/models/m/load",
            403,
            "change the InferenceService, or ask each pod itself",
        ),
        (
            "127.0.0.1",
            "/demo/cats/v2//repository/models/m/%75nload",
            403,
            "change the InferenceService",
        ),
        (
            "cats.demo",
            "/v2/models/m/versions/3/infer",
            404,
            "has no version 3; there is: 1, 2024-01",
        ),
    ] {
        let answer = router.post(host, path, "{}").await;
        let said = answer.error();
        assert_eq!(answer.code, code, "{host} {path}: {said}");
        assert!(said.contains(sentence), "{host} {path}: {said}");
    }
    let mut client = Client::new(router.http, "cats.demo");
    for (name, value, code, sentence) in [
        ("x-ortolan-service", "cats", 400, "write namespace/name"),
        (
            "x-ortolan-service",
            "demo/fish",
            404,
            "there is no service fish",
        ),
        (
            "x-ortolan-revision",
            "cats-2",
            403,
            "allow it with revisionHeader: Allow",
        ),
    ] {
        let answer = client
            .send(Request::get("/v2").header(name, value), "")
            .await
            .unwrap();
        assert_eq!(answer.code, code, "{name}: {value}");
        assert!(answer.error().contains(sentence), "{}", answer.error());
    }
    let mut twice = TcpStream::connect(router.http).await.unwrap();
    let head =
        b"GET /v2 HTTP/1.1\r\nhost: cats.demo\r\nhost: fish.demo\r\nconnection: close\r\n\r\n";
    twice.write_all(head).await.unwrap();
    let mut said = String::new();
    twice.read_to_string(&mut said).await.unwrap();
    assert!(
        said.starts_with("HTTP/1.1 400") && said.contains("more than one Host"),
        "{said}"
    );
    assert_eq!(
        (one.hits(), two.hits()),
        (0, 0),
        "no pod heard of any of it"
    );
}

#[tokio::test]
async fn internal_headers_of_a_client_end_at_the_router() {
    let one = Pod::start("one").await;
    let cluster = Cluster::start(json!({"revisionHeader": "Allow"}), &[one.address], &[]).await;
    let router = cluster.router().await;
    let mut client = Client::new(router.http, "cats.demo");
    let forged = Request::get("/v2")
        .header("x-ortolan-shadow", "1")
        .header("X-Ortolan-User", "root")
        .header("x-ortolan-service", "demo/cats")
        .header("x-ortolan-revision", "cats-1")
        .header("x-ortolan-timing", "forged")
        .header("x-mine", "stays");
    let answer = client.send(forged, "").await.unwrap();
    let seen = answer.json()["headers"].clone();
    let names = seen.as_object().unwrap().keys();
    let ours: Vec<&String> = names
        .filter(|name| name.starts_with("x-ortolan-"))
        .collect();
    assert_eq!(ours, ["x-ortolan-timing"], "the router's own: {seen}");
    assert_eq!(seen["x-ortolan-timing"], "1");
    assert_eq!(seen["x-mine"], "stays");
}

#[tokio::test]
async fn a_version_goes_to_the_revision_that_holds_it_also_before_it_has_a_weight() {
    let (one, two) = (Pod::start("one").await, Pod::start("two").await);
    let cluster = Cluster::start(json!({}), &[one.address], &[two.address]).await;
    let router = cluster.router().await;
    for (path, pod) in [
        ("/v2/models/m/infer", "one"),
        ("/v2/models/m/versions/1/infer", "one"),
        ("/v2/models/m/versions/2024-01/infer", "two"),
        ("/v2/models/m/versions/2024%2D01/infer", "two"),
        ("/v2/models/m/versions/2024-01", "two"),
    ] {
        for _ in 0..3 {
            assert_eq!(router.get("cats.demo", path).await.pod(), pod, "{path}");
        }
    }
}

#[tokio::test]
async fn a_change_of_routing_is_followed_without_a_lost_request_and_what_is_wrong_is_told() {
    let pods = [Pod::start("a").await, Pod::start("b").await];
    let addresses = pods.each_ref().map(|pod| pod.address);
    let two = Pod::start("two").await;
    let cluster = Cluster::start(json!({"timeout": "1s"}), &addresses, &[two.address]).await;
    let router = cluster.router().await;
    let slow = router.get("cats.demo", "/v2?sleep=2500").await;
    assert_eq!(slow.code, 504, "{}", slow.error());
    // One that never sends anything twice asks on and on.
    let (http, is_over) = (router.http, Arc::new(Mutex::new(false)));
    let ends = Arc::clone(&is_over);
    let load = tokio::spawn(async move {
        let mut client = Client::new(http, "cats.demo");
        let mut answered = 0;
        while !*ends.lock().unwrap() {
            let answer = client.get("/v2?sleep=1").await.unwrap();
            assert_eq!(answer.code, 200, "{}", answer.text());
            answered += 1;
        }
        answered
    });
    let cookie = json!({"timeout": "1m", "session": {"cookie": "sid"}, "revisionHeader": "Allow"});
    for (written, read) in [
        (
            json!({"retries": 0, "holdTimeout": "1m", "balancing": {"kind": "RoundRobin"}}),
            json!({"retries": 0, "holdTimeout": "1m", "balancing": {"kind": "RoundRobin"}}),
        ),
        (
            json!({"balancing": {"kind": "Consistent", "header": "x-user"}, "stateful": true}),
            json!({"balancing": {"kind": "Consistent", "header": "x-user"}, "stateful": true}),
        ),
        (cookie.clone(), cookie),
        (
            json!({"timeout": "1d", "retries": 4, "balancing": {"kind": "Ring"}, "revisionHeader": "Allow"}),
            json!({"timeout": "30s", "retries": 4, "revisionHeader": "Allow"}),
        ),
    ] {
        cluster.change(written.clone());
        eventually(&format!("{written} is followed"), || async {
            let seen = routing(&router).await;
            let wanted = read.as_object().unwrap();
            let kind = &seen["balancing"];
            wanted.iter().all(|(name, value)| seen[name] == *value)
                && (wanted.contains_key("balancing") || kind.is_null())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    *is_over.lock().unwrap() = true;
    let answered = load.await.unwrap();
    assert!(answered > 50, "{answered}");
    let log = router.log();
    for sentence in [
        "routing.timeout is \"1d\": write a duration from 1s to 1h",
        "routing.balancing is {\"kind\":\"Ring\"}",
        "the router's own setting holds meanwhile",
    ] {
        assert!(log.contains(sentence), "{log}");
    }
    let mut client = Client::new(router.http, "cats.demo");
    let named = |revision: &str| Request::get("/v2").header("x-ortolan-revision", revision);
    let answer = client.send(named("cats-2"), "").await.unwrap();
    assert_eq!(answer.pod(), "two");
    let answer = client.send(named("cats-9"), "").await.unwrap();
    let said = answer.error();
    assert!(
        answer.code == 404 && said.contains("has no revision cats-9; there is: cats-1, cats-2"),
        "{said}"
    );
}
