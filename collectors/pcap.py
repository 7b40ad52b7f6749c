"""Classic pcap capture files: cuts a stream into the file header and its packet records.

Spec: draft-ietf-opsawg-pcap-03 sections 4 (file header) and 5 (packet record), version 2.4, both byte orders, with
microseconds or nanoseconds. Not supported: pcapng (`collectors/pcapng.py`), and the swapped lengths of versions before 2.4.

The first frame of a stream is its 24-byte file header at position 0, which tells a decoder byte order, resolution and
link type (`read_capture`); no record can stand there. Each further frame is a 16-byte record header and the packet. A
stream that starts with no known magic, or whose record announces more than MAX_PACKET_BYTES, cannot be cut from that
byte on: all that follows comes in frames of UNCUT_BYTES, counted from there, the last one shorter. The decoder sees the
same bytes, so it knows the place and rejects each of them.

Sample (little-endian, microseconds, DLT_PFLOG): d4c3b2a1 0200 0400 00000000 00000000 00000100 75000000
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ringfence.batch import Frames, ProblemCode

FILE_HEADER_BYTES = 24
RECORD_HEADER_BYTES = 16
MAX_PACKET_BYTES = 256 * 1024  # MAXIMUM_SNAPLEN of libpcap, pcap-int.h
UNCUT_BYTES = 64 * 1024  # what a dead letter holds of a frame

Order = Literal["<", ">"]

_MAGICS: dict[bytes, tuple[Order, bool]] = {
    bytes.fromhex("d4c3b2a1"): ("<", False),  # TCPDUMP_MAGIC 0xa1b2c3d4, libpcap sf-pcap.c
    bytes.fromhex("a1b2c3d4"): (">", False),
    bytes.fromhex("4d3cb2a1"): ("<", True),  # NSEC_TCPDUMP_MAGIC 0xa1b23c4d
    bytes.fromhex("a1b23c4d"): (">", True),
}
_WALK_BYTES = 1 << 20  # walked at once, so that their list of integers stays in cache: 85 ns a record against 200

Boundaries = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int64]
Void = npt.NDArray[np.void]

_RECORD: dict[Order, np.dtype[np.void]] = {
    "<": np.dtype([("seconds", "<u4"), ("fraction", "<u4"), ("caplen", "<u4"), ("wirelen", "<u4")]),
    ">": np.dtype([("seconds", ">u4"), ("fraction", ">u4"), ("caplen", ">u4"), ("wirelen", ">u4")]),
}


def gather(data: bytes, dtype: np.dtype[np.void], at: Ints) -> Void:
    """Copy one item from each of these unaligned places, as if zeroes followed the data."""
    size = dtype.itemsize
    last = len(data) - size
    if last < 0:
        return gather(data + bytes(2 * size), dtype, at)
    raw = np.ndarray((last + 1,), f"V{size}", data, strides=(1,))
    beyond = at > last
    if not beyond.any():
        return raw[at].view(dtype)
    items: Void = raw[np.minimum(at, last)].view(dtype)
    items[beyond] = gather(data[last:] + bytes(size), dtype, at[beyond] - last)
    return items


@dataclass(frozen=True, slots=True)
class Capture:
    """What the file header says about the records. `order` is the byte order of the machine that wrote them."""

    order: Order
    nanoseconds: bool
    linktype: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a frame or a whole stream is rejected, and the byte in the frame where reading failed."""

    code: ProblemCode
    detail: str
    offset: int


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets of one stream, as columns: the row of their frame, where they start in the data and how much was captured.

    `wire` is their length before the capture cut them, `micros` their time; `order` is the byte order of the writer.
    """

    order: Order
    rows: Ints
    starts: Ints
    sizes: Ints
    wire: Ints
    micros: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, places: npt.NDArray[np.bool_] | Ints) -> Packets:
        """Some of them."""
        columns = (self.rows, self.starts, self.sizes, self.wire, self.micros)
        return Packets(self.order, *(column[places] for column in columns))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader made of frames: packets, a fault for each row that is none, and what it left out (reason -> rows).

    `broken` is the fault from which on nothing of the stream can be read.
    """

    packets: list[Packets]
    faults: list[tuple[int, Fault]]
    filtered: dict[str, int]
    broken: Fault | None = None


def read_capture(header: bytes) -> Capture | Fault:
    """Read the first frame of a stream."""
    if len(header) < FILE_HEADER_BYTES:
        return Fault(ProblemCode.TRUNCATED, f"pcap file header has {len(header)} of {FILE_HEADER_BYTES} bytes", len(header))
    magic = header[:4]
    if magic not in _MAGICS:
        return Fault(
            ProblemCode.MALFORMED,
            f"stream is no pcap: it starts with {magic.hex()}; accepted: a1b2c3d4, a1b23c4d, either order",
            0,
        )
    order, nanoseconds = _MAGICS[magic]
    major, minor, link = struct.unpack_from(f"{order}HH12xI", header, 4)
    if (major, minor) != (2, 4):
        return Fault(ProblemCode.UNKNOWN_VERSION, f"pcap version is {major}.{minor}; accepted: 2.4", 4)
    return Capture(order, nanoseconds, link & 0xFFFF)  # the upper half holds the FCS length


