"""Real models: every bit of their answers is ONNX Runtime's own."""

import os
import pathlib

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from conftest import same

MODELS = pathlib.Path(os.environ["ORTOLAN_MODELS"])


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("protocol", [over_http, over_grpc], ids=["http", "grpc"])
def test_a_classifier_of_photographs(serve, protocol, rows):
    path = MODELS / "efficientnet-lite0.onnx"
    if not path.exists():
        pytest.skip("scripts/models.sh fetches it")
    # Alone: in a batch ONNX Runtime adds in another order.
    server = serve(str(path), "--max-batch", str(rows))
    session_input = np.random.default_rng(9).standard_normal((rows, 3, 224, 224), dtype=np.float32)
    client = protocol.InferenceServerClient(server.address)
    name = client.get_model_metadata(server.name)["inputs"][0]["name"] if protocol is over_http else client.get_model_metadata(server.name).inputs[0].name
    tensor = protocol.InferInput(name, list(session_input.shape), "FP32")
    tensor.set_data_from_numpy(session_input)
    result = client.infer(server.name, [tensor])
    for output, expected in server.reference(**{name: session_input}).items():
        same(result.as_numpy(output), expected)
