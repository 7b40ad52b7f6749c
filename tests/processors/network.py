"""A small declared network, and its traffic as batches, for the detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from processors.boundaries import Boundaries
from processors.segments import Segments
from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import Processor
from ringfence.stages import part_of
from ringfence.topology import Asset, Intent, Segment, Topology, parse_service
from tests import frames

S, MIN, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
T0 = 1_790_000_000_000_000
SEGMENTS: dict[str, dict[str, Any]] = {
    "users": {"networks": ["10.1.0.0/16", "2001:db8:1::/64"], "role": "users"},
    "servers": {"networks": ["10.2.0.0/16", "2001:db8:2::/64"], "role": "servers"},
    "vault": {"networks": ["10.3.0.0/16"], "role": "servers"},
    "jump": {"networks": ["10.8.0.0/24"], "role": "management"},
}
INTENTS: list[dict[str, Any]] = [
    {"from": "users", "to": "servers", "allow": ["ssh", "https"]},
    {"from": "users", "to": "jump", "allow": ["ssh"]},
    {"from": ["servers", "jump"], "to": "vault", "allow": ["ssh", "rdp"]},
    {"from": "users", "to": "vault", "deny": ["all"]},
]
SERVICES = {name: (parse_service(word),) for name, word in (("ssh", "tcp/22"), ("https", "tcp/443"), ("rdp", "tcp/3389"))}
ASSETS = {"web-1": Asset(addresses=["10.2.0.9"]), "vault-1": Asset(addresses=["10.3.0.7"])}
TOPOLOGY = Topology(
    "t.yml",
    "deny",
    {name: Segment.model_validate(body) for name, body in SEGMENTS.items()},
    ASSETS,
    SERVICES,
    tuple(Intent.model_validate(intent) for intent in INTENTS),
)


def flow(at_us: int, source: str, destination: str, port: int, answered: bool, **facts: Any) -> dict[str, Any]:
    """A TCP connection that a sensor saw both ways of."""
    return {
        "@timestamp": at_us, **frames.ends(source, destination), "source.port": 40_000, "destination.port": port,
        "network.iana_number": 6, "source.packets": 4, "destination.packets": 3 if answered else 0, **facts,
    }  # fmt: skip


def numbered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "ringfence.event.source": 7, "ringfence.event.position": index} for index, row in enumerate(rows)]


class Stage:
    """Segments, boundaries and one detector, as the process stage runs them."""

    def __init__(self, detector: Processor) -> None:
        self.detector = detector
        self._before = Segments(TOPOLOGY), Boundaries(TOPOLOGY)

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """The boundary tests and findings of a batch."""
        now = Micros(0)
        where, judge = self._before
        judged = judge.process(where.process(batch, now).batch, now)
        tests = judged.outputs.get(bus.BOUNDARY, ())
        yield from tests
        for part in (judged.batch, *tests):
            yield from self.detector.process(part, now).outputs.get(bus.DETECTIONS, ())

    def found(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """The findings of a batch as dictionaries."""
        for part in self.parts(batch):
            if part.header.event_class is EventClass.DETECTOR:
                yield from part.frame.iter_rows(named=True)


def cut(batch: Batch, at: Sequence[int]) -> list[Batch]:
    """A batch in pieces that begin at these rows."""
    bounds = [0, *sorted(set(at) - {0, batch.frame.height}), batch.frame.height]
    return [part_of(batch, batch.frame.slice(start, end - start)) for start, end in pairwise(bounds) if end > start]
