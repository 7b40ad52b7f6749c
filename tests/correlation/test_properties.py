"""No batch, order of arrival within the lateness, snapshot or crash changes a detection; and a slow reading agrees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import itemgetter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.correlation.state import Limits
from tests.correlation.streams import LATENESS, SECOND, Event, correlations, placed, run, slow

EXAMPLES = 300 if os.environ.get("RINGFENCE_LONG") else 10
BODIES = {
    "event_count": "type: event_count, rules: [a, b], group-by: [user], timespan: 10s, condition: {gte: 3}",
    "event_count of all": "type: event_count, rules: a, timespan: 10s, condition: {gt: 2}",
    "event_count, suppressed": "15s|type: event_count, rules: [a, b], group-by: [user], timespan: 10s, condition: {gte: 2}",
    "event_count gte 1": "type: event_count, rules: a, group-by: [user], timespan: 10s, condition: {gte: 1}",
    "event_count lte": "type: event_count, rules: [a, b], group-by: [user], timespan: 10s, condition: {lte: 2}",
    "event_count eq, suppressed": "1m|type: event_count, rules: [a, b], group-by: [user], timespan: 10s, condition: {eq: 2}",
    "event_count neq": "type: event_count, rules: a, group-by: [user], timespan: 10s, condition: {neq: 2}",
    "value_count": "type: value_count, rules: [a, b, c], group-by: [user], timespan: 20s, condition: {gte: 3, field: value}",
    "value_count lt": "type: value_count, rules: [a, b, c], group-by: [user], timespan: 20s, condition: {lt: 2, field: value}",
    "value_sum": "type: value_sum, rules: [a, b], group-by: [user], timespan: 10s, condition: {gt: 6, field: value}",
    "value_avg": "type: value_avg, rules: [a, b], group-by: [user], timespan: 10s, condition: {gte: 2, field: value}",
    "value_avg lt": "type: value_avg, rules: [a, b], group-by: [user], timespan: 10s, condition: {lt: 2, field: value}",
    "value_percentile": "type: value_percentile, rules: [a], group-by: [user], timespan: 20s, condition: {gt: 2, field: value, percentile: 90}",
    "value_median": "type: value_median, rules: [a], group-by: [user], timespan: 20s, condition: {gte: 2, field: value}",
    "temporal": "type: temporal, rules: [a, b, c], group-by: [user], timespan: 10s",
    "temporal of two": "type: temporal, rules: [a, b, c], group-by: [user], timespan: 10s, condition: {gte: 2}",
    "temporal, string": "type: temporal, group-by: [user], timespan: 10s, condition: a and (b or c)",
    "temporal, not": "type: temporal, group-by: [user], timespan: 10s, condition: a and not b",
    "temporal_ordered": "type: temporal_ordered, rules: [b, a, c], group-by: [user], timespan: 15s",
    "temporal_ordered of two": "type: temporal_ordered, rules: [c, b, a], group-by: [user], timespan: 15s, condition: {gte: 2}",
    "temporal_ordered, not": "type: temporal_ordered, group-by: [user], timespan: 15s, condition: a and b and not c",
}  # fmt: skip
CHAIN = "type: event_count, rules: c0, group-by: [user], timespan: 1m, condition: {gte: 2}"
ORDER = "type: temporal_ordered, rules: [a, c0], group-by: [user], timespan: 1m"


@st.composite
def streams(draw: st.DrawFn, jitter_us: int = LATENESS - 1, users: int = 3) -> Sequence[Event]:
    """Events in the order of their arrival, each up to `jitter_us` after its time."""
    dice = Random(draw(st.integers(0, 1 << 32)))  # drawn lists are too short and too much alike to meet conditions
    secs, arrivals, events = 1_000.0, [], []
    for _ in range(draw(st.integers(0, 80))):
        secs += dice.choices([0, 0.5, 1, 2, 4, 15], [2, 3, 3, 2, 1, 0.5])[0]
        user = None if dice.random() < 0.05 else f"u{dice.randrange(users)}"
        value = None if dice.random() < 0.05 else dice.randint(1, 4)
        events.append(Event(secs, dice.choice("abc"), user, value, dice.randint(1, 3)))
        arrivals.append(secs * SECOND + dice.randint(0, jitter_us))
    return [event for _, event in sorted(zip(arrivals, placed(events), strict=True), key=itemgetter(0))]


CUTS = st.lists(st.integers(0, 80), max_size=12)


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@settings(max_examples=EXAMPLES, deadline=None)
@given(events=streams(), cuts=CUTS, data=st.data())
def test_a_slow_reading_of_all_events_agrees(body: str, events: Sequence[Event], cuts: list[int], data: st.DataObject) -> None:
    loaded = correlations(body, CHAIN if "group-by" in body else BODIES["temporal"])
    restores = data.draw(st.lists(st.sampled_from([0, *cuts]), max_size=3))

    found = run(loaded, events, cuts, restores)

    assert sorted(found.told(), key=repr) == slow(loaded, events)


@settings(max_examples=EXAMPLES, deadline=None)
@given(events=streams(), cuts=CUTS)
def test_batches_and_arrival_change_no_byte(events: Sequence[Event], cuts: list[int]) -> None:
    loaded = correlations(*BODIES.values(), CHAIN, ORDER)
    in_time = sorted(events, key=lambda event: event.time_us)

    once = run(loaded, in_time)

    assert run(loaded, events, cuts, cuts[:2]).detections == once.detections
    assert run(loaded, in_time, range(len(events))).detections == once.detections


@settings(max_examples=EXAMPLES, deadline=None)
@given(events=streams(jitter_us=5 * LATENESS), cuts=CUTS)
def test_batches_change_nothing_for_late_events(events: Sequence[Event], cuts: list[int]) -> None:
    loaded = correlations(*BODIES.values(), CHAIN)
    once, cut = run(loaded, events), run(loaded, events, cuts, cuts[:2])

    assert cut.detections == once.detections
    assert cut.drops == once.drops


@settings(max_examples=EXAMPLES, deadline=None)
@given(events=streams(jitter_us=2 * LATENESS, users=8), cuts=CUTS)
def test_batches_change_nothing_when_groups_make_room(events: Sequence[Event], cuts: list[int]) -> None:
    loaded, limits = correlations(*BODIES.values(), CHAIN), Limits(groups=3, entries=3)
    once, cut = run(loaded, events, limits=limits), run(loaded, events, cuts, cuts[:2], limits)

    assert cut.detections == once.detections
    assert cut.drops == once.drops
