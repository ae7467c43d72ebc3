//! The access log of a running server, read line by line; Triton's names beside ours in its metrics.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use ortolan_server::grpc::proto::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use serde_json::{Value, json};
use support::{
    Server,
    grpc::{floats, raw},
    onnx, wait_for_metric,
};
use tonic::transport::Endpoint;

const BODY: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}"#;

/// The access lines whose path is `path`, once there are so many.
async fn lines(server: &Server, path: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = server.log();
        let all = log.lines().filter_map(|l| serde_json::from_str(l).ok());
        let lines: Vec<Value> = all.filter(|line: &Value| line["path"] == path).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "{path}: {log}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn request() -> ModelInferRequest {
    raw("FP32", &[1, 2], floats(&[1.0, 2.0]))
}

async fn followed(options: &[&str]) -> Server {
    let options = [&["--access-log", "--max-batch", "1"], options].concat();
    Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &options).await
}

fn has_phases(line: &Value) -> bool {
    let phases = [
        "preprocess_ms",
        "queue_ms",
        "inference_ms",
        "postprocess_ms",
    ];
    phases.iter().all(|phase| line[phase].is_f64())
}

#[tokio::test]
async fn a_line_tells_what_was_asked_and_how_long_each_phase_took() {
    let server = followed(&["--log-format", "json"]).await;
    let path = "/v2/models/m/infer";
    let response = reqwest::Client::new()
        .post(server.url(path))
        .header("x-request-id", "the-7th")
        .body(BODY)
        .send()
        .await
        .unwrap();
    let written = response.bytes().await.unwrap().len();
    let line = lines(&server, path, 1).await.remove(0);
    for (name, value) in [
        ("message", json!("request")),
        ("method", json!("POST")),
        ("code", json!(200)),
        ("model", json!("m")),
        ("version", json!("1")),
        ("protocol", json!("v2")),
        ("id", json!("the-7th")),
        ("batch", json!(2)),
        ("bytes_in", json!(BODY.len())),
        ("bytes_out", json!(written)),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert!(has_phases(&line), "{line}");
    let parts = [
        "preprocess_ms",
        "queue_ms",
        "inference_ms",
        "postprocess_ms",
    ];
    let parts: f64 = parts.iter().map(|part| line[part].as_f64().unwrap()).sum();
    assert!(line["ms"].as_f64().unwrap() >= parts, "{line}");
}

#[tokio::test]
async fn what_runs_nothing_has_its_line_without_phases() {
    let server = followed(&["--log-format", "json"]).await;
    server.post("/v2/models/m/infer", "{").await;
    let line = lines(&server, "/v2/models/m/infer", 1).await.remove(0);
    assert_eq!((&line["code"], &line["model"]), (&json!(400), &json!("m")));
    assert_eq!(line["inference_ms"], Value::Null);
    server.post("/v2/models/other/infer", BODY).await;
    let line = lines(&server, "/v2/models/other/infer", 1).await.remove(0);
    assert_eq!((&line["code"], &line["model"]), (&json!(404), &Value::Null));
    server.get("/nowhere").await;
    let line = lines(&server, "/nowhere", 1).await.remove(0);
    assert_eq!(
        (&line["code"], &line["protocol"]),
        (&json!(404), &Value::Null)
    );
    assert_eq!(line["method"], "GET");
}

#[tokio::test]
async fn a_call_has_a_line_with_grpcs_code_and_a_stream_one_for_each_request_and_one_for_itself() {
    let server = followed(&["--log-format", "json"]).await;
    let channel = Endpoint::from_shared(server.base.clone()).unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.connect().await.unwrap());
    client.model_infer(request()).await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let line = lines(&server, path, 1).await.remove(0);
    let told = (&line["code"], &line["protocol"], &line["batch"]);
    assert_eq!(told, (&json!(0), &json!("grpc"), &json!(1)), "{line}");
    assert!(has_phases(&line), "{line}");
    assert!(line["bytes_in"].as_u64() > Some(8) && line["bytes_out"].as_u64() > Some(8));
    let unknown = ModelInferRequest {
        model_name: "other".into(),
        ..request()
    };
    client.model_infer(unknown).await.unwrap_err();
    let line = lines(&server, path, 2).await.remove(1);
    assert_eq!(line["code"], 5, "NOT_FOUND");
    let requests = stream::iter(vec![request(), request(), request()]);
    let answers = client.model_stream_infer(requests).await.unwrap();
    assert_eq!(answers.into_inner().count().await, 3);
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let lines = lines(&server, path, 4).await;
    let (of_requests, of_stream): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["model"] == "m");
    assert_eq!((of_requests.len(), of_stream.len()), (3, 1), "{lines:?}");
    assert!(of_requests.iter().all(|line| has_phases(line)), "{lines:?}");
    assert_eq!(of_stream[0]["code"], 0);
    assert!(of_stream[0]["bytes_in"].as_u64() > Some(24), "{lines:?}");
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of_without_a_code() {
    let options = ["--access-log", "--log-format", "json", "--max-batch", "1"];
    let server = Server::start(&onnx::slow_loop(1024, 4000), &options).await;
    let body = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": vec![0.5; 1024]}
    ]});
    let asking = reqwest::Client::new()
        .post(server.url("/v2/models/m/infer"))
        .body(body.to_string())
        .send();
    let begun = "ortolan_in_flight{model=\"m\",version=\"1\"} 1\n";
    tokio::select! {
        answered = asking => panic!("the test needs a slower model: {answered:?}"),
        () = wait_for_metric(&server, begun) => {}
    }
    let line = lines(&server, "/v2/models/m/infer", 1).await.remove(0);
    assert_eq!(line["code"], Value::Null, "{line}");
}

