//! Writes tiny ONNX models: messages by hand, only the fields that the tests need.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opsets: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializers: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub inputs: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub outputs: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(string, tag = "4")]
    pub op: String,
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "3")]
    pub int: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(message, optional, tag = "6")]
    pub graph: Option<Graph>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub element: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes, tag = "9")]
    pub raw: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    pub external: Vec<StringPair>,
    #[prost(int32, tag = "14")]
    pub location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct StringPair {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
    #[prost(message, optional, boxed, tag = "4")]
    pub sequence: Option<Box<Sequence>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sequence {
    #[prost(message, optional, boxed, tag = "1")]
    pub element: Option<Box<Type>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

/// Every datatype of the protocol with ONNX's number for it.
pub const DATATYPES: [(&str, i32); 14] = [
    ("FP32", 1),
    ("UINT8", 2),
    ("INT8", 3),
    ("UINT16", 4),
    ("INT16", 5),
    ("INT32", 6),
    ("INT64", 7),
    ("BYTES", 8),
    ("BOOL", 9),
    ("FP16", 10),
    ("FP64", 11),
    ("UINT32", 12),
    ("UINT64", 13),
    ("BF16", 16),
];

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;

/// A tensor's type; -1 is a free dimension, all of one name on the first axis.
pub fn tensor(name: &str, element: i32, dims: &[i64]) -> ValueInfo {
    let dim = |(axis, size): (usize, &i64)| match size {
        -1 => Dim {
            value: None,
            name: Some(if axis == 0 {
                "batch".into()
            } else {
                format!("{name}_{axis}")
            }),
        },
        size => Dim {
            value: Some(*size),
            name: None,
        },
    };
    let shape = Shape {
        dims: dims.iter().enumerate().map(dim).collect(),
    };
    let kind = Type {
        tensor: Some(TensorType {
            element,
            shape: Some(shape),
        }),
        sequence: None,
    };
    ValueInfo {
        name: name.into(),
        kind: Some(kind),
    }
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Node {
        op: op.into(),
        inputs: owned(inputs),
        outputs: owned(outputs),
        ..Node::default()
    }
}

pub fn float_initializer(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        element: FLOAT,
        name: name.into(),
        raw: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        ..TensorProto::default()
    }
}

pub fn int_initializer(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        element: INT64,
        name: name.into(),
        raw: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        ..TensorProto::default()
    }
}

pub fn attribute_int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        int: value,
        kind: 2,
        ..Attribute::default()
    }
}

pub fn attribute_ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.to_vec(),
        kind: 7,
        ..Attribute::default()
    }
}

pub fn model(opset: i64, graph: Graph) -> Model {
    let graph = Graph {
        name: "test".into(),
        ..graph
    };
    Model {
        ir_version: 8,
        graph: Some(graph),
        opsets: vec![Opset {
            domain: String::new(),
            version: opset,
        }],
    }
}

/// y = x
pub fn identity(element: i32, dims: &[i64]) -> Model {
    let graph = Graph {
        nodes: vec![node("Identity", &["x"], &["y"])],
        inputs: vec![tensor("x", element, dims)],
        outputs: vec![tensor("y", element, dims)],
        ..Graph::default()
    };
    model(17, graph)
}

/// sum = a + b, difference = a - b, all of them [batch, 2].
pub fn sum_and_difference() -> Model {
    let graph = Graph {
        nodes: vec![
            node("Add", &["a", "b"], &["sum"]),
            node("Sub", &["a", "b"], &["difference"]),
        ],
        inputs: vec![tensor("a", FLOAT, &[-1, 2]), tensor("b", FLOAT, &[-1, 2])],
        outputs: vec![
            tensor("sum", FLOAT, &[-1, 2]),
            tensor("difference", FLOAT, &[-1, 2]),
        ],
        ..Graph::default()
    };
    model(17, graph)
}

/// y = x * factor, both [batch, 2]: tells one version of a model from another.
pub fn scaled(factor: f32) -> Model {
    let graph = Graph {
        nodes: vec![node("Mul", &["x", "factor"], &["y"])],
        initializers: vec![float_initializer("factor", &[1], &[factor])],
        inputs: vec![tensor("x", FLOAT, &[-1, 2])],
        outputs: vec![tensor("y", FLOAT, &[-1, 2])],
        ..Graph::default()
    };
    model(17, graph)
}

