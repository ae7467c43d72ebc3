//! Every rule of the CustomResourceDefinition, both ways, by the API server that applies it.

use std::{collections::BTreeSet, io::Write as _, process::Stdio};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use ortolan_tests::world::{DIGEST, apply_definition, definition_may_change, world};
use serde_json::{Value, json};

mod pipeline;
mod rollout;
mod routing;

/// A rule: where it stands, its sentence, names and specs that it refuses, and such that it lets pass.
struct Rule {
    path: &'static str,
    message: &'static str,
    refused: Vec<(String, Value)>,
    accepted: Vec<(String, Value)>,
}

fn rule<const R: usize, const A: usize>(
    path: &'static str,
    message: &'static str,
    refused: [Value; R],
    accepted: [Value; A],
) -> Rule {
    let named = |spec: Value| ("m".to_owned(), spec);
    Rule {
        path,
        message,
        refused: refused.into_iter().map(named).collect(),
        accepted: accepted.into_iter().map(named).collect(),
    }
}

fn names<const R: usize, const A: usize>(
    message: &'static str,
    refused: [&str; R],
    accepted: [&str; A],
) -> Rule {
    let named = |name: &str| (name.to_owned(), uri("https://a/m.onnx"));
    Rule {
        path: "",
        message,
        refused: refused.into_iter().map(named).collect(),
        accepted: accepted.into_iter().map(named).collect(),
    }
}

fn uri(uri: &str) -> Value {
    json!({"model": {"uri": uri}})
}

/// A spec with this beside the URI.
fn model(key: &str, value: Value) -> Value {
    json!({"model": {"uri": "https://a/m.onnx", key: value}})
}

fn part(part: &str, key: &str, value: Value) -> Value {
    json!({"model": {"uri": "https://a/m.onnx"}, part: {key: value}})
}

fn scaling(scaling: Value) -> Value {
    json!({"model": {"uri": "https://a/m.onnx"}, "scaling": scaling})
}

fn gpu(under: Value) -> Value {
    part("server", "accelerator", under)
}

const WORD: &str =
    "write letters, digits, '.', '_' and '-', beginning and ending with a letter or digit";

fn rules() -> Vec<Rule> {
    let mut rules = rules_of_model();
    rules.extend(rules_of_server());
    rules.extend(pipeline::rules());
    rules.extend(rules_of_pod());
    rules.extend(rollout::rules());
    rules.extend(routing::rules());
    rules.extend([
        names(
            "the name is over 50 characters, and a revision adds 9 to it: choose a shorter metadata.name",
            [&"m".repeat(51), &"m".repeat(63)],
            [&"m".repeat(50)],
        ),
        names(
            "metadata.name becomes a Service's name, so it must be a DNS-1035 label: lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit (model-v2, not model.v2 or 3d-model)",
            ["3d-model", "model.v2", "0"],
            ["m", "model-v2", "m3"],
        ),
        rule(
            "spec.scaling.minReplicas",
            "write a number from 1 to 1000; to stop all pods write suspend: true",
            [0, -1, 1001].map(|n| part("scaling", "minReplicas", json!(n))),
            [1, 1000].map(|n| part("scaling", "minReplicas", json!(n))),
        ),
        rule(
            "spec.scaling",
            "replicas is what others write through /scale, and with it scaler: External is needed: write that, or minReplicas instead of replicas",
            [scaling(json!({"replicas": 2}))],
            [
                scaling(json!({"replicas": 2, "scaler": "External"})),
                scaling(json!({"scaler": "External"})),
            ],
        ),
        rule(
            "spec.scaling",
            "replicas is below minReplicas: scale to minReplicas or more, or write a smaller minReplicas",
            [scaling(json!({"replicas": 2, "minReplicas": 3, "scaler": "External"}))],
            [scaling(json!({"replicas": 3, "minReplicas": 3, "scaler": "External"}))],
        ),
        rule(
            "spec.scaling.replicas",
            "scale to a number from 1 to 1000; to stop all pods write suspend: true",
            // Below 0 Kubernetes has a sentence of its own.
            [0, 1001].map(|n| scaling(json!({"replicas": n, "scaler": "External"}))),
            [1, 1000].map(|n| scaling(json!({"replicas": n, "scaler": "External"}))),
        ),
    ]);
    rules
}

