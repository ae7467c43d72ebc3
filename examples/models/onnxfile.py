"""Writes ONNX files: the few messages of onnx.proto that the models here need.

By hand rather than with the onnx package: nothing to install, and the same bytes on every machine,
whatever is installed there, so that the digest of a model is a constant. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import struct

FLOAT, INT64 = 1, 7


def _varint(value):
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field, value):
    return _varint(field << 3) + _varint(value)


def _bytes(field, value):
    if isinstance(value, str):
        value = value.encode()
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _attribute(name, value):
    if isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _int(20, 1)
    elif isinstance(value, int):
        body = _int(3, value) + _int(20, 2)
    else:
        body = b"".join(_int(8, v) for v in value) + _int(20, 7)
    return _bytes(1, name) + body


def node(op, inputs, outputs, domain="", **attributes):
    """One operator. Attributes are ints, floats or lists of ints."""
    parts = [_bytes(1, i) for i in inputs] + [_bytes(2, o) for o in outputs]
    parts += [_bytes(3, outputs[0]), _bytes(4, op)]
    parts += [_bytes(5, _attribute(n, v)) for n, v in sorted(attributes.items())]
    if domain:
        parts.append(_bytes(7, domain))
    return b"".join(parts)


def floats(name, shape, raw):
    """An initializer of float32, from little-endian bytes."""
    return b"".join(_int(1, n) for n in shape) + _int(2, FLOAT) + _bytes(8, name) + _bytes(9, raw)


def whole(name, numbers):
    """An initializer of int64, a vector."""
    raw = b"".join(struct.pack("<q", n) for n in numbers)
    return _int(1, len(numbers)) + _int(2, INT64) + _bytes(8, name) + _bytes(9, raw)


def value(name, shape):
    """A float32 input or output; a dimension is a number or a name."""
    dims = (_int(1, d) if isinstance(d, int) else _bytes(2, d) for d in shape)
    tensor = _int(1, FLOAT) + _bytes(2, b"".join(_bytes(1, d) for d in dims))
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def model(name, nodes, inputs, outputs, initializers=(), opset=17, domains=()):
    """A whole file. IR version 8 belongs to opset 17 and is read by every runtime since 2022."""
    graph = [_bytes(1, n) for n in nodes] + [_bytes(2, name)]
    graph += [_bytes(5, i) for i in initializers]
    graph += [_bytes(11, i) for i in inputs] + [_bytes(12, o) for o in outputs]
    imports = [_bytes(8, _int(2, opset))]
    imports += [_bytes(8, _bytes(1, d) + _int(2, 1)) for d in domains]
    return _int(1, 8) + _bytes(2, "ortolan") + _bytes(7, b"".join(graph)) + b"".join(imports)
