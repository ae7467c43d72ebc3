//! Pods that fail: what is sent again, what is not, and who is left out.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use support::{Client, Pod, Router, cats, kept_port, list, nobody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// What a pod does that dies.
#[derive(Clone, Copy)]
enum Dies {
    /// It reads the request and is gone.
    BeforeAnAnswer,
    /// It says half of an answer and is gone.
    InItsAnswer,
    /// It reads and says nothing.
    Never,
}

/// A pod that dies at every request. Real sockets, since no server would do this.
async fn dying(dies: Dies) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hits = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut seen = vec![0; 65_536];
                let mut read = 0;
                while !seen[..read].windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut seen[read..]).await {
                        Ok(0) | Err(_) => return,
                        Ok(more) => read += more,
                    }
                }
                hits.fetch_add(1, Ordering::SeqCst);
                match dies {
                    Dies::BeforeAnAnswer => {}
                    Dies::InItsAnswer => {
                        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
                        stream.write_all(half).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Dies::Never => std::future::pending().await,
                }
            });
        }
    });
    (address, hits)
}

async fn ask(router: &Router, requests: usize, body: usize) -> Vec<u16> {
    let workers = (0..4).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        let mut codes = Vec::new();
        for _ in 0..requests / 4 {
            let request = http::Request::post("/v2/models/m/infer");
            codes.push(client.send(request, vec![b'x'; body]).await.unwrap().code);
        }
        codes
    });
    join_all(workers).await.concat()
}

