#!/usr/bin/env python3
"""What rows side by side gain on the processor: CPU time for each row, by rows in a run, one thread, medians of five rounds.

    bench/batches.py mlp=small.onnx image=efficientnet-lite0.onnx text:16=minilm.onnx text:128=minilm.onnx

Python with onnxruntime and numpy. `text:N` feeds N tokens. The server's default for batches rests on these figures (docs/server.md).
"""

import statistics
import sys
import time

import numpy
import onnxruntime

ROUND = 0.25
ROUNDS = 5
RANDOM = numpy.random.default_rng(0)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(model, rows, tokens):
    def tensor(spec):
        shape = [rows, *(size if isinstance(size, int) else tokens for size in spec.shape[1:])]
        if spec.type == "tensor(float)":
            return RANDOM.standard_normal(shape, dtype=numpy.float32)
        if "type" in spec.name:
            return numpy.zeros(shape, dtype=numpy.int64)
        if "mask" in spec.name:
            return numpy.ones(shape, dtype=numpy.int64)
        return RANDOM.integers(100, 20000, shape)

    return {spec.name: tensor(spec) for spec in model.get_inputs()}


def seconds_per_row(model, feed, rows):
    runs, start = 0, time.process_time()
    while time.process_time() - start < ROUND:
        model.run(None, feed)
        runs += 1
    return (time.process_time() - start) / runs / rows


def main():
    for argument in sys.argv[1:]:
        kind, path = argument.split("=", 1)
        kind, _, tokens = kind.partition(":")
        sizes = [1, 2, 4, 8] if kind == "image" else [1, 2, 4, 8, 16, 32]
        model = session(path)
        inputs = {rows: feeds(model, rows, int(tokens or 1)) for rows in sizes}
        for feed in inputs.values():
            model.run(None, feed)
        rounds = [{rows: seconds_per_row(model, inputs[rows], rows) for rows in sizes} for _ in range(ROUNDS)]
        alone = statistics.median(figures[1] for figures in rounds)
        print(argument)
        for rows in sizes:
            each = statistics.median(figures[rows] for figures in rounds)
            print(f"  {rows:3d} rows  {each * 1e6:10.1f} µs a row  {alone / each:6.2f} ×", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
