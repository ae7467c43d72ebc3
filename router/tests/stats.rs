//! What the router tells the operator: whom a request is counted for, and who may read it.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Json, http::StatusCode, routing::get};
use futures::future::join_all;
use http::Request;
use ortolan_stats::{Frame, Outcome, Service};
use serde_json::json;
use support::{Client, Pod, Router, eventually, nobody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const OPTIONS: [&str; 4] = ["--stats", "127.0.0.1:0", "--router-name", "router-a"];
const CATS: &str = "demo/cats";

fn cats(generation: u64, revisions: &[(&str, u8, &[SocketAddr])], routing: &str) -> String {
    let with = format!("{{demo/cats: {{generation: {generation}, ");
    support::cats(revisions, routing).replace("{demo/cats: {", &with)
}

/// A reader of the stream.
struct Told {
    answer: reqwest::Response,
    read: Vec<u8>,
    services: BTreeMap<String, Service>,
}

impl Told {
    async fn by(router: &Router) -> Self {
        let answer = reqwest::get(router.stats()).await.unwrap();
        assert_eq!(answer.status(), 200);
        Self {
            answer,
            read: Vec::new(),
            services: BTreeMap::new(),
        }
    }

    async fn frame(&mut self) -> Frame {
        let end = loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let chunk = self.answer.chunk().await.unwrap().expect("no end");
            self.read.extend(chunk);
        };
        let line: Vec<u8> = self.read.drain(..=end).collect();
        let frame: Frame = serde_json::from_slice(&line).unwrap();
        self.services.extend(frame.services.clone());
        frame
    }

    /// Reads until the service is as it should be.
    async fn until(&mut self, what: &str, is: impl Fn(&Service) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.frame().await;
            if self.services.get(CATS).is_some_and(&is) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", self.services);
        }
    }

    fn of(&self, generation: u64, revision: &str) -> (u64, u64) {
        of(&self.services[CATS], generation, revision)
    }
}

/// Requests, and how many of them were bad.
fn of(service: &Service, generation: u64, revision: &str) -> (u64, u64) {
    let outcome = service.generations.get(&generation);
    outcome
        .and_then(|revisions| revisions.get(revision))
        .map_or(
            (0, 0),
            |Outcome {
                 requests,
                 bad,
                 latency,
                 ..
             }| {
                assert!(latency.values().sum::<u64>() <= *requests);
                (*requests, *bad)
            },
        )
}

fn all(service: &Service) -> u64 {
    let outcomes = service.generations.values().flat_map(BTreeMap::values);
    outcomes.map(|outcome| outcome.requests).sum()
}

#[tokio::test]
async fn the_first_answers_of_a_pod_that_came_while_the_router_runs_have_no_time() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let state =
        |of_b: &[SocketAddr]| cats(3, &[("cats-1", 50, &[a.address]), ("cats-2", 50, of_b)], "");
    let router = Router::start(&state(&[]), &OPTIONS);
    let mut told = Told::by(&router).await;
    let mut client = Client::new(router.http, "cats.demo");
    for change in [Some(state(&[b.address])), None] {
        if let Some(change) = change {
            router.change(&change).await;
        }
        for _ in 0..60 {
            let answer = client.send(Request::post("/v2"), "x").await.unwrap();
            assert_eq!(answer.code, 200);
        }
    }
    told.until("all have ended", |service| all(service) == 120)
        .await;
    let timed = |revision: &str| {
        let outcome = &told.services[CATS].generations[&3][revision];
        (outcome.requests, outcome.latency.values().sum::<u64>())
    };
    assert_eq!(timed("cats-1"), (60, 60), "it was there before the router");
    assert_eq!(timed("cats-2"), (60, 40));
}

#[tokio::test]
async fn requests_are_counted_by_the_weights_and_one_that_another_pod_mended_is_not_bad() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let good = [a.address];
    let half = [b.address, nobody()];
    let state = cats(3, &[("cats-1", 75, &good), ("cats-2", 25, &half)], "");
    let router = Router::start(&state, &OPTIONS);
    let mut told = Told::by(&router).await;
    let first = told.frame().await;
    assert_eq!(first.router, "router-a");
    assert_eq!(first.services[CATS].generation, Some(3));
    let mut client = Client::new(router.http, "cats.demo");
    for n in 0..80 {
        let code = if n < 76 { 200 } else { 500 };
        let path = format!("/v2/models/m/infer?code={code}");
        assert_eq!(
            client.send(Request::post(path), "x").await.unwrap().code,
            code
        );
    }
    // Neither is a request of work.
    for path in ["/v2/health/ready", "/metrics"] {
        assert_eq!(client.get(path).await.unwrap().code, 200, "{path}");
    }
    told.until("all ended", |cats| all(cats) >= 80).await;
    told.frame().await;
    assert_eq!(
        (told.of(3, "cats-1"), told.of(3, "cats-2")),
        ((60, 3), (20, 1))
    );
    let retries =
        r#"ortolan_router_retries_total{namespace="demo",service="cats",reason="connect"}"#;
    assert!(router.metric(retries).await >= 1.0, "some were mended");
}

