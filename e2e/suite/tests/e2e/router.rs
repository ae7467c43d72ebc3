//! With the routers of the chart before the pods. These tests stand alone: they change the release.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service as KubernetesService;
use kube::Api;
use ortolan_e2e::{
    Install, Load, RELEASE, Result, SYSTEM, Service, Test, check, kubectl, other_model, spec,
};
use serde_json::json;
use tokio::time::sleep;

const ROUTERS: &str = "deployment/ortolan-router";
const ON: [&str; 2] = ["--set", "router.enabled=true"];

/// Runs `body` on a release with routers; the next test finds the usual one.
pub(crate) async fn with_routers(t: &Test, body: impl AsyncFnOnce(&Test) -> Result) -> Result {
    Install::chart(RELEASE, &ON).await?;
    let outcome = body(t).await;
    if outcome.is_err() {
        let logs = [
            "-n",
            SYSTEM,
            "logs",
            ROUTERS,
            "--tail=60",
            "--all-pods=true",
        ];
        eprintln!(
            "{}",
            kubectl(&logs)
                .await
                .unwrap_or_else(|error| error.to_string())
        );
    }
    Install::chart(RELEASE, &[]).await?;
    outcome
}

/// None failed, and both models answered, and nothing else.
pub(crate) async fn saw_both(load: Load) -> Result {
    let tally = load.stop_without_a_failure().await?;
    check(tally.answers.keys().eq(["1.0", "2.0"]), || {
        format!("{tally:?}")
    })
}

async fn kind_of(t: &Test, service: &Service) -> Result<String> {
    let all: Api<KubernetesService> = Api::namespaced(t.client.clone(), &service.namespace);
    let found = all.get(&service.name).await?;
    Ok(found.spec.and_then(|spec| spec.type_).unwrap_or_default())
}

#[tokio::test]
async fn behind_routers_a_change_of_model_and_new_routers_fail_no_request() {
    Test::alone(async |t| {
        with_routers(t, async |t| {
            let mut two = spec("bad/identity.onnx");
            two["scaling"] = json!({"minReplicas": 2});
            // All at once, and nothing is kept of the old revision.
            two["rollout"] = json!({
                "strategy": "BlueGreen", "rollbackWindow": "0s", "analysis": {"settle": "10s"},
            });
            let service = t.serving(&two).await?;
            let kind = kind_of(t, &service).await?;
            check(kind == "ExternalName", || {
                format!("the Service is of type {kind}")
            })?;
            let load = service.load().await?;

            service.change(&other_model()).await?;
            let ready = service.until_ready().await?;
            let new = ready.status.unwrap_or_default().traffic;
            service.until_only(&new[0].revision).await?;

            kubectl(&["-n", SYSTEM, "rollout", "restart", ROUTERS]).await?;
            kubectl(&["-n", SYSTEM, "rollout", "status", ROUTERS, "--timeout=120s"]).await?;

            let gone = service.delete_a_pod().await?;
            service.until_ready_pods(2, &gone).await?;
            saw_both(load).await
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn behind_routers_requests_wait_while_recreate_has_no_pod_and_none_fails() {
    Test::alone(async |t| {
        with_routers(t, async |t| {
            let mut first = spec("bad/identity.onnx");
            first["rollout"] = json!({"strategy": "Recreate", "analysis": {"settle": "10s"}});
            let service = t.serving(&first).await?;
            let load = service.load().await?;
            sleep(Duration::from_secs(1)).await;
            service.change(&other_model()).await?;
            service.until_reason("Recreating").await?;
            service.until_ready().await?;
            sleep(Duration::from_secs(1)).await;
            saw_both(load).await
        })
        .await
    })
    .await;
}
