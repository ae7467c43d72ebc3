//! How many requests are let in, and a model that runs first when it is first asked.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use futures::{StreamExt, stream};
use ortolan_server::grpc::proto::{
    ModelInferRequest, ModelStreamInferResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient,
};
use serde_json::json;
use support::{
    Server,
    grpc::{floats, raw},
    onnx,
};
use tonic::{Code, transport::Endpoint};

/// A prediction that has begun, and whose body does not come.
fn begun(server: &Server) -> TcpStream {
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 100000\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn message() -> ModelInferRequest {
    raw("FP32", &[1, 2], floats(&[0.0; 2]))
}

const IN_FLIGHT: &str = r#"ortolan_in_flight{model="m",version="1"}"#;

#[tokio::test]
async fn one_request_more_than_may_be_under_way_is_turned_away_by_every_protocol() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 2]);
    let server = Server::start(&model, &["--max-concurrency", "2", "--sessions", "1"]).await;
    let body =
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]});
    let first = begun(&server);
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 1")).await;
    assert_eq!(server.infer(&body).await.0, 200, "there is a second place");
    let mut second = begun(&server);
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 2")).await;

    let sentence = "2 requests are under way, as many as --max-concurrency lets in; try again";
    let client = reqwest::Client::new();
    for path in ["/v2/models/m/infer", "/v1/models/m:predict", "/predict/m"] {
        let request = client.post(server.url(path)).body(body.to_string());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(response.headers()["retry-after"], "0", "{path}");
        let said: serde_json::Value = response.json().await.unwrap();
        assert_eq!(said, json!({ "error": sentence }), "{path}");
    }
    let endpoint = Endpoint::from_shared(server.base.clone()).unwrap();
    let mut grpc = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let status = grpc.model_infer(message()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), sentence);
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "0"
    );
    let answers = grpc
        .model_stream_infer(stream::iter([message(), message()]))
        .await;
    let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
    let errors = answers.into_iter().map(Result::unwrap);
    let errors: Vec<String> = errors
        .map(|answer: ModelStreamInferResponse| answer.error_message)
        .collect();
    assert_eq!(errors, [sentence; 2], "each request of a stream is one");

    // Nothing else is asked for a place.
    for path in [
        "/healthz/live",
        "/healthz/ready",
        "/v2/health/ready",
        "/v2/models/m",
        "/metrics",
    ] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    let rejected = r#"ortolan_rejected_total{model="m",version="1",reason="concurrency"} 6"#;
    support::wait_for_metric(&server, rejected).await;

    // A client that leaves leaves its place, and so does one that is answered.
    drop(first);
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 1")).await;
    assert_eq!(server.infer(&body).await.0, 200);
    assert_eq!(
        grpc.model_infer(message())
            .await
            .unwrap()
            .get_ref()
            .outputs
            .len(),
        1
    );
    second.write_all(&vec![b' '; 100_000 - 1]).unwrap();
    second
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = [0; 12];
    second.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    support::wait_for_metric(&server, &format!("{IN_FLIGHT} 0")).await;
}

#[tokio::test]
async fn a_model_that_cannot_run_on_invented_inputs_is_served_without_a_first_run() {
    let server = Server::start(&onnx::gather(5), &["--warm-up", "off"]).await;
    let (_, startup) = server.get("/healthz/startup").await;
    let phases: Vec<_> = startup["phases"].as_array().unwrap().iter().collect();
    assert!(
        phases.iter().any(|phase| phase["name"] == "Load"),
        "{startup}"
    );
    assert!(
        phases.iter().all(|phase| phase["name"] != "WarmUp"),
        "{startup}"
    );
    // Row x + 5 of a table of two.
    let ask = |row: i64| json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [row]}]});
    let (code, answer) = server.infer(&ask(-5)).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        server.infer(&ask(0)).await.0,
        400,
        "as the warm-up would have been"
    );
}

#[tokio::test]
async fn without_a_warm_up_rows_run_together_only_where_that_is_asked_for() {
    let model = onnx::slow(64, 4);
    for (options, expected) in [
        (
            &["--warm-up", "off"][..],
            "batches   no: the warm-up is off, so that rows were not compared",
        ),
        (
            &["--warm-up", "off", "--max-batch", "4"],
            "batches   yes, up to 4 rows together",
        ),
    ] {
        let server = Server::start(&model, options).await;
        let log = server.log();
        assert!(log.contains(expected), "{log}");
    }
}
