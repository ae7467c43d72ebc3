//! The cluster itself fails during a change under load. Only on the single node of `e2e/cluster`, whose
//! programs can be stopped one by one; these tests stand alone.

use std::time::Duration;

use ortolan_e2e::{Node, Result, Service, Test, check, spec};
use tokio::time::sleep;

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

async fn serving(t: &Test) -> Result<Service> {
    let service = t.service("tiny");
    service.apply(&spec("bad/identity.onnx")).await?;
    service.until_ready().await?;
    service.until_answers().await?;
    Ok(service)
}

/// The change ends as it would have, and no request failed on the way.
async fn changes_under_load(t: &Test, trouble: impl AsyncFnOnce() -> Result) -> Result {
    let service = serving(t).await?;
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
async fn a_kubelet_that_is_restarted_during_a_change_fails_no_request() {
    let Some(node) = node() else { return };
    Test::alone(async |t| {
        changes_under_load(t, async || {
            sleep(Duration::from_millis(700)).await;
            node.run(&["restart", "kubelet"]).await.map(drop)
        })
        .await
    })
    .await;
}
