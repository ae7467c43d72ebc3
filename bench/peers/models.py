"""Writes the tiny model of the benchmarks: a perceptron of 16 inputs, two hidden layers of 32 and 4 outputs, so small that what is measured is the server around it.

    python models.py FOLDER      writes FOLDER/mlp.onnx: `x` FP32 [batch, 16] -> `y` FP32 [batch, 4]
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = [16, 32, 32, 4]


def mlp():
    random = np.random.default_rng(4)
    nodes, weights, last = [], [], "x"
    for layer, (rows, columns) in enumerate(zip(SIZES, SIZES[1:])):
        end = layer == len(SIZES) - 2
        weights.append(numpy_helper.from_array(random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32), f"w{layer}"))
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, columns).astype(np.float32), f"b{layer}"))
        out = "y" if end else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [out]))
        last = out
        if not end:
            nodes.append(helper.make_node("Relu", [last], [f"h{layer}"]))
            last = f"h{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZES[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(mlp(), folder / "mlp.onnx")
