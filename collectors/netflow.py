"""NetFlow version 5: unidirectional IPv4 flows in UDP datagrams, or in a file of datagrams one after the other.

Spec: Cisco, "NetFlow Export Datagram Format", tables B-3 (header, 24 bytes) and B-4 (record, 48 bytes). Not supported:
version 9 (RFC 3954), IPFIX (RFC 7011) and versions 1, 7 and 8, which are rejected by name; next hop and prefix lengths
are not kept; ports of other protocols than TCP, UDP and SCTP.

Records of many datagrams are decoded as one numpy array; only headers are looked at one by one,
to follow the sequence numbers. A file has nothing that marks a datagram: what is no version 5 cannot be cut, and all
that follows comes in frames of UNCUT_BYTES, the last one shorter, for the decoder to reject.

Sample (header, one record): 0005 0001 0036ee80 6ab13b80 1dcd6500 00000000 00 00 0000 | 0a010005 0a020009 00000000 0001 0002
0000000a 00000348 0036e6b0 0036ea98 9c40 0016 00 1b 06 00 0000 0000 18 18 0000
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from collectors.udp import UdpShell
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Status
from ringfence.schema import build_frame

VERSION = 5
HEADER_BYTES, RECORD_BYTES = 24, 48  # tables B-3 and B-4
MAX_RECORDS = 30  # table B-3, count: 1-30
UNCUT_BYTES = 64 * 1024  # what a dead letter holds of a frame
DEFAULT_PORT = 2055  # softflowd(8), nfcapd(1)
RECEIVE_BUFFER_BYTES = 8 << 20  # 5,500 full datagrams: half a second at 300,000 flows/s
MAX_EXPORTERS = 10_000  # (stream, exporter, engine); the one that was quiet longest is forgotten first
REORDER_DATAGRAMS = 32  # a gap that as many later datagrams did not fill is a loss
SKEW_MS = 60_000  # how far a flow may end after its datagram was made, before that reads as a wrap of 49.7 days
RESTART_MS = 5_000  # an exporter whose moment of boot moved by more has restarted

ICMP = 1  # IANA protocol numbers
_TCP, _UDP, _SCTP = 6, 17, 132
_OTHER_VERSIONS = {1: "NetFlow v1", 7: "NetFlow v7", 8: "NetFlow v8", 9: "NetFlow v9", 10: "IPFIX"}

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Void = npt.NDArray[np.void]

_HEADER = np.dtype(
    [
        ("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("seconds", ">u4"), ("nanoseconds", ">u4"),
        ("sequence", ">u4"), ("engine", ">u2"), ("sampling", ">u2"),
    ]
)  # fmt: skip
_RECORD = np.dtype(
    [
        ("src", ">u4"), ("dst", ">u4"), ("nexthop", ">u4"), ("input", ">u2"), ("output", ">u2"),
        ("packets", ">u4"), ("octets", ">u4"), ("first", ">u4"), ("last", ">u4"), ("sport", ">u2"), ("dport", ">u2"),
        ("pad1", "u1"), ("flags", "u1"), ("protocol", "u1"), ("tos", "u1"),
        ("src_as", ">u2"), ("dst_as", ">u2"), ("masks", "u2"), ("pad2", "u2"),
    ]
)  # fmt: skip


class NetflowFramer:
    """Cuts a file of version 5 datagrams by the record count in each header."""

    head_bytes = 0

    def __init__(self) -> None:
        self._rest = b""
        self._uncut = False

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Ints]:
        """Take the next bytes; return the bytes of the frames that are complete and their n + 1 boundaries in them."""
        data = self._rest + data
        ends = [0]
        if not self._uncut:
            ends += self._walk(data)
        if self._uncut:
            ends += range(ends[-1] + UNCUT_BYTES, len(data) + 1, UNCUT_BYTES)
        self._rest = data[ends[-1] :]
        return data[: ends[-1]], np.array(ends, np.int64)

    def finish(self) -> tuple[bytes, Ints]:
        """Return what is left at the end of the stream, which is no complete frame."""
        rest, self._rest = self._rest, b""
        return rest, np.array([0, len(rest)] if rest else [0], np.int64)

    def _walk(self, data: bytes) -> Iterator[int]:
        position = 0
        while len(data) >= position + 4:
            count = int.from_bytes(data[position + 2 : position + 4], "big")
            if data[position : position + 2] != b"\0\5" or not 1 <= count <= MAX_RECORDS:
                self._uncut = True
                return
            position += HEADER_BYTES + RECORD_BYTES * count
            if position > len(data):
                return
            yield position


@dataclass(slots=True)
class _Gap:
    """Flows that are missing: sequence numbers `start` up to `end`, first missed by the datagram in row `row` of a block."""

    start: int
    end: int
    block: int
    row: int
    age: int = 0


@dataclass(slots=True)
class _Engine:
    """Where the sequence of one engine stands. `booted_ms` is modulo 2^32, like the uptime that it is computed from."""

    expected: int
    booted_ms: int
    lost: int = 0
    gaps: list[_Gap] = field(default_factory=list)


class _Sequences:
    """Follows the flow sequence of every engine: who lost flows, and which datagrams came just after a loss."""

    def __init__(self) -> None:
        self.engines: OrderedDict[tuple[int, str, int], _Engine] = OrderedDict()
        self._block = 0

    def follow(self, frames: Frames, headers: Void, rows: Ints) -> Bools:
        """Take the headers of a block in order of arrival; return which of them followed a gap that is still open."""
        self._block += 1
        after_gap = np.zeros(len(rows), np.bool_)
        booted = (headers["seconds"].astype(np.int64) * 1000 - headers["uptime"]) & 0xFFFFFFFF
        facts = zip(
            frames.source[rows].tolist(), headers["engine"].tolist(), headers["sequence"].tolist(), headers["count"].tolist(),
            booted.tolist(), strict=True,
        )  # fmt: skip
        for row, (index, number, sequence, count, booted_ms) in enumerate(facts):
            source = frames.sources[index]
            engine = self._engine((source.identity, source.name, number), sequence, booted_ms)
            if engine.expected != sequence:
                self._jump(engine, sequence, count, booted_ms, row, after_gap)
            else:
                engine.expected = (sequence + count) & 0xFFFFFFFF
            engine.booted_ms = booted_ms
            if engine.gaps:
                _grow_old(engine)
        return after_gap

    def _engine(self, key: tuple[int, str, int], sequence: int, booted_ms: int) -> _Engine:
        engine = self.engines.get(key)
        if engine is None:
            engine = self.engines[key] = _Engine(sequence, booted_ms)
            if len(self.engines) > MAX_EXPORTERS:
                self.engines.popitem(last=False)
        self.engines.move_to_end(key)
        return engine

    def _jump(self, engine: _Engine, sequence: int, count: int, booted_ms: int, row: int, after_gap: Bools) -> None:
        """A datagram that is not the expected one: after a gap, late, sent twice, or the first one of a new life."""
        ahead = _signed(sequence - engine.expected)
        if abs(_signed(booted_ms - engine.booted_ms)) > RESTART_MS or ahead < -REORDER_DATAGRAMS * MAX_RECORDS:
            engine.gaps.clear()
        elif ahead < 0:
            self._fill(engine, sequence, count, after_gap)
            return
        else:
            engine.gaps.append(_Gap(engine.expected, sequence, self._block, row))
            after_gap[row] = True
        engine.expected = (sequence + count) & 0xFFFFFFFF

    def _fill(self, engine: _Engine, sequence: int, count: int, after_gap: Bools) -> None:
        """A late datagram: take its flows out of the gap that it belongs to."""
        for gap in engine.gaps:
            size, before = _signed(gap.end - gap.start), _signed(sequence - gap.start)
            if not 0 <= before < size:
                continue
            engine.gaps.remove(gap)
            end = min(before + count, size)
            if before:
                engine.gaps.append(_Gap(gap.start, sequence, gap.block, gap.row, gap.age))
            if end < size:
                engine.gaps.append(_Gap((gap.start + end) & 0xFFFFFFFF, gap.end, gap.block, gap.row, gap.age))
            if gap.block == self._block:
                after_gap[gap.row] = any((other.block, other.row) == (gap.block, gap.row) for other in engine.gaps)
            return


def _grow_old(engine: _Engine) -> None:
    """Count a gap as lost once REORDER_DATAGRAMS datagrams came after the one that showed it."""
    for gap in engine.gaps:
        gap.age += 1
    engine.lost += sum(_signed(gap.end - gap.start) for gap in engine.gaps if gap.age > REORDER_DATAGRAMS)
    engine.gaps = [gap for gap in engine.gaps if gap.age <= REORDER_DATAGRAMS]


def _signed(difference: int) -> int:
    """A difference of two counters of 32 bits that wrap."""
    return (difference + 0x80000000 & 0xFFFFFFFF) - 0x80000000


class NetflowDecoder:
    """Decodes datagrams of many exporters. `observer.name` is the exporter's address, or the file's path."""

    def __init__(self) -> None:
        self._sequences = _Sequences()

    @property
    def sequence_gaps(self) -> Mapping[str, int]:
        """Flows that each remembered exporter sent and that never came; a flow counts once it is 32 datagrams late."""
        lost: dict[str, int] = {}
        for (_, exporter, _), engine in self._sequences.engines.items():
            lost[exporter] = lost.get(exporter, 0) + engine.lost
        return lost

    def feed(self, frames: Frames) -> Decoded:
        """Decode every datagram that is whole; each of the others becomes one Problem."""
        starts, sizes = frames.offsets[:-1], np.diff(frames.offsets)
        headers = _gather(frames.data, _HEADER, starts)
        good = _readable(headers, sizes)
        rows = np.flatnonzero(good)
        problems = [_problem(frames, row) for row in np.flatnonzero(~good).tolist()]
        if not len(rows):
            return Decoded({}, 0, problems)
        headers = headers[rows]
        after_gap = self._sequences.follow(frames, headers, rows)
        lossy = after_gap | np.isin(frames.source[rows], list(frames.lossy))
        return Decoded({EventClass.FLOW: _columns(frames, rows, headers, lossy)}, len(rows), problems)


def _gather(data: bytes, dtype: np.dtype[np.void], at: Ints) -> Void:
    """Copy one item from each of these unaligned places; what lies beyond the data reads as zeroes."""
    size = dtype.itemsize
    if len(at) and int(at[-1]) + size > len(data):
        data += bytes(size)
    raw = np.ndarray((max(len(data) - size + 1, 0),), f"V{size}", data, strides=(1,))
    items: Void = raw[at].view(dtype)
    return items


def _readable(headers: Void, sizes: Ints) -> Bools:
    """Which datagrams can be decoded: `diagnose` says why for the others, and the two must agree."""
    count = headers["count"].astype(np.int64)
    shaped = (headers["version"] == VERSION) & (count >= 1) & (count <= MAX_RECORDS)
    result: Bools = shaped & (sizes == HEADER_BYTES + RECORD_BYTES * count) & (headers["nanoseconds"] < 1_000_000_000)
    return result


def diagnose(datagram: bytes) -> tuple[ProblemCode, str, int]:
    """Say why a datagram cannot be decoded: code, reason, and the byte where the field that is wrong begins."""
    if len(datagram) < 2:
        return ProblemCode.TRUNCATED, f"datagram has {len(datagram)} bytes, too few for a version", len(datagram)
    version = int.from_bytes(datagram[:2], "big")
    if version != VERSION:
        name = _OTHER_VERSIONS.get(version, f"version {version}")
        return ProblemCode.UNKNOWN_VERSION, f"datagram is {name}; accepted: NetFlow v{VERSION}", 0
    if len(datagram) < HEADER_BYTES:
        return ProblemCode.TRUNCATED, f"header has {len(datagram)} of {HEADER_BYTES} bytes", len(datagram)
    count = int.from_bytes(datagram[2:4], "big")
    if not 1 <= count <= MAX_RECORDS:
        return ProblemCode.MALFORMED, f"header announces {count} records; accepted: 1 to {MAX_RECORDS}", 2
    expected = HEADER_BYTES + RECORD_BYTES * count
    if len(datagram) != expected:
        return (
            ProblemCode.BAD_LENGTH,
            f"header announces {count} records, {expected} bytes; the datagram has {len(datagram)}",
            2,
        )
    return ProblemCode.MALFORMED, f"{int.from_bytes(datagram[12:16], 'big')} nanoseconds are more than a second", 12


def _problem(frames: Frames, row: int) -> Problem:
    raw = frames.frame(row)
    code, detail, offset = diagnose(raw)
    source = frames.sources[int(frames.source[row])]
    return Problem(code, detail, row, offset, raw=raw, source=source, position=int(frames.positions[row]))


def _columns(frames: Frames, rows: Ints, headers: Void, lossy: Bools) -> pl.DataFrame:
    """All records of these datagrams, in order."""
    count = headers["count"].astype(np.int64)
    index = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    of = np.repeat(np.arange(len(rows)), count)
    record = _gather(frames.data, _RECORD, frames.offsets[rows][of] + HEADER_BYTES + index * RECORD_BYTES)
    columns = {
        "ringfence.event.position": frames.positions[rows][of] + index.astype(np.uint64),
        "ringfence.evidence.lossy": lossy[of],
        **_origin(frames, rows, headers, of),
        **_times(headers, of, record),
        **_ends(record),
        **_counts(record),
    }
    return build_frame(EventClass.FLOW, columns)


def _origin(frames: Frames, rows: Ints, headers: Void, of: Ints) -> dict[str, pl.Series]:
    """What all records of a datagram share."""
    names = pl.Series([source.name for source in frames.sources], dtype=pl.String)
    identities = np.array([source.identity for source in frames.sources], np.uint64)
    index = frames.source[rows][of]
    received = frames.received_us[rows][of]
    sampling = headers["sampling"][of] & 0x3FFF  # table B-3: the first two bits hold the sampling mode
    return {
        "event.created": _nullable(received, received != 0),
        "ringfence.event.source": pl.Series(identities[index]),
        "observer.name": names[pl.Series(index.astype(np.uint32))],
        "ringfence.flow.sampling": _nullable(sampling, sampling > 1, np.int64),
    }


def _times(headers: Void, of: Ints, record: Void) -> dict[str, npt.NDArray[Any]]:
    """Uptimes of the exporter as microseconds since the epoch."""
    made_us = headers["seconds"].astype(np.int64) * 1_000_000 + headers["nanoseconds"] // 1000
    uptime, made_us = headers["uptime"].astype(np.uint32)[of], made_us[of]
    end = made_us - _age_ms(uptime, record["last"]) * 1000
    return {"@timestamp": end, "event.start": made_us - _age_ms(uptime, record["first"]) * 1000, "event.end": end}


def _age_ms(uptime: npt.NDArray[np.uint32], moment: npt.NDArray[Any]) -> Ints:
    """How long before the datagram this was. Uptime wraps at 2^32 ms; a moment up to SKEW_MS ahead is in the future."""
    age = (uptime - moment.astype(np.uint32)).astype(np.int64)
    return np.where(age >= (1 << 32) - SKEW_MS, age - (1 << 32), age)


def _ends(record: Void) -> dict[str, Any]:
    """Addresses, ports, interfaces and autonomous systems; ICMP carries its type and code in the destination port."""
    protocol, dport = record["protocol"], record["dport"]
    icmp = protocol == ICMP
    ported = (protocol == _TCP) | (protocol == _UDP) | (protocol == _SCTP)
    return {
        "source.ip": record["src"].astype(np.uint32),
        "source.port": _nullable(record["sport"], ported, np.int32),
        "destination.ip": record["dst"].astype(np.uint32),
        "destination.port": _nullable(dport, ported, np.int32),
        "network.iana_number": np.ascontiguousarray(protocol),
        "observer.ingress.interface.id": record["input"].astype(np.int64),
        "observer.egress.interface.id": record["output"].astype(np.int64),
        "source.as.number": _nullable(record["src_as"], record["src_as"] != 0, np.int64),
        "destination.as.number": _nullable(record["dst_as"], record["dst_as"] != 0, np.int64),
        "ringfence.icmp.type": _nullable(dport >> 8, icmp, np.uint8),
        "ringfence.icmp.code": _nullable(dport & 0xFF, icmp, np.uint8),
    }


def _counts(record: Void) -> dict[str, Any]:
    return {
        "source.packets": record["packets"].astype(np.int64),
        "source.bytes": record["octets"].astype(np.int64),
        "ringfence.tcp.source_flags": _nullable(record["flags"], record["protocol"] == _TCP, np.uint8),
        "ringfence.flow.tos": np.ascontiguousarray(record["tos"]),
    }


def _nullable(values: npt.NDArray[Any], known: Bools, dtype: npt.DTypeLike | None = None) -> pl.Series:
    """A column in native byte order that is null where the value is not known."""
    column = pl.Series(np.ascontiguousarray(values, dtype))
    return column.zip_with(pl.Series(known), _null(column.dtype))


@cache
def _null(dtype: pl.DataType) -> pl.Series:
    return pl.Series([None], dtype=dtype)


_LISTEN = re.compile(r"(?:udp://)?(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/]+)(?::(\d{1,5}))?")


def _endpoint(listen: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(listen)
    port = int(match[2] or DEFAULT_PORT) if match else 0
    if match is None or not 1 <= port <= 65_535:
        raise ValueError(
            f"{listen!r} is no address to listen on; accepted: udp://HOST:PORT or HOST:PORT, such as 0.0.0.0:{DEFAULT_PORT}"
        )
    return match[1].strip("[]"), port


def _listen(listen: str) -> str:
    _endpoint(listen)
    return listen


class NetflowConfig(BaseModel):
    """Receives NetFlow v5 datagrams."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default=f"udp://127.0.0.1:{DEFAULT_PORT}", validate_default=True, description="Address and UDP port to receive on."
    )


