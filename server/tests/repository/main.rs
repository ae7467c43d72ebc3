//! Several models in one server: what is served and refused, and under which name.

#![allow(missing_docs, clippy::unwrap_used)]

mod management;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, fails_at, onnx, onnx::scaled};
use tempfile::TempDir;

/// An empty repository below a fresh directory.
fn repository() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("repo")).unwrap();
    dir
}

fn put(dir: &TempDir, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join("repo").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn put_model(dir: &TempDir, path: &str, model: &onnx::Model) {
    put(dir, path, model.encode_to_vec());
}

async fn start(dir: TempDir, options: &[&str]) -> Server {
    let root = dir.path().join("repo");
    Server::start_in(dir, &root, options).await
}

fn x(value: f32) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [value, value] }] })
}

/// What the model makes of 1, or the code and the sentence.
async fn ask(server: &Server, path: &str) -> Result<f64, (u16, String)> {
    let (code, body) = server
        .post(&format!("/v2/models/{path}/infer"), x(1.0).to_string())
        .await;
    match code {
        200 => Ok(body["outputs"][0]["data"][0].as_f64().unwrap()),
        _ => Err((code, body["error"].as_str().unwrap_or_default().to_owned())),
    }
}

async fn index(server: &Server) -> Vec<(String, String, String, String)> {
    let (code, body) = server.post("/v2/repository/index", "").await;
    assert_eq!(code, 200, "{body}");
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = body.as_array().unwrap().iter();
    entries
        .map(|entry| {
            (
                text(entry, "name"),
                text(entry, "version"),
                text(entry, "state"),
                text(entry, "reason"),
            )
        })
        .collect()
}

