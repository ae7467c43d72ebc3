//! The watches: one for each kind, of objects with our label only.

use std::{sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt, future};
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
    index::{Index, Kept, Key},
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
    let deployments = events(api(client.clone(), namespace));
    let revisions = events(api(client.clone(), namespace));
    let services = events(api(client.clone(), namespace));
    let budgets = events(api(client.clone(), namespace));
    let maps = events(api(client.clone(), namespace));
    let pods = events(api(client, namespace));
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

/// What a watch on objects with our label brings; it begins again when it breaks off.
pub fn events<K>(
    api: Api<K>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::ORTOLAN));
    watching(api, config)
}

/// A watch that begins again when it breaks off: after 0.8 s, doubled, at most 5 s, as a router's do. kube's own waits
/// up to a minute after an outage of the API server, and each watch for itself.
pub fn watching<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(api, config).backoff(patience())
}

fn patience() -> watcher::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .into()
}

/// Keeps an index up to date as long as the stream lasts, and sends the InferenceServices to look at.
pub async fn follow<K>(
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    index: &Index<K>,
    triggers: &mpsc::UnboundedSender<Key>,
) where
    K: Kept + Resource<DynamicType = ()> + Clone,
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
