//! What a run has once: the chart, the model store of the examples and the load generator.

use std::sync::OnceLock;

use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    Failure, Result,
    command::{file, helm, helm_values, image, kubectl, kubectl_in, run},
    fail,
};

/// The release's name.
pub const RELEASE: &str = "ortolan";
/// Where the operator runs.
pub const SYSTEM: &str = "ortolan-system";
/// Where the load generator runs.
pub(crate) const LOAD: &str = "ortolan-e2e";

/// What a run has once.
pub struct Install;

impl Install {
    /// Installs everything, the first time in this process; later calls wait for that.
    ///
    /// # Errors
    /// What failed, to each caller.
    pub async fn once() -> Result {
        static DONE: OnceCell<std::result::Result<(), String>> = OnceCell::const_new();
        let all = async || {
            Self::chart(RELEASE, &[]).await?;
            Self::store().await?;
            Self::load().await
        };
        let done = DONE.get_or_init(async || all().await.map_err(|error| error.to_string()));
        done.await
            .clone()
            .map_err(|error| Failure::Wrong(format!("the installation failed: {error}")))
    }

    /// `helm upgrade --install` of the chart into [`SYSTEM`].
    ///
    /// # Errors
    /// When it fails or is not ready in time.
    pub async fn chart(release: &str, more: &[&str]) -> Result<String> {
        namespace(SYSTEM).await?;
        Self::chart_in(SYSTEM, release, more).await
    }

    /// `helm upgrade --install` of the chart into a namespace that exists.
    ///
    /// # Errors
    /// When it fails or is not ready in time.
    pub async fn chart_in(namespace: &str, release: &str, more: &[&str]) -> Result<String> {
        let (chart, values) = (file("charts/ortolan"), helm_values());
        let mut arguments = vec![
            "upgrade",
            "--install",
            release,
            &chart,
            "--namespace",
            namespace,
        ];
        arguments.extend(["--wait", "--timeout", "180s"]);
        arguments.extend(values.iter().map(String::as_str));
        arguments.extend(more);
        helm(&arguments).await
    }

    async fn store() -> Result {
        let manifest = file("examples/model-store.yaml");
        kubectl(&["apply", "-f", &manifest]).await?;
        let image = format!("model-store={}", image("model-store"));
        kubectl_in(
            "ortolan-models",
            &["set", "image", "deployment/model-store", &image],
        )
        .await?;
        rolled_out("ortolan-models", "deployment/model-store").await
    }

    async fn load() -> Result {
        namespace(LOAD).await?;
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "load", "namespace": LOAD},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "load"}},
                "template": {
                    "metadata": {"labels": {"app": "load"}},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [{
                            "name": "load", "image": image("load"), "imagePullPolicy": "IfNotPresent",
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                            "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
                            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                        }],
                    },
                },
            },
        });
        apply(&manifest).await?;
        rolled_out(LOAD, "deployment/load").await
    }
}

/// Creates the namespace if it is not there, under PodSecurity `restricted`.
pub(crate) async fn namespace(name: &str) -> Result {
    apply(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted", "ortolan-e2e": "true"}},
    }))
    .await
}

/// `kubectl apply --server-side` of one object.
pub(crate) async fn apply(object: &serde_json::Value) -> Result {
    let folder = scratch()?;
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = format!("{folder}/{}-{number}.json", std::process::id());
    let spawned = |error| Failure::Spawn(path.clone(), error);
    tokio::fs::write(&path, object.to_string())
        .await
        .map_err(spawned)?;
    let applied = run(
        "kubectl",
        &["apply", "--server-side", "--force-conflicts", "-f", &path],
    )
    .await;
    tokio::fs::remove_file(&path).await.map_err(spawned)?;
    applied.map(drop)
}

/// A folder of this run for files that programs read.
///
/// # Errors
/// When it cannot be made.
pub fn scratch() -> Result<&'static str> {
    static FOLDER: OnceLock<Option<String>> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let run = std::env::var("ORTOLAN_E2E_RUN")
            .unwrap_or_else(|_| std::env::temp_dir().display().to_string());
        let folder = format!("{run}/e2e-files");
        std::fs::create_dir_all(&folder).is_ok().then_some(folder)
    });
    match made {
        Some(folder) => Ok(folder),
        None => fail("no folder for files: set ORTOLAN_E2E_RUN to one that can be written"),
    }
}

/// Waits until everything of a Deployment runs.
pub(crate) async fn rolled_out(namespace: &str, what: &str) -> Result {
    kubectl_in(namespace, &["rollout", "status", what, "--timeout=180s"])
        .await
        .map(drop)
}
