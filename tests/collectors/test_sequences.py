"""Sequence numbers of any unit; what datagrams in another order, twice or lost do to them is in test_netflow.py too."""

from __future__ import annotations

from collectors.sequences import REORDER_DATAGRAMS, Sequences


def lost_of(steps: list[tuple[int, int | None]], widest: int = 1) -> tuple[list[int], int]:
    sequences = Sequences(widest)
    sequences.begin(len(steps))
    for row, (number, count) in enumerate(steps):
        sequences.take((1, "x", 0), row, number, count)
    return sequences.after_gap.nonzero()[0].tolist(), sequences.lost["x"]


def test_a_gap_is_lost_when_it_was_not_filled_in_time() -> None:
    assert lost_of([(0, 1), *((number, 1) for number in range(4, 5 + REORDER_DATAGRAMS))]) == ([1], 3)


def test_after_a_count_that_is_not_known_the_next_datagram_starts_anew() -> None:
    assert lost_of([(0, 5), (5, None), (99, 1), *((number, 1) for number in range(100, 140))]) == ([], 0)


def test_a_gap_before_a_count_that_is_not_known_is_seen() -> None:
    assert lost_of([(0, 5), (9, None), *((number, 1) for number in range(50, 90))]) == ([1], 4)


def test_a_number_that_falls_back_further_than_datagrams_come_late_is_a_restart() -> None:
    assert lost_of([(5000, 1), (0, 1), *((number, 1) for number in range(1, 50))]) == ([], 0)


def test_wide_datagrams_widen_what_counts_as_late() -> None:
    steps = [(0, 1000), (2000, 1000), (1000, 1000), *((number * 1000, 1000) for number in range(3, 50))]

    assert lost_of([(number, count) for number, count in steps]) == ([], 0)
