//! Models that clients load and unload, over REST and gRPC.

use super::*;

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
