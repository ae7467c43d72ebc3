//! The tools beside the server, as their users run them: reports, refusals, exit codes; the load generator against
//! servers whose delays are known.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, onnx, written};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn tool(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ortolan-server"))
        .args(words)
        .output()
        .unwrap()
}

/// What a tool says on stdout; it must end well.
fn said(words: &[&str]) -> String {
    let output = tool(words);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn told(words: &[&str]) -> Value {
    serde_json::from_str(&said(words)).unwrap()
}

/// A tool that refuses: its code and its one line.
fn refused(words: &[&str]) -> (i32, String) {
    let output = tool(words);
    assert!(output.stdout.is_empty(), "{words:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), line)
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn inspect_tells_what_is_in_a_model_without_loading_it() {
    let (_dir, path) = written(&onnx::sum_and_difference());
    let text = said(&["inspect", shown(&path)]);
    for part in [
        "opset       ai.onnx 17",
        "input       a FP32 [batch,2]",
        "output      difference FP32 [batch,2]",
        "batchable   yes",
        "providers   CPU",
        "of 2 nodes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = told(&["inspect", shown(&path), "--json"]);
    assert_eq!(report["irVersion"], 8);
    assert_eq!(report["opsets"], json!({"ai.onnx": 17}));
    assert_eq!(
        report["inputs"][1],
        json!({"name": "b", "datatype": "FP32", "shape": ["batch", 2]})
    );
    assert_eq!(
        report["operators"],
        json!([
            {"domain": "", "operator": "Add", "count": 1},
            {"domain": "", "operator": "Sub", "count": 1}
        ])
    );
    assert_eq!(
        (&report["batchable"], &report["notBatchable"]),
        (&json!(true), &json!([]))
    );
    // a and b live when sum is made, and sum beside difference at the end: three values of two floats each.
    assert_eq!(
        report["estimate"]["activations"],
        json!({"peakBytes": 32, "known": 4, "values": 4})
    );
    assert_eq!(report["measured"], Value::Null);
}

#[test]
fn inspect_counts_parameters_and_says_why_a_model_takes_no_batches() {
    let (_dir, path) = written(&onnx::gather(0));
    let report = told(&["inspect", shown(&path), "--json"]);
    let parameters = &report["parameters"];
    assert_eq!(
        (&parameters["tensors"], &parameters["count"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(parameters["bytesByType"], json!({"FP32": 8, "INT64": 8}));
    assert_eq!(report["batchable"], false);
    let reasons = report["notBatchable"].to_string();
    assert!(reasons.contains("\\\"x\\\" is always 1"), "{reasons}");

    let (_dir, path) = written(&onnx::sequence_output());
    let text = said(&["inspect", shown(&path)]);
    assert!(text.contains("output      y a sequence"), "{text}");
    let (_dir, path) = written(&onnx::custom_operator());
    let text = said(&["inspect", shown(&path)]);
    assert!(text.contains("custom      acme.ops.Fancy"), "{text}");
}

#[test]
fn inspect_measures_sessions_one_by_one() {
    let (_dir, path) = written(&onnx::slow(512, 3));
    let report = told(&[
        "inspect",
        shown(&path),
        "--json",
        "--measure",
        "--sessions",
        "3",
        "--shape",
        "x=4,512",
    ]);
    let measured = &report["measured"];
    assert!(
        measured["inputs"]
            .as_str()
            .unwrap()
            .contains("x FP32 [4,512]"),
        "{measured}"
    );
    let sessions = measured["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3);
    for session in sessions {
        for time in ["loadSeconds", "firstRunSeconds", "runSeconds"] {
            assert!(session[time].as_f64().unwrap() > 0.0, "{session}");
        }
    }
    // The weights are 1 MB, and the first session brings ONNX Runtime's own structures.
    assert!(
        sessions[0]["growthBytes"].as_i64().unwrap() > 1_000_000,
        "{measured}"
    );
}

#[test]
fn a_bad_input_is_one_sentence_and_a_documented_code() {
    let (dir, good) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let good = shown(&good);
    let taken = file("taken.onnx", b"x");
    let empty = file("empty.onnx", b"");
    let page = file("page.onnx", b"<html></html>");
    let whole = onnx::slow(64, 2).encode_to_vec();
    let cut = file("cut.onnx", &whole[..whole.len() / 2]);
    let data = file(
        "data.jsonl",
        b"{\"inputs\":[{\"name\":\"z\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}",
    );
    let table: [(&[&str], i32, &str); 13] = [
        (&["inspect", "/no/such.onnx"], 11, "ModelNotFound: "),
        (&["inspect", &empty], 15, "is empty"),
        (&["inspect", &page], 15, "HTML"),
        (&["inspect", &cut], 15, "is truncated"),
        (&["inspect", "gopher://x/y"], 22, "UnsupportedUri: "),
        (
            &["inspect", good, "--digest", "md5:x"],
            20,
            "InvalidConfig: ",
        ),
        (&["inspect", good, "--shape", "x=1,2"], 40, "--measure"),
        (
            &["inspect", good, "--measure", "--shape", "x=1,3"],
            40,
            "expected [-1,2]",
        ),
        (
            &["inspect", good, "--measure", "--data", &data],
            40,
            "no input \"z\"",
        ),
        (
            &["inspect", good, "--measure", "--onnxruntime", "/no.so"],
            19,
            "RuntimeMissing: ",
        ),
        (&["optimize", good, "-o", &taken], 42, "--force"),
        (
            &["optimize", good, "-o", "/no/dir/out.onnx"],
            42,
            "no such directory",
        ),
        (
            &["bench", "http://127.0.0.1:1", "--model", "m"],
            41,
            "nothing answers",
        ),
    ];
    for (words, code, part) in table {
        let (ended, line) = refused(words);
        assert_eq!(ended, code, "{words:?}: {line}");
        assert!(line.contains(part), "{words:?}: {line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    for words in [
        &["inspect"][..],
        &["optimize", good],
        &["bench"],
        &["bench", "http://a", "--rate", "0"],
        &["bench", "http://a", "--rate", "5", "--concurrency", "3"],
        &["inspect", good, "--shape", "x"],
    ] {
        assert_eq!(refused(words).0, 2, "{words:?}");
    }
}

/// x → Identity → Identity → MatMul w → Add b → y: two nodes too many.
fn roundabout() -> onnx::Model {
    let graph = onnx::Graph {
        nodes: vec![
            onnx::node("Identity", &["x"], &["x1"]),
            onnx::node("Identity", &["x1"], &["x2"]),
            onnx::node("MatMul", &["x2", "w"], &["h"]),
            onnx::node("Add", &["h", "b"], &["y"]),
        ],
        initializers: vec![
            onnx::float_initializer("w", &[32, 32], &[0.25; 1024]),
            onnx::float_initializer("b", &[32], &[1.0; 32]),
        ],
        inputs: vec![onnx::tensor("x", onnx::FLOAT, &[-1, 32])],
        outputs: vec![onnx::tensor("y", onnx::FLOAT, &[-1, 32])],
        ..onnx::Graph::default()
    };
    onnx::model(17, graph)
}

#[tokio::test]
async fn optimize_writes_a_model_that_serves_and_tells_what_changed() {
    let (dir, path) = written(&roundabout());
    let out = dir.path().join("out.onnx");
    let words = ["optimize", shown(&path), "-o", shown(&out), "--rounds", "1"];
    let report = told(&[&words[..], &["--json"]].concat());
    assert_eq!(report["before"]["nodes"], 4);
    assert!(report["after"]["nodes"].as_u64().unwrap() <= 2, "{report}");
    for cost in ["loadSeconds", "runSeconds"] {
        assert!(report["after"]["cost"][cost]["median"].as_f64().unwrap() > 0.0);
    }
    let output = &report["comparison"]["outputs"][0];
    assert_eq!(
        (&output["name"], &output["fromServed"]["elements"]),
        (&json!("y"), &json!(256))
    );
    assert!(
        output["fromUnoptimised"]["largest"].as_f64().unwrap() < 1e-5,
        "{output}"
    );
    assert!(
        report["comparison"]["inputs"]
            .as_str()
            .unwrap()
            .contains("random")
    );
    assert_eq!(refused(&words).0, 42, "the output exists now");

    let text = said(
        &[
            &words[..],
            &["--force", "--external-data", "--level", "all"],
        ]
        .concat(),
    );
    assert!(
        text.contains("Identity") && text.contains("this machine's processor"),
        "{text}"
    );
    let names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains(&"out.onnx.data".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");

    let server = Server::start_in(dir, &out, &[]).await;
    let row = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 32], "data": vec![1.0; 32]}]});
    let (code, answer) = server.infer(&row).await;
    assert_eq!(
        (code, &answer["outputs"][0]["data"][31]),
        (200, &json!(9.0))
    );
}

#[test]
fn optimize_compares_on_the_users_inputs_and_leaves_nothing_behind_when_they_do_not_fit() {
    let (dir, path) = written(&roundabout());
    let data = dir.path().join("data.jsonl");
    let line = |n: usize| {
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, n], "data": vec![0.5; n]}]}).to_string()
    };
    fs::write(&data, format!("{}\n{}\n", line(32), line(32))).unwrap();
    let out = dir.path().join("out.onnx");
    let words = [
        "optimize",
        shown(&path),
        "-o",
        shown(&out),
        "--rounds",
        "1",
        "--data",
        shown(&data),
        "--json",
    ];
    let report = told(&words);
    assert_eq!(report["comparison"]["runs"], 2);
    assert!(
        report["comparison"]["inputs"]
            .as_str()
            .unwrap()
            .contains("data.jsonl")
    );
    fs::remove_file(&out).unwrap();
    fs::write(&data, line(31)).unwrap();
    let output = tool(&words);
    assert_eq!(output.status.code(), Some(40));
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["data.jsonl", "model.onnx"]);
}

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
    let report = bench(&server.base, &words).await;
    assert_eq!(report["successes"], 5);
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

