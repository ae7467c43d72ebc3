//! What GitOps tools make of the statuses that the operator writes, from the first start to a failed rollout, and that
//! nothing of ours writes to a spec: what is in Git and what is in the cluster do not drift apart.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Operator, World, argo,
    kstatus::{Kstatus, kstatus},
    world::{condition, definition_stays, is_observed, spec, world},
};
use serde_json::{Value, json};

/// Both tools' words.
fn seen(service: &InferenceService) -> (String, Kstatus) {
    let health = argo::health(service).expect("the script runs");
    (health.status, kstatus(service))
}

async fn is_seen(w: &World, reason: &str, argo: &str, flux: Kstatus) -> InferenceService {
    let what = format!("m is {reason}");
    let service = w
        .until_service(&what, "m", |service| {
            condition(service, "Ready").is_some_and(|ready| ready.reason == reason)
                && is_observed(service)
        })
        .await;
    assert_eq!(seen(&service), (argo.to_owned(), flux), "{reason}");
    service
}

/// As a GitOps tool applies what is in Git.
async fn apply(w: &World, spec: &Value) -> InferenceService {
    let manifest = json!({
        "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "m"}, "spec": spec,
    });
    let params = PatchParams::apply("argocd-controller");
    let applied = w
        .api::<InferenceService>()
        .patch("m", &params, &Patch::Apply(manifest))
        .await;
    applied.expect("the manifest is accepted")
}

#[test]
fn each_state_that_the_operator_writes_is_seen_as_the_table_says() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Pending);
        let created = apply(&w, &spec("a")).await;
        assert_eq!(seen(&created).0, "Progressing");
        let _operator = Operator::start(&w);
        is_seen(&w, "Starting", "Progressing", Kstatus::InProgress).await;
        cluster.all(Fate::Ready);
        is_seen(&w, "Serving", "Healthy", Kstatus::Current).await;

        cluster.fate("b.onnx", Fate::Pending);
        let mut next = spec("b");
        let changed = apply(&w, &next).await;
        assert_eq!(
            seen(&changed),
            ("Progressing".to_owned(), Kstatus::InProgress),
            "the old status says nothing"
        );
        is_seen(&w, "RollingOut", "Progressing", Kstatus::InProgress).await;
        cluster.fate("b.onnx", Fate::Ready);
        is_seen(&w, "Serving", "Healthy", Kstatus::Current).await;

        cluster.fate("c.onnx", Fate::exited(15, "InvalidModel: truncated"));
        apply(&w, &spec("c")).await;
        is_seen(&w, "RolloutFailed", "Degraded", Kstatus::Failed).await;
        apply(&w, &next).await;
        is_seen(&w, "Serving", "Healthy", Kstatus::Current).await;

        next["suspend"] = json!(true);
        apply(&w, &next).await;
        is_seen(&w, "Suspended", "Healthy", Kstatus::Current).await;
    });
}

#[test]
fn an_apply_of_the_same_manifest_changes_nothing_after_a_promotion() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        apply(&w, &spec("a")).await;
        w.until_ready_is("m", "True", "Serving").await;
        let changed = apply(&w, &spec("b")).await;
        w.until_ready_is("m", "True", "Serving").await;
        w.until_event("m", "Promoted", "").await;
        // All that follows a promotion is over: the old pods are gone.
        w.until("one revision is left", async || {
            let left = w
                .api::<Deployment>()
                .list(&Default::default())
                .await
                .map_err(|e| e.to_string())?;
            if left.items.len() == 1 {
                Ok(())
            } else {
                Err(format!("{} are", left.items.len()))
            }
        })
        .await;
        let service: InferenceService = w.get("m").await;
        assert_eq!(
            service.metadata.generation, changed.metadata.generation,
            "nobody wrote to the spec"
        );
        let live = serde_json::to_value(&service.spec).expect("JSON");
        assert_eq!(live, spec("b"), "no default was written into it");
        let fields = service.managed_fields().iter();
        let of_spec: Vec<_> = fields
            .filter(|entry| {
                entry
                    .fields_v1
                    .as_ref()
                    .is_some_and(|fields| fields.0.get("f:spec").is_some())
            })
            .map(|entry| entry.manager.clone().unwrap_or_default())
            .collect();
        assert_eq!(of_spec, ["argocd-controller"]);
        // The status settles: what comes after the last write of it can only be an apply.
        let before = settled(&w).await;
        let again = apply(&w, &spec("b")).await;
        assert_eq!(
            again.resource_version(),
            before.resource_version(),
            "an apply that says the same is no write"
        );
    });
}

async fn settled(w: &World) -> InferenceService {
    let mut last: InferenceService = w.get("m").await;
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let now: InferenceService = w.get("m").await;
        if now.resource_version() == last.resource_version() {
            return now;
        }
        last = now;
    }
}
