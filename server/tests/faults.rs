//! What the machine may do to a running server, and what becomes of it: docs/operations.md has the same as a table.
//! Files that change under a repository are in `reload.rs`, ends under load in `serving.rs` and `grpc.rs`.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ortolan_model::Digest;
use prost::Message;
use serde_json::{Value, json};
use support::{Server, onnx};

/// A store that stops in the middle of its first answer, and gives the whole file from then on. Counts its requests.
fn store(content: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.onnx", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let _ = stream.read(&mut [0; 4000]);
            let length = content.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let part = match count.fetch_add(1, Ordering::SeqCst) {
                0 => length / 2,
                _ => length,
            };
            let _ = stream.write_all(&content[..part]);
            if part < length {
                held.push(stream);
            }
        }
    });
    (url, asked)
}

/// A model of a megabyte, and what it is.
fn large() -> (Vec<u8>, Digest) {
    let bytes = onnx::slow(512, 1).encode_to_vec();
    assert!(bytes.len() > 1 << 20);
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

fn row(width: usize) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, width], "data": vec![1; width] }] })
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn names(folder: &Path) -> Vec<String> {
    let listed = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = listed
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_download_leaves_nothing_that_the_next_start_would_take_for_the_model()
 {
    let (bytes, digest) = large();
    let half = bytes.len() as u64 / 2;
    let (url, asked) = store(bytes);
    let kept = tempfile::tempdir().unwrap();
    let cache = kept.path().join("cache");
    let digest_text = digest.to_string();
    let options = [
        "--cache-dir",
        cache.to_str().unwrap(),
        "--digest",
        &digest_text,
    ];
    let start = || Server::spawn(tempfile::tempdir().unwrap(), Path::new(&url), &options);
    let mut killed = start();
    let deadline = Instant::now() + Duration::from_secs(30);
    let part = cache.join("work/0/download.part");
    while size_of(&part) < half {
        assert!(Instant::now() < deadline, "{}", killed.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    killed.signal("KILL");
    killed.ended(Duration::from_secs(5)).await;
    assert!(part.exists(), "nobody was left to remove it");
    let mut server = start();
    server.wait_until_ready().await;
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(report["digest"], digest_text.as_str(), "{report}");
    assert_eq!(server.infer(&row(512)).await.0, 200);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "it was fetched anew, whole"
    );
    assert!(!part.exists());
    // Killed while it serves: the next one finds the file, whole, and asks nobody for it.
    server.signal("KILL");
    server.ended(Duration::from_secs(5)).await;
    let mut again = start();
    again.wait_until_ready().await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_start_with_its_code_and_the_next_start_has_room_again() {
    let (bytes, _) = large();
    let (url, _) = store(bytes);
    // The first answer stops in the middle: somebody else has it.
    let _ = TcpStream::connect(
        url.trim_start_matches("http://")
            .trim_end_matches("/m.onnx"),
    )
    .map(|mut stream| stream.write_all(b"GET / HTTP/1.1\r\n\r\n"));
    let kept = tempfile::tempdir().unwrap();
    let cache = kept.path().join("cache").display().to_string();
    let options = ["--cache-dir", cache.as_str()];
    let place = url.clone();
    let limited = options.map(str::to_owned);
    // No file larger than 256 KiB can be written: the same to a process as a full disk, without a disk.
    let ended = tokio::task::spawn_blocking(move || {
        let limited = limited.each_ref().map(String::as_str);
        let before = "trap '' XFSZ; ulimit -f 256";
        support::fails_limited(
            tempfile::tempdir().unwrap(),
            Path::new(&place),
            &limited,
            before,
        )
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended.code, 17, "{}", ended.stderr);
    let sentence = &ended.termination_log;
    assert!(sentence.starts_with("OutOfSpace: "), "{sentence}");
    assert!(sentence.contains("download.part"), "{sentence}");
    let work = Path::new(&cache).join("work");
    assert_eq!(names(&work), [".lock"], "what was fetched of it is gone");
    let server = Server::start_in(tempfile::tempdir().unwrap(), Path::new(&url), &options).await;
    assert_eq!(server.infer(&row(512)).await.0, 200);
}

#[tokio::test]
async fn a_models_own_file_may_be_cut_off_written_over_or_deleted_while_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    fs::write(&path, onnx::slow(512, 1).encode_to_vec()).unwrap();
    let kept = path.clone();
    let server = Server::start_in(dir, &path, &["--sessions", "1"]).await;
    let (code, first) = server.infer(&row(512)).await;
    assert_eq!(code, 200);
    let file = fs::File::options().write(true).open(&kept).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(server.infer(&row(512)).await, (200, first.clone()));
    fs::write(&kept, onnx::scaled(2.0).encode_to_vec()).unwrap();
    assert_eq!(server.infer(&row(512)).await, (200, first.clone()));
    fs::remove_file(&kept).unwrap();
    assert_eq!(server.infer(&row(512)).await, (200, first));
}

#[tokio::test]
async fn a_run_that_asks_for_more_memory_than_there_is_fails_alone() {
    let server = Server::start(&onnx::zeros(), &["--sessions", "1", "--run-limit", "20s"]).await;
    let ask = async |count: i64| {
        let body = json!({ "inputs": [{ "name": "x", "datatype": "INT64", "shape": [1], "data": [count] }] });
        server.infer(&body).await
    };
    assert_eq!(ask(3).await.1["outputs"][0]["data"], json!([0.0, 0.0, 0.0]));
    for count in [1 << 46, i64::MAX / 8, i64::MAX] {
        let (code, answer) = ask(count).await;
        let sentence = answer["error"].as_str().unwrap_or_default();
        assert_eq!(code, 500, "{count}: {answer}");
        assert!(!sentence.is_empty(), "{count}: {answer}");
        let (code, answer) = ask(2).await;
        assert_eq!(code, 200, "the session goes on: {answer}");
    }
    let (_, sentence) = ask(1 << 46).await;
    assert!(sentence.to_string().contains("allocate"), "{sentence}");
    assert_eq!(server.get("/healthz/live").await.0, 200);
}

fn cpu(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    // User and system time, in hundredths of a second on every Linux.
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|text| text.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn without_a_free_file_descriptor_the_server_neither_ends_nor_spins_and_takes_connections_again()
 {
    let (dir, path) = support::written(&onnx::scaled(2.0));
    let server = Server::start_limited(dir, &path, &["--sessions", "1"], "ulimit -n 64").await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let client = reqwest::Client::new();
    let again = || {
        let request = client.post(server.url("/v2/models/m/infer"));
        request.body(row(2).to_string()).send()
    };
    assert_eq!(again().await.unwrap().status(), 200);
    let idle: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.log().contains("Too many open files") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = cpu(&server);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = cpu(&server) - before;
    assert!(busy < Duration::from_millis(500), "{busy:?} of two seconds");
    assert_eq!(
        again().await.unwrap().status(),
        200,
        "an open connection goes on"
    );
    drop(idle);
    let fresh = reqwest::Client::new().get(server.url("/healthz/ready"));
    let fresh = fresh.timeout(Duration::from_secs(10)).send().await;
    assert_eq!(fresh.unwrap().status(), 200);
}

/// Debian's libfaketime, where it is installed.
fn fake_time() -> Option<String> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|path| Path::new(path).is_file())
}

#[tokio::test]
async fn a_clock_that_jumps_by_years_ends_no_request_and_no_connection() {
    let Some(library) = fake_time() else {
        println!("skipped: it needs libfaketime (apt-get install libfaketime)");
        return;
    };
    let (dir, path) = support::written(&onnx::slow(512, 300));
    let clock = dir.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    // Only the clock of the day jumps: no administrator can move the monotonic one.
    let before = format!(
        "export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 \
         FAKETIME_TIMESTAMP_FILE={} LD_PRELOAD={library}",
        clock.display()
    );
    let server = Server::start_limited(dir, &path, &["--sessions", "1"], &before).await;
    let client = reqwest::Client::new();
    let ask = || {
        let request = client.post(server.url("/v2/models/m/infer"));
        let request = request.header("x-request-timeout", "20s");
        request.body(row(512).to_string()).send()
    };
    let start = Instant::now();
    assert_eq!(ask().await.unwrap().status(), 200);
    let alone = start.elapsed();
    for step in ["+3650d", "-3650d", "+0"] {
        // Some wait in the queue with their deadlines while it jumps.
        let waiting: Vec<_> = (0..6).map(|_| tokio::spawn(ask())).collect();
        tokio::time::sleep(alone / 2).await;
        fs::write(&clock, step).unwrap();
        for answer in waiting {
            assert_eq!(answer.await.unwrap().unwrap().status(), 200, "{step}");
        }
        let start = Instant::now();
        assert_eq!(ask().await.unwrap().status(), 200);
        assert!(
            start.elapsed() < alone * 20 + Duration::from_secs(1),
            "{step}"
        );
        let (_, statistics) = server.get("/v2/models/m/stats").await;
        let last = &statistics["model_stats"][0]["last_inference"];
        let year = 1970 + last.as_u64().unwrap() / 31_557_600_000;
        let now = Command::new("date").arg("+%Y").output().unwrap().stdout;
        let now: u64 = String::from_utf8(now).unwrap().trim().parse().unwrap();
        let expected = match step {
            "+3650d" => now + 9..=now + 11,
            "-3650d" => now - 11..=now - 9,
            _ => now - 1..=now + 1,
        };
        assert!(
            expected.contains(&year),
            "the clock did jump: {step} {year}"
        );
    }
    assert_eq!(server.get("/healthz/ready").await.0, 200);
}
