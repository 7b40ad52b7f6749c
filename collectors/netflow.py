"""NetFlow and IPFIX: the port that receives all versions, and version 5 itself, of datagrams in UDP or in a file.

Spec: Cisco, "NetFlow Export Datagram Format", tables B-3 (header, 24 bytes) and B-4 (record, 48 bytes); version 9 is
in `collectors/netflow_v9.py`, IPFIX in `collectors/ipfix.py`. Not supported: versions 1, 7 and 8, which are rejected by name; of
version 5, next hop and prefix lengths, and ports of other protocols than TCP, UDP and SCTP.

Records of many datagrams are decoded as one numpy array; only headers are looked at one by one,
to follow the sequence numbers. A file has nothing that marks a datagram: what is no version 5 cannot be cut, and all
that follows comes in frames of UNCUT_BYTES, the last one shorter, for the decoder to reject.

Sample (header, one record): 0005 0001 0036ee80 6ab13b80 1dcd6500 00000000 00 00 0000 | 0a010005 0a020009 00000000 0001 0002
0000000a 00000348 0036e6b0 0036ea98 9c40 0016 00 1b 06 00 0000 0000 18 18 0000
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from collectors import ipfix, netflow_v9, pflow
from collectors.datagrams import DatagramFramer
from collectors.elements import ICMP, SCTP, TCP, UDP, Bools, Ints, Void, age_ms, gather, nullable
from collectors.exporters import Allowed, Prefix, PrefixOption, endpoint, fed, listen_option, resource
from collectors.flowsets import SetDecoder
from collectors.sequences import Sequences
from collectors.udp import UdpShell
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Status
from ringfence.schema import build_frame, together

VERSION = 5
HEADER_BYTES, RECORD_BYTES = 24, 48  # tables B-3 and B-4
MAX_RECORDS = 30  # table B-3, count: 1-30
DEFAULT_PORT = 2055  # softflowd(8), nfcapd(1)
RECEIVE_BUFFER_BYTES = 8 << 20  # 5,500 full datagrams: half a second at 300,000 flows/s


_ALL_VERSIONS = "NetFlow v5, NetFlow v9, IPFIX"
_SFLOW = b"\0\0\0\5"  # its version has 32 bits
_OTHER_VERSIONS = {
    1: "NetFlow v1",
    7: "NetFlow v7",
    8: "NetFlow v8",
    9: "NetFlow v9",
    10: "IPFIX",
}

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


class NetflowFramer(DatagramFramer):
    """Cuts a file of version 5 datagrams by the record count in each header."""

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


class NetflowDecoder:
    """Decodes version 5 datagrams of many exporters. `observer.name` is the exporter's address, or the file's path."""

    def __init__(self, accepted: str = f"NetFlow v{VERSION}") -> None:
        self._accepted = accepted
        self._sequences = Sequences(MAX_RECORDS)

    @property
    def sequence_gaps(self) -> Mapping[str, int]:
        """Flows that each remembered exporter sent and that never came; a flow counts once it is 32 datagrams late."""
        return self._sequences.lost

    def feed(self, frames: Frames) -> Decoded:
        """Decode every datagram that is whole; each of the others becomes one Problem."""
        starts, sizes = frames.offsets[:-1], np.diff(frames.offsets)
        headers = gather(frames.data, _HEADER, starts)
        good = _readable(headers, sizes)
        rows = np.flatnonzero(good)
        problems = [_problem(frames, row, self._accepted) for row in np.flatnonzero(~good).tolist()]
        if not len(rows):
            return Decoded({}, 0, problems)
        headers = headers[rows]
        after_gap = self._follow(frames, headers, rows)
        lossy = after_gap | np.isin(frames.source[rows], list(frames.lossy))
        return Decoded({EventClass.FLOW: _columns(frames, rows, headers, lossy)}, len(rows), problems)

    def _follow(self, frames: Frames, headers: Void, rows: Ints) -> Bools:
        """Follow the sequences in order of arrival; return which datagrams came after a gap that is still open."""
        booted = (headers["seconds"].astype(np.int64) * 1000 - headers["uptime"]) & 0xFFFFFFFF
        facts = zip(
            frames.source[rows].tolist(), headers["engine"].tolist(), headers["sequence"].tolist(), headers["count"].tolist(),
            booted.tolist(), strict=True,
        )  # fmt: skip
        self._sequences.begin(len(rows))
        for row, (index, number, sequence, count, booted_ms) in enumerate(facts):
            source = frames.sources[index]
            self._sequences.take((source.identity, source.name, number), row, sequence, count, booted_ms)
        return self._sequences.after_gap


class ExportDecoder:
    """Decodes datagrams of all versions that one port receives: each goes to the decoder of its version."""

    def __init__(self, exporters: Sequence[Prefix] = ()) -> None:
        self._allowed = Allowed(exporters)
        self._parts: tuple[bytes, bytes] | None = None
        self._snapshot = b""
        self._decoders: tuple[NetflowDecoder, SetDecoder, SetDecoder] = (
            NetflowDecoder(_ALL_VERSIONS),
            netflow_v9.decoder(),
            ipfix.decoder(),
        )

    @property
    def sequence_gaps(self) -> Mapping[str, int]:
        """What each remembered exporter sent and that never came: flows (v5, IPFIX) and datagrams (v9)."""
        lost: Counter[str] = Counter()
        for decoder in self._decoders:
            lost.update(decoder.sequence_gaps)
        return lost

    def feed(self, frames: Frames) -> Decoded:
        """Decode every datagram of an exporter that is allowed; each of the others becomes one Problem."""
        return self._allowed.feed(self._decoded, frames)

    def _decoded(self, frames: Frames) -> Decoded:
        version = _versions(frames)
        decoders: Sequence[Decoder] = self._decoders
        which = np.select((version == netflow_v9.VERSION, version == ipfix.VERSION), (1, 2), 0)
        parts = [fed(decoder.feed, frames, which == number) for number, decoder in enumerate(decoders)]
        rows = [part.rows[EventClass.FLOW] for part in parts if part.rows]
        problems = [problem for part in parts for problem in part.problems]
        return Decoded(
            {EventClass.FLOW: together(rows)} if rows else {}, sum(part.taken for part in parts), problems,
            held=sum(part.held for part in parts),
        )  # fmt: skip

    def snapshot(self) -> bytes:
        """Templates and sampling of versions 9 and 10."""
        _, v9, v10 = self._decoders
        parts = (v9.snapshot(), v10.snapshot())
        if parts != self._parts:
            self._parts, self._snapshot = parts, msgspec.msgpack.encode(parts)
        return self._snapshot

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew; one that cannot be read is left aside."""
        _, v9, v10 = self._decoders
        with suppress(msgspec.DecodeError):
            parts = msgspec.msgpack.decode(state, type=tuple[bytes, bytes])
            v9.restore(parts[0])
            v10.restore(parts[1])


