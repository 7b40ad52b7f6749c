"""The sFlow decoder: samples of all kinds, what is left out, what is rejected and why, and what never came."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.datagrams import UNCUT_BYTES
from collectors.sequences import REORDER_DATAGRAMS
from collectors.sflow import KIND, MAX_RECORDS, MAX_SAMPLES, SflowConfig, SflowDecoder, SflowFramer, diagnose, recognise
from collectors.udp import UdpShell
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests.collectors import encode_sflow as encode
from tests.collectors import softflowd
from tests.collectors.encode_sflow import SERVER, SERVER6, TCP, UDP, USER, USER6, datagram, flow, words

SENDER = Source("198.51.100.7", 0xBEEF)
ARRIVED_US = 1_790_000_000_000_000
SYN_PACKET = encode.ethernet(encode.ip4(encode.tcp(40_000, 22, 0x02), TCP), 0x0800)
VTEPS = (ip_network("198.18.0.0/24"), ip_network("2001:db8:18::/48"))
OUTER = ("198.18.0.1", "198.18.0.2")


def decode(
    datagrams: Sequence[bytes], decoder: SflowDecoder | None = None, source: Source = SENDER, arrived_us: int = ARRIVED_US
) -> Decoded:
    positions = [number << 16 for number in range(len(datagrams))]
    return (decoder or SflowDecoder()).feed(frames_of(datagrams, source, arrived_us, positions))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    return decoded.rows[EventClass.FLOW].to_dicts() if EventClass.FLOW in decoded.rows else []


def one(*records: bytes, decoder: SflowDecoder | None = None) -> dict[str, Any]:
    (row,) = rows(decode([datagram(flow(*records))], decoder))
    return row


def accounted(decoded: Decoded) -> int:
    return decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held


# what a sample says


def test_a_sample_is_one_row() -> None:
    (row,) = rows(decode([datagram(flow(encode.header(SYN_PACKET), sequence=9, rate=512))]))

    assert row == {
        "@timestamp": ARRIVED_US,
        "event.created": ARRIVED_US,
        "ringfence.event.source": SENDER.identity,
        "ringfence.event.position": 28,
        "observer.name": "192.0.2.1",
        "source.ip": 0x0A010005,
        "source.port": 40_000,
        "destination.ip": 0x0A020009,
        "destination.port": 22,
        "network.iana_number": TCP,
        "observer.ingress.interface.id": 3,
        "observer.egress.interface.id": 7,
        "ringfence.evidence.lossy": False,
        "source.packets": 1,
        "source.bytes": 40,
        "ringfence.tcp.source_flags": 2,
        "ringfence.flow.tos": 0x10,
        "ringfence.flow.sampling": 512,
        "ringfence.icmp.type": None,
        "ringfence.icmp.code": None,
    }


def test_an_expanded_sample_says_the_same() -> None:
    compact, wide = (rows(decode([datagram(make(encode.header(SYN_PACKET)))])) for make in (encode.flow, encode.expanded))

    assert wide == compact


def test_samples_of_several_kinds_keep_their_order_and_their_place() -> None:
    header = encode.header(SYN_PACKET)
    first, second, third = flow(header), encode.expanded(header, source=4), encode.dropped(header)

    found = rows(decode([datagram(first, encode.counters(), second, third)]))

    places = [28, 28 + len(first) + len(encode.counters()), 28 + len(first) + len(encode.counters()) + len(second)]
    assert [row["ringfence.event.position"] for row in found] == places
    assert [row["ringfence.flow.action"] for row in found] == [None, None, "drop"]


@pytest.mark.parametrize(
    ("record", "protocol", "ends"),
    [
        (encode.sampled4(TCP, 40_000, 22, 0x12), TCP, (40_000, 22, 0x12, 60, 0x10)),
        (encode.sampled4(UDP, 5000, 53, 0), UDP, (5000, 53, None, 60, 0x10)),
        (encode.sampled4(1, 8, 0, 0), 1, (None, None, None, 60, 0x10)),
        (encode.sampled6(TCP, 40_000, 443, 0x02), TCP, (40_000, 443, 0x02, 80, 0x20)),
    ],
)
def test_fields_may_stand_in_place_of_the_header(record: bytes, protocol: int, ends: tuple[int | None, ...]) -> None:
    row = one(encode.record(2, words(64) + bytes(20)), record)

    names = ("source.port", "destination.port", "ringfence.tcp.source_flags", "source.bytes", "ringfence.flow.tos")
    assert (row["network.iana_number"], tuple(row[name] for name in names)) == (protocol, ends)


def test_a_frame_that_is_not_ip_has_no_ends() -> None:
    row = one(encode.header(encode.ethernet(bytes(46), 0x0806, (0x8100, 7))))

    assert (row["source.ip"], row["network.iana_number"], row["network.vlan.id"], row["source.packets"]) == (None, None, 7, 1)


def test_records_beside_the_packet() -> None:
    row = one(
        encode.record(77, b"unknown"),
        encode.record(4413 << 12 | 1, bytes(12)),
        encode.header(SYN_PACKET),
        encode.switch(10, 20),
        encode.router("192.0.2.254"),
        encode.gateway(64_496, [64_501, 64_502]),
        encode.nat("203.0.113.5", SERVER6),
        encode.record(1020, words(61_000, 8022)),
        encode.record(1004, words(106) + encode.opaque(b"alice") + words(106) + encode.opaque(b"bob")),
        encode.record(1030, words(5010)),
    )  # fmt: skip

    assert (row["network.vlan.id"], row["observer.egress.vlan.id"], row["ringfence.vxlan.vni"]) == (10, 20, 5010)
    assert (row["source.as.number"], row["destination.as.number"]) == (64_496, 64_502)
    assert (row["source.nat.ip"], row["source.nat.ip6"], row["source.nat.port"]) == (0xCB007105, None, 61_000)
    assert (row["destination.nat.ip"], row["destination.nat.port"]) == (None, 8022)
    assert row["destination.nat.ip6"] == bytes.fromhex("20010db8000200000000000000000009")


def test_a_tag_of_the_packet_counts_more_than_the_switch() -> None:
    tagged = encode.ethernet(encode.ip4(encode.udp(1, 2), UDP), 0x0800, (0x88A8, 100), (0x8100, 7))

    row = one(encode.header(tagged), encode.switch(10, 0xFFFFFFFF))

    assert (row["network.vlan.id"], row["network.inner.vlan.id"], row["observer.egress.vlan.id"]) == (100, 7, None)


def test_interfaces_that_are_none_are_absent() -> None:
    samples = [flow(encode.header(SYN_PACKET), ports=ports) for ports in ((0, 0x80000007), (0x3FFFFFFF, 0), (1, 2))]

    found = rows(decode([datagram(*samples)]))

    ids = [(row["observer.ingress.interface.id"], row["observer.egress.interface.id"]) for row in found]
    assert ids == [(None, None), (None, None), (1, 2)]


@pytest.mark.parametrize(
    ("reason", "word", "action"),
    [
        (258, "acl", "drop"),
        (13, "comm-admin-prohibited", "drop"),
        (259, "no-buffer-space", None),
        (257, "ttl-exceeded", None),
        (9999, "9999", None),
    ],
)
def test_only_a_prohibition_is_a_drop(reason: int, word: str, action: str | None) -> None:
    header = encode.header(SYN_PACKET)
    samples = (
        flow(header, ports=(3, 1 << 30 | reason)),
        encode.expanded(header, out=(1, reason)),
        encode.dropped(header, reason=reason),
    )

    found = rows(decode([datagram(*samples)]))

    assert [(row["ringfence.flow.reason"], row["ringfence.flow.action"]) for row in found] == [(word, action)] * 3
    assert [row["ringfence.flow.sampling"] for row in found] == [400, 400, None]


@pytest.mark.parametrize(("agent", "name"), [("192.0.2.1", "192.0.2.1"), (USER6, USER6), (None, SENDER.name)])
def test_the_observer_is_the_agent(agent: str | None, name: str) -> None:
    (row,) = rows(decode([datagram(flow(encode.header(SYN_PACKET)), agent=agent)]))

    assert row["observer.name"] == name


def test_a_file_knows_only_the_uptime() -> None:
    (row,) = rows(decode([datagram(flow(encode.header(SYN_PACKET)), uptime_ms=5000)], arrived_us=0))

    assert (row["@timestamp"], row["event.created"]) == (5_000_000, None)


# tunnels


def tunnel(ends: tuple[str, str] = OUTER) -> bytes:
    inner = encode.vxlan(SYN_PACKET, 5010)
    return encode.ethernet(
        encode.ip6(inner, UDP, ends) if ":" in ends[0] else encode.ip4(inner, UDP, ends), 0x86DD if ":" in ends[0] else 0x0800
    )


@pytest.mark.parametrize("ends", [OUTER, ("2001:db8:18::1", "2001:db8:18::2")])
def test_between_tunnel_endpoints_the_inner_packet_is_read(ends: tuple[str, str]) -> None:
    row = one(encode.header(tunnel(ends)), decoder=SflowDecoder(vteps=VTEPS))

    assert (row["source.ip"], row["destination.port"], row["ringfence.vxlan.vni"]) == (0x0A010005, 22, 5010)
    assert row["source.bytes"] == 40


@pytest.mark.parametrize("ends", [("198.18.0.1", SERVER), (USER, "198.18.0.2"), (USER6, "2001:db8:18::1")])
def test_who_is_no_tunnel_endpoint_cannot_hide_behind_an_inner_packet(ends: tuple[str, str]) -> None:
    row = one(encode.header(tunnel(ends)), decoder=SflowDecoder(vteps=VTEPS))

    assert (row["destination.port"], row["network.iana_number"], row["ringfence.vxlan.vni"]) == (4789, UDP, 5010)


@pytest.mark.parametrize("kind", [1027, 1028])
def test_where_the_switch_decapsulates_the_inner_packet_is_read(kind: int) -> None:
    row = one(encode.header(tunnel()), encode.record(kind, words(50)))

    assert (row["destination.port"], row["ringfence.vxlan.vni"]) == (22, 5010)


@pytest.mark.parametrize(
    ("kind", "packet"),
    [(0x6558, SYN_PACKET), (0x0800, SYN_PACKET[14:]), (0x86DD, encode.ip6(encode.tcp(40_000, 22, 2), TCP))],
)
def test_geneve_with_options(kind: int, packet: bytes) -> None:
    outer = encode.ethernet(encode.ip4(encode.geneve(packet, 77, kind, bytes(8)), UDP, OUTER), 0x0800)

    row = one(encode.header(outer, captured=256), decoder=SflowDecoder(vteps=VTEPS))

    assert (row["network.iana_number"], row["destination.port"], row["ringfence.vxlan.vni"]) == (TCP, 22, 77)


def test_a_tunnel_whose_inside_was_not_captured_stays_the_outer_packet() -> None:
    row = one(encode.header(tunnel(), captured=60), decoder=SflowDecoder(vteps=VTEPS))

    assert (row["destination.port"], row["ringfence.vxlan.vni"]) == (4789, 5010)


# what is left out, and what is rejected


def test_counters_alone_are_filtered_and_beside_samples_skipped() -> None:
    decoded = decode([datagram(encode.counters()), datagram(), datagram(encode.counters(), flow(encode.header(SYN_PACKET)))])

    assert (decoded.taken, decoded.filtered, len(rows(decoded))) == (1, {"counters": 2}, 1)


def test_samples_of_other_enterprises_are_skipped() -> None:
    decoded = decode([datagram(encode.sample(8800 << 12 | 1, bytes(7)), flow(encode.header(SYN_PACKET)))])

    assert (decoded.taken, len(rows(decoded)), decoded.problems) == (1, 1, [])


HEADER = encode.header(SYN_PACKET)
WHOLE = datagram(flow(HEADER))


def cut_short(body: bytes, at: int, word: int) -> bytes:
    return body[:at] + words(word) + body[at + 4 :]


BROKEN: dict[str, tuple[bytes, ProblemCode, str, int]] = {
    "nothing": (b"", ProblemCode.TRUNCATED, "datagram has 0 bytes, too few for an address type", 0),
    "another version": (words(4, 1), ProblemCode.UNKNOWN_VERSION, "datagram is version 4; accepted: sFlow version 5", 0),
    "an address of type 9": (words(5, 9, *range(9)), ProblemCode.MALFORMED, "agent has an address of type 9; accepted: 0, 1 (IPv4), 2 (IPv6)", 4),
    "a cut header": (WHOLE[:20], ProblemCode.TRUNCATED, "header has 20 of 28 bytes", 20),
    "too many samples": (cut_short(WHOLE, 24, 1025), ProblemCode.TOO_LARGE, "header announces 1025 samples; accepted: up to 1024", 24),
    "a missing sample": (cut_short(WHOLE, 24, 2), ProblemCode.TRUNCATED, "sample 2 of 2 is not there", len(WHOLE)),
    "a cut sample": (WHOLE[:-4], ProblemCode.BAD_LENGTH, "sample 1 of 1 announces 112 bytes; 108 are left", 32),
    "a short sample": (datagram(encode.sample(1, bytes(28))), ProblemCode.BAD_LENGTH, "sample 1 of 1 has 28 bytes; its fixed part takes 32", 32),
    "too many records": (cut_short(WHOLE, 64, 129), ProblemCode.TOO_LARGE, "sample 1 of 1 announces 129 records; accepted: up to 128", 64),
    "a missing record": (cut_short(WHOLE, 64, 2), ProblemCode.TRUNCATED, "record 2 of 2 in sample 1 of 1 is not there", len(WHOLE)),
    "a long record": (cut_short(WHOLE, 72, 200), ProblemCode.BAD_LENGTH, "record 1 of 1 in sample 1 of 1 announces 200 bytes; 72 are left", 72),
    "a short record": (datagram(flow(encode.record(1001, bytes(12)))), ProblemCode.BAD_LENGTH, "record 1 of 1 in sample 1 of 1 has 12 bytes; format 1001 takes at least 16", 72),
    "a long header": (cut_short(WHOLE, 88, 99), ProblemCode.BAD_LENGTH, "record 1 of 1 in sample 1 of 1 announces a header of 99 bytes; 56 are left", 88),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_rejected_whole_with_the_reason_and_the_place(name: str) -> None:
    raw, code, detail, offset = BROKEN[name]
    good = datagram(flow(HEADER), sequence=2)

    decoded = decode([raw, good])

    (problem,) = decoded.problems
    assert (problem.code, problem.detail, problem.offset, problem.row, problem.raw) == (code, detail, offset, 0, raw)
    assert (decoded.taken, len(rows(decoded))) == (1, 1)


def test_a_sample_that_is_whole_gives_no_row_beside_one_that_is_not() -> None:
    decoded = decode([datagram(flow(HEADER), encode.sample(1, bytes(28))), WHOLE])

    assert (decoded.taken, len(decoded.problems), len(rows(decoded))) == (1, 1, 1)


def test_as_many_samples_and_records_as_are_accepted() -> None:
    full = flow(HEADER, *[encode.record(77, b"")] * (MAX_RECORDS - 1))

    decoded = decode([datagram(full, *[encode.sample(99, b"")] * (MAX_SAMPLES - 1))])

    assert (decoded.taken, decoded.problems) == (1, [])


def test_senders_that_are_not_allowed() -> None:
    decoder = SflowDecoder(exporters=(ip_network("192.0.2.0/24"),))

    (problem,) = decode([WHOLE], decoder).problems

    assert (problem.code, problem.raw) == (ProblemCode.NOT_ALLOWED, WHOLE)


# what never came


def test_lost_datagrams_are_counted_for_each_agent_and_mark_what_follows() -> None:
    decoder = SflowDecoder()
    sent = [
        datagram(flow(HEADER, sequence=number), sequence=number, agent=agent, sub_agent=sub)
        for number in range(1, REORDER_DATAGRAMS + 12)
        for agent, sub in (("192.0.2.1", 0), ("192.0.2.1", 1), ("192.0.2.2", 0))
        if (agent, sub, number) not in {("192.0.2.1", 1, 4), ("192.0.2.1", 1, 5), ("192.0.2.2", 0, 7)}
    ]

    found = rows(decode(sent, decoder))

    assert decoder.sequence_gaps == {"192.0.2.1": 2, "192.0.2.2": 1}
    assert [row["observer.name"] for row in found if row["ringfence.evidence.lossy"]] == ["192.0.2.1", "192.0.2.2"]


def test_lost_samples_are_counted_for_each_source() -> None:
    decoder = SflowDecoder()
    numbers = [1, 2, 3, 7, *range(8, 60)]
    for place, number in enumerate(numbers):
        decode([datagram(flow(HEADER, sequence=number), flow(HEADER, sequence=place, source=4), sequence=place)], decoder)

    assert (decoder.sample_gaps, decoder.sequence_gaps) == ({"192.0.2.1": 3}, {"192.0.2.1": 0})


def test_compact_and_expanded_samples_of_a_source_are_one_sequence_and_dropped_packets_another() -> None:
    decoder = SflowDecoder()
    for number in range(0, 100, 2):
        samples = (
            flow(HEADER, sequence=number),
            encode.expanded(HEADER, sequence=number + 1),
            encode.dropped(HEADER, sequence=number // 2),
        )
        decode([datagram(*samples, sequence=number // 2)], decoder)

    assert decoder.sample_gaps == {"192.0.2.1": 0}


def test_samples_that_the_agent_could_not_take_mark_the_next_one() -> None:
    decoder = SflowDecoder()
    first = rows(decode([datagram(flow(HEADER, sequence=1, drops=5), flow(HEADER, sequence=2, drops=5))], decoder))
    second = rows(
        decode(
            [
                datagram(
                    flow(HEADER, sequence=3, drops=8),
                    flow(HEADER, sequence=4, drops=9),
                    flow(HEADER, sequence=5, drops=9),
                    sequence=2,
                )
            ],
            decoder,
        )
    )
    decode([datagram(flow(HEADER, sequence=6, drops=0), sequence=3)], decoder)

    assert [row["ringfence.evidence.lossy"] for row in first + second] == [False, False, True, True, False]
    assert decoder.agent_drops == {"192.0.2.1": 4}


def test_drops_of_the_kernel_mark_every_sample_of_the_read() -> None:
    frames = replace(frames_of([WHOLE], SENDER, 7), lossy=frozenset({0}))

    assert SflowDecoder().feed(frames).rows[EventClass.FLOW]["ringfence.evidence.lossy"].to_list() == [True]


# properties

packets = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [
            SYN_PACKET,
            tunnel(),
            encode.ethernet(encode.ip6(encode.tcp(1, 2, 3), TCP), 0x86DD, (0x8100, 5)),
            encode.ethernet(words(16 << 12, 17 << 12 | 0x100) + encode.ip4(encode.udp(3, 4), UDP), 0x8847),
        ]
    ),
)
records = st.one_of(
    st.builds(encode.header, packets, st.sampled_from([1, 11, 12, 13, 7]), st.integers(0, 90)),
    st.builds(encode.record, st.sampled_from([1, 2, 3, 4, 1001, 1003, 1007, 1020, 1027, 1030, 77]), st.binary(max_size=70)),
    st.builds(encode.gateway, st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=3)),
)
samples = st.one_of(
    st.builds(lambda found, number: flow(*found, sequence=number), st.lists(records, max_size=3), st.integers(0, 9)),
    st.builds(lambda found: encode.expanded(*found), st.lists(records, max_size=2)),
    st.builds(lambda found: encode.dropped(*found), st.lists(records, max_size=2)),
    st.builds(encode.sample, st.integers(0, 6), st.binary(max_size=40)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A datagram in which a few bytes are not what they were."""
    agents = st.sampled_from(["192.0.2.1", USER6, None])
    made = bytearray(datagram(*draw(st.lists(samples, max_size=3)), agent=draw(agents)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(made) - 1), st.integers(0, 255)), max_size=3)):
        made[place] = value
    return bytes(made[: draw(st.integers(0, len(made)))]) if draw(st.booleans()) else bytes(made)


