//! The load against servers that behave, and that do not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use axum::{Json, Router, http::StatusCode, routing::get};
use ortolan_e2e_load::{Answer, Order, Started, Tally, router};
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
        url: format!("http://{target}{path}"),
        body: None,
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
