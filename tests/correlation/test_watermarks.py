"""How far event time has come, per event, whatever the batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.correlation.watermarks import START, Watermarks


def observed(marks: Watermarks, *events: tuple[int, int], ceiling: int = 1 << 60) -> list[int]:
    source = np.array([source for source, _ in events], np.uint64)
    found: list[int] = marks.observe(source, np.array([time for _, time in events], np.int64), ceiling).horizon_us.tolist()
    return found


def test_the_mark_follows_the_slowest_source() -> None:
    marks = Watermarks(10, 1_000)

    assert observed(marks, (1, 100), (1, 150), (2, 120), (1, 200)) == [START, 90, 140, 140]
    assert observed(marks, (2, 190), (1, 210)) == [140, 180]


def test_a_source_that_is_far_behind_holds_nothing_up() -> None:
    marks = Watermarks(10, 100)
    observed(marks, (1, 100), (2, 110), (1, 205))

    assert marks.horizon_us == 100
    observed(marks, (1, 211))
    assert marks.horizon_us == 201


def test_the_mark_never_goes_back() -> None:
    marks = Watermarks(10, 1_000)
    observed(marks, (1, 500))

    assert observed(marks, (2, 100), (2, 200)) == [490, 490]


def test_a_time_far_ahead_counts_as_the_ceiling() -> None:
    marks = Watermarks(10, 1_000)
    found = marks.observe(np.array([1], np.uint64), np.array([10_000], np.int64), 600)

    assert (found.time_us.tolist(), marks.horizon_us, marks.clamped) == ([600], 590, 1)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 500)), max_size=40),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_batches_and_snapshots_change_no_mark(events: Sequence[tuple[int, int]], cuts: list[int]) -> None:
    whole = observed(Watermarks(10, 100), *events)
    marks, parts = Watermarks(10, 100), []
    edges = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    for start, stop in pairwise(edges):
        parts += observed(marks, *events[start:stop])
        state = marks.snapshot()
        marks = Watermarks(10, 100)
        marks.restore(state)

    assert parts == whole
