"""The per-event chain that ringfence is compared with: one Python object per event, as careful code is usually written.

Look-ups are cached in dicts, paths are split once, nothing is parsed twice. It makes the same documents as the columnar
chain, member for member; `bench/__main__.py` compares the counts of verdicts.
"""

from __future__ import annotations

import json
import socket
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from ringfence.documents import ECS_VERSION
from ringfence.topology import ANY, OUTSIDE, PROTOCOLS, Intent, Topology

Event = dict[str, Any]
TCP, UDP, ICMP = 6, 17, 1
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_BOUNDARY_ID = 0xB0_0D_A2_7E_57_00_00_01
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Prefixes:
    """Longest-prefix look-up by bisection over prefixes in order; each knows the one around it."""

    def __init__(self, topology: Topology, version: int) -> None:
        claims = sorted(
            (int(network.network_address), network.prefixlen, int(network.broadcast_address), name)
            for name, segment in topology.segments.items() for network in segment.networks if network.version == version
        )  # fmt: skip
        self._starts = [start for start, _, _, _ in claims]
        self._ends = [end for _, _, end, _ in claims]
        self._names = [name for _, _, _, name in claims]
        self._around: list[int] = []
        for index, start in enumerate(self._starts):
            outer = index - 1
            while outer >= 0 and self._ends[outer] < start:
                outer = self._around[outer]
            self._around.append(outer)

    def find(self, address: int) -> str:
        """The segment of an address."""
        index = bisect_right(self._starts, address) - 1
        while index >= 0:
            if self._ends[index] >= address:
                return self._names[index]
            index = self._around[index]
        return OUTSIDE


class Segments(dict[str | int | bytes, str]):
    """Segment by address text, IPv4 integer or 16 bytes; every answer is remembered."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self._v4, self._v6 = Prefixes(topology, 4), Prefixes(topology, 6)

    def __missing__(self, address: str | int | bytes) -> str:
        if isinstance(address, int):
            name = self._v4.find(address)
        elif isinstance(address, bytes):
            name = self._v6.find(int.from_bytes(address, "big"))
        elif ":" in address:
            name = self._v6.find(int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big"))
        else:
            name = self._v4.find(int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big"))
        self[address] = name
        return name


class Intents(dict[tuple[str, str, int, int], str]):
    """Intent of (source, destination, protocol, port); every answer is remembered."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self._topology = topology
        ends = {end for intent in topology.intents for end in (*intent.source, *intent.destination)}
        self._members = {end: frozenset(topology.members(end)) for end in ends}
        self._names = {
            (part.protocol, port): name
            for name, parts in reversed(list(topology.services.items())) for part in parts for port in range(part.low, part.high + 1)
        }  # fmt: skip

    def __missing__(self, key: tuple[str, str, int, int]) -> str:
        source, destination, protocol, port = key
        concerned = [
            (_exact(from_end) + _exact(to_end), intent.deny is not None, intent)
            for intent in self._topology.intents for from_end in intent.source for to_end in intent.destination
            if source in self._members[from_end] and destination in self._members[to_end]
        ]  # fmt: skip
        answer: str = "deny" if concerned else self._topology.default_intent
        for _, denies, intent in sorted(concerned, key=lambda item: item[:2]):
            if self._covers(intent, protocol, port):
                answer = "deny" if denies else "allow"
        self[key] = answer
        return answer

    def is_service(self, protocol: int, port: int) -> bool:
        """A declared or well-known port."""
        return 0 <= port < 1024 or (protocol, port) in self._names

    def service(self, protocol: int, port: int) -> str:
        """The declared name of a service, else tcp/8443."""
        return self._names.get((protocol, port)) or f"{_transport(protocol) or f'ip/{protocol}'}/{port}"

    def _covers(self, intent: Intent, protocol: int, port: int) -> bool:
        words = intent.allow if intent.allow is not None else intent.deny or []
        parts = [part for word in words for part in self._topology.service(word)]
        return any(part.protocol in (None, protocol) and part.low <= port <= part.high for part in parts)


def _exact(end: str) -> bool:
    return end != ANY and ":" not in end


_VERDICTS = {
    ("deny", "blocked"): "held", ("deny", "passed"): "breached", ("allow", "passed"): "permitted",
    ("allow", "blocked"): "overblocked", ("undeclared", "passed"): "undeclared",
}  # fmt: skip


