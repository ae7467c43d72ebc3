//! gRPC with a real client: every call, every datatype raw and typed, codes, limits, streams, drain.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use ortolan_server::grpc::proto::{
    self, InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    model_infer_request::InferRequestedOutputTensor,
};
use prost::Message;
use support::{
    Server,
    grpc::{floats, raw, tensor},
    onnx,
};
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

type Client = GrpcInferenceServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    connect(&server.base).await
}

async fn connect(base: &str) -> Client {
    let endpoint = Endpoint::from_shared(base.to_owned()).unwrap();
    Client::new(endpoint.connect().await.unwrap())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

fn parameter(name: &str, choice: ParameterChoice) -> HashMap<String, InferParameter> {
    let parameter = InferParameter {
        parameter_choice: Some(choice),
    };
    HashMap::from([(name.to_owned(), parameter)])
}

async fn infer(
    client: &mut Client,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Status> {
    client
        .model_infer(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn every_bit_of_every_datatype_comes_back_raw() {
    for (datatype, element) in onnx::DATATYPES {
        let server = Server::start(&onnx::identity(element, &[-1, 2]), &["--sessions", "1"]).await;
        let mut client = client(&server).await;
        let bytes: Vec<u8> = match datatype {
            "BOOL" => vec![1, 0, 0, 1],
            "BYTES" => b"\0\0\0\0\x01\0\0\0[\x04\0\0\0\xf0\x9f\xa6\x9c\x02\0\0\0\"\\".to_vec(),
            "UINT8" | "INT8" => vec![0, 127, 128, 255],
            "UINT16" | "INT16" | "FP16" | "BF16" => vec![255; 8],
            "UINT32" | "INT32" | "FP32" => (0..16).map(|i| i * 17).collect(),
            _ => (0..32).map(|i| 255 - i).collect(),
        };
        let mut request = raw(datatype, &[2, 2], bytes.clone());
        request.id = "7".into();
        let response = infer(&mut client, request).await.unwrap();
        assert_eq!(
            response.raw_output_contents,
            [Bytes::from(bytes)],
            "{datatype}"
        );
        assert_eq!(
            (response.id.as_str(), response.model_version.as_str()),
            ("7", "1")
        );
        let output = &response.outputs[0];
        assert_eq!(
            (output.name.as_str(), output.datatype.as_str()),
            ("y", datatype)
        );
        assert_eq!(output.shape, [2, 2]);
        assert!(output.contents.is_none());
        let empty = infer(&mut client, raw(datatype, &[0, 2], Bytes::new()))
            .await
            .unwrap();
        assert_eq!(
            empty.raw_output_contents,
            [Bytes::new()],
            "{datatype} without elements"
        );
    }
}

#[tokio::test]
async fn typed_contents_are_answered_with_typed_contents() {
    let ints = |int_contents: Vec<i32>| InferTensorContents {
        int_contents,
        ..InferTensorContents::default()
    };
    let uints = |uint_contents: Vec<u32>| InferTensorContents {
        uint_contents,
        ..InferTensorContents::default()
    };
    let default = InferTensorContents::default;
    let bool_contents = vec![true, false];
    let fp32_contents = vec![0.1, f32::NEG_INFINITY];
    let bytes_contents = vec![Bytes::from_static(b""), Bytes::from("ü".as_bytes())];
    let table = [
        (
            "BOOL",
            9,
            InferTensorContents {
                bool_contents,
                ..default()
            },
        ),
        ("INT8", 3, ints(vec![-128, 127])),
        ("INT16", 5, ints(vec![-32768, 32767])),
        ("INT32", 6, ints(vec![i32::MIN, i32::MAX])),
        (
            "INT64",
            7,
            InferTensorContents {
                int64_contents: vec![i64::MIN, i64::MAX],
                ..default()
            },
        ),
        ("UINT8", 2, uints(vec![0, 255])),
        ("UINT16", 4, uints(vec![0, 65535])),
        ("UINT32", 12, uints(vec![0, u32::MAX])),
        (
            "UINT64",
            13,
            InferTensorContents {
                uint64_contents: vec![0, u64::MAX],
                ..default()
            },
        ),
        (
            "FP32",
            1,
            InferTensorContents {
                fp32_contents,
                ..default()
            },
        ),
        (
            "FP64",
            11,
            InferTensorContents {
                fp64_contents: vec![0.1, f64::MAX],
                ..default()
            },
        ),
        (
            "BYTES",
            8,
            InferTensorContents {
                bytes_contents,
                ..default()
            },
        ),
    ];
    for (datatype, element, contents) in table {
        let server = Server::start(&onnx::identity(element, &[2]), &["--sessions", "1"]).await;
        let mut client = client(&server).await;
        let mut request = ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![tensor("x", datatype, &[2])],
            ..ModelInferRequest::default()
        };
        request.inputs[0].contents = Some(contents.clone());
        let response = infer(&mut client, request.clone()).await.unwrap();
        assert_eq!(response.outputs[0].contents, Some(contents), "{datatype}");
        assert!(response.raw_output_contents.is_empty());
        // Whoever wants bytes says so.
        request.parameters = parameter("binary_data_output", ParameterChoice::BoolParam(true));
        let response = infer(&mut client, request).await.unwrap();
        assert_eq!(response.raw_output_contents.len(), 1, "{datatype}");
        assert!(response.outputs[0].contents.is_none());
    }
}

#[tokio::test]
async fn errors_have_grpcs_codes_and_our_sentences() {
    let server = Server::start(
        &onnx::sum_and_difference(),
        &["--max-body-bytes", "1000000"],
    )
    .await;
    let mut client = client(&server).await;
    let good = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![tensor("a", "FP32", &[1, 2]), tensor("b", "FP32", &[1, 2])],
        raw_input_contents: vec![floats(&[5.0, 7.0]).into(), floats(&[1.0, 1.0]).into()],
        ..ModelInferRequest::default()
    };
    let response = infer(&mut client, good.clone()).await.unwrap();
    assert_eq!(response.raw_output_contents[0], floats(&[6.0, 8.0]));
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let output = |name: &str| InferRequestedOutputTensor {
        name: name.into(),
        ..InferRequestedOutputTensor::default()
    };
    let cases = [
        (
            with(&|r| r.model_name = "n".into()),
            Code::NotFound,
            "no model \"n\"",
        ),
        (
            with(&|r| r.model_version = "9".into()),
            Code::NotFound,
            "no version \"9\"",
        ),
        (
            with(&|r| r.inputs[0].name = "c".into()),
            Code::InvalidArgument,
            "no input \"c\"",
        ),
        (
            with(&|r| r.inputs[0].datatype = "INT64".into()),
            Code::InvalidArgument,
            "expected FP32",
        ),
        (
            with(&|r| r.inputs[0].shape = vec![1, 3]),
            Code::InvalidArgument,
            "[-1,2]",
        ),
        (
            with(&|r| r.outputs = vec![output("z")]),
            Code::InvalidArgument,
            "no output \"z\"",
        ),
        (
            with(&|r| r.raw_input_contents.truncate(1)),
            Code::InvalidArgument,
            "1 raw_input_contents for 2",
        ),
        (
            with(&|r| r.parameters = parameter("sequence_id", ParameterChoice::Int64Param(3))),
            Code::InvalidArgument,
            "keeps no state",
        ),
        (
            with(&|r| r.raw_input_contents[0] = vec![0; 2_000_000].into()),
            Code::ResourceExhausted,
            "--max-body-bytes",
        ),
    ];
    for (request, code, part) in cases {
        let status = infer(&mut client, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{part}: {status}");
    }
    // An answer for the next one: the connection lives on.
    let chosen = with(&|r| r.outputs = vec![output("difference")]);
    let response = infer(&mut client, chosen).await.unwrap();
    assert_eq!(response.outputs.len(), 1);
    assert_eq!(response.raw_output_contents[0], floats(&[4.0, 6.0]));
}

#[tokio::test]
async fn what_is_no_message_is_invalid_and_what_is_no_call_unimplemented() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &[]).await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    for (call, body, status) in [
        ("ModelInfer", &b"\0\0\0\0\x03\xff\xff\xff"[..], "3"),
        ("NoSuchCall", b"\0\0\0\0\0", "12"),
    ] {
        let response = client
            .post(server.url(&format!("/inference.GRPCInferenceService/{call}")))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-request-id", "mine")
            .body(body.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], status, "{call}");
        assert_eq!(response.headers()["x-request-id"], "mine");
    }
    // The same connection and port answer REST over HTTP/2, and unknown paths with 404.
    let response = client
        .get(server.url("/v2/health/live"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, reqwest::Version::HTTP_2)
    );
    let response = client
        .get(server.url("/inference.GRPCInferenceService/ModelInfer"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1, 3]), &["--sessions", "2"]).await;
    let mut client = client(&server).await;
    let live = client
        .server_live(proto::ServerLiveRequest {})
        .await
        .unwrap();
    let ready = client
        .server_ready(proto::ServerReadyRequest {})
        .await
        .unwrap();
    assert!(live.into_inner().live && ready.into_inner().ready);
    let about = client
        .server_metadata(proto::ServerMetadataRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(about.name, "ortolan");
    assert!(about.extensions.contains(&"statistics".to_owned()));
    let model = |name: &str| proto::ModelReadyRequest {
        name: name.into(),
        version: String::new(),
    };
    assert!(
        client
            .model_ready(model("m"))
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let status = client.model_ready(model("n")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let request = proto::ModelMetadataRequest {
        name: "m".into(),
        version: "1".into(),
    };
    let metadata = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!(
        (metadata.platform.as_str(), &metadata.versions[..]),
        ("onnxruntime_onnx", &["1".to_owned()][..])
    );
    assert_eq!(metadata.inputs[0].shape, [-1, 3]);
    let request = proto::ModelConfigRequest {
        name: "m".into(),
        version: String::new(),
    };
    let config = client
        .model_config(request)
        .await
        .unwrap()
        .into_inner()
        .config
        .unwrap();
    assert_eq!(config.input[0].dims, [3]);
    assert_eq!(config.input[0].data_type(), proto::DataType::TypeFp32);
    assert_eq!(config.instance_group[0].count, 2);
    infer(&mut client, raw("FP32", &[1, 3], floats(&[1.0; 3])))
        .await
        .unwrap();
    infer(&mut client, raw("FP32", &[1, 2], floats(&[1.0; 2])))
        .await
        .unwrap_err();
    for name in ["m", ""] {
        let request = proto::ModelStatisticsRequest {
            name: name.into(),
            version: String::new(),
        };
        let stats = client
            .model_statistics(request)
            .await
            .unwrap()
            .into_inner()
            .model_stats;
        let counted = stats[0].inference_stats.unwrap();
        assert_eq!(counted.success.unwrap().count, 1);
        assert_eq!(counted.fail.unwrap().count, 1);
    }
    let index = client
        .repository_index(proto::RepositoryIndexRequest::default())
        .await
        .unwrap();
    let models = index.into_inner().models;
    assert_eq!(
        (models[0].name.as_str(), models[0].state.as_str()),
        ("m", "READY")
    );
    let (_, metrics) = server.get("/metrics").await;
    let line = r#"ortolan_requests_total{model="m",version="1",protocol="grpc",code="0"} 1"#;
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
}

#[tokio::test]
async fn health_and_reflection_are_answered() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &[]).await;
    let channel = Endpoint::from_shared(server.base.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel.clone());
    let ask = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    for service in ["", "m", "inference.GRPCInferenceService"] {
        let answer = health.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(
        health.check(ask("n")).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut watched = health.watch(ask("n")).await.unwrap().into_inner();
    let first = watched.next().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_stream_answers_each_request_in_order_and_outlives_errors() {
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &["--sessions", "2"]).await;
    let mut client = client(&server).await;
    let requests = (0..200).map(|i| {
        let mut request = raw("FP32", &[1], floats(&[i as f32]));
        request.id = i.to_string();
        if i % 10 == 3 {
            request.inputs[0].name = "nothing".into();
        }
        request
    });
    let requests: Vec<_> = requests.collect();
    let answers = client
        .model_stream_infer(stream::iter(requests))
        .await
        .unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    assert_eq!(answers.len(), 200);
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, i.to_string());
        if i % 10 == 3 {
            assert!(
                answer.error_message.contains("no input \"nothing\""),
                "{}",
                answer.error_message
            );
        } else {
            assert_eq!(answer.error_message, "");
            assert_eq!(response.raw_output_contents[0], floats(&[i as f32]));
        }
    }
}

