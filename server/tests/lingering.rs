//! Answers that are ready before a body has come: a client that still uploads reads them all the same.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use support::{Server, onnx};

/// A photograph of some megabytes, and its parts: more than the kernel keeps for a reader that does not read.
const PHOTOGRAPH: usize = 12 << 20;
const PARTS: usize = 48;

/// A client that reads nothing before it has written everything, as those of many libraries do.
struct Uploader(TcpStream);

impl Uploader {
    fn new(server: &Server) -> Self {
        let address = server.base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Self(stream)
    }

    /// Writes the head and, little by little, the body.
    fn upload(&mut self, head: &str, is_chunked: bool) {
        let length = if is_chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {PHOTOGRAPH}")
        };
        let head = format!("{head} HTTP/1.1\r\nhost: m\r\n{length}\r\n\r\n");
        self.0.write_all(head.as_bytes()).unwrap();
        let part = vec![b'x'; PHOTOGRAPH / PARTS];
        for _ in 0..PARTS {
            std::thread::sleep(Duration::from_millis(10));
            if is_chunked {
                write!(self.0, "{:x}\r\n", part.len()).unwrap();
            }
            self.0.write_all(&part).unwrap();
            if is_chunked {
                self.0.write_all(b"\r\n").unwrap();
            }
        }
        if is_chunked {
            self.0.write_all(b"0\r\n\r\n").unwrap();
        }
    }

    /// The code, the head and the JSON of an answer.
    fn answer(&mut self) -> (u16, String, Value) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let code = head[9..12].parse().unwrap();
        (
            code,
            head,
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }
}

/// A prediction that keeps its place: its body does not come.
fn begun(server: &Server) -> Uploader {
    let mut first = Uploader::new(server);
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 100\r\n\r\n{";
    first.0.write_all(head.as_bytes()).unwrap();
    first
}

const IN_FLIGHT: &str = r#"ortolan_in_flight{model="m",version="1"}"#;

#[tokio::test]
async fn a_client_that_is_turned_away_in_mid_upload_reads_why_and_keeps_its_connection() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let options = ["--max-concurrency", "1", "--max-body-bytes", "1000000"];
    let server = Server::start(&model, &options).await;
    let first = begun(&server);
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 1")).await;
    let mut client = Uploader::new(&server);
    for (head, is_chunked, code, sentence) in [
        ("POST /predict/m", false, 503, "--max-concurrency lets in"),
        (
            "POST /v2/models/m/infer",
            true,
            503,
            "--max-concurrency lets in",
        ),
        (
            "POST /v1/models/m:predict",
            false,
            503,
            "--max-concurrency lets in",
        ),
        ("POST /predict/other", false, 404, "other"),
        ("POST /nowhere", true, 404, "GET / lists the paths"),
        ("DELETE /predict/m", false, 405, "DELETE"),
    ] {
        client.upload(head, is_chunked);
        let (got, answer_head, answer) = client.answer();
        assert_eq!(got, code, "{head}: {answer}");
        let said = answer["error"].as_str().unwrap();
        assert!(said.contains(sentence), "{head}: {said}");
        if code == 503 {
            assert!(
                answer_head.contains("\r\nretry-after: 0\r\n"),
                "{answer_head}"
            );
        }
    }
    drop(first);
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 0")).await;
    for (head, code, sentence) in [
        ("POST /predict/m", 415, "tensors only"),
        ("POST /v2/models/m/infer", 413, "--max-body-bytes"),
    ] {
        for is_chunked in [false, true] {
            client.upload(head, is_chunked);
            let (got, _, answer) = client.answer();
            assert_eq!(got, code, "{head}: {answer}");
            assert!(
                answer["error"].as_str().unwrap().contains(sentence),
                "{answer}"
            );
        }
    }
    let next = b"GET /healthz/live HTTP/1.1\r\nhost: m\r\n\r\n";
    client.0.write_all(next).unwrap();
    assert_eq!(client.answer().0, 200, "the same connection still");
}

#[tokio::test]
async fn the_answer_is_there_before_the_upload_has_ended_and_a_pause_in_it_ends_the_connection() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    let mut client = Uploader::new(&server);
    let head = "POST /nowhere HTTP/1.1\r\nhost: m\r\ncontent-length: 1000000\r\n\r\nhalf";
    client.0.write_all(head.as_bytes()).unwrap();
    let start = Instant::now();
    assert_eq!(client.answer().0, 404);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let took = start.elapsed();
    let bounds = Duration::from_secs(4)..Duration::from_secs(15);
    assert!(bounds.contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_send_its_body_is_not_told_to() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    let mut client = Uploader::new(&server);
    let head =
        "POST /nowhere HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    client.0.write_all(head.as_bytes()).unwrap();
    assert_eq!(client.answer().0, 404);
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn of_many_uploads_at_once_each_has_its_answer() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let server = Server::start(&model, &["--max-concurrency", "2", "--sessions", "1"]).await;
    let row =
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]});
    let body = format!("{row}{}", " ".repeat(700_000));
    let client = reqwest::Client::new();
    let asked = (0..64).map(|_| {
        let request = client.post(server.url("/v2/models/m/infer"));
        request.body(body.clone()).send()
    });
    let mut turned_away = 0;
    for answer in join_all(asked).await {
        let answer = answer.unwrap();
        let code = answer.status().as_u16();
        let said: Value = answer.json().await.unwrap();
        match code {
            200 => assert_eq!(said["outputs"][0]["data"], json!([1.0, 2.0])),
            _ => {
                assert_eq!(code, 503, "{said}");
                assert!(
                    said["error"].as_str().unwrap().contains("2 requests"),
                    "{said}"
                );
                turned_away += 1;
            }
        }
    }
    assert!((1..=62).contains(&turned_away), "{turned_away} of 64");
}
