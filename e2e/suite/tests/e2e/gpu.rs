//! Devices: GPUs that the node says it has, and a provider that the image does not.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::api::resource::Quantity};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use ortolan_e2e::{Failure, Result, Test, check, image, spec};
use serde_json::json;

const GPU: &str = "nvidia.com/gpu";

/// The node that takes the GPUs: one without taints.
async fn a_node(nodes: &Api<Node>) -> Result<String> {
    let list = nodes.list(&ListParams::default()).await?;
    let free = list.items.into_iter().find(|node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.is_none_or(Vec::is_empty)
    });
    free.and_then(|node| node.metadata.name)
        .ok_or_else(|| Failure::Wrong("no node is without taints".into()))
}

/// What a device plugin would do. `None` takes them away.
async fn advertise(nodes: &Api<Node>, node: &str, count: Option<&str>) -> Result {
    let gpus = BTreeMap::from([(GPU, count)]);
    let patch = json!({"status": {"capacity": gpus, "allocatable": gpus}});
    let by = PatchParams::default();
    let node = nodes.patch_status(node, &by, &Patch::Merge(&patch)).await?;
    let has = node
        .status
        .and_then(|status| status.allocatable?.remove(GPU));
    check(has == count.map(|count| Quantity(count.into())), || {
        format!("{has:?} GPUs")
    })
}

#[tokio::test]
async fn of_three_pods_two_get_a_gpu_and_the_condition_names_what_the_third_waits_for() {
    Test::run(async |t| {
        let nodes: Api<Node> = Api::all(t.client.clone());
        let node = a_node(&nodes).await?;
        advertise(&nodes, &node, Some("2")).await?;
        let outcome = three_for_two(t).await;
        advertise(&nodes, &node, None).await?;
        outcome
    })
    .await;
}

async fn three_for_two(t: &Test) -> Result {
    let service = t.service("tiny");
    let mut wanted = spec("bad/identity.onnx");
    wanted["server"]["accelerator"] = json!({"resource": GPU, "provider": "CPU"});
    wanted["scaling"] = json!({"minReplicas": 3});
    service.apply(&wanted).await?;
    let seen = service
        .until("two pods are ready and one waits", 120, |s| {
            let status = s.status.clone().unwrap_or_default();
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
            status.ready_replicas == Some(2) && ready.is_some_and(|c| c.reason == "Unschedulable")
        })
        .await?;
    let status = seen.status.unwrap_or_default();
    let message = |kind: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.map_or_else(String::new, |c| format!("{} {}", c.status, c.message))
    };
    let told = message("Ready");
    for words in [
        "False 1 of 3 pods cannot be scheduled",
        "each needs 1 nvidia.com/gpu",
        "Insufficient nvidia.com/gpu",
    ] {
        check(told.contains(words), || {
            format!("“{words}” is missing: {told}")
        })?;
    }
    check(message("Available").starts_with("True"), || {
        format!("{status:?}")
    })?;

    let mut many = wanted.clone();
    many["server"]["accelerator"]["count"] = json!(5);
    service.apply(&many).await?;
    let told = service
        .until(
            "the new revision waits for more GPUs than exist",
            120,
            |s| {
                let status = s.status.clone().unwrap_or_default();
                let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
                ready.is_some_and(|c| c.message.contains("each needs 5 nvidia.com/gpu"))
            },
        )
        .await;
    told?;

    wanted["scaling"] = json!({"minReplicas": 2});
    service.apply(&wanted).await?;
    service.until_ready().await?;
    let pod = service.pods().await?.into_iter().next();
    let tolerations = pod
        .and_then(|pod| pod.spec?.tolerations)
        .unwrap_or_default();
    let tolerated = tolerations.iter().any(|t| t.key.as_deref() == Some(GPU));
    check(tolerated, || {
        format!("the usual taint is not tolerated: {tolerations:?}")
    })
}

#[tokio::test]
async fn a_provider_that_the_image_lacks_ends_the_server_with_its_code_unless_the_cpu_may_stand_in()
{
    Test::run(async |t| {
        let service = t.service("tiny");
        let mut cuda = spec("bad/identity.onnx");
        cuda["server"]["image"] = image("server").into();
        cuda["server"]["accelerator"] = json!({"provider": "CUDA"});
        service.apply(&cuda).await?;
        let told = service.until_reason("ProviderUnavailable").await?;
        check(told.contains("CUDA"), || told.clone())?;
        let stalled = service.condition("Stalled").await?;
        check(stalled.is_some(), || "Stalled is missing".into())?;
        let revisions = service.get().await?.status.unwrap_or_default().revisions;
        let failure = revisions.first().and_then(|r| r.last_failure.clone());
        check(failure.is_some_and(|f| f.exit_code == Some(16)), || {
            format!("{revisions:?}")
        })?;

        cuda["server"]["accelerator"]["fallback"] = "Allow".into();
        service.apply(&cuda).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        let answer = service.infer_tiny().await?;
        check(answer == json!([1.0, 2.0, 3.0, 4.0]), || answer.to_string())?;

        let none = t.service("no-image");
        let mut gpu = spec("bad/identity.onnx");
        gpu["server"]["accelerator"] = json!({"resource": GPU});
        none.apply(&gpu).await?;
        let told = none.until_reason("InvalidSpec").await?;
        check(told.contains("images.server.cuda"), || told.clone())
    })
    .await;
}
