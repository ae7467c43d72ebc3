//! Services without pods, and pods that are full: who waits, for how long, and in which order.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Request;
use support::{Client, Pod, Router, cats, eventually};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const HELD: &str = r#"ortolan_router_held{namespace="demo",service="cats"}"#;

fn at_zero(routing: &str) -> String {
    cats(&[("cats-1", 100, &[])], routing)
}

fn with(pods: &[&Pod], max: usize) -> String {
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    format!(
        "services: {{demo/cats: {{revisions: [{{name: cats-1, weight: 100, maxConcurrency: {max}, endpoints: {}}}]}}}}",
        support::list(&addresses)
    )
}

#[tokio::test]
async fn two_hundred_clients_wait_for_a_pod_and_all_are_answered_a_few_at_a_time() {
    let router = Router::start(&at_zero(""), &[]);
    let pod = Pod::start("a").await;
    let clients = (0..200).map(|n| {
        let http = router.http;
        async move {
            let mut client = Client::new(http, "cats.demo");
            client
                .send(Request::post(format!("/v2/{n}?sleep=2")), "body")
                .await
                .unwrap()
                .code
        }
    });
    let wake = async {
        router.wait_for_metric(HELD, 200.0).await;
        router.change(&with(&[&pod], 4)).await;
    };
    let (codes, ()) = tokio::join!(join_all(clients), wake);
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let peak = pod.peak.load(std::sync::atomic::Ordering::SeqCst);
    assert!(peak <= 4, "{peak} at a time, and 4 may be");
    assert_eq!(router.metric(HELD).await, 0.0);
}

#[tokio::test]
async fn a_pod_without_a_bound_of_its_own_is_not_flooded_by_those_that_waited() {
    let router = Router::start(&at_zero(""), &[]);
    let pod = Pod::start("a").await;
    let clients = (0..100).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        client.get("/v2?sleep=20").await.unwrap().code
    });
    let wake = async {
        router.wait_for_metric(HELD, 100.0).await;
        router
            .change(&cats(&[("cats-1", 100, &[pod.address])], ""))
            .await;
    };
    let (codes, ()) = tokio::join!(join_all(clients), wake);
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let peak = pod.peak.load(std::sync::atomic::Ordering::SeqCst);
    assert!(peak <= 16, "{peak} at a time");
}

#[tokio::test]
async fn who_came_first_is_served_first() {
    let pod = Pod::start("a").await;
    let router = Router::start(&at_zero(""), &[]);
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..10 {
        let (told, http) = (told.clone(), router.http);
        tokio::spawn(async move {
            let mut client = Client::new(http, "cats.demo");
            assert_eq!(client.get("/v2?sleep=10").await.unwrap().code, 200);
            told.send(n).unwrap();
        });
        router.wait_for_metric(HELD, f64::from(n + 1)).await;
    }
    router.change(&with(&[&pod], 1)).await;
    for n in 0..10 {
        assert_eq!(order.recv().await, Some(n));
    }
}

