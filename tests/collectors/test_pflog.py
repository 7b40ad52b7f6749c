"""The pflog decoder against a scalar one, against tcpdump, and against hostile bytes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.pcap import MAX_PACKET_BYTES, Order, PcapFramer
from collectors.pflog import (
    _MIX,
    ACTIONS,
    DIALECTS,
    KIND,
    MAX_STREAMS,
    REASONS,
    Dialect,
    PflogConfig,
    PflogDecoder,
    _distinct,
    recognise,
    walk_extensions,
)
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests.collectors.chunks import pf_rows, read_chunks
from tests.collectors.encode_pflog import (
    AF_INET6,
    MICROS,
    NANOS,
    Pflog,
    file_header,
    icmp,
    ip4,
    ip6,
    record,
    tcp,
    udp,
)

SOURCE = Source("/var/log/pflog", 0xFEED)
A4, B4 = socket.inet_aton("10.1.0.5"), socket.inet_aton("10.2.0.9")
A6, B6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8:1::5", "2001:db8:2::9"))
PLAIN = Pflog().encode() + ip4(A4, B4, 6, tcp(40000, 22))


def decode(records: Sequence[bytes], header: bytes | None = None, decoder: PflogDecoder | None = None) -> Decoded:
    return (decoder or PflogDecoder()).feed(frames_of([file_header() if header is None else header, *records], SOURCE))


def one(packet: bytes) -> dict[str, Any]:
    decoded = decode([record(packet)])
    assert not decoded.problems, decoded.problems
    (row,) = pf_rows(decoded)
    return row


def accounted(decoded: Decoded) -> int:
    return decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held


def word(data: bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(data[at : at + size], "big")


def scalar_address(raw: bytes) -> tuple[int | None, bytes | None]:
    if len(raw) == 16 and raw[:12] != bytes(10) + b"\xff\xff":
        return None, raw
    return word(raw, len(raw) - 4), None


def scalar_packet(packet: bytes, v6: bool) -> dict[str, Any]:
    """What there is of one IP packet, read field by field."""
    found: dict[str, Any] = dict.fromkeys(("src", "dst", "protocol", "sport", "dport", "flags", "type", "code"))
    ends = ((8, 24), (24, 40)) if v6 else ((12, 16), (16, 20))
    for name, (start, end) in zip(("src", "dst"), ends, strict=True):
        if len(packet) >= end:
            found[name] = packet[start:end]
    offset, fragment, ported = 0, False, False
    if len(packet) >= (7 if v6 else 10):
        if v6:
            found["protocol"], offset, fragment = walk_extensions(packet)
        else:
            found["protocol"], offset, fragment = packet[9], (packet[0] & 15) * 4, bool(word(packet, 6, 2) & 0x1FFF)
        ported = found["protocol"] in (6, 17, 132) and not fragment
    complete = found["protocol"] is not None and len(packet) >= offset
    payload = packet[offset:] if complete and not fragment else b""
    needed = {6: 20, 17: 8, 132: 12, 1: 8, 58: 4}.get(found["protocol"] or 0, 0)
    if ported:
        found["sport"] = word(payload, 0, 2) if len(payload) >= 2 else None
        found["dport"] = word(payload, 2, 2) if len(payload) >= 4 else None
    if found["protocol"] == 6 and len(payload) >= 14:
        found["flags"] = payload[13]
    if found["protocol"] == (58 if v6 else 1):
        found["type"], found["code"] = (payload[at] if len(payload) > at else None for at in (0, 1))
    return found | {"ported": ported, "truncated": not complete or (not fragment and len(payload) < needed)}


LENGTHS = (45, 48, 49, 52, 61, 64, 68, 69, 72, 100)
FAMILIES: dict[Dialect, int] = {"openbsd": 24, "freebsd": 28, "netbsd": 24, "macos": 30}
NOBODY: dict[Dialect, int] = {"openbsd": 32_767, "freebsd": 100_000, "netbsd": 30_001, "macos": 100_000}


def guessed(length: int, af: int) -> Dialect:
    """Whose header this is, when no setting tells."""
    if length == 100:
        return "openbsd"
    if length in (61, 64) and af in (24, 30):
        return "openbsd" if af == 24 else "macos"
    return "openbsd" if length in (45, 48) and af != 28 else "freebsd"


def no_subrule(header: bytes) -> bool:
    return word(header, 40) == 0xFFFFFFFF or (word(header, 40) == 0x01000000 and header[20] == 0)


def scalar(frame: bytes, position: int, order: Order, nanoseconds: bool, dialect: Dialect | None = None) -> dict[str, Any]:
    """One record, decoded without numpy."""
    seconds, fraction, _, wirelen = struct.unpack_from(f"{order}IIII", frame)
    length = frame[16]
    padded = length + -length % 4
    header = frame[16 : 16 + padded]
    system = dialect or guessed(length, header[1])
    has_users, has_ends = length >= 61, length == 100
    direction = header[60 if has_users else 48 if length in (49, 52) else 44]
    rewritten = has_ends and header[61] != 0
    v6 = (header[62] if rewritten and header[62] else header[1]) != 2
    packet = scalar_packet(frame[16 + padded :], v6)
    names = [header[at : at + 16].split(b"\0")[0].decode(errors="backslashreplace") or None for at in (4, 20)]
    row: dict[str, Any] = {
        "@timestamp": seconds * 1_000_000 + (fraction // 1000 if nanoseconds else fraction),
        "ringfence.event.source": SOURCE.identity,
        "ringfence.event.position": position,
        "observer.name": SOURCE.name,
        "ringfence.evidence.lossy": False,
        "network.iana_number": packet["protocol"],
        "network.bytes": wirelen - padded,
        "observer.ingress.interface.name": names[0] if direction == 1 else None,
        "observer.egress.interface.name": names[0] if direction == 2 else None,
        "ringfence.tcp.source_flags": packet["flags"],
        "ringfence.icmp.type": packet["type"],
        "ringfence.icmp.code": packet["code"],
        "ringfence.pf.action": dict(enumerate(ACTIONS[system])).get(header[2], f"unknown({header[2]})"),
        "ringfence.pf.reason": dict(enumerate(REASONS[system])).get(header[3], f"unknown({header[3]})"),
        "ringfence.pf.direction": {1: "in", 2: "out"}.get(direction, f"unknown({direction})"),
        "ringfence.pf.rule": word(header, 36),
        "ringfence.pf.subrule": None if no_subrule(header) else word(header, 40),
        "rule.ruleset": names[1],
        "ringfence.pf.truncated": packet["truncated"],
    }
    if has_users:
        uid, pid, rule_uid, rule_pid = struct.unpack_from(f"{order}IiIi", header, 44)
        nobody = 100_000 if has_ends else NOBODY[system]
        row["ringfence.pf.uid"] = None if uid == 0xFFFFFFFF else uid
        row["ringfence.pf.pid"] = None if pid in (0, nobody) else pid
        row["ringfence.pf.rule_uid"] = None if rule_uid == 0xFFFFFFFF else rule_uid
        row["ringfence.pf.rule_pid"] = None if rule_pid in (0, nobody) else rule_pid
    if length in (49, 52, 68, 69, 72):
        row["ringfence.pf.ridentifier"] = word(header, 44 if length < 60 else 64) or None
    for end, short, letter, at in (("source", "src", "s", 64), ("destination", "dst", "d", 80)):
        seen = (packet[short], packet[f"{letter}port"])
        pairs: dict[str, tuple[Any, Any]] = {end: seen}
        if has_ends:
            logged = header[at : at + (16 if header[1] == AF_INET6 else 4)], word(header, 96 + (letter == "d") * 2, 2)
            pairs[f"{end}.nat"] = seen if rewritten else (None, None)
            if rewritten:
                pairs[end] = (logged[0], logged[1] if packet["ported"] else None)
        for name, (address, port) in pairs.items():
            row[f"{name}.ip"], row[f"{name}.ip6"] = (None, None) if address is None else scalar_address(address)
            row[f"{name}.port"] = port
    return row


octets = st.integers(0, 255)
numbers = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 100_000, 0xFFFFFFFF, 0x01000000]))
pids = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 100_000, 32_767, 30_001]))
ports = st.integers(0, 65535)
addresses4 = st.binary(min_size=4, max_size=4)
addresses6 = st.one_of(st.binary(min_size=16, max_size=16), addresses4.map(lambda low: bytes(10) + b"\xff\xff" + low))
transports = st.one_of(
    st.tuples(st.just(6), st.builds(tcp, ports, ports, octets)),
    st.tuples(st.just(17), st.builds(udp, ports, ports)),
    st.tuples(st.sampled_from([1, 58]), st.builds(icmp, octets, octets)),
    st.tuples(octets, st.binary(max_size=24)),
)
extensions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 43, 60]), st.integers(0, 2).map(lambda size: bytes([0, size]) + bytes(size * 8 + 6))),
        st.tuples(st.just(51), st.integers(1, 4).map(lambda size: bytes([0, size]) + bytes(size * 4 + 6))),
        st.tuples(st.just(44), st.sampled_from([0, 1, 8, 0xFFF9]).map(lambda where: struct.pack(">BBHI", 0, 0, where, 7))),
    ),
    max_size=3,
)
headers = st.builds(
    Pflog, action=octets, reason=octets, ifname=st.binary(max_size=16), ruleset=st.binary(max_size=16), rulenr=numbers,
    subrulenr=numbers, uid=numbers, pid=pids, rule_uid=numbers, rule_pid=pids, dir=octets, sport=ports, dport=ports,
    ridentifier=numbers,
)  # fmt: skip


@st.composite
def logged_packets(draw: st.DrawFn, order: Order = "<", length: int = 100, af6: int = 24) -> bytes:
    """A pflog header with a packet behind it, cut off anywhere behind the header."""
    header, v6 = dataclasses.replace(draw(headers), length=length), draw(st.booleans())
    protocol, transport = draw(transports)
    if v6:
        packet = ip6(draw(addresses6), draw(addresses6), protocol, transport, draw(extensions))
    else:
        options, fragment = bytes(draw(st.integers(0, 10)) * 4), draw(st.sampled_from([0, 0x4000, 0x2000, 1, 0x20B9]))
        packet = ip4(draw(addresses4), draw(addresses4), protocol, transport, options, fragment)
    family = af6 if v6 else 2
    if length == 100 and draw(st.booleans()):
        before = draw(st.sampled_from([2, af6]))
        naf = 0 if before == family and draw(st.booleans()) else family
        header = dataclasses.replace(header, rewritten=1, af=before, naf=naf, saddr=draw(addresses6), daddr=draw(addresses6))
    else:
        header = dataclasses.replace(header, af=family, naf=draw(octets))
    return header.encode(order) + packet[: draw(st.integers(0, len(packet)))]


@settings(max_examples=300)
@given(st.data(), st.sampled_from(["<", ">"]), st.booleans())
def test_decoding_gives_what_was_encoded_as_a_scalar_decoder_reads_it(data: st.DataObject, order: Order, nano: bool) -> None:
    packets = data.draw(st.lists(logged_packets(order), min_size=1, max_size=8))
    records = [record(packet, 1_790_000_000 + number, 999_999, order) for number, packet in enumerate(packets)]

    decoded = decode(records, file_header(order, NANOS if nano else MICROS))

    assert not decoded.problems
    starts = np.cumsum([24, *map(len, records)]).tolist()
    assert pf_rows(decoded) == [
        {name: scalar(frame, start, order, nano)[name] for name in decoded.rows[EventClass.PF].columns}
        for frame, start in zip(records, starts, strict=False)
    ]
    assert decoded.rows[EventClass.PF].width == len(scalar(records[0], 0, order, nano))


@settings(max_examples=300)
@given(st.data(), st.sampled_from(["<", ">"]), st.sampled_from([None, *DIALECTS]))
def test_every_header_gives_what_a_scalar_decoder_reads(data: st.DataObject, order: Order, dialect: Dialect | None) -> None:
    records = []
    for _ in range(data.draw(st.integers(1, 6))):
        length = data.draw(st.sampled_from([size for size in LENGTHS if accepts(dialect, size)]))
        families = [FAMILIES[dialect]] if dialect else guesses(length)
        packet = data.draw(logged_packets(order, length, data.draw(st.sampled_from(families))))
        records.append(record(packet, order=order))

    decoded = decode(records, file_header(order), PflogDecoder(dialect=dialect or "auto"))

    assert not decoded.problems
    starts = np.cumsum([24, *map(len, records)]).tolist()
    expected = [scalar(frame, start, order, False, dialect) for frame, start in zip(records, starts, strict=False)]
    columns = {name for row in expected for name in row}
    assert set(decoded.rows[EventClass.PF].columns) == columns
    assert pf_rows(decoded) == [{name: row.get(name) for name in decoded.rows[EventClass.PF].columns} for row in expected]


def accepts(dialect: Dialect | None, length: int) -> bool:
    """Whether this system wrote headers of this length."""
    lengths: dict[Dialect | None, set[int]] = {
        "openbsd": {45, 48, 61, 64, 100}, "freebsd": {45, 48, 49, 52, 61, 64, 68, 69, 72},
        "netbsd": {45, 48, 61, 64}, "macos": {61, 64}, None: set(LENGTHS),
    }  # fmt: skip
    return length in lengths[dialect]


def guesses(length: int) -> list[int]:
    return sorted({FAMILIES[dialect] for dialect in DIALECTS if accepts(dialect, length)})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_setting_refuses_what_that_system_never_wrote(dialect: Dialect, length: int) -> None:
    decoded = decode([record(Pflog(length=length).encode())], decoder=PflogDecoder(dialect=dialect))

    assert decoded.taken == accepts(dialect, length)
    assert [problem.code for problem in decoded.problems] == [ProblemCode.UNKNOWN_VERSION] * (1 - decoded.taken)


@pytest.mark.parametrize(
    ("dialect", "action", "reason"),
    [("auto", "match", "map-failed"), ("openbsd", "match", "translate"), ("netbsd", "unknown(12)", "state-locked"),
     ("macos", "nodummynet", "dummynet")],
)  # fmt: skip
def test_a_setting_names_the_codes_of_a_system_that_an_ipv4_record_cannot_tell(
    dialect: Dialect, action: str, reason: str
) -> None:
    packet = Pflog(length=61, action=12, reason=15).encode() + ip4(A4, B4, 6, tcp(40000, 22))

    (row,) = pf_rows(decode([record(packet)], decoder=PflogDecoder(dialect=dialect)))

    assert (row["ringfence.pf.action"], row["ringfence.pf.reason"], row["destination.port"]) == (action, reason, 22)


def test_headers_of_several_systems_in_one_file_keep_their_order() -> None:
    packet = ip4(A4, B4, 6, tcp(40000, 22))
    records = [record(Pflog(length=length, rulenr=length, ridentifier=7).encode() + packet) for length in (*LENGTHS, *LENGTHS)]

    found = pf_rows(decode(records))

    assert [row["ringfence.pf.rule"] for row in found] == [*LENGTHS, *LENGTHS]
    assert {row["ringfence.pf.rule"] for row in found if row["ringfence.pf.ridentifier"] == 7} == {49, 52, 68, 69, 72}
    assert all(row["source.port"] == 40000 for row in found)


def test_freebsd_10_marks_no_subrule_in_its_own_byte_order() -> None:
    packet = ip4(A4, B4, 6, tcp(40000, 22))
    outside, inside = (
        one(Pflog(length=61, subrulenr=0x01000000, ruleset=ruleset).encode() + packet) for ruleset in (b"", b"blue")
    )

    assert (outside["ringfence.pf.subrule"], inside["ringfence.pf.subrule"]) == (None, 0x01000000)


def test_ipv6_of_another_system_is_no_ipv6_here() -> None:
    packet = Pflog(length=69, af=24).encode() + ip6(A6, B6, 6, tcp(1, 2))

    (problem,) = decode([record(packet)]).problems

    assert problem.detail == "address family af is 24; accepted: 2 (IPv4), 28 (IPv6)"


def readable(frame: bytes) -> bool:
    """Whether a record of a little-endian file with microseconds can be decoded."""
    if len(frame) < 117:
        return len(frame) == 116 and _sane(frame) and {frame[17], (frame[77] and frame[78]) or 2} <= {2, 24}
    family = (frame[77] and frame[78]) or frame[17]
    version = (family == 2 and frame[116] >> 4 == 4 and frame[116] & 15 >= 5) or (family == 24 and frame[116] >> 4 == 6)
    return _sane(frame) and frame[17] in (2, 24) and version


def _sane(frame: bytes) -> bool:
    _, fraction, caplen, wirelen = struct.unpack_from("<IIII", frame)
    return fraction < 1_000_000 and caplen == len(frame) - 16 <= wirelen and frame[16] == 100


def insane(frame: bytes) -> bool:
    return len(frame) >= 16 and int.from_bytes(frame[8:12], "little") > MAX_PACKET_BYTES


mutated = st.tuples(logged_packets(), st.lists(st.tuples(st.integers(0, 140), octets), max_size=3), st.integers(0, 5)).map(
    lambda parts: _mutate(record(parts[0]), parts[1])[: len(parts[0]) + 16 - parts[2]]
)


def _mutate(frame: bytes, changes: Sequence[tuple[int, int]]) -> bytes:
    changed = bytearray(frame)
    for at, value in changes:
        changed[at % len(changed)] = value
    return bytes(changed)


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.binary(max_size=160), mutated), max_size=8), st.one_of(st.just(file_header()), st.binary(max_size=40))
)
def test_any_bytes_raise_nothing_and_every_frame_is_accounted_for(frames: list[bytes], header: bytes) -> None:
    decoded = decode(frames, header)

    assert accounted(decoded) == len(frames) + 1
    for problem in decoded.problems:
        assert problem.row is not None
        assert problem.raw == [header, *frames][problem.row]
        assert problem.source == SOURCE
        assert problem.offset is not None
        assert 0 <= problem.offset <= len(problem.raw)
    if EventClass.PF in decoded.rows:
        assert decoded.taken == decoded.rows[EventClass.PF].height


@settings(max_examples=300)
@given(st.lists(mutated, max_size=8))
def test_exactly_the_readable_records_become_rows(frames: list[bytes]) -> None:
    frames = [frame for frame in frames if not insane(frame) and frame[16:17] not in map(bytes, zip(LENGTHS[:-1], strict=True))]

    decoded = decode(frames)

    assert [problem.row for problem in decoded.problems] == [row for row, frame in enumerate(frames, 1) if not readable(frame)]


@given(st.lists(logged_packets(), max_size=6), st.integers(0, 40), st.lists(st.integers(0, 300), max_size=6))
def test_any_chunking_of_a_file_gives_the_same_rows(packets: list[bytes], cut_off: int, sizes: list[int]) -> None:
    stream = file_header() + b"".join(map(record, packets))
    stream = stream[: max(0, len(stream) - cut_off)]

    whole = read_chunks(PcapFramer(), PflogDecoder(), SOURCE, stream)
    assert read_chunks(PcapFramer(), PflogDecoder(), SOURCE, stream, sizes) == whole


@pytest.mark.parametrize(
    ("frame", "code", "offset"),
    [
        (record(PLAIN)[:10], ProblemCode.TRUNCATED, 10),
        (record(PLAIN)[:-1], ProblemCode.TRUNCATED, 155),
        (record(PLAIN) + b"x", ProblemCode.BAD_LENGTH, 8),
        (record(PLAIN, fraction=1_000_000), ProblemCode.MALFORMED, 4),
        (record(PLAIN, wirelen=10), ProblemCode.MALFORMED, 12),
        (record(b""), ProblemCode.TRUNCATED, 16),
        (record(PLAIN[:99]), ProblemCode.TRUNCATED, 115),
        (record(Pflog(length=28).encode()), ProblemCode.UNKNOWN_VERSION, 16),
        (record(Pflog(af=7).encode()), ProblemCode.MALFORMED, 17),
        (record(Pflog(rewritten=1, naf=7).encode()), ProblemCode.MALFORMED, 78),
        (record(Pflog(af=AF_INET6).encode() + PLAIN[100:]), ProblemCode.MALFORMED, 116),
        (record(PLAIN[:100] + b"\x44" + PLAIN[101:]), ProblemCode.MALFORMED, 116),
    ],
    ids=[
        "record-header", "caplen", "longer-than-caplen", "fraction", "wirelen", "nothing", "pflog-header", "unknown-length", "family",
        "rewritten-family", "other-family", "header-length",
    ],
)  # fmt: skip
def test_a_bad_record_is_one_problem_and_its_neighbours_stay(frame: bytes, code: ProblemCode, offset: int) -> None:
    decoded = decode([record(PLAIN), frame, record(PLAIN)])

    (problem,) = decoded.problems
    assert (problem.code, problem.row, problem.offset) == (code, 2, offset)
    assert (problem.raw, problem.source, problem.position) == (frame, SOURCE, 24 + len(record(PLAIN)))
    assert [row["source.port"] for row in pf_rows(decoded)] == [40000, 40000]


def test_a_header_of_another_system_is_named_with_its_length_and_what_is_accepted() -> None:
    decoded = decode([record(Pflog(length=61).encode())], decoder=PflogDecoder(dialect="openbsd"))
    unknown = decode([record(Pflog(length=28).encode())], decoder=PflogDecoder(dialect="openbsd"))

    assert decoded.taken == 1
    assert unknown.problems[0].detail == "pflog header is 28 bytes long; accepted: 45, 48, 61, 64, 100"


def test_an_insane_length_makes_the_rest_of_the_stream_unreadable_until_it_begins_again() -> None:
    decoder = PflogDecoder()
    broken = struct.pack("<IIII", 1, 2_000_000, MAX_PACKET_BYTES + 1, MAX_PACKET_BYTES + 1) + PLAIN

    first = decode([record(PLAIN), broken, record(PLAIN)], decoder=decoder)
    later = decoder.feed(frames_of([record(PLAIN)], SOURCE, positions=[9000]))
    again = decode([record(PLAIN)], decoder=decoder)

    assert [(problem.code, problem.row, problem.offset) for problem in first.problems] == [
        (ProblemCode.TOO_LARGE, 2, 8),
        (ProblemCode.TOO_LARGE, 3, 0),
    ]
    assert (first.taken, len(later.problems), again.taken) == (1, 1, 1)
    assert "unreadable" in later.problems[0].detail


@pytest.mark.parametrize(
    "header", [b"no pcap at all", file_header(linktype=1), file_header()[:20]], ids=["text", "ethernet", "cut-off"]
)
def test_without_a_usable_file_header_every_frame_is_a_problem(header: bytes) -> None:
    decoded = decode([record(PLAIN)], header)

    assert [problem.row for problem in decoded.problems] == [0, 1]
    assert decoded.taken == 0


def test_records_before_any_file_header_are_problems() -> None:
    decoded = PflogDecoder().feed(frames_of([record(PLAIN)], SOURCE, positions=[24]))

    assert decoded.problems[0].detail == "stream is unreadable: no pcap file header was seen"


def test_a_record_of_24_bytes_that_looks_like_a_file_header_is_still_a_record() -> None:
    decoded = decode([struct.pack("<IIII", MICROS, 0, 8, 8) + PLAIN[:8], record(PLAIN)])

    assert [(problem.code, problem.row) for problem in decoded.problems] == [(ProblemCode.TRUNCATED, 1)]
    assert decoded.taken == 1


def test_streams_with_different_byte_orders_are_told_apart_in_one_block() -> None:
    parts = [file_header("<"), file_header(">"), record(PLAIN, 1), record(PLAIN, 2, order=">"), record(PLAIN, 3)]
    base = frames_of(parts, SOURCE, positions=[0, 0, 24, 24, 180])
    two = dataclasses.replace(
        base, sources=(SOURCE, Source("other", 2)), source=np.array([0, 1, 0, 1, 0], np.uint16), lossy=frozenset({1})
    )

    decoded = PflogDecoder().feed(two)

    assert [row["@timestamp"] for row in pf_rows(decoded)] == [1_000_005, 2_000_005, 3_000_005]
    assert [row["observer.name"] for row in pf_rows(decoded)] == [SOURCE.name, "other", SOURCE.name]
    assert [row["ringfence.evidence.lossy"] for row in pf_rows(decoded)] == [False, True, False]
    assert decoded.filtered == {"capture header": 2}


def test_only_so_many_streams_are_remembered() -> None:
    decoder = PflogDecoder()
    sources = [Source(str(number), number) for number in range(MAX_STREAMS + 1)]
    for source in sources:
        decoder.feed(frames_of([file_header()], source))

    taken = [decoder.feed(frames_of([record(PLAIN)], source, positions=[24])).taken for source in (sources[0], sources[-1])]

    assert taken == [0, 1]


def test_a_rewritten_packet_gives_the_original_ends_from_the_header_and_the_new_ones_from_the_packet() -> None:
    header = Pflog(rewritten=1, saddr=A4, daddr=B4, sport=40000, dport=443, dir=2)

    row = one(header.encode() + ip4(b"\xc0\x00\x02\x01", B4, 6, tcp(50000, 443)))

    assert (row["source.ip"], row["source.port"]) == (0x0A010005, 40000)
    assert (row["source.nat.ip"], row["source.nat.port"]) == (0xC0000201, 50000)
    assert (row["destination.ip"], row["destination.nat.ip"], row["destination.nat.port"]) == (0x0A020009, 0x0A020009, 443)


def test_af_to_keeps_the_ipv6_original_beside_the_ipv4_packet() -> None:
    header = Pflog(af=AF_INET6, naf=2, rewritten=1, saddr=A6, daddr=B6, sport=1, dport=2)

    row = one(header.encode() + ip4(A4, B4, 17, udp(3, 4)))

    assert (row["source.ip"], row["source.ip6"], row["source.nat.ip"], row["source.nat.ip6"]) == (None, A6, 0x0A010005, None)


def test_an_ipv4_mapped_address_counts_as_ipv4() -> None:
    row = one(Pflog(af=AF_INET6).encode() + ip6(bytes(10) + b"\xff\xff" + A4, B6, 6, tcp(1, 2)))

    assert (row["source.ip"], row["source.ip6"], row["destination.ip6"]) == (0x0A010005, None, B6)


def test_ip_options_move_the_ports() -> None:
    row = one(Pflog().encode() + ip4(A4, B4, 6, tcp(40000, 22, 0x12), options=bytes(40)))

    assert (row["source.port"], row["destination.port"], row["ringfence.tcp.source_flags"]) == (40000, 22, 0x12)


def test_a_later_fragment_has_no_ports_and_is_not_truncated() -> None:
    row = one(Pflog().encode() + ip4(A4, B4, 6, bytes(8), fragment=1))

    assert (row["source.port"], row["network.iana_number"], row["ringfence.pf.truncated"]) == (None, 6, False)


def test_extension_headers_lead_to_the_transport() -> None:
    chain = [(0, bytes(8)), (43, bytes([0, 1]) + bytes(14)), (51, bytes([0, 4]) + bytes(22)), (60, bytes(8)), (44, bytes(8))]

    row = one(Pflog(af=AF_INET6).encode() + ip6(A6, B6, 58, icmp(128, 3), chain))

    assert (row["network.iana_number"], row["ringfence.icmp.type"], row["ringfence.icmp.code"]) == (58, 128, 3)


@pytest.mark.parametrize(
    ("captured", "present"),
    [
        (0, set()),
        (10, {"network.iana_number"}),
        (16, {"network.iana_number", "source.ip"}),
        (20, {"network.iana_number", "source.ip", "destination.ip"}),
        (24, {"network.iana_number", "source.ip", "destination.ip", "source.port", "destination.port"}),
    ],
)
def test_a_truncated_packet_keeps_what_is_there(captured: int, present: set[str]) -> None:
    row = one(PLAIN[: 100 + captured])

    names = (
        "network.iana_number",
        "source.ip",
        "destination.ip",
        "source.port",
        "destination.port",
        "ringfence.tcp.source_flags",
    )
    assert {name for name in names if row[name] is not None} == present
    assert row["ringfence.pf.truncated"]


def test_a_record_that_ends_before_the_gathered_width_reads_nothing_of_its_neighbour() -> None:
    decoded = decode([record(PLAIN[:100]), record(PLAIN)])

    assert [row["source.ip"] for row in pf_rows(decoded)] == [None, 0x0A010005]


def test_the_default_rule_is_kept_and_an_absent_subrule_is_null() -> None:
    row = one(Pflog(rulenr=0xFFFFFFFF).encode() + ip4(A4, B4, 6, tcp(1, 2)))

    assert (row["ringfence.pf.rule"], row["ringfence.pf.subrule"], row["rule.ruleset"]) == (0xFFFFFFFF, None, None)


def test_texts_with_equal_hashes_are_told_apart() -> None:
    """Their words are mixed by multiplication, so one that collides is easy to make."""
    first, second = (int(factor) for factor in _MIX[:2])
    other = [1 - second, first, 0, 0]  # 1 * first == (1 - second) * first + first * second, modulo 2^64
    words = np.array([[1, 0, 0, 0], [number & (2**64 - 1) for number in other], [1, 0, 0, 0]], np.uint64)
    assert len(set((words @ _MIX).tolist())) == 1

    distinct, codes = _distinct(words)

    assert (distinct[codes] == words).all()


def test_the_packet_is_kept_when_asked_for() -> None:
    decoded = decode([record(PLAIN)], decoder=PflogDecoder("fw1", "keep"))

    (row,) = pf_rows(decoded)
    assert (row["event.original"], row["observer.name"]) == (PLAIN, "fw1")


def test_a_flood_of_bad_records_is_rejected_one_by_one() -> None:
    decoded = decode([record(Pflog(length=63).encode())] * 5000)

    assert len(decoded.problems) == 5000


def test_a_capture_is_recognised_by_its_link_type() -> None:
    assert recognise(file_header() + record(PLAIN))
    assert recognise(file_header(">", NANOS))
    assert not recognise(file_header(linktype=1))
    assert not recognise(b"")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "exactly one of path and command is required"),
        ({"path": "a", "command": ["tcpdump"]}, "exactly one of path and command is required"),
        ({"command": ["tcpdump"], "follow": False}, "follow goes with path; a command is started again whenever it ends"),
        ({"command": "tcpdump -w -"}, r"must be a list of words, such as \[tcpdump, -n\]; it is never a line for a shell"),
        ({"command": []}, "must name a program"),
        ({"command": ["tcpdump", 160]}, '160 is no text; put words like numbers in quotes: "160"'),
        ({"command": ["tcpdump", "a\0b"]}, "is no text"),
    ],
)
def test_what_is_to_be_read_must_be_said_once_and_clearly(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PflogConfig.model_validate(options)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        PflogConfig.model_validate({"path": "/var/log/pflog", "folow": True})


def test_the_collector_claims_its_file() -> None:
    settings_read = PflogConfig.model_validate({"path": "/var/log/pflog"})

    assert KIND.resources(settings_read) == ["file /var/log/pflog"]
    assert (settings_read.follow, settings_read.original, settings_read.dialect) == (True, "drop", "auto")
    assert KIND.formats[0].name == "pflog"
    assert KIND.resources(PflogConfig.model_validate({"path": "-"})) == ["standard input"]
    assert KIND.resources(PflogConfig.model_validate({"command": ["tcpdump"]})) == []


def collected(options: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What the collector makes of its input, up to so many rows or its end."""
    collector = KIND.build(PflogConfig.model_validate(options), BuildContext("edge", EMPTY))

    async def run() -> list[dict[str, Any]]:
        await collector.shell.open(b"")
        found: list[dict[str, Any]] = []
        try:
            while len(found) < count:
                decoded = collector.decoder.feed((await collector.shell.read()).frames)
                assert not decoded.problems
                found += pf_rows(decoded)
        finally:
            await collector.shell.close()
        return found

    return asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
