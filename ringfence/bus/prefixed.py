"""A bus whose topics and groups have another first name than `ringfence`: several installations on one Kafka.

`kafka://host:9092/lab` makes `lab.events.v1` of `ringfence.events.v1` and `lab.process` of the group `ringfence.process`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from ringfence.batch import Position, Record, Step
from ringfence.bus import OWN_PREFIX, TOPICS
from ringfence.bus.kafka import KafkaBus


class PrefixedBus:
    """Renames on the way in and back on the way out; promises what the bus behind it promises."""

    def __init__(self, prefix: str, engine: KafkaBus) -> None:
        self._prefix = prefix
        self._engine = engine

    async def open(self) -> None:
        """Open the bus behind."""
        await self._engine.open()

    async def create_topics(self) -> Sequence[str]:
        """Make the topics under their names here; returns those that were made."""
        return await self._engine.create_topics([self._out(topic) for topic in TOPICS])

    async def join(self, group: str, topics: Sequence[str]) -> Mapping[str, bytes]:
        """Join under the name here."""
        return await self._engine.join(self._out(group), [self._out(topic) for topic in topics])

    async def read(self, group: str, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Read, with the topics' own names."""
        records = await self._engine.read(self._out(group), max_records, max_bytes, wait_secs)
        return [(self._back_at(position), record) for position, record in records]

    async def commit(self, step: Step) -> None:
        """Commit under the names here."""
        outputs = {self._out(topic): records for topic, records in step.outputs.items()}
        done = [replace(position, topic=self._out(position.topic)) for position in step.done]
        await self._engine.commit(Step(self._out(step.group), outputs, done, step.state))

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """The states of this installation's groups only."""
        states = await self._engine.states()
        return {self._back(group): state for group, state in states.items() if group.startswith(f"{self._prefix}.")}

    def unread(self, group: str, topic: str) -> AsyncIterator[tuple[Position, Record]]:
        """What the group has not committed, with the topic's own name."""
        return self._renamed(self._engine.unread(self._out(group), self._out(topic)))

    async def _renamed(self, entries: AsyncIterator[tuple[Position, Record]]) -> AsyncIterator[tuple[Position, Record]]:
        async for position, record in entries:
            yield self._back_at(position), record

    async def close(self) -> None:
        """Close the bus behind."""
        await self._engine.close()

    def _out(self, name: str) -> str:
        return self._prefix + name.removeprefix(OWN_PREFIX)

    def _back(self, name: str) -> str:
        return OWN_PREFIX + name.removeprefix(self._prefix)

    def _back_at(self, position: Position) -> Position:
        return replace(position, topic=self._back(position.topic))
