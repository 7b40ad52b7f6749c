"""The clients of kafka-python, each on a thread of its own and each with limits: producer, consumer, reader of a whole topic.

`ringfence/bus/kafka.py` puts them together; `collectors/kafka_topic.py` reads topics of others by the same means.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from ringfence.batch import Position, Record, Step
from ringfence.bus import STATE, KafkaLogin
from ringfence.errors import Fenced, Permanent, Retryable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas through a function that is going away
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka import errors as kafka_errors
    from kafka.admin import KafkaAdminClient
    from kafka.consumer.subscription_state import ConsumerRebalanceListener
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.structs import OffsetAndMetadata

__all__ = [
    "COMMIT_SECS", "CONSUMER", "OPEN_SECS", "POLL_SECS", "Consumer", "KafkaAdminClient", "KafkaConsumer", "OffsetAndMetadata", "Producer",
    "Reasons", "T", "Tail", "TopicPartition", "Worker", "client_config", "kafka_errors", "words",
]  # fmt: skip

T = TypeVar("T")

OPEN_SECS = 10.0  # to reach a broker and log in
COMMIT_SECS = 30.0  # for one transaction, end to end
JOIN_SECS = 90.0  # to be given partitions: a killed member of the group keeps its own until its session is over
STATE_SECS = 90.0  # to read the state topic: an abandoned transaction may hold its end back for TRANSACTION_SECS
SESSION_SECS = 20.0  # a member that is not heard of for so long loses its partitions
TRANSACTION_SECS = 60.0  # after which the broker aborts an abandoned transaction by itself
POLL_SECS = 0.5  # a longer wait is cut into these, so that closing does not have to wait
MAX_REQUEST_BYTES = 8 << 20  # a block has 512 KiB at most; brokers refuse more than 1 MiB unless told otherwise
BATCH_BYTES = 512 << 10  # one block per batch: a batch must stay below message.max.bytes (1 MiB) of the broker
FETCH_BYTES = 8 << 20
POLL_RECORDS = 64  # what one poll takes over from the client's buffers, at most 32 MiB of blocks

_FENCING = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.TransactionCoordinatorFencedError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.CommitFailedError,
)
_HOPELESS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.AuthorizationError,
)


def client_config(addresses: Sequence[str], login: KafkaLogin, client_id: str) -> dict[str, Any]:
    """What every client of a cluster is made with. Raises Permanent when a package, file or secret that it needs is not there."""
    for package, why in (("crc32c", "checksums would be a thousand times slower"), ("lz4", "such records cannot be read")):
        if importlib.util.find_spec(package) is None:
            raise Permanent(f"Kafka needs the package {package}, or {why}: install it with pip install {package}")
    for path in (login.ssl_cafile, login.ssl_certfile, login.ssl_keyfile):
        if path is not None and not os.access(path, os.R_OK):
            raise Permanent(f"the file {path}, which the Kafka settings name, cannot be read")
    return {
        "bootstrap_servers": list(addresses),
        "client_id": client_id,
        "bootstrap_timeout_ms": int(OPEN_SECS * 1000),
        "request_timeout_ms": 20_000,
        "reconnect_backoff_max_ms": 1000,  # the default of 30 s makes a client wait long after the broker is back
        "security_protocol": login.security_protocol,
        "ssl_cafile": login.ssl_cafile,
        "ssl_certfile": login.ssl_certfile,
        "ssl_keyfile": login.ssl_keyfile,
        "sasl_mechanism": login.sasl_mechanism,
        "sasl_plain_username": login.sasl_username,
        "sasl_plain_password": _secret(login.sasl_password) if login.sasl_password else None,
    }


def _secret(reference: str) -> str:
    """The secret behind `env:NAME` or `file:/path`."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        value = os.environ.get(where)
        if value is None:
            raise Permanent(f"the environment variable {where}, which holds the Kafka password, is not set")
        return value
    try:
        return Path(where).read_text().rstrip("\n")
    except OSError as error:
        raise Permanent(f"the file {where}, which holds the Kafka password, cannot be read: {error.strerror}") from error


