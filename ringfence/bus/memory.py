"""The bus in memory: one process, bounded by bytes, nothing kept. For tests and for `ringfence replay`.

A source waits in `commit` while the bound is reached. A step that consumes (`Step.done`) never waits: it frees what it read,
and if it had to wait for the stages behind it while they wait for it, none would move. What those steps add is outside the
bound, but no more than what the bounded backlog turns into.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ringfence.batch import Position, Record, Step
from ringfence.bus import BusSettings, RequiredGroups
from ringfence.errors import Fenced, Permanent


@dataclass(slots=True)
class _Log:
    """The records of one topic; `first` is the offset of the oldest that is still held."""

    first: int = 0
    records: deque[tuple[int, Record]] = field(default_factory=deque)

    @property
    def head(self) -> int:
        return self.first + len(self.records)

    def from_offset(self, offset: int) -> Iterator[tuple[int, Record]]:
        """Pairs of offset and record, from `offset` or the oldest that is held."""
        start = max(offset, self.first)
        for index in range(start - self.first, len(self.records)):
            yield self.first + index, self.records[index][1]


@dataclass(slots=True)
class _Group:
    """A consumer group; `topics` is empty until it joins, `cursors` are the next offsets to read."""

    topics: tuple[str, ...] = ()
    offsets: dict[str, int] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    state: dict[str, bytes] = field(default_factory=dict)
    joined: bool = False


class MemoryBus:
    """A `Bus` in one process. `lost_total` counts, per group, records that were dropped before it read them."""

    def __init__(self, settings: BusSettings, required_groups: RequiredGroups) -> None:
        self.lost_total: Counter[str] = Counter()
        self._bound = settings.memory_bytes
        self._when_full = settings.when_full
        self._required = required_groups
        self._logs: dict[str, _Log] = {}
        self._groups: dict[str, _Group] = {}
        self._held_bytes = 0
        self._serial = 0
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def create_topics(self) -> Sequence[str]:
        """Nothing to make: a topic begins with its first record."""
        return ()

    async def join(self, group: str, topics: Sequence[str]) -> Mapping[str, bytes]:
        """Become the reader of `group`; goes back to its last commit."""
        member = self._groups.setdefault(group, _Group())
        member.topics = tuple(topics)
        member.joined = True
        member.cursors = {topic: member.offsets.get(topic, 0) for topic in topics}
        return dict(member.state)

    async def read(self, group: str, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Return the next records; at least one if there is any, even if it alone exceeds `max_bytes`."""
        member = self._member(group)
        deadline = asyncio.get_running_loop().time() + wait_secs
        while True:
            changed = self._changed
            found = self._next_records(group, member, max_records, max_bytes)
            if found:
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                return ()

    def _next_records(self, group: str, member: _Group, max_records: int, max_bytes: int) -> list[tuple[Position, Record]]:
        found: list[tuple[Position, Record]] = []
        size = 0
        for topic in member.topics:
            log = self._log(topic)
            cursor = member.cursors[topic]
            if cursor < log.first:
                # records before the group's first commit were free to go, unless the group is required
                if topic in member.offsets or topic in self._required.get(group, ()):
                    self.lost_total[group] += log.first - cursor
                member.cursors[topic] = log.first
            for offset, record in log.from_offset(member.cursors[topic]):
                if len(found) >= max_records or (found and size + record.size > max_bytes):
                    break
                found.append((Position(topic, 0, offset), record))
                size += record.size
                member.cursors[topic] = offset + 1
        # the topic that came first this time comes last the next time, so that a busy one cannot starve the others
        member.topics = (*member.topics[1:], *member.topics[:1])
        return found

    async def commit(self, step: Step) -> None:
        """Apply a step; waits while the bound is reached and the step only adds."""
        member = self._member(step.group)
        size = sum(record.size for records in step.outputs.values() for record in records)
        if size > self._bound and not step.done:
            raise Permanent(f"a step of {size} bytes can never fit on the memory bus of {self._bound} bytes")
        while size and not step.done and not self._has_room(size):
            await self._changed.wait()
            if self._groups.get(step.group) is not member:
                raise Fenced(f"the bus was closed while group {step.group} waited for room")
        for topic, records in step.outputs.items():
            for record in records:
                self._serial += 1
                self._log(topic).records.append((self._serial, record))
        self._held_bytes += size
        for position in step.done:
            member.offsets[position.topic] = position.offset
        member.state.update(step.state)
        self._notify()

    def _has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit, after freeing the oldest records until they do."""
        while self._held_bytes + size > self._bound:
            topic = self._oldest_topic(self._when_full == "drop_oldest")
            if topic is None:
                return False
            log = self._logs[topic]
            _, record = log.records.popleft()
            log.first += 1
            self._held_bytes -= record.size
        return True

    def _oldest_topic(self, even_needed: bool) -> str | None:
        """The topic whose first record is the oldest of those that may be freed."""
        candidates = [
            (log.records[0][0], topic)
            for topic, log in self._logs.items()
            if log.records and (even_needed or log.first < self._needed_from(topic))
        ]
        return min(candidates)[1] if candidates else None

    def _needed_from(self, topic: str) -> int:
        """The offset from which on some required or joined group still needs the topic."""
        readers = {group for group, topics in self._required.items() if topic in topics}
        readers |= {group for group, member in self._groups.items() if topic in member.topics}
        offsets = [self._groups[group].offsets.get(topic, 0) if group in self._groups else 0 for group in readers]
        return min(offsets, default=self._log(topic).head)

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """The committed state of every group that has any."""
        return {name: dict(group.state) for name, group in self._groups.items() if group.state}

    def unread(self, group: str, topic: str) -> AsyncIterator[tuple[Position, Record]]:
        """What a group has not committed yet, up to the head as of the call."""
        log = self._log(topic)
        member = self._groups.get(group, _Group())
        return _replay(
            [(Position(topic, 0, offset), record) for offset, record in log.from_offset(member.offsets.get(topic, 0))]
        )

    async def close(self) -> None:
        """Forget everything and wake whoever waits."""
        self._logs.clear()
        self._groups.clear()
        self._held_bytes = 0
        self._notify()

    def _member(self, group: str) -> _Group:
        member = self._groups.get(group)
        if member is None or not member.joined:
            raise Fenced(f"group {group} has not been joined here")
        return member

    def _log(self, topic: str) -> _Log:
        return self._logs.setdefault(topic, _Log())

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _replay(records: Sequence[tuple[Position, Record]]) -> AsyncIterator[tuple[Position, Record]]:
    for entry in records:
        yield entry
