use super::*;
use crate::tool::inputs::NamedTensor;

fn feed() -> Feed {
    let named = |name: &str, datatype, shape: &[i64], elements| NamedTensor {
        name: name.into(),
        datatype,
        tensor: Tensor {
            shape: shape.to_vec(),
            elements,
        },
    };
    vec![
        named(
            "x",
            DataType::Fp32,
            &[1, 2],
            Elements::Fp32(vec![0.1, -2.0]),
        ),
        named(
            "t",
            DataType::Bytes,
            &[2],
            Elements::Bytes(vec!["ü".into(), String::new()]),
        ),
        named("m", DataType::Bool, &[1], Elements::Bool(vec![true])),
    ]
}

#[test]
fn tensors_as_json_are_what_v2_reads() {
    let body: Json = serde_json::from_slice(&text(&feed()).bytes).unwrap();
    assert_eq!(
        body["inputs"][0],
        json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.1, -2.0]})
    );
    assert_eq!(body["inputs"][1]["data"], json!(["ü", ""]));
    assert_eq!(body["inputs"][2]["data"], json!([true]));
    for datatype in DataType::ALL {
        let shapes = [("x".to_owned(), datatype, vec![2, 3])];
        let feed = inputs::random(&shapes, &mut fastrand::Rng::with_seed(3));
        let line = String::from_utf8(text(&feed).bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data.jsonl");
        fs::write(&file, line).unwrap();
        assert_eq!(inputs::read(&file).unwrap(), [feed], "{datatype}");
    }
}

#[test]
fn binary_tensors_follow_their_header_in_its_order() {
    let body = binary(&feed());
    let length: usize = body
        .headers
        .iter()
        .find(|(name, _)| name == "inference-header-content-length")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap();
    let header: Json = serde_json::from_slice(&body.bytes[..length]).unwrap();
    let sizes: Vec<u64> = header["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|input| input["parameters"]["binary_data_size"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [8, 10, 1]);
    assert_eq!(header["parameters"]["binary_data_output"], true);
    let raw = &body.bytes[length..];
    assert_eq!(raw[..4], 0.1_f32.to_le_bytes());
    assert_eq!(raw[8..], [2, 0, 0, 0, 0xc3, 0xbc, 0, 0, 0, 0, 1]);
}

#[test]
fn a_head_has_each_header_once_and_the_users_win() {
    let base = Base {
        address: ([127, 0, 0, 1], 80).into(),
        host: "a.b:80".into(),
        prefix: String::new(),
    };
    let headers = ["X-Token: 7", "user-agent: me"].map(|header| header.parse().unwrap());
    let body = json_body(b"{}".to_vec());
    let whole = assemble("POST", "/v2", &base, &body, &headers).unwrap();
    let text = String::from_utf8(whole).unwrap();
    assert_eq!(
        text,
        "POST /v2 HTTP/1.1\r\nhost: a.b:80\r\ncontent-type: application/json\r\nX-Token: 7\r\n\
         user-agent: me\r\ncontent-length: 2\r\n\r\n{}"
    );
    assert!(assemble("POST", "/a b", &base, &body, &[]).is_err());
}

#[test]
fn a_header_that_is_none_is_refused() {
    for text in ["no colon", ": x", "a b: c", "x: a\nb", "Content-Length: 3"] {
        assert!(text.parse::<Header>().is_err(), "{text}");
    }
    let header: Header = "Authorization: Bearer a:b".parse().unwrap();
    assert_eq!(header.value, "Bearer a:b");
}
