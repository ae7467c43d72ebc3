use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn counted(bytes: &[u8]) -> Result<Census, NotOnnx> {
    read(&mut Cursor::new(bytes), bytes.len() as u64)
}

fn part(number: u32, content: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut field);
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

fn number(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(field << 3), &mut bytes);
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

fn node(op: &str, domain: &str, inputs: &[&str], outputs: &[&str], more: &[u8]) -> Vec<u8> {
    let mut node = Vec::new();
    for name in inputs {
        node.extend(part(1, name.as_bytes()));
    }
    for name in outputs {
        node.extend(part(2, name.as_bytes()));
    }
    node.extend(part(4, op.as_bytes()));
    node.extend(part(7, domain.as_bytes()));
    node.extend_from_slice(more);
    node
}

/// A float tensor's type; `Err` names an open dimension.
fn value(name: &str, dims: &[Result<u64, &str>]) -> Vec<u8> {
    let mut shape = Vec::new();
    for dim in dims {
        let dim = match dim {
            Ok(size) => number(1, *size),
            Err(name) => part(2, name.as_bytes()),
        };
        shape.extend(part(1, &dim));
    }
    let tensor = [number(1, 1), part(2, &shape)].concat();
    [part(1, name.as_bytes()), part(2, &part(1, &tensor))].concat()
}

fn weights(name: &str, dims: &[u64], element: u64, content: &[u8]) -> Vec<u8> {
    let mut tensor: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    tensor.extend(number(2, element));
    tensor.extend(part(8, name.as_bytes()));
    tensor.extend_from_slice(content);
    tensor
}

fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    let opset = number(2, 17);
    [
        number(1, 9),
        part(2, b"pytorch"),
        part(3, b"2.5.1"),
        number(5, 3),
        part(7, &graph.concat()),
        part(8, &opset),
        part(14, &[part(1, b"author"), part(2, b"somebody")].concat()),
    ]
    .concat()
}

/// x [batch,4] → MatMul w → h [batch,1000] → Relu → r → MatMul v → y [batch,2]
fn chain() -> Vec<Vec<u8>> {
    vec![
        part(2, b"main"),
        part(1, &node("MatMul", "", &["x", "w"], &["h"], &[])),
        part(1, &node("Relu", "ai.onnx", &["h"], &["r"], &[])),
        part(1, &node("MatMul", "", &["r", "v"], &["y"], &[])),
        part(5, &weights("w", &[4, 1000], 1, &part(9, &[0; 16000]))),
        part(5, &weights("v", &[1000, 2], 1, &part(9, &[0; 8000]))),
        part(11, &value("x", &[Err("batch"), Ok(4)])),
        part(12, &value("y", &[Err("batch"), Ok(2)])),
        part(13, &value("h", &[Err("batch"), Ok(1000)])),
        part(13, &value("r", &[Err("batch"), Ok(1000)])),
    ]
}

#[test]
fn a_model_is_counted_whole() {
    let census = counted(&model(&chain())).unwrap();
    assert_eq!(census.ir_version, 9);
    assert_eq!(census.producer, "pytorch 2.5.1");
    assert_eq!(census.model_version, 3);
    assert_eq!(census.graph, "main");
    assert_eq!(census.metadata["author"], "somebody");
    assert_eq!(census.opsets["ai.onnx"], 17);
    let operators: Vec<_> = census.operators.iter().collect();
    assert_eq!(
        operators,
        [
            (&(String::new(), "MatMul".to_owned()), &2),
            (&(String::new(), "Relu".to_owned()), &1)
        ]
    );
    assert_eq!(census.nodes(), 3);
    let weights = &census.parameters;
    assert_eq!(
        (weights.tensors, weights.count, weights.bytes),
        (2, 6000, 24000)
    );
    assert_eq!(weights.by_type["FP32"], 24000);
    let batch = || Dim::Named("batch".to_owned());
    let shape = |value: &Value| match &value.kind {
        Kind::Tensor {
            shape: Some(shape), ..
        } => shape.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shape(&census.inputs[0]), [batch(), Dim::Fixed(4)]);
    assert_eq!(shape(&census.outputs[0]), [batch(), Dim::Fixed(2)]);
}