@given(st.lists(st.one_of(st.binary(max_size=60), damaged()), max_size=4))
def test_every_datagram_is_accounted_for_whatever_it_holds(sent: list[bytes]) -> None:
    decoded = decode(sent, SflowDecoder(vteps=(ip_network("0.0.0.0/0"), ip_network("::/0"))))

    assert accounted(decoded) == len(sent)
    assert all(problem.detail != "datagram cannot be read" for problem in decoded.problems)
    assert len(rows(decoded)) >= decoded.taken


@given(st.lists(damaged(), max_size=4))
def test_only_what_cannot_be_decoded_has_a_diagnosis(sent: list[bytes]) -> None:
    rejected = {problem.row for problem in decode(sent).problems}

    assert rejected == {row for row, raw in enumerate(sent) if diagnose(raw)[1] != "datagram cannot be read"}


@given(st.lists(damaged(), max_size=5), st.integers(0, 5))
def test_rows_do_not_depend_on_how_datagrams_arrive_together(sent: list[bytes], at: int) -> None:
    whole = SflowDecoder()
    together = rows(decode(sent, whole))

    decoder = SflowDecoder()
    frames = frames_of(sent, SENDER, ARRIVED_US, [number << 16 for number in range(len(sent))])
    parts = [decoder.feed(frames.part(start, stop)) for start, stop in pairwise([0, min(at, len(sent)), len(sent)])]

    keys = (
        "ringfence.event.position",
        "source.ip",
        "source.port",
        "network.iana_number",
        "source.as.number",
        "ringfence.vxlan.vni",
    )
    found = [row for part in parts for row in rows(part)]
    assert [[row.get(key) for key in keys] for row in found] == [[row.get(key) for key in keys] for row in together]