class EveChain:
    """json.loads, segments, verdict and json.dumps, one line after the other."""

    def __init__(self, topology: Topology, identity: int, collector: str) -> None:
        self._segments, self._intents = Segments(topology), Intents(topology)
        self._objects = {name: _segment(topology, name) for name in (*topology.segments, OUTSIDE)}
        self._identity, self._collector = identity, collector

    def decoded(self, block: bytes) -> Iterator[Event]:
        """The fields in use of every line as a flat dict of ECS names."""
        for line in block.splitlines():
            yield _fields(json.loads(line))

    def documents(self, block: bytes, position: int, verdicts: Counter[str]) -> Iterator[str]:
        """The event documents of a block, each followed by its boundary test if it has one."""
        for line in block.splitlines(keepends=True):
            record = json.loads(line)
            flat = self._flat(record, position)
            position += len(line)
            yield _dumps(nest(flat))
            test = self._test(record, flat)
            if test is not None:
                verdicts[test["ringfence.boundary.verdict"]] += 1
                yield _dumps(nest(test))

    def _flat(self, record: Event, position: int) -> Event:
        kind = record["event_type"]
        flat = _fields(record)
        if record.get("direction") == "to_client":
            for end in ("ip", "port"):
                flat[f"source.{end}"], flat[f"destination.{end}"] = flat[f"destination.{end}"], flat[f"source.{end}"]
        source, destination = flat["source.ip"], flat["destination.ip"]
        flat.update({
            "event.id": f"{self._identity:016x}{position:016x}", "ecs.version": ECS_VERSION,
            "event.kind": "alert" if kind == "alert" else "event", "event.module": "suricata", "event.dataset": "ringfence.events",
            "event.category": ["network", "intrusion_detection"] if kind == "alert" else ["network"],
            "ringfence.class": kind, "ringfence.collector": self._collector, "related.ip": [source, destination],
            "network.transport": _transport(int(flat["network.iana_number"])), "network.type": "ipv6" if ":" in source else "ipv4",
            "source.segment": self._objects[self._segments[source]],
            "destination.segment": self._objects[self._segments[destination]],
        })  # fmt: skip
        return flat

    def _test(self, record: Event, flat: Event) -> Event | None:
        source, destination = flat["source.segment"]["name"], flat["destination.segment"]["name"]
        if source == destination:
            return None
        outcome = _outcome(record)
        if outcome is None:
            return None
        protocol, port = int(flat["network.iana_number"]), flat["destination.port"]
        intent = self._intents[source, destination, protocol, port]
        test = {name: flat[name] for name in _COPIED if name in flat}
        evidence = flat["event.id"]
        test.update({
            "event.id": f"{int(evidence[:16], 16) ^ _BOUNDARY_ID:016x}{evidence[16:]}", "event.kind": "event", "event.module": "suricata",
            "event.dataset": "ringfence.boundary", "event.category": ["network"], "event.action": "boundary-crossing",
            "event.type": _TYPES[outcome], "event.outcome": _OUTCOMES[outcome], "ringfence.class": "boundary",
            "ringfence.evidence.class": record["event_type"], "ringfence.evidence.module": "suricata", "ringfence.evidence.ids": [evidence],
            "ringfence.boundary.id": f"{source} -> {destination}", "ringfence.boundary.intent": intent,
            "ringfence.boundary.outcome": outcome, "ringfence.boundary.origin": "observed",
            "ringfence.boundary.verdict": _VERDICTS.get((intent, outcome), "unproven"),
            "ringfence.boundary.service": self._intents.service(protocol, port),
        })  # fmt: skip
        return test


def _fields(record: Event) -> Event:
    flat: Event = {}
    for name, path, convert in _FIELDS[record["event_type"]]:
        value: Any = record
        for step in path:
            value = value.get(step)
            if value is None:
                break
        else:
            flat[name] = convert(value) if convert else value
    return flat


