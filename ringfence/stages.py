"""The three loops of ringfence: collect, process, deliver. Each reads, works, and commits its step as a whole.

A stage owns what its component does not: batching, retry, back-pressure, bisection of a batch that crashes a processor,
dead letters and the ledger. Order within a stage: read, work, make the output durable, commit; only a commit moves on.
After Fenced everything since the last commit is forgotten and the stage starts again from what was committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import polars as pl

from ringfence import bus, codec, deadletter
from ringfence.batch import Batch, Decoded, EventClass, Frames, Micros, Position, Problem, ProblemCode, Record, Step
from ringfence.batching import Batcher, Batching
from ringfence.clock import Clock
from ringfence.codec import BadBlock, time_span
from ringfence.component import Bus, Collector, Delivery, Finishing, Processed, Processor, Resumable, Settling, Shell, Sink
from ringfence.deadletter import DeadLetter
from ringfence.errors import EndOfInput, Fenced, Retryable
from ringfence.ledger import LEDGER_STATE, Counts, topics_read
from ringfence.retry import until_done
from ringfence.schema import together
from ringfence.telemetry import (
    DEAD,
    DROPPED,
    EVICTED,
    EXCEPTED,
    FORGOTTEN,
    MERGED,
    PARSED,
    PROCESSED,
    RECEIVED,
    REJECTED,
    SHELL_CAPS,
    STEP_SECS,
)

POSITION_STATE = "position"
SEQUENCE_STATE = "sequence"
DECODER_STATE = "decoder"
SINK_STATE = "sink"
PROCESSOR_STATE = "processor"
TOPICS_STATE = f"{LEDGER_STATE}/topics"
MAX_STATE_BYTES = 512 * 1024
"""Of one value of a processor's state: brokers of Kafka refuse more than 1 MiB unless told otherwise."""
MAX_STEP_RECORDS = 64
MAX_STEP_BYTES = 8 * 1024 * 1024
IDLE_SECS = 0.5
LAST_SECS = 0.05
"""How long a read waits when nothing more is written, before it is asked whether anything is left at all."""
MAX_LETTERS_PER_STEP = 50_000
DRAIN_SECS = 2.0
SILENCE_SECS = 0.05
"""A stopping collector has nothing more to take when a read waits this long."""

_log = logging.getLogger(__name__)
_CRASHES = (Exception, pl.exceptions.PanicException)


