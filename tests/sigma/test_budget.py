"""The time of a rule: looked at now and then, bounded whatever the rule does."""

from __future__ import annotations

import pytest

from ringfence.sigma.budget import MAX_SECS, ROWS_EACH, SECS_EACH, WORK_EACH, Budget, Exhausted


class Clock:
    """Moves on by `step` at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step, self.looks = 0.0, step, 0

    def __call__(self) -> float:
        self.now += self.step
        self.looks += 1
        return self.now


def test_a_rule_within_its_time_passes() -> None:
    clock = Clock()
    with Budget(clock).rule(10):
        clock.now += SECS_EACH


def test_a_rule_is_exhausted_even_when_it_comes_to_its_end() -> None:
    clock = Clock()
    with pytest.raises(Exhausted), Budget(clock).rule(10):
        clock.now += SECS_EACH * 1.01


@pytest.mark.parametrize(("rows", "secs"), [(1, SECS_EACH), (2 * ROWS_EACH, 2 * SECS_EACH), (1_000 * ROWS_EACH, MAX_SECS)])
def test_more_rows_give_more_time_up_to_a_bound(rows: int, secs: float) -> None:
    clock = Clock()
    budget = Budget(clock)
    with budget.rule(rows):
        clock.now += secs * 0.99
        budget.look()
    with pytest.raises(Exhausted), budget.rule(rows):
        clock.now += secs * 1.01


def test_the_clock_is_read_only_after_much_work() -> None:
    clock = Clock()
    budget = Budget(clock)
    with budget.rule(1):
        for _ in range(10):
            budget.spend(WORK_EACH // 4)

    assert clock.looks == 2 + 2  # at the start, at the end, and twice between


def test_outside_of_a_rule_there_is_no_bound() -> None:
    Budget(Clock(1e9)).look()
