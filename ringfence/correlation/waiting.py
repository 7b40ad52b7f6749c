"""Events that wait for the watermark, and come out in the order of event time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl

from ringfence.correlation.matches import Integers


class Waiting:
    """Rows of `matches.rows_of`. Beyond `limit` rows the older half comes out early, and what is older yet is late."""

    def __init__(self, limit: int, drops: Counter[str]) -> None:
        self._limit = limit
        self._drops = drops
        self._parts: list[pl.DataFrame] = []
        self.forced_us = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Rows in any order."""
        if rows.height:
            self._parts.append(rows.with_columns(pl.col("due_us").clip(self.forced_us)) if self.forced_us else rows)

    def take(self, horizon_us: int) -> pl.DataFrame | None:
        """All that is due before the watermark, in the order of time, source, position and rule."""
        if sum(part.height for part in self._parts) > self._limit:
            self._force(horizon_us)
        horizon_us = max(horizon_us, self.forced_us)
        due, later = [], []
        for part in self._parts:
            is_due = part["due_us"] < horizon_us
            count = is_due.sum()
            if count:
                due.append(part if count == part.height else part.filter(is_due))
            if count < part.height:
                later.append(part if not count else part.filter(~is_due))
        self._parts = later
        return _ordered(pl.concat(due)) if due else None

    def _force(self, horizon_us: int) -> None:
        times = np.sort(pl.concat([part["due_us"] for part in self._parts]).to_numpy())
        self.forced_us = max(self.forced_us, int(times[len(times) // 2]) + 1)
        self._drops["early"] += int(np.count_nonzero((times >= horizon_us) & (times < self.forced_us)))

    def rows(self) -> pl.DataFrame | None:
        """All that waits."""
        return pl.concat(self._parts, rechunk=True) if self._parts else None


def _ordered(rows: pl.DataFrame) -> pl.DataFrame:
    times: Integers = rows["due_us"].to_numpy()
    if np.all(times[1:] > times[:-1]):
        return rows
    order = np.argsort(times, kind="stable")
    if not np.all(np.diff(times[order])):
        order = np.lexsort([rows[name].to_numpy() for name in ("place", "position", "source", "due_us")])
    return rows[order]
