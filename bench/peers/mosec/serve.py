"""mosec, and orjson. Rows are batched; texts are not: mixed lengths padded to the longest made it four times slower."""

import os

import orjson
import session
from mosec import Server, Worker

IS_TEXT = os.environ.get("BENCH_KIND") == "text"


class Model(Worker):
    def __init__(self):
        super().__init__()
        self.model = session.model()

    def deserialize(self, data):
        return self.model.read(orjson.loads(data))

    def forward(self, data):
        return self.model.run_one(data) if IS_TEXT else self.model.run(data)

    def serialize(self, data):
        return orjson.dumps({"y": data.copy()}, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=1 if IS_TEXT else 16, max_wait_time=0)
    server.run()
