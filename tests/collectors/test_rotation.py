"""A log that a real process writes at 10,000 lines/s and rotates under a reader: nothing lost, nothing twice, order kept.

The short form rotates 5 times; RINGFENCE_LONG=1 rotates 300 times.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from collectors.lines import LineFramer
from collectors.tail import TailShell
from ringfence.component import Delivery
from tests.collectors.rotating import LINES_PER_SEC

LONG = os.environ.get("RINGFENCE_LONG") == "1"
ROTATIONS = 300 if LONG else 5
SECS = 0.5 if LONG else 0.2
CUT_SECS = 0.5
"""Between truncations: more than the reader waits between two looks, so that it sees each."""
SILENCE_SECS = 0.5
COARSE_SECS = 0.05
"""What a kernel's time of change and a busy machine may be off."""


@contextmanager
def writer(path: Path, way: str, secs: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.collectors.rotating", str(path), str(ROTATIONS), str(secs), way]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Reader:
    """The numbers of the lines that came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = b""
        self.numbers: list[int] = []
        self.ids: set[tuple[int, int]] = set()
        self.lossy = 0

    def take(self, delivery: Delivery) -> None:
        frames = delivery.frames
        for text, place in zip(frames.slices(), frames.positions.tolist(), strict=True):
            if len(text) == 100 and text.endswith(b"\n") and text[:10].isdigit():
                self.numbers.append(int(text[:10]))
            self.ids.add((frames.sources[0].identity, place))
        self.position = delivery.position
        self.lossy += len(frames.lossy)

    async def read_until(self, is_done: Callable[[], Awaitable[bool]], lines: int | None = None) -> None:
        """Read on, until so many lines came or all is read and the writer has ended."""
        shell = TailShell(self.path, LineFramer, follow=True)
        await shell.open(self.position)
        waiting = asyncio.ensure_future(shell.read())
        try:
            while lines is None or len(self.numbers) < lines:
                done, _ = await asyncio.wait((waiting,), timeout=SILENCE_SECS)
                if done:
                    self.take(waiting.result())
                    waiting = asyncio.ensure_future(shell.read())
                elif await is_done():
                    return
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await shell.close()


def follow(path: Path, way: str, secs: float, restart_after: Sequence[int] = ()) -> tuple[Reader, int]:
    """Read what a writer writes, with restarts after so many lines; returns how many lines were written."""
    reader = Reader(path)
    with writer(path, way, secs) as process:

        async def has_ended() -> bool:
            return process.poll() is not None

        async def run() -> None:
            for lines in restart_after:
                await reader.read_until(has_ended, lines)
                await asyncio.sleep(2.2 * secs)  # two rotations that nobody sees
            await reader.read_until(has_ended)

        asyncio.run(run())
        assert process.stdout is not None
        return reader, int(process.stdout.read())


@pytest.mark.long
@pytest.mark.parametrize("restarts", [0, 3], ids=["watched", "restarted"])
def test_rotations_by_rename_lose_and_repeat_nothing(tmp_path: Path, restarts: int) -> None:
    total = int((ROTATIONS + 1) * SECS * LINES_PER_SEC)
    where = [total * (number + 1) // (restarts + 2) for number in range(restarts)]
    reader, written = follow(tmp_path / "app.log", "rename", SECS, where)

    assert written > total * 0.9
    assert reader.numbers == list(range(written))
    assert len(reader.ids) == written
    assert reader.lossy == 0


@pytest.mark.long
def test_copytruncate_loses_no_more_than_it_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        reader, written = follow(tmp_path / "app.log", "copytruncate", CUT_SECS)
    windows = [float(str(record.args[2])) for record in caplog.records if isinstance(record.args, tuple)]
    gaps = [after - before - 1 for before, after in pairwise(reader.numbers) if after != before + 1]
    lost = written - len(reader.numbers)
    # the reader looks five times a second; two truncations between two looks are one to it
    unseen = ROTATIONS - len(windows)
    reported = sum(windows)
    sys.stdout.write(
        f"{lost} of {written} lines lost in {len(gaps)} gaps; {reported:.3f} s reported in {len(windows)} windows\n"
    )

    assert all(after > before for before, after in pairwise(reader.numbers))
    assert unseen <= ROTATIONS // 2
    assert len(gaps) <= reader.lossy
    # a line that is torn by a truncation is no line any more, on either side
    assert (lost - 2 * ROTATIONS) / LINES_PER_SEC <= reported + COARSE_SECS * ROTATIONS + CUT_SECS * unseen
    if not unseen:
        assert all((count - 2) / LINES_PER_SEC <= max(windows) + COARSE_SECS for count in gaps)
