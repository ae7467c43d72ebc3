//! What fuzzing begins with: good inputs of every kind, and some that are bad in a known way.

use std::io::{Cursor, Write};

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use image::ImageFormat;
use ortolan_server::grpc::proto::{
    self, InferParameter, InferTensorContents,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use prost::Message;

use crate::world::{TOKENIZER, names, onnx};

type Seeds = Vec<Vec<u8>>;

const ROW: &str =
    r#"{"id":"1","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1.5,-2]]}]}"#;
const TWO: &str = r#"{"inputs":[{"name":"a","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]},{"name":"b","datatype":"FP32","shape":[2,2],"data":[1e3,0.5,"NaN","-Infinity"]}],"outputs":[{"name":"difference","parameters":{"classification":1}},{"name":"sum"}],"parameters":{"priority":1,"timeout":500000}}"#;

fn model(name: &str) -> u8 {
    let place = names().iter().position(|known| known == name);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or_default()
}

fn chosen(choice: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    [&[choice][..], body.as_ref()].concat()
}

/// Whole requests.
#[must_use]
pub fn rest() -> Seeds {
    let mut seeds: Seeds = [
        "GET /",
        "GET /v2",
        "GET /metrics",
        "GET /openapi.json\nAccept-Encoding: gzip;q=0.5, zstd",
        "GET /healthz/startup",
        "HEAD /v2/health/ready",
        "OPTIONS /v2",
        "GET /v2/models/sum/versions/1/config",
        "GET /v2/models/sum/stats",
        "GET /v2/models/%73um/ready",
        "POST /v2/repository/index\n\n{\"ready\":true}",
        "POST /v2/repository/models/sum/load\n\n{}",
        "POST /v2/repository/models/sum/unload\n\n{}",
        "GET /v1/models/sum",
        "POST /v1/models/rows:predict\n\n{\"instances\":[[1,2,3],{\"x\":[1,2,3]}]}",
        "POST /v1/embeddings\n\n{\"model\":\"text\",\"input\":[\"a quick fox\",\"fox\"],\"encoding_format\":\"base64\"}",
        "POST /v1/embeddings\n\n{\"model\":\"text\",\"input\":[[1,2],[3]],\"dimensions\":1}",
        "POST /predict/rows\nContent-Type: text/csv; header=absent\n\n1,2,3\n4,,6\n",
        "POST /predict/text\nContent-Type: text/plain\nX-Request-Id: abc\n\na quick fox",
        "POST /v2/models/fp32/infer\nContent-Type: application/grpc\n\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let path = "POST /v2/models/fp32/infer\nContent-Type: application/json\n";
    for header in [
        "X-Request-Timeout: 250ms\n",
        "Content-Encoding: gzip\n",
        "Inference-Header-Content-Length: 0\n",
        "Inference-Header-Content-Length: 10\n",
        "Accept-Encoding: *;q=0\n",
    ] {
        seeds.push(format!("{path}{header}\n{ROW}").into_bytes());
    }
    seeds
}

/// Elements of one tensor.
#[must_use]
pub fn elements() -> Seeds {
    let mut seeds = Seeds::new();
    for datatype in 0..onnx::DATATYPES.len() as u8 {
        for text in [
            "[1, 0, 1]",
            "[[1],[0]]",
            "[1.5,-2e3,0.1]",
            "[\"a\",\"\\u00e9\"]",
            "[true,false]",
            "[\"NaN\",\"-Infinity\"]",
            "[]",
            "[[],[]]",
            "7",
            "[-9223372036854775808]",
            "[18446744073709551615]",
        ] {
            seeds.push([&[datatype, 0][..], text.as_bytes()].concat());
        }
        seeds.push([&[datatype, 1][..], &[0, 1, 0, 1, 0, 0, 0, 0]].concat());
        seeds.push([&[datatype, 5][..], &[2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]].concat());
    }
    seeds
}

/// Bodies of V2 requests.
#[must_use]
pub fn v2() -> Seeds {
    let mut seeds = vec![
        chosen(model("fp32"), ROW),
        chosen(model("sum"), TWO),
        chosen(
            model("scalar"),
            r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[],"data":[7]}]}"#,
        ),
        chosen(
            model("free"),
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[3,0,2],"data":[]}]}"#,
        ),
        chosen(
            model("free"),
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2,1],"data":[[[1],[2]]]}],"outputs":[{"name":"y","parameters":{"classification":2}}]}"#,
        ),
        chosen(
            model("gather"),
            r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[3],"data":[0,1,5]}]}"#,
        ),
        chosen(
            model("offset"),
            r#"{"inputs":[{"name":"offset","datatype":"FP32","shape":[1],"data":[1]},{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#,
        ),
        chosen(
            model("odd"),
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[0,-1,1]}],"parameters":{"binary_data_output":true}}"#,
        ),
    ];
    for (name, _) in onnx::DATATYPES {
        let data = match name {
            "BOOL" => "[true,false]",
            "BYTES" => r#"["a","\u00e9\n"]"#,
            _ => "[1,0]",
        };
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{name}","shape":[1,2],"data":{data}}}],"outputs":[{{"name":"y"}}]}}"#
        );
        seeds.push(chosen(model(&name.to_lowercase()), body));
    }
    seeds
}