class Worker:
    """A daemon thread that runs one call after the other. Unlike an executor it does not hold up the exit of the program."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"ringfence-kafka-{name}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue a call."""
        outcome: Future[T] = Future()

        def run() -> None:
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(work())
                except Exception as error:  # raised where the future is awaited
                    outcome.set_exception(error)

        self._queue.put(run)
        return outcome

    async def call(self, work: Callable[[], T], limit_secs: float) -> T:
        """Run a call; TimeoutError when it takes too long, in which case it goes on running unheeded."""
        async with asyncio.timeout(limit_secs):
            return await asyncio.wrap_future(self.submit(work))

    def stop(self) -> None:
        """End the thread after what is queued; does not wait for it."""
        self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()


class Reasons(logging.Handler):
    """Collects why no broker could be reached: kafka-python says so in its log only, its exception is always a timeout."""

    _PATTERN = re.compile(r"Bootstrap connection to \S+ failed: (.*?)(?: \(backoff .*)?$", re.DOTALL)
    _NOISE = re.compile(r"^(?:\[Error \d+\] )?(?:\w+Error: )*")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note the reason of a failed attempt."""
        match = self._PATTERN.match(record.getMessage())
        if match:
            self._found.append(self._NOISE.sub("", match[1]))

    @property
    def reason(self) -> str:
        """The last reason that says more than that the connection is gone."""
        telling = [reason for reason in self._found if reason != "socket disconnected"] or self._found or ["no answer"]
        number = re.fullmatch(r"(\d+) E[A-Z]+", telling[-1])
        return os.strerror(int(number[1])).lower() if number else telling[-1]

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the log of the Kafka client instead of letting it fill the terminal."""
        logger = logging.getLogger("kafka")
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = propagate


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: the transaction manager wraps the broker's answer."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__, *(arg for arg in current.args if isinstance(arg, BaseException))]


