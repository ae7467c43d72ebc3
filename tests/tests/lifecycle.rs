//! A service from its creation to its removal: the objects, who owns which field, what the conditions
//! and kstatus say at each step.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use kube::{ResourceExt, api::ListParams};
use ortolan_crds::{InferenceService, RevisionPhase, names};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    cluster::collect_garbage,
    kstatus::{Kstatus, kstatus},
    snapshot::snapshot,
    world::{condition, spec, world},
};
use serde_json::{Value, json};

/// The revision that a spec makes, by the operator's own rule.
pub fn revision_of(service: &InferenceService) -> String {
    let template = ortolan_core::revision::Template::of(&service.spec);
    format!("{}-{}", service.name_any(), template.hash())
}

/// Who owns `spec.replicas`, and how.
fn owners_of_replicas(deployment: &Deployment) -> Vec<String> {
    let mut owners: Vec<String> = deployment
        .managed_fields()
        .iter()
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref();
            fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        })
        .map(|entry| {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{} {}", text(&entry.manager), text(&entry.operation))
        })
        .collect();
    owners.sort();
    owners
}

/// The revision that the Service sends requests to.
pub async fn served(w: &World, name: &str) -> String {
    let service: Service = w.get(name).await;
    let selector = service
        .spec
        .and_then(|spec| spec.selector)
        .unwrap_or_default();
    selector.get(names::REVISION).cloned().unwrap_or_default()
}

/// `Ready Available Progressing Stalled`, `-` for one that is not there.
pub fn conditions(service: &InferenceService) -> String {
    ["Ready", "Available", "Progressing", "Stalled"]
        .map(|kind| condition(service, kind).map_or("-", |c| &c.status))
        .join(" ")
}

/// A service that serves.
pub async fn serving(w: &World, name: &str, spec: Value) -> InferenceService {
    w.create(name, spec).await;
    w.until_ready_is(name, "True", "Serving").await
}

#[test]
fn a_service_is_made_of_a_revision_a_deployment_a_budget_and_a_service_and_becomes_ready() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Pending);
        let operator = Operator::start(&w);
        let mut wanted = spec("a");
        wanted["scaling"] = json!({"minReplicas": 2});
        let created = w.create("m", wanted).await;
        let name = revision_of(&created);

        let starting = w
            .until_service("pods are seen", "m", |s| {
                s.status.as_ref().is_some_and(|s| s.replicas == Some(2))
            })
            .await;
        assert_eq!(conditions(&starting), "False False True -");
        assert_eq!(kstatus(&starting), Kstatus::InProgress);
        let ready = condition(&starting, "Ready").expect("a condition");
        assert_eq!(ready.reason, "Starting");
        assert_eq!(
            ready.message,
            format!("revision {name} starts: 0 of 2 pods ready")
        );

        let deployment: Deployment = w.get(&name).await;
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        assert_eq!(replicas, Some(2));
        let owners = ["ortolan/autoscaler Apply", "ortolan/service Apply"];
        assert!(owners_of_replicas(&deployment).contains(&owners[0].to_owned()));
        assert!(
            owners_of_replicas(&deployment)
                .iter()
                .all(|o| owners.contains(&o.as_str()))
        );

        cluster.all(Fate::Ready);
        let served_now = w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(conditions(&served_now), "True True False -");
        assert_eq!(kstatus(&served_now), Kstatus::Current);
        let status = served_now.status.expect("a status");
        assert_eq!(status.observed_generation, served_now.metadata.generation);
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.url, Some(format!("http://m.{}.svc", w.namespace)));
        let traffic: Vec<_> = status
            .traffic
            .iter()
            .map(|t| (t.revision.as_str(), t.weight))
            .collect();
        assert_eq!(traffic, [(name.as_str(), 100)]);
        let revision = &status.revisions[0];
        assert_eq!(revision.phase, RevisionPhase::Serving);
        assert_eq!(revision.image.as_deref(), Some("ortolan/server:1"));
        assert_eq!(served(&w, "m").await, name);
        w.until_event("m", "RevisionCreated", &name).await;
        w.until_event("m", "Promoted", &name).await;

        let record: ControllerRevision = w.get(&name).await;
        let budget: PodDisruptionBudget = w.get(&name).await;
        let service: Service = w.get("m").await;
        assert!(record.annotations().contains_key(names::STABLE));
        for meta in [
            &record.metadata,
            &deployment.metadata,
            &budget.metadata,
            &service.metadata,
        ] {
            let owner = &meta.owner_references.as_ref().expect("an owner")[0];
            assert_eq!(Some(&owner.uid), created.metadata.uid.as_ref());
            assert_eq!(owner.controller, Some(true));
        }
        operator.stop().await;
    });
}

