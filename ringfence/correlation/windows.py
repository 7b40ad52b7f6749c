"""What is in the window of one group, and what is measured of it.

Entries come in the order of their turn. A late one has an earlier time than those before it, and is put at its place.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from ringfence.correlation.detections import Entry
from ringfence.sigma.correlations import Absent, AllOf, AnyOf, Correlation, Expression, Kind, Seen, Threshold

_ORDER = itemgetter(0, 1, 2, 3)
_VALUE = itemgetter(4)


@dataclass(frozen=True, slots=True)
class Bound:
    """How many entries a window may hold; the oldest beyond are left out and counted."""

    entries: int
    drops: Counter[str]


class Window(Protocol):
    """The entries that count."""

    def __len__(self) -> int:
        """How many entries are held."""
        ...

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        """Leave out what is not after `low_us`, and take one more event; returns what the condition is about."""
        ...

    def measure(self) -> float:
        """What the condition is about."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Those that make the condition hold, in the order of their time; never none after an event."""
        ...

    def dump(self) -> Any:
        """For msgpack; `load` takes it."""

    def load(self, dumped: Any) -> None:
        """Go on from a dump."""


class _Events:
    """Every event; the measure is their number."""

    __slots__ = ("_bound", "_entries")

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        entries = self._entries
        while entries and entries[0][0] <= low_us:
            entries.popleft()
        if is_late:
            insort(entries, entry, key=_ORDER)
        else:
            entries.append(entry)
        if len(entries) > self._bound.entries:
            entries.popleft()
            self._bound.drops["entries"] += 1
        return len(entries)

    def measure(self) -> float:
        return len(self._entries)

    def entries(self) -> Sequence[Entry]:
        return list(self._entries)

    def dump(self) -> Any:
        return list(self._entries)

    def load(self, dumped: Any) -> None:
        self._entries.extend(map(tuple, dumped))


class _Numbers(_Events):
    """Every event with a number; the measure is made of all of them."""

    __slots__ = ("_of",)

    def __init__(self, bound: Bound, of: Callable[[list[float]], float]) -> None:
        super().__init__(bound)
        self._of = of

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        super().slide(entry, low_us, is_late)
        return self.measure()

    def measure(self) -> float:
        return self._of(list(map(_VALUE, self._entries)))


