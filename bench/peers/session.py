"""What every Python peer runs: one session of ONNX Runtime with one thread inside (the servers get one core each).

`model()` reads a request's JSON to an item and runs items together: rows of numbers (`{"x": [[…]]}`), or with BENCH_KIND=text texts (`{"text": "…"}`) to
embeddings, as sentence-transformers makes them: the mean of the tokens' vectors, at length 1.
"""

import os
import pathlib

import numpy
import onnxruntime


def open_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])


class Rows:
    def __init__(self):
        self.session = open_session()
        self.name = self.session.get_inputs()[0].name

    def read(self, request):
        return numpy.array(request["x"], numpy.float32)

    def run_one(self, rows):
        return self.session.run(None, {self.name: rows})[0]

    def run(self, items):
        answer = self.run_one(numpy.concatenate(items))
        return numpy.split(answer, numpy.cumsum([len(rows) for rows in items])[:-1])


class Text:
    def __init__(self):
        from tokenizers import Tokenizer

        self.session = open_session()
        self.tokenizer = Tokenizer.from_file(str(pathlib.Path(os.environ["BENCH_MODEL"]).with_name("tokenizer.json")))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def read(self, request):
        return request["text"]

    def run_one(self, text):
        return self.run([text])[0]

    def run(self, items):
        tokens = self.tokenizer.encode_batch(items)
        mask = numpy.array([one.attention_mask for one in tokens], numpy.int64)
        given = {"input_ids": numpy.array([one.ids for one in tokens], numpy.int64), "attention_mask": mask, "token_type_ids": numpy.zeros_like(mask)}
        vectors = self.session.run(None, {one.name: given[one.name] for one in self.session.get_inputs()})[0]
        pooled = (vectors * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return list(pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True))


def model():
    return Text() if os.environ.get("BENCH_KIND") == "text" else Rows()
