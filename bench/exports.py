"""Corpora of NetFlow v9 and IPFIX: the connections of `bench/corpus.py` in datagrams of one exporter.

Two templates, one per address family, come every TEMPLATE_EVERY datagrams, as exporters over UDP send them; a datagram has
up to RECORDS records. Layouts are those of a common router export (RFC 3954 8, IANA's ipfix registry).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

from bench.corpus import START_US, V6_SHARE, Network
from ringfence.demo.exporters import ACK, FIN, PSH, SYN, TCP, Talk

RECORDS = 24
TEMPLATE_EVERY = 200
_BOOT_US = START_US - 86_400_000_000
_V4, _V6 = 256, 257
_PORTS_AND_COUNTS = ((7, 2), (11, 2), (4, 1), (6, 1), (5, 1), (61, 1), (10, 4), (14, 4), (2, 4), (1, 4))
_UPTIMES = ((22, 4), (21, 4))  # v9: milliseconds since the boot that the header tells
_MILLISECONDS = ((152, 8), (153, 8))  # IPFIX: since the epoch
_ADDRESSES = {_V4: ((8, 4), (12, 4)), _V6: ((27, 16), (28, 16))}


def netflow_v9(records: int) -> Iterator[bytes]:
    """NetFlow v9 datagrams; the sequence number counts them."""
    for number, (at_us, sets, _) in enumerate(_datagrams(records, 0, _UPTIMES, _uptimes)):
        header = struct.pack(">HHIIII", 9, len(sets), (at_us - _BOOT_US) // 1000, at_us // 1_000_000, number, 0)
        yield header + b"".join(sets)


def ipfix(records: int) -> Iterator[bytes]:
    """IPFIX messages; the sequence number counts data records."""
    sequence = 0
    for at_us, sets, count in _datagrams(records, 2, _MILLISECONDS, _milliseconds):
        body = b"".join(sets)
        yield struct.pack(">HHIII", 10, 16 + len(body), at_us // 1_000_000, sequence, 0) + body
        sequence += count


def _uptimes(talk: Talk) -> bytes:
    return struct.pack(">II", (talk.start_us - _BOOT_US) // 1000, (talk.end_us - _BOOT_US) // 1000)


def _milliseconds(talk: Talk) -> bytes:
    return struct.pack(">QQ", talk.start_us // 1000, talk.end_us // 1000)


def _datagrams(
    records: int, template_set: int, time_fields: tuple[tuple[int, int], ...], times: Callable[[Talk], bytes]
) -> Iterator[tuple[int, list[bytes], int]]:
    """When each datagram was sent, its sets, and how many records they hold; two records a connection, one if it is not answered."""
    network, made, number = Network(V6_SHARE), 0, 0
    while made < records:
        at_us = START_US + 10_000_000 + made * 100
        parts: dict[int, list[bytes]] = {_V4: [], _V6: []}
        room = RECORDS
        while room > 0:
            talk = network.talk(START_US + made * 100)
            family, when = (_V6 if ":" in talk.source else _V4), times(talk)
            for is_reply in (False, True)[: 1 + (talk.back_packets > 0)]:
                parts[family].append(_record(talk, is_reply) + when)
                room -= 1
        count = sum(map(len, parts.values()))
        sets = [_a_set(set_id, b"".join(found)) for set_id, found in parts.items() if found]
        if number % TEMPLATE_EVERY == 0:
            sets.insert(0, _a_set(template_set, b"".join(_template(set_id, time_fields) for set_id in (_V4, _V6))))
        yield at_us, sets, count
        made += count
        number += 1


def _template(number: int, time_fields: tuple[tuple[int, int], ...]) -> bytes:
    fields = (*_ADDRESSES[number], *_PORTS_AND_COUNTS, *time_fields)
    return struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)


def _a_set(number: int, body: bytes) -> bytes:
    padding = -len(body) % 4
    return struct.pack(">HH", number, 4 + len(body) + padding) + body + bytes(padding)


def _record(talk: Talk, is_reply: bool) -> bytes:
    family = socket.AF_INET6 if ":" in talk.source else socket.AF_INET
    ends = [(talk.source, talk.source_port), (talk.destination, talk.destination_port)]
    (source, source_port), (destination, destination_port) = reversed(ends) if is_reply else ends
    packets, octets = (talk.back_packets, talk.back_bytes) if is_reply else (talk.packets, talk.bytes)
    flags = (SYN | ACK | PSH | FIN if talk.back_packets else SYN) if talk.protocol == TCP else 0
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    interfaces = (2, 1) if is_reply else (1, 2)
    return addresses + struct.pack(
        ">HHBBBBIIII", source_port, destination_port, talk.protocol, flags, 0, 0, *interfaces, packets, octets
    )
