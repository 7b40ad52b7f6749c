"""Prefixes to segments: equal to a naive longest-prefix match, and how contested prefixes are settled."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.segments import AMBIGUOUS_CODE, FIRST_CODE, OUTSIDE_CODE, UNKNOWN_CODE, Contest, Facts, SegmentMap
from ringfence.topology import Segment, Topology


def segment_map(**segments: dict[str, Any]) -> SegmentMap:
    declared = {name: Segment.model_validate(body) for name, body in segments.items()}
    return SegmentMap(Topology("t.yml", "deny", declared, {}, {}, ()))


def code4(found: SegmentMap, address: str) -> int:
    return int(found.codes4(np.array([int(ipaddress.IPv4Address(address))], np.uint32))[0])


def name4(found: SegmentMap, address: str) -> str:
    return found.names[code4(found, address)]


def name6(found: SegmentMap, address: str) -> str:
    return found.names[int(found.codes6([ipaddress.IPv6Address(address).packed])[0])]


def prefixes(bits: int, spots: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Unique prefixes as (first address, length), often nested and adjacent."""
    return st.lists(
        st.tuples(spots, st.one_of(st.sampled_from([0, 1, bits - 2, bits - 1, bits]), st.integers(0, bits))).map(
            lambda pair: (pair[0] >> (bits - pair[1]) << (bits - pair[1]), pair[1])
        ),
        min_size=1,
        max_size=12,
        unique=True,
    )


def near(bits: int) -> st.SearchStrategy[int]:
    top = 2**bits - 1
    return st.one_of(st.integers(0, 40), st.integers(top - 40, top), st.integers(0, top))


def longest(networks: list[tuple[int, int]], address: int, bits: int) -> int:
    holding = [
        (length, index) for index, (low, length) in enumerate(networks) if address >> (bits - length) == low >> (bits - length)
    ]
    return max(holding)[1] + FIRST_CODE if holding else OUTSIDE_CODE


@given(prefixes(32, near(32)), st.lists(near(32), max_size=20))
def test_ipv4_equals_a_naive_longest_prefix_match(networks: list[tuple[int, int]], extra: list[int]) -> None:
    found = segment_map(
        **{
            f"s{index}": {"networks": [f"{ipaddress.IPv4Address(low)}/{length}"]}
            for index, (low, length) in enumerate(networks)
        }
    )
    edges = {
        edge for low, length in networks for edge in (low - 1, low, low + 2 ** (32 - length) - 1, low + 2 ** (32 - length))
    }
    addresses = [address for address in [*edges, *extra] if 0 <= address < 2**32]

    assert found.codes4(np.array(addresses, np.uint32)).tolist() == [longest(networks, address, 32) for address in addresses]


@given(prefixes(128, near(128)), st.lists(near(128), max_size=20))
def test_ipv6_equals_a_naive_longest_prefix_match(networks: list[tuple[int, int]], extra: list[int]) -> None:
    found = segment_map(
        **{
            f"s{index}": {"networks": [f"{ipaddress.IPv6Address(low)}/{length}"]}
            for index, (low, length) in enumerate(networks)
        }
    )
    edges = {
        edge for low, length in networks for edge in (low - 1, low, low + 2 ** (128 - length) - 1, low + 2 ** (128 - length))
    }
    addresses = [address for address in [*edges, *extra] if 0 <= address < 2**128]

    assert found.codes6([address.to_bytes(16, "big") for address in addresses]).tolist() == [
        longest(networks, address, 128) for address in addresses
    ]


def test_prefixes_of_one_version_leave_the_other_outside() -> None:
    assert name6(segment_map(all4={"networks": ["0.0.0.0/0"]}), "::1") == "outside"


def test_everything_may_be_a_segment() -> None:
    found = segment_map(rest={"networks": ["0.0.0.0/0", "::/0"]})

    assert [
        name4(found, "0.0.0.1"),
        name4(found, "255.255.255.255"),
        name6(found, "::"),
        name6(found, "ff" * 2 + ":ffff" * 7),
    ] == ["rest"] * 4


def test_no_segments_leave_everything_outside() -> None:
    assert [name4(segment_map(), "10.0.0.1"), name6(segment_map(), "::1")] == ["outside", "outside"]


def test_no_addresses_give_no_codes() -> None:
    assert segment_map().codes4(np.empty(0, np.uint32)).tolist() == []


def test_the_parts_of_a_segment_are_found_by_code() -> None:
    found = segment_map(users={"networks": ["10.0.0.0/8"], "id": "u-1", "role": "users", "tenant": "a", "site": "hq"})
    codes = np.array([UNKNOWN_CODE, OUTSIDE_CODE, found.code_of("users")], np.uint16)

    assert {part: found.part(part, codes).to_list() for part in ("id", "name", "role", "tenant", "site")} == {
        "id": [None, "outside", "u-1"],
        "name": [None, "outside", "users"],
        "role": [None, None, "users"],
        "tenant": [None, None, "a"],
        "site": [None, None, "hq"],
    }


ONE, TWO = FIRST_CODE, FIRST_CODE + 1


def contested(
    one: dict[str, Any], two: dict[str, Any], inner: str = "10.0.0.0/8", **more: dict[str, Any]
) -> tuple[SegmentMap, Contest]:
    """Two segments with one prefix (or `two` nested in `one`), and their contest."""
    found = segment_map(one={"networks": ["10.0.0.0/8"], **one}, two={"networks": [inner], **two}, **more)
    code = code4(found, "10.0.0.1")
    assert code < 0
    return found, found.contests[-code - 1]