/// y = x * weights, all of them [n]; the weights lie beside the model in `weights.bin`, the second value.
pub fn external(weight: f32, n: i64) -> (Model, Vec<u8>) {
    let pair = |key: &str, value: &str| StringPair {
        key: key.into(),
        value: value.into(),
    };
    let weights = TensorProto {
        dims: vec![n],
        element: FLOAT,
        name: "weights".into(),
        external: vec![pair("location", "weights.bin")],
        location: 1,
        ..TensorProto::default()
    };
    let graph = Graph {
        nodes: vec![node("Mul", &["x", "weights"], &["y"])],
        initializers: vec![weights],
        inputs: vec![tensor("x", FLOAT, &[n])],
        outputs: vec![tensor("y", FLOAT, &[n])],
        ..Graph::default()
    };
    let bytes = vec![weight; n as usize]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    (model(17, graph), bytes)
}

/// Multiplies [batch, n] by itself `steps` times: as slow as the test wants.
pub fn slow(n: i64, steps: usize) -> Model {
    let square = vec![0.5 / n as f32; (n * n) as usize];
    let name = |step: usize| {
        if step == 0 {
            "x".to_owned()
        } else {
            format!("h{step}")
        }
    };
    let mut nodes: Vec<Node> = (0..steps)
        .map(|step| node("MatMul", &[&name(step), "w"], &[&name(step + 1)]))
        .collect();
    nodes.push(node("Identity", &[&name(steps)], &["y"]));
    let graph = Graph {
        nodes,
        initializers: vec![float_initializer("w", &[n, n], &square)],
        inputs: vec![tensor("x", FLOAT, &[-1, n])],
        outputs: vec![tensor("y", FLOAT, &[-1, n])],
        ..Graph::default()
    };
    model(17, graph)
}

/// As slow as [`slow`], in a loop: one copy of the weights in memory, where ONNX Runtime packs them for each step of `slow`
/// (4 MB each for n = 1024), and loaded at once.
pub fn slow_loop(n: i64, steps: i64) -> Model {
    let square = vec![0.5 / n as f32; (n * n) as usize];
    let body = Graph {
        name: "body".into(),
        nodes: vec![
            node("MatMul", &["h", "w"], &["next"]),
            node("Identity", &["on"], &["still_on"]),
        ],
        inputs: vec![
            tensor("i", INT64, &[]),
            tensor("on", 9, &[]),
            tensor("h", FLOAT, &[-1, n]),
        ],
        outputs: vec![tensor("still_on", 9, &[]), tensor("next", FLOAT, &[-1, n])],
        ..Graph::default()
    };
    let mut run = node("Loop", &["steps", "", "x"], &["y"]);
    run.attributes = vec![Attribute {
        name: "body".into(),
        graph: Some(body),
        kind: 5,
        ..Attribute::default()
    }];
    let graph = Graph {
        nodes: vec![run],
        initializers: vec![
            int_initializer("steps", &[], &[steps]),
            float_initializer("w", &[n, n], &square),
        ],
        inputs: vec![tensor("x", FLOAT, &[-1, n])],
        outputs: vec![tensor("y", FLOAT, &[-1, n])],
        ..Graph::default()
    };
    model(17, graph)
}

pub fn custom_operator() -> Model {
    let mut model = identity(FLOAT, &[2]);
    if let Some(graph) = &mut model.graph {
        graph.nodes[0] = Node {
            domain: "acme.ops".into(),
            ..node("Fancy", &["x"], &["y"])
        };
    }
    model.opsets.push(Opset {
        domain: "acme.ops".into(),
        version: 1,
    });
    model
}

pub fn sequence_output() -> Model {
    let mut model = identity(FLOAT, &[2]);
    if let Some(graph) = &mut model.graph {
        graph.nodes[0] = node("SequenceConstruct", &["x"], &["y"]);
        let element = graph.inputs[0].kind.clone().map(Box::new);
        let kind = Type {
            tensor: None,
            sequence: Some(Box::new(Sequence { element })),
        };
        graph.outputs[0].kind = Some(kind);
    }
    model
}

