//! A node is emptied during a change under load. Needs two nodes that take pods; stands alone.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use ortolan_e2e::{Result, Service, Test, check, kubectl, spec};
use serde_json::json;

/// Nodes that take pods without a toleration.
async fn nodes(t: &Test) -> Result<BTreeSet<String>> {
    let nodes: Api<Node> = Api::all(t.client.clone());
    let free = nodes.list(&ListParams::default()).await?.items.into_iter();
    let free = free.filter(|node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.is_none_or(Vec::is_empty)
    });
    Ok(free.filter_map(|node| node.metadata.name).collect())
}

/// The nodes of some pods.
async fn of_pods(namespace: &str, label: &str) -> Result<BTreeSet<String>> {
    let names = "jsonpath={.items[*].spec.nodeName}";
    let found = kubectl(&["-n", namespace, "get", "pods", "-l", label, "-o", names]).await?;
    Ok(found.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_node_that_is_drained_during_a_change_fails_no_request() {
    Test::alone(async |t| {
        if nodes(t).await?.len() < 2 {
            println!("skipped: there is only one node that takes pods; e2e/run --kind has two");
            return Ok(());
        }
        let service = t.service("tiny");
        let mut spec = spec("bad/identity.onnx");
        spec["scaling"] = json!({"minReplicas": 2});
        spec["pod"] = json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ]});
        service.apply(&spec).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        // Not the one that the load comes from.
        let busy = of_pods("ortolan-e2e", "app=load").await?;
        let candidates = of_pods(&t.namespace, "serving.ortolan.dev/service=tiny").await?;
        let node = candidates.into_iter().find(|node| !busy.contains(node));
        let Some(node) = node else {
            return ortolan_e2e::fail("the pods are not spread over the nodes");
        };
        spec["model"] = ortolan_e2e::spec("bad/identity-2.onnx")["model"].take();
        let outcome = drained(&service, &spec, &node).await;
        kubectl(&["uncordon", &node]).await?;
        outcome
    })
    .await;
}

async fn drained(service: &Service, changed: &serde_json::Value, node: &str) -> Result {
    let load = service.load().await?;
    service.apply(changed).await?;
    let all = [
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=180s",
    ];
    kubectl(&[&["drain", node][..], &all[..]].concat()).await?;
    let ready = service.until_ready().await?;
    let new = ready.status.unwrap_or_default().traffic;
    service.until_only(&new[0].revision).await?;
    let tally = load.stop_without_a_failure().await?;
    check(tally.answers.contains_key("2.0"), || format!("{tally:?}"))
}
