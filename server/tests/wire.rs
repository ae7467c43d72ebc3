//! What any bytes on a connection may do to the running server: nothing. Heads, lines and frames that are too
//! long, too many, too deep, or broken; and what [`mutate`] makes of good ones (`ORTOLAN_FUZZ_CASES` of them).

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../tests/fuzz/src/mutate.rs"]
mod mutate;
mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use support::{Server, onnx};

const ROW: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

/// When an answer that comes at all has come, mostly.
const SOON: Duration = Duration::from_millis(20);
/// When it has come even on a busy machine.
const LONG: Duration = Duration::from_secs(10);

async fn start() -> Server {
    let options = ["--max-body-bytes", "1000000", "--sessions", "1"];
    Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &options).await
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

/// What comes back for these bytes, which may take `patience` to begin; then the client ends, and so must the connection.
fn exchange(server: &Server, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // A server that refuses closes before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 1 << 16];
    let begun = stream.read(&mut answer).unwrap_or_default();
    answer.truncate(begun);
    stream.set_read_timeout(Some(SOON)).unwrap();
    let is_open = matches!(stream.read_to_end(&mut answer), Err(error) if error.kind() == ErrorKind::WouldBlock);
    if is_open {
        let _ = stream.shutdown(Shutdown::Write);
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let start = Instant::now();
        let ended = stream.read_to_end(&mut answer);
        let is_over = !matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(
            is_over,
            "after {:?} the connection is open still",
            start.elapsed()
        );
    }
    answer
}

/// The code of the first answer.
fn code(answer: &[u8]) -> Option<u16> {
    let code = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn heads_that_are_too_long_or_have_too_many_lines_are_refused() {
    let server = start().await;
    let line = |length: usize| format!("X-Long: {}\r\n", "a".repeat(length));
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: a\r\n"))
            .collect::<String>()
    };
    let path = "/v2/models/m/infer";
    for (what, bytes, codes) in [
        ("a line of 60 KiB", post(path, &line(60 << 10), ROW), &[200][..]),
        ("a line of 1 MiB", post(path, &line(1 << 20), ROW), &[400, 431]),
        ("98 lines", post(path, &many(98), ROW), &[200]),
        ("200 lines", post(path, &many(200), ROW), &[400, 431]),
        ("a path of 200 KiB", post(&"/a".repeat(100 << 10), "", ROW), &[400, 414, 431]),
        ("no HTTP", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), &[400]),
        ("two lengths", post(path, "Content-Length: 3\r\n", ROW), &[400]),
        ("a length and chunks", post(path, "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[200, 400]),
        ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_vec(), &[400]),
        ("a chunk of 2^63 bytes", b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\na".to_vec(), &[400]),
    ] {
        let answer = exchange(&server, &bytes, LONG);
        // What is refused while it is still being sent may be cut off before the answer is read.
        let is_cut_off = answer.is_empty() && bytes.len() > 128 << 10 && codes[0] != 200;
        assert!(
            is_cut_off || code(&answer).is_some_and(|code| codes.contains(&code)),
            "{what}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(300)])
        );
    }
    assert_eq!(server.get("/healthz/live").await.0, 200);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = start().await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let two = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\nGET /v2 HTTP/1.1\r\nHo";
    stream.write_all(two).unwrap();
    let mut first = vec![0; 1000];
    let read = stream.read(&mut first).expect("the first answer");
    assert_eq!(code(&first[..read]), Some(200));
    stream.write_all(b"st: a\r\n\r\n").unwrap();
    let read = stream.read(&mut first).expect("the second answer");
    assert_eq!(code(&first[..read]), Some(200));
}

#[tokio::test]
async fn deep_json_is_400_wherever_it_stands() {
    let server = start().await;
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let (arrays, objects) = (deep("[", "]"), deep("{\"a\":", "}"));
    for body in [
        arrays.clone(),
        objects,
        format!(r#"{{"unknown":{arrays}}}"#),
        format!(r#"{{"parameters":{{"a":{arrays}}},"inputs":[]}}"#),
        format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,2],"data":{arrays}}}]}}"#),
        format!(r#"{{"inputs":{arrays}}}"#),
    ] {
        for path in [
            "/v2/models/m/infer",
            "/v1/models/m:predict",
            "/v1/embeddings",
        ] {
            let start = Instant::now();
            let (code, answer) = server.post(path, body.clone()).await;
            assert!([400, 404, 415].contains(&code), "{path}: {code} {answer}");
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{:?}",
                start.elapsed()
            );
        }
    }
    assert_eq!(server.post("/v2/models/m/infer", ROW).await.0, 200);
}

