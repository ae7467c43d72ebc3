"""How ours and each peer is started: one core, one session with one thread in it, and what each one's documentation recommends (see peers/*/start)."""

import array
import functools
import json
import os
import pathlib
import subprocess
import tempfile

ALL = ["ortolan", "triton", "mosec", "fastapi", "mlserver", "kserve", "litserve", "bentoml", "hello"]
HERE = pathlib.Path(__file__).parent / "peers"


class Peers:
    def __init__(self, args):
        self.args = args
        self.environments = dict(line.split(" ", 1) for line in args.peers.read_text().splitlines())

    def present(self, workload):
        """The servers of a workload that are installed here, ours first."""
        there = {"ortolan", *self.environments} | ({"hello"} if self.args.hello else set())
        return [server for server in ALL if server in there and server in workload.servers]

    def python(self, peer):
        return f"{self.environments[peer]}/bin/python"

    def raw(self, what, model, *rest):
        """A raw loop of peers/raw/loop.py on the server's core."""
        command = ["taskset", "-c", str(self.args.server_core), self.python("raw"), str(HERE / "raw/loop.py"), what, str(model), *rest]
        out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HERE), "BENCH_MODEL": str(model)})
        if out.returncode:
            raise RuntimeError(out.stderr[-800:])
        return json.loads(out.stdout)

    def raw_on(self, what, model, values, shape, *rest):
        """The same with an input of these values."""
        with tempfile.NamedTemporaryFile() as file:
            array.array("f", values).tofile(file)
            file.flush()
            return self.raw(what, model, f"{','.join(map(str, shape))}:{file.name}", *rest)

    @functools.cache
    def once(self, model, values, shape):
        """The raw session's answer; `values` and `shape` are tuples."""
        return self.raw_on("once", model, values, shape)

    @functools.cache
    def text(self, what, folder, text):
        """A text's tokens or embedding, by the Python packages."""
        return self.raw(what, folder / "model.onnx", text)

    def command(self, server, workload, port, work):
        """The command and the environment that start a server."""
        if server == "ortolan":
            options = [f"--http=127.0.0.1:{port}", f"--name={workload.model_name}", f"--onnxruntime={self.args.library}", "--drain-delay=0s", f"--cache-dir={work}", *workload.options(port)]
            return [str(self.args.program), str(workload.source or workload.model), *options], {}
        if server == "hello":
            return [str(self.args.hello), f"127.0.0.1:{port}"], {}
        environment = {
            "PEER": self.environments[server],
            "PORT": str(port),
            "WORK": str(work),
            "BENCH_MODEL": str(workload.model),
            "BENCH_KIND": workload.kind,
            "BENCH_NAME": workload.model_name,
            "BENCH_MAX_BATCH": str(workload.max_batch),
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return [str(HERE / server / "start")], environment
