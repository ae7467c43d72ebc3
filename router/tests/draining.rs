//! The router's end: nobody loses a request.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use http::Request;
use support::{Client, Pod, Router, cats};

/// Clients that never retry, on two routers as behind a Service: who is told to go away, or finds the port closed
/// before a request was sent, goes to the other one.
async fn load(of: [std::net::SocketAddr; 2], stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let workers = (0..16).map(|n| {
        let stop = Arc::clone(&stop);
        async move {
            let (mut answered, mut lost) = (0, Vec::new());
            let mut at = n % 2;
            let mut client = Client::new(of[at], "cats.demo");
            while !stop.load(Ordering::SeqCst) {
                match client.send(Request::post("/v2?sleep=3"), "body").await {
                    Ok(answer) if answer.code == 200 => {
                        answered += 1;
                        if answer
                            .headers
                            .get("connection")
                            .is_some_and(|value| value == "close")
                        {
                            at = 1 - at;
                            client = Client::new(of[at], "cats.demo");
                        }
                    }
                    Ok(answer) => lost.push(format!("{} {}", answer.code, answer.text())),
                    Err(error) if error.starts_with("connect:") => {
                        at = 1 - at;
                        client = Client::new(of[at], "cats.demo");
                    }
                    Err(error) => lost.push(error),
                }
            }
            (answered, lost)
        }
    });
    let all = join_all(workers).await;
    let answered = all.iter().map(|(answered, _)| answered).sum();
    (
        answered,
        all.into_iter().flat_map(|(_, lost)| lost).collect(),
    )
}

#[tokio::test]
async fn a_router_that_ends_under_load_loses_no_request() {
    let pod = Pod::start("a").await;
    let state = cats(&[("cats-1", 100, &[pod.address])], "");
    let mut ending = Router::start(&state, &["--drain-delay", "1s"]);
    let other = Router::start(&state, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let requests = load([ending.http, other.http], Arc::clone(&stop));
    let end = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ending.signal("TERM");
        let status = ending.ended(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", ending.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::SeqCst);
    };
    let ((answered, lost), ()) = tokio::join!(requests, end);
    assert!(lost.is_empty(), "{lost:?}");
    assert!(answered > 200, "{answered} is no load");
    assert!(ending.log().contains("drained"), "{}", ending.log());
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_what_waits_is_handed_back() {
    let pod = Pod::start("a").await;
    let state = format!(
        "{}  demo/dogs: {{revisions: [{{name: dogs-1, weight: 100}}]}}\n",
        cats(&[("cats-1", 100, &[pod.address])], "")
            .replace("services: {", "services:\n  ")
            .replace("]}}\n", "]}\n")
    );
    let mut router = Router::start(&state, &[]);
    let slow = router.get("cats.demo", "/v2?sleep=1500");
    let held = router.get("dogs.demo", "/v2");
    let (http, admin) = (router.http, router.admin);
    let pid_signal = async {
        let held = r#"ortolan_router_held{namespace="demo",service="dogs"} 1"#;
        support::eventually("one waits and one is under way", || async {
            let text = reqwest::get(format!("http://{admin}/metrics"))
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            text.contains(held) && pod.hits() == 1
        })
        .await;
        router.signal("TERM");
        support::eventually("the port is closed", || async {
            tokio::net::TcpStream::connect(http).await.is_err()
        })
        .await;
    };
    let (slow, held, ()) = tokio::join!(slow, held, pid_signal);
    assert_eq!(slow.code, 200);
    assert_eq!(
        (held.code, &held.headers["retry-after"]),
        (503, &"0".parse().unwrap())
    );
    assert!(
        held.error().contains("another one answers"),
        "{}",
        held.error()
    );
    assert_eq!(router.ended(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_of_http_2_is_told_to_go_away_and_its_calls_are_answered() {
    let pod = Pod::start("a").await;
    let state = cats(&[("cats-1", 100, &[pod.address])], "");
    let mut router = Router::start(&state, &["--drain-delay", "2s"]);
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("http://{}/demo/cats/v2?sleep=800", router.http);
    let calls = join_all((0..30).map(|_| client.get(&url).send()));
    let end = async {
        support::eventually("calls are under way", || async { pod.hits() == 30 }).await;
        router.signal("TERM");
    };
    let (answers, ()) = tokio::join!(calls, end);
    for answer in answers {
        assert_eq!(answer.unwrap().status(), 200);
    }
    // A new connection is still served during the delay.
    assert_eq!(router.get("cats.demo", "/v2").await.code, 200);
    assert_eq!(router.ended(Duration::from_secs(20)).await.code(), Some(0));
}