#[tokio::test]
async fn what_the_router_answers_for_its_pods_is_bad() {
    let a = Pod::start("a").await;
    let dead = [nobody()];
    let routing = "timeout: 100ms, retries: 0, holdTimeout: 200ms";
    let state = cats(1, &[("cats-1", 100, &[a.address])], routing);
    let router = Router::start(&state, &OPTIONS);
    let mut told = Told::by(&router).await;
    assert_eq!(router.get("cats.demo", "/v2?sleep=3000").await.code, 504);
    router
        .change(&cats(1, &[("cats-2", 100, &dead)], routing))
        .await;
    assert_eq!(router.get("cats.demo", "/v2").await.code, 503);
    // A place that never came free.
    let full = cats(
        1,
        &[("cats-1", 100, &[a.address])],
        "timeout: 5s, holdTimeout: 200ms",
    );
    router
        .change(&full.replace("weight: 100,", "weight: 100, maxConcurrency: 1,"))
        .await;
    let codes = join_all([600, 600].map(|ms| {
        let path = format!("/v2?sleep={ms}");
        let router = &router;
        async move { router.get("cats.demo", &path).await.code }
    }));
    let mut codes = codes.await;
    codes.sort_unstable();
    assert_eq!(codes, [200, 503]);
    told.until("all ended", |cats| all(cats) >= 4).await;
    assert_eq!(
        (told.of(1, "cats-1"), told.of(1, "cats-2")),
        ((3, 2), (1, 1))
    );
}

#[tokio::test]
async fn a_request_is_counted_under_the_generation_that_it_arrived_under() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let one = cats(1, &[("cats-1", 100, &[a.address])], "");
    let router = Router::start(&one, &OPTIONS);
    let mut told = Told::by(&router).await;
    let slow = router.get("cats.demo", "/v2?sleep=1500");
    let change = async {
        eventually("it is with its pod", || async { a.hits() == 1 }).await;
        let two = [
            ("cats-1", 50, &[a.address][..]),
            ("cats-2", 50, &[b.address]),
        ];
        router.change(&cats(2, &two, "")).await;
        for _ in 0..4 {
            assert_eq!(router.get("cats.demo", "/v2").await.code, 200);
        }
        told.until("the new generation", |cats| {
            cats.generation == Some(2) && of(cats, 2, "cats-1").0 == 2
        })
        .await;
        assert_eq!(told.of(1, "cats-1"), (0, 0), "it has not ended");
    };
    let (answer, ()) = tokio::join!(slow, change);
    assert_eq!(answer.code, 200);
    told.until("the late one", |cats| all(cats) == 5).await;
    assert_eq!(told.of(1, "cats-1"), (1, 0));
    assert_eq!(
        (told.of(2, "cats-1"), told.of(2, "cats-2")),
        ((2, 0), (2, 0))
    );
}

#[tokio::test]
async fn a_request_that_waits_is_told_of_at_once_and_counted_for_the_revision_that_it_gets() {
    let router = Router::start(&cats(1, &[("cats-1", 100, &[])], ""), &OPTIONS);
    let mut told = Told::by(&router).await;
    assert_eq!(told.frame().await.services[CATS].held, 0);
    let life = told.frame().await;
    assert!(life.services.is_empty(), "a sign of life: {life:?}");
    let began = Instant::now();
    let waits = router.get("cats.demo", "/v2");
    let pod = Pod::start("b").await;
    let wake = async {
        assert_eq!(told.frame().await.services[CATS].held, 1);
        let took = began.elapsed();
        assert!(
            took < Duration::from_millis(800),
            "{took:?}: not with the next second"
        );
        router
            .change(&cats(2, &[("cats-2", 100, &[pod.address])], ""))
            .await;
    };
    let (answer, ()) = tokio::join!(waits, wake);
    assert_eq!(answer.code, 200);
    told.until("it ended", |cats| all(cats) == 1).await;
    assert_eq!(told.services[CATS].held, 0);
    assert_eq!(told.of(1, "cats-2"), (1, 0), "under which it arrived");
}

