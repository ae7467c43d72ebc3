//! What goes wrong, or is done, while a service works: no request fails where a ready pod exists.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use ortolan_crds::names;
use ortolan_e2e::{Node, Result, SYSTEM, Service, Test, check, kubectl, other_model, spec};
use serde_json::json;
use tokio::time::sleep;

async fn serving(t: &Test, replicas: i32) -> Result<Service> {
    let mut spec = spec("bad/identity.onnx");
    spec["scaling"] = json!({"minReplicas": replicas});
    t.serving(&spec).await
}

async fn pod_names(service: &Service) -> Result<BTreeSet<String>> {
    let pods = service.pods().await?;
    let alive = pods
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(alive.filter_map(|pod| pod.metadata.name).collect())
}

#[tokio::test]
async fn an_operator_that_is_killed_during_a_change_finishes_it_without_a_failed_request() {
    // Alone: an event that it was about to tell dies with it, and others look for theirs.
    Test::alone(async |t| {
        let service = serving(t, 1).await?;
        let load = service.load().await?;
        service.change(&other_model()).await?;
        sleep(Duration::from_millis(500)).await;
        Node::kill_operators().await?;
        let ready = service.until_ready().await?;
        let new = ready.status.unwrap_or_default().traffic;
        // Again, as soon as they are back.
        kubectl(&[
            "-n",
            SYSTEM,
            "rollout",
            "status",
            "deployment/ortolan-operator",
            "--timeout=120s",
        ])
        .await?;
        Node::kill_operators().await?;
        service.until_only(&new[0].revision).await?;
        let tally = load.stop_without_a_failure().await?;
        check(tally.answers.contains_key("2.0"), || format!("{tally:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_is_replaced_while_the_other_one_serves() {
    Test::run(async |t| {
        let service = serving(t, 2).await?;
        let load = service.load().await?;
        for _ in 0..2 {
            let gone = service.delete_a_pod().await?;
            service.until_ready_pods(2, &gone).await?;
        }
        service.until_ready().await?;
        load.stop_without_a_failure().await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn more_pods_and_fewer_restart_none_that_stays_and_fail_no_request() {
    Test::run(async |t| {
        let service = serving(t, 1).await?;
        let first = pod_names(&service).await?;
        let load = service.load().await?;
        for replicas in [3, 1] {
            service
                .change(&json!({"scaling": {"minReplicas": replicas}}))
                .await?;
            service
                .until(&format!("{replicas} pods are ready"), 120, |s| {
                    let status = s.status.clone().unwrap_or_default();
                    let observed = status.observed_generation == s.metadata.generation;
                    observed
                        && status.ready_replicas == Some(replicas)
                        && status.replicas == Some(replicas)
                })
                .await?;
        }
        let last = pod_names(&service).await?;
        load.stop_without_a_failure().await?;
        check(last.len() == 1, || format!("{last:?}"))?;
        let revisions = service.get().await?.status.unwrap_or_default().revisions;
        check(revisions.len() == 1, || format!("{revisions:?}"))?;
        // Which pod stays is the ReplicaSet controller's choice; that the first one was not
        // replaced while there were three is ours.
        check(!first.is_empty(), || "no pod at first".into())?;
        t.until_events(&["1 → 3 pods"]).await
    })
    .await;
}

/// Waits until containers of the service's pods have been started again so many times.
async fn until_restarts(service: &Service, wanted: usize) -> Result {
    let start = Instant::now();
    loop {
        let pods = service.pods().await?;
        let containers = pods
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        let seen: i32 = containers
            .flatten()
            .map(|container| container.restart_count)
            .sum();
        if usize::try_from(seen) == Ok(wanted) {
            return Ok(());
        }
        check(start.elapsed() < Duration::from_secs(60), || {
            format!("{seen} restarts, not {wanted}")
        })?;
        sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_fails_no_request_that_can_be_sent_again() {
    let Some(node) = Node::here() else {
        println!(
            "skipped: it kills a process of the node, so it needs the single node of e2e/cluster"
        );
        return;
    };
    Test::run(async |t| {
        let service = serving(t, 2).await?;
        let load = service.load().await?;
        // One after the other: the same one twice would wait for its container's next start.
        for (n, pod) in service.pods().await?.iter().enumerate() {
            sleep(Duration::from_secs(2)).await;
            node.kill_server(pod).await?;
            until_restarts(&service, n + 1).await?;
            service.until_ready_pods(2, "").await?;
        }
        load.stop_without_a_failure().await.map(drop)
    })
    .await;
}

/// The change that was just made, with `Recreate`: it is announced, and never do both revisions have pods.
pub(crate) async fn the_old_one_stops_first(service: &Service) -> Result {
    let told = service.until_reason("Recreating").await?;
    check(told.contains("stops before revision"), || told.clone())?;
    loop {
        let pods = service.pods().await?;
        // A pod that has ended holds no device, until it is removed a moment later.
        let ended = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let revisions: BTreeSet<_> = pods
            .iter()
            .filter(|pod| !ended(pod))
            .filter_map(|pod| pod.metadata.labels.as_ref()?.get(names::REVISION))
            .collect();
        check(revisions.len() <= 1, || {
            format!("both have pods: {revisions:?}")
        })?;
        let ready = service.condition("Ready").await?;
        if ready.is_some_and(|c| c.status == "True") {
            break;
        }
        sleep(Duration::from_millis(250)).await;
    }
    service.until_answers().await?;
    let answer = service.infer_tiny().await?;
    check(answer == json!([2.0, 3.0, 4.0, 5.0]), || answer.to_string())
}

#[tokio::test]
async fn recreate_stops_the_old_revision_before_the_new_one_starts_and_says_so() {
    Test::run(async |t| {
        let mut first = spec("bad/identity.onnx");
        first["rollout"]["strategy"] = json!("Recreate");
        let service = t.serving(&first).await?;
        service.change(&other_model()).await?;
        the_old_one_stops_first(&service).await
    })
    .await;
}

#[tokio::test]
async fn a_suspended_service_has_no_pods_and_comes_back_as_it_was() {
    Test::run(async |t| {
        let service = serving(t, 1).await?;
        service.change(&json!({"suspend": true})).await?;
        service.until_reason("Suspended").await?;
        service
            .until("no pod is left", 120, |s| {
                s.status.clone().unwrap_or_default().replicas == Some(0)
            })
            .await?;
        service.until_no_pods().await?;
        let kept = t
            .kubectl(&["get", "service,deployment", "-o", "name"])
            .await?;
        let has = |what: &str| kept.lines().any(|line| line.starts_with(what));
        check(has("service/tiny") && has("deployment.apps/tiny-"), || {
            kept.clone()
        })?;
        service.change(&json!({"suspend": null})).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        let answer = service.infer_tiny().await?;
        check(answer == json!([1.0, 2.0, 3.0, 4.0]), || answer.to_string())
    })
    .await;
}
