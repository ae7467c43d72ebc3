//! Drives the real binary: starts it on a free port, waits until it is ready, stops it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses a part of this

pub mod grpc;
pub mod onnx;
pub mod tool;

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

/// A server of one model that dies with the test.
pub struct Server {
    pub base: String,
    child: Child,
    _dir: TempDir,
}

/// How a server ended that could not serve.
pub struct Ended {
    pub code: i32,
    pub termination_log: String,
    pub stderr: String,
}

/// A port for a server to come. Below the range from which the kernel takes ports for clients (32768 and more): one of
/// theirs could take it before the server does. Each process of tests begins elsewhere in it.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() * 131 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 18_000 + (next % 14_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn command(model: &Path, dir: &Path, port: u16, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ortolan-server"));
    command
        .arg(model)
        .args(["--http", &format!("127.0.0.1:{port}")])
        .args(["--drain-delay", "0"])
        .args(["--cache-dir", &dir.join("cache").display().to_string()])
        .args([
            "--termination-log",
            &dir.join("termination").display().to_string(),
        ])
        .args(options)
        .stdin(Stdio::null());
    command
}

/// Writes a model into a fresh directory.
pub fn written(model: &onnx::Model) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    (dir, path)
}

impl Server {
    /// Serves `model` under the name `m`.
    pub async fn start(model: &onnx::Model, options: &[&str]) -> Self {
        let (dir, path) = written(model);
        Self::start_in(dir, &path, options).await
    }

    pub async fn start_in(dir: TempDir, path: &Path, options: &[&str]) -> Self {
        let mut server = Self::spawn(dir, path, options);
        server.wait_until_ready().await;
        server
    }

    /// Serves with certificates: ready when its log says so.
    pub async fn start_with_tls(model: &onnx::Model, options: &[&str]) -> Self {
        let (dir, path) = written(model);
        let mut server = Self::spawn(dir, &path, options);
        server.base = server.base.replace("http:", "https:");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.log().contains("ready after") {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", server.log());
            }
            assert!(
                Instant::now() < deadline,
                "not ready in time: {}",
                server.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// Started, and not waited for.
    pub fn spawn(dir: TempDir, path: &Path, options: &[&str]) -> Self {
        let port = free_port();
        let options = [&["--name", "m"], options].concat();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = command(path, dir.path(), port, &options)
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            base: format!("http://127.0.0.1:{port}"),
            child,
            _dir: dir,
        }
    }

    /// A server that a shell starts after `before`, for instance limits.
    pub async fn start_limited(dir: TempDir, path: &Path, options: &[&str], before: &str) -> Self {
        let port = free_port();
        let options = [&["--name", "m"], options].concat();
        let direct = command(path, dir.path(), port, &options);
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = by_shell(&direct, before).stderr(log).spawn().unwrap();
        let mut server = Self {
            base: format!("http://127.0.0.1:{port}"),
            child,
            _dir: dir,
        };
        server.wait_until_ready().await;
        server
    }

    pub async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let ready = reqwest::get(format!("{}/healthz/ready", self.base)).await;
            if ready.is_ok_and(|response| response.status() == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server was not ready in time: {}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self._dir.path().join("log")).unwrap_or_default()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        parsed(reqwest::get(self.url(path)).await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        parsed(
            reqwest::Client::new()
                .post(self.url(path))
                .body(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub async fn infer(&self, body: &Value) -> (u16, Value) {
        self.post("/v2/models/m/infer", body.to_string()).await
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
                "the server did not end in time: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until `/metrics` has the line.
pub async fn wait_for_metric(server: &Server, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (_, metrics) = server.get("/metrics").await;
        if metrics.as_str().unwrap().contains(line) {
            return;
        }
        assert!(Instant::now() < deadline, "no {line}");
    }
}

async fn parsed(response: reqwest::Response) -> (u16, Value) {
    let code = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        code,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server that cannot serve and waits for its end.
pub fn fails(bytes: &[u8], options: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    fails_at(dir, &path, options)
}

pub fn fails_at(dir: TempDir, path: &Path, options: &[&str]) -> Ended {
    end_of(&dir, command(path, dir.path(), free_port(), options))
}

/// The same, by a shell after `before`.
pub fn fails_limited(dir: TempDir, path: &Path, options: &[&str], before: &str) -> Ended {
    let direct = command(path, dir.path(), free_port(), options);
    end_of(&dir, by_shell(&direct, before))
}

fn by_shell(direct: &Command, before: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{before}; exec \"$@\""), "sh"])
        .arg(direct.get_program())
        .args(direct.get_args())
        .stdin(Stdio::null());
    command
}

fn end_of(dir: &TempDir, mut command: Command) -> Ended {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the server did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    Ended {
        code: status.code().expect("an exit code, not a signal"),
        termination_log: fs::read_to_string(dir.path().join("termination")).unwrap_or_default(),
        stderr,
    }
}