@pytest.mark.parametrize(
    ("field", "values", "fact"),
    [("vlan", (10, 20), "vlan"), ("vni", (10, 20), "vni"), ("interface", (["em0"], ["em1"]), "interface"), ("observer", (["fw1"], ["fw2"]), "observer")],
    ids=["vlan", "vni", "interface", "observer"],
)  # fmt: skip
@pytest.mark.parametrize("winner", [0, 1], ids=["first", "second"])
def test_a_declared_fact_settles_a_contest(field: str, values: tuple[Any, Any], fact: str, winner: int) -> None:
    found, contest = contested({field: values[0]}, {field: values[1]})
    seen = values[winner][0] if isinstance(values[winner], list) else values[winner]

    assert found.settle(contest, [Facts(**{fact: seen})], UNKNOWN_CODE) == FIRST_CODE + winner


def test_a_fact_that_nobody_declared_leaves_it_ambiguous() -> None:
    found, contest = contested({"vlan": 10}, {"vlan": 20})

    assert found.settle(contest, [Facts(vlan=30)], UNKNOWN_CODE) == AMBIGUOUS_CODE


def test_without_facts_it_is_ambiguous() -> None:
    found, contest = contested({"vlan": 10}, {"vlan": 20})

    assert found.settle(contest, [Facts()], UNKNOWN_CODE) == AMBIGUOUS_CODE


def test_facts_that_contradict_each_other_leave_it_ambiguous() -> None:
    found, contest = contested({"vlan": 10, "interface": "em0"}, {"vlan": 20, "interface": "em1"})

    assert found.settle(contest, [Facts(vlan=10, interface="em1")], UNKNOWN_CODE) == AMBIGUOUS_CODE


def test_more_agreeing_facts_beat_fewer() -> None:
    found, contest = contested({"vlan": 10, "observer": "fw1"}, {"vni": 7, "vlan": 20, "observer": "fw1"})

    assert found.settle(contest, [Facts(observer="fw1", vlan=10)], UNKNOWN_CODE) == ONE


def test_the_tenant_of_the_other_end_settles_what_facts_do_not() -> None:
    found, contest = contested(
        {"vlan": 10, "tenant": "a"}, {"vlan": 20, "tenant": "b"}, peer={"networks": ["172.16.0.0/12"], "tenant": "b"}
    )

    assert found.settle(contest, [Facts()], found.code_of("peer")) == TWO


def test_facts_beat_the_tenant_of_the_other_end() -> None:
    found, contest = contested(
        {"vlan": 10, "tenant": "a"}, {"vlan": 20, "tenant": "b"}, peer={"networks": ["172.16.0.0/12"], "tenant": "b"}
    )

    assert found.settle(contest, [Facts(vlan=10)], found.code_of("peer")) == ONE


def test_an_end_outside_settles_nothing() -> None:
    found, contest = contested({"vlan": 10, "tenant": "a"}, {"vlan": 20, "tenant": "b"})

    assert found.settle(contest, [Facts()], OUTSIDE_CODE) == AMBIGUOUS_CODE


def nested() -> tuple[SegmentMap, Contest]:
    return contested({"vlan": 10, "tenant": "a"}, {"vlan": 20, "tenant": "b"}, "10.0.0.0/24")


def test_a_longer_prefix_of_another_tenant_is_a_contest_that_facts_settle() -> None:
    found, contest = nested()

    assert found.settle(contest, [Facts(vlan=10)], UNKNOWN_CODE) == ONE


def test_without_facts_the_longest_prefix_of_another_tenant_wins() -> None:
    found, contest = nested()

    assert found.settle(contest, [Facts()], UNKNOWN_CODE) == TWO


def test_a_longest_prefix_that_a_fact_contradicts_does_not_win() -> None:
    found, contest = contested({"observer": "fw1", "tenant": "a"}, {"vlan": 20, "tenant": "b"}, "10.0.0.0/24")

    assert found.settle(contest, [Facts(vlan=10)], UNKNOWN_CODE) == ONE


def test_the_other_end_does_not_choose_what_a_fact_contradicts() -> None:
    found, contest = contested(
        {"observer": "fw1", "tenant": "a"},
        {"vlan": 20, "tenant": "b"},
        "10.0.0.0/24",
        peer={"networks": ["172.16.0.0/12"], "tenant": "b"},
    )

    assert found.settle(contest, [Facts(vlan=10)], found.code_of("peer")) == ONE


@pytest.mark.parametrize("tenant", ["a", None], ids=["same-tenant", "no-tenant"])
def test_a_longer_prefix_of_no_other_tenant_is_no_contest(tenant: str | None) -> None:
    found = segment_map(
        one={"networks": ["10.0.0.0/8"], "vlan": 10, "tenant": "a"},
        two={"networks": ["10.0.0.0/24"], "vlan": 20, "tenant": tenant},
    )

    assert name4(found, "10.0.0.1") == "two"


def test_a_longer_prefix_of_another_tenant_without_facts_is_no_contest() -> None:
    found = segment_map(one={"networks": ["10.0.0.0/8"], "tenant": "a"}, two={"networks": ["10.0.0.0/24"], "tenant": "b"})

    assert name4(found, "10.0.0.1") == "two"


def test_beside_a_contest_nothing_is_contested() -> None:
    found, _ = nested()

    assert [name4(found, address) for address in ("9.255.255.255", "10.0.1.0", "11.0.0.0")] == ["outside", "one", "outside"]


def test_three_tenants_may_share_a_prefix() -> None:
    found = segment_map(**{f"s{number}": {"networks": ["10.0.0.0/8"], "vlan": number} for number in (1, 2, 3)})
    contest = found.contests[-code4(found, "10.9.9.9") - 1]

    assert [found.names[found.settle(contest, [Facts(vlan=number)], UNKNOWN_CODE)] for number in (1, 2, 3)] == [
        "s1",
        "s2",
        "s3",
    ]
