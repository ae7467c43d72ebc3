//! The tools beside the server, as their users run them: reports, refusals, exit codes.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;

use prost::Message;
use serde_json::{Value, json};
use support::{
    Server, onnx,
    tool::{refused, said, shown, told, tool},
    written,
};

#[test]
fn inspect_tells_what_is_in_a_model_without_loading_it() {
    let (_dir, path) = written(&onnx::sum_and_difference());
    let text = said(&["inspect", shown(&path)]);
    for part in [
        "opset       ai.onnx 17",
        "input       a FP32 [batch,2]",
        "output      difference FP32 [batch,2]",
        "batchable   yes",
        "providers   CPU",
        "of 2 nodes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = told(&["inspect", shown(&path), "--json"]);
    assert_eq!(report["irVersion"], 8);
    assert_eq!(report["opsets"], json!({"ai.onnx": 17}));
    assert_eq!(
        report["inputs"][1],
        json!({"name": "b", "datatype": "FP32", "shape": ["batch", 2]})
    );
    assert_eq!(
        report["operators"],
        json!([
            {"domain": "", "operator": "Add", "count": 1},
            {"domain": "", "operator": "Sub", "count": 1}
        ])
    );
    assert_eq!(
        (&report["batchable"], &report["notBatchable"]),
        (&json!(true), &json!([]))
    );
    // a and b live when sum is made, and sum beside difference at the end: three values of two floats each.
    assert_eq!(
        report["estimate"]["activations"],
        json!({"peakBytes": 32, "known": 4, "values": 4})
    );
    assert_eq!(report["measured"], Value::Null);
}

#[test]
fn inspect_counts_parameters_and_says_why_a_model_takes_no_batches() {
    let (_dir, path) = written(&onnx::gather(0));
    let report = told(&["inspect", shown(&path), "--json"]);
    let parameters = &report["parameters"];
    assert_eq!(
        (&parameters["tensors"], &parameters["count"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(parameters["bytesByType"], json!({"FP32": 8, "INT64": 8}));
    assert_eq!(report["batchable"], false);
    let reasons = report["notBatchable"].to_string();
    assert!(reasons.contains("\\\"x\\\" is always 1"), "{reasons}");

    let (_dir, path) = written(&onnx::sequence_output());
    let text = said(&["inspect", shown(&path)]);
    assert!(text.contains("output      y a sequence"), "{text}");
    let (_dir, path) = written(&onnx::custom_operator());
    let text = said(&["inspect", shown(&path)]);
    assert!(text.contains("custom      acme.ops.Fancy"), "{text}");
}

#[test]
fn inspect_measures_sessions_one_by_one() {
    let (_dir, path) = written(&onnx::slow(512, 3));
    let report = told(&[
        "inspect",
        shown(&path),
        "--json",
        "--measure",
        "--sessions",
        "3",
        "--shape",
        "x=4,512",
    ]);
    let measured = &report["measured"];
    assert!(
        measured["inputs"]
            .as_str()
            .unwrap()
            .contains("x FP32 [4,512]"),
        "{measured}"
    );
    let sessions = measured["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3);
    for session in sessions {
        for time in ["loadSeconds", "firstRunSeconds", "runSeconds"] {
            assert!(session[time].as_f64().unwrap() > 0.0, "{session}");
        }
    }
    // The weights are 1 MB, and the first session brings ONNX Runtime's own structures.
    assert!(
        sessions[0]["growthBytes"].as_i64().unwrap() > 1_000_000,
        "{measured}"
    );
}

#[test]
fn a_bad_input_is_one_sentence_and_a_documented_code() {
    let (dir, good) = written(&onnx::identity(onnx::FLOAT, &[-1, 2]));
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let good = shown(&good);
    let taken = file("taken.onnx", b"x");
    let empty = file("empty.onnx", b"");
    let page = file("page.onnx", b"<html></html>");
    let whole = onnx::slow(64, 2).encode_to_vec();
    let cut = file("cut.onnx", &whole[..whole.len() / 2]);
    let data = file(
        "data.jsonl",
        b"{\"inputs\":[{\"name\":\"z\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}",
    );
    let table: [(&[&str], i32, &str); 13] = [
        (&["inspect", "/no/such.onnx"], 11, "ModelNotFound: "),
        (&["inspect", &empty], 15, "is empty"),
        (&["inspect", &page], 15, "HTML"),
        (&["inspect", &cut], 15, "is truncated"),
        (&["inspect", "gopher://x/y"], 22, "UnsupportedUri: "),
        (
            &["inspect", good, "--digest", "md5:x"],
            20,
            "InvalidConfig: ",
        ),
        (&["inspect", good, "--shape", "x=1,2"], 40, "--measure"),
        (
            &["inspect", good, "--measure", "--shape", "x=1,3"],
            40,
            "expected [-1,2]",
        ),
        (
            &["inspect", good, "--measure", "--data", &data],
            40,
            "no input \"z\"",
        ),
        (
            &["inspect", good, "--measure", "--onnxruntime", "/no.so"],
            19,
            "RuntimeMissing: ",
        ),
        (&["optimize", good, "-o", &taken], 42, "--force"),
        (
            &["optimize", good, "-o", "/no/dir/out.onnx"],
            42,
            "no such directory",
        ),
        (
            &["bench", "http://127.0.0.1:1", "--model", "m"],
            41,
            "nothing answers",
        ),
    ];
    for (words, code, part) in table {
        let (ended, line) = refused(words);
        assert_eq!(ended, code, "{words:?}: {line}");
        assert!(line.contains(part), "{words:?}: {line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    for words in [
        &["inspect"][..],
        &["optimize", good],
        &["bench"],
        &["bench", "http://a", "--rate", "0"],
        &["bench", "http://a", "--rate", "5", "--concurrency", "3"],
        &["inspect", good, "--shape", "x"],
    ] {
        assert_eq!(refused(words).0, 2, "{words:?}");
    }
}

/// x → Identity → Identity → MatMul w → Add b → y: two nodes too many.
fn roundabout() -> onnx::Model {
    let graph = onnx::Graph {
        nodes: vec![
            onnx::node("Identity", &["x"], &["x1"]),
            onnx::node("Identity", &["x1"], &["x2"]),
            onnx::node("MatMul", &["x2", "w"], &["h"]),
            onnx::node("Add", &["h", "b"], &["y"]),
        ],
        initializers: vec![
            onnx::float_initializer("w", &[32, 32], &[0.25; 1024]),
            onnx::float_initializer("b", &[32], &[1.0; 32]),
        ],
        inputs: vec![onnx::tensor("x", onnx::FLOAT, &[-1, 32])],
        outputs: vec![onnx::tensor("y", onnx::FLOAT, &[-1, 32])],
        ..onnx::Graph::default()
    };
    onnx::model(17, graph)
}

#[tokio::test]
async fn optimize_writes_a_model_that_serves_and_tells_what_changed() {
    let (dir, path) = written(&roundabout());
    let out = dir.path().join("out.onnx");
    let words = ["optimize", shown(&path), "-o", shown(&out), "--rounds", "1"];
    let report = told(&[&words[..], &["--json"]].concat());
    assert_eq!(report["before"]["nodes"], 4);
    assert!(report["after"]["nodes"].as_u64().unwrap() <= 2, "{report}");
    for cost in ["loadSeconds", "runSeconds"] {
        assert!(report["after"]["cost"][cost]["median"].as_f64().unwrap() > 0.0);
    }
    let output = &report["comparison"]["outputs"][0];
    assert_eq!(
        (&output["name"], &output["fromServed"]["elements"]),
        (&json!("y"), &json!(256))
    );
    assert!(
        output["fromUnoptimised"]["largest"].as_f64().unwrap() < 1e-5,
        "{output}"
    );
    assert!(
        report["comparison"]["inputs"]
            .as_str()
            .unwrap()
            .contains("random")
    );
    assert_eq!(refused(&words).0, 42, "the output exists now");

    let text = said(
        &[
            &words[..],
            &["--force", "--external-data", "--level", "all"],
        ]
        .concat(),
    );
    assert!(
        text.contains("Identity") && text.contains("this machine's processor"),
        "{text}"
    );
    let names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains(&"out.onnx.data".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");

    let server = Server::start_in(dir, &out, &[]).await;
    let row = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 32], "data": vec![1.0; 32]}]});
    let (code, answer) = server.infer(&row).await;
    assert_eq!(
        (code, &answer["outputs"][0]["data"][31]),
        (200, &json!(9.0))
    );
}

#[test]
fn optimize_compares_on_the_users_inputs_and_leaves_nothing_behind_when_they_do_not_fit() {
    let (dir, path) = written(&roundabout());
    let data = dir.path().join("data.jsonl");
    let line = |n: usize| {
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, n], "data": vec![0.5; n]}]}).to_string()
    };
    fs::write(&data, format!("{}\n{}\n", line(32), line(32))).unwrap();
    let out = dir.path().join("out.onnx");
    let words = [
        "optimize",
        shown(&path),
        "-o",
        shown(&out),
        "--rounds",
        "1",
        "--data",
        shown(&data),
        "--json",
    ];
    let report = told(&words);
    assert_eq!(report["comparison"]["runs"], 2);
    assert!(
        report["comparison"]["inputs"]
            .as_str()
            .unwrap()
            .contains("data.jsonl")
    );
    fs::remove_file(&out).unwrap();
    fs::write(&data, line(31)).unwrap();
    let output = tool(&words);
    assert_eq!(output.status.code(), Some(40));
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["data.jsonl", "model.onnx"]);
}

