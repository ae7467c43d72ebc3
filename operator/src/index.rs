//! What the watches saw, by InferenceService: a synchronous index, no waiting in it.
//!
//! Two writers meet here: the watch, and the answers of our own writes, which are known before the
//! watch brings them. The higher resourceVersion wins, so an answer is never taken back by an older
//! event. (Resource versions of one kind are comparable numbers: Kubernetes 1.35, KEP-5504.)
//!
//! Objects are kept as JSON. Measured: a Deployment, its pod and its revision take 61 kB as the types of the
//! API and 8 kB as JSON, and to read JSON anew for each reconcile costs about what a deep copy does.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    marker::PhantomData,
    sync::{PoisonError, RwLock},
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use ortolan_crds::names;
use serde::{Serialize, de::DeserializeOwned};

use crate::trim::Trim;

/// An object of the API that an index can keep.
pub trait Kept: Resource + Serialize + DeserializeOwned + Trim {}

impl<K: Resource + Serialize + DeserializeOwned + Trim> Kept for K {}

/// An object without what nothing reads, as JSON.
#[derive(Debug)]
pub struct Packed<K> {
    uid: Option<Box<str>>,
    version: Option<u64>,
    json: Box<[u8]>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kept> Packed<K> {
    /// Keeps `object`. `None`, and a line in the log, when it cannot be written as JSON: that would be a fault of its type.
    #[must_use]
    pub fn new(mut object: K) -> Option<Self> {
        object.trim();
        let json = serde_json::to_vec(&object)
            .inspect_err(
                |error| tracing::error!(name = object.name_any(), %error, "an object is not kept"),
            )
            .ok()?;
        Some(Self {
            uid: object.meta().uid.as_deref().map(Into::into),
            version: version(&object),
            json: json.into_boxed_slice(),
            kind: PhantomData,
        })
    }

    /// The object. `None`, and a line in the log, as in [`Packed::new`].
    #[must_use]
    pub fn get(&self) -> Option<K> {
        serde_json::from_slice(&self.json)
            .inspect_err(|error| tracing::error!(%error, "an object that was kept cannot be read"))
            .ok()
    }

    /// Whether this is an older or a newer version than `other`. `None` when they are not the same object.
    #[must_use]
    pub fn against(&self, other: &K) -> Option<Ordering> {
        let same = self.uid.as_deref() == other.meta().uid.as_deref();
        let (had, has) = self.version.zip(version(other))?;
        same.then(|| had.cmp(&has))
    }
}

/// A namespaced InferenceService's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

type Objects<K> = HashMap<Key, BTreeMap<String, Packed<K>>>;

#[derive(Debug)]
struct State<K> {
    objects: Objects<K>,
    /// While the watch lists anew: what it has listed, and what our own writes brought meanwhile.
    listing: Option<Objects<K>>,
    ready: bool,
}

/// Objects of one kind.
#[derive(Debug)]
pub struct Index<K>(RwLock<State<K>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(RwLock::new(State {
            objects: HashMap::new(),
            listing: None,
            ready: false,
        }))
    }
}

