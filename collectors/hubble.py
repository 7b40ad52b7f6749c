"""Cilium Hubble flows as JSON lines: `hubble observe -o jsonpb` and the Hubble exporter (flow.proto of Cilium 1.14 to 1.18).

A record is `{"flow":{...},"node_name":...,"time":...}`; members that are zero or false may be left out, as protobuf does.
Records without a flow (`lost_events`, `node_status`, `agent_event`) become rows of class generic with their line kept.

Each flow is a row of class flow: one packet, or one request of an L7 proxy. `is_reply` orients it: the source is always
the initiator, and the packet of a reply counts as `destination.packets`. Where Hubble knows that a packet is no reply
there are 0 packets back; where it does not know, the direction is left to the boundary processor, as of any one-way record.

Verdict -> `ringfence.firewall.action`, by which boundaries judge:

- DROPPED: block, and drop as `ringfence.flow.action`. A dropped reply is unknown, so no test: its request had passed.
- FORWARDED and AUDIT (forwarded though policy denies it) prove a crossing only where the destination's endpoint is: pass
  for an INGRESS flow that was let in (policy verdict, L7 proxy) or handed over (TO_ENDPOINT). A forwarded reply proves it
  by itself. Any other, such as the start of the way at EGRESS, is left to the rule for flow records: an attempt.
- all others (ERROR, REDIRECTED, TRACED, TRANSLATED) decide nothing: unknown.

`ringfence.firewall.rule` is the policy that allowed or denied, NAMESPACE/NAME, where Cilium names it. There is no VNI.

Sample: {"flow":{"time":"2026-11-25T07:44:23.123456789Z","verdict":"DROPPED","IP":{"source":"10.1.0.5",...},"l4":{"TCP":{...}},...}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from collectors.host_events import HostEventKind
from collectors.lines import Continuations, first_line
from collectors.records import LineBlock, integers, micros_of, without
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.jsonlines import decode_lines, explain, locate
from ringfence.projection import columns_of
from ringfence.schema import build_frame

CHUNK_LINES = 512

Columns = Mapping[str, Sequence[Any]]
Bad = dict[int, tuple[str, str]]


class _TcpFlags(msgspec.Struct, gc=False):
    FIN: bool = False
    SYN: bool = False
    RST: bool = False
    PSH: bool = False
    ACK: bool = False
    URG: bool = False
    ECE: bool = False
    CWR: bool = False


class _Tcp(msgspec.Struct, gc=False):
    source_port: int = 0
    destination_port: int = 0
    flags: _TcpFlags | None = None


class _Ports(msgspec.Struct, gc=False):
    source_port: int = 0
    destination_port: int = 0


class _Icmp(msgspec.Struct, gc=False):
    type: int = 0
    code: int = 0


class _L4(msgspec.Struct, gc=False):
    TCP: _Tcp | None = None
    UDP: _Ports | None = None
    SCTP: _Ports | None = None
    ICMPv4: _Icmp | None = None
    ICMPv6: _Icmp | None = None


class _Ip(msgspec.Struct, gc=False):
    source: str | None = None
    destination: str | None = None


class _EventType(msgspec.Struct, gc=False):
    type: int | None = None


class _Policy(msgspec.Struct, gc=False):
    name: str | None = None
    namespace: str | None = None


class _Flow(msgspec.Struct, gc=False):
    time: str | None = None
    verdict: str | None = None
    node_name: str | None = None
    uuid: str | None = None
    IP: _Ip | None = None
    l4: _L4 | None = None
    event_type: _EventType | None = None
    traffic_direction: str | None = None
    trace_observation_point: str | None = None
    is_reply: bool | None = None
    drop_reason_desc: str | None = None
    ingress_denied_by: list[_Policy] | None = None
    egress_denied_by: list[_Policy] | None = None
    ingress_allowed_by: list[_Policy] | None = None
    egress_allowed_by: list[_Policy] | None = None


_NOTHING = msgspec.Raw(b"")


class _Record(msgspec.Struct, gc=False):
    flow: _Flow | None = None
    node_name: str | None = None
    time: str | None = None
    lost_events: msgspec.Raw = _NOTHING
    node_status: msgspec.Raw = _NOTHING
    agent_event: msgspec.Raw = _NOTHING
    debug_event: msgspec.Raw = _NOTHING


_DECODER = msgspec.json.Decoder(_Record)
_TYPES: Mapping[str, int] = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMPv4": 1, "ICMPv6": 58}
_FLAGS: Mapping[str, int] = {
    "FIN": 0x01,
    "SYN": 0x02,
    "RST": 0x04,
    "PSH": 0x08,
    "ACK": 0x10,
    "URG": 0x20,
    "ECE": 0x40,
    "CWR": 0x80,
}
_POLICIES = ("ingress_denied_by", "egress_denied_by", "ingress_allowed_by", "egress_allowed_by")
_OTHERS = ("lost_events", "node_status", "agent_event", "debug_event")
_LET_IN = frozenset({5, 129})
"""Event types that are a decision at the endpoint: policy verdict, and access log of the L7 proxy (monitor API)."""
_FORWARDED = frozenset({"FORWARDED", "AUDIT"})
_ENDS = ("source", "destination")


class HubbleDecoder:
    """Decoder of Hubble lines. `observer` names the sensor where a record has no `node_name`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        parts: dict[EventClass, list[pl.DataFrame]] = {EventClass.FLOW: [], EventClass.GENERIC: []}
        for start in range(0, len(block.lines), CHUNK_LINES):
            self._chunk(block, start, parts)
        return block.decoded({event_class: frames for event_class, frames in parts.items() if frames})

    def _chunk(self, block: LineBlock, start: int, parts: dict[EventClass, list[pl.DataFrame]]) -> None:
        lines = block.lines[start : start + CHUNK_LINES]
        records, refused = decode_lines(_DECODER, lines)
        for index in refused:
            _refuse(block, start + index)
        flows = [(row, record) for row, record in enumerate(records, start) if record is not None and record.flow is not None]
        others = [(row, record) for row, record in enumerate(records, start) if record is not None and record.flow is None]
        for found, event_class in ((flows, EventClass.FLOW), (others, EventClass.GENERIC)):
            if found:
                frame = self._frame(block, event_class, np.array([row for row, _ in found]), [record for _, record in found])
                if frame.height:
                    parts[event_class].append(frame)

    def _frame(
        self, block: LineBlock, event_class: EventClass, rows: npt.NDArray[np.int64], records: list[Any]
    ) -> pl.DataFrame:
        """The rows of some records; those with a value that cannot be are refused."""
        is_flow = event_class is EventClass.FLOW
        bad: Bad = {}
        columns = block.origin_columns(rows, self._keep_original or not is_flow, is_flow)
        nodes = [record.node_name or self._observer for record in records]
        times = [record.time for record in records]
        if is_flow:
            found = columns_of([record.flow for record in records], _Flow)
            times = [own or outer for own, outer in zip(found["time"], times, strict=True)]
            nodes = [own or outer for own, outer in zip(found["node_name"], nodes, strict=True)]
            columns |= self._flow_columns(found, bad)
        else:
            columns["ringfence.generic.type"] = [_kind(record) for record in records]
        columns["observer.name"] = nodes
        columns["@timestamp"], absent = micros_of(times)
        bad.update(dict.fromkeys(absent.tolist(), ("flow.time" if is_flow else "time", "Expected an RFC 3339 time")))
        for index, (path, detail) in bad.items():
            row = int(rows[index])
            line = block.lines[row]
            place = locate(line, f"$.{path}") or (locate(line, "$.time") if path.endswith("time") else 0)
            block.refuse(ProblemCode.WRONG_TYPE, detail, row, place, f"$.{path}")
        return without(build_frame(event_class, columns), bad)

    def _flow_columns(self, found: Columns, bad: Bad) -> dict[str, Any]:
        """Everything that the flow says, with the initiator as source."""
        count = len(found["verdict"])
        ends: dict[str, pl.Series] = {}
        for side in _ENDS:
            parsed = self._addresses.column([text or None for text in found[f"IP.{side}"]])
            bad.update(dict.fromkeys(parsed.invalid.tolist(), (f"flow.IP.{side}", "Expected an IPv4 or IPv6 address")))
            ends[f"{side}.ip"] = parsed.v4
            ends[f"{side}.ip6"] = pl.repeat(None, count, dtype=pl.Binary(), eager=True) if parsed.v6 is None else parsed.v6
            ends[f"{side}.port"] = _numbers(found, ("TCP", "UDP", "SCTP"), f"{side}_port", 65_535, bad)
        replies = [reply is True for reply in found["is_reply"]]
        is_reply = pl.Series(replies)
        columns: dict[str, Any] = {
            f"{side}.{part}": ends[f"{other}.{part}"].zip_with(is_reply, ends[f"{side}.{part}"])
            for side, other in (_ENDS, reversed(_ENDS))
            for part in ("ip", "ip6", "port")
        }
        protocol: list[int | None] = [None] * count
        for name, number in _TYPES.items():
            leaf = "type" if name.startswith("ICMP") else "source_port"
            protocol = [
                number if value is not None else known
                for value, known in zip(found[f"l4.{name}.{leaf}"], protocol, strict=True)
            ]
        flags = np.zeros(count, np.int64)
        for name, bit in _FLAGS.items():
            flags |= np.array([bit if value else 0 for value in found[f"l4.TCP.flags.{name}"]], np.int64)
        is_tcp = np.array([number == _TYPES["TCP"] for number in protocol])
        back = is_reply.to_numpy()
        actions = [
            *map(
                _action,
                found["verdict"],
                replies,
                found["traffic_direction"],
                found["trace_observation_point"],
                found["event_type.type"],
            )
        ]
        return columns | {
            "network.iana_number": protocol,
            "ringfence.tcp.source_flags": _where(is_tcp & ~back, flags),
            "ringfence.tcp.destination_flags": _where(is_tcp & back, flags),
            "ringfence.icmp.type": _numbers(found, ("ICMPv4", "ICMPv6"), "type", 255, bad),
            "ringfence.icmp.code": _numbers(found, ("ICMPv4", "ICMPv6"), "code", 255, bad),
            "source.packets": [0 if reply else 1 for reply in replies],
            "destination.packets": [None if reply is None else int(reply) for reply in found["is_reply"]],
            "ringfence.flow.id": found["uuid"],
            "ringfence.flow.state": [verdict and verdict.lower() for verdict in found["verdict"]],
            "ringfence.flow.reason": found["drop_reason_desc"],
            "ringfence.flow.action": [_FLOW_ACTIONS.get(verdict) for verdict in found["verdict"]],
            "ringfence.firewall.action": actions,
            "ringfence.firewall.rule": [*map(_rule, *(found[name] for name in _POLICIES))],
        }


