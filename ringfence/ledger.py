"""The ledger: for every stage, what came in is what went out, died, was shed, was left out on purpose, or is in flight.

Each component keeps cumulative counters that are committed in the same step as its data, so a crash loses neither or
both. What is in flight is not derived from them: it is counted on the bus, so an imbalance shows real loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import msgspec

from ringfence.codec import rows_in
from ringfence.component import Bus

LEDGER_STATE = "ledger"


@dataclass
class Counts:
    """Counters of one component since it first ran. Frames for collectors, rows for the others.

    `received = done + dead + filtered + held`; `shed` never arrived. `merged` counts those of `done` that told of a crossing
    which another observer had reported, and so made no boundary test. `written` counts rows appended per topic, `excepted`
    detections that made no alert, by the name of the exception.
    """

    received: int = 0
    done: int = 0
    dead: int = 0
    filtered: int = 0
    held: int = 0
    shed: int = 0
    merged: int = 0
    written: dict[str, int] = field(default_factory=dict)
    excepted: dict[str, int] = field(default_factory=dict)

    def wrote(self, topic: str, rows: int) -> None:
        """Note rows that were appended to a topic."""
        if rows:
            self.written[topic] = self.written.get(topic, 0) + rows

    def add_excepted(self, name: str, detections: int) -> None:
        """Note detections that an exception kept from making an alert."""
        self.excepted[name] = self.excepted.get(name, 0) + detections

    @property
    def imbalance(self) -> int:
        """Frames or rows that nothing accounts for; must be 0."""
        return self.received - self.done - self.dead - self.filtered - self.held

    def encode(self) -> bytes:
        """JSON, for the state of a step."""
        return msgspec.json.encode(asdict(self))

    @classmethod
    def decode(cls, state: bytes | None) -> Counts:
        """The counters of a committed state; zeros when there is none."""
        return cls(**msgspec.json.decode(state)) if state else cls()


@dataclass(frozen=True, slots=True)
class Edge:
    """One topic between its writers and one reader: rows written = rows received + rows in flight."""

    topic: str
    reader: str
    written: int
    received: int
    in_flight: int

    @property
    def imbalance(self) -> int:
        """Rows that were written and are neither received nor on the bus; must be 0."""
        return self.written - self.received - self.in_flight


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every component and every edge between them."""

    components: Mapping[str, Counts]
    edges: Sequence[Edge]

    @property
    def imbalance(self) -> int:
        """Sum of all that is unaccounted for, without regard to sign."""
        return sum(abs(counts.imbalance) for counts in self.components.values()) + sum(
            abs(edge.imbalance) for edge in self.edges
        )


async def read(engine: Bus, readers: Mapping[str, Sequence[str]]) -> Ledger:
    """Read the ledger of a bus. `readers` maps each consumer group to the topics that it reads."""
    states = await engine.states()
    components = {group: _summed(state, LEDGER_STATE) for group, state in sorted(states.items()) if _parts(state, LEDGER_STATE)}
    edges = []
    for group, topics in readers.items():
        received = _summed(states.get(group, {}), f"{LEDGER_STATE}/topics").written
        for topic in topics:
            written = sum(counts.written.get(topic, 0) for counts in components.values())
            in_flight = 0
            async for _, record in engine.unread(group, topic):
                in_flight += rows_in([record])
            edges.append(Edge(topic, group, written, received.get(topic, 0), in_flight))
    return Ledger(components, edges)


def _parts(state: Mapping[str, bytes], component: str) -> list[Counts]:
    """What each process of a stage keeps, one where the bus has a single one (`stages.state_key`)."""
    return [Counts.decode(value) for key, value in state.items() if key.partition("@")[0] == component]


def _summed(state: Mapping[str, bytes], component: str) -> Counts:
    total = Counts()
    for part in _parts(state, component):
        for name in ("received", "done", "dead", "filtered", "held", "shed", "merged"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        for topic, rows in part.written.items():
            total.wrote(topic, rows)
        for exception, detections in part.excepted.items():
            total.add_excepted(exception, detections)
    return total


def topics_read(counts: Mapping[str, int]) -> bytes:
    """State entry with the rows that a reader received by topic."""
    return Counts(written=dict(counts)).encode()
