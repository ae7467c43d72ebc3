//! The watches: one for each kind, of objects with our label only, trimmed of what is never read.

use std::sync::Arc;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Container, Pod, PodSpec, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use ortolan_crds::names;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    context::Indices,
    index::{Index, Key},
};

/// All namespaces, or one.
pub fn api<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Keeps the indices up to date until it is dropped, and sends the InferenceServices to look at.
pub async fn owned(
    client: Client,
    namespace: Option<String>,
    indices: Arc<Indices>,
    triggers: mpsc::UnboundedSender<Key>,
) {
    let namespace = namespace.as_deref();
    let i = &*indices;
    // Managed fields tell who owns a Deployment's replicas; of the other kinds nobody asks.
    let deployments = events(api(client.clone(), namespace), |d: &mut Deployment| {
        d.status
            .iter_mut()
            .for_each(|status| status.collision_count = None);
    });
    let revisions = events(
        api(client.clone(), namespace),
        |r: &mut ControllerRevision| {
            r.metadata.managed_fields = None;
        },
    );
    let services = events(api(client.clone(), namespace), |s: &mut Service| {
        s.metadata.managed_fields = None
    });
    let budgets = events(
        api(client.clone(), namespace),
        |b: &mut PodDisruptionBudget| {
            b.metadata.managed_fields = None;
            b.status = None;
        },
    );
    let maps = events(api(client.clone(), namespace), |c: &mut ConfigMap| {
        c.metadata.managed_fields = None
    });
    let pods = events(api(client, namespace), trim_pod);
    future::join(
        future::join3(
            follow(deployments, &i.deployments, &triggers),
            follow(revisions, &i.revisions, &triggers),
            follow(services, &i.services, &triggers),
        ),
        future::join3(
            follow(budgets, &i.budgets, &triggers),
            follow(maps, &i.config_maps, &triggers),
            follow(pods, &i.pods, &triggers),
        ),
    )
    .await;
}

fn events<K>(
    api: Api<K>,
    trim: impl FnMut(&mut K) + Send + 'static,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::ORTOLAN));
    watcher(api, config).default_backoff().modify(trim)
}

async fn follow<K>(
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    index: &Index<K>,
    triggers: &mpsc::UnboundedSender<Key>,
) where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                for key in index.apply(event) {
                    // The receiver is gone only when the process ends.
                    let _ = triggers.send(key);
                }
            }
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "a watch broke off and starts again");
            }
        }
    }
}

/// Of a pod's spec only the server's resources and the volumes are read, to explain failures.
fn trim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        containers: spec
            .containers
            .into_iter()
            .filter_map(trim_container)
            .collect(),
        volumes: spec.volumes.map(|mut volumes| {
            volumes.retain(|v| v.secret.is_some() || v.persistent_volume_claim.is_some());
            volumes
        }),
        ..PodSpec::default()
    });
}

fn trim_container(container: Container) -> Option<Container> {
    (container.name == names::CONTAINER).then(|| Container {
        name: container.name,
        resources: container.resources,
        ..Container::default()
    })
}