/// Bodies with tensors behind their JSON.
#[must_use]
pub fn tensors() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, _) in onnx::DATATYPES {
        let raw: &[u8] = match name {
            "BYTES" => b"\x01\0\0\0a\x02\0\0\0bc",
            "BOOL" | "INT8" | "UINT8" => &[1, 0],
            "FP16" | "BF16" | "INT16" | "UINT16" => &[0, 60, 0, 0],
            "FP32" | "INT32" | "UINT32" => &[0, 0, 128, 63, 0, 0, 0, 0],
            _ => &[1; 16],
        };
        let json = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{name}","shape":[1,2],"parameters":{{"binary_data_size":{}}}}}],"outputs":[{{"name":"y","parameters":{{"binary_data":true}}}}]}}"#,
            raw.len()
        );
        let length = (json.len() as u16).to_le_bytes();
        let choice = model(&name.to_lowercase());
        seeds.push([&[choice], &length[..], json.as_bytes(), raw].concat());
        seeds.push([&[choice, 0, 0], raw].concat());
    }
    seeds
}

/// Packed bodies, a bomb among them.
#[must_use]
pub fn packed() -> Seeds {
    let body = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1,1],"data":[1]}]}"#;
    let zeros = vec![b' '; 3 << 20];
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 1).expect("zstd packs");
    let mut seeds = Seeds::new();
    for plain in [&body[..], &zeros] {
        seeds.push(chosen(0, gzip(plain)));
        seeds.push(chosen(130, zlib(plain)));
        seeds.push(chosen(2, zstd(plain)));
    }
    seeds.push(chosen(0, [gzip(b"{"), gzip(b"}")].concat()));
    seeds
}