#[tokio::test]
async fn pods_get_as_many_requests_as_they_may_have_and_the_rest_waits() {
    let (a, b) = (Pod::start("a").await, Pod::start("b").await);
    let router = Router::start(&with(&[&a, &b], 3), &[]);
    let clients = (0..60).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        client.get("/v2?sleep=20").await.unwrap().code
    });
    let codes = join_all(clients).await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    for pod in [&a, &b] {
        let peak = pod.peak.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(peak, 3, "as many as may be, and no more");
    }
    // Two routers share the places.
    let shared = format!("routers: {{live: 2, index: 1}}\n{}", with(&[&a], 3));
    let c = Pod::start("c").await;
    router
        .change(&shared.replace(&a.address.to_string(), &c.address.to_string()))
        .await;
    let clients = (0..20).map(|_| async {
        let mut client = Client::new(router.http, "cats.demo");
        client.get("/v2?sleep=10").await.unwrap().code
    });
    assert!(join_all(clients).await.iter().all(|code| *code == 200));
    assert_eq!(c.peak.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_line_is_bounded_by_count_by_bytes_and_by_time() {
    let router = Router::start(
        &at_zero("holdTimeout: 700ms"),
        &["--hold-requests", "3", "--hold-bytes", "1000"],
    );
    let begun = Instant::now();
    let waits = (0..2).map(|_| router.post("cats.demo", "/v2", vec![b'x'; 400]));
    let others = async {
        router.wait_for_metric(HELD, 2.0).await;
        let large = router.post("cats.demo", "/v2", vec![b'x'; 400]).await;
        assert_eq!(
            (large.code, &large.headers["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert!(
            large.error().contains("all the memory"),
            "{}",
            large.error()
        );
        let third = async {
            let answer = router.get("cats.demo", "/v2").await;
            assert_eq!(answer.code, 503);
        };
        let fourth = async {
            router.wait_for_metric(HELD, 3.0).await;
            let answer = router.get("cats.demo", "/v2").await;
            assert_eq!(answer.code, 503);
            assert!(
                answer
                    .error()
                    .contains("3 requests wait for a pod of demo/cats, as many as may"),
                "{}",
                answer.error()
            );
        };
        tokio::join!(third, fourth);
    };
    let (answers, ()) = tokio::join!(join_all(waits), others);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    for answer in answers {
        assert_eq!(
            (answer.code, &answer.headers["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert!(
            answer
                .error()
                .contains("no pod of demo/cats could take the request within 0.7"),
            "{}",
            answer.error()
        );
    }
    assert_eq!(router.metric(HELD).await, 0.0);
    assert_eq!(
        router
            .metric(r#"ortolan_router_refused_total{reason="hold_full"}"#)
            .await,
        2.0
    );
    assert_eq!(
        router
            .metric(r#"ortolan_router_refused_total{reason="hold_timeout"}"#)
            .await,
        3.0
    );
}

#[tokio::test]
async fn clients_that_leave_free_their_place_at_once() {
    let router = Router::start(&at_zero(""), &["--hold-requests", "20"]);
    let mut streams = Vec::new();
    for n in 0..20 {
        let mut stream = TcpStream::connect(router.http).await.unwrap();
        let request = match n % 2 {
            0 => "GET /v2 HTTP/1.1\r\nhost: cats.demo\r\n\r\n".to_owned(),
            _ => format!(
                "POST /v2 HTTP/1.1\r\nhost: cats.demo\r\ncontent-length: 5000\r\n\r\n{}",
                "x".repeat(5000)
            ),
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    router.wait_for_metric(HELD, 20.0).await;
    assert_eq!(router.get("cats.demo", "/v2").await.code, 503);
    streams.truncate(5);
    router.wait_for_metric(HELD, 5.0).await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let of_two = tokio::spawn(
        client
            .get(format!("http://{}/demo/cats/v2", router.http))
            .send(),
    );
    router.wait_for_metric(HELD, 6.0).await;
    of_two.abort();
    router.wait_for_metric(HELD, 5.0).await;
}

#[tokio::test]
async fn at_zero_the_service_lives_and_is_ready_and_only_work_waits() {
    let router = Router::start(&at_zero("holdTimeout: 200ms"), &[]);
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/m/ready",
        "/healthz/ready",
    ] {
        let answer = router.get("cats.demo", path).await;
        assert_eq!(answer.code, 200, "{path}");
    }
    let metrics = router.get("cats.demo", "/metrics").await;
    assert_eq!(metrics.code, 503);
    assert!(metrics.error().contains("none is woken"));
    for path in ["/v2/models/m", "/v2/models/m/config", "/v2/models/m/infer"] {
        let answer = router.get("cats.demo", path).await;
        assert!(
            answer.error().contains("within 0.2"),
            "{path}: {}",
            answer.error()
        );
    }
    let arrivals = r#"ortolan_router_arrivals_total{namespace="demo",service="cats"}"#;
    assert_eq!(
        router.metric(arrivals).await,
        3.0,
        "who only looks is no demand"
    );
}

#[tokio::test]
async fn who_waits_for_a_service_that_is_deleted_is_told() {
    let router = Router::start(&at_zero(""), &[]);
    let waits = router.get("cats.demo", "/v2");
    let delete = async {
        router.wait_for_metric(HELD, 1.0).await;
        router.change("services: {}").await;
    };
    let (answer, ()) = tokio::join!(waits, delete);
    assert_eq!(answer.code, 404);
    assert!(
        answer
            .error()
            .contains("was deleted while the request waited"),
        "{}",
        answer.error()
    );
    eventually("its series are gone", || async {
        !router.metrics().await.contains("cats")
    })
    .await;
}

#[tokio::test]
async fn pods_on_their_way_out_serve_while_there_are_no_others() {
    let (old, new) = (Pod::start("old").await, Pod::start("new").await);
    let state = |new_is_ready: bool| {
        format!(
            "services: {{demo/cats: {{revisions: [{{name: cats-1, weight: 100, endpoints: [\
             {{address: '{}', ready: false, serving: true, terminating: true}}, {{address: '{}', ready: {new_is_ready}}}]}}]}}}}",
            old.address, new.address
        )
    };
    let router = Router::start(&state(false), &[]);
    assert_eq!(router.get("cats.demo", "/v2").await.pod(), "old");
    router.change(&state(true)).await;
    for _ in 0..10 {
        assert_eq!(router.get("cats.demo", "/v2").await.pod(), "new");
    }
}
