"""Matches of one rule as columns, and what a correlation makes of them: one key, one value, one place in the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence.sigma.correlations import Correlation, Input, Kind

Integers = npt.NDArray[np.int64]
Identities = npt.NDArray[np.uint64]
NUMBERS = frozenset({Kind.VALUE_SUM, Kind.VALUE_AVG, Kind.VALUE_PERCENTILE, Kind.VALUE_MEDIAN})


@dataclass(frozen=True, slots=True)
class Matches:
    """The events that a rule matched, one row each, in any order.

    `horizon_us` is the watermark just before the event arrived (`Watermarks.observe`). `source` and `position` are the event
    id. `fields` are by the names that the rule uses; what is absent is null in every row.
    """

    time_us: Integers
    horizon_us: Integers
    source: Identities
    position: Identities
    fields: Mapping[str, pl.Series]


def rows_of(matches: Matches, wanted: Input, place: int, correlation: Correlation, drops: Counter[str]) -> pl.DataFrame:
    """`key`, `due_us` (when it is its turn), `time_us`, `source`, `position`, `place`, `value`; rows without a key are dropped."""
    rows = len(matches.time_us)
    frame = pl.DataFrame(
        {
            "key": _joined([_text(matches, name, rows) for name in wanted.group_by], rows),
            "due_us": np.maximum(matches.time_us, matches.horizon_us),
            "time_us": matches.time_us,
            "source": matches.source,
            "position": matches.position,
            "place": np.full(rows, place, np.uint8),
            "value": _value(matches, wanted, correlation.kind, rows),
        }
    )
    for column, reason in (("key", "no_group"), ("value", "no_value")):
        if frame[column].null_count():
            kept = frame.filter(pl.col(column).is_not_null())
            drops[reason] += frame.height - kept.height
            frame = kept
    return frame


def _value(matches: Matches, wanted: Input, kind: Kind, rows: int) -> pl.Series:
    if kind is Kind.VALUE_COUNT:
        return _joined([_text(matches, name, rows) for name in wanted.values], rows)
    if kind not in NUMBERS:
        return pl.repeat("", rows, dtype=pl.String, eager=True)
    series = matches.fields.get(wanted.values[0], pl.repeat(None, rows, dtype=pl.Float64, eager=True))
    numbers = series.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def _text(matches: Matches, name: str, rows: int) -> pl.Series:
    series = matches.fields.get(name)
    if series is None:
        return pl.repeat(None, rows, dtype=pl.String, eager=True)
    if isinstance(series.dtype, pl.List):
        return series.cast(pl.List(pl.String), strict=False).list.join("\x1f").replace({"": None})
    return series.bin.encode("hex") if series.dtype == pl.Binary else series.cast(pl.String, strict=False)


def _joined(texts: Sequence[pl.Series], rows: int) -> pl.Series:
    """One text for all; several are each led by their length, so that no two lists of values look the same."""
    if len(texts) == 1:
        return texts[0]
    if not texts:
        return pl.repeat("", rows, dtype=pl.String, eager=True)
    frame = pl.DataFrame([text.alias(str(place)) for place, text in enumerate(texts)])
    parts = [
        part for name in frame.columns for part in (pl.col(name).str.len_chars().cast(pl.String), pl.lit(":"), pl.col(name))
    ]
    return frame.select(pl.concat_str(parts).alias("key"))["key"]


def values_of(key: str, count: int) -> tuple[str, ...]:
    """The values of which a key was made."""
    return tuple(_split(key)) if count > 1 else (key,) * count


def _split(key: str) -> Iterator[str]:
    start = 0
    while start < len(key):
        colon = key.index(":", start)
        stop = colon + 1 + int(key[start:colon])
        yield key[colon + 1 : stop]
        start = stop
