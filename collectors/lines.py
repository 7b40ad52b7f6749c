"""Newline framing: text logs and JSON lines. A frame is a line with its newline; the last one may lack it.

A line that is longer than `max_bytes` would need unbounded memory, so it is handed over in pieces: each but the last is
`max_bytes` + 1 bytes long, and the last one has at least as many, never twice as many. So every byte of the line keeps
its place in the stream, at most 2 * (`max_bytes` + 1) bytes are held, and each piece is longer than any good line: a
decoder rejects it by its size alone, even one that starts reading in the middle of the line after a restart, and no
piece can pass for a record. `Continuations` tells the pieces after the first from new lines, so that one line is one
Problem.

Sample: `one line\n` `another line\n` `the last line, not ended`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence.batch import EventClass, Frames, Problem, ProblemCode
from ringfence.schema import frame_schema

MAX_LINE_BYTES = 256 * 1024  # far above what syslog and EVE write, low enough to hold one per connection
MAX_STREAMS = 1024  # connections of one listener

Boundaries = npt.NDArray[np.int64]
NO_FRAMES: Boundaries = np.zeros(1, np.int64)
_NEWLINE = 10


def first_line(first: bytes) -> bytes:
    """The first line of a file that is not blank."""
    return next((line for line in first.split(b"\n", 20)[:20] if line.strip()), b"")


def pieces(start: int, end: int, piece_bytes: int, available: int) -> Boundaries:
    """Where an over-long frame is cut: every `piece_bytes`, but so that its last piece is no shorter than that.

    `end` may lie beyond the bytes that are `available`; no cut does.
    """
    return np.arange(start + piece_bytes, min(end - piece_bytes, available) + 1, piece_bytes, dtype=np.int64)


class LineFramer:
    """Cuts at newlines, found by numpy; no work per line."""

    head_bytes = 0

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._piece = max_bytes + 1
        self._rest = bytearray()

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the lines that are complete, and the pieces of one that is too long to wait for."""
        held = len(self._rest)
        end = data.rfind(b"\n") + 1
        if not end and held + len(data) < 2 * self._piece:
            self._rest += data
            return b"", NO_FRAMES
        if held:
            data = bytes(self._rest) + data
            end = end and end + held
        bounds = self._bounds(data, end)
        end = int(bounds[-1])
        self._rest = bytearray(data[end:])
        return data[:end], bounds

    def finish(self) -> tuple[bytes, Boundaries]:
        """Return the last line if it has no newline."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest, np.array([0, len(rest)], np.int64) if rest else NO_FRAMES

    def _bounds(self, data: bytes, end: int) -> Boundaries:
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8, end) == _NEWLINE)
        bounds = np.empty(len(newlines) + 1, np.int64)
        bounds[0] = 0
        np.add(newlines, 1, out=bounds[1:])
        sizes = np.diff(bounds, append=len(data))
        if sizes.max() < 2 * self._piece:
            return bounds
        long = np.flatnonzero(sizes >= 2 * self._piece)
        cuts = [pieces(int(bounds[line]), int(bounds[line] + sizes[line]), self._piece, len(data)) for line in long]
        return np.sort(np.concatenate([bounds, *cuts]))


class Continuations:
    """Tells which frames go on with an over-long line that an earlier frame of the same stream began.

    A stream is forgotten when MAX_STREAMS others are inside such a line too: the rest of its line counts as a new one,
    and is as surely too long.
    """

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._inside: dict[int, None] = {}

    def of(self, frames: Frames) -> frozenset[int]:
        """The rows of such frames. To be asked for each block of the stream, in order."""
        sizes = np.diff(frames.offsets)
        if not self._inside and not (sizes > self._max_bytes).any():
            return frozenset()
        found = []
        for row, size in enumerate(sizes.tolist()):
            stream = frames.sources[frames.source[row]].identity
            began_before = stream in self._inside
            self._inside.pop(stream, None)
            if size > self._max_bytes:
                if began_before:
                    found.append(row)
                if frames.data[frames.offsets[row + 1] - 1] != _NEWLINE:
                    self._remember(stream)
        return frozenset(found)

    def _remember(self, stream: int) -> None:
        if len(self._inside) >= MAX_STREAMS:
            del self._inside[next(iter(self._inside))]
        self._inside[stream] = None


class Lines:
    """One call of feed() of a decoder of text lines: their texts, and what became of those that are no row.

    Octets that are no UTF-8 become U+FFFD in the text. An over-long line and the rest of one have the text None and are
    accounted for already.
    """

    def __init__(self, frames: Frames, continuations: frozenset[int], max_bytes: int = MAX_LINE_BYTES) -> None:
        self.frames = frames
        self.problems: list[Problem] = []
        self.filtered: dict[str, int] = {}
        bounds = frames.offsets.tolist()
        self._is_ascii = frames.data.isascii()
        if self._is_ascii:
            whole = frames.data.decode("ascii")
            self.texts: list[str | None] = [whole[a:b].rstrip("\r\n") for a, b in pairwise(bounds)]
        else:
            self.texts = [part.decode("utf-8", "replace").rstrip("\r\n") for part in frames.slices()]
        for row in np.flatnonzero(np.diff(frames.offsets) > max_bytes).tolist():
            self.texts[row] = None
            if row in continuations:
                self.leave_out("too_large_rest")
            else:
                self.refuse(row, ProblemCode.TOO_LARGE, f"the line is longer than {max_bytes} bytes", max_bytes)

    def refuse(self, row: int, code: ProblemCode, detail: str, offset: int = 0) -> None:
        """Make the line a Problem."""
        frames = self.frames
        source = frames.sources[frames.source[row]]
        self.problems.append(Problem(code, detail, row, offset, None, frames.frame(row), source, int(frames.positions[row])))

    def leave_out(self, reason: str) -> None:
        """Count a line that is left out on purpose."""
        self.filtered[reason] = self.filtered.get(reason, 0) + 1

    def columns(self, rows: Sequence[int], observer: str | None, keep_original: bool) -> dict[str, pl.Series]:
        """The columns that do not depend on what a line says."""
        frames = self.frames
        source = frames.source[rows]
        received = pl.Series(frames.received_us[rows])
        identities = np.array([source.identity for source in frames.sources], np.uint64)
        names = pl.Series([observer or source.name for source in frames.sources], dtype=pl.String)
        lossy = np.array([index in frames.lossy for index in range(len(frames.sources))], np.bool_)
        columns = {
            "event.created": received.set(received == 0, None),
            "ringfence.event.source": pl.Series(identities[source]),
            "ringfence.event.position": pl.Series(frames.positions[rows]),
            "observer.name": names.gather(source),
            "ringfence.evidence.lossy": pl.Series(lossy[source]),
        }
        if keep_original:
            columns["event.original"] = self._originals(rows)
        return columns

    def _originals(self, rows: Sequence[int]) -> pl.Series:
        if self._is_ascii:
            return pl.Series([self.texts[row] for row in rows], dtype=pl.String).cast(pl.Binary)
        return pl.Series([self.frames.frame(row).rstrip(b"\r\n") for row in rows], dtype=pl.Binary)


def spread(
    event_class: EventClass, names: Sequence[str], keys: Sequence[Any], read: Callable[[Any], tuple[Any, ...]]
) -> dict[str, pl.Series]:
    """Columns whose values are read for each key that differs from the others, then spread over the rows."""
    distinct = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    parts = zip(*map(read, distinct), strict=True)
    places = pl.Series(np.fromiter(map(distinct.__getitem__, keys), np.uint32, len(keys)))
    types = frame_schema(event_class)
    return {name: pl.Series(values, dtype=types[name])[places] for name, values in zip(names, parts, strict=True)}