#[test]
fn a_value_lives_from_the_node_that_makes_it_to_the_last_that_reads_it() {
    let census = counted(&model(&chain())).unwrap();
    // At Relu h and r live beside each other, 4000 bytes each; x has died at MatMul.
    assert_eq!(
        census.activations,
        Activations {
            peak_bytes: 8000,
            known: 4,
            values: 4
        }
    );
    let mut without_shapes = chain();
    without_shapes.truncate(8);
    let census = counted(&model(&without_shapes)).unwrap();
    assert_eq!(
        census.activations,
        Activations {
            peak_bytes: 16,
            known: 2,
            values: 4
        }
    );
}

#[test]
fn tensors_in_attributes_and_graphs_in_nodes_count() {
    let constant = part(5, &part(5, &weights("", &[3], 7, &part(9, &[0; 24]))));
    let body = [
        part(1, &node("Add", "", &["a", "b"], &["c"], &[])),
        part(1, &node("Fancy", "acme", &["c"], &["d"], &[])),
    ]
    .concat();
    let branch = part(5, &part(6, &body));
    let graph = [
        part(1, &node("Constant", "", &[], &["k"], &constant)),
        part(1, &node("If", "", &["k"], &["y"], &branch)),
    ];
    let census = counted(&model(&graph)).unwrap();
    assert_eq!(census.nodes(), 4);
    assert_eq!(census.parameters.bytes, 24);
    assert_eq!(census.parameters.by_type["INT64"], 24);
    let custom: Vec<_> = census.custom_operators().collect();
    assert_eq!(custom, [("acme", "Fancy")]);
}

#[test]
fn an_input_with_a_default_in_the_file_is_marked() {
    let graph = [
        part(1, &node("Add", "", &["x", "bias"], &["y"], &[])),
        part(5, &weights("bias", &[2], 1, &part(9, &[0; 8]))),
        part(11, &value("x", &[Ok(2)])),
        part(11, &value("bias", &[Ok(2)])),
    ];
    let census = counted(&model(&graph)).unwrap();
    let marked: Vec<_> = census
        .inputs
        .iter()
        .map(|input| (input.name.as_str(), input.has_default))
        .collect();
    assert_eq!(marked, [("x", false), ("bias", true)]);
}

#[test]
fn data_in_other_files_is_added_up_by_file() {
    let entry = |key: &str, value: &str| {
        part(
            13,
            &[part(1, key.as_bytes()), part(2, value.as_bytes())].concat(),
        )
    };
    let outside = |offset: &str| {
        [
            number(14, 1),
            entry("location", "w.bin"),
            entry("offset", offset),
            entry("length", "400"),
        ]
        .concat()
    };
    let graph = [
        part(5, &weights("a", &[100], 1, &outside("0"))),
        part(5, &weights("b", &[100], 1, &outside("4096"))),
    ];
    let census = counted(&model(&graph)).unwrap();
    assert_eq!(census.parameters.bytes, 800);
    assert_eq!(
        census.parameters.external["w.bin"],
        External {
            tensors: 2,
            bytes: 800,
            end: 4496
        }
    );
}

#[test]
fn elements_smaller_than_a_byte_and_strings_are_counted_as_they_lie() {
    let texts = [part(6, b"daisy"), part(6, b"palace")].concat();
    let graph = [
        part(5, &weights("q", &[3], 22, &part(9, &[0; 2]))),
        part(5, &weights("labels", &[2], 8, &texts)),
        part(5, &weights("huge", &[1 << 40, 1 << 40], 1, &[])),
    ];
    let census = counted(&model(&graph)).unwrap();
    assert_eq!(census.parameters.by_type["INT4"], 2);
    assert_eq!(census.parameters.by_type["BYTES"], 11);
    assert_eq!(
        census.parameters.by_type["FP32"], 0,
        "a product that overflows"
    );
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut body = part(1, &node("Add", "", &[], &[], &[]));
    for _ in 0..100 {
        body = part(1, &node("Loop", "", &[], &[], &part(5, &part(6, &body))));
    }
    let refused = counted(&model(&[body])).unwrap_err();
    assert!(refused.to_string().contains("nested deeper"), "{refused}");
}

proptest! {
    #[test]
    fn whatever_bytes_come_there_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = counted(&bytes);
        let mut after_a_start = number(1, 9);
        after_a_start.extend(part(7, &bytes));
        let _ = counted(&after_a_start);
    }

    #[test]
    fn a_model_with_a_broken_byte_gives_an_answer(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = model(&chain());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = counted(&bytes);
    }
}