/// Gathers row x of a table of two rows: fails in the run for x > 1, and in warm-up when `offset` is 5.
pub fn gather(offset: i64) -> Model {
    let graph = Graph {
        nodes: vec![
            node("Add", &["x", "offset"], &["i"]),
            node("Gather", &["table", "i"], &["y"]),
        ],
        initializers: vec![
            float_initializer("table", &[2], &[1.5, 2.5]),
            int_initializer("offset", &[1], &[offset]),
        ],
        inputs: vec![tensor("x", INT64, &[1])],
        outputs: vec![tensor("y", FLOAT, &[1])],
        ..Graph::default()
    };
    model(17, graph)
}

/// The mean of each colour of [batch, 3, 2, 2]: logits of three classes.
pub fn colours() -> Model {
    let graph = Graph {
        nodes: vec![
            node("GlobalAveragePool", &["image"], &["pooled"]),
            Node {
                attributes: vec![attribute_int("axis", 1)],
                ..node("Flatten", &["pooled"], &["scores"])
            },
        ],
        inputs: vec![tensor("image", FLOAT, &[-1, 3, 2, 2])],
        outputs: vec![tensor("scores", FLOAT, &[-1, 3])],
        ..Graph::default()
    };
    model(17, graph)
}

/// 1/x and ln x: infinities and NaN from ordinary numbers.
pub fn no_numbers() -> Model {
    let graph = Graph {
        nodes: vec![
            node("Reciprocal", &["x"], &["r"]),
            node("Log", &["x"], &["l"]),
        ],
        inputs: vec![tensor("x", FLOAT, &[-1])],
        outputs: vec![tensor("r", FLOAT, &[-1]), tensor("l", FLOAT, &[-1])],
        ..Graph::default()
    };
    model(17, graph)
}

/// x + offset over [batch, 2], where `offset` [1] has the value 10 of its own and may be given instead.
pub fn optional_offset() -> Model {
    let graph = Graph {
        nodes: vec![node("Add", &["x", "offset"], &["y"])],
        initializers: vec![float_initializer("offset", &[1], &[10.0])],
        inputs: vec![tensor("x", FLOAT, &[-1, 2]), tensor("offset", FLOAT, &[1])],
        outputs: vec![tensor("y", FLOAT, &[-1, 2])],
        ..Graph::default()
    };
    model(17, graph)
}

/// The first row of [batch, 2], chosen in a way that only a run shows: how many rows come out it does not say.
pub fn first_row() -> Model {
    let chosen = TensorProto {
        dims: vec![1],
        element: 9,
        name: "chosen".into(),
        raw: vec![1],
        ..TensorProto::default()
    };
    let graph = Graph {
        nodes: vec![Node {
            attributes: vec![attribute_int("axis", 0)],
            ..node("Compress", &["x", "chosen"], &["y"])
        }],
        initializers: vec![chosen],
        inputs: vec![tensor("x", FLOAT, &[-1, 2])],
        outputs: vec![tensor("y", FLOAT, &[-1, 2])],
        ..Graph::default()
    };
    model(17, graph)
}

/// Each row less the mean of all rows: a row in, a row out, and each depends on the others.
pub fn centred() -> Model {
    let graph = Graph {
        nodes: vec![
            Node {
                attributes: vec![attribute_ints("axes", &[0]), attribute_int("keepdims", 1)],
                ..node("ReduceMean", &["x"], &["mean"])
            },
            node("Sub", &["x", "mean"], &["y"]),
        ],
        inputs: vec![tensor("x", FLOAT, &[-1, 2])],
        outputs: vec![tensor("y", FLOAT, &[-1, 2])],
        ..Graph::default()
    };
    model(17, graph)
}

/// Row x of a table of two, for each x of [batch]: fails in the run for x > 1.
pub fn looked_up() -> Model {
    let graph = Graph {
        nodes: vec![node("Gather", &["table", "x"], &["y"])],
        initializers: vec![float_initializer("table", &[2], &[1.5, 2.5])],
        inputs: vec![tensor("x", INT64, &[-1])],
        outputs: vec![tensor("y", FLOAT, &[-1])],
        ..Graph::default()
    };
    model(17, graph)
}

/// x[0] zeros, for x of [1]: as much memory for one run as its client asks for.
pub fn zeros() -> Model {
    let graph = Graph {
        nodes: vec![node("ConstantOfShape", &["x"], &["y"])],
        inputs: vec![tensor("x", INT64, &[1])],
        outputs: vec![tensor("y", FLOAT, &[-1])],
        ..Graph::default()
    };
    model(17, graph)
}
