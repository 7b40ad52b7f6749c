"""A topic read as lines: what its frames are named after, and, on a real broker, that nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from collectors import beats, kafka_topic, suricata, zeek
from collectors.kafka_topic import KafkaTopic, KafkaTopicShell, source_of
from ringfence.bus.kafka_clients import KafkaAdminClient, KafkaConsumer, TopicPartition, client_config
from ringfence.component import BuildContext, Delivery
from ringfence.errors import Permanent, Retryable
from ringfence.topology import EMPTY
from tests.bus.broker import ADDRESS, NEEDS_KAFKA
from tests.cli.command import command
from tests.collectors.test_beats import document
from tests.eve_lines import topology_file

TIMEOUT_SECS = 60


def marked(test: Any) -> Any:
    for mark in NEEDS_KAFKA:
        test = mark(test)
    return pytest.mark.net(test)


def settings(topic: str = "winlogbeat", **more: Any) -> KafkaTopic:
    return KafkaTopic(bootstrap=ADDRESS or "127.0.0.1:1", topic=topic, **more)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"bootstrap": "host"}, "is not HOST:PORT"),
        ({"topic": "a b"}, "should match pattern"),
        ({"partitions": ()}, "at least 1"),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism"),
        ({"sasl_password": "secret"}, "should match pattern"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        KafkaTopic(**{"bootstrap": "h:1", "topic": "t", **more})


def test_a_secret_is_never_shown() -> None:
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "ann"}

    assert "RINGFENCE_X" not in repr(settings(**login, sasl_password="env:RINGFENCE_X"))  # noqa: S106


@pytest.mark.parametrize("kind", [beats.KIND, suricata.KIND, zeek.KIND], ids=lambda kind: type(kind).__name__)
def test_collectors_of_json_lines_read_a_topic(kind: Any) -> None:
    chosen = kind.settings.model_validate({"kafka": {"bootstrap": "h:1", "topic": "t", "partitions": [0, 2]}})

    assert isinstance(kind.build(chosen, BuildContext("c", EMPTY)).shell, KafkaTopicShell)
    assert list(kind.resources(chosen)) == ["kafka h:1 t 0", "kafka h:1 t 2"]


@pytest.mark.parametrize("kind", [beats.KIND, suricata.KIND, zeek.KIND], ids=lambda kind: type(kind).__name__)
def test_a_topic_and_a_file_are_not_read_at_once(kind: Any) -> None:
    with pytest.raises(ValidationError, match=r"exactly one of path,? .*kafka is required"):
        kind.settings.model_validate({"path": "/x", "kafka": {"bootstrap": "h:1", "topic": "t"}})


def test_zeek_reads_a_topic_as_json_only() -> None:
    with pytest.raises(ValidationError, match="read as json"):
        zeek.KIND.settings.model_validate({"kafka": {"bootstrap": "h:1", "topic": "t"}, "format": "tsv"})


def polled(**values: list[bytes | None]) -> Any:
    records = {
        TopicPartition("t", int(name[1:])): [SimpleNamespace(value=value, offset=70 + at) for at, value in enumerate(found)]
        for name, found in values.items()
    }
    return SimpleNamespace(records=records, expired=0)


def test_a_frame_is_named_after_its_topic_partition_and_offset() -> None:
    delivery = KafkaTopicShell(settings("t"))._delivery(polled(p0=[b"a", None], p3=[b"bc"]))

    assert [delivery.frames.frame(row) for row in range(3)] == [b"a", b"", b"bc"]
    assert [delivery.frames.sources[index].name for index in delivery.frames.source] == ["t/0", "t/0", "t/3"]
    assert delivery.frames.positions.tolist() == [70, 71, 70]
    assert json.loads(delivery.position) == {"offsets": {"0": 72, "3": 71}}
    assert source_of("t", 0).identity != source_of("t", 3).identity != source_of("u", 3).identity


def test_a_shell_that_is_not_open_cannot_be_read() -> None:
    async def scenario() -> None:
        shell = KafkaTopicShell(settings())
        await shell.close()
        with pytest.raises(Permanent, match="is not open"):
            await shell.read()

    asyncio.run(scenario())


@contextmanager
def topic(partitions: int = 2) -> Iterator[str]:
    """A topic that is there for one test."""
    name = f"beats-{uuid.uuid4().hex[:10]}"
    admin = KafkaAdminClient(**client_config([ADDRESS], settings(), "test"))
    try:
        admin.create_topics(
            {name: {"num_partitions": partitions, "replication_factor": 1}}, timeout_ms=10_000, wait_for_metadata=True
        )
        yield name
        admin.delete_topics([name])
    finally:
        admin.close()


def write(name: str, *values: bytes | None, partition: int = 0) -> None:
    from kafka import KafkaProducer  # its first import warns, which kafka_clients has seen to

    producer = KafkaProducer(bootstrap_servers=[ADDRESS], acks="all", metrics_enabled=False)
    for value in values:
        producer.send(name, value=value, key=b"k", partition=partition)
    producer.flush(30)
    producer.close(timeout=10)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(TIMEOUT_SECS):
            await scenario()

    asyncio.run(within())


async def read(shell: KafkaTopicShell, count: int) -> tuple[list[tuple[str, int, bytes]], Delivery]:
    """Read until so many frames have come: stream, offset and bytes of each, and the last delivery."""
    found: list[tuple[str, int, bytes]] = []
    while True:
        delivery = await shell.read()
        frames = delivery.frames
        found += [
            (frames.sources[frames.source[row]].name, int(frames.positions[row]), frames.frame(row))
            for row in range(len(frames))
        ]
        if len(found) >= count:
            return sorted(found), delivery


@marked
def test_a_topic_is_read_once_across_restarts() -> None:
    async def scenario(name: str) -> None:
        shell = KafkaTopicShell(settings(name))
        write(name, b"a", b"b")
        write(name, b"c", None, partition=1)
        await shell.open(b"")
        found, delivery = await read(shell, 4)
        assert found == [(f"{name}/0", 0, b"a"), (f"{name}/0", 1, b"b"), (f"{name}/1", 0, b"c"), (f"{name}/1", 1, b"")]
        write(name, b"d")
        await shell.close()
        await shell.open(delivery.position)
        assert (await read(shell, 1))[0] == [(f"{name}/0", 2, b"d")]
        await shell.open(b"")
        assert len((await read(shell, 5))[0]) == 5
        await shell.close()

    with topic() as name:
        run(lambda: scenario(name))


@marked
def test_what_a_cancelled_read_fetched_is_delivered_by_the_next() -> None:
    async def scenario(name: str) -> None:
        shell = KafkaTopicShell(settings(name))
        await shell.open(b"")
        reading = asyncio.ensure_future(shell.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        write(name, b"a")
        assert (await read(shell, 1))[0] == [(f"{name}/0", 0, b"a")]
        await shell.close()

    with topic() as name:
        run(lambda: scenario(name))


@marked
def test_the_groups_offsets_follow_what_is_durable_and_are_where_a_new_collector_starts() -> None:
    async def scenario(name: str) -> None:
        shell = KafkaTopicShell(settings(name, group=f"g-{name}"))
        write(name, b"a", b"b")
        await shell.open(b"")
        _, delivery = await read(shell, 2)
        assert committed(name) is None
        shell.settle(delivery.position)
        await shell.close()
        assert committed(name) == 2
        write(name, b"c")
        await shell.open(b"")
        assert (await read(shell, 1))[0] == [(f"{name}/0", 2, b"c")]
        await shell.close()

    def committed(name: str) -> int | None:
        consumer = KafkaConsumer(
            bootstrap_servers=[ADDRESS], group_id=f"g-{name}", enable_auto_commit=False, metrics_enabled=False
        )
        try:
            found: int | None = consumer.committed(TopicPartition(name, 0))
            return found
        finally:
            consumer.close(autocommit=False)

    with topic() as name:
        run(lambda: scenario(name))


@marked
def test_records_that_kafka_deleted_unread_are_counted_and_the_next_are_marked() -> None:
    async def scenario(name: str) -> None:
        shell = KafkaTopicShell(settings(name))
        write(name, b"a")
        await shell.open(b"")
        _, delivery = await read(shell, 1)
        await shell.close()
        write(name, b"b", b"c", b"d")
        admin = KafkaAdminClient(**client_config([ADDRESS], settings(), "test"))
        admin.delete_records({TopicPartition(name, 0): 3})
        admin.close()
        await shell.open(delivery.position)
        gone = await shell.read()
        found, delivery = await read(shell, 1)
        assert dict(gone.shed) == {"expired": 2}
        assert found == [(f"{name}/0", 3, b"d")]
        assert delivery.frames.lossy == {0}
        await shell.close()

    with topic(1) as name:
        run(lambda: scenario(name))


@marked
def test_new_partitions_are_found_and_read_from_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_topic, "LOOK_SECS", 0.0)

    async def scenario(name: str) -> None:
        shell = KafkaTopicShell(settings(name, start="latest"))
        write(name, b"old")
        await shell.open(b"")
        write(name, b"a")
        assert (await read(shell, 1))[0] == [(f"{name}/0", 1, b"a")]
        admin = KafkaAdminClient(**client_config([ADDRESS], settings(), "test"))
        admin.create_partitions({name: 2})
        admin.close()
        write(name, b"b", partition=1)
        shell._client.config["metadata_max_age_ms"] = 100  # type: ignore[union-attr]
        shell._client._client.cluster.request_update()  # type: ignore[union-attr]
        assert (await read(shell, 1))[0] == [(f"{name}/1", 0, b"b")]
        await shell.close()

    with topic(1) as name:
        run(lambda: scenario(name))


@marked
def test_a_topic_that_does_not_exist_yet_is_waited_for() -> None:
    async def scenario() -> None:
        shell = KafkaTopicShell(settings("none-such"))
        with pytest.raises(Retryable, match="there is no topic none-such"):
            await shell.open(b"")
        await shell.close()

    run(scenario)


@marked
def test_documents_of_a_topic_are_delivered_once_by_two_runs(tmp_path: Path) -> None:
    with topic() as name:
        write(name, *[document(message=str(number)) for number in range(20)])
        first = collect(tmp_path, name, 20)
        write(name, b"no json", *[document(message=str(number)) for number in range(20, 30)], partition=1)
        second = collect(tmp_path, name, 30)

    assert (len(first), len(second)) == (20, 30)
    assert {line["message"] for line in second} == {str(number) for number in range(30)}
    assert len({line["event"]["id"] for line in second}) == 30
    dead = [json.loads(line) for line in (tmp_path / "out" / "dead.jsonl").read_text().splitlines()]
    assert [line["ringfence"]["dead"]["input"] for line in dead] == [f"{name}/1"]


def collect(folder: Path, name: str, count: int) -> list[dict[str, Any]]:
    """Run until so many events were delivered in all runs, and return them."""
    topology_file(folder)
    (folder / "ringfence.yml").write_text(
        f"bus: sqlite:bus\ntopology: topology.yml\ncollectors:\n  hosts: {{type: beats, kafka: {{bootstrap: '{ADDRESS}', topic: {name}}}}}\n"
        "sinks:\n  files: {type: jsonl, path: out}\n"
    )
    events = folder / "out" / "events.jsonl"
    process = subprocess.Popen(command("run", folder / "ringfence.yml"), cwd=folder, stderr=subprocess.DEVNULL)
    until = time.monotonic() + TIMEOUT_SECS
    while time.monotonic() < until and (not events.exists() or events.read_bytes().count(b"\n") < count):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    return [json.loads(line) for line in events.read_text().splitlines()]
