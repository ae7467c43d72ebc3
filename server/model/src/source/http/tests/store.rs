//! A scripted HTTP store on loopback: it answers byte for byte what a test writes, breaks off where
//! the test says, and remembers what it was asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The head of one request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One piece of an answer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
}

/// An answer: its pieces, then the connection is closed.
pub(super) type Answer = Vec<Step>;

/// `status`, headers and body in one piece; a Content-Length must be among the headers.
pub(super) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {status}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    vec![Step::Send(bytes)]
}

/// A whole and honest answer.
pub(super) fn whole(body: &[u8]) -> Answer {
    answer(
        "200 OK",
        &[
            ("content-length", &body.len().to_string()),
            ("etag", "\"v1\""),
        ],
        body,
    )
}

/// 206 from `first` on.
pub(super) fn rest(body: &[u8], first: usize, etag: &str) -> Answer {
    let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
    let length = (body.len() - first).to_string();
    let headers = [
        ("content-length", &*length),
        ("content-range", &range),
        ("etag", etag),
    ];
    answer("206 Partial Content", &headers, &body[first..])
}

/// Promises all of `body`, sends its first bytes and breaks off.
pub(super) fn broken(body: &[u8], sent: usize, headers: &[(&str, &str)]) -> Answer {
    let length = body.len().to_string();
    let mut all = vec![("content-length", &*length)];
    all.extend(headers);
    answer("200 OK", &all, &body[..sent])
}

pub(super) fn first_byte(asked: &Asked) -> Option<usize> {
    asked
        .header("range")?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}

/// A running store.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Store {
    /// Answers the n-th request (from 0) with `script(n, request)`.
    pub(super) async fn start(
        script: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log), Arc::clone(&script)));
            }
        });
        Self {
            url: Url::parse(&format!("http://{address}/m.onnx")).unwrap(),
            asked,
        }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Asked>>>,
    script: Arc<impl Fn(usize, &Asked) -> Answer>,
) {
    let Some(request) = read_head(&mut stream).await else {
        return;
    };
    let answer = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        script(log.len() - 1, &request)
    };
    for step in answer {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_head(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    Some(Asked { target, headers })
}
