"""pflog: packets that pf logged, each with the rule that decided (link type DLT_PFLOG, 117), of OpenBSD, FreeBSD, NetBSD, macOS.

Spec: pflog(4); sys/net/if_pflog.h of OpenBSD 1.11, 1.14, 1.19, 1.27 and of FreeBSD, sys/dist/pf/net/if_pflog.h of NetBSD,
bsd/net/if_pflog.h of xnu; capture framing by `collectors/pcap.py`; RFC 791, RFC 8200 section 4, RFC 9293 section 3.1.
Not supported: the header without a length (OpenBSD before 3.4, link type 17), AH inside IPv4 (shown as protocol 51), ports
of other protocols than TCP, UDP and SCTP.

The first byte is the length of the header: without its padding (offsetof) or, in some, with it (sizeof). The packet starts
at the next multiple of 4: BPF_WORDALIGN of OpenBSD and macOS, and what the sizes of all structures come to, also where
BPF_ALIGNMENT is 8 (FreeBSD, NetBSD on 64-bit machines). Lengths, and what they have beside rule and direction:

    45, 48           OpenBSD 3.4 to 3.9, FreeBSD 5 and 6    nothing
    49, 52           OPNsense and pfSense until 2021        ridentifier
    61, 64           OpenBSD 4.0 to 4.8, FreeBSD 7 to 13,   user and process of socket and rule
                     NetBSD, macOS
    68, 69, 72       FreeBSD 13.1 and later                 those and ridentifier
    100              OpenBSD 4.9 and later                  those and the ends before rewriting

The same length means the same fields in every system; what differs is the number of IPv6 (OpenBSD and NetBSD 24, FreeBSD
28, macOS 30), names of the highest action and reason codes, and the number that stands for no process. With `dialect: auto`
the length tells the system and, where several share it, the number of IPv6. An IPv4 record of 61 or 64 bytes is read as of
FreeBSD, of 45 or 48 as of OpenBSD: action and reason codes up to 10 and 14 are the same everywhere, so nothing but rare
codes can be misnamed, and a setting tells for sure. NetBSD is never guessed.

Rule numbers, `ridentifier`, addresses and ports are in network order. User and process ids are not: pf writes those as its
CPU has them, and so does the writer of the file, whose byte order therefore tells. With `rewritten` set, the packet in the
record is already translated (address family `naf`; OpenBSD 4.9 and 5.0 have 0 there and mean `af`) and the header keeps the
original addresses and ports (family `af`; pflog_bpfcopy of if_pflog.c): the header gives `source.*`, the packet
`source.nat.*`.

Sample (header only: block in on vlan20 by rule 8, rule 3 of anchor "blue"): 64020100 766c616e3230 00*10 626c7565 00*12
00000008 00000003 ffffffff 00000000 00000000 00000000 01 00 02 00 00*36
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors.command import Argv, CommandShell
from collectors.pcap import (
    Capture,
    Fault,
    Order,
    Packets,
    PcapReader,
    gather,
    read_capture,
    unreadable,
)
from collectors.pcapng import MAGIC, CaptureFramer, PcapngReader, linktypes
from collectors.pipe import PathShell
from ringfence.addresses import MAPPED_PREFIX
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Shell, Status
from ringfence.schema import build_frame, frame_schema, together
from ringfence.yamlfile import STANDARD_INPUT, InputPath

DLT_PFLOG = 117  # libpcap, pcap/dlt.h
MAX_STREAMS = 1024  # files whose header is remembered; the one that was quiet longest is forgotten first
MAX_NAMES = 4096  # pairs of interface and anchor that are remembered from one block to the next

Dialect = Literal["openbsd", "freebsd", "netbsd", "macos"]
DIALECTS: tuple[Dialect, ...] = ("openbsd", "freebsd", "netbsd", "macos")

AF_INET = 2  # sys/socket.h, everywhere
AF_INET6: Mapping[Dialect, int] = {"openbsd": 24, "freebsd": 28, "netbsd": 24, "macos": 30}  # sys/socket.h of each
PF_IN, PF_OUT = 1, 2  # pfvar.h: enum { PF_INOUT, PF_IN, PF_OUT, PF_FWD }
NO_UID = 0xFFFFFFFF  # UID_MAX, sys/limits.h
NO_PID = 100_000  # PID_MAX + 1, sys/proc.h
NO_PID_NETBSD = 30_001  # PID_MAX + 1 of NetBSD
NO_PID_OLD = 32_767  # PID_MAX + 1 of OpenBSD when it wrote shorter headers (usr.sbin/tcpdump/print-pflog.c 1.20)
NO_RULE = 0xFFFFFFFF  # if_pflog.c: hdr.subrulenr = -1
NO_RULE_FREEBSD_10 = 0x01000000  # if_pflog.c of FreeBSD 10: hdr.subrulenr = 1, on a little-endian machine

# pfvar.h: enum { PF_PASS, PF_DROP, ... PF_SYNPROXY_DROP }, and what each system added
SHARED_ACTIONS = (
    "pass", "block", "scrub", "noscrub", "nat", "nonat", "binat", "nobinat", "rdr", "nordr", "synproxy_drop",
)  # fmt: skip
ACTIONS: Mapping[Dialect, tuple[str, ...]] = {
    "openbsd": (*SHARED_ACTIONS, "defer", "match", "divert", "rt", "afrt"),
    "freebsd": (*SHARED_ACTIONS, "defer", "match"),
    "netbsd": SHARED_ACTIONS,
    "macos": (*SHARED_ACTIONS, "dummynet", "nodummynet", "nat64", "nonat64"),
}
# pfvar.h: PFRES_NAMES
SHARED_REASONS = (
    "match", "bad-offset", "fragment", "short", "normalize", "memory", "bad-timestamp", "congestion", "ip-option",
    "proto-cksum", "state-mismatch", "state-insert", "state-limit", "src-limit", "synproxy",
)  # fmt: skip
REASONS: Mapping[Dialect, tuple[str, ...]] = {
    "openbsd": (*SHARED_REASONS, "translate", "no-route"),
    "freebsd": (*SHARED_REASONS, "map-failed"),
    "netbsd": (*SHARED_REASONS, "state-locked"),
    "macos": (*SHARED_REASONS, "dummynet"),
}

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132  # IANA protocol numbers
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60  # RFC 8200 section 4, RFC 4302
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION})

_IPV4_BYTES, _IPV6_BYTES = 20, 40

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Void = npt.NDArray[np.void]


def _named(*tables: Sequence[str | None]) -> pl.Series:
    """The names of 256 codes in each table, one table after the other."""
    known = [dict(enumerate(names)) for names in tables]
    return pl.Series([names.get(code, f"unknown({code})") for names in known for code in range(256)], dtype=pl.String)


def _by_protocol(values: Mapping[int, int]) -> npt.NDArray[np.int64]:
    return np.array([values.get(protocol, 0) for protocol in range(256)], np.int64)


_ACTION_NAMES = _named(*(ACTIONS[dialect] for dialect in DIALECTS))
_REASON_NAMES = _named(*(REASONS[dialect] for dialect in DIALECTS))
_DIRECTION_NAMES = _named(["unknown(0)", "in", "out"])
_TRANSPORT_BYTES = _by_protocol({ICMP: 8, TCP: 20, UDP: 8, ICMPV6: 4, SCTP: 12})  # RFC 792, 9293, 768, 4443, 9260
_HEADER_BYTES = np.array([(byte & 15) * 4 if byte >> 4 == 4 else _IPV6_BYTES for byte in range(256)], np.int64)
"""Length of an IP header by its first byte."""
_PORTED = _by_protocol({TCP: 1, UDP: 1, SCTP: 1}).astype(np.bool_)
_EXTENDED = _by_protocol(dict.fromkeys(_EXTENSIONS, 1)).astype(np.bool_)
_TRANSPORT = np.dtype(
    {
        "names": ["sport", "dport", "flags", "type", "code"],
        "formats": [">u2", ">u2", "u1", "u1", "u1"],
        "offsets": [0, 2, 13, 0, 1],
        "itemsize": 14,
    }
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of pflog header: its fields as (name, numpy type, offset), where `=` is the writer's order, and its systems.

    `dialects` are the systems that wrote it; the first one is meant where the record does not tell.
    """

    length: int
    fields: tuple[tuple[str, str, int], ...]
    dialects: tuple[Dialect, ...]

    @property
    def padded(self) -> int:
        """Where the packet starts: BPF_WORDALIGN(length), net/bpf.h."""
        return (self.length + 3) & ~3

    def has(self, field: str) -> bool:
        """Whether the header holds this field."""
        return any(name == field for name, _, _ in self.fields)

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that a record may have."""
        return (AF_INET, *sorted({AF_INET6[dialect] for dialect in self.dialects}))


_START = (
    ("length", "u1", 0), ("af", "u1", 1), ("action", "u1", 2), ("reason", "u1", 3),
    ("names", "V32", 4), ("rulenr", ">u4", 36), ("subrulenr", ">u4", 40),
)  # fmt: skip
_USERS = (("uid", "=u4", 44), ("pid", "=i4", 48), ("rule_uid", "=u4", 52), ("rule_pid", "=i4", 56), ("dir", "u1", 60))
_REWRITTEN = (
    ("rewritten", "u1", 61), ("naf", "u1", 62),
    ("saddr", "V16", 64), ("saddr4", ">u4", 64), ("daddr", "V16", 80), ("daddr4", ">u4", 80),
    ("sport", ">u2", 96), ("dport", ">u2", 98),
)  # fmt: skip
_KINDS: tuple[tuple[tuple[int, ...], tuple[tuple[str, str, int], ...], tuple[Dialect, ...]], ...] = (
    ((45, 48), (*_START, ("dir", "u1", 44)), ("openbsd", "freebsd", "netbsd")),
    ((49, 52), (*_START, ("ridentifier", ">u4", 44), ("dir", "u1", 48)), ("freebsd",)),
    ((61, 64), (*_START, *_USERS), ("freebsd", "openbsd", "macos", "netbsd")),
    ((68, 69, 72), (*_START, *_USERS, ("ridentifier", ">u4", 64)), ("freebsd",)),
    ((100,), (*_START, *_USERS, *_REWRITTEN), ("openbsd",)),
)


def layouts(dialect: Dialect | Literal["auto"] = "auto") -> Mapping[int, Layout]:
    """The headers that are decoded, by length byte: those of one system, or all."""
    return {
        length: Layout(length, parts, systems if dialect == "auto" else (dialect,))
        for lengths, parts, systems in _KINDS
        if dialect in ("auto", *systems)
        for length in lengths
    }


_IP_FIELDS = (
    ("version", "u1", 0), ("fragment", ">u2", 6), ("protocol", "u1", 9), ("src4", ">u4", 12), ("dst4", ">u4", 16),
    ("next", "u1", 6), ("src6", "V16", 8), ("dst6", "V16", 24),
)  # fmt: skip


@cache
def _dtype(layout: Layout, order: Order) -> np.dtype[np.void]:
    """pflog header and the first 40 bytes of the packet; IPv4 and IPv6 fields lie over each other."""
    parts = [*layout.fields, *((name, kind, offset + layout.padded) for name, kind, offset in _IP_FIELDS)]
    names, kinds, offsets = zip(*parts, strict=True)
    return np.dtype(
        {
            "names": names,
            "formats": [kind.replace("=", order) for kind in kinds],
            "offsets": offsets,
            "itemsize": layout.padded + _IPV6_BYTES,
        }
    )


_IS_IPV6 = np.isin(np.arange(256), list(AF_INET6.values()))


def _fitting() -> Bools:
    """By address family and first byte of a packet (family * 256 + byte), whether that is an IP header of the family."""
    byte = np.arange(256)
    fits = np.zeros((256, 256), np.bool_)
    fits[AF_INET] = (byte >> 4 == 4) & (byte & 15 >= 5)
    fits[_IS_IPV6] = byte >> 4 == 6
    return fits.ravel()


_IP_FITS = _fitting()  # take() is twice as fast on such tables as indexing


@cache
def _accepted(families: tuple[int, ...]) -> Bools:
    return np.isin(np.arange(256), families)


class _Records:
    """Packets of one stream with headers of one layout."""

    def __init__(self, frames: Frames, packets: Packets, layout: Layout, header: Void | None = None) -> None:
        self.frames, self.packets, self.layout = frames, packets, layout
        self.header = gather(frames.data, _dtype(layout, packets.order), packets.starts) if header is None else header

    def only(self, good: Bools) -> _Records:
        """The records that are good."""
        if good.all():
            return self
        return _Records(self.frames, self.packets.only(good), self.layout, self.header[good])

    @cached_property
    def rewritten(self) -> Bools:
        """Rows whose packet was logged after rewriting."""
        if not self.layout.has("rewritten"):
            return np.zeros(len(self.packets), np.bool_)
        result: Bools = self.header["rewritten"] != 0
        return result

    @cached_property
    def family(self) -> npt.NDArray[np.uint8]:
        """Address family of the packet as it was logged."""
        af: npt.NDArray[np.uint8] = self.header["af"]
        if not self.rewritten.any():
            return np.ascontiguousarray(af)
        return np.where(self.rewritten & (self.header["naf"] != 0), self.header["naf"], af)

    @property
    def dialects(self) -> npt.NDArray[np.uint32] | np.uint32:
        """Index in DIALECTS of the system that wrote each record, as far as it can be told; one for all where it is one."""
        known = self.layout.dialects
        first = np.uint32(DIALECTS.index(known[0]))
        if len(known) == 1:
            return first
        by_family = np.full(256, first, np.uint32)
        for dialect in reversed(known):
            by_family[AF_INET6[dialect]] = DIALECTS.index(dialect)
        result: npt.NDArray[np.uint32] = by_family.take(self.header["af"])
        return result

    def readable(self) -> Bools:
        """Which records can be decoded: `_diagnose` says why for the others, and the two must agree."""
        accepted, family, sizes = _accepted(self.layout.families), self.family, self.packets.sizes
        version = np.ascontiguousarray(self.header["version"])
        fits = _IP_FITS.take(family.astype(np.uint16) << np.uint16(8) | version) | (sizes == self.layout.padded)
        result: Bools = (sizes >= self.layout.padded) & accepted.take(self.header["af"]) & fits
        if self.rewritten.any():
            result &= accepted.take(family)
        return result


Reader = PcapReader | PcapngReader


class PflogDecoder:
    """Decodes the frames of `CaptureFramer`. Remembers what heads each stream; a stream is unreadable without it."""

    def __init__(
        self,
        observer: str | None = None,
        original: Literal["keep", "drop"] = "drop",
        dialect: Dialect | Literal["auto"] = "auto",
    ) -> None:
        self._observer = observer
        self._original = original
        self._layouts = layouts(dialect)
        self._streams: OrderedDict[int, Reader | Fault] = OrderedDict()
        self._names = _Names()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every frame; rows keep the order of their frames."""
        pieces: list[tuple[Ints, pl.DataFrame]] = []
        faults: list[tuple[int, Fault]] = []
        filtered: dict[str, int] = {}
        for identity, rows in _stretches(frames):
            if frames.positions[rows[0]] == 0:
                start = frames.frame(int(rows[0]))
                if start[: len(MAGIC)] == MAGIC:
                    self._remember(identity, PcapngReader(DLT_PFLOG))
                else:
                    fault = self._open(identity, start)
                    _count(filtered, {"capture header": int(fault is None)})
                    faults += [] if fault is None else [(int(rows[0]), fault)]
                    rows = rows[1:]
            stream = self._stream(identity)
            if isinstance(stream, Fault):
                faults += ((row, unreadable(stream)) for row in rows.tolist())
                continue
            reading = stream.read(frames, rows)
            faults += reading.faults
            _count(filtered, reading.filtered)
            if reading.broken is not None:
                self._remember(identity, reading.broken)
            for packets in reading.packets:
                sorted_out = self._sort(frames, packets, faults)
                pieces += ((records.packets.rows, self._columns(records)) for records in sorted_out)
        faults.sort(key=lambda pair: pair[0])
        problems = [_problem(frames, row, fault) for row, fault in faults]
        rows_out = {EventClass.PF: _in_order(pieces)} if pieces else {}
        return Decoded(rows_out, sum(len(rows) for rows, _ in pieces), problems, filtered)

    def _open(self, identity: int, header: bytes) -> Fault | None:
        """Learn what the first frame of a stream says about the rest."""
        capture = read_capture(header)
        if isinstance(capture, Capture) and capture.linktype != DLT_PFLOG:
            capture = Fault(
                ProblemCode.UNKNOWN_VERSION, f"link type is {capture.linktype}; accepted: {DLT_PFLOG} (DLT_PFLOG)", 20
            )
        self._remember(identity, capture if isinstance(capture, Fault) else PcapReader(capture))
        return capture if isinstance(capture, Fault) else None

    def _remember(self, identity: int, stream: Reader | Fault) -> None:
        self._streams[identity] = stream
        self._streams.move_to_end(identity)
        if len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)

    def _stream(self, identity: int) -> Reader | Fault:
        stream = self._streams.get(identity)
        if stream is None:
            return Fault(ProblemCode.MALFORMED, "no pcap file header was seen", 0)
        self._streams.move_to_end(identity)
        return stream

    def _sort(self, frames: Frames, packets: Packets, faults: list[tuple[int, Fault]]) -> Iterator[_Records]:
        """The packets that can be decoded, by the layout of their header; adds the reason for each other one to `faults`."""
        lengths = _length_bytes(frames.data, packets)
        same = len(lengths) and (lengths == lengths[0]).all()
        for length in lengths[:1].tolist() if same else np.flatnonzero(np.bincount(lengths, minlength=1)).tolist():
            alike = packets if same else packets.only(lengths == length)
            layout = self._layouts.get(length)
            if layout is None:
                bad = alike
            else:
                records = _Records(frames, alike, layout)
                good = records.readable()
                bad = alike.only(~good)
                if good.any():
                    yield records.only(good)
            for row, start, size in zip(bad.rows.tolist(), bad.starts.tolist(), bad.sizes.tolist(), strict=True):
                header_at = start - int(frames.offsets[row])
                faults.append((row, _diagnose(frames.data[start : start + size], header_at, self._layouts)))

    def _columns(self, records: _Records) -> pl.DataFrame:
        """The columns of records that are known to be readable."""
        packet = _Packet(records)
        columns = {
            **self._identity(records),
            **_verdict(records, self._names),
            **_ends(records, packet),
            "network.iana_number": _nullable(packet.protocol, packet.has_protocol),
            "network.bytes": records.packets.wire - records.layout.padded,
            "ringfence.tcp.source_flags": _nullable(packet.transport["flags"], packet.reaches(14) & (packet.protocol == TCP)),
            "ringfence.icmp.type": _nullable(packet.transport["type"], packet.reaches(1) & packet.icmp),
            "ringfence.icmp.code": _nullable(packet.transport["code"], packet.reaches(2) & packet.icmp),
            "ringfence.pf.truncated": packet.truncated,
        }
        return build_frame(EventClass.PF, columns)

    def _identity(self, records: _Records) -> dict[str, Any]:
        frames, packets = records.frames, records.packets
        rows = packets.rows
        index = int(frames.source[rows[0]])
        source = frames.sources[index]
        columns: dict[str, Any] = {
            "@timestamp": packets.micros,
            "ringfence.event.source": _constant(source.identity, len(rows), pl.UInt64()),
            "ringfence.event.position": frames.positions[rows],
            "observer.name": _constant(self._observer or source.name, len(rows), pl.String()),
            "ringfence.evidence.lossy": _constant(index in frames.lossy, len(rows), pl.Boolean()),
        }
        if self._original == "keep":
            ends = zip(packets.starts.tolist(), (packets.starts + packets.sizes).tolist(), strict=True)
            columns["event.original"] = pl.Series([frames.data[start:end] for start, end in ends], dtype=pl.Binary)
        return columns