#[test]
fn the_first_revision_is_promoted_when_all_its_pods_are_ready_and_not_before() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Pending);
        let _operator = Operator::start(&w);
        let mut wanted = spec("a");
        wanted["scaling"] = json!({"minReplicas": 2});
        let name = revision_of(&w.create("m", wanted).await);
        w.until_service("pods are seen", "m", |s| {
            s.status.as_ref().is_some_and(|s| s.replicas == Some(2))
        })
        .await;
        cluster.make_ready(&format!("{name}-0")).await;
        let half = w
            .until_service("one pod is ready", "m", |s| {
                s.status
                    .as_ref()
                    .is_some_and(|s| s.ready_replicas == Some(1))
            })
            .await;
        assert_eq!(conditions(&half), "False True True -");
        assert_eq!(
            condition(&half, "Ready").expect("a condition").reason,
            "Starting"
        );
        let record: ControllerRevision = w.get(&name).await;
        assert!(!record.annotations().contains_key(names::STABLE));

        cluster.all(Fate::Ready);
        w.until_ready_is("m", "True", "Serving").await;
        w.until_event("m", "Promoted", &name).await;
        let record: ControllerRevision = w.get(&name).await;
        assert!(record.annotations().contains_key(names::STABLE));
    });
}

#[test]
fn a_new_revision_takes_over_when_it_is_ready_and_the_old_one_goes_when_the_service_has_moved() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let first = revision_of(&serving(&w, "m", spec("a")).await);

        cluster.fate("b.onnx", Fate::Pending);
        let changed: InferenceService = w.edit("m", json!({"spec": spec("b")})).await;
        let second = revision_of(&changed);
        assert_ne!(first, second);
        let rolling = w.until_ready_is("m", "False", "RollingOut").await;
        assert_eq!(conditions(&rolling), "False True True -");
        assert_eq!(kstatus(&rolling), Kstatus::InProgress);
        let words = &condition(&rolling, "Ready").expect("a condition").message;
        assert!(
            words.ends_with(&format!("; revision {first} serves")),
            "{words}"
        );
        w.until_object::<Deployment>("the candidate starts", &second, |_| true)
            .await;
        assert_eq!(served(&w, "m").await, first);

        cluster.fate("b.onnx", Fate::Ready);
        let done = w.until_ready_is("m", "True", "Serving").await;
        let moved = std::time::Instant::now();
        assert_eq!(served(&w, "m").await, second);
        assert_eq!(kstatus(&done), Kstatus::Current);
        let old = w
            .api::<Deployment>()
            .get_opt(&first)
            .await
            .expect("an answer");
        assert!(
            old.is_some(),
            "the old pods end only when the Service has certainly moved"
        );
        w.until_gone::<Deployment>(&first).await;
        assert!(
            moved.elapsed() > Duration::from_secs(5),
            "the old pods had time to finish"
        );
        w.until_gone::<PodDisruptionBudget>(&first).await;
        let _kept: ControllerRevision = w.get(&first).await;
        w.until_event("m", "Promoted", &second).await;
        w.until_event("m", "RevisionRemoved", &first).await;
        w.until_service("the old revision leaves the status", "m", |s| {
            s.status.as_ref().is_some_and(|s| s.revisions.len() == 1)
        })
        .await;

        // Back to a revision that is known: its record is used again.
        w.edit::<InferenceService>("m", json!({"spec": spec("a")}))
            .await;
        w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(served(&w, "m").await, first);
        let records = w
            .api::<ControllerRevision>()
            .list(&ListParams::default())
            .await;
        assert_eq!(records.expect("a list").items.len(), 2);
    });
}

