"""topology.yml: what may be declared, and every fault with its place and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import topology
from ringfence.errors import ConfigError
from ringfence.topology import PortRange, Topology, parse_service

BASE = """\
segments:
  users: {tenant: a, role: users, site: hq, networks: [10.1.0.0/16]}
  servers: {tenant: b, role: servers, networks: [10.2.0.0/16, "2001:db8::/64"]}
services: {https: tcp/443, web: [tcp/80, tcp/443]}
"""


def load(folder: Path, text: str) -> Topology:
    path = folder / "t.yml"
    path.write_text(text)
    return topology.load(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    read = load(tmp_path, BASE + "intents: [{from: users, to: [servers, outside], allow: [https, udp/53], why: x}]\n")

    assert list(read.segments) == ["users", "servers"]
    assert read.intents[0].destination == ["servers", "outside"]


def test_what_is_not_said_is_denied(tmp_path: Path) -> None:
    assert load(tmp_path, BASE).default_intent == "deny"


def intent(text: str) -> str:
    return f"{BASE}intents:\n  - {{{text}}}\n"


def segment(text: str) -> str:
    return f"segments:\n  one: {{{text}}}\n"


NAMES = "letters, digits, '.', '_' and '-' are accepted, at most 63, starting with a letter or digit"
SERVICE = "is neither a declared service nor one such as tcp/443, udp/5000-5100, icmp or any"
FAULTS: dict[str, tuple[str, str]] = {
    "no segments": ("default_intent: deny\n", "t.yml:1: segments: is required"),
    "a close section": (BASE + "asets: {}\n", "t.yml:5: asets: unknown option; did you mean assets?"),
    "a close option": (segment("networks: [10.0.0.0/8], vlam: 3"), "t.yml:2: segments.one.vlam: unknown option; did you mean vlan?"),
    "no networks": (segment("vlan: 3"), "t.yml:2: segments.one.networks: is required"),
    "an empty list of networks": (segment("networks: []"), "t.yml:2: segments.one.networks: List should have at least 1 item after validation, not 0"),
    "host bits": (segment("networks: [10.0.0.1/8]"), "t.yml:2: segments.one.networks[0]: 10.0.0.1/8 has host bits set; accepted: an IPv4 or IPv6 prefix such as 10.1.2.0/24"),
    "no prefix": (segment("networks: [10.0.0.0/8, lan]"), "t.yml:2: segments.one.networks[1]: 'lan' does not appear to be an IPv4 or IPv6 network; accepted: an IPv4 or IPv6 prefix such as 10.1.2.0/24"),
    "a VLAN beyond 4094": (segment("networks: [10.0.0.0/8], vlan: 4095"), "t.yml:2: segments.one.vlan: Input should be less than or equal to 4094; found 4095"),
    "a VNI beyond 24 bits": (segment("networks: [10.0.0.0/8], vni: 16777216"), "t.yml:2: segments.one.vni: Input should be less than or equal to 16777215; found 16777216"),
    "a criticality": (segment("networks: [10.0.0.0/8], criticality: hihg"), "t.yml:2: segments.one.criticality: Input should be 'low', 'medium', 'high' or 'critical'; found 'hihg'"),
    "a tenant with a space": (segment("networks: [10.0.0.0/8], tenant: a b"), f"t.yml:2: segments.one.tenant: 'a b' is not a name; {NAMES}"),
    "a segment twice": ("segments:\n  one: {networks: [10.0.0.0/8]}\n  one: {networks: [11.0.0.0/8]}\n", "t.yml:3: segments.one: stands twice, first at line 2"),
    "outside": ("segments:\n  outside: {networks: [10.0.0.0/8]}\n", "t.yml:2: segments.outside: the name 'outside' is taken by ringfence itself"),
    "ambiguous": ("segments:\n  ambiguous: {networks: [10.0.0.0/8]}\n", "t.yml:2: segments.ambiguous: the name 'ambiguous' is taken by ringfence itself"),
    "an id twice": ("segments:\n  a: {id: x, networks: [10.0.0.0/8]}\n  b: {id: x, networks: [11.0.0.0/8]}\n", "t.yml:3: segments.b.id: 'x' is the id of a already"),
    "an id that is another's name": ("segments:\n  a: {id: b, networks: [10.0.0.0/8]}\n  b: {networks: [11.0.0.0/8]}\n", "t.yml:2: segments.a.id: 'b' is the id of b already"),
    "a close segment": (intent("from: user, to: servers, allow: https"), "t.yml:6: intents[0].from: no segment is called 'user'; did you mean users?"),
    "a strange segment": (intent("from: users, to: [moon], allow: https"), "t.yml:6: intents[0].to: no segment is called 'moon'; accepted: *, outside, servers, users"),
    "ambiguous as an end": (intent("from: ambiguous, to: users, allow: https"), "t.yml:6: intents[0].from: no segment is called 'ambiguous'; accepted: *, outside, servers, users"),
    "a strange selector": (intent("from: vlan:10, to: servers, allow: https"), "t.yml:6: intents[0].from: 'vlan:10' selects by 'vlan'; accepted: tenant:, role:, site:"),
    "a selector of nothing": (intent("from: role:user, to: servers, allow: https"), "t.yml:6: intents[0].from: no segment has role 'user'; did you mean users?"),
    "neither allow nor deny": (intent("from: users, to: servers"), "t.yml:6: intents[0]: needs exactly one of allow and deny"),
    "both allow and deny": (intent("from: users, to: servers, allow: https, deny: https"), "t.yml:6: intents[0]: needs exactly one of allow and deny"),
    "a close service": (intent("from: users, to: servers, allow: [htps]"), f"t.yml:6: intents[0].allow: 'htps' {SERVICE}; did you mean https?"),
    "a service of letters": (intent("from: users, to: servers, deny: tcp/http"), f"t.yml:6: intents[0].deny: 'tcp/http' {SERVICE}; did you mean https?"),
    "a port beyond 65535": (segment("networks: [10.0.0.0/8]") + "services: {big: tcp/65536}\n", "t.yml:3: services.big: 'tcp/65536' has a port range that is empty or ends above 65535"),
    "an empty range": (segment("networks: [10.0.0.0/8]") + "services: {big: [tcp/1, udp/9-8]}\n", "t.yml:3: services.big: 'udp/9-8' has a port range that is empty or ends above 65535"),
    "a service that hides all": (segment("networks: [10.0.0.0/8]") + "services: {all: tcp/443}\n", "t.yml:3: services.all: the name 'all' already means a service by itself"),
    "a service that hides any": (segment("networks: [10.0.0.0/8]") + "services: {any: tcp/443}\n", "t.yml:3: services.any: the name 'any' already means a service by itself"),
    "a service that hides icmp": (segment("networks: [10.0.0.0/8]") + "services: {icmp: tcp/443}\n", "t.yml:3: services.icmp: the name 'icmp' already means a service by itself"),
    "an asset without address": (BASE + "assets: {dc: {addresses: [dc.example]}}\n", "t.yml:5: assets.dc.addresses[0]: 'dc.example' does not appear to be an IPv4 or IPv6 address"),
    "a default that is none": (BASE + "default_intent: allow\n", "t.yml:5: default_intent: Input should be 'deny' or 'undeclared'; found 'allow'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_says_where_what_and_what_is_accepted(case: str, tmp_path: Path) -> None:
    text, sentence = FAULTS[case]

    assert faults(tmp_path, text) == [sentence]


def test_faults_of_all_kinds_are_reported_at_once(tmp_path: Path) -> None:
    text = BASE + "assets: {dc: {addresses: [x]}}\nintents:\n  - {from: nobody, to: servers, allow: [nothing]}\n"

    assert len(faults(tmp_path, text)) == 3


def two(one: str, other: str, more: str = "") -> str:
    return f"segments:\n  a: {{networks: [10.0.0.0/8]{one}}}\n  b: {{networks: [10.0.0.0/8]{other}}}\n{more}"


SAME = "10.0.0.0/8 belongs to {} too (line {}); give both another vlan, vni, interface or observer"


@pytest.mark.parametrize(
    ("one", "other"),
    [("", ""), (", vlan: 1", ""), (", vlan: 1", ", vlan: 1"), (", vlan: 1", ", vni: 2"), (", interface: [x, y]", ", interface: y"), (", tenant: a", ", tenant: b"), (", rdomain: 1", ", rdomain: 2")],
    ids=["nothing", "only-one", "same-vlan", "different-kinds", "shared-interface", "tenants", "rdomains"],
)  # fmt: skip
def test_equal_prefixes_that_nothing_tells_apart_are_a_fault(one: str, other: str, tmp_path: Path) -> None:
    assert faults(tmp_path, two(one, other)) == [f"t.yml:3: segments.b.networks[0]: {SAME.format('a', 2)}"]


@pytest.mark.parametrize(
    "fact", ["vlan: {}", "vni: {}", "interface: em{}", "observer: [fw{}]"], ids=["vlan", "vni", "interface", "observer"]
)
def test_equal_prefixes_that_something_tells_apart_are_accepted(fact: str, tmp_path: Path) -> None:
    assert len(load(tmp_path, two(f", {fact.format(1)}", f", {fact.format(2)}")).segments) == 2


def test_a_third_owner_is_compared_with_every_other(tmp_path: Path) -> None:
    text = two(", vlan: 1", ", vlan: 2", "  c: {networks: [10.0.0.0/8], vlan: 2}\n")

    assert faults(tmp_path, text) == [f"t.yml:4: segments.c.networks[0]: {SAME.format('b', 3)}"]


def test_a_prefix_twice_in_one_segment_is_no_fault(tmp_path: Path) -> None:
    assert load(tmp_path, segment("networks: [10.0.0.0/8, 10.0.0.0/8]")).segments


def test_a_longer_prefix_inside_another_is_no_fault(tmp_path: Path) -> None:
    assert load(tmp_path, "segments:\n  a: {networks: [10.0.0.0/8]}\n  b: {networks: [10.1.0.0/16]}\n").segments


def test_a_plain_address_is_a_host_prefix(tmp_path: Path) -> None:
    assert str(load(tmp_path, segment("networks: [10.0.0.5]")).segments["one"].networks[0]) == "10.0.0.5/32"


@pytest.mark.parametrize(
    ("end", "members"),
    [("*", ["users", "servers", "outside"]), ("tenant:a", ["users"]), ("role:servers", ["servers"]), ("site:hq", ["users"]), ("outside", ["outside"])],
)  # fmt: skip
def test_an_end_stands_for_its_segments(end: str, members: list[str], tmp_path: Path) -> None:
    assert load(tmp_path, BASE).members(end) == members


def test_a_declared_service_has_all_its_parts(tmp_path: Path) -> None:
    assert load(tmp_path, BASE).service("web") == (PortRange(6, 80, 80), PortRange(6, 443, 443))


@pytest.mark.parametrize(
    ("word", "part"),
    [("tcp/443", PortRange(6, 443, 443)), ("udp/5000-5100", PortRange(17, 5000, 5100)), ("sctp/0-65535", PortRange(132, 0, 65_535)), ("icmp", PortRange(1)), ("icmpv6", PortRange(58)), ("any", PortRange(None)), ("esp", PortRange(50))],
)  # fmt: skip
def test_an_inline_service_is_read(word: str, part: PortRange) -> None:
    assert parse_service(word) == part


@pytest.mark.parametrize("word", ["", "tcp", "tcp/", "tcp/-5", "tcp/1-", "TCP/80", "tcp/80 ", "tcp/123456", "icmp/8", "all"])
def test_what_is_no_service_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"neither a declared service|port range"):
        parse_service(word)


@given(st.text(max_size=12))
def test_any_word_is_a_service_or_refused_with_a_sentence(word: str) -> None:
    try:
        part = parse_service(word)
    except ValueError as error:
        sentence = str(error)
    else:
        sentence = repr(word) if part.low <= part.high else ""

    assert repr(word) in sentence
