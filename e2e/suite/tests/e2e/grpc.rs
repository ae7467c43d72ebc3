//! gRPC through the port of the Service that REST has, too.

use ortolan_e2e::{
    Result, Service, Test, check,
    grpc::{Ended, counted, floats, health, inference, tiny},
    spec,
};

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";

#[tokio::test]
async fn a_model_answers_over_grpc_on_the_port_of_rest() {
    Test::run(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        let answer: inference::ModelInferResponse =
            service.call(INFER, &[tiny("tiny", "7")]).await?.one()?;
        let numbers = floats(&answer)?;
        check(answer.id == "7" && numbers == [1.0, 2.0, 3.0, 4.0], || {
            format!("{answer:?}")
        })?;
        described(&service).await?;
        health_is_told(&service).await?;
        refusals(&service).await?;
        // The same port, at the same time.
        let answer = service.infer_tiny().await?;
        check(answer == serde_json::json!([1.0, 2.0, 3.0, 4.0]), || {
            answer.to_string()
        })
    })
    .await;
}

async fn described(service: &Service) -> Result {
    let method = "inference.GRPCInferenceService/ServerMetadata";
    let ask = [inference::ServerMetadataRequest {}];
    let server: inference::ServerMetadataResponse = service.call(method, &ask).await?.one()?;
    check(
        server.name == "ortolan" && !server.version.is_empty(),
        || format!("{server:?}"),
    )?;
    let method = "inference.GRPCInferenceService/ModelReady";
    let ask = [inference::ModelReadyRequest {
        name: "tiny".into(),
        version: String::new(),
    }];
    let model: inference::ModelReadyResponse = service.call(method, &ask).await?.one()?;
    check(model.ready, || format!("{model:?}"))
}

async fn health_is_told(service: &Service) -> Result {
    for name in ["", "inference.GRPCInferenceService", "tiny"] {
        let ask = [health::HealthCheckRequest {
            service: name.into(),
        }];
        let told: health::HealthCheckResponse = service
            .call("grpc.health.v1.Health/Check", &ask)
            .await?
            .one()?;
        check(
            told.status() == health::health_check_response::ServingStatus::Serving,
            || format!("{name:?}: {told:?}"),
        )?;
    }
    Ok(())
}

/// What cannot be answered gets its status and a sentence, and the server lives on.
async fn refusals(service: &Service) -> Result {
    let mut narrow = tiny("tiny", "");
    narrow.inputs[0].shape = vec![1, 3];
    for (request, code, words) in [(tiny("another", ""), 5, "another"), (narrow, 3, "x")] {
        let ended: Ended<inference::ModelInferResponse> = service.call(INFER, &[request]).await?;
        check(
            ended.code == code && ended.sentence.contains(words) && ended.answers.is_empty(),
            || format!("{code} was expected: {ended:?}"),
        )?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_answers_each_request_in_its_order_and_goes_on_after_a_bad_one() {
    Test::run(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        let method = "inference.GRPCInferenceService/ModelStreamInfer";
        let mut requests: Vec<_> = (0..20).map(|n| tiny("tiny", &n.to_string())).collect();
        requests[7].model_name = "another".into();
        let answers: Vec<inference::ModelStreamInferResponse> =
            service.call(method, &requests).await?.ok()?;
        check(answers.len() == 20, || format!("{answers:?}"))?;
        for (n, answer) in answers.iter().enumerate() {
            let inner = answer.infer_response.clone().unwrap_or_default();
            let is_refused = answer.error_message.contains("another");
            let is_right = answer.error_message.is_empty()
                && floats(&inner).is_ok_and(|f| f == [1.0, 2.0, 3.0, 4.0]);
            let holds = if n == 7 { is_refused } else { is_right };
            check(inner.id == n.to_string() && holds, || {
                format!("{n}: {answer:?}")
            })?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_new_model_takes_over_under_grpc_load_without_a_lost_call() {
    Test::run(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        let load = service.grpc_load().await?;
        service.apply(&spec("bad/identity-2.onnx")).await?;
        let ready = service.until_ready().await?;
        let new = ready.status.unwrap_or_default().traffic;
        service.until_only(&new[0].revision).await?;
        let tally = load.stop_without_a_failure().await?;
        let mut seen = Vec::new();
        for (message, counts) in &tally.answers {
            let first = floats(&counted(message)?)?.first().copied();
            seen.push((counts.first_ms, first, counts.count));
        }
        seen.sort_by_key(|(first_ms, ..)| *first_ms);
        let moved = matches!(
            seen[..],
            [(_, Some(1.0), before), (_, Some(2.0), after)] if before > 20 && after > 20
        );
        check(moved, || format!("{seen:?}"))
    })
    .await;
}
