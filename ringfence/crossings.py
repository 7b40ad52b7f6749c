"""Remembers which crossings were reported lately and by whom, so that a second observer of one makes no second boundary test.

A crossing is named by a number of 64 bits (`processors/boundaries.py` makes it of initiator, responder, protocol, ports, segments,
outcome and verdict) and takes place when it began. The first observer to report it speaks for it: what it reports again stands for
itself, as before; what others report within WINDOW_S of it is the same crossing. All times are event times, so a replay
gives the same result whenever it runs.

The memory is a table of slots, one crossing in each, as large as it will ever be. A number that falls into a taken slot replaces
what is there; if that was younger than the window, it is counted in `forgotten`, and another observer of it would make a test of
its own. Time is cut into stretches of two windows, each with a slot of its own for a crossing, so records may come in any order of
time, one file after the other; a record looks into its own stretch and into the nearer one beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

WINDOW_S = 60
SLOTS_LOG2 = 20
MAX_KEPT = 1_024
"""As many crossings, the latest, are stored with the offsets, for the next start."""
MAX_ROUNDS = 8
"""How often one crossing is told in one batch before further reports of it are only compared with what was known by then."""

_STRETCH_S = 2 * WINDOW_S
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: Knuth, TAOCP 6.4
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SECONDS = np.uint64(0xFFFFFFFF)
_WHO = ~_SECONDS


class Crossings:
    """The memory of one worker: for each slot the number of a crossing in its stretch, and who told of it first and when.

    Both are 8 bytes: the upper half of the observer's number beside seconds since the epoch, modulo 2^32.
    """

    def __init__(self, slots_log2: int = SLOTS_LOG2) -> None:
        self._table: Keys = np.zeros((1 << slots_log2, 2), np.uint64)
        self._pairs = self._table.view(np.complex128)[:, 0]  # a slot as one value: numpy writes rows three times slower
        self._shift = np.uint64(64 - slots_log2)
        self._latest: Ints = np.zeros(0, np.int64)
        self.forgotten = 0

    def merged(self, key: Keys, observer: Keys, at_us: Ints) -> Mask:
        """Which of these reports, in order, tell of a crossing that another observer reported before."""
        at_s = at_us // 1_000_000
        told_twice = _twice(key)
        if not len(told_twice):
            return self._look(key, observer, at_s)
        rank = _rank(key, told_twice)
        found = np.zeros(len(key), np.bool_)
        for number in range(int(rank.max()) + 1):
            rows = np.flatnonzero(rank == number)
            found[rows] = self._look(key[rows], observer[rows], at_s[rows])
        return found

    def _look(self, key: Keys, observer: Keys, at_s: Ints) -> Mask:
        """The same for reports of which no two tell of one crossing; remembers what is new."""
        stretch = at_s // _STRETCH_S
        own = _named(key, stretch)
        slot = (own >> self._shift).astype(np.int64)
        there = np.take(self._table, slot, axis=0)
        is_near = _near(there[:, 1], at_s)
        is_known = (there[:, 0] == own) & is_near
        who = observer & _WHO
        speaker = np.where(is_known, there[:, 1] & _WHO, who) if is_known.any() else who
        beside = _named(key, np.where(at_s - stretch * _STRETCH_S < WINDOW_S, stretch - 1, stretch + 1))
        other = np.take(self._table, (beside >> self._shift).astype(np.int64), axis=0)
        is_beside = other[:, 0] == beside
        if is_beside.any():
            is_beside &= _near(other[:, 1], at_s) & ~is_known
            speaker = np.where(is_beside, other[:, 1] & _WHO, speaker)
        new = ~is_known
        if new.any():
            self.forgotten += int(np.count_nonzero(new & is_near & (there[:, 0] != 0)))
            told = np.empty((len(key), 2), np.uint64)
            told[:, 0], told[:, 1] = own, speaker | (at_s.astype(np.uint64) & _SECONDS)
            self._remember(slot, told) if new.all() else self._remember(slot[new], told[new])
        return _is(speaker != who)

    def _remember(self, slot: Ints, told: Keys) -> None:
        self._pairs[slot] = told.view(np.complex128)[:, 0]
        self._latest = np.concatenate((self._latest, slot[-MAX_KEPT:]))[-MAX_KEPT:]

    def snapshot(self) -> bytes:
        """The latest crossings."""
        return np.take(self._table, self._latest, axis=0).tobytes()

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew."""
        told = np.frombuffer(state[: len(state) & ~15], np.uint64).reshape(-1, 2)
        self._remember((told[:, 0] >> self._shift).astype(np.int64), told)


def _near(told: Keys, at_s: Ints) -> Mask:
    """Within the window, whichever is earlier."""
    return _is((told - at_s.astype(np.uint64) + np.uint64(WINDOW_S)) & _SECONDS <= np.uint64(2 * WINDOW_S))


def _twice(key: Keys) -> Keys:
    """The numbers that stand there more than once."""
    ordered = np.sort(key)
    again: Keys = ordered[1:][ordered[1:] == ordered[:-1]]
    return again


def _rank(key: Keys, told_twice: Keys) -> Ints:
    """How often the same number stands before each one, MAX_ROUNDS at most."""
    rows = np.flatnonzero(np.isin(key, told_twice))
    rows = rows[np.argsort(key[rows], kind="stable")]
    place = np.arange(len(rows))
    starts = np.ones(len(rows), np.bool_)
    starts[1:] = key[rows[1:]] != key[rows[:-1]]
    rank = np.zeros(len(key), np.int64)
    rank[rows] = np.minimum(place - np.maximum.accumulate(np.where(starts, place, 0)), MAX_ROUNDS)
    return rank


def _named(key: Keys, stretch: Ints) -> Keys:
    """A crossing in a stretch of time."""
    return (key ^ (stretch.astype(np.uint64) * _MIX)) * _SPREAD


def mixed(*parts: npt.NDArray[Any]) -> Keys:
    """One number of 64 bits out of columns of integers."""
    key = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        key += part.astype(np.uint64)
        key *= _SPREAD
        key ^= key >> np.uint64(32)
    return key


def _is(condition: Any) -> Mask:
    """numpy types comparisons as Any."""
    mask: Mask = condition
    return mask
