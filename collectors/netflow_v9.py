"""NetFlow version 9: flows by templates, in UDP datagrams, or in a file of datagrams one after the other.

Spec: RFC 3954, sections 5 (header, sets), 6 (options templates), 8 (field types). Not supported: SCTP associations as such,
the cache and line-card scopes of options, whose records count as said about the whole source id.

The sequence number counts datagrams per source id. A file has nothing that marks a datagram: sets follow each other
until one has the id 9, which no set may have (2 to 255 are reserved) and every header begins with. Where that fails, all that
follows comes in frames of UNCUT_BYTES for the decoder to reject.

Sample (header; template 256 of protocol, addresses and ports; one record): 0009 0002 0036ee80 6ab13b80 00000001 00000000
0000 001c 0100 0005 0004 0001 0008 0004 000c 0004 0007 0002 000b 0002 0100 0014 06 0a010005 0a020009 9c40 0016 000000
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from collectors.datagrams import DatagramFramer
from collectors.elements import SCOPE, Field, Ints
from collectors.flowsets import Announced, Header, Refused, SetDecoder
from ringfence.batch import ProblemCode

VERSION = 9
HEADER_BYTES = 20
MAX_MESSAGE_BYTES = 65_535  # what a datagram can hold
_FIRST_DATA_SET = 256
_TEMPLATES, _OPTIONS = 0, 1
_VARIABLE = 0xFFFF  # in version 9 only a length, and longer than any record


class V9Wire:
    """How version 9 looks."""

    v9 = True
    header_bytes = HEADER_BYTES
    template_set = _TEMPLATES
    options_set = _OPTIONS

    def header(self, data: bytes, start: int, end: int) -> Header:
        """Read a header; its count of records is not relied on."""
        if end - start < HEADER_BYTES:
            raise Refused(ProblemCode.TRUNCATED, f"header has {end - start} of {HEADER_BYTES} bytes", end - start)
        version, _, uptime_ms, seconds, sequence, domain = struct.unpack_from(">HHIIII", data, start)
        if version != VERSION:
            raise Refused(ProblemCode.UNKNOWN_VERSION, f"datagram is version {version}; accepted: NetFlow v9", 0)
        return Header(domain, sequence, seconds, uptime_ms, (seconds * 1000 - uptime_ms) & 0xFFFFFFFF)

    def templates(self, data: bytes, begin: int, end: int, is_options: bool) -> Sequence[Announced]:
        """Read a set of templates; zeroes after the last one are padding."""
        found = []
        head = 6 if is_options else 4
        while end - begin >= head and any(data[begin : begin + head]):
            number, first = struct.unpack_from(">HH", data, begin)
            if is_options:
                scopes, rest = first // 4, int.from_bytes(data[begin + 4 : begin + 6], "big") // 4
            else:
                scopes, rest = 0, first
            size = 4 * (scopes + rest)
            if size > end - begin - head:
                detail = f"template {number} announces {scopes + rest} fields, more than its set holds"
                raise Refused(ProblemCode.BAD_LENGTH, detail, begin + 2)
            numbers = struct.unpack_from(f">{2 * (scopes + rest)}H", data, begin + head)
            fields = tuple(
                Field(element, length, SCOPE if place < scopes else 0)
                for place, (element, length) in enumerate(zip(numbers[::2], numbers[1::2], strict=True))
            )
            if any(field.length == _VARIABLE for field in fields):
                detail = f"template {number} has a field of {_VARIABLE} bytes, longer than any record"
                raise Refused(ProblemCode.TOO_LARGE, detail, begin + 2)
            # options without a scope are still options
            found.append(Announced(number, fields, max(scopes, 1) if is_options else 0))
            begin += head + size
        return found

    def advance(self, records: int | None) -> int | None:
        """RFC 3954 5.1: one a datagram."""
        return 1


class V9Framer(DatagramFramer):
    """Cuts a file of version 9 datagrams where the next header begins."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0

    def finish(self) -> tuple[bytes, Ints]:
        """Return the last datagram, whose end nothing marks but the end of the stream."""
        self._seen = 0
        return super().finish()

    def _walk(self, data: bytes) -> Iterator[int]:
        """The places where a datagram ended. `_seen` is what of the unfinished one has been walked over."""
        start, position = 0, self._seen
        while True:
            if position == start:
                if len(data) < start + 2:
                    return
                if data[start : start + 2] != b"\0\x09":
                    self._uncut = True
                    return
                position += HEADER_BYTES
            self._seen = position - start
            if len(data) < position + 4:
                return
            number, length = struct.unpack_from(">HH", data, position)
            if number == VERSION:
                yield position
                start, self._seen = position, 0
            elif length < 4 or position + length - start > MAX_MESSAGE_BYTES:
                self._uncut = True
                return
            elif len(data) < position + length:
                return
            else:
                position += length


def recognise(start: bytes) -> bool:
    """True when a file that starts so holds version 9 datagrams."""
    if len(start) < HEADER_BYTES + 4 or start[:2] != b"\0\x09":
        return False
    number, length = struct.unpack_from(">HH", start, HEADER_BYTES)
    return length >= 4 and (number in (_TEMPLATES, _OPTIONS) or number >= _FIRST_DATA_SET)


def decoder() -> SetDecoder:
    """A decoder of version 9."""
    return SetDecoder(V9Wire())