#[test]
fn tune_measures_every_setting_and_advises_one() {
    let (_dir, path) = written(&onnx::slow(128, 4));
    let words = [
        "tune",
        shown(&path),
        "--sessions",
        "1,2",
        "--threads",
        "1",
        "--batch",
        "1,4",
        "--rounds",
        "2",
        "--time",
        "100ms",
    ];
    let report = told(&[&words[..], &["--json"]].concat());
    let settings = report["settings"].as_array().unwrap();
    let shown_as =
        |cell: &Value| ["sessions", "threads", "batch"].map(|name| cell[name].as_u64().unwrap());
    let tried: Vec<_> = settings.iter().map(shown_as).collect();
    assert_eq!(tried, [[1, 1, 1], [1, 1, 4], [2, 1, 1], [2, 1, 4]]);
    for cell in settings {
        assert!(
            cell["rowsPerSecond"]["median"].as_f64().unwrap() > 0.0,
            "{cell}"
        );
        let (p50, tail) = (cell["p50Seconds"].as_f64(), cell["tailSeconds"].as_f64());
        assert!(p50 > Some(0.0) && tail >= p50, "{cell}");
        let together = cell["rowsTogether"].as_f64().unwrap();
        assert!(
            (1.0..=shown_as(cell)[2] as f64).contains(&together),
            "{cell}"
        );
    }
    let grouped = &settings[1]["rowsTogether"];
    assert!(
        grouped.as_f64().unwrap() > 2.0,
        "rows do run together: {report}"
    );
    assert!(tried.contains(&shown_as(&report["knee"])), "{report}");
    assert_eq!(report["missesGoal"], false);

    let text = said(&[&words[..], &["--slo", "p99=1h"]].concat());
    for part in [
        "◄ knee",
        "p99 ",
        "server:\n  sessions: ",
        "\n  batching:\n    maxBatchSize: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let hopeless = said(&[&words[..], &["--slo", "p95=0.001ms"]].concat());
    assert!(
        hopeless.contains("no setting keeps p95 ≤ 1.00 µs"),
        "{hopeless}"
    );
}

#[test]
fn tune_leaves_batches_out_where_the_graph_takes_none() {
    let (dir, path) = written(&onnx::gather(0));
    let data = dir.path().join("data.jsonl");
    let row = json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}]});
    fs::write(&data, row.to_string()).unwrap();
    let report = told(&[
        "tune",
        shown(&path),
        "--sessions",
        "1",
        "--threads",
        "1",
        "--rounds",
        "1",
        "--requests",
        "40",
        "--data",
        shown(&data),
        "--json",
    ]);
    assert_eq!(report["batchable"], false);
    assert!(
        report["unasked"].as_str().unwrap().starts_with("no: "),
        "{report}"
    );
    let settings = report["settings"].as_array().unwrap();
    assert_eq!((settings.len(), &settings[0]["batch"]), (1, &json!(1)));
    assert!(
        report["inputs"]
            .as_str()
            .unwrap()
            .contains("1 request(s) of")
    );
    let (code, line) = refused(&["tune", shown(&path), "--slo", "fast"]);
    assert_eq!(code, 2, "{line}");
    let (code, line) = refused(&["tune", shown(&path), "--shape", "x=2"]);
    assert!(code == 40 && line.contains("expected [1]"), "{line}");
}