#[tokio::test]
async fn large_messages_go_both_ways_packed_or_not() {
    let count = 17 << 20;
    let server = Server::start(
        &onnx::identity(onnx::FLOAT, &[-1]),
        &["--sessions", "1", "--max-body-bytes", "100000000"],
    )
    .await;
    let bytes: Bytes = floats(&vec![0.5; count]).into();
    assert!(bytes.len() > 64 << 20);
    let mut plain = client(&server).await;
    let response = infer(&mut plain, raw("FP32", &[count as i64], bytes.clone()))
        .await
        .unwrap();
    assert!(response.raw_output_contents[0] == bytes, "the same bytes");
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut packing = client(&server)
            .await
            .send_compressed(encoding)
            .accept_compressed(encoding);
        let small = bytes.slice(..4 << 10);
        let request = raw("FP32", &[1 << 10], small.clone());
        let response = packing.model_infer(request).await.unwrap();
        assert!(
            response.metadata().contains_key("grpc-encoding"),
            "{encoding:?}"
        );
        assert_eq!(response.into_inner().raw_output_contents[0], small);
        // A bomb: within the limit while it is packed.
        let zeros = raw("FP32", &[50 << 20], vec![0; 200 << 20]);
        let status = packing.model_infer(zeros).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    let mut accepting = plain.accept_compressed(CompressionEncoding::Gzip);
    let response = accepting
        .model_infer(raw("FP32", &[2], floats(&[1.0, 2.0])))
        .await
        .unwrap();
    assert!(
        !response.metadata().contains_key("grpc-encoding"),
        "asked plain, answered plain"
    );
}

