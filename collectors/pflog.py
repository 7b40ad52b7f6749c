"""pflog: packets that OpenBSD's pf logged, each with the rule that decided (link type DLT_PFLOG, 117).

Spec: pflog(4), sys/net/if_pflog.h and sys/net/pfvar.h of OpenBSD; pcap framing by `collectors/pcap.py`; RFC 791, RFC 8200
section 4, RFC 9293 section 3.1. Not supported: header lengths other than 100 bytes (FreeBSD, macOS, old OpenBSD: rejected,
with the length), AH inside IPv4 (shown as protocol 51), ports of other protocols than TCP, UDP and SCTP.

Numbers of the header are in network order, except the user and process ids: pf writes those as its CPU has them, and so
does the writer of the file, whose byte order therefore tells. With `rewritten` set, the packet in the record is already
translated (address family `naf`) and the header keeps the original addresses and ports (family `af`; pflog_bpfcopy of
if_pflog.c): the header gives `source.*`, the packet `source.nat.*`.

Sample (header only: block in on vlan20 by rule 8, rule 3 of anchor "blue"): 64020100 766c616e3230 00*10 626c7565 00*12
00000008 00000003 ffffffff 00000000 00000000 00000000 01 00 02 00 00*36
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from collectors.pcap import MAX_PACKET_BYTES, RECORD_HEADER_BYTES, Capture, Fault, Order, PcapFramer, read_capture
from collectors.tail import TailShell
from ringfence.addresses import MAPPED_PREFIX
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Status
from ringfence.schema import build_frame, together
from ringfence.yamlfile import ConfigPath

DLT_PFLOG = 117  # libpcap, pcap/dlt.h
MAX_STREAMS = 1024  # files whose header is remembered; the one that was quiet longest is forgotten first

AF_INET = 2  # OpenBSD sys/socket.h
AF_INET6 = 24  # OpenBSD sys/socket.h
PF_IN, PF_OUT = 1, 2  # pfvar.h: enum { PF_INOUT, PF_IN, PF_OUT, PF_FWD }
NO_UID = 0xFFFFFFFF  # UID_MAX, sys/limits.h
NO_PID = 100_000  # PID_MAX + 1, sys/proc.h
NO_RULE = 0xFFFFFFFF  # if_pflog.c: hdr.subrulenr = -1

# pfvar.h: enum { PF_PASS, PF_DROP, ... PF_AFRT }
ACTIONS = (
    "pass", "block", "scrub", "noscrub", "nat", "nonat", "binat", "nobinat",
    "rdr", "nordr", "synproxy_drop", "defer", "match", "divert", "rt", "afrt",
)  # fmt: skip
# pfvar.h: PFRES_NAMES
REASONS = (
    "match", "bad-offset", "fragment", "short", "normalize", "memory", "bad-timestamp", "congestion", "ip-option",
    "proto-cksum", "state-mismatch", "state-insert", "state-limit", "src-limit", "synproxy", "translate", "no-route",
)  # fmt: skip

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132  # IANA protocol numbers
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60  # RFC 8200 section 4, RFC 4302
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION})

_IPV4_BYTES, _IPV6_BYTES = 20, 40

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Void = npt.NDArray[np.void]


def _named(names: Sequence[str | None]) -> pl.Series:
    known = dict(enumerate(names))
    return pl.Series([known.get(number, f"unknown({number})") for number in range(256)], dtype=pl.String)


def _by_protocol(values: Mapping[int, int]) -> npt.NDArray[np.int64]:
    return np.array([values.get(protocol, 0) for protocol in range(256)], np.int64)


_ACTION_NAMES = _named(ACTIONS)
_REASON_NAMES = _named(REASONS)
_DIRECTION_NAMES = _named(["unknown(0)", "in", "out"])
_TRANSPORT_BYTES = _by_protocol({ICMP: 8, TCP: 20, UDP: 8, ICMPV6: 4, SCTP: 12})  # RFC 792, 9293, 768, 4443, 9260
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
    """One kind of pflog header: its length byte, and its fields as (name, numpy type, offset); `=` is the file's order."""

    length: int
    fields: tuple[tuple[str, str, int], ...]

    @property
    def padded(self) -> int:
        """Where the packet starts: BPF_WORDALIGN(length), net/bpf.h."""
        return (self.length + 3) & ~3


