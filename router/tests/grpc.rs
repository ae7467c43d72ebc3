//! gRPC through the router: calls, streams to and fro, trailers, refusals as statuses. The pods are tonic's own health
//! and reflection services.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use support::{Router, cats, nobody};
use tokio::sync::mpsc;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::HealthReporter,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

async fn pod() -> (SocketAddr, HealthReporter) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("cats", ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    (address, reporter)
}

async fn channel(router: &Router, authority: &str) -> Channel {
    let origin = format!("http://{authority}").parse().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", router.http))
        .unwrap()
        .origin(origin);
    endpoint.connect().await.unwrap()
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn calls_are_answered_and_their_status_comes_behind_them() {
    let (pod, _reporter) = pod().await;
    let router = Router::start(&cats(&[("cats-1", 100, &[pod])], ""), &[]);
    let client = HealthClient::new(channel(&router, "cats.demo").await);
    let calls = (0..200).map(|_| {
        let mut client = client.clone();
        async move {
            client
                .check(about("cats"))
                .await
                .unwrap()
                .into_inner()
                .status
        }
    });
    assert!(join_all(calls).await.iter().all(|status| *status == 1));
    let status = client.clone().check(about("dogs")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "as the pod said it");
    let of = |code: &str| {
        format!(
            r#"ortolan_router_requests_total{{namespace="demo",service="cats",revision="cats-1",protocol="grpc",code="{code}"}}"#
        )
    };
    router.wait_for_metric(&of("0"), 200.0).await;
    router.wait_for_metric(&of("5"), 1.0).await;
}

#[tokio::test]
async fn a_stream_of_answers_comes_as_it_is_sent() {
    let (pod, reporter) = pod().await;
    let router = Router::start(&cats(&[("cats-1", 100, &[pod])], "timeout: 300ms"), &[]);
    let mut client = HealthClient::new(channel(&router, "cats.demo.svc.cluster.local").await);
    let mut watch = client.watch(about("cats")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    for (status, seen) in [(ServingStatus::NotServing, 2), (ServingStatus::Serving, 1)] {
        // Longer than the service's timeout: a stream may pause.
        tokio::time::sleep(Duration::from_millis(500)).await;
        reporter.set_service_status("cats", status).await;
        let next = tokio::time::timeout(Duration::from_secs(5), watch.message())
            .await
            .expect("news");
        assert_eq!(next.unwrap().unwrap().status, seen);
    }
    let in_flight =
        r#"ortolan_router_in_flight{namespace="demo",service="cats",revision="cats-1"}"#;
    assert_eq!(router.metric(in_flight).await, 1.0);
    drop(watch);
    router.wait_for_metric(in_flight, 0.0).await;
}

#[tokio::test]
async fn requests_and_answers_stream_at_the_same_time() {
    let (pod, _reporter) = pod().await;
    let router = Router::start(
        &cats(&[("cats-1", 100, &[pod])], ""),
        &["--replay-bytes", "100"],
    );
    let mut client = ServerReflectionClient::new(channel(&router, "cats.demo").await);
    let (send, requests) = mpsc::channel(1);
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    send.send(list()).await.unwrap();
    let requests = futures::stream::unfold(requests, |mut requests| async move {
        Some((requests.recv().await?, requests))
    });
    let mut answers = client
        .server_reflection_info(Request::new(requests))
        .await
        .unwrap()
        .into_inner();
    for turn in 0..20 {
        let answer = answers.message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list_response)) = answer.message_response
        else {
            panic!("no list");
        };
        assert!(
            list_response
                .service
                .iter()
                .any(|one| one.name == "grpc.health.v1.Health"),
            "{turn}"
        );
        send.send(list()).await.unwrap();
    }
    drop(send);
    assert!(answers.message().await.unwrap().is_some());
    assert!(
        answers.message().await.unwrap().is_none(),
        "the end of the requests is the end of the answers"
    );
}

#[tokio::test]
async fn what_is_refused_is_a_status_with_a_sentence() {
    let router = Router::start(&cats(&[("cats-1", 100, &[])], "holdTimeout: 200ms"), &[]);
    let refused = async |authority: &'static str, path: &'static str| {
        let mut client = tonic::client::Grpc::new(channel(&router, authority).await);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status = client
            .unary(Request::new(about("x")), path, codec)
            .await
            .unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let infer = "/inference.GRPCInferenceService/ModelInfer";
    for (authority, path, code, words) in [
        ("cats", infer, Code::NotFound, "write cats.NAMESPACE"),
        (
            "dogs.demo",
            infer,
            Code::NotFound,
            "there is no service dogs in the namespace demo",
        ),
        (
            "cats.demo",
            infer,
            Code::Unavailable,
            "no pod of demo/cats could take the request within 0.2",
        ),
        (
            "cats.demo",
            "/inference.GRPCInferenceService/RepositoryModelLoad",
            Code::PermissionDenied,
            "change the InferenceService",
        ),
    ] {
        let (seen, message) = refused(authority, path).await;
        assert_eq!(seen, code, "{authority}{path}: {message}");
        assert!(message.contains(words), "{message}");
    }
    // At zero the service is there: it wakes.
    let mut health = HealthClient::new(channel(&router, "cats.demo").await);
    assert_eq!(
        health.check(about("")).await.unwrap().into_inner().status,
        1
    );
}

#[tokio::test]
async fn a_call_whose_pod_is_gone_goes_to_another_one() {
    let (good, _reporter) = pod().await;
    let router = Router::start(&cats(&[("cats-1", 100, &[good, nobody()])], ""), &[]);
    let client = HealthClient::new(channel(&router, "cats.demo").await);
    let calls = (0..100).map(|_| {
        let mut client = client.clone();
        async move {
            client
                .check(about("cats"))
                .await
                .map(|answer| answer.into_inner().status)
        }
    });
    for status in join_all(calls).await {
        assert_eq!(status.unwrap(), 1);
    }
}