def _count(filtered: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        if count:
            filtered[reason] = filtered.get(reason, 0) + count


def _length_bytes(data: bytes, packets: Packets) -> npt.NDArray[np.uint8]:
    """The first byte of each packet: the length of its header; 0 where nothing was captured."""
    if not data:
        return np.zeros(len(packets), np.uint8)
    first = np.frombuffer(data, np.uint8).take(packets.starts, mode="clip")
    first[packets.sizes <= 0] = 0
    return first


class _Packet:
    """Where the parts of each logged IP packet are, and how much of them was captured."""

    def __init__(self, records: _Records) -> None:
        record, packets, data = records.header, records.packets, records.frames.data
        starts = packets.starts + records.layout.padded
        self.captured = packets.sizes - records.layout.padded
        self.v6: Bools = _IS_IPV6.take(records.family)
        self.protocol = np.where(self.v6, record["next"], record["protocol"])
        self._least = int(self.captured.min(initial=_IPV6_BYTES))
        self.has_protocol = self.captures(10, 7)
        self._header = _HEADER_BYTES.take(record["version"])
        self._whole = self.v6 | ((record["fragment"] & 0x1FFF) == 0)
        self._walk_extensions(data, starts)
        complete = self.has_protocol & (self.captured >= self._header)
        self._payload = np.where(complete & self._whole, self.captured - self._header, 0)
        self.truncated = ~complete | (self._whole & (self._payload < _TRANSPORT_BYTES.take(self.protocol)))
        self.icmp: Bools = np.where(self.v6, self.protocol == ICMPV6, self.protocol == ICMP)
        self.ported: Bools = self.has_protocol & self._whole & _PORTED.take(self.protocol)
        """Rows whose protocol has ports, and which are no later fragment."""
        self.transport = gather(data, _TRANSPORT, starts + np.where(complete, self._header, 0))

    def captures(self, v4: int, v6: int) -> Bools:
        """Rows in which so many bytes of the IP header were captured, by its version."""
        if self._least >= max(v4, v6):
            return np.ones(len(self.captured), np.bool_)
        return self.captured >= np.where(self.v6, v6, v4)

    def reaches(self, size: int) -> Bools:
        """Rows in which the first `size` bytes of the transport header were captured."""
        reached: Bools = self._payload >= size
        return reached

    def end(self, v4: npt.NDArray[Any], v6: Void, letter: str, v4_end: int, v6_end: int) -> _End:
        """One end as the packet has it; its address is known where the header was captured up to these bytes."""
        known = self.captures(v4_end, v6_end)
        reached = self.reaches(2 if letter == "s" else 4)
        return _End(v4, v6, self.transport[f"{letter}port"], self.v6, known, self.ported & reached)

    def _walk_extensions(self, data: bytes, starts: Ints) -> None:
        """Slow path: follow IPv6 extension headers, packet by packet."""
        extended = self.v6 & self.has_protocol & _EXTENDED.take(self.protocol)
        for row in np.flatnonzero(extended).tolist():
            start = int(starts[row])
            packet = data[start : start + int(self.captured[row])]
            protocol, offset, fragment = walk_extensions(packet)
            self.has_protocol[row] = protocol is not None
            self.protocol[row] = protocol or 0
            self._header[row] = offset
            self._whole[row] = not fragment


def walk_extensions(packet: bytes) -> tuple[int | None, int, bool]:
    """Follow the extension headers of an IPv6 packet (RFC 8200 section 4).

    Returns the protocol behind them (None when the capture ends before it is known), where it starts, and whether this
    is a later fragment, which has no transport header.
    """
    protocol, offset = packet[6], _IPV6_BYTES
    while protocol in _EXTENSIONS:
        if len(packet) < offset + 8:
            return None, offset, False
        following, length = packet[offset], packet[offset + 1]
        if protocol == FRAGMENT:
            if int.from_bytes(packet[offset + 2 : offset + 4], "big") & 0xFFF8:
                return following, offset + 8, True
            offset += 8
        else:
            offset += (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
        protocol = following
    return protocol, offset, False


def _stretches(frames: Frames) -> Iterator[tuple[int, Ints]]:
    """Rows by stream, each stretch beginning where the stream does or where this block does."""
    for index, source in enumerate(frames.sources):
        rows = np.flatnonzero(frames.source == index)
        firsts = np.flatnonzero(frames.positions[rows] == 0)
        for stretch in np.split(rows, firsts):
            if len(stretch):
                yield source.identity, stretch


def _diagnose(packet: bytes, at: int, accepted: Mapping[int, Layout]) -> Fault:
    """Why a packet cannot be decoded; `at` is its place in the frame."""
    if not packet:
        return Fault(ProblemCode.TRUNCATED, "record holds no pflog header", at)
    layout = accepted.get(packet[0])
    if layout is None:
        lengths = ", ".join(map(str, accepted))
        return Fault(ProblemCode.UNKNOWN_VERSION, f"pflog header is {packet[0]} bytes long; accepted: {lengths}", at)
    if len(packet) < layout.padded:
        return Fault(ProblemCode.TRUNCATED, f"pflog header has {len(packet)} of {layout.padded} bytes", at + len(packet))
    where = {name: offset for name, _, offset in layout.fields}
    translated = "naf" in where and packet[where["rewritten"]] and packet[where["naf"]]
    names = ["af", "naf"] if translated else ["af"]
    for name in names:
        if packet[where[name]] not in layout.families:
            families = ", ".join(f"{family} (IPv{4 if family == AF_INET else 6})" for family in layout.families)
            detail = f"address family {name} is {packet[where[name]]}; accepted: {families}"
            return Fault(ProblemCode.MALFORMED, detail, at + where[name])
    family, first = packet[where[names[-1]]], packet[layout.padded]
    detail = f"packet starts with byte 0x{first:02x}, which is no IP header of address family {family}"
    return Fault(ProblemCode.MALFORMED, detail, at + layout.padded)


def _problem(frames: Frames, row: int, fault: Fault) -> Problem:
    source = frames.sources[int(frames.source[row])]
    return Problem(
        fault.code, fault.detail, row, fault.offset, raw=frames.frame(row), source=source, position=int(frames.positions[row])
    )


def _in_order(pieces: list[tuple[Ints, pl.DataFrame]]) -> pl.DataFrame:
    """Join what was decoded stream by stream and layout by layout, in the order of the frames and of the schema."""
    if len(pieces) == 1:
        return pieces[0][1]
    joined = together([frame for _, frame in pieces])
    joined = joined[np.argsort(np.concatenate([rows for rows, _ in pieces]))]
    return joined.select([name for name in frame_schema(EventClass.PF) if name in joined.columns])


def _verdict(records: _Records, names: _Names) -> dict[str, Any]:
    """What pf decided, where, and by which rule."""
    record, layout, dialects = records.header, records.layout, records.dialects
    interface, ruleset = names.texts(record["names"])
    direction = record["dir"]
    columns = {
        "ringfence.pf.action": _pick(_ACTION_NAMES, dialects * 256 + record["action"]),
        "ringfence.pf.reason": _pick(_REASON_NAMES, dialects * 256 + record["reason"]),
        "ringfence.pf.direction": _pick(_DIRECTION_NAMES, direction),
        "observer.ingress.interface.name": _only(interface, direction == PF_IN),
        "observer.egress.interface.name": _only(interface, direction == PF_OUT),
        "rule.ruleset": ruleset,
        "ringfence.pf.rule": record["rulenr"].astype(np.uint32),
        "ringfence.pf.subrule": _nullable(record["subrulenr"], _has_subrule(record)),
    }
    if layout.has("uid"):
        nobody = _NO_PIDS[layout.length == OPENBSD_LENGTH][dialects]
        columns |= {
            "ringfence.pf.uid": _nullable(record["uid"], record["uid"] != NO_UID),
            "ringfence.pf.pid": _process(record["pid"], nobody),
            "ringfence.pf.rule_uid": _nullable(record["rule_uid"], record["rule_uid"] != NO_UID),
            "ringfence.pf.rule_pid": _process(record["rule_pid"], nobody),
        }
    if layout.has("ridentifier"):
        columns["ringfence.pf.ridentifier"] = _nullable(record["ridentifier"], record["ridentifier"] != 0)
    return columns


OPENBSD_LENGTH = 100
_NO_PIDS = {
    now: np.array([NO_PID if now else NO_PID_OLD, NO_PID, NO_PID_NETBSD, NO_PID], np.int64)  # by DIALECTS
    for now in (False, True)
}


def _has_subrule(record: Void) -> Bools:
    """Rows with a rule inside an anchor; FreeBSD 10 writes the number of none outside of anchors as its CPU has 1."""
    known: Bools = record["subrulenr"] != NO_RULE
    odd = record["subrulenr"] == NO_RULE_FREEBSD_10
    if odd.any():
        rulesets = np.ascontiguousarray(record["names"]).view(np.uint8).reshape(-1, 32)[:, 16]
        known &= ~odd | (rulesets != 0)
    return known


def _process(pids: npt.NDArray[Any], nobody: Ints) -> pl.Series:
    return _nullable(pids.astype(np.int64), (pids != 0) & (pids != nobody))


class _Names:
    """Interface and anchor names as text, made once for each pair: a firewall has few, and the next block has the same."""

    def __init__(self) -> None:
        self._learn(np.zeros((1, 4), np.uint64))

    def texts(self, names: Void) -> tuple[pl.Series, pl.Series]:
        """Interfaces and anchors of some records."""
        words = np.ascontiguousarray(names).view(np.uint64).reshape(-1, 4)
        codes = self._places.take(_slots(words))
        if not (self._words.take(codes, axis=0) == words).all():  # take is 6x faster here than indexing
            distinct, codes = _distinct(words)
            together = _distinct(np.concatenate([self._words, distinct]))[0]
            self._learn(together if len(together) <= MAX_NAMES else distinct[:MAX_NAMES])
            interfaces, rulesets = _pair_texts(distinct)
            return _pick(interfaces, codes), _pick(rulesets, codes)
        return _pick(self._interfaces, codes), _pick(self._rulesets, codes)

    def _learn(self, distinct: npt.NDArray[np.uint64]) -> None:
        """Remember these pairs; of those in one slot only the last is found again."""
        self._words = distinct
        self._places = np.zeros(1 << _SLOT_BITS, np.int64)
        self._places[_slots(distinct)] = np.arange(len(distinct))
        self._interfaces, self._rulesets = _pair_texts(self._words)


_SLOT_BITS = 16


def _slots(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The upper bits of the hash: one look-up in a table, where a binary search among 40 costs ten times as much."""
    slots: npt.NDArray[np.uint64] = (words @ _MIX) >> np.uint64(64 - _SLOT_BITS)
    return slots


def _pair_texts(words: npt.NDArray[np.uint64]) -> tuple[pl.Series, pl.Series]:
    pairs = [bytes(pair) for pair in np.ascontiguousarray(words).view("V32").ravel()]
    interfaces, rulesets = (pl.Series([_text(pair[at : at + 16]) for pair in pairs], dtype=pl.String) for at in (0, 16))
    return interfaces, rulesets


def _pick(values: pl.Series, codes: npt.NDArray[Any]) -> pl.Series:
    return values[pl.Series(codes.astype(np.uint32))]


def _text(field: bytes) -> str | None:
    return field.split(b"\0", 1)[0].decode(errors="backslashreplace") or None


# Odd multipliers of wyhash and splitmix64; a forged collision only costs the slower, exact way.
_MIX = np.array([0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0xBF58476D1CE4E5B9], np.uint64)


def _distinct(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], Ints]:
    """The distinct rows and, for each row, which of them it is. Sorting one 64-bit hash is 20x cheaper than the rows."""
    hashes = words @ _MIX
    unique, codes = np.unique(hashes, return_inverse=True)
    first = np.empty(len(unique), np.int64)
    first[codes] = np.arange(len(codes))
    distinct = words[first]
    if (distinct.take(codes, axis=0) == words).all():  # take is 6x faster here than indexing
        return distinct, codes
    exact, codes = np.unique(words, axis=0, return_inverse=True)
    return exact, codes.ravel()


def _ends(records: _Records, packet: _Packet) -> dict[str, Any]:
    """Both ends of the packet, before and after rewriting."""
    record, rewritten = records.header, records.rewritten
    some = bool(rewritten.any())
    columns: dict[str, Any] = {}
    for name, short, letter, v4_end, v6_end in (("source", "src", "s", 16, 24), ("destination", "dst", "d", 20, 40)):
        seen = packet.end(record[f"{short}4"], record[f"{short}6"], letter, v4_end, v6_end)
        if some:
            logged = _End(
                record[f"{letter}addr4"], record[f"{letter}addr"], record[f"{letter}port"],
                _IS_IPV6.take(record["af"]), rewritten, rewritten & packet.ported,
            )  # fmt: skip
            columns |= seen.where(rewritten).columns(f"{name}.nat")
            columns |= seen.replaced(rewritten, logged).columns(name)
        else:
            columns |= _absent_end(f"{name}.nat", len(record)) if records.layout.has("rewritten") else {}
            columns |= seen.columns(name)
    return columns


@dataclass(frozen=True, slots=True)
class _End:
    """Address and port of one end in every row, and in which rows they are known."""

    v4: npt.NDArray[Any]
    v6: Void
    port: npt.NDArray[Any]
    is6: Bools
    has_address: Bools
    has_port: Bools

    def where(self, rows: Bools) -> _End:
        """Known in these rows only."""
        return replace(self, has_address=self.has_address & rows, has_port=self.has_port & rows)

    def replaced(self, rows: Bools, other: _End) -> _End:
        """What `other` says in these rows, and what this one says in all others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in _END_PARTS)
        return _End(*(np.where(rows, theirs, ours) for ours, theirs in pairs))

    def columns(self, name: str) -> dict[str, pl.Series]:
        """The columns. An IPv4-mapped address counts as IPv4 (`ringfence/addresses.py`)."""
        port = _nullable(self.port, self.has_port, np.int32)
        six = self.is6 & self.has_address
        if not six.any():
            return _absent_end(name, len(six)) | {f"{name}.ip": _nullable(self.v4, self.has_address), f"{name}.port": port}
        rows = np.flatnonzero(six)
        octets = self.v6[rows].view(np.uint8).reshape(-1, 16)
        halves, words = octets.view(">u8"), octets.view(">u4")
        mapped = (halves[:, 0] == 0) & (words[:, 2] == _MAPPED)
        v4, is4 = self.v4, self.has_address & ~self.is6
        if mapped.any():
            v4 = v4.astype(np.uint32)
            v4[rows[mapped]], is4[rows[mapped]] = words[mapped, 3], True
            rows, octets = rows[~mapped], octets[~mapped]
        return {f"{name}.ip": _nullable(v4, is4), f"{name}.ip6": _scattered(octets, rows, len(six)), f"{name}.port": port}


def _scattered(octets: npt.NDArray[np.uint8], rows: Ints, count: int) -> pl.Series:
    """IPv6 addresses in these rows and null in all others: few rows have one, and making binary values is slow."""
    places = np.full(count, len(rows), np.uint32)
    places[rows] = np.arange(len(rows), dtype=np.uint32)
    known = pl.Series(octets).cast(pl.List(pl.UInt8)).cast(pl.Binary) if len(rows) else pl.Series(dtype=pl.Binary)
    return known.extend(_null(pl.Binary()))[pl.Series(places)]


_END_PARTS = tuple(part.name for part in fields(_End))
_MAPPED = int.from_bytes(MAPPED_PREFIX[8:], "big")


def _absent_end(name: str, count: int) -> dict[str, pl.Series]:
    dtypes: dict[str, pl.DataType] = {"ip": pl.UInt32(), "ip6": pl.Binary(), "port": pl.Int32()}
    return {f"{name}.{part}": _constant(None, count, dtype) for part, dtype in dtypes.items()}


def _nullable(values: npt.NDArray[Any], known: Bools, dtype: npt.DTypeLike | None = None) -> pl.Series:
    """A column in native byte order that is null where the value is not known."""
    kind = np.dtype(dtype or values.dtype.newbyteorder("="))
    if not known.any():
        return _constant(None, len(known), _POLARS[kind])
    return _only(pl.Series(np.ascontiguousarray(values, kind)), known)


_POLARS: Mapping[np.dtype[Any], pl.DataType] = {
    np.dtype(np.uint8): pl.UInt8(),
    np.dtype(np.uint32): pl.UInt32(),
    np.dtype(np.int32): pl.Int32(),
    np.dtype(np.int64): pl.Int64(),
}


def _only(values: pl.Series, known: Bools) -> pl.Series:
    if known.all():
        return values
    return values.zip_with(pl.Series(known), _null(values.dtype))


def _constant(value: Any, count: int, dtype: pl.DataType) -> pl.Series:
    single = _null(dtype) if value is None else pl.Series([value], dtype=dtype)
    return single.new_from_index(0, count)


@cache
def _null(dtype: pl.DataType) -> pl.Series:
    return pl.Series([None], dtype=dtype)


class PflogConfig(BaseModel):
    """Reads pcap or pcapng: a file such as /var/log/pflog of pflogd(8), a FIFO, standard input, or what a program such as
    tcpdump prints. Only a file can be read again after a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: InputPath | None = Field(default=None, description="File or FIFO to read; - is standard input.")
    command: Argv | None = Field(
        default=None,
        description='Program to run, as a list: [tcpdump, -n, -U, -s, "160", -w, -, -i, pflog0]; exactly one of path and command.',
    )
    follow: bool = Field(
        default=True,
        description="Go on as the file grows and is rotated, or with the next writer of a FIFO; else stop at its end.",
    )
    observer: str | None = Field(
        default=None, description="Name of the firewall; when not set, the path, or the collector's name."
    )
    original: Literal["keep", "drop"] = Field(default="drop", description="Keep the logged packet as event.original.")
    dialect: Literal["auto", "openbsd", "freebsd", "netbsd", "macos"] = Field(
        default="auto", description="System whose pf wrote it; auto tells by the header's length and the number of IPv6."
    )

    @model_validator(mode="after")
    def _check(self) -> PflogConfig:
        if (self.path is None) == (self.command is None):
            raise ValueError("exactly one of path and command is required")
        if self.command is not None and "follow" in self.model_fields_set:
            raise ValueError("follow goes with path; a command is started again whenever it ends")
        return self


def recognise(start: bytes) -> bool:
    """True when a file that starts so is a capture of pflog."""
    if start[: len(MAGIC)] == MAGIC:
        return DLT_PFLOG in linktypes(start)
    capture = read_capture(start)
    return isinstance(capture, Capture) and capture.linktype == DLT_PFLOG


def _decoder(year: int) -> Decoder:
    return PflogDecoder()


class PflogKind:
    """The collector kind `pflog`."""

    settings: type[BaseModel] = PflogConfig
    promise = (
        "file: every complete record once, across restarts and rotation by rename; "
        "FIFO, standard input, command: what was read, once"
    )
    status: Status = "experimental"
    sample = "firewall: {type: pflog, path: /var/log/pflog, observer: fw1}"
    formats: Sequence[Format] = (
        Format(
            "pflog",
            "pcap files of pflogd(8), and pcapng: OpenBSD, FreeBSD, NetBSD, macOS",
            CaptureFramer,
            _decoder,
            recognise,
            "pf",
        ),
    )

    def build(self, settings: PflogConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        decoder = PflogDecoder(settings.observer, settings.original, settings.dialect)
        return Collector("pf", _shell(settings, context.name), decoder)

    def resources(self, settings: PflogConfig) -> Sequence[str]:
        """The path: a second reader would make every event twice, or take half of a pipe."""
        if settings.path is None:
            return []
        return ["standard input" if settings.path == STANDARD_INPUT else f"file {settings.path}"]


def _shell(settings: PflogConfig, name: str) -> Shell:
    if settings.path is not None:
        return PathShell(name, settings.path, CaptureFramer, settings.follow)
    argv = settings.command or ()
    return CommandShell(name, lambda position: argv, CaptureFramer)


KIND = PflogKind()
