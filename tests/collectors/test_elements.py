"""What single information elements become, in every size that an exporter may choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collectors.elements import REVERSE, Field, Made, columns, layout_of
from ringfence.batch import EventClass
from ringfence.schema import build_frame

MADE_US = 1_790_000_000_000_000
SIX = bytes.fromhex("20010db8001000000000000000000005")


def read(*parts: tuple[Field, bytes], v9: bool = False, uptime_ms: int = -1) -> dict[str, Any]:
    """The one row of a record with these fields."""
    layout = layout_of(tuple(field for field, _ in parts), v9)
    records = np.frombuffer(b"".join(value for _, value in parts), layout.dtype)
    made = Made(np.array([MADE_US]), np.array([uptime_ms]), np.array([0]))
    (row,) = build_frame(EventClass.FLOW, columns(layout, records, made)).to_dicts()
    return dict(row)


def at(element: int, value: int, length: int, enterprise: int = 0) -> tuple[Field, bytes]:
    return Field(element, length, enterprise), value.to_bytes(length, "big")


TCP = at(4, 6, 1)


@pytest.mark.parametrize("length", range(1, 9))
def test_a_counter_may_have_any_size_up_to_its_own(length: int) -> None:
    row = read(at(2, 200, length), at(1, 7, length))

    assert (row["source.packets"], row["source.bytes"]) == (200, 7)


def test_a_counter_beyond_63_bits_reads_as_the_largest() -> None:
    assert read(at(1, 2**64 - 1, 8))["source.bytes"] == 2**63 - 1


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (at(10, 5, 4), "observer.ingress.interface.id", 5),
        (at(14, 70000, 3), "observer.egress.interface.id", 70000),
        (at(58, 10, 2), "network.vlan.id", 10),
        (at(243, 20, 2), "network.vlan.id", 20),
        (at(58, 0, 2), "network.vlan.id", None),
        (at(245, 30, 2), "network.inner.vlan.id", 30),
        (at(59, 40, 2), "observer.egress.vlan.id", 40),
        (at(254, 50, 2), "observer.egress.vlan.id", 50),
        (at(351, 1 << 56 | 1010, 8), "ringfence.vxlan.vni", 1010),
        (at(351, 2 << 56 | 1010, 8), "ringfence.vxlan.vni", None),
        (at(70, 16 << 4 | 1, 3), "ringfence.mpls.label", 16),
        (at(234, 7, 4), "ringfence.flow.ingress_vrf", 7),
        (at(235, 8, 4), "ringfence.flow.egress_vrf", 8),
        (at(225, 0x0A000001, 4), "source.nat.ip", 0x0A000001),
        (at(226, 0, 4), "destination.nat.ip", None),
        (at(227, 1024, 2), "source.nat.port", 1024),
        (at(228, 0, 2), "destination.nat.port", None),
        (at(16, 64512, 2), "source.as.number", 64512),
        (at(17, 0, 4), "destination.as.number", None),
        (at(5, 184, 1), "ringfence.flow.tos", 184),
        (at(61, 0, 1), "ringfence.flow.direction", "ingress"),
        (at(61, 1, 1), "ringfence.flow.direction", "egress"),
        (at(61, 255, 1), "ringfence.flow.direction", None),
        (at(136, 2, 1), "ringfence.flow.reason", "active-timeout"),
        (at(136, 9, 1), "ringfence.flow.reason", None),
        (at(233, 3, 1), "ringfence.flow.action", "drop"),
        (at(233, 1, 1), "ringfence.flow.action", "accept"),
        (at(233, 0, 1), "ringfence.flow.action", None),
        (at(233, 99, 1), "ringfence.flow.action", None),
        (at(89, 130, 1), "ringfence.flow.action", "drop"),
        (at(89, 64, 4), "ringfence.flow.action", "accept"),
        (at(89, 192, 1), "ringfence.flow.action", None),
        (at(34, 512, 4), "ringfence.flow.sampling", 512),
        (at(34, 1, 4), "ringfence.flow.sampling", None),
        (at(2, 3, 4, REVERSE), "destination.packets", 3),
        (at(1, 0, 4, REVERSE), "destination.bytes", 0),
        (at(6, 0x12, 2, REVERSE), "ringfence.tcp.destination_flags", 0x12),
        (at(232, 9, 4), "destination.bytes", 9),
        (at(86, 4, 8), "source.packets", 4),
        (at(24, 4, 4), "source.packets", 4),
        (at(154, (2_208_988_800 + 1_790_000_001) << 32 | 1 << 31, 8), "event.start", 1_790_000_001_500_000),
        (at(157, (2_208_988_800 + 1_790_000_002) << 32, 8), "event.end", 1_790_000_002_000_000),
        (at(151, 1_790_000_003, 4), "@timestamp", 1_790_000_003_000_000),
        (at(153, 1_790_000_003_004, 8), "event.end", 1_790_000_003_004_000),
        (at(153, 2**64 - 1, 8), "event.end", None),
        (at(153, 2**64 - 1, 8), "@timestamp", MADE_US),
        (at(159, 250, 4), "event.end", MADE_US - 250),
        (at(323, 1_790_000_009_000, 8), "@timestamp", 1_790_000_009_000_000),
        (at(21, 100, 4), "event.end", None),
    ],
    ids=str,
)
def test_an_element_becomes_its_column(part: tuple[Field, bytes], name: str, value: object) -> None:
    assert read(TCP, part)[name] == value


def test_a_forwarded_flow_that_the_firewall_denied_is_dropped() -> None:
    assert read(at(89, 64, 1), at(233, 3, 1))["ringfence.flow.action"] == "drop"


def test_version_9_has_two_directions_and_zero_is_not_counted() -> None:
    """FreeBSD's ng_netflow sends OUT_BYTES = OUT_PKTS = 0 after the true counts (netflow2ng issue 98)."""
    none, both = (read(at(1, 840, 4), at(2, 10, 4), at(23, out, 4), at(24, out, 4), v9=True) for out in (0, 5))

    assert (none["source.bytes"], none["source.packets"], none["destination.bytes"], none["destination.packets"]) == (
        840,
        10,
        None,
        None,
    )
    assert (both["source.bytes"], both["destination.bytes"], both["destination.packets"]) == (840, 5, 5)


