//! An InferenceService: what a person does with it and sees of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use ortolan_crds::{InferenceService, names};
use ortolan_e2e_load::Way;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{Failure, Load, Reply, Result, STORE, fail, load};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The spec of a tiny service: a model of the store, on little CPU. A change takes over [at once](at_once).
#[must_use]
pub fn spec(model: &str) -> Value {
    let mut spec = plain_spec(model);
    spec["rollout"] = at_once();
    spec
}

/// All of the requests move to a new revision when it is ready, and nothing is kept of the old one. Needs routers, as
/// what follows the move is watched.
fn at_once() -> Value {
    json!({"strategy": "BlueGreen", "rollbackWindow": "0s", "analysis": {"settle": "10s"}})
}

/// [`spec`] without a word about the rollout.
#[must_use]
pub fn plain_spec(model: &str) -> Value {
    let uri = if model.contains("://") {
        model.to_owned()
    } else {
        format!("{STORE}/{model}")
    };
    json!({
        "model": {"uri": uri},
        "server": {"resources": {
            "requests": {"cpu": "20m", "memory": "64Mi"},
            "limits": {"memory": "384Mi"},
        }},
    })
}

/// The change of a tiny service to the other tiny model, whose answers begin with 2 in place of 1.
#[must_use]
pub fn other_model() -> Value {
    json!({"model": spec("bad/identity-2.onnx")["model"]})
}

