//! What belongs to a service: it comes back when it is taken away, and it goes with the service.

use std::{collections::BTreeSet, time::Duration};

use ortolan_e2e::{Result, Test, check, kubectl, spec};
use serde_json::json;
use tokio::time::sleep;

/// Everything with our label, of every kind that the cluster knows.
pub(crate) async fn ours(t: &Test, name: &str) -> Result<BTreeSet<String>> {
    let kinds = [
        "api-resources",
        "--namespaced",
        "--verbs=list,delete",
        "-o",
        "name",
    ];
    let kinds = kubectl(&kinds).await?;
    let kinds: Vec<_> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events"))
        .collect();
    let label = format!("serving.ortolan.dev/service={name}");
    let listed = t
        .kubectl(&["get", &kinds.join(","), "-l", &label, "-o", "name"])
        .await?;
    Ok(listed.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_deleted_service_leaves_nothing_behind() {
    Test::run(async |t| {
        let service = t.service("tiny");
        service.apply(&spec("bad/identity.onnx")).await?;
        service.until_ready().await?;
        service.apply(&spec("bad/identity-2.onnx")).await?;
        service.until_ready().await?;
        let before = ours(t, "tiny").await?;
        check(before.len() >= 8, || format!("{before:?}"))?;
        service.delete().await?;
        let mut left = before;
        for _ in 0..240 {
            left = ours(t, "tiny").await?;
            if left.is_empty() {
                return Ok(());
            }
            sleep(Duration::from_millis(250)).await;
        }
        check(false, || format!("left after a minute: {left:?}"))
    })
    .await;
}

/// `kubectl get` comes to print this within half a minute.
async fn becomes(t: &Test, what: &[&str], expected: &str) -> Result {
    let arguments: Vec<_> = ["get", "--ignore-not-found"]
        .iter()
        .chain(what)
        .copied()
        .collect();
    let mut seen = String::new();
    for _ in 0..60 {
        seen = t.kubectl(&arguments).await?;
        if seen == expected {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
    check(false, || format!("{what:?} is “{seen}”, not “{expected}”"))
}

#[tokio::test]
async fn what_is_edited_or_deleted_by_hand_comes_back_and_no_request_fails() {
    Test::run(async |t| {
        let service = t.service("tiny");
        service.apply(&spec("bad/identity.onnx")).await?;
        let ready = service.until_ready().await?;
        service.until_answers().await?;
        let revision = ready.status.unwrap_or_default().traffic[0].revision.clone();
        let pods = t.kubectl(&["get", "pods", "-o", "name"]).await?;
        let load = service.load().await?;

        let wiped = json!({"status": null}).to_string();
        t.kubectl(&[
            "patch",
            "oisvc",
            "tiny",
            "--subresource=status",
            "--type=merge",
            "-p",
            &wiped,
        ])
        .await?;
        service.until_ready().await?;
        t.kubectl(&["delete", "pdb", &revision]).await?;
        let deployment = format!("deployment/{revision}");
        t.kubectl(&["scale", &deployment, "--replicas=3"]).await?;
        becomes(
            t,
            &["pdb", &revision, "-o", "jsonpath={.spec.maxUnavailable}"],
            "1",
        )
        .await?;
        becomes(t, &[&deployment, "-o", "jsonpath={.spec.replicas}"], "1").await?;
        let edited = json!({"spec": {"maxUnavailable": 0}}).to_string();
        t.kubectl(&["patch", "pdb", &revision, "--type=merge", "-p", &edited])
            .await?;
        becomes(
            t,
            &["pdb", &revision, "-o", "jsonpath={.spec.maxUnavailable}"],
            "1",
        )
        .await?;
        load.stop_without_a_failure().await?;
        let after = t.kubectl(&["get", "pods", "-o", "name"]).await?;
        check(after.contains(pods.trim()), || {
            format!("{pods} were replaced: {after}")
        })?;
        t.until_events(&["ScaleReverted", "DriftRepaired"]).await
    })
    .await;
}
