"""How far event time has come: up to this time, less is to be expected than the allowed lateness permits.

Each source has its own mark, its latest time less the lateness; the watermark is the lowest of them. A source that is far
behind the others counts as idle and holds nothing up. The mark before each event depends on the events before it alone,
not on how they were cut into batches.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from ringfence.correlation.matches import Identities, Integers

LATENESS_US = 30_000_000
IDLE_US = 300_000_000
START = -(1 << 62)
END = 1 << 62
"""The watermark when nothing more will come: every window closes."""


class Observed(NamedTuple):
    """Event times, none ahead of what was allowed, and the watermark just before each event."""

    time_us: Integers
    horizon_us: Integers


class Watermarks:
    """The latest time of every source. To be shown every event, not only those that matched."""

    def __init__(self, lateness_us: int = LATENESS_US, idle_us: int = IDLE_US) -> None:
        self._lateness_us = lateness_us
        self._idle_us = idle_us
        self._latest: dict[int, int] = {}
        self.horizon_us = START
        self.clamped = 0

    def observe(self, source: Identities, time_us: Integers, ceiling_us: int = END) -> Observed:
        """Events in the order of their arrival. Times beyond `ceiling_us`, say five minutes from now, count as that."""
        self.clamped += int(np.count_nonzero(time_us > ceiling_us))
        times = np.minimum(time_us, ceiling_us)
        if not len(times):
            return Observed(times, times)
        seen: list[int] = np.unique(source).tolist()
        others = np.array(sorted(latest for name, latest in self._latest.items() if name not in set(seen)), np.int64)
        marks = [_running(np.where(source == name, times, START), self._latest.get(name, START)) for name in seen]
        top = np.maximum.reduce([*marks, np.full(len(times) + 1, max(others, default=START))])
        lowest = np.append(others, END)[np.searchsorted(others, top - self._idle_us)]
        for mark in marks:
            active = (mark > START) & (mark >= top - self._idle_us)
            lowest = np.where(active, np.minimum(lowest, mark), lowest)
        lowest[top == START] = START + self._lateness_us
        horizon = np.maximum.accumulate(np.maximum(lowest - self._lateness_us, self.horizon_us))
        self._latest |= {name: int(mark[-1]) for name, mark in zip(seen, marks, strict=True)}
        self._forget(int(top[-1]))
        self.horizon_us = int(horizon[-1])
        return Observed(times, horizon[:-1])

    def _forget(self, top: int) -> None:
        """Sources that are idle hold nothing up; they are remembered only until then."""
        self._latest = {name: latest for name, latest in self._latest.items() if latest >= top - self._idle_us}

    def snapshot(self) -> bytes:
        """All marks; `restore` takes it."""
        return msgspec.msgpack.encode((self.horizon_us, sorted(self._latest.items())))

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; raises msgspec.DecodeError."""
        self.horizon_us, latest = msgspec.msgpack.decode(state, type=tuple[int, list[tuple[int, int]]])
        self._latest = dict(latest)


def _running(times: Integers, before: int) -> Integers:
    """The latest time before each event, and after the last."""
    return np.maximum.accumulate(np.concatenate([[before], times]))