#[test]
fn a_candidate_that_fails_never_replaces_what_serves_and_goes_when_the_change_is_taken_back() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let first = revision_of(&serving(&w, "m", spec("good")).await);

        cluster.fate(
            "bad.onnx",
            Fate::exited(15, "InvalidModel: the file is HTML, not a model"),
        );
        let bad = w
            .edit::<InferenceService>("m", json!({"spec": spec("bad")}))
            .await;
        let bad = revision_of(&bad);
        let failed = w.until_ready_is("m", "False", "RolloutFailed").await;
        assert_eq!(conditions(&failed), "False True False True");
        assert_eq!(kstatus(&failed), Kstatus::Failed);
        let words = &condition(&failed, "Stalled").expect("a condition").message;
        let sentence = "failed with InvalidModel: the file is HTML, not a model";
        assert_eq!(
            *words,
            format!("revision {bad} {sentence}; revision {first} serves")
        );
        assert_eq!(served(&w, "m").await, first);
        w.until_event("m", "RolloutFailed", sentence).await;
        let status = failed.status.expect("a status");
        let candidate = status
            .revisions
            .iter()
            .find(|r| r.name == bad)
            .expect("the candidate");
        assert_eq!(candidate.phase, RevisionPhase::Failed);
        let failure = candidate.last_failure.as_ref().expect("a failure");
        assert_eq!(
            (failure.reason.as_str(), failure.exit_code),
            ("InvalidModel", Some(15))
        );

        w.edit::<InferenceService>("m", json!({"spec": spec("good")}))
            .await;
        let back = w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(kstatus(&back), Kstatus::Current);
        w.until_gone::<Deployment>(&bad).await;
        assert_eq!(served(&w, "m").await, first);
        let _still: Deployment = w.get(&first).await;
    });
}

#[test]
fn recreate_stops_the_old_pods_before_the_new_ones_start() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let with = |file: &str| {
            let mut spec = spec(file);
            spec["rollout"] = json!({"strategy": "Recreate"});
            spec
        };
        let first = revision_of(&serving(&w, "m", with("a")).await);
        // A pod that is slow to end.
        let pods = w.api::<k8s_openapi::api::core::v1::Pod>();
        let slow = format!("{first}-0");
        let hold = json!({"metadata": {"finalizers": ["example.com/slow"]}});
        w.edit::<k8s_openapi::api::core::v1::Pod>(&slow, hold).await;

        let second = w
            .edit::<InferenceService>("m", json!({"spec": with("b")}))
            .await;
        let second = revision_of(&second);
        let stopping = w.until_ready_is("m", "False", "Recreating").await;
        assert_eq!(kstatus(&stopping), Kstatus::InProgress);
        w.until_gone::<Deployment>(&first).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let early = w
            .api::<Deployment>()
            .get_opt(&second)
            .await
            .expect("an answer");
        assert!(
            early.is_none(),
            "the new pods wait for the old one that still ends"
        );
        assert!(pods.get(&slow).await.is_ok(), "the test's own premise");

        let release = json!({"metadata": {"finalizers": null}});
        w.edit::<k8s_openapi::api::core::v1::Pod>(&slow, release)
            .await;
        cluster.look();
        w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(served(&w, "m").await, second);
        w.until_event("m", "Recreating", &first).await;
    });
}

#[test]
fn suspend_stops_the_pods_and_deletes_nothing_and_resume_starts_the_same_revision() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        let before: Deployment = w.get(&name).await;

        w.edit::<InferenceService>("m", json!({"spec": {"suspend": true}}))
            .await;
        w.until_object::<Deployment>("it has no pods", &name, |d| {
            d.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
        })
        .await;
        let suspended = w.until_ready_is("m", "True", "Suspended").await;
        assert_eq!(kstatus(&suspended), Kstatus::Current);
        let none = w
            .until_service("no pod is left", "m", |s| {
                s.status.as_ref().is_some_and(|s| s.replicas == Some(0))
            })
            .await;
        assert_eq!(conditions(&none), "True False False -");
        let _kept: Service = w.get("m").await;
        w.until_event("m", "Suspended", "").await;

        w.edit::<InferenceService>("m", json!({"spec": {"suspend": null}}))
            .await;
        w.until_ready_is("m", "True", "Serving").await;
        let after: Deployment = w.get(&name).await;
        assert_eq!(after.uid(), before.uid());
        assert_eq!(
            after.spec.map(|spec| spec.template),
            before.spec.map(|spec| spec.template)
        );
        w.until_event("m", "Resumed", "").await;
    });
}

