"""What a correlation makes: one detection with a window, a group and samples of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from ringfence.sigma.correlations import Correlation

MAX_SAMPLES = 20

Entry = tuple[int, int, int, int, Any]
"""One event in a window: time in us, source, position, place of its rule among the inputs, value."""


class Evidence(msgspec.Struct, frozen=True):
    """An event by its id, and the rule that it matched. Where that is a correlation, the id is that of its detection."""

    rule: str
    source: int
    position: int


class Detection(msgspec.Struct, frozen=True):
    """A group of events that meets a correlation. `id` is the same for the same events, however they came."""

    id: bytes
    rule: str
    time_us: int
    first_us: int
    last_us: int
    group: tuple[tuple[str, str], ...]
    count: int
    measure: float
    evidence: tuple[Evidence, ...]
    is_reported: bool


def detection(
    correlation: Correlation, group: Sequence[str], time_us: int, entries: Sequence[Entry], measure: float
) -> Detection:
    """`entries` in the order of their time, at least one. Of many, the first and the last ten are the samples."""
    first, last = entries[0], entries[-1]
    samples = entries if len(entries) <= MAX_SAMPLES else [*entries[: MAX_SAMPLES // 2], *entries[-MAX_SAMPLES // 2 :]]
    named = msgspec.msgpack.encode((correlation.id, group, time_us, first[:3], last[:3]))
    return Detection(
        id=blake2b(named, digest_size=16).digest(),
        rule=correlation.id,
        time_us=time_us,
        first_us=first[0],
        last_us=last[0],
        group=tuple(zip(correlation.group_by, group, strict=True)),
        count=len(entries),
        measure=measure,
        evidence=tuple(Evidence(correlation.inputs[place].rule, source, position) for _, source, position, place, _ in samples),
        is_reported=correlation.is_reported,
    )
