"""When recorded events are due again, for inputs that are read together at a multiple of the speed they were recorded at.

The earliest first event of all inputs is due at once, and event time then runs `speed` times as fast as the monotonic
clock. Every due time is computed from that one beginning, so nothing adds up to a drift. Of a delay (a full disk, a machine
that slept, a chain that is slower than `speed` asks) up to CATCH_UP_SECS are caught up as fast as possible; what is beyond
moves the schedule, and `late_secs` sums it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ringfence.clock import Clock

CATCH_UP_SECS = 5.0
LONG_SECS = 60.0
"""A wait that is worth a line in the log."""

_log = logging.getLogger(__name__)


class Pace:
    """The schedule that all inputs share; it begins once each has told its first event."""

    def __init__(self, speed: float, inputs: Iterable[str], clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._missing = set(inputs)
        self._first_us: int | None = None
        self._started_at = 0.0
        self._started = asyncio.Event()
        self.reached_us: int | None = None
        self.late_secs = 0.0

    async def begin(self, name: str, first_us: int | None) -> None:
        """Tell when the first event of an input was (None: it has none), and wait for the other inputs."""
        self._missing.discard(name)
        if not self._started.is_set():
            if first_us is not None:
                self._first_us = first_us if self._first_us is None else min(self._first_us, first_us)
            if not self._missing:
                self._started_at = self._clock.monotonic()
                self._started.set()
        await self._started.wait()

    def due_us(self, next_us: int) -> int:
        """The event time that is due now; moves the schedule when the next event, at `next_us`, is overdue for too long."""
        now = self._clock.monotonic()
        late_secs = now - self._due_at(next_us) - CATCH_UP_SECS
        if late_secs > 0:
            self._started_at += late_secs
            self.late_secs += late_secs
        return (self._first_us or 0) + int((now - self._started_at) * self._speed * 1_000_000)

    async def until(self, next_us: int, at_least_secs: float) -> None:
        """Sleep until an event is due, and no shorter than this."""
        secs = self._due_at(next_us) - self._clock.monotonic()
        if secs > LONG_SECS:
            _log.info("the next event is due in %.0f s", secs)
        await self._clock.sleep(max(secs, at_least_secs))

    def reach(self, event_us: int) -> None:
        """An event of this time was given on."""
        self.reached_us = event_us if self.reached_us is None else max(self.reached_us, event_us)

    def _due_at(self, event_us: int) -> float:
        return self._started_at + (event_us - (self._first_us or 0)) / 1_000_000 / self._speed
