"""For tests of components: a shell that delivers from a list, and faults that happen where a test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ringfence.batch import Frames, Source, frames_of
from ringfence.component import Delivery
from ringfence.errors import EndOfInput


@dataclass
class ListShell:
    """Delivers one list item per read, from where `position` says; an exception in the list is raised instead."""

    items: Sequence[Sequence[bytes] | Exception]
    source: Source = field(default_factory=lambda: Source("list", 0x5EED))
    opened_at: list[int] = field(default_factory=list)
    _next: int = 0

    async def open(self, position: bytes) -> None:
        """Go on after the items that were committed."""
        self._next = int(position or b"0")
        self.opened_at.append(self._next)

    async def read(self) -> Delivery:
        """The next item."""
        if self._next >= len(self.items):
            raise EndOfInput("the list has ended")
        item = self.items[self._next]
        self._next += 1
        if isinstance(item, Exception):
            raise item
        return Delivery(self._frames(item), b"%d" % self._next)

    def _frames(self, lines: Sequence[bytes]) -> Frames:
        start = self._next << 32
        return frames_of(lines, self.source, positions=[start + index for index in range(len(lines))])

    async def close(self) -> None:
        """Nothing to free."""
