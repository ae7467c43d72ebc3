//! The load against servers that behave, and that do not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::stream;
use http_body_util::StreamBody;
use ortolan_e2e_load::{Answer, Call, Called, Order, Started, Tally, Way, router};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::sleep,
};

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}

fn order(target: SocketAddr, path: &str) -> Order {
    Order {
        bodies: Vec::new(),
        url: format!("http://{target}{path}"),
        way: Way::default(),
        body: None,
        message: None,
        pointer: "/y/0".into(),
        fresh: 1,
        kept: 1,
        pause_ms: 5,
        timeout_ms: 200,
    }
}

/// A load of 300 ms.
async fn tally(order: &Order) -> Tally {
    let base = format!("http://{}", serve(router()).await);
    let http = reqwest::Client::new();
    let started = http.post(format!("{base}/runs")).json(order).send().await;
    let started: Started = started.unwrap().json().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let run = format!("{base}/runs/{}", started.id);
    let so_far: Tally = http.get(&run).send().await.unwrap().json().await.unwrap();
    assert!(so_far.sent > 0);
    let tally = http.delete(&run).send().await.unwrap().json().await;
    let gone = http.get(&run).send().await.unwrap().status();
    assert_eq!(gone.as_u16(), 404);
    tally.unwrap()
}

fn model() -> Router {
    Router::new()
        .route(
            "/good",
            get(|| async { Json(serde_json::json!({"y": [7]})) })
                .post(|body: String| async { body }),
        )
        .route(
            "/other",
            get(|| async { Json(serde_json::json!({"z": 1})) }),
        )
        .route(
            "/busy",
            get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "later") }),
        )
        .route(
            "/slow",
            get(|| async { sleep(Duration::from_secs(5)).await }),
        )
}

#[tokio::test]
async fn good_answers_are_counted_by_their_value() {
    let tally = tally(&order(serve(model()).await, "/good")).await;
    assert_eq!((tally.failed, tally.failures.len()), (0, 0), "{tally:?}");
    assert_eq!(tally.answers["7"].count, tally.sent);
}

#[tokio::test]
async fn every_answer_that_is_not_what_was_asked_for_is_a_failure() {
    let target = serve(model()).await;
    for (path, words) in [
        ("/busy", "503 Service Unavailable: later"),
        ("/other", "nothing at /y/0"),
        ("/slow", "no answer within 200 ms"),
    ] {
        let tally = tally(&order(target, path)).await;
        assert_eq!(tally.failed, tally.sent, "{path}");
        assert!(tally.failures[0].what.contains(words), "{tally:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_request_is_a_failure_and_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut seen = [0; 1024];
                let _ = stream.read(&mut seen).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"y\"")
                    .await;
            });
        }
    });
    let tally = tally(&order(target, "/good")).await;
    assert_eq!(tally.failed, tally.sent);
    assert!(
        tally.failures.iter().any(|miss| miss.kept) && tally.failures.iter().any(|miss| !miss.kept)
    );
    assert!(
        tally.failures[0].what.starts_with("half an answer"),
        "{tally:?}"
    );
}

#[tokio::test]
async fn a_connection_that_the_server_closes_between_requests_is_replaced_without_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut seen = [0; 1024];
                let _ = stream.read(&mut seen).await;
                let answer =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{\"y\":[1]}";
                let _ = stream.write_all(answer).await;
            });
        }
    });
    let tally = tally(&order(target, "/good")).await;
    assert_eq!(tally.failed, 0, "{tally:?}");
}

#[tokio::test]
async fn a_single_request_is_passed_on_with_its_body() {
    let (base, target) = (serve(router()).await, serve(model()).await);
    let request = reqwest::Client::new()
        .post(format!("http://{base}/ask"))
        .header("x-url", format!("http://{target}/good"))
        .header("x-method", "POST")
        .header("x-content-type", "text/plain")
        .body("a photograph");
    let answer: Answer = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "a photograph"));
}

/// What a gRPC server answers: the body as it came, and the status behind it.
fn answered(body: Bytes, status: &'static str, sentence: &'static str) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(sentence));
    let frames = [
        http_body::Frame::data(body),
        http_body::Frame::trailers(trailers),
    ];
    let frames = stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(frames)))
        .unwrap()
}

/// Calls that answer what they got, that refuse, and whose answer is cut off.
fn calls() -> Router {
    Router::new()
        .route(
            "/s.S/Echo",
            post(|body: Bytes| async { answered(body, "0", "") }),
        )
        .route(
            "/s.S/Busy",
            post(|| async { answered(Bytes::new(), "14", "shutting down") }),
        )
        .route(
            "/s.S/Half",
            post(|body: Bytes| async move { answered(body.slice(..6), "0", "") }),
        )
}

