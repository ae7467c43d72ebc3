//! What one client may send: by its address, or by what a trusted proxy says of it.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use http::Request;
use support::{Answer, Client, one_pod, refused};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const REFUSED: &str = r#"ortolan_router_refused_total{reason="client_rate"}"#;

async fn for_client(client: &mut Client, forwarded: &str) -> Answer {
    let request = Request::get("/v2").header("x-forwarded-for", forwarded);
    client.send(request, "").await.unwrap()
}

#[tokio::test]
async fn a_client_that_sends_too_much_is_told_when_to_come_again_and_comes() {
    let options = ["--client-rate", "2", "--client-burst", "4"];
    let (pod, router) = one_pod("", &options).await;
    let begun = Instant::now();
    let mut client = Client::new(router.http, "cats.demo");
    let mut codes = Vec::new();
    for _ in 0..10 {
        let answer = client.get("/v2").await.unwrap();
        if answer.code == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
            let said = answer.error();
            assert!(
                said.contains("one client may send 2 requests a second")
                    && said.contains("try again in 1 s"),
                "{said}"
            );
        }
        codes.push(answer.code);
    }
    // On a machine that stands still a place or two come free meanwhile.
    let more = usize::try_from(begun.elapsed().as_millis() / 500).unwrap();
    let passed = codes.iter().filter(|code| **code == 200).count();
    assert!(
        codes[..4] == [200; 4] && (4..=4 + more).contains(&passed),
        "{codes:?}"
    );
    assert_eq!(pod.hits(), passed, "the pod hears of nothing else");
    assert_eq!(router.metric(REFUSED).await, (10 - passed) as f64);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.get("/v2").await.unwrap().code, 200);
}

#[tokio::test]
async fn a_client_with_a_body_under_way_reads_its_refusal_and_its_connection_goes_on() {
    let (pod, router) = one_pod("", &["--client-rate", "1"]).await;
    let mut client = Client::new(router.http, "cats.demo");
    let begun = Instant::now();
    let mut send = async || {
        client
            .send(Request::post("/v2/models/m/infer"), vec![b'x'; 1 << 20])
            .await
            .unwrap()
            .code
    };
    let codes = [send().await, send().await, send().await];
    assert!(
        codes[0] == 200 && (codes[2] == 429 || begun.elapsed() > Duration::from_secs(1)),
        "{codes:?}"
    );
    assert!(pod.hits() < 3 || begun.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart_and_nobody_else_is_believed() {
    let options = [
        "--client-rate",
        "1",
        "--trusted-proxies",
        "127.0.0.0/8,10.0.0.1",
    ];
    let (_pod, router) = one_pod("", &options).await;
    let mut proxy = Client::new(router.http, "cats.demo");
    for n in 0..20 {
        let answer = for_client(&mut proxy, &format!("1.1.1.1, 203.0.113.{n}, 10.0.0.1")).await;
        assert_eq!(answer.code, 200, "client {n}");
    }
    let codes = [
        for_client(&mut proxy, "203.0.113.99").await.code,
        for_client(&mut proxy, "9.9.9.9, 203.0.113.99").await.code,
    ];
    assert_eq!(codes, [200, 429]);
    // Without trust the header is a client's own word.
    let (_pod, router) = one_pod("", &["--client-rate", "1"]).await;
    let mut liar = Client::new(router.http, "cats.demo");
    let begun = Instant::now();
    let mut passed = 0;
    for n in 0..20 {
        passed += u64::from(for_client(&mut liar, &format!("203.0.113.{n}")).await.code == 200);
    }
    assert!(passed <= 1 + begun.elapsed().as_secs(), "{passed}");
}

#[tokio::test]
async fn a_call_too_many_is_resource_exhausted() {
    let (_pod, router) = one_pod("", &["--client-rate", "1"]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", router.http)).unwrap();
    let endpoint = endpoint.origin("http://cats.demo".parse().unwrap());
    let mut calls = HealthClient::new(endpoint.connect().await.unwrap());
    let mut codes = Vec::new();
    for _ in 0..5 {
        let status = calls
            .check(HealthCheckRequest::default())
            .await
            .unwrap_err();
        if status.code() == Code::ResourceExhausted {
            assert!(
                status
                    .message()
                    .contains("one client may send 1 requests a second"),
                "{status}"
            );
            let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
            assert_eq!(pushback, "1000");
        }
        codes.push(status.code());
    }
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
}

#[tokio::test]
async fn without_the_option_nobody_is_counted() {
    let (pod, router) = one_pod("", &[]).await;
    let mut client = Client::new(router.http, "cats.demo");
    for _ in 0..300 {
        assert_eq!(client.get("/v2").await.unwrap().code, 200);
    }
    assert_eq!((pod.hits(), router.metric(REFUSED).await), (300, 0.0));
}

#[test]
fn options_that_make_no_sense_are_refused_with_a_sentence() {
    for (options, sentence) in [
        (&["--client-burst", "3"][..], "--client-rate"),
        (&["--trusted-proxies", "10.0.0.0/8"], "--client-rate"),
        (&["--client-rate", "0"], "--client-rate"),
        (
            &[
                "--client-rate",
                "5",
                "--trusted-proxies",
                "proxy.example.com",
            ],
            "write for instance 10.0.0.0/8",
        ),
    ] {
        let (code, said) = refused(&["--state", "/nowhere"], options);
        assert!(code == 2 && said.contains(sentence), "{options:?}: {said}");
    }
}
