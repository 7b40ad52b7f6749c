"""Follows the sequence numbers of exporters: how much was lost on the way, and which datagrams came just after a loss.

A number counts what its protocol says: flows (NetFlow v5), packets (NetFlow v9), data records (IPFIX), datagrams (sFlow).
A gap that REORDER_DATAGRAMS later datagrams did not fill is a loss. An exporter has restarted when its moment of boot
moved, or when its number fell further back than datagrams come late.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_EXPORTERS = 10_000  # (stream, exporter, engine); the one that was quiet longest is forgotten first
REORDER_DATAGRAMS = 32  # a gap that as many later datagrams did not fill is a loss
RESTART_MS = 5_000  # an exporter whose moment of boot moved by more has restarted

Key = tuple[int, str, Hashable]
"""Identity of the stream, exporter, and engine, source id, domain or agent inside it."""


@dataclass(slots=True)
class _Gap:
    """What is missing: numbers `start` up to `end`, first missed by the datagram in row `row` of a block."""

    start: int
    end: int
    block: int
    row: int
    age: int = 0


@dataclass(slots=True)
class _Engine:
    """Where one sequence stands; `expected` is None after a datagram whose count is not known."""

    expected: int | None
    booted_ms: int
    widest: int
    lost: int = 0
    gaps: list[_Gap] = field(default_factory=list)


class Sequences:
    """The sequences of many exporters. `widest` is how far one datagram may move a number; larger ones are learnt."""

    def __init__(self, widest: int) -> None:
        self.after_gap: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._widest = widest
        self._engines: OrderedDict[Key, _Engine] = OrderedDict()
        self._block = 0

    @property
    def lost(self) -> Mapping[str, int]:
        """What each remembered exporter sent and never came."""
        lost: dict[str, int] = {}
        for (_, exporter, _), engine in self._engines.items():
            lost[exporter] = lost.get(exporter, 0) + engine.lost
        return lost

    def begin(self, rows: int) -> None:
        """Start a block of this many datagrams; `after_gap` says of each whether it followed a gap that is still open."""
        self._block += 1
        self.after_gap = np.zeros(rows, np.bool_)

    def take(self, key: Key, row: int, sequence: int, count: int | None, booted_ms: int = 0) -> None:
        """Take the next datagram. `count` is how far it moves the number; None when that cannot be told."""
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines[key] = _Engine(sequence, booted_ms, self._widest)
            if len(self._engines) > MAX_EXPORTERS:
                self._engines.popitem(last=False)
        self._engines.move_to_end(key)
        if engine.expected is None or engine.expected == sequence:
            engine.expected = None if count is None else (sequence + count) & 0xFFFFFFFF
        else:
            self._jump(engine, engine.expected, sequence, count, booted_ms, row)
        engine.booted_ms = booted_ms
        if count is not None and count > engine.widest:
            engine.widest = count
        if engine.gaps:
            _grow_old(engine)

    def _jump(self, engine: _Engine, expected: int, sequence: int, count: int | None, booted_ms: int, row: int) -> None:
        """A datagram that is not the expected one: after a gap, late, sent twice, or the first one of a new life."""
        ahead = _signed(sequence - expected)
        if abs(_signed(booted_ms - engine.booted_ms)) > RESTART_MS or ahead < -REORDER_DATAGRAMS * engine.widest:
            engine.gaps.clear()
        elif ahead < 0:
            self._fill(engine, sequence, count or 0)
            return
        else:
            engine.gaps.append(_Gap(expected, sequence, self._block, row))
            self.after_gap[row] = True
        engine.expected = None if count is None else (sequence + count) & 0xFFFFFFFF

    def _fill(self, engine: _Engine, sequence: int, count: int) -> None:
        """A late datagram: take what it brings out of the gap that it belongs to."""
        for gap in engine.gaps:
            size, before = _signed(gap.end - gap.start), _signed(sequence - gap.start)
            if not 0 <= before < size:
                continue
            engine.gaps.remove(gap)
            end = min(before + count, size)
            if before:
                engine.gaps.append(_Gap(gap.start, sequence, gap.block, gap.row, gap.age))
            if end < size:
                engine.gaps.append(_Gap((gap.start + end) & 0xFFFFFFFF, gap.end, gap.block, gap.row, gap.age))
            if gap.block == self._block:
                self.after_gap[gap.row] = any((other.block, other.row) == (gap.block, gap.row) for other in engine.gaps)
            return


def _grow_old(engine: _Engine) -> None:
    """Count a gap as lost once REORDER_DATAGRAMS datagrams came after the one that showed it."""
    for gap in engine.gaps:
        gap.age += 1
    engine.lost += sum(_signed(gap.end - gap.start) for gap in engine.gaps if gap.age > REORDER_DATAGRAMS)
    engine.gaps = [gap for gap in engine.gaps if gap.age <= REORDER_DATAGRAMS]


def _signed(difference: int) -> int:
    """A difference of two counters of 32 bits that wrap."""
    return (difference + 0x80000000 & 0xFFFFFFFF) - 0x80000000
