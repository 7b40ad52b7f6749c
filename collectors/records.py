"""What the decoders of one record a line share: the lines of a block with what became of each, and typed columns.

Sample: `LineBlock(frames, continuations).lines` -> `[b'{"ts":1.5}', b'{"ts":2.5}']`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from collectors.lines import MAX_LINE_BYTES, Continuations
from ringfence import timestamps
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.schema import together
from ringfence.topology import PROTOCOLS

MAX_INT = (1 << 63) - 1


class LineBlock:
    """The lines of one call of feed() without their ends, and what is not taken of them.

    A piece of an over-long line must not be read, for it could pass for a record: it is left out, and the first one is
    the Problem. A line that is not UTF-8 is a Problem too. Lines that are left out are empty.
    """

    def __init__(self, frames: Frames, continuations: Continuations) -> None:
        self.frames = frames
        self.lines = _stripped(frames)
        self.problems: list[Problem] = []
        self.filtered: Counter[str] = Counter()
        self.left_out: set[int] = set()
        self.identities = np.array([source.identity for source in frames.sources], np.uint64)
        self._original: pl.Series | None = None
        rests = continuations.of(frames)
        for row in np.flatnonzero(np.diff(frames.offsets) > MAX_LINE_BYTES).tolist():
            if row in rests:
                self.filtered["too_large_rest"] += 1
            else:
                detail = f"the line is longer than {MAX_LINE_BYTES} bytes"
                self.refuse(ProblemCode.TOO_LARGE, detail, row, MAX_LINE_BYTES, None)
            self._leave_out(row)
        if not _is_utf8(frames.data):
            self._leave_out_bad_text()

    def stream(self, row: int) -> int:
        """What names the stream of a line for ever."""
        return int(self.frames.sources[int(self.frames.source[row])].identity)

    def refuse(self, code: ProblemCode, detail: str, row: int, offset: int, path: str | None) -> None:
        """Note why a line is no row, and the byte in it."""
        source = self.frames.sources[self.frames.source[row]]
        place = int(self.frames.positions[row])
        self.problems.append(Problem(code, detail, row, offset, path, self.frames.frame(row), source, place))

    def _leave_out_bad_text(self) -> None:
        """A typed decoder does not look inside the fields that it skips, and the line is passed on whole."""
        for row, line in enumerate(self.lines):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                detail = f"byte 0x{line[error.start]:02x} is not valid UTF-8"
                self.refuse(ProblemCode.MALFORMED, detail, row, error.start, None)
                self._leave_out(row)

    def _leave_out(self, row: int) -> None:
        self.lines[row] = b""
        self.left_out.add(row)

    def original(self) -> pl.Series:
        """Every line."""
        if self._original is None:
            self._original = pl.Series(self.lines, dtype=pl.Binary)
        return self._original

    def origin_columns(self, rows: npt.NDArray[np.int64], original: bool, lossy: bool) -> dict[str, Any]:
        """The columns that depend on where the lines of some rows came from: when, ids, and as asked for, line and loss."""
        sources = self.frames.source[rows]
        received = self.frames.received_us[rows]
        columns: dict[str, Any] = {
            "ringfence.event.position": self.frames.positions[rows],
            "ringfence.event.source": self.identities[sources],
        }
        if received.any():
            columns["event.created"] = pl.Series(received).scatter(np.flatnonzero(received == 0).tolist(), None)
        if original:
            columns["event.original"] = self.original()[pl.Series(rows.astype(np.uint32))]
        if lossy and self.frames.lossy:
            columns["ringfence.evidence.lossy"] = np.isin(sources, list(self.frames.lossy))
        return columns

    def decoded(self, parts: Mapping[EventClass, Sequence[pl.DataFrame]]) -> Decoded:
        """All that came of the lines."""
        rows = {event_class: together(frames) for event_class, frames in parts.items() if frames}
        taken = sum(frame.height for frame in rows.values())
        return Decoded(rows, taken, sorted(self.problems, key=lambda problem: problem.row or 0), +self.filtered)


def without(frame: pl.DataFrame, bad: Mapping[int, Any]) -> pl.DataFrame:
    """A frame without its bad rows."""
    if not bad:
        return frame
    good = np.ones(frame.height, np.bool_)
    good[list(bad)] = False
    return frame.filter(pl.Series(good))


def integers(values: Sequence[Any] | pl.Series, low: int, high: int, path: str, bad: dict[int, str]) -> pl.Series:
    """Integers or null as a column; a row whose number is out of range is noted in `bad`."""
    try:
        series = values if isinstance(values, pl.Series) else pl.Series(values, dtype=pl.Int64)
    except (OverflowError, pl.exceptions.PolarsError, TypeError):
        series = None
    if series is not None and (not len(series) or series.null_count() == len(series)):
        return series
    if series is not None:
        least, most = series.min(), series.max()
        if isinstance(least, int) and isinstance(most, int) and low <= least and most <= high:
            return series
    wrong = {row for row, value in enumerate(values) if value is not None and not low <= value <= high}
    bad.update(dict.fromkeys(wrong, f"$.{path}"))
    return pl.Series([None if row in wrong else value for row, value in enumerate(values)], dtype=pl.Int64)


def micros_of(texts: Sequence[str | None]) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """Event times as a column, nanoseconds cut off, and the rows that have none."""
    short = [
        text[:26] + "+0000" if text is not None and len(text) == 30 and text[29] == "Z" and text[26:29].isdigit() else text
        for text in texts
    ]
    micros, absent = timestamps.parse(short)
    series = pl.Series(micros)
    return (series.scatter(absent.tolist(), None) if len(absent) else series), absent


class _Transports(dict[str | None, int | None]):
    """Protocol numbers by name, in any case, or by the number in digits; None for any other text."""

    def __missing__(self, name: str) -> int | None:
        upper = name.upper()
        if upper in self:
            return self[upper]
        return int(upper) if upper.isascii() and upper.isdigit() and len(upper) < 5 and int(upper) < 256 else None


_NAMED: dict[str | None, int | None] = {name.upper(): number for name, number in PROTOCOLS.items()}
_NAMED |= {None: None, "IPV6-ICMP": 58, "IPV6": 41, "IGMP": 2}
TRANSPORTS = _Transports(_NAMED | {name and name.lower(): number for name, number in _NAMED.items()})


def _stripped(frames: Frames) -> list[bytes]:
    """The lines without their ends: cut at the line feeds, where each frame ends with its only one."""
    data, ends = frames.data, frames.offsets[1:]
    if len(ends) and b"\r" not in data:
        cut = data.split(b"\n")
        if len(cut) == len(ends) + 1 and (np.frombuffer(data, np.uint8)[ends - 1] == ord("\n")).all():
            return cut[:-1]
    return [line.rstrip(b"\r\n") for line in frames.slices()]


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
