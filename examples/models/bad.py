"""Tiny models, and files that are none: what the tests give to the server. {name: bytes}."""

import array
import gzip
import io
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
