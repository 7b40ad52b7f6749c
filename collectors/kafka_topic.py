"""Shell that reads a topic of Kafka in which each record holds one line: what Beats, Suricata or Zeek write to it.

The partitions are assigned, not shared by a consumer group: the offsets are the position, committed with the rows that
came of them, so nothing is lost or repeated. Event ids are made of topic, partition and offset, the same when a topic is
read again. Several collectors can share a topic by `partitions`. With `group`, the offsets of what is durable are also
committed under that name, for tools that show lag, and a collector without a position starts there.

Records that Kafka deleted before they were read are counted as shed `expired`, as far as offsets tell: between two
offsets there may have been none. The next frames of that partition are marked lossy. A record without a value
(a tombstone) is an empty line. What the client fetched ahead is bounded by FETCH_BYTES for each broker. A topic or a partition that does not exist yet is waited for.

Source: `name` is TOPIC/PARTITION, `identity` a hash of that, and the position of a frame its offset.

Sample position: {"offsets":{"0":1812,"1":1790}}
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from collectors.lines import LineFramer
from collectors.tail import TailShell
from ringfence.batch import Frames, Source
from ringfence.bus import KafkaLogin
from ringfence.bus.kafka_clients import (
    CONSUMER,
    OPEN_SECS,
    POLL_SECS,
    KafkaConsumer,
    OffsetAndMetadata,
    TopicPartition,
    Worker,
    client_config,
    kafka_errors,
    words,
)
from ringfence.component import Delivery, Shell
from ringfence.errors import Permanent, Retryable
from ringfence.yamlfile import ConfigPath

MAX_RECORDS = 5_000
LOOK_SECS = 30.0
"""How often new partitions are looked for."""
COMMIT_SECS = 1.0
"""How often the group's offsets are committed at most."""

_log = logging.getLogger(__name__)


def _addresses(text: str) -> str:
    if not re.fullmatch(r"[^,\s]+:\d{1,5}(,[^,\s]+:\d{1,5})*", text):
        raise ValueError(f"{text!r} is not HOST:PORT[,HOST:PORT...]")
    return text


class KafkaTopic(KafkaLogin):
    """A topic of a Kafka cluster."""

    bootstrap: Annotated[str, AfterValidator(_addresses)] = Field(
        description="HOST:PORT of one broker or more, with commas between them."
    )
    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$", description="Topic to read.")
    group: str | None = Field(default=None, min_length=1, description="Consumer group whose offsets follow what was read.")
    start: Literal["earliest", "latest"] = Field(default="earliest", description="Where to begin when nothing was read before.")
    partitions: tuple[int, ...] | None = Field(default=None, min_length=1, description="Only these partitions, else all.")

    def claims(self) -> Sequence[str]:
        """What no second collector may read."""
        where = f"kafka {self.bootstrap} {self.topic}"
        return [where] if self.partitions is None else [f"{where} {number}" for number in self.partitions]


def require_one(settings: BaseModel, *names: str) -> None:
    """Raise ValueError unless exactly one of these settings is given."""
    if sum(getattr(settings, name) is not None for name in names) != 1:
        raise ValueError(f"exactly one of {', '.join(names[:-1])} and {names[-1]} is required")