OPENBSD = Layout(
    100,
    (
        ("length", "u1", 0), ("af", "u1", 1), ("action", "u1", 2), ("reason", "u1", 3),
        ("names", "V32", 4), ("rulenr", ">u4", 36), ("subrulenr", ">u4", 40),
        ("uid", "=u4", 44), ("pid", "=i4", 48), ("rule_uid", "=u4", 52), ("rule_pid", "=i4", 56),
        ("dir", "u1", 60), ("rewritten", "u1", 61), ("naf", "u1", 62),
        ("saddr", "V16", 64), ("saddr4", ">u4", 64), ("daddr", "V16", 80), ("daddr4", ">u4", 80),
        ("sport", ">u2", 96), ("dport", ">u2", 98),
    ),
)  # fmt: skip
LAYOUTS: Mapping[int, Layout] = {layout.length: layout for layout in (OPENBSD,)}
"""The headers that are decoded, by length byte."""

_RECORD_FIELDS = (("seconds", "=u4", 0), ("fraction", "=u4", 4), ("caplen", "=u4", 8), ("wirelen", "=u4", 12))
_IP_FIELDS = (
    ("version", "u1", 0), ("fragment", ">u2", 6), ("protocol", "u1", 9), ("src4", ">u4", 12), ("dst4", ">u4", 16),
    ("next", "u1", 6), ("src6", "V16", 8), ("dst6", "V16", 24),
)  # fmt: skip


@cache
def _dtype(layout: Layout, order: Order) -> np.dtype[np.void]:
    """Record header, pflog header and the first 40 bytes of the packet; IPv4 and IPv6 fields lie over each other."""
    packet = RECORD_HEADER_BYTES + layout.padded
    parts = [
        *_RECORD_FIELDS,
        *((name, kind, offset + RECORD_HEADER_BYTES) for name, kind, offset in layout.fields),
        *((name, kind, offset + packet) for name, kind, offset in _IP_FIELDS),
    ]
    names, kinds, offsets = zip(*parts, strict=True)
    return np.dtype(
        {
            "names": names,
            "formats": [kind.replace("=", order) for kind in kinds],
            "offsets": offsets,
            "itemsize": packet + _IPV6_BYTES,
        }
    )


def _gather(data: bytes, dtype: np.dtype[np.void], at: Ints) -> Void:
    """Copy one item from each of these unaligned places, as if zeroes followed the data."""
    size = dtype.itemsize
    last = len(data) - size
    if last < 0:
        return _gather(data + bytes(2 * size), dtype, at)
    raw = np.ndarray((last + 1,), f"V{size}", data, strides=(1,))
    items: Void = raw[np.minimum(at, last)].view(dtype)
    beyond = at > last
    if beyond.any():
        items[beyond] = _gather(data[last:] + bytes(size), dtype, at[beyond] - last)
    return items


@dataclass(frozen=True, slots=True)
class _Block:
    """The frames of one stream that are decoded together: `rows` are their indices in `frames`."""

    frames: Frames
    capture: Capture
    rows: Ints

    starts: Ints
    sizes: Ints

    @classmethod
    def of(cls, frames: Frames, capture: Capture, rows: Ints) -> _Block:
        """The block of these rows."""
        starts = frames.offsets[rows]
        return cls(frames, capture, rows, starts, frames.offsets[rows + 1] - starts)

    def only(self, record: Void, good: Bools, layout: Layout) -> tuple[_Block, Void, Layout]:
        """The rows that are good, with their gathered records."""
        if good.all():
            return self, record, layout
        return self.of(self.frames, self.capture, self.rows[good]), record[good], layout


