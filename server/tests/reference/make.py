"""Writes reference.json: what the reference implementations in Python answer. make.py MODELS

MODELS: the folder of scripts/models.sh. Tokens are those of `tokenizers`, tensors those of onnxruntime,
labels those of `magika`, each called as its own documentation does it:

    pip install onnxruntime==1.31.1 tokenizers numpy magika==1.0.3 scikit-learn==1.9.1

The server's tests (server/tests/pipelines.rs) compare its answers with these, floats within a tolerance:
ONNX Runtime computes a little differently on another processor.
"""

import base64
import json
import pathlib
import sys
import tarfile

import magika
import numpy
import onnxruntime
import tokenizers
from sklearn import datasets

TEXTS = [
    "A quick brown fox jumps over the lazy dog.",
    "Ein schneller brauner Fuchs springt über den faulen Hund — naïve café, №42!",
    "敏捷的棕色狐狸 🦊\u0301 <b>HTML</b>\n\ttabs",
    "word " * 400,
    "",
]

FILES = {
    "python": b"import os\n\n\ndef main():\n    for name in os.listdir('.'):\n        print(name)\n\n\nif __name__ == '__main__':\n    main()\n",
    "rust": b"use std::fs;\n\nfn main() -> std::io::Result<()> {\n    let text = fs::read_to_string(\"a\")?;\n    println!(\"{text}\");\n    Ok(())\n}\n",
    "json": b'{"name": "a", "values": [1, 2, 3], "nested": {"b": null, "c": true}}\n',
    "html after white space": b" \n\t" * 300 + b"<!DOCTYPE html>\n<html><head><title>t</title></head><body><p>p</p></body></html>" + b"\r\n" * 700,
    "csv": b"id,name,price\n1,apple,0.5\n2,pear,0.75\n3,plum,0.25\n4,cherry,2.5\n",
    "shell": b"#!/bin/sh\nset -eu\nfor f in *.txt; do\n  wc -l \"$f\"\ndone\n",
    "sql": b"SELECT a.id, count(*) FROM a JOIN b ON a.id = b.a_id WHERE b.c > 3 GROUP BY a.id ORDER BY 2 DESC;\n" * 3,
    "longer than both windows": b"# Title\n\nSome *words* and a [link](http://a.b).\n\n- one\n- two\n\n" * 200,
    "head and tail overlap": bytes(range(32, 127)) * 15,
}


def package(models, name):
    with tarfile.open(models / f"{name}.tar.gz") as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def rounded(values, digits):
    return [round(float(v), digits) for v in values]


def minilm(models):
    files = package(models, "minilm")
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    session = onnxruntime.InferenceSession(files["model.onnx"])
    cases = []
    for text in TEXTS:
        ids = numpy.array([tokenizer.encode(text).ids])
        feed = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        (hidden,) = session.run(None, feed)
        vector = hidden[0].mean(axis=0)
        vector /= numpy.linalg.norm(vector)
        cases.append({"text": text, "ids": ids[0].tolist(), "embedding": rounded(vector, 5)})
    return cases


def magikas():
    reference = magika.Magika()
    cases = []
    for name, content in FILES.items():
        result = reference.identify_bytes(content)
        label, score = str(result.dl.label), float(result.score)
        cases.append({"name": name, "content": base64.b64encode(content).decode(), "label": label, "score": round(score, 5)})
    return cases


def rows(models, name, data, missing):
    session = onnxruntime.InferenceSession(package(models, name)["model.onnx"])
    rows = data.astype("float32")
    rows[missing] = numpy.nan
    label, probabilities = session.run(None, {"X": rows})
    shown = [[None if numpy.isnan(v) else float(str(v)) for v in row] for row in rows]
    return {"rows": shown, "labels": label.tolist(), "probabilities": [rounded(p, 6) for p in probabilities]}


def main():
    models = pathlib.Path(sys.argv[1])
    iris = datasets.load_iris().data[[0, 60, 70, 149]]
    tumours = datasets.load_breast_cancer().data[[0, 19, 100, 300]]
    answers = {
        "made with": {m.__name__: m.__version__ for m in (onnxruntime, tokenizers, magika)},
        "minilm": minilm(models),
        "magika": magikas(),
        "iris": rows(models, "iris", iris, ([], [])),
        "breast-cancer": rows(models, "breast-cancer", tumours, ([0, 1, 1, 3], [3, 0, 29, 27])),
    }
    text = json.dumps(answers, indent=None, separators=(",", ":"), ensure_ascii=True)
    # One case a line: a change shows where it is.
    text = text.replace('},{"', '},\n{"').replace('],"', '],\n"').replace(':[{"', ':[\n{"')
    (pathlib.Path(__file__).parent / "reference.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
