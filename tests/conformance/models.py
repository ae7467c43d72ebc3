"""Small models for the conformance tests, written to the directory that is named: one for each datatype, a sum, a classifier."""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

DATATYPES = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "conformance", inputs, outputs, list(weights))
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)


def identity(path, element):
    shape = ["rows", 2]
    save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape)],
    )


def perceptron(path, seed=7):
    """[rows, 16] -> [rows, 5]: scores of five classes, and a second output, [rows, 16]."""
    random = np.random.default_rng(seed)

    def weight(name, *shape):
        values = random.standard_normal(shape, dtype=np.float32)
        return onnx.numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["scores"], axis=1),
    ]
    value = helper.make_tensor_value_info
    save(
        path,
        nodes,
        [value("x", TensorProto.FLOAT, ["rows", 16])],
        [value("scores", TensorProto.FLOAT, ["rows", 5]), value("hidden", TensorProto.FLOAT, ["rows", 16])],
        [weight("w1", 16, 16), weight("b1", 16), weight("w2", 16, 5), weight("b2", 5)],
    )


def slow(path):
    """Half a second or so: for deadlines."""
    nodes = [helper.make_node("MatMul", ["x" if step == 0 else f"h{step}", "w"], [f"h{step + 1}"]) for step in range(300)]
    nodes.append(helper.make_node("Identity", ["h300"], ["y"]))
    weight = onnx.numpy_helper.from_array(np.full((512, 512), 1 / 512, np.float32), "w")
    value = helper.make_tensor_value_info
    shape = ["rows", 512]
    save(path, nodes, [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)], [weight])


def main(directory):
    directory = pathlib.Path(directory)
    for name, element in DATATYPES.items():
        identity(directory / f"{name}.onnx", element)
    perceptron(directory / "perceptron.onnx")
    slow(directory / "slow.onnx")


if __name__ == "__main__":
    main(sys.argv[1])
