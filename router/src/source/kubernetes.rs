//! The table from the Kubernetes API: InferenceServices (`status.traffic`) and the EndpointSlices of their revisions'
//! Services.
//!
//! Invariants: nothing is written; while the API server does not answer, what was seen last holds; nothing seen is
//! published before everything was listed once, so that a start never takes the pods away that the last state has.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::{FutureExt, Stream, StreamExt, stream::select};
use http::{HeaderValue, header::USER_AGENT};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Config, Resource,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use ortolan_crds::names;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet};

use super::{
    index::{Index, Watched, endpoints},
    last,
};
use crate::{
    directory::Directory,
    failure::Failure,
    options::Cluster,
    table::{Routers, Service, ServiceName, Settings, Table},
};

/// Which Service an EndpointSlice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

enum Seen {
    Service(Event<Watched>),
    Slice(Event<EndpointSlice>),
}

/// Who asks the cluster that this process is in, or that the kubeconfig names.
///
/// # Errors
/// When no cluster is configured. That it does not answer is none.
pub async fn client() -> Result<Client, Failure> {
    let mut config = Config::infer()
        .await
        .map_err(|error| Failure::Cluster(error.to_string()))?;
    // Audit logs and API priority rules know a client by this name.
    let agent = HeaderValue::from_static(concat!("ortolan-router/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config).map_err(|error| Failure::Cluster(error.to_string()))
}

/// Begins to watch.
///
/// # Errors
/// When no cluster is configured. That it does not answer is none.
pub async fn start(
    options: &Cluster,
    directory: Arc<Directory>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Failure> {
    watch_with(client().await?, options, directory, tasks)
}

/// The same through this client.
///
/// # Errors
/// When an option cannot be used.
pub fn watch_with(
    client: Client,
    options: &Cluster,
    directory: Arc<Directory>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let (changed, changes) = watch::channel(0);
    if let Some(path) = &options.last_state {
        if let Some(table) = last::read(path) {
            let count = table.services.len();
            match directory.replace(table) {
                Ok(()) => tracing::info!(services = count, "beginning with what was seen last"),
                Err(error) => {
                    tracing::warn!("the last state {} is not used: {error}", path.display())
                }
            }
        }
        tasks.spawn(last::keep(path.clone(), Arc::clone(&directory), changes));
    }
    if let (Some(service), Some(ip)) = (&options.router_service, options.pod_ip) {
        let service = ServiceName::try_from(service.clone())
            .map_err(|error| Failure::Option(format!("--router-service: {error}")))?;
        tasks.spawn(count_routers(
            client.clone(),
            service,
            ip,
            Arc::clone(&directory),
        ));
    }
    let settings = Settings {
        timeout: options.timeout,
        retries: options.retries,
        hold_timeout: options.hold_timeout,
        ..Settings::default()
    };
    let namespace = options.namespace.clone();
    tasks.spawn(async move {
        follow(
            client,
            namespace.as_deref(),
            &settings,
            &directory,
            &changed,
        )
        .await
    });
    Ok(())
}

/// Between two tries of a watch: 0.8 s, doubled, at most 5 s. kube's own waits up to a minute after an outage of the API server, and
/// each watch for itself: a router that knows of a revision's weight and not of its pods lets requests wait.
fn patience() -> watcher::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .into()
}

fn events<K>(
    client: Client,
    namespace: Option<&str>,
    config: watcher::Config,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    watcher(api, config).backoff(patience()).filter_map(|event| async move {
        event
            .inspect_err(|error| {
                tracing::warn!(%error, kind = %K::kind(&()), "a watch broke off and starts again; what was seen last holds");
            })
            .ok()
    })
}

async fn follow(
    client: Client,
    namespace: Option<&str>,
    settings: &Settings,
    directory: &Directory,
    changed: &watch::Sender<u64>,
) {
    let services = events(client.clone(), namespace, watcher::Config::default()).map(Seen::Service);
    let of_revisions = watcher::Config::default().labels(names::REVISION);
    let slices = events(client, namespace, of_revisions).map(Seen::Slice);
    let mut seen = std::pin::pin!(select(services, slices));
    let mut index = Index::default();
    let mut is_published = false;
    while let Some(event) = seen.next().await {
        let mut touched = take(&mut index, event);
        // What is there already is published together.
        while let Some(Some(event)) = seen.next().now_or_never() {
            touched.append(&mut take(&mut index, event));
        }
        if !index.is_complete() {
            continue;
        }
        if is_published {
            if touched.is_empty() {
                continue;
            }
            let entry = |name: ServiceName| {
                let entry = index.entry(&name, settings);
                (name, entry)
            };
            directory.change(touched.into_iter().map(entry).collect());
        } else {
            is_published = publish_all(&index, settings, directory);
        }
        changed.send_modify(|count| *count += 1);
    }
}

fn take(index: &mut Index, event: Seen) -> std::collections::BTreeSet<ServiceName> {
    match event {
        Seen::Service(event) => index.service(event),
        Seen::Slice(event) => index.slice(event),
    }
}

fn publish_all(index: &Index, settings: &Settings, directory: &Directory) -> bool {
    let all = index
        .names()
        .filter_map(|name| Some((name.clone(), index.entry(name, settings)?)));
    let services: BTreeMap<ServiceName, Service> = all.collect();
    let count = services.len();
    let routers = directory.table().unwrap_or_default().routers;
    match directory.replace(Table { routers, services }) {
        Ok(()) => {
            tracing::info!(services = count, "everything was listed");
            true
        }
        Err(error) => {
            tracing::error!(%error, "what the API server lists contradicts itself");
            false
        }
    }
}

/// How many routers share the places of pods: those that are ready or still serve, this one in any case.
async fn count_routers(
    client: Client,
    service: ServiceName,
    own: IpAddr,
    directory: Arc<Directory>,
) {
    let config = watcher::Config::default().labels(&format!("{SERVICE_NAME}={}", service.name()));
    let mut events = std::pin::pin!(events::<EndpointSlice>(
        client,
        Some(service.namespace()),
        config
    ));
    let mut slices: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut listing = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing = Some(BTreeMap::new()),
            Event::InitApply(slice) => {
                if let Some(listing) = &mut listing {
                    listing.insert(name(&slice), serving(&slice));
                }
            }
            Event::InitDone => slices = listing.take().unwrap_or_default(),
            Event::Apply(slice) => {
                slices.insert(name(&slice), serving(&slice));
            }
            Event::Delete(slice) => {
                slices.remove(&name(&slice));
            }
        }
        if listing.is_none() {
            directory.routers(share(slices.values().flatten().copied(), own));
        }
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn serving(slice: &EndpointSlice) -> Vec<IpAddr> {
    let all = endpoints(slice).into_iter();
    all.filter(|one| one.ready || one.serving)
        .map(|one| one.address.ip())
        .collect()
}

fn share(routers: impl Iterator<Item = IpAddr>, own: IpAddr) -> Routers {
    let all: std::collections::BTreeSet<IpAddr> = routers.chain([own]).collect();
    let before = all.iter().position(|router| *router == own).unwrap_or(0);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Routers {
        live: NonZeroU32::new(count(all.len())).unwrap_or(NonZeroU32::MIN),
        index: count(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_router_finds_the_same_number_and_another_place() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let of = |own| {
            let Routers { live, index } = share([ip(3), ip(1), ip(3)].into_iter(), ip(own));
            (live.get(), index)
        };
        assert_eq!([of(1), of(3)], [(2, 0), (2, 1)]);
        assert_eq!(of(2), (3, 1), "one that is not ready yet counts itself");
    }

    #[test]
    fn a_watch_is_tried_again_within_five_seconds_however_often_it_failed() {
        let mut patience = patience();
        let seconds: Vec<f32> = patience.by_ref().take(5).map(|d| d.as_secs_f32()).collect();
        assert_eq!(seconds, [0.8, 1.6, 3.2, 5.0, 5.0]);
        assert_eq!(patience.nth(100), Some(Duration::from_secs(5)));
    }
}
