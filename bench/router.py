"""The router beside nginx, HAProxy and pingora: requests a second and latency through each, same upstream, same core, in turns.

Called by bench/router. The upstream is nginx, for gRPC a bare hyper server: a fixed answer of 200 bytes, as a small model gives. The upstream without a proxy is measured as well:
what a proxy adds is the difference. Parts, all by default:

  closed    as fast as it goes at 1, 16 and 256 connections, one request at a time on each: requests a second, p50, p99
  rate      a given number of requests a second over 16 connections: p50 and p99 without a queue before the proxy
  idle      memory with 10 000 idle connections of HTTP/1.1 that asked once each
  features  what splitting, counts, sessions, copies and the access log cost: ours with and without, in turns
"""

import argparse
import http.client
import os
import pathlib
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from router_proxies import OTHER_CORE, PLAIN, PORTS, VARIANTS, cpu_seconds, family, proxies, resident, upstreams, variants, wait_for

PROTOCOLS = {"h1": "HTTP/1.1", "h2": "HTTP/2 in clear text, HTTP/1.1 to the upstream", "grpc": "gRPC"}
IDLE = 10_000
REQUEST = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}'
LUA = f"wrk.method = 'POST'\nwrk.body = '{REQUEST}'\nwrk.headers['Content-Type'] = 'application/json'\n"


def seconds_of(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def run(command):
    print(f"  {' '.join(map(str, command))}"[:160], file=sys.stderr, flush=True)
    for _ in range(3):
        try:
            done = subprocess.run(["taskset", "-c", OTHER_CORE, *map(str, command)], capture_output=True, text=True, timeout=30)
            break
        except subprocess.TimeoutExpired:
            # h2load 1.52 now and then does not end although its time is over, with any server.
            print("  … does not end; once more", file=sys.stderr, flush=True)
    else:
        raise SystemExit(f"does not end, three times: {' '.join(map(str, command))}")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def wrk(port, connections, seconds, *more):
    out = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", "Host: cats.demo", *more, f"http://127.0.0.1:{port}/v2/models/m/infer"])
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"port {port}: {out}")
    quantile = lambda percent: seconds_of(re.search(rf"^\s+{percent}%\s+(\S+)", out, re.M).group(1))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), quantile(50), quantile(99)


