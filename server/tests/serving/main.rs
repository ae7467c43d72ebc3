//! The server as its clients and its kubelet see it: paths, codes, load, queue, drain, photographs.

#![allow(missing_docs, clippy::unwrap_used)]

mod photographs;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, onnx, wait_for_metric};

fn row(n: usize, value: f32) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, n], "data": vec![value; n] }] })
}

#[tokio::test]
async fn the_startup_report_tells_what_was_loaded() {
    let server = Server::start(
        &onnx::sum_and_difference(),
        &["--model-version", "v7", "--sessions", "2", "--threads", "1"],
    )
    .await;
    let (code, report) = server.get("/healthz/startup").await;
    assert_eq!(code, 200);
    assert_eq!(report["phase"], "Ready");
    assert_eq!(report["model"]["opset"], 17);
    assert_eq!(report["model"]["version"], "v7");
    assert_eq!(
        report["model"]["inputs"][1],
        json!({"name": "b", "datatype": "FP32", "shape": [-1, 2]})
    );
    assert_eq!(
        report["provider"],
        json!({ "requested": "CPU", "active": "CPU" })
    );
    assert_eq!(
        (report["sessions"].as_u64(), report["threads"].as_u64()),
        (Some(2), Some(1))
    );
    let digest = report["digest"].as_str().unwrap();
    assert!(
        digest.starts_with("sha256:") && digest.len() == 71,
        "{digest}"
    );
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    assert!(phases.ends_with(&["Load", "WarmUp"]), "{phases:?}");
    assert!(
        server.log().contains("opset     17"),
        "the terminal tells it too: {}",
        server.log()
    );
}

#[tokio::test]
async fn a_fallback_that_is_allowed_says_what_really_runs() {
    let options = ["--provider", "CUDA", "--fallback", "allow"];
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[2]), &options).await;
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(
        report["provider"],
        json!({ "requested": "CUDA", "active": "CPU" })
    );
    let (_, metrics) = server.get("/metrics").await;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains(r#"requested="CUDA",active="CPU""#),
        "{metrics}"
    );
}

#[tokio::test]
async fn every_path_answers_and_every_wrong_one_says_why() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    for path in [
        "/",
        "/v2",
        "/v2/",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/m",
        "/v2/models/m/versions/1",
        "/v2/models/m/ready",
        "/v2/models/m/versions/1/ready",
        "/v1/models/m",
        "/metrics",
        "/healthz/live",
        "/healthz/ready",
        "/healthz/startup",
    ] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    let (_, metadata) = server.get("/v2/models/m").await;
    assert_eq!(metadata["platform"], "onnxruntime_onnx");
    assert_eq!(metadata["versions"], json!(["1"]));
    for (path, part) in [
        ("/v2/models/other", "no model \"other\""),
        ("/v2/models/m/versions/2", "no version \"2\""),
        ("/v2/models/other/ready", "no model"),
        ("/v1/models/other", "no model"),
        ("/v3", "no path /v3"),
    ] {
        let (code, answer) = server.get(path).await;
        assert_eq!(code, 404, "{path}");
        assert!(
            answer["error"].as_str().unwrap().contains(part),
            "{path}: {answer}"
        );
    }
    for path in ["/v2/models/m/infer", "/predict/m"] {
        let (code, answer) = server.get(path).await;
        assert_eq!(code, 405, "{path}");
        assert!(
            answer["error"].as_str().unwrap().contains("GET"),
            "{answer}"
        );
    }
    let (code, answer) = server.post("/v2/models/m", "{}").await;
    assert_eq!((code, answer["error"].is_string()), (405, true));
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_the_next_request_is_served() {
    let server = Server::start(
        &onnx::identity(onnx::FLOAT, &[-1, 2]),
        &["--max-body-bytes", "1000"],
    )
    .await;
    let (code, answer) = server
        .post("/v2/models/m/infer", vec![b' '; 3_000_000])
        .await;
    assert_eq!(code, 413, "{answer}");
    let sentence = answer["error"].as_str().unwrap();
    assert!(
        sentence.contains("3000000") && sentence.contains("1000 bytes"),
        "{sentence}"
    );
    assert_eq!(server.infer(&row(2, 1.0)).await.0, 200);
}

