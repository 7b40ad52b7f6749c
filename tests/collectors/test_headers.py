"""Headers of captured packets: what is read out of them, and that nothing is read which was not captured."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.headers import ETHERNET, IP4, IP6, MAX_LABELS, MAX_TAGS, MPLS, read
from tests.collectors import encode_sflow as encode
from tests.collectors.encode_sflow import ICMP, ICMP6, TCP, UDP, USER6, words

ENDS = ("source.port", "destination.port")
V4 = encode.ip4(encode.tcp(40_000, 22, 0x12), TCP)
V6 = encode.ip6(encode.udp(5000, 53), UDP)


def one(packet: bytes, begins_with: int = ETHERNET, captured: int | None = None) -> dict[str, Any]:
    """The columns of a packet with other bytes before and behind it."""
    size = len(packet) if captured is None else captured
    found = read(b"\xff" * 7 + packet + b"\xff" * 9, np.array([7]), np.array([7 + size]), np.array([begins_with]))
    return pl.DataFrame(found.columns()).to_dicts()[0]


@pytest.mark.parametrize(
    ("begins_with", "packet"),
    [
        (ETHERNET, encode.ethernet(V4, 0x0800)),
        (ETHERNET, encode.ethernet(V4, 0x0800, (0x8100, 7), (0x8100, 8), (0x88A8, 9), (0x9100, 10))),
        (ETHERNET, encode.ethernet(words(16 << 12, 17 << 12 | 0x100) + V4, 0x8847)),
        (ETHERNET, encode.ethernet(words(16 << 12 | 0x100) + V4, 0x8848, (0x8100, 7))),
        (IP4, V4),
        (MPLS, words(16 << 12 | 0x100) + V4),
    ],
)
def test_the_link_in_front_makes_no_difference(begins_with: int, packet: bytes) -> None:
    row = one(packet, begins_with)

    assert (row["source.ip"], row["destination.ip"], row["network.iana_number"]) == (0x0A010005, 0x0A020009, TCP)
    assert (*[row[end] for end in ENDS], row["ringfence.tcp.source_flags"]) == (40_000, 22, 0x12)


@pytest.mark.parametrize("tags", [MAX_TAGS + 1, 30])
def test_more_tags_or_labels_than_anyone_stacks_hide_the_packet(tags: int) -> None:
    tagged = one(encode.ethernet(V4, 0x0800, *[(0x8100, 7)] * tags))
    labelled = one(encode.ethernet(words(*[16 << 12] * (MAX_LABELS - 1 + tags), 16 << 12 | 0x100) + V4, 0x8847))

    assert (tagged["source.ip"], tagged["network.vlan.id"], tagged["network.inner.vlan.id"]) == (None, 7, 7)
    assert (labelled["source.ip"], labelled["ringfence.mpls.label"]) == (None, 16)


def test_a_priority_tag_names_no_vlan() -> None:
    assert one(encode.ethernet(V4, 0x0800, (0x8100, 5 << 13)))["source.port"] == 40_000
    assert "network.vlan.id" not in one(encode.ethernet(V4, 0x0800, (0x8100, 5 << 13)))


@pytest.mark.parametrize(
    ("following", "between"),
    [
        (UDP, b""),
        (0, bytes([UDP, 0]) + bytes(6)),
        (43, bytes([60, 1]) + bytes(14) + bytes([UDP, 0]) + bytes(6)),
        (44, bytes([UDP, 0, 0, 1]) + bytes(4)),
        (51, bytes([UDP, 1]) + bytes(10)),
    ],
)
def test_ports_stand_behind_extension_headers(following: int, between: bytes) -> None:
    row = one(encode.ip6(between + encode.udp(5000, 53), following), IP6)

    assert (row["network.iana_number"], *[row[end] for end in ENDS]) == (UDP, 5000, 53)
    assert row["source.ip6"] == bytes.fromhex("20010db8000100000000000000000005")


def test_later_fragments_have_no_ports() -> None:
    four = one(encode.ip4(encode.udp(5000, 53), UDP, fragment=0x2001), IP4)
    first = one(encode.ip4(encode.udp(5000, 53), UDP, fragment=0x2000), IP4)
    six = one(encode.ip6(bytes([UDP, 0, 0, 8]) + bytes(4) + encode.udp(5000, 53), 44), IP6)

    assert (four["network.iana_number"], four["source.port"]) == (UDP, None)
    assert first["source.port"] == 5000
    assert (six["network.iana_number"], six["source.port"]) == (UDP, None)


def test_options_of_ip_move_the_ports() -> None:
    row = one(encode.ip4(encode.udp(5000, 53), UDP, options=bytes(8)), IP4)

    assert [row[end] for end in ENDS] == [5000, 53]


@pytest.mark.parametrize(
    ("packet", "begins_with"),
    [(encode.ip4(b"\x03\x0d" + bytes(6), ICMP), IP4), (encode.ip6(b"\x03\x0d" + bytes(6), ICMP6), IP6)],
)
def test_icmp_has_type_and_code(packet: bytes, begins_with: int) -> None:
    row = one(packet, begins_with)

    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"], row["source.port"]) == (3, 13, None)


def test_icmp_of_the_other_family_has_none() -> None:
    assert one(encode.ip4(bytes(8), ICMP6), IP4)["ringfence.icmp.type"] is None


@pytest.mark.parametrize(
    ("captured", "known"),
    [(54, (TCP, 40_000, 0x12)), (48, (TCP, 40_000, 0x12)), (47, (TCP, 40_000, None)), (38, (TCP, 40_000, None)), (37, (TCP, None, None)), (34, (TCP, None, None)), (33, (None, None, None)), (0, (None, None, None))],
)  # fmt: skip
def test_only_what_was_captured_is_known(captured: int, known: tuple[int | None, ...]) -> None:
    row = one(encode.ethernet(V4, 0x0800), captured=captured)

    assert tuple(row[name] for name in ("network.iana_number", "source.port", "ringfence.tcp.source_flags")) == known


@pytest.mark.parametrize("packet", [b"\x65" + V4[1:], b"\x44" + V4[1:], encode.ethernet(V4, 0x86DD)[14:]])
def test_what_is_no_ip_has_no_ends(packet: bytes) -> None:
    begins_with = IP6 if packet[:1] == V4[:1] else IP4

    assert one(packet + bytes(20), begins_with)["network.iana_number"] is None


def test_mapped_addresses_count_as_ipv4() -> None:
    row = one(encode.ip6(encode.udp(1, 2), UDP, ("::ffff:10.1.0.5", USER6)), IP6)

    assert (row["source.ip"], row["source.ip6"], row["destination.ip"]) == (0x0A010005, None, None)


@given(st.lists(st.tuples(st.binary(max_size=90), st.sampled_from([ETHERNET, IP4, IP6, MPLS, 0, 7]))))
def test_any_bytes_are_read_alike_alone_and_together(packets: list[tuple[bytes, int]]) -> None:
    bounds = np.cumsum([0, *(len(packet) for packet, _ in packets)])
    together = read(
        b"".join(packet for packet, _ in packets), bounds[:-1], bounds[1:], np.array([kind for _, kind in packets], np.int64)
    )

    for number, (packet, kind) in enumerate(packets):
        alone = read(packet, np.array([0]), np.array([len(packet)]), np.array([kind]))
        for name in ("is4", "is6", "source", "protocol", "source_port", "flags", "icmp_type", "length", "vlan", "label", "vni"):
            assert getattr(alone, name)[0] == getattr(together, name)[number]