def _versions(frames: Frames) -> Ints:
    """The first two bytes of each datagram; 0 where there are none."""
    octets = np.frombuffer(frames.data + b"\0\0", np.uint8).astype(np.int64)
    starts = frames.offsets[:-1]
    return np.where(np.diff(frames.offsets) >= 2, octets[starts] << 8 | octets[starts + 1], 0)


def _readable(headers: Void, sizes: Ints) -> Bools:
    """Which datagrams can be decoded: `diagnose` says why for the others, and the two must agree."""
    count = headers["count"].astype(np.int64)
    shaped = (headers["version"] == VERSION) & (count >= 1) & (count <= MAX_RECORDS)
    result: Bools = shaped & (sizes == HEADER_BYTES + RECORD_BYTES * count) & (headers["nanoseconds"] < 1_000_000_000)
    return result


def diagnose(datagram: bytes, accepted: str) -> tuple[ProblemCode, str, int]:
    """Say why a datagram cannot be decoded: code, reason, and the byte where the field that is wrong begins."""
    if len(datagram) < 2:
        return ProblemCode.TRUNCATED, f"datagram has {len(datagram)} bytes, too few for a version", len(datagram)
    version = int.from_bytes(datagram[:2], "big")
    if version != VERSION:
        name = _OTHER_VERSIONS.get(version, f"version {version}")
        if datagram[:4] == _SFLOW:
            name = "sFlow v5, which collectors of type `sflow` receive"
        return ProblemCode.UNKNOWN_VERSION, f"datagram is {name}; accepted: {accepted}", 0
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


def _problem(frames: Frames, row: int, accepted: str) -> Problem:
    raw = frames.frame(row)
    code, detail, offset = diagnose(raw, accepted)
    source = frames.sources[int(frames.source[row])]
    return Problem(code, detail, row, offset, raw=raw, source=source, position=int(frames.positions[row]))


def _columns(frames: Frames, rows: Ints, headers: Void, lossy: Bools) -> pl.DataFrame:
    """All records of these datagrams, in order."""
    count = headers["count"].astype(np.int64)
    index = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    of = np.repeat(np.arange(len(rows)), count)
    record = gather(frames.data, _RECORD, frames.offsets[rows][of] + HEADER_BYTES + index * RECORD_BYTES)
    by_pf = headers["engine"][of] == pflow.ENGINE
    columns = {
        "ringfence.event.position": frames.positions[rows][of] + index.astype(np.uint64),
        "ringfence.evidence.lossy": lossy[of],
        **_origin(frames, rows, headers, of),
        **_times(headers, of, record),
        **_ends(record, by_pf),
        **_counts(record, by_pf),
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
        "event.created": nullable(received, received != 0),
        "ringfence.event.source": pl.Series(identities[index]),
        "observer.name": names[pl.Series(index.astype(np.uint32))],
        "ringfence.flow.sampling": nullable(sampling, sampling > 1, np.int64),
    }