class PcapReader:
    """Reads the records of one stream."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._fractions = 1_000_000_000 if capture.nanoseconds else 1_000_000

    def read(self, frames: Frames, rows: Ints) -> Reading:
        """The packets of these rows; `_diagnose` says why a record has none, and the two must agree."""
        starts = frames.offsets[rows]
        sizes = frames.offsets[rows + 1] - starts
        record = gather(frames.data, _RECORD[self._capture.order], starts)
        caplen, wire = record["caplen"].astype(np.int64), record["wirelen"].astype(np.int64)
        good = (sizes == caplen + RECORD_HEADER_BYTES) & (caplen <= MAX_PACKET_BYTES) & (wire >= caplen)
        good &= record["fraction"] < self._fractions
        fraction = record["fraction"].astype(np.int64)
        micros = record["seconds"] * np.int64(1_000_000) + (fraction // 1000 if self._capture.nanoseconds else fraction)
        packets = Packets(self._capture.order, rows, starts + RECORD_HEADER_BYTES, caplen, wire, micros)
        if good.all():
            return Reading([packets], [], {})
        faults: list[tuple[int, Fault]] = []
        broken = None
        for place in np.flatnonzero(~good).tolist():
            fault = self._diagnose(frames.frame(int(rows[place])))
            faults.append((int(rows[place]), fault))
            if fault.code is ProblemCode.TOO_LARGE:  # the framer is lost from here on
                broken = fault
                faults += [(row, unreadable(fault)) for row in rows[place + 1 :].tolist()]
                good[place:] = False
                break
        return Reading([packets.only(good)], faults, {}, broken)

    def _diagnose(self, frame: bytes) -> Fault:
        """The first check that a record does not pass, its lengths before the rest."""
        if len(frame) < RECORD_HEADER_BYTES:
            return Fault(ProblemCode.TRUNCATED, f"record header has {len(frame)} of {RECORD_HEADER_BYTES} bytes", len(frame))
        _, fraction, caplen, wirelen = struct.unpack_from(f"{self._capture.order}IIII", frame)
        size = len(frame) - RECORD_HEADER_BYTES
        if caplen > MAX_PACKET_BYTES:
            return Fault(ProblemCode.TOO_LARGE, f"record announces {caplen} bytes; at most {MAX_PACKET_BYTES} are accepted", 8)
        if size < caplen:
            return Fault(ProblemCode.TRUNCATED, f"packet has {size} of {caplen} bytes", len(frame))
        if size > caplen:
            return Fault(ProblemCode.BAD_LENGTH, f"record announces {caplen} bytes but holds {size}", 8)
        if wirelen < caplen:
            return Fault(ProblemCode.MALFORMED, f"{caplen} bytes were captured of a packet of {wirelen}", 12)
        return Fault(ProblemCode.MALFORMED, f"fraction of a second is {fraction}; a second has {self._fractions}", 4)


def unreadable(fault: Fault) -> Fault:
    """The fault of every frame of a stream that has this one."""
    return Fault(fault.code, f"stream is unreadable: {fault.detail}", 0)


class PcapFramer:
    """Cuts a pcap stream into frames; the module docstring says what they are.

    A shell that goes on in the middle of a file gives a new framer the first `head_bytes` of the file first, and delivers
    that frame again, at position 0: neither framer nor decoder can read a record without it.
    """

    head_bytes = FILE_HEADER_BYTES

    def __init__(self) -> None:
        self._rest = b""
        self._caplen: struct.Struct | None = None
        self._uncut = False

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the bytes of the frames that are complete and their n + 1 boundaries in them."""
        if self._rest:
            data = self._rest + data
        parts = [np.zeros(1, np.int64), *self._boundaries(data)]
        boundaries = np.concatenate(parts)
        end = int(boundaries[-1])
        self._rest = data[end:]
        return data[:end], boundaries

    def finish(self) -> tuple[bytes, Boundaries]:
        """Return what is left at the end of the stream, which is no complete frame."""
        rest, self._rest = self._rest, b""
        return rest, np.array([0, len(rest)] if rest else [0], np.int64)

    def _boundaries(self, data: bytes) -> Iterator[Boundaries]:
        """The ends of the complete frames in `data`, in order."""
        start = 0
        if self._caplen is None and not self._uncut:
            if len(data) < FILE_HEADER_BYTES:
                return
            start = self._open(data)
            yield np.array([start] if start else [], np.int64)
        if self._caplen is not None and not self._uncut:
            for ends in self._walk(self._caplen, data, start):
                start = int(ends[-1])
                yield ends
        if self._uncut:
            yield np.arange(start + UNCUT_BYTES, len(data) + 1, UNCUT_BYTES, dtype=np.int64)

    def _open(self, data: bytes) -> int:
        """Read the magic; return where the records start."""
        if data[:4] not in _MAGICS:
            self._uncut = True
            return 0
        self._caplen = struct.Struct(f"{_MAGICS[data[:4]][0]}8xI")
        return FILE_HEADER_BYTES

    def _walk(self, caplen: struct.Struct, data: bytes, start: int) -> Iterator[Boundaries]:
        """The ends of complete records; lengths are checked for all of a stretch at once, after it was walked."""
        unpack = caplen.unpack_from
        last = len(data) - RECORD_HEADER_BYTES
        position = start
        while position <= last:
            walked: list[int] = []
            append = walked.append
            stop = min(last, position + _WALK_BYTES)
            while position <= stop:
                position += unpack(data, position)[0] + RECORD_HEADER_BYTES
                append(position)
            ends = np.fromiter(walked, np.int64, len(walked))
            sizes = np.diff(ends, prepend=start)
            insane = np.flatnonzero(sizes > MAX_PACKET_BYTES + RECORD_HEADER_BYTES)
            self._uncut = bool(len(insane))
            ends = ends[: insane[0]] if self._uncut else ends[ends <= len(data)]
            if len(ends):
                yield ends
            if self._uncut or position > len(data):
                return
            start = position
