"""The router with many services: a real router process before an API server that this script plays.

Called by bench/router-scale. The API server is lists of InferenceServices and EndpointSlices, in pages as the router asks for them, and a stream of
changes of each; the objects are as large as real ones (managedFields, targetRef, nodeName). Every pod is an address of its own in 127.0.0.0/8,
and one listener on all of them answers: the address at which a request arrives tells which pod it was sent to.

A change takes effect when the first request arrives at the new pod; the clock runs from just before the watch event is written. A client asks all
the while, one request after the other, so that a time includes up to one request's own time (printed as well).
"""

import argparse
import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
import urllib.parse

SERVICES = "/apis/serving.ortolan.dev/v1alpha1/inferenceservices"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
API, PODS, HTTP, ADMIN = 19200, 19201, 19202, 19203
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"


def names(n):
    return f"team-{n % 50}", f"service-{n}", f"service-{n}-{n:08x}"


def address(n, pod):
    """Of a pod of a service; 127.0.0.0 and 127.0.0.1 are left out."""
    number = n * 64 + pod + 256
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def managed(manager, fields):
    return {"manager": manager, "operation": "Apply", "apiVersion": "v1", "time": "2026-01-05T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {f"f:{name}": {"f:value": {}, "f:reason": {}} for name in fields}}


def service(n):
    namespace, name, revision = names(n)
    condition = lambda kind: {"type": kind, "status": "True", "reason": "AllReady", "message": "every pod of the revision is ready", "lastTransitionTime": "2026-01-05T10:00:00Z", "observedGeneration": 3}
    return {
        "apiVersion": "serving.ortolan.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{n:08x}-0000-4000-8000-000000000000", "resourceVersion": "1", "generation": 3,
                     "labels": {"app.kubernetes.io/part-of": "vision"}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 900},
                     "managedFields": [managed(one, [f"field-{i}" for i in range(25)]) for one in ("kubectl", "ortolan/status")]},
        "spec": {"model": {"uri": f"s3://models/{name}/v3.tar.gz", "sha256": "0" * 64}, "server": {"maxConcurrency": 8}, "routing": {"timeout": "10s", "retries": 2}},
        "status": {
            "traffic": [{"revision": revision, "weight": 100}],
            "rollout": {"generation": 7},
            "revisions": [{"name": revision, "phase": "Serving", "model": {"version": "3", "opset": 17}, "replicas": 10}],
            "conditions": [condition(kind) for kind in ("Ready", "Available", "Progressing")],
        },
    }


def slice_of(n, pods, version=1):
    namespace, name, revision = names(n)
    endpoint = lambda i, ip: {"addresses": [ip], "conditions": {"ready": True, "serving": True, "terminating": False}, "nodeName": f"node-{i}",
                              "targetRef": {"kind": "Pod", "namespace": namespace, "name": f"{revision}-{i}", "uid": f"{n:08x}-{i:04x}-4000-8000-000000000000"}}
    return {
        "metadata": {"name": f"{revision}-abcde", "namespace": namespace, "uid": f"{n:08x}-1111-4000-8000-000000000000", "resourceVersion": str(version), "generation": version,
                     "labels": {"serving.ortolan.dev/service": name, "serving.ortolan.dev/revision": revision, "kubernetes.io/service-name": revision, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                     "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": revision, "uid": f"{n:08x}-2222-4000-8000-000000000000", "controller": True, "blockOwnerDeletion": True}],
                     "managedFields": [managed("kube-controller-manager", [f"field-{i}" for i in range(15)])]},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PODS, "protocol": "TCP"}],
        "endpoints": [endpoint(i, ip) for i, ip in enumerate(pods)],
    }


class Cluster:
    """The API server."""

    def __init__(self, services, endpoints):
        self.objects = {SERVICES: [json.dumps(service(n)) for n in range(services)],
                        SLICES: [json.dumps(slice_of(n, [address(n, pod) for pod in range(endpoints)])) for n in range(services)]}
        self.watches = {SERVICES: set(), SLICES: set()}
        self.version = 1

    def size(self):
        return sum(len(text) for texts in self.objects.values() for text in texts)

    async def answer(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = urllib.parse.urlsplit(head.split(b" ", 2)[1].decode())
                query = dict(urllib.parse.parse_qsl(target.query))
                if query.get("watch") == "true":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
                    self.watches[target.path].add(writer)
                    await reader.read()
                    return
                body = self.page(target.path, query)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for open_ones in self.watches.values():
                open_ones.discard(writer)
            writer.close()

    def page(self, path, query):
        objects, start = self.objects[path], int(query.get("continue", 0))
        end = min(start + int(query.get("limit", len(objects))), len(objects))
        more = f'"continue":"{end}",' if end < len(objects) else ""
        return f'{{"kind":"List","apiVersion":"v1","metadata":{{{more}"resourceVersion":"{self.version}"}},"items":[{",".join(objects[start:end])}]}}'.encode()

    def change(self, slices):
        """Writes one event for each."""
        lines = [json.dumps({"type": "MODIFIED", "object": {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **one}}).encode() + b"\n" for one in slices]
        data = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
        began = time.perf_counter()
        for writer in self.watches[SLICES]:
            writer.write(data)
        return began


class Pods:
    """All pods: which address was asked first when."""

    def __init__(self):
        self.first = {}

    async def answer(self, reader, writer):
        ip = writer.get_extra_info("sockname")[0]
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.first.setdefault(ip, time.perf_counter())
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class Client:
    """Asks one service after the other over one connection."""

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", HTTP)
        return self

    async def ask(self, n):
        namespace, name, _ = names(n)
        self.writer.write(f"GET /v2/models/m HTTP/1.1\r\nhost: {name}.{namespace}\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{name}.{namespace}: {head.decode()}{body.decode()}")


def kubeconfig(folder):
    file = folder / "kubeconfig"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                                "users": [{"name": "u", "user": {}}], "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{API}"}}]}))
    return file


