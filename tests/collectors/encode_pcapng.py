"""Writes pcapng blocks, field by field, for tests: the opposite of collectors/pcapng.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

Order = Literal["<", ">"]


def block(kind: int, body: bytes, order: Order = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = len(body) + 12
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def option(code: int, value: bytes, order: Order = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: Order = "<", options: bytes = b"", major: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, major, 0, -1) + options, order)


def interface(order: Order = "<", linktype: int = 117, snaplen: int = 0, options: Sequence[tuple[int, bytes]] = ()) -> bytes:
    written = b"".join(option(code, value, order) for code, value in options)
    end = option(0, b"", order) if options else b""
    return block(1, struct.pack(f"{order}HHI", linktype, 0, snaplen) + written + end, order)


def enhanced(
    packet: bytes, ticks: int = 1_790_000_000_000_005, number: int = 0, order: Order = "<", wirelen: int | None = None
) -> bytes:
    wire = len(packet) if wirelen is None else wirelen
    body = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), wire)
    return block(6, body + packet, order)


def simple(packet: bytes, order: Order = "<", wirelen: int | None = None) -> bytes:
    return block(3, struct.pack(f"{order}I", len(packet) if wirelen is None else wirelen) + packet, order)
