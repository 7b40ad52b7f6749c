"""pcapng capture files: cuts a stream into blocks and reads the packets in them.

Spec: draft-ietf-opsawg-pcapng sections 4.1 (Section Header), 4.2 (Interface Description), 4.3 (Enhanced Packet), 4.4 (Simple
Packet); any number of sections, each in its own byte order; if_tsresol and if_tsoffset. Blocks of other kinds are left out
and counted. Not supported: the obsolete Packet Block (each is a Problem).

A frame is a block. A block whose length is no multiple of 4, below 12 or above MAX_BLOCK_BYTES cannot be cut, nor what
follows: that comes in frames of UNCUT_BYTES, as in `collectors/pcap.py`. A packet needs an interface that was described
before it in its section. A Simple Packet Block holds no time: it is that of arrival, and a Problem in a file that is read
once.

To go on in the middle of a file, a framer and a decoder need the section and its interfaces. `head` holds just that, at most
49 KiB: their blocks without what is not read. A block that cannot be used stays one, and is a Problem again.

Sample (little-endian section header): 0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.pcap import (
    FILE_HEADER_BYTES,
    MAX_PACKET_BYTES,
    UNCUT_BYTES,
    Boundaries,
    Fault,
    Ints,
    Order,
    Packets,
    PcapFramer,
    Reading,
    Void,
    gather,
    unreadable,
)
from ringfence.batch import Frames, ProblemCode
from ringfence.timestamps import END_S

MAGIC = bytes.fromhex("0a0d0d0a")  # the type of a Section Header Block, the same in both byte orders
MAX_BLOCK_BYTES = 16 << 20  # as Wireshark, wiretap/pcapng.c
MAX_INTERFACES = 1024  # of a section

SECTION, INTERFACE, OBSOLETE, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
IF_TSRESOL, IF_TSOFFSET = 9, 14  # section 4.2
_HOLDING = frozenset({SECTION, INTERFACE})
_MIN_BLOCK = 12
_DATA = {ENHANCED: 28, SIMPLE: 12}  # where the packet starts
BYTE_ORDER = 0x1A2B3C4D  # section 4.1
_ORDERS: dict[bytes, Order] = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
_WORDS = ("kind", "size", "interface", "high", "low", "caplen", "wirelen")
_BLOCK: dict[Order, np.dtype[np.void]] = {
    "<": np.dtype([(name, "<u4") for name in _WORDS]),
    ">": np.dtype([(name, ">u4") for name in _WORDS]),
}
_TAIL: dict[Order, np.dtype[np.void]] = {"<": np.dtype([("size", "<u4")]), ">": np.dtype([("size", ">u4")])}


def _is_insane(size: int) -> bool:
    return size < _MIN_BLOCK or size > MAX_BLOCK_BYTES or bool(size & 3)


class PcapngFramer:
    """Cuts a pcapng stream into blocks."""

    head_bytes = 0

    def __init__(self) -> None:
        self._rest = b""
        self._lengths = struct.Struct("<II")
        self._uncut = False
        self._order: Order = "<"
        self._head: list[bytes] = []

    @property
    def head(self) -> bytes:
        """The section header and interfaces that hold for what comes next, and where cutting ended, the reason for it."""
        return b"".join(self._head)

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the bytes of the blocks that are complete and their n + 1 boundaries in them."""
        if self._rest:
            data = self._rest + data
        bounds = np.array([0] if self._uncut else self._walk(data), np.int64)
        if self._uncut:
            uncut = np.arange(bounds[-1] + UNCUT_BYTES, len(data) + 1, UNCUT_BYTES, dtype=np.int64)
            bounds = np.concatenate([bounds, uncut])
        end = int(bounds[-1])
        self._rest = data[end:]
        return data[:end], bounds

    def finish(self) -> tuple[bytes, Boundaries]:
        """Return what is left at the end of the stream, which is no complete block."""
        rest, self._rest = self._rest, b""
        return rest, np.array([0, len(rest)] if rest else [0], np.int64)

    def _walk(self, data: bytes) -> list[int]:
        """The boundaries of complete blocks."""
        bounds = [0]
        position, last, end = 0, len(data) - _MIN_BLOCK, len(data)
        unpack = self._lengths.unpack_from
        while position <= last:
            kind, size = unpack(data, position)
            if kind == SECTION:
                order = _ORDERS.get(data[position + 8 : position + 12])
                if order is not None:
                    self._order = order
                    self._lengths = struct.Struct(f"{order}II")
                    unpack = self._lengths.unpack_from
                    _, size = unpack(data, position)
                self._uncut = order is None
            if self._uncut or size < _MIN_BLOCK or size > MAX_BLOCK_BYTES or size & 3:
                self._uncut = True
                self._head.append(data[position : position + _MIN_BLOCK])
                break
            position += size
            if position > end:
                break
            if kind in _HOLDING:
                self._hold(kind, data[position - size : position])
            bounds.append(position)
        return bounds

    def _hold(self, kind: int, block: bytes) -> None:
        """Remember what holds for later blocks."""
        if kind == SECTION:
            self._head = [_brief_section(block, self._order)]
        elif _diagnose_block(block, self._order) is None and len(self._head) <= MAX_INTERFACES:
            self._head.append(_brief_interface(block, self._order))


