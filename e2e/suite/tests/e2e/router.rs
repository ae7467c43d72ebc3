//! The routers of the chart before the pods: they are replaced, and requests wait in them. Tests that replace them stand alone.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service as KubernetesService;
use kube::Api;
use ortolan_e2e::{Load, Result, SYSTEM, Service, Test, check, kubectl, other_model, spec};
use ortolan_e2e_load::{Order, Tally};
use serde_json::json;
use tokio::time::sleep;

const ROUTERS: &str = "deployment/ortolan-router";

/// None failed, and both models answered, and nothing else.
pub(crate) async fn saw_both(load: Load) -> Result {
    let tally = load.stop_without_a_failure().await?;
    check(tally.answers.keys().eq(["1.0", "2.0"]), || {
        format!("{tally:?}")
    })
}

/// The type of the service's own Service.
pub(crate) async fn kind_of(t: &Test, service: &Service) -> Result<String> {
    let all: Api<KubernetesService> = Api::namespaced(t.client.clone(), &service.namespace);
    let found = all.get(&service.name).await?;
    Ok(found.spec.and_then(|spec| spec.type_).unwrap_or_default())
}

#[tokio::test]
async fn a_change_of_model_new_routers_and_a_deleted_pod_fail_no_request() {
    Test::alone(async |t| {
        let mut two = spec("bad/identity.onnx");
        two["scaling"] = json!({"minReplicas": 2});
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
    .await;
}

#[tokio::test]
async fn requests_wait_while_recreate_has_no_pod_and_none_fails() {
    Test::run(async |t| {
        let mut first = spec("bad/identity.onnx");
        first["rollout"]["strategy"] = json!("Recreate");
        let service = t.serving(&first).await?;
        let load = service.load().await?;
        sleep(Duration::from_secs(1)).await;
        service.change(&other_model()).await?;
        service.until_reason("Recreating").await?;
        service.until_ready().await?;
        sleep(Duration::from_secs(1)).await;
        saw_both(load).await
    })
    .await;
}

/// Each of so many clients asks once, and waits for its answer as long as it takes.
async fn crowd(service: &Service, clients: usize) -> Result<Load> {
    let once = Order {
        fresh: 0,
        kept: clients,
        pause_ms: 600_000,
        timeout_ms: 180_000,
        ..Load::order(service.url(&format!("/v2/models/{}/infer", service.name)))
    };
    Load::start(&service.client, &once).await
}

/// What the crowd saw, when so many of it have an answer or a refusal.
async fn until_told(load: &Load, clients: u64) -> Result<Tally> {
    let start = Instant::now();
    loop {
        let tally = load.tally().await?;
        if tally.sent >= clients {
            return Ok(tally);
        }
        check(start.elapsed() < Duration::from_secs(120), || {
            format!("{} of {clients} have an answer", tally.sent)
        })?;
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn of_five_thousand_requests_without_a_pod_each_router_holds_a_thousand_and_refuses_the_rest()
{
    Test::alone(async |t| {
        let mut asleep = spec("bad/identity.onnx");
        asleep["routing"] = json!({"holdTimeout": "3m"});
        let service = t.serving(&asleep).await?;
        service.change(&json!({"suspend": true})).await?;
        service.until_no_pods().await?;
        let load = crowd(&service, 5000).await?;
        let refused = until_told(&load, 3000).await?;
        // None of those who wait is told anything.
        sleep(Duration::from_secs(3)).await;
        let waiting = load.tally().await?;
        check(
            refused.failed == 3000 && waiting.failed == 3000 && waiting.answers.is_empty(),
            || format!("{refused:?}, later {waiting:?}"),
        )?;
        let told = refused.failures.iter().map(|miss| &miss.what);
        let mut odd = told.filter(|what| !(what.contains("503") && what.contains("wait")));
        check(odd.next().is_none(), || {
            format!("{:?}", refused.failures.first())
        })?;
        // With the pod, all of them are answered.
        service.change(&json!({"suspend": null})).await?;
        let all = until_told(&load, 5000).await?;
        let right = all.answers.get("1.0").map(|seen| seen.count);
        check(all.failed == 3000 && right == Some(2000), || {
            format!("{all:?}")
        })?;
        load.stop().await.map(drop)
    })
    .await;
}
