//! Execution providers: what was asked for against what runs, wherever the server tells it. OpenVINO runs for real where its plugin is at hand.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{fs, path::PathBuf};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, fails, onnx};

/// What is fetched for tests.
fn cache() -> PathBuf {
    let root = std::env::var_os("ORTOLAN_CACHE").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ortolan"))
}

/// OpenVINO's plugin: named, or the one that scripts/onnxruntime.sh openvino fetched.
fn openvino() -> PathBuf {
    let named = std::env::var_os("ORTOLAN_TEST_OPENVINO_LIB").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let versions = fs::read_dir(cache().join("onnxruntime-openvino"));
        let libraries = versions.into_iter().flatten().flatten().map(|version| {
            let name = "libonnxruntime_providers_openvino_plugin.so";
            version.path().join(name)
        });
        libraries
            .filter(|library| library.is_file())
            .max()
            .expect("OpenVINO's plugin: run scripts/onnxruntime.sh openvino, or set ORTOLAN_TEST_OPENVINO_LIB=PATH")
    })
}

fn row(n: usize) -> Value {
    let data: Vec<f32> = (0..n).map(|i| i as f32 / 7.0).collect();
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, n], "data": data }] })
}

async fn told(server: &Server) -> (Value, Value, Value, Value) {
    let (_, report) = server.get("/healthz/startup").await;
    let (_, metadata) = server.get("/v2/models/m").await;
    let (_, config) = server.get("/v2/models/m/config").await;
    let (_, metrics) = server.get("/metrics").await;
    (
        report["provider"].clone(),
        metadata["parameters"].clone(),
        config,
        metrics,
    )
}

#[tokio::test]
async fn what_was_asked_for_and_what_runs_is_told_wherever_a_model_is_described() {
    for provider in ["CUDA", "XNNPACK"] {
        let options = ["--provider", provider, "--fallback", "allow"];
        let server = Server::start(&onnx::slow(8, 1), &options).await;
        let (report, metadata, config, metrics) = told(&server).await;
        assert_eq!(report, json!({ "requested": provider, "active": "CPU" }));
        assert_eq!(
            metadata,
            json!({ "requested_provider": provider, "active_provider": "CPU" })
        );
        assert_eq!(
            config["parameters"],
            json!({
                "requested_provider": { "string_value": provider },
                "active_provider": { "string_value": "CPU" },
            })
        );
        assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
        let line = format!(r#"requested="{provider}",active="CPU""#);
        assert!(metrics.as_str().unwrap().contains(&line), "{metrics}");
        let log = server.log();
        assert!(
            log.contains(&format!("{provider} does not load, serving on the CPU")),
            "{log}"
        );
        assert!(
            log.contains(&format!("CPU (asked for {provider})")),
            "{log}"
        );
    }
}

#[test]
fn a_plugin_that_is_not_there_or_is_none_is_named() {
    let model = onnx::slow(8, 1).encode_to_vec();
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("plugin.so");
    fs::write(&other, "no library").unwrap();
    let other = other.display().to_string();
    for plugin in ["/nowhere/plugin.so", &other] {
        let options = ["--provider", "OpenVINO", "--provider-library", plugin];
        let ended = fails(&model, &options);
        assert_eq!(ended.code, 16, "{}", ended.stderr);
        for part in ["ProviderUnavailable: ", "OpenVINO", plugin] {
            assert!(
                ended.termination_log.contains(part),
                "{}",
                ended.termination_log
            );
        }
    }
}

#[test]
fn a_broken_model_is_the_models_fault_whatever_it_was_to_run_on() {
    let mut model = onnx::slow(8, 1);
    model.opsets[0].version = 99;
    let options = ["--provider", "CUDA", "--fallback", "allow"];
    let ended = fails(&model.encode_to_vec(), &options);
    assert_eq!(ended.code, 15, "{}", ended.stderr);
}

#[tokio::test]
#[ignore = "needs OpenVINO's plugin: scripts/onnxruntime.sh openvino"]
async fn openvino_runs_a_model_and_says_so() {
    let plugin = openvino();
    let plugin = plugin.to_str().unwrap();
    let options = [
        "--provider",
        "OpenVINO",
        "--provider-library",
        plugin,
        "--sessions",
        "2",
    ];
    let server = Server::start(&onnx::slow(32, 3), &options).await;
    let (report, metadata, config, metrics) = told(&server).await;
    assert_eq!(
        report,
        json!({ "requested": "OpenVINO", "active": "OpenVINO" })
    );
    assert_eq!(
        metadata,
        json!({ "requested_provider": "OpenVINO", "active_provider": "OpenVINO" })
    );
    assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains(r#"requested="OpenVINO",active="OpenVINO"} 1"#),
        "{metrics}"
    );
    let (code, answer) = server.infer(&row(32)).await;
    assert_eq!(code, 200, "{answer}");
}

/// The scores of a picture, of all classes.
async fn scores(options: &[&str]) -> Vec<f64> {
    let model = cache().join("models/efficientnet-lite0.onnx");
    let server = Server::start_in(tempfile::tempdir().unwrap(), &model, options).await;
    let (_, metadata) = server.get("/v2/models/m").await;
    let input = metadata["inputs"][0]["name"].as_str().unwrap();
    let data: Vec<f32> = (0..3 * 224 * 224)
        .map(|i| ((i * 7919) % 255) as f32 / 127.5 - 1.0)
        .collect();
    let body = json!({ "inputs": [{ "name": input, "datatype": "FP32", "shape": [1, 3, 224, 224], "data": data }] });
    let (code, answer) = server.infer(&body).await;
    assert_eq!(code, 200, "{answer}");
    let scores = answer["outputs"][0]["data"].as_array().unwrap();
    scores.iter().map(|score| score.as_f64().unwrap()).collect()
}

#[tokio::test]
#[ignore = "needs OpenVINO's plugin: scripts/onnxruntime.sh openvino"]
async fn openvino_answers_what_the_cpu_answers() {
    let plugin = openvino();
    let cpu = scores(&[]).await;
    let options = [
        "--provider",
        "OpenVINO",
        "--provider-library",
        plugin.to_str().unwrap(),
    ];
    let openvino = scores(&options).await;
    let largest = cpu
        .iter()
        .fold(0.0_f64, |most, score| most.max(score.abs()));
    let apart = cpu
        .iter()
        .zip(&openvino)
        .fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()));
    assert_eq!(cpu.len(), openvino.len());
    // Sums in another order: 10⁻⁶ of the largest score were seen.
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
    assert!(
        openvino != cpu,
        "another provider's kernels, not the same ones"
    );
}