def _outcome(record: Event) -> str | None:
    """blocked, passed or unknown; None where the record proves nothing."""
    kind = record["event_type"]
    if kind == "flow":
        flow, tcp = record["flow"], record.get("tcp", {})
        if flow.get("action") == "drop":
            return "blocked"
        there, back = (int(tcp.get(name, "0"), 16) for name in ("tcp_flags_ts", "tcp_flags_tc"))
        refused = record["proto"] == "TCP" and back & (_RST | _SYN | _PSH | _FIN) == _RST
        opened = there & (_SYN | _ACK) == _SYN | _ACK
        going_on = there & (_SYN | _ACK) == _ACK and there & _PSH and flow["pkts_toserver"] >= 3
        heard = record["proto"] == "TCP" and (opened or going_on)
        return "passed" if (flow["pkts_toclient"] > 0 or heard) and not refused else "unknown"
    if kind == "alert":
        return "blocked" if record["alert"]["action"] == "blocked" else None
    part, name = {"dns": ("dns", "rcode"), "http": ("http", "status"), "tls": ("tls", "version"), "ssh": ("ssh", "server")}[
        kind
    ]
    return "passed" if name in record[part] else "unknown"


def nest(flat: Event) -> Event:
    """Dotted names to nested objects."""
    document: Event = {}
    for name, value in flat.items():
        node = document
        *parents, leaf = _split(name)
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return document


@cache
def _split(name: str) -> list[str]:
    return name.split(".")


def _segment(topology: Topology, name: str) -> Event:
    segment = topology.segments.get(name)
    parts = {part: getattr(segment, part) for part in ("role", "tenant", "site") if segment and getattr(segment, part)}
    return {"id": (segment.id if segment else None) or name, "name": name, **parts}


@cache
def _transport(protocol: int) -> str | None:
    return next((name for name, number in PROTOCOLS.items() if number == protocol), None)


def _time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@cache
def _address(text: str) -> str:
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text)) if ":" in text else text


def _hex(text: str) -> int:
    return int(text, 16)


_Field = tuple[str, list[str], Callable[[Any], Any] | None]
_SHARED: list[_Field] = [
    ("@timestamp", ["timestamp"], _time), ("observer.name", ["host"], None), ("source.ip", ["src_ip"], _address),
    ("source.port", ["src_port"], None), ("destination.ip", ["dest_ip"], _address), ("destination.port", ["dest_port"], None),
    ("network.iana_number", ["proto"], lambda name: str(PROTOCOLS[name.lower()])), ("network.protocol", ["app_proto"], None),
    ("network.community_id", ["community_id"], None), ("network.vlan.id", ["vlan"], lambda tags: tags[0]),
    ("observer.ingress.interface.name", ["in_iface"], None), ("ringfence.flow.id", ["flow_id"], str),
]  # fmt: skip
_COUNTS: list[_Field] = [
    ("event.start", ["flow", "start"], _time), ("event.end", ["flow", "end"], _time), ("source.packets", ["flow", "pkts_toserver"], None),
    ("source.bytes", ["flow", "bytes_toserver"], None), ("destination.packets", ["flow", "pkts_toclient"], None),
    ("destination.bytes", ["flow", "bytes_toclient"], None), ("ringfence.flow.action", ["flow", "action"], None),
]  # fmt: skip
_OWN: Mapping[str, list[_Field]] = {
    "flow": [
        *_COUNTS, ("ringfence.tcp.source_flags", ["tcp", "tcp_flags_ts"], _hex), ("ringfence.tcp.destination_flags", ["tcp", "tcp_flags_tc"], _hex),
        ("ringfence.flow.state", ["flow", "state"], None), ("ringfence.flow.reason", ["flow", "reason"], None),
    ],
    "dns": [
        ("dns.question.name", ["dns", "rrname"], None), ("dns.question.type", ["dns", "rrtype"], None), ("dns.response_code", ["dns", "rcode"], None),
        ("dns.type", ["dns", "type"], None), ("dns.id", ["dns", "id"], None),
    ],
    "http": [
        ("url.domain", ["http", "hostname"], None), ("url.original", ["http", "url"], None), ("http.request.method", ["http", "http_method"], None),
        ("http.response.status_code", ["http", "status"], None), ("http.response.body.bytes", ["http", "length"], None),
        ("user_agent.original", ["http", "http_user_agent"], None),
    ],
    "tls": [
        ("tls.client.server_name", ["tls", "sni"], None), ("tls.version", ["tls", "version"], None), ("tls.server.subject", ["tls", "subject"], None),
        ("tls.server.issuer", ["tls", "issuerdn"], None), ("tls.server.hash.sha1", ["tls", "fingerprint"], None),
        ("tls.client.ja3", ["tls", "ja3", "hash"], None),
    ],
    "alert": [
        *_COUNTS, ("rule.id", ["alert", "signature_id"], str), ("rule.name", ["alert", "signature"], None), ("rule.category", ["alert", "category"], None),
        ("rule.version", ["alert", "rev"], str), ("event.severity", ["alert", "severity"], lambda number: {1: 99, 2: 73, 3: 47, 4: 21}.get(number, 1)),
        ("ringfence.ids.action", ["alert", "action"], None),
    ],
    "ssh": [
        ("ringfence.ssh.client", ["ssh", "client", "software_version"], None), ("ringfence.ssh.server", ["ssh", "server", "software_version"], None),
    ],
}  # fmt: skip
_FIELDS: Mapping[str, list[_Field]] = {kind: [*_SHARED, *own] for kind, own in _OWN.items()}
_COPIED = (
    "@timestamp", "ecs.version", "observer.name", "source.ip", "source.port", "source.segment", "destination.ip", "destination.port",
    "destination.segment", "network.iana_number", "network.transport", "network.type", "network.protocol", "network.community_id",
    "network.vlan.id", "observer.ingress.interface.name", "related.ip", "rule.id", "ringfence.collector",
)  # fmt: skip
_TYPES = {"blocked": ["connection", "denied"], "passed": ["connection", "allowed"], "unknown": ["connection"]}
_OUTCOMES = {"blocked": "failure", "passed": "success", "unknown": "unknown"}


