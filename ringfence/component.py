"""The seams of ringfence: what a decoder, shell, collector, processor, sink and bus promise each other and the runtime.

Components own no loop, no retry, no batching and no shutdown: the runtime does. Imports point one way, from components
to this package; the runtime finds components by entry point (`ringfence/registry.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from ringfence.batch import Batch, Decoded, EventClass, Frames, Micros, Position, Problem, Record, Step
from ringfence.rulesets import Rules
from ringfence.topology import Topology


class Decoder(Protocol):
    """Bytes and arrival facts in, rows and problems out: no socket, file, clock, log or random."""

    def feed(self, frames: Frames) -> Decoded:
        """Decode every frame. Hostile bytes give Problems, never exceptions."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A decoder or processor that learns from the stream what it needs later, such as templates; its stage keeps that for it."""

    def snapshot(self) -> bytes:
        """What it must know after a restart; cheap, and the same bytes while nothing changed."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot, before the first rows. One that cannot be read is left aside, not raised."""
        ...


class Framer(Protocol):
    """Cuts a byte stream into frames, however it is chunked: the same bytes give the same frames.

    Frames are contiguous in the stream, so the place of each is known from the place of the first. What cannot be cut
    (a length that is insane) is handed over as one frame for the decoder to reject: a framer loses no byte.
    """

    def cut(self, data: bytes) -> tuple[bytes, npt.NDArray[np.int64]]:
        """Take the next bytes; return the bytes of the frames that are complete and their n + 1 boundaries in them."""
        ...

    def finish(self) -> tuple[bytes, npt.NDArray[np.int64]]:
        """Return what is left at the end of the stream in the same form, complete or not."""
        ...

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        ...

    @property
    def head_bytes(self) -> int:
        """Bytes at the beginning of a file that framer and decoder need before they can go on in its middle; 0 for most."""
        ...


@runtime_checkable
class HeadedFramer(Framer, Protocol):
    """A framer whose frames mean nothing without some that came before, of any length and not only at the beginning.

    The shell stores `head` with the position and gives it to cut() of a new framer before it goes on in the middle; the
    frames that come of it are delivered again, from position 0 on. They must be no rows.
    """

    @property
    def head(self) -> bytes:
        """The frames that hold for what comes next, as cut() was given them; empty when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `ringfence decode` and `ringfence replay` read from a file by name, or recognise by its first bytes.

    `decoder` is given the year of the file's last change, for records whose times lack the year.
    """

    name: str
    meaning: str
    framer: Callable[[], Framer]
    decoder: Callable[[int], Decoder]
    recognise: Callable[[bytes], bool]
    module: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Frames that a shell read, and what it must be told to go on after them.

    `position` is the shell's own note of what comes next; the runtime stores it in the same commit as the rows. An
    empty `frames` with a new position is legal. `shed` counts frames that the shell had to drop, by reason; `caps` counts
    the bounds that it hit without knowing of a frame that was lost, by name.
    """

    frames: Frames
    position: bytes
    shed: Mapping[str, int] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)


class Shell(Protocol):
    """The only code that reads the world: udp, tcp, tail, file."""

    async def open(self, position: bytes) -> None:
        """Start after `position` (empty: from the beginning). Raises Retryable or Permanent with one clear sentence."""
        ...

    async def read(self) -> Delivery:
        """Return what is there, waiting for at least one frame. Raises EndOfInput when no more can come. Safe to cancel."""
        ...

    async def close(self) -> None:
        """Stop receiving and free everything. May be called twice, or before open()."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A shell whose source waits to hear that what it gave is safe: an offset to commit, a request to answer."""

    def settle(self, position: bytes) -> None:
        """All that was delivered up to and with this position is durable. Returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class Collector:
    """A decoder bound to a shell. `module` is the kind of source and becomes `event.module`."""

    module: str
    shell: Shell
    decoder: Decoder


@dataclass(frozen=True, slots=True)
class Processed:
    """What a processor made of a batch: the batch to pass on (enriched), and further batches for topics of their own.

    `merged` counts rows that made no boundary test because another observer had reported the same crossing, `forgotten`
    crossings that had to leave the memory of them before their time. `excepted` counts detections that made no alert, by the name
    of the exception, and `evicted` alerts and what belongs to them that had to be forgotten.
    """

    batch: Batch
    outputs: Mapping[str, Sequence[Batch]] = field(default_factory=dict)
    merged: int = 0
    forgotten: int = 0
    excepted: Mapping[str, int] = field(default_factory=dict)
    evicted: int = 0


class Processor(Protocol):
    """Plain and synchronous: no I/O, no wall clock."""

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Return the batch with added columns; never changes the one it was given. `now` is event time."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A processor that waits for more of a stream, such as for the end of a window."""

    def finish(self) -> Mapping[str, Sequence[Batch]]:
        """Nothing more will come: what it makes of what it has, by topic."""
        ...