def test_what_tcpdump_writes_to_its_pipe_is_read_and_again_when_it_was_started_again(tmp_path: Path) -> None:
    capture = tmp_path / "pflog"
    capture.write_bytes(file_header() + record(PLAIN) * 3)

    found = collected({"command": ["tcpdump", "-n", "-r", str(capture), "-w", "-"]}, 6)

    wanted = pf_rows(decode([record(PLAIN)] * 3))
    assert [row["source.port"] for row in found] == [row["source.port"] for row in wanted] * 2
    assert [row["ringfence.event.position"] for row in found] == [row["ringfence.event.position"] for row in wanted] * 2
    assert [row["ringfence.evidence.lossy"] for row in found] == [False] * 3 + [True] * 3
    assert {row["observer.name"] for row in found} == {"edge"}
    assert len({row["ringfence.event.source"] for row in found}) == 2


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
def test_what_tcpdump_writes_to_a_fifo_is_read(tmp_path: Path) -> None:
    capture, fifo = tmp_path / "pflog", tmp_path / "pipe"
    capture.write_bytes(file_header() + record(PLAIN) * 3)
    os.mkfifo(fifo)

    with subprocess.Popen(["tcpdump", "-n", "-r", str(capture), "-w", str(fifo)], stderr=subprocess.DEVNULL):
        found = collected({"path": str(fifo), "observer": "fw1"}, 3)

    assert [row["source.port"] for row in found] == [40000] * 3
    assert {row["observer.name"] for row in found} == {"fw1"}


