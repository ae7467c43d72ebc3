//! V2 over REST beyond JSON: binary tensors, raw bodies, parameters, classes, packed bodies, descriptions.

#![allow(missing_docs, clippy::unwrap_used)]

mod about;
mod packed;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use support::{Server, onnx};

const LENGTH: &str = "inference-header-content-length";

struct Got {
    code: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        let json = self.json();
        json["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{json}"))
            .to_owned()
    }

    /// The JSON part and the bytes behind it.
    fn parts(&self) -> (Value, &[u8]) {
        assert_eq!(self.code, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "application/octet-stream");
        let length: usize = self.headers[LENGTH].to_str().unwrap().parse().unwrap();
        let (json, tensors) = self.body.split_at(length);
        (serde_json::from_slice(json).unwrap(), tensors)
    }
}

async fn send(server: &Server, headers: &[(&str, String)], body: Vec<u8>) -> Got {
    let mut request = reqwest::Client::new()
        .post(server.url("/v2/models/m/infer"))
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.unwrap();
    Got {
        code: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

async fn mixed(server: &Server, json: &Value, tensors: &[u8]) -> Got {
    let json = json.to_string();
    let length = json.len().to_string();
    let body = [json.as_bytes(), tensors].concat();
    send(server, &[(LENGTH, length)], body).await
}

fn input(datatype: &str, shape: &[usize], bytes: usize) -> Value {
    json!({
        "name": "x", "datatype": datatype, "shape": shape,
        "parameters": { "binary_data_size": bytes },
    })
}

/// Four elements whose every bit matters.
fn bits(datatype: &str) -> Vec<u8> {
    let width = match datatype {
        "BOOL" => return vec![1, 0, 0, 1],
        "BYTES" => return b"\0\0\0\0\x01\0\0\0[\x04\0\0\0\xf0\x9f\xa6\x9c\x02\0\0\0\"\\".to_vec(),
        "UINT8" | "INT8" => 1,
        "UINT16" | "INT16" | "FP16" | "BF16" => 2,
        "UINT32" | "INT32" | "FP32" => 4,
        _ => 8,
    };
    // The last element is all ones: a NaN that only a copy keeps, or -1.
    let mut bytes: Vec<u8> = (0..width * 4).map(|i| (i * 37 + 11) as u8).collect();
    bytes[width * 3..].fill(0xff);
    bytes
}

#[tokio::test]
async fn every_bit_of_every_datatype_comes_back() {
    for (datatype, element) in onnx::DATATYPES {
        let server = Server::start(&onnx::identity(element, &[-1, 2]), &["--sessions", "1"]).await;
        let bytes = bits(datatype);
        let mut request = json!({ "id": "7", "inputs": [input(datatype, &[2, 2], bytes.len())] });
        request["parameters"] = json!({ "binary_data_output": true });
        let got = mixed(&server, &request, &bytes).await;
        let (json, tensors) = got.parts();
        assert_eq!(tensors, bytes, "{datatype}");
        let output = &json["outputs"][0];
        assert_eq!(output["parameters"]["binary_data_size"], bytes.len());
        assert_eq!(output["shape"], json!([2, 2]));
        assert_eq!(output["datatype"], datatype);
        assert!(output.get("data").is_none());
        assert_eq!(json["id"], "7");
        // Without elements there is nothing behind the JSON.
        let mut request = json!({ "inputs": [input(datatype, &[0, 2], 0)] });
        request["outputs"] = json!([{ "name": "y", "parameters": { "binary_data": true } }]);
        let got = mixed(&server, &request, &[]).await;
        let (json, tensors) = got.parts();
        assert_eq!(
            (json["outputs"][0]["shape"].clone(), tensors.len()),
            (json!([0, 2]), 0)
        );
    }
}

#[tokio::test]
async fn json_and_bytes_go_together_in_both_directions() {
    let server = Server::start(&onnx::sum_and_difference(), &[]).await;
    let floats = |values: [f32; 2]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let b = json!({ "name": "b", "datatype": "FP32", "shape": [1, 2], "parameters": { "binary_data_size": 8 } });
    let a = json!({ "name": "a", "datatype": "FP32", "shape": [1, 2], "data": [5, 7] });
    let request = json!({
        "inputs": [b, a],
        "parameters": { "binary_data_output": true },
        "outputs": [
            { "name": "difference", "parameters": { "binary_data": false } },
            { "name": "sum" },
        ],
    });
    let got = mixed(&server, &request, &floats([1.0, 2.0])).await;
    let (json, tensors) = got.parts();
    assert_eq!(json["outputs"][0]["data"], json!([4.0, 5.0]));
    assert_eq!(json["outputs"][1]["name"], "sum");
    assert_eq!(tensors, floats([6.0, 9.0]));
    // The bytes stand in the order of the inputs in the JSON, not of the model.
    let both = |first: &str, second: &str| {
        let one = |name: &str| json!({ "name": name, "datatype": "FP32", "shape": [1, 2], "parameters": { "binary_data_size": 8 } });
        json!({ "inputs": [one(first), one(second)], "outputs": [{ "name": "difference" }] })
    };
    let bytes = [floats([5.0, 7.0]), floats([1.0, 1.0])].concat();
    let got = mixed(&server, &both("a", "b"), &bytes).await;
    assert_eq!(got.json()["outputs"][0]["data"], json!([4.0, 6.0]));
    let got = mixed(&server, &both("b", "a"), &bytes).await;
    assert_eq!(got.json()["outputs"][0]["data"], json!([-4.0, -6.0]));
}

#[tokio::test]
async fn each_wrong_division_of_a_body_is_named() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &[]).await;
    let json = |bytes: usize| json!({ "inputs": [input("FP32", &[2], bytes)] }).to_string();
    let with = |mut value: Value, key: &str, data: Value| {
        value["inputs"][0][key] = data;
        value.to_string()
    };
    let both = with(
        json!({ "inputs": [input("FP32", &[2], 8)] }),
        "data",
        json!([1, 2]),
    );
    let text = with(
        json!({ "inputs": [input("FP32", &[2], 8)] }),
        "parameters",
        json!({ "binary_data_size": "8" }),
    );
    let shared = with(
        json!({ "inputs": [input("FP32", &[2], 8)] }),
        "parameters",
        json!({ "shared_memory_region": "r", "shared_memory_byte_size": 8 }),
    );
    let cases: [(String, Option<String>, usize, &str); 10] = [
        (
            json(8),
            Some("100000".into()),
            8,
            "says 100000 bytes, and the body has",
        ),
        (json(8), Some("many".into()), 8, "expected how many bytes"),
        (json(8), Some("-1".into()), 8, "expected how many bytes"),
        (
            json(8),
            None,
            0,
            "binary_data_size is 8, and 0 bytes are left",
        ),
        (
            json(8),
            Some(json(8).len().to_string()),
            7,
            "binary_data_size is 8, and 7 bytes are left",
        ),
        (
            json(8),
            Some(json(8).len().to_string()),
            9,
            "1 bytes are left in the body",
        ),
        (
            json(9),
            Some(json(9).len().to_string()),
            9,
            "has 9 bytes of binary data, expected 8",
        ),
        (
            both.clone(),
            Some(both.len().to_string()),
            8,
            "both \"data\" and \"binary_data_size\"",
        ),
        (
            text.clone(),
            Some(text.len().to_string()),
            8,
            "expected a whole number of bytes",
        ),
        (
            shared.clone(),
            Some(shared.len().to_string()),
            8,
            "shared memory",
        ),
    ];
    for (json, length, bytes, part) in cases {
        let headers: Vec<_> = length.into_iter().map(|length| (LENGTH, length)).collect();
        let body = [json.as_bytes(), &vec![0; bytes]].concat();
        let got = send(&server, &headers, body).await;
        assert_eq!(got.code, 400, "{json}");
        assert!(got.error().contains(part), "{json}: {}", got.error());
    }
}

