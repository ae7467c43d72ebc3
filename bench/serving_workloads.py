"""What is sent to whom, and how an answer is checked: every server must give the raw session's answer before it is measured."""

import array
import dataclasses
import json
import pathlib
import random
import struct

V2 = ["ortolan", "triton", "mlserver", "kserve"]
PLAIN = {"fastapi": "/predict", "mosec": "/inference", "litserve": "/predict", "bentoml": "/predict", "hello": "/"}


@dataclasses.dataclass
class Request:
    path: str
    body: bytes
    content_type: str = "application/json"
    headers: dict = dataclasses.field(default_factory=dict)
    files: list = dataclasses.field(default_factory=list)

    def saved(self, folder, name):
        """With the body in a file, which the generators read."""
        file = pathlib.Path(folder) / name
        file.write_bytes(self.body)
        return dataclasses.replace(self, files=[file])


@dataclasses.dataclass
class Workload:
    """`make(server)` gives the request; `expected` are the raw session's numbers, or a word that the answer must hold;
    `source` is what our server loads where that is not the bare model; `loop(peers, runs)` gives the times of so many runs of the raw loop."""

    name: str
    title: str
    runner: str
    model: pathlib.Path
    model_name: str
    servers: list
    connections: int = 16
    max_batch: int = 16
    runs: int = 200
    kind: str = "rows"
    tolerance: float = 1e-5
    source: pathlib.Path = None
    make: callable = None
    loop: callable = None
    expected: callable = None
    options: callable = lambda port: []
    missing: callable = lambda bench: None

    def request(self, server, folder):
        return self.make(server).saved(folder, f"{self.name}-{server}.body")

    def ask(self, server):
        request = self.make(server)
        return request.path, request.body, {"Content-Type": request.content_type, **request.headers}

    def verify(self, server, answer):
        if server == "hello" or not self.expected:
            return
        wanted = self.expected()
        if isinstance(wanted, str):
            right = wanted in answer.decode(errors="replace")
        else:
            got = numbers(answer)
            right = len(got) == len(wanted) and all(abs(a - b) <= self.tolerance * max(1, abs(b)) for a, b in zip(got, wanted))
        if not right:
            raise SystemExit(f"{server} answers {answer[:300]!r}, and the raw session {str(wanted)[:200]}")


def numbers(answer):
    """The numbers of the only output: V2 as JSON or with binary data, or `y`, or a bare list."""
    if b'"binary_data_size"' in answer:
        head = json.JSONDecoder().raw_decode(answer.decode("latin-1"))[1]
        return list(array.array("f", answer[head:]))
    answer = json.loads(answer)
    if isinstance(answer, dict):
        answer = answer["outputs"][0]["data"] if "outputs" in answer else answer.get("y") or answer["embeddings"]
    flat = []
    while answer and isinstance(answer[0], list):
        answer = [number for row in answer for number in row]
    flat += answer
    return flat


def random_floats(count):
    draw = random.Random(4)
    return array.array("f", (draw.uniform(-1, 1) for _ in range(count)))


def v2_json(name, values, shape):
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [round(value, 7) for value in values]}]}).encode()


def v2_binary(model, tensor, values, shape, output):
    head = {"inputs": [{"name": tensor, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 4 * len(values)}}]}
    head["outputs"] = [{"name": output, "parameters": {"binary_data": True}}]
    head = json.dumps(head).encode()
    return Request(f"/v2/models/{model}/infer", head + values.tobytes(), "application/octet-stream", {"Inference-Header-Content-Length": str(len(head))})


def mlp_request(server, rows=1):
    values = [round(value, 4) for value in random_floats(16 * rows)]
    if server in V2:
        return Request("/v2/models/mlp/infer", v2_json("x", values, [rows, 16]))
    return Request(PLAIN[server], json.dumps({"x": [values[row * 16 : row * 16 + 16] for row in range(rows)]}).encode())


def field(number, payload):
    """A length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def grpc_request(model, tensor, values, shape):
    """inference.ModelInferRequest with raw contents, in gRPC's frame."""
    spec = field(1, tensor.encode()) + field(2, b"FP32") + field(3, b"".join(varint(dimension) for dimension in shape))
    message = field(1, model.encode()) + field(5, spec) + field(7, array.array("f", values).tobytes())
    return struct.pack(">BI", 0, len(message)) + message


def workloads(models, work, once):
    """`once(model, values, shape)` is the raw session's answer."""
    mlp, efficientnet, photograph = work / "mlp.onnx", models / "efficientnet-lite0.onnx", models / "flower.jpg"
    row = [round(value, 4) for value in random_floats(16)]
    pixels = random_floats(3 * 224 * 224)
    tiny = {"model": mlp, "model_name": "mlp", "make": mlp_request, "expected": lambda: once(mlp, tuple(row), (1, 16))}
    large = {
        "model": efficientnet,
        "model_name": "efficientnet",
        "max_batch": 0,
        "make": lambda server: v2_binary("efficientnet", "images", pixels, [1, 3, 224, 224], "logits"),
        "expected": lambda: once(efficientnet, tuple(pixels), (1, 3, 224, 224)),
        "loop": lambda peers, runs: peers.raw_on("run", efficientnet, pixels, (1, 3, 224, 224), str(runs)),
    }
    picture = {"model": efficientnet, "source": models / "efficientnet-lite0.tar.gz", "model_name": "efficientnet", "expected": lambda: "daisy"}
    picture["loop"] = lambda peers, runs: peers.raw("photograph", efficientnet, str(photograph), str(runs))
    made = [
        Workload("mlp", "Tiny MLP, JSON, 16 connections", "mlp", servers=[*V2, *PLAIN], **tiny),
        Workload("grpc", "Tiny MLP, gRPC with raw contents, 16 streams", "grpc", servers=["ortolan", "triton"], options=lambda port: [f"--grpc=127.0.0.1:{port + 1}"], **tiny),
        Workload("efficientnet", "EfficientNet-lite0, batch 1, binary tensors, 4 connections", "efficientnet", servers=["ortolan", "triton"], connections=4, **large),
        Workload("open", "EfficientNet-lite0 at 70 % of the raw loop, Poisson arrivals", "open", servers=["ortolan", "triton"], **large),
        Workload(
            "photograph", "Photograph in, label out, 4 connections", "photograph", servers=["ortolan"], connections=4, runs=100,
            make=lambda server: Request("/predict/efficientnet", photograph.read_bytes(), "image/jpeg"), **picture,
        ),
        Workload("start", "Start with the model on disk, to the first answer", "start", servers=["ortolan", "triton"], **large),
        Workload("memory", "Memory over a million requests, tiny MLP", "memory", servers=["ortolan"], **tiny),
        Workload("idle", "1 000 idle connections, 50 slow writers, 50 slow readers, tiny MLP", "idle", servers=["ortolan", "triton"], **tiny),
        Workload("traces", "Single requests followed, tiny MLP", "traces", servers=["ortolan"], **tiny),
    ]
    return {workload.name: workload for workload in made}