TRANSPORTS: dict[str, tuple[int, bytes, str]] = {
    "tcp": (6, tcp(40000, 22), "Flags [S]"),
    "udp": (17, udp(1, 40002), "UDP, length 0"),
    "icmp": (1, icmp(8, 0), "ICMP echo request"),
    "icmpv6": (58, icmp(128, 0), "ICMP6, echo request"),
}


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("length", LENGTHS)
def test_tcpdump_names_the_same_rule_anchor_action_and_ends(tmp_path: Path, length: int, order: Order) -> None:
    packets: list[bytes] = []
    transports: list[tuple[int, str]] = []
    for af, (name, (protocol, payload, text)), action, ruleset in itertools.product(
        [2, *guesses(length)], TRANSPORTS.items(), (0, 1), (b"", b"blue")
    ):
        if (name == "icmp" and af != 2) or (name == "icmpv6" and af == 2):
            continue
        subrule = 3 if ruleset else 0xFFFFFFFF
        header = Pflog(
            length=length, af=af, naf=af, action=action, ruleset=ruleset, subrulenr=subrule, rulenr=len(packets),
            dir=1 + len(packets) % 2, ifname=b"em%d" % (len(packets) % 7),
        )  # fmt: skip
        packet = ip4(A4, B4, protocol, payload) if af == 2 else ip6(A6, B6, protocol, payload)
        packets.append(header.encode(order) + packet)
        transports.append((protocol, text))

    _same_as_tcpdump(tmp_path, packets, transports, order, length)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
