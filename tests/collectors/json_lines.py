"""What the tests of decoders of JSON lines share: lines fed in parts, and that each is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from ringfence.batch import Decoded, Source, frames_of
from ringfence.component import Decoder
from tests.collectors.feeding import fed

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


def damaged_lines(samples: Sequence[bytes], names: Sequence[str]) -> st.SearchStrategy[list[bytes]]:
    """Lists of lines: any bytes, samples whole and cut short, and objects that have some of the names with values of any kind."""
    name = st.sampled_from(names)
    values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5), st.just("10.1.0.5")),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(name, inner, max_size=3)),
        max_leaves=8,
    )
    line = st.one_of(
        st.binary(max_size=30),
        st.sampled_from(samples),
        st.dictionaries(name, values, max_size=4).map(lambda record: msgspec.json.encode(_small(record))),
        st.tuples(st.sampled_from(samples), st.integers(1, 60)).map(lambda cut: cut[0][: -cut[1]]),
    )
    return st.lists(line, max_size=6)


def _small(value: Any) -> Any:
    """msgspec writes integers of 64 bits only."""
    if isinstance(value, dict):
        return {key: _small(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_small(inner) for inner in value]
    return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)


def check_accounts(decoded: Decoded, lines: Sequence[bytes]) -> None:
    """Every line is a row, a Problem inside it, or left out."""
    assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held == len(lines)
    assert decoded.taken == sum(frame.height for frame in decoded.rows.values())
    for problem in decoded.problems:
        assert problem.raw == lines[problem.row or 0]
        assert 0 <= (problem.offset or 0) <= len(problem.raw)


def check_parts(make: Callable[[], Decoder], lines: Sequence[bytes], size: int) -> None:
    """Lines mean the same however they are fed."""

    def present(size: int) -> list[Any]:
        return [{name: value for name, value in row.items() if value is not False} for row in fed(make(), lines, size)]

    assert present(size) == present(len(lines) or 1)
