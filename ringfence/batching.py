"""Gathers decoded rows into blocks: flush at so many rows, so many bytes or so long a delay, whichever comes first.

Rows are bucketed by their actor (source address, else host) before blocking, so that everything about one actor is in
one partition and per-source state stays local.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from ringfence import schema
from ringfence.batch import Batch, EventClass, Header
from ringfence.codec import time_span
from ringfence.schema import together


class Batching(BaseModel):
    """When a block is flushed. The low-latency profile is `max_delay_ms: 20`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(default=5_000, ge=1, le=100_000)
    bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=4_096,
        le=64 * 1024 * 1024,
        description="Size of the columns in memory; about 512 KiB compressed.",
    )
    max_delay_ms: int = Field(default=100, ge=1, le=60_000)


@dataclass
class _Pending:
    frames: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    size: int = 0


class Batcher:
    """The open blocks of one collector. Bounded: `full` says when to flush before more is taken."""

    def __init__(self, collector: str, module: str, limits: Batching, buckets: int, sequence: int) -> None:
        self._collector, self._module = collector, module
        self._limits = limits
        self._buckets = buckets
        self._pending: dict[EventClass, _Pending] = {}
        self._oldest: float | None = None
        self.sequence = sequence

    def add(self, rows: Mapping[EventClass, pl.DataFrame], now: float) -> None:
        """Take decoded rows; `now` is monotonic seconds."""
        for event_class, frame in rows.items():
            if frame.height:
                pending = self._pending.setdefault(event_class, _Pending())
                pending.frames.append(frame)
                pending.rows += frame.height
                pending.size += int(frame.estimated_size())
                self._oldest = now if self._oldest is None else self._oldest

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(pending.rows for pending in self._pending.values())

    def wait_secs(self, now: float) -> float | None:
        """Seconds until the oldest row must leave; None when nothing waits."""
        return None if self._oldest is None else max(0.0, self._oldest + self._limits.max_delay_ms / 1000 - now)

    def due(self, now: float) -> bool:
        """True when any limit is reached."""
        full = any(
            pending.rows >= self._limits.rows or pending.size >= self._limits.bytes for pending in self._pending.values()
        )
        return full or self.wait_secs(now) == 0.0

    def take(self, now_us: int) -> list[tuple[bytes, Batch]]:
        """Seal everything that waits: (partition key, batch) pairs."""
        sealed = [
            (key, self._seal(event_class, part, now_us))
            for event_class, pending in self._pending.items()
            for key, part in self._bucketed(together(pending.frames))
        ]
        self._pending.clear()
        self._oldest = None
        return sealed

    def _bucketed(self, frame: pl.DataFrame) -> list[tuple[bytes, pl.DataFrame]]:
        if self._buckets == 1:
            return [(b"0", frame)]
        bucket = actor_hash(frame) % self._buckets
        return [(b"%d" % number, frame.filter(pl.Series(bucket == number))) for number in np.unique(bucket).tolist()]

    def _seal(self, event_class: EventClass, frame: pl.DataFrame, now_us: int) -> Batch:
        self.sequence += 1
        low, high = time_span(frame)
        header = Header(
            f"{self._collector}-{self.sequence}", schema.VERSION, "", event_class, self._collector, self._module,
            self.sequence, frame.height, low, high, now_us,
        )  # fmt: skip
        return Batch(header, frame)


def actor_hash(frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """A stable hash of the actor of each row: source address, else host, else 0.

    Multiplication by the golden ratio (Knuth, TAOCP 6.4), so that neighbours spread; the same on every machine and in every
    version, since partitions outlive both.
    """
    values = np.zeros(frame.height, np.uint64)
    if "host.hostname" in frame.columns:
        values = _text_values(frame["host.hostname"])
    if "source.ip6" in frame.columns and frame["source.ip6"].null_count() < frame.height:
        six = frame["source.ip6"]
        known = six.is_not_null().to_numpy()
        words = np.frombuffer(b"".join(six.drop_nulls().to_list()), ">u8").reshape(-1, 2)
        values[known] = words[:, 0] ^ words[:, 1]
    if "source.ip" in frame.columns:
        four = frame["source.ip"]
        known = four.is_not_null().to_numpy()
        values[known] = four.drop_nulls().to_numpy()
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def _text_value(text: str) -> int:
    """All of the text counts: hosts of one family (finance-web-01, finance-web-02) share their beginning."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _text_values(texts: pl.Series) -> npt.NDArray[np.uint64]:
    distinct = texts.unique()
    codes = {text: _text_value(text or "") for text in distinct.to_list()}
    return np.fromiter(map(codes.__getitem__, texts.to_list()), np.uint64, len(texts))