#[tokio::test]
async fn a_hold_without_any_pod_and_a_client_that_left_are_not_counted() {
    let a = Pod::start("a").await;
    let router = Router::start(
        &cats(1, &[("cats-1", 100, &[])], "holdTimeout: 50ms"),
        &OPTIONS,
    );
    let mut told = Told::by(&router).await;
    assert_eq!(router.get("cats.demo", "/v2").await.code, 503);
    router
        .change(&cats(1, &[("cats-1", 100, &[a.address])], ""))
        .await;
    for path in ["/v2?sleep=600", "/v2?bytes=50000000"] {
        let mut client = TcpStream::connect(router.http).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: cats.demo\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let before = a.hits();
        eventually("it is with its pod", || async { a.hits() > before }).await;
        if path.contains("bytes") {
            let mut some = [0; 1000];
            assert!(client.read(&mut some).await.unwrap() > 0);
        }
        drop(client);
    }
    let left = r#"ortolan_router_in_flight{namespace="demo",service="cats",revision="cats-1"}"#;
    router.wait_for_metric(left, 0.0).await;
    assert_eq!(router.get("cats.demo", "/v2").await.code, 200);
    told.until("the last", |cats| all(cats) > 0).await;
    assert_eq!(told.of(1, "cats-1"), (1, 0));
}

#[tokio::test]
async fn only_who_has_the_token_reads_and_the_token_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let path = file.to_str().unwrap();
    let options = ["--stats", "127.0.0.1:0", "--stats-token-file", path];
    let router = Router::start(&cats(1, &[], ""), &options);
    let client = reqwest::Client::new();
    let ask = async |token: Option<&str>| {
        let mut request = client.get(router.stats());
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        if code == 401 {
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            let said = answer.text().await.unwrap();
            assert!(said.contains("Authorization: Bearer TOKEN"), "{said}");
        }
        code
    };
    for wrong in [
        None,
        Some(""),
        Some("first"),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer firs"),
        Some("Bearer first2"),
        Some("Basic first"),
    ] {
        assert_eq!(ask(wrong).await, 401, "{wrong:?}");
    }
    assert_eq!(ask(Some("Bearer first")).await, 200);
    std::fs::write(&file, "second").unwrap();
    assert_eq!(ask(Some("Bearer first")).await, 401);
    assert_eq!(ask(Some("bearer second")).await, 200);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask(Some("Bearer second")).await, 503);
    let (code, said) = support::refused(&["--state", path], &["--stats", "0.0.0.0:0"]);
    assert_eq!(code, 20);
    assert!(said.contains("could be read by everybody"), "{said}");
}

/// An RSA key, whose private half was thrown away when it had signed [`TOKEN`]; that one ends in 2100.
const MODULUS: &str = "r23UJLGTk8O7-V6uE8P55GSwPjcUJLW3Fv-3OMY3u4sww2rXLOgG9NcxzdhC7vy2T3IWftZF1npwJSCye3RsjJ0qwqWV7D5nrgLIl8ZG1QotFd9iJACWmS6XNKlg0XvfSy4XipdY5BZLg6xPrCSNV0KzmwMrH8JrJyyLTR84QpSZvDqs5cFnzRCeDKMNNPHPfQQ8LYpZUCXrKLHhXzqZOVLKSVbPaxMlhDcm6SpQcnNbsGrwHCkahgD-sukG5Uws9N5PhX28A4d0vFMsHfY2qrkWXkRcez4xJtJ8klP6bhYZ7vGpAZT0_GxgKwIkZQ3Kw7-fCh7C3bIvHsDQjpugtQ";
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJhdWQiOlsib3J0b2xhbi1yb3V0ZXItc3RhdHMiXSwiZXhwIjo0MTAyNDQ0ODAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8va3ViZXJuZXRlcy5kZWZhdWx0LnN2Yy5jbHVzdGVyLmxvY2FsIiwibmJmIjoxNzY3MjI1NjAwLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6b3J0b2xhbi1zeXN0ZW06b3J0b2xhbi1vcGVyYXRvciJ9.Bk2Aa_28msGbGUBz29zKgOK0F-RDstvfc3XpB6mw_nmBiXZ3ofb6U_RUlvLEWMHjRBFwwMB2qD9CdSerSf35sr6SeyG1cMopboEzkIokIj9bDlYu1_mUW6-O7za4bJGkKRqPlTNuCZAsviSDEh2REco1JeGG3LedxN_IY3XcVNjaTChWtXSOltS5gcpicl16ZshfYzhN580pCNCC4kWgpEzrLqg4QC-rfGlZsHsFoYQ4k73ik2M05_fOX-SWeLRhYMp5ZTbnQqW7JR49nBDOAgOtpIyjIxmOJi4MpUWi_un_Cul_Yq1yTe5Z0M-SV3Lwv7EVm_7fD7MEbJ4Nh4YTgw";

