//! Copies of requests: what the user notices of them (nothing), who gets them, and what comes of them.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router as Paths,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, future::join_all, stream};
use http::Request;
use ortolan_stats::{Frame, Outcome};
use support::{Client, Router, eventually, list, nobody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const INFER: &str = "/v2/models/m/infer";
const OPTIONS: [&str; 2] = ["--stats", "127.0.0.1:0"];

/// A model: the class that it sees in everything, and how it goes about it.
struct Model {
    class: usize,
    code: StatusCode,
    takes: Duration,
    /// Every so many-th answer is another one.
    wavers: usize,
    /// The end of an answer comes when this is set.
    holds: Option<Arc<AtomicBool>>,
    requests: AtomicUsize,
    copies: AtomicUsize,
    now: AtomicUsize,
    peak: AtomicUsize,
    bodies: Mutex<Vec<Bytes>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            class: 0,
            code: StatusCode::OK,
            takes: Duration::ZERO,
            wavers: usize::MAX,
            holds: None,
            requests: AtomicUsize::new(0),
            copies: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            bodies: Mutex::default(),
        }
    }
}

impl Model {
    async fn serve(self) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let model = Arc::new(self);
        let paths = Paths::new().fallback(answer).with_state(Arc::clone(&model));
        tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
        (model, address)
    }

    /// Requests of users, copies.
    fn seen(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (of(&self.requests), of(&self.copies))
    }
}

async fn answer(
    State(model): State<Arc<Model>>,
    _: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_copy = headers.get("x-ortolan-shadow").is_some_and(|v| v == "1");
    let count = if is_copy {
        &model.copies
    } else {
        &model.requests
    };
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    if is_copy {
        model.bodies.lock().unwrap().push(body);
    }
    let now = model.now.fetch_add(1, Ordering::SeqCst) + 1;
    model.peak.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(model.takes).await;
    model.now.fetch_sub(1, Ordering::SeqCst);
    let class = model.class + usize::from(is_copy && number.is_multiple_of(model.wavers));
    let mut scores = ["0.125"; 3];
    scores[class] = "0.75";
    let text = format!(
        r#"{{"model_name":"m","outputs":[{{"name":"y","datatype":"FP32","shape":[1,3],"data":[{}]}}]}}"#,
        scores.join(",")
    );
    let kind = [("content-type", "application/json")];
    let Some(goes_on) = model.holds.clone().filter(|_| !is_copy) else {
        return (model.code, kind, text).into_response();
    };
    let (first, rest) = text.split_at(20);
    let (first, rest) = (first.to_owned(), rest.to_owned());
    let rest = async move {
        eventually("the answer goes on", || async {
            goes_on.load(Ordering::SeqCst)
        })
        .await;
        Ok::<_, std::io::Error>(rest)
    };
    let parts = stream::iter([Ok(first)]).chain(stream::once(rest));
    (model.code, kind, Body::from_stream(parts)).into_response()
}

/// All requests go to `cats-1`, and so many of a hundred are copied to `cats-2`.
fn cats(stable: SocketAddr, candidate: SocketAddr, percent: u8, more: &str) -> String {
    format!(
        "services: {{demo/cats: {{generation: 4, {more} revisions: [{{name: cats-1, weight: 100, endpoints: {}}}],
          mirror: {{revision: cats-2, percent: {percent}, compare: {{kind: Classification}}, endpoints: {}}}}}}}\n",
        list(&[stable]),
        list(&[candidate])
    )
}

/// The first frame that the operator is told.
async fn frame(router: &Router) -> Frame {
    let mut answer = reqwest::get(router.stats()).await.unwrap();
    let mut read = Vec::new();
    while !read.contains(&b'\n') {
        read.extend(answer.chunk().await.unwrap().unwrap());
    }
    let line = read.split(|byte| *byte == b'\n').next().unwrap();
    serde_json::from_slice(line).unwrap()
}

/// What came of both revisions' requests and copies, as the operator is told.
async fn told(router: &Router) -> [Outcome; 2] {
    let frame = frame(router).await;
    let counted = frame.services["demo/cats"].generations.get(&4);
    ["cats-1", "cats-2"].map(|name| {
        counted
            .and_then(|all| all.get(name))
            .cloned()
            .unwrap_or_default()
    })
}

