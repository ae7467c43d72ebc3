//! A test: a namespace of its own, and everything that a person would ask for when it fails.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kube::Client;
use tokio::{
    sync::{Mutex, MutexGuard, RwLock},
    time::sleep,
};

use crate::{
    Failure, Install, Result, SYSTEM, Service,
    command::example,
    fail,
    install::{apply, namespace},
    kubectl, kubectl_in,
};

/// Held for reading by a test that others do not disturb, for writing by one that disturbs them.
static PEACE: RwLock<()> = RwLock::const_new(());
/// Held by a test whose pods ask for a whole core: a node may have no more than one to give.
static CORE: Mutex<()> = Mutex::const_new(());

/// A running test.
pub struct Test {
    /// Talks to the API server.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
}

impl Test {
    /// Runs a test beside others.
    pub async fn run(body: impl AsyncFnOnce(&Self) -> Result) {
        let _peace = PEACE.read().await;
        Self::whole(body).await;
    }

    /// Runs a test while no other one runs.
    pub async fn alone(body: impl AsyncFnOnce(&Self) -> Result) {
        let _peace = PEACE.write().await;
        Self::whole(body).await;
    }

    async fn whole(body: impl AsyncFnOnce(&Self) -> Result) {
        let start = Instant::now();
        let outcome = Self::prepared(body).await;
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let seconds = start.elapsed().as_secs_f32();
        let word = if outcome.is_ok() { "ok" } else { "failed" };
        note(&format!("{seconds:.1}\t{word}\t{name}\n"));
        if let Err(error) = outcome {
            panic!("{error}");
        }
    }

    async fn prepared(body: impl AsyncFnOnce(&Self) -> Result) -> Result {
        Install::once().await?;
        let test = Self {
            client: Client::try_default().await?,
            namespace: fresh_name(),
        };
        namespace(&test.namespace).await?;
        let outcome = body(&test).await;
        if outcome.is_err() {
            test.tell_all().await;
        }
        if std::env::var_os("ORTOLAN_E2E_KEEP").is_none() {
            test.clear(&test.namespace).await?;
        }
        outcome
    }

    /// Deletes a namespace; it ends later.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn clear(&self, namespace: &str) -> Result {
        let gone = ["delete", "namespace", namespace, "--wait=false"];
        kubectl(&gone).await.map(drop)
    }

    /// A second namespace, which [`Self::clear`] takes away.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn another_namespace(&self) -> Result<String> {
        let name = fresh_name();
        namespace(&name).await?;
        Ok(name)
    }

    /// Waits for the core that pods with the operator's own default of 1 CPU need.
    pub async fn core(&self) -> MutexGuard<'static, ()> {
        CORE.lock().await
    }

    /// An InferenceService of this test.
    #[must_use]
    pub fn service(&self, name: &str) -> Service {
        Service::new(&self.client, &self.namespace, name)
    }

    /// `tiny`, an InferenceService of this test with this spec, when it answers.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn serving(&self, spec: &serde_json::Value) -> Result<Service> {
        let service = self.service("tiny");
        service.apply(spec).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        Ok(service)
    }

    /// An InferenceService of another namespace.
    #[must_use]
    pub fn service_in(&self, namespace: &str, name: &str) -> Service {
        Service::new(&self.client, namespace, name)
    }

    /// `kubectl apply -f examples/NAME`, as it stands.
    ///
    /// # Errors
    /// When it fails.
    pub async fn apply_example(&self, name: &str) -> Result<String> {
        let path = example(name);
        self.kubectl(&["apply", "-f", &path]).await
    }

    /// Applies an object.
    ///
    /// # Errors
    /// When it fails.
    pub async fn apply(&self, object: &serde_json::Value) -> Result {
        apply(object).await
    }

    /// `kubectl` in this test's namespace.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl_in(&self.namespace, arguments).await
    }

    /// Waits until the namespace's events hold all of these words: an event is told after the status.
    ///
    /// # Errors
    /// When they do not within 30 s.
    pub async fn until_events(&self, words: &[&str]) -> Result {
        let all = [
            "get",
            "events",
            "-o",
            "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}",
        ];
        let start = Instant::now();
        loop {
            let events = self.kubectl(&all).await?;
            if words.iter().all(|word| events.contains(word)) {
                return Ok(());
            }
            if start.elapsed().as_secs() >= 30 {
                return Err(Failure::Late {
                    what: format!("there are the events {words:?}"),
                    seconds: 30,
                    last: events,
                });
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// A file of the model store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn file_of_the_store(&self, name: &str) -> Result<Vec<u8>> {
        let uri =
            format!("/api/v1/namespaces/ortolan-models/services/model-store:http/proxy/{name}");
        let request = http::Request::get(uri).body(kube::client::Body::empty())?;
        let answer = self.client.send(request).await?;
        if !answer.status().is_success() {
            return fail(format!("the store answers {} for {name}", answer.status()));
        }
        Ok(answer.into_body().collect_bytes().await?.to_vec())
    }

    /// What a person would ask for.
    async fn tell_all(&self) {
        let ns = self.namespace.as_str();
        for arguments in [
            vec!["get", "oisvc,deployments,pods,services", "-o", "wide"],
            vec!["describe", "oisvc"],
            vec!["describe", "pods"],
            vec!["get", "events", "--sort-by=.lastTimestamp"],
            vec![
                "logs",
                "-l",
                "app.kubernetes.io/managed-by=ortolan",
                "--prefix",
                "--tail=40",
            ],
        ] {
            tell(ns, &arguments).await;
        }
        let operators = "app.kubernetes.io/component=operator";
        let logs = kubectl_in(
            SYSTEM,
            &["logs", "-l", operators, "--prefix", "--tail=2000"],
        )
        .await;
        let logs = logs.unwrap_or_else(|error| error.to_string());
        let mine: Vec<_> = logs.lines().filter(|line| line.contains(ns)).collect();
        let tail = mine.len().saturating_sub(60);
        eprintln!(
            "--- the operators' logs about {ns}\n{}",
            mine[tail..].join("\n")
        );
        tell(SYSTEM, &["get", "pods", "-o", "wide"]).await;
    }
}

async fn tell(namespace: &str, arguments: &[&str]) {
    let told = kubectl_in(namespace, arguments).await;
    let told = told.unwrap_or_else(|error| error.to_string());
    eprintln!("--- kubectl -n {namespace} {}\n{told}", arguments.join(" "));
}

/// Differs between the tests of a run, and between runs on one cluster.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let run = now.map_or(0, |now| now.as_secs() % 1_000_000);
    format!("e2e-{run}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One line in the run's list of tests, which people read to see where the time goes.
fn note(line: &str) {
    use std::io::Write as _;
    let Ok(folder) = crate::install::scratch() else {
        return;
    };
    let list = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(format!("{folder}/tests.tsv"));
    let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("{folder}/tests.tsv cannot be written: {error}");
    }
}
