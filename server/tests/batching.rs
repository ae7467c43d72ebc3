//! Requests that run together: each gets its own rows, and none suffers from the others.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use support::{Server, onnx};

/// One session, and time enough for requests to meet.
const TOGETHER: [&str; 6] = [
    "--sessions",
    "1",
    "--max-batch",
    "8",
    "--max-delay",
    "400ms",
];

fn request(datatype: &str, shape: &[usize], data: Value) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": datatype, "shape": shape, "data": data }] })
}

async fn all(server: &Server, requests: &[Value]) -> Vec<(u16, Value)> {
    join_all(requests.iter().map(|request| server.infer(request))).await
}

/// What stands in the log by the time the server is ready, or a moment later.
async fn said(server: &Server, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.log().contains(words) {
        assert!(Instant::now() < deadline, "{words}: {}", server.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs and rows so far: the sum and the count of the histogram of batch sizes.
async fn runs(server: &Server) -> (f64, f64) {
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    let value = |name: &str| -> f64 {
        let name = format!("{name}{{model=\"m\"");
        let line = metrics.lines().find(|line| line.starts_with(&name));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    (
        value("ortolan_batch_rows_count"),
        value("ortolan_batch_rows_sum"),
    )
}

#[tokio::test]
async fn requests_that_meet_run_as_one_and_each_gets_its_own_rows() {
    let server = Server::start(&onnx::sum_and_difference(), &TOGETHER).await;
    let input = |name: &str, data: [f32; 2]| json!({"name": name, "datatype": "FP32", "shape": [1, 2], "data": data});
    let requests: Vec<Value> = (0..8_u8)
        .map(|n| {
            let n = f32::from(n);
            let wanted = if n < 4.0 { "sum" } else { "difference" };
            json!({
                "inputs": [input("a", [n, n * 10.0]), input("b", [1.0, 2.0])],
                "outputs": [{ "name": wanted }],
            })
        })
        .collect();
    for (n, (code, answer)) in all(&server, &requests).await.into_iter().enumerate() {
        let n = n as f32;
        let expected = if n < 4.0 {
            [n + 1.0, n * 10.0 + 2.0]
        } else {
            [n - 1.0, n * 10.0 - 2.0]
        };
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
        assert_eq!(answer["outputs"][0]["shape"], json!([1, 2]));
        assert_eq!(answer["outputs"][0]["data"], json!(expected));
    }
    let (runs, rows) = runs(&server).await;
    assert_eq!(rows, 8.0);
    assert!(runs < 8.0, "some of them ran together: {runs} runs");
}

#[tokio::test]
async fn every_datatype_is_put_together_and_taken_apart_exactly() {
    for (datatype, element) in onnx::DATATYPES {
        let server = Server::start(&onnx::identity(element, &[-1, 2]), &TOGETHER).await;
        let row = |n: u8| match datatype {
            "BOOL" => json!([n.is_multiple_of(2), n.is_multiple_of(3)]),
            "BYTES" => json!([format!("row {n}"), ""]),
            "FP16" | "BF16" | "FP32" | "FP64" => json!([f32::from(n), -0.5]),
            _ => json!([n, 127 - n]),
        };
        let two = json!([row(7), row(8)]);
        let mut requests: Vec<Value> = (0..6).map(|n| request(datatype, &[1, 2], row(n))).collect();
        requests.push(request(datatype, &[2, 2], two));
        let answers = all(&server, &requests).await;
        for (n, (code, answer)) in answers[..6].iter().enumerate() {
            assert_eq!(*code, 200, "{datatype}: {answer}");
            assert_eq!(answer["outputs"][0]["data"], row(n as u8), "{datatype}");
        }
        let (_, last) = &answers[6];
        assert_eq!(last["outputs"][0]["shape"], json!([2, 2]), "{datatype}");
        let flat = [row(7), row(8)].map(|row| row.as_array().unwrap().clone());
        assert_eq!(last["outputs"][0]["data"], json!(flat.concat()));
        let (runs, rows) = runs(&server).await;
        assert!(rows == 8.0 && runs < 7.0, "{datatype}: {runs} runs");
    }
}

#[tokio::test]
async fn a_request_that_fails_fails_alone() {
    let server = Server::start(&onnx::looked_up(), &TOGETHER).await;
    let requests: Vec<Value> = [0, 1, 9, 0, 1]
        .iter()
        .map(|index| request("INT64", &[1], json!([index])))
        .collect();
    let answers = all(&server, &requests).await;
    let codes: Vec<u16> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [200, 200, 400, 200, 200]);
    for (place, expected) in [(0, 1.5), (1, 2.5), (3, 1.5), (4, 2.5)] {
        assert_eq!(answers[place].1["outputs"][0]["data"], json!([expected]));
    }
}

#[tokio::test]
async fn different_shapes_and_different_sets_of_inputs_are_kept_apart() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, -1]), &TOGETHER).await;
    let requests: Vec<Value> = (0..9_usize)
        .map(|n| request("FP32", &[1, n % 3 + 1], json!(vec![n; n % 3 + 1])))
        .collect();
    for (n, (code, answer)) in all(&server, &requests).await.into_iter().enumerate() {
        assert_eq!(code, 200, "{answer}");
        let expected = vec![n as f32; n % 3 + 1];
        assert_eq!(answer["outputs"][0]["data"], json!(expected));
    }
    let server = Server::start(&onnx::optional_offset(), &TOGETHER).await;
    let requests: Vec<Value> = (0..6)
        .map(|n| {
            let mut request = request("FP32", &[1, 2], json!([n, n]));
            if n % 2 == 1 {
                let offset =
                    json!({"name": "offset", "datatype": "FP32", "shape": [1], "data": [n * 100]});
                request["inputs"].as_array_mut().unwrap().push(offset);
            }
            request
        })
        .collect();
    for (n, (code, answer)) in all(&server, &requests).await.into_iter().enumerate() {
        let n = n as f32;
        let expected = if n % 2.0 == 1.0 { n * 101.0 } else { n + 10.0 };
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["outputs"][0]["data"], json!([expected, expected]));
    }
}

