"""The data types that move through ringfence: undecoded Frames, columnar Batches, Problems, and what a bus carries.

A Batch is the only unit of work on the hot path: one event class as a polars frame of typed columns (their names and
types come from `ringfence/schema.py`) with a Header. Nothing here is ever changed after it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NewType

import numpy as np
import numpy.typing as npt
import polars as pl

Micros = NewType("Micros", int)
"""Microseconds since the epoch, UTC."""


class EventClass(StrEnum):
    """What a row is about; a Batch holds rows of one class. `boundary`, `detector`, `detection`, `alarm` and `dead` are made
    inside. `alert` is an alert of an IDS, an event like others; `alarm` is an alert of ringfence, made of detections.
    """

    PF = "pf"
    FLOW = "flow"
    DNS = "dns"
    HTTP = "http"
    TLS = "tls"
    SSH = "ssh"
    ALERT = "alert"
    AUTH = "auth"
    PROCESS = "process"
    FILE = "file"
    GENERIC = "generic"
    BOUNDARY = "boundary"
    DETECTION = "detection"
    DETECTOR = "detector"
    ALARM = "alarm"
    DEAD = "dead"


class ProblemCode(StrEnum):
    """Why a frame or row was rejected: a closed set, fit for a metric label."""

    MALFORMED = "malformed"
    WRONG_TYPE = "wrong_type"
    BAD_LENGTH = "bad_length"
    UNKNOWN_VERSION = "unknown_version"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    NO_TEMPLATE = "no_template"
    NOT_ALLOWED = "not_allowed"
    SINK_REFUSED = "sink_refused"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Source:
    """The stream that frames came from. `identity` is the upper half of the event ids of its rows.

    `name` is for people (exporter address, file path); `identity` is a 64-bit hash that names the stream for ever: file
    fingerprint and generation, or listener name and boot id.
    """

    name: str
    identity: int


@dataclass(frozen=True, slots=True)
class Frames:
    """Undecoded lines, datagrams or packets, end to end in one buffer.

    `offsets` holds n + 1 boundaries in `data`; `received_us`, `source` and `positions` hold one value per frame, where
    `source` indexes `sources` and `positions` is the lower half of the event ids: the byte offset of the frame in its
    file, or a counter shifted left by 16 bits for a datagram, which leaves room for the records inside it. `lossy` marks
    the sources that are known to have lost frames just before these.
    """

    data: bytes
    offsets: npt.NDArray[np.int64]
    received_us: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint16]
    sources: Sequence[Source]
    positions: npt.NDArray[np.uint64]
    lossy: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def frame(self, index: int) -> bytes:
        """The bytes of one frame, as they arrived."""
        return self.data[self.offsets[index] : self.offsets[index + 1]]

    def part(self, start: int, stop: int) -> Frames:
        """The frames from `start` up to `stop`."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - low
        rows = slice(start, stop)
        received, source, positions = self.received_us[rows], self.source[rows], self.positions[rows]
        return Frames(self.data[low:high], offsets, received, source, self.sources, positions, self.lossy)

    def slices(self) -> list[bytes]:
        """Every frame as its own bytes object, in order."""
        bounds = self.offsets.tolist()
        data = self.data
        return [data[start:end] for start, end in pairwise(bounds)]

    def select(self, rows: npt.NDArray[np.int64]) -> Frames:
        """Only these frames, in this order."""
        parts = [self.frame(row) for row in rows.tolist()]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return Frames(
            b"".join(parts), offsets, self.received_us[rows], self.source[rows], self.sources, self.positions[rows], self.lossy
        )


def frames_of(parts: Sequence[bytes], source: Source, received_us: int = 0, positions: Sequence[int] | None = None) -> Frames:
    """Join separate frames of one source; without `positions` each frame is placed at its byte offset."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    where = offsets[:-1].astype(np.uint64) if positions is None else np.array(positions, np.uint64)
    count = len(parts)
    return Frames(b"".join(parts), offsets, np.full(count, received_us, np.int64), np.zeros(count, np.uint16), (source,), where)


@dataclass(frozen=True, slots=True)
class Problem:
    """One rejected frame or row: the reason and the place, counted from the start of the frame.

    `row` is the index of the frame in its block, `offset` the byte in that frame where reading failed, `path` the field
    (`$.src_port`), `raw` the frame byte for byte, `source` and `position` its place in the stream it came from.
    """

    code: ProblemCode
    detail: str
    row: int | None = None
    offset: int | None = None
    path: str | None = None
    raw: bytes = b""
    source: Source | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of some Frames: at most one frame of columns per event class.

    Every frame that went in is accounted for: `taken` were decoded, `filtered` were left out on purpose (reason -> how
    many), and the rest have one Problem each. `held` is how many wait for something later in the stream, those of earlier
    calls included; each is counted as taken, or has its Problem, when its waiting ends.
    """

    rows: Mapping[EventClass, pl.DataFrame]
    taken: int
    problems: Sequence[Problem] = ()
    filtered: Mapping[str, int] = field(default_factory=dict)
    held: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What travels with a block beside its columns. `schema` is `<major>.<minor>`, times are event times."""

    batch_id: str
    schema: str
    tenant: str
    event_class: EventClass
    collector: str
    module: str
    sequence: int
    rows: int
    time_min_us: int
    time_max_us: int
    ingested_us: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one event class. A column that is absent was not collected; it does not mean null."""

    header: Header
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Record:
    """What a bus moves: one block of rows, or one dead letter."""

    key: bytes
    headers: Mapping[str, bytes]
    value: bytes

    @property
    def size(self) -> int:
        """Bytes that this record occupies, headers included."""
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers.items())


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record stands on a bus."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a stage: what it wrote, what it is done with, what it remembers. Committed as a whole or not at all.

    `done` holds, per partition, the next offset to read; `state` holds one value per component and replaces what that
    component had stored before.
    """

    group: str
    outputs: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    done: Sequence[Position] = ()
    state: Mapping[str, bytes] = field(default_factory=dict)