def _is_any(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _close_quietly(close: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # the broker may be gone; nothing is lost by a close that fails
        close()


@dataclass(slots=True)
class _Attempt:
    """A transaction under way; once `is_ending` its outcome is up to the broker."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_ending: bool = False
    is_abandoned: bool = False

    def begin_end(self) -> None:
        """Pass the point of no return, unless whoever waited has gone."""
        with self.lock:
            if self.is_abandoned:
                raise Retryable("the transaction took too long")
            self.is_ending = True

    def abandon(self) -> bool:
        """Forbid the end; True if that comes too late."""
        with self.lock:
            self.is_abandoned = True
            return self.is_ending


class Producer:
    """A transactional producer on its thread. After any failure it is of no further use."""

    def __init__(self, group: str, instance: str, config: Mapping[str, Any]) -> None:
        self._group = group
        self._config = {
            **config,
            "transactional_id": f"ringfence.{group}.{instance}",
            "request_timeout_ms": int(COMMIT_SECS * 500),  # kafka-python wants it below delivery_timeout_ms
        }
        self._worker = Worker(f"producer-{group}")
        self._client: KafkaProducer | None = None

    async def connect(self) -> None:
        """Fence earlier producers of this instance; when it returns, their transactions are over."""
        try:
            await self._worker.call(self._connect, OPEN_SECS + COMMIT_SECS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise Retryable(f"no transactions can be begun for group {self._group}: {words(error)}") from error

    def _connect(self) -> None:
        self._client = KafkaProducer(
            **self._config,
            acks="all",
            enable_idempotence=True,
            batch_size=BATCH_BYTES,
            linger_ms=5,
            max_request_size=MAX_REQUEST_BYTES,
            max_block_ms=int(OPEN_SECS * 1000),
            delivery_timeout_ms=int(COMMIT_SECS * 1000),
            transaction_timeout_ms=int(TRANSACTION_SECS * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        self._client.init_transactions()

    async def transact(self, step: Step, membership: Any, size_freed: Callable[[], None]) -> None:
        """Write a step; `size_freed` is called once its bytes are out of memory, even if nobody waits any more."""
        attempt = _Attempt()
        outcome = self._worker.submit(lambda: self._transact(step, membership, attempt))
        outcome.add_done_callback(lambda _: size_freed())
        try:
            async with asyncio.timeout(COMMIT_SECS):
                await asyncio.wrap_future(outcome)
        except TimeoutError as error:
            if attempt.abandon():
                raise Fenced(f"it is unknown whether the last step of group {self._group} was committed: no answer") from error
            raise Retryable(f"no step could be written for group {self._group} within {COMMIT_SECS:.0f} s") from error

    def _transact(self, step: Step, membership: Any, attempt: _Attempt) -> None:
        client = self._client
        if client is None:
            raise Retryable(f"the producer of group {self._group} is closed")
        try:
            client.begin_transaction()
            self._send(client, step)
            if step.done:
                offsets = {TopicPartition(p.topic, p.partition): OffsetAndMetadata(p.offset, "", -1) for p in step.done}
                client.send_offsets_to_transaction(offsets, membership)
            attempt.begin_end()
            client.commit_transaction()
        except kafka_errors.KafkaError as error:
            raise self._judge(error, attempt) from error

    def _send(self, client: KafkaProducer, step: Step) -> None:
        sent = [
            client.send(topic, key=record.key, value=record.value, headers=list(record.headers.items()))
            for topic, records in step.outputs.items()
            for record in records
        ]
        sent += [
            client.send(STATE, key=f"{step.group}/{component}".encode(), value=value, partition=0)
            for component, value in step.state.items()
        ]
        client.flush(COMMIT_SECS)
        for future in sent:
            future.get(timeout=0)

    def _judge(self, error: kafka_errors.KafkaError, attempt: _Attempt) -> Exception:
        if _is_any(error, _HOPELESS) and not attempt.is_ending:
            return Permanent(f"a step of group {self._group} was refused: {words(error)}")
        if _is_any(error, _FENCING):
            return Fenced(f"another process took over group {self._group}: {words(error)}")
        if attempt.is_ending:
            return Fenced(f"it is unknown whether the last step of group {self._group} was committed: {words(error)}")
        return Retryable(f"a step of group {self._group} could not be written: {words(error)}")

    def discard(self) -> None:
        """Close from a thread of its own, since the producer's may be stuck."""
        self._worker.stop()
        threading.Thread(target=lambda: _close_quietly(self._give_up), daemon=True).start()

    def _give_up(self) -> None:
        if self._client is not None:
            # close() begins with a flush, which never ends while the broker is away, and leaves everything open when it times out
            self._client._sender.force_close()
            self._client.close(timeout=OPEN_SECS)

    async def close(self) -> None:
        """Close in order, within bounds."""
        with contextlib.suppress(TimeoutError):
            await self._worker.call(lambda: _close_quietly(self._shut), OPEN_SECS)
        self._worker.stop()

    def _shut(self) -> None:
        if self._client is not None:
            self._client.close(timeout=OPEN_SECS / 2)


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """A group member on its thread.

    The listener is called on the client's I/O thread and only queues; the queue is applied where records are handed out or
    committed. `_pending` is where committing would get to in each partition of which records were handed out: losing one means
    Fenced.
    """

    def __init__(self, group: str, topics: Collection[str], instance: str, config: Mapping[str, Any]) -> None:
        self.topics = frozenset(topics)
        self._group = group
        self._config = {**config, "group_id": group, "group_instance_id": f"{group}.{instance}"}
        self._worker = Worker(f"consumer-{group}")
        self._client: KafkaConsumer | None = None
        self._events: SimpleQueue[tuple[str, set[TopicPartition]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._buffer: deque[tuple[Position, Record]] = deque()
        self._owned: set[TopicPartition] = set()
        self._pending: dict[TopicPartition, int] = {}
        self._is_assigned = False
        self._is_fenced = False

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Queue; runs on the I/O thread."""
        self._events.put(("revoked", set(revoked)))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Queue; runs on the I/O thread."""
        self._events.put(("revoked", set(lost)))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Queue; runs on the I/O thread."""
        self._events.put(("assigned", set(assigned)))

    def _apply_events(self) -> None:
        """Follow what the listener saw; the caller holds the lock."""
        while not self._events.empty():
            what, partitions = self._events.get()
            if what == "assigned":
                self._is_assigned = True
                self._owned |= partitions
                continue
            self._owned -= partitions
            self._is_fenced |= not partitions.isdisjoint(self._pending)
            self._buffer = deque(entry for entry in self._buffer if _partition(entry[0]) not in partitions)

    async def begin(self) -> None:
        """Join, or go back to the committed offsets if that was done; returns when partitions are assigned."""
        try:
            await self._worker.call(self._begin, JOIN_SECS + OPEN_SECS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            kind = Permanent if _is_any(error, _HOPELESS) else Retryable
            raise kind(f"group {self._group} cannot be joined: {words(error)}") from error

    def _begin(self) -> None:
        client = self._client
        if client is None:
            client = self._client = KafkaConsumer(**self._config, **CONSUMER, max_poll_records=POLL_RECORDS)
            client.subscribe(list(self.topics), listener=self)
        deadline = time.monotonic() + JOIN_SECS
        while True:
            self._poll(POLL_SECS)
            with self._lock:
                if self._is_assigned and client.group_metadata().generation_id >= 0:
                    break
            if time.monotonic() > deadline:
                raise TimeoutError(f"no partitions were assigned within {JOIN_SECS:.0f} s")
        for partition in client.assignment():
            committed = client.committed(partition, timeout_ms=int(OPEN_SECS * 1000))
            if committed is None:
                client.seek_to_beginning(partition)
            else:
                client.seek(partition, committed)
        with self._lock:
            self._apply_events()
            self._buffer.clear()
            self._pending.clear()
            self._is_fenced = False

    def _poll(self, wait_secs: float) -> None:
        """Move what has arrived to the buffer."""
        if self._client is None:
            return
        polled = self._client.poll(timeout_ms=int(wait_secs * 1000), max_records=POLL_RECORDS)
        with self._lock:
            self._apply_events()
            for partition, found in polled.items():
                if partition in self._owned:
                    self._buffer.extend(_decode(entry) for entry in found)

    async def read(self, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Hand out records from the buffer, filling it first if it is empty."""
        deadline = time.monotonic() + wait_secs
        while True:
            self.check()
            found = self._take(max_records, max_bytes)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            try:
                await asyncio.wrap_future(self._worker.submit(functools.partial(self._poll, min(left, POLL_SECS))))
            except kafka_errors.KafkaError as error:
                raise self._judge(error) from error

    def _judge(self, error: kafka_errors.KafkaError) -> Exception:
        if _is_any(error, _FENCING):
            self._is_fenced = True
            return Fenced(f"another process took over group {self._group}: {words(error)}")
        kind = Permanent if _is_any(error, _HOPELESS) else Retryable
        return kind(f"group {self._group} cannot be read: {words(error)}")

    def _take(self, max_records: int, max_bytes: int) -> list[tuple[Position, Record]]:
        found: list[tuple[Position, Record]] = []
        size = 0
        with self._lock:
            while self._buffer and len(found) < max_records:
                position, record = self._buffer[0]
                if found and size + record.size > max_bytes:
                    break
                self._buffer.popleft()
                self._pending[_partition(position)] = position.offset + 1
                found.append((position, record))
                size += record.size
        return found

    def check(self) -> None:
        """Raise Fenced if pending work was lost to another member."""
        with self._lock:
            self._apply_events()
            if self._is_fenced:
                raise Fenced(f"partitions of group {self._group} went to another process")

    def membership(self, done: Sequence[Position]) -> Any:
        """What lets the broker refuse the offsets if the group has moved on since. Raises Fenced if we know that it has."""
        metadata = self._client.group_metadata() if self._client else None  # before the check, so that nothing falls between
        self.check()
        with self._lock:
            strangers = {_partition(position) for position in done} - self._owned
        if strangers:
            raise Fenced(f"partitions of group {self._group} went to another process")
        return metadata

    def settled(self, done: Sequence[Position]) -> None:
        """These offsets are committed; a partition stays pending if more of it was handed out meanwhile."""
        with self._lock:
            for position in done:
                if self._pending.get(_partition(position), 0) <= position.offset:
                    self._pending.pop(_partition(position), None)

    async def close(self) -> None:
        """Stop without leaving the group: as a static member this instance finds its partitions again when it comes back."""
        with contextlib.suppress(TimeoutError):
            await self._worker.call(lambda: _close_quietly(self._shut), OPEN_SECS)
        self._worker.stop()

    def _shut(self) -> None:
        if self._client is not None:
            self._client.close(autocommit=False, timeout_ms=int(OPEN_SECS * 500))


CONSUMER: Mapping[str, Any] = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "partition_assignment_strategy": [CooperativeStickyAssignor],
    "session_timeout_ms": int(SESSION_SECS * 1000),
    "heartbeat_interval_ms": 3000,
    "max_poll_interval_ms": 600_000,  # a stage may wait for a slow sink; heartbeats go on meanwhile
    "fetch_max_bytes": FETCH_BYTES,
    "max_partition_fetch_bytes": 2 << 20,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


def _partition(position: Position) -> TopicPartition:
    return TopicPartition(position.topic, position.partition)


def _decode(entry: Any) -> tuple[Position, Record]:
    headers = {name: value or b"" for name, value in entry.headers}
    return Position(entry.topic, entry.partition, entry.offset), Record(entry.key or b"", headers, entry.value or b"")


def words(error: BaseException) -> str:
    """The last cause in plain words: class names of the Kafka client mean nothing to people."""
    *_, last = _causes(error)
    text = str(last) or type(last).__name__
    return re.sub(r"^(?:\[Error \d+\] )?(?:\w+Error: )*", "", text) or "it took too long"


class Tail:
    """A consumer that belongs to no group, reads to an end that is known before, and is closed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.worker = Worker("tail")
        self._config = {**config, **CONSUMER}
        self._client: KafkaConsumer | None = None

    def seek(self, topic: str) -> dict[TopicPartition, int]:
        """Go to the committed offsets of the group; returns where the committed records end. Runs on the worker."""
        client = self._client = KafkaConsumer(**self._config)
        partitions = [TopicPartition(topic, number) for number in client.partitions_for_topic(topic)]
        client.assign(partitions)
        for partition in partitions:
            committed = client.committed(partition, timeout_ms=int(OPEN_SECS * 1000))
            if committed is None:
                client.seek_to_beginning(partition)
            else:
                client.seek(partition, committed)
        ends: dict[TopicPartition, int] = client.end_offsets(partitions, timeout_ms=int(OPEN_SECS * 1000))
        return ends

    async def records(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[tuple[Position, Record]]:
        """Every record before `ends`."""
        open_ends = dict(ends)
        while open_ends:
            page = await self.worker.call(lambda: self._page(open_ends), OPEN_SECS + POLL_SECS)
            for position, record in page:
                if position.offset < ends[_partition(position)]:
                    yield position, record

    def _page(self, open_ends: dict[TopicPartition, int]) -> list[tuple[Position, Record]]:
        """One poll; takes the partitions that are read to their end out of `open_ends`."""
        if self._client is None:
            raise Retryable("the bus was closed")
        polled = self._client.poll(timeout_ms=int(POLL_SECS * 1000), max_records=POLL_RECORDS)
        for partition in list(open_ends):
            if (self._client.position(partition, timeout_ms=int(OPEN_SECS * 1000)) or 0) >= open_ends[partition]:
                del open_ends[partition]
        return [_decode(entry) for entries in polled.values() for entry in entries]

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """What the state topic says at its end."""
        try:
            return await self.worker.call(self._states, STATE_SECS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise Retryable(f"the state topic {STATE} cannot be read: {words(error)}") from error

    def _states(self) -> dict[str, dict[str, bytes]]:
        """Read up to the last record written, not to the last committed one that the broker offers as the end.

        An open transaction of another group holds that end back, and state of ours may already be committed behind it.
        """
        partition = TopicPartition(STATE, 0)
        with contextlib.closing(KafkaConsumer(**{**self._config, "isolation_level": "read_uncommitted"})) as plain:
            end = plain.end_offsets([partition], timeout_ms=int(OPEN_SECS * 1000))[partition]
        client = self._client = KafkaConsumer(**self._config)
        client.assign([partition])
        client.seek_to_beginning(partition)
        states: dict[str, dict[str, bytes]] = {}
        deadline = time.monotonic() + STATE_SECS
        while (client.position(partition, timeout_ms=int(OPEN_SECS * 1000)) or 0) < end:
            for entry in (entry for found in client.poll(timeout_ms=100).values() for entry in found):
                group, _, component = entry.key.decode().partition("/")
                states.setdefault(group, {})[component] = entry.value
            if time.monotonic() > deadline:
                raise TimeoutError("another process keeps a transaction open")
        return states

    async def close(self) -> None:
        """Close within bounds."""
        with contextlib.suppress(TimeoutError):
            await self.worker.call(lambda: _close_quietly(self._shut), OPEN_SECS)
        self.worker.stop()

    def _shut(self) -> None:
        if self._client is not None:
            self._client.close(autocommit=False, timeout_ms=1000)
            self._client = None
