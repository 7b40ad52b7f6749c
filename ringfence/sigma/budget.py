"""The time that one rule may take for one table of events: CPU time, read now and then while the rule is tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Clock = Callable[[], float]
"""CPU seconds of this thread."""
SECS_EACH = 0.2
ROWS_EACH = 10_000
MAX_SECS = 0.8
"""With what a rule can do between two looks at the clock, it holds a worker for 1.2 s at most."""
WORK_EACH = 1 << 20
"""Between two looks at the clock, in instructions of a regular expression times bytes: 12 ns each where RE2 is slowest."""
MAX_READ_WORK = 16 * WORK_EACH
"""What one regular expression does for one value, 0.2 s at most; of a longer value it reads the beginning."""


class Exhausted(Exception):
    """The rule took more than its time."""


class Budget:
    """What is left for the rule that is tested now; no bound outside of `rule`."""

    def __init__(self, clock: Clock = time.thread_time) -> None:
        self._clock = clock
        self._deadline: float | None = None
        self._work = 0
        self.cut = 0
        """Values of which a regular expression read the beginning only."""

    @contextmanager
    def rule(self, rows: int) -> Iterator[None]:
        """Bound what is done inside: SECS_EACH for ROWS_EACH rows or fewer, MAX_SECS at most."""
        self._deadline = self._clock() + min(SECS_EACH * max(rows / ROWS_EACH, 1), MAX_SECS)
        try:
            yield
            self.look()
        finally:
            self._deadline = None

    def spend(self, work: int) -> None:
        """Count work that is done; raises Exhausted when a look at the clock is due and finds the time over."""
        self._work += work
        if self._work >= WORK_EACH:
            self.look()

    def look(self) -> None:
        """Look at the clock. Raises Exhausted."""
        self._work = 0
        if self._deadline is not None and self._clock() > self._deadline:
            raise Exhausted