#[test]
fn tune_measures_every_setting_and_advises_one() {
    let (_dir, path) = written(&onnx::slow(128, 4));
    let words = [
        "tune",
        shown(&path),
        "--sessions",
        "1,2",
        "--threads",
        "1",
        "--batch",
        "1,4",
        "--rounds",
        "2",
        "--time",
        "100ms",
    ];
    let report = told(&[&words[..], &["--json"]].concat());
    let settings = report["settings"].as_array().unwrap();
    let shown_as =
        |cell: &Value| ["sessions", "threads", "batch"].map(|name| cell[name].as_u64().unwrap());
    let tried: Vec<_> = settings.iter().map(shown_as).collect();
    assert_eq!(tried, [[1, 1, 1], [1, 1, 4], [2, 1, 1], [2, 1, 4]]);
    for cell in settings {
        assert!(
            cell["rowsPerSecond"]["median"].as_f64().unwrap() > 0.0,
            "{cell}"
        );
        let (p50, tail) = (cell["p50Seconds"].as_f64(), cell["tailSeconds"].as_f64());
        assert!(p50 > Some(0.0) && tail >= p50, "{cell}");
        let together = cell["rowsTogether"].as_f64().unwrap();
        assert!(
            (1.0..=shown_as(cell)[2] as f64).contains(&together),
            "{cell}"
        );
    }
    let grouped = &settings[1]["rowsTogether"];
    assert!(
        grouped.as_f64().unwrap() > 2.0,
        "rows do run together: {report}"
    );
    assert!(tried.contains(&shown_as(&report["knee"])), "{report}");
    assert_eq!(report["missesGoal"], false);

    let text = said(&[&words[..], &["--slo", "p99=1h"]].concat());
    for part in [
        "◄ knee",
        "p99 ",
        "server:\n  sessions: ",
        "\n  batching:\n    maxBatchSize: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let hopeless = said(&[&words[..], &["--slo", "p95=0.001ms"]].concat());
    assert!(
        hopeless.contains("no setting keeps p95 ≤ 1.00 µs"),
        "{hopeless}"
    );
}

#[test]
fn tune_leaves_batches_out_where_the_graph_takes_none() {
    let (dir, path) = written(&onnx::gather(0));
    let data = dir.path().join("data.jsonl");
    let row = json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}]});
    fs::write(&data, row.to_string()).unwrap();
    let report = told(&[
        "tune",
        shown(&path),
        "--sessions",
        "1",
        "--threads",
        "1",
        "--rounds",
        "1",
        "--requests",
        "40",
        "--data",
        shown(&data),
        "--json",
    ]);
    assert_eq!(report["batchable"], false);
    assert!(
        report["unasked"].as_str().unwrap().starts_with("no: "),
        "{report}"
    );
    let settings = report["settings"].as_array().unwrap();
    assert_eq!((settings.len(), &settings[0]["batch"]), (1, &json!(1)));
    assert!(
        report["inputs"]
            .as_str()
            .unwrap()
            .contains("1 request(s) of")
    );
    let (code, line) = refused(&["tune", shown(&path), "--slo", "fast"]);
    assert_eq!(code, 2, "{line}");
    let (code, line) = refused(&["tune", shown(&path), "--shape", "x=2"]);
    assert!(code == 40 && line.contains("expected [1]"), "{line}");
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