fn rules_of_model() -> Vec<Rule> {
    vec![
        rule(
            "spec.model",
            "credentialsSecretRef works with http:// and https:// only: leave it out, or serve the model over HTTP",
            ["pvc://claim/m.onnx", "file:///m.onnx"]
                .map(|uri| json!({"model": {"uri": uri, "credentialsSecretRef": {"name": "s"}}})),
            ["http://a/m.onnx", "https://a/m.onnx"]
                .map(|uri| json!({"model": {"uri": uri, "credentialsSecretRef": {"name": "s"}}})),
        ),
        rule(
            "spec.model.uri",
            "unknown scheme: write https://…, http://…, pvc://claim/path or file:///path",
            [
                "s3://bucket/m.onnx",
                "ftp://a/m.onnx",
                "model.onnx",
                "/m.onnx",
                "HTTPS://a/m",
            ]
            .map(uri),
            [
                "https://a/m.onnx",
                "http://a:8080/m.tar.gz",
                "pvc://c/m.zip",
                "file:///m.onnx",
            ]
            .map(uri),
        ),
        rule(
            "spec.model.uri",
            "write http(s)://host[:port]/path without spaces; a user name and password go into credentialsSecretRef",
            [
                "https://",
                "https:///m.onnx",
                "http://user:secret@a/m.onnx",
                "https://a/m 1.onnx",
                "https://a?m",
            ]
            .map(uri),
            [
                "https://a",
                "https://a/",
                "https://a/m.onnx?v=1",
                "https://[::1]:80/m%20.onnx",
            ]
            .map(uri),
        ),
        rule(
            "spec.model.uri",
            "write pvc://claim/path, where claim is the PersistentVolumeClaim's name and path stays inside it",
            [
                "pvc://",
                "pvc://claim",
                "pvc://claim/",
                "pvc://Claim/m",
                "pvc:///m",
                "pvc://c/../m",
                "pvc://c/a/..",
                "pvc://c/a b",
            ]
            .map(uri),
            ["pvc://c/m", "pvc://my-claim.1/folder/m.onnx", "pvc://c/..m"].map(uri),
        ),
        rule(
            "spec.model.uri",
            "write file:///absolute/path, with three slashes: the path is in the server's image",
            ["file://m.onnx", "file://", "file:///", "file:///a b"].map(uri),
            ["file:///m.onnx", "file:///models/m.onnx"].map(uri),
        ),
        rule(
            "spec.model.digest",
            "write sha256: and 64 lower-case hexadecimal digits, as printed by sha256sum",
            [
                &DIGEST.to_uppercase(),
                &DIGEST[..70],
                &DIGEST[7..],
                "md5:9f86",
            ]
            .map(|d| model("digest", json!(d))),
            [model("digest", json!(DIGEST))],
        ),
        rule(
            "spec.model.name",
            WORD,
            ["-m", "m.", "a/b", "a b", "ä"].map(|name| model("name", json!(name))),
            ["m", "Efficient_Net-lite.0"].map(|name| model("name", json!(name))),
        ),
        rule(
            "spec.model.version",
            WORD,
            ["-1", "1.", "1/2"].map(|version| model("version", json!(version))),
            ["1", "2024-01-01", "v1.2_rc"].map(|version| model("version", json!(version))),
        ),
    ]
}

