"""What every bus promises: one suite for all engines, run by `tests/bus/test_contract.py`."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ringfence.batch import Position, Record, Step
from ringfence.bus import TOPICS, BusSettings, open_bus
from ringfence.bus.kafka import KafkaBus
from ringfence.component import Bus
from ringfence.errors import Fenced

WAIT_SECS = 30.0
"""How long a test waits for records that must come; only a failure takes so long."""

MUCH = 64 << 20


@dataclass(slots=True)
class Engine:
    """Opens one bus after the other on the same storage. Names are unique, because a broker outlives the test."""

    url: str
    settings: BusSettings
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    topics: tuple[str, ...] = ("in", "out", "other")

    def name(self, name: str) -> str:
        """The real name of a topic or group of this test."""
        return f"{name}-{self.run}"

    @property
    def is_durable(self) -> bool:
        """Whether records outlive the bus object."""
        return self.url != "memory:"

    @asynccontextmanager
    async def bus(self, required: Mapping[str, Sequence[str]] | None = None) -> AsyncIterator[Bus]:
        """An open bus that has the topics of the test."""
        bus = open_bus(
            self.url, self.settings, {self.name(g): [self.name(t) for t in ts] for g, ts in (required or {}).items()}
        )
        if isinstance(bus, KafkaBus):
            await bus.create_topics([*TOPICS, *(self.name(topic) for topic in self.topics)])
        await bus.open()
        try:
            yield bus
        finally:
            await bus.close()

    def test(self, scenario: Callable[[Bus], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario on a fresh bus."""

        async def run() -> None:
            async with self.bus() as bus:
                await scenario(bus)

        asyncio.run(run())


def record(number: int, size: int = 0) -> Record:
    """A record that is told apart by its value; all have one key, so that order is defined on every engine."""
    return Record(b"actor", {"ringfence-batch-id": b"%d" % number}, b"%d:" % number + b"x" * size)


def after(positions: Sequence[Position]) -> list[Position]:
    """The `done` of a step that is finished with some records."""
    last: dict[tuple[str, int], int] = {}
    for position in positions:
        key = (position.topic, position.partition)
        last[key] = max(last.get(key, 0), position.offset + 1)
    return [Position(topic, partition, offset) for (topic, partition), offset in last.items()]


async def take(bus: Bus, group: str, count: int) -> list[tuple[Position, Record]]:
    """Read until there are `count` records."""
    found: list[tuple[Position, Record]] = []
    async with asyncio.timeout(WAIT_SECS):
        while len(found) < count:
            found += await bus.read(group, count - len(found), MUCH, 1.0)
    return found


