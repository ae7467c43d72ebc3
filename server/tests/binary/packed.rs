//! Bodies packed with gzip, deflate and zstd, in both directions.

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn packed_bodies_are_read_and_bombs_are_not() {
    let server = Server::start(
        &onnx::identity(onnx::FLOAT, &[-1]),
        &["--max-body-bytes", "1000000"],
    )
    .await;
    let json = json!({ "inputs": [input("FP32", &[100_000], 400_000)], "parameters": { "binary_data_output": true } });
    let json = json.to_string();
    let tensors: Vec<u8> = (0..100_000)
        .flat_map(|i| ((i / 50) as f32).to_le_bytes())
        .collect();
    let plain = [json.as_bytes(), &tensors].concat();
    let packed = [
        ("gzip", gzip(&plain)),
        ("deflate", deflate(&plain)),
        ("zstd", zstd::bulk::compress(&plain, 1).unwrap()),
    ];
    for (coding, body) in packed {
        // The header counts the JSON as it is unpacked.
        let headers = [
            ("content-encoding", coding.to_owned()),
            (LENGTH, json.len().to_string()),
        ];
        let got = send(&server, &headers, body.clone()).await;
        assert!(!got.headers.contains_key("content-encoding"));
        assert_eq!(got.parts().1, tensors, "{coding}");
        let accept = [&headers[..], &[("accept-encoding", coding.to_owned())]].concat();
        let got = send(&server, &accept, body).await;
        assert_eq!(got.headers["content-encoding"], coding);
        let unpacked = match coding {
            "zstd" => zstd::bulk::decompress(&got.body, 1_000_000).unwrap(),
            "gzip" => read(flate2::read::GzDecoder::new(&got.body[..])),
            _ => read(flate2::read::ZlibDecoder::new(&got.body[..])),
        };
        let length: usize = got.headers[LENGTH].to_str().unwrap().parse().unwrap();
        assert_eq!(unpacked[length..], tensors, "{coding}");
    }
    let bomb = gzip(&vec![b' '; 50_000_000]);
    let got = send(&server, &[("content-encoding", "gzip".into())], bomb).await;
    assert_eq!(got.code, 413, "{}", got.error());
    assert!(
        got.error().contains("unpacks to more than 1000000"),
        "{}",
        got.error()
    );
    let got = send(
        &server,
        &[("content-encoding", "gzip".into())],
        b"{}".to_vec(),
    )
    .await;
    assert_eq!(got.code, 400, "{}", got.error());
    let got = send(
        &server,
        &[("content-encoding", "br".into())],
        b"{}".to_vec(),
    )
    .await;
    assert_eq!(got.code, 415, "{}", got.error());
    // A small answer is not worth packing.
    let small =
        json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1], "data": [1] }] });
    let got = send(
        &server,
        &[("accept-encoding", "gzip".into())],
        small.to_string().into(),
    )
    .await;
    assert!(!got.headers.contains_key("content-encoding"));
}

fn read(mut from: impl std::io::Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}
