"""One fuzzing process: libFuzzer by way of atheris, guided by the coverage of our own modules, on one format until done.

`python -m tests.fuzz.target FORMAT FOLDER RUNS SECONDS SEED`, started by tests/fuzz/__main__.py. Counts go to FOLDER/counts.json.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports(include=["collectors", "ringfence"]):
    from ringfence import registry

    registry.formats()

from tests.fuzz.check import examine
from tests.fuzz.mutate import MAX_BYTES, Mutator, frames_of_stream
from tests.fuzz.seeds import seeds

HANG_SECONDS = 60
RSS_MB = 2048


def main(name: str, folder: Path, runs: int, seconds: int, seed: int) -> None:
    """Fuzz until so many inputs were decoded or so much time has passed; libFuzzer ends the process when one fails."""
    chosen = registry.formats()[name]
    starts = seeds(name)
    mutator = Mutator(chosen, [part for data in starts for part in frames_of_stream(chosen, data)])
    for part in ("corpus", "seeds", "found"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(starts):
        (folder / "seeds" / str(number)).write_bytes(data)

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 1 / 4:
            return atheris.Mutate(data, max_bytes)  # type: ignore[no-any-return]
        return mutator.mutate(data, dice, max_bytes)

    options = [
        *(f"-max_len={MAX_BYTES}", "-len_control=0", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={RSS_MB}", f"-seed={seed}"),
        *(f"-artifact_prefix={folder / 'found'}/", "-print_final_stats=0", "-verbosity=0"),
        *(str(folder / "corpus"), str(folder / "seeds")),
    ]
    atheris.Setup(
        [sys.argv[0], *options], counted(lambda data: examine(chosen, data), folder, runs, seconds), custom_mutator=mutate
    )
    atheris.Fuzz()


def counted(work: Callable[[bytes], int], folder: Path, runs: int, seconds: int) -> Callable[[bytes], None]:
    """Counts executions and the inputs in them, and ends the process when that is enough."""
    started = noted = time.monotonic()
    executions = inputs = 0

    def note() -> None:
        counts = {"executions": executions, "inputs": inputs, "seconds": round(time.monotonic() - started, 1)}
        (folder / "counts.json").write_bytes(msgspec.json.encode(counts))

    def execute(data: bytes) -> None:
        nonlocal executions, inputs, noted
        executions += 1
        try:
            inputs += work(data)
        except BaseException:
            note()
            raise
        now = time.monotonic()
        done = inputs >= runs or now - started >= seconds
        if done or now - noted >= 1:
            noted = now
            note()
        if done:
            os._exit(0)  # atheris has no other way to end a run from the inside; the corpus is on disk already

    return execute


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]))
