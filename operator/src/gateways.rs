//! Whether the API server knows the Gateway API, and a watch on its routes as long as it does.
//!
//! It is looked once at the start, and again when somebody asks ([`Gateways::look`]): a service that wants routes while there is
//! no such API, and a watch that broke off. An operator whose services want none asks for nothing.
//! Invariant: no decision is made on routes that are not all listed ([`Presence::Unknown`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{Client, Resource, core::NamespaceResourceScope};
use ortolan_core::gateway::{
    Presence, Routes,
    types::{GrpcMatch, HttpMatch, Matching as _, Route, VERSION},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::{
    context::Indices,
    index::{Index, Key},
    watch,
};

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether there is each kind of routes; `None` before the first look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    http: Option<bool>,
    grpc: Option<bool>,
}

#[derive(Default)]
struct Inner {
    kinds: Mutex<Kinds>,
    /// Since when a service's routes have been settled just as they are.
    settled: Mutex<HashMap<Key, (String, Instant)>>,
    look: Notify,
}

/// What is known of the Gateway API; clones share it.
#[derive(Clone, Default)]
pub struct Gateways(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gateways {
    /// Asks for another look.
    pub fn look(&self) {
        self.0.look.notify_one();
    }

    /// Forgets a deleted InferenceService.
    pub fn forget(&self, key: &Key) {
        lock(&self.0.settled).remove(key);
    }

    /// What is known of a service's routes. `wanted`: whether it wants some; then what is absent is looked for again.
    #[must_use]
    pub fn routes(&self, key: &Key, indices: &Indices, wanted: bool) -> Routes {
        let kinds = *lock(&self.0.kinds);
        let presence = |is_there: Option<bool>, is_ready: bool| match is_there {
            Some(false) => Presence::Absent,
            Some(true) if is_ready => Presence::Present,
            Some(true) | None => Presence::Unknown,
        };
        let mut routes = Routes {
            http_api: presence(kinds.http, indices.http_routes.is_ready()),
            grpc_api: presence(kinds.grpc, indices.grpc_routes.is_ready()),
            http: indices.http_routes.of(key),
            grpc: indices.grpc_routes.of(key),
            settled: None,
        };
        if wanted && [routes.http_api, routes.grpc_api].contains(&Presence::Absent) {
            self.look();
        }
        routes.settled = self.settled(key, routes.fingerprint());
        routes
    }

    /// For how long the routes have been so.
    fn settled(&self, key: &Key, now: Option<String>) -> Option<Duration> {
        let mut settled = lock(&self.0.settled);
        let Some(now) = now.filter(|now| !now.is_empty()) else {
            settled.remove(key);
            return None;
        };
        let known = settled.entry(key.clone());
        let (before, since) = known.or_insert_with(|| (now.clone(), Instant::now()));
        if *before != now {
            (*before, *since) = (now, Instant::now());
        }
        Some(since.elapsed())
    }

    /// For ever: looks when asked to, and watches what there is.
    pub async fn follow(
        self,
        client: Client,
        namespace: Option<String>,
        indices: Arc<Indices>,
        triggers: mpsc::UnboundedSender<Key>,
    ) {
        let mut tasks = JoinSet::new();
        let (mut http, mut grpc) = (None, None);
        let watching = Watching {
            client: client.clone(),
            namespace,
            gateways: self.clone(),
            triggers,
        };
        loop {
            match discover(&client).await {
                Ok(found) => {
                    if *lock(&self.0.kinds) != found {
                        let known = |kind: Option<bool>| kind == Some(true);
                        tracing::info!(
                            http = known(found.http),
                            grpc = known(found.grpc),
                            "routes of the Gateway API that the API server knows"
                        );
                    }
                    // Before the indices: what is known of a kind that has gone counts no more.
                    *lock(&self.0.kinds) = found;
                    let i = &indices;
                    watching.switch(&mut tasks, &mut http, found.http, i, |i| &i.http_routes);
                    watching.switch(&mut tasks, &mut grpc, found.grpc, i, |i| &i.grpc_routes);
                    self.0.look.notified().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the API server does not say whether it knows the Gateway API: asked again");
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// What a watch needs.
struct Watching {
    client: Client,
    namespace: Option<String>,
    gateways: Gateways,
    triggers: mpsc::UnboundedSender<Key>,
}

impl Watching {
    /// Begins to watch a kind that is there now, and ends it for one that has gone.
    fn switch<M>(
        &self,
        tasks: &mut JoinSet<()>,
        task: &mut Option<AbortHandle>,
        is_there: Option<bool>,
        indices: &Arc<Indices>,
        index: fn(&Indices) -> &Index<Route<M>>,
    ) where
        Route<M>: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
        M: Send + 'static,
    {
        match (is_there == Some(true), task.take()) {
            (true, None) => {
                index(indices).clear();
                let api = watch::api(self.client.clone(), self.namespace.as_deref());
                let gateways = self.gateways.clone();
                let events = watch::events::<Route<M>>(api).inspect(move |event| {
                    if event.is_err() {
                        gateways.look();
                    }
                });
                let (indices, triggers) = (indices.clone(), self.triggers.clone());
                *task = Some(tasks.spawn(async move {
                    watch::follow(events, index(&indices), &triggers).await;
                }));
            }
            (true, running) => *task = running,
            (false, Some(running)) => {
                running.abort();
                index(indices).clear();
            }
            (false, None) => {}
        }
    }
}

async fn discover(client: &Client) -> Result<Kinds, kube::Error> {
    let served = match client.list_api_group_resources(VERSION).await {
        Ok(list) => list.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    let knows = |plural: &str| Some(served.iter().any(|resource| resource.name == plural));
    Ok(Kinds {
        http: knows(HttpMatch::PLURAL),
        grpc: knows(GrpcMatch::PLURAL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_settled_since_they_were_first_seen_just_as_they_are() {
        let gateways = Gateways::default();
        let key = Key {
            namespace: "ns".into(),
            name: "m".into(),
        };
        let seen = |text: Option<&str>| gateways.settled(&key, text.map(str::to_owned));
        assert_eq!(seen(None), None);
        assert_eq!(seen(Some("")), None, "there are none");
        let first = seen(Some("u@1 ")).expect("they are");
        std::thread::sleep(Duration::from_millis(30));
        let later = seen(Some("u@1 ")).expect("they are");
        assert!(later >= first + Duration::from_millis(30), "{later:?}");
        let changed = seen(Some("u@2 ")).expect("they are");
        assert!(changed < later, "another generation begins anew");
        assert_eq!(seen(None), None);
        assert!(seen(Some("u@2 ")).expect("they are") <= changed + Duration::from_millis(30));
    }

    #[test]
    fn nothing_is_decided_on_before_the_first_look() {
        let gateways = Gateways::default();
        let key = Key {
            namespace: "ns".into(),
            name: "m".into(),
        };
        let indices = Indices::default();
        let of = |http| {
            *lock(&gateways.0.kinds) = Kinds { http, grpc: http };
            gateways.routes(&key, &indices, true).http_api
        };
        assert_eq!(of(None), Presence::Unknown);
        assert_eq!(of(Some(true)), Presence::Unknown, "not listed yet");
        assert_eq!(of(Some(false)), Presence::Absent);
        indices
            .http_routes
            .apply(kube::runtime::watcher::Event::Init);
        indices
            .http_routes
            .apply(kube::runtime::watcher::Event::InitDone);
        assert_eq!(of(Some(true)), Presence::Present);
        indices.http_routes.clear();
        assert_eq!(of(Some(true)), Presence::Unknown);
    }
}
