//! Photographs as `curl` sends them.

use super::*;

const PIPELINE: &str = "pipeline:
  input: {kind: image, width: 2, height: 2, resize: stretch, channels: RGB, layout: NCHW, mean: [0], std: [255]}
  output: {kind: classification, labels: labels.txt, softmax: true, topK: 2}
";

async fn colours() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, onnx::colours().encode_to_vec()).unwrap();
    std::fs::write(dir.path().join("model.yaml"), PIPELINE).unwrap();
    std::fs::write(dir.path().join("labels.txt"), "red\ngreen\nblue\n").unwrap();
    Server::start_in(dir, &path, &[]).await
}

fn picture(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(40, 30, image::Rgb([10, 240, 10]))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_photograph_gives_labels_whatever_curl_calls_it() {
    let server = colours().await;
    use image::ImageFormat::{Jpeg, Png, WebP};
    for format in [Jpeg, Png, WebP] {
        for kind in [
            Some(format.to_mime_type()),
            Some("application/x-www-form-urlencoded"),
            None,
        ] {
            let mut request = reqwest::Client::new()
                .post(server.url("/predict/m"))
                .body(picture(format));
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{format:?} as {kind:?}");
            let answer: Value = response.json().await.unwrap();
            assert_eq!(
                (answer["model"].as_str(), answer["version"].as_str()),
                (Some("m"), Some("1"))
            );
            let predictions = answer["predictions"].as_array().unwrap();
            assert_eq!(predictions.len(), 2);
            assert_eq!(
                (
                    predictions[0]["label"].as_str(),
                    predictions[0]["index"].as_u64()
                ),
                (Some("green"), Some(1))
            );
            assert!(
                (0.5..0.6).contains(&predictions[0]["probability"].as_f64().unwrap()),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_photograph_is_422_and_what_is_not_read_is_415() {
    let server = colours().await;
    let jpeg = picture(image::ImageFormat::Jpeg);
    let cases: [(&str, Vec<u8>, u16, &str); 6] = [
        ("image/jpeg", b"not a picture".to_vec(), 422, "not JPEG"),
        ("image/jpeg", jpeg[..300].to_vec(), 422, "JPEG"),
        (
            "application/x-www-form-urlencoded",
            b"a=b".to_vec(),
            422,
            "JPEG, PNG or WebP",
        ),
        ("image/png", Vec::new(), 422, "empty"),
        ("image/gif", b"GIF89a".to_vec(), 415, "image/gif"),
        ("application/json", b"{}".to_vec(), 415, "application/json"),
    ];
    for (kind, body, code, part) in cases {
        let request = reqwest::Client::new()
            .post(server.url("/predict/m"))
            .header("content-type", kind);
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), code, "{kind}");
        let answer: Value = response.json().await.unwrap();
        assert!(
            answer["error"].as_str().unwrap().contains(part),
            "{kind}: {answer}"
        );
    }
    let plain = Server::start(&onnx::identity(onnx::FLOAT, &[2]), &[]).await;
    let (code, answer) = plain.post("/predict/m", jpeg).await;
    assert_eq!(code, 415, "{answer}");
    assert!(
        answer["error"].as_str().unwrap().contains("tensors only"),
        "{answer}"
    );
}

#[tokio::test]
async fn labels_that_do_not_match_the_model_are_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, onnx::colours().encode_to_vec()).unwrap();
    std::fs::write(dir.path().join("model.yaml"), PIPELINE).unwrap();
    std::fs::write(dir.path().join("labels.txt"), "red\ngreen\n").unwrap();
    let ended = tokio::task::spawn_blocking(move || support::fails_at(dir, &path, &[]))
        .await
        .unwrap();
    assert_eq!(ended.code, 20, "{}", ended.stderr);
    assert!(
        ended.termination_log.contains("2 lines"),
        "{}",
        ended.termination_log
    );
}
