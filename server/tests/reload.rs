//! A repository that changes while it is served: nothing is lost, nothing half-written is taken up,
//! memory comes back.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, onnx, onnx::scaled};
use tempfile::TempDir;

const POLL: [&str; 4] = ["--model-control", "poll", "--poll-interval", "100ms"];

fn repository() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    fs::create_dir(&root).unwrap();
    (dir, root)
}

/// As the documentation asks for it: written beside and renamed into its place.
fn put(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fresh = path.with_file_name(".fresh");
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, path).unwrap();
}

fn put_scaled(root: &Path, path: &str, factor: f32) {
    put(root, path, &scaled(factor).encode_to_vec());
}

fn x() -> String {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1] }] })
        .to_string()
}

/// What the model makes of 1; `None`: it is not there, or not yet.
async fn ask(server: &Server, model: &str) -> Option<f64> {
    let (code, body) = server.post(&format!("/v2/models/{model}/infer"), x()).await;
    match code {
        200 => body["outputs"][0]["data"][0].as_f64(),
        404 | 503 => None,
        _ => panic!("{code}: {body}"),
    }
}

/// Waits until the model answers `expected`.
async fn until(server: &Server, model: &str, expected: Option<f64>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while ask(server, model).await != expected {
        assert!(
            Instant::now() < deadline,
            "{model} never answers {expected:?}: {}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn reason_of(server: &Server, model: &str, words: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, index) = server.post("/v2/repository/index", "").await;
        let entries: &Vec<Value> = index.as_array().unwrap();
        let of = entries.iter().filter(|entry| entry["name"] == model);
        let reasons: Vec<&str> = of.filter_map(|entry| entry["reason"].as_str()).collect();
        if let Some(found) = reasons.iter().find(|reason| reason.contains(words)) {
            return (*found).to_owned();
        }
        assert!(Instant::now() < deadline, "no {words:?} in {index}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Clients that ask without a pause until they are told to stop; each answer that is no 200 is counted.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(server: &Server, model: &str, clients: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            lost: Arc::default(),
            clients: Vec::new(),
        };
        for _ in 0..clients {
            let url = server.url(&format!("/v2/models/{model}/infer"));
            let (stop, answered, lost) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.answered),
                Arc::clone(&load.lost),
            );
            load.clients.push(tokio::spawn(async move {
                let client = reqwest::Client::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.post(&url).body(x()).send().await;
                    let is_good = answer.is_ok_and(|answer| answer.status() == 200);
                    let count = if is_good { &answered } else { &lost };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        (
            self.answered.load(Ordering::Relaxed),
            self.lost.load(Ordering::Relaxed),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_no_request() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let server = Server::start_in(dir, &root, &POLL).await;
    let load = Load::start(&server, "a", 4);
    for step in 2..=6_u8 {
        // In turn a new version, and the same version with another content.
        let version = step / 2;
        put_scaled(&root, &format!("a/{version}/model.onnx"), step.into());
        until(&server, "a", Some(step.into())).await;
    }
    let (answered, lost) = load.end().await;
    assert_eq!(lost, 0, "of {answered}: {}", server.log());
    assert!(answered > 100, "{answered} is no load");
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(
        report["models"].as_array().unwrap().len(),
        1,
        "older versions are gone: {report}"
    );
}

#[tokio::test]
async fn a_broken_successor_leaves_the_old_one_where_it_is_until_a_whole_one_comes() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let server = Server::start_in(dir, &root, &POLL).await;
    put(&root, "a/2/model.onnx", &scaled(2.0).encode_to_vec()[..30]);
    let reason = reason_of(&server, "a", "truncated").await;
    assert!(reason.starts_with("InvalidModel"), "{reason}");
    assert_eq!(ask(&server, "a").await, Some(1.0));
    put_scaled(&root, "a/2/model.onnx", 2.0);
    until(&server, "a", Some(2.0)).await;
    put(&root, "a/config.pbtxt", b"max_batch_size: many");
    reason_of(&server, "a", "max_batch_size is many").await;
    assert_eq!(
        ask(&server, "a").await,
        Some(2.0),
        "a bad configuration changes nothing"
    );
    put(&root, "a/config.pbtxt", b"version_policy { all {} }");
    until(&server, "a/versions/1", Some(1.0)).await;
    assert_eq!(ask(&server, "a").await, Some(2.0));
}

#[tokio::test]
async fn models_come_and_go_with_their_folders() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let server = Server::start_in(dir, &root, &POLL).await;
    put_scaled(&root, "b/1/model.onnx", 2.0);
    until(&server, "b", Some(2.0)).await;
    fs::remove_dir_all(root.join("a")).unwrap();
    until(&server, "a", None).await;
    fs::rename(root.join("b"), root.join("../b")).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        ask(&server, "b").await,
        Some(2.0),
        "an empty root is a volume that is not mounted"
    );
    fs::rename(&root, root.with_file_name("gone")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        ask(&server, "b").await,
        Some(2.0),
        "and so is one that is not there"
    );
    assert!(server.log().contains("all models stay as they are"));
}

#[tokio::test]
async fn a_file_that_was_only_touched_or_is_still_growing_is_not_loaded() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let server = Server::start_in(dir, &root, &POLL).await;
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let whole = onnx::slow(256, 1).encode_to_vec();
    let path = root.join("b/1/model.onnx");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for part in 1..=10 {
        // As `cp` over a slow link: in place, a piece at a time, for longer than two looks are apart.
        fs::write(&path, &whole[..whole.len() * part / 10]).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.get("/v2/models/b/ready").await.0 != 200 {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!server.log().contains("load failed"), "{}", server.log());
    assert!(!server.log().contains("reloaded"), "{}", server.log());
}

fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

fn threads(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.pid()))
        .unwrap()
        .count()
}

