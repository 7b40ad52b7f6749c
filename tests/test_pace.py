"""The schedule of a paced replay: one beginning, no drift, bounded catching up."""

from __future__ import annotations

import asyncio

import pytest

from ringfence.clock import HandClock
from ringfence.pace import CATCH_UP_SECS, Pace

FIRST = 1_700_000_000_000_000


def begun(speed: float) -> tuple[Pace, HandClock]:
    clock = HandClock()
    pace = Pace(speed, ["a"], clock)
    asyncio.run(pace.begin("a", FIRST))
    return pace, clock


@pytest.mark.parametrize("speed", [0.5, 1, 10, 3600])
def test_event_time_runs_as_many_times_as_fast_as_the_clock(speed: float) -> None:
    pace, clock = begun(speed)

    for step in range(1, 4):
        clock.now_us += 2_000_000
        assert pace.due_us(FIRST + int(step * 2_000_000 * speed)) == pytest.approx(FIRST + step * 2_000_000 * speed, abs=speed)
    assert pace.late_secs == 0


def test_late_sleeps_do_not_add_up() -> None:
    pace, clock = begun(10)
    started = clock.monotonic()

    async def story() -> None:
        for number in range(1, 2000):
            await pace.until(FIRST + number * 1_000_000, 0)
            clock.now_us += 7_000  # what work and a late wake-up cost

    asyncio.run(story())

    assert clock.monotonic() - started == pytest.approx(1999 / 10 + 0.007, abs=0.002)


def test_a_short_delay_is_caught_up_and_of_a_long_one_just_so_much() -> None:
    pace, clock = begun(1)

    clock.now_us += 4_000_000
    assert pace.due_us(FIRST + 1_000_000) == FIRST + 4_000_000
    clock.now_us += 100_000_000
    assert pace.due_us(FIRST + 4_000_000) == pytest.approx(FIRST + 4_000_000 + CATCH_UP_SECS * 1_000_000, abs=1)
    assert pace.late_secs == pytest.approx(95, abs=0.001)
    clock.now_us += 1_000_000
    assert pace.due_us(FIRST + 10_000_000) == pytest.approx(FIRST + 10_000_000, abs=1)
    assert pace.late_secs == pytest.approx(95, abs=0.001)


def test_inputs_begin_together_at_the_earliest_first_event() -> None:
    clock = HandClock()
    pace = Pace(1, ["a", "b", "empty"], clock)
    order: list[str] = []

    async def begin(name: str, first_us: int | None) -> None:
        await pace.begin(name, first_us)
        order.append(name)

    async def story() -> None:
        first = asyncio.ensure_future(begin("a", FIRST + 5_000_000))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(begin("b", FIRST))
        await asyncio.sleep(0)
        clock.now_us += 60_000_000
        assert not order
        await begin("empty", None)
        await asyncio.gather(first, second)
        await begin("a", FIRST - 1)  # an input that is opened again does not move the beginning

    asyncio.run(story())

    assert sorted(order) == ["a", "a", "b", "empty"]
    assert pace.due_us(FIRST) == FIRST


def test_the_time_that_was_reached_is_the_latest_of_all_inputs() -> None:
    pace, _ = begun(1)
    assert pace.reached_us is None

    for event_us in (5, 9, 7):
        pace.reach(event_us)

    assert pace.reached_us == 9


def test_a_long_wait_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pace, clock = begun(1)

    asyncio.run(pace.until(FIRST + 59_000_000, 0))
    assert not caplog.messages
    asyncio.run(pace.until(FIRST + 3_659_000_000, 0))

    assert caplog.messages == ["the next event is due in 3600 s"]
    assert clock.slept == [pytest.approx(59), pytest.approx(3600)]