def recognise(start: bytes) -> bool:
    """True when a file that starts so holds version 5 datagrams."""
    return len(start) >= HEADER_BYTES and start[:2] == b"\0\5" and 1 <= int.from_bytes(start[2:4], "big") <= MAX_RECORDS


def _decoder(year: int) -> Decoder:
    return NetflowDecoder()


class NetflowKind:
    """The collector kind `netflow`."""

    settings: type[BaseModel] = NetflowConfig
    promise = "every datagram that the kernel hands over; its drops and sequence gaps are counted"
    status: Status = "experimental"
    sample = 'router: {type: netflow, listen: "0.0.0.0:2055"}'
    formats: Sequence[Format] = (
        Format("netflow-v5", "NetFlow v5 datagrams, one after the other", NetflowFramer, _decoder, recognise, "netflow"),
    )

    def build(self, settings: NetflowConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        host, port = _endpoint(settings.listen)
        return Collector("netflow", UdpShell(host, port, RECEIVE_BUFFER_BYTES), NetflowDecoder())

    def resources(self, settings: NetflowConfig) -> Sequence[str]:
        """The UDP port."""
        host, port = _endpoint(settings.listen)
        return [f"udp {f'[{host}]' if ':' in host else host}:{port}"]


KIND = NetflowKind()
