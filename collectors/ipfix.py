"""IPFIX (version 10): flows by templates, in UDP datagrams, or in a file of messages one after the other.

Spec: RFC 7011, sections 3 (messages, sets, templates), 7 (variable length), 8 (template management, withdrawal); RFC 5655 (files are messages
one after the other). Not supported: structured data (RFC 6313), which is skipped; SCTP and TCP as transports; a withdrawal is obeyed
over UDP too, where exporters should not send one.

The sequence number counts data records, those of options included, per observation domain. What a message with
unknown templates brought cannot be counted, so the one after it starts anew.

Sample (header; template 256 of protocol, addresses and ports; one record): 000a 0040 6ab13b80 00000000 00000000
0002 001c 0100 0005 0004 0001 0008 0004 000c 0004 0007 0002 000b 0002 0100 0014 06 0a010005 0a020009 9c40 0016 000000
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from collectors.datagrams import DatagramFramer
from collectors.elements import Field
from collectors.flowsets import Announced, Header, Refused, SetDecoder
from ringfence.batch import ProblemCode

VERSION = 10
HEADER_BYTES = 16
_FIRST_DATA_SET = 256
_TEMPLATES, _OPTIONS = 2, 3
_ENTERPRISE_BIT = 0x8000


class IpfixWire:
    """How IPFIX looks."""

    v9 = False
    header_bytes = HEADER_BYTES
    template_set = _TEMPLATES
    options_set = _OPTIONS

    def header(self, data: bytes, start: int, end: int) -> Header:
        """Read a header, whose length must be that of the datagram."""
        if end - start < HEADER_BYTES:
            raise Refused(ProblemCode.TRUNCATED, f"header has {end - start} of {HEADER_BYTES} bytes", end - start)
        version, length, seconds, sequence, domain = struct.unpack_from(">HHIII", data, start)
        if version != VERSION:
            raise Refused(ProblemCode.UNKNOWN_VERSION, f"message is version {version}; accepted: IPFIX (10)", 0)
        if length != end - start:
            raise Refused(ProblemCode.BAD_LENGTH, f"header announces {length} bytes; the message has {end - start}", 2)
        return Header(domain, sequence, seconds)

    def templates(self, data: bytes, begin: int, end: int, is_options: bool) -> Sequence[Announced]:
        """Read a set of templates and withdrawals; zeroes after the last one are padding."""
        found = []
        while end - begin >= 4 and any(data[begin : begin + 4]):
            number, count = struct.unpack_from(">HH", data, begin)
            scopes = 0
            position = begin + 4
            if not count:
                if number < _FIRST_DATA_SET and number != (_OPTIONS if is_options else _TEMPLATES):
                    raise Refused(ProblemCode.MALFORMED, f"withdrawal of template {number}", begin)
                found.append(Announced(number, None, 0))
                begin = position
                continue
            if is_options:
                scopes = int.from_bytes(data[position : position + 2], "big")
                position += 2
                if not 1 <= scopes <= count:
                    detail = f"template {number} announces {scopes} scope fields of {count}"
                    raise Refused(ProblemCode.MALFORMED, detail, begin + 4)
            fields, begin = _fields(data, number, count, position, end)
            found.append(Announced(number, fields, scopes))
        return found

    def advance(self, records: int | None) -> int | None:
        """RFC 7011 3.1: by the data records of the message."""
        return records


def _fields(data: bytes, number: int, count: int, position: int, end: int) -> tuple[tuple[Field, ...], int]:
    """The fields of a template, and where they end."""
    if 4 * count > end - position:
        detail = f"template {number} announces {count} fields, more than its set holds"
        raise Refused(ProblemCode.BAD_LENGTH, detail, position)
    fields = []
    for _ in range(count):
        element, length, enterprise = *struct.unpack_from(">HH", data[position : min(position + 4, end)].ljust(4, b"\0")), 0
        size = 8 if element & _ENTERPRISE_BIT else 4
        if size > end - position:
            detail = f"template {number} announces {count} fields, more than its set holds"
            raise Refused(ProblemCode.BAD_LENGTH, detail, position)
        if size == 8:
            enterprise = int.from_bytes(data[position + 4 : position + 8], "big")
        fields.append(Field(element & ~_ENTERPRISE_BIT, length, enterprise))
        position += size
    return tuple(fields), position


class IpfixFramer(DatagramFramer):
    """Cuts a file of IPFIX messages by the length in each header."""

    def _walk(self, data: bytes) -> Iterator[int]:
        position = 0
        while len(data) >= position + 4:
            version, length = struct.unpack_from(">HH", data, position)
            if version != VERSION or length < HEADER_BYTES:
                self._uncut = True
                return
            position += length
            if position > len(data):
                return
            yield position


def recognise(start: bytes) -> bool:
    """True when a file that starts so holds IPFIX messages."""
    if len(start) < HEADER_BYTES + 4 or start[:2] != b"\0\x0a":
        return False
    number, length = struct.unpack_from(">HH", start, HEADER_BYTES)
    return length >= 4 and (number in (_TEMPLATES, _OPTIONS) or number >= _FIRST_DATA_SET)


def decoder() -> SetDecoder:
    """A decoder of IPFIX."""
    return SetDecoder(IpfixWire())