#[tokio::test]
async fn deadlines_and_full_queues_have_codes_of_their_own() {
    let server = Server::start(&onnx::slow(512, 600), &["--sessions", "1", "--queue", "4"]).await;
    let client = client(&server).await;
    let request = || raw("FP32", &[1, 512], floats(&[1.0; 512]));
    // A first one keeps the session busy.
    let mut first = client.clone();
    let busy = tokio::spawn(async move { first.model_infer(request()).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // tonic's own client does not wait for the server's word, so that this one is asked by hand.
    let message = request();
    let mut body = vec![0];
    body.extend((message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut body).unwrap();
    let response = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap()
        .post(server.url("/inference.GRPCInferenceService/ModelInfer"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "1m")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
    let mut hurried = client.clone();
    let mut late = request();
    late.parameters = parameter("timeout", ParameterChoice::Int64Param(500));
    let status = hurried.model_infer(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let crowd = (0..12).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(request()).await }
    });
    let mut rejected = 0;
    for answer in futures::future::join_all(crowd).await {
        let Err(status) = answer else { continue };
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            "1000"
        );
        rejected += 1;
    }
    assert!(rejected > 0);
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_of_its_own_answers_grpc_and_nothing_else() {
    let port = support::free_port();
    let address = format!("127.0.0.1:{port}");
    let server = Server::start(&onnx::identity(onnx::FLOAT, &[-1]), &["--grpc", &address]).await;
    let mut client = connect(&format!("http://{address}")).await;
    infer(&mut client, raw("FP32", &[1], floats(&[1.0])))
        .await
        .unwrap();
    let response = reqwest::get(format!("http://{address}/v2")).await.unwrap();
    assert_eq!(response.status(), 415);
    assert_eq!(server.get("/v2").await.0, 200);
}

/// A call that the client had not sent when GOAWAY came, or that GOAWAY named as not taken (its stream is above the last
/// one: RFC 9113, 6.8), ends in the client alone. gRPC's own libraries send such a call on the next connection by
/// themselves (transparent retry); tonic leaves it to its user. That the server took none of them is shown by its log.
fn was_not_taken(status: &Status) -> bool {
    let goaway = status.code() == Code::Unknown
        && format!("{status:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
    goaway || (status.code() == Code::Cancelled && status.message() == "operation was canceled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_loses_no_call() {
    let mut server = Server::start(
        &onnx::slow(128, 20),
        &["--sessions", "2", "--drain-delay", "1500ms", "--access-log"],
    )
    .await;
    let answered = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let base = server.base.clone();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (base, answered, stop) = (base.clone(), Arc::clone(&answered), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut client = connect(&base).await;
                while !stop.load(Ordering::Relaxed) {
                    let request = raw("FP32", &[1, 128], floats(&[1.0; 128]));
                    match client.model_infer(request).await {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(status) if was_not_taken(&status) => continue,
                        Err(status) => {
                            panic!("a call was lost while the server drains: {status:?}")
                        }
                    };
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal("TERM");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Clients move away within the delay, as they do when the pod leaves the Service.
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let status = server.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let log = server.log();
    let path = "path=\"/inference.GRPCInferenceService/ModelInfer\"";
    let taken = log.lines().filter(|line| line.contains(path));
    let answered = answered.load(Ordering::Relaxed);
    assert_eq!(
        taken.count(),
        answered,
        "every call that was taken is answered: {log}"
    );
    assert!(answered > 50);
}

#[tokio::test]
async fn calls_that_run_are_finished_after_the_port_is_closed() {
    // Alone, one after the other: all five are still there when the last one has come.
    let options = ["--sessions", "1", "--max-batch", "1"];
    let mut server = Server::start(&onnx::slow_loop(512, 10_000), &options).await;
    let client = client(&server).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let mut client = client.clone();
            let request = raw("FP32", &[1, 512], floats(&[1.0; 512]));
            tokio::spawn(async move { client.model_infer(request).await })
        })
        .collect();
    support::wait_for_metric(&server, "ortolan_in_flight{model=\"m\",version=\"1\"} 5").await;
    server.signal("TERM");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.ended(Duration::from_secs(10)).await.code(), Some(0));
}
