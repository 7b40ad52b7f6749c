"""Suricata EVE lines: each event type, what is refused and where, and that every line is accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.suricata import EVENT_CLASSES, KIND, SuricataDecoder
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from collectors.unix import UnixStreamShell
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.jsonlines import MAX_LINE_BYTES
from ringfence.topology import EMPTY
from tests import frames
from tests.eve_lines import flow

SOURCE = Source("eve.json", 0xFEED)
AT = "2026-11-25T07:44:23.123456+0000"
AT_US = 1_795_592_663_123_456
BASE = {"timestamp": AT, "src_ip": "10.1.0.5", "src_port": 50_000, "dest_ip": "10.2.0.9", "dest_port": 443, "proto": "TCP"}


def line(event_type: str = "flow", **members: Any) -> bytes:
    return json.dumps({**BASE, "event_type": event_type, **members}).encode() + b"\n"


def decode(*lines: bytes, decoder: SuricataDecoder | None = None) -> Decoded:
    return (decoder or SuricataDecoder()).feed(frames_of(lines, SOURCE))


def rows(*lines: bytes, decoder: SuricataDecoder | None = None) -> list[dict[str, Any]]:
    """All rows without what is null, in stream order."""
    found = [row for frame in decode(*lines, decoder=decoder).rows.values() for row in frame.to_dicts()]
    found.sort(key=lambda row: int(row["ringfence.event.position"]))
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def one(event_type: str = "flow", **members: Any) -> dict[str, Any]:
    (row,) = rows(line(event_type, **members))
    return row


ENDS = {
    "@timestamp": AT_US, "source.ip": frames.v4("10.1.0.5"), "source.port": 50_000, "destination.ip": frames.v4("10.2.0.9"), "destination.port": 443,
    "ringfence.event.source": 0xFEED, "ringfence.event.position": 0,
}  # fmt: skip
TYPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flow": (
        {"flow": {"pkts_toserver": 5, "bytes_toserver": 500, "pkts_toclient": 0, "bytes_toclient": 0, "start": AT, "end": AT, "state": "new", "reason": "timeout", "action": "drop"}, "tcp": {"tcp_flags_ts": "1b", "tcp_flags_tc": "00"}, "app_proto": "tls", "flow_id": 2**63 + 5, "community_id": "1:x", "in_iface": "em0", "host": "ids1", "vlan": [10, 20]},
        {"source.packets": 5, "source.bytes": 500, "destination.packets": 0, "destination.bytes": 0, "event.start": AT_US, "event.end": AT_US, "ringfence.flow.state": "new", "ringfence.flow.reason": "timeout", "ringfence.flow.action": "drop", "ringfence.tcp.source_flags": 0x1B, "ringfence.tcp.destination_flags": 0, "network.protocol": "tls", "ringfence.flow.id": str(2**63 + 5), "network.community_id": "1:x", "observer.ingress.interface.name": "em0", "observer.name": "ids1", "network.vlan.id": 10},
    ),
    "netflow": (
        {"netflow": {"pkts": 3, "bytes": 180, "start": AT, "end": AT, "age": 0, "min_ttl": 64, "max_ttl": 64}, "tcp": {"tcp_flags": "1b", "syn": True}, "app_proto": "tls"},
        {"source.packets": 3, "source.bytes": 180, "event.start": AT_US, "event.end": AT_US, "ringfence.tcp.source_flags": 0x1B, "network.protocol": "tls"},
    ),
    "dns": ({"dns": {"type": "answer", "id": 7, "rrname": "a.example", "rrtype": "A", "rcode": "NOERROR"}}, {"dns.type": "answer", "dns.id": 7, "dns.question.name": "a.example", "dns.question.type": "A", "dns.response_code": "NOERROR"}),
    "http": ({"http": {"hostname": "h", "url": "/x", "http_method": "GET", "status": 200, "length": 9, "http_user_agent": "curl", "http_refer": "http://h/", "http_content_type": "text/html"}}, {"http.request.referrer": "http://h/", "http.response.mime_type": "text/html", "url.domain": "h", "url.original": "/x", "http.request.method": "GET", "http.response.status_code": 200, "http.response.body.bytes": 9, "user_agent.original": "curl"}),
    "tls": ({"tls": {"sni": "h", "version": "TLS 1.3", "subject": "CN=h", "issuerdn": "CN=i", "fingerprint": "aa:bb", "ja3": {"hash": "ff"}, "ja3s": {"hash": "ee"}, "ja4": "t13d"}}, {"tls.server.ja3s": "ee", "ringfence.tls.ja4": "t13d", "tls.client.server_name": "h", "tls.version": "TLS 1.3", "tls.server.subject": "CN=h", "tls.server.issuer": "CN=i", "tls.server.hash.sha1": "aa:bb", "tls.client.ja3": "ff"}),
    "ssh": ({"ssh": {"client": {"software_version": "PuTTY"}, "server": {"software_version": "OpenSSH"}}}, {"ringfence.ssh.client": "PuTTY", "ringfence.ssh.server": "OpenSSH"}),
    "alert": ({"alert": {"action": "blocked", "signature_id": 2_001_219, "rev": 3, "signature": "ET SCAN", "category": "Attempted", "severity": 2}, "verdict": {"action": "drop", "reject-target": "to_client", "reject": ["tcp-reset"]}}, {"ringfence.ids.reject": "tcp-reset", "ringfence.ids.reject_target": "to_client", "ringfence.ids.action": "blocked", "rule.id": "2001219", "rule.version": "3", "rule.name": "ET SCAN", "rule.category": "Attempted", "event.severity": 73, "ringfence.ids.verdict": "drop"}),
    "drop": ({"drop": {"reason": "rules", "len": 60}}, {"ringfence.ids.verdict": "drop", "ringfence.ids.reason": "rules"}),
    "fileinfo": ({"fileinfo": {"filename": "/x.exe", "size": 5, "sha256": "ab", "sha1": "cd", "md5": "ef"}}, {"file.hash.sha1": "cd", "file.hash.md5": "ef", "file.name": "/x.exe", "file.size": 5, "file.hash.sha256": "ab"}),
}  # fmt: skip


@pytest.mark.parametrize("event_type", TYPES)
def test_an_event_type_fills_its_columns(event_type: str) -> None:
    members, expected = TYPES[event_type]
    original = line(event_type, **members).rstrip()

    assert one(event_type, **members) == {**ENDS, "network.iana_number": 6, "event.original": original, **expected}


@pytest.mark.parametrize("event_type", TYPES)
def test_an_event_type_has_its_class(event_type: str) -> None:
    assert list(decode(line(event_type)).rows) == [EVENT_CLASSES[event_type]]


def test_every_known_event_type_is_tested() -> None:
    assert set(TYPES) == set(EVENT_CLASSES)


WITHOUT_CLASS = [
    "anomaly", "stats", "smb", "dcerpc", "rdp", "rfb", "krb5", "dhcp", "snmp", "mqtt", "nfs", "ftp", "ftp_data", "tftp", "smtp", "sip", "ike",
    "quic", "pgsql", "ldap", "mdns", "llmnr", "modbus", "dnp3", "enip", "http2", "websocket", "bittorrent_dht", "arp", "frame", "metadata",
    "packet", "engine", "", "Flow", "h\u00f6",
]  # fmt: skip


@pytest.mark.parametrize("event_type", WITHOUT_CLASS)
def test_an_unknown_event_type_is_a_generic_row_with_its_line(event_type: str) -> None:
    original = line(event_type, host="ids1").rstrip()

    assert one(event_type, host="ids1") == {
        **ENDS,
        "observer.name": "ids1",
        "ringfence.generic.type": event_type,
        "event.original": original,
    }


def test_a_generic_row_keeps_its_line_even_when_lines_are_dropped() -> None:
    found = rows(line(), line("anomaly"), decoder=SuricataDecoder(keep_original=False))

    assert ["event.original" in row for row in found] == [False, True]


def test_a_packet_to_the_client_is_turned_round() -> None:
    row = one("alert", direction="to_client", src_ip="10.2.0.9", src_port=443, dest_ip="10.1.0.5", dest_port=50_000)

    assert {name: row[name] for name in ENDS} == ENDS


def test_a_packet_to_the_client_over_ipv6_is_turned_round() -> None:
    row = one("alert", direction="to_client", src_ip="2001:db8::1", dest_ip="2001:db8::2")

    assert (row["source.ip6"], row["destination.ip6"]) == (frames.v6("2001:db8::2"), frames.v6("2001:db8::1"))


def test_only_the_packets_to_the_client_are_turned_round() -> None:
    found = rows(line("alert", direction="to_server"), line("alert", direction="to_client"), line("alert"))

    assert [row["source.port"] for row in found] == [50_000, 443, 50_000]


CLIENT_FIRST = {"src_ip": "10.1.0.5", "src_port": 50_000, "dest_ip": "10.2.0.9", "dest_port": 443}
SERVER_FIRST = {"src_ip": "10.2.0.9", "src_port": 443, "dest_ip": "10.1.0.5", "dest_port": 50_000}


@pytest.mark.parametrize("event_type", ["alert", "drop"])
@pytest.mark.parametrize("packet", [CLIENT_FIRST, SERVER_FIRST], ids=["to the server", "to the client"])
@pytest.mark.parametrize("direction", ["to_client", "to_server", None])
def test_the_initiator_of_the_flow_is_the_source_whatever_the_direction_says(
    event_type: str, packet: dict[str, Any], direction: str | None
) -> None:
    row = one(event_type, direction=direction, flow=CLIENT_FIRST, **packet)

    assert {name: row[name] for name in ENDS} == ENDS


def test_a_host_that_talks_to_itself_is_known_by_its_ports() -> None:
    here = {"src_ip": "10.1.0.5", "dest_ip": "10.1.0.5"}

    row = one("alert", **{**SERVER_FIRST, **here}, flow={**CLIENT_FIRST, **here})

    assert (row["source.port"], row["destination.port"]) == (50_000, 443)


@pytest.mark.parametrize(("direction", "source"), [("to_client", "10.1.0.5"), ("to_server", "10.3.0.1"), (None, "10.3.0.1")])
def test_of_a_packet_that_is_about_a_flow_the_direction_counts(direction: str | None, source: str) -> None:
    ends = {"src_ip": "10.3.0.1", "src_port": None, "dest_ip": "10.1.0.5", "dest_port": None}

    assert one("alert", direction=direction, flow=CLIENT_FIRST, **ends)["source.ip"] == frames.v4(source)


def test_without_ports_the_flow_of_equal_ends_leaves_it_to_the_direction() -> None:
    ends = {"src_ip": "10.1.0.5", "src_port": None, "dest_ip": "10.1.0.5", "dest_port": None}

    assert one("alert", direction="to_client", flow=ends, **ends)["source.ip"] == frames.v4("10.1.0.5")


@pytest.mark.parametrize(
    ("verdict", "target"),
    [
        ({"reject_target": "both"}, "both"),
        ({"reject-target": "to_client"}, "to_client"),
        ({"reject_target": "to_server", "reject-target": "to_client"}, "to_server"),
        ({}, None),
    ],
)
def test_the_reject_target_has_two_spellings(verdict: dict[str, str], target: str | None) -> None:
    assert one("alert", verdict=verdict).get("ringfence.ids.reject_target") == target


@pytest.mark.parametrize(
    ("reject", "expected"), [(["tcp-reset"], "tcp-reset"), (["tcp-reset", "icmp-prohib"], "tcp-reset,icmp-prohib"), ([], None)]
)
def test_how_it_was_rejected_is_one_text(reject: list[str], expected: str | None) -> None:
    assert one("alert", verdict={"reject": reject}).get("ringfence.ids.reject") == expected


def test_a_netflow_record_beside_a_flow_has_nothing_back() -> None:
    counted = {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 9, "bytes_toclient": 8}
    found = rows(line("netflow", netflow={"pkts": 3, "bytes": 180}), line("flow", flow=counted))

    assert [(row.get("source.packets"), row.get("destination.packets")) for row in found] == [(3, None), (5, 4)]


QUESTION = {"queries": [{"rrname": "a.example", "rrtype": "A"}], "id": 7}
ANSWERS = {
    "answers": [{"rrname": "a.example", "rrtype": "CNAME", "ttl": 5, "rdata": "b.example"}],
    "grouped": {"CNAME": ["b.example"]},
}
FLAT = {"rrname": "a.example", "rrtype": "A", "id": 7}
AS_QUERY = {"dns.type": "query", "dns.id": 7, "dns.question.name": "a.example", "dns.question.type": "A"}
AS_ANSWER = {**AS_QUERY, "dns.type": "answer", "dns.response_code": "NXDOMAIN"}


@pytest.mark.parametrize(
    ("dns", "expected"),
    [
        ({"type": "query", **FLAT}, AS_QUERY),
        ({"type": "answer", "rcode": "NXDOMAIN", **FLAT, "ttl": 5, "rdata": "10.0.0.1"}, AS_ANSWER),
        ({"version": 2, "type": "query", **FLAT}, AS_QUERY),
        ({"version": 2, "type": "answer", "rcode": "NXDOMAIN", **FLAT, **ANSWERS}, AS_ANSWER),
        ({"version": 3, "type": "request", **QUESTION}, AS_QUERY),
        ({"version": 3, "type": "request", "rcode": "NOERROR", **QUESTION}, AS_QUERY),
        ({"version": 3, "type": "response", "rcode": "NXDOMAIN", **QUESTION, **ANSWERS}, AS_ANSWER),
    ],
)
def test_dns_records_of_every_version_fill_the_same_columns(dns: dict[str, Any], expected: dict[str, Any]) -> None:
    row = one("dns", dest_port=53, dns=dns)

    assert {name: value for name, value in row.items() if name.startswith("dns.")} == expected


@pytest.mark.parametrize("queries", [None, [], [{}], [{"rrname": None}]])
def test_a_response_without_a_question_has_no_name(queries: list[dict[str, None]] | None) -> None:
    row = one("dns", dns={"version": 3, "type": "response", "rcode": "REFUSED", "queries": queries, **ANSWERS})

    assert ("dns.question.name" in row, row["dns.response_code"]) == (False, "REFUSED")


def test_of_several_questions_the_first_counts() -> None:
    questions = [{"rrname": "a", "rrtype": "A"}, {"rrname": "b", "rrtype": "AAAA"}]
    row = one("dns", dns={"version": 3, "type": "request", "queries": questions})

    assert (row["dns.question.name"], row["dns.question.type"]) == ("a", "A")


@pytest.mark.parametrize(
    ("kind", "ports", "expected"),
    [
        ("response", (53, 50_000), (50_000, 53)),
        ("response", (5353, 50_000), (50_000, 5353)),
        ("response", (50_000, 53), (50_000, 53)),
        ("request", (50_000, 53), (50_000, 53)),
        ("answer", (50_000, 53), (50_000, 53)),
        ("answer", (53, 50_000), (53, 50_000)),
    ],
)
def test_the_client_of_a_response_of_version_3_comes_first(
    kind: str, ports: tuple[int, int], expected: tuple[int, int]
) -> None:
    row = one("dns", src_port=ports[0], dest_port=ports[1], dns={"type": kind})

    assert (row["source.port"], row["destination.port"]) == expected


def test_dns_records_of_two_versions_in_one_block_do_not_mix() -> None:
    found = rows(
        line("dns", src_port=53, dns={"version": 3, "type": "response", **QUESTION}),
        line("dns", src_port=53, dns={"version": 2, "type": "answer", "rcode": "NOERROR", **FLAT}),
    )

    assert [(row["source.port"], row["dns.question.name"], row.get("dns.response_code")) for row in found] == [
        (443, "a.example", None),
        (53, "a.example", "NOERROR"),
    ]


@pytest.mark.parametrize(("given_severity", "expected"), [(1, 99), (2, 73), (3, 47), (4, 21), (255, 1)])
def test_severity_is_turned_round(given_severity: int, expected: int) -> None:
    assert one("alert", alert={"severity": given_severity})["event.severity"] == expected


def test_an_alert_without_severity_has_none() -> None:
    assert "event.severity" not in one("alert", alert={"signature": "x"})


@pytest.mark.parametrize(
    ("name", "number"),
    [("TCP", 6), ("udp", 17), ("ICMP", 1), ("IPv6-ICMP", 58), ("SCTP", 132), ("GRE", 47), ("IGMP", 2), ("089", 89), ("41", 41)],
)
def test_a_protocol_is_known_by_name_or_number(name: str, number: int) -> None:
    assert one(proto=name)["network.iana_number"] == number


@pytest.mark.parametrize("name", ["", "NEWPROTO", "256", "-1", "\u0662"])
def test_an_unknown_protocol_is_absent(name: str) -> None:
    assert "network.iana_number" not in one(proto=name)


def test_ipv6_ends_are_kept_as_bytes() -> None:
    row = one(src_ip="2001:db8::1", dest_ip="fe80::2")

    assert (row["source.ip6"], row["destination.ip6"]) == (frames.v6("2001:db8::1"), frames.v6("fe80::2"))


def test_a_mapped_address_is_ipv4() -> None:
    row = one(src_ip="::ffff:10.1.0.5")

    assert (row["source.ip"], "source.ip6" in row) == (frames.v4("10.1.0.5"), False)


def test_the_configured_observer_stands_in_for_a_missing_host() -> None:
    found = rows(line(host="ids1"), line(), decoder=SuricataDecoder("sensor"))

    assert [row["observer.name"] for row in found] == ["ids1", "sensor"]


@pytest.mark.parametrize("vlan", [[], [-1], [5000], [10**30]])
def test_a_vlan_that_is_none_is_absent(vlan: list[int]) -> None:
    assert "network.vlan.id" not in one(vlan=vlan)


def test_blank_lines_are_counted_apart() -> None:
    assert decode(b"\n", b" \r\n", line()).filtered == {"blank": 2}


def test_no_lines_give_nothing() -> None:
    decoded = decode()

    assert (decoded.rows, decoded.taken, decoded.problems) == ({}, 0, [])


def text(bad: Any, key: str = "src_port", event_type: str = "flow") -> bytes:
    return f'{{"timestamp":"{AT}","event_type":"{event_type}","{key}":{json.dumps(bad)}}}'.encode()


OF_VALUE = len('{"timestamp":"' + AT + '","event_type":"flow","src_port":')
OF_DEST, OF_START = OF_VALUE + 1, OF_VALUE + 5
PORT, ADDRESS, TIME = "Number out of range", "Expected an IPv4 or IPv6 address", "Expected an ISO 8601 time"
WRONG, MALFORMED = ProblemCode.WRONG_TYPE, ProblemCode.MALFORMED
DEEP = text(1).rstrip(b"}") + b',"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}"
REFUSED: dict[str, tuple[bytes, ProblemCode, str, int, str | None]] = {
    "port beyond 65535": (text(65_536), WRONG, PORT, OF_VALUE, "$.src_port"),
    "negative port": (text(-1, "dest_port"), WRONG, PORT, OF_DEST, "$.dest_port"),
    "port beyond 64 bits": (text(10**30), WRONG, PORT, OF_VALUE, "$.src_port"),
    "text for a port": (text("80"), WRONG, "Expected `int | null`, got `str`", OF_VALUE, "$.src_port"),
    "1.0 for a port": (text(80.0), WRONG, "Expected `int | null`, got `float`", OF_VALUE, "$.src_port"),
    "no address": (text("10.1", "src_ip"), WRONG, ADDRESS, OF_VALUE - 2, "$.src_ip"),
    "no address at the other end": (text("", "dest_ip"), WRONG, ADDRESS, OF_VALUE - 1, "$.dest_ip"),
    "no time": (b'{"event_type":"flow","timestamp":"yesterday"}', WRONG, f"{TIME} such as {AT.replace('T07', 'T07')}", 33, "$.timestamp"),
    "time missing": (b'{"event_type":"flow"}', WRONG, f"{TIME} such as {AT}", 0, "$.timestamp"),
    "no start of the flow": (text({"start": "x"}, "flow"), WRONG, TIME, len('{"timestamp":"' + AT + '","event_type":"flow","flow":{"start": '), "$.flow.start"),
    "count beyond 64 bits": (text({"pkts_toserver": 2**63}, "flow"), WRONG, PORT, len('{"timestamp":"' + AT + '","event_type":"flow","flow":{"pkts_toserver": '), "$.flow.pkts_toserver"),
    "event type of another type": (b'{"event_type":5}', WRONG, "Expected `str | null`, got `int`", 14, "$.event_type"),
    "no event type": (b'{"src_port":5}', WRONG, "Object missing required field `event_type`", 0, "$"),
    "generic with a wrong port": (text("x", event_type="anom"), WRONG, "Expected `int | null`, got `str`", OF_VALUE, "$.src_port"),
    "generic with a port out of range": (text(70_000, event_type="anom"), WRONG, PORT, OF_VALUE, "$.src_port"),
    "not an object": (b"[]", WRONG, "Expected `object`, got `array`", 0, "$"),
    "cut": (text(80)[:-1], MALFORMED, "the line ends inside a JSON value", len(text(80)) - 1, None),
    "half a surrogate pair": (text("x", "note").replace(b'"x"', b'"\\ud800"'), MALFORMED, "half of a surrogate pair in a string", OF_VALUE - 3, None),
    "invalid UTF-8 in a field": (text("x", "host").replace(b'"x"', b'"\xff"'), MALFORMED, "byte 0xff is not valid UTF-8", OF_VALUE - 3, None),
    "invalid UTF-8 in a skipped field": (text("x", "note").replace(b'"x"', b'"\xff"'), MALFORMED, "byte 0xff is not valid UTF-8", OF_VALUE - 3, None),
    "NaN": (text(80).replace(b"80", b"NaN"), MALFORMED, "JSON is malformed: invalid character", OF_VALUE, None),
    "two objects": (text(80) * 2, MALFORMED, "JSON is malformed: trailing characters", len(text(80)), None),
    "deep nesting": (DEEP, MALFORMED, "objects nest too deeply", 0, None),
    "too long": (text("x" * MAX_LINE_BYTES, "note"), ProblemCode.TOO_LARGE, f"the line is longer than {MAX_LINE_BYTES} bytes", MAX_LINE_BYTES, None),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_line_says_what_and_where(case: str) -> None:
    bad, *expected = REFUSED[case]

    (problem,) = decode(bad).problems

    assert [problem.code, problem.detail, problem.offset, problem.path] == expected


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_line_touches_no_neighbour(case: str) -> None:
    found = decode(line(), REFUSED[case][0], line())

    assert (found.taken, [problem.row for problem in found.problems]) == (2, [1])


def test_a_problem_carries_its_line_and_its_place_in_the_stream() -> None:
    first, bad = line(), text("x")

    (problem,) = decode(first, bad).problems

    assert (problem.raw, problem.source, problem.position) == (bad, SOURCE, len(first))


def test_of_duplicate_keys_the_last_counts() -> None:
    assert rows(text(1).replace(b'"src_port":1', b'"src_port":1,"src_port":2'))[0]["source.port"] == 2


def test_rows_keep_their_place_in_the_stream() -> None:
    first = line("dns")

    assert [row["ringfence.event.position"] for row in rows(first, line(), line("dns"))] == [
        0,
        len(first),
        len(first) + len(line()),
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([AT, "10.0.0.1", "::1", "TCP", "to_client"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
PORTS = st.integers(-2, 65_538) | st.integers(-(2**70), 2**70)
EVENT = st.fixed_dictionaries(
    {"event_type": st.sampled_from([*EVENT_CLASSES, "anomaly"]), "timestamp": st.sampled_from([AT, "2026-11-25", "bad"])},
    optional={
        "src_ip": st.sampled_from(["10.0.0.1", "::1", "::ffff:1.2.3.4", "10.1"]),
        "dest_ip": st.sampled_from(["10.0.0.2", "fe80::1", ""]),
        "src_port": PORTS,
        "dest_port": PORTS,
        "proto": st.sampled_from(["TCP", "UDP", "odd", "017"]),
        "direction": st.sampled_from(["to_client", "to_server"]),
        "vlan": st.lists(PORTS, max_size=3),
        "flow": st.fixed_dictionaries(
            {},
            optional={
                "pkts_toserver": PORTS,
                "start": st.sampled_from([AT, "bad"]),
                "action": st.text(max_size=4),
                "src_ip": st.sampled_from(["10.0.0.1", "10.0.0.2", "odd"]),
                "dest_ip": st.sampled_from(["10.0.0.1", "10.0.0.2"]),
            },
        ),
        "netflow": st.fixed_dictionaries({}, optional={"pkts": PORTS, "end": st.sampled_from([AT, "bad"])}),
        "tcp": st.fixed_dictionaries({"tcp_flags_ts": st.sampled_from(["1b", "zz", ""])}),
        "alert": st.fixed_dictionaries(
            {}, optional={"severity": PORTS, "signature_id": PORTS, "signature": st.text(max_size=5)}
        ),
        "dns": st.fixed_dictionaries(
            {},
            optional={
                "id": PORTS,
                "rcode": st.text(max_size=4),
                "type": st.sampled_from(["query", "answer", "request", "response", "odd"]),
                "queries": st.lists(st.fixed_dictionaries({}, optional={"rrname": st.text(max_size=4)}), max_size=2),
            },
        ),
        "icmp_type": PORTS,
        "flow_id": PORTS,
    },
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        EVENT.map(lambda event: json.dumps(event).encode()),
        st.dictionaries(st.sampled_from([*BASE, "event_type", "flow", "alert", "vlan", "x"]), JSON, max_size=5).map(lambda event: json.dumps(event).encode()),
        st.sampled_from([b"", b"\n", line(), line("dns"), line()[:-9], line("alert", direction="to_client")]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES)
def test_every_line_is_accounted_for(lines: list[bytes]) -> None:
    decoded = decode(*lines)

    assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held == len(lines)
    assert decoded.taken == sum(frame.height for frame in decoded.rows.values())


@given(LINES)
def test_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    for problem in decode(*lines).problems:
        assert problem.row is not None
        assert problem.raw == lines[problem.row]
        assert 0 <= (problem.offset or 0) <= len(problem.raw)


def in_pieces(lines: Sequence[bytes], size: int) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
    """What one decoder makes of the lines, some at a time."""
    decoder, positions = SuricataDecoder(), range(len(lines))
    found: list[dict[str, Any]] = []
    problems: list[tuple[str, int]] = []
    for start in range(0, len(lines), size):
        decoded = decoder.feed(frames_of(lines[start : start + size], SOURCE, 0, positions[start : start + size]))
        found += [row for frame in decoded.rows.values() for row in frame.to_dicts()]
        problems += [(problem.detail, problem.position) for problem in decoded.problems]
    found.sort(key=lambda row: int(row["ringfence.event.position"]))
    return [{name: value for name, value in row.items() if value is not None} for row in found], problems


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    assert in_pieces(lines, size) == in_pieces(lines, len(lines) or 1)


def test_more_lines_than_a_chunk_are_all_taken() -> None:
    assert decode(*[line(), line("dns"), line("odd"), b"bad"] * 400).taken == 1200


EVE_FORMAT = KIND.formats[0]


@pytest.mark.parametrize(
    ("first", "expected"), [(line(), True), (b"\n" + line(), True), (b" " + line(), False), (b'{"ts":1}', False), (b"", False)]
)
def test_eve_is_recognised_by_its_first_bytes(first: bytes, expected: bool) -> None:
    assert EVE_FORMAT.recognise(first) is expected


@pytest.mark.parametrize(
    ("options", "shell", "claim"),
    [
        ({"path": "/var/log/eve.json"}, TailShell, "file /var/log/eve.json"),
        ({"listen": "tcp://127.0.0.1:5170"}, TcpShell, "tcp 127.0.0.1:5170"),
        ({"listen": "tcp://[::1]:5170"}, TcpShell, "tcp [::1]:5170"),
        ({"listen": "unix:///run/eve.sock"}, UnixStreamShell, "unix /run/eve.sock"),
    ],
)
def test_a_path_or_an_address_chooses_the_shell_and_is_claimed(options: dict[str, str], shell: type, claim: str) -> None:
    settings = KIND.settings.model_validate(options)

    assert isinstance(KIND.build(settings, BuildContext("ids", EMPTY)).shell, shell)
    assert list(KIND.resources(settings)) == [claim]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of path, listen and kafka is required"),
        ({"path": "/x", "listen": "tcp://h:1"}, "exactly one of path, listen and kafka is required"),
        ({"listen": "udp://h:1"}, "'udp://h:1' is not tcp://HOST:PORT or unix:///PATH"),
        ({"listen": "unix://relative"}, "'unix://relative' is not tcp://HOST:PORT or unix:///PATH"),
        ({"listen": "tcp://h"}, "'h' is not HOST:PORT"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KIND.settings.model_validate(options)


def test_the_entry_point_builds_the_collector() -> None:
    settings = KIND.settings.model_validate({"path": "/var/log/eve.json", "original": "drop"})

    assert KIND.build(settings, BuildContext("ids", EMPTY)).module == "suricata"


def test_rows_of_a_stream_that_lost_lines_are_marked_lossy() -> None:
    block = replace(frames_of([flow(1), flow(2)], Source("eve", 1)), lossy=frozenset({0}))

    decoded = SuricataDecoder().feed(block)

    assert decoded.rows[EventClass.FLOW]["ringfence.evidence.lossy"].to_list() == [True, True]
