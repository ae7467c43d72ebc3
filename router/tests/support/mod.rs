//! The real router as a process, pods that are real servers in the test's own process, and clients that never retry.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses a part of this

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router as Paths,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A router that dies with the test.
pub struct Router {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    folder: TempDir,
    log: Arc<Mutex<String>>,
}

impl Router {
    /// With these services, in YAML.
    pub fn start(state: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.yaml");
        std::fs::write(&file, state).unwrap();
        let command = command(&["--state", file.to_str().unwrap()], options);
        Self::begin(command, folder)
    }

    /// With the services of a cluster, whose API server is there without TLS.
    pub fn watching(api_server: SocketAddr, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}], \
             clusters: [{{name: c, cluster: {{server: 'http://{api_server}'}}}}]}}"
        );
        std::fs::write(&file, config).unwrap();
        let mut command = command(&["--kubernetes"], options);
        command.env("KUBECONFIG", file);
        Self::begin(command, folder)
    }

    fn begin(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let (http, admin) = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the router did not begin: {log}");
            };
            log += &line;
            log.push('\n');
            if let Some((http, admin)) = addresses(&line) {
                break (http, admin);
            }
        };
        let log = Arc::new(Mutex::new(log));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            http,
            admin,
            child,
            folder,
            log,
        }
    }

    /// Where its counts are read.
    pub fn stats(&self) -> String {
        let log = self.log();
        let (_, rest) = log
            .split_once("what comes of requests is told on ")
            .unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// Where requests come in with TLS.
    pub async fn https(&self) -> SocketAddr {
        let of = |log: String| {
            let (_, rest) = log.split_once("listening with TLS on https://")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        eventually("the router tells its port with TLS", || async {
            of(self.log()).is_some()
        })
        .await;
        of(self.log()).unwrap()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state.yaml")
    }

    /// Puts another file in the state's place and waits until it is used.
    pub async fn change(&self, state: &str) {
        let used = |log: &str| log.matches("has changed and is used").count();
        let before = used(&self.log());
        let beside = self.folder.path().join("next");
        std::fs::write(&beside, state).unwrap();
        std::fs::rename(&beside, self.file()).unwrap();
        eventually("the changed state is used", || async {
            used(&self.log()) > before
        })
        .await;
    }

    /// A file that cannot be used.
    pub async fn spoil(&self, state: &str) {
        std::fs::write(self.file(), state).unwrap();
        eventually("the spoiled state is told of", || async {
            self.log().contains("cannot be used")
        })
        .await;
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the router did not end: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.admin))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// The value of a series, 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub async fn wait_for_metric(&self, series: &str, value: f64) {
        eventually(&format!("{series} {value}"), || async {
            self.metric(series).await == value
        })
        .await;
    }

    /// One request on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        Client::new(self.http, host)
            .send(Request::get(path), "")
            .await
            .unwrap()
    }

    pub async fn post(&self, host: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        Client::new(self.http, host)
            .send(Request::post(path), body)
            .await
            .unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(source: &[&str], options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ortolan-router"));
    command
        .args(source)
        .args([
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--drain-delay",
            "0",
        ])
        .args(options)
        .env_remove("ORTOLAN_LOG")
        .env_remove("POD_NAME")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A router that cannot begin: its exit code and what it said.
pub fn refused(source: &[&str], options: &[&str]) -> (i32, String) {
    let output = command(source, options).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = line.split_once("listening on http://")?;
    let (http, admin) = rest.split_once(", admin on http://")?;
    Some((http.parse().unwrap(), admin.trim().parse().unwrap()))
}

/// Waits up to ten seconds.
pub async fn eventually<F, T>(what: &str, mut holds: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An answer as a client got it.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::String(self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The sentence of a refusal.
    pub fn error(&self) -> String {
        self.json()["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no sentence: {}", self.text()))
            .to_owned()
    }

    /// Who answered.
    pub fn pod(&self) -> String {
        self.json()["pod"]
            .as_str()
            .unwrap_or_else(|| panic!("no pod: {} {}", self.code, self.text()))
            .to_owned()
    }
}

/// One connection of HTTP/1.1 at a time; a new one when the server closed it. Nothing is ever sent twice.
pub struct Client {
    address: SocketAddr,
    host: String,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.into(),
            sender: None,
        }
    }

    pub async fn send(
        &mut self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.address)
                    .await
                    .map_err(|error| format!("connect: {error}"))?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| format!("handshake: {error}"))?;
                tokio::spawn(connection);
                sender
            }
        };
        let has_host = request
            .headers_ref()
            .is_some_and(|headers| headers.contains_key("host"));
        let request = if has_host {
            request
        } else {
            request.header("host", &self.host)
        };
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| format!("send: {error}"))?;
        let (parts, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("body: {error}"))?
            .to_bytes();
        self.sender = Some(sender);
        Ok(Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.send(Request::get(path), "").await
    }
}

