//! Optimised graphs that are kept: the second start loads what the first one made, and whatever lies in the folder, the model serves.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use serde_json::{Value, json};
use support::{Server, onnx};
use tempfile::TempDir;

const ON: [&str; 2] = ["--optimized-graph-cache", "100000000"];

/// What the server says of its graph, and what it answers.
async fn served(
    model: &onnx::Model,
    cache: &Path,
    options: &[&str],
    body: &Value,
) -> (String, Value) {
    let cache = cache.display().to_string();
    let options = [&ON[..], &["--cache-dir", &cache], options].concat();
    let server = Server::start(model, &options).await;
    let (_, report) = server.get("/healthz/startup").await;
    let (code, answer) = server.infer(body).await;
    assert_eq!(code, 200, "{answer}");
    (
        report["optimizedGraph"].as_str().unwrap().to_owned(),
        answer["outputs"].clone(),
    )
}

fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache.join("graphs")) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn row(n: usize) -> Value {
    let data: Vec<f32> = (0..n).map(|i| i as f32 / 7.0).collect();
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, n], "data": data }] })
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn the_second_start_loads_what_the_first_one_made_and_answers_the_same() {
    let cache = folder();
    let model = onnx::slow(32, 3);
    let (first, answer) = served(&model, cache.path(), &["--sessions", "2"], &row(32)).await;
    assert_eq!((first.as_str(), kept(cache.path()).len()), ("written", 1));
    let (second, again) = served(&model, cache.path(), &["--sessions", "2"], &row(32)).await;
    assert_eq!((second.as_str(), again), ("used", answer));
    let (other, _) = served(&onnx::slow(32, 4), cache.path(), &[], &row(32)).await;
    assert_eq!(other, "written", "another model has a graph of its own");
    assert_eq!(kept(cache.path()).len(), 2);
}

#[tokio::test]
async fn an_input_that_may_be_left_out_may_be_left_out_of_a_kept_graph() {
    let cache = folder();
    let body =
        json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2] }] });
    let model = onnx::optional_offset();
    let (first, answer) = served(&model, cache.path(), &[], &body).await;
    let (second, again) = served(&model, cache.path(), &[], &body).await;
    assert_eq!((first.as_str(), second.as_str()), ("written", "used"));
    assert_eq!(again, answer);
}

#[tokio::test]
async fn a_broken_file_is_made_anew() {
    let cache = folder();
    let model = onnx::slow(16, 2);
    let (_, answer) = served(&model, cache.path(), &[], &row(16)).await;
    let path = kept(cache.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    for broken in [&whole[..whole.len() / 2], &flipped] {
        fs::write(&path, broken).unwrap();
        let (state, again) = served(&model, cache.path(), &[], &row(16)).await;
        assert_eq!((state.as_str(), &again), ("written", &answer));
    }
    let (state, again) = served(&model, cache.path(), &[], &row(16)).await;
    assert_eq!((state.as_str(), &again), ("used", &answer));
}

#[tokio::test]
async fn what_does_not_load_under_the_right_name_is_made_anew() {
    let cache = folder();
    let model = onnx::slow(16, 2);
    let (_, answer) = served(&model, cache.path(), &[], &row(16)).await;
    let path = kept(cache.path()).remove(0);
    // Whole by its name, and no graph that ONNX Runtime can load.
    let strange = onnx::custom_operator().encode_to_vec();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (key, _) = name.split_once('-').unwrap();
    let digest = blake3::hash(&strange).to_hex();
    fs::remove_file(&path).unwrap();
    fs::write(
        path.with_file_name(format!("{key}-{}.onnx", &digest[..32])),
        &strange,
    )
    .unwrap();
    let (state, again) = served(&model, cache.path(), &[], &row(16)).await;
    assert_eq!((state.as_str(), again), ("written", answer));
    assert_eq!(kept(cache.path()), [path]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_and_one_that_is_too_small_keep_nothing_and_serve() {
    let cache = folder();
    fs::write(cache.path().join("graphs"), "a file").unwrap();
    let (state, answer) = served(&onnx::slow(16, 2), cache.path(), &[], &row(16)).await;
    assert!(
        state.starts_with("none: the cache directory cannot be written"),
        "{state}"
    );
    let small = folder();
    let options = ["--optimized-graph-cache", "10"];
    let (state, again) = served(&onnx::slow(16, 2), small.path(), &options, &row(16)).await;
    assert!(state.starts_with("none: "), "{state}");
    assert_eq!((again, kept(small.path()).len()), (answer, 0));
}

#[tokio::test]
async fn a_model_with_external_data_is_loaded_from_its_own_files() {
    let dir = folder();
    let (model, data) = onnx::external(3.0, 4);
    let path = dir.path().join("model.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    fs::write(dir.path().join("weights.bin"), data).unwrap();
    let server = Server::start_in(dir, &path, &ON).await;
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(
        report["optimizedGraph"],
        "none: the model has external data"
    );
}

#[tokio::test]
async fn nothing_is_kept_unless_it_was_asked_for() {
    let cache = folder();
    let options = ["--cache-dir", &cache.path().display().to_string()];
    let server = Server::start(&onnx::slow(16, 2), &options).await;
    let (_, report) = server.get("/healthz/startup").await;
    assert_eq!(report.get("optimizedGraph"), None);
    assert_eq!(kept(cache.path()).len(), 0);
}
