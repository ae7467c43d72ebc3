//! Plays the controller manager, the scheduler and the kubelet: makes a Deployment's pods, gives them
//! the status that the test wants, counts them in the Deployment's status, and collects garbage.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
    runtime::watcher,
};
use ortolan_crds::{InferenceService, names};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use crate::world::World;

/// What becomes of a revision's pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// They are not created: the Deployment has no pods.
    None,
    /// They exist, and nobody has looked at them.
    Pending,
    /// They take requests.
    Ready,
    /// They take requests, and have this address: see [`crate::pods`].
    ReadyAt(&'static str),
    /// They have this status.
    Status(Value),
}

impl Fate {
    /// The server's container is in this state; `restarts` times it was started again.
    #[must_use]
    pub fn container(state: Value, restarts: i32) -> Self {
        Self::Status(json!({
            "phase": "Pending",
            "startTime": jiff::Timestamp::now().to_string(),
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{
                "name": names::CONTAINER, "image": "ortolan/server:1", "imageID": "", "ready": false,
                "restartCount": restarts, "state": state,
            }],
        }))
    }

    /// The server ended with this code and left this termination message.
    #[must_use]
    pub fn exited(code: i32, message: &str) -> Self {
        let reason = if code == 137 { "OOMKilled" } else { "Error" };
        let ended = json!({"terminated": {"exitCode": code, "reason": reason, "message": message}});
        Self::container(ended, 1)
    }

    fn status(&self) -> Option<Value> {
        match self {
            Self::None | Self::Pending => None,
            Self::Status(status) => Some(status.clone()),
            Self::Ready => Some(ready("10.0.0.1")),
            Self::ReadyAt(address) => Some(ready(address)),
        }
    }

    const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready | Self::ReadyAt(_))
    }
}

fn ready(address: &str) -> Value {
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": names::CONTAINER, "image": "ortolan/server:1", "imageID": "", "ready": true,
            "restartCount": 0, "state": {"running": {}},
        }],
    })
}

struct Inner {
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    otherwise: Mutex<Fate>,
    fates: Mutex<Vec<(String, Fate)>>,
    conditions: Mutex<BTreeMap<String, Value>>,
    changed: Notify,
}

/// The cluster's other half, for one namespace; ends when it is dropped.
pub struct Cluster {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Pods that nothing else was said of have this fate.
    #[must_use]
    pub fn start(world: &World, otherwise: Fate) -> Self {
        let inner = Arc::new(Inner {
            deployments: world.api(),
            pods: world.api(),
            otherwise: Mutex::new(otherwise),
            fates: Mutex::default(),
            conditions: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn(follow(inner.clone()));
        Self { inner, task }
    }

    /// The fate of pods that nothing else is said of.
    pub fn all(&self, fate: Fate) {
        *lock(&self.inner.otherwise) = fate;
        self.inner.changed.notify_one();
    }

    /// The fate of the pods whose revision's name or template contains `mark`; the latest word counts.
    pub fn fate(&self, mark: &str, fate: Fate) {
        lock(&self.inner.fates).push((mark.to_owned(), fate));
        self.inner.changed.notify_one();
    }

    /// A condition of the Deployments whose name or template contains `mark`.
    pub fn condition(&self, mark: &str, condition: Value) {
        lock(&self.inner.conditions).insert(mark.to_owned(), condition);
        self.inner.changed.notify_one();
    }

    /// Makes one pod take requests, whatever the fate of the others.
    pub async fn make_ready(&self, pod: &str) {
        let status = Fate::Ready.status().unwrap_or_default();
        let patched = patch(&self.inner.pods, pod, &status).await;
        patched.expect("the pod's status can be written");
    }

    /// Looks at every Deployment again, for pods that were deleted, say.
    pub fn look(&self) {
        self.inner.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(inner: Arc<Inner>) {
    let events = watcher(inner.deployments.clone(), watcher::Config::default());
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            event = events.next() => if event.is_none() { return },
            () = inner.changed.notified() => {}
        }
        // A conflict or an object that has just gone: the next look sees it as it is.
        if inner.sync().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            inner.changed.notify_one();
        }
    }
}

impl Inner {
    async fn sync(&self) -> Result<(), kube::Error> {
        let deployments = self.deployments.list(&ListParams::default()).await?.items;
        let pods = self.pods.list(&ListParams::default()).await?.items;
        let live: BTreeSet<String> = deployments.iter().filter_map(ResourceExt::uid).collect();
        for pod in &pods {
            let owner = pod.owner_references().first();
            if owner.is_some_and(|owner| !live.contains(&owner.uid)) {
                gone(self.pods.delete(&pod.name_any(), &now()).await)?;
            }
        }
        for deployment in &deployments {
            self.run(deployment, &pods).await?;
        }
        Ok(())
    }

    fn text(deployment: &Deployment) -> String {
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let template = serde_json::to_string(&template).unwrap_or_default();
        format!("{} {template}", deployment.name_any())
    }

