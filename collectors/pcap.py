"""Classic pcap capture files: cuts a stream into the file header and its packet records.

Spec: draft-ietf-opsawg-pcap-03 sections 4 (file header) and 5 (packet record), version 2.4, both byte orders, with
microseconds or nanoseconds. Not supported: pcapng, and the swapped lengths of versions before 2.4.

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

from ringfence.batch import ProblemCode

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
_PCAPNG_MAGIC = bytes.fromhex("0a0d0d0a")  # Section Header Block, draft-ietf-opsawg-pcapng section 4.1
_WALK_BYTES = 1 << 20  # walked at once, so that their list of integers stays in cache: 85 ns a record against 200

Boundaries = npt.NDArray[np.int64]


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


def read_capture(header: bytes) -> Capture | Fault:
    """Read the first frame of a stream."""
    if len(header) < FILE_HEADER_BYTES:
        return Fault(ProblemCode.TRUNCATED, f"pcap file header has {len(header)} of {FILE_HEADER_BYTES} bytes", len(header))
    magic = header[:4]
    if magic == _PCAPNG_MAGIC:
        return Fault(ProblemCode.UNKNOWN_VERSION, "stream is pcapng; accepted: classic pcap (editcap -F pcap converts)", 0)
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
