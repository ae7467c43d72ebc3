"""The measurements of bench/serving. Each round starts every server in turn on the same core, drives it from the other core, and stops it; what is printed are medians over the rounds."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import serving_load
import serving_peers
import serving_process
import serving_queue
import serving_special
import serving_text
import serving_traces
import serving_workloads
from serving_process import DidNotStart, Running
from serving_report import goal, median, number, table

HERE = pathlib.Path(__file__).parent


class Bench:
    """What all workloads share: options, the generator, the servers that are there, and the results."""

    def __init__(self, args):
        self.args, self.results, self.port = args, {}, args.port
        self.generator = serving_load.Wrk(args.generator_core) if args.generator == "wrk" else serving_load.Ortolan(args.generator_program or args.program, args.generator_core)
        self.peers = serving_peers.Peers(args)

    def around(self, when):
        """The program of --around is told when a round begins and ends."""
        if self.args.around:
            subprocess.run([self.args.around, when], check=True)

    def rounds(self):
        for number in range(self.args.rounds):
            self.around("begin")
            try:
                yield number
            finally:
                self.around("end")

    def start(self, server, workload):
        self.port = serving_process.free_port(self.port + 10)
        work = self.args.work / server
        work.mkdir(parents=True, exist_ok=True)
        command, environment = self.peers.command(server, workload, self.port, work)
        return Running(server, command, environment, self.args.server_core, work, self.port, workload.ask(server))

    def measure(self, running, load):
        """One measurement of a running server: what the generator says, with CPU time, and what else the machine did."""
        began, before = serving_process.machine(), serving_process.cpu_seconds(running.leader)
        result = load()
        result["cpu"] = serving_process.cpu_seconds(running.leader) - before
        result["per_cpu"] = (result["sent"] - result["failed"]) / max(result["cpu"], 1e-3)
        result["others"] = serving_process.others_busy(began, result["cpu"] + result["generator"])
        return result

    def one_round(self, workload, servers, results):
        """Each server once, closed loop; appends to {server: [result of each round]}. One that does not start is left out from then on."""
        for server in list(servers):
            request = workload.request(server, self.args.work)
            try:
                running = self.start(server, workload)
            except DidNotStart as error:
                servers.remove(server)
                print(f"{server}: {error}", file=sys.stderr)
                continue
            try:
                workload.verify(server, running.first)
                loaded = serving_process.memory_mib(running.leader)
                self.generator.load(running.port, request, self.args.warm_up, workload.connections)
                result = self.measure(running, lambda: self.generator.load(running.port, request, self.args.seconds, workload.connections))
                results.setdefault(server, []).append({**result, "ready": running.ready, "loaded": loaded, "memory": serving_process.memory_mib(running.leader)})
            finally:
                running.stop()

    def servers(self, workload):
        return [server for server in self.peers.present(workload) if server in self.args.servers]

    def compare(self, workload):
        """Closed loops, printed as a table: {server: [result of each round]}."""
        servers, results = self.servers(workload), {}
        for number in self.rounds():
            self.one_round(workload, servers, results)
            print(f"  round {number + 1} of {self.args.rounds} done", file=sys.stderr)
        self.results[workload.name] = results
        table(self.title(workload), results, self.args.seconds)
        return results

    def title(self, workload):
        return f"{workload.title}; medians of {self.args.rounds} rounds of {self.args.seconds:g} s"


def mlp(bench, workload):
    results = bench.compare(workload)
    ours, python = results.get("ortolan"), [s for s in results if s not in ("ortolan", "triton", "hello")]
    if not ours:
        return
    if "triton" in results:
        goal("requests/s against Triton", median(ours, "rate") / median(results["triton"], "rate"), 2)
        goal("requests a CPU-second against Triton", median(ours, "per_cpu") / median(results["triton"], "per_cpu"), 2)
        goal("p99 against Triton", median(ours, "p99") / median(results["triton"], "p99"), 0.5, at_least=False)
    if "hello" in results:
        goal("requests/s against hyper's hello", median(ours, "rate") / median(results["hello"], "rate"), 0.5)
    if python:
        best = max(python, key=lambda s: median(results[s], "rate"))
        goal(f"requests/s against the best of the others ({best})", median(ours, "rate") / median(results[best], "rate"), 2)
        goal("p99 against the lowest of the others", median(ours, "p99") / min(median(results[s], "p99") for s in python), 1, at_least=False)


def text(bench, workload):
    results = bench.compare(workload)
    python = [s for s in results if s not in ("ortolan", "triton")]
    if "ortolan" in results and python:
        best = max(python, key=lambda s: median(results[s], "rate"))
        goal(f"requests/s against the best Python server ({best})", median(results["ortolan"], "rate") / median(results[best], "rate"), 1.5)
    if "ortolan" in results and "triton" in results:
        goal("requests/s against Triton", median(results["ortolan"], "rate") / median(results["triton"], "rate"), 1)


def beside_raw(bench, workload, wanted):
    """A workload whose measure is the raw loop on the same core, taken in turn with the servers."""
    servers, results, loops = bench.servers(workload), {}, []
    for _ in bench.rounds():
        loops.append(workload.loop(bench.peers, workload.runs))
        bench.one_round(workload, servers, results)
    bench.results[workload.name] = {**results, "raw": loops}
    table(bench.title(workload), results, bench.args.seconds)
    rate = statistics.median(len(loop["runs"]) / sum(loop["runs"]) for loop in loops)
    per_cpu = statistics.median(len(loop["runs"]) / loop["cpu"] for loop in loops)
    lowest = min(len(loop["runs"]) / sum(loop["runs"]) for loop in loops)
    every = [run for loop in loops for run in loop["runs"]]
    print(f"| raw loop | {number(rate)} | {number(lowest)} | {statistics.median(every) * 1e3:.2f} | {serving_queue.quantile(every, 0.99) * 1e3:.2f} | {number(per_cpu)} |" + " |" * 6)
    if "ortolan" in results:
        goal("requests/s against the raw loop", median(results["ortolan"], "rate") / rate, wanted)
        goal("requests a CPU-second against the raw loop", median(results["ortolan"], "per_cpu") / per_cpu, wanted)


def efficientnet(bench, workload):
    beside_raw(bench, workload, 0.95)


def photograph(bench, workload):
    beside_raw(bench, workload, 0.9)


def open_loop(bench, workload):
    """70 % of what the raw loop does, Poisson arrivals, against the ideal queue with the same arrivals and the raw run times."""
    servers = bench.servers(workload)
    results = {name: [] for name in [*servers, "ideal FIFO queue"]}
    seconds = bench.args.open_seconds
    for number in bench.rounds():
        runs = workload.loop(bench.peers, workload.runs)["runs"]
        rate, seed = round(0.7 * len(runs) / sum(runs), 2), number + 1
        due = list(serving_queue.arrivals(rate, seed, seconds))
        latencies = serving_queue.fifo(due, runs)
        ideal = {"p50": serving_queue.quantile(latencies, 0.5), "p99": serving_queue.quantile(latencies, 0.99), "rate": len(due) / seconds}
        results["ideal FIFO queue"].append(ideal)
        for server in servers:
            running, request = bench.start(server, workload), workload.request(server, bench.args.work)
            try:
                bench.generator.load(running.port, request, bench.args.warm_up, 2)
                result = bench.measure(running, lambda: bench.generator.load(running.port, request, seconds, rate=rate, seed=seed))
            finally:
                running.stop()
            if abs(len(due) - result["sent"]) > 1:
                print(f"  the generator sent {result['sent']} requests, and {len(due)} were due", file=sys.stderr)
            results[server].append({**result, "ratio": result["p99"] / ideal["p99"]})
            print(f"  round {seed}: {server}: {rate:.1f}/s, p99 {result['p99'] * 1e3:.2f} ms, ideal {ideal['p99'] * 1e3:.2f} ms", file=sys.stderr)
    bench.results[workload.name] = results
    print(f"\n{workload.title}; medians of {bench.args.rounds} rounds of {seconds:g} s\n\n| | requests/s | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, rounds in results.items():
        print(f"| {name} | {median(rounds, 'rate'):.1f} | {median(rounds, 'p50') * 1e3:.2f} | {median(rounds, 'p99') * 1e3:.2f} |")
    if "ortolan" in results:
        goal("p99 against the ideal queue, median of the rounds' ratios", median(results["ortolan"], "ratio"), 1.1, at_least=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help="default: all")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ortolan-server")
    parser.add_argument("--generator-program", type=pathlib.Path, help="the ortolan-server whose bench drives the load [default: --program]")
    parser.add_argument("--hello", type=pathlib.Path)
    parser.add_argument("--library", type=pathlib.Path, required=True, help="libonnxruntime.so")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, required=True, help="the file that bench/peers/setup wrote")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--servers", default=",".join(serving_peers.ALL), type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--open-seconds", type=float, default=30)
    parser.add_argument("--idle-rate", type=int, default=2000, help="requests a second beside the idle and slow connections, and of traces")
    parser.add_argument("--warm-up", type=float, default=1)
    parser.add_argument("--server-core", type=int, default=1)
    parser.add_argument("--generator-core", type=int, default=0)
    parser.add_argument("--generator", choices=["ortolan", "wrk"], default="ortolan")
    parser.add_argument("--port", type=int, default=18400)
    parser.add_argument("--around", help="a program that is called with 'begin' and 'end' around each round, for instance to keep the machine quiet")
    args = parser.parse_args()
    bench = Bench(args)
    runners = {"mlp": mlp, "efficientnet": efficientnet, "photograph": photograph, "open": open_loop, "text": text, **serving_special.RUNNERS, **serving_traces.RUNNERS}
    known = serving_workloads.workloads(args.models, args.work, bench.peers.once)
    known["text"] = serving_text.workload(args.models, args.work, bench.peers)
    for name in args.workloads or known:
        if name not in known:
            sys.exit(f"there is no workload {name}; there are {', '.join(known)}")
    for name in args.workloads or known:
        workload = known[name]
        missing = workload.missing(bench)
        if missing:
            print(f"\n{workload.title}: left out, {missing}")
            continue
        runners[workload.runner](bench, workload)
        sys.stdout.flush()
        (args.work / f"{name}.json").write_text(json.dumps(bench.results.get(name), indent=1))


main()