#[tokio::test]
async fn calls_are_counted_by_their_message_and_each_that_ends_badly_is_a_failure() {
    let target = serve(calls()).await;
    let message = BASE64_STANDARD.encode("a tensor");
    let call = |path| Order {
        bodies: Vec::new(),
        message: Some(message.clone()),
        ..order(target, path)
    };
    let good = tally(&call("/s.S/Echo")).await;
    assert_eq!((good.failed, good.failures.len()), (0, 0), "{good:?}");
    assert_eq!(good.answers[&message].count, good.sent);
    for (path, words) in [
        ("/s.S/Busy", "shutting down"),
        ("/s.S/Half", "0 answers to one call"),
        ("/s.S/Nothing", "Unimplemented"),
    ] {
        let tally = tally(&call(path)).await;
        assert_eq!(tally.failed, tally.sent, "{path}");
        assert!(tally.failures[0].what.contains(words), "{path} {tally:?}");
    }
}

#[tokio::test]
async fn a_single_call_may_send_and_get_several_messages_or_a_status() {
    let (base, target) = (serve(router()).await, serve(calls()).await);
    let call = async |path: &str, messages: &[&str]| {
        let call = Call {
            url: format!("http://{target}{path}"),
            way: Way::default(),
            messages: messages.iter().map(|m| BASE64_STANDARD.encode(m)).collect(),
        };
        let request = reqwest::Client::new().post(format!("http://{base}/call"));
        let called: Called = request
            .json(&call)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        called
    };
    let called = call("/s.S/Echo", &["one", "", "three"]).await;
    let messages: Vec<_> = called
        .messages
        .iter()
        .map(|m| BASE64_STANDARD.decode(m).unwrap())
        .collect();
    assert_eq!(
        (called.code, messages),
        (0, vec![b"one".to_vec(), vec![], b"three".to_vec()])
    );
    let called = call("/s.S/Busy", &["one"]).await;
    assert_eq!(
        (called.code, called.message.as_str()),
        (14, "shutting down")
    );
}

/// The host that a request names, and its header `x-by`.
fn who(request: &Request) -> String {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let host = request.uri().authority().map(|a| a.as_str());
    let host = host.or_else(|| header("host")).unwrap_or_default();
    format!("{host} {}", header("x-by").unwrap_or_default())
}

/// Stands between, and tells who asked.
fn gateway() -> Router {
    let framed = |text: String| {
        let length = u32::try_from(text.len()).unwrap();
        let mut frame = vec![0];
        frame.extend(length.to_be_bytes());
        frame.extend(text.into_bytes());
        Bytes::from(frame)
    };
    Router::new()
        .route(
            "/who",
            get(|request: Request| async move { Json(serde_json::json!({"y": [who(&request)]})) }),
        )
        .route(
            "/s.S/Who",
            post(async move |request: Request| answered(framed(who(&request)), "0", "")),
        )
}

#[tokio::test]
async fn what_goes_through_a_gateway_names_its_own_host_and_carries_its_headers() {
    let (base, via) = (serve(router()).await, serve(gateway()).await.to_string());
    let way = Way {
        via: Some(via),
        headers: [("x-by".to_owned(), "me".to_owned())].into(),
    };
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let url = |path: &str| format!("http://model.example.test{path}");
    let load = Order {
        url: url("/who"),
        way: way.clone(),
        ..order(nowhere, "")
    };
    let tally = tally(&load).await;
    assert!(tally.failed == 0, "{tally:?}");
    let seen: Vec<_> = tally.answers.keys().collect();
    assert_eq!(seen, ["\"model.example.test me\""]);

    let http = reqwest::Client::new();
    let request = http.post(format!("http://{base}/ask")).headers(
        [
            ("x-url", url("/who")),
            ("x-method", "GET".into()),
            ("x-way", serde_json::to_string(&way).unwrap()),
        ]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect(),
    );
    let answer: Answer = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer.body, r#"{"y":["model.example.test me"]}"#);

    let call = Call {
        url: url("/s.S/Who"),
        way,
        messages: vec![BASE64_STANDARD.encode("x")],
    };
    let request = http.post(format!("http://{base}/call")).json(&call);
    let called: Called = request.send().await.unwrap().json().await.unwrap();
    let told = BASE64_STANDARD.decode(&called.messages[0]).unwrap();
    assert_eq!(told, b"model.example.test me");
}

#[tokio::test]
async fn a_way_that_leads_nowhere_is_refused_with_what_is_wrong() {
    let base = serve(router()).await;
    for (way, words) in [
        (
            r#"{"via": "gateway"}"#,
            "\"gateway\" is no host:port to go through",
        ),
        (r#"{"headers": {"x y": "1"}}"#, "\"x y: 1\" is no header"),
        (r#"{"via": 80}"#, "x-way"),
    ] {
        let request = reqwest::Client::new()
            .post(format!("http://{base}/ask"))
            .header("x-url", "http://model.example.test/")
            .header("x-method", "GET")
            .header("x-way", way);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 422);
        let said = answer.text().await.unwrap();
        assert!(said.contains(words), "{said}");
    }
}