def test_tcpdump_names_the_ends_after_rewriting(tmp_path: Path) -> None:
    header = Pflog(rewritten=1, saddr=A4, daddr=B4, sport=50000, dport=22)
    packets = [
        header.encode() + ip4(socket.inet_aton("203.0.113.1"), B4, 6, tcp(61001, 22)),
        header.encode() + ip4(A4, socket.inet_aton("10.9.9.9"), 17, udp(50000, 40001)),
    ]

    _same_as_tcpdump(tmp_path, packets, [(6, "Flags [S]"), (17, "UDP, length 0")], "<", 100)


def _same_as_tcpdump(
    folder: Path, packets: Sequence[bytes], transports: Sequence[tuple[int, str]], order: Order, length: int
) -> None:
    """Its line of each packet says what our row says, but for the direction, which it expects at byte 60 of any header."""
    header, records = file_header(order), [record(packet, order=order) for packet in packets]
    (folder / "pflog").write_bytes(header + b"".join(records))
    command = ["tcpdump", "-n", "-t", "-e", "-r", str(folder / "pflog")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = pf_rows(decode(records, header))

    assert len(lines) == len(found) == len(packets)
    for line, row, (protocol, text) in zip(lines, found, transports, strict=True):
        assert row["network.iana_number"] == protocol
        for part in (*_as_tcpdump(row, length), text):
            assert part in line


def _as_tcpdump(row: dict[str, Any], length: int) -> list[str]:
    anchor = "" if row["rule.ruleset"] is None else f".{row['rule.ruleset']}.{row['ringfence.pf.subrule']}"
    interface = row["observer.ingress.interface.name"] or row["observer.egress.interface.name"]
    action, direction = row["ringfence.pf.action"], row["ringfence.pf.direction"]
    return [
        f"rule {row['ringfence.pf.rule']}{anchor}/0({row['ringfence.pf.reason']})",
        *([f"{action} {direction} on {interface}: "] if length >= 61 else [f": {action} ", f" on {interface}: "]),
        f": {_seen_end(row, 'source')} > {_seen_end(row, 'destination')}: ",
    ]


def _seen_end(row: dict[str, Any], side: str) -> str:
    """An end as it is in the packet: where it was rewritten, as it is after that."""

    def seen(name: str) -> Any:
        nat = row.get(f"{side}.nat.{name}")
        return row[f"{side}.{name}"] if nat is None else nat

    v4, v6, port = seen("ip"), seen("ip6"), seen("port")
    address = socket.inet_ntop(socket.AF_INET6, v6) if v4 is None else socket.inet_ntoa(v4.to_bytes(4, "big"))
    return address if port is None else f"{address}.{port}"
