//! The rules of `spec.rollout`.

use serde_json::{Value, json};

use super::{Rule, part, rule};

const LONG: &str = "write a duration in hours, minutes and seconds, such as 1h or 10m";

fn rollout(rollout: Value) -> Value {
    json!({"model": {"uri": "https://a/m.onnx"}, "rollout": rollout})
}

fn analysis(key: &str, value: Value) -> Value {
    part("rollout", "analysis", json!({key: value}))
}

fn steps(weights: &[i32]) -> Value {
    let steps: Vec<Value> = weights
        .iter()
        .map(|weight| json!({"weight": weight, "soak": "1m"}))
        .collect();
    part("rollout", "steps", json!(steps))
}

fn soak(text: &str) -> Value {
    part("rollout", "steps", json!([{"weight": 5, "soak": text}]))
}

fn validation(share: f64) -> Value {
    let set = json!({"uri": "https://a/g.jsonl", "minAgreement": share});
    part("rollout", "validation", set)
}

fn shadow(percent: i32) -> Value {
    let shadow = json!({"percent": percent, "compare": {"kind": "Exact"}});
    part("rollout", "shadow", shadow)
}

fn compare(kind: &str, key: &str, value: f64) -> Value {
    let shadow = json!({"percent": 5, "compare": {"kind": kind, key: value}});
    part("rollout", "shadow", shadow)
}

fn rules_of_latency() -> Vec<Rule> {
    vec![
        rule(
            "spec.rollout.analysis.maxLatency",
            "write a duration in minutes, seconds and milliseconds, such as 250ms or 2s",
            ["", "fast", "250", "1h", "1.5s", "5ms1s"]
                .map(|text| analysis("maxLatency", json!(text))),
            ["250ms", "1s500ms", "1m"].map(|text| analysis("maxLatency", json!(text))),
        ),
        rule(
            "spec.rollout.analysis.maxLatency",
            "write a time from 1ms to 60s",
            ["0ms", "0s", "61s", "2m"].map(|text| analysis("maxLatency", json!(text))),
            ["1ms", "60s", "1m"].map(|text| analysis("maxLatency", json!(text))),
        ),
    ]
}

fn rules_of_shadow() -> Vec<Rule> {
    let shadow_of = |stateful: bool| {
        let mut spec = shadow(5);
        spec["routing"] = json!({"stateful": stateful});
        spec
    };
    vec![
        rule(
            "spec",
            "a stateful model would remember a copied request as another one: leave rollout.shadow out, or routing.stateful",
            [shadow_of(true)],
            [
                shadow_of(false),
                shadow(5),
                json!({"model": {"uri": "https://a/m.onnx"}, "routing": {"stateful": true}}),
            ],
        ),
        rule(
            "spec.rollout",
            "with strategy Recreate the revisions never run at the same time, so their answers cannot be compared: leave shadow out",
            [rollout(
                json!({"strategy": "Recreate", "shadow": {"percent": 5, "compare": {"kind": "Exact"}}}),
            )],
            [
                rollout(
                    json!({"strategy": "BlueGreen", "shadow": {"percent": 5, "compare": {"kind": "Exact"}}}),
                ),
                rollout(json!({"strategy": "Recreate"})),
            ],
        ),
        rule(
            "spec.rollout.shadow.percent",
            "write a share of the requests from 1 to 100",
            [-1, 0, 101].map(shadow),
            [1, 100].map(shadow),
        ),
        rule(
            "spec.rollout.shadow.compare",
            "tolerance belongs to kind Regression and Embedding: leave it out",
            ["Classification", "Exact"].map(|kind| compare(kind, "tolerance", 0.1)),
            ["Regression", "Embedding"].map(|kind| compare(kind, "tolerance", 0.1)),
        ),
        rule(
            "spec.rollout.shadow.compare.tolerance",
            "write a number from 0 to 1, such as 0.001",
            [-0.1, 1.5].map(|number| compare("Regression", "tolerance", number)),
            [0.0, 0.001, 1.0].map(|number| compare("Embedding", "tolerance", number)),
        ),
        rule(
            "spec.rollout.shadow.compare.maxDisagreement",
            "write a share from 0 to 0.5, such as 0.01",
            [-0.1, 0.6].map(|number| compare("Exact", "maxDisagreement", number)),
            [0.0, 0.01, 0.5].map(|number| compare("Classification", "maxDisagreement", number)),
        ),
    ]
}

