"""Records of pflow(4), written after if_pflow.h and if_pflow.c: templates, two records a state, and what the ports of ICMP are."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from collectors import pflow
from collectors.elements import Field
from collectors.netflow import ExportDecoder
from processors.boundaries import Boundaries
from processors.segments import Segments
from ringfence import bus
from ringfence.batch import EventClass, Micros, Source, frames_of
from ringfence.topology import Intent, Segment, Topology
from tests import frames
from tests.collectors.encode_flowsets import SECONDS, Ipfix, a_set
from tests.collectors.encode_netflow import Export, Flow

FIREWALL = Source("192.0.2.1", 0xF0)
USER, SERVER = 0x0A010005, 0x0A020009
USER6, SERVER6 = bytes.fromhex("20010db8000100000000000000000005"), bytes.fromhex("20010db8000200000000000000000009")
PUBLIC = 0xCB007105
TCP, ICMP, ICMP6 = 6, 1, 58
ECHO = 8
STARTED_MS = (SECONDS - 60) * 1000


def templates(*layouts: tuple[tuple[int, int], ...], sequence: int = 0) -> bytes:
    """One set with all templates, as pflow_sendout_ipfix_tmpl() writes it."""
    body = b"".join(
        struct.pack(">HH", number, len(layout)) + b"".join(struct.pack(">HH", *field) for field in layout)
        for number, layout in enumerate(layouts, 256)
    )
    return Ipfix.message(a_set(2, body), domain=42, sequence=sequence)


def four(
    ends: tuple[int, int], ports: tuple[int, int], protocol: int = TCP, nat: tuple[int, int, int, int] | None = None
) -> bytes:
    """struct pflow_ipfix_flow4, or pflow_ipfix_nat_flow4."""
    counts = struct.pack(">IIIIQQQQ", *ends, 3, 7, 10, 840, STARTED_MS, STARTED_MS + 5000)
    return counts + (struct.pack(">IIHH", *nat) if nat else b"") + struct.pack(">HHBB", *ports, 0, protocol)


def six(ends: tuple[bytes, bytes], ports: tuple[int, int], protocol: int = TCP) -> bytes:
    """struct pflow_ipfix_flow6."""
    return b"".join(ends) + struct.pack(">IIQQQQHHBB", 3, 7, 10, 840, STARTED_MS, STARTED_MS + 5000, *ports, 0, protocol)


def decode(*datagrams: bytes) -> list[dict[str, Any]]:
    decoded = ExportDecoder().feed(frames_of(datagrams, FIREWALL, 7, [number << 16 for number in range(len(datagrams))]))
    assert not decoded.problems
    assert not decoded.held
    return decoded.rows[EventClass.FLOW].to_dicts()


def test_a_state_is_two_records_of_ipfix() -> None:
    records = four((USER, SERVER), (40_000, 22)) + four((SERVER, USER), (22, 40_000))

    there, back = decode(templates(pflow.IPV4, pflow.IPV6), Ipfix.message(a_set(256, records), domain=42))

    assert (there["source.ip"], there["destination.ip"], there["destination.port"]) == (USER, SERVER, 22)
    assert (back["source.ip"], back["destination.ip"], back["source.port"]) == (SERVER, USER, 22)
    assert (there["source.packets"], there["source.bytes"], there["observer.ingress.interface.id"]) == (10, 840, 3)
    assert (there["event.start"], there["event.end"]) == (STARTED_MS * 1000, STARTED_MS * 1000 + 5_000_000)
    assert "ringfence.tcp.source_flags" not in there


def test_ipv6_has_template_257_or_258() -> None:
    record = six((USER6, SERVER6), (40_000, 443))

    older = decode(templates(pflow.IPV4, pflow.IPV6), Ipfix.message(a_set(257, record), domain=42))
    newer = decode(templates(pflow.IPV4, pflow.IPV4_NAT, pflow.IPV6), Ipfix.message(a_set(258, record), domain=42))

    assert older[0]["source.ip6"] == newer[0]["source.ip6"] == USER6


def test_a_state_with_nat_has_both_addresses() -> None:
    record = four((USER, SERVER), (40_000, 443), nat=(PUBLIC, SERVER, 61_000, 443))

    (row,) = decode(templates(pflow.IPV4, pflow.IPV4_NAT, pflow.IPV6), Ipfix.message(a_set(257, record), domain=42))

    assert (row["source.ip"], row["source.nat.ip"], row["source.nat.port"]) == (USER, PUBLIC, 61_000)
    assert (row["source.port"], row["destination.port"]) == (40_000, 443)


def test_freebsd_tells_when_an_address_was_rewritten() -> None:
    fields = (Field(323, 8), Field(230, 1), Field(4, 1), Field(8, 4), Field(7, 2), Field(225, 4), Field(227, 2), Field(12, 4), Field(11, 2), Field(226, 4), Field(228, 2))  # fmt: skip
    record = struct.pack(">QBBIHIHIHIH", STARTED_MS, 4, TCP, USER, 40_000, PUBLIC, 61_000, SERVER, 443, SERVER, 443)

    (row,) = decode(Ipfix.message(Ipfix.template(258, fields), a_set(258, record), domain=42))

    assert (row["@timestamp"], row["source.nat.ip"], row["destination.port"]) == (STARTED_MS * 1000, PUBLIC, 443)


@pytest.mark.parametrize("ports", [(0x1234, ECHO), (ECHO, 0x1234)])
def test_the_ports_of_icmp_are_not_type_and_code(ports: tuple[int, int]) -> None:
    announced = templates(pflow.IPV4, pflow.IPV6)
    rows = [
        *decode(Export(engine_type=42, engine_id=42).encode([Flow(protocol=ICMP, sport=ports[0], dport=ports[1], flags=0)])),
        *decode(announced, Ipfix.message(a_set(256, four((USER, SERVER), ports, ICMP)), domain=42)),
        *decode(announced, Ipfix.message(a_set(257, six((USER6, SERVER6), ports, ICMP6)), domain=42)),
    ]

    assert [(row.get("ringfence.icmp.type"), row.get("ringfence.icmp.code"), row["source.port"]) for row in rows] == [
        (None, None, None)
    ] * 3


def test_other_exporters_keep_type_and_code_in_the_destination_port() -> None:
    (five,) = decode(Export(engine_type=42).encode([Flow(protocol=ICMP, dport=ECHO << 8)]))
    fields = [Field(*field) for field in reversed(pflow.IPV4)]
    record = struct.pack(">BBHHQQQQIIII", ICMP, 0, ECHO << 8, 0, 0, 0, 84, 1, 0, 0, SERVER, USER)
    (ten,) = decode(Ipfix.message(Ipfix.template(256, fields), a_set(256, record)))

    assert (five["ringfence.icmp.type"], ten["ringfence.icmp.type"]) == (ECHO, ECHO)


def test_version_5_does_not_tell_flags() -> None:
    (of_pf, of_others) = decode(
        Export(engine_type=42, engine_id=42).encode([Flow(flags=0)]), Export(engine_type=1, sequence=0).encode([Flow(flags=0)])
    )

    assert (of_pf["ringfence.tcp.source_flags"], of_others["ringfence.tcp.source_flags"]) == (None, 0)


def test_templates_do_not_count_in_the_sequence() -> None:
    decoder = ExportDecoder()
    for sequence in range(100):
        data = a_set(256, four((USER, SERVER), (40000, 22))) if sequence % 2 else a_set(257, six((USER6, SERVER6), (40000, 22)))
        sent = [templates(pflow.IPV4, pflow.IPV6, sequence=sequence), Ipfix.message(data, domain=42, sequence=sequence)]
        decoder.feed(frames_of(sent if sequence % 10 == 0 else sent[1:], FIREWALL, 7))

    assert decoder.sequence_gaps == {FIREWALL.name: 0}


def judged(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    segments = {
        name: Segment.model_validate({"networks": [network]})
        for name, network in (("users", "10.1.0.0/16"), ("servers", "10.2.0.0/16"))
    }
    intents = (Intent.model_validate({"from": "users", "to": "servers", "allow": ["tcp/22", "icmp"]}),)
    topology = Topology("t.yml", "deny", segments, {}, {}, intents)
    batch = Segments(topology).process(frames.batch(EventClass.FLOW, rows), Micros(0)).batch
    made = Boundaries(topology).process(batch, Micros(0)).outputs[bus.BOUNDARY][0].frame
    return list(made.select("ringfence.boundary.id", "ringfence.boundary.outcome", "ringfence.boundary.verdict").iter_rows())


def test_the_record_that_comes_from_the_service_proves_that_it_answered() -> None:
    records = four((USER, SERVER), (40_000, 22)) + four((SERVER, USER), (22, 40_000))

    rows = decode(templates(pflow.IPV4, pflow.IPV6), Ipfix.message(a_set(256, records), domain=42))

    assert judged(rows) == [("users -> servers", "unknown", "unproven"), ("users -> servers", "passed", "permitted")]


def test_an_echo_request_is_not_judged_as_the_reply_of_the_other_end() -> None:
    rows = decode(templates(pflow.IPV4), Ipfix.message(a_set(256, four((USER, SERVER), (0x1234, ECHO), ICMP)), domain=42))

    assert judged(rows) == [("users -> servers", "unknown", "unproven")]