#[tokio::test]
async fn a_body_that_unpacks_to_more_than_the_limit_is_413_and_takes_no_memory() {
    use std::io::Write as _;
    let server = start().await;
    let before = resident(&server);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..900 {
        packed.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = packed.finish().unwrap();
    assert!(bomb.len() < 1_000_000, "{} bytes", bomb.len());
    let client = reqwest::Client::new();
    for _ in 0..8 {
        let request = client
            .post(server.url("/v2/models/m/infer"))
            .body(bomb.clone());
        let response = request
            .header("content-encoding", "gzip")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 413);
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_drip_their_requests_take_nothing_from_the_others() {
    let server = start().await;
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let before = resident(&server);
    let halves = [
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n{",
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nX-Half: ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "",
    ];
    let mut slow: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream
                .write_all(halves[number % halves.len()].as_bytes())
                .unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        for (number, stream) in slow.iter_mut().enumerate() {
            if number % halves.len() < 2 {
                stream.write_all(b"a").unwrap();
            }
        }
        let start = Instant::now();
        assert_eq!(server.post("/v2/models/m/infer", ROW).await.0, 200);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for 400 connections");
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A call over HTTP/2 as its bytes are on the wire: preface, settings, headers without compression, data.
fn call(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", kind),
        ("te", "trailers"),
    ] {
        headers.extend([0, name.len() as u8]);
        headers.extend(name.as_bytes());
        headers.push(value.len() as u8);
        headers.extend(value.as_bytes());
    }
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(1, 4, 1, &headers),
        frame(0, 1, 1, body),
        frame(6, 0, 0, &[1; 8]),
    ]
    .concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let chunked =
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = format!(
        "{chunked}{:x};a=b\r\n{ROW}\r\n0\r\nX-Trailer: a\r\n\r\n",
        ROW.len()
    );
    let path = "/v2/models/m/infer";
    let pipelined = [
        post(path, "", ROW),
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ]
    .concat();
    let message = b"\0\0\0\0\x03\x0a\x01m";
    vec![
        post(path, "Connection: close\r\n", ROW),
        post(
            path,
            "Content-Type: application/json\r\nExpect: 100-continue\r\n",
            ROW,
        ),
        post(
            path,
            "Inference-Header-Content-Length: 20\r\nX-Request-Timeout: 1s\r\n",
            ROW,
        ),
        pipelined,
        chunks.into_bytes(),
        b"GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n".to_vec(),
        b"HEAD /openapi.json HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\n\r\n".to_vec(),
        call(
            "/inference.GRPCInferenceService/ModelInfer",
            "application/grpc",
            message,
        ),
        call(
            "/inference.GRPCInferenceService/ModelReady",
            "application/grpc",
            message,
        ),
        call(path, "application/json", ROW.as_bytes()),
    ]
}

#[tokio::test]
async fn no_bytes_on_a_connection_are_answered_with_500_or_end_the_server() {
    let server = start().await;
    let cases = std::env::var("ORTOLAN_FUZZ_CASES").map_or(1_000, |text| text.parse().unwrap());
    let seeds = seeds();
    for seed in &seeds {
        assert!(
            !exchange(&server, seed, LONG).is_empty(),
            "{}",
            String::from_utf8_lossy(seed)
        );
    }
    let (before, start) = (resident(&server), Instant::now());
    let mut answered = 0;
    for number in 0..cases {
        let bytes = mutate::input(&seeds, number);
        let answer = exchange(&server, &bytes, SOON);
        let code = code(&answer);
        answered += u64::from(!answer.is_empty());
        let is_ours = code.is_some_and(|code| [500, 501, 502].contains(&code));
        assert!(
            !is_ours,
            "input {number}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    println!(
        "{cases} inputs, {answered} answered, {:.1} s, {} KiB more resident",
        start.elapsed().as_secs_f64(),
        resident(&server).saturating_sub(before) >> 10
    );
    assert!(answered * 2 > cases, "{answered} of {cases}");
    assert_eq!(server.post("/v2/models/m/infer", ROW).await.0, 200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let (_, metrics) = server.get("/metrics").await;
    let idle = r#"ortolan_in_flight{model="m",version="1"} 0"#;
    assert!(metrics.as_str().unwrap().contains(idle), "{metrics}");
}
