//! The load generator against servers whose delays are known, and against ours.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    Server, onnx,
    tool::{refused, shown, told},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// What a request looked like when it arrived.
#[derive(Clone, Debug, Default)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

/// A server of one line of work: requests of all connections wait for each other, and the n-th takes as long as
/// `delay(n)` says and gets the status `status(n)`.
struct Slow {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn slow_server(
    delay: impl Fn(usize) -> Duration + Send + Sync + 'static,
    status: impl Fn(usize) -> u16 + Send + Sync + 'static,
) -> Slow {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let (line, rules) = (
        Arc::new(tokio::sync::Mutex::new(())),
        Arc::new((delay, status)),
    );
    let count = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (line, rules, count, log) = (
                Arc::clone(&line),
                Arc::clone(&rules),
                Arc::clone(&count),
                Arc::clone(&log),
            );
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while let Some(request) = next_request(&mut stream, &mut bytes).await {
                    log.lock().unwrap().push(request);
                    let turn = line.lock().await;
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(rules.0(number)).await;
                    drop(turn);
                    let answer = format!(
                        "HTTP/1.1 {} x\r\ncontent-length: 15\r\n\r\n{{\"error\":\"no\"}} ",
                        rules.1(number)
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Slow { url, seen }
}

async fn next_request(stream: &mut tokio::net::TcpStream, bytes: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                return Some(Seen { head, body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Runs `bench` beside the test's own server.
async fn bench(url: &str, words: &[&str]) -> Value {
    let words: Vec<String> = ["bench", url]
        .iter()
        .chain(words)
        .chain(&["--json"])
        .map(|word| (*word).to_owned())
        .collect();
    tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        told(&words)
    })
    .await
    .unwrap()
}

fn body(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("body.bin");
    fs::write(&path, b"\xff\xd8 a photograph").unwrap();
    path.display().to_string()
}

fn millis(report: &Value, quantile: &str) -> f64 {
    report["latency"]["quantiles"][quantile].as_f64().unwrap() * 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn percentiles_are_those_of_the_servers_delays() {
    let dir = tempfile::tempdir().unwrap();
    // Of ten answers nine take 4 ms and one 80 ms.
    let delay = |n: usize| Duration::from_millis(if n % 10 == 9 { 80 } else { 4 });
    let server = slow_server(delay, |_| 200).await;
    let report = bench(
        &server.url,
        &[
            "--path",
            "/x",
            "--body",
            &body(&dir),
            "--requests",
            "100",
            "--warm-up",
            "0",
        ],
    )
    .await;
    assert_eq!(
        (&report["successes"], &report["ended"]),
        (&json!(100), &json!(100))
    );
    assert_eq!(report["latency"]["countedFrom"], "sent");
    let (p50, p75, p95, max) = (
        millis(&report, "p50"),
        millis(&report, "p75"),
        millis(&report, "p95"),
        millis(&report, "max"),
    );
    assert!(
        (4.0..80.0).contains(&p50) && p50 <= p75 && p75 < 80.0,
        "{report}"
    );
    assert!(p95 >= 80.0 && max >= p95, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_seen_by_the_open_loop_and_overlooked_by_the_closed_one() {
    let dir = tempfile::tempdir().unwrap();
    let stall = |at: usize| move |n: usize| Duration::from_millis(if n == at { 600 } else { 1 });
    let file = body(&dir);
    let common = [
        "--path",
        "/x",
        "--body",
        file.as_str(),
        "--warm-up",
        "0",
        "--duration",
        "2s",
    ];
    let server = slow_server(stall(60), |_| 200).await;
    let open = [
        &common[..],
        &[
            "--rate",
            "100",
            "--arrivals",
            "constant",
            "--connections",
            "4",
        ],
    ]
    .concat();
    let open = bench(&server.url, &open).await;
    // 60 of 200 requests were due during the stall and waited half of it on average.
    assert_eq!(open["ended"], 200, "{open}");
    assert_eq!(open["latency"]["countedFrom"], "due");
    assert!(millis(&open, "p90") >= 300.0, "{open}");
    assert!(millis(&open, "max") >= 590.0, "{open}");
    let waiting = &open["waiting"];
    assert!(waiting["waited"].as_u64().unwrap() >= 40, "{open}");
    assert_eq!(waiting["neverSent"], 0);

    let server = slow_server(stall(60), |_| 200).await;
    let closed = bench(&server.url, &common).await;
    assert!(
        millis(&closed, "p90") < 100.0,
        "one slow request of many: {closed}"
    );
    assert!(millis(&closed, "max") >= 590.0, "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_got_its_turn_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = slow_server(|_| Duration::from_millis(100), |_| 200).await;
    let report = bench(
        &server.url,
        &[
            "--path",
            "/x",
            "--body",
            &body(&dir),
            "--warm-up",
            "0",
            "--duration",
            "1s",
            "--rate",
            "100",
            "--arrivals",
            "constant",
            "--connections",
            "1",
            "--timeout",
            "300ms",
        ],
    )
    .await;
    // 100 are due, and in 1 s and the 1.3 s after it at most 23 are answered.
    let waiting = &report["waiting"];
    let count = |what: &Value| what.as_u64().unwrap();
    assert!(count(&waiting["neverSent"]) > 40, "{report}");
    let all =
        count(&report["ended"]) + count(&waiting["neverSent"]) + count(&waiting["unfinished"]);
    assert_eq!(
        all, 100,
        "every request that was due is accounted for: {report}"
    );
    assert!(
        report["warnings"].to_string().contains("cannot keep up"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_counted_by_their_code_and_have_no_latency() {
    let dir = tempfile::tempdir().unwrap();
    let status = |n: usize| if n % 4 == 3 { 503 } else { 200 };
    let delay = |n: usize| Duration::from_millis(if n % 4 == 3 { 120 } else { 1 });
    let server = slow_server(delay, status).await;
    let report = bench(
        &server.url,
        &[
            "--path",
            "/x",
            "--body",
            &body(&dir),
            "--warm-up",
            "0",
            "--requests",
            "40",
        ],
    )
    .await;
    assert_eq!(report["endings"], json!({"HTTP 200": 30, "HTTP 503": 10}));
    assert_eq!(
        (&report["successes"], &report["reconnects"]),
        (&json!(30), &json!(0))
    );
    assert!(millis(&report, "p90") < 120.0, "{report}");
    let words: BTreeMap<String, String> = serde_json::from_value(report["errors"].clone()).unwrap();
    assert!(words["HTTP 503"].contains("no"), "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_sent_as_it_is_with_the_users_headers() {
    let dir = tempfile::tempdir().unwrap();
    let server = slow_server(|_| Duration::ZERO, |_| 200).await;
    bench(
        &format!("{}/base", server.url),
        &[
            "--body",
            &body(&dir),
            "--content-type",
            "image/jpeg",
            "--path",
            "/predict/x",
            "--header",
            "Authorization: Bearer abc",
            "--requests",
            "3",
            "--warm-up",
            "0",
        ],
    )
    .await;
    let seen = server.seen.lock().unwrap().clone();
    // One beforehand, then those that count.
    assert_eq!(seen.len(), 4);
    for request in seen {
        assert!(
            request
                .head
                .starts_with("POST /base/predict/x HTTP/1.1\r\n"),
            "{request:?}"
        );
        for header in [
            "content-type: image/jpeg",
            "Authorization: Bearer abc",
            "host: 127.0.0.1:",
        ] {
            assert!(request.head.contains(header), "{request:?}");
        }
        assert_eq!(request.body, b"\xff\xd8 a photograph");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_asked_what_it_wants_and_sent_random_tensors() {
    let server = Server::start(&onnx::sum_and_difference(), &["--sessions", "1"]).await;
    let pid = std::process::id().to_string();
    let report = bench(
        &server.base,
        &[
            "--model",
            "m",
            "--batch",
            "3",
            "--concurrency",
            "2",
            "--requests",
            "60",
            "--warm-up",
            "100ms",
            "--pid",
            &pid,
        ],
    )
    .await;
    assert_eq!(report["endings"], json!({"HTTP 200": 60}), "{report}");
    assert!(
        report["requests"]
            .as_str()
            .unwrap()
            .contains("b FP32 [3,2]"),
        "{report}"
    );
    assert!(report["cpu"]["serverSeconds"].is_number());
    let file = tempfile::NamedTempFile::new().unwrap();
    let row =
        |name: &str| json!({"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    fs::write(
        file.path(),
        json!({"inputs": [row("a"), row("b")]}).to_string(),
    )
    .unwrap();
    let words = [
        "--model",
        "m",
        "--data",
        shown(file.path()),
        "--requests",
        "5",
        "--warm-up",
        "0",
    ];
    for (more, form) in [(&[][..], "as JSON"), (&["--binary"], "as binary tensors")] {
        let report = bench(&server.base, &[&words[..], more].concat()).await;
        assert_eq!(report["successes"], 5, "{form}");
        assert!(
            report["requests"].as_str().unwrap().ends_with(form),
            "{report}"
        );
    }
    for (words, code, part) in [
        (&["--model", "other"][..], 41, "404"),
        (&["--model", "m", "--shape", "a=1,7"], 40, "expected [-1,2]"),
        (&["--model", "m", "--pid", "4000000"], 40, "no process"),
    ] {
        let base = server.base.clone();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (ended, line) = tokio::task::spawn_blocking(move || {
            let mut all = vec!["bench", base.as_str()];
            all.extend(words.iter().map(String::as_str));
            refused(&all)
        })
        .await
        .unwrap();
        assert!(ended == code && line.contains(part), "{ended}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_measured_like_http() {
    let server = Server::start(&onnx::sum_and_difference(), &["--sessions", "1"]).await;
    let words = [
        "--grpc",
        "--model",
        "m",
        "--batch",
        "2",
        "--warm-up",
        "0",
        "--requests",
        "40",
    ];
    let closed = [&words[..], &["--concurrency", "4", "--streams", "2"]].concat();
    let report = bench(&server.base, &closed).await;
    assert_eq!(report["endings"], json!({"gRPC 0": 40}), "{report}");
    assert!(
        report["requests"]
            .as_str()
            .unwrap()
            .contains("b FP32 [2,2] as raw tensors"),
        "{report}"
    );
    assert!(
        report["answerBytesPerSecond"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    let open = bench(&server.base, &[&words[..], &["--rate", "400"]].concat()).await;
    assert_eq!(open["successes"], 40, "{open}");
    assert_eq!(open["latency"]["countedFrom"], "due");

    let file = tempfile::NamedTempFile::new().unwrap();
    // ModelReadyRequest { name: "m" } is the same three bytes in every version of the protocol.
    fs::write(file.path(), b"\x0a\x01m").unwrap();
    let ready = "/inference.GRPCInferenceService/ModelReady";
    let own = bench(
        &server.base,
        &[
            "--grpc",
            "--body",
            shown(file.path()),
            "--path",
            ready,
            "--requests",
            "5",
            "--warm-up",
            "0",
        ],
    )
    .await;
    assert_eq!(own["successes"], 5, "{own}");

    let base = server.base.clone();
    tokio::task::spawn_blocking(move || {
        for (more, part) in [
            (&["--model", "other"][..], "code 5: "),
            (&["--body", "/no/file"], "cannot be read"),
        ] {
            let (code, line) = refused(&[&["bench", base.as_str(), "--grpc"], more].concat());
            assert!(
                (40..=41).contains(&code) && line.contains(part),
                "{code}: {line}"
            );
        }
    })
    .await
    .unwrap();
}