def percentile(values: list[float], share: float) -> float:
    """Between the two nearest values in proportion, as numpy's `linear`; `share` in percent."""
    values.sort()
    place = (len(values) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


class _Latest:
    """The latest event of each value, or of each rule; the measure is how many there are. Exact: no older one is needed."""

    __slots__ = ("_bound", "_by", "_entries", "_none_before_us")

    def __init__(self, bound: Bound, by: int) -> None:
        self._bound = bound
        self._by = by  # which part of an Entry
        self._none_before_us = -(1 << 62)  # no entry is older; may be too low
        self._entries: OrderedDict[Any, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        if self._none_before_us <= low_us:
            self._expire(low_us)
        entries = self._entries
        if is_late:
            self._put_back(entry)
        else:
            name = entry[self._by]
            entries[name] = entry
            entries.move_to_end(name)
        if len(self._entries) > self._bound.entries:
            self._entries.popitem(last=False)
            self._bound.drops["entries"] += 1
        return len(self._entries)

    def _expire(self, low_us: int) -> None:
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            self._none_before_us = entry[0]
            if entry[0] > low_us:
                return
            del self._entries[name]
        self._none_before_us = low_us

    def _put_back(self, entry: Entry) -> None:
        self._none_before_us = min(self._none_before_us, entry[0])
        name = entry[self._by]
        before = self._entries.get(name)
        if before is None or before < entry:
            self._entries[name] = entry
            self._entries = OrderedDict(sorted(self._entries.items(), key=lambda item: _ORDER(item[1])))

    def measure(self) -> float:
        return len(self._entries)

    def entries(self) -> Sequence[Entry]:
        return list(self._entries.values())

    def mask(self) -> int:
        """The rules that were seen, one bit each by place."""
        return sum(1 << place for place in self._entries)

    def dump(self) -> Any:
        return list(self._entries.values())

    def load(self, dumped: Any) -> None:
        for entry in map(tuple, dumped):
            self._entries[entry[self._by]] = entry


class _Temporal(_Latest):
    """Which rules were seen, in any order. `condition` is about them."""

    __slots__ = ("_condition",)

    def __init__(self, bound: Bound, condition: Expression | Threshold) -> None:
        super().__init__(bound, 3)
        self._condition = condition

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        super().slide(entry, low_us, is_late)
        return self.measure()

    def measure(self) -> float:
        if isinstance(self._condition, Threshold):
            return len(self._entries)
        return float(holds(self._condition, self.mask(), self.mask()))


class _Ordered(_Temporal):
    """Which rules were seen, and chains of events that follow their order: of each set of rules the one that began last."""

    __slots__ = ("_chains",)

    def __init__(self, bound: Bound, condition: Expression | Threshold) -> None:
        super().__init__(bound, condition)
        self._chains: dict[int, tuple[Entry, ...]] = {}

    def slide(self, entry: Entry, low_us: int, is_late: bool) -> float:
        for mask in [mask for mask, chain in self._chains.items() if chain[0][0] <= low_us]:
            del self._chains[mask]
        own = 1 << entry[3]
        longer = [(mask | own, (*chain, entry)) for mask, chain in self._chains.items() if mask < own and chain[-1] < entry]
        for mask, chain in [(own, (entry,)), *longer]:
            before = self._chains.get(mask)
            if before is None or before[0] < chain[0]:
                self._chains[mask] = chain
        return super().slide(entry, low_us, is_late)

    def measure(self) -> float:
        if isinstance(self._condition, Threshold):
            return max((mask.bit_count() for mask in self._chains), default=0)
        return float(self._found() is not None)

    def entries(self) -> Sequence[Entry]:
        mask = self._found()
        return self._chains[mask] if mask is not None else super().entries()

    def _found(self) -> int | None:
        """The chain that makes it hold, the longest first."""
        condition, seen = self._condition, self.mask()
        for mask in sorted(self._chains, key=lambda mask: (-mask.bit_count(), mask)):
            if isinstance(condition, Threshold) or holds(condition, mask, seen):
                return mask
        return None

    def dump(self) -> Any:
        return [super().dump(), sorted(self._chains.items())]

    def load(self, dumped: Any) -> None:
        latest, chains = dumped
        super().load(latest)
        self._chains = {mask: tuple(map(tuple, chain)) for mask, chain in chains}


def holds(condition: Expression, chain: int, seen: int) -> bool:
    """Whether rules that must be there are in the chain, and those that must not be were not seen at all."""
    match condition:
        case Seen(place):
            return bool(chain >> place & 1)
        case AllOf(children):
            return all(holds(child, chain, seen) for child in children)
        case AnyOf(children):
            return any(holds(child, chain, seen) for child in children)
        case Absent(child):
            return not holds(child, seen, chain)


def window_for(correlation: Correlation, bound: Bound) -> Callable[[], Window]:
    """What makes an empty window of the kind that a correlation needs."""
    condition = correlation.condition
    match correlation.kind:
        case Kind.EVENT_COUNT:
            return lambda: _Events(bound)
        case Kind.VALUE_COUNT:
            return lambda: _Latest(bound, 4)
        case Kind.TEMPORAL:
            return lambda: _Temporal(bound, condition)
        case Kind.TEMPORAL_ORDERED:
            return lambda: _Ordered(bound, condition)
        case Kind.VALUE_SUM:
            return lambda: _Numbers(bound, math.fsum)
        case Kind.VALUE_AVG:
            return lambda: _Numbers(bound, lambda values: math.fsum(values) / len(values))
        case _:
            share = correlation.percentile if correlation.percentile is not None else 50.0
            return lambda: _Numbers(bound, lambda values: percentile(values, share))
