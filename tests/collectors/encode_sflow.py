"""Writes sFlow version 5 datagrams, and the packets that they sample, for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
USER, SERVER = "10.1.0.5", "10.2.0.9"
USER6, SERVER6 = "2001:db8:1::5", "2001:db8:2::9"


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def address(text: str | None) -> bytes:
    """The XDR union of an address: type and octets."""
    if text is None:
        return words(0)
    packed = ip_address(text).packed
    return words(1 if len(packed) == 4 else 2) + packed


def opaque(data: bytes) -> bytes:
    return words(len(data)) + data + bytes(-len(data) % 4)


# packets


def tcp(source: int, destination: int, flags: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, 1, 1, 0x50, flags, 1000, 0, 0) + payload


def udp(source: int, destination: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


def ip4(
    payload: bytes, protocol: int, ends: tuple[str, str] = (USER, SERVER), fragment: int = 0, options: bytes = b""
) -> bytes:
    size = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0x10, size + len(payload), 1, fragment, 64, protocol, 0)
    return head + b"".join(ip_address(end).packed for end in ends) + options + payload


def ip6(payload: bytes, following: int, ends: tuple[str, str] = (USER6, SERVER6)) -> bytes:
    head = struct.pack(">IHBB", 6 << 28 | 0x20 << 20, len(payload), following, 64)
    return head + b"".join(ip_address(end).packed for end in ends) + payload


def ethernet(payload: bytes, kind: int, *tags: tuple[int, int]) -> bytes:
    """A frame; each tag is its TPID and TCI."""
    between = b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in tags)
    return bytes.fromhex("020000000002 020000000001".replace(" ", "")) + between + struct.pack(">H", kind) + payload


def vxlan(frame: bytes, vni: int) -> bytes:
    return udp(50_000, 4789, words(0x08 << 24, vni << 8) + frame)


def geneve(packet: bytes, vni: int, kind: int = 0x6558, options: bytes = b"") -> bytes:
    return udp(50_000, 6081, struct.pack(">BBHI", len(options) // 4, 0, kind, vni << 8) + options + packet)


# records


def record(kind: int, body: bytes) -> bytes:
    return words(kind) + opaque(body)


def header(packet: bytes, protocol: int = 1, captured: int = 128, wire: int | None = None) -> bytes:
    """A raw packet header, of which this many bytes were captured."""
    size = len(packet) + 4 if wire is None else wire
    return record(1, words(protocol, size, 4) + opaque(packet[:captured]))


def sampled4(protocol: int, sport: int, dport: int, flags: int = 0, length: int = 60) -> bytes:
    ends = b"".join(ip_address(end).packed for end in (USER, SERVER))
    return record(3, words(length, protocol) + ends + words(sport, dport, flags, 0x10))


def sampled6(protocol: int, sport: int, dport: int, flags: int = 0, length: int = 80) -> bytes:
    ends = b"".join(ip_address(end).packed for end in (USER6, SERVER6))
    return record(4, words(length, protocol) + ends + words(sport, dport, flags, 0x20))


def switch(vlan: int, out_vlan: int) -> bytes:
    return record(1001, words(vlan, 0, out_vlan, 0))


def router(next_hop: str) -> bytes:
    return record(1002, address(next_hop) + words(24, 24))


def gateway(source_as: int, path: Sequence[int], communities: Sequence[int] = (0xFDE80001,)) -> bytes:
    body = address("192.0.2.254") + words(64_500, source_as, 64_501, 1, 2, len(path), *path)
    return record(1003, body + words(len(communities), *communities, 100))


def nat(source: str | None, destination: str | None) -> bytes:
    return record(1007, address(source) + address(destination))


# samples


def sample(kind: int, body: bytes) -> bytes:
    return words(kind) + opaque(body)


def flow(
    *records: bytes, sequence: int = 1, rate: int = 400, drops: int = 0, source: int = 3, ports: tuple[int, int] = (3, 7)
) -> bytes:
    fixed = words(sequence, source, rate, rate * sequence, drops, *ports, len(records))
    return sample(1, fixed + b"".join(records))


def expanded(
    *records: bytes,
    sequence: int = 1,
    rate: int = 400,
    drops: int = 0,
    source: int = 3,
    into: tuple[int, int] = (0, 3),
    out: tuple[int, int] = (0, 7),
) -> bytes:
    fixed = words(sequence, 0, source, rate, rate * sequence, drops, *into, *out, len(records))
    return sample(3, fixed + b"".join(records))


def dropped(*records: bytes, sequence: int = 1, reason: int = 258, drops: int = 0, source: int = 3) -> bytes:
    return sample(5, words(sequence, 0, source, drops, 3, 0, reason, len(records)) + b"".join(records))


def counters(sequence: int = 1) -> bytes:
    return sample(2, words(sequence, 3, 1) + record(1, bytes(88)))


def datagram(
    *samples: bytes, sequence: int = 1, agent: str | None = "192.0.2.1", sub_agent: int = 0, uptime_ms: int = 3_600_000
) -> bytes:
    return words(5) + address(agent) + words(sub_agent, sequence, uptime_ms, len(samples)) + b"".join(samples)