#[tokio::test]
async fn many_clients_at_once_each_get_their_own_answer() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &["--sessions", "2"]).await;
    let client = reqwest::Client::new();
    let url = server.url("/v2/models/m/infer");
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                for step in 0..40 {
                    let value = (task * 1000 + step) as f32;
                    let response = client
                        .post(&url)
                        .body(row(2, value).to_string())
                        .send()
                        .await
                        .unwrap();
                    assert_eq!(response.status(), 200);
                    let answer: Value = response.json().await.unwrap();
                    assert_eq!(answer["outputs"][0]["data"], json!([value, value]));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains(
            r#"ortolan_requests_total{model="m",version="1",protocol="v2",code="200"} 640"#
        ),
        "{metrics}"
    );
    assert!(metrics.contains(r#"ortolan_in_flight{model="m",version="1"} 0"#));
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_full_queue_is_503_with_when_to_try_again() {
    let server = Server::start(&onnx::slow(512, 200), &["--sessions", "1", "--queue", "1"]).await;
    let client = reqwest::Client::new();
    let url = server.url("/v2/models/m/infer");
    let body = row(512, 1.0).to_string();
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let request = client.post(&url).body(body.clone());
            tokio::spawn(async move { request.send().await.unwrap() })
        })
        .collect();
    let mut codes = Vec::new();
    for task in tasks {
        let response = task.await.unwrap();
        codes.push(response.status().as_u16());
        if response.status() == 503 {
            assert_eq!(response.headers()["retry-after"], "1");
            let answer: Value = response.json().await.unwrap();
            assert!(
                answer["error"].as_str().unwrap().contains("queue is full"),
                "{answer}"
            );
        }
    }
    assert!(codes.contains(&200) && codes.contains(&503), "{codes:?}");
    assert!(
        codes.iter().all(|code| [200, 503].contains(code)),
        "{codes:?}"
    );
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains(r#"reason="queue_full""#));
}

#[tokio::test]
async fn requests_whose_client_left_are_not_run() {
    let server = Server::start(&onnx::slow(512, 300), &["--sessions", "1"]).await;
    let client = reqwest::Client::new();
    let url = server.url("/v2/models/m/infer");
    let body = row(512, 1.0).to_string();
    let start = Instant::now();
    assert_eq!(
        client
            .post(&url)
            .body(body.clone())
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let one = start.elapsed();
    let tasks: Vec<_> = (0..40)
        .map(|_| tokio::spawn(client.post(&url).body(body.clone()).send()))
        .collect();
    tokio::time::sleep(one).await;
    for task in &tasks {
        task.abort();
    }
    drop(tasks);
    // All forty together would take forty times as long; only the few that had begun may be waited for.
    let start = Instant::now();
    assert_eq!(
        client.post(&url).body(body).send().await.unwrap().status(),
        200
    );
    assert!(
        start.elapsed() < one * 20,
        "{:?}, one alone {one:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_loses_no_request() {
    let mut server = Server::start(
        &onnx::slow(128, 20),
        &["--sessions", "2", "--drain-delay", "1500ms"],
    )
    .await;
    let url = server.url("/v2/models/m/infer");
    let (answered, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (url, answered, closed) = (url.clone(), Arc::clone(&answered), Arc::clone(&closed));
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                while !stop.load(Ordering::Relaxed) {
                    let sent = client
                        .post(&url)
                        .body(row(128, 1.0).to_string())
                        .send()
                        .await;
                    let response = sent.expect("no request is lost while the server drains");
                    assert_eq!(response.status(), 200);
                    if response
                        .headers()
                        .get("connection")
                        .is_some_and(|value| value == "close")
                    {
                        closed.fetch_add(1, Ordering::Relaxed);
                    }
                    response.bytes().await.expect("no answer is cut");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        closed.load(Ordering::Relaxed),
        0,
        "connections are kept before the drain"
    );
    server.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A kubelet that was restarted says it again.
    server.signal("TERM");
    assert_eq!(
        server.get("/healthz/ready").await.0,
        200,
        "readiness stays while it drains"
    );
    // Clients move away within the delay, as they do when the pod leaves the Service.
    tokio::time::sleep(Duration::from_millis(600)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let status = server.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(answered.load(Ordering::Relaxed) > 50 && closed.load(Ordering::Relaxed) > 10);
}

#[tokio::test]
async fn what_is_queued_is_finished_after_the_port_is_closed() {
    // Alone, one after the other: all five are still there when the last one has come.
    let options = ["--sessions", "1", "--max-batch", "1"];
    let mut server = Server::start(&onnx::slow_loop(512, 10_000), &options).await;
    let client = reqwest::Client::new();
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let request = client
                .post(server.url("/v2/models/m/infer"))
                .body(row(512, 1.0).to_string());
            tokio::spawn(request.send())
        })
        .collect();
    wait_for_metric(&server, "ortolan_in_flight{model=\"m\",version=\"1\"} 5").await;
    server.signal("TERM");
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(server.ended(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn what_runs_at_the_end_of_the_grace_period_is_stopped() {
    let mut server = Server::start(
        &onnx::slow_loop(1024, 4000),
        &["--sessions", "1", "--grace", "200ms"],
    )
    .await;
    let client = reqwest::Client::new();
    let rows = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [64, 1024], "data": vec![1; 65536] }] });
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(
                client
                    .post(server.url("/v2/models/m/infer"))
                    .body(rows.to_string())
                    .send(),
            )
        })
        .collect();
    wait_for_metric(&server, "ortolan_in_flight{model=\"m\",version=\"1\"} 3").await;
    let start = Instant::now();
    server.signal("TERM");
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().status(), 503);
    }
    assert_eq!(
        server.ended(Duration::from_secs(5)).await.code(),
        Some(0),
        "{}",
        server.log()
    );
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn ctrl_c_does_not_wait_for_clients() {
    let mut server = Server::start(
        &onnx::identity(onnx::FLOAT, &[2]),
        &["--drain-delay", "60s"],
    )
    .await;
    server.signal("INT");
    assert_eq!(server.ended(Duration::from_secs(5)).await.code(), Some(0));
}

#[tokio::test]
async fn two_requests_share_a_connection_and_nonsense_does_not_end_the_server() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[2]), &[]).await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\nGET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[0xff; 4096]).unwrap();
    let _ = stream.read_to_string(&mut String::new());
    assert_eq!(server.get("/healthz/live").await.0, 200);
}