_V5_HEADER = struct.Struct(">HHIIIIBBH")
_V5_RECORD = struct.Struct(">IIIHHIIIIHHBBBBHHBBH")


def netflow(datagram: bytes) -> Iterator[Event]:
    """The records of a NetFlow v5 datagram as dicts."""
    _, _, uptime, seconds, nanoseconds, *_ = _V5_HEADER.unpack_from(datagram)
    made_us = seconds * 1_000_000 + nanoseconds // 1000
    for fields in _V5_RECORD.iter_unpack(memoryview(datagram)[_V5_HEADER.size :]):
        (
            source,
            destination,
            _,
            ingress,
            egress,
            packets,
            octets,
            first,
            last,
            sport,
            dport,
            _,
            flags,
            protocol,
            tos,
            src_as,
            dst_as,
            _,
            _,
            _,
        ) = fields
        end = made_us - (uptime - last) * 1000
        yield {
            "@timestamp": end, "event.start": made_us - (uptime - first) * 1000, "event.end": end, "source.ip": source, "source.port": sport,
            "destination.ip": destination, "destination.port": dport, "network.iana_number": protocol, "source.packets": packets,
            "source.bytes": octets, "ringfence.tcp.source_flags": flags, "ringfence.flow.tos": tos, "source.as.number": src_as or None,
            "destination.as.number": dst_as or None, "observer.ingress.interface.id": ingress, "observer.egress.interface.id": egress,
        }  # fmt: skip


_PFLOG = struct.Struct(">BBBB16s16sII")
_RECORD_HEADER = struct.Struct("<IIII")
_V4, _V6 = struct.Struct(">BBHHHBBH II"), struct.Struct(">IHBB16s16s")
_PORTS = struct.Struct(">HH")
_PFLOG_BYTES, _AF_INET, _DIRECTION, _FLAGS = 100, 2, 60, 13


