"""The proxies of bench/router and their upstreams: programs, configurations, ports, memory.

Everything is one worker on one core, keeps its connections to the upstream, and writes no access log. Each proxy has a port for each protocol:
`h1` HTTP/1.1 on both sides, `h2` HTTP/2 in clear text from the client and HTTP/1.1 to the upstream, `grpc` HTTP/2 on both sides. Ours and pingora
tell what a client speaks by its first bytes, on one port.
"""

import os
import pathlib
import subprocess
import time
import urllib.request

PROXY_CORE, OTHER_CORE = "0", "1"
# An answer as a small model gives it.
ANSWER = '{"model_name":"m","model_version":"1","id":"0123456789abcdef","outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,6],"data":[0.0125,0.9025,0.0325,0.0125,0.0225,0.0175]}]}'
MESSAGE = b"\0\0\0\0\xc8" + b"x" * 200
PLAIN, SECOND, GRPC = 19100, 19101, 19102
OURS = 19130
PORTS = {
    "no proxy": {"h1": PLAIN, "grpc": GRPC},
    "nginx": {"h1": 19110, "h2": 19111, "grpc": 19112},
    "haproxy": {"h1": 19120, "h2": 19121, "grpc": 19122},
    "pingora": {"h1": 19125, "h2": 19125, "grpc": 19126},
    "ortolan": {"h1": OURS, "h2": OURS, "grpc": OURS},
}

NGINX = """
daemon off; worker_processes 1; pid {work}/{name}.pid; error_log {work}/{name}.err error;
events {{ worker_connections 15000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; http2_max_concurrent_streams 1024;
  client_body_temp_path {work}/{name}-b; proxy_temp_path {work}/{name}-p; fastcgi_temp_path {work}/{name}-f; uwsgi_temp_path {work}/{name}-u; scgi_temp_path {work}/{name}-s;
  {http}
}}
"""
AS_UPSTREAM = "".join(f"server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}\n" for port in (PLAIN, SECOND))
AS_PROXY = f"""
  upstream pods {{ server 127.0.0.1:{PLAIN}; keepalive 512; keepalive_requests 100000000; }}
  upstream grpc_pods {{ server 127.0.0.1:{GRPC}; keepalive 512; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  server {{ listen 127.0.0.1:{PORTS["nginx"]["h1"]} backlog=16384; location / {{ proxy_pass http://pods; }} }}
  server {{ listen 127.0.0.1:{PORTS["nginx"]["h2"]} http2 backlog=16384; location / {{ proxy_pass http://pods; }} }}
  server {{ listen 127.0.0.1:{PORTS["nginx"]["grpc"]} http2 backlog=16384; location / {{ grpc_pass grpc://grpc_pods; }} }}
"""
HAPROXY = f"""
global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend one
  bind 127.0.0.1:{PORTS["haproxy"]["h1"]} backlog 16384
  default_backend pods
frontend two
  bind 127.0.0.1:{PORTS["haproxy"]["h2"]} proto h2 backlog 16384
  default_backend pods
frontend grpc
  bind 127.0.0.1:{PORTS["haproxy"]["grpc"]} proto h2 backlog 16384
  default_backend grpc_pods
backend pods
  server one 127.0.0.1:{PLAIN}
backend grpc_pods
  server one 127.0.0.1:{GRPC} proto h2
"""

# What the router does beside passing on. Each is a process of its own.
FIRST = f"{{name: cats-1, weight: 100, endpoints: ['127.0.0.1:{PLAIN}']}}"
NINETY = f"{{name: cats-1, weight: 90, endpoints: ['127.0.0.1:{PLAIN}']}}"
TEN = f"{{name: cats-2, weight: 10, endpoints: ['127.0.0.1:{SECOND}']}}"
MIRROR = f"mirror: {{revision: cats-2, percent: 10, compare: {{kind: Classification}}, endpoints: ['127.0.0.1:{SECOND}']}}"
VARIANTS = {
    "plain": (f"revisions: [{FIRST}]", []),
    "split 90/10": (f"revisions: [{NINETY}, {TEN}]", []),
    "split, counts read": (f"revisions: [{NINETY}, {TEN}]", ["--stats"]),
    "split, session by header": (f"revisions: [{NINETY}, {TEN}], routing: {{session: {{header: x-user}}}}", []),
    "split, session by cookie": (f"revisions: [{NINETY}, {TEN}], routing: {{session: {{cookie: sid}}}}", []),
    "copies of 10 %": (f"revisions: [{FIRST}], {MIRROR}", []),
    "access log": (f"revisions: [{FIRST}]", ["--access-log"]),
}
VARIANT_PORT = 19140