fn pairs(told: &[Outcome; 2]) -> [(u64, u64); 2] {
    [0, 1].map(|side: usize| (told[side].compared, told[side].differed))
}

async fn until_compared(router: &Router, expected: [(u64, u64); 2]) -> [Outcome; 2] {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let told = told(router).await;
        if pairs(&told) == expected {
            return told;
        }
        assert!(
            Instant::now() < deadline,
            "{told:?}, not {expected:?}\n{}",
            router.metrics().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One after the other, so that none is dropped.
async fn ask(router: &Router, times: usize) {
    let mut client = Client::new(router.http, "cats.demo");
    for n in 0..times {
        let request = Request::post(INFER).header("accept-encoding", "gzip");
        let answer = client
            .send(request, format!("{{\"n\":{n}}}"))
            .await
            .unwrap();
        assert_eq!(answer.code, 200);
        assert_eq!(answer.json()["outputs"][0]["data"][0], 0.75);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn of(revision: &str, rest: &str) -> String {
    format!(r#"{{namespace="demo",service="cats",revision="{revision}"{rest}}}"#)
}

#[tokio::test]
async fn a_candidate_that_answers_otherwise_is_told_of_and_no_user_gets_its_answer() {
    let (stable, first) = Model::default().serve().await;
    let wrong = Model {
        class: 2,
        ..Model::default()
    };
    let (candidate, second) = wrong.serve().await;
    let router = Router::start(&cats(first, second, 20, ""), &OPTIONS);
    ask(&router, 100).await;
    let told = until_compared(&router, [(20, 0), (20, 20)]).await;
    assert_eq!((told[0].requests, told[0].bad), (100, 0));
    assert_eq!(
        (told[1].requests, told[1].latency.len()),
        (0, 0),
        "copies are no requests"
    );
    assert!(told[0].classes.is_empty(), "{told:?}");
    let classes = [("0".to_owned(), [20, 0]), ("2".to_owned(), [0, 20])];
    assert_eq!(told[1].classes, classes.into());
    assert_eq!(stable.seen(), (100, 20));
    assert_eq!(candidate.seen(), (0, 20));
    // The same requests, and exactly every fifth.
    let [mut of_stable, mut of_candidate] =
        [&stable, &candidate].map(|model| model.bodies.lock().unwrap().clone());
    of_stable.sort();
    of_candidate.sort();
    assert_eq!(of_stable, of_candidate);
    for (series, count) in [
        (
            "ortolan_router_arrivals_total{namespace=\"demo\",service=\"cats\"}".to_owned(),
            100.0,
        ),
        (
            format!("ortolan_router_assigned_total{}", of("cats-1", "")),
            100.0,
        ),
        (
            format!("ortolan_router_assigned_total{}", of("cats-2", "")),
            0.0,
        ),
        (
            format!("ortolan_router_request_seconds_count{}", of("cats-1", "")),
            100.0,
        ),
        (format!("ortolan_router_in_flight{}", of("cats-2", "")), 0.0),
        (
            format!(
                "ortolan_router_copies_total{}",
                of("cats-1", ",outcome=\"agreed\"")
            ),
            20.0,
        ),
        (
            format!(
                "ortolan_router_copies_total{}",
                of("cats-2", ",outcome=\"differed\"")
            ),
            20.0,
        ),
    ] {
        assert_eq!(router.metric(&series).await, count, "{series}");
    }
    // The rollout goes on: the candidate gets requests, and is still compared, by the same turns.
    let split = format!(
        "services: {{demo/cats: {{generation: 4, revisions: [{{name: cats-1, weight: 50, endpoints: {0}}}, {{name: cats-2, weight: 50, endpoints: {0}}}],
          mirror: {{revision: cats-2, percent: 20, compare: {{kind: Classification}}}}}}}}\n",
        list(&[first])
    );
    router.change(&split).await;
    ask(&router, 20).await;
    let told = until_compared(&router, [(22, 0), (22, 20)]).await;
    assert_eq!((told[0].requests, told[1].requests), (110, 10));
    // And ends, and takes the candidate's series along.
    let alone = format!(
        "services: {{demo/cats: {{generation: 4, revisions: [{{name: cats-1, weight: 100, endpoints: {}}}]}}}}\n",
        list(&[first])
    );
    router.change(&alone).await;
    ask(&router, 20).await;
    assert_eq!(stable.seen().1, 24, "as before");
    assert!(!router.metrics().await.contains("cats-2"));
}

#[tokio::test]
async fn examples_tell_what_differs_and_nothing_of_what_a_user_sent() {
    let (_, first) = Model::default().serve().await;
    let wrong = Model {
        class: 2,
        ..Model::default()
    };
    let (_, second) = wrong.serve().await;
    let router = Router::start(&cats(first, second, 100, ""), &OPTIONS);
    let body = r#"{"id":"my secret","inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["a secret, too"]}]}"#;
    let mut client = Client::new(router.http, "cats.demo");
    for _ in 0..8 {
        let request = Request::post(INFER).header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        assert_eq!(
            client.send(request, body.to_owned()).await.unwrap().code,
            200
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until_compared(&router, [(8, 0), (8, 8)]).await;
    let examples = &frame(&router).await.services["demo/cats"].examples;
    assert_eq!(examples.len(), ortolan_stats::EXAMPLES, "the first ones");
    let text = serde_json::to_string(&examples[0]).unwrap();
    assert!(!text.contains("secret"), "{text}");
    for part in [
        r#""generation":4,"stable":"cats-1","candidate":"cats-2","difference":{"what":"Class","row":0,"classes":["0","2"]}"#,
        r#""inputs":[{"name":"x","datatype":"BYTES","shape":[1,1]}]"#,
        r#""bodySha256":"f87e5469ddc34bc8"#,
        &format!(r#""bodyBytes":{}"#, body.len()),
        r#""traceId":"4bf92f3577b34da6a3ce929d0e0e4736""#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_stable_revision_that_wavers_is_known_for_it() {
    let wavering = Model {
        wavers: 4,
        ..Model::default()
    };
    let (_, first) = wavering.serve().await;
    let failing = Model {
        code: StatusCode::INTERNAL_SERVER_ERROR,
        ..Model::default()
    };
    let (_, second) = failing.serve().await;
    let router = Router::start(&cats(first, second, 50, ""), &OPTIONS);
    ask(&router, 40).await;
    let told = until_compared(&router, [(20, 5), (20, 20)]).await;
    assert_eq!((told[0].bad, told[1].bad), (0, 0), "no user saw any of it");
}

#[tokio::test]
async fn a_slow_candidate_costs_users_nothing_and_what_is_too_much_is_dropped() {
    let (stable, first) = Model::default().serve().await;
    let slow = Model {
        takes: Duration::from_secs(2),
        ..Model::default()
    };
    let (candidate, second) = slow.serve().await;
    let router = Router::start(&cats(first, second, 100, ""), &OPTIONS);
    let began = Instant::now();
    let clients = (0..20).map(|_| ask(&router, 20));
    join_all(clients).await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(1900),
        "{took:?}: somebody waited for a copy"
    );
    assert_eq!(stable.seen().0, 400);
    let dropped = of("cats-2", ",outcome=\"dropped\"");
    let dropped = router
        .metric(&format!("ortolan_router_copies_total{dropped}"))
        .await;
    assert!(
        (360.0..400.0).contains(&dropped),
        "{dropped} dropped of 400"
    );
    eventually("some run", || async { candidate.seen().1 >= 4 }).await;
    assert!(
        candidate.peak.load(Ordering::SeqCst) <= 4,
        "so many at a time"
    );
    let told = told(&router).await;
    assert_eq!((told[0].requests, told[0].bad), (400, 0));
    assert!(told[0].slower(150) == 0, "{:?}", told[0]);
}

#[tokio::test]
async fn copies_take_only_places_that_nobody_needs() {
    let busy = Model {
        takes: Duration::from_millis(50),
        ..Model::default()
    };
    let (stable, first) = busy.serve().await;
    let (candidate, second) = Model::default().serve().await;
    let state =
        cats(first, second, 100, "").replace("weight: 100,", "weight: 100, maxConcurrency: 2,");
    let router = Router::start(&state, &OPTIONS);
    join_all((0..4).map(|_| ask(&router, 10))).await;
    assert!(stable.peak.load(Ordering::SeqCst) <= 2);
    let dropped = ["cats-1", "cats-2"].map(|name| of(name, ",outcome=\"dropped\""));
    let mut sum = 0.0;
    for labels in dropped {
        sum += router
            .metric(&format!("ortolan_router_copies_total{labels}"))
            .await;
    }
    assert!(sum > 0.0, "four clients need both places");
    assert_eq!(told(&router).await[0].requests, 40);
    assert!(candidate.seen().1 <= 40);
}

#[tokio::test]
async fn a_request_whose_client_left_is_not_copied() {
    let goes_on = Arc::new(AtomicBool::new(false));
    let halting = Model {
        holds: Some(Arc::clone(&goes_on)),
        ..Model::default()
    };
    let (stable, first) = halting.serve().await;
    let (candidate, second) = Model::default().serve().await;
    let router = Router::start(&cats(first, second, 100, ""), &OPTIONS);
    let mut client = TcpStream::connect(router.http).await.unwrap();
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: cats.demo\r\ncontent-length: 2\r\n\r\n{{}}");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut some = [0; 1000];
    assert!(client.read(&mut some).await.unwrap() > 0);
    drop(client);
    let in_flight = format!("ortolan_router_in_flight{}", of("cats-1", ""));
    router.wait_for_metric(&in_flight, 0.0).await;
    // One that stays is copied, so the other one would have been by now.
    let stays = router.post("cats.demo", INFER, "{}");
    let lets_go = async {
        eventually("it is with its pod", || async { stable.seen().0 == 2 }).await;
        assert_eq!(candidate.seen(), (0, 0), "the answer has not gone out");
        goes_on.store(true, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(stays, lets_go);
    assert_eq!(answer.code, 200);
    until_compared(&router, [(1, 0), (1, 0)]).await;
    assert_eq!((stable.seen(), candidate.seen()), ((2, 1), (0, 1)));
}

#[tokio::test]
async fn what_cannot_be_compared_is_not_copied() {
    let (stable, first) = Model::default().serve().await;
    let (candidate, second) = Model::default().serve().await;
    let failing = Model {
        code: StatusCode::BAD_REQUEST,
        ..Model::default()
    };
    let (_, bad) = failing.serve().await;
    let options = [OPTIONS[0], OPTIONS[1], "--replay-bytes", "1000"];
    let state = cats(first, second, 100, "");
    let router = Router::start(&state, &options);
    let long = vec![b' '; 5000];
    let versioned = "/v2/models/m/versions/1/infer";
    for (path, body) in [
        (INFER, &long[..]),
        (versioned, b"{}"),
        ("/v2/models/m/generate", b"{}"),
    ] {
        assert_eq!(
            router.post("cats.demo", path, body.to_vec()).await.code,
            200,
            "{path}"
        );
    }
    assert_eq!(router.get("cats.demo", INFER).await.code, 200);
    router.change(&cats(bad, second, 100, "")).await;
    assert_eq!(router.post("cats.demo", INFER, "{}").await.code, 400);
    router
        .change(&cats(first, second, 100, "routing: {stateful: true},"))
        .await;
    assert_eq!(router.post("cats.demo", INFER, "{}").await.code, 200);
    router.change(&state).await;
    assert_eq!(router.post("cats.demo", INFER, "{}").await.code, 200);
    until_compared(&router, [(1, 0), (1, 0)]).await;
    assert_eq!(
        (stable.seen().1, candidate.seen()),
        (1, (0, 1)),
        "only the last"
    );
}

#[tokio::test]
async fn a_candidate_that_cannot_be_reached_is_no_evidence() {
    let (_, first) = Model::default().serve().await;
    let router = Router::start(&cats(first, nobody(), 100, ""), &OPTIONS);
    ask(&router, 5).await;
    until_compared(&router, [(5, 0), (0, 0)]).await;
    let failed = of("cats-2", ",outcome=\"failed\"");
    router
        .wait_for_metric(&format!("ortolan_router_copies_total{failed}"), 5.0)
        .await;
}

#[tokio::test]
async fn a_mirror_that_cannot_be_is_refused_with_a_sentence() {
    let (_, first) = Model::default().serve().await;
    let state = cats(first, first, 20, "");
    let router = Router::start(&state, &OPTIONS);
    router
        .spoil(&state.replace("percent: 20", "percent: 0"))
        .await;
    let said = router.log();
    assert!(
        said.contains("a mirror's percent is a whole number from 1 to 100, not 0"),
        "{said}"
    );
}
