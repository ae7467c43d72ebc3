"""Tiny models, and files that are none: what the tests give to the server. {name: bytes}."""

import array
import gzip
import io
import json
import random
import struct
import tarfile

import onnxfile

# A weight of LARGE_IN x LARGE_OUT float32: 302 MB.
LARGE_IN, LARGE_OUT = 8192, 9216

PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in</title></head><body><h1>Please sign in to download this model</h1></body></html>
"""


def _one(op_nodes, initializers=(), **kinds):
    shape = ["batch", 4]
    return onnxfile.model(
        "tiny", op_nodes, [onnxfile.value("x", shape)], [onnxfile.value("y", shape)], initializers, **kinds
    )


def identity(add=0.0):
    """y = x + add, float32 [batch, 4]."""
    if not add:
        return _one([onnxfile.node("Identity", ["x"], ["y"])])
    one = onnxfile.floats("add", [], struct.pack("<f", add))
    return _one([onnxfile.node("Add", ["x", "add"], ["y"])], [one])


def picky(below):
    """y = x + 2, float32 [batch, 4]; a run with a number of `below` or more fails: there is no memory for it."""
    nodes = [
        onnxfile.node("ReduceMax", ["x"], ["largest"], keepdims=0),
        onnxfile.node("Cast", ["largest"], ["whole"], to=onnxfile.INT64),
        onnxfile.node("Sub", ["whole", "most"], ["above"]),
        onnxfile.node("Max", ["above", "none"], ["over"]),
        onnxfile.node("Mul", ["over", "too many"], ["more"]),
        onnxfile.node("Add", ["more", "one"], ["times"]),
        onnxfile.node("Expand", ["single", "times"], ["many"]),
        onnxfile.node("ReduceMax", ["many"], ["two"], keepdims=0),
        onnxfile.node("Add", ["x", "two"], ["y"]),
    ]
    numbers = {"most": below - 1, "none": 0, "one": 1, "too many": 1 << 48}
    whole = [onnxfile.whole(name, [number]) for name, number in numbers.items()]
    return _one(nodes, [onnxfile.floats("single", [1], struct.pack("<f", 2.0)), *whole])


def slow(rounds):
    """y = x + 3, float32 [batch, 4], after `rounds` products of matrices of 256 x 256 by 256 x 256 that change nothing."""
    size = 256
    nodes = [onnxfile.node("ReduceMax", ["x"], ["largest"], keepdims=0), onnxfile.node("Mul", ["zeros", "largest"], ["m0"])]
    nodes += [onnxfile.node("MatMul", [f"m{i}", "zeros"], [f"m{i + 1}"]) for i in range(rounds)]
    nodes += [
        onnxfile.node("ReduceMax", [f"m{rounds}"], ["nothing"], keepdims=0),
        onnxfile.node("Add", ["x", "three"], ["sum"]),
        onnxfile.node("Add", ["sum", "nothing"], ["y"]),
    ]
    zeros = onnxfile.floats("zeros", [size, size], bytes(4 * size * size))
    return _one(nodes, [zeros, onnxfile.floats("three", [], struct.pack("<f", 3.0))])


def wide():
    """y = x + 4, float32 [batch, 5]: another signature."""
    shape = ["batch", 5]
    four = onnxfile.floats("four", [], struct.pack("<f", 4.0))
    x, y = onnxfile.value("x", shape), onnxfile.value("y", shape)
    return onnxfile.model("wide", [onnxfile.node("Add", ["x", "four"], ["y"])], [x], [y], [four])


def hungry(megabytes):
    """y = x + 5, float32 [batch, 4]: a run takes 1 + `megabytes` x the largest number of MiB, some times over."""
    nodes = [
        onnxfile.node("ReduceMax", ["x"], ["largest"], keepdims=0),
        onnxfile.node("Cast", ["largest"], ["whole"], to=onnxfile.INT64),
        onnxfile.node("Mul", ["whole", "megabytes"], ["more"]),
        onnxfile.node("Add", ["more", "one"], ["times"]),
        onnxfile.node("Tile", ["mebibyte", "times"], ["many"]),
        onnxfile.node("Mul", ["many", "largest"], ["much"]),
        onnxfile.node("ReduceMin", ["much"], ["least"], keepdims=0),
        onnxfile.node("Sub", ["least", "largest"], ["nothing"]),
        onnxfile.node("Add", ["x", "five"], ["sum"]),
        onnxfile.node("Add", ["sum", "nothing"], ["y"]),
    ]
    mebibyte = onnxfile.floats("mebibyte", [1 << 18], struct.pack("<f", 1.0) * (1 << 18))
    numbers = [onnxfile.whole("megabytes", [megabytes]), onnxfile.whole("one", [1])]
    return _one(nodes, [mebibyte, *numbers, onnxfile.floats("five", [], struct.pack("<f", 5.0))])


def golden(add):
    """A golden set of ten lines for y = x + add."""
    lines = []
    for first in range(10):
        data = [first, 2, 3, 4]
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": data}]
        outputs = [{"name": "y", "data": [n + add for n in data]}]
        lines.append(json.dumps({"request": {"inputs": inputs}, "expected": {"outputs": outputs}}))
    return "\n".join(lines).encode() + b"\n"


def tar(files, mode="w"):
    """A tar whose bytes depend on `files` alone: [(name, bytes or the target of a symbolic link)]."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def large():
    """A model of 302 MB that does use its weight, in pieces. One value in 64 is not zero: it packs to a fortieth."""
    chance = random.Random(1)
    block = array.array("f", [0.0] * (LARGE_OUT * 16))
    for i in range(0, len(block), 64):
        block[i] = chance.random()
    weight = onnxfile.floats("weight", [LARGE_IN, LARGE_OUT], block.tobytes() * (LARGE_IN // 16))
    return onnxfile.model(
        "large",
        [onnxfile.node("MatMul", ["x", "weight"], ["y"])],
        [onnxfile.value("x", ["batch", LARGE_IN])],
        [onnxfile.value("y", ["batch", LARGE_OUT])],
        [weight],
    )


def build(good):
    """Every file of the folder `bad`. `good`: a whole model, to cut off."""
    custom = onnxfile.node("Frobnicate", ["x"], ["y"], domain="com.example")
    two = [("a.onnx", identity()), ("b.onnx", identity(1.0))]
    return {
        "identity.onnx": identity(),
        "identity-2.onnx": identity(1.0),
        "golden.jsonl": golden(0),
        "golden-malformed.jsonl": golden(0) + b'{"request": {}, "lable": 3}\n',
        "picky.onnx": picky(23),
        "slow.onnx": slow(20),
        "wide.onnx": wide(),
        "hungry.onnx": hungry(64),
        "truncated.onnx": good[: 1024 * 1024],
        "empty.onnx": b"",
        "page.onnx": PAGE,
        "future-opset.onnx": _one([onnxfile.node("Identity", ["x"], ["y"])], opset=99),
        "custom-op.onnx": _one([custom], domains=["com.example"]),
        "evil.tar": tar([("model.onnx", identity()), ("../evil.onnx", identity(1.0))]),
        "link.tar": tar([("model.onnx", identity()), ("weights.bin", "/etc/passwd")]),
        "two-models.tar": tar(two),
        "no-model.tar": tar([("readme.txt", b"The model is elsewhere.\n")]),
        "bomb.tar.gz": gzip.compress(tar([("model.onnx", bytes(256 * 1024 * 1024))]), 9, mtime=0),
        "large.tar.gz": gzip.compress(tar([("model.onnx", large())]), 1, mtime=0),
    }