#[tokio::test]
async fn memory_and_threads_come_back_after_each_of_fifty_unloads() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    // 16 MB of weights, twice: fifty that stay would be seen from afar.
    put(
        &root,
        "big/1/model.onnx",
        &onnx::slow(2048, 1).encode_to_vec(),
    );
    let options = [
        "--model-control",
        "explicit",
        "--load-model",
        "a",
        "--management-api",
        "--sessions",
        "2",
    ];
    let server = Server::start_in(dir, &root, &options).await;
    let mut after = Vec::new();
    for _ in 0..50 {
        for verb in ["load", "unload"] {
            let (code, body) = server
                .post(&format!("/v2/repository/models/big/{verb}"), "")
                .await;
            assert_eq!(code, 200, "{body}");
        }
        // The sessions' threads end by themselves.
        tokio::time::sleep(Duration::from_millis(30)).await;
        after.push((resident(&server), threads(&server)));
    }
    let (early, late) = (after[9], after[49]);
    let grown = late.0.saturating_sub(early.0);
    assert!(
        grown < 24 << 20,
        "{grown} bytes more after forty loads: {after:?}"
    );
    assert!(late.1 <= early.1 + 2, "threads stay: {after:?}");
    assert_eq!(ask(&server, "a").await, Some(1.0));
}

/// A repository with `ext`, whose weights lie in a file of their own, `n` times 4.
fn put_external(root: &Path, weight: f32, n: i64) {
    let (model, weights) = onnx::external(weight, n);
    put(root, "ext/1/weights.bin", &weights);
    put(root, "ext/1/model.onnx", &model.encode_to_vec());
}

/// What `ext` makes of ones; every element must be the same.
async fn ask_external(server: &Server, n: usize) -> Result<f64, Value> {
    let inputs = json!([{ "name": "x", "datatype": "FP32", "shape": [n], "data": vec![1; n] }]);
    let (code, body) = server
        .post(
            "/v2/models/ext/infer",
            json!({ "inputs": inputs }).to_string(),
        )
        .await;
    if code != 200 {
        return Err(body);
    }
    let data = body["outputs"][0]["data"].as_array().unwrap();
    assert!(
        data.iter().all(|value| value == &data[0]),
        "parts of two files"
    );
    Ok(data[0].as_f64().unwrap())
}

const MANAGED: [&str; 5] = [
    "--model-control",
    "explicit",
    "--load-model",
    "*",
    "--management-api",
];

