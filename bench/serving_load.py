"""Load generators, all behind one call: `ortolan-server bench` (any workload), and wrk (closed loops over HTTP/1.1) for a second opinion.

A result has `rate` (good answers a second), `p50` and `p99` in seconds, `failed`, `sent` and `generator` (the CPU-seconds of the generator).
"""

import json
import re
import resource
import subprocess
import tempfile


def run(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-500:]}{done.stderr[-1000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Ortolan:
    """`ortolan-server bench`: latency from when a request was due, so nothing is left out when the server stalls."""

    def __init__(self, program, core):
        self.start = ["taskset", "-c", str(core), program, "bench"]

    def load(self, port, request, seconds, connections=None, rate=None, seed=1, warm_up=0.0):
        loop = ["--concurrency", str(connections)] if rate is None else ["--rate", str(rate), "--seed", str(seed), "--connections", str(connections or 64)]
        bodies = [option for file in request.files for option in ("--body", str(file))]
        headers = [option for name, value in request.headers.items() for option in ("--header", f"{name}: {value}")]
        out, cpu = run(
            [*self.start, f"http://127.0.0.1:{port}", "--path", request.path, *bodies, "--content-type", request.content_type, *headers, *loop]
            + ["--duration", f"{seconds}s", "--warm-up", f"{warm_up}s", "--json"]
        )
        report = json.loads(out)
        quantiles = report["latency"]["quantiles"]
        return {
            "rate": report["successesPerSecond"],
            "p50": quantiles["p50"],
            "p99": quantiles["p99"],
            "sent": report["ended"],
            "failed": report["ended"] - report["successes"],
            "generator": cpu,
            "warnings": report["warnings"],
        }


class Wrk:
    """wrk, one thread: closed loops only, one body only."""

    def __init__(self, core):
        self.start = ["taskset", "-c", str(core), "wrk", "-t1", "--latency"]

    def load(self, port, request, seconds, connections=None, rate=None, seed=1, warm_up=0.0):
        if rate is not None:
            raise RuntimeError("wrk has no open loop")
        if warm_up:
            self.load(port, request, warm_up, connections)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(f'wrk.method = "POST"\nlocal file = io.open("{request.files[0]}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n')
            for name, value in {"Content-Type": request.content_type, **request.headers}.items():
                script.write(f'wrk.headers["{name}"] = "{value}"\n')
            script.flush()
            out, cpu = run([*self.start, f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, f"http://127.0.0.1:{port}{request.path}"])
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        sent = int(re.search(r"(\d+) requests in", out)[1])
        return {
            "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
            "p50": duration(re.search(r"50%\s+(\S+)", out)[1]),
            "p99": duration(re.search(r"99%\s+(\S+)", out)[1]),
            "sent": sent,
            "failed": int(failed[1]) if failed else 0,
            "generator": cpu,
            "warnings": [],
        }


def duration(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit]
