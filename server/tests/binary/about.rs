//! What the server tells of itself and of a request: configuration, statistics, ids, methods, the document.

use super::*;

#[tokio::test]
async fn a_model_tells_its_configuration_its_statistics_and_its_place() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 2]), &["--sessions", "2"]).await;
    let (_, about) = server.get("/v2").await;
    assert_eq!(about["name"], "ortolan");
    let extensions = about["extensions"].as_array().unwrap();
    assert!(extensions.contains(&json!("binary_tensor_data")), "{about}");
    for path in ["/v2/models/m/config", "/v2/models/m/versions/1/config"] {
        let (code, config) = server.get(path).await;
        assert_eq!(code, 200);
        assert_eq!(config["name"], "m");
        assert_eq!(config["platform"], "onnxruntime_onnx");
        assert!(config["max_batch_size"].as_i64().unwrap() > 0);
        // The batch dimension is not told again.
        assert_eq!(config["input"][0]["dims"], json!([2]));
        assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(
            config["instance_group"][0],
            json!({ "name": "m_0", "kind": "KIND_CPU", "count": 2 })
        );
    }
    for _ in 0..3 {
        let request = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4] }] });
        assert_eq!(server.infer(&request).await.0, 200);
    }
    assert_eq!(server.infer(&json!({ "inputs": [] })).await.0, 400);
    for path in [
        "/v2/models/m/stats",
        "/v2/models/m/versions/1/stats",
        "/v2/models/stats",
    ] {
        let (code, stats) = server.get(path).await;
        assert_eq!(code, 200);
        let stats = &stats["model_stats"][0];
        assert_eq!(
            (stats["name"].as_str(), stats["version"].as_str()),
            (Some("m"), Some("1"))
        );
        assert_eq!(stats["inference_stats"]["success"]["count"], 3, "{stats}");
        assert_eq!(stats["inference_stats"]["fail"]["count"], 1, "{stats}");
        assert!(stats["inference_count"].as_u64().unwrap() >= 6, "{stats}");
        assert!(
            stats["inference_stats"]["compute_infer"]["ns"]
                .as_u64()
                .unwrap()
                > 0
        );
        assert!(stats["last_inference"].as_u64().unwrap() > 1_700_000_000_000);
    }
    for body in ["", "{}", r#"{"ready": true}"#] {
        let (code, index) = server.post("/v2/repository/index", body).await;
        assert_eq!(code, 200, "{index}");
        let expected = json!([{ "name": "m", "version": "1", "state": "READY", "reason": "" }]);
        assert_eq!(index, expected);
    }
    for path in [
        "/v2/models/other/config",
        "/v2/models/other/stats",
        "/v2/models/m/versions/9/stats",
    ] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_one() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &[]).await;
    for path in ["/v2/health/live", "/nowhere"] {
        let ask = |id: Option<&str>| {
            let mut request = reqwest::Client::new().get(server.url(path));
            if let Some(id) = id {
                request = request.header("x-request-id", id);
            }
            request.send()
        };
        assert_eq!(
            ask(Some("mine-1")).await.unwrap().headers()["x-request-id"],
            "mine-1"
        );
        let (one, two) = (ask(None).await.unwrap(), ask(None).await.unwrap());
        assert_ne!(one.headers()["x-request-id"], two.headers()["x-request-id"]);
    }
}

#[tokio::test]
async fn every_405_says_what_is_allowed() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &[]).await;
    let client = reqwest::Client::new();
    for (method, path, allowed) in [
        ("PUT", "/v2/models/m/infer", "POST"),
        ("POST", "/v2/models/m", "GET,HEAD"),
        ("POST", "/v1/models/m", "GET,HEAD"),
        ("DELETE", "/v1/models/m", "GET,HEAD"),
        ("GET", "/v1/models/m:predict", "POST"),
        ("OPTIONS", "/v1/models/m:predict", "POST"),
    ] {
        let request = client.request(method.parse().unwrap(), server.url(path));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(response.headers()["allow"], allowed, "{method} {path}");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn the_openapi_document_names_the_models_and_its_example_works() {
    let server = Server::start(&onnx::sum_and_difference(), &[]).await;
    let (code, document) = server.get("/openapi.json").await;
    assert_eq!((code, document["openapi"].as_str()), (200, Some("3.1.0")));
    let names = &document["components"]["parameters"]["model"]["schema"]["enum"];
    assert_eq!(names, &json!(["m"]));
    let body = &document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"];
    let (code, answer) = server.infer(&body["application/json"]["example"]).await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = server.get("/v2/models/%ff").await;
    assert_eq!(code, 400, "{answer}");
    assert!(answer["error"].is_string());
}