/// Bodies for pipelines.
#[must_use]
pub fn predict() -> Seeds {
    let kind = |path: u8, kind: u8| path + 6 * kind;
    vec![
        chosen(kind(0, 2), "a quick brown fox"),
        chosen(
            kind(0, 1),
            r#"{"inputs":["a","quick fox"],"parameters":{"top_k":2}}"#,
        ),
        chosen(kind(0, 0), r#"["fox"]"#),
        chosen(kind(1, 1), r#"{"inputs":[[1,2,3],[4,null,6]]}"#),
        chosen(
            kind(1, 1),
            r#"{"inputs":[{"a":1,"c":3},{"c":1,"b":2,"a":3}]}"#,
        ),
        chosen(kind(1, 3), "c,a,b\n1,2,3\n\"4\",5,\n"),
        chosen(kind(1, 4), "1,2,3\n4,5,6\n"),
        chosen(kind(2, 0), "  some bytes of a file "),
        chosen(kind(3, 0), picture(ImageFormat::Png)),
        chosen(kind(3, 5), picture(ImageFormat::Jpeg)),
        chosen(
            kind(4, 1),
            r#"{"model":"text","input":["a quick","fox"],"user":"u"}"#,
        ),
        chosen(
            kind(4, 1),
            r#"{"model":"text","input":[1,2,3],"encoding_format":"float"}"#,
        ),
        chosen(kind(5, 1), r#"{"instances":[[1,2,3],[4,5,6]]}"#),
        chosen(kind(5, 1), r#"{"instances":[{"x":[1,2,3]}]}"#),
    ]
}

/// Calls of gRPC.
#[must_use]
pub fn grpc() -> Seeds {
    let request = |name: &str, datatype: &str, raw: Option<&[u8]>| {
        let contents = raw.is_none().then(|| InferTensorContents {
            fp32_contents: vec![1.0, 2.0],
            ..InferTensorContents::default()
        });
        let output = InferRequestedOutputTensor {
            name: "y".into(),
            ..InferRequestedOutputTensor::default()
        };
        let input = InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: vec![1, 2],
            contents,
            ..InferInputTensor::default()
        };
        let choice = ParameterChoice::Int64Param(2);
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        let message = proto::ModelInferRequest {
            model_name: name.into(),
            id: "1".into(),
            inputs: vec![input],
            outputs: vec![output],
            parameters: [("priority".to_owned(), parameter)].into(),
            raw_input_contents: raw.into_iter().map(|raw| raw.to_vec().into()).collect(),
            ..proto::ModelInferRequest::default()
        };
        message.encode_to_vec()
    };
    let typed = request("fp32", "FP32", None);
    let frame = [&[0, 0, 0, 0, typed.len() as u8][..], &typed].concat();
    let ready = proto::ModelReadyRequest {
        name: "sum".into(),
        version: "1".into(),
    };
    let mut seeds = vec![
        chosen(0, request("fp32", "FP32", Some(&[0; 8]))),
        chosen(1, request("bytes", "BYTES", Some(b"\x01\0\0\0a\0\0\0\0"))),
        chosen(2, request("int64", "INT64", Some(&[1; 16]))),
        chosen(80, frame),
        chosen(96, gzip(&typed)),
        chosen(112, zstd::bulk::compress(&typed, 1).expect("zstd packs")),
        chosen(4, typed.clone()),
        chosen(3, typed),
    ];
    seeds.extend((5..16).map(|call| chosen(call, ready.encode_to_vec())));
    seeds
}

/// Photographs.
#[must_use]
pub fn image() -> Seeds {
    let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    let mut seeds: Seeds = formats.map(|format| chosen(0, picture(format))).into();
    let deep = image::ImageBuffer::from_fn(4, 4, |x, y| {
        image::Rgba([x as u16 * 9999, y as u16, 7, 65535])
    });
    seeds.push(chosen(130, encoded(&deep.into(), ImageFormat::Png)));
    let grey = image::GrayImage::from_fn(9, 2, |x, _| image::Luma([x as u8]));
    seeds.push(chosen(3, encoded(&grey.into(), ImageFormat::Jpeg)));
    seeds
}

fn picture(format: ImageFormat) -> Vec<u8> {
    let colours =
        image::RgbImage::from_fn(13, 9, |x, y| image::Rgb([x as u8 * 19, y as u8 * 28, 99]));
    encoded(&colours.into(), format)
}

fn encoded(image: &image::DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("an image that encodes");
    bytes.into_inner()
}

/// Archives, a bomb among them.
#[must_use]
pub fn archive() -> Seeds {
    let yaml = "batching: {enabled: false}\n";
    let files: [(&str, &[u8]); 3] = [
        ("m/model.onnx", b"\x08\x08\x12\x01p"),
        ("m/model.yaml", yaml.as_bytes()),
        ("m/a/b", b"c"),
    ];
    let tar = tar(&files);
    let zeros = vec![0; 6 << 20];
    vec![
        chosen(0, &tar),
        chosen(1, gzip(&tar)),
        chosen(2, zstd::bulk::compress(&tar, 1).expect("zstd packs")),
        chosen(3, zip(&files)),
        chosen(
            0,
            self::tar(&[("model.onnx", b"\x08\x08"), ("._model.onnx", b"x")]),
        ),
        chosen(1, gzip(&self::tar(&[("model.onnx", &zeros)]))),
        chosen(3, zip(&[("model.onnx", &zeros)])),
    ]
}

/// Models.
#[must_use]
pub fn onnx() -> Seeds {
    let (external, _) = onnx::external(1.0, 4);
    [
        onnx::sum_and_difference(),
        onnx::optional_offset(),
        onnx::sequence_output(),
        onnx::custom_operator(),
        onnx::first_row(),
        onnx::colours(),
        external,
    ]
    .iter()
    .map(Message::encode_to_vec)
    .collect()
}

/// Triton's configuration.
#[must_use]
pub fn pbtxt() -> Seeds {
    [
        "name: \"m\" platform: \"onnxruntime_onnx\" max_batch_size: 8\ninput [{ name: \"x\" data_type: TYPE_FP32 dims: [ 2 ] }]\noutput { name: 'y' data_type: TYPE_FP32, dims: 2; label_filename: \"l.txt\" }",
        "dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 priority_levels: 3 default_priority_level: 2 default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 5 max_queue_size: 7 } }",
        "instance_group [{ count: 2 kind: KIND_CPU }] version_policy { specific { versions: [1, 3] } }\nversion_policy: { latest { num_versions: 2 } }",
        "optimization { graph { level: -1 } execution_accelerators { gpu_execution_accelerator: [{ name: \"tensorrt\" parameters { key: \"a\" value: \"b\" } }] } }",
        "parameters { key: \"intra_op_thread_count\" value: { string_value: \"2\" } } model_warmup [{ name: \"w\" batch_size: 2 inputs { key: \"x\" value: { data_type: TYPE_FP32 dims: [2] zero_data: true } } }]",
        "response_cache { enable: false } default_model_filename: \"a\\x2eonnx\" # a comment\nensemble_scheduling {}",
        "sequence_batching { } model_transaction_policy { decoupled: true } unknown < a: 1.5e3 b: [ -inf, 0x1F ] >",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// Pipelines.
#[must_use]
pub fn yaml() -> Seeds {
    [
        "pipeline:\n  input: {kind: image, width: 224, height: 224, resize: fit, shortSide: 256, channels: BGR, layout: NHWC, mean: [127], std: [1, 2, 3]}\n  output: {kind: classification, labels: labels.txt, softmax: true, topK: 3, threshold: 0.5}\n",
        "pipeline:\n  input:\n    kind: text\n    tokenizer: tokenizer.json\n    maxTokens: 16\n    overflow: refuse\n  output: {kind: embedding, pooling: cls, normalize: false, tensor: y}\n",
        "pipeline: {input: {kind: bytes, head: 8, tail: 8, block: 64, padding: 256, strip: true}, output: {kind: raw, tensors: [a, b]}}\nbatching: {enabled: true, maxBatch: 16, preferred: [8, 16], maxDelay: 2ms}\n",
        "pipeline:\n  input: {kind: rows, columns: [age, {name: town, missing: unknown}], missing: .nan}\n  output: &a {kind: raw}\n",
        "batching: {maxDelay: 500us}\n---\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([TOKENIZER.as_bytes().to_vec()])
    .collect()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(plain)
        .and_then(|()| out.finish())
        .expect("gzip packs")
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    out.write_all(plain)
        .and_then(|()| out.finish())
        .expect("deflate packs")
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, *content)
            .expect("tar packs");
    }
    out.into_inner().expect("tar ends")
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let options = zip::write::SimpleFileOptions::default();
        out.start_file(*name, options).expect("zip packs");
        out.write_all(content).expect("zip packs");
    }
    out.finish().expect("zip ends").into_inner()
}
