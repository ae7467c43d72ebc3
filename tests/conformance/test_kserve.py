"""KServe's own client library."""

import asyncio

import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

from conftest import VALUES, array, same


def request(name, values, datatype, **how):
    tensor = InferInput("x", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **how)
    return InferRequest(model_name=name, infer_inputs=[tensor], request_id="r-1")


def answer(response, name="y"):
    return next(output for output in response.outputs if output.name == name).as_numpy()


@pytest.mark.parametrize("name", VALUES)
def test_every_datatype_over_grpc(serve, name):
    server = serve(name)
    datatype, values = array(name)

    async def ask():
        client = InferenceGRPCClient(url=server.address)
        response = await client.infer(request(name, values, datatype, binary_data=True))
        assert response.id == "r-1"
        return answer(response)

    same(asyncio.run(ask()), values)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_over_rest(serve, name, binary):
    server = serve(name)
    datatype, values = array(name)
    if name == "fp16" and not binary:
        pytest.skip("this client sends FP16 as bytes only")
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 1).astype(values.dtype)

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        response = await client.infer(server.url, request(name, values, datatype, binary_data=binary), model_name=name)
        return answer(response)

    same(asyncio.run(ask()), values)


def test_what_the_server_tells(serve):
    server = serve("perceptron")

    async def ask():
        rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        assert await rest.is_server_live(server.url)
        assert await rest.is_server_ready(server.url)
        assert await rest.is_model_ready(server.url, "perceptron")
        grpc = InferenceGRPCClient(url=server.address)
        assert await grpc.is_server_live() and await grpc.is_server_ready()
        assert await grpc.is_model_ready("perceptron")

    asyncio.run(ask())


def test_v1(serve):
    server = serve("perceptron")
    rows = np.random.default_rng(5).standard_normal((3, 16), dtype=np.float32)

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
        return await client.infer(server.url, {"instances": rows.tolist()}, model_name="perceptron")

    predictions = asyncio.run(ask())["predictions"]
    expected = server.reference(x=rows)
    for row, prediction in enumerate(predictions):
        same(np.array(prediction["scores"], np.float32), expected["scores"][row])
