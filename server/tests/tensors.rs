//! Tensors as JSON, in and out: every datatype, every shape, every mistake with a sentence of its own.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Server, onnx};

fn request(datatype: &str, shape: &Value, data: &Value) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": datatype, "shape": shape, "data": data }] })
}

/// Values that only an exact path keeps, and what the answer must hold.
fn extremes(datatype: &str) -> Value {
    match datatype {
        "BOOL" => json!([true, false, true, true]),
        "UINT8" => json!([0, 1, 127, 255]),
        "INT8" => json!([-128, -1, 0, 127]),
        "UINT16" => json!([0, 1, 32768, 65535]),
        "INT16" => json!([-32768, -1, 0, 32767]),
        "UINT32" => json!([0, 1, 2147483648_u32, u32::MAX]),
        "INT32" => json!([i32::MIN, -1, 0, i32::MAX]),
        "UINT64" => json!([0, 1, 9007199254740993_u64, u64::MAX]),
        "INT64" => json!([i64::MIN, -9007199254740993_i64, 0, i64::MAX]),
        "FP16" => json!([0.5, -65504.0, 0.000061035156, "NaN"]),
        "BF16" => json!([0.5, -2.0, 1024.0, "-Infinity"]),
        "FP32" => json!([0.1, -3.4028235e38, 1e-45, "Infinity"]),
        "FP64" => json!([0.1, -1.7976931348623157e308, 5e-324, "NaN"]),
        "BYTES" => json!(["", "a\"\\\n", "üñí 🦜", "[1,2]"]),
        other => panic!("no values for {other}"),
    }
}

#[tokio::test]
async fn every_datatype_comes_back_exactly() {
    for (datatype, element) in onnx::DATATYPES {
        let server = Server::start(&onnx::identity(element, &[-1, 2]), &["--sessions", "1"]).await;
        let flat = extremes(datatype);
        let (code, answer) = server
            .infer(&request(datatype, &json!([2, 2]), &flat))
            .await;
        assert_eq!(code, 200, "{datatype}: {answer}");
        let output = &answer["outputs"][0];
        assert_eq!(output["data"], flat, "{datatype}");
        assert_eq!(output["shape"], json!([2, 2]));
        assert_eq!(output["datatype"], datatype);
        assert_eq!(
            (
                answer["model_name"].as_str(),
                answer["model_version"].as_str()
            ),
            (Some("m"), Some("1"))
        );
        let nested = json!([[flat[0], flat[1]], [flat[2], flat[3]]]);
        let (code, answer) = server
            .infer(&request(datatype, &json!([2, 2]), &nested))
            .await;
        assert_eq!(
            (code, &answer["outputs"][0]["data"]),
            (200, &flat),
            "{datatype} nested"
        );
        let (code, answer) = server
            .infer(&request(datatype, &json!([0, 2]), &json!([])))
            .await;
        assert_eq!(
            (code, &answer["outputs"][0]["data"]),
            (200, &json!([])),
            "{datatype} without elements: {answer}"
        );
        let (_, metadata) = server.get("/v2/models/m").await;
        assert_eq!(
            metadata["inputs"][0],
            json!({"name": "x", "datatype": datatype, "shape": [-1, 2]})
        );
    }
}

#[tokio::test]
async fn a_scalar_has_no_dimensions_and_one_element() {
    let server = Server::start(&onnx::identity(onnx::INT64, &[]), &[]).await;
    for data in [json!([42]), json!(42)] {
        let (code, answer) = server.infer(&request("INT64", &json!([]), &data)).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["outputs"][0]["shape"], json!([]));
        assert_eq!(answer["outputs"][0]["data"], json!([42]));
    }
}

#[tokio::test]
async fn infinities_and_nan_in_results_are_strings() {
    let server = Server::start(&onnx::no_numbers(), &[]).await;
    let (code, answer) = server
        .infer(&request("FP32", &json!([3]), &json!([0.0, -0.0, -1.0])))
        .await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        answer["outputs"][0]["data"],
        json!(["Infinity", "-Infinity", -1.0])
    );
    assert_eq!(
        answer["outputs"][1]["data"],
        json!(["-Infinity", "-Infinity", "NaN"])
    );
}

#[tokio::test]
async fn outputs_are_chosen_and_the_id_is_echoed() {
    let server = Server::start(&onnx::sum_and_difference(), &[]).await;
    // The data may stand before its name, and inputs in any order.
    let body = r#"{"id": "r-7", "parameters": {"x": [1]}, "inputs": [
        {"data": [1, 1], "shape": [1, 2], "datatype": "FP32", "name": "b", "parameters": {}},
        {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [[5, 7.5]]}
    ], "outputs": [{"name": "difference"}]}"#;
    let (code, answer) = server.post("/v2/models/m/versions/1/infer", body).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["id"], "r-7");
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["outputs"][0]["name"], "difference");
    assert_eq!(answer["outputs"][0]["data"], json!([4.0, 6.5]));
}

