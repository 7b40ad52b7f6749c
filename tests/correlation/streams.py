"""Streams of matched events, a run of them through the correlator, and a slow correlator that keeps everything."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from ringfence.correlation.detections import Detection
from ringfence.correlation.engine import Correlator
from ringfence.correlation.matches import Matches
from ringfence.correlation.state import Limits
from ringfence.correlation.watermarks import END, Watermarks
from ringfence.correlation.windows import holds
from ringfence.sigma import rules
from ringfence.sigma.correlations import Correlation, Kind, Threshold

SECOND = 1_000_000
LATENESS = 5 * SECOND
BASE = """title: A
name: a
logsource: {product: linux}
detection: {s: {x: 1}, condition: s}
---
title: B
name: b
logsource: {product: linux}
detection: {s: {x: 2}, condition: s}
---
title: C
name: c
logsource: {product: linux}
detection: {s: {x: 3}, condition: s}
"""


@cache
def correlations(*bodies: str) -> Sequence[Correlation]:
    """The correlations of some bodies, named c0, c1, ..."""
    documents = (f"---\ntitle: T{n}\nname: c{n}\n{_document(body)}\n" for n, body in enumerate(bodies))
    loaded = rules.loads(BASE + "".join(documents), "r.yml")
    assert not loaded.refusals, loaded.refusals[0]
    return loaded.correlations


def _document(body: str) -> str:
    suppress, bar, rest = body.rpartition("|")
    return (f"ringfence.suppress: {suppress}\n" if bar else "") + f"correlation: {{{rest}}}"


@dataclass(frozen=True)
class Event:
    """One matched event, times in seconds."""

    secs: float
    rule: str = "a"
    user: str | None = "u"
    value: Any = None
    source: int = 1
    position: int = 0

    @property
    def time_us(self) -> int:
        return int(self.secs * SECOND)


def placed(events: Sequence[Event]) -> list[Event]:
    """The same events, each with a position of its own."""
    return [Event(e.secs, e.rule, e.user, e.value, e.source, place) for place, e in enumerate(events)]


def matches(events: Sequence[Event], horizon_us: Sequence[int]) -> dict[str, Matches]:
    """By rule, as a processor gives them."""
    found = {}
    for rule in {event.rule for event in events}:
        rows = [row for row, event in enumerate(events) if event.rule == rule]
        own = [events[row] for row in rows]
        found[rule] = Matches(
            np.array([event.time_us for event in own], np.int64),
            np.array([horizon_us[row] for row in rows], np.int64),
            np.array([event.source for event in own], np.uint64),
            np.array([event.position for event in own], np.uint64),
            {"user": pl.Series([e.user for e in own], dtype=pl.String), "value": pl.Series([e.value for e in own])},
        )
    return found


@dataclass
class Run:
    """What came of a stream."""

    detections: list[Detection] = field(default_factory=list)
    drops: dict[str, Counter[str]] = field(default_factory=dict)

    def told(self) -> list[tuple[Any, ...]]:
        return [told(each) for each in self.detections]


def told(each: Detection) -> tuple[Any, ...]:
    group = tuple(value for _, value in each.group)
    return each.rule, each.time_us, group, each.count, round(each.measure, 9), each.first_us, each.last_us


def run(
    given: Sequence[Correlation],
    events: Sequence[Event],
    cuts: Sequence[int] = (),
    restores: Sequence[int] = (),
    limits: Limits | None = None,
) -> Run:
    """Feed a stream in batches that end at `cuts`; after those in `restores` state goes through a snapshot."""
    marks, correlator, result = Watermarks(LATENESS, 60 * SECOND), Correlator(given, limits), Run()
    edges = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    drops: dict[str, Counter[str]] = {}
    for start, stop in itertools.pairwise(edges):
        batch = events[start:stop]
        source = np.array([event.source for event in batch], np.uint64)
        seen = marks.observe(source, np.array([event.time_us for event in batch], np.int64))
        result.detections += correlator.feed(matches(batch, seen.horizon_us.tolist()), marks.horizon_us)
        if start in restores:
            _add(drops, correlator)
            state, own = marks.snapshot(), correlator.snapshot()
            marks, correlator = Watermarks(LATENESS, 60 * SECOND), Correlator(given, limits)
            marks.restore(state)
            correlator.restore(own)
            assert not correlator.cleared
    result.detections += correlator.feed({}, END)
    _add(drops, correlator)
    result.drops = drops
    return result


def _add(drops: dict[str, Counter[str]], correlator: Correlator) -> None:
    for rule, counted in correlator.drops.items():
        drops[rule] = +(drops.get(rule, Counter()) + counted)


Entry = tuple[int, int, int, int, Any]


def slow(given: Sequence[Correlation], events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """The same of events that are none of them late, by reading every event of a group again each time."""
    made: dict[str, list[tuple[Any, ...]]] = {}
    for correlation in given:
        inputs: dict[str, list[Entry]] = {}
        for place, rule in enumerate(correlation.rules):
            for event in events:
                if event.rule == rule and _counts(correlation, event):
                    group = str(event.user) if correlation.group_by else ""
                    inputs.setdefault(group, []).append((event.time_us, event.source, event.position, place, event.value))
            for step, found in enumerate(made.get(rule, ())):
                inputs.setdefault("".join(found[2]), []).append((found[1], 0, step, place, None))
        made[correlation.id] = sorted(
            (
                detection
                for group, entries in inputs.items()
                for detection in _group(correlation, group, sorted(entries, key=lambda e: e[:4]))
            ),
            key=lambda found: (found[1], found[2]),
        )
    return sorted((found for all_found in made.values() for found in all_found), key=repr)


def _counts(correlation: Correlation, event: Event) -> bool:
    has_group = event.user is not None or not correlation.group_by
    return has_group and (event.value is not None or not correlation.inputs[0].values)


def _group(correlation: Correlation, group: str, entries: list[Entry]) -> Iterator[tuple[Any, ...]]:
    named = (group,) if correlation.group_by else ()
    fired: int | None = None
    for time_us, window in _ends(correlation, entries) if correlation.waits_for_end else _slides(correlation, entries):
        is_true, kept, measure = _judged(correlation, window)
        if not correlation.waits_for_end and not correlation.suppress_us and (not is_true or len(window) == 1):
            fired = None
        if is_true and (
            fired is None
            or (correlation.waits_for_end and not correlation.suppress_us)
            or (correlation.suppress_us and time_us - fired >= correlation.suppress_us)
        ):
            fired = time_us
            yield correlation.id, time_us, named, len(kept), round(float(measure), 9), kept[0][0], kept[-1][0]


def _slides(correlation: Correlation, entries: list[Entry]) -> Iterator[tuple[int, list[Entry]]]:
    for place, entry in enumerate(entries):
        yield entry[0], [e for e in entries[: place + 1] if e[0] > entry[0] - correlation.span_us]


def _ends(correlation: Correlation, entries: list[Entry]) -> Iterator[tuple[int, list[Entry]]]:
    while entries:
        end = entries[0][0] + correlation.span_us
        yield end, [entry for entry in entries if entry[0] < end]
        entries = [entry for entry in entries if entry[0] >= end]


def _judged(correlation: Correlation, window: list[Entry]) -> tuple[bool, list[Entry], float]:
    kept, measure = window, 0.0
    numbers = [entry[4] for entry in window]
    condition = correlation.condition
    match correlation.kind:
        case Kind.EVENT_COUNT:
            measure = len(window)
        case Kind.VALUE_COUNT:
            kept = sorted({str(entry[4]): entry for entry in window}.values(), key=lambda e: e[:4])
            measure = len(kept)
        case Kind.VALUE_SUM:
            measure = math.fsum(numbers)
        case Kind.VALUE_AVG:
            measure = math.fsum(numbers) / len(numbers)
        case Kind.VALUE_PERCENTILE | Kind.VALUE_MEDIAN:
            measure = float(np.percentile(numbers, correlation.percentile or 0))
        case Kind.TEMPORAL:
            kept = sorted({entry[3]: entry for entry in window}.values(), key=lambda e: e[:4])
            seen = sum(1 << entry[3] for entry in kept)
            measure = len(kept) if isinstance(condition, Threshold) else float(holds(condition, seen, seen))
        case Kind.TEMPORAL_ORDERED:
            return _ordered(correlation, window)
    if isinstance(condition, Threshold):
        return _compares(measure, condition), kept, measure
    return measure > 0, kept, measure


def _ordered(correlation: Correlation, window: list[Entry]) -> tuple[bool, list[Entry], float]:
    condition = correlation.condition
    seen = sum(1 << place for place in {entry[3] for entry in window})
    chains: dict[int, list[Entry]] = {}
    for size in range(1, len(correlation.inputs) + 1):
        for chain in itertools.combinations(window, size):
            if all(one[3] < other[3] for one, other in itertools.pairwise(chain)):
                mask = sum(1 << entry[3] for entry in chain)
                best = chains.get(mask)
                chains[mask] = list(chain) if best is None or _rank(chain) > _rank(best) else best
    ranked = sorted(chains, key=lambda mask: (-mask.bit_count(), mask))
    if isinstance(condition, Threshold):
        size = ranked[0].bit_count()
        return _compares(size, condition), chains[ranked[0]], size
    found = next((mask for mask in ranked if holds(condition, mask, seen)), None)
    return found is not None, chains[found] if found is not None else window, float(found is not None)


def _rank(chain: Sequence[Entry]) -> tuple[Any, ...]:
    """Of the chains of the same rules the one that starts last, then the one that goes on first."""
    return chain[0][:4], *(tuple(-number for number in entry[:4]) for entry in reversed(chain[1:]))


def _compares(measure: float, threshold: Threshold) -> bool:
    value = threshold.value
    return {
        "gt": measure > value, "gte": measure >= value, "lt": measure < value,
        "lte": measure <= value, "eq": measure == value, "neq": measure != value,
    }[threshold.operator]  # fmt: skip
