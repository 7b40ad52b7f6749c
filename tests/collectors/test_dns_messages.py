"""What name servers say about queries: their forms, and what becomes of them."""

from __future__ import annotations

import pytest

from collectors.dns_messages import FIELDS, READERS, columns
from ringfence.addresses import AddressCache, parse
from tests.collectors.message_tables import read_any_words, said

SAID: list[tuple[str, str, str, str, dict[str, str]]] = [
    ("named", "client @0x7f6c4c0a2b68 192.0.2.1#53124 (example.com): query: example.com IN A +E(0)K (10.0.0.1)", "dns-query", "success",
     {"address": "192.0.2.1", "port": "53124", "name": "example.com", "type": "A", "flags": "+E(0)K", "server": "10.0.0.1"}),
    ("named", "queries: info: client @0x1 2001:db8::7#5 (a.example): view internal: query: a.example IN AAAA -T (2001:db8::53)", "dns-query", "success",
     {"address": "2001:db8::7", "port": "5", "name": "a.example", "type": "AAAA", "flags": "-T", "server": "2001:db8::53"}),
    ("named", "client @0x1 192.0.2.1#53/key transfer-key (a.example): query: a.example IN SOA -SE(0) (10.0.0.1)", "dns-query", "success",
     {"address": "192.0.2.1", "port": "53", "user": "transfer-key", "name": "a.example", "type": "SOA", "flags": "-SE(0)", "server": "10.0.0.1"}),
    ("named", "client 192.0.2.1#40000: query: a.example IN A + (10.0.0.1)", "dns-query", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "A", "flags": "+", "server": "10.0.0.1"}),
    ("named", "client @0x1 192.0.2.1#40000 (a.example): query (cache) 'a.example/A/IN' denied (allow-query-cache did not match)", "dns-query", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "A", "code": "REFUSED", "reason": "denied (allow-query-cache did not match)"}),
    ("named", "security: info: client @0x1 192.0.2.1#40000 (a.example): query 'a.example/A/IN' denied", "dns-query", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "A", "code": "REFUSED", "reason": "denied"}),
    ("named", "client @0x1 192.0.2.1#40000 (a.example): zone transfer 'a.example/AXFR/IN' denied", "dns-transfer", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "AXFR", "code": "REFUSED", "reason": "denied"}),
    ("named", "client @0x1 192.0.2.1#40000 (a.example): transfer of 'a.example/IN': AXFR started (serial 7)", "dns-transfer", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "AXFR"}),
    ("named", "client @0x1 192.0.2.1#40000: update 'a.example/IN' denied", "dns-update", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "code": "REFUSED", "reason": "denied"}),
    ("named", "client @0x1 192.0.2.1#40000 (bad.example): rpz QNAME NXDOMAIN rewrite bad.example/A/IN via bad.example.rpz", "dns-policy", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "bad.example", "type": "A", "reason": "QNAME NXDOMAIN rewrite"}),
    ("named", "client @0x1 192.0.2.1#40000 (a.example): query failed (SERVFAIL) for a.example/IN/A at query.c:7836", "dns-query", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "a.example", "type": "A", "code": "SERVFAIL", "reason": "SERVFAIL"}),
    ("unbound", "[812:0] info: 192.0.2.1 example.com. A IN", "dns-query", "success", {"address": "192.0.2.1", "name": "example.com.", "type": "A"}),
    ("unbound", "[812:1] reply: 192.0.2.1 example.com. A IN NXDOMAIN 0.012345 0 44", "dns-query", "success",
     {"address": "192.0.2.1", "name": "example.com.", "type": "A", "code": "NXDOMAIN"}),
    ("unbound", "query: 2001:db8::7 . NS IN", "dns-query", "success", {"address": "2001:db8::7", "name": ".", "type": "NS"}),
    ("unbound", "[812:0] info: 192.0.2.1 - - - FORMERR - - - ", "dns-query", "failure", {"address": "192.0.2.1", "code": "FORMERR"}),
    ("unbound", "[812:0] info: ads.example. always_refuse 192.0.2.1@40000 www.ads.example. A IN", "dns-policy", "failure",
     {"address": "192.0.2.1", "port": "40000", "name": "www.ads.example.", "type": "A", "reason": "always_refuse"}),
    ("unbound", "[812:0] info: ads.example. inform 192.0.2.1@40000 www.ads.example. A IN", "dns-policy", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "www.ads.example.", "type": "A", "reason": "inform"}),
    ("unbound", "[812:0] info: rpz: applied [blocklist] bad.example. rpz-nxdomain 192.0.2.1@40000 bad.example. A IN", "dns-policy", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "bad.example.", "type": "A", "reason": "rpz-nxdomain"}),
    ("unbound", "[812:0] error: SERVFAIL <a.example. A IN>: all servers for this domain failed", "dns-query", "failure",
     {"name": "a.example.", "type": "A", "code": "SERVFAIL", "reason": "all servers for this domain failed"}),
    ("dnsmasq", "query[A] example.com from 192.0.2.1", "dns-query", "success", {"address": "192.0.2.1", "name": "example.com", "type": "A"}),
    ("dnsmasq", "7 192.0.2.1/40000 query[type=65] example.com from 192.0.2.1", "dns-query", "success",
     {"address": "192.0.2.1", "port": "40000", "name": "example.com", "type": "type=65"}),
]  # fmt: skip
OTHER = [
    ("named", "zone a.example/IN: loaded serial 7"),
    ("named", "client @0x1 192.0.2.1#40000: no more recursive clients: quota reached"),
    ("unbound", "[812:0] info: start of service (unbound 1.17.1)."),
    ("unbound", "[812:0] debug: 192.0.2.1 example.com. A IN"),
    ("dnsmasq", "reply example.com is 192.0.2.80"),
    ("dnsmasq", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "message", "action", "outcome", "fields"),
    SAID,
    ids=[f"{program}-{message[:60]}" for program, message, *_ in SAID],
)
def test_a_message_says_what_happened(program: str, message: str, action: str, outcome: str, fields: dict[str, str]) -> None:
    assert said(READERS, FIELDS, program, message) == (action, outcome, fields)


@pytest.mark.parametrize(("program", "message"), OTHER)
def test_what_else_programs_say_is_left_to_others(program: str, message: str) -> None:
    assert said(READERS, FIELDS, program, message) is None


def test_any_words_are_read_or_left() -> None:
    read_any_words(READERS, FIELDS, [message for _, message, *_ in SAID])


def test_a_query_becomes_columns_of_class_dns() -> None:
    messages = [
        "client @0x1 192.0.2.1#53124 (example.com): query: example.com IN A +T (10.0.0.1)",
        "client @0x1 192.0.2.1#53124 (.): query: . IN NS + (10.0.0.1)",
        "client @0x1 192.0.2.1#53124 (a.example): query (cache) 'a.example/A/IN' denied",
    ]

    found = columns([values for message in messages if (values := READERS["named"](message))], AddressCache())

    assert list(found["dns.question.name"]) == ["example.com", ".", "a.example"]
    assert list(found["dns.type"]) == ["query", "query", "answer"]
    assert list(found["dns.response_code"]) == [None, None, "REFUSED"]
    assert list(found["network.iana_number"]) == [6, 17, None]
    assert found["destination.ip"].to_list() == [parse("10.0.0.1")] * 2 + [None]


def test_names_of_unbound_lose_the_dot_at_their_end() -> None:
    values = READERS["unbound"]("[812:0] info: 192.0.2.1 example.com. A IN")

    assert values is not None
    assert list(columns([values], AddressCache())["dns.question.name"]) == ["example.com"]
