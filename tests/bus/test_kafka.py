from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ringfence.batch import Step
from ringfence.bus import BusSettings, kafka, open_bus
from ringfence.bus.kafka import KafkaBus
from ringfence.component import Bus
from ringfence.errors import Fenced, Permanent, Retryable
from tests.bus import contract
from tests.bus.broker import ADDRESS, NEEDS_KAFKA
from tests.bus.contract import MUCH, Engine, after, record, take


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


@pytest.fixture
def engine() -> Engine:
    return contract.kafka(ADDRESS)


def marked(test: Any) -> Any:
    for mark in NEEDS_KAFKA:
        test = mark(test)
    return test


@pytest.mark.net
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # kafka-python forgets the socket of a refused attempt
def test_an_unreachable_broker_is_one_sentence_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "OPEN_SECS", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def scenario() -> None:
            bus = open_bus(f"kafka://127.0.0.1:{port}")
            with pytest.raises(Permanent, match=f"^Kafka at 127.0.0.1:{port} cannot be used: connection refused$"):
                await bus.open()
            await bus.close()

        run(scenario)
    gc.collect()


@pytest.mark.parametrize("package", ["crc32c", "lz4"])
def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))

    async def scenario() -> None:
        with pytest.raises(Permanent, match=f"pip install {package}"):
            await open_bus("kafka://127.0.0.1:1").open()

    run(scenario)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param(BusSettings(ssl_cafile="/missing.pem"), "the file /missing.pem, .*, cannot be read", id="ca"),
        pytest.param(
            BusSettings(
                security_protocol="SASL_SSL",
                sasl_mechanism="PLAIN",
                sasl_username="alice",
                sasl_password="env:RINGFENCE_NO_SUCH",  # noqa: S106
            ),
            "the environment variable RINGFENCE_NO_SUCH",
            id="password",
        ),
    ],
)
def test_a_missing_credential_is_named(settings: BusSettings, sentence: str) -> None:
    async def scenario() -> None:
        with pytest.raises(Permanent, match=sentence):
            await open_bus("kafka://127.0.0.1:1", settings).open()

    run(scenario)


@marked
def test_a_missing_topic_is_named_with_the_command_that_makes_it(engine: Engine) -> None:
    async def scenario() -> None:
        missing = engine.name("missing")
        sentence = f"^Kafka has no topic {missing}: make the topics with the command ringfence setup bus$"
        async with engine.bus() as bus:
            with pytest.raises(Permanent, match=sentence):
                await bus.join(engine.name("reader"), [missing])
            await bus.join(engine.name("source"), [])
            with pytest.raises(Permanent, match=sentence):
                await bus.commit(Step(engine.name("source"), {missing: [record(1)]}))

    run(scenario)


@marked
def test_the_transaction_of_a_zombie_is_aborted_and_its_next_step_fenced(engine: Engine) -> None:
    async def scenario() -> None:
        source, reader, topic, out = (engine.name(name) for name in ("source", "reader", "in", "out"))
        async with engine.bus() as zombie, engine.bus() as heir:
            assert isinstance(zombie, KafkaBus)
            await zombie.join(source, [])
            await zombie.commit(Step(source, {topic: [record(1), record(2)]}, state={"tail": b"1"}))
            await zombie.join(reader, [topic])
            found = await take(zombie, reader, 2)
            begin_and_stall(zombie, source, topic)
            assert await heir.join(source, []) == {"tail": b"1"}
            await heir.commit(Step(source, {topic: [record(3)]}, state={"tail": b"2"}))
            assert [entry async for _, entry in heir.unread(reader, topic)] == [record(1), record(2), record(3)]
            await heir.join(reader, [topic])
            step = Step(reader, {out: [record(4)]}, after([at for at, _ in found]), {"rules": b"zombie"})
            with pytest.raises(Fenced):
                await zombie.commit(step)
            assert [entry for _, entry in await take(heir, reader, 3)] == [record(1), record(2), record(3)]
            assert [entry async for _, entry in heir.unread(reader, out)] == []
            assert reader not in await heir.states()

    def begin_and_stall(bus: KafkaBus, group: str, topic: str) -> None:
        """A transaction as a process leaves it that stops in the middle: sent, acknowledged, and never ended."""
        producer = bus._members[group].producer
        assert producer is not None
        assert producer._client is not None
        producer._client.begin_transaction()
        producer._client.send(topic, key=b"actor", value=b"of the zombie").get(10)

    run(scenario)


@marked
def test_a_refused_step_leaves_nothing_behind_and_the_next_one_lands(engine: Engine) -> None:
    async def scenario(bus: Bus) -> None:
        source, reader, topic, out = (engine.name(name) for name in ("source", "reader", "in", "out"))
        await bus.join(source, [])
        await bus.join(reader, [topic])
        await bus.commit(Step(source, {topic: [record(1)]}))
        found = await take(bus, reader, 1)
        too_large = record(2, size=2 << 20)
        with pytest.raises(Permanent, match="was refused"):
            await bus.commit(Step(reader, {out: [record(3), too_large]}, after([at for at, _ in found]), {"rules": b"1"}))
        assert [entry async for _, entry in bus.unread(reader, out)] == []
        assert await bus.join(reader, [topic]) == {}
        again = await take(bus, reader, 1)
        assert again == found
        await bus.commit(Step(reader, {out: [record(4)]}, after([at for at, _ in again]), {"rules": b"2"}))
        assert [entry async for _, entry in bus.unread(reader, out)] == [record(4)]
        assert not await bus.read(reader, 1, MUCH, 0.0)

    engine.test(scenario)


@marked
def test_a_step_that_took_too_long_is_not_written_later_and_lands_once_when_repeated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bus: Bus) -> None:
        assert isinstance(bus, KafkaBus)
        source, topic = engine.name("source"), engine.name("in")
        step = Step(source, {topic: [record(1)]}, state={"tail": b"1"})
        await bus.join(source, [])
        stalled = bus._members[source].producer
        assert stalled is not None
        gate = threading.Event()
        stalled._worker.submit(gate.wait)
        with monkeypatch.context() as patch:
            patch.setattr(kafka, "COMMIT_SECS", 0.05)
            with pytest.raises(Retryable, match="could be written"):
                await bus.commit(step)
        gate.set()
        await bus.commit(step)
        assert [entry async for _, entry in bus.unread(engine.name("reader"), topic)] == [record(1)]

    engine.test(scenario)
