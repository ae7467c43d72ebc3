//! The router's edges: limits of heads and bodies, other protocols, and what it begins with.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use http::Request;
use support::{Client, Router, cats, one_pod, refused};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn heads_and_bodies_have_limits() {
    let (pod, router) = one_pod(
        "",
        &[
            "--header-timeout",
            "500ms",
            "--max-body-bytes",
            "1000",
            "--max-headers",
            "20",
        ],
    )
    .await;
    for half in [
        &b"GET /v2 HTTP/1.1\r\nhost: cats.demo\r\nx-half: "[..],
        b"",
        b"PRI * HTTP/2.0\r\n",
    ] {
        let mut stream = TcpStream::connect(router.http).await.unwrap();
        stream.write_all(half).await.unwrap();
        let begun = Instant::now();
        let mut answer = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        let _ = ended.expect("the router ends the connection");
        assert!(
            begun.elapsed() >= Duration::from_millis(300)
                && begun.elapsed() < Duration::from_secs(5)
        );
    }
    let mut many = Request::get("/v2");
    for n in 0..30 {
        many = many.header(format!("x-{n}"), "1");
    }
    assert_eq!(
        Client::new(router.http, "cats.demo")
            .send(many, "")
            .await
            .unwrap()
            .code,
        431
    );
    let long = Request::get("/v2").header("x-long", "x".repeat(100_000));
    assert_eq!(
        Client::new(router.http, "cats.demo")
            .send(long, "")
            .await
            .unwrap()
            .code,
        431
    );
    let large = router.post("cats.demo", "/v2", vec![b'x'; 1001]).await;
    assert_eq!(
        (large.code, large.error()),
        (413, "the body is larger than 1000 bytes".into())
    );
    // Nobody says how long it is, and it is too long.
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream
        .write_all(b"POST /v2 HTTP/1.1\r\nhost: cats.demo\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = format!("190\r\n{}\r\n", "x".repeat(0x190));
    for _ in 0..3 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(
        router.post("cats.demo", "/v2", vec![b'x'; 1000]).await.code,
        200
    );
    assert_eq!(pod.hits(), 1);
}

#[tokio::test]
async fn a_connection_that_goes_over_to_another_protocol_is_left_alone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
        assert!(
            head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
            "{head}"
        );
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let mut word = [0; 4];
        while stream.read_exact(&mut word).await.is_ok() {
            word.reverse();
            stream.write_all(&word).await.unwrap();
        }
    });
    let router = Router::start(&cats(&[("cats-1", 100, &[address])], ""), &[]);
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nhost: cats.demo\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("sec-websocket-accept: x")
            && head.contains("upgrade: websocket"),
        "{head}"
    );
    for (said, heard) in [(b"abcd", b"dcba"), (b"1234", b"4321")] {
        stream.write_all(said).await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, heard);
    }
    router
        .wait_for_metric(
            r#"ortolan_router_in_flight{namespace="demo",service="cats",revision="cats-1"}"#,
            1.0,
        )
        .await;
    drop(stream);
    router
        .wait_for_metric(
            r#"ortolan_router_in_flight{namespace="demo",service="cats",revision="cats-1"}"#,
            0.0,
        )
        .await;
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_refused_at_the_start_and_passed_over_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(
        &file,
        "services: {demo/cats: {revisions: [{name: x, weight: 900}]}}",
    )
    .unwrap();
    let (code, said) = refused(&["--state", file.to_str().unwrap()], &[]);
    assert_eq!(code, 20);
    assert!(
        said.contains("a weight is a whole number from 0 to 100, not 900"),
        "{said}"
    );
    let (code, said) = refused(&["--state", "/nowhere/state.yaml"], &[]);
    assert_eq!(
        (code, said.contains("/nowhere/state.yaml")),
        (20, true),
        "{said}"
    );
    assert_eq!(refused(&[], &[]).0, 2);

    let (_pod, router) = one_pod("", &["--access-log"]).await;
    let taken = router.http.to_string();
    std::fs::write(&file, "services: {}").unwrap();
    let (code, said) = refused(&["--state", file.to_str().unwrap()], &["--http", &taken]);
    assert_eq!(
        (code, said.contains("choose another with --http")),
        (23, true),
        "{said}"
    );
    router.spoil("services: {cats: {}}").await;
    assert_eq!(
        router.get("cats.demo", "/v2").await.code,
        200,
        "what it said before holds on"
    );
    support::eventually("the access log", || async {
        let log = router.log();
        log.contains("demo/cats") && log.contains("cats-1") && log.contains("path=\"/v2\"")
    })
    .await;
    let table = reqwest::get(format!("http://{}/table", router.admin))
        .await
        .unwrap();
    let table: serde_json::Value = table.json().await.unwrap();
    assert_eq!(
        table["services"]["demo/cats"]["revisions"][0]["name"],
        "cats-1"
    );
}