async fn change(server: &Server, model: &str, verb: &str) -> (u16, String) {
    let (code, body) = server
        .post(&format!("/v2/repository/models/{model}/{verb}"), "")
        .await;
    (code, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn each_model_is_served_under_its_own_name_and_its_versions_as_the_policy_says() {
    let dir = repository();
    put_model(&dir, "twice/1/model.onnx", &scaled(2.0));
    put_model(&dir, "thrice/1/model.onnx", &scaled(3.0));
    put_model(&dir, "thrice/4/model.onnx", &scaled(3.5));
    put_model(&dir, "all/9/model.onnx", &scaled(9.0));
    put_model(&dir, "all/10/model.onnx", &scaled(10.0));
    put(
        &dir,
        "all/config.pbtxt",
        "platform: \"onnxruntime_onnx\" version_policy { all {} } metric_tags { key: \"a\" value: \"b\" }",
    );
    put(&dir, "README.md", "models");
    let server = start(dir, &[]).await;
    assert_eq!(ask(&server, "twice").await, Ok(2.0));
    assert_eq!(ask(&server, "thrice").await, Ok(3.5), "the highest version");
    assert_eq!(ask(&server, "all").await, Ok(10.0));
    assert_eq!(ask(&server, "all/versions/9").await, Ok(9.0));
    let (code, sentence) = ask(&server, "thrice/versions/1").await.unwrap_err();
    assert_eq!(code, 404, "only the latest is served: {sentence}");
    let (code, sentence) = ask(&server, "m").await.unwrap_err();
    assert!(code == 404 && sentence.contains("\"twice\""), "{sentence}");
    let (_, metadata) = server.get("/v2/models/all").await;
    assert_eq!(metadata["versions"], json!(["9", "10"]));
    let note = "metric_tags (line 1) is not used here";
    let ready = |name: &str, version: &str, note: &str| {
        (name.into(), version.into(), "READY".into(), note.into())
    };
    assert_eq!(
        index(&server).await,
        [
            ready("all", "9", note),
            ready("all", "10", note),
            ready("thrice", "4", ""),
            ready("twice", "1", "")
        ]
    );
    assert_eq!(
        server.log().matches("metric_tags").count(),
        1,
        "said once: {}",
        server.log()
    );
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for labels in [
        "model=\"all\",version=\"9\"",
        "model=\"all\",version=\"10\"",
        "model=\"twice\",version=\"1\"",
    ] {
        assert!(
            metrics.contains(&format!(
                "ortolan_requests_total{{{labels},protocol=\"v2\",code=\"200\"}} 1"
            )),
            "{labels}\n{metrics}"
        );
    }
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(report["phase"], "Ready");
    assert_eq!(report["models"].as_array().unwrap().len(), 4);
    assert!(report["digest"].as_str().unwrap().starts_with("sha256:"));
    let (_, page) = server.get("/").await;
    assert!(page.as_str().unwrap().contains("/v2/models/thrice"));
}

#[tokio::test]
async fn one_bad_model_takes_nothing_from_the_others_and_says_why_it_is_not_there() {
    let dir = repository();
    put_model(&dir, "good/1/model.onnx", &scaled(2.0));
    put(&dir, "cut/1/model.onnx", &scaled(2.0).encode_to_vec()[..20]);
    put(&dir, "page/1/model.onnx", "<!DOCTYPE html>");
    put_model(&dir, "cold/1/model.onnx", &onnx::gather(5));
    put_model(&dir, "ensemble/1/model.onnx", &scaled(1.0));
    put(&dir, "ensemble/config.pbtxt", "platform: \"ensemble\"");
    put_model(&dir, "other/1/model.onnx", &scaled(1.0));
    put(
        &dir,
        "other/config.pbtxt",
        "input { name: \"image\" data_type: TYPE_FP32 dims: [ -1, 2 ] }",
    );
    put(&dir, "none/config.pbtxt", "");
    let server = start(dir, &[]).await;
    assert_eq!(ask(&server, "good").await, Ok(2.0));
    let words = [
        ("cold", "1", "WarmUpFailed: the first run"),
        ("cut", "1", "InvalidModel: model.onnx is truncated"),
        (
            "ensemble",
            "",
            "InvalidConfig: ensemble/config.pbtxt: line 1: platform makes an ensemble",
        ),
        ("good", "1", ""),
        (
            "none",
            "",
            "ModelNotFound: the model's folder none holds no version",
        ),
        (
            "other",
            "1",
            "declares the input \"image\", and the model has \"x\"",
        ),
        ("page", "1", "HTML"),
    ];
    let listed = index(&server).await;
    assert_eq!(listed.len(), words.len(), "{listed:?}");
    for ((name, version, state, reason), (expected, of, words)) in listed.iter().zip(words) {
        assert_eq!((name.as_str(), version.as_str()), (expected, of));
        assert_eq!(state == "READY", *name == "good", "{name}");
        assert!(
            reason.contains(words) || words == "HTML" && reason.contains("web page"),
            "{name}: {reason}"
        );
    }
    for bad in ["cut", "ensemble", "cold"] {
        let (code, sentence) = ask(&server, bad).await.unwrap_err();
        assert!(
            code == 503 && sentence.contains("is not available: "),
            "{code} {sentence}"
        );
    }
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    let (_, ready) = server
        .post("/v2/repository/index", "{\"ready\": true}")
        .await;
    assert_eq!(
        ready,
        json!([{ "name": "good", "version": "1", "state": "READY", "reason": "" }])
    );
}

#[test]
fn a_repository_in_which_nothing_can_be_served_ends_with_the_reason_and_so_does_a_strict_one() {
    type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], i32, &'a str);
    let cases: [Case<'_>; 4] = [
        (
            "a/1/model.onnx",
            b"<html>",
            &["--repository", "always"],
            15,
            "InvalidModel: a: ",
        ),
        (
            "a/config.pbtxt",
            b"max_batch_size: many",
            &[],
            20,
            "a/config.pbtxt: line 1: max_batch_size is many",
        ),
        (
            "README.md",
            b"",
            &["--repository", "always"],
            11,
            "holds no model",
        ),
        (
            "a/1/model.onnx",
            b"",
            &["--model-control", "explicit", "--load-model", "b"],
            11,
            "\"b\": the repository",
        ),
    ];
    for (path, content, options, code, words) in cases {
        let dir = repository();
        put(&dir, path, content);
        let root = dir.path().join("repo");
        let ended = fails_at(dir, &root, options);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(
            ended.termination_log.contains(words),
            "{}",
            ended.termination_log
        );
    }
    let dir = repository();
    put_model(&dir, "good/1/model.onnx", &scaled(2.0));
    put(&dir, "bad/1/model.onnx", "<html>");
    let root = dir.path().join("repo");
    let ended = fails_at(dir, &root, &["--strict-readiness"]);
    assert_eq!(ended.code, 15);
    assert!(
        ended.termination_log.starts_with("InvalidModel: bad: "),
        "{}",
        ended.termination_log
    );
}

#[test]
fn options_that_contradict_each_other_are_refused_with_what_to_leave_out() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let cases: [(&[&str], &str); 2] = [
        (
            &["--model-control", "poll", "--digest", &digest],
            "--digest names a content that never changes",
        ),
        (
            &["--model-control", "poll", "--repository", "never"],
            "--repository never",
        ),
    ];
    for (options, words) in cases {
        let dir = repository();
        put_model(&dir, "a/1/model.onnx", &scaled(2.0));
        let root = dir.path().join("repo");
        let ended = fails_at(dir, &root, options);
        assert!(
            ended.termination_log.contains(words),
            "{}",
            ended.termination_log
        );
    }
}

