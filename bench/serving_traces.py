"""What following single requests costs: the same server without traces, with a hundredth of the requests traced, with all of them, and with the access log.

The collector is a sink on the generator's core that answers every POST and counts its bytes. One load is open, far below what the server can do, so that no span is
lost and CPU time a request can be compared; the other is a closed loop, in which spans that do not fit into the queue are left out.
"""

import dataclasses
import http.server
import multiprocessing
import os

import serving_process
from serving_report import median, number

VARIANTS = {
    "not followed": [],
    "1 % traced": ["--otlp-endpoint=http://127.0.0.1:{}", "--trace-ratio=0.01"],
    "all traced": ["--otlp-endpoint=http://127.0.0.1:{}", "--trace-ratio=1"],
    "access log": ["--access-log"],
}


class Sink:
    """A collector that takes everything and keeps nothing, in a process of its own."""

    def __init__(self, core):
        self.port, self.taken = serving_process.free_port(18900), multiprocessing.Value("q", 0)
        self.process = multiprocessing.Process(target=self.serve, args=(core,), daemon=True)
        self.process.start()

    def serve(self, core):
        os.sched_setaffinity(0, {core})
        taken = self.taken

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                taken.value += len(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler).serve_forever()

    def stop(self):
        self.process.terminate()
        self.process.join()


def traces(bench, workload):
    request, results = workload.request("ortolan", bench.args.work), {name: [] for name in VARIANTS}
    sink = Sink(bench.args.generator_core)
    try:
        for _ in bench.rounds():
            for name, options in VARIANTS.items():
                options = [option.format(sink.port) for option in options]
                before = sink.taken.value
                running = bench.start("ortolan", dataclasses.replace(workload, options=lambda port, options=options: options))
                try:
                    bench.generator.load(running.port, request, bench.args.warm_up, workload.connections)
                    seconds = bench.args.seconds
                    calm = bench.measure(running, lambda: bench.generator.load(running.port, request, seconds, 16, rate=bench.args.idle_rate))
                    full = bench.measure(running, lambda: bench.generator.load(running.port, request, seconds, workload.connections))
                finally:
                    running.stop()
                failed = calm["failed"] + full["failed"]
                cpu = calm["cpu"] / calm["sent"] * 1e6
                results[name].append({"cpu": cpu, "p50": calm["p50"], "p99": calm["p99"], "rate": full["rate"], "per_cpu": full["per_cpu"], "failed": failed, "sent": sink.taken.value - before})
    finally:
        sink.stop()
    bench.results[workload.name] = results
    print(f"\n{workload.title}; {bench.args.idle_rate}/s, then 16 connections; medians of {bench.args.rounds} rounds of {bench.args.seconds:g} s each")
    print(f"\n| | µs of CPU a request at {bench.args.idle_rate}/s | p50 ms | p99 ms | requests/s, closed loop | a CPU-second | failed | to the collector |\n|---|---|---|---|---|---|---|---|")
    for name, some in results.items():
        failed = sum(result["failed"] for result in some)
        print(
            f"| {name} | {median(some, 'cpu'):.1f} | {median(some, 'p50') * 1e3:.2f} | {median(some, 'p99') * 1e3:.2f} | {number(median(some, 'rate'))} | {number(median(some, 'per_cpu'))} "
            f"| {failed} | {median(some, 'sent') / 1e6:.1f} MB |"
        )


RUNNERS = {"traces": traces}