ports = st.integers(0, 0xFFFF)
octet = st.integers(0, 255)
v4 = st.integers(0, 2**32 - 1).map(lambda number: socket.inet_ntoa(words(number)))


@given(
    st.lists(
        st.tuples(v4, v4, ports, ports, octet, st.integers(2, 2**32 - 1), st.booleans(), st.integers(1, 4094)),
        min_size=1,
        max_size=5,
    )
)
def test_decoding_gives_what_was_encoded(flows: list[tuple[str, str, int, int, int, int, bool, int]]) -> None:
    sent = []
    for source, target, sport, dport, flags, rate, wide, vlan in flows:
        frame = encode.ethernet(encode.ip4(encode.tcp(sport, dport, flags), TCP, (source, target)), 0x0800, (0x8100, vlan))
        sent.append(datagram((encode.expanded if wide else flow)(encode.header(frame), rate=rate)))

    found = rows(decode(sent))

    assert [
        (
            socket.inet_ntoa(words(row["source.ip"])), socket.inet_ntoa(words(row["destination.ip"])), row["source.port"],
            row["destination.port"], row["ringfence.tcp.source_flags"], row["ringfence.flow.sampling"], row["network.vlan.id"],
        )
        for row in found
    ] == [(*rest, vlan) for *rest, _, vlan in flows]  # fmt: skip


