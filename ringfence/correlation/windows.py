"""What is in the window of one group, and what is measured of it.

Entries come in the order of their turn. A late one has an earlier time than those before it, and is put at its place.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Protocol

from ringfence.correlation.detections import Entry
from ringfence.sigma.correlations import Absent, AllOf, AnyOf, Correlation, Expression, Kind, Seen, Threshold

_ORDER = itemgetter(0, 1, 2, 3)
_VALUE = itemgetter(4)
_PLACE = itemgetter(3)


class Window(Protocol):
    """The entries that count."""

    def __len__(self) -> int:
        """How many entries are held."""
        ...

    def add(self, entry: Entry, is_late: bool) -> None:
        """One more event."""

    def expire(self, low_us: int) -> None:
        """Leave out what is not after this time."""

    def trim(self, limit: int) -> int:
        """Leave out the oldest beyond so many; returns how many."""
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

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, is_late: bool) -> None:
        if is_late:
            insort(self._entries, entry, key=_ORDER)
        else:
            self._entries.append(entry)

    def expire(self, low_us: int) -> None:
        entries = self._entries
        while entries and entries[0][0] <= low_us:
            entries.popleft()

    def trim(self, limit: int) -> int:
        over = max(len(self._entries) - limit, 0)
        for _ in range(over):
            self._entries.popleft()
        return over

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

    def __init__(self, of: Callable[[list[float]], float]) -> None:
        super().__init__()
        self._of = of

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

    def __init__(self, by: Callable[[Entry], Any]) -> None:
        self._by = by
        self._entries: OrderedDict[Any, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, is_late: bool) -> None:
        name = self._by(entry)
        if is_late:
            before = self._entries.get(name)
            if before is None or before < entry:
                self._entries[name] = entry
                self._entries = OrderedDict(sorted(self._entries.items(), key=lambda item: _ORDER(item[1])))
        else:
            self._entries[name] = entry
            self._entries.move_to_end(name)

    def expire(self, low_us: int) -> None:
        entries = self._entries
        while entries:
            name = next(iter(entries))
            if entries[name][0] > low_us:
                return
            del entries[name]

    def trim(self, limit: int) -> int:
        over = max(len(self._entries) - limit, 0)
        for _ in range(over):
            self._entries.popitem(last=False)
        return over

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
            self._entries[self._by(entry)] = entry


class _Temporal(_Latest):
    """Which rules were seen, in any order. `condition` is about them."""

    def __init__(self, condition: Expression | Threshold) -> None:
        super().__init__(_PLACE)
        self._condition = condition

    def measure(self) -> float:
        if isinstance(self._condition, Threshold):
            return len(self._entries)
        return float(holds(self._condition, self.mask(), self.mask()))


class _Ordered(_Temporal):
    """Which rules were seen, and chains of events that follow their order: of each set of rules the one that began last."""

    def __init__(self, condition: Expression | Threshold) -> None:
        super().__init__(condition)
        self._chains: dict[int, tuple[Entry, ...]] = {}

    def add(self, entry: Entry, is_late: bool) -> None:
        super().add(entry, is_late)
        own = 1 << entry[3]
        longer = [(mask | own, (*chain, entry)) for mask, chain in self._chains.items() if mask < own and chain[-1] < entry]
        for mask, chain in [(own, (entry,)), *longer]:
            before = self._chains.get(mask)
            if before is None or before[0] < chain[0]:
                self._chains[mask] = chain

    def expire(self, low_us: int) -> None:
        super().expire(low_us)
        for mask in [mask for mask, chain in self._chains.items() if chain[0][0] <= low_us]:
            del self._chains[mask]

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


def window_for(correlation: Correlation) -> Callable[[], Window]:
    """What makes an empty window of the kind that a correlation needs."""
    condition = correlation.condition
    match correlation.kind:
        case Kind.EVENT_COUNT:
            return _Events
        case Kind.VALUE_COUNT:
            return lambda: _Latest(_VALUE)
        case Kind.TEMPORAL:
            return lambda: _Temporal(condition)
        case Kind.TEMPORAL_ORDERED:
            return lambda: _Ordered(condition)
        case Kind.VALUE_SUM:
            return lambda: _Numbers(math.fsum)
        case Kind.VALUE_AVG:
            return lambda: _Numbers(lambda values: math.fsum(values) / len(values))
        case _:
            share = correlation.percentile if correlation.percentile is not None else 50.0
            return lambda: _Numbers(lambda values: percentile(values, share))