class FileOrTopic(BaseModel):
    """What collectors of JSON documents read: a file, once or followed across rotation, or a topic of Kafka."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File to read.")
    kafka: KafkaTopic | None = Field(default=None, description="Topic of Kafka to read; exactly one of path and kafka.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the sensor; the host of the document when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each document as event.original.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_one(self, "path", "kafka")
        return self

    @property
    def keeps_original(self) -> bool:
        """Whether rows keep the document that they came from."""
        return self.original == "keep"

    def shell(self) -> Shell:
        """What reads the file or the topic."""
        if self.kafka is not None:
            return KafkaTopicShell(self.kafka)
        return TailShell(Path(self.path or ""), LineFramer, self.follow)

    def claims(self) -> Sequence[str]:
        """What no second collector may read."""
        return (f"file {self.path}",) if self.kafka is None else self.kafka.claims()


class _Saved(msgspec.Struct, frozen=True):
    """A position as the runtime keeps it."""

    offsets: dict[str, int]


class _Polled(msgspec.Struct):
    """What one poll brought."""

    records: Mapping[TopicPartition, Sequence[Any]]
    expired: int = 0


class KafkaTopicShell:
    """Reads the partitions of a topic from their saved offsets."""

    def __init__(self, settings: KafkaTopic, max_records: int = MAX_RECORDS) -> None:
        self._settings = settings
        self._max_records = max_records
        self._worker: Worker | None = None
        self._client: KafkaConsumer | None = None
        self._offsets: dict[int, int] = {}
        self._polling: Future[_Polled] | None = None
        self._lossy: set[int] = set()
        self._expired = 0
        self._settled: dict[int, int] = {}
        self._looked_at = self._committed_at = 0.0

    async def open(self, position: bytes) -> None:
        """Find the partitions and go to their offsets. Raises Retryable while there is no broker or no such topic."""
        await self.close()
        self._offsets = (
            {int(number): offset for number, offset in msgspec.json.decode(position, type=_Saved).offsets.items()}
            if position
            else {}
        )
        config = client_config(self._settings.bootstrap.split(","), self._settings, "ringfence-topic")
        config |= {
            **CONSUMER,
            "auto_offset_reset": "none",
            "max_poll_records": self._max_records,
            "group_id": self._settings.group,
        }
        worker = self._worker = Worker(f"topic-{self._settings.topic}")
        try:
            await worker.call(lambda: self._connect(config, bool(position)), 4 * OPEN_SECS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise Retryable(f"Kafka at {self._settings.bootstrap} cannot be read: {words(error)}") from error

    async def read(self) -> Delivery:
        """Return what the brokers sent, waiting for at least one record."""
        while True:
            if self._worker is None:
                raise Permanent(f"topic {self._settings.topic} is not open")
            if self._polling is None:
                self._polling = self._worker.submit(self._poll)
            try:
                polled = await asyncio.shield(asyncio.wrap_future(self._polling))
            except kafka_errors.KafkaError as error:
                self._polling = None
                raise Retryable(f"topic {self._settings.topic} cannot be read: {words(error)}") from error
            self._polling = None
            if polled.records or polled.expired:
                return self._delivery(polled)

    async def close(self) -> None:
        """Commit what the group still has to hear of, and leave."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with suppress(TimeoutError):
            await worker.call(self._shut, OPEN_SECS)
        worker.stop()
        self._polling = None
        self._lossy.clear()
        self._settled.clear()

    def settle(self, position: bytes) -> None:
        """Tell the group's offsets, with the next poll: nothing depends on them."""
        if self._settings.group is not None:
            saved = msgspec.json.decode(position, type=_Saved)
            self._settled = {int(number): offset for number, offset in saved.offsets.items()}

    # what follows runs on the worker's thread, except _delivery

    def _connect(self, config: Mapping[str, Any], is_known: bool) -> None:
        self._client = KafkaConsumer(**config)
        self._look(is_known)

    def _look(self, is_known: bool) -> None:
        """Assign the partitions that there are; one that is new to a known topic is read from its beginning."""
        client = self._client
        if client is None:
            return
        self._looked_at = time.monotonic()
        present = set(client.partitions_for_topic(self._settings.topic) or ())
        wanted = present if self._settings.partitions is None else set(self._settings.partitions)
        if not present or not wanted <= present:
            missing = f"partition {min(wanted - present)} of topic" if present else "topic"
            raise kafka_errors.UnknownTopicOrPartitionError(f"there is no {missing} {self._settings.topic}")
        if {TopicPartition(self._settings.topic, number) for number in wanted} == client.assignment():
            return
        partitions = [TopicPartition(self._settings.topic, number) for number in sorted(wanted)]
        client.assign(partitions)
        for partition in partitions:
            if partition.partition not in self._offsets:
                self._offsets[partition.partition] = self._first_offset(client, partition, is_known)
            client.seek(partition, self._offsets[partition.partition])

    def _first_offset(self, client: KafkaConsumer, partition: TopicPartition, is_known: bool) -> int:
        """Where to begin in a partition that was never read: after the group's offset, else as the settings say."""
        timeout_ms = int(OPEN_SECS * 1000)
        if self._settings.group is not None:
            committed = client.committed(partition, timeout_ms=timeout_ms)
            if committed is not None:
                return int(committed)
        look = client.beginning_offsets if is_known or self._settings.start == "earliest" else client.end_offsets
        return int(look([partition], timeout_ms=timeout_ms)[partition])

    def _poll(self) -> _Polled:
        client = self._client
        if client is None:
            return _Polled({})
        now = time.monotonic()
        if self._settled and now - self._committed_at >= COMMIT_SECS:
            self._commit(client)
        if now - self._looked_at >= LOOK_SECS:
            self._look(is_known=True)
        try:
            return _Polled(client.poll(timeout_ms=int(POLL_SECS * 1000), max_records=self._max_records))
        except kafka_errors.OffsetOutOfRangeError:
            return _Polled({}, self._go_to_what_is_left(client))

    def _go_to_what_is_left(self, client: KafkaConsumer) -> int:
        """Skip what the brokers deleted; returns how many offsets that are."""
        partitions = list(client.assignment())
        firsts = client.beginning_offsets(partitions, timeout_ms=int(OPEN_SECS * 1000))
        ends = client.end_offsets(partitions, timeout_ms=int(OPEN_SECS * 1000))
        skipped = 0
        for partition in partitions:
            number, expected = partition.partition, self._offsets[partition.partition]
            if firsts[partition] <= expected <= ends[partition]:
                client.seek(partition, expected)
                continue
            # beyond the end is a topic that was made anew
            skipped += max(firsts[partition] - expected, 0)
            self._lossy.add(number)
            self._offsets[number] = firsts[partition]
            client.seek(partition, firsts[partition])
            _log.error(
                "topic %s: offset %d of partition %d is gone, read on from %d",
                partition.topic,
                expected,
                number,
                firsts[partition],
            )
        return skipped

    def _commit(self, client: KafkaConsumer) -> None:
        settled, self._settled = self._settled, {}
        self._committed_at = time.monotonic()
        offsets = {
            TopicPartition(self._settings.topic, number): OffsetAndMetadata(offset, "", -1)
            for number, offset in settled.items()
        }
        try:
            client.commit(offsets, timeout_ms=int(OPEN_SECS * 500))
        except kafka_errors.KafkaError as error:
            _log.warning("the offsets of group %s could not be committed: %s", self._settings.group, words(error))

    def _shut(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            if self._settled:
                self._commit(client)
            client.close(autocommit=False, timeout_ms=int(OPEN_SECS * 500))

    def _delivery(self, polled: _Polled) -> Delivery:
        sources: list[Source] = []
        values: list[bytes] = []
        places: list[int] = []
        index: list[int] = []
        lossy: set[int] = set()
        for partition, records in polled.records.items():
            if partition.partition in self._lossy:
                self._lossy.discard(partition.partition)
                lossy.add(len(sources))
            index += [len(sources)] * len(records)
            sources.append(source_of(partition.topic, partition.partition))
            values += [record.value or b"" for record in records]
            places += [record.offset for record in records]
            self._offsets[partition.partition] = places[-1] + 1
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
        frames = Frames(
            b"".join(values),
            offsets,
            np.full(len(values), time.time_ns() // 1000, np.int64),
            np.array(index, np.uint16),
            tuple(sources),
            np.array(places, np.uint64),
            frozenset(lossy),
        )
        shed = Counter(expired=polled.expired) if polled.expired else {}
        return Delivery(frames, self._position(), shed)

    def _position(self) -> bytes:
        return msgspec.json.encode(_Saved({str(number): offset for number, offset in sorted(self._offsets.items())}))


def source_of(topic: str, partition: int) -> Source:
    """The stream that a partition is."""
    name = f"{topic}/{partition}"
    return Source(name, int.from_bytes(hashlib.blake2b(f"kafka {name}".encode(), digest_size=8).digest(), "big"))
