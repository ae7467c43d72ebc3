//! The chart's life around services that are alive. These tests stand alone: they take the operator away.

use std::time::Duration;

use ortolan_e2e::{
    Install, RELEASE, Result, SYSTEM, Test, check, helm, other_model, plain_spec, spec,
};
use serde_json::json;
use tokio::time::sleep;

use crate::{bare::until_kind, canary::at_half, router::saw_both};

async fn uninstall(namespace: &str, release: &str) -> Result {
    let gone = [
        "uninstall",
        release,
        "-n",
        namespace,
        "--wait",
        "--timeout",
        "60s",
        "--ignore-not-found",
    ];
    helm(&gone).await.map(drop)
}

/// Whatever a test did, the next one finds the usual release.
async fn restored(outcome: Result, others: &[(&str, &str)]) -> Result {
    for (namespace, release) in others {
        uninstall(namespace, release).await?;
    }
    Install::chart(RELEASE, &[]).await?;
    outcome
}

async fn pods(t: &Test) -> Result<String> {
    let all = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}";
    t.kubectl(&["get", "pods", "-o", all]).await
}

#[tokio::test]
async fn services_outlive_the_chart_and_another_release_goes_on_with_them() {
    Test::alone(async |t| {
        let service = t.serving(&plain_spec("bad/identity.onnx")).await?;
        // The routers go with the chart. Without them the Service selects the pods, which stay.
        Install::chart(RELEASE, &["--set", "router.enabled=false"]).await?;
        until_kind(t, &service, "ClusterIP").await?;
        service.until_answers().await?;
        let before = pods(t).await?;
        let load = service.load().await?;
        uninstall(SYSTEM, RELEASE).await?;
        let outcome = async {
            Install::chart("another", &["--set", "router.enabled=false"]).await?;
            check(pods(t).await? == before, || {
                format!("the pods were {before}")
            })?;
            service.change(&other_model()).await?;
            let ready = service.until_ready().await?;
            let new = ready.status.unwrap_or_default().traffic;
            service.until_only(&new[0].revision).await?;
            let tally = load.stop_without_a_failure().await?;
            check(tally.answers.contains_key("2.0"), || format!("{tally:?}"))
        };
        restored(outcome.await, &[(SYSTEM, "another")]).await
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_with_other_defaults_replaces_operator_and_routers_and_restarts_no_model_pod() {
    Test::alone(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        let before = pods(t).await?;
        let load = service.load().await?;
        let other = [
            "--set",
            "images.server.cpu=localhost/ortolan/server:other",
            "--set",
            "concurrency=8",
            "--set",
            "router.grace=36",
        ];
        Install::chart(RELEASE, &other).await?;
        let outcome = async {
            // The new operator works: it answers a change that makes no new revision.
            service
                .change(&json!({"rollout": {"strategy": "Recreate"}}))
                .await?;
            service.until_ready().await?;
            check(pods(t).await? == before, || {
                format!("the pods were {before}")
            })?;
            load.stop_without_a_failure().await?;
            // And the new default is used for a new revision.
            let fresh = t.service("fresh");
            fresh.apply(&spec("bad/identity.onnx")).await?;
            let told = fresh.until_reason("ImagePullFailed").await?;
            check(told.contains("server:other"), || told.clone())
        };
        restored(outcome.await, &[]).await
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_in_the_middle_of_a_canary_fails_no_request_and_the_canary_goes_on() {
    Test::alone(async |t| {
        let (service, load) = at_half(t, 25).await?;
        let old = service.get().await?.status.unwrap_or_default();
        let other = ["--set", "concurrency=8", "--set", "router.grace=36"];
        Install::chart(RELEASE, &other).await?;
        let outcome = async {
            let now = service.get().await?.status.unwrap_or_default();
            check(now.traffic == old.traffic, || {
                format!("the weights jumped: {:?}", now.traffic)
            })?;
            let ready = service.until_ready().await?.status.unwrap_or_default();
            check(
                ready.traffic.len() == 1 && ready.traffic[0] != old.traffic[0],
                || format!("{:?}", ready.traffic),
            )?;
            saw_both(load).await
        };
        restored(outcome.await, &[]).await
    })
    .await;
}

#[tokio::test]
async fn two_namespaced_installs_work_side_by_side_and_leave_other_namespaces_alone() {
    Test::alone(async |t| {
        let (one, two) = (t.namespace.clone(), t.another_namespace().await?);
        let third = t.another_namespace().await?;
        uninstall(SYSTEM, RELEASE).await?;
        let outcome = async {
            let alone = ["--set", "namespaced=true", "--set", "replicas=1"];
            for namespace in [&one, &two] {
                Install::chart_in(namespace, RELEASE, &alone).await?;
            }
            let unwatched = t.service_in(&third, "tiny");
            unwatched.apply(&spec("bad/identity.onnx")).await?;
            for namespace in [&one, &two] {
                t.service_in(namespace, "tiny")
                    .apply(&spec("bad/identity.onnx"))
                    .await?;
            }
            for namespace in [&one, &two] {
                let service = t.service_in(namespace, "tiny");
                service.until_ready().await?;
                service.until_answers().await?;
                let answer = service.infer_tiny().await?;
                check(answer == json!([1.0, 2.0, 3.0, 4.0]), || answer.to_string())?;
            }
            sleep(Duration::from_secs(1)).await;
            let status = unwatched.get().await?.status;
            check(status.is_none(), || {
                format!("nobody watches {third}: {status:?}")
            })?;
            unwatched.delete().await
        };
        let outcome = outcome.await;
        let outcome = restored(outcome, &[(&one, RELEASE), (&two, RELEASE)]).await;
        t.clear(&two).await?;
        t.clear(&third).await?;
        outcome
    })
    .await;
}
