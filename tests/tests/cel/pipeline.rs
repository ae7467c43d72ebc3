//! The rules of `spec.server.pipeline`.

use serde_json::{Value, json};

use super::{Rule, part, rule};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = rules_of_input();
    rules.extend(rules_of_output());
    rules
}

/// A spec with this pipeline over an archive.
fn pipeline(input: Value, output: Value) -> Value {
    let pipeline = json!({"input": input, "output": output});
    json!({"model": {"uri": "https://a/m.tar.gz"}, "server": {"pipeline": pipeline}})
}

fn input(input: Value) -> Value {
    pipeline(input, json!({"kind": "raw"}))
}

fn image(key: &str, value: Value) -> Value {
    input(json!({"kind": "image", "width": 224, "height": 128, key: value}))
}

fn output(output: Value) -> Value {
    pipeline(json!({"kind": "text"}), output)
}

fn rules_of_input() -> Vec<Rule> {
    let image_of = |uri: &str, output: Value| {
        let input = json!({"kind": "image", "width": 4, "height": 4});
        json!({"model": {"uri": uri}, "server": {"pipeline": {"input": input, "output": output}}})
    };
    let text_of = |uri: &str| json!({"model": {"uri": uri}, "server": {"pipeline": {"input": {"kind": "text"}, "output": {"kind": "embedding"}}}});
    let beside = |key: &str, value: Value| {
        let mut spec = input(json!({"kind": "rows"}));
        spec["server"][key] = value;
        spec
    };
    let labelled = json!({"kind": "classification", "labels": "labels.txt"});
    vec![
        rule(
            "spec",
            "labels and the tokenizer are files beside the model, and a bare .onnx over HTTP comes alone: put them into an archive with it, such as model.tar.gz",
            [
                image_of("https://a/m.onnx", labelled.clone()),
                image_of("http://a/b/m.onnx?v=1", labelled.clone()),
                text_of("https://a/m.onnx"),
            ],
            [
                image_of("https://a/m.onnx", json!({"kind": "classification"})),
                image_of("https://a/m.onnx.tar.gz", labelled.clone()),
                image_of("pvc://c/m.onnx", labelled),
                text_of("https://a/m.zip"),
                text_of("file:///m/m.onnx"),
            ],
        ),
        rule(
            "spec.server",
            "a pipeline is for one model, and managementApi for a repository of several: leave one of them out, and put a model.yaml into each model's folder",
            [beside("managementApi", json!(true))],
            [beside("managementApi", json!(false))],
        ),
        rule(
            "spec.server",
            "pipeline and the argument --model-config say the same: write one of them",
            [
                beside(
                    "extraArgs",
                    json!(["--access-log", "--model-config=/m.yaml"]),
                ),
                beside("extraArgs", json!(["--model-config", "/m.yaml"])),
            ],
            [
                beside("extraArgs", json!(["--model-configured"])),
                part("server", "extraArgs", json!(["--model-config=/m.yaml"])),
            ],
        ),
        rule(
            "spec.server.pipeline",
            "pooling is over the tokens of a text: leave it out, or write input.kind: text",
            [pipeline(
                json!({"kind": "rows"}),
                json!({"kind": "embedding", "pooling": "mean"}),
            )],
            [
                output(json!({"kind": "embedding", "pooling": "mean"})),
                pipeline(
                    json!({"kind": "rows"}),
                    json!({"kind": "embedding", "normalize": false}),
                ),
            ],
        ),
        rule(
            "spec.server.pipeline.input",
            "kind: image needs width and height: write the pixels that the model takes, such as width: 224 and height: 224",
            [
                input(json!({"kind": "image"})),
                input(json!({"kind": "image", "width": 224})),
                input(json!({"kind": "image", "height": 224, "resize": "fit"})),
            ],
            [input(
                json!({"kind": "image", "width": 224, "height": 8192}),
            )],
        ),
        rule(
            "spec.server.pipeline.input",
            "width, height, resize, shortSide, channels, layout, mean and std belong to kind: image: leave them out, or write kind: image",
            [
                ("width", json!(4)),
                ("height", json!(4)),
                ("resize", json!("fit")),
                ("shortSide", json!(4)),
                ("channels", json!("BGR")),
                ("layout", json!("NHWC")),
                ("mean", json!([1])),
                ("std", json!([1])),
            ]
            .map(|(key, value)| input(json!({"kind": "rows", key: value}))),
            [
                image("resize", json!("fit")),
                image("shortSide", json!(256)),
                image("channels", json!("BGR")),
                image("layout", json!("NHWC")),
            ],
        ),
        rule(
            "spec.server.pipeline.input",
            "shortSide belongs to resize: crop, and what is cut out must fit in: leave it out, or write at least the larger of width and height",
            [
                image("shortSide", json!(223)),
                input(
                    json!({"kind": "image", "width": 4, "height": 4, "resize": "stretch", "shortSide": 8}),
                ),
            ],
            [
                image("shortSide", json!(224)),
                input(
                    json!({"kind": "image", "width": 4, "height": 4, "resize": "crop", "shortSide": 8}),
                ),
            ],
        ),
        rule(
            "spec.server.pipeline.input.mean",
            "write three numbers in the order of the channels, or one for all",
            [image("mean", json!([1, 2]))],
            [json!([127]), json!([1.5, 2, -3.25]), json!([])].map(|v| image("mean", v)),
        ),
        rule(
            "spec.server.pipeline.input.std",
            "write three numbers in the order of the channels, or one for all",
            [image("std", json!([1, 2.5]))],
            [json!([255]), json!([58.4, 57.1, 57.4])].map(|v| image("std", v)),
        ),
        rule(
            "spec.server.pipeline.input.std",
            "the tensor is (pixel - mean) / std: write the divisor, such as 255, and no 0",
            [json!([0]), json!([1, 0.0, 1])].map(|v| image("std", v)),
            [json!([0.001]), json!([-1, 1, 1])].map(|v| image("std", v)),
        ),
        rule(
            "spec.server.pipeline.input",
            "tokenizer, maxTokens, overflow, maxRunTokens, ids, mask and types belong to kind: text: leave them out, or write kind: text",
            [
                ("tokenizer", json!("t.json")),
                ("maxTokens", json!(4)),
                ("overflow", json!("refuse")),
                ("maxRunTokens", json!(4)),
                ("ids", json!("i")),
                ("mask", json!("m")),
                ("types", json!("t")),
            ]
            .map(|(key, value)| input(json!({"kind": "rows", key: value}))),
            [input(
                json!({"kind": "text", "tokenizer": "t.json", "maxTokens": 4, "overflow": "refuse",
                          "maxRunTokens": 8, "ids": "i", "mask": "m", "types": "t"}),
            )],
        ),
        rule(
            "spec.server.pipeline.input.tokenizer",
            "write the name of a file that lies beside the model in its archive or folder, such as tokenizer.json",
            [
                "",
                "/tokenizer.json",
                "../t.json",
                "a/../t.json",
                "a//t.json",
                "a/",
            ]
            .map(|name| input(json!({"kind": "text", "tokenizer": name}))),
            ["t.json", "a/b/t.json", "..t.json"]
                .map(|name| input(json!({"kind": "text", "tokenizer": name}))),
        ),
        rule(
            "spec.server.pipeline.input",
            "head, middle, tail, block, padding and strip belong to kind: bytes: leave them out, or write kind: bytes",
            [
                ("head", json!(4)),
                ("middle", json!(4)),
                ("tail", json!(4)),
                ("block", json!(4)),
                ("padding", json!(0)),
                ("strip", json!(true)),
            ]
            .map(|(key, value)| input(json!({"kind": "rows", key: value}))),
            [input(
                json!({"kind": "bytes", "head": 4, "middle": 4, "tail": 4, "block": 4, "padding": -1, "strip": true}),
            )],
        ),
        rule(
            "spec.server.pipeline.input",
            "kind: bytes takes no bytes: write how many the model takes from where, such as head: 1024 and tail: 1024",
            [
                input(json!({"kind": "bytes"})),
                input(json!({"kind": "bytes", "head": 0, "middle": 0, "tail": 0})),
            ],
            ["head", "middle", "tail"].map(|key| input(json!({"kind": "bytes", key: 1}))),
        ),
        rule(
            "spec.server.pipeline.input",
            "head, middle and tail take more than 1048576 bytes together: write less",
            [input(
                json!({"kind": "bytes", "head": 1_048_576, "tail": 1}),
            )],
            [input(
                json!({"kind": "bytes", "head": 1_048_575, "tail": 1}),
            )],
        ),
        rule(
            "spec.server.pipeline.input",
            "block is less than head or tail takes: leave it out, or write at least the larger of the two",
            [
                input(json!({"kind": "bytes", "head": 8, "block": 7})),
                input(json!({"kind": "bytes", "tail": 8, "block": 1})),
            ],
            [
                input(json!({"kind": "bytes", "head": 8, "block": 8})),
                input(json!({"kind": "bytes", "middle": 8, "block": 1})),
            ],
        ),
        rule(
            "spec.server.pipeline.input",
            "columns and missing belong to kind: rows: leave them out, or write kind: rows",
            [
                input(json!({"kind": "text", "columns": [{"name": "a"}]})),
                image("missing", json!("NaN")),
            ],
            [
                input(json!({"kind": "rows", "missing": -1})),
                input(
                    json!({"kind": "rows", "missing": "NaN", "columns": [{"name": "a"}, {"name": "b", "missing": "none"}, {"name": "c", "missing": 3}]}),
                ),
            ],
        ),
    ]
}

