"""Fuzz every decoder with its framer, guided by coverage (`make fuzz`), or look again at an input that was found.

    python -m tests.fuzz                                   every format that is registered, one after the other
    python -m tests.fuzz --formats eve pflog --seconds 60
    python -m tests.fuzz eve .fuzz/eve/found/crash-...     what the input breaks, with the traceback

An input is one frame; an execution feeds many, some or most of them changed, each on its own. A run ends at --runs inputs or after --seconds, whichever is
first. What it learned stays in .fuzz/FORMAT/corpus for the next run. Exit 1 when an input breaks a promise.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from ringfence import registry
from ringfence.telemetry import printable
from tests.fuzz.check import examine

SLICE_SECONDS = 120
"""After which a process is replaced by the next: code that atheris instruments leaks megabytes a second."""


def main(arguments: list[str]) -> int:
    """Fuzz, or reproduce."""
    known = registry.formats()
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", nargs="?", choices=sorted(known), metavar="FORMAT", help="format of FILE")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="an input to look at again")
    parser.add_argument("--formats", nargs="*", choices=sorted(known), metavar="FORMAT", help="fuzz only these")
    parser.add_argument("--runs", type=int, default=2_000_000, help="inputs for each format (default 2000000)")
    parser.add_argument("--seconds", type=int, default=600, help="at most so long for each format (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default 0: another one each time)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="corpora, counts and what was found (default .fuzz)")
    chosen = parser.parse_args(arguments)
    if chosen.format and not chosen.file:
        parser.error("FORMAT needs a FILE; to fuzz some formats say --formats FORMAT ...")
    if chosen.file:
        frames = examine(known[chosen.format], chosen.file.read_bytes())
        sys.stdout.write(f"{chosen.file} breaks nothing: {frames} frames\n")
        return 0
    sound = [
        fuzz(name, chosen.folder / name, chosen.runs, chosen.seconds, chosen.seed) for name in chosen.formats or sorted(known)
    ]
    return 0 if all(sound) else 1


@dataclass
class Counts:
    """What was done so far; `inputs` are frames."""

    executions: int = 0
    inputs: int = 0
    seconds: float = 0.0

    def add(self, path: Path) -> None:
        """What a process noted, however it ended."""
        if path.is_file():
            noted = msgspec.json.decode(path.read_bytes(), type=Counts)
            self.executions += noted.executions
            self.inputs += noted.inputs
            self.seconds += noted.seconds
            path.unlink()


def fuzz(name: str, folder: Path, runs: int, seconds: int, seed: int) -> bool:
    """Fuzz one format and report in a line; False when an input broke a promise."""
    folder.mkdir(parents=True, exist_ok=True)
    before, counts, code, until = set(folder.glob("found/*")), Counts(), 0, time.monotonic() + seconds
    while not code and counts.inputs < runs and (left := math.ceil(until - time.monotonic())) > 0:
        code = _slice(name, folder, runs - counts.inputs, min(left, SLICE_SECONDS), seed)
        counts.add(folder / "counts.json")
    sys.stdout.write(
        f"{name:14} {counts.inputs:>10,} inputs in {counts.executions:>8,} executions, {counts.seconds:.0f} s,"
        f" {counts.inputs / (counts.seconds or 1):,.0f} inputs/s: {'BROKEN' if code else 'sound'}\n"
    )
    if code:
        found = sorted(set(folder.glob("found/*")) - before)
        again = f"python -m tests.fuzz {name} {found[0]}" if found else f"see {folder / 'log.txt'}"
        sys.stdout.write(f"  {_reason(folder / 'log.txt')}\n  reproduce: {again}\n")
    sys.stdout.flush()
    return not code


def _slice(name: str, folder: Path, runs: int, seconds: int, seed: int) -> int:
    """A process of its own, which goes on with the corpus of those before it; returns its exit code."""
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fuzz.target", name, str(folder), str(runs), str(seconds), str(seed)]
    with (folder / "log.txt").open("wb") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def _reason(log: Path) -> str:
    """The exception, or what libFuzzer says for itself, fit for a terminal."""
    lines = log.read_text(errors="replace").splitlines()
    after = [line for before, line in pairwise(lines) if "Uncaught Python exception" in before]
    summary = [line for line in lines if line.startswith("SUMMARY:")]
    return printable((after or summary or ["no reason given"])[0][:400])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
