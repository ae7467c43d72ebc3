//! What the watches saw, as a table: synchronous, no waiting in it.
//!
//! Kept are names, weights and addresses; everything else of an object is gone when its event was taken. Invariants: a
//! listing replaces what was there when it is complete, not before; the answer of each call is exactly the services
//! whose entry may have changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt, api::ObjectMeta, runtime::watcher::Event};
use ortolan_crds::{InferenceService, names};
use serde::Deserialize;

use super::{
    routing::{self, Overrides},
    shadow,
};
use crate::table::{Endpoint, Mirror, Revision, Service, ServiceName, Settings, Weight};

/// Of an InferenceService, what the router obeys.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "InferenceService")]
pub struct Watched {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    server: Option<Server>,
    /// Read field by field: one that cannot be used must not cost the router the object.
    #[serde(default)]
    routing: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    #[serde(default)]
    max_concurrency: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    traffic: Vec<ortolan_crds::Traffic>,
    #[serde(default)]
    rollout: Option<Rollout>,
    #[serde(default)]
    revisions: Vec<Listed>,
}

#[derive(Clone, Debug, Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    model: Option<Model>,
}

#[derive(Clone, Debug, Deserialize)]
struct Model {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Rollout {
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    shadow: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    max_concurrency: Option<NonZeroU32>,
    routing: Overrides,
    /// What of the routing cannot be used.
    wrong: Vec<String>,
    traffic: Vec<Share>,
    generation: Option<u64>,
    /// Without its pods.
    mirror: Option<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    revision: String,
    weight: Weight,
    /// Of the model, where a pod told it.
    version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    service: ServiceName,
    revision: Box<str>,
    endpoints: Vec<Endpoint>,
}

/// Objects of one kind, and those of a listing that is not complete.
#[derive(Debug)]
struct Kind<K, V> {
    objects: HashMap<K, V>,
    listing: Option<HashMap<K, V>>,
    is_listed: bool,
}

impl<K, V> Default for Kind<K, V> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            listing: None,
            is_listed: false,
        }
    }
}

/// A namespace and the name of a slice in it.
type SliceName = (String, String);

/// What the watches saw.
#[derive(Debug, Default)]
pub struct Index {
    services: Kind<ServiceName, Entry>,
    slices: Kind<SliceName, Slice>,
    by_service: HashMap<ServiceName, BTreeSet<SliceName>>,
}

impl<K: std::hash::Hash + Eq + Clone, V: PartialEq + Clone> Kind<K, V> {
    /// Takes an event; answers what was there before and what is there now, for each object that changed.
    fn apply<O>(
        &mut self,
        event: Event<O>,
        read: impl Fn(&O) -> Option<(K, V)>,
        name: impl Fn(&O) -> Option<K>,
    ) -> Vec<Change<K, V>> {
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(listing) = &mut self.listing {
                    listing.extend(read(&object));
                }
                Vec::new()
            }
            Event::InitDone => {
                self.is_listed = true;
                let listed = self.listing.take().unwrap_or_default();
                let mut before = std::mem::replace(&mut self.objects, listed);
                let mut changes = Vec::new();
                for (key, now) in &self.objects {
                    let had = before.remove(key);
                    if had.as_ref() != Some(now) {
                        changes.push((key.clone(), had, Some(now.clone())));
                    }
                }
                changes.extend(before.into_iter().map(|(key, had)| (key, Some(had), None)));
                changes
            }
            Event::Apply(object) => {
                let Some(key) = name(&object) else {
                    return Vec::new();
                };
                let now = read(&object).map(|(_, value)| value);
                let had = match now.clone() {
                    Some(value) => self.objects.insert(key.clone(), value),
                    None => self.objects.remove(&key),
                };
                if had == now {
                    Vec::new()
                } else {
                    vec![(key, had, now)]
                }
            }
            Event::Delete(object) => {
                let key = name(&object);
                let removed = key.and_then(|key| self.objects.remove_entry(&key));
                removed
                    .map(|(key, had)| (key, Some(had), None))
                    .into_iter()
                    .collect()
            }
        }
    }
}

/// A key, what was there, what is there.
type Change<K, V> = (K, Option<V>, Option<V>);

impl Index {
    /// Takes an event of InferenceServices.
    pub fn service(&mut self, event: Event<Watched>) -> BTreeSet<ServiceName> {
        let changes = self.services.apply(
            event,
            |object| Some((service_name(object)?, entry(object))),
            service_name,
        );
        let tell = |(name, had, now): Change<ServiceName, Entry>| {
            let now = now.map(|entry| entry.wrong).unwrap_or_default();
            if had.is_none_or(|had| had.wrong != now) {
                for wrong in now {
                    tracing::warn!(service = %name, "{wrong}; the router's own setting holds meanwhile");
                }
            }
            name
        };
        changes.into_iter().map(tell).collect()
    }

    /// Takes an event of EndpointSlices.
    pub fn slice(&mut self, event: Event<EndpointSlice>) -> BTreeSet<ServiceName> {
        let changes = self.slices.apply(
            event,
            |object| Some((slice_name(object)?, slice(object)?)),
            slice_name,
        );
        let mut touched = BTreeSet::new();
        for (name, had, now) in changes {
            if let Some(had) = had {
                if let Some(names) = self.by_service.get_mut(&had.service) {
                    names.remove(&name);
                    if names.is_empty() {
                        self.by_service.remove(&had.service);
                    }
                }
                touched.insert(had.service);
            }
            if let Some(now) = now {
                self.by_service
                    .entry(now.service.clone())
                    .or_default()
                    .insert(name);
                touched.insert(now.service);
            }
        }
        touched
    }

