//! What somebody edits or deletes comes back, and is told; what nobody edited stays as it is.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use ortolan_crds::{InferenceService, names};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    snapshot::{normalise, snapshot},
    tap::Tap,
    world::{condition, spec, world},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::lifecycle::{revision_of, served, serving};

/// An object without what the API server and the clock choose, and without who owns which field: after
/// an edit by hand the editor stays the owner of a field that has our value again.
fn content(object: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(object).expect("a Kubernetes object is JSON");
    normalise(&mut value, false);
    for key in ["managedFields", "generation"] {
        value["metadata"]
            .as_object_mut()
            .expect("metadata")
            .remove(key);
    }
    value
}

/// Edits the object in each of these ways; every edit is taken back.
async fn edits_are_taken_back<K>(w: &World, name: &str, edits: &[(&str, Value)])
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let before = content(&w.get::<K>(name).await);
    for (path, edit) in edits {
        let edited = w.edit::<K>(name, edit.clone()).await;
        assert_ne!(
            content(&edited),
            before,
            "the edit of {path} changes something"
        );
        let what = format!("{path} of {} {name} is set back", K::kind(&()));
        w.until_object::<K>(&what, name, |object| content(object) == before)
            .await;
        let words = format!("{} {name} was changed by hand at {path}", K::kind(&()));
        w.until_event("m", "DriftRepaired", &words).await;
    }
}

/// Deletes the object; it comes back as it was.
async fn comes_back<K>(w: &World, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let before: K = w.get(name).await;
    let params = DeleteParams::background().grace_period(0);
    w.api::<K>()
        .delete(name, &params)
        .await
        .expect("a deletion");
    let what = format!("{} {name} comes back", K::kind(&()));
    let after = w
        .until_object::<K>(&what, name, |object| object.uid() != before.uid())
        .await;
    assert_eq!(content(&after), content(&before), "{} {name}", K::kind(&()));
}

fn metadata_edits() -> Vec<(&'static str, Value)> {
    vec![
        (
            "metadata.labels.app.kubernetes.io/name",
            json!({"metadata": {"labels": {names::APP_NAME: "other"}}}),
        ),
        (
            "metadata.labels.app.kubernetes.io/name",
            json!({"metadata": {"labels": {names::APP_NAME: null}}}),
        ),
        (
            "metadata.ownerReferences",
            json!({"metadata": {"ownerReferences": null}}),
        ),
    ]
}

#[test]
fn every_edit_of_an_owned_object_is_taken_back_and_told() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        let metadata = || metadata_edits()[..2].to_vec();

        let mut edits = metadata();
        edits.extend([
            (
                "spec.selector.serving.ortolan.dev/revision",
                json!({"spec": {"selector": {names::REVISION: "other"}}}),
            ),
            (
                "spec.ports[http].targetPort",
                json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 81}]}}),
            ),
            ("spec.type", json!({"spec": {"type": "NodePort"}})),
        ]);
        edits_are_taken_back::<Service>(&w, "m", &edits).await;

        let mut edits = metadata();
        edits.push((
            "spec.maxUnavailable",
            json!({"spec": {"maxUnavailable": 7}}),
        ));
        edits_are_taken_back::<PodDisruptionBudget>(&w, &name, &edits).await;

        let container = |key: &str, value: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "ortolan/server:1", key: value}]}}}});
        let mut edits = metadata();
        edits.extend([
            (
                "spec.template.spec.containers[server].image",
                container("image", json!("theirs:1")),
            ),
            (
                "spec.template.spec.containers[server].resources",
                container("resources", json!({})),
            ),
            (
                "spec.template.spec.automountServiceAccountToken",
                json!({"spec": {"template": {"spec": {"automountServiceAccountToken": true}}}}),
            ),
            (
                "spec.progressDeadlineSeconds",
                json!({"spec": {"progressDeadlineSeconds": 5}}),
            ),
        ]);
        for (path, edit) in edits {
            // A merge patch replaces the list of containers: what else it drops is set back too, and
            // named first.
            let before: Deployment = w.get(&name).await;
            w.edit::<Deployment>(&name, edit).await;
            let what = format!("{path} is set back");
            w.until_object::<Deployment>(&what, &name, |d| content(d) == content(&before))
                .await;
        }
        let words = format!("Deployment {name} was changed by hand at spec.");
        w.until_event("m", "DriftRepaired", &words).await;
    });
}

