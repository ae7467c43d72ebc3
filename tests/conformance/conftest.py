"""Starts the server under test, one for each model, and hands out clients."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

import numpy as np
import onnxruntime
import pytest

import models

SERVER = os.environ["ORTOLAN_SERVER"]

# name, numpy's type, four values whose every bit matters
VALUES = {
    "bool": ("BOOL", np.bool_, [True, False, False, True]),
    "int8": ("INT8", np.int8, [-128, -1, 0, 127]),
    "int16": ("INT16", np.int16, [-32768, -1, 0, 32767]),
    "int32": ("INT32", np.int32, [-(2**31), -1, 0, 2**31 - 1]),
    "int64": ("INT64", np.int64, [-(2**63), -1, 2**53 + 1, 2**63 - 1]),
    "uint8": ("UINT8", np.uint8, [0, 1, 128, 255]),
    "uint16": ("UINT16", np.uint16, [0, 1, 2**15, 2**16 - 1]),
    "uint32": ("UINT32", np.uint32, [0, 1, 2**31, 2**32 - 1]),
    "uint64": ("UINT64", np.uint64, [0, 1, 2**53 + 1, 2**64 - 1]),
    "fp16": ("FP16", np.float16, [0.1, -65504, 6e-8, np.inf]),
    "fp32": ("FP32", np.float32, [0.1, -3.4e38, 1e-45, np.inf]),
    "fp64": ("FP64", np.float64, [0.1, -1.7e308, 5e-324, -np.inf]),
    "bytes": ("BYTES", np.object_, [b"", b"a\"\\\n", "üñí".encode(), b"[1,2]"]),
}


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server of one model, named after its file."""

    def __init__(self, path, logs, *options):
        self.path, self.name = pathlib.Path(path), pathlib.Path(path).stem
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self.log = logs / f"{self.name}-{port}.log"
        command = [SERVER, str(path), "--name", self.name, "--http", self.address, "--drain-delay", "0", "--sessions", "1"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, *options], stderr=log, stdin=subprocess.DEVNULL)
        self.wait()

    def wait(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/healthz/ready", timeout=1).status == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the server did not get ready: {self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=20)
        assert code == 0, f"the server ended with {code}: {self.log.read_text()}"

    def reference(self, **inputs):
        """What ONNX Runtime's own Python says, with one thread as the server's sessions have."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs)))


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    models.main(path)
    return path


@pytest.fixture(scope="session")
def serve(directory, tmp_path_factory):
    """A function from a model's name, or a path, to its running server."""
    running, logs = {}, tmp_path_factory.mktemp("logs")

    def start(name, *options):
        path = name if os.sep in str(name) else directory / f"{name}.onnx"
        key = (str(path), options)
        if key not in running:
            running[key] = Server(path, logs, *options)
        return running[key]

    yield start
    for server in running.values():
        server.stop()


def array(name):
    datatype, kind, values = VALUES[name]
    return datatype, np.array(values, dtype=kind).reshape(2, 2)


def same(got, expected):
    """Bit for bit; objects, which have no bits of their own, by their values."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    if expected.dtype == np.object_:
        as_bytes = lambda value: value if isinstance(value, bytes) else str(value).encode()
        assert [as_bytes(value) for value in got.ravel()] == [as_bytes(value) for value in expected.ravel()]
    else:
        assert got.dtype == expected.dtype
        assert got.tobytes() == expected.tobytes()
