//! What a user does first, as the documentation says it.

use ortolan_e2e::{Test, check, example};
use serde_json::json;

/// The most probable label.
fn label(answer: &serde_json::Value) -> String {
    answer["predictions"][0]["label"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn the_four_line_example_becomes_ready_and_names_what_is_on_a_photograph() {
    Test::run(async |t| {
        let _core = t.core().await;
        t.apply_example("efficientnet.yaml").await?;
        let ready = ["wait", "--for=condition=Ready", "oisvc/efficientnet", "--timeout=120s"];
        t.kubectl(&ready).await?;
        let service = t.service("efficientnet");
        service.until_answers().await?;
        for (photograph, expected) in [("flower.jpg", "daisy"), ("china.jpg", "palace")] {
            let bytes = t.file_of_the_store(photograph).await?;
            // What curl --data-binary sends.
            let kind = "application/x-www-form-urlencoded";
            let answer = service.post("/predict/efficientnet", kind, bytes).await?.json()?;
            check(label(&answer) == expected, || {
                format!("{photograph} is {expected}, the answer is {answer}")
            })?;
        }

        let metadata = service.get_path("/v2/models/efficientnet").await?.json()?;
        check(metadata["inputs"][0]["name"] == "images", || format!("{metadata}"))?;
        let zeros = json!([{"name": "images", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": vec![0; 3 * 224 * 224]}]);
        let answer = service.infer(zeros).await?.json()?;
        check(answer["outputs"][0]["shape"] == json!([1, 1000]), || format!("{answer}"))?;

        reads_well(t).await?;
        describes_the_model(t).await?;
        bad_requests_are_answered_with_a_sentence(t).await
    })
    .await;
}

/// `kubectl get` and `kubectl describe` tell the story.
async fn reads_well(t: &Test) -> ortolan_e2e::Result {
    let listed = t.kubectl(&["get", "oisvc"]).await?;
    let mut lines = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (head, row) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let columns = [
        "NAME", "READY", "REASON", "REVISION", "ROLLOUT", "WEIGHT", "REPLICAS", "URL", "AGE",
    ];
    check(head == columns, || listed.clone())?;
    let url = format!("http://efficientnet.{}.svc", t.namespace);
    let expected = row.len() == 8
        && row[..3] == ["efficientnet", "True", "Serving"]
        && row[3].starts_with("efficientnet-")
        && row[4..7] == ["Stable", "1", url.as_str()];
    check(expected, || listed.clone())?;

    t.until_events(&["RevisionCreated", "Promoted"]).await?;
    let described = t.kubectl(&["describe", "oisvc", "efficientnet"]).await?;
    for words in [
        "RevisionCreated",
        "Promoted",
        "is the first revision",
        "serves with 1 pod",
        "requests are answered",
        "sha256:",
    ] {
        check(described.contains(words), || {
            format!("“{words}” is missing in\n{described}")
        })?;
    }
    // What GitOps tools need: applied once more, nothing differs.
    let example = example("efficientnet.yaml");
    t.kubectl(&["diff", "-f", &example]).await?;
    let all = t.kubectl(&["get", "ortolan", "-o", "name"]).await?;
    check(
        all.contains("inferenceservice.serving.ortolan.dev/efficientnet"),
        || all.clone(),
    )
}

/// What the pod says of itself stands in the status.
async fn describes_the_model(t: &Test) -> ortolan_e2e::Result {
    let active = "--for=jsonpath={.status.revisions[0].provider.active}=CPU";
    t.kubectl(&["wait", active, "oisvc/efficientnet", "--timeout=30s"])
        .await?;
    let path = "jsonpath={.status.revisions[0]}";
    let told = t
        .kubectl(&["get", "oisvc", "efficientnet", "-o", path])
        .await?;
    let revision: serde_json::Value = serde_json::from_str(&told)?;
    let input = json!({"name": "images", "datatype": "FP32", "shape": [-1, 3, 224, 224]});
    let described = revision["model"]["inputs"] == json!([input])
        && revision["model"]["opset"].as_i64() > Some(0)
        && ["fetch", "load", "warmUp"].iter().all(|phase| {
            revision["coldStart"][phase]
                .as_str()
                .is_some_and(|t| t.ends_with("ms"))
        });
    check(described, || told)
}

/// The process lives on, and says what was wrong.
async fn bad_requests_are_answered_with_a_sentence(t: &Test) -> ortolan_e2e::Result {
    let service = t.service("efficientnet");
    let infer = "/v2/models/efficientnet/infer";
    let input = |name: &str, kind: &str, shape: serde_json::Value, n: usize| {
        json!({"inputs": [{"name": name, "datatype": kind, "shape": shape, "data": vec![0; n]}]})
            .to_string()
    };
    let json = "application/json";
    let pixels = 3 * 224 * 224;
    let cases = [
        (
            "/predict/efficientnet",
            "image/jpeg",
            "this is no photograph".to_owned(),
            422,
        ),
        ("/predict/efficientnet", "video/mp4", String::new(), 415),
        ("/predict/another", "image/jpeg", String::new(), 404),
        (infer, json, "{".to_owned(), 400),
        (
            infer,
            json,
            input("images", "INT64", json!([1, 3, 224, 224]), pixels),
            400,
        ),
        (
            infer,
            json,
            input("picture", "FP32", json!([1, 3, 224, 224]), pixels),
            400,
        ),
        (
            infer,
            json,
            input("images", "FP32", json!([1, 3, 100, 100]), 30_000),
            400,
        ),
        (
            infer,
            json,
            input("images", "FP32", json!([1, 3, 224, 224]), 7),
            400,
        ),
    ];
    for (path, kind, body, status) in cases {
        let shown: String = body.chars().take(80).collect();
        let reply = service.post(path, kind, body.into_bytes()).await?;
        let told = serde_json::from_str::<serde_json::Value>(&reply.body).unwrap_or_default();
        let sentence = told["error"].as_str().unwrap_or_default();
        check(reply.status == status && sentence.len() > 10, || {
            format!("{path} {kind} {shown}: {status} with a sentence was expected: {reply:?}")
        })?;
    }
    let pods = service.pods().await?;
    let restarts: i32 = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref())
        .flatten()
        .map(|container| container.restart_count)
        .sum();
    check(restarts == 0, || {
        format!("the server was restarted {restarts} times")
    })
}