#[test]
fn while_a_spec_is_refused_what_serves_is_looked_after() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        // No image for it, then labels that the API server refuses, then a name that somebody else has.
        let gpu = json!({"accelerator": {"resource": "nvidia.com/gpu"}});
        w.edit::<InferenceService>("m", json!({"spec": {"server": gpu}}))
            .await;
        w.until_ready_is("m", "False", "InvalidSpec").await;
        comes_back::<Service>(&w, "m").await;
        comes_back::<PodDisruptionBudget>(&w, &name).await;
        comes_back::<Deployment>(&w, &name).await;
        let edit = json!({"spec": {"selector": {names::REVISION: "other"}}});
        let path = "spec.selector.serving.ortolan.dev/revision";
        edits_are_taken_back::<Service>(&w, "m", &[(path, edit)]).await;
        assert_eq!(served(&w, "m").await, name);
        w.until_ready_is("m", "False", "InvalidSpec").await;
        w.until_service("its pods are told of", "m", |s| {
            s.status.as_ref().and_then(|status| status.ready_replicas) == Some(1)
        })
        .await;

        let labels = json!({"spec": {"server": null, "pod": {"labels": {"no label": "x"}}}});
        w.edit::<InferenceService>("m", labels).await;
        w.until_service("the API server's words", "m", |s| {
            condition(s, "Ready").is_some_and(|c| c.message.contains("no label"))
        })
        .await;
        comes_back::<PodDisruptionBudget>(&w, &name).await;

        let taken = json!({"spec": {"pod": {"labels": {"no label": null, "team": "b"}}}});
        let dry = w
            .edit::<InferenceService>("m", json!({"spec": {"pod": null}}))
            .await;
        let mut wanted = dry.clone();
        wanted.spec.pod = serde_json::from_value(json!({"labels": {"team": "b"}})).expect("a pod");
        let foreign = json!({"metadata": {"name": revision_of(&wanted)}, "spec": {}});
        let foreign: PodDisruptionBudget = serde_json::from_value(foreign).expect("a budget");
        let made = w.api().create(&PostParams::default(), &foreign).await;
        made.expect("a budget of somebody else's");
        w.edit::<InferenceService>("m", taken).await;
        w.until_ready_is("m", "False", "NameCollision").await;
        comes_back::<Service>(&w, "m").await;
        comes_back::<PodDisruptionBudget>(&w, &name).await;
        assert_eq!(served(&w, "m").await, name);
    });
}

#[test]
fn what_others_add_to_an_owned_object_is_left_to_them() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        w.until_event("m", "Promoted", "").await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let before = operator.tap.writes();
        let theirs = json!({"metadata": {"annotations": {"example.com/theirs": "1"}, "labels": {"team": "a"}}});
        w.edit::<Service>("m", theirs.clone()).await;
        w.edit::<Deployment>(&name, theirs).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(operator.tap.writes(), before);
        let service: Service = w.get("m").await;
        assert_eq!(service.labels().get("team").map(String::as_str), Some("a"));
    });
}

#[test]
fn every_owned_object_that_is_deleted_comes_back_as_it_was() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        comes_back::<Service>(&w, "m").await;
        comes_back::<PodDisruptionBudget>(&w, &name).await;
        comes_back::<Deployment>(&w, &name).await;
        w.until_ready_is("m", "True", "Serving").await;

        // The record is written anew from what runs, so that no pod restarts.
        let deployment: Deployment = w.get(&name).await;
        let record: ControllerRevision = w.get(&name).await;
        let api = w.api::<ControllerRevision>();
        let deleted = api.delete(&name, &DeleteParams::background()).await;
        deleted.expect("a deletion");
        w.until_object::<ControllerRevision>("it is the stable one again", &name, |r| {
            r.annotations().contains_key(names::STABLE)
        })
        .await;
        let again: ControllerRevision = w.get(&name).await;
        let template =
            |r: &ControllerRevision| r.data.as_ref().map(|data| data.0["template"].clone());
        assert_ne!(again.uid(), record.uid());
        assert_eq!(template(&again), template(&record));
        let after: Deployment = w.get(&name).await;
        assert_eq!(after.uid(), deployment.uid(), "the pods stay");
        assert_eq!(after.spec, deployment.spec);
        w.until_ready_is("m", "True", "Serving").await;
    });
}

#[test]
fn a_deployment_scaled_by_hand_is_scaled_back_and_told_who_did_it() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        let scale = json!({"spec": {"replicas": 5}});
        let params = PatchParams {
            field_manager: Some("kubectl-scale".into()),
            ..PatchParams::default()
        };
        let deployments = w.api::<Deployment>();
        let scaled = deployments
            .patch_scale(&name, &params, &Patch::Merge(&scale))
            .await;
        scaled.expect("it is scaled");
        w.until_event(
            "m",
            "ScaleReverted",
            &format!("scaled Deployment {name} to 5; set back to 1"),
        )
        .await;
        w.until_object::<Deployment>("it is scaled back", &name, |d| {
            d.spec.as_ref().and_then(|spec| spec.replicas) == Some(1)
        })
        .await;
        w.until_ready_is("m", "True", "Serving").await;
    });
}

