//! Texts, bytes, rows and photographs through real models, against what the reference implementations in Python
//! answer (reference/make.py). The models are those of scripts/models.sh.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{fs, path::PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};
use support::{Server, onnx};

/// ONNX Runtime sums in another order on another processor; int8 kernels round there, too.
const CLOSE: f64 = 0.02;

fn models() -> PathBuf {
    let cache = || {
        let root = std::env::var_os("ORTOLAN_CACHE").map(PathBuf::from);
        root.unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ortolan")
        })
    };
    cache().join("models")
}

fn model(file: &str) -> PathBuf {
    let path = models().join(file);
    assert!(
        path.is_file(),
        "{} is missing: run scripts/models.sh",
        path.display()
    );
    path
}

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("reference/reference.json")).unwrap();
    all[name].clone()
}

/// A server of one of the examples' models.
async fn serve(name: &str, options: &[&str]) -> Server {
    let archive = model(&format!("{name}.tar.gz"));
    Server::start_in(tempfile::tempdir().unwrap(), &archive, options).await
}

async fn send(server: &Server, kind: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let client = reqwest::Client::new().post(server.url("/predict/m"));
    let request = client.header("content-type", kind).body(body);
    let response = request.send().await.unwrap();
    let code = response.status().as_u16();
    (code, response.json().await.unwrap())
}

async fn ask(server: &Server, body: &Value) -> Value {
    let (code, answer) = send(server, "application/json", body.to_string()).await;
    assert_eq!(code, 200, "{answer}");
    answer
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap_or_else(|| panic!("{value}"));
    values.iter().map(|v| v.as_f64().unwrap()).collect()
}

/// How far from parallel two vectors of length 1 are: 1 minus the cosine.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    1.0 - a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()
}

#[tokio::test]
async fn texts_become_the_vectors_of_the_reference_alone_and_together() {
    let server = serve("minilm", &[]).await;
    let cases = reference("minilm");
    let cases = cases.as_array().unwrap();
    for case in cases {
        let answer = ask(&server, &json!({ "inputs": case["text"] })).await;
        let vectors = answer["embeddings"].as_array().unwrap();
        assert_eq!(vectors.len(), 1);
        let vector = numbers(&vectors[0]);
        let length: f64 = vector.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        let distance = apart(&vector, &numbers(&case["embedding"]));
        assert!(distance < 0.001, "{}: {distance}", case["text"]);
        assert_eq!(answer["tokens"], case["ids"].as_array().unwrap().len());
    }
    let texts: Vec<&Value> = cases.iter().map(|case| &case["text"]).collect();
    let answer = ask(&server, &json!({ "inputs": texts })).await;
    let vectors = answer["embeddings"].as_array().unwrap();
    assert_eq!(vectors.len(), cases.len());
    for (vector, case) in vectors.iter().zip(cases) {
        // Padded to the longest: the int8 model's scale is over the whole batch.
        let distance = apart(&numbers(vector), &numbers(&case["embedding"]));
        assert!(distance < CLOSE, "{}: {distance}", case["text"]);
    }
}

