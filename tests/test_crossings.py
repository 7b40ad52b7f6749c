"""The memory of crossings: what one observer reports stands, what others report of it within the window is merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.crossings import MAX_KEPT, MAX_ROUNDS, WINDOW_S, Crossings, mixed

A, B, C = (number << 32 for number in (1, 2, 3))
NOON_S = 1_790_000_000 // (2 * WINDOW_S) * (2 * WINDOW_S)
"""The beginning of a stretch."""
Report = tuple[int, int, int]
"""Crossing, observer, seconds after noon."""


def told(crossings: Crossings, *reports: Report) -> list[bool]:
    """Which of the reports of one batch are merged."""
    key, observer, at_s = (np.array(part, np.int64) for part in zip(*reports, strict=True))
    merged: list[bool] = crossings.merged(mixed(key), observer.astype(np.uint64), (at_s + NOON_S) * 1_000_000).tolist()
    return merged


def one_by_one(crossings: Crossings, *reports: Report) -> list[bool]:
    return [is_merged for report in reports for is_merged in told(crossings, report)]


def as_written(reports: Sequence[Report]) -> list[bool]:
    """The rule, one report at a time, with a memory without end."""
    memory: dict[tuple[int, int], tuple[int, int]] = {}
    found = []
    for key, observer, at_s in reports:
        stretch, within = divmod(at_s, 2 * WINDOW_S)
        speaker, is_known = observer, False
        for place in (stretch, stretch - 1 if within < WINDOW_S else stretch + 1):
            first, then_s = memory.get((key, place), (observer, 10**9))
            if abs(then_s - at_s) <= WINDOW_S:
                speaker, is_known = first, place == stretch
                break
        if not is_known:
            memory[key, stretch] = (speaker, at_s)
        found.append(speaker != observer)
    return found


@pytest.mark.parametrize("how", [told, one_by_one])
def test_what_a_second_observer_reports_is_merged(how: Callable[..., list[bool]]) -> None:
    assert how(Crossings(), (1, A, 0), (1, B, 1), (1, C, 2), (2, B, 3)) == [False, True, True, False]


@pytest.mark.parametrize("how", [told, one_by_one])
def test_what_the_first_observer_repeats_stands_for_itself(how: Callable[..., list[bool]]) -> None:
    assert how(Crossings(), (1, A, 0), (1, A, 1), (1, B, 1), (1, B, 2), (1, A, 3)) == [False, False, True, True, False]


@pytest.mark.parametrize("start", [0, 1, WINDOW_S - 1, WINDOW_S, 2 * WINDOW_S - 1])
@pytest.mark.parametrize(
    ("later", "is_merged"), [(0, True), (WINDOW_S, True), (WINDOW_S + 1, False), (-WINDOW_S, True), (-WINDOW_S - 1, False)]
)
def test_the_window_is_as_long_wherever_it_begins(start: int, later: int, is_merged: bool) -> None:
    assert told(Crossings(), (1, A, start), (1, B, start + later)) == [False, is_merged]


def test_files_one_after_the_other_are_merged_like_streams_side_by_side() -> None:
    crossings = Crossings()
    hours = [hour * 3600 for hour in range(5)]

    assert told(crossings, *[(1, A, at_s) for at_s in hours]) == [False] * 5
    assert told(crossings, *[(1, B, at_s + 2) for at_s in hours]) == [True] * 5


def test_who_spoke_first_speaks_across_the_end_of_a_stretch() -> None:
    end = 2 * WINDOW_S

    assert told(Crossings(), (1, A, end - 1), (1, B, end), (1, A, end + 5), (1, C, end + 6)) == [False, True, False, True]


times = st.one_of(st.integers(0, 6 * WINDOW_S), st.sampled_from([2 * WINDOW_S, 4 * WINDOW_S]))
reports = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([A, B, C]), times), min_size=1, max_size=24)


@given(reports, st.integers(1, MAX_ROUNDS))
def test_the_rule_holds_however_reports_are_batched(found: list[Report], size: int) -> None:
    crossings = Crossings()

    merged = [is_merged for start in range(0, len(found), size) for is_merged in told(crossings, *found[start : start + size])]

    assert merged == as_written(found)


def test_a_crossing_that_is_told_endlessly_in_one_batch_is_merged_too() -> None:
    flood = [(1, observer, 0) for observer in (A, B) for _ in range(5_000)]

    assert told(Crossings(), *flood) == [False] * 5_000 + [True] * 5_000


def test_what_has_to_leave_before_its_time_is_counted() -> None:
    crossings = Crossings(slots_log2=4)
    many = [(number, A, 0) for number in range(100)]

    told(crossings, *many)
    told(crossings, *[(number, B, 0) for number in range(100)])

    assert crossings.forgotten > 0
    assert crossings.forgotten >= 100 - 16


def test_what_is_old_leaves_without_being_counted() -> None:
    crossings = Crossings(slots_log2=4)

    for hour in range(10):
        one_by_one(crossings, *[(number, A, 3600 * hour) for number in range(3)])

    assert crossings.forgotten <= 30 - 10 * 1  # of three numbers two may share a slot, ten times
    assert Crossings().forgotten == 0


def test_a_restart_knows_the_latest() -> None:
    before, after = Crossings(), Crossings()
    told(before, *[(number, A, 0) for number in range(2 * MAX_KEPT)])

    after.restore(before.snapshot())

    assert told(after, (2 * MAX_KEPT - 1, B, 1), (MAX_KEPT + 1, A, 1)) == [True, False]
    assert len(before.snapshot()) <= 16 * MAX_KEPT
    assert before.snapshot() == before.snapshot()


@given(st.binary(max_size=100))
def test_a_damaged_snapshot_does_not_stop_a_start(state: bytes) -> None:
    crossings = Crossings()

    crossings.restore(state)

    assert told(crossings, (1, A, 0), (1, B, 0)) == [False, True]
