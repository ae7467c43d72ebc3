"""Runs schemathesis against a fresh server: every operation of /openapi.json, with requests that fit it and requests that do not.

Left out of its checks: that data which fits the document is accepted (the document is of any model, and does not
know this one's tensors), and that data which does not fit is refused (unknown fields are ignored, as the protocol says).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import models
from conftest import Server

LEFT_OUT = "positive_data_acceptance,negative_data_rejection"


def main():
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        models.main(directory)
        server = Server(directory / "perceptron.onnx", directory)
        schemathesis = pathlib.Path(sys.executable).with_name("st")
        examples = os.environ.get("ORTOLAN_FUZZ_EXAMPLES", "100")
        done = subprocess.run(
            [
                schemathesis,
                "run",
                f"{server.url}/openapi.json",
                f"--exclude-checks={LEFT_OUT}",
                f"--max-examples={examples}",
                "--seed=1",
                "--generation-database=none",
                "--no-color",
                # Not one that is made up: what is late is a 504, as the document says.
                "--header=X-Request-Timeout: 60s",
            ],
            cwd=directory,
        )
        server.stop()
        if "panicked" in server.log.read_text():
            print(server.log.read_text())
            return 1
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