class CaptureFramer:
    """Cuts a capture file of either format; the first four bytes tell which."""

    head_bytes = FILE_HEADER_BYTES  # of classic pcap

    def __init__(self) -> None:
        self._begun = b""
        self._framer: PcapFramer | PcapngFramer | None = None

    @property
    def head(self) -> bytes:
        """What a pcapng stream needs again; classic pcap needs its first bytes."""
        return self._framer.head if isinstance(self._framer, PcapngFramer) else b""

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._begun) if self._framer is None else self._framer.pending

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the bytes of the frames that are complete and their n + 1 boundaries in them."""
        if self._framer is None:
            self._begun = data = self._begun + data
            if len(data) < len(MAGIC):
                return b"", np.zeros(1, np.int64)
            self._framer = PcapngFramer() if data[: len(MAGIC)] == MAGIC else PcapFramer()
        return self._framer.cut(data)

    def finish(self) -> tuple[bytes, Boundaries]:
        """Return what is left at the end of the stream, which is no complete frame."""
        if self._framer is not None:
            return self._framer.finish()
        rest, self._begun = self._begun, b""
        return rest, np.array([0, len(rest)] if rest else [0], np.int64)


@dataclass(frozen=True, slots=True)
class Interface:
    """What an Interface Description Block says: link type (-1: it is unusable), snap length, and the unit of times."""

    linktype: int
    snaplen: int = 0
    resolution: int = 6
    offset: int = 0

    @property
    def units(self) -> int:
        """Ticks in a second."""
        exponent = self.resolution & 0x7F
        return int(1 << exponent if self.resolution & 0x80 else 10**exponent)

    @property
    def last_tick(self) -> int:
        """The latest time that is accepted."""
        return int(min(END_S * self.units, (1 << 64) - 1))

    def micros(self, ticks: npt.NDArray[np.uint64]) -> Ints:
        """Times in microseconds; ticks are no later than the last one."""
        exponent = self.resolution & 0x7F
        if not self.resolution & 0x80:
            scaled = ticks * np.uint64(10 ** (6 - exponent)) if exponent <= 6 else ticks // np.uint64(10 ** (exponent - 6))
        else:  # a fraction of 40 bits is exact to a microsecond, and its product with a million fits
            kept = min(exponent, 40)
            fraction = (ticks & np.uint64((1 << exponent) - 1)) >> np.uint64(exponent - kept)
            whole = (ticks >> np.uint64(exponent)) * np.uint64(1_000_000)
            scaled = whole + ((fraction * np.uint64(1_000_000)) >> np.uint64(kept))
        result: Ints = scaled.astype(np.int64) + self.offset * 1_000_000
        return result


def read_interface(block: bytes, order: Order) -> Interface | Fault:
    """Read a complete Interface Description Block."""
    if len(block) < 20:
        return Fault(ProblemCode.BAD_LENGTH, f"interface description has {len(block)} bytes; at least 20 are needed", 4)
    linktype, snaplen = struct.unpack_from(f"{order}H2xI", block, 8)
    resolution, offset, at, end = 6, 0, 16, len(block) - 4
    while at + 4 <= end:
        code, length = struct.unpack_from(f"{order}HH", block, at)
        value = block[at + 4 : at + 4 + length]
        if code == 0:
            break
        if at + 4 + length > end:
            return Fault(ProblemCode.BAD_LENGTH, f"option {code} announces {length} bytes but {end - at - 4} are left", at + 2)
        if code == IF_TSRESOL and length == 1:
            resolution = value[0]
            if resolution & 0x7F > (63 if resolution & 0x80 else 19):
                return Fault(
                    ProblemCode.MALFORMED, f"if_tsresol is 0x{resolution:02x}; accepted: 10^-19, 2^-63 or coarser", at + 4
                )
        elif code == IF_TSOFFSET and length == 8:
            (offset,) = struct.unpack(f"{order}q", value)
            if abs(offset) > END_S:
                return Fault(ProblemCode.MALFORMED, f"if_tsoffset is {offset} seconds, which is no date", at + 4)
        at += 4 + length + (-length % 4)
    return Interface(linktype, snaplen, resolution, offset)


def _brief_section(block: bytes, order: Order) -> bytes:
    """A section header without its options; one that cannot be used ends with a wrong length."""
    sound = len(block) >= 28 and _diagnose_block(block, order) is None
    return MAGIC + struct.pack(f"{order}II4sqI", 28, BYTE_ORDER, block[12:16], -1, 28 if sound else 0)


def _brief_interface(block: bytes, order: Order) -> bytes:
    """An interface description with what `read_interface` reads; one that cannot be used is an empty block."""
    read = read_interface(block, order)
    if isinstance(read, Fault):
        return struct.pack(f"{order}III", INTERFACE, _MIN_BLOCK, _MIN_BLOCK)
    return struct.pack(
        f"{order}IIHHIHHB3xHHqI", INTERFACE, 40, read.linktype, 0, read.snaplen,
        IF_TSRESOL, 1, read.resolution, IF_TSOFFSET, 8, read.offset, 40,
    )  # fmt: skip


class PcapngReader:
    """Reads the blocks of one stream; packets of interfaces with another link type are left out and counted."""

    def __init__(self, linktype: int) -> None:
        self._linktype = linktype
        self._order: Order = "<"
        self._in_section = False
        self._interfaces: list[Interface] = []

    def read(self, frames: Frames, rows: Ints) -> Reading:
        """The packets of these rows."""
        starts = frames.offsets[rows]
        kinds = gather(frames.data, _TAIL["<"], starts)["size"]
        sections = (kinds == SECTION) & (frames.offsets[rows + 1] - starts >= 4)
        packets: list[Packets] = []
        faults: list[tuple[int, Fault]] = []
        filtered: dict[str, int] = {}
        broken: Fault | None = None
        for part in np.split(rows, np.flatnonzero(sections)):
            if not len(part):
                continue
            if broken is not None:
                faults += [(row, unreadable(broken)) for row in part.tolist()]
                continue
            reading = self._read_section(frames, part)
            packets += reading.packets
            faults += reading.faults
            for reason, count in reading.filtered.items():
                _add(filtered, reason, count)
            broken = reading.broken
        return Reading(packets, faults, filtered, broken)

    def _read_section(self, frames: Frames, rows: Ints) -> Reading:
        """Rows of one section; when its header is among them, it is the first."""
        faults: list[tuple[int, Fault]] = []
        filtered: dict[str, int] = {}
        first = frames.frame(int(rows[0]))
        if first[:4] == MAGIC:
            fault = self._open(first)
            if fault is None:
                filtered["capture header"] = 1
            else:
                faults.append((int(rows[0]), fault))
                if fault.code is ProblemCode.TOO_LARGE:
                    faults += [(row, unreadable(fault)) for row in rows[1:].tolist()]
                    return Reading([], faults, filtered, fault)
            rows = rows[1:]
        if not self._in_section:
            missing = Fault(ProblemCode.MALFORMED, "no usable pcapng section header was seen", 0)
            return Reading([], faults + [(row, unreadable(missing)) for row in rows.tolist()], filtered)
        return self._read_blocks(frames, rows, faults, filtered)

    def _open(self, block: bytes) -> Fault | None:
        """Begin a section."""
        self._interfaces, self._in_section = [], False
        if len(block) < _MIN_BLOCK:
            return Fault(ProblemCode.TRUNCATED, f"section header has {len(block)} of 28 bytes", len(block))
        order = _ORDERS.get(block[8:12])
        if order is None:
            return Fault(ProblemCode.TOO_LARGE, f"byte order magic is {block[8:12].hex()}; accepted: 1a2b3c4d, either order", 8)
        fault = _diagnose_block(block, order)
        if fault is not None:
            return fault
        if len(block) < 28:
            return Fault(ProblemCode.BAD_LENGTH, f"section header has {len(block)} of 28 bytes", 4)
        (major,) = struct.unpack_from(f"{order}H", block, 12)
        if major != 1:
            return Fault(ProblemCode.UNKNOWN_VERSION, f"pcapng version is {major}; accepted: 1", 12)
        self._order, self._in_section = order, True
        return None

    def _read_blocks(self, frames: Frames, rows: Ints, faults: list[tuple[int, Fault]], filtered: dict[str, int]) -> Reading:
        """The blocks behind a section header."""
        if not len(rows):
            return Reading([], faults, filtered)
        order = self._order
        starts = frames.offsets[rows]
        sizes = frames.offsets[rows + 1] - starts
        block = gather(frames.data, _BLOCK[order], starts)
        tail = gather(frames.data, _TAIL[order], np.maximum(starts + sizes - 4, starts))["size"]
        sound = (sizes >= _MIN_BLOCK) & (block["size"] == sizes) & (tail == sizes) & (sizes % 4 == 0)
        broken = None
        for place in np.flatnonzero(~sound).tolist():
            fault = _diagnose_block(frames.frame(int(rows[place])), order)
            if fault is None:  # not reached: the two agree
                continue
            faults.append((int(rows[place]), fault))
            if fault.code is ProblemCode.TOO_LARGE:  # the framer is lost from here on
                broken = fault
                faults += [(row, unreadable(fault)) for row in rows[place + 1 :].tolist()]
                sound[place:] = False
                break
        kinds = np.where(sound, block["kind"], 0)
        described = self._describe(frames, rows, kinds == INTERFACE, faults, filtered)
        obsolete = sound & (kinds == OBSOLETE)
        if obsolete.any():
            old = Fault(ProblemCode.UNKNOWN_VERSION, "obsolete Packet Block; accepted: Enhanced and Simple Packet Block", 0)
            faults += [(row, old) for row in rows[obsolete].tolist()]
        others = sound & ~np.isin(kinds, (INTERFACE, OBSOLETE, SIMPLE, ENHANCED))
        _add(filtered, "pcapng block", int(others.sum()))
        packets = self._packets(frames, rows, block, kinds, described, faults, filtered)
        return Reading([packets] if len(packets) else [], faults, filtered, broken)

    def _describe(
        self,
        frames: Frames,
        rows: Ints,
        places: npt.NDArray[np.bool_],
        faults: list[tuple[int, Fault]],
        filtered: dict[str, int],
    ) -> Ints:
        """Learn the interfaces; returns for each row how many were described before it."""
        before: Ints = len(self._interfaces) + np.cumsum(places) - places
        for row in rows[places].tolist():
            interface: Interface | Fault = read_interface(frames.frame(row), self._order)
            if len(self._interfaces) >= MAX_INTERFACES:
                faults.append((row, Fault(ProblemCode.MALFORMED, f"section has more than {MAX_INTERFACES} interfaces", 0)))
                continue
            if isinstance(interface, Fault):
                faults.append((row, interface))
                interface = Interface(-1)
            else:
                _add(filtered, "capture header", 1)
            self._interfaces.append(interface)
        return np.minimum(before, MAX_INTERFACES)

    def _packets(
        self,
        frames: Frames,
        rows: Ints,
        block: Void,
        kinds: npt.NDArray[np.uint32],
        described: Ints,
        faults: list[tuple[int, Fault]],
        filtered: dict[str, int],
    ) -> Packets:
        """The packets with our link type."""
        enhanced, simple = kinds == ENHANCED, kinds == SIMPLE
        number = np.where(enhanced, block["interface"], 0).astype(np.int64)
        sizes = frames.offsets[rows + 1] - frames.offsets[rows]
        data_at = np.where(enhanced, _DATA[ENHANCED], _DATA[SIMPLE])
        wire = np.where(enhanced, block["wirelen"], block["interface"]).astype(np.int64)
        room = sizes - data_at - 4
        known = (enhanced | simple) & (number < described) & (room >= 0)
        types = np.array([interface.linktype for interface in self._interfaces] or [-1], np.int64)
        ours = known & (types[np.where(known, number, 0)] == self._linktype)
        foreign = known & ~ours & (types[np.where(known, number, 0)] >= 0)
        _add(filtered, "other link type", int(foreign.sum()))
        snaplen = self._interfaces[0].snaplen if self._interfaces else 0
        announced = np.minimum(wire, snaplen) if snaplen else wire
        caplen = np.where(enhanced, block["caplen"].astype(np.int64), announced)
        good = ours & (caplen <= np.minimum(room, MAX_PACKET_BYTES)) & (caplen <= wire)
        arrived = frames.received_us[rows]
        good &= enhanced | (arrived != 0)
        micros = np.where(simple, arrived, 0)
        ticks = (block["high"].astype(np.uint64) << np.uint64(32)) | block["low"]
        for used in np.unique(number[good & enhanced]).tolist():
            interface = self._interfaces[used]
            mine = enhanced & (number == used) & good
            good &= ~mine | (ticks <= np.uint64(interface.last_tick))
            mine &= good
            micros[mine] = interface.micros(ticks[mine])
        good &= (micros >= 0) & (micros < END_S * 1_000_000)
        for place in np.flatnonzero((enhanced | simple) & ~good & ~foreign).tolist():
            row = int(rows[place])
            faults.append((row, self._diagnose_packet(frames.frame(row), int(described[place]))))
        found = Packets(self._order, rows, frames.offsets[rows] + data_at, caplen, wire, micros)
        return found.only(good)

    def _diagnose_packet(self, block: bytes, described: int) -> Fault:
        """Why a sound packet block holds no packet for us."""
        words = struct.unpack_from(f"{self._order}7I", block + bytes(28))
        kind = int(words[0])
        data_at = _DATA[kind]
        room = len(block) - data_at - 4
        if room < 0:
            return Fault(ProblemCode.BAD_LENGTH, f"packet block has {len(block)} of {data_at + 4} bytes", 4)
        number = words[2] if kind == ENHANCED else 0
        if number >= described:
            return Fault(ProblemCode.MALFORMED, f"interface {number} was not described; {described} are", 8)
        interface = self._interfaces[number]
        if interface.linktype < 0:
            return Fault(ProblemCode.MALFORMED, f"the description of interface {number} cannot be used", 8)
        if kind == SIMPLE:
            caplen = min(words[2], interface.snaplen) if interface.snaplen else words[2]
            if caplen > min(room, MAX_PACKET_BYTES):
                return Fault(ProblemCode.TRUNCATED, f"packet has {room} of {caplen} bytes", 8)
            return Fault(ProblemCode.MALFORMED, "Simple Packet Block has no time and its arrival is not known", 0)
        caplen, wirelen = words[5], words[6]
        if caplen > MAX_PACKET_BYTES:
            detail = f"block announces a packet of {caplen} bytes; at most {MAX_PACKET_BYTES} are accepted"
            return Fault(ProblemCode.BAD_LENGTH, detail, 20)
        if caplen > room:
            return Fault(ProblemCode.TRUNCATED, f"packet has {room} of {caplen} bytes", 20)
        if caplen > wirelen:
            return Fault(ProblemCode.MALFORMED, f"{caplen} bytes were captured of a packet of {wirelen}", 24)
        return Fault(ProblemCode.MALFORMED, "the time is before 1970 or after the year 9999", 12)


def _add(filtered: dict[str, int], reason: str, count: int) -> None:
    if count:
        filtered[reason] = filtered.get(reason, 0) + count


def _diagnose_block(block: bytes, order: Order) -> Fault | None:
    """Why a block is not sound. TOO_LARGE is the fault that makes the rest of the stream unreadable."""
    if len(block) < _MIN_BLOCK:
        return Fault(ProblemCode.TRUNCATED, f"block has {len(block)} of at least {_MIN_BLOCK} bytes", len(block))
    (size,) = struct.unpack_from(f"{order}I", block, 4)
    if _is_insane(size):
        detail = f"block announces {size} bytes; accepted: multiples of 4 from {_MIN_BLOCK} to {MAX_BLOCK_BYTES}"
        return Fault(ProblemCode.TOO_LARGE, detail, 4)
    if len(block) < size:
        return Fault(ProblemCode.TRUNCATED, f"block has {len(block)} of {size} bytes", len(block))
    if len(block) > size:
        return Fault(ProblemCode.BAD_LENGTH, f"block announces {size} bytes but has {len(block)}", 4)
    (tail,) = struct.unpack_from(f"{order}I", block, size - 4)
    if tail != size:
        return Fault(ProblemCode.BAD_LENGTH, f"block announces {size} bytes at its start and {tail} at its end", size - 4)
    return None


def linktypes(start: bytes) -> Iterator[int]:
    """The link types of the interfaces that the beginning of a pcapng file describes."""
    framer = PcapngFramer()
    data, bounds = framer.cut(start)
    order = _ORDERS.get(data[8:12], "<")
    for begin, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False):
        if int.from_bytes(data[begin : begin + 4], "little" if order == "<" else "big") == INTERFACE:
            interface = read_interface(data[begin:end], order)
            if isinstance(interface, Interface):
                yield interface.linktype