fn rules_of_server() -> Vec<Rule> {
    let both = |under: &str| {
        json!({"model": {"uri": "https://a/m.onnx"}, "server": {
            "accelerator": {"resource": "nvidia.com/gpu"}, "resources": {under: {"nvidia.com/gpu": "1"}}}})
    };
    let env = |name: &str| {
        part(
            "server",
            "env",
            json!([{"name": "A"}, {"name": name, "value": "1"}]),
        )
    };
    let arg = |arg: &str| part("server", "extraArgs", json!(["--log-format", arg]));
    let delay = |text: &str| part("server", "batching", json!({"maxDelay": text}));
    vec![
        rule(
            "spec.server",
            "the accelerator's resource stands under resources too: write it once, under accelerator",
            [both("limits"), both("requests")],
            [
                json!({"model": {"uri": "https://a/m.onnx"}, "server": {
                    "accelerator": {"resource": "nvidia.com/gpu"}, "resources": {"limits": {"memory": "1Gi"}}}}),
                json!({"model": {"uri": "https://a/m.onnx"}, "server": {
                    "accelerator": {"provider": "CPU"}, "resources": {"limits": {"nvidia.com/gpu": 1}}}}),
            ],
        ),
        rule(
            "spec.server.accelerator",
            "count needs resource: write resource: nvidia.com/gpu, or another extended resource, beside it",
            [gpu(json!({"count": 1}))],
            [
                gpu(json!({"count": 2, "resource": "nvidia.com/gpu"})),
                gpu(json!({})),
            ],
        ),
        rule(
            "spec.server.accelerator.resource",
            "write an extended resource with its domain, such as nvidia.com/gpu",
            [
                "gpu",
                "nvidia.com/",
                "/gpu",
                "kubernetes.io/gpu",
                "NVIDIA.com/gpu",
                "a/b/c",
            ]
            .map(|resource| gpu(json!({"resource": resource}))),
            [
                "nvidia.com/gpu",
                "nvidia.com/mig-1g.10gb",
                "nvidia.com/gpu.shared",
                "amd.com/gpu",
            ]
            .map(|resource| gpu(json!({"resource": resource}))),
        ),
        rule(
            "spec.server.env",
            "names that begin with ORTOLAN_ are the server's own options: use the field of that option, or extraArgs",
            ["ORTOLAN_HTTP", "ORTOLAN_"].map(env),
            ["ORTOLAN", "HTTP_PROXY", "MY_ORTOLAN_X"].map(env),
        ),
        rule(
            "spec.server.extraArgs",
            "this argument is the operator's to set: use the field of that name under model, server or pod",
            [
                "--name",
                "--http=0.0.0.0:1",
                "--threads=2",
                "--grace",
                "--digest=x",
                "--recorded-digest-file=x",
                "--model-config-inline={}",
                "--max-concurrency=1",
                "--warm-up",
            ]
            .map(arg),
            ["--names", "--max-body-bytes=1", "name", "--threadsafe"].map(arg),
        ),
        rule(
            "spec.server.batching",
            "maxBatchSize: 1 runs each request alone: leave preferredBatchSizes and maxDelay out, or write a larger maxBatchSize",
            [
                json!({"maxBatchSize": 1, "maxDelay": "1ms"}),
                json!({"maxBatchSize": 1, "preferredBatchSizes": [1]}),
            ]
            .map(|b| part("server", "batching", b)),
            [
                json!({"maxBatchSize": 1}),
                json!({"maxBatchSize": 2, "maxDelay": "1ms"}),
                json!({"maxDelay": "1ms"}),
            ]
            .map(|b| part("server", "batching", b)),
        ),
        rule(
            "spec.server.batching",
            "a preferred batch size is larger than maxBatchSize: write sizes up to it",
            [json!({"maxBatchSize": 8, "preferredBatchSizes": [4, 9]})]
                .map(|b| part("server", "batching", b)),
            [
                json!({"maxBatchSize": 8, "preferredBatchSizes": [4, 8]}),
                json!({"preferredBatchSizes": [64]}),
            ]
            .map(|b| part("server", "batching", b)),
        ),
        rule(
            "spec.server.batching.maxDelay",
            "write a delay in milliseconds or seconds, such as 2ms",
            ["2", "2us", "1m", "-2ms", "", "1.5ms"].map(delay),
            ["2ms", "0ms", "1s", "99999ms"].map(delay),
        ),
        rule(
            "spec.server.sessions",
            "write auto (one session per CPU of the pod) or a number from 1 to 256",
            [json!(0), json!(257), json!("many"), json!("1"), json!("")]
                .map(|n| part("server", "sessions", n)),
            [json!(1), json!(256), json!("auto")].map(|n| part("server", "sessions", n)),
        ),
    ]
}

fn rules_of_pod() -> Vec<Rule> {
    let label = |key: &str| part("pod", "labels", json!({"team": "a", key: "x"}));
    let annotation = |key: &str| part("pod", "annotations", json!({"team": "a", key: "x"}));
    let grace = |text: &str| part("pod", "terminationGracePeriod", json!(text));
    vec![
        rule(
            "spec.pod.annotations",
            "of the annotations under serving.ortolan.dev/ only restartedAt is yours to set: choose another key",
            [
                "serving.ortolan.dev/stable",
                "serving.ortolan.dev/restarted",
            ]
            .map(annotation),
            ["serving.ortolan.dev/restartedAt", "example.com/a"].map(annotation),
        ),
        rule(
            "spec.pod.labels",
            "labels under serving.ortolan.dev/, app.kubernetes.io/name and app.kubernetes.io/managed-by are the operator's own: choose another key",
            [
                "serving.ortolan.dev/service",
                "app.kubernetes.io/name",
                "app.kubernetes.io/managed-by",
            ]
            .map(label),
            ["app.kubernetes.io/part-of", "app"].map(label),
        ),
        rule(
            "spec.pod.terminationGracePeriod",
            "write a duration in hours, minutes and seconds, such as 45s or 2m30s",
            ["1d", "", "45", "-45s", "1.5m", "30s1m", "500ms"].map(grace),
            ["45s", "2m30s", "1h", "1h0m15s"].map(grace),
        ),
        rule(
            "spec.pod.terminationGracePeriod",
            "write at least 15s: a pod serves on for 5s while it leaves the Service, then finishes what it has",
            ["14s", "0s", "0h0m1s"].map(grace),
            ["15s", "1m"].map(grace),
        ),
    ]
}