@dataclass
class Stopping:
    """Set once by the runtime: no more input is to be taken."""

    event: asyncio.Event

    async def or_none(self, wanted: asyncio.Task[Delivery], secs: float | None) -> Delivery | None:
        """The result, or None when the time is over or the stop came first; the task goes on in that case."""
        stop: asyncio.Future[Any] = asyncio.ensure_future(self.event.wait())
        try:
            await asyncio.wait((wanted, stop), timeout=secs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        return wanted.result() if wanted.done() else None


def state_key(component: str, instance: str) -> str:
    """Where one of several processes of a stage keeps a component's state; `instance` is empty where there is only one."""
    return f"{component}@{instance}" if instance else component


def pieces(key: str, state: bytes) -> dict[str, bytes]:
    """A state as values of MAX_STATE_BYTES, under the key and, with a number after it, further ones; a shorter one is the last."""
    starts = range(0, len(state) + 1, MAX_STATE_BYTES)
    parts = [state[start : start + MAX_STATE_BYTES] for start in starts]
    return {f"{key}/{number}" if number else key: part for number, part in enumerate(parts)}


def joined(key: str, stored: Mapping[str, bytes]) -> bytes:
    """The state that was stored in pieces."""
    parts = [stored[key]]
    while len(parts[-1]) == MAX_STATE_BYTES and (part := stored.get(f"{key}/{len(parts)}")) is not None:
        parts.append(part)
    return b"".join(parts)


class CollectStage:
    """One collector: frames from its shell, rows to `ringfence.events.v1`, rejects to `ringfence.dead.v1`."""

    def __init__(
        self, name: str, build: Callable[[], Collector], engine: Bus, batching: Batching, buckets: int, clock: Clock,
        on_progress: Callable[[str, Frames], None] = lambda name, frames: None,
    ) -> None:  # fmt: skip
        self.group = f"ringfence.collect.{name}"
        self._name = name
        self._build = build
        self._bus = engine
        self._batching = batching
        self._buckets = buckets
        self._clock = clock
        self._on_progress = on_progress
        self.opened = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until the input ends or `stop` is set; what was taken is committed before it returns."""
        while True:
            try:
                return await self._collect(Stopping(stop))
            except Fenced as error:
                _log.warning("collector %s starts again from its last commit: %s", self._name, error)

    async def _collect(self, stopping: Stopping) -> None:
        state = await until_done(f"collector {self._name}: bus", lambda: self._bus.join(self.group, ()), self._clock)
        collector = self._build()
        shell = collector.shell
        run = _Collecting(self._name, collector, state, self._batching, self._buckets)
        await until_done(f"collector {self._name}", lambda: shell.open(run.position), self._clock)
        self.opened.set()
        reading: asyncio.Task[Delivery] | None = None
        try:
            while not stopping.event.is_set():
                reading = reading or asyncio.ensure_future(shell.read())
                try:
                    delivery = await stopping.or_none(reading, run.batcher.wait_secs(self._clock.monotonic()))
                except EndOfInput:
                    reading = None
                    break
                except Retryable as error:
                    reading = None
                    await self._reopen(shell.close, error)
                    await until_done(f"collector {self._name}", lambda: shell.open(run.position), self._clock)
                    continue
                if delivery is not None:
                    reading = None
                    run.take(delivery, self._clock)
                    self._on_progress(self._name, delivery.frames)
                if run.due(self._clock.monotonic()):
                    await self._flush(run)
            if stopping.event.is_set():
                reading = await self._drain(run, reading or asyncio.ensure_future(shell.read()), shell)
            await self._flush(run)
        finally:
            if reading is not None:
                reading.cancel()
                with suppress(asyncio.CancelledError, EndOfInput, Retryable):
                    await reading
            await shell.close()

    async def _drain(self, run: _Collecting, reading: asyncio.Task[Delivery], shell: Shell) -> asyncio.Task[Delivery] | None:
        """Take what has arrived already (datagrams in the kernel, frames in a queue), for DRAIN_SECS at most."""
        until = self._clock.monotonic() + DRAIN_SECS
        while self._clock.monotonic() < until:
            await asyncio.wait((reading,), timeout=SILENCE_SECS)
            if not reading.done():
                break
            if reading.exception() is not None:
                return None
            run.take(reading.result(), self._clock)
            reading = asyncio.ensure_future(shell.read())
        return reading

    async def _reopen(self, close: Callable[[], object], error: Retryable) -> None:
        _log.warning("collector %s is opened again: %s", self._name, error)
        await close()  # type: ignore[misc]
        await self._clock.sleep(0.2)

    async def _flush(self, run: _Collecting) -> None:
        step = run.seal(self.group, self._clock.now())
        if step is not None:
            await until_done(f"collector {self._name}: bus", lambda: self._bus.commit(step), self._clock)
            run.committed()


class _Collecting:
    """What one run of a collector holds between two commits."""

    def __init__(self, name: str, collector: Collector, state: Mapping[str, bytes], batching: Batching, buckets: int) -> None:
        self.name = name
        self.collector = collector
        self.position = state.get(POSITION_STATE, b"")
        self.batcher = Batcher(name, collector.module, batching, buckets, int(state.get(SEQUENCE_STATE, b"0")))
        self._counts = Counts.decode(state.get(LEDGER_STATE))
        self._letters: list[DeadLetter] = []
        self._moved = False
        self._learnt = state.get(DECODER_STATE, b"")
        if self._learnt and isinstance(collector.decoder, Resumable):
            collector.decoder.restore(self._learnt)

    def take(self, delivery: Delivery, clock: Clock) -> None:
        """Decode what a shell delivered."""
        for decoded in self._decoded(delivery.frames):
            self._add(decoded, clock)
        self.position = delivery.position
        self._moved = True
        self._counts.received += len(delivery.frames)
        RECEIVED.labels(self.name).inc(len(delivery.frames))
        for hop, lost in delivery.shed.items():
            self._counts.shed += lost
            DROPPED.labels(self.name, hop).inc(lost)
        for cap, hits in delivery.caps.items():
            SHELL_CAPS.labels(self.name, cap).inc(hits)

    def _decoded(self, frames: Frames) -> Iterator[Decoded]:
        """Decode; frames that crash the decoder (a bug in it) are halved until those that do are alone."""
        try:
            yield self.collector.decoder.feed(frames)
            return
        except _CRASHES as error:
            if len(frames) <= 1:
                _log.exception("a frame crashed the decoder of %s and is dead-lettered: %s", self.name, error)
                yield Decoded({}, 0, [_crashed_frame(frames, error)] if len(frames) else ())
                return
        middle = len(frames) // 2
        yield from self._decoded(frames.part(0, middle))
        yield from self._decoded(frames.part(middle, len(frames)))

    def _add(self, decoded: Decoded, clock: Clock) -> None:
        now_us = clock.now()
        self._letters += [deadletter.from_problem(problem, "collect", self.name, now_us) for problem in decoded.problems]
        self.batcher.add(decoded.rows, clock.monotonic())
        counts = self._counts
        counts.done += decoded.taken
        counts.dead += len(decoded.problems)
        counts.filtered += sum(decoded.filtered.values())
        counts.held = decoded.held
        for problem in decoded.problems:
            REJECTED.labels(self.name, str(problem.code)).inc()

    def due(self, now: float) -> bool:
        return (
            self.batcher.due(now)
            or len(self._letters) >= MAX_LETTERS_PER_STEP
            or (self._moved and not self.batcher.rows and (bool(self._letters) or self._is_awaited))
        )

    def seal(self, group: str, now_us: int) -> Step | None:
        """The step of everything taken since the last commit; None when there was nothing."""
        if not self._moved:
            return None
        outputs: dict[str, Sequence[Record]] = {}
        events = [record for key, batch in self.batcher.take(now_us) for record in codec.encode(batch, key)]
        if events:
            outputs[bus.EVENTS] = events
        if self._letters:
            outputs[bus.DEAD] = [deadletter.encode(letter) for letter in self._letters]
        rows = codec.rows_in(events)
        self._counts.wrote(bus.EVENTS, rows)
        self._counts.wrote(bus.DEAD, len(self._letters))
        PARSED.labels(self.name).inc(rows)
        _count_dead("collect", self._letters)
        state = {
            POSITION_STATE: self.position,
            SEQUENCE_STATE: b"%d" % self.batcher.sequence,
            LEDGER_STATE: self._counts.encode(),
            **self._newly_learnt(),
        }
        return Step(group, outputs, (), state)

    def _newly_learnt(self) -> dict[str, bytes]:
        """The decoder's state where it differs from the one that is stored."""
        decoder = self.collector.decoder
        if not isinstance(decoder, Resumable) or (learnt := decoder.snapshot()) == self._learnt:
            return {}
        self._learnt = learnt
        return {DECODER_STATE: learnt}

    def committed(self) -> None:
        self._letters = []
        self._moved = False
        if isinstance(self.collector.shell, Settling):
            self.collector.shell.settle(self.position)

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody waits for the commit, even where it brings no row."""
        return isinstance(self.collector.shell, Settling)


@dataclass
class _Reading:
    """The cumulative counters of a reading stage."""

    counts: Counts
    by_topic: dict[str, int]
    instance: str

    @classmethod
    def restored(cls, state: Mapping[str, bytes], instance: str) -> _Reading:
        counts = Counts.decode(state.get(state_key(LEDGER_STATE, instance)))
        return cls(counts, dict(Counts.decode(state.get(state_key(TOPICS_STATE, instance))).written), instance)

    def received(self, topic: str, rows: int) -> None:
        self.counts.received += rows
        self.by_topic[topic] = self.by_topic.get(topic, 0) + rows

    def state(self) -> dict[str, bytes]:
        parts = {LEDGER_STATE: self.counts.encode(), TOPICS_STATE: topics_read(self.by_topic)}
        return {state_key(component, self.instance): value for component, value in parts.items()}


class _ReadingStage:
    """What process and sink have in common: join, read a step, work, commit, until the input has ended."""

    def __init__(self, group: str, topics: Sequence[str], engine: Bus, clock: Clock, instance: str = "") -> None:
        self.instance = instance
        self.group = group
        self.topics = topics
        self._bus = engine
        self._clock = clock
        self._halted = False

    def halt(self) -> None:
        """End after the current step, whatever is left: another run goes on there."""
        self._halted = True

    async def run(self, ended: asyncio.Event) -> None:
        """Work until nothing is left to read after `ended` is set (nothing more will be written upstream)."""
        while True:
            try:
                state = await until_done(f"{self.group}: bus", lambda: self._bus.join(self.group, self.topics), self._clock)
                return await self._work(state, ended)
            except Fenced as error:
                _log.warning("%s starts again from its last commit: %s", self.group, error)

    async def _work(self, state: Mapping[str, bytes], ended: asyncio.Event) -> None:
        raise NotImplementedError

    async def _records(self, ended: asyncio.Event) -> Sequence[tuple[Position, Record]] | None:
        """The next records; None when there are none and no more can come, or after halt()."""
        while not self._halted:
            over = ended.is_set()
            read = partial(self._bus.read, self.group, MAX_STEP_RECORDS, MAX_STEP_BYTES, LAST_SECS if over else IDLE_SECS)
            records = await until_done(f"{self.group}: bus", read, self._clock)
            if records:
                return records
            if over and await until_done(f"{self.group}: bus", self._is_drained, self._clock):
                return None
        return None

    async def _is_drained(self) -> bool:
        """Nothing is left on the bus; an empty read does not say so (a Kafka consumer may still be joining)."""
        for topic in self.topics:
            async for _ in self._bus.unread(self.group, topic):
                return False
        return True

    async def _commit(self, step: Step) -> None:
        await until_done(f"{self.group}: bus", lambda: self._bus.commit(step), self._clock)


class ProcessStage(_ReadingStage):
    """Runs every block of `ringfence.events.v1` through the processors; what they make goes to its topic."""

    def __init__(
        self,
        processors: Callable[[], Sequence[Processor]],
        engine: Bus,
        clock: Clock,
        instance: str = "",
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_over` tells, when no more records come, whether the inputs have ended for good."""
        super().__init__("ringfence.process", (bus.EVENTS,), engine, clock, instance)
        self._is_over = is_over
        self._build = processors
        self._processors: Sequence[Processor] = ()
        self._learnt: dict[str, bytes] = {}
        self._stored: dict[str, bytes] = {}

    def reload(self) -> None:
        """Use new processors from the next step on (after a topology was reloaded)."""
        self._renew(self._snapshots())

    def _renew(self, state: Mapping[str, bytes]) -> None:
        """New processors, which go on with what those before them had learnt."""
        self._processors = self._build()
        for key, processor in self._resumable():
            if key in state:
                processor.restore(joined(key, state))

    def _resumable(self) -> Iterator[tuple[str, Resumable]]:
        for number, processor in enumerate(self._processors):
            if isinstance(processor, Resumable):
                yield state_key(f"{PROCESSOR_STATE}/{number}", self.instance), processor

    def _snapshots(self) -> dict[str, bytes]:
        return {key: processor.snapshot() for key, processor in self._resumable()}

    def _news(self) -> dict[str, bytes]:
        """What processors learnt, where it differs from what is stored."""
        known = self._snapshots()
        changed = {key: learnt for key, learnt in known.items() if self._learnt.get(key) != learnt}
        parts = {name: part for key, learnt in changed.items() for name, part in pieces(key, learnt).items()}
        news = {name: part for name, part in parts.items() if self._stored.get(name) != part}
        self._learnt = known
        self._stored |= news
        return news

    async def _work(self, state: Mapping[str, bytes], ended: asyncio.Event) -> None:
        self._renew(state)
        self._learnt = self._snapshots()
        self._stored = {name: part for name, part in state.items() if name.startswith(PROCESSOR_STATE)}
        reading = _Reading.restored(state, self.instance)
        while (records := await self._records(ended)) is not None:
            started = self._clock.monotonic()
            await self._commit(self._step(records, reading))
            STEP_SECS.labels("process").observe(self._clock.monotonic() - started)
        if self._is_over() and any(isinstance(processor, Finishing) for processor in self._processors):
            await self._commit(self._last_step(reading))

    def _last_step(self, reading: _Reading) -> Step:
        """What processors make of what they have when nothing more will come; each sees what those before it made."""
        made: dict[str, list[tuple[bytes, Batch]]] = {}
        for processor in self._processors:
            earlier = [(key, part) for parts in made.values() for key, part in parts]
            processed = [(key, processor.process(part, Micros(part.header.time_max_us))) for key, part in earlier]
            _count((part for _, part in processed), reading.counts)
            outputs = [(key, part.outputs) for key, part in processed]
            if isinstance(processor, Finishing):
                outputs.append((b"0", processor.finish()))
            for key, found in outputs:
                for topic, batches in found.items():
                    made.setdefault(topic, []).extend((key, part) for part in batches)
        records = {topic: _blocks(batches) for topic, batches in made.items()}
        for topic, written in records.items():
            reading.counts.wrote(topic, codec.rows_in(written))
        return Step(self.group, records, (), {**reading.state(), **self._news()})

    def _step(self, records: Sequence[tuple[Position, Record]], reading: _Reading) -> Step:
        now_us = self._clock.now()
        made: dict[str, list[tuple[bytes, Batch]]] = {}
        letters: list[DeadLetter] = []
        for position, record in records:
            rows = codec.rows_in([record])
            reading.received(position.topic, rows)
            try:
                batch = codec.decode(record)
            except BadBlock as error:
                where = f"{position.topic}/{position.partition}"
                letters.append(deadletter.from_block(record, str(error), "process", "codec", where, position.offset, now_us))
                reading.counts.dead += rows
                continue
            dead = self._run(batch, made, record.key, now_us, reading.counts)
            letters += dead
            reading.counts.dead += len(dead)
            reading.counts.done += rows - len(dead)
        outputs: dict[str, Sequence[Record]] = {topic: _blocks(batches) for topic, batches in made.items()}
        if letters:
            outputs[bus.DEAD] = [deadletter.encode(letter) for letter in letters]
            _count_dead("process", letters)
        for topic, written in outputs.items():
            reading.counts.wrote(topic, codec.rows_in(written))
        PROCESSED.labels("process").inc(sum(codec.rows_in([record]) for _, record in records))
        return Step(self.group, outputs, next_offsets(records), {**reading.state(), **self._news()})

    def _run(
        self, batch: Batch, made: dict[str, list[tuple[bytes, Batch]]], key: bytes, now_us: int, counts: Counts
    ) -> list[DeadLetter]:
        """Run the processors; a batch that crashes one is halved until the rows that do are alone."""
        try:
            outputs, every = self._made_of(batch)
        except _CRASHES as error:
            if batch.frame.height == 1:
                _log.exception("a row crashed the processors and is dead-lettered: %s", error)
                return [deadletter.from_problem(_crashed(batch, error), "process", "processors", now_us)]
            middle = batch.frame.height // 2
            halves = (batch.frame.slice(0, middle), batch.frame.slice(middle))
            return [letter for half in halves for letter in self._run(part_of(batch, half), made, key, now_us, counts)]
        _count(every, counts)
        for topic, batches in outputs.items():
            made.setdefault(topic, []).extend((key, part) for part in batches)
        return []

    def _made_of(self, batch: Batch) -> tuple[dict[str, list[Batch]], list[Processed]]:
        """The batches by topic, and what each processor said. A processor sees, after the batch, what those before it made."""
        made: dict[str, list[Batch]] = {}
        every: list[Processed] = []
        now = Micros(batch.header.time_max_us)
        for processor in self._processors:
            earlier = [part for batches in made.values() for part in batches]
            processed = [processor.process(part, now) for part in (batch, *earlier)]
            batch = processed[0].batch
            every += processed
            for part in processed:
                for topic, batches in part.outputs.items():
                    made.setdefault(topic, []).extend(batches)
        return made, every


class SinkStage(_ReadingStage):
    """Delivers the topics of one sink; commits only what the sink made durable."""

    def __init__(
        self, name: str, sink: Sink, enrich: Callable[[], Sequence[Processor]], engine: Bus, clock: Clock, instance: str = ""
    ) -> None:
        super().__init__(f"ringfence.sink.{name}", sink.topics, engine, clock, instance)
        self._name = name
        self._sink = sink
        self._build = enrich
        self._enrich: Sequence[Processor] = ()

    def reload(self) -> None:
        """Use new processors from the next step on."""
        self._enrich = self._build()

    async def _work(self, state: Mapping[str, bytes], ended: asyncio.Event) -> None:
        self._enrich = self._build()
        reading = _Reading.restored(state, self.instance)
        kept = state.get(state_key(SINK_STATE, self.instance), b"")
        await until_done(f"sink {self._name}", lambda: self._sink.open(kept), self._clock)
        try:
            opened = await self._sink.flush()
            if opened != kept:
                # on record before the first write, so that what a crash leaves behind is known to be the sink's own
                kept = opened
                await self._commit(Step(self.group, state={state_key(SINK_STATE, self.instance): kept}))
            while (records := await self._records(ended)) is not None:
                started = self._clock.monotonic()
                kept = await self._deliver_until_done(records, reading, kept)
                STEP_SECS.labels("sink").observe(self._clock.monotonic() - started)
        finally:
            await self._sink.close()

    async def _deliver_until_done(self, records: Sequence[tuple[Position, Record]], reading: _Reading, kept: bytes) -> bytes:
        """Deliver and commit one step. A Retryable sink is put back to its last state first, so nothing is written twice."""
        now_us = self._clock.now()
        batches, letters = self._batches(records, now_us)

        async def attempt() -> tuple[bytes, list[DeadLetter]]:
            try:
                refused = [
                    deadletter.from_problem(problem, "sink", self._name, now_us)
                    for topic, batch in batches
                    for problem in (await self._sink.write(topic, batch)).values()
                ]
                return await self._sink.flush(), refused
            except Retryable:
                await self._sink.close()
                await self._sink.open(kept)
                raise

        state, refused = await until_done(f"sink {self._name}", attempt, self._clock)
        for position, record in records:
            reading.received(position.topic, codec.rows_in([record]))
        dead = len(refused) + sum(codec.rows_in([record]) for _, record in letters)
        reading.counts.dead += dead
        reading.counts.done += sum(codec.rows_in([record]) for _, record in records) - dead
        all_letters = [*refused, *(letter for letter, _ in letters)]
        outputs: dict[str, Sequence[Record]] = {}
        if all_letters:
            outputs[bus.DEAD] = [deadletter.encode(letter) for letter in all_letters]
            reading.counts.wrote(bus.DEAD, len(all_letters))
            _count_dead("sink", all_letters)
        PROCESSED.labels(f"sink {self._name}").inc(sum(batch.frame.height for _, batch in batches))
        await self._commit(
            Step(self.group, outputs, next_offsets(records), {state_key(SINK_STATE, self.instance): state, **reading.state()})
        )
        return state

    def _batches(
        self, records: Sequence[tuple[Position, Record]], now_us: int
    ) -> tuple[list[tuple[str, Batch]], list[tuple[DeadLetter, Record]]]:
        """Readable blocks with segment names, dead letters of a topic as one batch, and what cannot be read."""
        batches: list[tuple[str, Batch]] = []
        unreadable: list[tuple[DeadLetter, Record]] = []
        dead: list[DeadLetter] = []
        for position, record in records:
            try:
                if position.topic == bus.DEAD:
                    dead.append(deadletter.decode(record))
                else:
                    batches.append((position.topic, self._enriched(codec.decode(record))))
            except (BadBlock, ValueError) as error:
                where = f"{position.topic}/{position.partition}"
                letter = deadletter.from_block(record, str(error), "sink", self._name, where, position.offset, now_us)
                unreadable.append((letter, record))
        if dead:
            batches.append((bus.DEAD, deadletter.to_batch(dead)))
        return batches, unreadable

    def _enriched(self, batch: Batch) -> Batch:
        if batch.header.event_class in (EventClass.BOUNDARY, EventClass.DETECTION, EventClass.DETECTOR, EventClass.ALARM):
            return batch  # they have the names of segments already
        for processor in self._enrich:
            batch = processor.process(batch, Micros(batch.header.time_max_us)).batch
        return batch


def _count(every: Iterable[Processed], counts: Counts) -> None:
    """What processors said that they left out or forgot."""
    for processed in every:
        counts.merged += processed.merged
        MERGED.inc(processed.merged)
        FORGOTTEN.inc(processed.forgotten)
        EVICTED.inc(processed.evicted)
        for name, excepted in processed.excepted.items():
            counts.add_excepted(name, excepted)
            EXCEPTED.labels(name).inc(excepted)


def _blocks(parts: Sequence[tuple[bytes, Batch]]) -> list[Record]:
    """The blocks of keyed batches; those of one key, class and sensor become one, for small blocks cost as much as large ones."""
    alike: dict[tuple[bytes, str, str, str, str], list[Batch]] = {}
    for key, batch in parts:
        header = batch.header
        alike.setdefault((key, header.event_class, header.tenant, header.collector, header.module), []).append(batch)
    merged = [(key[0], part_of(group[0], together([batch.frame for batch in group]))) for key, group in alike.items()]
    return [record for key, batch in merged for record in codec.encode(batch, key)]


def next_offsets(records: Iterable[tuple[Position, Record]]) -> list[Position]:
    """Per partition the offset after the last of some records."""
    last: dict[tuple[str, int], int] = {}
    for position, _ in records:
        last[position.topic, position.partition] = position.offset + 1
    return [Position(topic, partition, offset) for (topic, partition), offset in last.items()]


def part_of(batch: Batch, frame: pl.DataFrame) -> Batch:
    """Some rows of a batch as a batch."""
    low, high = time_span(frame)
    return Batch(replace(batch.header, rows=frame.height, time_min_us=low, time_max_us=high), frame)


def _crashed_frame(frames: Frames, error: BaseException) -> Problem:
    detail = f"{type(error).__name__}: {error}"
    source = frames.sources[int(frames.source[0])]
    return Problem(ProblemCode.CRASHED, detail, 0, None, None, frames.frame(0), source, int(frames.positions[0]))


def _crashed(batch: Batch, error: BaseException) -> Problem:
    raw = batch.frame.row(0, named=True).get("event.original") or repr(batch.frame.row(0, named=True)).encode()
    return Problem(ProblemCode.CRASHED, f"{type(error).__name__}: {error}", 0, None, None, raw)


def _count_dead(stage: str, letters: Iterable[DeadLetter]) -> None:
    for letter in letters:
        DEAD.labels(stage, letter.reason).inc()