/// An API server that tells its keys, or refuses to.
async fn api_server(tells_its_keys: bool) -> SocketAddr {
    let issuer = json!({"issuer": "https://kubernetes.default.svc.cluster.local"});
    let key = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": MODULUS, "e": "AQAB"});
    let no = json!({"kind": "Status", "status": "Failure", "code": 403, "message": "no"});
    let keys = match tells_its_keys {
        true => (StatusCode::OK, Json(json!({"keys": [key]}))),
        false => (StatusCode::FORBIDDEN, Json(no)),
    };
    let paths = axum::Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(async || Json(issuer)),
        )
        .route("/openid/v1/jwks", get(async || keys));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, paths).await });
    address
}

#[tokio::test]
async fn in_a_cluster_one_account_reads_and_the_log_says_which_role_is_missing() {
    let options = |reader| ["--stats", "127.0.0.1:0", "--stats-reader", reader];
    let client = reqwest::Client::new();
    let ask = async |router: &Router, given: Option<String>| {
        let mut request = client.get(router.stats());
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        let said = match code {
            200 => String::new(),
            _ => answer.text().await.unwrap(),
        };
        (code, said)
    };
    let bearer = Some(format!("Bearer {TOKEN}"));
    let tells = api_server(true).await;
    let router = Router::watching(tells, &options("ortolan-system/ortolan-operator"));
    assert_eq!(ask(&router, bearer.clone()).await.0, 200);
    let (code, said) = ask(&router, None).await;
    assert_eq!(
        (code, &*said),
        (
            401,
            "send a token of system:serviceaccount:ortolan-system:ortolan-operator for the audience ortolan-router-stats, as Authorization: Bearer TOKEN"
        )
    );
    let (code, said) = ask(&router, Some(format!("Basic {TOKEN}"))).await;
    assert_eq!(code, 401, "{said}");
    let (code, said) = ask(&router, Some(format!("Bearer {TOKEN}x"))).await;
    assert_eq!(code, 401, "{said}");

    let router = Router::watching(tells, &options("ortolan-system/another"));
    let (code, said) = ask(&router, bearer.clone()).await;
    assert_eq!(code, 401);
    assert!(said.contains("it is of system:serviceaccount:ortolan-system:ortolan-operator, and system:serviceaccount:ortolan-system:another reads here"), "{said}");

    let router = Router::watching(
        api_server(false).await,
        &options("ortolan-system/ortolan-operator"),
    );
    assert_eq!(ask(&router, bearer).await.0, 503);
    eventually("the log names the role", || async {
        let log = router.log();
        log.contains("ClusterRoleBinding system:service-account-issuer-discovery")
    })
    .await;
}

/// A pod whose runs take so many microseconds, and that says so to whoever asks.
async fn runs_for(micros: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |headers: axum::http::HeaderMap| async move {
        let asks = headers.contains_key("x-ortolan-timing");
        let said = asks.then(|| [("x-ortolan-run-us", micros.to_string())]);
        (said.map(axum::response::AppendHeaders), "{}")
    };
    let paths = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
    address
}

#[tokio::test]
async fn what_pods_say_of_their_runs_is_counted_by_revision_and_no_client_sees_it() {
    let (fast, slow) = (runs_for(1_000).await, runs_for(1_500).await);
    let state = cats(7, &[("cats-1", 50, &[fast]), ("cats-2", 50, &[slow])], "");
    let router = Router::start(&state, &OPTIONS);
    let mut client = Client::new(router.http, "cats.demo");
    for _ in 0..20 {
        // What a client says of itself changes nothing.
        let request = Request::post("/v2/models/m/infer").header("x-ortolan-run-us", "1");
        let answer = client.send(request, "{}").await.unwrap();
        assert_eq!(answer.code, 200);
        assert!(!answer.headers.contains_key("x-ortolan-run-us"));
    }
    // Nobody is asked how long it took to be alive.
    assert_eq!(router.get("cats.demo", "/v2/health/live").await.code, 200);
    let mut told = Told::by(&router).await;
    let runs = |service: &Service, revision: &str| {
        let generation = service.generations.get(&7);
        let outcome = generation.and_then(|all| all.get(revision));
        outcome
            .map(|outcome| outcome.runs.clone())
            .unwrap_or_default()
    };
    told.until("all are counted", |service| {
        ["cats-1", "cats-2"]
            .iter()
            .all(|name| runs(service, name).values().sum::<u64>() == 10)
    })
    .await;
    let service = &told.services[CATS];
    let bucket = |micros| u16::try_from(ortolan_stats::latency::bucket(micros)).unwrap();
    assert_eq!(
        runs(service, "cats-1"),
        BTreeMap::from([(bucket(1_000), 10)])
    );
    assert_eq!(
        runs(service, "cats-2"),
        BTreeMap::from([(bucket(1_500), 10)])
    );
}