/// The InferenceService that an object belongs to, by its labels.
pub fn key_of<K: Resource>(object: &K) -> Option<Key> {
    let name = object.meta().labels.as_ref()?.get(names::SERVICE)?.clone();
    let namespace = object.meta().namespace.clone()?;
    Some(Key { namespace, name })
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

/// Answers whether the object was news.
fn insert<K: Kept>(objects: &mut Objects<K>, key: Key, object: K) -> bool {
    let of_service = objects.entry(key).or_default();
    let name = object.name_any();
    let known = of_service.get(&name);
    let known = known.and_then(|have| have.against(&object));
    if known.is_some_and(Ordering::is_ge) {
        return false;
    }
    if let Some(packed) = Packed::new(object) {
        of_service.insert(name, packed);
    }
    true
}

fn remove<K>(objects: &mut Objects<K>, key: &Key, name: &str) {
    if let Some(of_service) = objects.get_mut(key) {
        of_service.remove(name);
        if of_service.is_empty() {
            objects.remove(key);
        }
    }
}

impl<K: Kept + Clone> Index<K> {
    /// Takes a watch event; answers the InferenceServices to look at.
    pub fn apply(&self, event: Event<K>) -> BTreeSet<Key> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => {
                state.listing = Some(Objects::new());
                BTreeSet::new()
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(listing)) = (key_of(&object), &mut state.listing) {
                    insert(listing, key, object);
                }
                BTreeSet::new()
            }
            Event::InitDone => {
                let listed = state.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut state.objects, listed);
                state.ready = true;
                state
                    .objects
                    .keys()
                    .cloned()
                    .chain(before.into_keys())
                    .collect()
            }
            Event::Apply(object) => {
                let Some(key) = key_of(&object) else {
                    return BTreeSet::new();
                };
                // What our own write answered comes again through the watch: whoever wrote knows it already.
                if insert(&mut state.objects, key.clone(), object) {
                    BTreeSet::from([key])
                } else {
                    BTreeSet::new()
                }
            }
            Event::Delete(object) => {
                let Some(key) = key_of(&object) else {
                    return BTreeSet::new();
                };
                remove(&mut state.objects, &key, &object.name_any());
                BTreeSet::from([key])
            }
        }
    }

    /// Takes the answer of a write of ours.
    pub fn record(&self, object: K) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = key_of(&object) {
            if let Some(listing) = &mut state.listing {
                insert(listing, key.clone(), object.clone());
            }
            insert(&mut state.objects, key, object);
        }
    }

    /// Takes a deletion of ours.
    pub fn forget(&self, key: &Key, name: &str) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        remove(&mut state.objects, key, name);
    }

    /// The objects of one InferenceService, by name.
    #[must_use]
    pub fn of(&self, key: &Key) -> Vec<K> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let objects = state
            .objects
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values);
        objects.filter_map(Packed::get).collect()
    }

    /// Forgets everything: nobody watches these objects any more.
    pub fn clear(&self) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            objects: HashMap::new(),
            listing: None,
            ready: false,
        };
    }

    /// Whether the first listing is complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).ready
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": name, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"serving.ortolan.dev/service": "m"},
        }}))
        .expect("a config map")
    }

    fn key() -> Key {
        Key {
            namespace: "ns".into(),
            name: "m".into(),
        }
    }

    fn versions(index: &Index<ConfigMap>) -> Vec<u64> {
        index.of(&key()).iter().filter_map(version).collect()
    }

    #[test]
    fn the_answer_of_a_write_is_not_taken_back_by_an_older_event() {
        let index = Index::default();
        index.record(object("a", "1", 7));
        for known in [5, 7] {
            let event = Event::Apply(object("a", "1", known));
            assert!(index.apply(event).is_empty(), "{known} is no news");
        }
        assert_eq!(versions(&index), [7]);
        let event = Event::Apply(object("a", "1", 9));
        assert_eq!(index.apply(event), BTreeSet::from([key()]));
        assert_eq!(versions(&index), [9]);
    }

    #[test]
    fn an_object_made_anew_under_the_same_name_replaces_the_old_one() {
        let index = Index::default();
        index.record(object("a", "1", 70));
        index.apply(Event::Apply(object("a", "2", 50)));
        assert_eq!(index.of(&key())[0].metadata.uid.as_deref(), Some("2"));
    }

    #[test]
    fn a_new_listing_replaces_everything_but_what_was_written_meanwhile() {
        let index = Index::default();
        index.apply(Event::Apply(object("gone", "1", 1)));
        index.apply(Event::Init);
        index.apply(Event::InitApply(object("listed", "2", 2)));
        index.record(object("written", "3", 3));
        assert!(!index.is_ready());
        assert_eq!(index.apply(Event::InitDone), BTreeSet::from([key()]));
        assert!(index.is_ready());
        let names: Vec<String> = index.of(&key()).iter().map(|o| o.name_any()).collect();
        assert_eq!(names, ["listed", "written"]);
    }

    #[test]
    fn a_service_whose_objects_are_all_gone_in_a_new_listing_is_looked_at() {
        let index = Index::default();
        index.apply(Event::Apply(object("gone", "1", 1)));
        index.apply(Event::Init);
        assert_eq!(index.apply(Event::InitDone), BTreeSet::from([key()]));
        assert!(index.of(&key()).is_empty());
    }

    #[test]
    fn what_carries_no_label_of_ours_is_not_kept() {
        let index = Index::default();
        let mut foreign = object("a", "1", 1);
        foreign.metadata.labels = None;
        assert!(index.apply(Event::Apply(foreign)).is_empty());
        assert!(index.of(&key()).is_empty());
    }
}
