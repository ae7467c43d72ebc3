"""BentoML, one worker, with its adaptive batching for rows; texts of mixed lengths, padded to the longest, were slower with it."""

import os

import bentoml
import numpy
import session

IS_TEXT = os.environ.get("BENCH_KIND") == "text"


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Model:
    def __init__(self):
        self.model = session.model()

    if IS_TEXT:

        @bentoml.api
        def predict(self, text: str) -> numpy.ndarray:
            return self.model.run_one(text)

    else:

        @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
        def predict(self, x: numpy.ndarray) -> numpy.ndarray:
            return self.model.run_one(x.astype(numpy.float32))
