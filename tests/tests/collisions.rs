//! A name that somebody else uses: never adopted, never overwritten, said in the condition; and the
//! service goes on when the name is free.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Resource,
    api::{DeleteParams, PostParams},
    core::NamespaceResourceScope,
};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    kstatus::{Kstatus, kstatus},
    world::{spec, world},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::lifecycle::{conditions, revision_of};

/// Whether the foreign object carries our labels, as what another InferenceService of the same name has
/// left behind would.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Stranger,
    Orphan,
}

/// The name of the revision that `spec("a")` of the service `m` makes.
fn revision() -> String {
    let service = json!({"apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
                         "metadata": {"name": "m"}, "spec": spec("a")});
    revision_of(&serde_json::from_value(service).expect("a service"))
}

async fn collides<K>(w: &World, kind: Kind, name: &str, mut foreign: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug
        + PartialEq,
{
    foreign["metadata"] = json!({"name": name});
    if kind == Kind::Orphan {
        foreign["metadata"]["labels"] = json!({
            "app.kubernetes.io/managed-by": "ortolan", "serving.ortolan.dev/service": "m",
            "serving.ortolan.dev/revision": revision(),
        });
        foreign["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService", "name": "m",
            "uid": "00000000-0000-0000-0000-000000000001", "controller": true,
        }]);
    }
    let foreign: K = serde_json::from_value(foreign).expect("an object");
    let params = PostParams::default();
    let before = w
        .api::<K>()
        .create(&params, &foreign)
        .await
        .expect("it is made");

    let _operator = Operator::start(w);
    w.create("m", spec("a")).await;
    let refused = w.until_ready_is("m", "False", "NameCollision").await;
    assert_eq!(conditions(&refused), "False False False True");
    assert_eq!(kstatus(&refused), Kstatus::Failed);
    let words = format!(
        "a {} named {name} exists that is not this InferenceService's",
        K::kind(&())
    );
    w.until_event("m", "NameCollision", &words).await;
    let after: K = w.get(name).await;
    assert_eq!(
        after, before,
        "the foreign object is as it was, to the last byte"
    );

    let _cluster = Cluster::start(w, Fate::Ready);
    let deleted = w
        .api::<K>()
        .delete(name, &DeleteParams::default().grace_period(0))
        .await;
    deleted.expect("a deletion");
    let served = w.until_ready_is("m", "True", "Serving").await;
    assert_eq!(kstatus(&served), Kstatus::Current);
}

fn service() -> Value {
    json!({"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}})
}

fn deployment() -> Value {
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "theirs"}}, "template": {
        "metadata": {"labels": {"app": "theirs"}},
        "spec": {"containers": [{"name": "main", "image": "theirs"}]}}}})
}

#[test]
fn a_service_of_somebody_else_is_left_alone() {
    world(async |w| collides::<Service>(&w, Kind::Stranger, "m", service()).await);
}

#[test]
fn a_deployment_of_somebody_else_is_left_alone() {
    world(async |w| collides::<Deployment>(&w, Kind::Stranger, &revision(), deployment()).await);
}

#[test]
fn a_controller_revision_of_somebody_else_is_left_alone() {
    let foreign = json!({"revision": 1, "data": {"theirs": true}});
    world(async |w| {
        collides::<ControllerRevision>(&w, Kind::Stranger, &revision(), foreign).await;
    });
}

#[test]
fn a_disruption_budget_of_somebody_else_is_left_alone_even_an_empty_one() {
    let foreign = json!({"spec": {}});
    world(async |w| {
        collides::<PodDisruptionBudget>(&w, Kind::Stranger, &revision(), foreign).await;
    });
}

#[test]
fn a_config_map_of_somebody_else_is_left_alone_and_a_revision_that_needs_none_does_not_mind() {
    world(async |w| {
        let foreign = json!({"metadata": {"name": revision()}, "data": {"theirs": "1"}});
        let foreign: ConfigMap = serde_json::from_value(foreign).expect("a config map");
        let params = PostParams::default();
        let before = w.api().create(&params, &foreign).await.expect("it is made");
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        w.create("m", spec("a")).await;
        w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(w.get::<ConfigMap>(&revision()).await, before);
    });
}

#[test]
fn a_service_with_our_labels_but_another_owner_is_left_alone() {
    world(async |w| collides::<Service>(&w, Kind::Orphan, "m", service()).await);
}

#[test]
fn a_deployment_with_our_labels_but_another_owner_is_left_alone() {
    world(async |w| collides::<Deployment>(&w, Kind::Orphan, &revision(), deployment()).await);
}

#[test]
fn a_controller_revision_with_our_labels_but_another_owner_is_left_alone() {
    let foreign = json!({"revision": 1, "data": {"theirs": true}});
    world(async |w| {
        collides::<ControllerRevision>(&w, Kind::Orphan, &revision(), foreign).await;
    });
}

#[test]
fn a_config_map_with_our_labels_but_another_owner_is_left_alone() {
    let foreign = json!({"data": {"theirs": "1"}});
    world(async |w| collides::<ConfigMap>(&w, Kind::Orphan, &revision(), foreign).await);
}
