"""Feeding a decoder of lines in parts, for tests that any parts mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringfence.batch import Source, frames_of
from ringfence.component import Decoder

SOURCE = Source("lines", 0xFEED)
POSITION = "ringfence.event.position"


def fed(decoder: Decoder, lines: Sequence[bytes], size: int) -> list[dict[str, Any]]:
    """What a decoder makes of lines when it is fed so many at a time: rows without nulls, and problems, in order.

    Every line must be accounted for. Positions leave room for many rows of one line.
    """
    found: list[dict[str, Any]] = []
    for start in range(0, len(lines), size):
        part = lines[start : start + size]
        decoded = decoder.feed(frames_of(part, SOURCE, 0, [at << 16 for at in range(start, start + len(part))]))
        assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held == len(part)
        for event_class, frame in decoded.rows.items():
            present = ({name: value for name, value in row.items() if value is not None} for row in frame.to_dicts())
            found += [{"class": str(event_class), **row} for row in present]
        found += [{POSITION: problem.position, "detail": problem.detail} for problem in decoded.problems]
    return sorted(found, key=lambda row: int(row[POSITION]))
