"""The measurements that are no plain closed loop over HTTP/1.1: gRPC, the start, memory over many requests, and a crowd of idle and slow connections."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import serving_load
import serving_process
import serving_queue
import serving_workloads
from serving_report import goal, median, table

HERE = pathlib.Path(__file__).parent
CROWD = 1000
SLOW = 50


def h2load(core, port, body, seconds, streams=16):
    """h2load on one connection with so many streams; its log has one line for each request, with microseconds."""
    seconds = max(1, round(seconds))  # it takes whole ones
    with tempfile.TemporaryDirectory() as folder:
        frame, log = pathlib.Path(folder, "frame"), pathlib.Path(folder, "log")
        frame.write_bytes(body)
        command = ["taskset", "-c", str(core), "h2load", "-c1", f"-m{streams}", f"-D{seconds}", f"--data={frame}", f"--log-file={log}"]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"]
        _, cpu = serving_load.run(command)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    took = [int(line[2]) / 1e6 for line in lines if line[1] == "200"]
    return {
        "rate": len(took) / seconds, "sent": len(lines), "failed": len(lines) - len(took), "generator": cpu,
        "p50": serving_queue.quantile(took, 0.5), "p99": serving_queue.quantile(took, 0.99), "warnings": [],
    }


def grpc(bench, workload):
    """Every answer's gRPC status is checked once with grpcio; h2load counts HTTP statuses."""
    values = [round(value, 4) for value in serving_workloads.random_floats(16)]
    frame = serving_workloads.grpc_request("mlp", "x", values, [1, 16])
    servers = bench.servers(workload)
    results = {server: [] for server in servers}
    for _ in bench.rounds():
        for server in servers:
            running = bench.start(server, workload)
            try:
                port = running.port + 1
                answered = subprocess.run([bench.peers.python("raw"), str(HERE / "peers/raw/grpc_once.py"), str(port)], input=frame[5:], capture_output=True)
                if answered.returncode:
                    raise SystemExit(f"{server}: gRPC: {answered.stderr.decode()[-400:]}")
                got, wanted = json.loads(answered.stdout), workload.expected()
                if any(abs(a - b) > 1e-5 for a, b in zip(got, wanted, strict=True)):
                    raise SystemExit(f"{server} answers {got}, and the raw session {wanted}")
                loaded = serving_process.memory_mib(running.leader)
                h2load(bench.args.generator_core, port, frame, bench.args.warm_up)
                result = bench.measure(running, lambda: h2load(bench.args.generator_core, port, frame, bench.args.seconds))
                results[server].append({**result, "ready": running.ready, "loaded": loaded, "memory": serving_process.memory_mib(running.leader)})
            finally:
                running.stop()
    bench.results[workload.name] = results
    table(bench.title(workload), results, bench.args.seconds)
    if "ortolan" in results and "triton" in results:
        goal("requests/s against Triton", median(results["ortolan"], "rate") / median(results["triton"], "rate"), 2)
        goal("requests a CPU-second against Triton", median(results["ortolan"], "per_cpu") / median(results["triton"], "per_cpu"), 2)


def start(bench, workload):
    """From the start of the process to the first answer to a real request, the model's file in the page cache."""
    servers = bench.servers(workload)
    times = {server: [] for server in servers}
    times["the session alone"] = []
    for _ in bench.rounds():
        times["the session alone"].append(statistics.median(bench.peers.raw("load", workload.model, "3")["runs"]))
        for server in servers:
            running = bench.start(server, workload)
            running.stop()
            times[server].append(running.ready)
    bench.results[workload.name] = times
    print(f"\n{workload.title}; medians of {bench.args.rounds}\n\n| | ms | lowest | highest |\n|---|---|---|---|")
    for server, some in times.items():
        print(f"| {server} | {statistics.median(some) * 1e3:.0f} | {min(some) * 1e3:.0f} | {max(some) * 1e3:.0f} |")
    if "ortolan" in times:
        goal("ms beyond the model's own load", (statistics.median(times["ortolan"]) - statistics.median(times["the session alone"])) * 1e3, 300, at_least=False)


