"""The router beside nginx and HAProxy: requests a second and latency through each, same upstream, same core, in turns.

Called by bench/router. The upstream is nginx, too: a fixed answer of 200 bytes, as a small model gives. Every proxy keeps its connections to the
upstream and writes no access log. The upstream alone, without a proxy, is measured as well: what a proxy adds is the difference.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request

PROXY_CORE, OTHER_CORE = "0", "1"
CONNECTIONS = [1, 16, 256]
UPSTREAM, SECOND = 19100, 19101
PORTS = {"nginx": 19110, "haproxy": 19120, "ortolan": 19130, "ortolan, split 90/10": 19140}

NGINX = """
daemon off; worker_processes 1; pid {work}/{name}.pid; error_log {work}/{name}.err error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {work}/{name}-b; proxy_temp_path {work}/{name}-p; fastcgi_temp_path {work}/{name}-f; uwsgi_temp_path {work}/{name}-u; scgi_temp_path {work}/{name}-s;
  {http}
}}
"""
ANSWER = "x" * 200
AS_UPSTREAM = "".join(f'server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ default_type application/json; return 200 "{ANSWER}"; }} }}\n' for port in (UPSTREAM, SECOND))
AS_PROXY = f"""
  upstream pods {{ server 127.0.0.1:{UPSTREAM}; keepalive 512; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{PORTS["nginx"]} backlog=4096; location / {{ proxy_pass http://pods; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }} }}
"""
HAPROXY = f"""
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend in
  bind 127.0.0.1:{PORTS["haproxy"]}
  default_backend pods
backend pods
  server one 127.0.0.1:{UPSTREAM}
"""


def state(split):
    second = f"{{name: cats-2, weight: 10, endpoints: ['127.0.0.1:{SECOND}']}}"
    first = f"{{name: cats-1, weight: {90 if split else 100}, endpoints: ['127.0.0.1:{UPSTREAM}']}}"
    return f"services: {{demo/cats: {{revisions: [{', '.join([first, second] if split else [first])}]}}}}\n"


def pinned(core, *command, env=None):
    return subprocess.Popen(["taskset", "-c", core, *map(str, command)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(options, work):
    nginx, haproxy = options.peers / "usr/sbin/nginx", options.peers / "usr/sbin/haproxy"
    env = {**os.environ, "LD_LIBRARY_PATH": str(options.peers / "usr/lib/x86_64-linux-gnu")}
    for name, http in {"upstream": AS_UPSTREAM, "proxy": AS_PROXY}.items():
        (work / f"{name}.conf").write_text(NGINX.format(work=work, name=name, http=http))
    (work / "haproxy.cfg").write_text(HAPROXY)
    running = [
        pinned(OTHER_CORE, nginx, "-c", work / "upstream.conf", "-p", work, env=env),
        pinned(PROXY_CORE, nginx, "-c", work / "proxy.conf", "-p", work, env=env),
        pinned(PROXY_CORE, haproxy, "-f", work / "haproxy.cfg", env=env),
    ]
    for name, split in {"ortolan": False, "ortolan, split 90/10": True}.items():
        file = work / f"state-{split}.yaml"
        file.write_text(state(split))
        port = PORTS[name]
        running.append(pinned(PROXY_CORE, options.router, "--state", file, "--http", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{port + 1}", "--threads", "1", "--log", "error"))
    for port in [UPSTREAM, *PORTS.values()]:
        wait_for(port)
    return running


def wait_for(port):
    for _ in range(200):
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v2", headers={"Host": "cats.demo"})
            assert urllib.request.urlopen(request, timeout=1).read() == ANSWER.encode()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


def seconds_of(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def load(port, connections, seconds):
    command = ["taskset", "-c", OTHER_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", "Host: cats.demo", f"http://127.0.0.1:{port}/v2/models/m"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"port {port}: {out}")
    quantile = lambda percent: seconds_of(re.search(rf"^\s+{percent}%\s+(\S+)", out, re.M).group(1))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), quantile(50), quantile(99)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--router", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = start(options, pathlib.Path(folder))
        try:
            measure(options, {"no proxy": UPSTREAM, **PORTS}, {name: process for name, process in zip(PORTS, running[1:])})
        finally:
            for process in running:
                process.terminate()


def measure(options, ports, processes):
    found = {}
    for port in ports.values():
        load(port, 16, 1)
    for _ in range(options.rounds):
        for connections in CONNECTIONS:
            for name, port in ports.items():
                found.setdefault((name, connections), []).append(load(port, connections, options.seconds))
    for connections in CONNECTIONS:
        print(f"\n{connections} connections\n\n| proxy | requests/s | p50 | p99 |\n|---|---:|---:|---:|")
        for name in ports:
            rate, p50, p99 = (statistics.median(column) for column in zip(*found[name, connections]))
            print(f"| {name} | {rate:,.0f} | {p50 * 1e3:.2f} ms | {p99 * 1e3:.2f} ms |")
    print("\nMemory after that: " + ", ".join(f"{name} {resident(process.pid):.1f} MB" for name, process in processes.items()))


def resident(pid):
    """Of the process and its children: nginx works in one."""
    pids = [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = [int(pathlib.Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


main()
