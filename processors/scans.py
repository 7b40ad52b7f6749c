"""Finds scanners in boundary tests, and in flows inside one segment, where no firewall stands.

A miss is a boundary test that was blocked, or a flow that nobody answered although its record would have told of an answer.
What ringfence simulates does not count. The method is in `ringfence/scans.py`; what is found is of class detector:
`scan-horizontal`, `scan-vertical`, `scan-slow`. Boundary tests and flows inside segments are counted apart, and a finding says
which of the two it comes from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from processors.boundaries import NO_TEST, PASSED, UNDECIDED, address_numbers, flow_outcome, oriented, replies_of, silent
from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.detectors import Finding, batch_of
from ringfence.intents import IntentTable
from ringfence.scans import Attempts, Scans
from ringfence.segments import FIRST_CODE, SegmentMap
from ringfence.telemetry import DETECTOR_BOUNDS
from ringfence.topology import Topology

_ENDS = ("source.ip", "source.ip6", "source.port", "destination.ip", "destination.ip6", "destination.port")
_TEST_COLUMNS = frozenset({"@timestamp", *_ENDS, "ringfence.event.source", "ringfence.event.position"})
_FLOW_COLUMNS = frozenset(
    {
        *_TEST_COLUMNS, "network.iana_number", "source.packets", "destination.packets", "ringfence.tcp.source_flags",
        "ringfence.tcp.destination_flags", "ringfence.icmp.type", "ringfence.flow.action", "ringfence.flow.sampling",
        "ringfence.firewall.action", "source.segment.code",
        "destination.segment.code",
    }
)  # fmt: skip


class ScanDetector:
    """Both kinds of evidence of one worker."""

    def __init__(self, topology: Topology) -> None:
        self._segments = SegmentMap(topology)
        self._intents = IntentTable(topology, self._segments)
        self._across = Scans("boundary tests")
        self._inside = Scans("flows inside the segment")

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with what was found beside it."""
        if batch.header.event_class is EventClass.BOUNDARY:
            found = self._tests(batch)
        elif batch.header.event_class is EventClass.FLOW and "source.segment.code" in batch.frame.columns:
            found = self._flows(batch)
        else:
            return Processed(batch)
        for scans in (self._across, self._inside):
            scans.bounds.report("scans", DETECTOR_BOUNDS)
        return Processed(batch, {bus.DETECTIONS: [batch_of(found, batch, self._segments)]} if found else {})

    def snapshot(self) -> bytes:
        """What is known of the sources that are followed."""
        return msgspec.msgpack.encode((self._across.snapshot(), self._inside.snapshot()))

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew."""
        try:
            across, inside = msgspec.msgpack.decode(state, type=tuple[bytes, bytes])
        except msgspec.DecodeError:
            return
        self._across.restore(across)
        self._inside.restore(inside)

    def _tests(self, batch: Batch) -> list[Finding]:
        frame = batch.frame
        outcome = frame["ringfence.boundary.outcome"]
        missed = (outcome == "blocked").to_numpy()
        if "ringfence.evidence.silent" in frame.columns:
            missed = missed | frame["ringfence.evidence.silent"].fill_null(False).to_numpy()
        rows = np.flatnonzero(missed | (outcome == "passed").to_numpy())
        if "ringfence.boundary.origin" in frame.columns:
            rows = rows[(frame["ringfence.boundary.origin"] == "observed").fill_null(True).to_numpy()[rows]]
        if not len(rows):
            return []
        missed, boundary = missed[rows], frame["ringfence.boundary.id"]
        declared = (frame["ringfence.boundary.intent"] == "allow").to_numpy()[rows]
        frame = frame.select(name for name in frame.columns if name in _TEST_COLUMNS)
        frame = frame if len(rows) == frame.height else frame[pl.Series(rows.astype(np.uint32))]
        ends = {name: frame[name] for name in _ENDS if name in frame.columns}

        def boundaries(some: Any) -> list[str]:
            return boundary[pl.Series(rows[some].astype(np.uint32))].to_list()

        attempts = _attempts(frame, ends, missed, declared, boundaries)
        return [finding._replace(row=int(rows[finding.row])) for finding in self._across.seen(attempts)]

    def _flows(self, batch: Batch) -> list[Finding]:
        source = batch.frame["source.segment.code"].to_numpy()
        inside = (source == batch.frame["destination.segment.code"].to_numpy()) & (source >= FIRST_CODE)
        rows = np.flatnonzero(inside)
        if not len(rows):
            return []
        frame = batch.frame.select(name for name in batch.frame.columns if name in _FLOW_COLUMNS)
        frame = frame if len(rows) == frame.height else frame.filter(pl.Series(inside))
        replies = replies_of(frame, EventClass.FLOW, self._intents)
        outcome = flow_outcome(frame, replies)
        missed = (outcome != PASSED) & ((outcome != UNDECIDED) | silent(frame, replies))
        if not self._inside.needs(missed & (outcome != NO_TEST)):
            return []
        told = (missed | (outcome == PASSED)) & (outcome != NO_TEST)
        if not told.all():
            rows, frame, replies, missed = rows[told], frame.filter(pl.Series(told)), replies.only(told), missed[told]
        ends = oriented(frame, replies.swapped)
        codes = ends.pop("source.code")
        ends.pop("destination.code")
        port = ends["destination.port"] if "destination.port" in ends else pl.Series([None], dtype=pl.Int32)
        protocol = (
            frame["network.iana_number"].fill_null(0).to_numpy() if "network.iana_number" in frame.columns else np.uint8(0)
        )
        declared = self._intents.is_service(np.broadcast_to(protocol, len(rows)), _numbers(port, len(rows)).astype(np.int32))
        attempts = _attempts(
            frame, ends, missed, declared, lambda rows: [self._segments.names[code] for code in codes[rows].tolist()]
        )
        found = self._inside.seen(attempts)
        return [
            finding._replace(row=int(rows[finding.row]), columns={name: values[finding.row] for name, values in ends.items()})
            for finding in found
        ]


def _attempts(
    frame: pl.DataFrame, ends: dict[str, Any], missed: Any, declared: Any, places: Callable[[Any], list[str]]
) -> Attempts:
    return Attempts(
        address_numbers(ends, "source").astype(np.uint64),
        address_numbers(ends, "destination").astype(np.uint64),
        _numbers(ends.get("destination.port"), frame.height),
        missed,
        declared,
        frame["@timestamp"].to_numpy(),
        frame["ringfence.event.source"].to_numpy(),
        frame["ringfence.event.position"].to_numpy(),
        places,
        lambda rows: _texts6(ends.get("destination.ip6"), rows),
    )


def _texts6(column: pl.Series | None, rows: Any) -> list[str | None]:
    if column is None or column.null_count() == len(column):
        return [None] * len(rows)
    packed = column[pl.Series(rows.astype(np.uint32))].to_list()
    return [None if value is None else str(ipaddress.IPv6Address(value)) for value in packed]


def _numbers(ports: pl.Series | None, count: int) -> Any:
    if ports is None or ports.null_count() == len(ports):
        return np.full(count, -1, np.int64)
    return ports.fill_null(-1).to_numpy().astype(np.int64)


class Settings(BaseModel):
    """No options: the topology is all it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScansKind:
    """Entry point `scans`."""

    settings = Settings
    promise = "a replay of the same rows gives the same findings, whatever the batches and restarts"
    status: Status = "experimental"
    event_classes = frozenset({EventClass.FLOW, EventClass.BOUNDARY})

    def build(self, settings: Settings, context: BuildContext) -> ScanDetector:
        """Make the processor for a topology."""
        return ScanDetector(context.topology)


KIND = ScansKind()