    fn fate_of(&self, deployment: &Deployment) -> Fate {
        let text = Self::text(deployment);
        let fates = lock(&self.fates);
        let said = fates.iter().rev().find(|(mark, _)| text.contains(mark));
        said.map_or_else(|| lock(&self.otherwise).clone(), |(_, fate)| fate.clone())
    }

    /// The pods of one Deployment, and what it says of them.
    async fn run(&self, deployment: &Deployment, pods: &[Pod]) -> Result<(), kube::Error> {
        let fate = self.fate_of(deployment);
        let (Some(spec), Some(uid)) = (&deployment.spec, deployment.uid()) else {
            return Ok(());
        };
        let wanted = match fate {
            Fate::None => 0,
            _ => usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
        };
        let mut mine: Vec<Pod> = pods
            .iter()
            .filter(|pod| pod.owner_references().iter().any(|o| o.uid == uid))
            .cloned()
            .collect();
        mine.sort_by_key(ResourceExt::name_any);
        for pod in mine.drain(wanted.min(mine.len())..) {
            gone(self.pods.delete(&pod.name_any(), &now()).await)?;
        }
        for number in 0.. {
            if mine.len() >= wanted {
                break;
            }
            let name = format!("{}-{number}", deployment.name_any());
            if !mine.iter().any(|pod| pod.name_any() == name) {
                let pod = pod(deployment, &name);
                mine.push(self.pods.create(&PostParams::default(), &pod).await?);
            }
        }
        if let Some(status) = fate.status() {
            for pod in &mine {
                let have = serde_json::to_value(&pod.status).unwrap_or_default();
                if !includes(&have, &status) {
                    patch(&self.pods, &pod.name_any(), &status).await?;
                }
            }
        }
        self.count(deployment, mine.len(), fate.is_ready()).await
    }

    async fn count(
        &self,
        deployment: &Deployment,
        pods: usize,
        ready: bool,
    ) -> Result<(), kube::Error> {
        let ready = if ready { pods } else { 0 };
        let text = Self::text(deployment);
        let conditions: Vec<Value> = lock(&self.conditions)
            .iter()
            .filter(|(mark, _)| text.contains(*mark))
            .map(|(_, condition)| condition.clone())
            .collect();
        let status = json!({
            "observedGeneration": deployment.metadata.generation,
            "replicas": pods, "updatedReplicas": pods,
            "readyReplicas": ready, "availableReplicas": ready,
            "conditions": conditions,
        });
        let have = serde_json::to_value(&deployment.status).unwrap_or_default();
        if includes(&have, &status) {
            return Ok(());
        }
        patch(&self.deployments, &deployment.name_any(), &status).await
    }
}

fn now() -> DeleteParams {
    DeleteParams::default().grace_period(0)
}

/// Whether `have` holds all of `wanted`; a wanted zero may be absent.
fn includes(have: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(map) => map.iter().all(|(key, value)| includes(&have[key], value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .all(|(i, item)| includes(&have[i], item)),
        Value::Number(number) if number.as_i64() == Some(0) && have.is_null() => true,
        other => have == other,
    }
}

fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn patch<K>(api: &Api<K>, name: &str, status: &Value) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams {
        field_manager: Some("test-cluster".into()),
        ..PatchParams::default()
    };
    let body = json!({"status": status});
    gone(api.patch_status(name, &params, &Patch::Merge(&body)).await)
}

fn pod(deployment: &Deployment, name: &str) -> Pod {
    let template = deployment.spec.as_ref().map(|spec| spec.template.clone());
    let template = template.unwrap_or_default();
    let mut pod = Pod {
        metadata: template.metadata.unwrap_or_default(),
        spec: template.spec,
        status: None,
    };
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.owner_references = deployment
        .controller_owner_ref(&())
        .map(|owner| vec![owner]);
    pod
}

/// What the garbage collector does: deletes what an owner that no longer exists leaves behind. Answers
/// what remains of our objects afterwards, which should be nothing.
pub async fn collect_garbage(world: &World) -> Vec<String> {
    let services = world.api::<InferenceService>();
    let services = services.list(&ListParams::default()).await;
    let services = services.expect("a list").items;
    let live: BTreeSet<String> = services.iter().filter_map(ResourceExt::uid).collect();
    let mut left = Vec::new();
    left.extend(collect::<Deployment>(world, &live).await);
    left.extend(collect::<ControllerRevision>(world, &live).await);
    left.extend(collect::<Service>(world, &live).await);
    left.extend(collect::<PodDisruptionBudget>(world, &live).await);
    left.extend(collect::<ConfigMap>(world, &live).await);
    left
}

async fn collect<K>(world: &World, live: &BTreeSet<String>) -> Vec<String>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let api = world.api::<K>();
    let ours = format!("{}={}", names::MANAGED_BY, names::ORTOLAN);
    let list = api.list(&ListParams::default().labels(&ours)).await;
    let mut left = Vec::new();
    for object in list.expect("a list").items {
        let owners = object.owner_references();
        if !owners.is_empty() && owners.iter().all(|owner| !live.contains(&owner.uid)) {
            gone(api.delete(&object.name_any(), &now()).await).expect("a deletion");
        } else {
            left.push(format!("{} {}", K::kind(&()), object.name_any()));
        }
    }
    left
}
