"""Dead letters: one record per rejected frame or row, byte for byte, with everything needed to explain and replay it.

The value is the frame as it arrived (the first 64 KiB); what is known about it stands in headers: those of Kafka Connect
(KIP-298), so that existing viewers work, and `ringfence-dlq-*`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from ringfence import __version__, schema
from ringfence.batch import Batch, EventClass, Header, Problem, Record, Source
from ringfence.schema import build_frame

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_DETAIL_CHARS = 512
DEAD_TYPE = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected frame, row or block. `row`, `offset` and `position` are -1 where they mean nothing."""

    stage: str
    component: str
    reason: str
    detail: str
    payload: bytes
    length: int
    input: str
    identity: int
    position: int
    row: int
    offset: int
    path: str
    failed_us: int
    attempts: int = 1
    headers: Mapping[str, bytes] | None = None

    @property
    def id(self) -> str:
        """Names the letter: the id that its event would have had."""
        return f"{self.identity:016x}{self.position:016x}"


def from_problem(problem: Problem, stage: str, component: str, now_us: int) -> DeadLetter:
    """The dead letter of a problem that a decoder, processor or sink reported."""
    source = problem.source or Source("", _hashed(problem.raw))
    return DeadLetter(
        stage=stage,
        component=component,
        reason=str(problem.code),
        detail=problem.detail[:MAX_DETAIL_CHARS],
        payload=problem.raw[:MAX_PAYLOAD_BYTES],
        length=len(problem.raw),
        input=source.name,
        identity=source.identity,
        position=problem.position,
        row=-1 if problem.row is None else problem.row,
        offset=-1 if problem.offset is None else problem.offset,
        path=problem.path or "",
        failed_us=now_us,
    )


def from_block(
    record: Record, detail: str, stage: str, component: str, input_name: str, offset: int, now_us: int
) -> DeadLetter:
    """The dead letter of a record that is no readable block; keeps its headers for the replay."""
    return DeadLetter(
        stage=stage, component=component, reason="malformed", detail=detail[:MAX_DETAIL_CHARS], payload=record.value[:MAX_PAYLOAD_BYTES],
        length=len(record.value), input=input_name, identity=_hashed(record.value), position=offset, row=-1, offset=-1, path="", failed_us=now_us,
        headers=record.headers,
    )  # fmt: skip


def _hashed(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")


def encode(letter: DeadLetter) -> Record:
    """The record for `ringfence.dead.v1`."""
    headers = {
        "content-type": DEAD_TYPE,
        "ringfence-schema": schema.VERSION.encode(),
        "__connect.errors.connector.name": letter.component.encode(),
        "__connect.errors.stage": letter.stage.encode(),
        "__connect.errors.exception.message": letter.detail.encode(errors="backslashreplace"),
        "ringfence-dlq-reason": letter.reason.encode(),
        "ringfence-dlq-first-failed-ts": b"%d" % letter.failed_us,
        "ringfence-dlq-attempts": b"%d" % letter.attempts,
        "ringfence-dlq-row": b"%d" % letter.row,
        "ringfence-dlq-column": b"%d" % letter.offset,
        "ringfence-dlq-path": letter.path.encode(errors="backslashreplace"),
        "ringfence-dlq-input": letter.input.encode(errors="backslashreplace"),
        "ringfence-dlq-identity": b"%d" % letter.identity,
        "ringfence-dlq-position": b"%d" % letter.position,
        "ringfence-dlq-length": b"%d" % letter.length,
        "ringfence-dlq-version": __version__.encode(),
    }
    original = {f"ringfence-dlq-original.{name}": value for name, value in (letter.headers or {}).items()}
    return Record(b"", {**headers, **original}, letter.payload)


_NEEDED = (
    "ringfence-dlq-reason",
    "__connect.errors.connector.name",
    "__connect.errors.stage",
    "__connect.errors.exception.message",
    "ringfence-dlq-first-failed-ts",
    "ringfence-dlq-attempts",
    "ringfence-dlq-row",
    "ringfence-dlq-column",
    "ringfence-dlq-path",
    "ringfence-dlq-input",
    "ringfence-dlq-identity",
    "ringfence-dlq-position",
    "ringfence-dlq-length",
)


def decode(record: Record) -> DeadLetter:
    """Read a record of `ringfence.dead.v1`. Raises ValueError when it is none."""
    absent = [name for name in _NEEDED if name not in record.headers]
    if absent:
        raise ValueError(f"the record is no dead letter: it lacks the header {absent[0]}")
    text = {
        name: value.decode(errors="replace")
        for name, value in record.headers.items()
        if not name.startswith("ringfence-dlq-original.")
    }
    original = {
        name.removeprefix("ringfence-dlq-original."): value
        for name, value in record.headers.items()
        if name.startswith("ringfence-dlq-original.")
    }
    return DeadLetter(
        stage=text["__connect.errors.stage"],
        component=text["__connect.errors.connector.name"],
        reason=text["ringfence-dlq-reason"],
        detail=text["__connect.errors.exception.message"],
        payload=record.value,
        length=int(text["ringfence-dlq-length"]),
        input=text["ringfence-dlq-input"],
        identity=int(text["ringfence-dlq-identity"]),
        position=int(text["ringfence-dlq-position"]),
        row=int(text["ringfence-dlq-row"]),
        offset=int(text["ringfence-dlq-column"]),
        path=text["ringfence-dlq-path"],
        failed_us=int(text["ringfence-dlq-first-failed-ts"]),
        attempts=int(text["ringfence-dlq-attempts"]),
        headers=original or None,
    )


def tried_again(letter: DeadLetter) -> DeadLetter:
    """The letter after one more attempt that failed; it keeps its first cause."""
    return replace(letter, attempts=letter.attempts + 1)


def to_batch(letters: Sequence[DeadLetter]) -> Batch:
    """Dead letters as rows of class `dead`, for sinks."""
    frame = build_frame(
        EventClass.DEAD,
        {
            "@timestamp": [letter.failed_us for letter in letters],
            "ringfence.event.source": pl.Series([letter.identity for letter in letters], dtype=pl.UInt64),
            "ringfence.event.position": pl.Series([letter.position for letter in letters], dtype=pl.UInt64),
            "ringfence.dead.stage": [letter.stage for letter in letters],
            "ringfence.dead.component": [letter.component for letter in letters],
            "ringfence.dead.reason": [letter.reason for letter in letters],
            "error.message": [letter.detail for letter in letters],
            "ringfence.dead.path": [letter.path or None for letter in letters],
            "ringfence.dead.row": [letter.row if letter.row >= 0 else None for letter in letters],
            "ringfence.dead.offset": [letter.offset if letter.offset >= 0 else None for letter in letters],
            "ringfence.dead.input": [letter.input or None for letter in letters],
            "ringfence.dead.attempts": [letter.attempts for letter in letters],
            "ringfence.dead.length": [letter.length for letter in letters],
            "ringfence.dead.payload": [letter.payload for letter in letters],
        },
    )
    times = [letter.failed_us for letter in letters]
    header = Header("dead", schema.VERSION, "", EventClass.DEAD, "", "", 0, len(letters), min(times), max(times), max(times))
    return Batch(header, frame)
