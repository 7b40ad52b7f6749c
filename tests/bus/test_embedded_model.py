"""The embedded bus against a model of lists and dicts, over arbitrary sequences of commits, reads, restarts and retention."""

from __future__ import annotations

import asyncio
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringfence.batch import Position, Record, Step
from ringfence.bus import BOUNDARY, EVENTS, BusSettings
from ringfence.bus.embedded import EmbeddedBus
from tests.bus.contract import MUCH

SETTINGS = BusSettings(segment_bytes=64 * 1024, retention_bytes=0, ballast_bytes=0)
TOPICS = (EVENTS, BOUNDARY)


class EmbeddedModel(RuleBasedStateMachine):
    """One writer, one required reader of two topics."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.path = tempfile.mkdtemp(prefix="ringfence-bus-")
        self.bus = self._new()
        self.values: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
        self.committed = dict.fromkeys(TOPICS, 0)
        self.read = dict.fromkeys(TOPICS, 0)
        self.state: dict[str, bytes] = {}

    def _new(self) -> EmbeddedBus:
        return EmbeddedBus(self.path, SETTINGS, {"sink": TOPICS})

    @initialize()
    def start(self) -> None:
        self.runner.run(self._start())

    async def _start(self) -> None:
        await self.bus.open()
        await self.bus.join("source", [])
        assert await self.bus.join("sink", TOPICS) == self.state
        self.read = dict(self.committed)

    @rule(topic=st.sampled_from(TOPICS), sizes=st.lists(st.sampled_from((0, 1, 5000, 60_000)), min_size=1, max_size=3))
    def append(self, topic: str, sizes: list[int]) -> None:
        values = [b"%d:" % (len(self.values[topic]) + index) + b"x" * size for index, size in enumerate(sizes)]
        self.runner.run(self.bus.commit(Step("source", {topic: [Record(b"", {}, value) for value in values]})))
        self.values[topic] += values

    @rule(count=st.integers(1, 5))
    def look(self, count: int) -> None:
        found = self.runner.run(self.bus.read("sink", count, MUCH, 0.0))
        waiting = sum(len(self.values[topic]) - self.read[topic] for topic in TOPICS)
        assert len(found) == min(count, waiting)
        for position, record in found:
            assert position.offset == self.read[position.topic]
            assert record.value == self.values[position.topic][position.offset]
            self.read[position.topic] += 1

    @rule(state=st.none() | st.binary(max_size=20))
    def finish(self, state: bytes | None) -> None:
        done = [Position(topic, 0, offset) for topic, offset in self.read.items()]
        changed = {} if state is None else {"component": state}
        self.runner.run(self.bus.commit(Step("sink", done=done, state=changed)))
        self.committed = dict(self.read)
        self.state |= changed

    @rule()
    def join_again(self) -> None:
        assert self.runner.run(self.bus.join("sink", TOPICS)) == self.state
        self.read = dict(self.committed)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.bus.close())
        self.bus = self._new()
        self.runner.run(self._start())

    @invariant()
    def nothing_is_lost(self) -> None:
        assert not self.bus.lost_total["sink"]

    def teardown(self) -> None:
        self.runner.run(self.bus.close())
        self.runner.close()
        shutil.rmtree(self.path)


TestEmbeddedAgainstTheModel = EmbeddedModel.TestCase
TestEmbeddedAgainstTheModel.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
