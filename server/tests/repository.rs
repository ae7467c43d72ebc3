//! Several models in one server: what is served, loaded, unloaded, refused, and under which name.

#![allow(missing_docs, clippy::unwrap_used)]

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
async fn explicit_mode_loads_and_unloads_what_clients_name() {
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    put_model(&dir, "b/1/model.onnx", &scaled(3.0));
    put(&dir, "bad/1/model.onnx", "<html>");
    let options = [
        "--model-control",
        "explicit",
        "--load-model",
        "a",
        "--management-api",
    ];
    let server = start(dir, &options).await;
    assert_eq!(ask(&server, "a").await, Ok(2.0));
    assert_eq!(ask(&server, "b").await.unwrap_err().0, 404);
    let entry = |name: &str, state: &str, reason: &str| {
        (
            name.to_owned(),
            "1".to_owned(),
            state.to_owned(),
            reason.to_owned(),
        )
    };
    assert_eq!(
        index(&server).await,
        [
            entry("a", "READY", ""),
            entry("b", "UNAVAILABLE", "unloaded"),
            entry("bad", "UNAVAILABLE", "unloaded")
        ]
    );
    assert_eq!(change(&server, "b", "load").await, (200, String::new()));
    assert_eq!(ask(&server, "b").await, Ok(3.0));
    assert_eq!(change(&server, "b", "unload").await, (200, String::new()));
    assert_eq!(
        change(&server, "b", "unload").await,
        (200, String::new()),
        "it is unloaded already"
    );
    assert_eq!(ask(&server, "b").await.unwrap_err().0, 404);
    let (_, metrics) = server.get("/metrics").await;
    assert!(
        !metrics.as_str().unwrap().contains("model=\"b\""),
        "its series went with it"
    );
    let (code, sentence) = change(&server, "none", "load").await;
    assert_eq!(
        (code, sentence.as_str()),
        (404, "the repository holds no model \"none\"")
    );
    assert_eq!(change(&server, "..%2Frepo", "load").await.0, 404);
    let (code, sentence) = change(&server, "bad", "load").await;
    assert!(
        code == 400 && sentence.contains("web page"),
        "{code} {sentence}"
    );
    let body = json!({ "parameters": { "config": "{}" } }).to_string();
    let (code, body) = server.post("/v2/repository/models/a/load", body).await;
    assert!(
        code == 400
            && body["error"]
                .as_str()
                .unwrap()
                .contains("\"config\" is not read")
    );
    let unload = json!({ "parameters": { "unload_dependents": false } }).to_string();
    assert_eq!(
        server
            .post("/v2/repository/models/a/unload", unload)
            .await
            .0,
        200
    );
    assert_eq!(
        server.get("/v2/health/ready").await.0,
        200,
        "an empty server is a ready server"
    );
}

#[tokio::test]
async fn a_load_takes_up_what_changed_and_keeps_what_served_when_that_is_broken() {
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    let root = dir.path().join("repo");
    let options = [
        "--model-control",
        "explicit",
        "--load-model",
        "*",
        "--management-api",
    ];
    let server = start(dir, &options).await;
    fs::write(root.join("a/1/model.onnx"), scaled(4.0).encode_to_vec()).unwrap();
    assert_eq!(ask(&server, "a").await, Ok(2.0), "not before it is told");
    assert_eq!(change(&server, "a", "load").await.0, 200);
    assert_eq!(ask(&server, "a").await, Ok(4.0));
    fs::write(
        root.join("a/1/model.onnx"),
        &scaled(5.0).encode_to_vec()[..30],
    )
    .unwrap();
    let (code, sentence) = change(&server, "a", "load").await;
    assert!(code == 400 && sentence.contains("truncated"), "{sentence}");
    assert_eq!(ask(&server, "a").await, Ok(4.0));
    let (_, _, state, reason) = index(&server).await.remove(0);
    assert!(
        state == "READY" && reason.contains("the last reload failed: InvalidModel"),
        "{reason}"
    );
}

