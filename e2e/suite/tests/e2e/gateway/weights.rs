//! The Gateway itself splits (`provider: GatewayAPI`): it sends requests to the pods of each revision, past the routers.
//!
//! It splits at random, so shares are held within a tolerance that a right split misses once in a million.

use std::time::Duration;

use ortolan_e2e::{
    Gateway, Host, Load, Result, Service, Test, check, fail, kubectl, other_model, spec,
};
use ortolan_e2e_load::Tally;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    behind, goes_without_a_trace, host, routers::both_by_grpc, until_routed, until_weights,
};
use crate::router::saw_both;

/// A tiny service whose requests the Gateway splits, when it answers there; its hosts for REST and gRPC.
async fn split(t: &Test, rollout: &Value, replicas: i32) -> Result<(Service, Host, Host)> {
    let gateway = Gateway::find(&t.client).await?;
    let (rest, grpc) = (host(t, &gateway, "rest"), host(t, &gateway, "grpc"));
    let mut spec = behind(&gateway, "bad/identity.onnx", &rest, &grpc);
    spec["routing"]["provider"] = json!("GatewayAPI");
    spec["rollout"] = rollout.clone();
    spec["scaling"] = json!({"minReplicas": replicas});
    let service = t.service("tiny");
    service.apply(&spec).await?;
    service.until_ready().await?;
    until_routed(&service).await?;
    rest.until_status("/v2/health/ready", 200).await?;
    Ok((service, rest, grpc))
}

/// The answers of the new model, and all of them.
fn counts(tally: &Tally) -> (u64, u64) {
    let of = |first: &str| tally.answers.get(first).map_or(0, |seen| seen.count);
    (of("2.0"), of("1.0") + of("2.0"))
}

/// The new model's share of the next thousand answers is this, within the tolerance.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
async fn share_is(load: &Load, percent: i32) -> Result {
    let before = counts(&load.tally().await?);
    for _ in 0..120 {
        sleep(Duration::from_millis(500)).await;
        let now = counts(&load.tally().await?);
        let (new, all) = ((now.0 - before.0) as f64, (now.1 - before.1) as f64);
        if all >= 1000.0 {
            let (seen, wanted) = (new / all, f64::from(percent) / 100.0);
            let tolerance = 4.9 * (wanted * (1.0 - wanted) / all).sqrt();
            let told = || format!("{new} of {all} at {percent} %, ± {:.1}", 100.0 * tolerance);
            eprintln!("{}", told());
            return check((seen - wanted).abs() <= tolerance, told);
        }
    }
    let tally = load.tally().await?;
    fail(format!("no thousand answers in a minute: {tally:?}"))
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn weights_set_by_hand_are_the_shares_of_the_answers_and_each_change_fails_no_request() {
    Test::run(async |t| {
        let rollout = json!({
            "weight": 10, "rollbackWindow": "0s", "analysis": {"settle": "10s"},
        });
        let (service, rest, grpc) = split(t, &rollout, 1).await?;
        let (load, calls) = (rest.load("", "tiny").await?, grpc.grpc_load("tiny").await?);

        service.change(&other_model()).await?;
        let shares = until_weights(&service, &[90, 10]).await?;
        share_is(&load, 10).await?;
        for percent in [50, 90, 0, 10] {
            service
                .change(&json!({"rollout": {"weight": percent}}))
                .await?;
            let now = until_weights(&service, &[100 - percent, percent]).await?;
            check(now[0].revision == shares[0].revision, || format!("{now:?}"))?;
            share_is(&load, percent).await?;
        }
        let promote = format!(
            "serving.ortolan.dev/command=promote {} 1",
            shares[1].revision
        );
        t.kubectl(&["annotate", "oisvc", "tiny", &promote]).await?;
        until_weights(&service, &[100]).await?;
        service.until_only(&shares[1].revision).await?;
        share_is(&load, 100).await?;
        both_by_grpc(calls.stop_without_a_failure().await?)?;
        saw_both(load).await?;
        goes_without_a_trace(t, &service).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_promotion_through_the_gateway_fails_no_request_and_the_old_pods_end_after_it() {
    Test::run(async |t| {
        let rollout = json!({
            "strategy": "BlueGreen", "rollbackWindow": "0s", "analysis": {"settle": "10s"},
        });
        let (service, rest, grpc) = split(t, &rollout, 2).await?;
        let (load, calls) = (rest.load("", "tiny").await?, grpc.grpc_load("tiny").await?);
        service.change(&other_model()).await?;
        let new = service
            .until_ready()
            .await?
            .status
            .unwrap_or_default()
            .traffic;
        service.until_only(&new[0].revision).await?;
        // And back, with the old revision made anew.
        let model = spec("bad/identity.onnx")["model"].clone();
        service.change(&json!({"model": model})).await?;
        let old = service
            .until_ready()
            .await?
            .status
            .unwrap_or_default()
            .traffic;
        check(old != new, || format!("{old:?}"))?;
        service.until_only(&old[0].revision).await?;
        both_by_grpc(calls.stop_without_a_failure().await?)?;
        saw_both(load).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_revision_that_loses_its_pods_gets_no_share_until_it_has_some_again() {
    Test::alone(async |t| {
        let (service, rest, _) = split(t, &json!({"weight": 50}), 1).await?;
        let load = rest.load("", "tiny").await?;
        service.change(&other_model()).await?;
        let shares = until_weights(&service, &[50, 50]).await?;
        share_is(&load, 50).await?;

        // The pod ends in good order, and the next one finds no node.
        let nodes = "kubernetes.io/os=linux";
        kubectl(&["cordon", "--selector", nodes]).await?;
        let lost = async {
            let candidate = format!("serving.ortolan.dev/revision={}", shares[1].revision);
            t.kubectl(&["delete", "pod", "-l", &candidate]).await?;
            sleep(Duration::from_secs(5)).await;
            share_is(&load, 0).await
        };
        let lost = lost.await;
        kubectl(&["uncordon", "--selector", nodes]).await?;
        lost?;
        until_weights(&service, &[50, 50]).await?;
        sleep(Duration::from_secs(5)).await;
        share_is(&load, 50).await?;
        load.stop_without_a_failure().await.map(drop)
    })
    .await;
}