def pflog(data: bytes, start: int) -> Iterator[Event]:
    """The packets of a pflog capture as dicts; `start` is where the records begin."""
    place = start
    while place < len(data):
        seconds, fraction, captured, wire = _RECORD_HEADER.unpack_from(data, place)
        place += _RECORD_HEADER.size
        _, family, action, reason, interface, anchor, rule, subrule = _PFLOG.unpack_from(data, place)
        packet = place + _PFLOG_BYTES
        if family == _AF_INET:
            first, _, _, _, _, _, protocol, _, source, destination = _V4.unpack_from(data, packet)
            transport = packet + (first & 15) * 4
        else:
            _, _, protocol, _, source, destination = _V6.unpack_from(data, packet)
            transport = packet + _V6.size
        sport, dport = _PORTS.unpack_from(data, transport)
        yield {
            "@timestamp": seconds * 1_000_000 + fraction, "source.ip": source, "source.port": sport, "destination.ip": destination,
            "destination.port": dport, "network.iana_number": protocol, "network.bytes": wire - _PFLOG_BYTES,
            "ringfence.pf.action": _ACTIONS[action], "ringfence.pf.reason": reason, "ringfence.pf.direction": data[place + _DIRECTION],
            "observer.ingress.interface.name": interface.rstrip(b"\0").decode(), "rule.ruleset": anchor.rstrip(b"\0").decode(),
            "ringfence.pf.rule": rule, "ringfence.pf.subrule": subrule,
            "ringfence.tcp.source_flags": data[transport + _FLAGS] if protocol == TCP else 0,
        }  # fmt: skip
        place += captured


_ACTIONS = ("pass", "block")


class PacketJudge:
    """Segments and verdicts of one-way evidence in dicts: flow records and logged packets."""

    def __init__(self, topology: Topology) -> None:
        self._segments, self._intents = Segments(topology), Intents(topology)
        self._first: dict[tuple[Any, ...], bool] = {}

    def flows(self, records: Iterator[Event], verdicts: Counter[str]) -> None:
        """NetFlow v5: no answer is ever seen, so ports and flags say who began and whether it was heard."""
        for record in records:
            protocol, sport, dport, flags = (record[name] for name in _ONE_WAY)
            is_tcp = protocol == TCP
            reply = self._is_reply(protocol, sport, dport)
            opened = flags & (_SYN | _ACK) == _SYN | _ACK
            going_on = flags & (_SYN | _ACK) == _ACK and flags & _PSH and record["source.packets"] >= 3
            refused = is_tcp and reply and flags & (_RST | _SYN | _PSH | _FIN) == _RST
            passed = (reply or (is_tcp and (opened or going_on))) and not refused
            if self._is_new(record, reply, bool(passed)):
                self._judge(record, reply, "passed" if passed else "unknown", verdicts)

    def _is_new(self, record: Event, reply: bool, passed: bool) -> bool:
        """Whether this direction of the exporter was the first to tell of the crossing, or tells of it again."""
        protocol, sport, dport, _ = (record[name] for name in _ONE_WAY)
        source, destination = record["source.ip"], record["destination.ip"]
        ends = (destination, source, dport, sport) if reply else (source, destination, sport, dport)
        return self._first.setdefault((*ends, protocol, passed), reply) == reply

    def packets(self, records: Iterator[Event], verdicts: Counter[str]) -> None:
        """pflog: pf says itself what it did."""
        for record in records:
            outcome = "passed" if record["ringfence.pf.action"] == "pass" else "blocked"
            reply = record["ringfence.tcp.source_flags"] & (_SYN | _ACK) == _SYN | _ACK
            self._judge(record, reply, outcome, verdicts)

    def _is_reply(self, protocol: int, sport: int, dport: int) -> bool:
        if protocol not in (TCP, UDP):
            return False
        from_service, to_service = self._intents.is_service(protocol, sport), self._intents.is_service(protocol, dport)
        return (from_service and not to_service) or (from_service == to_service and sport < dport)

    def _judge(self, record: Event, reply: bool, outcome: str, verdicts: Counter[str]) -> None:
        source, destination = self._segments[record["source.ip"]], self._segments[record["destination.ip"]]
        record["source.segment.name"], record["destination.segment.name"] = source, destination
        if source == destination:
            return
        port = record["destination.port"]
        if reply:
            source, destination, port = destination, source, record["source.port"]
        intent = self._intents[source, destination, record["network.iana_number"], port]
        record["ringfence.boundary.verdict"] = verdict = _VERDICTS.get((intent, outcome), "unproven")
        verdicts[verdict] += 1


_ONE_WAY = ("network.iana_number", "source.port", "destination.port", "ringfence.tcp.source_flags")


def look_up(prefixes: Prefixes, addresses: Sequence[int]) -> list[str]:
    """Segments of many addresses, one after the other, without a cache."""
    return list(map(prefixes.find, addresses))
