"""The server for long: see bench/soak. Everything that is asked of it goes over loopback, from `ortolan-server bench` on a core of its own."""

import argparse
import atexit
import http.client
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import serving_process

SLOW_START = 0.1  # of the time: allocators and caches fill up
NOISE_MIB, NOISE = 6, 0.08  # what is no growth yet: an allocator's noise, and two models side by side now and then


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def renamed(source, target, note):
    """A copy of the model that differs from all others in its doc string (ModelProto's field 6; of two the last one counts)."""
    words = f"soak {note}".encode()
    fresh = target.with_name(".fresh")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as original, fresh.open("wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.write(bytes([6 << 3 | 2, len(words)]) + words)
    fresh.rename(target)


class Soak:
    def __init__(self, args, folder):
        self.args, self.folder, self.port = args, folder, serving_process.free_port(18700)
        self.repository = folder / "models"
        self.samples, self.reloads, self.version = [], [], 1

    def start(self, uri, options):
        command = [self.args.program, str(uri), f"--http=127.0.0.1:{self.port}", f"--cache-dir={self.folder}/cache", f"--onnxruntime={self.args.library}", "--drain-delay=0s", "--sessions=1", *options]
        log = (self.folder / "server.log").open("w")
        self.server = subprocess.Popen(["taskset", "-c", str(self.args.server_core), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        atexit.register(self.server.kill)
        until = time.monotonic() + 60
        while time.monotonic() < until and self.server.poll() is None:
            try:
                if ask(self.port, "GET", "/healthz/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("the server does not start:\n" + (self.folder / "server.log").read_text()[-2000:])

    def generator(self, *options):
        url = f"http://127.0.0.1:{self.port}"
        command = ["taskset", "-c", str(self.args.generator_core), self.args.program, "bench", url, "--model", "m", "--json", *options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def report(self, process):
        out, err = process.communicate()
        if process.returncode != 0:
            sys.exit(f"the generator ended with {process.returncode}: {err[-2000:]}")
        return json.loads(out)

    def sample(self, began):
        proc = pathlib.Path(f"/proc/{self.server.pid}")
        threads = sum(1 for _ in (proc / "task").iterdir())
        files = sum(1 for _ in (proc / "fd").iterdir())
        self.samples.append((time.monotonic() - began, serving_process.memory_mib(self.server.pid), threads, files))

    def digests(self):
        models = json.loads(ask(self.port, "GET", "/healthz/startup")[1])["models"]
        # One that is being loaded has no digest yet.
        return {(model["model"]["version"], model["digest"]) for model in models if "digest" in model}

    def reload(self):
        """In turns another content of the same version, and a new version in the place of the old one. The time until only that one serves."""
        before, began = self.digests(), time.monotonic()
        number = len(self.reloads)
        if number % 2:
            self.version += 1
        renamed(self.args.model, self.repository / f"m/{self.version}/model.onnx", number)
        if self.args.explicit:
            status, words = ask(self.port, "POST", "/v2/repository/models/m/load", b"{}")
            if status != 200:
                sys.exit(f"load: {status} {words!r}")
        while time.monotonic() < began + 120:
            now = self.digests()
            if len(now) == 1 and now != before:
                if number % 2:
                    shutil.rmtree(self.repository / f"m/{self.version - 1}")
                return self.reloads.append(time.monotonic() - began)
            time.sleep(0.1)
        sys.exit(f"the reload did not happen: {before} → {self.digests()}")

    def grown(self):
        """What is resident at the end above what was at the beginning: medians of a fifth of the time each, the slow start left out."""
        whole = self.samples[-1][0]
        later = [sample for sample in self.samples if sample[0] >= whole * SLOW_START]
        fifth = max(1, len(later) // 5)
        mean = lambda part: statistics.median(sample[1] for sample in part)
        return mean(later[:fifth]), mean(later[-fifth:])

    def print_samples(self):
        step = max(1, len(self.samples) // 12)
        print(f"{'s':>8} {'MiB':>8} {'threads':>8} {'files':>8}")
        for at, mib, threads, files in self.samples[::step]:
            print(f"{at:8.0f} {mib:8.1f} {threads:8} {files:8}")

    def end(self, failed):
        first, last = self.grown()
        grew = last - first > max(NOISE_MIB, NOISE * first)
        self.print_samples()
        print(f"resident: {first:.1f} MiB at first, {last:.1f} MiB in the end, {max(sample[1] for sample in self.samples):.1f} MiB at most")
        self.server.terminate()
        code = self.server.wait(60)
        for is_wrong, words in ((failed, f"{failed} requests failed"), (grew, "memory grew"), (code, f"the server ended with {code}")):
            if is_wrong:
                print(f"FAILED: {words}")
        return bool(failed or grew or code)


def errors(report):
    """How many requests failed or never had an answer, and how all of them ended."""
    waiting = report.get("waiting") or {}
    lost = waiting.get("neverSent", 0) + waiting.get("unfinished", 0)
    return report["ended"] - report["successes"] + lost, report["endings"]


def under_load(args, folder):
    soak = Soak(args, folder)
    renamed(args.model, soak.repository / "m/1/model.onnx", "first")
    mode = ["--model-control=explicit", "--management-api", "--load-model=m"] if args.explicit else ["--model-control=poll", "--poll-interval=1s"]
    soak.start(soak.repository, mode)
    most = soak.report(soak.generator("--binary", "--concurrency", "4", "--duration", "8s"))["successesPerSecond"]
    rate, seconds = most * args.load, args.minutes * 60
    print(f"{args.model.name}: {most:.1f} requests/s at most, {rate:.1f}/s for {args.minutes:g} min, a reload every {args.every:g} s ({'explicit' if args.explicit else 'poll'})", flush=True)
    load = soak.generator("--binary", "--rate", f"{rate:.3f}", "--duration", f"{seconds:.0f}s", "--pid", str(soak.server.pid))
    began = time.monotonic()
    due = began + args.every / 2
    while load.poll() is None:
        soak.sample(began)
        # The last one is over before the load is.
        if time.monotonic() >= due and time.monotonic() < began + seconds - 5:
            soak.reload()
            due += args.every
        time.sleep(1)
    report = soak.report(load)
    failed, kinds = errors(report)
    latency = report["latency"]
    print(f"{report['ended']} requests, {failed} failed {kinds or ''}; {len(soak.reloads)} reloads, {statistics.median(soak.reloads or [0]):.1f} s each, {max(soak.reloads or [0]):.1f} s at most")
    print("latency: " + ", ".join(f"{name} {latency['quantiles'][name] * 1e3:.1f} ms" for name in ("p50", "p90", "p99", "max")))
    return soak.end(failed)


def memory(args, folder):
    soak = Soak(args, folder)
    soak.start(args.models / "iris.tar.gz", ["--name=m"])
    soak.report(soak.generator("--concurrency", "16", "--requests", str(args.requests // 20)))
    load = soak.generator("--concurrency", "16", "--requests", str(args.requests))
    began = time.monotonic()
    while load.poll() is None:
        soak.sample(began)
        time.sleep(0.5)
    soak.sample(began)
    report = soak.report(load)
    failed, kinds = errors(report)
    print(f"{report['ended']} requests in {report['seconds']:.1f} s, {failed} failed {kinds or ''}")
    return soak.end(failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=60, help="seconds between two reloads")
    parser.add_argument("--load", type=float, default=0.9, help="of what the server can do")
    parser.add_argument("--explicit", action="store_true", help="reload by request instead of by looking")
    parser.add_argument("--memory", action="store_true", help="memory over --requests of a small model instead")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--generator-core", type=int, default=1)
    args = parser.parse_args()
    args.model = args.model or args.models / "efficientnet-lite0.onnx"
    with tempfile.TemporaryDirectory(prefix="ortolan-soak-") as folder:
        soak = memory if args.memory else under_load
        sys.exit(soak(args, pathlib.Path(folder)))


main()
