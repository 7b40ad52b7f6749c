"""Writes NetFlow v5 datagrams, field by field, for tests: the opposite of collectors/netflow.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Flow:
    """One record of 48 bytes (Cisco NetFlow v5, table B-4)."""

    src: int = 0x0A010005
    dst: int = 0x0A020009
    nexthop: int = 0
    in_if: int = 1
    out_if: int = 2
    packets: int = 10
    octets: int = 840
    first: int = HOUR_MS - 2000
    last: int = HOUR_MS - 1000
    sport: int = 40000
    dport: int = 22
    flags: int = 0x1B
    protocol: int = 6
    tos: int = 0
    src_as: int = 0
    dst_as: int = 0
    src_mask: int = 24
    dst_mask: int = 24

    def encode(self) -> bytes:
        return struct.pack(
            ">IIIHHIIIIHHBBBBHHBBH",
            self.src, self.dst, self.nexthop, self.in_if, self.out_if, self.packets, self.octets, self.first, self.last,
            self.sport, self.dport, 0, self.flags, self.protocol, self.tos,
            self.src_as, self.dst_as, self.src_mask, self.dst_mask, 0,
        )  # fmt: skip


@dataclass(frozen=True)
class Export:
    """The header of 24 bytes (table B-3); `count` is the true number of records unless it is given."""

    version: int = 5
    count: int | None = None
    uptime: int = HOUR_MS
    seconds: int = 1_790_000_000
    nanoseconds: int = 500_000_000
    sequence: int = 0
    engine_type: int = 0
    engine_id: int = 0
    sampling: int = 0

    def encode(self, flows: Sequence[Flow]) -> bytes:
        count = len(flows) if self.count is None else self.count
        header = struct.pack(
            ">HHIIIIBBH",
            self.version, count, self.uptime, self.seconds, self.nanoseconds, self.sequence,
            self.engine_type, self.engine_id, self.sampling,
        )  # fmt: skip
        return header + b"".join(flow.encode() for flow in flows)