#[tokio::test]
async fn text_is_text_and_nobody_who_did_not_ask_gets_a_line() {
    let server = followed(&[]).await;
    server.post("/v2/models/m/infer", BODY).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let line = loop {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("/v2/models/m/infer"));
        if let Some(line) = lines.find(|line| line.contains("request")) {
            break line.to_owned();
        }
        assert!(Instant::now() < deadline, "{log}");
    };
    for part in [
        "method=\"POST\"",
        "code=200",
        "protocol=\"v2\"",
        "inference_ms=",
    ] {
        assert!(line.contains(part), "{line}");
    }
    let silent = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    silent.post("/v2/models/m/infer", BODY).await;
    silent.get("/nowhere").await;
    assert!(!silent.log().contains("/nowhere"), "{}", silent.log());
}

#[tokio::test]
async fn tritons_names_stand_in_the_metrics_of_those_who_ask() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let server = Server::start(&model, &["--triton-metrics", "--max-batch", "1"]).await;
    for _ in 0..3 {
        server.post("/v2/models/m/infer", BODY).await;
    }
    server.post("/v2/models/m/infer", "{").await;
    let (_, page) = server.get("/metrics").await;
    let page = page.as_str().unwrap();
    for line in [
        "nv_inference_request_success{model=\"m\",version=\"1\"} 3\n",
        "nv_inference_request_failure{model=\"m\",version=\"1\"} 1\n",
        "nv_inference_count{model=\"m\",version=\"1\"} 6\n",
        "nv_inference_exec_count{model=\"m\",version=\"1\"} 3\n",
        "nv_inference_pending_request_count{model=\"m\",version=\"1\"} 0\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1);
    let plain = Server::start(&model, &[]).await;
    assert!(
        !plain
            .get("/metrics")
            .await
            .1
            .as_str()
            .unwrap()
            .contains("nv_")
    );
}

/// How long the run took, where the answer says it.
fn run(headers: &reqwest::header::HeaderMap) -> Option<u64> {
    let said = headers.get("x-ortolan-run-us")?;
    Some(said.to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn who_asks_is_told_how_long_the_run_took_and_nobody_else_is() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let server = Server::start(&model, &["--max-batch", "1"]).await;
    let client = reqwest::Client::new();
    let ask = |path: &str, body: &'static str, asks: bool| {
        let request = client.post(server.url(path)).body(body);
        match asks {
            true => request.header("x-ortolan-timing", "1"),
            false => request,
        }
    };
    let infer = "/v2/models/m/infer";
    let told = ask(infer, BODY, true).send().await.unwrap();
    assert_eq!(told.status(), 200);
    let micros = run(told.headers()).expect("it is told");
    assert!(micros < 10_000_000, "{micros}");
    let silent = ask(infer, BODY, false).send().await.unwrap();
    assert_eq!(
        (silent.status().as_u16(), run(silent.headers())),
        (200, None)
    );
    // Nothing ran.
    let refused = ask(infer, "{}", true).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), run(refused.headers())),
        (400, None)
    );

    let endpoint = Endpoint::from_shared(server.base.clone()).unwrap();
    let mut grpc = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let mut call = tonic::Request::new(ModelInferRequest {
        model_name: "m".into(),
        ..request()
    });
    call.metadata_mut()
        .insert("x-ortolan-timing", "1".parse().unwrap());
    let answer = grpc.model_infer(call).await.unwrap();
    let told = answer.metadata().get("x-ortolan-run-us");
    assert!(
        told.expect("it is told")
            .to_str()
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
}