def h2load(protocol, port, connections, seconds, work, rate=None):
    """Over HTTP/2, or with a rate over HTTP/1.1 as well."""
    log = work / "h2load.log"
    log.unlink(missing_ok=True)
    kind = {"h1": ["--h1"], "h2": [], "grpc": ["-d", work / "message", "-H", "content-type: application/grpc", "-H", "te: trailers"]}[protocol]
    host = "calls.demo" if protocol == "grpc" else "cats.demo"
    speed = [] if rate is None else ["--rps", rate / connections]
    out = run(["h2load", "-t1", "-c", connections, "-m", 1, "-D", seconds, "--log-file", log, f"--connect-to=127.0.0.1:{port}", *kind, *speed, f"http://{host}:{port}/v2/models/m/infer"])
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", out)
    if not codes or any(int(n) for n in (*codes.groups()[1:], *failed.groups())) or codes.group(1) == "0":
        raise SystemExit(f"{protocol} on port {port}: {out}")
    took = sorted(int(line.split(b"\t")[2]) for line in log.read_bytes().splitlines())
    return len(took) / seconds, took[len(took) // 2] * 1e-6, took[int(len(took) * 0.99)] * 1e-6


def load(protocol, port, connections, seconds, work):
    return wrk(port, connections, seconds) if protocol == "h1" else h2load(protocol, port, connections, seconds, work)


def columns(protocol, running):
    """The proxies that there are, the upstream alone first where it speaks the protocol."""
    return {name: ports[protocol] for name, ports in PORTS.items() if protocol in ports and (name in running or name == "no proxy")}


def closed(options, work, running):
    found = {}
    for _ in range(options.rounds):
        for protocol in options.protocols:
            for connections in options.connections:
                for name, port in columns(protocol, running).items():
                    found.setdefault((protocol, connections, name), []).append(load(protocol, port, connections, options.seconds, work))
    for protocol in options.protocols:
        print(f"\n{PROTOCOLS[protocol]}\n\n| proxy |" + "".join(f" {n} connection{'s' * (n > 1)}: requests/s | p50 | p99 |" for n in options.connections))
        print("|---|" + "---|---|---|" * len(options.connections))
        for name in columns(protocol, running):
            cells = (map(statistics.median, zip(*found[protocol, n, name])) for n in options.connections)
            print(f"| {name} |" + "".join(f" {rate:,.0f} | {p50 * 1e3:.3f} | {p99 * 1e3:.3f} |" for rate, p50, p99 in cells))


def at_a_rate(options, work, running):
    found = {}
    for _ in range(options.rounds):
        for protocol in options.protocols:
            for name, port in columns(protocol, running).items():
                before = cpu_seconds(running.get(name, []))
                measured = h2load(protocol, port, 16, options.seconds, work, options.rate)
                cpu = cpu_seconds(running.get(name, [])) - before
                found.setdefault((protocol, name), []).append((*measured[1:], cpu / (measured[0] * options.seconds)))
    print(f"\n{options.rate} requests/s over 16 connections\n\n| proxy |" + "".join(f" {protocol}: p50 | p99 | µs of CPU a request |" for protocol in options.protocols))
    print("|---|" + "---|---|---|" * len(options.protocols))
    for name in PORTS:
        cells = [found.get((protocol, name)) for protocol in options.protocols]
        if any(cells):
            shown = (tuple(map(statistics.median, zip(*cell))) if cell else None for cell in cells)
            print(f"| {name} |" + "".join(f" {one[0] * 1e3:.3f} | {one[1] * 1e3:.3f} | {one[2] * 1e6:.1f} |" if one else " | | |" for one in shown))


def idle(_, work, running):
    request = b"GET /v2/models/m HTTP/1.1\r\nHost: cats.demo\r\n\r\n"
    print(f"\n{IDLE} idle connections\n\n| proxy | MB before | MB with them | kB a connection |\n|---|---|---|---|")
    for name, processes in running.items():
        port, before, sockets = PORTS[name]["h1"], resident(processes), []
        for _ in range(IDLE):
            one = socket.create_connection(("127.0.0.1", port))
            one.sendall(request)
            while b"200 OK" not in one.recv(4096):
                pass
            sockets.append(one)
        time.sleep(1)
        after = resident(processes)
        open_ones = sum(map(is_open, sockets))
        for one in sockets:
            one.close()
        if open_ones != IDLE:
            raise SystemExit(f"{name} kept {open_ones} of {IDLE} connections")
        print(f"| {name} | {before:.1f} | {after:.1f} | {(after - before) * 1e3 / IDLE:.1f} |")


def is_open(one):
    one.setblocking(False)
    try:
        return one.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True


def features(options, work, _):
    script = work / "post.lua"
    script.write_text(LUA)
    more = ["-s", script, "-H", "x-user: somebody"]
    running, found = variants(options, work), {}
    try:
        for turn in range(options.turns + 1):
            for name, (port, process, *_) in running.items():
                before = cpu_seconds([process])
                rate, *_ = wrk(port, 16, options.seconds_a_turn, *more)
                cpu = (cpu_seconds([process]) - before) / (rate * options.seconds_a_turn)
                # The first turn warms up.
                if turn:
                    found.setdefault(name, []).append((rate, cpu))
        copied = metrics(running["copies of 10 %"][0] + 1)
    finally:
        for _, *processes in running.values():
            for process in processes:
                end(process)
    print(f"\nOurs with and without, 16 connections, POST; medians of {options.turns} turns, each beside the plain one of the same turn\n")
    print("| | requests/s | against plain | µs of CPU a request | against plain |\n|---|---|---|---|---|")
    for name in VARIANTS:
        rate, cpu = map(statistics.median, zip(*found[name]))
        slower = statistics.median(a[0] / b[0] - 1 for a, b in zip(found[name], found["plain"]))
        dearer = statistics.median(a[1] / b[1] - 1 for a, b in zip(found[name], found["plain"]))
        print(f"| {name} | {rate:,.0f} | {slower:+.1%} | {cpu * 1e6:.2f} | {dearer:+.1%} |")
    print(f"\nOf the copies: {copied}")


def end(process):
    for child in list(family([process]))[1:]:
        os.kill(child, signal.SIGKILL)
    process.kill()
    process.wait()


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return ", ".join(f"{outcome} {count}" for outcome, count in re.findall(r'copies_total\{.*outcome="(\w+)"\} (\d+)', text))


PARTS = {"closed": closed, "rate": at_a_rate, "idle": idle, "features": features}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help="closed, rate, idle, features; all by default")
    parser.add_argument("--router", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--built", type=pathlib.Path, required=True, help="the folder with pingora-peer and grpc-upstream")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds-a-turn", type=int, default=2)
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    options = parser.parse_args()
    if wrong := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(wrong)}: write {', '.join(PARTS)}")
    # For us and for the proxies that we start: ten thousand connections are as many open files.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        running = {"upstream": upstreams(options, work)}
        try:
            wait_for(PLAIN)
            running |= proxies(options, work)
            own = {name: processes for name, processes in running.items() if name != "upstream"}
            for name in own:
                wait_for(PORTS[name]["h1"])
            for protocol in options.protocols:
                for port in columns(protocol, own).values():
                    load(protocol, port, 16, 1, work)
            for part in options.parts or PARTS:
                PARTS[part](options, work, own)
        finally:
            # At once: a router that is asked to end serves on for a while.
            for process in (process for processes in running.values() for process in processes):
                end(process)


main()