fn retries(reason: &str) -> String {
    format!(r#"ortolan_router_retries_total{{namespace="demo",service="cats",reason="{reason}"}}"#)
}

const EJECTIONS: &str = r#"ortolan_router_ejections_total{namespace="demo",service="cats"}"#;

#[tokio::test]
async fn a_request_whose_pod_takes_no_connection_goes_to_another_one() {
    let good = Pod::start("good").await;
    let state = cats(&[("cats-1", 100, &[good.address, nobody()])], "");
    let router = Router::start(&state, &[]);
    let codes = ask(&router, 200, 10).await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let tried = router.metric(&retries("connect")).await;
    assert!(
        (1.0..=20.0).contains(&tried),
        "{tried}: the pod is left out after five failures"
    );
    assert_eq!(router.metric(EJECTIONS).await, 1.0);
}

/// A pod that closes each connection after its answer, so that it is gone with its task.
async fn closing() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_request_that_one_pod_failed_goes_to_one_that_is_left_out_rather_than_there_again() {
    for balancing in ["LeastRequest", "RoundRobin"] {
        let (killed, serving) = closing().await;
        let port = kept_port();
        let restarted = port.local_addr().unwrap();
        let state = cats(
            &[("cats-1", 100, &[killed, restarted])],
            &format!("balancing: {{kind: {balancing}}}"),
        );
        let router = Router::start(&state, &[]);
        let mut client = Client::new(router.http, "cats.demo");
        while router.metric(EJECTIONS).await == 0.0 {
            assert_eq!(client.get("/v2").await.unwrap().code, 200);
        }
        // It is back, and still left out when the other one is killed.
        let back = Pod::listening("back", port.listen(64).unwrap());
        serving.abort();
        for _ in 0..20 {
            let answer = client.get("/v2").await.unwrap();
            assert_eq!(answer.code, 200, "{balancing}: {}", answer.error());
        }
        assert!(back.hits() >= 20);
    }
}

#[tokio::test]
async fn a_request_that_got_no_byte_of_an_answer_is_sent_again_while_its_body_is_kept() {
    let good = Pod::start("good").await;
    let (dying, hits) = dying(Dies::BeforeAnAnswer).await;
    let state = cats(&[("cats-1", 100, &[good.address, dying])], "");
    let router = Router::start(&state, &["--replay-bytes", "5000"]);
    let codes = ask(&router, 40, 4000).await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    assert!(hits.load(Ordering::SeqCst) >= 5);
    assert!(router.metric(&retries("lost")).await >= 5.0);
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again_and_neither_is_anything_to_a_stateful_model() {
    for (routing, body, options) in [
        ("", 6000, &["--replay-bytes", "5000"][..]),
        ("", 6000, &["--replay-memory", "5000"]),
        ("stateful: true", 10, &[]),
        ("retries: 0", 10, &[]),
    ] {
        let (dying, hits) = dying(Dies::BeforeAnAnswer).await;
        let good = Pod::start("good").await;
        let router = Router::start(&cats(&[("cats-1", 100, &[dying])], routing), options);
        let answer = router.post("cats.demo", "/v2", vec![b'x'; body]).await;
        assert_eq!(answer.code, 502, "{routing} {options:?}");
        assert!(
            answer.error().contains("the request may have run"),
            "{}",
            answer.error()
        );
        assert_eq!(hits.load(Ordering::SeqCst), 1);
        drop(good);
    }
}

#[tokio::test]
async fn after_the_first_byte_of_an_answer_nothing_is_sent_again() {
    let (dying, hits) = dying(Dies::InItsAnswer).await;
    let router = Router::start(&cats(&[("cats-1", 100, &[dying])], ""), &[]);
    let error = Client::new(router.http, "cats.demo")
        .get("/v2")
        .await
        .unwrap_err();
    assert!(
        error.starts_with("body:"),
        "the client sees that half is missing: {error}"
    );
    assert_eq!(hits.load(Ordering::SeqCst), 1);
    let broken = r#"ortolan_router_requests_total{namespace="demo",service="cats",revision="cats-1",protocol="http",code="broken"}"#;
    router.wait_for_metric(broken, 1.0).await;
}

#[tokio::test]
async fn a_pod_that_says_it_did_not_begin_is_asked_once_more_and_others_before_it() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let state = format!(
        "services: {{demo/cats: {{revisions: [{{name: cats-1, weight: 100, endpoints: {}}}]}}}}",
        list(&[a.address, b.address])
    );
    let router = Router::start(&state, &[]);
    // Each pod turns its first request away.
    let mut client = Client::new(router.http, "cats.demo");
    let answer = client
        .get("/v2?code=503&retry-after=0&failing=1")
        .await
        .unwrap();
    assert_eq!(answer.code, 200);
    assert_eq!(
        (a.hits() + b.hits(), a.hits().abs_diff(b.hits())),
        (3, 1),
        "one after the other"
    );
    assert_eq!(router.metric(&retries("busy")).await, 2.0);
    // Whoever says when to come again means the client.
    let answer = client.get("/v2?code=503&retry-after=7").await.unwrap();
    assert_eq!(
        (answer.code, &answer.headers["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    let answer = client.get("/v2?code=503&retry-after=0").await.unwrap();
    assert_eq!(
        (answer.code, &answer.headers["retry-after"]),
        (503, &"0".parse().unwrap()),
        "in the end as it is"
    );
    assert_eq!(router.metric(&retries("busy")).await, 4.0);
}

#[tokio::test]
async fn a_connection_that_still_waits_for_a_body_is_not_given_to_the_next_request() {
    // A pod that turns requests away by their heads, and would read on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let early = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let away = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        stream.write_all(away).await.unwrap();
                        if head.starts_with(b"POST") {
                            while stream.read_u8().await.is_ok() {}
                        }
                        head.clear();
                    }
                }
            });
        }
    });
    let good = Pod::start("good").await;
    let router = Router::start(
        &cats(&[("cats-1", 100, &[early, good.address])], "timeout: 3s"),
        &[],
    );
    for _ in 0..10 {
        let mut slow = tokio::net::TcpStream::connect(router.http).await.unwrap();
        let head = b"POST /v2 HTTP/1.1\r\nhost: cats.demo\r\ncontent-length: 8\r\n\r\nhalf";
        slow.write_all(head).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let begun = Instant::now();
        let answer = router.get("cats.demo", "/v2").await;
        assert_eq!(answer.code, 200);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "it waits for nobody's body"
        );
        slow.write_all(b"rest").await.unwrap();
        let mut answer = [0; 12];
        slow.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn retries_have_a_budget() {
    let address = nobody();
    let router = Router::start(&cats(&[("cats-1", 100, &[address])], "retries: 5"), &[]);
    let workers = (0..50).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        let answer = client.get("/v2").await.unwrap();
        assert_eq!(answer.code, 503);
        assert!(
            answer.error().contains("cannot be reached"),
            "{}",
            answer.error()
        );
    });
    join_all(workers).await;
    let tried = router.metric(&retries("connect")).await;
    assert!(
        (50.0..=125.0).contains(&tried),
        "{tried} retries of 250: 100 in ten seconds, and a fifth of the requests"
    );
}

#[tokio::test]
async fn a_pod_that_never_answers_is_waited_for_as_long_as_the_service_says() {
    let (silent, _) = dying(Dies::Never).await;
    let router = Router::start(&cats(&[("cats-1", 100, &[silent])], "timeout: 300ms"), &[]);
    let begun = Instant::now();
    let answer = router.get("cats.demo", "/v2").await;
    assert_eq!(answer.code, 504);
    assert!(
        answer.error().contains("did not answer within 0.3 s"),
        "{}",
        answer.error()
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_pod_killed_in_mid_request_costs_nobody_an_answer() {
    let (good, victim) = (Pod::start("good").await, Pod::start("victim").await);
    let state = |pods: &[SocketAddr]| cats(&[("cats-1", 100, pods)], "");
    let router = Router::start(&state(&[good.address, victim.address]), &[]);
    let address = good.address;
    let workers = (0..16).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        let mut codes = Vec::new();
        for _ in 0..60 {
            codes.push(
                client
                    .send(http::Request::post("/v2?sleep=10"), "body")
                    .await
                    .map(|answer| answer.code),
            );
        }
        codes
    });
    let kill = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(victim);
        tokio::time::sleep(Duration::from_millis(200)).await;
        router.change(&state(&[address])).await;
    };
    let (codes, ()) = tokio::join!(join_all(workers), kill);
    for code in codes.concat() {
        assert_eq!(code, Ok(200));
    }
}
