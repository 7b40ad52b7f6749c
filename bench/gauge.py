"""Measures one thing in this process and prints what it found as JSON: `python -m bench.gauge NAME FOLDER RUNS`."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.measurements import MEASUREMENTS, clock_of


@dataclass(frozen=True)
class Reading:
    """Events per CPU-second, half the span of the runs as a share of it, memory in MB, and what the work counted."""

    rate: float
    spread: float
    peak_mb: float
    growth_mb: float
    counts: dict[str, int]


def gauge(name: str, folder: Path, runs: int) -> Reading:
    """Run once to warm up, then `runs` times; `runs` 0 measures the first run, for work that is long in itself."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work = MEASUREMENTS[name](folder)
    clock = clock_of(work)
    gc.collect()
    gc.freeze()  # as the runtime does: ringfence/runtime.py, _tune_collector
    gc.set_threshold(100_000, 50, 100)
    before_mb = _resident_mb()
    rates = []
    for turn in range(runs + 1):
        started = clock()
        events, counts = work()
        secs = clock() - started
        if turn or not runs:
            rates.append(events / secs)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    rate = median(rates)
    return Reading(rate, (max(rates) - min(rates)) / 2 / rate, peak_mb, peak_mb - before_mb, counts)


def _resident_mb() -> float:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return int(statm.read_text().split()[1]) * resource.getpagesize() / (1 << 20)


if __name__ == "__main__":
    print(json.dumps(asdict(gauge(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))))