#[tokio::test]
async fn a_model_that_gives_other_rows_than_it_takes_is_never_batched() {
    let server = Server::start(&onnx::first_row(), &TOGETHER).await;
    said(
        &server,
        "batches   no: 3 rows in give an output of the shape [1,2]",
    )
    .await;
    let requests: Vec<Value> = (0..6)
        .map(|n| request("FP32", &[2, 2], json!([n, n, n + 2, n])))
        .collect();
    for (n, (code, answer)) in all(&server, &requests).await.into_iter().enumerate() {
        let n = n as f32;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["outputs"][0]["data"], json!([n, n]));
    }
}

#[tokio::test]
async fn rows_that_depend_on_each_other_are_put_together_only_when_asked_for() {
    let server = Server::start(&onnx::centred(), &["--sessions", "1"]).await;
    said(
        &server,
        "batches   no: a row's result depends on the rows beside it",
    )
    .await;
    let server = Server::start(&onnx::centred(), &TOGETHER).await;
    said(&server, "batches   yes, up to 8 rows").await;
    said(
        &server,
        "put together as asked for, although a row's result depends",
    )
    .await;
}

#[tokio::test]
async fn a_small_model_is_batched_by_itself_and_can_be_told_not_to() {
    let model = onnx::identity(onnx::FLOAT, &[-1, 4]);
    let server = Server::start(&model, &["--sessions", "1"]).await;
    said(&server, "batches   yes, up to 32 rows").await;
    let server = Server::start(&model, &["--sessions", "1", "--max-batch", "1"]).await;
    said(&server, "batches   no: switched off").await;
    let (code, answer) = server
        .infer(&request("FP32", &[3, 4], json!(vec![0; 12])))
        .await;
    assert_eq!(code, 200, "a request may still have rows: {answer}");
}

#[tokio::test]
async fn a_request_over_the_maximum_batch_is_400() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &TOGETHER).await;
    let (code, answer) = server
        .infer(&request("FP32", &[9, 2], json!(vec![0; 18])))
        .await;
    assert_eq!(code, 400, "{answer}");
    let sentence = answer["error"].as_str().unwrap();
    assert!(
        sentence.contains("9 rows") && sentence.contains("at most 8"),
        "{sentence}"
    );
    let (code, _) = server
        .infer(&request("FP32", &[8, 2], json!(vec![0; 16])))
        .await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_run_over_its_limit_is_stopped_and_the_session_goes_on() {
    let options = ["--sessions", "1", "--run-limit", "500ms"];
    let server = Server::start(&onnx::slow(256, 400), &options).await;
    let (code, answer) = server
        .infer(&request("FP32", &[4000, 256], json!(vec![1; 4000 * 256])))
        .await;
    assert_eq!(code, 500, "{answer}");
    let sentence = answer["error"].as_str().unwrap();
    assert!(
        sentence.contains("longer than 500ms and was stopped"),
        "{sentence}"
    );
    for _ in 0..3 {
        let (code, answer) = server
            .infer(&request("FP32", &[1, 256], json!(vec![1; 256])))
            .await;
        assert_eq!(code, 200, "{answer}");
    }
}

#[tokio::test]
async fn a_line_of_the_log_says_which_request_it_was_written_for() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    for format in ["text", "json"] {
        let options = ["--run-limit", "100ms", "--log-format", format];
        let server = Server::start(&onnx::slow(256, 400), &options).await;
        let body = request("FP32", &[4000, 256], json!(vec![1; 4000 * 256]));
        let ask = reqwest::Client::new()
            .post(server.url("/v2/models/m/infer"))
            .header("x-request-id", "the-7th")
            .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00"))
            .body(body.to_string());
        assert_eq!(ask.send().await.unwrap().status(), 500);
        let log = server.log();
        let line = log.lines().find(|line| line.contains("was stopped"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("the-7th") && line.contains(TRACE), "{line}");
        assert!(line.contains("request"), "{line}");
    }
}
