"""The measurements of bench/server: medians of several runs, with the lowest and the highest."""

import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

REQUESTS = 50


def spread(values, unit, scale=1.0):
    values = sorted(v * scale for v in values)
    return f"{statistics.median(values):.1f} {unit} ({values[0]:.1f} to {values[-1]:.1f})"


def startup(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/healthz/startup")
    answer = connection.getresponse()
    body = json.loads(answer.read())
    return answer.status, body


def predict(connection, photograph):
    connection.request("POST", "/predict/efficientnet", body=photograph, headers={"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {body[:300]!r}")
    return json.loads(body)


def local(args):
    photograph = (args.models / "flower.jpg").read_bytes()
    model = args.models / "efficientnet-lite0.tar.gz"
    cache = args.models.parent / "bench-cache"
    starts, phases, latencies = [], {}, []
    for run in range(args.runs + 1):
        port = 18300 + run
        command = [args.server, str(model), f"--http=127.0.0.1:{port}", "--name=efficientnet", f"--cache-dir={cache}", f"--onnxruntime={args.library}", "--drain-delay=0s"]
        began = time.monotonic()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                status, body = startup(port)
            except OSError:
                status = 0
            if status == 200:
                break
            if server.poll() is not None or time.monotonic() - began > 60:
                sys.exit(f"the server does not start: {' '.join(command)}")
            time.sleep(0.002)
        took = time.monotonic() - began
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        times = []
        for _ in range(REQUESTS):
            t = time.monotonic()
            label = predict(connection, photograph)["predictions"][0]["label"]
            times.append(time.monotonic() - t)
        server.terminate()
        server.wait()
        if "daisy" not in label:
            sys.exit(f"the photograph is a daisy, and the server says {label}")
        if run == 0:
            continue  # fills the page cache
        starts.append(took)
        latencies.append(statistics.median(times))
        for phase in body["phases"]:
            phases.setdefault(phase["name"], []).append(phase["seconds"])
    print(f"process start to ready: {spread(starts, 'ms', 1e3)}")
    for name, values in phases.items():
        print(f"  {name}: {spread(values, 'ms', 1e3)}")
    print(f"photograph over loopback, one at a time: {spread(latencies, 'ms', 1e3)}")


def kubectl(*args):
    return subprocess.run(["kubectl", *args], capture_output=True, text=True, check=True).stdout


def cluster(args):
    photograph = (args.models / "flower.jpg").read_bytes()
    service = kubectl("get", "service", "efficientnet", "-o", "jsonpath={.spec.clusterIP}")
    pod = kubectl("get", "pods", "-l", "serving.ortolan.dev/service=efficientnet", "-o", "jsonpath={.items[0].status.podIP}")
    name = kubectl("get", "pods", "-l", "serving.ortolan.dev/service=efficientnet", "-o", "jsonpath={.items[0].metadata.name}")
    body = json.loads(kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{name}:8080/proxy/healthz/startup"))
    print("a pod's start in the cluster: " + ", ".join(f"{p['name']} {p['seconds'] * 1e3:.1f} ms" for p in body["phases"]))
    times = {"Service": [], "pod": []}
    for _ in range(args.runs):
        for where, host, port in (("Service", service, 80), ("pod", pod, 8080)):
            connection = http.client.HTTPConnection(host, port, timeout=30)
            predict(connection, photograph)
            one = []
            for _ in range(REQUESTS):
                t = time.monotonic()
                predict(connection, photograph)
                one.append(time.monotonic() - t)
            times[where].append(statistics.median(one))
    for where, values in times.items():
        print(f"photograph over the {where}'s address: {spread(values, 'ms', 1e3)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("where", choices=["local", "cluster"])
    parser.add_argument("--server")
    parser.add_argument("--library")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    os.environ.pop("http_proxy", None)
    {"local": local, "cluster": cluster}[args.where](args)


main()
