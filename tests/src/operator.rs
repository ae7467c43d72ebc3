//! The operator under test: on a thread of this process, or a process of its own.

use std::{
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use clap::Parser as _;
use http::{HeaderValue, header::USER_AGENT};
use kube::client::ClientBuilder;
use ortolan_operator::{options, run};
use tokio::sync::watch;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    tap::Tap,
    wire::Wire,
    world::{World, config},
};

/// What an operator logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// How an operator on a thread ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// Everything is dropped where it stands, as by SIGKILL.
    Now,
}

/// An operator on a thread of its own, for one namespace.
pub struct Operator {
    /// What it sends as its user agent: nobody else does.
    pub agent: String,
    /// What it logged.
    pub log: Log,
    /// Its requests.
    pub tap: Tap,
    stop: watch::Sender<bool>,
    end: watch::Sender<End>,
    thread: Option<JoinHandle<()>>,
}

impl Operator {
    /// The default operator: CPU image `ortolan/server:1`, no leader election.
    #[must_use]
    pub fn start(world: &World) -> Self {
        Self::with(world, &[], Tap::default())
    }

    /// With more options, and through this tap.
    #[must_use]
    pub fn with(world: &World, options: &[&str], tap: Tap) -> Self {
        Self::through(world, options, tap, None)
    }

    /// The same, with the API server at the end of this wire.
    #[must_use]
    pub fn through(world: &World, options: &[&str], tap: Tap, wire: Option<&Wire>) -> Self {
        let mut arguments = vec![
            "ortolan-operator",
            "run",
            "--namespace",
            &world.namespace,
            "--http",
            "127.0.0.1:0",
            "--lease-namespace",
            &world.namespace,
        ];
        if !options.contains(&"--server-image-cpu") {
            arguments.extend(["--server-image-cpu", "ortolan/server:1"]);
        }
        if !options.contains(&"--leader-elect") {
            arguments.extend(["--leader-elect", "false"]);
        }
        arguments.extend(options);
        let options = match options::Options::try_parse_from(arguments) {
            Ok(options::Options {
                command: options::Command::Run(options),
            }) => *options,
            other => panic!("no options of `run`: {other:?}"),
        };
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let agent = format!("ortolan-test/{}/{count}/", world.namespace);
        let log = Log::default();
        world.keep_log(&agent, log.clone());
        let (stop, stopping) = watch::channel(false);
        let (end, ending) = watch::channel(End::NotYet);
        let url = wire.map(Wire::url);
        let thread = std::thread::spawn({
            let (agent, log, tap) = (agent.clone(), log.clone(), tap.clone());
            move || on_thread(&agent, log, &tap, url, options, stopping, ending)
        });
        Self {
            agent,
            log,
            tap,
            stop,
            end,
            thread: Some(thread),
        }
    }

    /// Whether it has ended by itself: then the kubelet would start it again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut thread = self.thread.iter();
        thread.any(JoinHandle::is_finished)
    }

    /// Ends it as a signal does, and waits until it has ended.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.join().await;
    }

    /// Ends it as SIGKILL does.
    pub async fn kill(self) {
        self.end.send_replace(End::Now);
        self.join().await;
    }

    async fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            joined
                .expect("a task")
                .expect("the operator does not panic");
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end.send_replace(End::Now);
    }
}

fn on_thread(
    agent: &str,
    log: Log,
    tap: &Tap,
    url: Option<http::Uri>,
    options: options::Run,
    stopping: watch::Receiver<bool>,
    mut ending: watch::Receiver<End>,
) {
    // One thread for all of its tasks, so that the subscriber of this thread gets its whole log.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,ortolan_operator=debug"))
        .with_ansi(false)
        .with_writer(log)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut config = config().await;
        let value = HeaderValue::from_str(agent).expect("a user agent in ASCII");
        config.headers.push((USER_AGENT, value));
        if let Some(url) = url {
            config.cluster_url = url;
        }
        let client = ClientBuilder::try_from(config)
            .expect("a client")
            .with_layer(tap)
            .build();
        tokio::select! {
            result = run::operate(client, options, stopping) => {
                if let Err(error) = result {
                    tracing::error!("the operator ended: {error:#}");
                }
            }
            _ = ending.wait_for(|end| *end == End::Now) => {}
        }
    });
    runtime.shutdown_background();
}

/// An operator as a process, for what only signals can do.
pub struct Process {
    /// Its pod's name.
    pub pod: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// A candidate for the Lease `ortolan-operator` of the namespace. Its identity begins with the name of
    /// its `pod`, which is its default image's name too, to tell what it made.
    #[must_use]
    pub fn candidate(world: &World, pod: &str) -> Self {
        let program = std::env::var("ORTOLAN_OPERATOR")
            .expect("ORTOLAN_OPERATOR names the operator's program: start the tests by tests/run");
        let folder = std::env::temp_dir();
        let log = folder.join(format!("{}-{pod}.log", world.namespace));
        let file = std::fs::File::create(&log).expect("a log file");
        let child = Command::new(program)
            .args(["run", "--namespace", &world.namespace])
            .args(["--lease-namespace", &world.namespace])
            .args(["--http", "127.0.0.1:0", "--server-image-cpu", pod])
            .env("POD_NAME", pod)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the operator's program starts");
        Self {
            pod: pod.to_owned(),
            child,
            log,
        }
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal}");
    }

    /// Waits for its end; answers whether it ended well.
    pub async fn ended(&mut self) -> bool {
        loop {
            match self.child.try_wait().expect("a child of ours") {
                Some(status) => return status.success(),
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("===== log of process {}\n{}", self.child.id(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}