async fn load(server: &Server, model: &str) -> (u16, String) {
    let (code, body) = server
        .post(&format!("/v2/repository/models/{model}/load"), "")
        .await;
    (code, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn files_that_are_replaced_written_over_or_cut_off_under_a_model_change_nothing() {
    const N: usize = 1 << 16;
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    put_external(&root, 4.0, N as i64);
    let cache = dir.path().join("cache/work");
    let server = Server::start_in(dir, &root, &MANAGED).await;
    assert_eq!(ask_external(&server, N).await, Ok(4.0));
    let cut = |file: &str| {
        fs::File::options()
            .write(true)
            .open(root.join(file))
            .unwrap()
            .set_len(0)
            .unwrap()
    };
    fs::write(
        root.join("ext/1/weights.bin"),
        onnx::external(9.0, N as i64).1,
    )
    .unwrap();
    assert_eq!(
        ask_external(&server, N).await,
        Ok(4.0),
        "written over in place"
    );
    cut("ext/1/weights.bin");
    assert_eq!(ask_external(&server, N).await, Ok(4.0), "cut off in place");
    cut("a/1/model.onnx");
    assert_eq!(ask(&server, "a").await, Some(1.0));
    let (code, sentence) = load(&server, "a").await;
    assert!(code == 400 && sentence.contains("is empty"), "{sentence}");
    let (code, sentence) = load(&server, "ext").await;
    assert!(
        code == 400 && sentence.contains("InvalidModel"),
        "{sentence}"
    );
    assert_eq!(
        (ask(&server, "a").await, ask_external(&server, N).await),
        (Some(1.0), Ok(4.0))
    );
    put_external(&root, 5.0, N as i64);
    assert_eq!(load(&server, "ext").await.0, 200);
    assert_eq!(ask_external(&server, N).await, Ok(5.0));
    let copies = || {
        fs::read_dir(&cache)
            .unwrap()
            .filter(|item| item.as_ref().unwrap().path().is_dir())
            .count()
    };
    assert_eq!(
        copies(),
        1,
        "the copy of what does not serve any more is gone"
    );
    let (code, _) = server.post("/v2/repository/models/ext/unload", "").await;
    assert_eq!((code, copies()), (200, 0));
}

#[tokio::test]
async fn weights_that_are_cut_off_where_they_are_used_in_place_end_the_process_and_the_next_one_says_why()
 {
    use std::os::unix::process::ExitStatusExt;
    const N: usize = 1 << 16;
    const SIGBUS: i32 = 7;
    let (dir, root) = repository();
    put_external(&root, 4.0, N as i64);
    let kept = tempfile::tempdir().unwrap();
    let place = kept.path().join("repo");
    fs::rename(&root, &place).unwrap();
    let mut server = Server::start_in(dir, &place, &["--repository", "always"]).await;
    assert_eq!(ask_external(&server, N).await, Ok(4.0));
    fs::File::options()
        .write(true)
        .open(place.join("ext/1/weights.bin"))
        .unwrap()
        .set_len(0)
        .unwrap();
    let inputs = json!([{ "name": "x", "datatype": "FP32", "shape": [N], "data": vec![1; N] }]);
    let request = reqwest::Client::new()
        .post(server.url("/v2/models/ext/infer"))
        .body(json!({ "inputs": inputs }).to_string());
    assert!(request.send().await.is_err(), "nobody is left to answer");
    let status = server.ended(Duration::from_secs(20)).await;
    assert_eq!(status.signal(), Some(SIGBUS), "{status}");
    let ended = support::fails_at(
        tempfile::tempdir().unwrap(),
        &place,
        &["--repository", "always"],
    );
    assert_eq!(ended.code, 15, "{}", ended.stderr);
    assert!(
        ended.termination_log.starts_with("InvalidModel: ext: "),
        "{}",
        ended.termination_log
    );
}

#[tokio::test]
async fn a_full_disk_refuses_the_successor_and_leaves_the_old_one() {
    const N: usize = 1 << 12;
    let (dir, root) = repository();
    put_external(&root, 4.0, N as i64);
    // No file larger than 1 MiB can be written: the same to a process as a full disk, without a disk.
    let server = Server::start_limited(dir, &root, &MANAGED, "trap '' XFSZ; ulimit -f 1024").await;
    assert_eq!(ask_external(&server, N).await, Ok(4.0));
    let large = 1 << 19;
    put_external(&root, 5.0, large);
    let (code, sentence) = load(&server, "ext").await;
    assert!(
        code == 503 && sentence.contains("OutOfSpace") && sentence.contains("no space for 2.0"),
        "{code} {sentence}"
    );
    assert_eq!(ask_external(&server, N).await, Ok(4.0));
    put_external(&root, 6.0, N as i64);
    assert_eq!(load(&server, "ext").await.0, 200);
    assert_eq!(ask_external(&server, N).await, Ok(6.0));
}

#[tokio::test]
async fn a_server_without_a_free_file_descriptor_keeps_its_models_and_reloads_when_it_has_one() {
    let (dir, root) = repository();
    put_scaled(&root, "a/1/model.onnx", 1.0);
    let server = Server::start_limited(dir, &root, &POLL, "ulimit -n 64").await;
    assert_eq!(ask(&server, "a").await, Some(1.0));
    let address = server.base.trim_start_matches("http://").to_owned();
    let client = reqwest::Client::new();
    let url = server.url("/v2/models/a/infer");
    let again = || client.post(&url).body(x()).send();
    assert_eq!(again().await.unwrap().status(), 200);
    let idle: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(&address).unwrap())
        .collect();
    put_scaled(&root, "a/1/model.onnx", 2.0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.log().contains("Too many open files") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer: Value = again().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["outputs"][0]["data"][0], 1.0,
        "an open connection goes on"
    );
    drop(idle);
    until(&server, "a", Some(2.0)).await;
}
