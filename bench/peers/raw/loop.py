"""The raw loops: ONNX Runtime's Python package with one session of one thread, and nothing around it. Prints JSON.

    loop.py run MODEL INPUT N          seconds of each of N runs (after 20 that are not counted), and the CPU-seconds of all
    loop.py photograph MODEL FILE N    the same for decode + resize + run, with Pillow and NumPy
    loop.py once MODEL INPUT           the first output, flat
    loop.py tokens MODEL TEXT          the numbers of its tokens
    loop.py embed MODEL TEXT           its embedding, as the Python peers make it
    loop.py load MODEL N               seconds of each of N session creations

INPUT is DIM,DIM,…:FILE with FP32 values.
"""

import io
import json
import sys
import time

import numpy
import onnxruntime


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def tensor(text):
    dimensions, file = text.split(":", 1)
    return numpy.fromfile(file, numpy.float32).reshape([int(dimension) for dimension in dimensions.split(",")])


def timed(count, work, warm_up=20):
    for _ in range(warm_up):
        work()
    times, cpu = [], time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return {"runs": times, "cpu": time.process_time() - cpu}


def photograph(run, name, data):
    """As the model's pipeline has it: cover 224 × 224, cut out the middle, (pixel - 127) / 128, then softmax and the best five."""
    from PIL import Image, ImageOps

    image = ImageOps.fit(Image.open(io.BytesIO(data)).convert("RGB"), (224, 224), Image.Resampling.BILINEAR)
    pixels = (numpy.asarray(image, numpy.float32) - 127) / 128
    logits = run.run(None, {name: numpy.ascontiguousarray(pixels.transpose(2, 0, 1))[None]})[0][0]
    odds = numpy.exp(logits - logits.max())
    return numpy.argsort(odds / odds.sum())[::-1][:5]


def main():
    what, model, *rest = sys.argv[1:]
    if what == "load":
        return timed(int(rest[0]), lambda: session(model), warm_up=1)
    if what in ("tokens", "embed"):
        from session import Text  # needs tokenizers, and BENCH_MODEL

        text = Text()
        return text.tokenizer.encode(rest[0]).ids if what == "tokens" else text.run_one(rest[0]).tolist()
    run = session(model)
    name = run.get_inputs()[0].name
    if what == "once":
        return run.run(None, {name: tensor(rest[0])})[0].ravel().tolist()
    if what == "run":
        given = tensor(rest[0])
        return timed(int(rest[1]), lambda: run.run(None, {name: given}))
    with open(rest[0], "rb") as file:
        data = file.read()
    return timed(int(rest[1]), lambda: photograph(run, name, data))


print(json.dumps(main()))
