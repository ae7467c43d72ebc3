"""Texts of mixed lengths to embeddings. Every server takes a text and answers its vector, but Triton: its ONNX Runtime backend knows no tokens, so it gets ready-made
ones, as binary tensors, and answers the vectors of all tokens, unpooled; it does less than the others."""

import array
import dataclasses
import json
import random
import tarfile

from serving_workloads import PLAIN, Request, Workload

# Words in an order that stays the same; what they mean is of no matter to the time.
WORDS = (
    "the river carries silt from the hills to a plain where farmers have grown barley and flax since before the first roads were built and every spring the "
    "water comes back over the banks leaves what it brought and goes again while storks walk behind it looking for frogs among the reeds and the old mill turns"
).split()
# From a search query to a paragraph; most are short.
LENGTHS = [4, 6, 8, 5, 12, 9, 16, 7, 24, 11, 40, 6, 64, 18, 110, 30]


def texts():
    draw = random.Random(4)
    return [" ".join(draw.choice(WORDS) for _ in range(length)) for length in LENGTHS]


@dataclasses.dataclass
class Text(Workload):
    """Sends the texts in turn; the first is the one whose answer is checked."""

    tokens: callable = None

    def body(self, server, text):
        if server == "triton":
            return self.tensors(text)
        if server == "ortolan":
            return Request("/predict/minilm", text.encode(), "text/plain; charset=utf-8")
        return Request(PLAIN[server], json.dumps({"text": text}).encode())

    def tensors(self, text):
        ids = self.tokens(text)
        inputs, data = [], b""
        for name, values in (("input_ids", ids), ("attention_mask", [1] * len(ids)), ("token_type_ids", [0] * len(ids))):
            inputs.append({"name": name, "datatype": "INT64", "shape": [1, len(ids)], "parameters": {"binary_data_size": 8 * len(ids)}})
            data += array.array("q", values).tobytes()
        # Every body's head is as long as the longest possible, so that one header fits all: spaces are JSON.
        head = json.dumps({"inputs": inputs, "outputs": [{"name": "last_hidden_state", "parameters": {"binary_data": True}}]}).encode().ljust(600)
        return Request("/v2/models/minilm/infer", head + data, "application/octet-stream", {"Inference-Header-Content-Length": str(len(head))})

    def request(self, server, folder):
        requests = [self.body(server, text).saved(folder, f"{self.name}-{server}-{number}.body") for number, text in enumerate(texts())]
        return dataclasses.replace(requests[0], files=[request.files[0] for request in requests])

    def ask(self, server):
        request = self.body(server, texts()[0])
        return request.path, request.body, {"Content-Type": request.content_type, **request.headers}

    def verify(self, server, answer):
        if server != "triton":
            super().verify(server, answer)


def workload(models, work, peers):
    """`missing` where scripts/models.sh made no MiniLM."""
    archive, folder = models / "minilm.tar.gz", work / "minilm"
    if archive.is_file() and not (folder / "model.onnx").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return Text(
        "text", "MiniLM (INT8), texts of 4 to 110 words to embeddings, 16 connections", "text", folder / "model.onnx", "minilm",
        ["ortolan", "triton", "fastapi", "mosec", "litserve", "bentoml"],
        expected=lambda: peers.text("embed", folder, texts()[0]), tokens=lambda text: peers.text("tokens", folder, text), kind="text",
        tolerance=1e-3, source=archive if archive.is_file() else None,
        missing=lambda bench: None if (folder / "model.onnx").is_file() else f"{archive} is not there",
    )