def memory(bench, workload):
    """Resident memory after the load, and then over a million requests. Quiet is not needed: it counts bytes."""
    request = workload.request("ortolan", bench.args.work)
    running = bench.start("ortolan", workload)
    points, sent = [(0, serving_process.memory_mib(running.leader))], 0
    try:
        while sent < 1_000_000:
            sent += bench.generator.load(running.port, request, 3, workload.connections)["sent"]
            points.append((sent, serving_process.memory_mib(running.leader)))
    finally:
        running.stop()
    bench.results[workload.name] = points
    print(f"\n{workload.title}\n\n| requests | MiB resident |\n|---|---|")
    shown = [points[0], *(points[round(step * (len(points) - 1) / 8)] for step in range(1, 9))]
    for count, size in dict.fromkeys(shown):
        print(f"| {count:,} | {size:.1f} |")
    goal("MB resident after the load", points[0][1] * 1.048576, 60, at_least=False)
    later = [size for count, size in points if count >= 200_000]
    goal("MiB grown from 200 000 requests to the end", later[-1] - later[0], 1, at_least=False)


def idle(bench, workload):
    """The same open loop without and with the crowd; what the crowd costs is the difference."""
    servers = bench.servers(workload)
    results = {server: {"alone": [], "crowd": []} for server in servers}
    for _ in bench.rounds():
        for server in servers:
            running = bench.start(server, workload)
            request = workload.request(server, bench.args.work)
            try:
                bench.generator.load(running.port, request, bench.args.warm_up, workload.connections)
                for which in ("alone", "crowd"):
                    crowd = Crowd(bench, running.port, workload, server) if which == "crowd" else None
                    try:
                        result = bench.measure(running, lambda: bench.generator.load(running.port, request, bench.args.seconds, 16, rate=bench.args.idle_rate))
                        results[server][which].append({**result, "memory": serving_process.memory_mib(running.leader), "held": crowd.stop() if crowd else ""})
                    finally:
                        if crowd:
                            crowd.stop()
            finally:
                running.stop()
    bench.results[workload.name] = results
    print(f"\n{workload.title}; {bench.args.idle_rate}/s, Poisson arrivals; medians of {bench.args.rounds} rounds of {bench.args.seconds:g} s")
    print("\n| server | | requests/s | p50 ms | p99 ms | MiB | failed | connections still open at the end |\n|---|---|---|---|---|---|---|---|")
    for server, both in results.items():
        for which, some in both.items():
            failed = sum(result["failed"] for result in some)
            print(f"| {server} | {which} | {median(some, 'rate'):,.0f} | {median(some, 'p50') * 1e3:.2f} | {median(some, 'p99') * 1e3:.2f} | {median(some, 'memory'):.0f} | {failed} | {some[-1]['held']} |")
    if "ortolan" in results:
        ours = results["ortolan"]
        ratios = [crowd["p99"] / alone["p99"] for crowd, alone in zip(ours["crowd"], ours["alone"])]
        goal("p99 with the crowd against without, median of the rounds' ratios", statistics.median(ratios), 1.1, at_least=False)


class Crowd:
    """serving_crowd.py on the generator's core, all connections open and the slow ones at work."""

    def __init__(self, bench, port, workload, server):
        big = serving_workloads.mlp_request(server, rows=2000 if server == "ortolan" else 16).saved(bench.args.work, f"crowd-{server}.body")
        command = ["taskset", "-c", str(bench.args.generator_core), sys.executable, str(HERE / "serving_crowd.py"), str(port), str(CROWD), str(SLOW), big.path, str(big.files[0])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        time.sleep(0.5)
        self.held = None

    def stop(self):
        if self.held is None:
            out, _ = self.process.communicate("\n", timeout=20)
            self.held = out.strip()
        return self.held


RUNNERS = {"grpc": grpc, "start": start, "memory": memory, "idle": idle}