_FLOW_ACTIONS: Mapping[str | None, str] = {"DROPPED": "drop", "FORWARDED": "accept", "AUDIT": "accept"}


def _action(verdict: str | None, reply: bool, direction: str | None, point: str | None, event_type: int | None) -> str | None:
    """What the flow says a policy did: block, pass, unknown, or None for what a packet under way proves by itself."""
    if verdict == "DROPPED":
        return "unknown" if reply else "block"
    if verdict not in _FORWARDED:
        return "unknown"
    let_in = not reply and direction == "INGRESS" and (point == "TO_ENDPOINT" or event_type in _LET_IN)
    return "pass" if let_in else None


def _rule(*lists: list[_Policy] | None) -> str | None:
    """The first policy that is named."""
    for policies in lists:
        for policy in policies or ():
            if policy.name:
                return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    return None


def _numbers(found: Columns, names: Sequence[str], leaf: str, most: int, bad: Bad) -> pl.Series:
    """A number that one of several transports has."""
    values: list[int | None] = [None] * len(found["verdict"])
    for name in names:
        own = found[f"l4.{name}.{leaf}"]
        values = [value if value is not None else known for value, known in zip(own, values, strict=True)]
        wrong: dict[int, str] = {}
        integers(list(own), 0, most, "", wrong)
        bad.update(dict.fromkeys(wrong, (f"flow.l4.{name}.{leaf}", "Number out of range")))
    return integers(values, 0, most, "", {})


def _where(mask: npt.NDArray[np.bool_], flags: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(flags).set(pl.Series(~mask), None)


def _kind(record: _Record) -> str | None:
    return next((name for name in _OTHERS if bytes(getattr(record, name))), None)


def _refuse(block: LineBlock, row: int) -> None:
    line = block.lines[row]
    if not line.strip():
        block.filtered["blank"] += row not in block.left_out
        return
    code, detail, offset, path = explain(_DECODER, line)
    block.refuse(code, detail, row, offset, path)


def _looks_like_hubble(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b'{"flow":{') and b'"verdict"' in line


KIND = HostEventKind(
    "hubble",
    "Cilium Hubble flows as JSON lines",
    "cluster: {type: hubble, path: /var/run/cilium/hubble/events.log}",
    HubbleDecoder,
    _looks_like_hubble,
)
