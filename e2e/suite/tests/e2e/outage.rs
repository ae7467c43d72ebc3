//! The cluster itself fails during a change under load. Only on the single node of `e2e/cluster`, whose
//! programs can be stopped one by one; these tests stand alone.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use ortolan_e2e::{Node, Result, Service, Test, check, now, spec};
use tokio::time::sleep;

use crate::canary::at_half;

/// The node, or a sentence why the test is left out.
fn node() -> Option<Node> {
    let node = Node::here();
    if node.is_none() {
        println!(
            "skipped: it stops programs of the node, so it needs the single node of e2e/cluster"
        );
    }
    node
}

/// The change ends as it would have, and no request failed on the way.
async fn changes_under_load(t: &Test, trouble: impl AsyncFnOnce() -> Result) -> Result {
    let service = t.serving(&spec("bad/identity.onnx")).await?;
    let load = service.load().await?;
    service.apply(&spec("bad/identity-2.onnx")).await?;
    trouble().await?;
    let ready = service.until_ready().await?;
    let new = ready.status.unwrap_or_default().traffic;
    service.until_only(&new[0].revision).await?;
    let tally = load.stop_without_a_failure().await?;
    let moved = tally.answers.contains_key("1.0") && tally.answers.contains_key("2.0");
    check(moved, || format!("{tally:?}"))
}

#[tokio::test]
async fn an_api_server_that_is_gone_for_half_a_minute_during_a_change_fails_no_request() {
    let Some(node) = node() else { return };
    Test::alone(async |t| {
        changes_under_load(t, async || {
            sleep(Duration::from_millis(700)).await;
            // At once: a graceful stop takes half a minute of its own, and a minute without the API server is
            // too long for the node to count as ready.
            node.run(&["stop", "apiserver", "KILL"]).await?;
            // One that cannot renew its Lease ends, and starts anew with fresh eyes; in this cluster it
            // has no Lease. An old one would call the node dead by what it saw half a minute ago.
            node.run(&["stop", "kcm", "KILL"]).await?;
            sleep(Duration::from_secs(30)).await;
            node.run(&["start", "apiserver"]).await?;
            node.run(&["start", "kcm"]).await.map(drop)
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_is_gone_for_two_minutes_during_a_canary_moves_no_weight_and_fails_no_request()
 {
    let Some(node) = node() else { return };
    Test::alone(async |t| {
        let (service, load) = at_half(t, 20).await?;
        node.run(&["stop", "apiserver", "KILL"]).await?;
        node.run(&["stop", "kcm", "KILL"]).await?;
        sleep(Duration::from_secs(120)).await;
        node.run(&["start", "apiserver"]).await?;
        node.run(&["start", "kcm"]).await?;
        service.until_ready().await?;
        let tally = load.stop_without_a_failure().await?;
        // Half of them each, for all of that time.
        let shares = tally.answers.get("1.0").zip(tally.answers.get("2.0"));
        let even = shares.is_some_and(|(old, new)| {
            old.last_ms > 120_000
                && new.first_ms < 60_000
                && old.count.min(new.count) * 3 > old.count.max(new.count)
        });
        check(even, || format!("{tally:?}"))
    })
    .await;
}

/// Since when the pods of a service are ready, in seconds since 1970.
async fn ready_since(service: &Service) -> Result<BTreeMap<String, i64>> {
    let since = |pod: &Pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions
            .iter()
            .find(|c| c.type_ == "Ready" && c.status == "True")?;
        let since = ready.last_transition_time.as_ref()?.0.as_second();
        Some((pod.metadata.name.clone()?, since))
    };
    Ok(service.pods().await?.iter().filter_map(since).collect())
}

/// A kubelet that has just started may call the pods of its node unready until it has probed them, in
/// Kubernetes' own record. While it does there is no ready pod on a single node, and a new connection
/// is refused; before and after that no request may fail.
#[tokio::test]
async fn a_kubelet_that_is_restarted_during_a_change_fails_no_request_while_a_pod_is_ready() {
    let Some(node) = node() else { return };
    Test::alone(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        let before = ready_since(&service).await?;
        let load = service.load().await?;
        service.apply(&spec("bad/identity-2.onnx")).await?;
        sleep(Duration::from_millis(700)).await;
        let restarted = now();
        node.run(&["restart", "kubelet"]).await?;
        let ready = service.until_ready().await?;
        // The new pod may be ready before the kubelet is back: its record is read when it has been for a while, and the
        // old pod is still there.
        while now() < restarted + 7.0 {
            sleep(Duration::from_millis(200)).await;
        }
        let after = ready_since(&service).await?;
        let new = ready.status.unwrap_or_default().traffic;
        service.until_only(&new[0].revision).await?;
        let unready = before.iter().find_map(|(pod, since)| {
            let again = *after.get(pod)?;
            (again != *since).then_some(again)
        });
        let Some(again) = unready else {
            return load.stop_without_a_failure().await.map(drop);
        };
        let began = load.began;
        let tally = load.stop().await?;
        let within = |at_ms: u64| {
            let at = began + Duration::from_millis(at_ms).as_secs_f64();
            // Whole seconds are recorded, and kube-proxy follows within another one or two.
            at >= restarted - 0.5
                && at <= Duration::from_secs(again.unsigned_abs()).as_secs_f64() + 3.0
        };
        let excused = tally
            .failures
            .iter()
            .filter(|miss| within(miss.at_ms))
            .count();
        check(u64::try_from(excused) == Ok(tally.failed), || {
            format!(
                "{} failed, {excused} of them while the kubelet called the pod unready: {tally:?}",
                tally.failed
            )
        })?;
        check(tally.answers.contains_key("2.0"), || format!("{tally:?}"))
    })
    .await;
}