class PflogDecoder:
    """Decodes the frames of `PcapFramer`. Remembers the file header of each stream; a stream is unreadable without it."""

    def __init__(self, observer: str | None = None, original: Literal["keep", "drop"] = "drop") -> None:
        self._observer = observer
        self._original = original
        self._streams: OrderedDict[int, Capture | Fault] = OrderedDict()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every frame; rows keep the order of their frames."""
        pieces: list[tuple[Ints, pl.DataFrame]] = []
        problems: list[Problem] = []
        headers = 0
        for identity, rows in _stretches(frames):
            if frames.positions[rows[0]] == 0:
                fault = self._open(identity, frames.frame(int(rows[0])))
                headers += fault is None
                problems += [] if fault is None else [_problem(frames, int(rows[0]), fault)]
                rows = rows[1:]
            stream = self._stream(identity)
            if isinstance(stream, Fault):
                problems += (_problem(frames, row, _unreadable(stream)) for row in rows.tolist())
                continue
            block = _Block.of(frames, stream, rows)
            blocks, faults = self._sort(identity, block)
            problems += (_problem(frames, row, fault) for row, fault in faults)
            pieces += ((good.rows, self._columns(good, record, layout)) for good, record, layout in blocks)
        problems.sort(key=lambda problem: problem.row or 0)
        rows_out = {EventClass.PF: _in_order(pieces)} if pieces else {}
        return Decoded(rows_out, sum(len(rows) for rows, _ in pieces), problems, {"capture header": headers} if headers else {})

    def _open(self, identity: int, header: bytes) -> Fault | None:
        """Learn what the first frame of a stream says about the rest."""
        capture = read_capture(header)
        if isinstance(capture, Capture) and capture.linktype != DLT_PFLOG:
            capture = Fault(
                ProblemCode.UNKNOWN_VERSION, f"link type is {capture.linktype}; accepted: {DLT_PFLOG} (DLT_PFLOG)", 20
            )
        self._remember(identity, capture)
        return capture if isinstance(capture, Fault) else None

    def _remember(self, identity: int, stream: Capture | Fault) -> None:
        self._streams[identity] = stream
        self._streams.move_to_end(identity)
        if len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)

    def _stream(self, identity: int) -> Capture | Fault:
        stream = self._streams.get(identity)
        if stream is None:
            return Fault(ProblemCode.MALFORMED, "no pcap file header was seen", 0)
        self._streams.move_to_end(identity)
        return stream

    def _sort(self, identity: int, block: _Block) -> tuple[list[tuple[_Block, Void, Layout]], list[tuple[int, Fault]]]:
        """Part the records that can be decoded, by the layout of their header, from the others, with the reason of each."""
        records = {
            layout: _gather(block.frames.data, _dtype(layout, block.capture.order), block.starts) for layout in LAYOUTS.values()
        }
        readable = {layout: _readable(block, record, layout) for layout, record in records.items()}
        faults: list[tuple[int, Fault]] = []
        for place in np.flatnonzero(~np.logical_or.reduce(list(readable.values()))).tolist():
            fault = diagnose(block.frames.frame(int(block.rows[place])), block.capture)
            faults.append((int(block.rows[place]), fault))
            if fault.code is ProblemCode.TOO_LARGE:  # the framer is lost from here on
                self._remember(identity, fault)
                faults += [(row, _unreadable(fault)) for row in block.rows[place + 1 :].tolist()]
                for good in readable.values():
                    good[place:] = False
                break
        return [block.only(records[layout], good, layout) for layout, good in readable.items() if good.any()], faults

    def _columns(self, block: _Block, record: Void, layout: Layout) -> pl.DataFrame:
        """The columns of records that are known to be readable."""
        packet = _Packet(block, record, layout)
        columns = {
            **self._identity(block, record),
            **_verdict(record),
            **_ends(record, packet),
            "network.iana_number": _nullable(packet.protocol, packet.has_protocol),
            "network.bytes": record["wirelen"].astype(np.int64) - layout.padded,
            "ringfence.tcp.source_flags": _nullable(packet.transport["flags"], packet.reaches(14) & (packet.protocol == TCP)),
            "ringfence.icmp.type": _nullable(packet.transport["type"], packet.reaches(1) & packet.icmp),
            "ringfence.icmp.code": _nullable(packet.transport["code"], packet.reaches(2) & packet.icmp),
            "ringfence.pf.truncated": packet.truncated,
        }
        return build_frame(EventClass.PF, columns)

    def _identity(self, block: _Block, record: Void) -> dict[str, Any]:
        frames, rows = block.frames, block.rows
        index = int(frames.source[rows[0]])
        source = frames.sources[index]
        fraction = record["fraction"].astype(np.int64)
        columns: dict[str, Any] = {
            "@timestamp": record["seconds"] * np.int64(1_000_000)
            + (fraction // 1000 if block.capture.nanoseconds else fraction),
            "ringfence.event.source": _constant(source.identity, len(rows), pl.UInt64()),
            "ringfence.event.position": frames.positions[rows],
            "observer.name": _constant(self._observer or source.name, len(rows), pl.String()),
            "ringfence.evidence.lossy": _constant(index in frames.lossy, len(rows), pl.Boolean()),
        }
        if self._original == "keep":
            packets = zip((block.starts + RECORD_HEADER_BYTES).tolist(), (block.starts + block.sizes).tolist(), strict=True)
            columns["event.original"] = pl.Series([frames.data[start:end] for start, end in packets], dtype=pl.Binary)
        return columns


class _Packet:
    """Where the parts of each logged IP packet are, and how much of them was captured."""

    def __init__(self, block: _Block, record: Void, layout: Layout) -> None:
        begin = RECORD_HEADER_BYTES + layout.padded
        self.captured = block.sizes - begin
        self.v6: Bools = np.where(record["rewritten"] != 0, record["naf"], record["af"]) == AF_INET6
        self.protocol = np.where(self.v6, record["next"], record["protocol"])
        self.has_protocol = self.captured > np.where(self.v6, 6, 9)
        self._header = np.where(self.v6, _IPV6_BYTES, (record["version"] & 15).astype(np.int64) * 4)
        self._fragment = ~self.v6 & ((record["fragment"] & 0x1FFF) != 0)
        self._walk_extensions(block, begin)
        complete = self.has_protocol & (self.captured >= self._header)
        self._payload = np.where(complete & ~self._fragment, self.captured - self._header, 0)
        self.truncated = ~complete | (~self._fragment & (self._payload < _TRANSPORT_BYTES[self.protocol]))
        self.icmp = self.protocol == np.where(self.v6, ICMPV6, ICMP)
        self.transport = _gather(block.frames.data, _TRANSPORT, block.starts + begin + np.where(complete, self._header, 0))

    def reaches(self, size: int) -> Bools:
        """Rows in which the first `size` bytes of the transport header were captured."""
        reached: Bools = self._payload >= size
        return reached

    @property
    def ported(self) -> Bools:
        """Rows whose protocol has ports, and which are no later fragment."""
        result: Bools = self.has_protocol & ~self._fragment & _PORTED[self.protocol]
        return result

    def end(self, v4: npt.NDArray[Any], v6: Void, letter: str, v4_end: int, v6_end: int) -> _End:
        """One end as the packet has it; its address is known where the header was captured up to these bytes."""
        known = self.captured >= np.where(self.v6, v6_end, v4_end)
        reached = self.reaches(2 if letter == "s" else 4)
        return _End(v4, v6, self.transport[f"{letter}port"], self.v6, known, self.ported & reached)

    def _walk_extensions(self, block: _Block, begin: int) -> None:
        """Slow path: follow IPv6 extension headers, packet by packet."""
        extended = self.v6 & self.has_protocol & _EXTENDED[self.protocol]
        for row in np.flatnonzero(extended).tolist():
            start = int(block.starts[row]) + begin
            packet = block.frames.data[start : start + int(self.captured[row])]
            protocol, offset, fragment = walk_extensions(packet)
            self.has_protocol[row] = protocol is not None
            self.protocol[row] = protocol or 0
            self._header[row] = offset
            self._fragment[row] = fragment


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


def _readable(block: _Block, record: Void, layout: Layout) -> Bools:
    """Which records can be decoded with this layout: `diagnose` says why for the others, and the two must agree."""
    caplen = record["caplen"].astype(np.int64)
    framed = (block.sizes == caplen + RECORD_HEADER_BYTES) & (caplen <= MAX_PACKET_BYTES) & (caplen >= layout.padded)
    sane = (
        (record["wirelen"] >= caplen) & (record["fraction"] < _fractions(block.capture)) & (record["length"] == layout.length)
    )
    family, af = np.where(record["rewritten"] != 0, record["naf"], record["af"]), record["af"]
    version = record["version"]
    fits = np.where(family == AF_INET6, version >> 4 == 6, (family == AF_INET) & (version >> 4 == 4) & (version & 15 >= 5))
    empty = (caplen == layout.padded) & ((family == AF_INET) | (family == AF_INET6))
    result: Bools = framed & sane & ((af == AF_INET) | (af == AF_INET6)) & (fits | empty)
    return result


def _fractions(capture: Capture) -> int:
    return 1_000_000_000 if capture.nanoseconds else 1_000_000


def diagnose(frame: bytes, capture: Capture) -> Fault:
    """Say why a record cannot be decoded: the first check that it does not pass, its lengths before the rest."""
    if len(frame) < RECORD_HEADER_BYTES:
        return Fault(ProblemCode.TRUNCATED, f"record header has {len(frame)} of {RECORD_HEADER_BYTES} bytes", len(frame))
    _, fraction, caplen, wirelen = struct.unpack_from(f"{capture.order}IIII", frame)
    return (
        _diagnose_lengths(frame, caplen, wirelen)
        or _diagnose_fraction(fraction, _fractions(capture))
        or _diagnose_header(frame[RECORD_HEADER_BYTES:])
    )


def _diagnose_lengths(frame: bytes, caplen: int, wirelen: int) -> Fault | None:
    size = len(frame) - RECORD_HEADER_BYTES
    if caplen > MAX_PACKET_BYTES:
        return Fault(ProblemCode.TOO_LARGE, f"record announces {caplen} bytes; at most {MAX_PACKET_BYTES} are accepted", 8)
    if size < caplen:
        return Fault(ProblemCode.TRUNCATED, f"packet has {size} of {caplen} bytes", len(frame))
    if size > caplen:
        return Fault(ProblemCode.BAD_LENGTH, f"record announces {caplen} bytes but holds {size}", 8)
    if wirelen < caplen:
        return Fault(ProblemCode.MALFORMED, f"{caplen} bytes were captured of a packet of {wirelen}", 12)
    return None


def _diagnose_fraction(fraction: int, second: int) -> Fault | None:
    if fraction < second:
        return None
    return Fault(ProblemCode.MALFORMED, f"fraction of a second is {fraction}; a second has {second}", 4)


def _diagnose_header(packet: bytes) -> Fault:
    if not packet:
        return Fault(ProblemCode.TRUNCATED, "record holds no pflog header", RECORD_HEADER_BYTES)
    layout = LAYOUTS.get(packet[0])
    if layout is None:
        accepted = ", ".join(map(str, LAYOUTS))
        return Fault(ProblemCode.UNKNOWN_VERSION, f"pflog header is {packet[0]} bytes long; accepted: {accepted} (OpenBSD)", 16)
    if len(packet) < layout.padded:
        return Fault(
            ProblemCode.TRUNCATED, f"pflog header has {len(packet)} of {layout.padded} bytes", RECORD_HEADER_BYTES + len(packet)
        )
    where = {name: offset for name, _, offset in layout.fields}
    families = ["af", "naf"] if packet[where["rewritten"]] else ["af"]
    for name in families:
        if packet[where[name]] not in (AF_INET, AF_INET6):
            detail = f"address family {name} is {packet[where[name]]}; accepted: {AF_INET} (IPv4), {AF_INET6} (IPv6)"
            return Fault(ProblemCode.MALFORMED, detail, RECORD_HEADER_BYTES + where[name])
    family, first = packet[where[families[-1]]], packet[layout.padded]
    detail = f"packet starts with byte 0x{first:02x}, which is no IP header of address family {family}"
    return Fault(ProblemCode.MALFORMED, detail, RECORD_HEADER_BYTES + layout.padded)


def _unreadable(fault: Fault) -> Fault:
    return Fault(fault.code, f"stream is unreadable: {fault.detail}", 0)


def _problem(frames: Frames, row: int, fault: Fault) -> Problem:
    source = frames.sources[int(frames.source[row])]
    return Problem(
        fault.code, fault.detail, row, fault.offset, raw=frames.frame(row), source=source, position=int(frames.positions[row])
    )


def _in_order(pieces: list[tuple[Ints, pl.DataFrame]]) -> pl.DataFrame:
    """Join what was decoded stream by stream, in the order of the frames."""
    joined = together([frame for _, frame in pieces])
    return joined if len(pieces) == 1 else joined[np.argsort(np.concatenate([rows for rows, _ in pieces]))]


def _verdict(record: Void) -> dict[str, Any]:
    """What pf decided, where, and by which rule."""
    interface, ruleset = _texts(record["names"])
    direction = record["dir"]
    return {
        "ringfence.pf.action": _pick(_ACTION_NAMES, record["action"]),
        "ringfence.pf.reason": _pick(_REASON_NAMES, record["reason"]),
        "ringfence.pf.direction": _pick(_DIRECTION_NAMES, direction),
        "observer.ingress.interface.name": _only(interface, direction == PF_IN),
        "observer.egress.interface.name": _only(interface, direction == PF_OUT),
        "rule.ruleset": ruleset,
        "ringfence.pf.rule": record["rulenr"].astype(np.uint32),
        "ringfence.pf.subrule": _nullable(record["subrulenr"], record["subrulenr"] != NO_RULE),
        "ringfence.pf.uid": _nullable(record["uid"], record["uid"] != NO_UID),
        "ringfence.pf.pid": _process(record["pid"]),
        "ringfence.pf.rule_uid": _nullable(record["rule_uid"], record["rule_uid"] != NO_UID),
        "ringfence.pf.rule_pid": _process(record["rule_pid"]),
    }


def _process(pids: npt.NDArray[Any]) -> pl.Series:
    return _nullable(pids.astype(np.int64), (pids != 0) & (pids != NO_PID))


def _texts(names: Void) -> tuple[pl.Series, pl.Series]:
    """Interface and anchor names: text is made once for each pair of names that differs from the others."""
    words = np.ascontiguousarray(names).view(np.uint64).reshape(-1, 4)
    distinct, codes = _distinct(words)
    pairs = [bytes(pair) for pair in distinct.view("V32").ravel()]
    interfaces, rulesets = (pl.Series([_text(pair[at : at + 16]) for pair in pairs], dtype=pl.String) for at in (0, 16))
    return _pick(interfaces, codes), _pick(rulesets, codes)


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


def _ends(record: Void, packet: _Packet) -> dict[str, Any]:
    """Both ends of the packet, before and after rewriting."""
    rewritten = record["rewritten"] != 0
    some = bool(rewritten.any())
    columns: dict[str, Any] = {}
    for name, short, letter, v4_end, v6_end in (("source", "src", "s", 16, 24), ("destination", "dst", "d", 20, 40)):
        seen = packet.end(record[f"{short}4"], record[f"{short}6"], letter, v4_end, v6_end)
        if some:
            logged = _End(
                record[f"{letter}addr4"], record[f"{letter}addr"], record[f"{letter}port"],
                record["af"] == AF_INET6, rewritten, rewritten & packet.ported,
            )  # fmt: skip
            columns |= seen.where(rewritten).columns(f"{name}.nat")
            columns |= seen.replaced(rewritten, logged).columns(name)
        else:
            columns |= _absent_end(f"{name}.nat", len(record))
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
        octets = np.ascontiguousarray(self.v6).view(np.uint8).reshape(-1, 16)
        halves, words = octets.view(">u8"), octets.view(">u4")
        mapped = six & (halves[:, 0] == 0) & (words[:, 2] == _MAPPED)
        binary = pl.Series(octets).cast(pl.List(pl.UInt8)).cast(pl.Binary)
        return {
            f"{name}.ip": _nullable(np.where(mapped, words[:, 3], self.v4), self.has_address & (~self.is6 | mapped)),
            f"{name}.ip6": _only(binary, six & ~mapped),
            f"{name}.port": port,
        }


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
    """Reads a pcap file of pflogd(8), such as /var/log/pflog."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath = Field(description="File to read.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the firewall; its file's path when not set.")
    original: Literal["keep", "drop"] = Field(default="drop", description="Keep the logged packet as event.original.")


def recognise(start: bytes) -> bool:
    """True when a file that starts so is a capture of pflog."""
    capture = read_capture(start)
    return isinstance(capture, Capture) and capture.linktype == DLT_PFLOG


def _decoder(year: int) -> Decoder:
    return PflogDecoder()


class PflogKind:
    """The collector kind `pflog`."""

    settings: type[BaseModel] = PflogConfig
    promise = "every complete record once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "firewall: {type: pflog, path: /var/log/pflog, observer: fw1}"
    formats: Sequence[Format] = (
        Format("pflog", "pcap files of pflogd(8), OpenBSD header", PcapFramer, _decoder, recognise, "pf"),
    )

    def build(self, settings: PflogConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        return Collector(
            "pf", TailShell(settings.path, PcapFramer, settings.follow), PflogDecoder(settings.observer, settings.original)
        )

    def resources(self, settings: PflogConfig) -> Sequence[str]:
        """The file: a second reader would make every event twice."""
        return [f"file {settings.path}"]


KIND = PflogKind()
