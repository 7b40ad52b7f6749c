"""What the tests of decoders of JSON lines share: lines fed in parts, and that each is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ringfence.batch import Decoded, Source, frames_of
from ringfence.component import Decoder

SOURCE = Source("events.log", 0xFEED)


def decode(decoder: Decoder, *lines: bytes, received_us: int = 0) -> Decoded:
    """What one call of feed() makes of some lines."""
    return decoder.feed(frames_of(lines, SOURCE, received_us))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    """Every row without its nulls, by its place in the stream, with its class."""
    found = [
        {"class": str(event_class), **{name: value for name, value in row.items() if value is not None}}
        for event_class, frame in decoded.rows.items()
        for row in frame.to_dicts()
    ]
    return sorted(found, key=lambda row: int(row["ringfence.event.position"]))


def one(decoder: Decoder, *lines: bytes) -> dict[str, Any]:
    """The only row, without what every row has."""
    (row,) = rows(decode(decoder, *lines))
    beside = ("ringfence.event.source", "ringfence.event.position", "event.original", "ringfence.evidence.lossy")
    return {name: value for name, value in row.items() if name not in beside}


def check_accounts(decoded: Decoded, lines: Sequence[bytes]) -> None:
    """Every line is a row, a Problem inside it, or left out."""
    assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held == len(lines)
    assert decoded.taken == sum(frame.height for frame in decoded.rows.values())
    for problem in decoded.problems:
        assert problem.raw == lines[problem.row or 0]
        assert 0 <= (problem.offset or 0) <= len(problem.raw)


def check_parts(make: Callable[[], Decoder], lines: Sequence[bytes], size: int) -> None:
    """Lines mean the same however they are fed."""

    def fed(size: int) -> list[Any]:
        decoder, found = make(), []
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            decoded = decoder.feed(frames_of(part, SOURCE, 0, range(start, start + len(part))))
            found += [{k: v for k, v in row.items() if v is not False} for row in rows(decoded)]
            found += [{"ringfence.event.position": problem.position, "detail": problem.detail} for problem in decoded.problems]
        return sorted(found, key=lambda row: int(row["ringfence.event.position"]))

    assert fed(size) == fed(len(lines) or 1)
