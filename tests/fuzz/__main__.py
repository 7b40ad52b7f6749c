"""Fuzz every decoder with its framer, guided by coverage (`make fuzz`), or look again at an input that was found.

    python -m tests.fuzz                                   every format that is registered, one after the other
    python -m tests.fuzz --formats eve pflog --seconds 60
    python -m tests.fuzz eve .fuzz/eve/found/crash-...     what the input breaks, with the traceback

An input is one frame; an execution feeds many, some or most of them changed, each on its own. A run ends at --runs inputs or after --seconds, whichever is
first. What it learned stays in .fuzz/FORMAT/corpus for the next run. Exit 1 when an input breaks a promise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec

from ringfence import registry
from ringfence.telemetry import printable
from tests.fuzz.check import examine


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
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="corpora, counts and what was found (default .fuzz)")
    chosen = parser.parse_args(arguments)
    if chosen.format and not chosen.file:
        parser.error("FORMAT needs a FILE; to fuzz some formats say --formats FORMAT ...")
    if chosen.file:
        frames = examine(known[chosen.format], chosen.file.read_bytes())
        sys.stdout.write(f"{chosen.file} breaks nothing: {frames} frames\n")
        return 0
    sound = [fuzz(name, chosen.folder / name, chosen.runs, chosen.seconds) for name in chosen.formats or sorted(known)]
    return 0 if all(sound) else 1


def fuzz(name: str, folder: Path, runs: int, seconds: int) -> bool:
    """Fuzz one format in a process of its own and report in a line; False when an input broke a promise."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("found/*"))
    (folder / "counts.json").unlink(missing_ok=True)
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fuzz.target", name, str(folder), str(runs), str(seconds)]
    with (folder / "log.txt").open("wb") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    counts = {"executions": 0, "inputs": 0, "seconds": 0.0}
    if (folder / "counts.json").is_file():
        counts = msgspec.json.decode((folder / "counts.json").read_bytes())
    rate = counts["inputs"] / (counts["seconds"] or 1)
    sys.stdout.write(
        f"{name:14} {counts['inputs']:>10,} inputs in {counts['executions']:>8,} executions, {counts['seconds']:.0f} s,"
        f" {rate:,.0f} inputs/s: {'sound' if code == 0 else 'BROKEN'}\n"
    )
    if code:
        found = sorted(set(folder.glob("found/*")) - before)
        again = f"python -m tests.fuzz {name} {found[0]}" if found else f"see {folder / 'log.txt'}"
        sys.stdout.write(f"  {_reason(folder / 'log.txt')}\n  reproduce: {again}\n")
    sys.stdout.flush()
    return code == 0


def _reason(log: Path) -> str:
    """The exception, or what libFuzzer says for itself, fit for a terminal."""
    lines = log.read_text(errors="replace").splitlines()
    after = [line for before, line in pairwise(lines) if "Uncaught Python exception" in before]
    summary = [line for line in lines if line.startswith("SUMMARY:")]
    return printable((after or summary or ["no reason given"])[0][:400])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
