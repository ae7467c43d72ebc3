//! Without routers (`router.enabled=false`) a Service selects the pods of the revision that serves. These tests stand alone: they
//! change the release.

use std::time::{Duration, Instant};

use ortolan_e2e::{Install, RELEASE, Result, Service, Test, check, other_model, plain_spec};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    disturbance::the_old_one_stops_first, rollout::takes_over_without_a_failed_request,
    router::kind_of,
};

/// Runs `body` on a release without routers; the next test finds the usual one.
pub(crate) async fn without_routers(body: impl AsyncFnOnce() -> Result) -> Result {
    Install::chart(RELEASE, &["--set", "router.enabled=false"]).await?;
    let outcome = body().await;
    Install::chart(RELEASE, &[]).await?;
    outcome
}

/// Waits until the service's own Service is of this type, as it becomes soon after the chart has changed.
pub(crate) async fn until_kind(t: &Test, service: &Service, kind: &str) -> Result {
    let start = Instant::now();
    loop {
        let seen = kind_of(t, service).await?;
        if seen == kind {
            return Ok(());
        }
        check(start.elapsed() < Duration::from_secs(60), || {
            format!("the Service is a {seen} for a minute, not a {kind}")
        })?;
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn without_routers_a_change_fails_no_request_and_switching_them_on_makes_the_service_theirs()
{
    Test::alone(async |t| {
        let service = t.service("tiny");
        without_routers(async || {
            service.apply(&plain_spec("bad/identity.onnx")).await?;
            service.until_ready().await?;
            until_kind(t, &service, "ClusterIP").await?;
            service.until_answers().await?;
            takes_over_without_a_failed_request(t, &service, &plain_spec("bad/identity-2.onnx"))
                .await?;
            // What only routers can do is refused by name, and what serves goes on.
            service.change(&json!({"rollout": {"weight": 10}})).await?;
            let told = service.until_reason("InvalidSpec").await?;
            check(told.contains("rollout.weight"), || told.clone())?;
            service.change(&json!({"rollout": null})).await?;
            service.until_ready().await.map(drop)
        })
        .await?;
        until_kind(t, &service, "ExternalName").await?;
        service.until_answers().await?;
        let answer = service.infer_tiny().await?;
        check(answer == json!([2.0, 3.0, 4.0, 5.0]), || answer.to_string())
    })
    .await;
}

#[tokio::test]
async fn without_routers_recreate_stops_the_old_revision_first_and_says_so() {
    Test::alone(async |t| {
        without_routers(async || {
            let service = t.service("tiny");
            let mut first = plain_spec("bad/identity.onnx");
            first["rollout"] = json!({"strategy": "Recreate"});
            service.apply(&first).await?;
            service.until_ready().await?;
            service.change(&other_model()).await?;
            the_old_one_stops_first(&service).await
        })
        .await
    })
    .await;
}