pub fn rules() -> Vec<Rule> {
    let mut rules = rules_of_analysis();
    rules.extend(rules_of_shadow());
    rules.extend(rules_of_latency());
    rules.extend([
        rule(
            "spec.rollout",
            "steps move the traffic by themselves and weight sets it by hand: write one of the two",
            [rollout(
                json!({"weight": 5, "steps": [{"weight": 5, "soak": "1m"}]}),
            )],
            [rollout(json!({"weight": 5})), steps(&[5])],
        ),
        rule(
            "spec.rollout",
            "steps and weight belong to strategy Canary: leave them out, or write strategy: Canary",
            [
                rollout(json!({"strategy": "BlueGreen", "weight": 5})),
                rollout(json!({"strategy": "Recreate", "steps": [{"weight": 5, "soak": "1m"}]})),
            ],
            [
                rollout(json!({"strategy": "Canary", "weight": 5})),
                rollout(json!({"strategy": "BlueGreen"})),
            ],
        ),
        rule(
            "spec.rollout.steps",
            "each step's weight must be larger than that of the step before it, such as 5, 25, 50",
            [&[5, 5][..], &[25, 5], &[5, 50, 25]].map(steps),
            [&[5][..], &[5, 25, 50, 100]].map(steps),
        ),
        rule(
            "spec.rollout.steps[].weight",
            "write a share of the traffic from 1 to 100",
            [&[0][..], &[101], &[-1]].map(steps),
            [&[1][..], &[100]].map(steps),
        ),
        rule(
            "spec.rollout.steps[].soak",
            "write a duration in hours, minutes and seconds, such as 2m or 1m30s",
            ["2", "2 m", "1d", "-1m", "m2"].map(soak),
            ["2m", "0s", "1m30s", "1h"].map(soak),
        ),
        rule(
            "spec.rollout.weight",
            "write a share of the traffic from 0 to 100",
            [-1, 101].map(|weight| part("rollout", "weight", json!(weight))),
            [0, 100].map(|weight| part("rollout", "weight", json!(weight))),
        ),
        rule(
            "spec.rollout.validation.uri",
            "write http(s)://host[:port]/path of a JSONL file, without spaces, user name or password",
            [
                "s3://b/g.jsonl",
                "golden.jsonl",
                "https://me:secret@a/g.jsonl",
                "https://a/g 1.jsonl",
            ]
            .map(|uri| part("rollout", "validation", json!({"uri": uri}))),
            ["https://a/g.jsonl", "http://a:8080/g"]
                .map(|uri| part("rollout", "validation", json!({"uri": uri}))),
        ),
        rule(
            "spec.rollout.validation.minAgreement",
            "write a share above 0 and up to 1, such as 0.99",
            [0.0, -1.0, 1.1, 99.0].map(validation),
            [0.01, 0.99, 1.0].map(validation),
        ),
        rule(
            "spec.rollout.rollbackWindow",
            LONG,
            ["", "1d", "60", "1.5h"].map(|text| part("rollout", "rollbackWindow", json!(text))),
            ["1h", "0s", "90m"].map(|text| part("rollout", "rollbackWindow", json!(text))),
        ),
        rule(
            "spec.rollout.revisionHistoryLimit",
            "write a number from 0 to 100",
            [-1, 101].map(|limit| part("rollout", "revisionHistoryLimit", json!(limit))),
            [0, 100].map(|limit| part("rollout", "revisionHistoryLimit", json!(limit))),
        ),
    ]);
    rules
}

fn rules_of_analysis() -> Vec<Rule> {
    vec![
        rule(
            "spec.rollout.analysis.confidence",
            "write a number from 0.5 to 0.9999, such as 0.99",
            [0.0, 0.49, 1.0, 99.0].map(|number| analysis("confidence", json!(number))),
            [0.5, 0.99, 0.9999].map(|number| analysis("confidence", json!(number))),
        ),
        rule(
            "spec.rollout.analysis.maxErrorRateRatio",
            "write a number from 1 to 100: 1 tolerates no more bad requests than the stable revision has",
            [0.0, 0.9, 101.0].map(|number| analysis("maxErrorRateRatio", json!(number))),
            [1.0, 1.25, 100.0].map(|number| analysis("maxErrorRateRatio", json!(number))),
        ),
        rule(
            "spec.rollout.analysis.minRequests",
            "write a number of requests from 0 to 1000000000",
            [-1, 1_000_000_001].map(|number| analysis("minRequests", json!(number))),
            [0, 100].map(|number| analysis("minRequests", json!(number))),
        ),
        rule(
            "spec.rollout.analysis.deadline",
            LONG,
            ["", "1d", "60"].map(|text| analysis("deadline", json!(text))),
            ["1h", "30s"].map(|text| analysis("deadline", json!(text))),
        ),
        rule(
            "spec.rollout.analysis.settle",
            "write a duration in hours, minutes and seconds, such as 2m",
            ["", "1d", "60"].map(|text| analysis("settle", json!(text))),
            ["2m", "10s"].map(|text| analysis("settle", json!(text))),
        ),
        rule(
            "spec.rollout.analysis.settle",
            "write at least 10s: every router has to have followed before the old pods may go",
            ["0s", "9s"].map(|text| analysis("settle", json!(text))),
            ["10s", "2m"].map(|text| analysis("settle", json!(text))),
        ),
    ]
}
