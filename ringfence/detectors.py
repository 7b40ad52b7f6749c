"""What detectors find, as rows of class detector: rules decide about their level and what to do (`rules/sigma/detectors/`).

A finding is made at the row that completed it, and its id comes from that row's and the detector's name, so a replay gives the
same ids.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import prometheus_client

from ringfence.batch import Batch, EventClass
from ringfence.codec import time_span
from ringfence.schema import build_frame, frame_schema
from ringfence.segments import SEGMENT_PARTS, SegmentMap

MAX_IDS = 16
UNKNOWN_AGE = 1 << 62
DAY_US = 86_400_000_000
_OWN = frozenset({"event.start", "event.end", "ringfence.event.source", "ringfence.event.position"})
_COPIED = [
    name
    for name in frame_schema(EventClass.DETECTOR)
    if name not in _OWN and not name.startswith(("ringfence.detector.", "ringfence.evidence."))
]


class Bounds:
    """How often each bound of a detector's memory was hit since the last report."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()

    def hit(self, bound: str) -> None:
        """Something had to be forgotten or left out."""
        self.hits[bound] += 1

    def report(self, detector: str, metric: prometheus_client.Counter) -> None:
        """Add to a metric with the labels detector and bound."""
        for bound, count in self.hits.items():
            metric.labels(detector, bound).inc(count)
        self.hits.clear()


LOGINS = ("ssh-login", "login", "network-login")
"""Values of event.action that are a login to a host."""


class Recent:
    """Numbers of 64 bits with the time of each, to leave out known ones of a whole batch at once.

    It only mirrors what a detector knows exactly, so what falls out of a slot costs time and changes no result.
    """

    def __init__(self, slots_log2: int = 16) -> None:
        self._shift = 64 - slots_log2
        self._keys = np.zeros(1 << slots_log2, np.uint64)
        self._at_us = np.zeros(1 << slots_log2, np.int64)

    def ages(self, keys: npt.NDArray[np.uint64], at_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How long before these times each number was noted; UNKNOWN_AGE where it is not known."""
        slots = (keys >> np.uint64(self._shift)).astype(np.int64)
        return np.where(self._keys[slots] == keys, at_us - self._at_us[slots], UNKNOWN_AGE)

    def note(self, key: int, at_us: int) -> None:
        """Remember a number."""
        slot = key >> self._shift
        self._keys[slot], self._at_us[slot] = key, at_us

    def drop(self, key: int) -> None:
        """Forget a number."""
        slot = key >> self._shift
        if self._keys[slot] == key:
            self._keys[slot] = 0


class Finding(NamedTuple):
    """What a detector found at a row: `columns` replace what the row says, such as its ends; times are microseconds."""

    row: int
    name: str
    score: int
    evidence: str
    distinct: int
    missed: int | None
    first_us: int
    last_us: int
    ids: Sequence[str]
    columns: Mapping[str, Any] = {}


def batch_of(findings: Sequence[Finding], batch: Batch, segments: SegmentMap) -> Batch:
    """The findings in a batch as a batch, with the names of segments."""
    kept = [name for name in _COPIED if name in batch.frame.columns]
    rows = [_row(finding, batch, kept) for finding in findings]
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    for side in ("source", "destination"):
        codes = columns.pop(f"{side}.segment.code", None)
        if codes is not None:
            known = np.array([code or 0 for code in codes], np.uint16)
            columns |= {f"{side}.segment.{part}": segments.part(part, known) for part in SEGMENT_PARTS}
    for name in (
        "ringfence.event.source",
        "ringfence.event.position",
        "ringfence.evidence.source",
        "ringfence.evidence.position",
    ):
        columns[name] = pl.Series(columns[name], dtype=pl.UInt64)
    frame = build_frame(EventClass.DETECTOR, columns)
    low, high = time_span(frame)
    header = replace(batch.header, event_class=EventClass.DETECTOR, rows=frame.height, time_min_us=low, time_max_us=high)
    return Batch(header, frame)


def event_id(source: int, position: int) -> str:
    """The id of a row as documents show it."""
    return f"{source:016x}{position:016x}"


def account_of(name: str | None) -> str | None:
    """An account without its domain, in small letters; None where there is none."""
    return name.rpartition("\\")[2].partition("@")[0].lower() or None if name else None


def _row(finding: Finding, batch: Batch, kept: Sequence[str]) -> dict[str, Any]:
    found = batch.frame.row(finding.row, named=True)
    source, position = found["ringfence.event.source"], found["ringfence.event.position"]
    ids = [*finding.ids[-MAX_IDS:]] or [event_id(source, position)]
    return {
        **{name: found[name] for name in kept},
        **finding.columns,
        "ringfence.event.source": source ^ _number_of(finding.name),
        "ringfence.event.position": position,
        "ringfence.evidence.source": source,
        "ringfence.evidence.position": position,
        "ringfence.evidence.class": str(batch.header.event_class),
        "ringfence.evidence.module": batch.header.module,
        "ringfence.detector.name": finding.name,
        "ringfence.detector.score": finding.score,
        "ringfence.detector.evidence": finding.evidence,
        "ringfence.detector.distinct": finding.distinct,
        "ringfence.detector.missed": finding.missed,
        "ringfence.detector.ids": ",".join(ids),
        "event.start": finding.first_us,
        "event.end": finding.last_us,
    }


@lru_cache(maxsize=64)
def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
