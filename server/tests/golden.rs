//! The operator's golden sets against this server: what it makes of the real answers, tensors and photographs.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{path::Path, time::Duration};

use axum::{Router, body::Bytes, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use ortolan_operator::{
    golden::{Golden, Outcome, Pod, Reach},
    index::Key,
};
use serde_json::{Value, json};
use support::{Server, onnx};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

/// A golden set and an image beside it, as a store serves them.
async fn store(lines: &[Value], image: Vec<u8>) -> String {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let (set, image) = (lines.join("\n"), Bytes::from(image));
    let paths = Router::new()
        .route("/set/golden.jsonl", get(|| async { set }))
        .route("/set/images/leaf.png", get(|| async { image }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, paths).await.unwrap() });
    format!("http://{address}/set/golden.jsonl")
}

fn pod<'a>(revision: &'a str, server: &'a Server) -> Pod<'a> {
    Pod {
        revision,
        address: server.base.strip_prefix("http://").unwrap(),
        model: "m",
    }
}

/// What a set makes of a candidate, as a reconcile hears it.
async fn outcome(uri: &str, candidate: &Server, stable: &Server) -> Outcome {
    let (sender, mut triggers) = mpsc::unbounded_channel();
    let golden = Golden::new(Reach::Anywhere, sender).unwrap();
    let key = Key {
        namespace: "ns".into(),
        name: "m".into(),
    };
    let of = || golden.of(&key, uri, pod("m-2", candidate), Some(pod("m-1", stable)));
    assert_eq!(of(), None, "under way");
    let heard = timeout(Duration::from_secs(60), triggers.recv()).await;
    assert_eq!(heard.unwrap().as_ref(), Some(&key));
    of().unwrap()
}

/// Agreeing lines of the candidate and of the stable revision, of how many, and what is told.
fn judged(outcome: Outcome) -> (u32, Option<u32>, u32, Vec<String>) {
    let Outcome::Judged(judgement) = outcome else {
        panic!("{outcome:?}")
    };
    let stable = judgement.stable.map(|stable| stable.agreed);
    let candidate = judgement.candidate;
    (
        candidate.agreed,
        stable,
        candidate.all,
        judgement.disagreements,
    )
}

#[tokio::test]
async fn tensors_are_compared_with_a_tolerance_or_by_their_class() {
    let request = |values: Value| json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": values}]});
    let lines = [
        json!({"request": request(json!([1, 2])),
               "expected": {"outputs": [{"name": "y", "data": [[2, 4]]}], "tolerance": 0.2}}),
        json!({"request": request(json!([1, 2])),
               "expected": {"outputs": [{"name": "y", "data": [2, 4]}]}}),
        json!({"request": request(json!([1, 2])), "expected": {"class": 1}}),
        json!({"request": request(json!([2, 1])), "expected": {"class": 0, "output": "y"}}),
        json!({"request": request(json!([1, 2, 3])), "expected": {"class": 0}}),
    ];
    let uri = store(&lines, Vec::new()).await;
    let stable = Server::start(&onnx::scaled(2.0), &[]).await;
    let candidate = Server::start(&onnx::scaled(2.05), &[]).await;
    let (agreed, of_stable, all, told) = judged(outcome(&uri, &candidate, &stable).await);
    assert_eq!((agreed, of_stable, all), (3, Some(4), 5), "{told:?}");
    assert!(
        told[0]
            .starts_with(r#"line 2: the output "y" has 2 of 2 values differ by more than 0.001"#),
        "{told:?}"
    );
    // The server's own sentence about what does not fit.
    assert!(told[1].starts_with("line 5: 400: "), "{told:?}");
}

const PIPELINE: &str = "pipeline:
  input: {kind: image, width: 2, height: 2, resize: stretch, channels: RGB, layout: NCHW, mean: [0], std: [255]}
  output: {kind: classification, labels: labels.txt, softmax: true, topK: 2}
";

async fn colours(labels: &str) -> Server {
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    write(&path, &onnx::colours().encode_to_vec());
    write(&dir.path().join("model.yaml"), PIPELINE.as_bytes());
    write(&dir.path().join("labels.txt"), labels.as_bytes());
    Server::start_in(dir, &path, &["--max-concurrency", "1"]).await
}

fn photograph(colour: [u8; 3], format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(40, 30, image::Rgb(colour))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_candidate_whose_labels_are_shuffled_is_found_out_before_any_user_asks_it() {
    let red = STANDARD.encode(photograph([240, 10, 10], image::ImageFormat::Jpeg));
    let lines = [
        json!({"image": "images/leaf.png", "label": "green"}),
        json!({"image": red, "label": "red"}),
        json!({"image": STANDARD.encode("no photograph"), "label": "red"}),
    ];
    let leaf = photograph([10, 240, 10], image::ImageFormat::Png);
    let uri = store(&lines, leaf).await;
    let stable = colours("red\ngreen\nblue\n").await;
    let good = colours("red\ngreen\nblue\n").await;
    let (agreed, of_stable, all, told) = judged(outcome(&uri, &good, &stable).await);
    assert_eq!((agreed, of_stable, all), (2, Some(2), 3), "{told:?}");
    assert!(told[0].starts_with("line 3: 422: "), "{told:?}");
    let shuffled = colours("green\nred\nblue\n").await;
    let (agreed, of_stable, _, told) = judged(outcome(&uri, &shuffled, &stable).await);
    assert_eq!((agreed, of_stable), (0, Some(2)), "{told:?}");
    assert_eq!(
        told[..2],
        [
            r#"line 1: "red", not "green""#,
            r#"line 2: "green", not "red""#
        ]
    );
}
