"""Log sources and fields of rules on our columns."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.batch import Batch, EventClass, Header
from ringfence.schema import build_frame
from ringfence.sigma import fields, rules
from ringfence.sigma.engine import Engine
from ringfence.sigma.rules import Rule, Unsupported


def rule_of(source: str, detection: str) -> Rule:
    loaded = rules.loads(f"title: t\nlogsource: {{{source}}}\ndetection: {{a: {detection}, condition: a}}\n")
    assert not loaded.refusals, loaded.refusals
    return loaded.rules[0]


def matched(source: str, detection: str, event_class: EventClass, columns: dict[str, list[Any]]) -> list[int]:
    routed = fields.routed(rule_of(source, detection))
    assert event_class in routed.classes
    frame = build_frame(event_class, columns)
    header = Header("b", "1.3", "", event_class, "c", "m", 0, frame.height, 0, 0, 0)
    found = Engine([routed.rule], fields.is_text).match(fields.table_of(Batch(header, frame)))
    return [row for match in found for row in match.rows.tolist()]


def test_process_creation_of_windows_reads_the_columns_of_processes() -> None:
    columns: dict[str, list[Any]] = {
        "event.action": ["exec", "exit", "exec", "exec"],
        "process.executable": ["C:\\Windows\\cmd.exe"] * 3 + ["/bin/cmd.exe"],
        "winlog.channel": ["Security", "Security", "System", None],
    }

    assert matched(
        "product: windows, category: process_creation", "{Image|endswith: cmd.exe}", EventClass.PROCESS, columns
    ) == [
        0,
        2,
    ]


def test_a_field_of_windows_without_a_column_is_read_from_the_event_data() -> None:
    columns: dict[str, list[Any]] = {
        "winlog.channel": ["Security", "Security", "System"],
        "event.code": ["4624", "4624", "4624"],
        "winlog.event_data": ['{"KeyLength":"0"}', '{"KeyLength":"128"}', '{"KeyLength":"0"}'],
    }

    assert matched("product: windows, service: security", "{EventID: 4624, KeyLength: 0}", EventClass.AUTH, columns) == [0]


def test_linux_rules_do_not_see_windows_events() -> None:
    columns: dict[str, list[Any]] = {
        "event.action": ["exec", "exec"],
        "process.command_line": ["nc -e /bin/sh", "nc -e /bin/sh"],
        "winlog.channel": [None, "Security"],
    }

    assert matched("product: linux, category: process_creation", "{CommandLine|contains: nc}", EventClass.PROCESS, columns) == [
        0
    ]


def test_addresses_protocols_and_times_are_text_to_a_rule() -> None:
    columns: dict[str, list[Any]] = {
        "@timestamp": [1_795_592_663_000_000] * 3,
        "source.ip": [0x0A000001, 0x0A000002, None],
        "source.ip6": [None, None, bytes.fromhex("20010db8") + bytes(11) + b"\1"],
        "network.iana_number": [6, 17, 6],
        "destination.port": [22, 22, 22],
    }
    source = "product: ringfence, category: flow"

    assert matched(source, "{source.ip: 10.0.0.1}", EventClass.FLOW, columns) == [0]
    assert matched(source, "{source.ip|cidr: '2001:db8::/32'}", EventClass.FLOW, columns) == [2]
    assert matched(source, "{network.transport: tcp, destination.port: 22}", EventClass.FLOW, columns) == [0, 2]
    assert matched(source, "{'@timestamp|hour': 7}", EventClass.FLOW, columns) == [0, 1, 2]


def test_keywords_see_the_line_and_all_text() -> None:
    columns: dict[str, list[Any]] = {"event.original": [b"one \xff EVIL", b"two"], "message": ["x", "evil too"]}

    assert matched("product: linux", "[evil]", EventClass.AUTH, columns) == [0, 1]


def test_a_log_of_zeek_without_a_class_is_read_from_its_line() -> None:
    columns: dict[str, list[Any]] = {
        "ringfence.generic.type": ["dce_rpc", "dce_rpc", "rdp"],
        "event.original": [b'{"operation":"x","id.orig_h":"10.0.0.1"}', b'{"operation":"y"}', b'{"operation":"x"}'],
    }

    assert matched("product: zeek, service: dce_rpc", "{operation: x}", EventClass.GENERIC, columns) == [0]


def test_fields_of_zeek_and_suricata_are_those_of_the_column_table() -> None:
    assert matched(
        "product: zeek, service: dns", "{query|endswith: .example}", EventClass.DNS, {"dns.question.name": ["a.example"]}
    ) == [0]
    assert matched("product: suricata", "{tls.sni: a.example}", EventClass.TLS, {"tls.client.server_name": ["a.example"]}) == [
        0
    ]


@pytest.mark.parametrize(
    ("source", "detection", "reason"),
    [
        ("product: mars", "{A: 1}", "log source 'product: mars' is not mapped to events"),
        ("product: ringfence, category: flows", "{A: 1}", "category 'flows' is none of ringfence's; known: any, alert, auth"),
        ("product: ringfence, category: flow", "{source.ipp: 1}", "field 'source.ipp' has no column in log source"),
        ("category: proxy", "{cs-cookie: 1}", "field 'cs-cookie' has no column in log source 'category: proxy'"),
        ("product: windows, service: security", "{'a]b': 1}", "field 'a]b' has no column"),
    ],
)
def test_what_no_column_has_is_refused(source: str, detection: str, reason: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        fields.routed(rule_of(source, detection))

    assert str(refusal.value).startswith(reason)
