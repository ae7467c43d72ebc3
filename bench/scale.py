"""One run of bench/scale: drives the cluster that KUBECONFIG names, and measures the operator from outside.

Requests are counted in the API server's audit log by user agent, CPU and memory in /proc.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

AGENT = "ortolan-operator"
DIGEST = "sha256:" + "0" * 64
IDLE = 60
PROGRAMS = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")


def kubectl(*args, stdin=None):
    done = subprocess.run(["kubectl", *args], input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"kubectl {' '.join(args)}: {done.stderr.strip()[:2000]}")
    return done.stdout


def nodes(pods):
    """Fake nodes for so many pods, twice: both revisions run for a while."""
    count = max(2, pods * 2 // 200 + 1)
    capacity = {"cpu": "4000", "memory": "4000Gi", "pods": "250"}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"fake-{i}", "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": f"fake-{i}"}},
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        for i in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def services(count, threads):
    items = [
        {
            "apiVersion": "serving.ortolan.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": f"m-{i}", "namespace": "bench"},
            "spec": {"model": {"uri": "https://models.example.com/m.onnx", "digest": DIGEST}, "server": {"threads": threads}},
        }
        for i in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


class Audit:
    """Requests of the operator since the last look, from the API server's audit log."""

    def __init__(self, path):
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0

    def take(self):
        counts = {}
        with self.path.open("rb") as log:
            log.seek(self.offset)
            data = log.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        for line in data[:end].splitlines():
            if AGENT.encode() not in line:
                continue
            event = json.loads(line)
            if not event.get("userAgent", "").startswith(AGENT) or event["stage"] not in ("ResponseComplete", "ResponseStarted"):
                continue
            if event["verb"] == "watch":
                continue
            key = f"{event['verb']} {event['objectRef'].get('resource', '')}" if event.get("objectRef") else event["verb"]
            if event.get("objectRef", {}).get("subresource"):
                key += "/" + event["objectRef"]["subresource"]
            counts[key] = counts.get(key, 0) + 1
        return counts


def usage(pid):
    """CPU seconds and resident MiB, and the highest resident MiB."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return cpu, peak / 1024


def control_plane(state):
    """CPU seconds so far of the cluster's own programs and of kwok, by name. Their environment names the cluster's folder; kwok's its kubeconfig."""
    seconds = {}
    for process in pathlib.Path("/proc").iterdir():
        try:
            if process.name.isdigit() and state.encode() in (process / "environ").read_bytes():
                name = pathlib.Path(os.readlink(process / "exe")).name
                if name in PROGRAMS:
                    seconds[name] = seconds.get(name, 0) + usage(process.name)[0]
        except OSError:
            continue
    return seconds


def deployments(suffix):
    return int(kubectl("get", "deployments", "-n", "bench", "-o", "name", *suffix).count("\n"))


def ready(generation):
    rows = kubectl(
        "get", "oisvc", "-n", "bench", "-o",
        'jsonpath={range .items[*]}{.status.observedGeneration} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}',
    ).splitlines()
    return sum(row == f"{generation} True" for row in rows)


def until(what, count, probe, started, limit=900):
    while True:
        seen = probe()
        if seen >= count:
            return time.monotonic() - started
        if time.monotonic() - started > limit:
            sys.exit(f"{what}: {seen} of {count} after {limit} s")
        time.sleep(0.25 if count <= 100 else 1)


def measure(args):
    audit = Audit(args.audit)
    state = str(args.audit.parents[1])
    kubectl("apply", "--server-side", "-f", "crds/inferenceservices.yaml")
    kubectl("wait", "--for=condition=Established", "crd/inferenceservices.serving.ortolan.dev", "--timeout=30s")
    kubectl("create", "namespace", "bench")
    kubectl("apply", "--server-side", "-f", "-", stdin=nodes(args.count))
    kubectl("wait", "--for=condition=Ready", "node", "-l", "kubernetes.io/hostname=fake-0", "--timeout=60s")
    log = (args.out / f"operator-{args.count}.log").open("w")
    command = [args.operator, "run", "--server-image-cpu=server:1", "--http=127.0.0.1:16490", "--lease-namespace=bench"]
    operator = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        time.sleep(3)
        result = {"count": args.count}
        before = usage(operator.pid)[0]
        audit.take()
        for name, threads, generation in (("create", 1, 1), ("change", 2, 2)):
            cluster = control_plane(state)
            started = time.monotonic()
            kubectl("apply", "--server-side", "-f", "-", stdin=services(args.count, threads))
            applied = time.monotonic() - started
            phase = {"apply_s": applied}
            if name == "create":
                phase["deployments_s"] = until("Deployments", args.count, lambda: deployments([]), started)
            phase["ready_s"] = until("Ready", args.count, lambda g=generation: ready(g), started)
            if name == "change":
                while deployments([]) > args.count:
                    time.sleep(1)
                phase["old_gone_s"] = time.monotonic() - started
            time.sleep(3)
            cpu, peak = usage(operator.pid)
            counts = audit.take()
            counts = {k: v for k, v in counts.items() if "leases" not in k}
            phase |= {"cpu_s": cpu - before, "peak_mib": peak, "requests": counts, "requests_per_service": sum(counts.values()) / args.count}
            phase["cluster_cpu_s"] = {name: round(now - cluster.get(name, 0), 1) for name, now in control_plane(state).items()}
            before = cpu
            result[name] = phase
        audit.take()
        time.sleep(IDLE)
        counts = audit.take()
        result["idle"] = {"leases": sum(v for k, v in counts.items() if "leases" in k), "other": {k: v for k, v in counts.items() if "leases" not in k}}
        (args.out / f"scale-{args.count}.json").write_text(json.dumps(result, indent=1))
        print(json.dumps(result))
    finally:
        operator.terminate()
        operator.wait()


def table(out):
    print("| services | kubectl apply | Deployments | Ready | requests a service | CPU | peak memory | change: Ready | requests a service | CPU | idle minute |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for path in sorted(out.glob("scale-*.json"), key=lambda p: int(p.stem.split("-")[1])):
        r = json.loads(path.read_text())
        c, d = r["create"], r["change"]
        print(
            f"| {r['count']} | {c['apply_s']:.1f} s | {c['deployments_s']:.1f} s | {c['ready_s']:.1f} s | {c['requests_per_service']:.1f} | {c['cpu_s']:.1f} s"
            f" | {d['peak_mib']:.0f} MiB | {d['ready_s']:.1f} s | {d['requests_per_service']:.1f} | {d['cpu_s']:.1f} s | {sum(r['idle']['other'].values())} |"
        )
        for name, phase in (("create", c), ("change", d)):
            used = ", ".join(f"{k} {v:.0f}" for k, v in sorted(phase["cluster_cpu_s"].items(), key=lambda kv: -kv[1]))
            print(f"CPU-seconds of the cluster, {r['count']} services, {name}: {used}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    parser.add_argument("--operator")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--audit", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path)
    args = parser.parse_args()
    table(args.table) if args.table else measure(args)


main()
