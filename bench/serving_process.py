"""A server under measurement: started on one core, asked until it answers, weighed and stopped.

CPU time and memory are those of the whole tree of processes, read from /proc: a server with workers is not cheaper for having them.
"""

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """The server ended, or did not answer in time; carries the end of its log."""


def tree(leader):
    """The process and all that it started: its descendants and its session."""
    parents, members = {}, {leader}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry)] = int(fields[1])
        if int(fields[3]) == leader:
            members.add(int(entry))
    grew = True
    while grew:
        grew = False
        for process, parent in parents.items():
            if parent in members and process not in members:
                members.add(process)
                grew = True
    return members


def cpu_seconds(leader):
    """User and system time of the tree so far, with that of its threads that have ended."""
    total = 0
    for process in tree(leader):
        try:
            fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mib(leader):
    """Resident: of one process its RSS; of several the sum of their proportional shares, so that nothing counts twice."""
    members = tree(leader)
    alone = len(members) == 1
    wanted = "Rss:" if alone else "Pss:"
    total = 0
    for process in members:
        try:
            for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(wanted):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total / 1024


def others_busy(began, own):
    """The share of all cores that others used since `began` (see `machine`), `own` CPU-seconds being ours."""
    then, busy = began
    now, busy_now = machine()
    return max(0.0, (busy_now - busy - own) / ((now - then) * os.cpu_count()))


def machine():
    """Now, and the busy CPU-seconds of the machine so far."""
    user, nice, system, _, _, irq, softirq, *_ = (int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return time.monotonic(), (user + nice + system + irq + softirq) / TICKS


def free_port(port):
    """The first from `port` on that is free together with the two above it; some servers take those for gRPC and metrics."""
    while True:
        try:
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            port += 10


def post(port, path, body, headers, timeout=5):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Running:
    """A started server. `ready` is the time from the start of the process to its first good answer, in seconds."""

    def __init__(self, name, command, environment, core, work, port, ask, limit=60):
        self.port, self.log = port, pathlib.Path(work) / f"{name}.log"
        began = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.leader = self.process.pid
        while True:
            try:
                status, body = post(port, *ask)
                if status == 200:
                    self.first = body
                    break
            except OSError:
                status, body = 0, b""
            # Until the model is there servers answer 404, 500 or 503; these say that they will never take the request.
            if status in (400, 413, 415, 422):
                limit = 0
            if self.process.poll() is not None or time.monotonic() - began > limit:
                self.stop()
                raise DidNotStart(f"{name} does not answer {ask[0]}: {body[:200]!r}\n{self.tail()}")
            time.sleep(0.005)
        self.ready = time.monotonic() - began

    def tail(self):
        return "\n".join(f"  | {line}" for line in self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self):
        members = tree(self.leader)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                pass
        for process in members:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