async def is_ready():
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", ADMIN)
        writer.write(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


async def started(options, folder, last_state=False):
    """The process, and the seconds from its exec to ready."""
    command = [options.router, "--kubernetes", "--http", f"127.0.0.1:{HTTP}", "--admin", f"127.0.0.1:{ADMIN}", "--log", "off"]
    if last_state:
        command += ["--last-state", folder / "last.json"]
    began = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, "KUBECONFIG": str(kubeconfig(folder))})
    while not await is_ready():
        if time.perf_counter() - began > 60 or process.poll() is not None:
            raise SystemExit("the router does not become ready")
        await asyncio.sleep(0.002)
    return process, time.perf_counter() - began


def ended(process):
    process.kill()
    process.wait()


def memory(process):
    """Resident now and at most, in MB."""
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    of = {key: float(value.split()[0]) * 1024 / 1e6 for key, value in (line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))}
    return of["VmRSS"], of["VmHWM"]


async def until(what, condition, seconds=30):
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise SystemExit(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.01)


async def changes(cluster, pods, client, options):
    """Seconds from the event to the first request at the new pod, for one change after the other; and those of a request."""
    took, asked = [], []
    for turn in range(options.changes):
        n = turn * 7 % options.services
        # All its pods are replaced: the next request shows whether the change is known.
        new = address(n, 20 + turn % 2)
        pods.first.pop(new, None)
        began = cluster.change([slice_of(n, [new], turn + 2)])
        while new not in pods.first:
            before = time.perf_counter()
            await client.ask(n)
            asked.append(time.perf_counter() - before)
            if before - began > 10:
                raise SystemExit(f"the change of service {n} is not known after 10 s")
        took.append(pods.first[new] - began)
    return took, asked


async def storm(cluster, pods, client, options):
    """Seconds from the events of all services at once until the last of them is at work."""
    took = []
    for turn in range(options.storms):
        new = [address(n, 30 + turn % 2) for n in range(options.services)]
        for one in new:
            pods.first.pop(one, None)
        began = cluster.change([slice_of(n, [address(n, 30 + turn % 2)], 1000 + turn) for n in range(options.services)])
        # They come in this order: with the last one all are known.
        while new[-1] not in pods.first:
            await client.ask(options.services - 1)
        took.append(pods.first[new[-1]] - began)
        for n in range(options.services):
            await client.ask(n)
        if any(one not in pods.first for one in new):
            raise SystemExit("the last change counts, and an earlier one does not")
    return took


def line(what, values, goal, unit=1e3, name="ms"):
    ordered = sorted(values)
    print(f"| {what} | {statistics.median(ordered) * unit:.1f} {name} | {ordered[int(0.99 * (len(ordered) - 1))] * unit:.1f} {name} | {ordered[-1] * unit:.1f} {name} | {goal} |")


async def measure(options, folder):
    cluster, pods = Cluster(options.services, options.endpoints), Pods()
    api = await asyncio.start_server(cluster.answer, "127.0.0.1", API)
    listening = await asyncio.start_server(pods.answer, "0.0.0.0", PODS, backlog=4096)
    starts = []
    for _ in range(options.starts):
        process, took = await started(options, folder)
        starts.append(took)
        ended(process)
        await until("the watches end", lambda: not any(cluster.watches.values()))
    process, _ = await started(options, folder, last_state=True)
    try:
        await until("the router watches", lambda: all(cluster.watches.values()))
        await until("the last state is written", (folder / "last.json").exists)
        resident, highest = memory(process)
        client = await Client().open()
        one_by_one, asked = await changes(cluster, pods, client, options)
        at_once = await storm(cluster, pods, client, options)
        later, highest_later = memory(process)
    finally:
        ended(process)
    api.close()
    from_last = []
    for _ in range(options.starts):
        process, took = await started(options, folder, last_state=True)
        from_last.append(took)
        ended(process)
    listening.close()
    print(f"{options.services} services with {options.endpoints} endpoints each; the objects are {cluster.size() / 1e6:.1f} MB of JSON\n")
    print("| | median | p99 | highest | goal |\n|---|---|---|---|---|")
    line("from exec to ready, everything listed", starts, "1 s")
    line("the same from the last state on disk, the API server away", from_last, "1 s")
    line(f"from a watch event to the first request at the new pod, {len(one_by_one)} times", one_by_one, "50 ms")
    line("a request of the client that looks for it", asked, "")
    line(f"all {options.services} slices change at once, until the last counts, {len(at_once)} times", at_once, "")
    print(f"\nResident {resident:.1f} MB once ready (highest {highest:.1f}), {later:.1f} MB after the changes (highest {highest_later:.1f}); goal 100 MB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--router", type=pathlib.Path, required=True)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--changes", type=int, default=400)
    parser.add_argument("--storms", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, pathlib.Path(folder)))


main()
