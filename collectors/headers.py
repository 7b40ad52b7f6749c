"""The headers of sampled packets, many at once: from the link down to ports, flags and ICMP type, and into tunnels.

Spec: IEEE 802.3 and 802.1Q (tags, also stacked), RFC 3032 (MPLS), RFC 791 and 8200 (IP), RFC 9293, 768, 792, 4443, RFC 7348
(VXLAN) and 8926 (GENEVE), both by the port that IANA gave them.

Only the beginning of a packet was captured, so every field is known only where the capture reaches it. Of tags the outermost
two are read, of MPLS the label on top. IPv6 extension headers are followed packet by packet (`collectors/pflog.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from collectors.elements import ICMP, ICMP6, SCTP, TCP, UDP, Bools, Ints, Void, address_columns, gather, nullable
from collectors.pflog import walk_extensions

MAX_TAGS = 4
MAX_LABELS = 8
_ETHERNET_BYTES, _IPV4_BYTES, _IPV6_BYTES, _UDP_BYTES, _TUNNEL_BYTES = 14, 20, 40, 8, 8
_TAGS = (0x8100, 0x88A8, 0x9100)
_MPLS = (0x8847, 0x8848)
_IPV4, _IPV6, _BRIDGED = 0x0800, 0x86DD, 0x6558
VXLAN, GENEVE = 4789, 6081
_EXTENDED = np.isin(np.arange(256), (0, 43, 44, 51, 60, 135, 139, 140))
_PORTED = np.isin(np.arange(256), (TCP, UDP, SCTP))
ETHERNET, IP4, IP6, MPLS = 1, 11, 12, 13
"""What a captured header begins with: `header_protocol` of sFlow."""

_WORD16 = np.dtype(">u2")
_WORD32 = np.dtype(">u4")
_TAG = np.dtype([("tag", ">u2"), ("type", ">u2")])
_V4 = np.dtype(
    [
        ("version", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
        ("protocol", "u1"), ("sum", ">u2"), ("source", ">u4"), ("destination", ">u4"),
    ]
)  # fmt: skip
_V6 = np.dtype(
    [("word", ">u4"), ("length", ">u2"), ("next", "u1"), ("hops", "u1"), ("source", "u1", (16,)), ("destination", "u1", (16,))]
)
_TRANSPORT = np.dtype([("source", ">u2"), ("destination", ">u2"), ("skip", "V9"), ("flags", "u1")])
_TUNNEL = np.dtype([("first", "u1"), ("second", "u1"), ("type", ">u2"), ("vni", ">u4")])

Octets = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Packets:
    """What the headers of each packet say. -1 is "not known"; `source6` and `destination6` mean something where `is6`."""

    is4: Bools
    is6: Bools
    source: Ints
    destination: Ints
    source6: Octets
    destination6: Octets
    protocol: Ints
    source_port: Ints
    destination_port: Ints
    flags: Ints
    icmp_type: Ints
    icmp_code: Ints
    tos: Ints
    length: Ints
    """Bytes of the IP packet, headers included."""
    vlan: Ints
    inner_vlan: Ints
    label: Ints
    vni: Ints
    inner: Ints
    """Where the packet inside a tunnel begins in the data."""
    inner_type: Ints
    """Its EtherType; 0x6558 is an Ethernet frame."""

    @classmethod
    def unknown(cls, count: int) -> Packets:
        """Packets of which nothing is known."""
        bools, octets = {"is4", "is6"}, {"source6", "destination6"}
        made: dict[str, Any] = {}
        for part in fields(cls):
            if part.name in bools:
                made[part.name] = np.zeros(count, np.bool_)
            elif part.name in octets:
                made[part.name] = np.zeros((count, 16), np.uint8)
            else:
                made[part.name] = np.full(count, -1, np.int64)
        return cls(**made)

    def spread(self, rows: Ints, count: int) -> Packets:
        """The same as these rows of so many packets, of whose others nothing is known."""
        wide = Packets.unknown(count)
        for part in fields(self):
            getattr(wide, part.name)[rows] = getattr(self, part.name)
        return wide

    def fill(self, rows: Ints, said: Void, is6: bool) -> None:
        """Take what an agent read out of the IP header: length, protocol, addresses, ports, flags and type of service."""
        (self.is6 if is6 else self.is4)[rows] = True
        sides = ("source6", "destination6") if is6 else ("source", "destination")
        getattr(self, sides[0])[rows], getattr(self, sides[1])[rows] = said["source"], said["destination"]
        protocol, sport, dport, flags, tos = (
            said[name].astype(np.int64) for name in ("protocol", "sport", "dport", "flags", "tos")
        )
        protocol = np.where(protocol <= 0xFF, protocol, -1)
        ported = _PORTED[protocol] & (protocol >= 0)
        self.protocol[rows], self.length[rows] = protocol, said["length"]
        self.source_port[rows] = np.where(ported & (sport <= 0xFFFF), sport, -1)
        self.destination_port[rows] = np.where(ported & (dport <= 0xFFFF), dport, -1)
        self.flags[rows] = np.where(protocol == TCP, flags & 0xFF, -1)
        self.tos[rows] = np.where(tos <= 0xFF, tos, -1)

    def enter(self, data: bytes, rows: Ints, ends: Ints) -> None:
        """Replace what is known of these packets, which are tunnels, by what is inside, where that can be read."""
        for begins_with, kinds in ((ETHERNET, (_BRIDGED,)), (IP4, (_IPV4,)), (IP6, (_IPV6,))):
            chosen = rows[np.isin(self.inner_type[rows], kinds)]
            if not len(chosen):
                continue
            inside = read(data, self.inner[chosen], ends[chosen], np.full(len(chosen), begins_with))
            readable = inside.is4 | inside.is6
            for part in fields(self):
                if part.name not in ("vlan", "inner_vlan", "label", "vni", "inner", "inner_type"):
                    getattr(self, part.name)[chosen[readable]] = getattr(inside, part.name)[readable]

    def columns(self) -> dict[str, pl.Series]:
        """The columns of class flow that they fill."""
        known = self.is4 | self.is6
        tags = {"network.vlan.id": self.vlan, "network.inner.vlan.id": self.inner_vlan, "ringfence.vxlan.vni": self.vni}
        return {
            **_address("source", self.source, self.source6, self.is6, known),
            **_address("destination", self.destination, self.destination6, self.is6, known),
            "source.port": _known(self.source_port, np.int32),
            "destination.port": _known(self.destination_port, np.int32),
            "network.iana_number": _known(self.protocol, np.uint8),
            "ringfence.tcp.source_flags": _known(self.flags, np.uint8),
            "ringfence.icmp.type": _known(self.icmp_type, np.uint8),
            "ringfence.icmp.code": _known(self.icmp_code, np.uint8),
            "ringfence.flow.tos": _known(self.tos, np.uint8),
            "source.bytes": _known(self.length),
            **{name: _known(ids, np.int32) for name, ids in tags.items() if (ids >= 0).any()},
            **({"ringfence.mpls.label": _known(self.label)} if (self.label >= 0).any() else {}),
        }


def _address(name: str, v4: Ints, octets: Octets, is6: Bools, known: Bools) -> dict[str, pl.Series]:
    if is6.any():
        return address_columns(name, v4, octets, is6, known)
    return {f"{name}.ip": nullable(v4, known, np.uint32)}


def _known(values: Ints, dtype: npt.DTypeLike = np.int64) -> pl.Series:
    return nullable(values, values >= 0, dtype)


def read(data: bytes, starts: Ints, ends: Ints, begins_with: Ints) -> Packets:
    """Read captured headers: from `starts` up to `ends` in the data, each beginning with a link or network header."""
    found = Packets.unknown(len(starts))
    kind = np.select((begins_with == IP4, begins_with == IP6, begins_with == MPLS), (_IPV4, _IPV6, _MPLS[0]), 0)
    at = starts.copy()
    framed = np.flatnonzero((begins_with == ETHERNET) & (starts + _ETHERNET_BYTES <= ends))
    kind[framed] = gather(data, _WORD16, at[framed] + 12)
    at[framed] += _ETHERNET_BYTES
    _tags(data, at, ends, kind, found)
    _labels(data, at, ends, kind, found)
    _network4(data, at, ends, np.flatnonzero((kind == _IPV4) & (at + _IPV4_BYTES <= ends)), found)
    _network6(data, at, ends, np.flatnonzero((kind == _IPV6) & (at + _IPV6_BYTES <= ends)), found)
    return found


def _tags(data: bytes, at: Ints, ends: Ints, kind: Ints, found: Packets) -> None:
    """IEEE 802.1Q 9.3: go behind the tags."""
    for number in range(MAX_TAGS):
        rows = np.flatnonzero(((kind == _TAGS[0]) | (kind == _TAGS[1]) | (kind == _TAGS[2])) & (at + 4 <= ends))
        if not len(rows):
            return
        tag = gather(data, _TAG, at[rows])
        if number < 2:
            ids = tag["tag"].astype(np.int64) & 0xFFF
            (found.inner_vlan if number else found.vlan)[rows] = np.where((ids > 0) & (ids < 0xFFF), ids, -1)
        kind[rows] = tag["type"]
        at[rows] += 4


def _labels(data: bytes, at: Ints, ends: Ints, kind: Ints, found: Packets) -> None:
    """RFC 3032 2.1: go behind the label stack; the version of IP tells what is there (RFC 4928)."""
    open_rows = np.flatnonzero((kind == _MPLS[0]) | (kind == _MPLS[1]))
    for number in range(MAX_LABELS):
        open_rows = open_rows[at[open_rows] + 4 < ends[open_rows]]
        if not len(open_rows):
            return
        words = gather(data, _WORD32, at[open_rows]).astype(np.int64)
        if not number:
            found.label[open_rows] = words >> 12
        at[open_rows] += 4
        bottom = (words >> 8 & 1) == 1
        rows = open_rows[bottom]
        version = gather(data, np.dtype("u1"), at[rows]) >> 4
        kind[rows] = np.select((version == 4, version == 6), (_IPV4, _IPV6), 0)
        open_rows = open_rows[~bottom]


def _network4(data: bytes, at: Ints, ends: Ints, rows: Ints, found: Packets) -> None:
    header = gather(data, _V4, at[rows])
    size = (header["version"] & 15).astype(np.int64) * 4
    good = (header["version"] >> 4 == 4) & (size >= _IPV4_BYTES)
    if not good.all():
        rows, header, size = rows[good], header[good], size[good]
    found.is4[rows] = True
    found.source[rows], found.destination[rows] = header["source"], header["destination"]
    found.protocol[rows], found.tos[rows] = header["protocol"], header["tos"]
    found.length[rows] = header["length"]
    first = (header["fragment"] & 0x1FFF) == 0
    _transport(data, at[rows[first]] + size[first], ends[rows[first]], rows[first], found)


def _network6(data: bytes, at: Ints, ends: Ints, rows: Ints, found: Packets) -> None:
    header = gather(data, _V6, at[rows])
    good = header["word"] >> 28 == 6
    if not good.all():
        rows, header = rows[good], header[good]
    found.is6[rows] = True
    found.source6[rows], found.destination6[rows] = header["source"], header["destination"]
    found.tos[rows] = header["word"] >> 20 & 0xFF
    found.length[rows] = header["length"].astype(np.int64) + _IPV6_BYTES
    protocol, size = header["next"].astype(np.int64), np.full(len(rows), _IPV6_BYTES)
    first = np.ones(len(rows), np.bool_)
    for place in np.flatnonzero(_EXTENDED[protocol]).tolist():
        start, end = int(at[rows[place]]), int(ends[rows[place]])
        behind, offset, is_later = walk_extensions(data[start:end])
        protocol[place], size[place] = -1 if behind is None else behind, offset
        first[place] = behind is not None and not is_later
    found.protocol[rows] = protocol
    _transport(data, at[rows[first]] + size[first], ends[rows[first]], rows[first], found)


def _transport(data: bytes, at: Ints, ends: Ints, rows: Ints, found: Packets) -> None:
    """Ports, flags, ICMP type and code, and what a tunnel begins with; `at` may lie beyond the end."""
    protocol, captured = found.protocol[rows], ends - at
    header = gather(data, _TRANSPORT, np.minimum(at, len(data)))
    source, destination = header["source"].astype(np.int64), header["destination"].astype(np.int64)
    ported = _PORTED[protocol] & (captured >= 4)
    found.source_port[rows] = np.where(ported, source, -1)
    found.destination_port[rows] = np.where(ported, destination, -1)
    found.flags[rows] = np.where((protocol == TCP) & (captured >= 14), header["flags"].astype(np.int64), -1)
    control = ((protocol == ICMP) & found.is4[rows] | (protocol == ICMP6) & found.is6[rows]) & (captured >= 2)
    found.icmp_type[rows] = np.where(control, source >> 8, -1)
    found.icmp_code[rows] = np.where(control, source & 0xFF, -1)
    tunnels = (protocol == UDP) & ((destination == VXLAN) | (destination == GENEVE))
    tunnels &= captured >= _UDP_BYTES + _TUNNEL_BYTES
    if tunnels.any():
        _tunnel(data, at[tunnels] + _UDP_BYTES, rows[tunnels], destination[tunnels] == VXLAN, found)


def _tunnel(data: bytes, at: Ints, rows: Ints, is_vxlan: Bools, found: Packets) -> None:
    """RFC 7348 5 (flag I: the VNI is valid), RFC 8926 3.4 (version 0, length of the options in words)."""
    header = gather(data, _TUNNEL, at)
    good = np.where(is_vxlan, (header["first"] & 0x08) != 0, header["first"] >> 6 == 0)
    options = np.where(is_vxlan, 0, (header["first"] & 0x3F).astype(np.int64) * 4)
    found.vni[rows] = np.where(good, header["vni"].astype(np.int64) >> 8, -1)
    found.inner[rows] = np.where(good, at + _TUNNEL_BYTES + options, -1)
    found.inner_type[rows] = np.where(good, np.where(is_vxlan, _BRIDGED, header["type"].astype(np.int64)), -1)