class BusContract:
    """The suite; a subclass gives it the fixture `engine`."""

    def test_records_of_a_key_are_read_in_the_order_of_their_commits(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            for number in range(0, 30, 3):
                await bus.commit(Step(source, {topic: [record(number), record(number + 1), record(number + 2)]}))
            found = await take(bus, reader, 30)
            assert [entry for _, entry in found] == [record(number) for number in range(30)]
            assert sorted(found) == found

        engine.test(scenario)

    def test_a_step_is_visible_as_a_whole(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, stage, sink = (engine.name(name) for name in ("source", "stage", "sink"))
            events, out, other = (engine.name(name) for name in ("in", "out", "other"))
            await bus.join(source, [])
            await bus.join(stage, [events])
            await bus.join(sink, [out, other])
            await bus.commit(Step(source, {events: [record(1), record(2)]}))
            found = await take(bus, stage, 2)
            step = Step(stage, {out: [record(3)], other: [record(4)]}, after([at for at, _ in found]), {"rules": b"seen 2"})
            await bus.commit(step)
            assert {entry.value for _, entry in await take(bus, sink, 2)} == {record(3).value, record(4).value}
            assert (await bus.states())[stage] == {"rules": b"seen 2"}
            assert await bus.join(stage, [events]) == {"rules": b"seen 2"}
            assert not await bus.read(stage, 10, MUCH, 0.0)

        engine.test(scenario)

    def test_uncommitted_reads_come_again_after_joining_again(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            await bus.commit(Step(source, {topic: [record(number) for number in range(5)]}))
            first = await take(bus, reader, 2)
            await bus.commit(Step(reader, done=after([at for at, _ in first])))
            assert [entry for _, entry in await take(bus, reader, 3)] == [record(2), record(3), record(4)]
            await bus.join(reader, [topic])
            assert [entry for _, entry in await take(bus, reader, 3)] == [record(2), record(3), record(4)]

        engine.test(scenario)

    def test_offsets_and_state_outlive_the_process(self, engine: Engine) -> None:
        if not engine.is_durable:
            pytest.skip("the memory bus keeps nothing: the embedded and Kafka engines run this test")

        async def scenario() -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            async with engine.bus() as bus:
                await bus.join(source, [])
                await bus.join(reader, [topic])
                await bus.commit(Step(source, {topic: [record(1), record(2)]}, state={"tail": b"byte 17"}))
                found = await take(bus, reader, 1)
                await bus.commit(Step(reader, done=after([at for at, _ in found]), state={"a": b"1", "b": b""}))
                await bus.commit(Step(reader, state={"a": b"2"}))
            async with engine.bus() as bus:
                assert await bus.join(reader, [topic]) == {"a": b"2", "b": b""}
                assert await bus.join(source, []) == {"tail": b"byte 17"}
                assert [entry for _, entry in await take(bus, reader, 1)] == [record(2)]

        asyncio.run(scenario())

    def test_state_of_a_component_replaces_what_it_had_before(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            group, bystander = engine.name("stage"), engine.name("bystander")
            assert await bus.join(group, []) == {}
            await bus.join(bystander, [])
            await bus.commit(Step(group, state={"one": b"1", "two": bytes(range(256))}))
            await bus.commit(Step(bystander, state={"one": b"mine"}))
            await bus.commit(Step(group, state={"one": b"3"}))
            assert await bus.join(group, []) == {"one": b"3", "two": bytes(range(256))}
            states = await bus.states()
            assert states[group] == {"one": b"3", "two": bytes(range(256))}
            assert states[bystander] == {"one": b"mine"}

        engine.test(scenario)

    def test_two_groups_read_independently(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, quick, slow, topic = (engine.name(name) for name in ("source", "quick", "slow", "in"))
            await bus.join(source, [])
            await bus.join(quick, [topic])
            await bus.join(slow, [topic])
            await bus.commit(Step(source, {topic: [record(number) for number in range(4)]}))
            found = await take(bus, quick, 4)
            await bus.commit(Step(quick, done=after([at for at, _ in found])))
            assert await take(bus, slow, 4) == found

        engine.test(scenario)

    def test_unread_ends_at_the_head_of_the_call_and_moves_nothing(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            await bus.commit(Step(source, {topic: [record(number) for number in range(4)]}))
            first = await take(bus, reader, 1)
            await bus.commit(Step(reader, done=after([at for at, _ in first])))
            expected = [record(1), record(2), record(3)]
            assert [entry async for _, entry in bus.unread(reader, topic)] == expected
            assert [entry async for _, entry in bus.unread(reader, topic)] == expected
            assert [entry async for _, entry in bus.unread(engine.name("stranger"), topic)] == [record(0), *expected]
            assert [entry async for _, entry in bus.unread(reader, engine.name("out"))] == []
            assert [entry for _, entry in await take(bus, reader, 3)] == expected

        engine.test(scenario)

    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(Record(b"", {}, b"value"), id="empty_key"),
            pytest.param(Record(b"\x00\xff\n", {}, b""), id="empty_value"),
            pytest.param(
                Record(bytes(range(256)), {"none": b"", "all": bytes(range(256)), "größe": b"\xff"}, b"\x00"), id="headers"
            ),
        ],
    )
    def test_records_survive_byte_for_byte(self, engine: Engine, sent: Record) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            await bus.commit(Step(source, {topic: [sent]}))
            assert [entry for _, entry in await take(bus, reader, 1)] == [sent]

        engine.test(scenario)

    def test_a_block_of_the_largest_size_passes(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            sent = [Record(b"actor", {"ringfence-batch-id": b"%d" % number}, os.urandom(512 * 1024)) for number in range(5)]
            await bus.join(source, [])
            await bus.join(reader, [topic])
            await bus.commit(Step(source, {topic: sent}))
            assert [entry for _, entry in await take(bus, reader, 5)] == sent

        engine.test(scenario)

    def test_reads_keep_to_their_limits(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            sent = [record(number, size=1000) for number in range(10)]
            await bus.commit(Step(source, {topic: sent}))
            found = await take(bus, reader, 1)
            three = await bus.read(reader, 3, MUCH, WAIT_SECS)
            two = await bus.read(reader, 10, 2 * sent[0].size + 1, WAIT_SECS)
            alone = await bus.read(reader, 10, 1, WAIT_SECS)
            assert [len(found), len(three), len(two), len(alone)] == [1, 3, 2, 1]
            rest = await take(bus, reader, 3)
            assert [entry for _, entry in (*found, *three, *two, *alone, *rest)] == sent

        engine.test(scenario)

    def test_a_read_returns_none_when_nothing_comes_in_time(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            reader = engine.name("reader")
            await bus.join(reader, [engine.name("in")])
            assert not await bus.read(reader, 10, MUCH, 0.05)
            await bus.join(reader, [])
            assert not await bus.read(reader, 10, MUCH, 0.05)

        engine.test(scenario)

    def test_a_waiting_read_gets_what_is_committed_meanwhile(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(take(bus, reader, 1))
                tasks.create_task(bus.commit(Step(source, {topic: [record(1)]})))
            assert [entry for _, entry in waiting.result()] == [record(1)]

        engine.test(scenario)

    def test_a_cancelled_read_loses_nothing(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            source, reader, topic = engine.name("source"), engine.name("reader"), engine.name("in")
            await bus.join(source, [])
            await bus.join(reader, [topic])
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(bus.read(reader, 10, MUCH, WAIT_SECS))
                await asyncio.sleep(0)
                committing = tasks.create_task(bus.commit(Step(source, {topic: [record(1)]})))
                await asyncio.sleep(0)
                reading.cancel()
            assert reading.cancelled()
            assert committing.done()
            assert [entry for _, entry in await take(bus, reader, 1)] == [record(1)]

        engine.test(scenario)

    def test_concurrent_commits_all_land(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            one, two, reader, topic = (engine.name(name) for name in ("one", "two", "reader", "in"))
            for group, topics in ((one, []), (two, []), (reader, [topic])):
                await bus.join(group, topics)
            async with asyncio.TaskGroup() as tasks:
                for number in range(20):
                    tasks.create_task(bus.commit(Step((one, two)[number % 2], {topic: [record(number)]})))
            found = await take(bus, reader, 20)
            assert sorted(entry.value for _, entry in found) == sorted(record(number).value for number in range(20))
            assert len({at for at, _ in found}) == 20

        engine.test(scenario)

    def test_a_group_that_was_not_joined_is_fenced(self, engine: Engine) -> None:
        async def scenario(bus: Bus) -> None:
            with pytest.raises(Fenced, match="has not been joined"):
                await bus.commit(Step(engine.name("stranger"), state={"a": b"1"}))
            with pytest.raises(Fenced, match="has not been joined"):
                await bus.read(engine.name("stranger"), 1, 1, 0.0)

        engine.test(scenario)

    def test_close_may_come_twice_or_before_open(self, engine: Engine) -> None:
        async def scenario() -> None:
            await open_bus(engine.url, engine.settings).close()
            async with engine.bus() as bus:
                await bus.join(engine.name("reader"), [engine.name("in")])
                await bus.close()

        asyncio.run(scenario())


def memory() -> Engine:
    """The engine in memory."""
    return Engine("memory:", BusSettings())


def embedded(path: Path) -> Engine:
    """The embedded engine with segments so small that a test rolls now and then."""
    return Engine(f"sqlite:{path / 'bus'}", BusSettings(segment_bytes=1 << 20, ballast_bytes=0))


def kafka(address: str) -> Engine:
    """The Kafka engine on a running broker."""
    return Engine(f"kafka://{address}", BusSettings(partitions=3))