class Sink(Protocol):
    """Delivers batches somewhere. The runtime calls write() for each batch of a step, then flush(), then commits."""

    topics: Sequence[str]

    async def open(self, state: bytes) -> None:
        """Connect, and return to what `state` (of the last commit) describes. Raises Retryable or Permanent."""
        ...

    async def write(self, topic: str, batch: Batch) -> Mapping[int, Problem]:
        """Take a batch; return the rows that can never be delivered, with the reason. Retryable: all of it again later."""
        ...

    async def flush(self) -> bytes:
        """Make all that was written durable and return the state to commit with it."""
        ...

    async def close(self) -> None:
        """Free everything. May be called twice, or before open()."""
        ...


class Bus(Protocol):
    """Topics of records, read by consumer groups. Memory, embedded and Kafka pass one contract suite.

    A group reads each topic from its last committed offset; a read moves only a cursor in memory. `commit` is the only
    way to write: outputs, offsets and state become durable and visible together, or not at all.
    """

    async def open(self) -> None:
        """Connect or create. Raises Retryable or Permanent with one clear sentence."""
        ...

    async def create_topics(self) -> Sequence[str]:
        """Make what the bus needs before its first use and does not make as it goes; returns the names made."""
        ...

    async def join(self, group: str, topics: Sequence[str]) -> Mapping[str, bytes]:
        """Become the reader of `group` here and return its committed state. Called again, goes back to the last commit."""
        ...

    async def read(self, group: str, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Return the next records of the group's topics, or none after `wait_secs`. Raises Fenced if the group was lost."""
        ...

    async def commit(self, step: Step) -> None:
        """Make a step durable. Raises Retryable (nothing was written), Permanent, or Fenced if the group was lost."""
        ...

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """The committed state of every group, by group and component, without joining any of them."""
        ...

    def unread(self, group: str, topic: str) -> AsyncIterator[tuple[Position, Record]]:
        """Every record that a group has not committed yet, without joining it; ends at the head as of the call."""
        ...

    async def close(self) -> None:
        """Leave all groups and free everything. May be called twice, or before open()."""
        ...


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What the program passes to a component when it builds it: where it is in the configuration, the topology, the rules."""

    name: str
    topology: Topology
    rules: Rules = field(default_factory=Rules)


Status = Literal["experimental", "stable"]
"""Stable: golden cases, properties, contract suite, a README row and a day of soak."""


class CollectorKind(Protocol):
    """What an entry point of the group `ringfence.collectors` names: the class object of a collector's configuration.

    The settings are the component: `build` gives the running collector, `resources` the ports and files that it claims
    exclusively, `formats` the file formats that its decoder reads. `promise`, `status` and `sample` (a line of configuration)
    are for the docs.
    """

    settings: type[BaseModel]
    promise: str
    status: Status
    sample: str
    formats: Sequence[Format]

    def build(self, settings: Any, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        ...

    def resources(self, settings: Any) -> Sequence[str]:
        """What no two components may claim at once, such as `udp 127.0.0.1:2055`."""
        ...


class SinkKind(Protocol):
    """What an entry point of the group `ringfence.sinks` names."""

    settings: type[BaseModel]
    promise: str
    status: Status
    sample: str

    def build(self, settings: Any, context: BuildContext) -> Sink:
        """Make the sink; touches neither network nor disk."""
        ...

    def resources(self, settings: Any) -> Sequence[str]:
        """What no two components may claim at once."""
        ...


class ProcessorKind(Protocol):
    """What an entry point of the group `ringfence.processors` names."""

    settings: type[BaseModel]
    promise: str
    status: Status
    event_classes: frozenset[EventClass]

    def build(self, settings: Any, context: BuildContext) -> Processor:
        """Make the processor."""
        ...
