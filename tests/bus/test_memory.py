from __future__ import annotations

import asyncio

import pytest

from ringfence.batch import Step
from ringfence.bus import BusSettings
from ringfence.bus.memory import MemoryBus
from ringfence.errors import Permanent
from tests.bus.contract import MUCH, after, record, take


def test_a_source_waits_until_a_required_group_has_committed() -> None:
    async def scenario() -> None:
        bus = MemoryBus(BusSettings(memory_bytes=2 * record(0, 1000).size), {"sink": ["in"]})
        await bus.join("source", [])
        await bus.join("sink", ["in"])
        await bus.commit(Step("source", {"in": [record(0, 1000), record(1, 1000)]}))
        waiting = asyncio.ensure_future(bus.commit(Step("source", {"in": [record(2, 1000)]})))
        found = await take(bus, "sink", 2)
        assert not waiting.done()
        await bus.commit(Step("sink", {"out": [record(9, 1000)]}, after([at for at, _ in found])))
        await bus.commit(Step("sink", done=after([at for at, _ in found])))
        await waiting
        assert [entry for _, entry in await take(bus, "sink", 1)] == [record(2, 1000)]

    asyncio.run(scenario())


def test_drop_oldest_counts_what_a_group_loses() -> None:
    async def scenario() -> None:
        settings = BusSettings(memory_bytes=2 * record(0, 1000).size, when_full="drop_oldest")
        bus = MemoryBus(settings, {"sink": ["in"]})
        await bus.join("source", [])
        await bus.join("sink", ["in"])
        for number in range(5):
            await bus.commit(Step("source", {"in": [record(number, 1000)]}))
        assert [entry for _, entry in await bus.read("sink", 10, MUCH, 0.0)] == [record(3, 1000), record(4, 1000)]
        assert bus.lost_total["sink"] == 3

    asyncio.run(scenario())


def test_a_step_that_can_never_fit_is_refused() -> None:
    async def scenario() -> None:
        bus = MemoryBus(BusSettings(memory_bytes=100), {})
        await bus.join("source", [])
        with pytest.raises(Permanent, match="can never fit"):
            await bus.commit(Step("source", {"in": [record(0, 1000)]}))

    asyncio.run(scenario())
