"""The bus on Kafka, through kafka-python 3.0.12 and transactions (brokers 2.5 and later, for KIP-447).

    read     a consumer of the group: cooperative-sticky, static member, read_committed, offsets never committed by itself
    commit   one transaction of a producer: records, state records and the group's offsets
    state    the compacted topic `ringfence.state.v1`, keyed `<group>/<component>`, read to its end by every join

kafka-python blocks, so each client lives on a thread of its own. Its commit, abort and send_offsets have no time limit; here
they have one (`COMMIT_SECS`), after which that producer is given up, and the next one, by init_transactions() under the same
transactional id, makes the broker finish or abort whatever the old one left. A step that ran out of time before its end was
asked for was not written (Retryable). Afterwards it may have been or not: Fenced, and `join` reads back what is true.

Topics are never made here except by `create_topics` (`ringfence setup bus`). Not supported: brokers that force KIP-848 groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence.batch import Position, Record, Step
from ringfence.bus import STATE, TOPICS, BusSettings
from ringfence.bus.kafka_clients import (
    COMMIT_SECS,
    OPEN_SECS,
    Consumer,
    KafkaAdminClient,
    Producer,
    Reasons,
    T,
    Tail,
    TopicPartition,
    Worker,
    client_config,
    kafka_errors,
    words,
)  # fmt: skip
from ringfence.errors import Fenced, Permanent, Retryable

MAX_UNACKED_BYTES = 32 << 20  # kafka-python has no bound of its own
STATE_SEGMENT_BYTES = 64 << 20


@dataclass(slots=True)
class _Member:
    """A joined group: its producer (made anew after a failure) and, if it reads anything, its consumer."""

    producer: Producer | None = None
    consumer: Consumer | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_joined: bool = False
    is_fenced: bool = False


class _Room:
    """Bytes of steps that the broker has not acknowledged, over all groups."""

    def __init__(self) -> None:
        self._used = 0
        self._freed = asyncio.Event()

    async def take(self, size: int) -> int:
        """Wait until there is room; a step that is larger than all of it goes alone."""
        size = min(size, MAX_UNACKED_BYTES)
        while self._used + size > MAX_UNACKED_BYTES:
            self._freed.clear()
            await self._freed.wait()
        self._used += size
        return size

    def free(self, size: int) -> None:
        """Give room back."""
        self._used -= size
        self._freed.set()


class KafkaBus:
    """A `Bus` on Kafka."""

    def __init__(self, addresses: Sequence[str], settings: BusSettings, topics: Sequence[str] = TOPICS) -> None:
        self._addresses = tuple(addresses)
        self._wanted = tuple(topics)
        self._settings = settings
        self._members: dict[str, _Member] = {}
        self._topics: set[str] = set()
        self._config: dict[str, Any] = {}
        self._room = _Room()
        self._tails: set[Tail] = set()

    async def open(self) -> None:
        """Reach a broker, log in and see that the topics exist."""
        self._prepare()
        self._topics = await self._admin(lambda admin: set(admin.list_topics()))
        self._require([*self._wanted, STATE])

    def _prepare(self) -> None:
        self._config = client_config(self._addresses, self._settings, f"ringfence-{self._settings.instance}")

    async def _admin(self, work: Callable[[KafkaAdminClient], T]) -> T:
        """Do something with an administration client; Permanent if no broker can be reached."""

        def run() -> T:
            with reasons.listening():
                admin = KafkaAdminClient(**self._config)
            try:
                return work(admin)
            finally:
                admin.close()

        reasons = Reasons()
        worker = Worker("admin")
        try:
            return await worker.call(run, OPEN_SECS + COMMIT_SECS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            where = ",".join(self._addresses)
            reason = reasons.reason if isinstance(error, kafka_errors.KafkaTimeoutError) else words(error)
            raise Permanent(f"Kafka at {where} cannot be used: {reason}") from error
        finally:
            worker.stop()

    async def create_topics(self, topics: Sequence[str] = TOPICS) -> Sequence[str]:
        """Make the topics that do not exist yet, and the one for state (`ringfence setup bus`); returns their names."""
        self._prepare()
        made = await self._admin(lambda admin: self._create(admin, topics))
        self._topics |= {*topics, STATE}
        return made

    def _create(self, admin: KafkaAdminClient, topics: Sequence[str]) -> Sequence[str]:
        present = set(admin.list_topics())
        copies = self._settings.replication_factor or -1
        wanted: dict[str, Any] = {
            topic: {"num_partitions": self._settings.partitions, "replication_factor": copies} for topic in topics
        }
        # only closed segments are compacted, and every join reads all of it
        compact = {"cleanup.policy": "compact", "segment.bytes": str(STATE_SEGMENT_BYTES)}
        wanted[STATE] = {"num_partitions": 1, "replication_factor": copies, "configs": compact}
        missing = {topic: options for topic, options in wanted.items() if topic not in present}
        if missing:
            admin.create_topics(missing, timeout_ms=int(OPEN_SECS * 1000), wait_for_metadata=True)
        return list(missing)

    def _require(self, topics: Collection[str]) -> None:
        missing = [topic for topic in topics if topic not in self._topics]
        if missing:
            raise Permanent(f"Kafka has no topic {missing[0]}: make the topics with the command ringfence setup bus")

    async def _look_for(self, topics: Collection[str]) -> None:
        """Raise Permanent if a topic does not exist; asks the broker only about those that were not seen before."""
        if not self._topics.issuperset(topics):
            try:
                self._topics = await self._admin(lambda admin: set(admin.list_topics()))
            except Permanent as error:  # it could be reached at open()
                raise Retryable(str(error)) from error
        self._require(topics)

    async def join(self, group: str, topics: Sequence[str]) -> Mapping[str, bytes]:
        """Fence earlier processes of this instance, take partitions, and read the state that is committed by then."""
        await self._look_for([*topics, STATE])
        member = self._members.setdefault(group, _Member())
        async with member.turn:
            if member.is_fenced and member.producer is not None:
                self._drop_producer(member)
            await self._producer_of(group, member)
            if member.consumer is not None and (member.is_fenced or member.consumer.topics != frozenset(topics)):
                await member.consumer.close()
                member.consumer = None
            if topics and member.consumer is None:
                member.consumer = Consumer(group, topics, self._settings.instance, self._config)
            if member.consumer is not None:
                await member.consumer.begin()
            states = await self.states()
            member.is_joined, member.is_fenced = True, False
        return states.get(group, {})

    async def _producer_of(self, group: str, member: _Member) -> Producer:
        if member.producer is None:
            producer = Producer(group, self._settings.instance, self._config)
            try:
                await producer.connect()
            except BaseException:
                producer.discard()
                raise
            member.producer = producer
        return member.producer

    def _drop_producer(self, member: _Member) -> None:
        if member.producer is not None:
            member.producer.discard()
            member.producer = None

    async def read(self, group: str, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Return the next records; at least one if there is any, even if it alone exceeds `max_bytes`."""
        member = self._member(group)
        if member.consumer is None:
            await asyncio.sleep(wait_secs)
            return ()
        try:
            return await member.consumer.read(max_records, max_bytes, wait_secs)
        except Fenced:
            member.is_fenced = True
            raise

    async def commit(self, step: Step) -> None:
        """Write a step as one transaction. One that is cancelled may still be written; `join` tells."""
        member = self._member(step.group)
        await self._look_for(step.outputs)
        size = sum(record.size for records in step.outputs.values() for record in records)
        async with member.turn:
            self._member(step.group)  # an earlier step in the queue may have been fenced
            try:
                await self._transact(step, member, size + sum(map(len, step.state.values())))
            except Fenced:
                member.is_fenced = True
                raise

    async def _transact(self, step: Step, member: _Member, size: int) -> None:
        membership = member.consumer.membership(step.done) if member.consumer and step.done else None
        producer = await self._producer_of(step.group, member)
        taken = await self._room.take(size)
        loop = asyncio.get_running_loop()

        def freed() -> None:
            loop.call_soon_threadsafe(self._room.free, taken)

        try:
            await producer.transact(step, membership, freed)
        except (Retryable, Permanent, Fenced):
            self._drop_producer(member)
            raise
        if member.consumer:
            member.consumer.settled(step.done)

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """The committed state of every group that has any."""
        tail = Tail(self._config)
        try:
            return await tail.states()
        finally:
            await tail.close()

    def unread(self, group: str, topic: str) -> AsyncIterator[tuple[Position, Record]]:
        """What a group has not committed yet, up to the head as of the call."""
        tail = Tail({**self._config, "group_id": group})
        self._tails.add(tail)
        bounds = tail.worker.submit(lambda: tail.seek(topic))
        return self._unread(tail, asyncio.wrap_future(bounds), topic)

    async def _unread(
        self, tail: Tail, bounds: asyncio.Future[dict[TopicPartition, int]], topic: str
    ) -> AsyncIterator[tuple[Position, Record]]:
        try:
            await self._look_for([topic])
            async for entry in tail.records(await bounds):
                yield entry
        except kafka_errors.KafkaError as error:
            raise Retryable(f"topic {topic} cannot be read: {words(error)}") from error
        finally:
            self._tails.discard(tail)
            await tail.close()

    async def close(self) -> None:
        """Close every client; partitions stay ours until the session is over, so a quick restart moves nothing."""
        members, self._members = list(self._members.values()), {}
        for member in members:
            if member.producer is not None:
                await member.producer.close()
            if member.consumer is not None:
                await member.consumer.close()
        for tail in list(self._tails):
            await tail.close()
        self._tails.clear()

    def _member(self, group: str) -> _Member:
        member = self._members.get(group)
        if member is None or not member.is_joined:
            raise Fenced(f"group {group} has not been joined here")
        if member.is_fenced:
            raise Fenced(f"group {group} was lost and has to be joined again")
        return member