# files


@given(
    st.lists(damaged().filter(lambda raw: diagnose(raw)[1] == "datagram cannot be read"), max_size=4),
    st.lists(st.integers(0, 900), max_size=5).map(sorted),
)
def test_a_file_is_cut_into_its_datagrams_whatever_the_chunks(sent: list[bytes], places: list[int]) -> None:
    sent = [raw + bytes(-len(raw) % 4) for raw in sent]
    sent = [raw[: SflowFramer()._end(raw, 0)] for raw in sent]
    stream, framer = b"".join(sent), SflowFramer()
    chunks = [stream[start:end] for start, end in pairwise([0, *places, len(stream)])]

    frames = []
    for data, bounds in [*map(framer.cut, chunks), framer.finish()]:
        frames += [data[start:end] for start, end in pairwise(bounds)]

    assert frames == sent


@pytest.mark.parametrize(
    "insane", [words(5, 7), words(6, 1), WHOLE[:24] + words(2000), WHOLE[:32] + words(1 << 20) + bytes(60)]
)
def test_a_file_that_is_no_sflow_comes_in_pieces(insane: bytes) -> None:
    framer = SflowFramer()

    _, bounds = framer.cut(WHOLE + insane + bytes(UNCUT_BYTES))

    assert bounds.tolist() == [0, len(WHOLE), len(WHOLE) + UNCUT_BYTES]
    assert len(framer.finish()[0]) == len(insane)


