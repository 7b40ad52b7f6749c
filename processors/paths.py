"""Finds paths of administration that go round the declared intent: A reached C through B although A may not reach C.

Contacts are logins that succeeded (class auth), boundary tests that passed and flows inside a segment that were answered, the
latter two to ports of administration: 22, 135, 139, 445, 3389, 5900, 5985, 5986. The method is in `ringfence/paths.py`; what
is found is of class detector: `path-violates-intent` and `path-user-switch`, with the path as evidence.

A login line names its host; its address is that of the asset of this name in the topology, or the observer's where that is an
address. A login to a host without an address is left out and counted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from processors.boundaries import PASSED, flow_outcome, oriented, replies_of
from ringfence import addresses, bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.detectors import LOGINS, Finding, account_of, batch_of, event_id
from ringfence.intents import INTENTS, Allowed, IntentTable
from ringfence.paths import PORTS, Contact, Paths
from ringfence.segments import AMBIGUOUS_CODE, FIRST_CODE, OUTSIDE_CODE, SegmentMap
from ringfence.telemetry import DETECTOR_BOUNDS
from ringfence.topology import Topology

LOGON_PORTS = {3: 445, 10: 3389}
"""Windows logon types that tell the service."""
MAX_ASKED = 1_024
_TCP = 6
_FLOW_COLUMNS = frozenset(
    {
        "@timestamp", "source.ip", "source.ip6", "source.port", "destination.ip", "destination.ip6", "destination.port",
        "network.iana_number", "source.packets", "destination.packets", "ringfence.tcp.source_flags",
        "ringfence.tcp.destination_flags", "ringfence.icmp.type", "ringfence.flow.action", "ringfence.firewall.action",
        "ringfence.event.source", "ringfence.event.position", "source.segment.code", "destination.segment.code", "user.name",
    }
)  # fmt: skip


class PathDetector:
    """Makes contacts of rows, in their order."""

    def __init__(self, topology: Topology) -> None:
        self._segments = SegmentMap(topology)
        self._intents = IntentTable(topology, self._segments)
        self._codes = {name: code for code, name in enumerate(self._segments.names)}
        self._addresses = {
            name.lower(): asset.addresses[0] for name, asset in topology.assets.items() if len(asset.addresses) == 1
        }
        self._asked: dict[tuple[int, int], bytes] = {}
        self._paths = Paths(self._ask, self._role)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with what was found beside it."""
        match batch.header.event_class:
            case EventClass.AUTH:
                contacts = self._logins(batch.frame)
            case EventClass.BOUNDARY:
                contacts = self._tests(batch.frame)
            case EventClass.FLOW if "source.segment.code" in batch.frame.columns:
                contacts = self._flows(batch.frame)
            case _:
                return Processed(batch)
        found = [self._placed(finding) for row, contact in contacts for finding in self._paths.seen(contact, row)]
        self._paths.bounds.report("paths", DETECTOR_BOUNDS)
        return Processed(batch, {bus.DETECTIONS: [batch_of(_single(found), batch, self._segments)]} if found else {})

    def snapshot(self) -> bytes:
        """The contacts of all hosts, and what was reported."""
        return self._paths.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew."""
        self._paths.restore(state)

    def _tests(self, frame: pl.DataFrame) -> Iterator[tuple[int, Contact]]:
        if "destination.port" not in frame.columns:
            return
        wanted = frame["destination.port"].is_in(list(PORTS)).fill_null(False) & (
            frame["ringfence.boundary.outcome"] == "passed"
        )
        if "ringfence.boundary.origin" in frame.columns:
            wanted &= (frame["ringfence.boundary.origin"] == "observed").fill_null(True)
        rows = np.flatnonzero((wanted & (frame["network.iana_number"] == _TCP).fill_null(True)).to_numpy())
        if not len(rows):
            return
        columns = _columns(frame, rows, ["source.segment.name", "destination.segment.name"])
        yield from _contacts(rows, columns, columns["source.segment.name"], columns["destination.segment.name"])

    def _flows(self, frame: pl.DataFrame) -> Iterator[tuple[int, Contact]]:
        ports = [
            frame[name].is_in(list(PORTS)).fill_null(False)
            for name in ("source.port", "destination.port")
            if name in frame.columns
        ]
        if not ports or "network.iana_number" not in frame.columns:
            return
        source = frame["source.segment.code"].to_numpy()
        inside = (source == frame["destination.segment.code"].to_numpy()) & (source >= FIRST_CODE)
        inside &= (ports[0] | ports[-1]).to_numpy() & (frame["network.iana_number"] == _TCP).fill_null(False).to_numpy()
        rows = np.flatnonzero(inside)
        if not len(rows):
            return
        frame = frame.select(name for name in frame.columns if name in _FLOW_COLUMNS).filter(pl.Series(inside))
        replies = replies_of(frame, EventClass.FLOW, self._intents)
        ends = oriented(frame, replies.swapped)
        names = [self._segments.names[code] for code in ends.pop("source.code").tolist()]
        ends.pop("destination.code")
        frame = frame.with_columns(**ends)
        port = frame["destination.port"].is_in(list(PORTS)).fill_null(False).to_numpy()
        passed = np.flatnonzero((flow_outcome(frame, replies) == PASSED) & port)
        some = [names[row] for row in passed.tolist()]
        yield from _contacts(rows[passed], _columns(frame, passed, ()), some, some)

    def _logins(self, frame: pl.DataFrame) -> Iterator[tuple[int, Contact]]:
        needed = {"event.outcome", "event.action"}
        if not needed <= set(frame.columns) or not {"source.ip", "source.ip6"} & set(frame.columns):
            return
        wanted = (frame["event.outcome"] == "success") & frame["event.action"].is_in(LOGINS)
        rows = np.flatnonzero(wanted.fill_null(False).to_numpy())
        if not len(rows):
            return
        more = ("host.name", "host.hostname", "observer.name", "event.action", "ringfence.auth.logon_type")
        columns = _columns(frame, rows, more)
        for index, row in enumerate(rows.tolist()):
            source, target = columns["source"][index], columns["destination"][index]
            target = target or self._address([columns[name][index] for name in more[:3]])
            if source is None:
                continue
            if target is None:
                self._paths.bounds.hit("login_without_address")
                continue
            port = columns["destination.port"][index] or LOGON_PORTS.get(columns["ringfence.auth.logon_type"][index], 0)
            port = 22 if columns["event.action"][index] == "ssh-login" else port
            user = columns["user.name"][index]
            event = event_id(columns["ringfence.event.source"][index], columns["ringfence.event.position"][index])
            yield row, Contact(
                source, target, self._segment(source), self._segment(target), port, account_of(user), columns["@timestamp"][index], event
            )  # fmt: skip

    def _address(self, names: list[str | None]) -> str | None:
        for name in names:
            if name is None:
                continue
            known = self._addresses.get(name.lower()) or self._addresses.get(name.lower().partition(".")[0])
            if known is not None:
                return known
        try:
            return str(ipaddress.ip_address(names[-1] or ""))
        except ValueError:
            return None

    def _segment(self, host: str) -> str:
        """The name of the segment of an address; empty where several share it."""
        address = _address_of(host)
        four = isinstance(address, int)
        codes = self._segments.codes4(np.array([address], np.uint32)) if four else self._segments.codes6([address])  # type: ignore[list-item]
        return self._segments.names[codes[0]] if codes[0] >= OUTSIDE_CODE else ""

    def _ask(self, source: str, destination: str, port: int) -> str | None:
        one, two = (self._codes.get(name, 0) for name in (source, destination))
        if min(one, two) < OUTSIDE_CODE or AMBIGUOUS_CODE in (one, two) or one == two:
            return None
        answers = self._asked.get((one, port))
        if answers is None:
            if len(self._asked) >= MAX_ASKED:
                self._asked.clear()
            answers = self._asked[one, port] = self._answers(one, port)
        return None if answers[two] == Allowed.ALLOW else INTENTS[answers[two]]

    def _answers(self, source: int, port: int) -> bytes:
        """The intent from a segment to each other one by a port of TCP."""
        every = np.arange(len(self._segments.names), dtype=np.int32)
        protocol, ports = np.full(len(every), _TCP, np.uint8), np.full(len(every), port, np.int32)
        return self._intents.ask(np.full_like(every, source), every, protocol, ports).tobytes()

    def _role(self, segment: str) -> str | None:
        declared = self._segments.segments[self._codes.get(segment, 0)]
        return declared.role if declared else None

    def _placed(self, finding: Finding) -> Finding:
        """With the ends of the path as columns."""
        columns = dict(finding.columns)
        names = [columns.pop(f"{side}.segment") for side in ("source", "destination")]
        for side, name in zip(("source", "destination"), names, strict=True):
            address = _address_of(columns.pop(f"{side}.host"))
            columns[f"{side}.ip"] = address if isinstance(address, int) else None
            columns[f"{side}.ip6"] = address if isinstance(address, bytes) else None
            columns[f"{side}.segment.code"] = self._codes.get(name, 0)
        columns |= {"source.port": None, "ringfence.boundary.id": " -> ".join(names)}
        return finding._replace(columns=columns)


def _address_of(host: str) -> int | bytes:
    address = ipaddress.ip_address(host)
    return int(address) if address.version == 4 else address.packed


def _single(found: list[Finding]) -> list[Finding]:
    """One finding of a name for a row, for its id comes from both; a login told late may complete several paths."""
    return list({(finding.row, finding.name): finding for finding in found}.values())


def _columns(frame: pl.DataFrame, rows: npt.NDArray[Any], more: Any) -> dict[str, list[Any]]:
    """Some rows as lists: both addresses as text, and columns, with None where there is none."""
    some = frame[pl.Series(rows.astype(np.uint32))]
    names = ("@timestamp", "destination.port", "user.name", "ringfence.event.source", "ringfence.event.position", *more)
    columns = {name: some[name].to_list() if name in some.columns else [None] * len(rows) for name in names}
    for side in ("source", "destination"):
        ends = [some[name] if name in some.columns else None for name in (f"{side}.ip", f"{side}.ip6")]
        text = addresses.text(*ends)
        columns[side] = [None] * len(rows) if text is None else text.to_list()
    return columns


def _contacts(
    rows: npt.NDArray[Any], columns: dict[str, list[Any]], source: list[str], destination: list[str]
) -> Iterator[tuple[int, Contact]]:
    for index, row in enumerate(rows.tolist()):
        event = event_id(columns["ringfence.event.source"][index], columns["ringfence.event.position"][index])
        yield row, Contact(
            columns["source"][index], columns["destination"][index], source[index], destination[index],
            columns["destination.port"][index], account_of(columns["user.name"][index]), columns["@timestamp"][index], event,
        )  # fmt: skip


class Settings(BaseModel):
    """No options: the topology is all it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PathsKind:
    """Entry point `paths`."""

    settings = Settings
    promise = "a replay of the same rows gives the same findings, whatever the batches and restarts"
    status: Status = "experimental"
    event_classes = frozenset({EventClass.AUTH, EventClass.FLOW, EventClass.BOUNDARY})

    def build(self, settings: Settings, context: BuildContext) -> PathDetector:
        """Make the processor for a topology."""
        return PathDetector(context.topology)


KIND = PathsKind()
