"""Calling again after a Retryable: for as long as it takes, with jitter, and on a clock that a test moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from ringfence import retry
from ringfence.clock import HandClock, SystemClock
from ringfence.errors import Permanent, Retryable
from ringfence.retry import FIRST_SECS, LAST_SECS, LOG_EVERY_SECS, until_done


class Failing:
    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._times = times
        self._error = error or Retryable("the disk is full")

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return "done"


def run(call: Failing, clock: HandClock) -> str:
    return asyncio.run(until_done("sink a", call, clock))


class Highest:
    def uniform(self, low: float, high: float) -> float:
        assert low == 0
        return high


class Lowest:
    def uniform(self, low: float, high: float) -> float:
        return low


def test_a_call_that_succeeds_is_made_once() -> None:
    call = Failing(0)
    run(call, HandClock())

    assert call.calls == 1


def test_it_is_called_until_it_succeeds() -> None:
    assert run(Failing(50), HandClock()) == "done"


def test_a_call_that_succeeds_waits_for_nothing() -> None:
    clock = HandClock()
    run(Failing(0), clock)

    assert clock.slept == []


def test_other_errors_pass_at_once() -> None:
    call = Failing(1, Permanent("no such folder"))

    with pytest.raises(Permanent, match="no such folder"):
        run(call, HandClock())


def test_the_ceiling_doubles_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_random", Highest())
    clock = HandClock()
    run(Failing(12), clock)

    assert clock.slept == [min(FIRST_SECS * 2**attempt, LAST_SECS) for attempt in range(12)]


@pytest.mark.parametrize("seed", range(5))
def test_each_pause_lies_between_nothing_and_its_ceiling(seed: int) -> None:
    clock = HandClock()
    run(Failing(12), clock)

    assert all(0 <= pause <= min(FIRST_SECS * 2**attempt, LAST_SECS) for attempt, pause in enumerate(clock.slept))


def test_pauses_are_spread() -> None:
    clock = HandClock()
    run(Failing(40), clock)

    assert len(set(clock.slept)) > 20


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_it_says_what_is_tried_again_and_why(caplog: pytest.LogCaptureFixture) -> None:
    run(Failing(1), HandClock())

    assert logged(caplog) == ["sink a is tried again: the disk is full"]


def test_it_says_so_once_while_time_stands_still(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_random", Lowest())
    run(Failing(100), HandClock())

    assert len(logged(caplog)) == 1


def test_it_says_so_again_every_half_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_random", Highest())
    caplog.set_level(logging.WARNING)
    clock = HandClock()
    began = clock.monotonic()
    run(Failing(30), clock)

    assert 2 <= len(logged(caplog)) <= 1 + (clock.monotonic() - began) / LOG_EVERY_SECS


def test_a_hand_clock_moves_by_what_is_slept() -> None:
    clock = HandClock(5_000_000)
    asyncio.run(clock.sleep(1.5))

    assert (clock.now(), clock.monotonic(), clock.slept) == (6_500_000, 6.5, [1.5])


@pytest.mark.parametrize("read", [SystemClock().now, SystemClock().monotonic], ids=["wall", "monotonic"])
def test_the_clocks_of_the_machine_go_forward(read: Callable[[], float]) -> None:
    assert read() <= read()


def test_the_clock_of_the_machine_waits() -> None:
    asyncio.run(SystemClock().sleep(0))