/// Where each rule of the schema stands, and its sentence.
fn written(schema: &Value, path: &str, found: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let message = rule["message"].as_str().expect("every rule has a sentence");
        found.insert((path.to_owned(), message.to_owned()));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        written(child, &path, found);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            written(&schema[key], &format!("{path}{mark}"), found);
        }
    }
}

#[test]
fn every_rule_of_the_definition_is_tested_both_ways() {
    let mut found = BTreeSet::new();
    for crd in ortolan_crds::all() {
        for version in &crd.spec.versions {
            let schema = version
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref());
            let schema = serde_json::to_value(schema).expect("a schema is JSON");
            written(&schema, "", &mut found);
        }
    }
    let rules = rules();
    assert!(
        rules
            .iter()
            .all(|rule| !rule.refused.is_empty() && !rule.accepted.is_empty())
    );
    let tested: BTreeSet<_> = rules
        .iter()
        .map(|rule| (rule.path.to_owned(), rule.message.to_owned()))
        .collect();
    assert_eq!(
        found, tested,
        "the definition's rules, and those with a test here"
    );
    assert_eq!(tested.len(), rules.len(), "a rule is in the table twice");
}

#[test]
fn the_api_server_refuses_with_our_sentence_alone() {
    world(async |w| {
        let mut wrong = Vec::new();
        for rule in rules() {
            for (name, spec) in rule.refused {
                let case = format!("{name} {spec}");
                let Err(status) = w.try_dry(&name, spec).await else {
                    wrong.push(format!("accepted: {case}"));
                    continue;
                };
                let causes = status.details.map(|d| d.causes).unwrap_or_default();
                let ours = |field: &str, message: &str| {
                    let field = if field == "<nil>" { "" } else { field };
                    // Of a list the cases are wrong in its first item.
                    field.replace("[0]", "[]") == rule.path
                        && message.ends_with(&format!(": {}", rule.message))
                };
                if !matches!(&causes[..], [cause] if ours(&cause.field, &cause.message)) {
                    wrong.push(format!(
                        "{case}: expected {} alone, got {causes:#?}",
                        rule.message
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn the_api_server_accepts_what_the_rules_allow() {
    world(async |w| {
        let mut wrong = Vec::new();
        for rule in rules() {
            for (name, spec) in rule.accepted {
                let case = format!("{name} {spec}");
                if let Err(status) = w.try_dry(&name, spec).await {
                    wrong.push(format!("{case}: {}", status.message));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn the_definition_can_be_applied_by_kubectl_on_the_client_s_side() {
    let _alone = definition_may_change();
    world(async |_| {
        for crd in ortolan_crds::all() {
            let yaml = ortolan_crds::to_yaml(&crd).expect("YAML");
            assert!(yaml.len() < 200_000, "{} bytes of YAML", yaml.len());
            let mut kubectl = std::process::Command::new("kubectl")
                .args(["apply", "--server-side=false", "-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("kubectl is on the PATH: start the tests by tests/run");
            let mut input = kubectl.stdin.take().expect("a pipe");
            input.write_all(yaml.as_bytes()).expect("kubectl reads");
            drop(input);
            let output = kubectl.wait_with_output().expect("kubectl ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "kubectl apply: {said}");
        }
    });
}

#[test]
fn the_definition_applied_on_the_server_s_side_twice_changes_nothing() {
    let _alone = definition_may_change();
    world(async |w| {
        let api: Api<CustomResourceDefinition> = Api::all(w.client.clone());
        for crd in ortolan_crds::all() {
            apply_definition(&w.client, &crd).await;
            let first = api.get(&crd.name_any()).await.expect("it is there");
            let second = apply_definition(&w.client, &crd).await;
            assert_eq!(first.resource_version(), second.resource_version());
            let pruned = second
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            assert!(
                !pruned.iter().any(|c| c.type_ == "NonStructuralSchema"),
                "{pruned:#?}"
            );
        }
    });
}
