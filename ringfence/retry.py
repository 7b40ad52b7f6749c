"""Calls something again after a Retryable, with full jitter, for as long as it takes.

Full jitter: the pause is uniform between 0 and a ceiling that doubles from FIRST_SECS to LAST_SECS, so that many callers
that failed together do not come back together.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ringfence.clock import Clock
from ringfence.errors import Retryable
from ringfence.telemetry import RETRIES

FIRST_SECS = 0.1
LAST_SECS = 30.0
LOG_EVERY_SECS = 30.0

_log = logging.getLogger(__name__)
_random = random.SystemRandom()
Result = TypeVar("Result")


class Backoff:
    """The pauses of one caller."""

    def __init__(self) -> None:
        self._ceiling = FIRST_SECS

    def next_secs(self) -> float:
        """How long to wait before the next call."""
        pause = _random.uniform(0, self._ceiling)
        self._ceiling = min(self._ceiling * 2, LAST_SECS)
        return pause

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._ceiling = FIRST_SECS


async def until_done(what: str, call: Callable[[], Awaitable[Result]], clock: Clock) -> Result:
    """Await `call` until it does not raise Retryable; other errors pass. Says so at first, then every 30 s."""
    backoff = Backoff()
    said_at = -LOG_EVERY_SECS
    while True:
        try:
            return await call()
        except Retryable as error:
            RETRIES.labels(what).inc()
            if clock.monotonic() - said_at >= LOG_EVERY_SECS:
                said_at = clock.monotonic()
                _log.warning("%s is tried again: %s", what, error)
            await clock.sleep(backoff.next_secs())