#[tokio::test]
async fn a_body_without_json_is_the_only_input() {
    let raw = [(LENGTH, "0".to_owned())];
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &[]).await;
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let got = send(&server, &raw, bytes.clone()).await;
    let (json, tensors) = got.parts();
    assert_eq!(
        (json["outputs"][0]["shape"].clone(), tensors),
        (json!([2, 2]), &bytes[..])
    );
    for (cut, part) in [
        (15, "element of FP32 has 4"),
        (12, "do not fill the shape [-1,2]"),
    ] {
        let got = send(&server, &raw, bytes[..cut].to_vec()).await;
        assert_eq!(got.code, 400);
        assert!(got.error().contains(part), "{}", got.error());
    }
    let server = Server::start(&onnx::identity(8, &[1]), &[]).await;
    let got = send(&server, &raw, "any text".into()).await;
    let (_, tensors) = got.parts();
    assert_eq!(
        tensors, b"\x08\0\0\0any text",
        "a string comes back with its length"
    );
    let server = Server::start(&onnx::sum_and_difference(), &[]).await;
    let got = send(&server, &raw, bytes).await;
    assert_eq!(got.code, 400);
    assert!(
        got.error().contains("a model of one input"),
        "{}",
        got.error()
    );
}

#[tokio::test]
async fn parameters_are_used_ignored_or_refused() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 4]), &[]).await;
    let request = |parameters: Value, output: Value| {
        json!({
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1, 5, 3, 5, 0, -1, -2, 9] }],
            "parameters": parameters,
            "outputs": [{ "name": "y", "parameters": output }],
        })
    };
    let (code, answer) = server
        .infer(&request(
            json!({ "priority": 1, "timeout": 60_000_000, "other": {} }),
            json!({}),
        ))
        .await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = server
        .infer(&request(json!({}), json!({ "classification": 2 })))
        .await;
    assert_eq!(code, 200, "{answer}");
    let output = &answer["outputs"][0];
    assert_eq!(
        (&output["datatype"], &output["shape"]),
        (&json!("BYTES"), &json!([2, 2]))
    );
    let expected = ["5.000000:1", "5.000000:3", "9.000000:3", "0.000000:0"];
    assert_eq!(output["data"], json!(expected));
    let classes = json!({ "classification": 1, "binary_data": true });
    let got = mixed(&server, &request(json!({}), classes), &[]).await;
    let (_, tensors) = got.parts();
    assert_eq!(tensors, b"\x0a\0\0\x005.000000:1\x0a\0\0\x009.000000:3");
    for (parameters, output, part) in [
        (json!({ "timeout": "soon" }), json!({}), "microseconds"),
        (json!({ "sequence_id": 5 }), json!({}), "keeps no state"),
        (json!({}), json!({ "classification": -1 }), "of classes"),
        (
            json!({}),
            json!({ "shared_memory_region": "r" }),
            "shared memory",
        ),
        (json!([]), json!({}), "not what this path reads"),
    ] {
        let (code, answer) = server.infer(&request(parameters, output)).await;
        assert_eq!(code, 400, "{answer}");
        let sentence = answer["error"].as_str().unwrap();
        assert!(sentence.contains(part), "{sentence}");
    }
    let (code, answer) = reqwest_with_timeout(&server, "soon").await;
    assert_eq!(code, 400);
    assert!(answer.contains("X-Request-Timeout"), "{answer}");
    assert_eq!(reqwest_with_timeout(&server, "60s").await.0, 200);
}

async fn reqwest_with_timeout(server: &Server, timeout: &str) -> (u16, String) {
    let body = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4] }] });
    let got = send(
        server,
        &[("x-request-timeout", timeout.to_owned())],
        body.to_string().into(),
    )
    .await;
    (got.code, String::from_utf8(got.body).unwrap())
}
