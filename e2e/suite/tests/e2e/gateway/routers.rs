//! From the Gateway to the routers (`provider: Router`), which are in another namespace.

use ortolan_e2e::{
    Gateway, Result, SYSTEM, Test, check,
    grpc::{Ended, floats, inference, tiny},
    other_model,
};
use serde_json::json;

use super::{answers, behind, goes_without_a_trace, grants, host, until_routed};
use crate::router::saw_both;

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const READY: &str = "/v2/health/ready";

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn rest_and_grpc_come_through_a_gateway_to_the_routers_by_a_grant_that_goes_with_the_service()
{
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let (rest, grpc) = (host(t, &gateway, "rest"), host(t, &gateway, "grpc"));
        let service = t.service("tiny");
        service
            .apply(&behind(&gateway, "bad/identity.onnx", &rest, &grpc))
            .await?;
        service.until_ready().await?;
        let status = until_routed(&service).await?.status.unwrap_or_default();
        let url = format!("http://{}", rest.name);
        check(status.url.as_ref() == Some(&url), || format!("{status:?}"))?;
        rest.until_status(READY, 200).await?;
        answers(&rest, "", "tiny", 1.0).await?;

        let call: Ended<inference::ModelInferResponse> =
            grpc.call(INFER, &[tiny("tiny", "7")]).await?;
        let answer = call.one()?;
        let numbers = floats(&answer)?;
        check(answer.id == "7" && numbers == [1.0, 2.0, 3.0, 4.0], || {
            format!("{answer:?}")
        })?;
        // A status of the server's own comes through, with its sentence.
        let call: Ended<inference::ModelInferResponse> =
            grpc.call(INFER, &[tiny("another", "")]).await?;
        check(call.code == 5 && call.sentence.contains("another"), || {
            format!("{call:?}")
        })?;

        let granted = grants(t).await?;
        check(granted.lines().count() == 1, || granted.clone())?;
        goes_without_a_trace(t, &service).await?;
        rest.until_status(READY, 404).await.map(drop)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_client_that_names_another_service_is_not_believed_by_the_gateway() {
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let mut hosts = Vec::new();
        for (name, model) in [("one", "bad/identity.onnx"), ("two", "bad/identity-2.onnx")] {
            let rest = host(t, &gateway, name);
            let grpc = host(t, &gateway, &format!("grpc-{name}"));
            let service = t.service(name);
            service
                .apply(&behind(&gateway, model, &rest, &grpc))
                .await?;
            hosts.push((service, rest, grpc));
        }
        for (service, rest, _) in &hosts {
            service.until_ready().await?;
            until_routed(service).await?;
            rest.until_status(READY, 200).await?;
        }
        let [(_, one, grpc_one), (_, two, _)] = <[_; 2]>::try_from(hosts)
            .map_err(|_| ortolan_e2e::Failure::Wrong("two were made".into()))?;
        answers(&one, "", "one", 1.0).await?;
        answers(&two, "", "two", 2.0).await?;

        let other = format!("{}/two", t.namespace);
        let header = "x-ortolan-service";
        let (one, grpc_one) = (one.with(header, &other), grpc_one.with(header, &other));
        answers(&one, "", "one", 1.0).await?;
        let refused = one.infer("", "two").await?;
        check(refused.status == 404, || format!("{refused:?}"))?;
        let call: Ended<inference::ModelInferResponse> =
            grpc_one.call(INFER, &[tiny("one", "")]).await?;
        let numbers = floats(&call.one()?)?;
        check(numbers == [1.0, 2.0, 3.0, 4.0], || format!("{numbers:?}"))?;

        // Without the Gateway the same header does lead there: it is the Gateway that takes the client's away.
        let routers = gateway
            .past(&format!("ortolan-router.{SYSTEM}.svc:80"), &one.name)
            .with(header, &other);
        answers(&routers, "", "two", 2.0).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn services_share_a_host_by_the_prefixes_of_their_paths_which_are_taken_off() {
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let shared = host(t, &gateway, "shared");
        for (name, model) in [("one", "bad/identity.onnx"), ("two", "bad/identity-2.onnx")] {
            let mut spec = ortolan_e2e::spec(model);
            spec["routing"] = json!({"gateway": {
                "parentRefs": [gateway.listener("http")], "hostnames": [shared.name],
                "pathPrefix": format!("/models/{name}"),
            }});
            t.service(name).apply(&spec).await?;
        }
        for (name, first) in [("one", 1.0), ("two", 2.0)] {
            let service = t.service(name);
            service.until_ready().await?;
            let status = until_routed(&service).await?.status.unwrap_or_default();
            let url = format!("http://{}/models/{name}", shared.name);
            check(status.url.as_ref() == Some(&url), || format!("{status:?}"))?;
            let prefix = format!("/models/{name}");
            shared
                .until_status(&format!("{prefix}{READY}"), 200)
                .await?;
            answers(&shared, &prefix, name, first).await?;
        }
        for path in [READY, "/models/onetwo/v2/health/ready", "/models/"] {
            shared.until_status(path, 404).await?;
        }
        let grpc = t.kubectl(&["get", "grpcroutes", "-o", "name"]).await?;
        check(grpc.is_empty(), || grpc.clone())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_change_of_model_behind_gateway_and_routers_fails_no_request() {
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let (rest, grpc) = (host(t, &gateway, "rest"), host(t, &gateway, "grpc"));
        let mut spec = behind(&gateway, "bad/identity.onnx", &rest, &grpc);
        spec["rollout"] = json!({
            "strategy": "BlueGreen", "rollbackWindow": "0s", "analysis": {"settle": "10s"},
        });
        let service = t.serving(&spec).await?;
        until_routed(&service).await?;
        rest.until_status(READY, 200).await?;
        let (load, calls) = (rest.load("", "tiny").await?, grpc.grpc_load("tiny").await?);
        service.change(&other_model()).await?;
        let new = service
            .until_ready()
            .await?
            .status
            .unwrap_or_default()
            .traffic;
        service.until_only(&new[0].revision).await?;
        both_by_grpc(calls.stop_without_a_failure().await?)?;
        saw_both(load).await
    })
    .await;
}

/// Both models answered calls.
pub(super) fn both_by_grpc(tally: ortolan_e2e_load::Tally) -> Result {
    let mut seen = Vec::new();
    for message in tally.answers.keys() {
        seen.push(floats(&ortolan_e2e::grpc::counted(message)?)?[0]);
    }
    seen.sort_by(f32::total_cmp);
    check(seen == [1.0, 2.0], || format!("{tally:?}"))
}
