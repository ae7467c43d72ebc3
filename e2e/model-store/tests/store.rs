//! The store over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use reqwest::{Client, StatusCode, header};

const FILE: &[u8] = b"0123456789abcdef";

async fn store() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    std::fs::write(folder.path().join("m/model.onnx"), FILE).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = ortolan_model_store::router(folder.path().into());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (folder, url)
}

async fn get(url: String) -> (StatusCode, Vec<u8>) {
    let response = reqwest::get(url).await.unwrap();
    (response.status(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_file_comes_whole_and_in_ranges() {
    let (_folder, url) = store().await;
    assert_eq!(
        get(format!("{url}/m/model.onnx")).await,
        (StatusCode::OK, FILE.to_vec())
    );
    let part = Client::new()
        .get(format!("{url}/m/model.onnx"))
        .header(header::RANGE, "bytes=10-")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), &FILE[10..]);
    assert_eq!(
        get(format!("{url}/m/none.onnx")).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(get(format!("{url}/healthz")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn no_path_leaves_the_folder() {
    let (_folder, url) = store().await;
    for path in [
        "/..%2f..%2fetc%2fpasswd",
        "/private/..%2f..%2f..%2fetc%2fpasswd",
        "/faults/truncated/..%2f..%2f..%2fetc%2fpasswd",
    ] {
        let response = Client::new()
            .get(format!("{url}{path}"))
            .header(header::AUTHORIZATION, "Bearer ortolan")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_private_file_needs_one_of_the_two_credentials() {
    let (_folder, url) = store().await;
    let private = format!("{url}/private/m/model.onnx");
    let refused = reqwest::get(&private).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(
        Client::new()
            .get(&private)
            .bearer_auth("wrong")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        Client::new()
            .get(&private)
            .bearer_auth("ortolan")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let basic = Client::new()
        .get(&private)
        .basic_auth("ortolan", Some("ortolan"))
        .send()
        .await
        .unwrap();
    assert_eq!(basic.bytes().await.unwrap(), FILE);
}

#[tokio::test]
async fn a_redirect_leads_to_the_file() {
    let (_folder, url) = store().await;
    assert_eq!(
        get(format!("{url}/redirect/m/model.onnx")).await,
        (StatusCode::OK, FILE.to_vec())
    );
}

#[tokio::test]
async fn the_faults_are_what_they_are_called() {
    let (_folder, url) = store().await;
    assert_eq!(
        get(format!("{url}/faults/status/503/m/model.onnx")).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(
        get(format!("{url}/faults/html/m/model.onnx"))
            .await
            .1
            .starts_with(b"<!DOCTYPE html>")
    );
    assert_eq!(
        get(format!("{url}/faults/truncated/m/model.onnx")).await,
        (StatusCode::OK, FILE[..8].to_vec())
    );
}

#[tokio::test]
async fn an_interrupted_download_can_be_resumed() {
    let (_folder, url) = store().await;
    let path = format!("{url}/faults/interrupted/m/model.onnx");
    let broken = reqwest::get(&path).await.unwrap();
    assert_eq!(broken.content_length(), Some(16));
    assert!(broken.bytes().await.is_err());
    let rest = Client::new()
        .get(&path)
        .header(header::RANGE, "bytes=8-")
        .send()
        .await
        .unwrap();
    assert_eq!(rest.bytes().await.unwrap(), &FILE[8..]);
}