    /// Whether everything was listed once.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.services.is_listed && self.slices.is_listed
    }

    /// All services.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.objects.keys()
    }

    /// A service's entry in the table. `None` when there is no such InferenceService.
    #[must_use]
    pub fn entry(&self, name: &ServiceName, routing: &Settings) -> Option<Service> {
        let entry = self.services.objects.get(name)?;
        let slices = self.by_service.get(name).into_iter().flatten();
        let slices: Vec<&Slice> = slices
            .filter_map(|slice| self.slices.objects.get(slice))
            .collect();
        let pods = |revision: &str| {
            let of_revision = slices.iter().filter(|slice| *slice.revision == *revision);
            merged(of_revision.flat_map(|slice| &slice.endpoints))
        };
        let has_requests = |name: &str| entry.traffic.iter().any(|share| share.revision == name);
        let mirror = entry
            .mirror
            .clone()
            .map(|mirror| match has_requests(&mirror.revision) {
                true => mirror,
                false => Mirror {
                    max_concurrency: entry.max_concurrency,
                    endpoints: pods(&mirror.revision),
                    ..mirror
                },
            });
        let revisions = entry.traffic.iter().map(|share| Revision {
            name: share.revision.clone(),
            weight: share.weight,
            max_concurrency: entry.max_concurrency,
            versions: share.version.iter().cloned().collect(),
            endpoints: pods(&share.revision),
        });
        Some(Service {
            hosts: Vec::new(),
            routing: entry.routing.over(routing),
            generation: entry.generation,
            revisions: revisions.collect(),
            mirror,
        })
    }
}

/// Each pod once. An address may stand in two slices for a while, and a pod of two families of addresses in two for ever.
fn merged<'a>(endpoints: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<Endpoint> {
    let has_four = endpoints.clone().any(|endpoint| endpoint.address.is_ipv4());
    let mut found: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for endpoint in endpoints.filter(|endpoint| !has_four || endpoint.address.is_ipv4()) {
        let known = found.entry(endpoint.address).or_insert(*endpoint);
        if endpoint.ready && !known.ready {
            *known = *endpoint;
        }
    }
    found.into_values().collect()
}

fn service_name(object: &Watched) -> Option<ServiceName> {
    ServiceName::new(object.metadata.namespace.as_deref()?, &object.name_any()).ok()
}

fn entry(object: &Watched) -> Entry {
    let server = object.spec.server.as_ref();
    let status = object.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    let (routing, wrong) = object
        .spec
        .routing
        .as_ref()
        .map(routing::read)
        .unwrap_or_default();
    Entry {
        max_concurrency: server
            .and_then(|server| server.max_concurrency)
            .and_then(NonZeroU32::new),
        routing,
        wrong,
        traffic: status.map(shares).unwrap_or_default(),
        generation: rollout
            .and_then(|rollout| rollout.generation)
            .and_then(|generation| generation.try_into().ok()),
        mirror: rollout.and_then(|rollout| shadow::mirror(rollout.shadow.as_ref()?)),
    }
}

fn shares(status: &Status) -> Vec<Share> {
    let version = |revision: &str| {
        let listed = status.revisions.iter().find(|one| one.name == revision)?;
        listed.model.as_ref()?.version.clone()
    };
    let mut seen = BTreeSet::new();
    let share = |traffic: &ortolan_crds::Traffic| {
        Some(Share {
            revision: traffic.revision.clone(),
            weight: Weight::new(traffic.weight.into()).ok()?,
            version: version(&traffic.revision),
        })
    };
    let traffic = status.traffic.iter();
    traffic
        .filter(|traffic| seen.insert(traffic.revision.clone()))
        .filter_map(share)
        .collect()
}

fn slice_name(object: &EndpointSlice) -> Option<SliceName> {
    Some((
        object.metadata.namespace.clone()?,
        object.metadata.name.clone()?,
    ))
}

fn slice(object: &EndpointSlice) -> Option<Slice> {
    let label = |name: &str| object.metadata.labels.as_ref()?.get(name);
    Some(Slice {
        service: ServiceName::new(
            object.metadata.namespace.as_deref()?,
            label(names::SERVICE)?,
        )
        .ok()?,
        revision: label(names::REVISION)?.as_str().into(),
        endpoints: endpoints(object),
    })
}

/// The endpoints of a slice at its port `http`, or its first.
#[must_use]
pub fn endpoints(object: &EndpointSlice) -> Vec<Endpoint> {
    let ports = object.ports.iter().flatten();
    let mut named = ports
        .clone()
        .filter(|port| port.name.as_deref() == Some("http"));
    let Some(port) = named
        .next()
        .or_else(|| ports.clone().next())
        .and_then(|port| u16::try_from(port.port?).ok())
    else {
        return Vec::new();
    };
    let one = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        // All addresses of an endpoint are the same pod; the API says to use the first.
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Absent means unknown, which the API says to take for ready, and not terminating.
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        let terminating = conditions.terminating.unwrap_or(false);
        Some(Endpoint {
            address: (address, port).into(),
            // A Service that publishes pods that are not ready, as those of revisions do, says `ready` of all of them.
            ready: ready && serving && !terminating,
            serving,
            terminating,
        })
    };
    object.endpoints.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests;
