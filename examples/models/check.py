"""Shows that the built models do what they should: check.py MODELS, with onnxruntime, numpy and Pillow.

scripts/models.sh --check runs it. Not part of a normal build: there the digests in
scripts/versions.sh say that the files are the ones that passed here.
"""

import io
import pathlib
import sys
import tarfile

import numpy
import onnxruntime
from PIL import Image

SIDE = 224


def fail(sentence):
    sys.exit(f"check.py: {sentence}")


def tensor(path):
    """Crop to the middle after resizing, as model.yaml says."""
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    size = [max(SIDE, round(n * scale)) for n in image.size]
    image = image.resize(size, Image.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    pixels = numpy.asarray(image.crop((left, top, left + SIDE, top + SIDE)), numpy.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None]


def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def unpacked(path):
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def classify(models):
    packed = unpacked(models / "efficientnet-lite0.tar.gz")
    if packed["model.onnx"] != (models / "efficientnet-lite0.onnx").read_bytes():
        fail("the packed model is not the bare one")
    names_the_photographs(models, "efficientnet-lite0", packed)
    again = unpacked(models / "efficientnet-lite0-v2.tar.gz")
    if again["model.onnx"] == packed["model.onnx"]:
        fail("efficientnet-lite0-v2 has the weights of efficientnet-lite0")
    names_the_photographs(models, "efficientnet-lite0-v2", again)


def names_the_photographs(models, model, packed):
    labels = packed["labels.txt"].decode().splitlines()
    run = session(packed["model.onnx"])
    photographs = {"flower.jpg": "daisy", "china.jpg": "palace"}
    batch = numpy.concatenate([tensor(models / name) for name in photographs])
    (logits,) = run.run(["logits"], {"images": batch})
    if logits.shape != (2, 1000):
        fail(f"{model} answers the shape {logits.shape}, [2, 1000] was expected")
    for (name, expected), scores in zip(photographs.items(), logits):
        odds = numpy.exp(scores - scores.max())
        best = int(odds.argmax())
        print(f"{model}: {name}: {labels[best]} {odds[best] / odds.sum():.3f}")
        if labels[best] != expected:
            fail(f"{model} sees {labels[best]!r} in {name}, {expected!r} was expected")


def refuses(path, words):
    try:
        session(str(path))
    except Exception as error:  # the runtime's own classes share no base
        if words not in str(error):
            fail(f"{path.name} is refused for another reason: {error}")
        print(f"{path.name}: refused")
        return
    fail(f"{path.name} loads, a refusal was expected")


def main():
    models = pathlib.Path(sys.argv[1])
    classify(models)
    x = numpy.array([[1, 2, 3, 4]], numpy.float32)
    for name, add in (("identity.onnx", 0), ("identity-2.onnx", 1)):
        (y,) = session(str(models / "bad" / name)).run(["y"], {"x": x})
        if not numpy.array_equal(y, x + add):
            fail(f"{name} answers {y}, {x + add} was expected")
        print(f"{name}: x + {add}")
    for name, add in (("picky.onnx", 2), ("slow.onnx", 3), ("hungry.onnx", 5)):
        (y,) = session(str(models / "bad" / name)).run(["y"], {"x": x})
        if not numpy.array_equal(y, x + add):
            fail(f"{name} answers {y}, {x + add} was expected")
        print(f"{name}: x + {add}")
    try:
        session(str(models / "bad/picky.onnx")).run(["y"], {"x": x * 6})
        fail("picky.onnx answers 24, a failure was expected")
    except Exception as error:  # the runtime's own classes share no base
        if "allocate" not in str(error):
            fail(f"picky.onnx fails for another reason: {error}")
    refuses(models / "bad/truncated.onnx", "INVALID_PROTOBUF")
    refuses(models / "bad/future-opset.onnx", "opset")
    refuses(models / "bad/custom-op.onnx", "com.example")
    with tarfile.open(models / "bad/large.tar.gz") as archive:
        large = archive.extractfile("model.onnx").read()
    if len(large) < 300_000_000:
        fail(f"the large model has {len(large)} bytes only")
    (y,) = session(large).run(["y"], {"x": numpy.ones((1, 8192), numpy.float32)})
    if not y.any():
        fail("the large model answers zeros")
    print(f"large.tar.gz: {len(large)} bytes, runs")


if __name__ == "__main__":
    main()
