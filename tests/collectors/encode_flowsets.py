"""Writes NetFlow v9 and IPFIX messages, set by set, for tests: the opposite of collectors/flowsets.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from collectors.elements import Field

SECONDS = 1_790_000_000
UPTIME_MS = 3_600_000
KEYS = (Field(8, 4), Field(12, 4), Field(7, 2), Field(11, 2), Field(4, 1), Field(6, 1), Field(2, 4), Field(1, 4))
"""Addresses, ports, protocol, flags, packets and octets."""


def flow(src: int = 0x0A010005, dst: int = 0x0A020009, sport: int = 40000, dport: int = 22, packets: int = 10) -> bytes:
    """A TCP record of KEYS."""
    return struct.pack(">IIHHBBII", src, dst, sport, dport, 6, 0x1B, packets, packets * 84)


def a_set(number: int, body: bytes, padding: int = 0) -> bytes:
    return struct.pack(">HH", number, 4 + len(body) + padding) + body + bytes(padding)


def _specs(fields: Sequence[Field], enterprises: bool) -> bytes:
    return b"".join(
        struct.pack(">HHI", part.element | 0x8000, part.length, part.enterprise)
        if enterprises and part.enterprise > 0
        else struct.pack(">HH", part.element, part.length)
        for part in fields
    )


class V9:
    """Messages of version 9."""

    @staticmethod
    def template(number: int, fields: Sequence[Field] = KEYS) -> bytes:
        return a_set(0, struct.pack(">HH", number, len(fields)) + _specs(fields, False))

    @staticmethod
    def options(number: int, scopes: Sequence[Field], fields: Sequence[Field]) -> bytes:
        head = struct.pack(">HHH", number, 4 * len(scopes), 4 * len(fields))
        return a_set(1, head + _specs([*scopes, *fields], False), 2)

    @staticmethod
    def message(*sets: bytes, sequence: int = 0, domain: int = 0, uptime: int = UPTIME_MS, seconds: int = SECONDS) -> bytes:
        return struct.pack(">HHIIII", 9, len(sets), uptime, seconds, sequence, domain) + b"".join(sets)


class Ipfix:
    """Messages of IPFIX."""

    @staticmethod
    def template(number: int, fields: Sequence[Field] = KEYS) -> bytes:
        return a_set(2, struct.pack(">HH", number, len(fields)) + _specs(fields, True))

    @staticmethod
    def options(number: int, scopes: Sequence[Field], fields: Sequence[Field]) -> bytes:
        head = struct.pack(">HHH", number, len(scopes) + len(fields), len(scopes))
        return a_set(3, head + _specs([*scopes, *fields], True))

    @staticmethod
    def withdrawal(number: int) -> bytes:
        return a_set(2, struct.pack(">HH", number, 0))

    @staticmethod
    def message(*sets: bytes, sequence: int = 0, domain: int = 0, uptime: int = 0, seconds: int = SECONDS) -> bytes:
        body = b"".join(sets)
        return struct.pack(">HHIII", 10, 16 + len(body), seconds, sequence, domain) + body
