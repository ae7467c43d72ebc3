//! `/scale`: whoever scales an InferenceService with `scaler: External` says how many pods serve.

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v1::Scale};
use kube::api::{Patch, PatchParams};
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    world::{is_observed, spec, world},
};
use serde_json::{Value, json};

use crate::lifecycle::{revision_of, serving};

fn external(scaling: Value) -> Value {
    let mut spec = spec("a");
    spec["scaling"] = scaling;
    spec["scaling"]["scaler"] = json!("External");
    spec
}

/// As `kubectl scale` does; the API server's words where it refuses.
async fn scale(w: &World, name: &str, replicas: i32) -> Result<Scale, String> {
    let params = PatchParams {
        field_manager: Some("kubectl-scale".into()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let services = w.api::<InferenceService>();
    let scaled = services.patch_scale(name, &params, &patch).await;
    scaled.map_err(|error| error.to_string())
}

async fn until_pods(w: &World, deployment: &str, replicas: i32) -> Deployment {
    let what = format!("{replicas} pods");
    w.until_object(&what, deployment, |d: &Deployment| {
        d.spec.as_ref().and_then(|spec| spec.replicas) == Some(replicas)
    })
    .await
}

/// What `/scale` says: the number asked for, and the number of pods.
async fn until_told(w: &World, name: &str, replicas: i32) -> Scale {
    w.until("the scale is told", async || {
        let scale = w.api::<InferenceService>().get_scale(name).await;
        let scale = scale.map_err(|error| error.to_string())?;
        let asked = scale.spec.as_ref().and_then(|spec| spec.replicas);
        let has = scale.status.as_ref().map(|status| status.replicas);
        match (asked, has) == (Some(replicas), Some(replicas)) {
            true => Ok(scale),
            false => Err(format!("{scale:?}")),
        }
    })
    .await
}

#[test]
fn who_scales_an_inference_service_says_how_many_pods_serve() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let first = serving(&w, "m", external(json!({"minReplicas": 2}))).await;
        let name = revision_of(&first);
        let made = until_pods(&w, &name, 2).await;
        let unwritten = w.api::<InferenceService>().get_scale("m").await;
        let unwritten = unwritten.expect_err("no number yet").to_string();
        let why = r#"the spec replicas field ".spec.scaling.replicas" does not exist"#;
        assert!(unwritten.contains(why), "{unwritten}");

        scale(&w, "m", 4).await.expect("it is scaled");
        let scaled = until_pods(&w, &name, 4).await;
        assert_eq!(scaled.metadata.uid, made.metadata.uid);
        let template = |d: &Deployment| d.spec.as_ref().map(|spec| spec.template.clone());
        assert_eq!(template(&scaled), template(&made), "no pod restarts");
        let told = until_told(&w, "m", 4).await;
        let selector = told.status.and_then(|status| status.selector);
        assert_eq!(selector.as_deref(), Some("serving.ortolan.dev/service=m"));
        w.until_event("m", "Scaled", &format!("revision {name}: 2 → 4 pods"))
            .await;

        let refused = scale(&w, "m", 1).await.expect_err("fewer than minReplicas");
        let why = "replicas is below minReplicas: scale to minReplicas or more, or write a smaller minReplicas";
        assert!(refused.contains(why), "{refused}");
        let refused = scale(&w, "m", 0).await.expect_err("none");
        let why = "scale to a number from 1 to 1000; to stop all pods write suspend: true";
        assert!(refused.contains(why), "{refused}");

        // The number outlives an apply of what is in Git, a new revision, and a pause.
        let manifest = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "m"}, "spec": external(json!({"minReplicas": 2})),
        });
        let git = PatchParams::apply("git").force();
        let services = w.api::<InferenceService>();
        for _ in 0..2 {
            let applied = services.patch("m", &git, &Patch::Apply(&manifest)).await;
            assert_eq!(applied.expect("it is applied").spec.replicas(), 4);
        }
        w.edit::<InferenceService>("m", json!({"spec": {"model": spec("b")["model"]}}))
            .await;
        let changed = w
            .until_service("the new one serves", "m", |s| {
                is_observed(s)
                    && s.status.as_ref().is_some_and(|status| {
                        status.traffic.len() == 1 && status.traffic[0].revision == revision_of(s)
                    })
            })
            .await;
        let name = revision_of(&changed);
        until_pods(&w, &name, 4).await;
        for (suspend, pods) in [(true, 0), (false, 4)] {
            w.edit::<InferenceService>("m", json!({"spec": {"suspend": suspend}}))
                .await;
            until_pods(&w, &name, pods).await;
        }

        // The Deployment is not what is to be scaled.
        let params = PatchParams {
            field_manager: Some("kubectl-scale".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": {"replicas": 7}}));
        let deployments = w.api::<Deployment>();
        let scaled = deployments.patch_scale(&name, &params, &patch).await;
        scaled.expect("it is scaled");
        let why = "set back to 4: scale the InferenceService instead";
        w.until_event("m", "ScaleReverted", why).await;
        until_pods(&w, &name, 4).await;
    });
}

#[test]
fn a_service_that_nobody_may_scale_says_what_to_write() {
    world(async |w| {
        w.create("m", spec("a")).await;
        let refused = scale(&w, "m", 3).await.expect_err("no scaler");
        let why = "replicas is what others write through /scale, and with it scaler: External is needed: write that, or minReplicas instead of replicas";
        assert!(refused.contains(why), "{refused}");
    });
}