/// A pod: a real server that says what reached it. Its answers follow the query: `sleep` (ms), `code`, `retry-after`,
/// `bytes` (of the answer), `failing` (so many requests first).
pub struct Pod {
    pub address: SocketAddr,
    pub hits: Arc<AtomicUsize>,
    pub peak: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct About {
    name: String,
    hits: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

/// A port that nobody listens on yet, and that nobody else gets: one that was let go may be the next one's, even that of
/// the router that asks it.
pub fn kept_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// An address that nobody listens on while this test program runs.
pub fn nobody() -> SocketAddr {
    let socket = kept_port();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

impl Pod {
    pub async fn start(name: &str) -> Self {
        Self::listening(name, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn listening(name: &str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let about = About {
            name: name.into(),
            hits: Arc::default(),
            now: Arc::default(),
            peak: Arc::default(),
        };
        let (hits, peak) = (Arc::clone(&about.hits), Arc::clone(&about.peak));
        let paths = Paths::new().fallback(told).with_state(about);
        let serving = tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
        Self {
            address,
            hits,
            peak,
            serving,
        }
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn told(
    State(about): State<About>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let hit = about.hits.fetch_add(1, Ordering::SeqCst) + 1;
    let now = about.now.fetch_add(1, Ordering::SeqCst) + 1;
    about.peak.fetch_max(now, Ordering::SeqCst);
    let number = |name: &str| query.get(name).map(|value| value.parse::<usize>().unwrap());
    if let Some(ms) = number("sleep") {
        tokio::time::sleep(Duration::from_millis(ms as u64)).await;
    }
    about.now.fetch_sub(1, Ordering::SeqCst);
    let fails = number("failing").is_none_or(|first| hit <= first);
    let code = number("code").filter(|_| fails).unwrap_or(200);
    if let Some(bytes) = number("bytes") {
        return vec![b'x'; bytes].into_response();
    }
    let headers: HashMap<&str, String> = headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let said = json!({
        "pod": about.name, "method": method.as_str(), "path": uri.to_string(),
        "headers": headers, "bytes": body.len(), "body": String::from_utf8_lossy(&body[..body.len().min(100)]),
    });
    let mut answer = (StatusCode::from_u16(code as u16).unwrap(), Json(said)).into_response();
    if let Some(seconds) = number("retry-after").filter(|_| fails) {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
        .headers_mut()
        .insert("keep-alive", "timeout=5".parse().unwrap());
    answer
}

/// The service demo/cats with these revisions: name, weight, pods.
pub fn cats(revisions: &[(&str, u8, &[SocketAddr])], routing: &str) -> String {
    let revisions: Vec<String> = revisions
        .iter()
        .map(|(name, weight, pods)| {
            format!(
                "{{name: {name}, weight: {weight}, endpoints: {}}}",
                list(pods)
            )
        })
        .collect();
    format!(
        "services: {{demo/cats: {{routing: {{{routing}}}, revisions: [{}]}}}}\n",
        revisions.join(", ")
    )
}

pub fn list(pods: &[SocketAddr]) -> String {
    let pods: Vec<String> = pods.iter().map(|pod| format!("'{pod}'")).collect();
    format!("[{}]", pods.join(", "))
}

/// A router before one pod.
pub async fn one_pod(routing: &str, options: &[&str]) -> (Pod, Router) {
    let pod = Pod::start("a").await;
    let state = cats(&[("cats-1", 100, &[pod.address])], routing);
    let router = Router::start(&state, options);
    (pod, router)
}
