//! Everything that the operator made in a namespace, without what differs between two runs that did the
//! same: names given by the API server, times, and the namespace.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use ortolan_crds::{InferenceService, names};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::world::World;

/// All objects as YAML, in a fixed order.
pub async fn snapshot(world: &World) -> String {
    written(world, normalise).await
}

/// The same without what was counted, requests and changes on the way: not two runs have the same of them.
pub async fn snapshot_uncounted(world: &World) -> String {
    written(world, |object, with_status| {
        normalise(object, with_status);
        uncount(object);
    })
    .await
}

async fn written(world: &World, clean: fn(&mut Value, bool)) -> String {
    let mut text = String::new();
    text.push_str(&of::<InferenceService>(world, true, clean).await);
    text.push_str(&of::<ControllerRevision>(world, false, clean).await);
    text.push_str(&of::<Deployment>(world, false, clean).await);
    text.push_str(&of::<Service>(world, false, clean).await);
    text.push_str(&of::<PodDisruptionBudget>(world, false, clean).await);
    text.push_str(&of::<ConfigMap>(world, false, clean).await);
    text
}

async fn of<K>(world: &World, with_status: bool, clean: fn(&mut Value, bool)) -> String
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let list = world.api::<K>().list(&ListParams::default()).await;
    let mut objects = list.expect("a list").items;
    objects.retain(|object| with_status || object.labels().contains_key(names::SERVICE));
    objects.sort_by_key(ResourceExt::name_any);
    let mut text = String::new();
    for object in objects {
        let mut value = serde_json::to_value(&object).expect("a Kubernetes object is JSON");
        clean(&mut value, with_status);
        let yaml = ortolan_crds::to_yaml(&value).expect("YAML");
        text.push_str(&format!("--- # {}\n{yaml}\n", K::kind(&())));
    }
    text.replace(&world.namespace, "NAMESPACE")
}

/// Takes out what the API server or the clock chose. Of the managed fields the owners and what they own
/// stay, for that is part of the end state.
pub fn normalise(object: &mut Value, with_status: bool) {
    if !with_status {
        remove(object, "", "status");
    }
    for key in ["uid", "resourceVersion", "creationTimestamp"] {
        remove(object, "/metadata", key);
    }
    // A rollout's own memory is full of times; what follows from it stands beside it.
    for key in ["state", "since"] {
        remove(object, "/status/rollout", key);
    }
    remove(object, "/spec", "clusterIP");
    remove(object, "/spec", "clusterIPs");
    // The time of a promotion, and a hash over the owner's UID too.
    for key in [names::STABLE, names::DESIRED] {
        let annotations = object.pointer_mut("/metadata/annotations");
        if let Some(value) = annotations.and_then(|annotations| annotations.get_mut(key)) {
            *value = json!("GIVEN");
        }
    }
    for list in ["/metadata/ownerReferences", "/status/conditions"] {
        for item in items(object, list) {
            remove(item, "", "uid");
            remove(item, "", "lastTransitionTime");
        }
    }
    let mut owners = items(object, "/metadata/managedFields");
    for entry in &mut owners {
        remove(entry, "", "time");
        // The keys of owner references hold a UID.
        remove(entry, "/fieldsV1/f:metadata", "f:ownerReferences");
    }
    if let Some(Value::Array(entries)) = object.pointer_mut("/metadata/managedFields") {
        entries.retain(|entry| entry["manager"] != "test-cluster");
        entries.sort_by_key(|entry| {
            format!(
                "{} {} {}",
                entry["manager"], entry["operation"], entry["subresource"]
            )
        });
    }
}

/// Takes out counts of requests and of changes, and what sentences say of them.
fn uncount(object: &mut Value) {
    for key in ["evidence", "generation"] {
        remove(object, "/status/rollout", key);
    }
    remove(object, "/metadata", "generation");
    let without = |text: &mut Value| {
        if let Value::String(text) = text {
            let is_of_a_number = |c: char| c.is_ascii_digit() || c == '.';
            let words = text.split(is_of_a_number).filter(|word| !word.is_empty());
            *text = words.collect::<Vec<_>>().join("#");
        }
    };
    if let Some(message) = object.pointer_mut("/status/rollout/message") {
        without(message);
    }
    for condition in items(object, "/status/conditions") {
        without(&mut condition["message"]);
    }
}

fn items<'a>(object: &'a mut Value, pointer: &str) -> Vec<&'a mut Value> {
    match object.pointer_mut(pointer) {
        Some(Value::Array(items)) => items.iter_mut().collect(),
        _ => Vec::new(),
    }
}

fn remove(object: &mut Value, pointer: &str, key: &str) {
    if let Some(Value::Object(map)) = object.pointer_mut(pointer) {
        map.remove(key);
    }
}
