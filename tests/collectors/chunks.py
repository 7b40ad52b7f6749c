"""What the tests of framers and decoders of pf share: a stream that arrives in chunks, and what is read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ringfence.batch import Decoded, EventClass, Frames, Source
from ringfence.component import Decoder, Framer


def chunked(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Chunks of these sizes, and the rest."""
    chunks, start = [], 0
    for size in sizes:
        chunks.append(data[start : start + size])
        start += size
    return [*chunks, data[start:]]


def pf_rows(decoded: Decoded) -> list[dict[str, Any]]:
    """The rows of class pf."""
    return decoded.rows[EventClass.PF].to_dicts() if EventClass.PF in decoded.rows else []


def read_chunks(
    framer: Framer, decoder: Decoder, source: Source, stream: bytes, sizes: Sequence[int] = (), received_us: int = 0
) -> tuple[list[dict[str, Any]], list[Any], dict[str, int]]:
    """Rows, problems and what was filtered, of a stream that arrives in these chunks; all frames are accounted for."""
    position = 0
    found: list[dict[str, Any]] = []
    problems: list[Any] = []
    filtered: dict[str, int] = {}
    for data, bounds in [*map(framer.cut, chunked(stream, sizes)), framer.finish()]:
        count = len(bounds) - 1
        where = (bounds[:-1] + position).astype(np.uint64)
        arrived = np.full(count, received_us, np.int64)
        decoded = decoder.feed(Frames(data, bounds, arrived, np.zeros(count, np.uint16), (source,), where))
        assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) == count
        assert all(problem.raw and 0 <= (problem.offset or 0) <= len(problem.raw) for problem in decoded.problems)
        position += len(data)
        found += pf_rows(decoded)
        problems += [(problem.code, problem.detail, problem.position, problem.offset) for problem in decoded.problems]
        for reason, number in decoded.filtered.items():
            filtered[reason] = filtered.get(reason, 0) + number
    return found, problems, filtered
