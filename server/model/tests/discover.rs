//! Is it one model or a repository? From directories and archives, as the server asks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use ortolan_model::{Found, Phase, Progress, Reason, Request, Shape, discover};

struct Silent;

impl Progress for Silent {
    fn phase(&self, _: Phase) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
}

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join("models").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = if file.ends_with(".pbtxt") { "" } else { file };
        fs::write(path, content).unwrap();
    }
    dir
}

fn request(dir: &Path, uri: &str, shape: Shape) -> Request {
    let mut request = Request::new(
        dir.join(uri).to_str().unwrap().parse().unwrap(),
        dir.join("cache"),
    );
    request.shape = shape;
    request
}

fn pack(dir: &Path) {
    let status = Command::new("tar")
        .args(["czf", "models.tar.gz", "models"])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_directory_and_an_archive_of_it_are_the_same_repository() {
    let dir = tree(&["a/1/model.onnx", "a/config.pbtxt", "b/2/model.onnx"]);
    pack(dir.path());
    let mut opened = Vec::new();
    for uri in ["models", "models.tar.gz"] {
        let found = discover(&request(dir.path(), uri, Shape::Auto), &Silent)
            .await
            .unwrap();
        let Found::Repository {
            repository,
            digest,
            is_in_place,
            ..
        } = found
        else {
            panic!("{uri} is a repository")
        };
        assert!(digest.is_some());
        assert_eq!(is_in_place, uri == "models");
        let names: Vec<String> = repository.look().unwrap().models.into_keys().collect();
        assert_eq!(names, ["a", "b"]);
        let seen = repository.mark("b", 2).unwrap();
        opened.push(repository.open("b", 2, &seen).unwrap().digest);
    }
    assert_eq!(opened[0], opened[1], "packing changes no version's digest");
}

#[tokio::test]
async fn the_digest_of_a_whole_repository_is_checked() {
    let dir = tree(&["a/1/model.onnx", "b/1/model.onnx"]);
    let mut request = request(dir.path(), "models", Shape::Auto);
    request.is_live = true;
    let Found::Repository { digest: None, .. } = discover(&request, &Silent).await.unwrap() else {
        panic!("what may change has no digest")
    };
    request.expected_digest = Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap());
    let failure = discover(&request, &Silent).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DigestMismatch);
}

#[tokio::test]
async fn one_model_under_its_version_is_one_model_unless_a_repository_is_meant() {
    let dir = tree(&["iris/1/model.onnx"]);
    for (shape, is_repository) in [
        (Shape::Auto, false),
        (Shape::Single, false),
        (Shape::Repository, true),
    ] {
        let found = discover(&request(dir.path(), "models", shape), &Silent)
            .await
            .unwrap();
        assert_eq!(
            matches!(found, Found::Repository { .. }),
            is_repository,
            "{shape:?}"
        );
    }
}

#[tokio::test]
async fn tritons_configuration_beside_a_single_model_is_read() {
    let dir = tree(&["model.onnx"]);
    fs::write(
        dir.path().join("models/config.pbtxt"),
        "max_batch_size: 4 metric_tags { key: \"a\" value: \"b\" }",
    )
    .unwrap();
    let found = discover(&request(dir.path(), "models", Shape::Auto), &Silent)
        .await
        .unwrap();
    let Found::Model(package) = found else {
        panic!("one model")
    };
    assert_eq!(package.settings.batching.max, Some(4));
    assert_eq!(package.notes, ["metric_tags (line 1) is not used here"]);
}

#[tokio::test]
async fn several_models_without_their_layout_are_refused_as_before() {
    let dir = tree(&["a.onnx", "b.onnx"]);
    let failure = discover(&request(dir.path(), "models", Shape::Auto), &Silent)
        .await
        .unwrap_err();
    assert!(failure.message.contains("holds 2 models"), "{failure}");
}