#[tokio::test]
async fn each_mistake_has_a_sentence_of_its_own() {
    let server = Server::start(&onnx::sum_and_difference(), &["--max-body-bytes", "2000"]).await;
    let a = r#"{"name":"a","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
    let with_b = |b: &str| format!(r#"{{"inputs":[{a},{b}]}}"#);
    let table: [(String, u16, &[&str]); 18] = [
        (String::new(), 400, &["the body is empty"]),
        ("{\"inputs\": [".into(), 400, &["not valid JSON", "line 1"]),
        ("[]".into(), 400, &["not an object"]),
        ("{}".into(), 400, &["no \"inputs\"", "\"a\", \"b\""]),
        (
            with_b(r#"{"name":"c","datatype":"FP32","shape":[1,2],"data":[1,2]}"#),
            400,
            &["no input \"c\"", "\"a\", \"b\""],
        ),
        (
            format!(r#"{{"inputs":[{a}]}}"#),
            400,
            &["lacks the input \"b\""],
        ),
        (with_b(a), 400, &["\"a\" is given twice"]),
        (
            with_b(r#"{"name":"b","datatype":"INT64","shape":[1,2],"data":[1,2]}"#),
            400,
            &["datatype INT64", "expected FP32"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FLOAT","shape":[1,2],"data":[1,2]}"#),
            400,
            &["unknown datatype \"FLOAT\"", "FP32"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[1,3],"data":[1,2,3]}"#),
            400,
            &["shape [1,3]", "[-1,2]"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[2],"data":[1,2]}"#),
            400,
            &["shape [2]", "[-1,2]"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[-1,2],"data":[1,2]}"#),
            400,
            &["negative"],
        ),
        (
            with_b(
                r#"{"name":"b","datatype":"FP32","shape":[9223372036854775807,2],"data":[1,2]}"#,
            ),
            400,
            &["expected 18446744073709551614"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[1,2],"data":[1,2,3]}"#),
            400,
            &["3 elements", "expected 2"],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[1,2]}"#),
            400,
            &["no \"data\""],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[1,2],"data":[1,"2"]}"#),
            400,
            &["element 1 is \"2\""],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[1,2],"data":[1,NaN]}"#),
            400,
            &["not valid JSON", "\"NaN\""],
        ),
        (
            with_b(r#"{"name":"b","datatype":"FP32","shape":[3,2],"data":[1,2,3,4,5,6]}"#),
            200,
            &[],
        ),
    ];
    for (body, code, parts) in table {
        let (got, answer) = server.post("/v2/models/m/infer", body.clone()).await;
        assert_eq!(got, code, "{body}: {answer}");
        for part in parts {
            let sentence = answer["error"]
                .as_str()
                .unwrap_or_else(|| panic!("{body}: {answer}"));
            assert!(sentence.contains(part), "{body}: no {part:?} in {sentence}");
        }
    }
}

#[tokio::test]
async fn what_only_a_run_can_judge_is_the_clients_mistake_too() {
    let server = Server::start(&onnx::sum_and_difference(), &["--sessions", "1"]).await;
    let input = |name: &str, rows: usize| json!({ "name": name, "datatype": "FP32", "shape": [rows, 2], "data": vec![1; rows * 2] });
    let (code, answer) = server
        .infer(&json!({ "inputs": [input("a", 2), input("b", 3)] }))
        .await;
    assert_eq!(code, 400, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("cannot run on these inputs"),
        "{answer}"
    );
    // The session lives on.
    let (code, _) = server
        .infer(&json!({ "inputs": [input("a", 2), input("b", 2)] }))
        .await;
    assert_eq!(code, 200);
    let server = Server::start(&onnx::gather(0), &["--sessions", "1"]).await;
    let (code, answer) = server
        .infer(&request("INT64", &json!([1]), &json!([7])))
        .await;
    assert_eq!(code, 400, "{answer}");
    let (code, answer) = server
        .infer(&request("INT64", &json!([1]), &json!([1])))
        .await;
    assert_eq!((code, &answer["outputs"][0]["data"]), (200, &json!([2.5])));
}

#[tokio::test]
async fn rows_go_in_and_rows_come_out_of_v1() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    let (code, answer) = server
        .post(
            "/v1/models/m:predict",
            r#"{"instances": [[1, 2], [3, 4.5]]}"#,
        )
        .await;
    assert_eq!(
        (code, answer),
        (200, json!({ "predictions": [[1.0, 2.0], [3.0, 4.5]] }))
    );
    let (code, answer) = server.get("/v1/models/m").await;
    assert_eq!((code, answer), (200, json!({ "name": "m", "ready": true })));
    let (code, answer) = server.post("/v1/models/m:explain", "{}").await;
    assert_eq!(code, 404, "{answer}");
    let server = Server::start(&onnx::sum_and_difference(), &[]).await;
    let body = r#"{"instances": [{"a": [1, 2], "b": [1, 1]}, {"a": [0, 0], "b": [4, 5]}]}"#;
    let (code, answer) = server.post("/v1/models/m:predict", body).await;
    let expected = json!({ "predictions": [
        { "sum": [2.0, 3.0], "difference": [0.0, 1.0] },
        { "sum": [4.0, 5.0], "difference": [-4.0, -5.0] },
    ]});
    assert_eq!((code, answer), (200, expected));
}

#[tokio::test]
async fn an_input_that_the_graph_has_a_value_for_may_be_left_out() {
    let server = Server::start(&onnx::optional_offset(), &[]).await;
    let (_, metadata) = server.get("/v2/models/m").await;
    assert_eq!(
        metadata["inputs"],
        json!([
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "offset", "datatype": "FP32", "shape": [1], "optional": true},
        ])
    );
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let (code, answer) = server.infer(&json!({ "inputs": [x] })).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!([11.0, 12.0]));
    let offset = json!({"name": "offset", "datatype": "FP32", "shape": [1], "data": [-1]});
    let (code, answer) = server.infer(&json!({ "inputs": [offset, x] })).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!([0.0, 1.0]));
    let (code, answer) = server.infer(&json!({ "inputs": [offset] })).await;
    assert_eq!(code, 400, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("lacks the input \"x\""),
        "{answer}"
    );
    let (code, answer) = server
        .post("/v1/models/m:predict", r#"{"instances": [[1, 2], [3, 4]]}"#)
        .await;
    assert_eq!(
        (code, &answer["predictions"]),
        (200, &json!([[11.0, 12.0], [13.0, 14.0]]))
    );
}