#[tokio::test]
async fn an_archive_of_a_repository_is_served_and_cannot_be_polled() {
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    put_model(&dir, "b/1/model.onnx", &scaled(3.0));
    let pack = |dir: &Path| {
        let status = Command::new("tar")
            .args(["czf", "repo.tar.gz", "repo"])
            .current_dir(dir)
            .status();
        assert!(status.unwrap().success());
        dir.join("repo.tar.gz")
    };
    let archive = pack(dir.path());
    let server = Server::start_in(dir, &archive, &[]).await;
    assert_eq!(
        (ask(&server, "a").await, ask(&server, "b").await),
        (Ok(2.0), Ok(3.0))
    );
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    let archive = pack(dir.path());
    let ended = fails_at(dir, &archive, &["--model-control", "poll"]);
    assert_eq!(ended.code, 20);
    assert!(
        ended.termination_log.contains("is an archive"),
        "{}",
        ended.termination_log
    );
}

#[tokio::test]
async fn the_models_of_a_server_share_one_bound_in_bytes() {
    let dir = repository();
    let (small, large) = (scaled(2.0), onnx::slow(64, 1));
    put_model(&dir, "a/1/model.onnx", &small);
    put_model(&dir, "b/1/model.onnx", &large);
    let limit = (large.encode_to_vec().len() + small.encode_to_vec().len() - 1).to_string();
    let options = [
        "--model-control",
        "explicit",
        "--load-model",
        "a",
        "--management-api",
        "--max-model-bytes",
        &limit,
    ];
    let server = start(dir, &options).await;
    let (code, sentence) = change(&server, "b", "load").await;
    assert!(
        code == 400 && sentence.contains("--max-model-bytes"),
        "{sentence}"
    );
    assert_eq!(change(&server, "a", "unload").await.0, 200);
    assert_eq!(change(&server, "b", "load").await.0, 200);
    assert_eq!(change(&server, "a", "load").await.0, 400);
}

#[tokio::test]
async fn tritons_configuration_sets_how_a_model_is_run_and_flags_go_before_it() {
    let config = "max_batch_size: 8\n instance_group { count: 3 kind: KIND_CPU }\n\
                  parameters { key: \"intra_op_thread_count\" value: { string_value: \"2\" } }\n\
                  input { name: \"x\" data_type: TYPE_FP32 dims: [ 2 ] }\n\
                  output { name: \"y\" data_type: TYPE_FP32 dims: [ 2 ] }";
    for (options, sessions, threads) in [
        (&[][..], 3, 2),
        (&["--sessions", "1", "--threads", "1"][..], 1, 1),
    ] {
        let dir = repository();
        put_model(&dir, "a/1/model.onnx", &scaled(2.0));
        put(&dir, "a/config.pbtxt", config);
        let server = start(dir, options).await;
        let (_, report) = server.get("/healthz/startup").await;
        let model = &report["models"][0];
        assert_eq!(
            (model["sessions"].as_u64(), model["threads"].as_u64()),
            (Some(sessions), Some(threads)),
            "{report}"
        );
        assert_eq!(ask(&server, "a").await, Ok(2.0));
        let nine = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [9, 2], "data": vec![1; 18] }] });
        let (code, body) = server.post("/v2/models/a/infer", nine.to_string()).await;
        assert!(
            code == 400 && body["error"].as_str().unwrap().contains('8'),
            "max_batch_size: {code} {body}"
        );
    }
}

#[tokio::test]
async fn the_labels_that_config_pbtxt_names_stand_in_classifications() {
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    put(
        &dir,
        "a/config.pbtxt",
        "output { name: \"y\" label_filename: \"labels.txt\" }",
    );
    put(&dir, "a/labels.txt", "daisy\nrose\n");
    let server = start(dir, &[]).await;
    let body = json!({
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 3] }],
        "outputs": [{ "name": "y", "parameters": { "classification": 1 } }],
    });
    let (_, answer) = server.post("/v2/models/a/infer", body.to_string()).await;
    let class = answer["outputs"][0]["data"][0].as_str().unwrap_or_default();
    assert!(class.ends_with(":1:rose"), "{answer}");
}
