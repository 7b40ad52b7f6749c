"""Declared intent: ranks, ranges and defaults, equal to a naive reading of the same file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.intents import INTENTS, IntentTable
from ringfence.segments import SegmentMap
from ringfence.topology import Intent as Declared
from ringfence.topology import PortRange, Segment, Topology, parse_service

SEGMENTS: dict[str, dict[str, Any]] = {
    "users": {"networks": ["10.1.0.0/16", "2001:db8:1::/64"], "tenant": "a", "role": "users"},
    "servers": {"networks": ["10.2.0.0/16", "2001:db8:2::/64"], "tenant": "b", "role": "servers"},
    "iot": {"networks": ["10.3.0.0/16"], "tenant": "b", "role": "iot"},
}
SERVICES = {"https": ["tcp/443"], "web": ["tcp/80", "tcp/443", "udp/443"], "rpc": ["tcp/49152-65535"]}
TCP, UDP, ICMP, ICMP6, SCTP, GRE = 6, 17, 1, 58, 132, 47


def topology(*intents: dict[str, Any], default: str = "deny") -> Topology:
    segments = {name: Segment.model_validate(body) for name, body in SEGMENTS.items()}
    services = {name: tuple(parse_service(word) for word in words) for name, words in SERVICES.items()}
    declared = tuple(Declared.model_validate(intent) for intent in intents)
    return Topology("t.yml", "undeclared" if default == "undeclared" else "deny", segments, {}, services, declared)


def table(*intents: dict[str, Any], default: str = "deny") -> tuple[IntentTable, SegmentMap]:
    declared = topology(*intents, default=default)
    segments = SegmentMap(declared)
    return IntentTable(declared, segments), segments


def ask(asked: tuple[IntentTable, SegmentMap], source: str, destination: str, protocol: int, port: int = -1) -> str:
    intents, segments = asked
    one, two = (np.array([segments.code_of(name)], np.int32) for name in (source, destination))
    return INTENTS[intents.ask(one, two, np.array([protocol], np.uint8), np.array([port], np.int32))[0]]


def allow(source: Any, destination: Any, *services: str) -> dict[str, Any]:
    return {"from": source, "to": destination, "allow": list(services)}


def deny(source: Any, destination: Any, *services: str) -> dict[str, Any]:
    return {"from": source, "to": destination, "deny": list(services)}


def test_a_named_service_is_allowed() -> None:
    assert ask(table(allow("users", "servers", "https")), "users", "servers", TCP, 443) == "allow"


@pytest.mark.parametrize(
    ("protocol", "port"), [(TCP, 442), (TCP, 444), (UDP, 443), (ICMP, -1)], ids=["below", "above", "udp", "icmp"]
)
def test_other_services_of_a_named_boundary_are_denied(protocol: int, port: int) -> None:
    assert ask(table(allow("users", "servers", "https"), default="undeclared"), "users", "servers", protocol, port) == "deny"


def test_the_way_back_is_a_boundary_of_its_own() -> None:
    assert ask(table(allow("users", "servers", "all")), "servers", "users", TCP, 443) == "deny"


@pytest.mark.parametrize("default", ["deny", "undeclared"])
def test_a_boundary_that_nobody_names_has_the_default(default: str) -> None:
    assert ask(table(allow("users", "servers", "https"), default=default), "users", "iot", TCP, 443) == default


@pytest.mark.parametrize("word", ["all", "any"])
@pytest.mark.parametrize(("protocol", "port"), [(TCP, 0), (TCP, 65_535), (UDP, 1), (ICMP, -1), (ICMP6, -1), (0, -1), (255, -1)])
def test_all_is_every_protocol_and_port(word: str, protocol: int, port: int) -> None:
    assert ask(table(allow("users", "servers", word)), "users", "servers", protocol, port) == "allow"


@pytest.mark.parametrize(("port", "answer"), [(49_151, "deny"), (49_152, "allow"), (65_535, "allow")])
def test_a_range_includes_both_ends(port: int, answer: str) -> None:
    assert ask(table(allow("users", "servers", "rpc")), "users", "servers", TCP, port) == answer


def test_a_range_up_to_the_last_port_ends_before_the_next_protocol() -> None:
    assert ask(table(allow("users", "servers", "rpc")), "users", "servers", 7) == "deny"


@pytest.mark.parametrize(("word", "protocol"), [("icmp", ICMP), ("icmpv6", ICMP6), ("gre", GRE)])
def test_a_protocol_without_ports_is_allowed_as_a_whole(word: str, protocol: int) -> None:
    assert ask(table(allow("users", "servers", word)), "users", "servers", protocol, 2048) == "allow"


def test_an_exact_intent_beats_a_wildcard() -> None:
    asked = table(allow("users", "servers", "https"), deny("users", "*", "all"))

    assert ask(asked, "users", "servers", TCP, 443) == "allow"


def test_an_exact_deny_beats_a_wildcard_allow() -> None:
    asked = table(deny("users", "servers", "https"), allow("*", "servers", "all"))

    assert ask(asked, "users", "servers", TCP, 443) == "deny"


def test_one_wildcard_beats_two() -> None:
    asked = table(allow("users", "*", "https"), deny("*", "*", "all"))

    assert ask(asked, "users", "iot", TCP, 443) == "allow"


def test_a_selector_ranks_as_a_wildcard() -> None:
    asked = table(allow("role:users", "servers", "https"), deny("*", "servers", "https"))

    assert ask(asked, "users", "servers", TCP, 443) == "deny"


@pytest.mark.parametrize("order", [1, -1], ids=["allow-first", "deny-first"])
def test_deny_beats_allow_at_the_same_rank(order: int) -> None:
    asked = table(*[allow("users", "servers", "all"), deny("users", "servers", "https")][::order])

    assert ask(asked, "users", "servers", TCP, 443) == "deny"


def test_a_deny_takes_only_its_services_away() -> None:
    asked = table(allow("users", "servers", "all"), deny("users", "servers", "https"))

    assert ask(asked, "users", "servers", TCP, 80) == "allow"


def test_allows_add_up() -> None:
    asked = table(allow("users", "servers", "https"), allow("users", "servers", "udp/53"))

    assert [ask(asked, "users", "servers", TCP, 443), ask(asked, "users", "servers", UDP, 53)] == ["allow", "allow"]


def test_every_end_of_a_list_is_named() -> None:
    asked = table(allow(["users", "iot"], ["servers", "outside"], "https"))

    assert [ask(asked, source, to, TCP, 443) for source in ("users", "iot") for to in ("servers", "outside")] == ["allow"] * 4


def test_the_wildcard_includes_outside() -> None:
    assert ask(table(allow("*", "servers", "https")), "outside", "servers", TCP, 443) == "allow"


def test_an_ambiguous_end_has_the_default() -> None:
    assert ask(table(allow("*", "*", "all"), default="undeclared"), "ambiguous", "servers", TCP, 443) == "undeclared"


def test_an_unknown_port_is_no_port_of_the_protocol_before() -> None:
    assert ask(table(allow("users", "servers", "tcp/0-65535")), "users", "servers", TCP, -1) == "allow"


def certain(asked: tuple[IntentTable, SegmentMap], protocol: int, port: int, known: bool = True) -> bool:
    intents, segments = asked
    one, two = (np.array([segments.code_of(name)], np.int32) for name in ("users", "servers"))
    return bool(intents.is_certain(one, two, np.array([protocol], np.uint8), np.array([port], np.int32), np.array([known]))[0])


@pytest.mark.parametrize(
    ("intent", "protocol", "port", "known", "expected"),
    [
        (allow("users", "servers", "https"), TCP, 443, True, True),
        (allow("users", "servers", "https"), TCP, -1, True, False),
        (allow("users", "servers", "https"), UDP, -1, True, True),
        (allow("users", "servers", "https"), 0, -1, False, False),
        (allow("users", "servers", "tcp/0-65535"), TCP, -1, True, True),
        (allow("users", "servers", "all"), 0, -1, False, True),
        (deny("users", "servers", "all"), 0, -1, False, True),
        (allow("users", "servers", "https"), ICMP, -1, True, True),
    ],
    ids=["known", "some-ports", "no-udp", "some-protocols", "whole-tcp", "all", "none", "icmp-needs-no-port"],
)
def test_an_answer_is_certain_when_no_port_or_protocol_would_change_it(
    intent: dict[str, Any], protocol: int, port: int, known: bool, expected: bool
) -> None:
    assert certain(table(intent), protocol, port, known) is expected


@pytest.mark.parametrize(
    ("protocol", "port", "name"),
    [(TCP, 443, "https"), (UDP, 443, "web"), (TCP, 8443, "tcp/8443"), (TCP, 50_000, "tcp/50000"), (ICMP, 0, "icmp"), (TCP, -1, "tcp"), (200, 0, "ip/200"), (112, 0, "carp")],
)  # fmt: skip
def test_a_service_has_its_declared_name_or_protocol_and_port(protocol: int, port: int, name: str) -> None:
    assert table()[0].service(protocol, port) == name


@pytest.mark.parametrize(
    ("protocol", "port", "expected"),
    [(TCP, 443, True), (TCP, 1023, True), (TCP, 1024, False), (TCP, -1, False), (TCP, 50_000, False)],
)
def test_declared_and_well_known_ports_are_services(protocol: int, port: int, expected: bool) -> None:
    assert table()[0].is_service(np.array([protocol], np.uint8), np.array([port], np.int32)).tolist() == [expected]


def naive(declared: Topology, source: str, destination: str, protocol: int, port: int) -> str:
    """Every intent in turn: the highest rank that speaks of the service decides, and there deny beats allow."""
    spoken: list[tuple[int, bool]] = []
    named = False
    for intent in declared.intents:
        for one in intent.source:
            for two in intent.destination:
                if source == destination or source not in declared.members(one) or destination not in declared.members(two):
                    continue
                named = True
                rank = sum(end != "*" and ":" not in end for end in (one, two))
                words = intent.deny if intent.deny is not None else intent.allow or []
                parts = [part for word in words for part in declared.service("any" if word == "all" else word)]
                if any(covers(part, protocol, port) for part in parts):
                    spoken.append((rank, intent.deny is not None))
    if not named:
        return declared.default_intent
    return "deny" if not spoken or max(spoken)[1] else "allow"


def covers(part: PortRange, protocol: int, port: int) -> bool:
    if part.protocol is None:
        return True
    return part.protocol == protocol and (protocol not in (TCP, UDP, SCTP) or part.low <= port <= part.high)


ENDS = ["users", "servers", "iot", "outside", "*", "tenant:b", "role:users"]
WORDS = ["https", "web", "rpc", "all", "any", "icmp", "tcp/22", "udp/0-65535", "tcp/100-200", "tcp/150-300", "gre"]
INTENT = st.builds(
    lambda source, destination, verb, words: {"from": source, "to": destination, verb: words},
    st.lists(st.sampled_from(ENDS), min_size=1, max_size=2),
    st.lists(st.sampled_from(ENDS), min_size=1, max_size=2),
    st.sampled_from(["allow", "deny"]),
    st.lists(st.sampled_from(WORDS), max_size=3),
)
NAMES = st.sampled_from(["users", "servers", "iot", "outside"])
PLACES = st.tuples(
    NAMES, NAMES, st.sampled_from([0, ICMP, TCP, UDP, GRE, ICMP6, SCTP, 255]), st.sampled_from([0, 22, 80, 99, 100, 150, 200, 201, 300, 301, 443, 49_151, 49_152, 65_535])
).filter(lambda place: place[0] != place[1])  # fmt: skip


@given(st.lists(INTENT, max_size=5), st.sampled_from(["deny", "undeclared"]), st.lists(PLACES, min_size=1, max_size=20))
def test_the_table_equals_a_naive_reading(
    intents: list[dict[str, Any]], default: str, places: list[tuple[str, str, int, int]]
) -> None:
    declared, asked = topology(*intents, default=default), table(*intents, default=default)

    assert [ask(asked, *place) for place in places] == [naive(declared, *place) for place in places]
