"""The three loops on the memory bus: everything arrives once, whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.suricata import SuricataDecoder
from processors.alerts import Alerts
from processors.boundaries import Boundaries
from processors.segments import Segments
from processors.sigma import Sigma
from ringfence import bus, codec, ledger, stages, telemetry, topology
from ringfence.batch import Batch, Decoded, Frames, Micros, Problem, ProblemCode, Record, Step
from ringfence.batching import Batching
from ringfence.bus import BusSettings, open_bus
from ringfence.clock import HandClock, SystemClock
from ringfence.component import Bus, Collector, Delivery, Processed, Processor
from ringfence.errors import Fenced, Permanent, Retryable
from ringfence.rulesets import BUNDLED, RuleFiles
from ringfence.stages import CollectStage, ProcessStage, SinkStage
from ringfence.telemetry import REGISTRY
from ringfence.testing import ListShell
from tests.eve_lines import flow, topology_file

READERS = {"ringfence.process": (bus.EVENTS,), "ringfence.sink.keep": (bus.EVENTS, bus.BOUNDARY, bus.DEAD)}


class KeepingSink:
    """Keeps what it was given, as of its last state, like a database that can roll back."""

    def __init__(self, topics: Sequence[str] = (bus.EVENTS, bus.BOUNDARY, bus.DEAD)) -> None:
        self.topics = topics
        self.rows: list[tuple[str, int]] = []
        self.failures: list[Exception] = []
        self.refuse: Callable[[Batch], Mapping[int, Problem]] = lambda batch: {}

    async def open(self, state: bytes) -> None:
        del self.rows[int(state or b"0") :]

    async def write(self, topic: str, batch: Batch) -> Mapping[int, Problem]:
        self.rows += [(topic, position) for position in batch.frame["ringfence.event.position"].to_list()]
        if self.failures:
            raise self.failures.pop()
        return self.refuse(batch)

    async def flush(self) -> bytes:
        return b"%d" % len(self.rows)

    async def close(self) -> None:
        pass


class Chain:
    """All stages over a list of items, run to the end."""

    def __init__(self, folder: Path, items: Sequence[Sequence[bytes] | Exception]) -> None:
        self.shell = ListShell(items)
        self.sink = KeepingSink()
        self.loaded = topology.load(topology_file(folder))
        self.engine: Bus = open_bus("memory:", BusSettings(), READERS)
        self.processors: list[Processor] = [Segments(self.loaded), Boundaries(self.loaded)]
        self.batching = Batching(rows=3)
        self.stop = asyncio.Event()

    def run(self) -> ledger.Ledger:
        async def main() -> ledger.Ledger:
            await self.engine.open()
            clock = SystemClock()
            collect = CollectStage(
                "list", lambda: Collector("suricata", self.shell, SuricataDecoder()), self.engine, self.batching, 1, clock
            )
            process = ProcessStage(lambda: self.processors, self.engine, clock)
            sink = SinkStage("keep", self.sink, lambda: [], self.engine, clock)
            try:
                await collect.run(self.stop)
                ended = asyncio.Event()
                ended.set()
                await process.run(ended)
                await sink.run(ended)
                return await ledger.read(self.engine, READERS)
            finally:
                await self.engine.close()

        return asyncio.run(main())

    def kept(self, topic: str) -> int:
        return sum(1 for kind, _ in self.sink.rows if kind == topic)


def test_every_row_reaches_the_sink_and_the_ledger_balances(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1), flow(2)], [flow(3), b"junk\n", flow(4, port=22)]])

    book = chain.run()

    assert chain.kept(bus.EVENTS) == 4
    assert chain.kept(bus.BOUNDARY) == 4
    assert chain.kept(bus.DEAD) == 1
    assert book.imbalance == 0
    assert {edge.received for edge in book.edges} == {4, 1}


def test_a_retryable_shell_is_opened_again_after_what_was_taken(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)], Retryable("cable out"), [flow(2)]])
    chain.shell.items = [[flow(1)], Retryable("cable out"), [flow(2)]]

    class Mending(ListShell):
        async def open(self, position: bytes) -> None:
            await super().open(position)
            if len(self.opened_at) > 1:
                self.items = [item for item in self.items if not isinstance(item, Exception)]

    chain.shell = Mending(chain.shell.items)
    chain.run()

    assert chain.shell.opened_at == [0, 1]
    assert chain.kept(bus.EVENTS) == 2


def test_bounds_that_a_shell_hit_are_counted_and_cost_no_frame(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)], [flow(2)]])

    class Bounded(ListShell):
        async def read(self) -> Delivery:
            return replace(await super().read(), caps={"frame": 2, "idle": 1})

    chain.shell = Bounded(chain.shell.items)
    book = chain.run()

    assert [_hits("frame"), _hits("idle")] == [4, 2]
    assert book.imbalance == 0


def _hits(cap: str) -> float | None:
    return REGISTRY.get_sample_value("ringfence_shell_caps_total", {"source": "list", "cap": cap})


def test_a_sink_that_fails_is_put_back_before_it_is_tried_again(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(serial) for serial in range(5)]])
    chain.sink.failures = [Retryable("server away"), Retryable("server away")]

    book = chain.run()

    assert chain.kept(bus.EVENTS) == 5
    assert len(set(chain.sink.rows)) == len(chain.sink.rows)
    assert book.imbalance == 0


def test_a_permanent_sink_error_ends_the_stage(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)]])
    chain.sink.failures = [Permanent("no such folder")]

    with pytest.raises(Permanent, match="no such folder"):
        chain.run()


def test_rows_that_a_sink_refuses_become_dead_letters(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1), flow(2)]])
    refused = Problem(ProblemCode.SINK_REFUSED, "mapping conflict", 0, raw=b"{}")
    chain.sink.topics = (bus.EVENTS,)
    chain.sink.refuse = lambda batch: {0: refused}

    book = chain.run()

    assert book.components["ringfence.sink.keep"].dead == 1
    assert book.components["ringfence.sink.keep"].written == {bus.DEAD: 1}


class CrashingProcessor:
    """A bug: dies on rows of one serial, as polars does, by a BaseException."""

    def process(self, batch: Batch, now: Micros) -> Processed:
        if "13" in batch.frame["ringfence.flow.id"].to_list():
            raise pl.exceptions.PanicException("unlucky")
        return Processed(batch, {bus.BOUNDARY: [batch]})


def test_only_the_row_that_crashes_a_processor_is_dead_lettered(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(serial) for serial in range(10, 17)]])
    chain.batching = Batching(rows=100)
    chain.processors = [CrashingProcessor()]

    book = chain.run()

    assert chain.kept(bus.BOUNDARY) == 6
    assert chain.kept(bus.DEAD) == 1
    assert book.components["ringfence.process"].dead == 1
    assert book.imbalance == 0


def test_a_damaged_block_is_dead_lettered_whole_and_the_rest_goes_on(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)], [flow(2)]])
    chain.batching = Batching(rows=1)
    damaged = 0
    original = codec.encode

    def encode(batch: Batch, key: bytes) -> list[Record]:
        nonlocal damaged
        records = original(batch, key)
        if damaged == 0 and batch.header.event_class == "flow":
            damaged = 1
            records = [Record(record.key, record.headers, record.value[:-9] + b"corrupted") for record in records]
        return records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "encode", encode)
        book = chain.run()

    assert chain.kept(bus.EVENTS) == 1
    assert chain.kept(bus.DEAD) == 2
    assert book.imbalance == 0


def test_a_fenced_collector_starts_again_from_its_last_commit(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)], [flow(2)], [flow(3)]])
    chain.batching = Batching(rows=1)
    commits = 0
    original = chain.engine.commit

    async def commit(step: object) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            raise Fenced("another process took over")
        await original(step)  # type: ignore[arg-type]

    chain.engine.commit = commit  # type: ignore[method-assign]
    chain.run()

    assert chain.shell.opened_at == [0, 1]
    assert chain.kept(bus.EVENTS) == 3


def test_stopping_commits_what_was_taken(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)]])

    class Endless(ListShell):
        async def read(self):  # type: ignore[no-untyped-def]
            if self._next < len(self.items):
                return await super().read()
            chain.stop.set()
            await asyncio.Event().wait()

    chain.shell = Endless(chain.shell.items)
    chain.batching = Batching(rows=1000, max_delay_ms=60_000)
    chain.run()

    assert chain.kept(bus.EVENTS) == 1


def test_the_hand_clock_never_waits() -> None:
    clock = HandClock()

    asyncio.run(clock.sleep(3600))

    assert clock.slept == [3600]


def test_only_the_frame_that_crashes_a_decoder_is_dead_lettered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path, [[flow(serial) for serial in range(10, 17)]])
    feed = SuricataDecoder.feed

    def buggy(self: SuricataDecoder, frames: Frames) -> Decoded:
        if b'"flow_id":13,' in frames.data:
            raise pl.exceptions.PanicException("unlucky")
        return feed(self, frames)

    monkeypatch.setattr(SuricataDecoder, "feed", buggy)
    book = chain.run()

    assert chain.kept(bus.EVENTS) == 6
    assert chain.kept(bus.DEAD) == 1
    assert book.components["ringfence.collect.list"].dead == 1
    assert book.imbalance == 0


def test_a_shell_that_waits_is_told_after_each_commit_and_blank_lines_do_not_keep_it_waiting(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [[flow(1)], [b"\n"], [b"\n"]])
    told: list[tuple[str, bytes]] = []
    commit = chain.engine.commit

    class WaitingShell(ListShell):
        def settle(self, position: bytes) -> None:
            told.append(("settled", position))

        async def read(self) -> Delivery:
            if self._next:
                await asyncio.sleep(0.15)  # longer than a batch may wait
            return await super().read()

    async def noted(step: Step) -> None:
        await commit(step)
        told.append(("committed", step.state.get("position", b"")))

    chain.shell = WaitingShell(chain.shell.items)
    chain.engine.commit = noted  # type: ignore[method-assign]
    chain.run()

    own = [entry for entry in told if entry[1]]
    assert own == [(what, position) for position in (b"1", b"2", b"3") for what in ("committed", "settled")]


class CountingDecoder:
    """Learns how many frames it has seen; cannot go on without knowing."""

    def __init__(self) -> None:
        self.seen = 0
        self.restored: list[bytes] = []

    def feed(self, frames: Frames) -> Decoded:
        self.seen += len(frames)
        return Decoded({}, len(frames))

    def snapshot(self) -> bytes:
        return b"%d" % (self.seen // 10)

    def restore(self, state: bytes) -> None:
        self.restored.append(state)
        self.seen = 10 * int(state)


def test_what_a_decoder_learnt_is_there_after_a_restart() -> None:
    decoders: list[CountingDecoder] = []
    items: list[list[bytes]] = []

    def build() -> Collector:
        decoders.append(CountingDecoder())
        return Collector("counting", ListShell(list(items)), decoders[-1])

    async def main() -> list[Mapping[str, bytes]]:
        engine = open_bus("memory:", BusSettings(), READERS)
        await engine.open()
        states = []
        try:
            for count in (20, 1, 10):
                items.append([b"x"] * count)
                await CollectStage("counting", build, engine, Batching(), 1, SystemClock()).run(asyncio.Event())
                states.append((await engine.states())["ringfence.collect.counting"])
        finally:
            await engine.close()
        return states

    states = asyncio.run(main())

    assert [decoder.restored for decoder in decoders] == [[], [b"2"], [b"2"]]
    assert [state["decoder"] for state in states] == [b"2", b"2", b"3"]


def seen_twice(observer: str) -> bytes:
    return flow(1).replace(b'"event_type"', f'"host":"{observer}","event_type"'.encode())


def test_a_crossing_that_two_observers_report_is_one_test_across_restarts(tmp_path: Path) -> None:
    loaded = topology.load(topology_file(tmp_path))
    items: list[list[bytes]] = []

    async def main() -> tuple[ledger.Ledger, int]:
        engine = open_bus("memory:", BusSettings(), READERS)
        await engine.open()
        clock, ended = SystemClock(), asyncio.Event()
        ended.set()
        sink = KeepingSink((bus.BOUNDARY,))
        try:
            for observer in ("ids1", "ids2", "ids2", "ids1"):
                items.append([seen_twice(observer)])
                collector = Collector("suricata", ListShell(list(items)), SuricataDecoder())
                await CollectStage("list", lambda made=collector: made, engine, Batching(), 1, clock).run(asyncio.Event())  # type: ignore[misc]
                await ProcessStage(lambda: [Segments(loaded), Boundaries(loaded)], engine, clock).run(ended)
            await SinkStage("keep", sink, lambda: [], engine, clock).run(ended)
            return await ledger.read(engine, {"ringfence.process": (bus.EVENTS,), "ringfence.sink.keep": (bus.BOUNDARY,)}), len(
                sink.rows
            )
        finally:
            await engine.close()

    book, tests = asyncio.run(main())

    counts = book.components["ringfence.process"]
    assert tests == 2  # ids1 reported it twice
    assert (counts.received, counts.done, counts.merged, counts.written[bus.BOUNDARY]) == (4, 4, 2, 2)
    assert book.imbalance == 0


def test_a_new_topology_does_not_forget_what_was_reported(tmp_path: Path) -> None:
    loaded = topology.load(topology_file(tmp_path))
    stage = ProcessStage(
        lambda: [Segments(loaded), Boundaries(loaded)], open_bus("memory:", BusSettings(), READERS), SystemClock()
    )
    stage.reload()
    (_, boundaries) = stage._processors
    boundaries.restore(bytes(range(16)))  # type: ignore[attr-defined]

    stage.reload()

    assert stage._processors[1] is not boundaries
    assert stage._processors[1].snapshot() == bytes(range(16))  # type: ignore[attr-defined]


@given(st.lists(st.binary(max_size=13), min_size=1, max_size=5))
def test_a_state_that_is_stored_in_pieces_comes_back_whole(states: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "MAX_STATE_BYTES", 4)
        stored: dict[str, bytes] = {}
        for state in states:
            parts = stages.pieces("processor/1", state)
            stored |= {name: part for name, part in parts.items() if stored.get(name) != part}

            assert max(map(len, parts.values())) <= 4
            assert stages.joined("processor/1", stored) == state
            assert stages.joined("processor/1", {"processor/1": state}) == state


def test_an_alert_goes_on_across_restarts_and_exceptions_are_counted(tmp_path: Path) -> None:
    loaded = topology.load(topology_file(tmp_path))
    (tmp_path / "exceptions.yml").write_text(
        "exceptions: {stage-test: {owner: a, reason: b, expires: 2099-01-01, match: {rule: Traffic passed between tenants}}}\n"
    )
    rules = RuleFiles(sigma=[BUNDLED], exceptions=tmp_path / "exceptions.yml").load()
    items: list[list[bytes]] = []

    def processors() -> list[Processor]:
        return [Segments(loaded), Boundaries(loaded), Sigma(rules.sigma, loaded), Alerts(rules.exceptions)]

    async def main() -> list[tuple[str, int]]:
        engine = open_bus("memory:", BusSettings(), {**READERS, "ringfence.sink.keep": (bus.ALERTS,)})
        await engine.open()
        clock, ended = SystemClock(), asyncio.Event()
        ended.set()
        sink = KeepingSink((bus.ALERTS,))
        try:
            for start in range(0, 12, 4):
                items.append([flow(serial, port=22) for serial in range(start, start + 4)])
                collector = Collector("suricata", ListShell(list(items)), SuricataDecoder())
                await CollectStage("list", lambda made=collector: made, engine, Batching(), 1, clock).run(asyncio.Event())  # type: ignore[misc]
                await ProcessStage(processors, engine, clock).run(ended)
            await SinkStage("keep", sink, lambda: [], engine, clock).run(ended)
            return sink.rows
        finally:
            await engine.close()

    rows = asyncio.run(main())

    assert rows == [(bus.ALERTS, 1), (bus.ALERTS, 2)]  # new, and updated at the tenth detection
    assert telemetry.EXCEPTED.labels("stage-test")._value.get() == 12