def test_recognises_its_files() -> None:
    assert recognise(WHOLE)
    assert recognise(datagram(agent=USER6))
    assert not recognise(b"\0\5" + WHOLE[2:])
    assert not recognise(words(5, 3, 0, 0, 0, 0, 0))
    assert not recognise(WHOLE[:20])


# the collector


def test_settings_become_a_listener() -> None:
    settings = SflowConfig.model_validate(
        {"listen": "udp://[::1]:6343", "exporters": ["192.0.2.0/24"], "vteps": ["198.18.0.0/24"]}
    )

    assert KIND.resources(settings) == ["udp [::1]:6343"]
    assert isinstance(KIND.build(settings, BuildContext("fabric", EMPTY)).shell, UdpShell)
    for wrong in ({"listen": "udp://1:2:3"}, {"vteps": ["10.0.0.1/8"]}, {"exporters": ["here"]}):
        with pytest.raises(ValidationError):
            SflowConfig.model_validate(wrong)


# other programs


def test_a_real_sender(tmp_path: Path) -> None:
    """pmacctd with its plugin sfprobe samples every packet of a capture."""
    program = shutil.which("pmacctd") or shutil.which("pmacctd", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("pmacctd is not here: apt-get install -y --no-install-recommends pmacct")
    (tmp_path / "f.pcap").write_bytes(softflowd.pcap(softflowd.packets()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        options = {
            "daemonize": "false",
            "pcap_savefile": tmp_path / "f.pcap",
            "plugins": "sfprobe[sf]",
            "sfprobe_receiver[sf]": f"127.0.0.1:{receiver.getsockname()[1]}",
            "sfprobe_agentip[sf]": "192.0.2.77",
            "sampling_rate[sf]": "1",
        }
        (tmp_path / "sf.conf").write_text("".join(f"{name}: {value}\n" for name, value in options.items()))
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen([program, "-f", tmp_path / "sf.conf"], stdout=log, stderr=log) as sender,
        ):
            sent = [receiver.recv(65_535)]
            sender.wait(10)
        receiver.setblocking(False)
        try:
            while True:
                sent.append(receiver.recv(65_535))
        except BlockingIOError:
            pass

    decoded = decode(sent)

    found = [
        (row["network.iana_number"], row["source.port"], row["destination.port"], row["ringfence.tcp.source_flags"])
        for row in rows(decoded)
    ]
    assert not decoded.problems
    assert found == [
        (6, 40000, 22, 0x02), (6, 22, 40000, 0x12), (6, 40000, 22, 0x18), (6, 22, 40000, 0x18), (6, 40000, 22, 0x11),
        (6, 22, 40000, 0x11), (17, 5000, 53, None), (17, 53, 5000, None), (1, None, None, None), (6, 41000, 443, 0x02), (6, 443, 41000, 0x14),
    ]  # fmt: skip
    assert {row["observer.name"] for row in rows(decoded)} == {"192.0.2.77"}


def test_tshark_reads_the_same(tmp_path: Path) -> None:
    """One sample a datagram, field by field. Of repeated fields the last one is that of the sampled packet."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not here: apt-get install -y --no-install-recommends tshark")
    tagged = encode.ethernet(encode.ip4(encode.tcp(40_000, 443, 0x12), TCP), 0x0800, (0x8100, 7))
    label = encode.ethernet(words(16 << 12 | 0x100) + encode.ip4(encode.udp(3000, 4000), UDP), 0x8847)
    six = encode.ethernet(encode.ip6(encode.tcp(40_001, 22, 0x02), TCP), 0x86DD)
    records = [
        (encode.header(SYN_PACKET), encode.switch(10, 20)),
        (encode.header(tagged), encode.gateway(64_496, [64_501], ())),  # tshark 4.0 names a community as it does an AS
        (encode.header(label), encode.router("192.0.2.254")),
        (encode.header(six), encode.nat(USER, SERVER)),
        (encode.header(tunnel()), encode.record(1028, words(50))),
        (encode.header(SYN_PACKET[14:], protocol=11),),
    ]
    sent = [
        datagram(make(*found, sequence=number, rate=100 + number), sequence=number, sub_agent=number % 3)
        for number, found in enumerate(records)
        for make in (encode.flow, encode.expanded)
    ]
    capture = [encode.ethernet(encode.ip4(encode.udp(9000, 6343, raw), UDP), 0x0800) for raw in sent]
    (tmp_path / "f.pcap").write_bytes(softflowd.pcap(capture))
    fields = [
        ("sflow_245.agent", "observer.name"),
        ("sflow.flow_sample.sampling_rate", "ringfence.flow.sampling"),
        ("sflow.flow_sample.input_interface", "observer.ingress.interface.id"),
        ("sflow.flow_sample.input_interface_value", "observer.ingress.interface.id"),
        ("tcp.srcport", "source.port"),
        ("tcp.dstport", "destination.port"),
        ("tcp.flags", "ringfence.tcp.source_flags"),
        ("vlan.id", "network.vlan.id"),
        ("mpls.label", "ringfence.mpls.label"),
        ("vxlan.vni", "ringfence.vxlan.vni"),
        ("sflow_245.vlan.in", "network.vlan.id"),
        ("sflow_245.vlan.out", "observer.egress.vlan.id"),
        ("sflow_245.srcAS", "source.as.number"),
        ("sflow_245.dstAS", "destination.as.number"),
        ("ip.len", "source.bytes"),
    ]
    command = [program, "-r", str(tmp_path / "f.pcap"), "-T", "fields", "-E", "occurrence=l", "-E", "separator=;"]
    for name, _ in fields:
        command += ["-e", name]

    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()

    assert len(lines) == len(sent)
    for line, row in zip(lines, rows(decode(sent)), strict=True):
        said = [(column, text) for (_, column), text in zip(fields, line.split(";"), strict=True) if text]
        theirs = {column: text if column == "observer.name" else int(text, 0) for column, text in said}
        ours = {column: row[column] for column in theirs}
        if row["source.ip6"] is not None:
            theirs.pop("source.bytes"), ours.pop("source.bytes")  # that of the datagram
        assert ours == theirs
        assert len(theirs) > 3