#[tokio::test]
async fn texts_are_told_by_their_content_type_and_refused_with_a_sentence() {
    let server = serve("minilm", &[]).await;
    let plain = send(&server, "text/plain; charset=utf-8", "A quick brown fox")
        .await
        .1;
    let same = ask(&server, &json!({ "inputs": "A quick brown fox" })).await;
    assert_eq!(plain, same);
    let curl = "application/x-www-form-urlencoded";
    assert_eq!(send(&server, curl, "A quick brown fox").await.1, same);
    assert_eq!(
        send(&server, curl, r#"{"inputs": "A quick brown fox"}"#)
            .await
            .1,
        same
    );
    assert_eq!(
        ask(&server, &json!(["A quick brown fox"])).await["embeddings"],
        same["embeddings"]
    );
    let json = "application/json";
    let many = json!({ "inputs": vec!["a"; 9000] }).to_string();
    let long = json!({ "inputs": "a ".repeat(1 << 20) }).to_string();
    let cases: [(&str, Vec<u8>, u16, &str); 12] = [
        (
            json,
            b"{".to_vec(),
            400,
            "the body is not what is read here",
        ),
        (json, b"{}".to_vec(), 400, "missing field `inputs`"),
        (
            json,
            br#"{"inputs": []}"#.to_vec(),
            400,
            "there are no texts",
        ),
        (json, br#"{"inputs": 3}"#.to_vec(), 400, "holds no texts"),
        (
            json,
            br#"{"inputs": ["a", null]}"#.to_vec(),
            400,
            "holds no texts",
        ),
        (
            json,
            br#"{"inputs": "a", "normalize": false}"#.to_vec(),
            400,
            "unknown field `normalize`",
        ),
        (json, many.into_bytes(), 413, "9000 texts; at most 8192"),
        (json, long.into_bytes(), 413, "text 0 has 2097152 bytes"),
        (
            "text/plain",
            b"\xff\xfe".to_vec(),
            422,
            "not UTF-8 from byte 0",
        ),
        (
            "text/plain; charset=latin1",
            b"a".to_vec(),
            415,
            "send UTF-8",
        ),
        (
            "image/jpeg",
            b"a".to_vec(),
            415,
            "send text/plain or application/json",
        ),
        (
            curl,
            b"{\"inputs\"".to_vec(),
            400,
            "the body is not what is read here",
        ),
    ];
    for (kind, body, expected, part) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (code, answer) = send(&server, kind, body).await;
        let sentence = answer["error"].as_str().unwrap();
        assert!(sentence.contains(part), "{shown}: {sentence}");
        assert_eq!(code, expected, "{shown}: {sentence}");
    }
}

#[tokio::test]
async fn many_texts_are_several_runs_whose_answers_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.yaml");
    let text = "pipeline:\n  input: {kind: text, maxTokens: 16, overflow: refuse, maxRunTokens: 40}\n  output: {kind: embedding}\n";
    fs::write(&own, text).unwrap();
    let server = serve("minilm", &["--model-config", own.to_str().unwrap()]).await;
    let texts: Vec<String> = (0..24)
        .map(|n| format!("{} fish {}", "one ".repeat(n % 7), n % 5))
        .collect();
    let together = ask(&server, &json!({ "inputs": texts })).await;
    let together = together["embeddings"].as_array().unwrap();
    assert_eq!(together.len(), texts.len());
    for (text, vector) in texts.iter().zip(together) {
        let alone = ask(&server, &json!({ "inputs": text })).await;
        let distance = apart(&numbers(vector), &numbers(&alone["embeddings"][0]));
        assert!(distance < CLOSE, "{text}: {distance}");
    }
    let long = json!({ "inputs": "one ".repeat(20) }).to_string();
    let (code, answer) = send(&server, "application/json", long).await;
    assert_eq!(code, 400);
    assert_eq!(
        answer["error"],
        "text 0 has 22 tokens, and the model takes at most 16; send a shorter one"
    );
}

