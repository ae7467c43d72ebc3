"""Triton's own client library, over HTTP and over gRPC, with its defaults."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

from conftest import VALUES, array, same

PROTOCOLS = {"http": over_http, "grpc": over_grpc}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return PROTOCOLS[request.param]


def client_of(protocol, server):
    return protocol.InferenceServerClient(server.address)


def given(protocol, name, datatype, values, **how):
    tensor = protocol.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **how)
    return tensor


@pytest.mark.parametrize("name", VALUES)
def test_every_datatype_comes_back(protocol, serve, name):
    server = serve(name)
    datatype, values = array(name)
    result = client_of(protocol, server).infer(name, [given(protocol, "x", datatype, values)])
    same(result.as_numpy("y"), values)
    assert result.get_output("y")


@pytest.mark.parametrize("name", [name for name in VALUES if name != "fp16"])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("sent", [True, False])
def test_json_and_bytes_in_every_direction_over_http(serve, name, sent, asked):
    server = serve(name)
    datatype, values = array(name)
    if not sent and values.dtype == np.float32:
        values = np.array([[0.1, -3.5], [1e-45, 2.0]], np.float32)
    if not np.issubdtype(values.dtype, np.object_) and np.issubdtype(values.dtype, np.floating):
        # This client writes and reads infinities in a way that is no JSON.
        values = np.where(np.isfinite(values), values, 1).astype(values.dtype)
    tensor = given(over_http, "x", datatype, values, binary_data=sent)
    output = over_http.InferRequestedOutput("y", binary_data=asked)
    result = client_of(over_http, server).infer(name, [tensor], outputs=[output])
    same(result.as_numpy("y"), values)


def test_real_answers_equal_onnx_runtimes(protocol, serve):
    server = serve("perceptron")
    rows = np.random.default_rng(1).standard_normal((7, 16), dtype=np.float32)
    result = client_of(protocol, server).infer("perceptron", [given(protocol, "x", "FP32", rows)], request_id="r-1")
    for name, expected in server.reference(x=rows).items():
        same(result.as_numpy(name), expected)
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "r-1"


def test_requested_outputs_and_classes(protocol, serve):
    server = serve("perceptron")
    rows = np.random.default_rng(2).standard_normal((3, 16), dtype=np.float32)
    wanted = [protocol.InferRequestedOutput("scores", class_count=2)]
    result = client_of(protocol, server).infer("perceptron", [given(protocol, "x", "FP32", rows)], outputs=wanted)
    classes = result.as_numpy("scores")
    assert classes.shape == (3, 2)
    assert result.as_numpy("hidden") is None
    scores = server.reference(x=rows)["scores"]
    for row, best in zip(scores, classes):
        for place, text in zip(np.argsort(-row), best):
            value, index = text.decode().split(":")
            assert int(index) == place
            assert float(value) == pytest.approx(row[place], abs=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_over_http(serve, algorithm):
    server = serve("fp32")
    values = np.zeros((20000, 2), np.float32)
    tensor = given(over_http, "x", "FP32", values)
    result = client_of(over_http, server).infer(
        "fp32", [tensor], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    same(result.as_numpy("y"), values)


def test_packed_over_grpc(serve):
    server = serve("fp32")
    values = np.zeros((20000, 2), np.float32)
    tensor = given(over_grpc, "x", "FP32", values)
    result = client_of(over_grpc, server).infer("fp32", [tensor], compression_algorithm="gzip")
    same(result.as_numpy("y"), values)


def test_large_tensors(protocol, serve):
    server = serve("fp32", "--max-body-bytes", "200000000")
    values = np.random.default_rng(3).standard_normal((9_000_000, 2), dtype=np.float32)
    assert values.nbytes > 64 << 20
    result = client_of(protocol, server).infer("fp32", [given(protocol, "x", "FP32", values)])
    same(result.as_numpy("y"), values)


def test_no_rows(protocol, serve):
    server = serve("fp32")
    values = np.zeros((0, 2), np.float32)
    result = client_of(protocol, server).infer("fp32", [given(protocol, "x", "FP32", values)])
    assert result.as_numpy("y").shape == (0, 2)


def test_what_the_server_tells(protocol, serve):
    server = serve("perceptron")
    client = client_of(protocol, server)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("perceptron") and client.is_model_ready("perceptron", "1")
    how = {"as_json": True} if protocol is over_grpc else {}
    about = client.get_server_metadata(**how)
    assert about["name"] == "ortolan" and "binary_tensor_data" in about["extensions"]
    model = client.get_model_metadata("perceptron", **how)
    assert model["platform"] == "onnxruntime_onnx" and model["inputs"][0]["name"] == "x"
    config = client.get_model_config("perceptron", **how)
    config = config.get("config", config)
    assert config["name"] == "perceptron" and config["input"][0]["data_type"] == "TYPE_FP32"
    index = client.get_model_repository_index(**how)
    index = index["models"] if isinstance(index, dict) else index
    assert index[0]["name"] == "perceptron" and index[0]["state"] == "READY"
    rows = np.zeros((1, 16), np.float32)
    client.infer("perceptron", [given(protocol, "x", "FP32", rows)])
    stats = client.get_inference_statistics("perceptron", **how)["model_stats"][0]
    assert int(stats["inference_stats"]["success"]["count"]) >= 1


def test_errors_are_said(protocol, serve):
    server = serve("fp32")
    client = client_of(protocol, server)
    values = np.zeros((1, 3), np.float32)
    with pytest.raises(InferenceServerException, match=r"\[1,3\]"):
        client.infer("fp32", [given(protocol, "x", "FP32", values)])
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("other", [given(protocol, "x", "FP32", values)])
    values = np.zeros((1, 2), np.float32)
    with pytest.raises(InferenceServerException, match="keeps no state"):
        client.infer("fp32", [given(protocol, "x", "FP32", values)], sequence_id=5, sequence_start=True)


def test_the_parameter_timeout(protocol, serve):
    server = serve("slow")
    values = np.zeros((8, 512), np.float32)
    with pytest.raises(InferenceServerException, match="deadline"):
        client_of(protocol, server).infer("slow", [given(protocol, "x", "FP32", values)], timeout=1000)


def test_asynchronous_requests(protocol, serve):
    server = serve("fp32")
    client = over_http.InferenceServerClient(server.address, concurrency=8) if protocol is over_http else client_of(protocol, server)
    answers = queue.Queue()
    pending = []
    for number in range(40):
        tensor = given(protocol, "x", "FP32", np.full((1, 2), number, np.float32))
        if protocol is over_http:
            pending.append(client.async_infer("fp32", [tensor]))
        else:
            client.async_infer("fp32", [tensor], lambda result, error: answers.put((result, error)), request_id=str(number))
    if protocol is over_http:
        seen = [call.get_result().as_numpy("y")[0, 0] for call in pending]
        assert seen == list(range(40))
    else:
        seen = []
        for _ in range(40):
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.as_numpy("y")[0, 0] == int(result.get_response().id)
            seen.append(int(result.get_response().id))
        assert sorted(seen) == list(range(40))


def test_a_stream(serve):
    server = serve("fp32")
    client = client_of(over_grpc, server)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(50):
        name = "nothing" if number == 20 else "x"
        tensor = given(over_grpc, name, "FP32", np.full((1, 2), number, np.float32))
        client.async_stream_infer("fp32", [tensor], request_id=str(number))
    for number in range(50):
        result, error = answers.get(timeout=30)
        if number == 20:
            assert "no input" in str(error)
        else:
            assert error is None
            assert (result.get_response().id, result.as_numpy("y")[0, 0]) == (str(number), number)
    client.stop_stream()


def test_the_libraries_for_asyncio(serve):
    import asyncio

    server = serve("bytes")
    datatype, values = array("bytes")

    async def ask(protocol, inputs):
        async with protocol.InferenceServerClient(server.address) as client:
            result = await client.infer("bytes", [given(inputs, "x", datatype, values)])
            return result.as_numpy("y")

    same(asyncio.run(ask(over_http_aio, over_http)), values)
    same(asyncio.run(ask(over_grpc_aio, over_grpc)), values)


def test_a_raw_body(serve):
    server = serve("fp32")
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}/v2/models/fp32/infer", values.tobytes(), {"Inference-Header-Content-Length": "0"}
    )
    with urllib.request.urlopen(request) as response:
        length = int(response.headers["Inference-Header-Content-Length"])
        body = response.read()
    result = over_http.InferenceServerClient.parse_response_body(body, header_length=length)
    same(result.as_numpy("y"), values)