def test_counts_after_the_exporter_are_no_other_direction_in_ipfix() -> None:
    row = read(at(1, 840, 4), at(23, 5, 4))

    assert row["source.bytes"] == 840
    assert "destination.bytes" not in row


def test_uptimes_are_counted_back_from_the_header_across_a_wrap() -> None:
    row = read(at(22, 2**32 - 3000, 4), at(21, 2**32 - 1000, 4), v9=True, uptime_ms=500)

    assert (row["event.start"], row["event.end"]) == (MADE_US - 3_500_000, MADE_US - 1_500_000)


def test_uptimes_of_ipfix_need_the_moment_of_boot() -> None:
    row = read(at(160, MADE_US // 1000 - 10_000, 8), at(21, 4000, 4))

    assert row["event.end"] == MADE_US - 6_000_000


def test_ipv6_and_mapped_addresses() -> None:
    row = read((Field(27, 16), SIX), (Field(28, 16), bytes(10) + b"\xff\xff\x0a\x02\0\x09"))

    assert (row["source.ip6"], row["destination.ip"], row["destination.ip6"]) == (SIX, 0x0A020009, None)


def test_of_two_families_in_one_template_the_one_that_is_set_counts() -> None:
    four = read(at(8, 5, 4), (Field(27, 16), bytes(16)))
    six = read(at(8, 0, 4), (Field(27, 16), SIX))

    assert (four["source.ip"], four["source.ip6"]) == (5, None)
    assert (six["source.ip"], six["source.ip6"]) == (None, SIX)


@pytest.mark.parametrize(
    "parts", [[at(32, 0x0301, 2)], [at(176, 3, 1), at(177, 1, 1)], [at(11, 0x0301, 2)]], ids=["joined", "apart", "in-port"]
)
def test_icmp_has_type_and_code_and_no_port(parts: list[tuple[Field, bytes]]) -> None:
    row = read(at(4, 1, 1), *parts)

    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"], row.get("destination.port")) == (3, 1, None)


def test_icmpv6_has_elements_of_its_own() -> None:
    row = read(at(4, 58, 1), at(32, 0x0808, 2), at(139, 0x0104, 2))

    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"]) == (1, 4)


def test_sampling_by_interval_and_space() -> None:
    assert read(at(305, 1, 4), at(306, 99, 4))["ringfence.flow.sampling"] == 100


def test_the_event_of_an_older_asa_is_known_in_version_9_only() -> None:
    assert read(at(40005, 3, 1), v9=True)["ringfence.flow.action"] == "drop"
    assert "ringfence.flow.action" not in read(at(40005, 3, 1))


def test_foreign_elements_are_skipped_by_their_length() -> None:
    row = read(at(2, 1, 4, 9), at(9999, 1, 7), at(7, 443, 2), TCP)

    assert row["source.port"] == 443
    assert "source.packets" not in row