#[tokio::test]
async fn openai_s_clients_get_vectors_as_numbers_or_as_base64_for_words_or_tokens() {
    let server = serve("minilm", &[]).await;
    let case = reference("minilm")[0].clone();
    let embed = async |body: Value| {
        let (code, answer) = server.post("/v1/embeddings", body.to_string()).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(
            (&answer["object"], &answer["model"]),
            (&json!("list"), &json!("m"))
        );
        answer
    };
    let words = embed(json!({ "model": "m", "input": [case["text"], case["text"]] })).await;
    let data = words["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["index"]), (2, &json!(1)));
    assert!(
        apart(
            &numbers(&data[0]["embedding"]),
            &numbers(&case["embedding"])
        ) < 0.001
    );
    let count = case["ids"].as_array().unwrap().len();
    assert_eq!(
        words["usage"],
        json!({ "prompt_tokens": 2 * count, "total_tokens": 2 * count })
    );
    let one = embed(json!({ "model": "m", "input": case["text"], "user": "u" })).await;
    for input in [case["ids"].clone(), json!([case["ids"]])] {
        let tokens = embed(json!({ "model": "m", "input": input, "dimensions": 384 })).await;
        assert_eq!(tokens, one);
    }
    let packed =
        embed(json!({ "model": "m", "input": case["text"], "encoding_format": "base64" })).await;
    let packed = packed["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(packed)
        .unwrap();
    let values = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let plain = numbers(&one["data"][0]["embedding"]);
    assert_eq!(
        values.collect::<Vec<_>>(),
        plain.iter().map(|v| *v as f32).collect::<Vec<_>>()
    );
    for (body, expected, part) in [
        (
            json!({ "model": "other", "input": "a" }),
            404,
            "no model \"other\"",
        ),
        (json!({ "model": "m" }), 400, "missing field `input`"),
        (
            json!({ "model": "m", "input": 3 }),
            400,
            "neither a text nor texts",
        ),
        (
            json!({ "model": "m", "input": [] }),
            400,
            "there are no texts",
        ),
        (
            json!({ "model": "m", "input": [30522] }),
            400,
            "the token 30522",
        ),
        (
            json!({ "model": "m", "input": "a", "dimensions": 5 }),
            400,
            "vectors have 384",
        ),
        (
            json!({ "model": "m", "input": "a", "encoding_format": "x" }),
            400,
            "unknown variant",
        ),
    ] {
        let (code, answer) = server.post("/v1/embeddings", body.to_string()).await;
        let sentence = answer["error"].as_str().unwrap();
        assert!(sentence.contains(part), "{body}: {sentence}");
        assert_eq!(code, expected, "{body}: {sentence}");
    }
    let tabular = serve("iris", &[]).await;
    let body = json!({ "model": "m", "input": "a" }).to_string();
    let (code, answer) = tabular.post("/v1/embeddings", body).await;
    assert_eq!(code, 400);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("makes no embeddings of texts")
    );
}

#[tokio::test]
async fn files_get_the_labels_of_the_reference() {
    let server = serve("magika", &[]).await;
    for case in reference("magika").as_array().unwrap() {
        let content = case["content"].as_str().unwrap();
        let content = base64::engine::general_purpose::STANDARD
            .decode(content)
            .unwrap();
        let (code, answer) = send(&server, "application/octet-stream", content).await;
        assert_eq!(code, 200, "{answer}");
        let best = &answer["predictions"][0];
        assert_eq!(best["label"], case["label"], "{}", case["name"]);
        let score = best["probability"].as_f64().unwrap();
        let expected = case["score"].as_f64().unwrap();
        assert!(
            (score - expected).abs() < 0.001,
            "{}: {score}, not {expected}",
            case["name"]
        );
    }
    for (file, label) in [("flower.jpg", "jpeg"), ("iris.tar.gz", "gzip")] {
        let content = fs::read(model(file)).unwrap();
        let (_, answer) = send(&server, "image/jpeg", content).await;
        assert_eq!(answer["predictions"][0]["label"], label, "{answer}");
    }
    let (code, answer) = send(&server, "application/octet-stream", "").await;
    assert_eq!(
        (code, answer["predictions"].as_array().unwrap().len()),
        (200, 3)
    );
}

#[tokio::test]
async fn rows_get_the_probabilities_of_the_reference_however_they_are_written() {
    for (name, classes) in [
        ("iris", vec!["setosa", "versicolor", "virginica"]),
        ("breast-cancer", vec!["malignant", "benign"]),
    ] {
        let server = serve(name, &[]).await;
        let expected = reference(name);
        let check = |answer: &Value| {
            let predictions = answer["predictions"].as_array().unwrap();
            let wanted = expected["probabilities"].as_array().unwrap();
            assert_eq!(predictions.len(), wanted.len());
            for (row, prediction) in wanted.iter().zip(predictions) {
                for class in prediction.as_array().unwrap() {
                    let index = class["index"].as_u64().unwrap() as usize;
                    assert_eq!(class["label"], classes[index]);
                    let (got, want) = (&class["probability"], &row[index]);
                    let distance = got.as_f64().unwrap() - want.as_f64().unwrap();
                    assert!(distance.abs() < 1e-5, "{name}: {got}, not {want}");
                }
            }
        };
        check(&ask(&server, &json!({ "inputs": expected["rows"] })).await);
        let names = columns(&server).await;
        let rows = expected["rows"].as_array().unwrap();
        let object = |row: &Value| -> Value {
            let values = names.iter().cloned().zip(row.as_array().unwrap().clone());
            Value::Object(values.filter(|(_, value)| !value.is_null()).collect())
        };
        let objects: Vec<Value> = rows.iter().map(object).collect();
        check(&ask(&server, &json!(objects)).await);
        let line = |row: &Value| {
            let fields = row.as_array().unwrap().iter();
            let fields = fields.map(|v| {
                if v.is_null() {
                    String::new()
                } else {
                    v.to_string()
                }
            });
            fields.collect::<Vec<_>>().join(",")
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        let csv = format!("{}\n{}\n", names.join(","), lines.join("\n"));
        let (code, answer) = send(&server, "text/csv", csv).await;
        assert_eq!(code, 200, "{answer}");
        check(&answer);
        let (_, answer) = send(&server, "text/csv; header=absent", lines.join("\n")).await;
        check(&answer);
    }
}

/// As the server names them when a column is unknown.
async fn columns(server: &Server) -> Vec<String> {
    let (code, answer) = send(server, "application/json", r#"[{"unknown": 1}]"#).await;
    assert_eq!(code, 400);
    let sentence = answer["error"].as_str().unwrap();
    let (_, names) = sentence.split_once("the columns are ").unwrap();
    serde_json::from_str(&format!("[{names}]")).unwrap()
}

#[tokio::test]
async fn one_row_gets_one_answer_and_a_missing_value_is_refused_where_the_model_takes_none() {
    let server = serve("iris", &[]).await;
    let flower =
        json!({ "sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2 });
    let answer = ask(
        &server,
        &json!({ "inputs": flower, "parameters": { "top_k": 1 } }),
    )
    .await;
    let predictions = answer["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 1);
    assert_eq!(predictions[0]["label"], "setosa");
    let (code, answer) = send(&server, "application/json", "[[1, 2, 3, null]]").await;
    assert_eq!(code, 400);
    let sentence = answer["error"].as_str().unwrap();
    assert!(
        sentence.starts_with("row 0, column \"petal_width\": the value is missing"),
        "{sentence}"
    );
}

#[tokio::test]
async fn strings_go_through_as_they_are_and_raw_outputs_come_back_as_tensors() {
    let (dir, path) = support::written(&onnx::identity(8, &[-1, 2]));
    let config = "pipeline:\n  input: {kind: rows, columns: [town, {name: street, missing: none}]}\n  output: {kind: raw}\n";
    fs::write(dir.path().join("model.yaml"), config).unwrap();
    let server = Server::start_in(dir, &path, &[]).await;
    let answer = ask(&server, &json!([["Ulm", "a\"b"], { "town": "Köln" }])).await;
    let expected = json!({
        "model_name": "m",
        "model_version": "1",
        "outputs": [{
            "name": "y", "datatype": "BYTES", "shape": [2, 2], "data": ["Ulm", "a\"b", "Köln", "none"],
        }],
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_photograph_that_was_stored_turned_is_turned_upright_by_what_its_camera_noted() {
    let server = serve("orientation", &[]).await;
    let china = fs::read(model("china.jpg")).unwrap();
    // The camera's note says how to turn the stored image; the model says how what it sees was turned.
    for (note, seen) in [(1, "0"), (6, "90"), (3, "180"), (8, "270")] {
        let body = noted(&china, note);
        let (code, answer) = send(&server, "image/jpeg", body).await;
        assert_eq!(code, 200, "{answer}");
        let best = &answer["predictions"][0];
        assert_eq!(best["label"], seen, "{note}: {answer}");
        assert!(best["probability"].as_f64().unwrap() > 0.7, "{answer}");
    }
}

/// The JPEG with an Exif segment that holds this orientation and nothing else.
fn noted(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap();
    let mut out = jpeg[..2].to_vec();
    out.extend_from_slice(&[0xff, 0xe1]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&exif);
    out.extend_from_slice(&jpeg[2..]);
    out
}

#[tokio::test]
async fn the_flower_is_a_daisy() {
    let server = serve("efficientnet-lite0", &[]).await;
    for (file, label) in [("flower.jpg", "daisy"), ("china.jpg", "palace")] {
        let (_, answer) = send(&server, "image/jpeg", fs::read(model(file)).unwrap()).await;
        assert_eq!(answer["predictions"][0]["label"], label, "{answer}");
    }
}

#[tokio::test]
async fn a_users_own_configuration_replaces_that_of_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.yaml");
    fs::write(
        &own,
        "pipeline:\n  input: {kind: rows}\n  output: {kind: raw, tensors: [label]}\n",
    )
    .unwrap();
    let file = ["--model-config", own.to_str().unwrap()];
    // As the operator hands it over: JSON on one line.
    let inline = r#"{"pipeline":{"input":{"kind":"rows","missing":"NaN"},"output":{"kind":"raw","tensors":["label"]}}}"#;
    for options in [file, ["--model-config-inline", inline]] {
        let server = serve("iris", &options).await;
        let answer = ask(&server, &json!([[5.9, 3.0, 5.1, 1.8]])).await;
        assert_eq!(
            answer["outputs"],
            json!([{ "name": "label", "datatype": "INT64", "shape": [1], "data": [2] }])
        );
    }
    let ended = support::fails_at(
        dir,
        &model("iris.tar.gz"),
        &["--model-config", "/none.yaml"],
    );
    assert!(
        ended
            .termination_log
            .contains("/none.yaml does not exist, although --model-config names it"),
        "{}",
        ended.termination_log
    );
}

#[tokio::test]
async fn a_tokenizer_that_is_none_ends_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = std::process::Command::new("tar")
        .arg("-xzf")
        .arg(model("minilm.tar.gz"))
        .arg("-C")
        .arg(dir.path())
        .status();
    assert!(unpacked.unwrap().success());
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let path = dir.path().join("model.onnx");
    let ended = support::fails_at(dir, &path, &[]);
    assert!(
        ended
            .termination_log
            .contains("the tokenizer tokenizer.json cannot be read"),
        "{}",
        ended.termination_log
    );
}