#[test]
fn a_status_wiped_by_hand_comes_back_identical() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        let first = revision_of(&serving(&w, "m", spec("a")).await);
        // In the middle of a rollout, where the stable revision is not the one that the spec asks for.
        cluster.fate(
            "b.onnx",
            Fate::exited(13, "DigestMismatch: expected a, got b"),
        );
        w.edit::<InferenceService>("m", json!({"spec": spec("b")}))
            .await;
        w.until_ready_is("m", "False", "RolloutFailed").await;
        for restart in [false, true] {
            let before = snapshot(&w).await;
            let params = PatchParams::default();
            let services = w.api::<InferenceService>();
            let wiped = services
                .patch_status("m", &params, &Patch::Merge(json!({"status": null})))
                .await;
            assert_eq!(wiped.expect("it is wiped").status, None);
            if restart {
                let again = Operator::start(&w);
                w.until_ready_is("m", "False", "RolloutFailed").await;
                again.stop().await;
            }
            w.until_ready_is("m", "False", "RolloutFailed").await;
            assert_eq!(snapshot(&w).await, before);
            assert_eq!(served(&w, "m").await, first);
        }
        operator.stop().await;
    });
}

#[test]
fn new_defaults_of_the_operator_change_no_live_deployment() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        let first = serving(&w, "m", spec("a")).await;
        let name = revision_of(&first);
        w.until_event("m", "Promoted", "").await;
        operator.stop().await;
        let before = snapshot(&w).await;

        let options = [
            "--server-image-cpu",
            "ortolan/server:2",
            "--image-pull-policy",
            "Always",
        ];
        let upgraded = Operator::with(&w, &options, Tap::default());
        w.edit::<InferenceService>("m", json!({"spec": {"scaling": {"minReplicas": 2}}}))
            .await;
        w.until_service("two pods are ready", "m", |s| {
            s.status
                .as_ref()
                .is_some_and(|s| s.ready_replicas == Some(2))
        })
        .await;
        w.edit::<InferenceService>("m", json!({"spec": {"scaling": null}}))
            .await;
        w.until_service("one pod is ready", "m", |s| {
            s.status
                .as_ref()
                .is_some_and(|s| s.ready_replicas == Some(1) && s.replicas == Some(1))
        })
        .await;
        w.until_ready_is("m", "True", "Serving").await;
        let image = |d: &Deployment| {
            let pod = d.spec.as_ref()?.template.spec.as_ref()?;
            pod.containers.first()?.image.clone()
        };
        let live: Deployment = w.get(&name).await;
        assert_eq!(image(&live).as_deref(), Some("ortolan/server:1"));
        let template = |text: &str| text.matches("ortolan/server:2").count();
        assert_eq!((template(&before), template(&snapshot(&w).await)), (0, 0));

        // A restart that the user asks for adopts the new image.
        let restart = json!({"spec": {"pod": {"annotations": {names::RESTARTED_AT: "now"}}}});
        let restarted = w.edit::<InferenceService>("m", restart).await;
        w.until_ready_is("m", "True", "Serving").await;
        let adopted: Deployment = w.get(&revision_of(&restarted)).await;
        assert_eq!(image(&adopted).as_deref(), Some("ortolan/server:2"));
        upgraded.stop().await;
    });
}

#[test]
fn a_pod_deleted_by_hand_is_only_waited_for() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        let before: BTreeMap<_, _> = w
            .get::<Deployment>(&name)
            .await
            .metadata
            .labels
            .unwrap_or_default();
        cluster.all(Fate::Pending);
        let pod = format!("{name}-0");
        let params = DeleteParams::default().grace_period(0);
        w.api::<Pod>()
            .delete(&pod, &params)
            .await
            .expect("a deletion");
        w.until_ready_is("m", "False", "PodsNotReady").await;
        cluster.all(Fate::Ready);
        w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(
            w.get::<Deployment>(&name)
                .await
                .metadata
                .labels
                .unwrap_or_default(),
            before
        );
        let map = w
            .api::<ConfigMap>()
            .get_opt(&name)
            .await
            .expect("an answer");
        assert!(map.is_none(), "a digest that the user gave is not recorded");
    });
}
