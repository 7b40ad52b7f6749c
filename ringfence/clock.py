"""Real and hand-moved time, so that nothing else asks the system for it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from ringfence.batch import Micros


class Clock(Protocol):
    """Wall clock for stamps and display, monotonic clock for timers."""

    def now(self) -> Micros:
        """Wall clock time in microseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, secs: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Micros:
        """Wall clock time in microseconds."""
        return Micros(time.time_ns() // 1000)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, secs: float) -> None:
        """Wait."""
        await asyncio.sleep(secs)


class HandClock:
    """Time that a test moves; sleep() moves it and returns at once."""

    def __init__(self, now_us: int = 1_790_000_000_000_000) -> None:
        self.now_us = now_us
        self.slept: list[float] = []

    def now(self) -> Micros:
        """The hand-set time."""
        return Micros(self.now_us)

    def monotonic(self) -> float:
        """The same time in seconds."""
        return self.now_us / 1_000_000

    async def sleep(self, secs: float) -> None:
        """Move on by so many seconds."""
        self.slept.append(secs)
        self.now_us += int(secs * 1_000_000)
        await asyncio.sleep(0)
