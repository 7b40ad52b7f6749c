"""Tracee: processes, connections, names, files and signatures of its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.tracee import KIND, TraceeDecoder
from ringfence import registry
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.json_lines import check_accounts, check_parts, damaged_lines, decode, one, rows

SAMPLES = (Path(__file__).parent / "cases" / "tracee" / "events" / "input.json").read_bytes().splitlines(keepends=True)
TIME, TIME_US = "2026-11-25T07:44:23.123456789Z", 1_795_592_663_123_456


def line(record: Any) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def event(name: str, arguments: dict[str, Any] | None = None, **members: Any) -> bytes:
    args = [{"name": key, "type": "t", "value": value} for key, value in (arguments or {}).items()]
    return line({"timestamp": 1_795_592_663_123_456_789, "eventName": name, "processId": 7, "args": args, **members})


@given(st.integers(1, 2**31 - 1), st.lists(st.text(max_size=9), min_size=1, max_size=4))
def test_what_is_encoded_is_decoded_again(pid: int, argv: list[str]) -> None:
    row = one(TraceeDecoder(), event("sched_process_exec", {"argv": argv, "pathname": "/bin/x"}, hostProcessId=pid))

    assert (row["@timestamp"], row["process.pid"], row["process.executable"]) == (TIME_US, pid, "/bin/x")
    assert row.get("process.command_line", "") == " ".join(argv)


@pytest.mark.parametrize(
    ("address", "column", "ip"),
    [
        ({"sa_family": "AF_INET", "sin_addr": "10.2.0.9", "sin_port": "443"}, "destination.ip", frames.v4("10.2.0.9")),
        ({"sa_family": "AF_INET6", "sin6_addr": "fd00::9", "sin6_port": "443"}, "destination.ip6", frames.v6("fd00::9")),
    ],
)
def test_a_connect_goes_to_the_address_of_its_argument(address: dict[str, Any], column: str, ip: Any) -> None:
    row = one(TraceeDecoder(), event("security_socket_connect", {"remote_addr": address}))

    assert (row[column], row["destination.port"], row["ringfence.flow.direction"]) == (ip, 443, "egress")


def test_a_connect_to_a_unix_socket_is_generic() -> None:
    (row,) = rows(decode(TraceeDecoder(), event("security_socket_connect", {"remote_addr": {"sun_path": "/run/x"}})))

    assert row["class"] == "generic"


def test_an_answer_is_turned_round() -> None:
    meta = {"src_ip": "10.0.0.53", "src_port": 53, "dst_ip": "10.1.0.5", "dst_port": 40000}
    response = [{"query_data": {"query": "a.example", "query_type": "A"}}]
    row = one(TraceeDecoder(), event("net_packet_dns_response", {"metadata": meta, "dns_response": response}))

    assert (row["source.ip"], row["destination.port"], row["dns.question.name"]) == (frames.v4("10.1.0.5"), 53, "a.example")


def test_a_signature_is_an_alert() -> None:
    found = {"Properties": {"Severity": 3, "signatureID": "TRC-1", "signatureName": "Bad"}, "Description": "Very."}
    row = one(TraceeDecoder(), event("bad", metadata=found))

    assert (row["class"], row["rule.id"], row["rule.name"], row["event.severity"]) == ("alert", "TRC-1", "Bad", 73)


LINES = damaged_lines(
    SAMPLES, ["eventName", "timestamp", "args", "name", "value", "processId", "metadata", "Properties", "Severity", "x"]
)


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(TraceeDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(TraceeDecoder, lines, size)


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [registry.recognise(data) for data in (SAMPLES[0], b"\n" + SAMPLES[1], b'{"a":1}')]

    assert [entry and entry.name for entry in found] == ["tracee", "tracee", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.log"})

    assert KIND.build(settings, BuildContext("one", EMPTY)).module == "tracee"
    assert list(KIND.resources(settings)) == ["file /logs/events.log"]
