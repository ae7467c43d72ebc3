#!/usr/bin/env python3
"""What a kept optimised graph saves: CPU time of making a session from the model and from its graph, medians of rounds that take turns.

    bench/graphs.py MODEL.onnx...

Python with onnxruntime. The server's --optimized-graph-cache rests on these figures (docs/server.md).
"""

import os
import statistics
import sys
import tempfile
import time

import onnxruntime

ROUNDS = 15
LEVELS = onnxruntime.GraphOptimizationLevel


def made(path, level, write=None):
    """CPU time in ms of making a session, threads of ONNX Runtime's included."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if write:
        options.optimized_model_filepath = write
    start = time.process_time()
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return (time.process_time() - start) * 1e3


def main(paths):
    onnxruntime.set_default_logger_severity(3)
    print("| model | MB | its graph, MB | from the model | with writing | from the graph |\n|---|---|---|---|---|---|")
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            kept = os.path.join(folder, "kept.onnx")
            times = {"model": [], "writing": [], "graph": []}
            for _ in range(ROUNDS):
                times["writing"].append(made(path, LEVELS.ORT_ENABLE_ALL, kept))
                times["model"].append(made(path, LEVELS.ORT_ENABLE_ALL))
                times["graph"].append(made(kept, LEVELS.ORT_DISABLE_ALL))
            middle = {name: statistics.median(values) for name, values in times.items()}
            print(
                f"| {os.path.basename(path)} | {os.path.getsize(path) / 1e6:.1f} | {os.path.getsize(kept) / 1e6:.1f} "
                f"| {middle['model']:.0f} ms | {middle['writing']:.0f} ms | {middle['graph']:.0f} ms |"
            )


main(sys.argv[1:])
