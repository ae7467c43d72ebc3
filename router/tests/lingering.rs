//! Answers that are ready before a body has come: a client that still uploads reads them all the same, and keeps its
//! connection.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Pod, Router, cats};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// More than the kernel keeps for a reader that does not read, and its parts.
const PHOTOGRAPH: usize = 12 << 20;
const PARTS: usize = 48;
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that reads nothing before it has written everything, as those of many libraries do.
struct Uploader(TcpStream);

impl Uploader {
    async fn new(router: &Router) -> Self {
        Self(TcpStream::connect(router.http).await.unwrap())
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = timeout(PATIENCE, self.0.write_all(bytes)).await;
        written.unwrap().unwrap();
    }

    /// Writes the head and, little by little, the body.
    async fn upload(&mut self, head: &str, is_chunked: bool) {
        let length = if is_chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {PHOTOGRAPH}")
        };
        self.write(format!("{head}\r\n{length}\r\n\r\n").as_bytes())
            .await;
        let part = vec![b'x'; PHOTOGRAPH / PARTS];
        for _ in 0..PARTS {
            sleep(Duration::from_millis(10)).await;
            if is_chunked {
                self.write(format!("{:x}\r\n", part.len()).as_bytes()).await;
            }
            self.write(&part).await;
            if is_chunked {
                self.write(b"\r\n").await;
            }
        }
        if is_chunked {
            self.write(b"0\r\n\r\n").await;
        }
    }

    /// The code and the JSON of an answer.
    async fn answer(&mut self) -> (u16, Value) {
        timeout(PATIENCE, self.read()).await.unwrap()
    }

    async fn read(&mut self) -> (u16, Value) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        let code = head[9..12].parse().unwrap();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// The service demo/cats with a pod, and demo/dogs, which has none and does not wait for one.
fn services(pod: &Pod) -> String {
    let cats = cats(&[("cats-1", 100, &[pod.address])], "");
    let dogs =
        "  demo/dogs: {routing: {holdTimeout: 0s}, revisions: [{name: dogs-1, weight: 100}]}";
    let birds = "  demo/birds: {revisions: [{name: birds-1, weight: 100}]}";
    let cats = cats.replace("services: {", "services:\n  ");
    let cats = cats.trim_end().strip_suffix('}').unwrap().to_owned();
    format!("{cats}\n{dogs}\n{birds}\n")
}

#[tokio::test]
async fn a_client_that_is_refused_in_mid_upload_reads_why_and_keeps_its_connection() {
    let pod = Pod::start("a").await;
    let options = ["--max-body-bytes", "1000000", "--hold-requests", "1"];
    let router = Router::start(&services(&pod), &options);
    // Takes the only place in the line of its service.
    let mut waiting = Uploader::new(&router).await;
    waiting
        .write(b"GET /v2 HTTP/1.1\r\nhost: birds.demo\r\n\r\n")
        .await;
    let held = r#"ortolan_router_held{namespace="demo",service="birds"}"#;
    router.wait_for_metric(held, 1.0).await;
    let mut client = Uploader::new(&router).await;
    let many = "larger than 1000000 bytes";
    for (path, host, code, sentence) in [
        ("/v2", "fish.demo", 404, "there is no service fish"),
        ("/v2", "fish", 404, "write fish.NAMESPACE"),
        (
            "/v2/repository/models/m/load",
            "cats.demo",
            403,
            "models are not loaded",
        ),
        ("/v2", "cats.demo", 413, many),
        ("/v2", "dogs.demo", 413, many),
    ] {
        for is_chunked in [false, true] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: {host}");
            // Without a pod nothing of a body is read that does not say its length.
            let (code, sentence) = match (host, is_chunked) {
                ("dogs.demo", true) => (503, "no pod of demo/dogs"),
                _ => (code, sentence),
            };
            client.upload(&head, is_chunked).await;
            let (got, answer) = client.answer().await;
            assert_eq!(got, code, "{head}: {answer}");
            let said = answer["error"].as_str().unwrap();
            assert!(said.contains(sentence), "{head}: {said}");
        }
    }
    client
        .upload("POST /v2 HTTP/1.1\r\nhost: birds.demo", true)
        .await;
    let (code, answer) = client.answer().await;
    let said = answer["error"].as_str().unwrap();
    assert!(code == 503 && said.contains("as many as may"), "{said}");
    client
        .write(b"GET /v2 HTTP/1.1\r\nhost: cats.demo\r\n\r\n")
        .await;
    let (code, answer) = client.answer().await;
    assert_eq!((code, &answer["pod"]), (200, &"a".into()));
}

#[tokio::test]
async fn a_refusal_is_there_before_the_upload_has_ended_and_a_pause_in_it_ends_the_connection() {
    let pod = Pod::start("a").await;
    let router = Router::start(&services(&pod), &[]);
    let mut client = Uploader::new(&router).await;
    let head = b"POST /v2 HTTP/1.1\r\nhost: fish.demo\r\ncontent-length: 1000000\r\n\r\nhalf";
    client.write(head).await;
    let start = Instant::now();
    assert_eq!(client.answer().await.0, 404);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let mut rest = Vec::new();
    timeout(PATIENCE, client.0.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    let took = start.elapsed();
    let bounds = Duration::from_secs(4)..Duration::from_secs(15);
    assert!(bounds.contains(&took), "{took:?}");
}