fn rules_of_output() -> Vec<Rule> {
    vec![
        rule(
            "spec.server.pipeline.output",
            "labels, softmax, sigmoid, topK and threshold belong to kind: classification: leave them out, or write kind: classification",
            [
                ("labels", json!("l.txt")),
                ("softmax", json!(true)),
                ("sigmoid", json!(true)),
                ("topK", json!(3)),
                ("threshold", json!(0.5)),
            ]
            .map(|(key, value)| output(json!({"kind": "raw", key: value}))),
            [output(
                json!({"kind": "classification", "labels": "l.txt", "softmax": true, "topK": 3, "threshold": 1}),
            )],
        ),
        rule(
            "spec.server.pipeline.output",
            "softmax and sigmoid exclude each other: write softmax where one class holds, sigmoid where several may",
            [output(
                json!({"kind": "classification", "softmax": true, "sigmoid": true}),
            )],
            [
                output(json!({"kind": "classification", "sigmoid": true})),
                output(json!({"kind": "classification", "softmax": true, "sigmoid": false})),
            ],
        ),
        rule(
            "spec.server.pipeline.output",
            "pooling and normalize belong to kind: embedding: leave them out, or write kind: embedding",
            [
                output(json!({"kind": "raw", "pooling": "cls"})),
                output(json!({"kind": "classification", "normalize": true})),
            ],
            [output(
                json!({"kind": "embedding", "pooling": "last", "normalize": true}),
            )],
        ),
        rule(
            "spec.server.pipeline.output",
            "tensor, one name, belongs to kind: classification and embedding: with kind: raw write tensors, a list",
            [output(json!({"kind": "raw", "tensor": "y"}))],
            [
                output(json!({"kind": "classification", "tensor": "y"})),
                output(json!({"kind": "embedding", "tensor": "y"})),
            ],
        ),
        rule(
            "spec.server.pipeline.output",
            "tensors, a list, belongs to kind: raw: with another kind write tensor, one name",
            [output(json!({"kind": "embedding", "tensors": ["y"]}))],
            [output(json!({"kind": "raw", "tensors": ["y", "z"]}))],
        ),
        rule(
            "spec.server.pipeline.output.labels",
            "write the name of a file that lies beside the model in its archive or folder, such as labels.txt",
            ["", "/l.txt", "..", "a/../l.txt"]
                .map(|name| output(json!({"kind": "classification", "labels": name}))),
            ["l.txt", "a/l.txt"]
                .map(|name| output(json!({"kind": "classification", "labels": name}))),
        ),
    ]
}