/// An InferenceService of a test.
pub struct Service {
    /// Talks to the API server.
    pub client: Client,
    api: Api<InferenceService>,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Service {
    pub(crate) fn new(client: &Client, namespace: &str, name: &str) -> Self {
        Self {
            client: client.clone(),
            api: Api::namespaced(client.clone(), namespace),
            name: name.into(),
            namespace: namespace.into(),
        }
    }

    /// Applies a spec.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn apply(&self, spec: &Value) -> Result {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": self.name}, "spec": spec,
        });
        let by = PatchParams::apply("ortolan-e2e").force();
        self.api
            .patch(&self.name, &by, &Patch::Apply(&object))
            .await?;
        Ok(())
    }

    /// Changes parts of the spec.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn change(&self, spec: &Value) -> Result {
        let patch = json!({"spec": spec});
        let by = PatchParams::default();
        self.api
            .patch(&self.name, &by, &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Deletes it; what it owns goes later.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn delete(&self) -> Result {
        self.api
            .delete(&self.name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// As it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(&self) -> Result<InferenceService> {
        Ok(self.api.get(&self.name).await?)
    }

    /// A condition, as it is now, when it speaks of the present spec.
    ///
    /// # Errors
    /// When the object cannot be read.
    pub async fn condition(&self, kind: &str) -> Result<Option<Condition>> {
        Ok(condition(&self.get().await?, kind))
    }

    /// Waits until something holds of the object. An API server that does not answer is waited for, too.
    ///
    /// # Errors
    /// When it does not come to hold in time; with the conditions at the end.
    pub async fn until(
        &self,
        what: &str,
        seconds: u64,
        holds: impl Fn(&InferenceService) -> bool,
    ) -> Result<InferenceService> {
        let start = Instant::now();
        loop {
            let last = match self.get().await {
                Ok(service) if holds(&service) => return Ok(service),
                Ok(service) => told(&service),
                Err(error) => error.to_string(),
            };
            if start.elapsed().as_secs() >= seconds {
                let what = format!("{}/{}: {what}", self.namespace, self.name);
                return Err(Failure::Late {
                    what,
                    seconds,
                    last,
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the present spec is what serves.
    ///
    /// # Errors
    /// When it does not within two minutes.
    pub async fn until_ready(&self) -> Result<InferenceService> {
        self.until("Ready is True with the reason Serving", 120, |service| {
            condition(service, "Ready").is_some_and(|c| c.status == "True" && c.reason == "Serving")
        })
        .await
    }

    /// Waits until the Service answers: kube-proxy may take a second after the pod is ready, each time
    /// that there was no ready pod before.
    ///
    /// # Errors
    /// When it does not within 20 s.
    pub async fn until_answers(&self) -> Result {
        let start = Instant::now();
        loop {
            let last = match self.get_path("/v2/health/ready").await {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => format!("{reply:?}"),
                Err(error) => error.to_string(),
            };
            if start.elapsed().as_secs() >= 20 {
                let what = format!("{} answers", self.url("/v2/health/ready"));
                return Err(Failure::Late {
                    what,
                    seconds: 20,
                    last,
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until Ready gives this reason; its message.
    ///
    /// # Errors
    /// When it does not within two minutes.
    pub async fn until_reason(&self, reason: &str) -> Result<String> {
        let what = format!("Ready gives the reason {reason}");
        let service = self
            .until(&what, 120, |service| {
                condition(service, "Ready").is_some_and(|c| c.reason == reason)
            })
            .await?;
        Ok(condition(&service, "Ready").map_or_else(String::new, |c| c.message))
    }

    /// Waits until `revision` alone has pods.
    ///
    /// # Errors
    /// When others still have some after two minutes.
    pub async fn until_only(&self, revision: &str) -> Result {
        let wanted = BTreeSet::from([revision.to_owned()]);
        let start = Instant::now();
        loop {
            let found = self.revisions_with_pods().await;
            if found.as_ref().is_ok_and(|found| *found == wanted) {
                return Ok(());
            }
            if start.elapsed().as_secs() >= 120 {
                return Err(Failure::Late {
                    what: format!("only {revision} has pods"),
                    seconds: 120,
                    last: format!("{found:?}"),
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until it has no pods, not even ended ones.
    ///
    /// # Errors
    /// When some are left after two minutes.
    pub async fn until_no_pods(&self) -> Result {
        let start = Instant::now();
        loop {
            let left = self.pods().await?.len();
            if left == 0 {
                return Ok(());
            }
            if start.elapsed().as_secs() >= 120 {
                return Err(Failure::Late {
                    what: format!("{} has no pods", self.name),
                    seconds: 120,
                    last: format!("{left} are left"),
                });
            }
            sleep(LOOK).await;
        }
    }

    async fn revisions_with_pods(&self) -> Result<BTreeSet<String>> {
        let pods = self.pods().await?;
        Ok(pods
            .into_iter()
            .filter_map(|pod| pod.metadata.labels?.get(names::REVISION).cloned())
            .collect())
    }

    /// Its pods, the ending ones too.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mine = ListParams::default().labels(&format!("{}={}", names::SERVICE, self.name));
        Ok(pods.list(&mine).await?.items)
    }

    /// Waits until this many pods are ready, without counting the one that was deleted.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub async fn until_ready_pods(&self, count: usize, deleted: &str) -> Result {
        let start = Instant::now();
        loop {
            let pods = self.pods().await?;
            let ready = pods
                .iter()
                .filter(|pod| is_ready(pod) && pod.metadata.name.as_deref() != Some(deleted));
            let ready = ready.count();
            if ready == count {
                return Ok(());
            }
            if start.elapsed().as_secs() >= 120 {
                return Err(Failure::Late {
                    what: format!("{count} pods of {} are ready", self.name),
                    seconds: 120,
                    last: format!("{ready} are"),
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Deletes one of its ready pods, as a person does; its name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_a_pod(&self) -> Result<String> {
        let pods = self.pods().await?;
        let ready = pods.into_iter().find(is_ready);
        let Some(name) = ready.and_then(|pod| pod.metadata.name) else {
            return fail(format!("{} has no ready pod", self.name));
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        api.delete(&name, &DeleteParams::default()).await?;
        Ok(name)
    }

    /// Where clients in the cluster reach a path of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}.{}.svc{path}", self.name, self.namespace)
    }

    async fn ask(
        &self,
        method: &str,
        url: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Reply> {
        load::ask(
            &self.client,
            method,
            url,
            &Way::default(),
            content_type,
            body,
        )
        .await
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is one.
    pub async fn get_path(&self, path: &str) -> Result<Reply> {
        self.ask("GET", &self.url(path), "", Vec::new()).await
    }

    /// POST.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is one.
    pub async fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Reply> {
        self.ask("POST", &self.url(path), content_type, body).await
    }

    /// POST to one of its pods, past Service and routers.
    ///
    /// # Errors
    /// When it has no pod with an address, or there is no answer; an answer of any status is one.
    pub async fn post_to_a_pod(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Reply> {
        let address = self
            .pods()
            .await?
            .into_iter()
            .find_map(|pod| pod.status?.pod_ip);
        let Some(address) = address else {
            return fail(format!("{} has no pod with an address", self.name));
        };
        let url = format!("http://{address}:8080{path}");
        self.ask("POST", &url, content_type, body).await
    }

    /// V2 infer with these inputs.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is one.
    pub async fn infer(&self, inputs: Value) -> Result<Reply> {
        let path = format!("/v2/models/{}/infer", self.name);
        let body = serde_json::to_vec(&json!({"inputs": inputs}))?;
        self.post(&path, "application/json", body).await
    }

    /// What a tiny model makes of `[1, 2, 3, 4]`.
    ///
    /// # Errors
    /// When it is not answered well.
    pub async fn infer_tiny(&self) -> Result<Value> {
        let inputs =
            json!([{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]);
        Ok(self.infer(inputs).await?.json()?["outputs"][0]["data"].take())
    }

    /// Load through the Service's own address, on a tiny model.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn load(&self) -> Result<Load> {
        let path = format!("/v2/models/{}/infer", self.name);
        Load::start(&self.client, &Load::order(self.url(&path))).await
    }

    /// Load whose requests differ, on a tiny model.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn varied_load(&self) -> Result<Load> {
        let path = format!("/v2/models/{}/infer", self.name);
        Load::start(&self.client, &Load::varied(self.url(&path))).await
    }
}

/// Whether the pod takes requests and is not on its way out.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A condition that speaks of the present spec.
fn condition(service: &InferenceService, kind: &str) -> Option<Condition> {
    let status = service.status.as_ref()?;
    status
        .conditions
        .iter()
        .find(|c| c.type_ == kind && c.observed_generation == service.metadata.generation)
        .cloned()
}

fn told(service: &InferenceService) -> String {
    let status = service.status.clone().unwrap_or_default();
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    format!(
        "generation {:?}, observed {:?}; {}",
        service.metadata.generation,
        status.observed_generation,
        conditions.join("; ")
    )
}
