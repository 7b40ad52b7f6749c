"""Events that wait for the watermark, and come out in the order of event time."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from operator import itemgetter

import numpy as np
import polars as pl

from ringfence.correlation.matches import Integers


class Waiting:
    """Rows of `matches.rows_of`. Beyond `limit` rows the older half comes out early, and what is older yet is late."""

    def __init__(self, limit: int, drops: Counter[str]) -> None:
        self._limit = limit
        self._drops = drops
        self._parts: list[tuple[int, int, pl.DataFrame]] = []  # a heap by the first time that is due, then by number
        self._added = 0
        self._rows = 0
        self.forced_us = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Rows in any order."""
        if not rows.height:
            return
        if self.forced_us:
            rows = rows.with_columns(pl.col("due_us").clip(self.forced_us))
        self._rows += rows.height
        self._push(rows)

    def _push(self, rows: pl.DataFrame) -> None:
        self._added += 1
        heappush(self._parts, (int(rows["due_us"].to_numpy().min()), self._added, rows))

    def take(self, horizon_us: int) -> pl.DataFrame | None:
        """All that is due before the watermark, in the order of time, source, position and rule."""
        if self._rows > self._limit:
            self._force(horizon_us)
        horizon_us = max(horizon_us, self.forced_us)
        due = []
        while self._parts and self._parts[0][0] < horizon_us:
            _, _, part = heappop(self._parts)
            is_due = part["due_us"].to_numpy() < horizon_us
            if not is_due.all():
                self._push(part[np.flatnonzero(~is_due)])
                part = part[np.flatnonzero(is_due)]
            due.append(part)
        if not due:
            return None
        rows = due[0] if len(due) == 1 else pl.concat(due, rechunk=True)
        self._rows -= rows.height
        return _ordered(rows)

    def _force(self, horizon_us: int) -> None:
        times = np.sort(np.concatenate([part["due_us"].to_numpy() for _, _, part in self._parts]))
        self.forced_us = max(self.forced_us, int(times[len(times) // 2]) + 1)
        self._drops["early"] += int(np.count_nonzero((times >= horizon_us) & (times < self.forced_us)))

    def rows(self) -> pl.DataFrame | None:
        """All that waits."""
        return (
            pl.concat([part for _, _, part in sorted(self._parts, key=itemgetter(0, 1))], rechunk=True) if self._parts else None
        )


def _ordered(rows: pl.DataFrame) -> pl.DataFrame:
    times: Integers = rows["due_us"].to_numpy()
    if np.all(times[1:] > times[:-1]):
        return rows
    order = np.argsort(times, kind="stable")
    if not np.all(np.diff(times[order])):
        order = np.lexsort([rows[name].to_numpy() for name in ("place", "position", "source", "due_us")])
    return rows[order]
