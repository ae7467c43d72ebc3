//! Who scales an InferenceService through `/scale`: a person, and a HorizontalPodAutoscaler of Kubernetes.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use ortolan_e2e::{Result, Test, spec};
use serde_json::json;

/// As `kubectl autoscale` does. Without metrics of pods, which this cluster does not have, it holds the number between the two.
async fn autoscale(t: &Test, name: &str, between: (i32, i32)) -> Result {
    let all: Api<HorizontalPodAutoscaler> = Api::namespaced(t.client.clone(), &t.namespace);
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService", "name": name,
            },
            "minReplicas": between.0, "maxReplicas": between.1,
        },
    });
    let by = PatchParams::apply("ortolan-e2e").force();
    all.patch(name, &by, &Patch::Apply(&object)).await?;
    Ok(())
}

#[tokio::test]
async fn a_person_and_an_autoscaler_say_how_many_pods_serve_and_no_request_fails() {
    Test::run(async |t| {
        let mut external = spec("bad/identity.onnx");
        external["scaling"] = json!({"scaler": "External"});
        let service = t.serving(&external).await?;
        let load = service.load().await?;
        let what = format!("inferenceservice/{}", service.name);
        t.kubectl(&["scale", &what, "--replicas=2"]).await?;
        service.until_ready_pods(2, "").await?;

        autoscale(t, &service.name, (3, 4)).await?;
        service.until_ready_pods(3, "").await?;
        autoscale(t, &service.name, (1, 2)).await?;
        service.until_ready_pods(2, "").await?;
        load.stop_without_a_failure().await.map(drop)
    })
    .await;
}