#[test]
fn a_change_of_replicas_scales_the_same_revision_and_restarts_nothing() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let name = revision_of(&serving(&w, "m", spec("a")).await);
        let before: Deployment = w.get(&name).await;

        for replicas in [4, 2] {
            w.edit::<InferenceService>(
                "m",
                json!({"spec": {"scaling": {"minReplicas": replicas}}}),
            )
            .await;
            w.until_service("all pods are ready", "m", |s| {
                let status = s.status.as_ref();
                status.is_some_and(|s| {
                    s.ready_replicas == Some(replicas) && s.replicas == Some(replicas)
                })
            })
            .await;
            let service = w.until_ready_is("m", "True", "Serving").await;
            assert_eq!(revision_of(&service), name);
        }
        let after: Deployment = w.get(&name).await;
        assert_eq!(owners_of_replicas(&after), ["ortolan/autoscaler Apply"]);
        let template = |d: Deployment| d.spec.map(|spec| spec.template);
        assert_eq!(template(after), template(before));
        let records = w
            .api::<ControllerRevision>()
            .list(&ListParams::default())
            .await;
        assert_eq!(records.expect("a list").items.len(), 1);
        w.until_event("m", "Scaled", "1 → 4").await;
    });
}

#[test]
fn a_label_of_the_service_causes_no_write() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        serving(&w, "m", spec("a")).await;
        w.until_event("m", "Promoted", "").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = operator.tap.writes();
        w.edit::<InferenceService>(
            "m",
            json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}),
        )
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(operator.tap.writes(), before);
    });
}

#[test]
fn the_pods_of_a_service_that_serves_may_fail_and_come_back() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        serving(&w, "m", spec("a")).await;

        cluster.all(Fate::exited(
            10,
            "StoreUnavailable: models.example.com does not answer",
        ));
        let down = w.until_ready_is("m", "False", "StoreUnavailable").await;
        assert_eq!(conditions(&down), "False False True -");
        assert_eq!(kstatus(&down), Kstatus::InProgress);

        cluster.all(Fate::exited(13, "DigestMismatch: expected a, got b"));
        let broken = w.until_ready_is("m", "False", "DigestMismatch").await;
        assert_eq!(conditions(&broken), "False False False True");
        assert_eq!(kstatus(&broken), Kstatus::Failed);

        cluster.all(Fate::Ready);
        let back = w.until_ready_is("m", "True", "Serving").await;
        let status = back.status.expect("a status");
        assert_eq!(
            status.revisions[0].last_failure, None,
            "forgotten when it serves"
        );
        w.until_event("m", "Serving", "serves with 1 pod").await;
    });
}

#[test]
fn a_deleted_service_leaves_nothing_that_garbage_collection_does_not_take() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        serving(&w, "m", spec("a")).await;
        serving(&w, "other", spec("b")).await;
        w.until_event("other", "Promoted", "").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = operator.tap.writes();
        let delete = kube::api::DeleteParams::foreground();
        let deleted = w.api::<InferenceService>().delete("m", &delete).await;
        deleted.expect("a deletion");
        // In the foreground the object stays, marked, until its dependents are gone.
        let marked: InferenceService = w.get("m").await;
        assert_eq!(kstatus(&marked), Kstatus::Terminating);
        w.edit::<InferenceService>("m", json!({"metadata": {"finalizers": null}}))
            .await;
        w.until_gone::<InferenceService>("m").await;
        let left = collect_garbage(&w).await;
        assert!(
            !left.is_empty() && left.iter().all(|object| object.contains(" other")),
            "{left:?}"
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(operator.tap.writes(), before, "nothing is made again");
        let text = snapshot(&w).await;
        assert!(!text.contains("models.example.com/a.onnx"), "{text}");

        // A new object of the same name is another service.
        serving(&w, "m", spec("a")).await;
    });
}
