"""A custom runtime of MLServer: V2 tensors through its NumPy codec."""

import session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Rows(MLModel):
    async def load(self):
        self.rows = session.model()
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        answer = self.rows.run_one(rows.astype("float32", copy=False))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[NumpyCodec.encode_output("y", answer)])
