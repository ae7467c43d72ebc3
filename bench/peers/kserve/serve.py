"""A custom model of KServe's Python server, V2."""

import os

import kserve
import numpy
import session


class Rows(kserve.Model):
    def load(self):
        self.rows = session.model()
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        rows = payload.inputs[0].as_numpy()
        answer = self.rows.run_one(rows.astype(numpy.float32, copy=False))
        output = kserve.InferOutput("y", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=False)
        return kserve.InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    model = Rows("mlp")
    model.load()
    port = int(os.environ["PORT"])
    kserve.ModelServer(http_port=port, grpc_port=port + 1, enable_grpc=False, workers=1, access_log_format=None).start([model])