def _times(headers: Void, of: Ints, record: Void) -> dict[str, npt.NDArray[Any]]:
    """Uptimes of the exporter as microseconds since the epoch."""
    made_us = headers["seconds"].astype(np.int64) * 1_000_000 + headers["nanoseconds"] // 1000
    uptime, made_us = headers["uptime"].astype(np.uint32)[of], made_us[of]
    end = made_us - age_ms(uptime, record["last"]) * 1000
    return {"@timestamp": end, "event.start": made_us - age_ms(uptime, record["first"]) * 1000, "event.end": end}


def _ends(record: Void, by_pf: Bools) -> dict[str, Any]:
    """Addresses, ports, interfaces and autonomous systems; ICMP has type and code in the destination port, not in pflow(4)."""
    protocol, dport = record["protocol"], record["dport"]
    icmp = (protocol == ICMP) & ~by_pf
    ported = (protocol == TCP) | (protocol == UDP) | (protocol == SCTP)
    return {
        "source.ip": record["src"].astype(np.uint32),
        "source.port": nullable(record["sport"], ported, np.int32),
        "destination.ip": record["dst"].astype(np.uint32),
        "destination.port": nullable(dport, ported, np.int32),
        "network.iana_number": np.ascontiguousarray(protocol),
        "observer.ingress.interface.id": record["input"].astype(np.int64),
        "observer.egress.interface.id": record["output"].astype(np.int64),
        "source.as.number": nullable(record["src_as"], record["src_as"] != 0, np.int64),
        "destination.as.number": nullable(record["dst_as"], record["dst_as"] != 0, np.int64),
        "ringfence.icmp.type": nullable(dport >> 8, icmp, np.uint8),
        "ringfence.icmp.code": nullable(dport & 0xFF, icmp, np.uint8),
    }


def _counts(record: Void, by_pf: Bools) -> dict[str, Any]:
    return {
        "source.packets": record["packets"].astype(np.int64),
        "source.bytes": record["octets"].astype(np.int64),
        "ringfence.tcp.source_flags": nullable(record["flags"], (record["protocol"] == TCP) & ~by_pf, np.uint8),
        "ringfence.flow.tos": np.ascontiguousarray(record["tos"]),
    }


class NetflowConfig(BaseModel):
    """Receives NetFlow v5, NetFlow v9 and IPFIX datagrams on one port."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, listen_option(DEFAULT_PORT)] = Field(
        default=f"udp://127.0.0.1:{DEFAULT_PORT}", validate_default=True, description="Address and UDP port to receive on."
    )
    exporters: tuple[PrefixOption, ...] = Field(
        default=(), description="Prefixes of the exporters to listen to; datagrams of others are dead-lettered. Empty: all."
    )


def recognise(start: bytes) -> bool:
    """True when a file that starts so holds version 5 datagrams."""
    return len(start) >= HEADER_BYTES and start[:2] == b"\0\5" and 1 <= int.from_bytes(start[2:4], "big") <= MAX_RECORDS


def _decoder(year: int) -> Decoder:
    return NetflowDecoder()


def _v9_decoder(year: int) -> Decoder:
    return netflow_v9.decoder()


def _ipfix_decoder(year: int) -> Decoder:
    return ipfix.decoder()


class NetflowKind:
    """The collector kind `netflow`."""

    settings: type[BaseModel] = NetflowConfig
    promise = "every datagram that the kernel hands over; its drops and sequence gaps are counted"
    status: Status = "experimental"
    sample = 'router: {type: netflow, listen: "0.0.0.0:2055"}'
    formats: Sequence[Format] = (
        Format("netflow-v5", "NetFlow v5 datagrams, one after the other", NetflowFramer, _decoder, recognise, "netflow"),
        Format(
            "netflow-v9",
            "NetFlow v9 datagrams, one after the other",
            netflow_v9.V9Framer,
            _v9_decoder,
            netflow_v9.recognise,
            "netflow",
        ),
        Format("ipfix", "IPFIX messages, one after the other", ipfix.IpfixFramer, _ipfix_decoder, ipfix.recognise, "netflow"),
    )

    def build(self, settings: NetflowConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        host, port = endpoint(settings.listen, DEFAULT_PORT)
        return Collector("netflow", UdpShell(host, port, RECEIVE_BUFFER_BYTES), ExportDecoder(settings.exporters))

    def resources(self, settings: NetflowConfig) -> Sequence[str]:
        """The UDP port."""
        host, port = endpoint(settings.listen, DEFAULT_PORT)
        return [resource(host, port)]


KIND = NetflowKind()