def pinned(core, *command, env=None):
    return subprocess.Popen(["taskset", "-c", core, *map(str, command)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def upstreams(options, work):
    """Fixed answers: nginx, and for gRPC a bare hyper server, which nginx's own proxy bears (of nginx as the upstream it does not)."""
    (work / "message").write_bytes(MESSAGE)
    return [
        pinned(OTHER_CORE, *nginx(options, work, "upstream", AS_UPSTREAM), env=libraries(options)),
        pinned(OTHER_CORE, options.built / "grpc-upstream", f"127.0.0.1:{GRPC}"),
    ]


def libraries(options):
    return {**os.environ, "LD_LIBRARY_PATH": str(options.peers / "usr/lib/x86_64-linux-gnu")}


def nginx(options, work, name, http):
    file = work / f"{name}.conf"
    file.write_text(NGINX.format(work=work, name=name, http=http))
    return options.peers / "usr/sbin/nginx", "-c", file, "-p", work


def router(options, work, name, entry, port, more=()):
    file = work / f"{port}.yaml"
    file.write_text(f"services: {{demo/cats: {{{entry}}}}}\n")
    command = [options.router, "--state", file, "--http", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{port + 1}", "--threads", "1", "--log", "error"]
    return pinned(PROXY_CORE, *command, *more)


def proxies(options, work):
    """By name, the processes of each."""
    (work / "haproxy.cfg").write_text(HAPROXY)
    env = libraries(options)
    running = {
        "nginx": [pinned(PROXY_CORE, *nginx(options, work, "proxy", AS_PROXY), env=env)],
        "haproxy": [pinned(PROXY_CORE, options.peers / "usr/sbin/haproxy", "-f", work / "haproxy.cfg", env=env)],
    }
    to = ((PORTS["pingora"]["h1"], PLAIN, 1), (PORTS["pingora"]["grpc"], GRPC, 2))
    if (options.built / "pingora-peer").exists():
        running["pingora"] = [pinned(PROXY_CORE, options.built / "pingora-peer", f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", version) for port, upstream, version in to]
    # To a pod calls of gRPC go over HTTP/2, all else over HTTP/1.1; these upstreams have a port for each.
    pods = f"revisions: [{FIRST}]"
    grpc = f"revisions: [{{name: cats-1, weight: 100, endpoints: ['127.0.0.1:{GRPC}']}}]"
    file = work / "ours.yaml"
    file.write_text(f"services: {{demo/cats: {{{pods}}}, demo/calls: {{{grpc}}}}}\n")
    running["ortolan"] = [pinned(PROXY_CORE, options.router, "--state", file, "--http", f"127.0.0.1:{OURS}", "--admin", f"127.0.0.1:{OURS + 1}", "--threads", "1", "--log", "error")]
    return running


def variants(options, work):
    """By name, the port and the process of each variant of ours, and who reads its counts."""
    running = {}
    for number, (name, (entry, more)) in enumerate(VARIANTS.items()):
        port = VARIANT_PORT + 10 * number
        stats = ["--stats", f"127.0.0.1:{port + 2}"] if "--stats" in more else []
        process = router(options, work, name, entry, port, [*(one for one in more if one != "--stats"), *stats])
        running[name] = (port, process)
        wait_for(port)
        if stats:
            running[name] += (subprocess.Popen(["taskset", "-c", OTHER_CORE, "curl", "-sN", "-o", "/dev/null", f"http://127.0.0.1:{port + 2}/stats"]),)
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


def family(processes):
    """Of processes and their children: nginx works in one."""
    for process in processes:
        yield process.pid
        yield from map(int, pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


def resident(processes):
    """In MB, shared pages in proportion."""
    lines = (line for pid in family(processes) for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")) / 1e6


def cpu_seconds(processes):
    """Of all their threads."""
    threads = (thread for pid in family(processes) for thread in pathlib.Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
