"""Writes pcap files of pflog records, field by field, for tests: the opposite of collectors/pflog.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["<", ">"]

AF_INET, AF_INET6 = 2, 24
MICROS, NANOS = 0xA1B2C3D4, 0xA1B23C4D
TCP_SYN = 2


def file_header(order: Order = "<", magic: int = MICROS, linktype: int = 117, version: tuple[int, int] = (2, 4)) -> bytes:
    return struct.pack(f"{order}IHHiIII", magic, *version, 0, 0, 65535, linktype)


def record(
    packet: bytes, seconds: int = 1_790_000_000, fraction: int = 5, order: Order = "<", wirelen: int | None = None
) -> bytes:
    return struct.pack(f"{order}IIII", seconds, fraction, len(packet), len(packet) if wirelen is None else wirelen) + packet


@dataclass(frozen=True)
class Pflog:
    """The fields of a pflog header (net/if_pflog.h); those that a header of this length lacks are left out."""

    length: int = 100
    af: int = AF_INET
    action: int = 0
    reason: int = 0
    ifname: bytes = b"vlan20"
    ruleset: bytes = b""
    rulenr: int = 7
    subrulenr: int = 0xFFFFFFFF
    uid: int = 0xFFFFFFFF
    pid: int = 100_000
    rule_uid: int = 0
    rule_pid: int = 4711
    dir: int = 1
    rewritten: int = 0
    naf: int = AF_INET
    saddr: bytes = bytes(4)
    daddr: bytes = bytes(4)
    sport: int = 0
    dport: int = 0
    ridentifier: int = 0

    def encode(self, order: Order = "<") -> bytes:
        """The header with its padding. A length that no system writes gives the 100 bytes of OpenBSD."""
        start, users = self._start(), self._users(order)
        direction, ridentifier = struct.pack(">B3x", self.dir), struct.pack(">I", self.ridentifier)
        shorter = {
            45: start + direction,
            48: start + direction,
            49: start + ridentifier + direction,
            52: start + ridentifier + direction,
            61: start + users + direction,
            64: start + users + direction,
            68: start + users + direction + ridentifier,
            69: start + users + direction + ridentifier + bytes(4),
            72: start + users + direction + ridentifier + bytes(4),
        }
        return shorter.get(self.length) or start + users + self._rewritten()

    def _start(self) -> bytes:
        return struct.pack(
            ">BBBB16s16sII",
            self.length,
            self.af,
            self.action,
            self.reason,
            self.ifname,
            self.ruleset,
            self.rulenr,
            self.subrulenr,
        )

    def _users(self, order: Order) -> bytes:
        return struct.pack(f"{order}IiIi", self.uid, self.pid, self.rule_uid, self.rule_pid)

    def _rewritten(self) -> bytes:
        return struct.pack(">BBBx16s16sHH", self.dir, self.rewritten, self.naf, self.saddr, self.daddr, self.sport, self.dport)


def tcp(sport: int, dport: int, flags: int = TCP_SYN) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 0, 5 << 4, flags, 65535, 0, 0)


def udp(sport: int, dport: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int) -> bytes:
    return struct.pack(">BBHI", kind, code, 0, 1)


def ip4(src: bytes, dst: bytes, protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    header = 20 + len(options)
    first = struct.pack(">BBHHHBBH", 0x40 | header // 4, 0, header + len(payload), 1, fragment, 64, protocol, 0)
    return first + src + dst + options + payload


def ip6(src: bytes, dst: bytes, protocol: int, payload: bytes, extensions: Sequence[tuple[int, bytes]] = ()) -> bytes:
    """`extensions` are (protocol number, header) pairs; the first byte of each header is filled in: its next header."""
    numbers = [number for number, _ in extensions] + [protocol]
    chain = b"".join(bytes([following]) + body[1:] for (_, body), following in zip(extensions, numbers[1:], strict=True))
    return struct.pack(">IHBB", 6 << 28, len(chain) + len(payload), numbers[0], 64) + src + dst + chain + payload