#[tokio::test]
async fn management_is_off_unless_it_was_switched_on_and_only_explicit_mode_has_it() {
    let cases: [(&[&str], u16, &str); 3] = [
        (
            &["--model-control", "explicit", "--load-model", "*"],
            403,
            "--management-api",
        ),
        (
            &["--management-api", "--repository", "always"],
            409,
            "--model-control explicit",
        ),
        (
            &["--management-api", "--model-control", "poll"],
            409,
            "follows it by itself",
        ),
    ];
    for (options, code, words) in cases {
        let dir = repository();
        put_model(&dir, "a/1/model.onnx", &scaled(2.0));
        let server = start(dir, options).await;
        for verb in ["load", "unload"] {
            let (got, sentence) = change(&server, "a", verb).await;
            assert!(got == code && sentence.contains(words), "{got} {sentence}");
        }
        assert_eq!(ask(&server, "a").await, Ok(2.0));
    }
    let one = Server::start(&scaled(2.0), &["--management-api"]).await;
    let (code, sentence) = change(&one, "m", "unload").await;
    assert!(
        code == 409 && sentence.contains("this server loads one model"),
        "{sentence}"
    );
    assert_eq!(
        index(&one).await,
        [("m".into(), "1".into(), "READY".into(), String::new())]
    );
}

#[tokio::test]
async fn requests_that_a_model_has_when_it_is_unloaded_are_answered() {
    let dir = repository();
    put_model(&dir, "slow/1/model.onnx", &onnx::slow(512, 1500));
    let options = [
        "--model-control",
        "explicit",
        "--load-model",
        "slow",
        "--management-api",
        "--sessions",
        "1",
    ];
    let server = std::sync::Arc::new(start(dir, &options).await);
    let rows = 8;
    let body = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [rows, 512], "data": vec![1.0; rows * 512] }] });
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let (server, body) = (std::sync::Arc::clone(&server), body.to_string());
            tokio::spawn(async move { server.post("/v2/models/slow/infer", body).await.0 })
        })
        .collect();
    // Some run, some wait, none may be lost; all must have been let in.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, metrics) = server.get("/metrics").await;
        let depth = metrics
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("ortolan_in_flight{model=\"slow\",version=\"1\"} "))
            .and_then(|n| n.parse::<u32>().ok());
        if depth == Some(8) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "eight requests are never in flight: make the model slower"
        );
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(change(&server, "slow", "unload").await.0, 200);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
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

#[tokio::test]
async fn grpc_lists_loads_and_unloads_by_the_same_rules() {
    use ortolan_server::grpc::proto::{
        RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
    };
    use tonic::{
        Code,
        transport::{Channel, Endpoint},
    };
    async fn connect(base: &str) -> GrpcInferenceServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(base.to_owned()).unwrap();
        GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap())
    }
    let load = |name: &str| RepositoryModelLoadRequest {
        model_name: name.to_owned(),
        ..RepositoryModelLoadRequest::default()
    };
    let unload = |name: &str| RepositoryModelUnloadRequest {
        model_name: name.to_owned(),
        ..RepositoryModelUnloadRequest::default()
    };
    let dir = repository();
    put_model(&dir, "a/1/model.onnx", &scaled(2.0));
    put(&dir, "bad/1/model.onnx", "<html>");
    let options = ["--model-control", "explicit", "--management-api"];
    let server = start(dir, &options).await;
    let mut client = connect(&server.base).await;
    client.repository_model_load(load("a")).await.unwrap();
    assert_eq!(ask(&server, "a").await, Ok(2.0));
    let index = client
        .repository_index(RepositoryIndexRequest::default())
        .await
        .unwrap();
    let states: Vec<_> = index
        .into_inner()
        .models
        .into_iter()
        .map(|model| (model.name, model.state))
        .collect();
    assert_eq!(
        states,
        [
            ("a".to_owned(), "READY".to_owned()),
            ("bad".to_owned(), "UNAVAILABLE".to_owned())
        ]
    );
    client.repository_model_unload(unload("a")).await.unwrap();
    assert_eq!(ask(&server, "a").await.unwrap_err().0, 404);
    for (name, code) in [("bad", Code::InvalidArgument), ("none", Code::NotFound)] {
        assert_eq!(
            client
                .repository_model_load(load(name))
                .await
                .unwrap_err()
                .code(),
            code,
            "{name}"
        );
    }
    let one = Server::start(&scaled(2.0), &[]).await;
    let mut client = connect(&one.base).await;
    let status = client
        .repository_model_unload(unload("m"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}
