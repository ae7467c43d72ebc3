"""The ideal server: one FIFO queue before as many sessions as there are, no cost but the recorded times of the raw runs.

The arrivals are those of `ortolan-server bench --rate R --seed S`: its generator (fastrand's WyRand) draws the same distances here.
"""

import heapq
import math

MASK = (1 << 64) - 1


def uniform(seed):
    """fastrand 2: numbers in [0, 1)."""
    while True:
        seed = (seed + 0x2D358DCCAA6C78A5) & MASK
        product = seed * (seed ^ 0x8BB84B93962EACC9)
        drawn = (((product & MASK) ^ (product >> 64)) >> 1) * (1.0 / (1 << 63))
        if drawn < 1.0:
            yield drawn


def arrivals(rate, seed, until):
    """Due times in seconds, up to `until`."""
    now = 0.0
    for number in uniform(seed):
        now -= math.log(1.0 - number) / rate
        if now >= until:
            return
        yield now


def fifo(due, runs, sessions=1):
    """Latencies of requests that are due then, each taking the next of `runs` (in turn) on the first free session."""
    free = [0.0] * sessions
    heapq.heapify(free)
    latencies = []
    for number, at in enumerate(due):
        end = max(at, heapq.heappop(free)) + runs[number % len(runs)]
        heapq.heappush(free, end)
        latencies.append(end - at)
    return latencies


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(q * len(values)) - 1)]
