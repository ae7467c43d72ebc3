//! Pods that have no place, in the words of ortolan-server over `--max-concurrency`: another pod gets the request, and
//! where none has a place the client reads the pod's own sentence.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{Pod, Router, cats};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::{
    Status, metadata::MetadataMap, service::interceptor::InterceptedService,
    transport::server::TcpIncoming,
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

const SENTENCE: &str = "1 requests are under way, as many as --max-concurrency lets in; try again";

/// Answers as ortolan-server does: from the head alone, while the body comes, whose rest it reads and throws away.
async fn crowded() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let body = format!(r#"{{"error":"{SENTENCE}"}}"#);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 0\r\n\
         x-request-id: 0f3b\r\ncontent-length: {}\r\ndate: Mon, 23 Nov 2026 01:00:00 GMT\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (hits, answer) = (Arc::clone(&counted), answer.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                hits.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = vec![0; 1 << 16];
                while stream.read(&mut rest).await.is_ok_and(|more| more > 0) {}
            });
        }
    });
    (address, hits)
}

/// Uploads a photograph little by little, and reads nothing before it is sent.
async fn upload(router: &Router, bytes: usize) -> String {
    let mut client = TcpStream::connect(router.http).await.unwrap();
    let head = format!(
        "POST /predict/cats HTTP/1.1\r\nhost: cats.demo\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    for part in vec![b'x'; bytes].chunks(bytes / 20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.write_all(part).await.unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

const BUSY: &str = r#"ortolan_router_retries_total{namespace="demo",service="cats",reason="busy"}"#;

#[tokio::test]
async fn a_photograph_that_a_full_pod_turns_away_in_mid_upload_goes_whole_to_another_pod() {
    let (full, hits) = crowded().await;
    let good = Pod::start("good").await;
    let router = Router::start(&cats(&[("cats-1", 100, &[full, good.address])], ""), &[]);
    for _ in 0..10 {
        let answer = upload(&router, 400_000).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#""bytes":400000"#), "{answer}");
    }
    let turned_away = hits.load(Ordering::SeqCst);
    assert!(turned_away > 0, "ten requests, and none met the full pod");
    assert_eq!(router.metric(BUSY).await, turned_away as f64);
    assert_eq!(good.hits(), 10);
}

#[tokio::test]
async fn where_no_pod_has_a_place_the_client_reads_why_whether_its_body_was_kept_or_not() {
    let (full, hits) = crowded().await;
    // A body of which no more is kept may be sent again as long as little of it has come.
    for (bytes, tries) in [(400_000, 3..=3), (4_000_000, 1..=3)] {
        hits.store(0, Ordering::SeqCst);
        let router = Router::start(&cats(&[("cats-1", 100, &[full])], "retries: 2"), &[]);
        let answer = upload(&router, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(SENTENCE), "{answer}");
        assert!(answer.to_lowercase().contains("retry-after: 0"), "{answer}");
        let tried = hits.load(Ordering::SeqCst);
        assert!(tries.contains(&tried), "{tried}");
    }
}

/// A pod of gRPC, which has a place or says as ortolan-server does that it has none.
async fn grpc(is_full: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("cats", ServingStatus::Serving)
        .await;
    let health = InterceptedService::new(health, move |request| {
        if !is_full {
            return Ok(request);
        }
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-retry-pushback-ms", "0".parse().unwrap());
        let code = tonic::Code::ResourceExhausted;
        Err(Status::with_metadata(code, SENTENCE, metadata))
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    address
}

#[tokio::test]
async fn a_call_that_a_full_pod_turns_away_goes_to_another_pod() {
    let (full, good) = (grpc(true).await, grpc(false).await);
    let router = Router::start(&cats(&[("cats-1", 100, &[full, good])], ""), &[]);
    let origin = "http://cats.demo".parse().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.http));
    let channel = endpoint.unwrap().origin(origin).connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let about = || HealthCheckRequest {
        service: "cats".into(),
    };
    for _ in 0..20 {
        let answer = client.check(about()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    assert!(
        router.metric(BUSY).await > 0.0,
        "twenty calls, and none met the full pod"
    );
    router
        .change(&cats(&[("cats-1", 100, &[full])], "retries: 1"))
        .await;
    let status = client.check(about()).await.unwrap_err();
    assert_eq!(status.message(), SENTENCE, "in the end as the pod said it");
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "0"
    );
}
