//! What passes through the router and how: services, heads, bodies, splits, sessions, limits.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures::future::join_all;
use http::Request;
use support::{Client, Pod, Router, cats, one_pod};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn a_service_is_reached_by_host_by_path_and_by_header() {
    let (_pod, router) = one_pod("", &[]).await;
    for (host, path, seen) in [
        ("cats.demo", "/v2/models/m?x=1", "/v2/models/m?x=1"),
        ("CATS.demo.svc.cluster.local.:80", "/v2", "/v2"),
        (
            "127.0.0.1",
            "/demo/cats/v2/models/m?x=1",
            "/v2/models/m?x=1",
        ),
        ("localhost:99", "/demo/cats", "/"),
        ("localhost", "/demo/cats?x=1", "/?x=1"),
    ] {
        let answer = router.get(host, path).await;
        assert_eq!(
            (answer.code, answer.pod()),
            (200, "a".into()),
            "{host}{path}"
        );
        assert_eq!(answer.json()["path"], seen, "{host}{path}");
        assert_eq!(answer.json()["headers"]["host"], host);
    }
    let by_header = Request::get("/v2").header("x-ortolan-service", "demo/cats");
    let answer = Client::new(router.http, "whatever.example.com")
        .send(by_header, "")
        .await
        .unwrap();
    assert_eq!(answer.pod(), "a");
    for (host, path, code, words) in [
        ("cats", "/v2", 404, "write cats.NAMESPACE"),
        (
            "dogs.demo",
            "/v2",
            404,
            "there is no service dogs in the namespace demo",
        ),
        (
            "dogs.example.com",
            "/v2",
            404,
            "no service has the host dogs.example.com",
        ),
        ("localhost", "/v2/models/m/infer", 404, "/NAMESPACE/NAME/v2"),
        ("", "/v2", 400, "no Host"),
    ] {
        let answer = router.get(host, path).await;
        assert_eq!(
            (
                answer.code,
                answer.headers["content-type"].to_str().unwrap()
            ),
            (code, "application/json")
        );
        assert!(answer.error().contains(words), "{host}: {}", answer.error());
    }
    assert_eq!(
        router
            .metric(r#"ortolan_router_refused_total{reason="host"}"#)
            .await,
        3.0
    );
}

#[tokio::test]
async fn a_head_loses_what_ends_here_and_keeps_the_rest() {
    let (_pod, router) = one_pod("", &[]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::post("/v2/models/m/infer")
        .header("traceparent", trace)
        .header("authorization", "Bearer x")
        .header("inference-header-content-length", "4")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("x-ortolan-shadow", "1")
        .header("x-ortolan-user", "root");
    let answer = Client::new(router.http, "cats.demo")
        .send(request, "tiny")
        .await
        .unwrap();
    let seen = &answer.json()["headers"];
    assert_eq!(
        (seen["traceparent"].as_str(), seen["authorization"].as_str()),
        (Some(trace), Some("Bearer x"))
    );
    assert_eq!(answer.json()["body"], "tiny");
    for gone in ["x-mine", "x-ortolan-shadow", "x-ortolan-user", "connection"] {
        assert!(seen[gone].is_null(), "{gone}: {seen}");
    }
    assert!(!answer.headers.contains_key("keep-alive"));
    for path in [
        "/v2/repository/models/m/load",
        "/v2//repository/models/m/%75nload",
    ] {
        let answer = router.post("cats.demo", path, "{}").await;
        assert_eq!(answer.code, 403);
        assert!(
            answer.error().contains("change the InferenceService"),
            "{path}"
        );
    }
    assert_eq!(
        router
            .post("cats.demo", "/v2/repository/index", "{}")
            .await
            .code,
        200
    );
}

#[tokio::test]
async fn connections_are_kept_and_requests_may_follow_each_other_closely() {
    let (pod, router) = one_pod("", &[]).await;
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    let request = |n: usize| format!("GET /v2/{n} HTTP/1.1\r\nhost: cats.demo\r\n\r\n");
    let all: String = (0..20).map(request).collect();
    stream.write_all(all.as_bytes()).await.unwrap();
    stream
        .write_all(b"GET /last HTTP/1.1\r\nhost: cats.demo\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 21);
    let places: Vec<usize> = (0..20)
        .map(|n| answers.find(&format!("\"/v2/{n}\"")).unwrap())
        .collect();
    assert!(places.is_sorted(), "in the order of the requests");
    assert_eq!(pod.hits(), 21);
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_on_the_same_port() {
    let (pod, router) = one_pod("", &[]).await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("http://{}/demo/cats/v2", router.http);
    let answers =
        join_all((0..50).map(|_| client.post(&url).body("x".repeat(70_000)).send())).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        let said: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(
            (said["bytes"].as_u64(), said["path"].as_str()),
            (Some(70_000), Some("/v2"))
        );
    }
    assert_eq!(pod.hits(), 50);
}

#[tokio::test]
async fn bodies_are_streamed_both_ways_without_waiting_for_their_end() {
    let echo = Echo::start().await;
    let state = cats(&[("cats-1", 100, &[echo])], "");
    let router = Router::start(&state, &["--replay-bytes", "1000"]);
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: cats.demo\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    for n in 0..5 {
        let word = format!("part{n}{}", ".".repeat(400));
        stream
            .write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes())
            .await
            .unwrap();
        while !seen.contains(&format!("part{n}")) {
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer))
                .await
                .expect("an echo")
                .unwrap();
            assert!(read > 0, "{seen}");
            seen += &String::from_utf8_lossy(&buffer[..read]);
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let big = router_big(&router).await;
    assert_eq!(big, 30_000_000);
}

/// 30 MB through the router, and back.
async fn router_big(router: &Router) -> usize {
    let body = vec![7_u8; 30_000_000];
    let answer = router.post("cats.demo", "/echo", body).await;
    assert!(answer.body.iter().all(|byte| *byte == 7));
    answer.body.len()
}

/// A server that sends back each part as it comes.
struct Echo;

impl Echo {
    async fn start() -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = |request: axum::extract::Request| async { request.into_body() };
        let paths = axum::Router::new().fallback(echo);
        tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
        address
    }
}

#[tokio::test]
async fn the_split_is_exact_under_load_and_follows_a_change_of_weights() {
    let (stable, candidate) = (Pod::start("stable").await, Pod::start("candidate").await);
    let state = |weight: u8| {
        let revisions: [(&str, u8, &[_]); 2] = [
            ("cats-1", 100 - weight, &[stable.address]),
            ("cats-2", weight, &[candidate.address]),
        ];
        cats(&revisions, "")
    };
    let router = Router::start(&state(10), &[]);
    let http = router.http;
    let load = |requests: usize| {
        let workers = (0..8).map(move |_| async move {
            let mut client = Client::new(http, "cats.demo");
            for _ in 0..requests / 8 {
                assert_eq!(client.get("/v2").await.unwrap().code, 200);
            }
        });
        join_all(workers)
    };
    load(400).await;
    assert_eq!(
        (stable.hits(), candidate.hits()),
        (360, 40),
        "exact, not about"
    );
    // The weights change while requests run: none fails, and the new weights hold from then on.
    let even = state(50);
    tokio::join!(load(400), router.change(&even));
    let (a, b) = (stable.hits(), candidate.hits());
    assert_eq!(a + b, 800);
    load(400).await;
    assert_eq!((stable.hits() - a, candidate.hits() - b), (200, 200));
    // A revision without pods: its requests go to the other one.
    let revisions: [(&str, u8, &[_]); 2] = [("cats-1", 50, &[stable.address]), ("cats-2", 50, &[])];
    router.change(&cats(&revisions, "")).await;
    let before = stable.hits();
    load(80).await;
    assert_eq!(stable.hits() - before, 80);
    assert_eq!(
        router
            .metric(r#"ortolan_router_arrivals_total{namespace="demo",service="cats"}"#)
            .await,
        1280.0
    );
}

#[tokio::test]
async fn sessions_stay_with_their_pod_by_header_and_by_cookie() {
    let pods = [
        Pod::start("a").await,
        Pod::start("b").await,
        Pod::start("c").await,
    ];
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let revisions: [(&str, u8, &[_]); 2] = [
        ("cats-1", 50, &addresses[..2]),
        ("cats-2", 50, &addresses[2..]),
    ];
    let router = Router::start(&cats(&revisions, "session: {header: x-user}"), &[]);
    let mut client = Client::new(router.http, "cats.demo");
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..40 {
        let mut of_user = std::collections::BTreeSet::new();
        for _ in 0..5 {
            let request = Request::get("/v2").header("x-user", format!("user-{user}"));
            of_user.insert(client.send(request, "").await.unwrap().pod());
        }
        assert_eq!(of_user.len(), 1, "user-{user}");
        seen.extend(of_user);
    }
    assert_eq!(seen.len(), 3, "forty users are not all on one pod");

    router
        .change(&cats(&revisions, "session: {cookie: who}"))
        .await;
    let first = client.get("/v2").await.unwrap();
    let cookie = first.headers["set-cookie"].to_str().unwrap();
    assert!(
        cookie.starts_with("who=") && cookie.contains("HttpOnly"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..10 {
        let again = client
            .send(Request::get("/v2").header("cookie", pair), "")
            .await
            .unwrap();
        assert_eq!(again.pod(), first.pod());
        assert!(!again.headers.contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn a_revision_can_be_named_where_that_is_allowed_and_a_version_where_it_is_known() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let state = |header: &str| {
        format!(
            "services: {{demo/cats: {{routing: {{revisionHeader: {header}}}, revisions: [\
             {{name: cats-1, weight: 100, versions: ['1'], endpoints: ['{}']}}, \
             {{name: cats-2, weight: 0, versions: ['2'], endpoints: ['{}']}}]}}}}",
            a.address, b.address
        )
    };
    let router = Router::start(&state("Deny"), &[]);
    let mut client = Client::new(router.http, "cats.demo");
    let named = |revision: &str| Request::get("/v2").header("x-ortolan-revision", revision);
    let denied = client.send(named("cats-2"), "").await.unwrap();
    assert_eq!(denied.code, 403);
    assert!(denied.error().contains("revisionHeader: Allow"));
    router.change(&state("Allow")).await;
    assert_eq!(client.send(named("cats-2"), "").await.unwrap().pod(), "b");
    let unknown = client.send(named("cats-3"), "").await.unwrap();
    assert_eq!(
        (unknown.code, unknown.error().contains("cats-1, cats-2")),
        (404, true)
    );
    assert_eq!(
        client
            .get("/v2/models/m/versions/2/infer")
            .await
            .unwrap()
            .pod(),
        "b"
    );
    assert_eq!(
        client
            .get("/v2/models/m/versions/1/infer")
            .await
            .unwrap()
            .pod(),
        "a"
    );
    let unknown = client.get("/v2/models/m/versions/3").await.unwrap();
    assert_eq!(
        (unknown.code, unknown.error().contains("there is: 1, 2")),
        (404, true)
    );
    for _ in 0..10 {
        assert_eq!(
            client.get("/v2/models/m/infer").await.unwrap().pod(),
            "a",
            "no weight, no request"
        );
    }
}
