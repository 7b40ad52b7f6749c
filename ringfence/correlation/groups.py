"""Groups of one correlation by number. Beyond the limit, the group whose last event is the oldest makes room.

A number is never used again before `compact`. Whether a group that is over was removed or not makes no difference: it is
always older than one that is not, so it makes room first.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import repeat

import numpy as np
import numpy.typing as npt

from ringfence.correlation.matches import Integers

OVER = -(1 << 62)
_FIRST = 1 << 10


class Groups:
    """Numbers of keys, and the time of the last event of each. After `lifetime_us` without one, a group is over."""

    def __init__(self, limit: int, lifetime_us: int) -> None:
        self._limit = limit
        self._lifetime_us = lifetime_us
        self._numbers: dict[str, int] = {}
        self.keys: list[str] = []
        self._last = np.full(_FIRST, OVER, np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def last_us(self) -> Integers:
        """Time of the last event by number; OVER where the group made room."""
        return self._last[: len(self.keys)]

    def numbers(self, keys: Sequence[str], times: Integers) -> tuple[Integers, dict[int, int]]:
        """A number for each row, new groups included; and the groups that made room, with the row that needed it."""
        found = np.fromiter(map(self._numbers.get, keys, repeat(-1)), np.int64, len(keys))
        missing = np.flatnonzero(found < 0).tolist()
        if len(self._numbers) + len(missing) > self._limit:
            return self._pressed(keys, times)
        for row in missing:
            number = self._numbers.get(keys[row])
            found[row] = self._add(keys[row]) if number is None else number
        np.maximum.at(self._last, found, times)
        return found, {}

    def _add(self, key: str) -> int:
        number = len(self.keys)
        if number == len(self._last):
            self._last = np.concatenate([self._last, np.full(number, OVER, np.int64)])
        self._numbers[key] = number
        self.keys.append(key)
        return number

    def _pressed(self, keys: Sequence[str], times: Integers) -> tuple[Integers, dict[int, int]]:
        """The same row by row, since a group may make room before its next event comes."""
        numbers = np.fromiter(self._numbers.values(), np.int64, len(self._numbers))
        oldest = numbers[np.lexsort([numbers, self._last[numbers]])].tolist()[::-1]
        touched: dict[int, int] = {}
        heap: list[tuple[int, int]] = []
        found = np.empty(len(keys), np.int64)
        evicted: dict[int, int] = {}
        for row, (key, time) in enumerate(zip(keys, times.tolist(), strict=True)):
            number = self._numbers.get(key)
            if number is None:
                if len(self._numbers) >= self._limit:
                    victim = self._oldest(oldest, touched, heap)
                    del self._numbers[self.keys[victim]]
                    evicted[victim] = row
                number = self._add(key)
            last = max(touched.get(number, int(self._last[number])), time)
            touched[number] = last
            heappush(heap, (last, number))
            found[row] = number
        for number, last in touched.items():
            self._last[number] = last
        return found, evicted

    def _oldest(self, oldest: list[int], touched: dict[int, int], heap: list[tuple[int, int]]) -> int:
        while oldest and oldest[-1] in touched:
            oldest.pop()
        while heap and (touched[heap[0][1]] != heap[0][0] or self._numbers.get(self.keys[heap[0][1]]) != heap[0][1]):
            heappop(heap)
        if oldest and (not heap or (int(self._last[oldest[-1]]), oldest[-1]) < heap[0]):
            return oldest.pop()
        return heappop(heap)[1]

    def is_over(self, number: int, now_us: int) -> bool:
        """Whether nothing that the group had can still count."""
        return int(self._last[number]) + self._lifetime_us <= now_us

    def end(self, number: int) -> None:
        """The group made room, or is to be forgotten."""
        if self._numbers.get(self.keys[number]) == number:
            del self._numbers[self.keys[number]]
        self._last[number] = OVER

    def oldest(self, count: int) -> list[int]:
        """The groups whose last events are the oldest."""
        live = np.flatnonzero(self.last_us > OVER)
        chosen: list[int] = live[np.lexsort([live, self.last_us[live]])[:count]].tolist()
        return chosen

    def compact(self, now_us: int) -> Integers:
        """Forget groups that are over; returns the new number of each old one, or -1. The order stays."""
        lives = self._lives(now_us)
        self.restore([key for key, is_live in zip(self.keys, lives.tolist(), strict=True) if is_live], self.last_us[lives])
        return np.where(lives, np.cumsum(lives) - 1, -1)

    def share_over(self, now_us: int) -> float:
        """Which part of the numbers is of groups that are over."""
        return 1 - np.count_nonzero(self._lives(now_us)) / max(len(self.keys), 1)

    def _lives(self, now_us: int) -> npt.NDArray[np.bool_]:
        return (self.last_us > OVER) & (self.last_us + self._lifetime_us >= now_us)

    def restore(self, keys: list[str], last_us: Integers) -> None:
        """Hold these groups and no others."""
        self.keys = keys
        self._numbers = {key: number for number, key in enumerate(keys)}
        self._last = np.full(max(_FIRST, 2 * len(keys)), OVER, np.int64)
        self._last[: len(keys)] = last_us
